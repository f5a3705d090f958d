package drill

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// notes are taken of what the daemon does from the disaster on. They are its observer.
type notes struct {
	stage *stage

	mu     sync.Mutex
	story  map[string][]Moment
	last   map[string]string // what was noted last, without details
	alerts map[string]map[string]bool
}

func newNotes(st *stage) *notes {
	n := &notes{stage: st, story: map[string][]Moment{}, last: map[string]string{}, alerts: map[string]map[string]bool{}}
	for _, p := range st.sample.tokens {
		n.alerts[p.name] = map[string]bool{}
	}
	return n
}

// add notes something, unless it is what was noted before.
func (n *notes) add(token, what string, detail ...string) {
	n.mu.Lock()
	said := n.last[token] == what
	n.last[token] = what
	n.mu.Unlock()
	for _, d := range detail {
		if d != "" {
			what += ": " + d
		}
	}
	if !said {
		n.append(token, what)
	}
}

func (n *notes) append(token, what string) {
	at := n.stage.elapsed()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.story[token] = append(n.story[token], Moment{After: Duration(at), What: what})
}

// all notes something that concerns every token.
func (n *notes) all(what string) {
	for _, p := range n.stage.sample.tokens {
		n.add(p.name, what)
	}
}

func (n *notes) alert(token, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alerts[token][name] = true
}

// storyOf is what was noted of a token.
func (n *notes) storyOf(token string) (story []Moment, alerts []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	story, alerts = slices.Clone(n.story[token]), slices.Sorted(maps.Keys(n.alerts[token]))
	if story == nil {
		story = []Moment{}
	}
	if alerts == nil {
		alerts = []string{}
	}
	return story, alerts
}

// chore notes one of them.
func (n *notes) chore(token, done, failed string, err error) {
	if err != nil {
		n.add(token, failed, text(err))
		return
	}
	n.add(token, done)
}

// Observe implements [rotation.Observer].
func (n *notes) Observe(event rotation.Event) {
	switch e := event.(type) {
	case rotation.Attempted:
		n.attempted(e)
	case rotation.DoubtJudged:
		if e.Reason != e.Before {
			n.add(e.Token, "it looks at Cloudflare: "+verdict(e.Reason))
		}
	case rotation.DoubtResolved:
		n.add(e.Token, "the doubt is over: "+verdict(e.Reason))
	case rotation.GraceExtended:
		if e.Err != nil {
			n.add(e.Token, "the old secret's grace cannot be extended", text(e.Err))
			return
		}
		left := Duration(time.Until(e.Until).Round(time.Second))
		n.append(e.Token, fmt.Sprintf("the old secret's grace is extended: it works for another %s", left)) // each time is news
	case rotation.SlotsMissed:
		n.add(e.Token, fmt.Sprintf("slots that have passed without a rotation of their own: %d", e.Count))
	case rotation.SinkWritten:
		if e.Err != nil {
			n.alert(e.Token, "RotatordSinkWritesFailing")
		}
	case rotation.RotatedOutside:
		what := "it finds that somebody else has rotated, and raises the alarm"
		if e.RotatesAgain {
			what = "it finds that somebody else has rotated, and makes up for it"
		}
		n.add(e.Token, what)
	case rotation.Probed:
		if e.Probe == rotation.ProbeBad {
			return // the attempt says so
		}
		n.add(e.Token, probes[e.Probe], text(e.Err))
	case rotation.ReplacedDeleted:
		n.chore(e.Token, "a service token that is in use no more is deleted", "a service token that is in use no more cannot be deleted", e.Err)
	case rotation.Renewed:
		lasts := Duration(time.Until(e.ExpiresAt).Round(time.Minute))
		n.chore(e.Token, fmt.Sprintf("the service token is renewed: it lasts for another %s", lasts), "the service token cannot be renewed", e.Err)
	case rotation.SealFailed:
		n.add(e.Token, "the new secret cannot be sealed on disk", text(e.Err))
	}
}

func (n *notes) attempted(e rotation.Attempted) {
	refused, isIssuers := errors.AsType[*rotation.IssuerError](e.Err)
	if isIssuers && refused.Class == rotation.Throttled && refused.RetryAfter > time.Minute {
		n.alert(e.Token, "RotatordCloudflareThrottled")
	}
	makes := e.Record.Work != nil && e.Record.Work.Strategy() == rotation.Fresh
	switch {
	case e.Result == rotation.ResultSuccess:
		what := "rotated, and every sink has confirmed the new secret"
		if replaces := n.replaces(e.Token); replaces || e.Trigger == rotation.TriggerCreate {
			what = "a service token is made, and every sink has confirmed its secret"
		} else if e.Trigger == rotation.TriggerRecovery && e.Record.Last.Trigger == rotation.TriggerRecovery {
			what = "rotated to make up for a secret that is or may be lost, and every sink has confirmed the new one"
		}
		if left := time.Until(e.Record.Last.GraceEndsAt); left > 0 {
			what += fmt.Sprintf(". The previous secret works for another %s", Duration(left.Round(time.Second)))
		}
		n.add(e.Token, what)
	case e.Result == rotation.ResultInDoubt && makes:
		n.add(e.Token, "it is in doubt whether Cloudflare has made a service token", text(e.Err))
	case e.Result == rotation.ResultInDoubt:
		n.add(e.Token, "it is in doubt whether Cloudflare has rotated, and the old secret is left alone", text(e.Err))
	case e.Result == rotation.ResultSkipped:
		n.add(e.Token, "nothing is sent to Cloudflare", text(e.Err))
	case e.Record.Step == rotation.StepStored:
		n.add(e.Token, "the rotation is not done, and the old secret is kept alive", text(e.Err))
	case e.Record.Step != rotation.StepIdle && makes:
		n.add(e.Token, "Cloudflare has made a service token, its secret is sealed on disk, and cannot be delivered yet", text(e.Err))
	case e.Record.Step != rotation.StepIdle:
		n.add(e.Token, "Cloudflare has rotated, the new secret is sealed on disk, and cannot be delivered yet", text(e.Err))
	default:
		n.add(e.Token, "Cloudflare refuses, and nothing is rotated", text(e.Err))
	}
}

func (n *notes) replaces(token string) bool {
	return slices.ContainsFunc(n.stage.sample.tokens, func(p player) bool { return p.name == token && p.replace })
}

// probes are what trying a new secret has shown.
var probes = map[rotation.Probe]string{
	rotation.ProbeGood:    "the application accepts the new secret",
	rotation.ProbeUnknown: "trying the new secret at the application proves nothing",
}

// text is an error on one line.
func text(err error) string {
	if err == nil {
		return ""
	}
	return printable.Line(err.Error(), 200)
}

// verdicts in words.
var verdicts = map[string]string{
	rotation.ReasonUpdatedAtUnchanged: "nothing was rotated, so the slot is still to be served",
	rotation.ReasonOldSecretRevoked:   "the old secret is dead, so it rotates again at once",
	rotation.ReasonGraceEnding:        "half of the grace is left, or three graces are over, so it rotates again",
	rotation.ReasonOldSecretWorks:     "rotating again would cut the old secret off, which works: it waits",
	rotation.ReasonUnderWay:           "the request may still be under way: it waits",
	rotation.ReasonSpare:              "of the pair the one in doubt is not in use, so it rotates it again",
	rotation.ReasonCreatedAndLost:     "a service token was made, and its secret is lost",
	rotation.ReasonNotCreated:         "no service token was made, so it is still to be made",
	rotation.ReasonCannotLook:         "it is not known whether a service token was made: it waits",
}

func verdict(reason string) string {
	if words, ok := verdicts[reason]; ok {
		return words
	}
	return reason
}

// passes notes which alerts fire if tokens stay as they are for this long, and those that
// the disaster brings about by itself.
func (n *notes) passes(tokens map[string]status.Token, d time.Duration, firing []string) {
	for name, t := range tokens {
		for _, a := range append(alertsOf(t, time.Now(), d), firing...) {
			n.alert(name, a)
		}
	}
}

// alertsOf are the alerts of deploy/prometheus that fire for a token that stays as it is from
// now on, for as long as d. It is a reading of the rules, not their evaluation.
func alertsOf(t status.Token, now time.Time, d time.Duration) (alerts []string) {
	fires := func(name string, condition bool) {
		if condition {
			alerts = append(alerts, name)
		}
	}
	then := now.Add(d)
	fires("RotatordTokenInDoubt", t.Doubt != nil && then.Sub(t.Doubt.Since) >= 2*time.Minute)
	fires("RotatordConsumersCutOff", !t.CutOffAt.IsZero() && d >= time.Minute && then.Sub(t.CutOffAt) >= time.Minute)
	fires("RotatordReissueDelayed", !t.ReissueOwed.IsZero() && d >= time.Minute && then.Sub(t.ReissueOwed) > 6*time.Minute)
	fires("RotatordSecretOvertaken", t.State == status.Overtook && d >= time.Minute)
	fires("RotatordSecretPending", (t.State == "sealed" || t.State == "stored") && d > 11*time.Minute)
	fires("RotatordSecretPendingGraceEnding",
		t.State == "sealed" && t.Strategy != "pair" && d > 5*time.Minute && t.GraceEnd.Sub(then) < 2*time.Hour-5*time.Minute)
	fires("RotatordRotationFailing", t.Failures >= 3 && d >= 5*time.Minute)
	fires("RotatordVerifyFailing", t.Verification != nil && t.Verification.Refused && d >= time.Minute)
	fires("RotatordTokenGone", t.Gone && d >= 5*time.Minute)
	fires("RotatordTokenRotatedOutside", !t.Outside.IsZero() && d >= 5*time.Minute)
	fires("RotatordRenewalFailing", t.RenewalError != "" && d >= 10*time.Minute)
	fires("RotatordOldTokenNotDeleted", d >= time.Hour && (t.Replaced > 1 || t.Replaced > 0 && t.State == "idle" && !t.GraceEnd.After(now)))
	fires("RotatordTokenDisabled", t.Known && !t.Enabled && d >= 5*time.Minute)
	left := t.Expiry.Sub(then)
	fires("RotatordTokenExpiresVerySoon", !t.Expiry.IsZero() && left < 3*24*time.Hour && d >= 15*time.Minute)
	fires("RotatordTokenExpiresSoon", !t.Expiry.IsZero() && left >= 3*24*time.Hour && left < 14*24*time.Hour && d >= 15*time.Minute)
	return alerts
}
