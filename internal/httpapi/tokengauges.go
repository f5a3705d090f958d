package httpapi

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// This file has the gauges of tokens. They are made from the source at each scrape, so that they are true after a restart
// and cannot drift from the ledger.

// row is what a scrape knows of one token: as little as all tokens together may take while it is sent. What few tokens have
// is not in it, but is noted by [snapshot.note].
type row struct {
	name, account, strategy, schedule, state string // as labels

	// Moments in seconds since 1970; 0 if there is none.
	next, lastSuccess, expiry, graceEnd, lastSeen float64
	failures, replaced                            uint32
	flags                                         flags
}

type flags uint8

const (
	unread   flags = 1 << iota // nothing else is known of it, and "no trouble" would be wrong
	known                      // enabled means something
	enabled                    //
	paused                     //
	gone                       //
	verifies                   // refused means something
	refused                    // the new secret is not accepted
	replaces                   // replaced means something
)

func (r *row) is(f flags) bool { return r.flags&f != 0 }

// busy reports whether an alert may have to know the grace: a rotation is in progress, or an old service token is left.
func (r *row) busy() bool {
	return r.state != "idle" || r.replaced > 0 && r.is(replaces) || r.is(verifies) && r.is(refused)
}

// Metrics that few tokens have a series of.
var (
	outside      = fewHave("rotatord_token_out_of_band_timestamp_seconds", "When another person or program rotated the token; absent after a rotation of our own.", "token")
	reissueOwed  = fewHave("rotatord_token_reissue_owed_timestamp_seconds", "Since when a lost secret waits to be made up for; absent if none does.", "token")
	cutOff       = fewHave("rotatord_token_cutoff_timestamp_seconds", "When consumers are left without a secret that works unless the pending work is done before; absent if none is pending that threatens them.", "token")
	restored     = fewHave("rotatord_token_restored_timestamp_seconds", "When the secret was last written back to a sink, or a rotation was ordered for that; absent after a day.", "token")
	refusedInUse = fewHave("rotatord_token_secret_refused_timestamp_seconds", "Since when the secret in use is refused where it is tried; absent while it is not.", "token")
	hookFailing  = fewHave("rotatord_token_hook_failing_timestamp_seconds", "Since when consumers wait for a hook that follows a rotation and has failed; absent if none has.", "token")
	lastFailure  = fewHave("rotatord_token_last_failure_info", "Why the last attempt failed; 1, and absent after one that did not.", "reason", "token")
	doubt        = fewHave("rotatord_token_doubt_info", "What was last concluded about a token in doubt; 1, and absent for others.", "reason", "token")
	finding      = fewHave("rotatord_sink_finding_timestamp_seconds", "Since when a sink does not hold what was written to it; absent while it does.", "finding", "sink", "token")
	deletion     = fewHave("rotatord_sink_version_deletion_timestamp_seconds", "When a sink deletes by itself what it holds; absent if it keeps it.", "sink", "token")
	orders       = fewHave("rotatord_orders_pending", "Tokens with an order to be rotated that is not carried out.", "account")
)

// gaugesOf are the metrics that are made from the source.
var gaugesOf = []*family{
	outside, reissueOwed, cutOff, restored, refusedInUse, hookFailing, lastFailure, doubt, finding, deletion, orders,
	{
		name: "rotatord_token_info", help: "A configured token; always 1.", labels: []string{"account", "schedule", "strategy", "token"},
		write: func(s *snapshot, out *seriesWriter) {
			for _, i := range s.byAccount() {
				r := &s.rows[i]
				out.add(series{value: 1, labels: values{r.account, r.schedule, r.strategy, r.name}})
			}
		},
	},
	{
		name: "rotatord_token_state", help: "1 for the state that the token is in, 0 for the others.", labels: []string{"state", "token"},
		write: func(s *snapshot, out *seriesWriter) {
			for _, state := range slices.Sorted(slices.Values(status.States)) {
				for i := range s.rows {
					if r := &s.rows[i]; !r.is(unread) {
						out.add(series{value: truth(state == r.state), labels: values{state, r.name}})
					}
				}
			}
		},
	},
	moments("rotatord_token_last_success_timestamp_seconds", "When the token was last rotated with success.", func(r *row) float64 { return r.lastSuccess }),
	moments("rotatord_token_next_rotation_timestamp_seconds", "When the token is to be worked on next.", func(r *row) float64 { return r.next }),
	moments("rotatord_token_expiry_timestamp_seconds", "When the service token itself expires; absent if never or unknown.", func(r *row) float64 { return r.expiry }),
	moments("rotatord_token_grace_end_timestamp_seconds", "When the previous secret stops working; absent if it was revoked at once.", func(r *row) float64 { return r.graceEnd }),
	moments("rotatord_token_last_seen_timestamp_seconds", "When Cloudflare last saw the token used; absent if unknown.", func(r *row) float64 { return r.lastSeen }),
	yesOrNo("rotatord_token_enabled", "Whether the token is enabled at Cloudflare; absent before it was asked.", enabled, known),
	yesOrNo("rotatord_token_paused", "Whether an operator has paused the token, by its name or with all tokens.", paused, 0),
	yesOrNo("rotatord_token_gone", "Whether the last inventory did not have the service token.", gone, 0),
	yesOrNo("rotatord_token_verify_failing", "Whether a new secret in every sink is refused where it is tried; absent where none is tried.", refused, verifies),
	forEach("rotatord_token_consecutive_failures", "Rotation attempts that failed in a row.", func(r *row) (float64, bool) { return float64(r.failures), true }),
	forEach("rotatord_replaced_tokens", "Service tokens whose place others took and which are still to be deleted; absent for other strategies.",
		func(r *row) (float64, bool) { return float64(r.replaced), r.is(replaces) }),
}

// forEach is a metric with one series of each token for which value returns true.
func forEach(name, help string, value func(*row) (float64, bool)) *family {
	return &family{name: name, help: help, labels: []string{"token"}, write: func(s *snapshot, out *seriesWriter) {
		for i := range s.rows {
			r := &s.rows[i]
			if r.is(unread) {
				continue
			}
			if v, ok := value(r); ok {
				out.add(series{value: v, labels: values{r.name}, trouble: r.busy()})
			}
		}
	}}
}

func moments(name, help string, at func(*row) float64) *family {
	return forEach(name, help, func(r *row) (float64, bool) { return at(r), at(r) != 0 })
}

// yesOrNo is a metric of a flag that only means something if another one is set, unless that is 0.
func yesOrNo(name, help string, flag, onlyIf flags) *family {
	return forEach(name, help, func(r *row) (float64, bool) { return truth(r.is(flag)), onlyIf == 0 || r.is(onlyIf) })
}

// fewHave is a metric whose series are those that were noted. labels are sorted.
func fewHave(name, help string, labels ...string) *family {
	f := &family{name: name, help: help, labels: labels}
	f.write = func(s *snapshot, out *seriesWriter) {
		for i := range s.noted {
			if n := &s.noted[i]; n.of == f {
				out.add(n.series)
			}
		}
	}
	return f
}

// snapshot is what one scrape shows of tokens. It is read once, so that no metric contradicts another one, however long a
// scrape takes; and it holds no lock.
type snapshot struct {
	rows    []row // sorted by name
	noted   []noted
	counted []countedToken // sorted by name
	sorted  []int32        // for byAccount
}

// noted is a series of what few tokens have.
type noted struct {
	of *family
	series
}

// read reads what is shown. source may be nil.
func (s *snapshot) read(source Source, counters *tokenCounters) {
	s.counted = counters.appendTo(s.counted)
	if source == nil {
		return
	}
	s.rows = slices.Grow(s.rows, len(s.counted)) // each configured token is counted
	ordered := map[string]int{}
	for t := range source.States() {
		s.add(t)
		ordered[s.rows[len(s.rows)-1].account] += count(t.Order != nil)
	}
	for account, n := range ordered {
		s.noted = append(s.noted, noted{orders, series{value: float64(n), labels: values{account}}})
	}
	if byName := func(a, b row) int { return strings.Compare(a.name, b.name) }; !slices.IsSortedFunc(s.rows, byName) { // their labels are escaped
		slices.SortFunc(s.rows, byName)
	}
	slices.SortFunc(s.noted, func(a, b noted) int { return slices.Compare(a.labels[:], b.labels[:]) })
}

// release forgets what was read, and keeps the space for the next scrape.
func (s *snapshot) release() {
	clear(s.rows)
	clear(s.noted)
	clear(s.counted)
	s.rows, s.noted, s.counted = s.rows[:0], s.noted[:0], s.counted[:0]
}

// note adds a series of what few tokens have.
func (s *snapshot) note(of *family, value float64, labels ...string) {
	n := noted{of: of, series: series{value: value}}
	copy(n.labels[:], labels)
	s.noted = append(s.noted, n)
}

// noteMoment adds a time, unless it is zero.
func (s *snapshot) noteMoment(of *family, t time.Time, labels ...string) {
	if !t.IsZero() {
		s.note(of, unix(t), labels...)
	}
}

func (s *snapshot) add(t *TokenStatus) {
	r := row{
		name: printable.Escaped(t.Name), account: printable.Escaped(t.Account), strategy: t.Strategy, schedule: printable.Escaped(t.Schedule), state: t.State,
		next: unix(t.Next), lastSuccess: unix(t.LastSuccess), expiry: unix(t.Expiry), graceEnd: unix(t.GraceEnd), lastSeen: unix(t.LastSeen),
		failures: uint32(min(uint64(max(t.Failures, 0)), math.MaxUint32)), replaced: uint32(min(uint64(max(t.Replaced, 0)), math.MaxUint32)),
	}
	for _, one := range []struct {
		flag flags
		set  bool
	}{
		{unread, t.Unread}, {known, t.Known}, {enabled, t.Enabled}, {paused, t.Pause != nil}, {gone, t.Gone}, {verifies, t.Verifies},
		{refused, t.Verification != nil && t.Verification.Refused}, {replaces, t.Strategy == "replace"},
	} {
		if one.set {
			r.flags |= one.flag
		}
	}
	s.rows = append(s.rows, r)
	if !t.Unread {
		s.addNotes(t, r.name)
	}
}

// addNotes notes what few tokens have.
func (s *snapshot) addNotes(t *TokenStatus, name string) {
	s.noteMoment(outside, t.Outside, name)
	s.noteMoment(reissueOwed, t.ReissueOwed, name)
	s.noteMoment(cutOff, t.CutOffAt, name)
	s.noteMoment(restored, t.RestoredAt, name)
	s.noteMoment(hookFailing, t.HookFailing(), name)
	if t.RefusedInUse != nil {
		s.noteMoment(refusedInUse, t.RefusedInUse.Since, name)
	}
	if t.Failures > 0 {
		s.note(lastFailure, 1, cmp.Or(t.LastCause, rotation.CauseOther), name)
	}
	if t.Doubt != nil {
		s.note(doubt, 1, cmp.Or(t.Doubt.Decision, t.Doubt.Reason), name)
	}
	for _, f := range t.Findings {
		s.noteMoment(finding, f.Since, f.Kind, printable.Escaped(f.Sink), name)
	}
	for _, d := range t.Deletions {
		s.noteMoment(deletion, d.At, printable.Escaped(d.Sink), name)
	}
}

// byAccount returns the rows sorted by account, schedule, strategy and name.
func (s *snapshot) byAccount() []int32 {
	s.sorted = s.sorted[:0]
	for i := range s.rows {
		s.sorted = append(s.sorted, int32(i))
	}
	slices.SortFunc(s.sorted, func(i, j int32) int {
		a, b := &s.rows[i], &s.rows[j]
		return cmp.Or(strings.Compare(a.account, b.account), strings.Compare(a.schedule, b.schedule), strings.Compare(a.strategy, b.strategy), cmp.Compare(i, j))
	})
	return s.sorted
}
