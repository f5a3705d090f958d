package drill

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// notes records what the daemon does after the disaster began. It subscribes to the daemon's events.
type notes struct {
	stage *stage

	mu     sync.Mutex
	story  map[string][]Moment
	last   map[string]string // the last note, without details
	alerts map[string]map[string]bool
}

func newNotes(st *stage) *notes {
	n := &notes{stage: st, story: map[string][]Moment{}, last: map[string]string{}, alerts: map[string]map[string]bool{}}
	for _, p := range st.sample.tokens {
		n.alerts[p.name] = map[string]bool{}
	}
	return n
}

// add notes something, unless it repeats the last note.
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

// all notes something for every token.
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

// storyOf returns the notes about a token, and the alerts.
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

// subscriber returns the subscriber that takes the notes. They are the sentences of the events.
func (n *notes) subscriber() *event.Subscriber {
	return event.NewSubscriber("drill",
		event.On(n.rotationEnded),
		event.On(func(e event.Event, d event.SinkWrite) {
			if d.Err != nil {
				n.alert(e.Token, "RotatordSinkWritesFailing")
			}
		}),
		event.On(func(e event.Event, _ event.GraceExtension) {
			if e.Kind == event.GraceExtended {
				n.append(e.Token, e.Sentence()) // each extension is noted
				return
			}
			n.note(e)
		}),
		event.All(n.note),
		event.Ignore(event.StepEnded,
			event.SecretRefused,                                 // the end of the rotation says so
			event.Stuck, event.StuckAsBefore, event.ClockHealed, // the drill moves the times in the ledger
			event.DoubtUnchanged,                // nothing changed
			event.VersionDeletes,                // no disaster is about this
			event.OvertakenEnded, event.Adopted, // nor are these
			event.ChangedOutside, event.TokenGone, event.TokenDisabled, event.TokenUnreadable, event.TokenNotFound), // the alert says so
		event.Ignore(event.Watch...), event.Ignore(event.Hooks...), event.Ignore(event.Record...), event.Ignore(event.Commands...), event.Ignore(event.DaemonLife...), event.Ignore(event.Surroundings...))
}

// note notes an event, unless it repeats the last note about the token.
func (n *notes) note(e event.Event) { n.add(e.Token, e.Sentence(), text(e.Err())) }

func (n *notes) rotationEnded(e event.Event, d event.RotationEnded) {
	refused, isIssuers := errors.AsType[*rotation.IssuerError](d.Err)
	if isIssuers && refused.Class == rotation.Throttled && refused.RetryAfter > time.Minute {
		n.alert(e.Token, "RotatordCloudflareThrottled")
	}
	n.note(e)
}

// text returns an error on one line.
func text(err error) string {
	if err == nil {
		return ""
	}
	return printable.Line(err.Error(), 200)
}

// passes notes the alerts that fire if the tokens stay as they are for this long, and the alerts of the
// disaster itself.
func (n *notes) passes(tokens map[string]status.Token, d time.Duration, firing []string) {
	for name, t := range tokens {
		for _, a := range append(alertsOf(t, time.Now(), d), firing...) {
			n.alert(name, a)
		}
	}
}

// alertsOf returns the alerts of deploy/prometheus that fire if a token stays as it is for d from now on. It
// follows the rules, but does not evaluate them.
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
