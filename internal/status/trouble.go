package status

import (
	"fmt"
	"strings"
	"time"

	"rotatord/internal/moment"
)

// Severity says how soon an operator must act.
type Severity string

// The severities. The alerting rules use the same ones.
const (
	// Critical: clients are, or soon will be, locked out, or rotations that are due cannot begin.
	Critical Severity = "critical"
	// Warning: an operator can act on the next working day.
	Warning Severity = "warning"
)

// Trouble is something that an operator has to know before anything else.
type Trouble struct {
	Severity Severity `json:"severity"`
	// Kind is one of those in docs/runbook.md, or "check" if a look-ahead check fails.
	Kind string `json:"kind"`
	// Check is the check that fails, if Kind is "check".
	Check *Check `json:"failing_check,omitempty"`
	// Tokens are the sorted names of the tokens that are in this trouble. It is empty for a check.
	Tokens []string `json:"tokens,omitempty"`
	// Replicas are the sorted names of the replicas that it is about; empty if it is about tokens or a check.
	Replicas []string `json:"replicas,omitempty"`
	// What says what is wrong, and ToDo what to do about it.
	What string `json:"what"`
	ToDo string `json:"to_do"`
	// Steps is what to do about a check or about replicas, in order, with the commands. It is nil if ToDo says all, and for
	// tokens: those have their own in [Token.ToDo].
	Steps []ToDo `json:"steps,omitempty"`
	// Runbook is the section that explains it, such as "docs/runbook.md#rotatordtokenindoubt".
	Runbook string `json:"runbook"`
	// Since is when the first of the tokens got into this trouble. Until is when the clients of the
	// first of them lose the last secret that works. Zero if that is not known.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
}

// How long before the end of a service token, the deletion of a secret by its sink, or a rotation that
// cannot begin, the token is in trouble. The alerting rules use the same times.
const (
	expiresSoon     = 14 * 24 * time.Hour
	expiresVerySoon = 3 * 24 * time.Hour
	hooksLate       = 10 * time.Minute
	deletesSoon     = 3 * 24 * time.Hour
	dueSoon         = 6 * time.Hour
)

// GraceEnding is how long before the end of a grace it is urgent to deliver the new secret.
const GraceEnding = 2 * time.Hour

// kind is a kind of trouble of a token.
type kind struct {
	name     string
	severity Severity
	what     string // after the name of one token
	many     string // after the names of several tokens; empty: as after one
	toDo     string // with NAME in the place of a token
	section  string // of docs/runbook.md, or another page
	is       func(t *Token, now time.Time) bool
	since    func(*Token) time.Time // nil: not known
	until    func(*Token) time.Time // nil: not known
}

// kinds are all kinds of trouble, the worst first.
var kinds = []kind{
	{"cut_off", Critical, "clients have no secret that works, or will have none within two minutes",
		"",
		"rotatord tries every few seconds: rotatord status NAME says what it lacks", "rotatordconsumerscutoff",
		func(t *Token, _ time.Time) bool { return t.Endangered() }, nil, func(t *Token) time.Time { return t.CutOffAt }},
	{"gone", Critical, "Cloudflare has no such service token any more: its clients are locked out",
		"Cloudflare has no such service tokens any more: their clients are locked out",
		"in its entry of the configuration write create: {name: NAME} in place of id, or the id of another service token, and reload", "rotatordtokengone",
		func(t *Token, _ time.Time) bool { return t.Gone }, nil, nil},
	{"disabled", Critical, "disabled at Cloudflare: its clients are locked out, whatever secret they have",
		"disabled at Cloudflare: their clients are locked out, whatever secrets they have",
		"find out who disabled it, and enable it in Cloudflare's dashboard: Zero Trust, Access, Service auth", "rotatordtokendisabled",
		func(t *Token, _ time.Time) bool { return t.Known && !t.Enabled }, nil, nil},
	{"expired", Critical, "the service token has expired: its clients are locked out, whatever secret they have",
		"the service tokens have expired: their clients are locked out, whatever secrets they have",
		"renew it in Cloudflare's dashboard, then set renew_before", "rotatordtokenexpiresverysoon",
		func(t *Token, now time.Time) bool { return !t.Expiry.IsZero() && !t.Expiry.After(now) }, func(t *Token) time.Time { return t.Expiry }, nil},
	{rotatedOutside, Critical, "rotated by others: the secret in its sinks is dead, or will be when the grace that they gave it ends",
		"rotated by others: the secrets in their sinks are dead, or will be when the graces that they gave them end",
		"rotatord rotate NAME gives the sinks a secret that works", "rotatordtokenrotatedoutside",
		func(t *Token, _ time.Time) bool { return !t.Outside.IsZero() }, func(t *Token) time.Time { return t.Outside }, nil},
	found("sink_empty", Critical, "a sink does not hold its secret any more: clients that read it find nothing there",
		"sinks do not hold their secrets any more: clients that read them find nothing there",
		"rotatord status NAME says what to type", "rotatordsinkempty", "gone", "destroyed", "deleted", "no_secret"),
	found("sink_changed", Critical, "a sink holds another secret than the one that was written to it",
		"sinks hold other secrets than those that were written to them",
		"rotatord status NAME says what to type", "rotatordsinkchanged", "changed", "rolled_back"),
	{"refused_in_use", Critical, "its secret in use is refused where it is tried",
		"their secrets in use are refused where they are tried",
		"look at the Access policy, the service token and the application: rotatord status NAME", "rotatordsecretinuserefused",
		func(t *Token, _ time.Time) bool { return t.RefusedInUse != nil }, func(t *Token) time.Time { return t.RefusedInUse.Since }, nil},
	{"in_doubt", Critical, "in doubt: a rotate request was sent, and it is not known whether Cloudflare carried it out",
		"in doubt: rotate requests were sent, and it is not known whether Cloudflare carried them out",
		"rotatord resolve NAME looks again, and says what can be decided", "rotatordtokenindoubt",
		func(t *Token, _ time.Time) bool { return t.Doubt != nil }, func(t *Token) time.Time { return t.Doubt.Since }, oldWorksUntil},
	{"overtaken", Critical, "its new secret is not delivered, because a sink holds a later one",
		"their new secrets are not delivered, because sinks hold later ones",
		"rotatord status NAME says what can be decided", "rotatordsecretovertaken",
		func(t *Token, _ time.Time) bool { return t.Overtaken != nil }, func(t *Token) time.Time { return t.Overtaken.Since }, nil},
	{"refused", Critical, "its new secret is in every sink, and is refused where it is tried",
		"their new secrets are in every sink, and are refused where they are tried",
		"rotatord resolve NAME says what can be decided", "rotatordverifyfailing",
		func(t *Token, _ time.Time) bool { return t.Verification != nil && t.Verification.Refused },
		func(t *Token) time.Time { return t.Verification.Since }, func(t *Token) time.Time { return t.GraceEnd }},
	{"reissue_owed", Critical, "a secret was lost, and the rotation that replaces it has not succeeded yet",
		"their secrets were lost, and the rotations that replace them have not succeeded yet",
		"rotatord status NAME says why, and how long clients have a secret that works", "rotatordreissuedelayed",
		func(t *Token, _ time.Time) bool { return !t.ReissueOwed.IsZero() }, func(t *Token) time.Time { return t.ReissueOwed }, func(t *Token) time.Time { return t.CutOffAt }},
	{"not_sealed", Critical, "a new secret may be in memory only",
		"their new secrets may be in memory only",
		"do not stop the daemon; make its disk writable: rotatord status NAME says what failed", "rotatordintentstuck",
		func(t *Token, _ time.Time) bool { return t.State == "intent" && t.Failures > 0 }, nil, nil},
	{"grace_ending", Critical, "its new secret is not in its sinks, and the previous one stops working within two hours",
		"their new secrets are not in their sinks, and the previous ones stop working within two hours",
		"rotatord status NAME says which sink cannot be written", "rotatordsecretpendinggraceending",
		func(t *Token, now time.Time) bool {
			return notDelivered(t) && graceEnds(t, now)
		}, nil, func(t *Token) time.Time { return t.GraceEnd }},
	{"version_deletes_soon", Critical, "a sink will delete its secret within three days, before it is rotated again",
		"sinks will delete their secrets within three days, before they are rotated again",
		"switch delete_version_after off: docs/vault.md", "rotatordsinkversiondeletessoon",
		func(t *Token, now time.Time) bool { return t.deletesWithin(now, 0, deletesSoon) }, nil, (*Token).deletes},
	{"expires_very_soon", Critical, "the service token expires within three days: then its clients are locked out",
		"the service tokens expire within three days: then their clients are locked out",
		"renew it in Cloudflare's dashboard, then set renew_before", "rotatordtokenexpiresverysoon",
		func(t *Token, now time.Time) bool { return expiresWithin(t, now, 0, expiresVerySoon) }, nil, func(t *Token) time.Time { return t.Expiry }},
	{"hook_failing", Warning, "a hook that follows its rotation has failed for ten minutes: clients may still use the previous secret",
		"hooks that follow their rotations have failed for ten minutes: clients may still use the previous secrets",
		"rotatord status NAME says why; when that is mended: rotatord hook run NAME", "rotatordhookfailing",
		func(t *Token, now time.Time) bool {
			since := t.HookFailing()
			return !since.IsZero() && now.Sub(since) >= hooksLate
		}, (*Token).HookFailing, func(t *Token) time.Time { return t.GraceEnd }},
	{"not_delivered", Warning, "its new secret is not in every sink yet; the previous one works until its grace ends",
		"their new secrets are not in every sink yet; the previous ones work until their graces end",
		"rotatord status NAME says which sink cannot be written", "rotatordsecretpending",
		func(t *Token, now time.Time) bool {
			return notDelivered(t) && !graceEnds(t, now)
		}, nil, func(t *Token) time.Time { return t.GraceEnd }},
	{"failing", Warning, "its rotations fail; its present secret works on",
		"their rotations fail; their present secrets work on",
		"rotatord status NAME has the last error; the next attempt comes by itself", "rotatordrotationfailing",
		func(t *Token, _ time.Time) bool {
			return t.Failures > 0 && !t.Unread && t.Doubt == nil && t.Overtaken == nil && t.State != "sealed" && t.State != "intent" && t.ReissueOwed.IsZero() && !t.Endangered()
		}, nil, nil},
	{unread, Warning, "its record in the shared ledger cannot be used, so this replica does not know its state and does not rotate it",
		"their records in the shared ledger cannot be used, so this replica does not know their states and does not rotate them",
		"rotatord status NAME says what is wrong with the record, and what to type", "rotatordrecordunreadable",
		func(t *Token, _ time.Time) bool { return t.Unread }, nil, nil},
	{"late_answer", Warning, "an answer came after the claim had ended, and a later secret had taken its place: it is kept and not delivered",
		"answers came after their claims had ended, and later secrets had taken their place: they are kept and not delivered",
		"nothing, if it was one; find out what stops or delays this machine: docs/runbook.md#rotatordlateanswer", "rotatordlateanswer",
		func(t *Token, _ time.Time) bool { return t.lateSince() != time.Time{} }, (*Token).lateSince, nil},
	{"version_deletes", Warning, "a sink will delete its secret before it is rotated again",
		"sinks will delete their secrets before they are rotated again",
		"switch delete_version_after off: docs/vault.md", "rotatordsinkversiondeletes",
		func(t *Token, now time.Time) bool { return t.deletesWithin(now, deletesSoon, 0) }, nil, (*Token).deletes},
	found("sink_never_written", Warning, "a sink was added after the last rotation and was never written",
		"sinks were added after their last rotations and were never written",
		"rotatord rotate NAME writes it; so does the next scheduled rotation", "rotatordsinkneverwritten", "never_written"),
	found("sink_unreadable", Warning, "a sink could not be read several times in a row",
		"sinks could not be read several times in a row",
		"rotatord status NAME has the error; rotatord doctor says what the policy lacks", "rotatordsinkunreadable", "unreadable"),
	{"renewal_failing", Warning, "the service token could not be renewed before its end",
		"the service tokens could not be renewed before their end",
		"rotatord status NAME has the last error", "rotatordrenewalfailing",
		func(t *Token, _ time.Time) bool { return t.RenewalError != "" }, nil, func(t *Token) time.Time { return t.Expiry }},
	{"expires_soon", Warning, "the service token expires within 14 days, and rotating its secret does not renew it",
		"the service tokens expire within 14 days, and rotating their secrets does not renew them",
		"set renew_before, or renew it in Cloudflare's dashboard", "rotatordtokenexpiressoon",
		func(t *Token, now time.Time) bool { return expiresWithin(t, now, expiresVerySoon, expiresSoon) }, nil, func(t *Token) time.Time { return t.Expiry }},
	{"not_deleted", Warning, "a service token that was replaced cannot be deleted: its secret works on",
		"service tokens that were replaced cannot be deleted: their secrets work on",
		"rotatord status NAME has the last error; most often an Access policy still names it", "rotatordoldtokennotdeleted",
		func(t *Token, _ time.Time) bool { return t.ReplacedError != "" }, nil, nil},
	{"unverified", Warning, "its last secret could not be tried where it is used",
		"their last secrets could not be tried where they are used",
		"rotatord status NAME says why", "configuration.md#verifying-a-new-secret",
		func(t *Token, _ time.Time) bool { return t.Unverified != "" }, nil, nil},
}

// rotatedOutside is the kind of trouble of a token that others have rotated.
const rotatedOutside = "rotated_outside"

// unread is the kind of trouble of a token whose record cannot be used.
const unread = "unread"

// lateSince returns when the first late answer was sealed that is kept and not delivered; zero if there is none.
func (t *Token) lateSince() (since time.Time) {
	if t.Sharing == nil {
		return since
	}
	for _, late := range t.Sharing.Late {
		if late.Superseded {
			since = moment.MinNonZero(since, late.SealedAt)
		}
	}
	return since
}

// found returns the kind of trouble of a sink in which the watch has found one of these.
func found(name string, severity Severity, what, many, toDo, section string, findings ...string) kind {
	return kind{name, severity, what, many, toDo, section,
		func(t *Token, _ time.Time) bool { return !t.findingSince(findings...).IsZero() },
		func(t *Token) time.Time { return t.findingSince(findings...) }, nil}
}

// oldWorksUntil returns when the secret of the clients stops working if a rotation in doubt was carried out.
// It is zero for a spare, which no client uses.
func oldWorksUntil(t *Token) time.Time {
	if t.Doubt.Spare {
		return time.Time{}
	}
	return t.Doubt.OldWorksUntil
}

func notDelivered(t *Token) bool { return t.State == "sealed" && t.Failures > 0 }

// graceEnds reports whether the previous secret, which clients still use, stops working soon.
func graceEnds(t *Token, now time.Time) bool {
	return t.Strategy != "pair" && !t.GraceEnd.IsZero() && t.GraceEnd.Sub(now) <= GraceEnding
}

func expiresWithin(t *Token, now time.Time, from, to time.Duration) bool {
	left := t.Expiry.Sub(now)
	return !t.Expiry.IsZero() && left > from && left <= to && (t.Renews.IsZero() || t.RenewalError != "" || left <= expiresVerySoon)
}

// deletes returns when the first of its sinks deletes the secret before the next rotation; zero if none does.
func (t *Token) deletes() (first time.Time) {
	for _, d := range t.Deletions {
		// While rotations fail, Next is only the time of the next attempt.
		before := t.Next.IsZero() || t.Failures > 0 || d.At.Before(t.Next)
		if before && (first.IsZero() || d.At.Before(first)) {
			first = d.At
		}
	}
	return first
}

// deletesWithin reports whether a sink deletes the secret later than from, and at the latest to, counted from
// now. 0 means without a bound.
func (t *Token) deletesWithin(now time.Time, from, to time.Duration) bool {
	at := t.deletes()
	left := at.Sub(now)
	return !at.IsZero() && (from == 0 || left > from) && (to == 0 || left <= to)
}

// TroubleKinds returns the kinds of trouble that the token is in, the worst first; nil if none.
func (t *Token) TroubleKinds(now time.Time) (all []string) {
	for _, k := range kinds {
		if k.is(t, now) {
			all = append(all, k.name)
		}
	}
	return all
}

// Troubles returns what is wrong with tokens and with what rotations need, the worst first. Tokens in the
// same trouble share one entry. It is nil if nothing is wrong.
func Troubles(tokens []Token, checks []Check, now time.Time) []Trouble {
	return Sum(concernsOf(tokens, now), checks, nil, now)
}

func rank(s Severity) int {
	if s == Critical {
		return 0
	}
	return 1
}

// ofCheck returns the trouble of a check that fails. It is critical if a rotation that cannot begin is due soon: next is
// when the first of them begins, zero if none does.
func ofCheck(c Check, next, now time.Time) Trouble {
	trouble := Trouble{Severity: Warning, Kind: "check", Check: &c, What: c.Detail, ToDo: checkToDo[c.Name], Runbook: section(checkSections[c.Name]), Since: c.Since, Steps: StepsOf(c)}
	if c.Name == CheckCloudflare && c.Reason != "refused" {
		trouble.ToDo = "no rotation of the account begins until Cloudflare answers: look at DNS, proxy, firewall and www.cloudflarestatus.com"
	}
	if c.Name == CheckWrappingToken { // it may be theft
		trouble.Severity = Critical
	}
	if c.Name == CheckSink {
		trouble.ToDo = "no rotation of such a token begins until its sink can be written: " + mendSink(c)
	}
	// The election of a new Vault leader may take a minute.
	if !next.IsZero() && next.Sub(now) <= dueSoon && now.Sub(c.Since) >= time.Minute {
		trouble.Severity = Critical
	}
	return trouble
}

// mendSink returns what an operator does about a sink that cannot be written.
func mendSink(c Check) string {
	switch {
	case c.Reason == "no_space":
		return "make room on the disk of " + strings.TrimPrefix(c.Subject, "file:")
	case c.Reason == "hangs", c.Reason == "timeout":
		return "it does not answer in time: look at its disk or its server"
	case strings.HasPrefix(c.Subject, "vault:") && c.Reason == "refused":
		return "rotatord doctor says what the policy lacks"
	case strings.HasPrefix(c.Subject, "file:"):
		return "rotatord doctor, run as the daemon's user, says what is wrong with the file or its directory"
	}
	return "rotatord doctor says what is wrong with it"
}

var checkToDo = map[string]string{
	CheckStateDirectory: "no rotation begins until the state directory can be written: make room on its disk, or mend it",
	CheckDiskSpace:      "make room before the disk is full",
	CheckAudit:          "look at the disk of the record: nothing that changes a secret is sent until it can be written",
	CheckAuditChain:     "rotatord audit verify names what is missing or changed",
	CheckVault:          "no rotation begins until Vault can be used: unseal it, or mend the way to it or the login",
	CheckVaultTLS:       "renew the certificate, or correct the files of vault.tls; they are read again within 10 seconds",
	CheckVaultLogin:     "correct the login before the session ends: rotatord doctor says what is wrong with it",
	CheckWrappingToken:  "find out who unwrapped it or whose it is, destroy the secret ID, and deliver another wrapping token: docs/runbook.md#rotatordvaultunwrapfailed",
	CheckCloudflare:     "no rotation of the account begins until Cloudflare takes its credential: rotatord doctor says what is wrong with it",
	CheckCredential:     "no rotation of the account begins until its credential can be read: correct the file",
	CheckConfiguration:  "correct the configuration, then reload",
	CheckClock:          "set the clock (NTP), then restart the daemon",
	CheckNotify:         "rotatord notify test tries it; correct its address, its secret or the receiver itself: docs/notifications.md#when-a-receiver-takes-nothing",
}

// checkSections are the sections of the runbook for checks that fail.
var checkSections = map[string]string{
	CheckStateDirectory: "check-state_directory", CheckDiskSpace: "check-disk_space", CheckAudit: "check-audit", CheckAuditChain: "check-audit_chain", CheckVault: "check-vault", CheckVaultTLS: "check-vault_tls",
	CheckVaultLogin: "check-vault_login", CheckWrappingToken: "rotatordvaultunwrapfailed", CheckSink: "check-sink", CheckCloudflare: "check-cloudflare",
	CheckCredential: "check-credential", CheckConfiguration: "rotatordconfigreloadfailed", CheckClock: "rotatordclockstepped", CheckNotify: "rotatordnotificationsfailing",
}

// section returns the place of a section of the runbook. A name with a page is one of that page.
func section(name string) string {
	if strings.Contains(name, "#") {
		return "docs/" + name
	}
	return "docs/runbook.md#" + name
}

// MaxNames is how many names of tokens are in one line at most.
const MaxNames = 5

// Line returns in one line what the trouble is, of which tokens, since when and until when.
func (t Trouble) Line(now time.Time) string {
	var b strings.Builder
	switch {
	case t.Check != nil:
		b.WriteString(t.Check.Title())
	case len(t.Replicas) > 0:
		b.WriteString(ofReplicas(t.Replicas))
	case len(t.Tokens) > MaxNames:
		fmt.Fprintf(&b, "%d tokens (%s and %d more)", len(t.Tokens), strings.Join(t.Tokens[:MaxNames-1], ", "), len(t.Tokens)-MaxNames+1)
	default:
		b.WriteString(strings.Join(t.Tokens, ", "))
	}
	if of := b.String(); t.Check != nil && strings.HasPrefix(t.What, of+" ") {
		b.Reset() // the text names the check itself
		b.WriteString(t.What)
	} else {
		b.WriteString(": " + t.What)
	}
	var times []string
	if !t.Since.IsZero() {
		times = append(times, "since "+at(t.Since, now))
	}
	if !t.Until.IsZero() {
		times = append(times, "until "+at(t.Until, now))
	}
	if len(times) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(times, ", "))
	}
	return b.String()
}

// at returns a time, and how far it is from now.
func at(t, now time.Time) string {
	return t.UTC().Format("2006-01-02 15:04:05 MST") + ", " + Distance(t, now)
}
