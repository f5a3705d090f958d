package replicas

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/test/program"
)

// line is what the oracle reads of a log line.
type line struct {
	Time       time.Time `json:"time"`
	Msg        string    `json:"msg"`
	Token      string    `json:"token"`
	RotationID string    `json:"rotation_id"`
	Result     string    `json:"result"`
	Reason     string    `json:"reason"`
	Step       string    `json:"step"`
	Slot       time.Time `json:"slot"`
	Error      string    `json:"error"`
	life       *process
}

// What daemons say.
const (
	msgDoubtFound = "the token is in doubt, and has been since before this start"
	msgTakenOver  = "taken over from another replica, whose claim had ended"
	msgLate       = "an answer came after its claim had ended"
	msgRotated    = "rotated"
	msgDied       = "another replica gives no sign of life: its tokens are served by the others"
)

// raised reports whether a line reports a doubt.
func (l line) raised() bool { return l.Result == "in_doubt" || l.Msg == msgDoubtFound }

// report is what the oracle found, and the counts of the summary.
type report struct {
	w                                                           *world
	wrong                                                       []string
	byToken                                                     map[string][]line
	unwritable                                                  time.Duration // Vault, for the test
	rotations, carriedOut, undelivered, doubts, takeovers, late int
	excused                                                     map[string]int
}

func (o *report) say(format string, args ...any) {
	o.wrong = append(o.wrong, fmt.Sprintf(format, args...))
}

// judge is the oracle.
func (w *world) judge() *report {
	o := &report{w: w, wrong: slices.Clone(w.wrong), byToken: map[string][]line{}, excused: map[string]int{}}
	o.readLogs()
	requests := map[*subject][]*request{}
	for _, r := range w.requests {
		if r.carriedOut() {
			requests[r.subject] = append(requests[r.subject], r)
			o.carriedOut++
		}
		if r.intent.record.Work == nil || r.intent.record.Work.TokenID != r.tokenID {
			o.say("%s: %s sent a rotate request at %s without an intent for that service token", r.subject.name, r.replica.name, r.at.Format(clock))
		}
	}
	for _, s := range w.subjects {
		versions, err := w.history(s.path)
		if err != nil || len(versions) == 0 {
			o.say("%s: Vault holds nothing: %v", s.name, err)
			continue
		}
		c := &course{report: o, s: s, requests: requests[s], versions: versions, lines: o.byToken[s.name]}
		slices.SortStableFunc(c.requests, func(a, b *request) int { return a.at.Compare(b.at) })
		c.check()
	}
	o.leaks()
	return o
}

func (o *report) readLogs() {
	for _, r := range o.w.replicas {
		for _, p := range r.all() {
			for text := range strings.Lines(p.log.String()) {
				l := line{life: p}
				if json.Unmarshal([]byte(text), &l) != nil { // the last line of a killed process may be half
					continue
				}
				if l.Token != "" {
					o.byToken[l.Token] = append(o.byToken[l.Token], l)
				}
				switch {
				case l.Msg == msgRotated:
					o.rotations++
				case l.Result == "in_doubt":
					o.doubts++
				case l.Msg == msgTakenOver:
					o.takeovers++
				case strings.HasPrefix(l.Msg, msgLate):
					o.late++
				}
			}
		}
	}
	for _, lines := range o.byToken {
		slices.SortStableFunc(lines, func(a, b line) int { return a.Time.Compare(b.Time) })
	}
}

// course is all that happened to one token.
type course struct {
	*report
	s        *subject
	requests []*request // that were carried out, in order
	versions []version
	lines    []line
}

func (c *course) check() {
	last := c.versions[len(c.versions)-1]
	if !program.Accepts(c.w.sim, last.clientID, last.secret) {
		c.say("%s: what Vault holds at the end is refused", c.s.name)
	}
	c.slots()
	c.secrets()
	c.order()
	c.graces()
	c.refusals()
}

// delivered returns when a secret was first in Vault; zero if it never was.
func (c *course) delivered(d secret.Digest) time.Time {
	for _, v := range c.versions {
		if digest(v.secret) == d {
			return v.at
		}
	}
	return time.Time{}
}

// doubted reports whether a doubt about a rotation was raised between two times.
func (c *course) doubted(rotationID string, from, to time.Time) bool {
	return slices.ContainsFunc(c.lines, func(l line) bool {
		return l.raised() && (l.RotationID == rotationID || l.RotationID == "") && l.Time.After(from) && l.Time.Before(to)
	})
}

// slots checks that each slot was served at most once.
func (c *course) slots() {
	first := map[time.Time]*request{}
	for _, r := range c.requests {
		work := r.intent.record.Work
		if work == nil {
			continue // it was said already
		}
		before := first[work.Slot]
		first[work.Slot] = r
		if before == nil {
			continue
		}
		if before.intent.record.Work.RotationID == work.RotationID {
			c.say("%s: rotation %s sent two rotate requests, at %s by %s and at %s by %s", c.s.name, work.RotationID,
				before.at.Format(clock), before.replica.name, r.at.Format(clock), r.replica.name)
		} else if !c.doubted(before.intent.record.Work.RotationID, before.at, r.at) {
			c.say("%s: the slot %s was served twice, at %s by %s (rotation %s) and at %s by %s (rotation %s), and no doubt was raised between them", c.s.name, work.Slot.Format(clock),
				before.at.Format(clock), before.replica.name, before.intent.record.Work.RotationID, r.at.Format(clock), r.replica.name, work.RotationID)
		}
	}
}

// secrets checks that no secret was lost without a word, and none that was received.
func (c *course) secrets() {
	for i, r := range c.requests {
		if !c.delivered(r.issued).IsZero() || r.intent.record.Work == nil {
			continue
		}
		c.undelivered++
		id := r.intent.record.Work.RotationID
		next := time.Now()
		if i+1 < len(c.requests) {
			next = c.requests[i+1].at
		}
		late := slices.ContainsFunc(c.lines, func(l line) bool { return strings.HasPrefix(l.Msg, msgLate) && l.RotationID == id })
		if !late && !c.doubted(id, r.at.Add(-time.Second), next) {
			c.say("%s: what was issued at %s to %s (rotation %s) never reached Vault, and no doubt was raised before the next request", c.s.name, r.at.Format(clock), r.replica.name, id)
		}
		if !r.answered {
			continue
		}
		switch why := c.whyNotKept(r, id, late); why {
		case "":
			c.say("%s: what was answered to %s at %s, whole, is lost (rotation %s)", c.s.name, r.replica.name, r.at.Format(clock), id)
		default:
			c.excused[why]++
		}
	}
}

// whyNotKept returns why a secret that was answered completely may be lost; empty if it may not.
func (c *course) whyNotKept(r *request, rotationID string, late bool) string {
	sealed, tooLate := false, false
	for _, l := range c.lines {
		if l.life == r.life && l.Step == "seal" && l.Error == "" && l.Time.After(r.at) && l.Time.Before(r.done.Add(time.Minute)) { // such a line has no rotation
			sealed = true
		}
		if l.RotationID != rotationID || l.life.replica != r.replica {
			continue
		}
		tooLate = tooLate || l.raised() && (strings.Contains(l.Error, "deadline exceeded") || strings.Contains(l.Error, "Timeout exceeded"))
	}
	r.life.mu.Lock()
	killed, emptied := r.life.killed, r.life.emptied
	r.life.mu.Unlock()
	later := slices.ContainsFunc(c.requests, func(o *request) bool { return o.at.After(r.at) && o.tokenID == r.tokenID })
	switch {
	case emptied:
		return "its disk was emptied"
	case killed && !sealed:
		return "killed before it was sealed"
	case late && later:
		return "late, and a later secret took its place"
	case tooLate:
		return "the process saw the answer after the bound of the request"
	case later && sealed && c.doubted(rotationID, r.at, time.Now()):
		return "sealed on a replica that was away until the reissue"
	}
	return ""
}

// order checks that nothing was delivered over something newer.
func (c *course) order() {
	newest := -1
	for _, v := range c.versions {
		at := slices.IndexFunc(c.requests, func(r *request) bool { return r.issued == digest(v.secret) })
		if at < newest {
			c.say("%s: version %d, written at %s, is older than the one before it", c.s.name, v.n, v.at.Format(clock))
		}
		newest = max(newest, at)
	}
}

// slack is for the seconds that Cloudflare's clock is known by, and the way to it.
const slack = 2500 * time.Millisecond

// graces checks that no rotation cut off what consumers had, or cut a promised grace short.
func (c *course) graces() {
	last := map[string]*request{}
	for _, r := range c.requests {
		creation := last[r.tokenID]
		last[r.tokenID] = r
		if c.s.grace == 0 || creation == nil || r.intent.record.Work == nil {
			continue
		}
		if old := c.delivered(creation.before.CurrentDigest); old.IsZero() || old.After(creation.at) {
			continue // it made up for a secret that was lost: no consumer was promised anything
		}
		var held version
		for _, v := range c.versions {
			if v.at.Before(r.at) {
				held = v
			}
		}
		age, used := r.at.Sub(creation.at), digest(held.secret)
		way := creation.at.Sub(creation.intent.at) + 20*time.Millisecond
		switch {
		case c.s.pair && held.clientID == r.before.ClientID:
			c.say("%s: the service token in use was rotated at %s by %s", c.s.name, r.at.Format(clock), r.replica.name)
		case c.s.pair:
		case used == r.before.PreviousDigest && age < c.s.grace/2-way:
			c.say("%s: rotated at %s by %s, %s after a rotation that consumers had not got (grace %s)", c.s.name, r.at.Format(clock), r.replica.name, age, c.s.grace)
		case used == r.before.CurrentDigest && age < c.s.grace-way-slack:
			c.say("%s: rotated at %s by %s, %s after a rotation that promised a grace of %s", c.s.name, r.at.Format(clock), r.replica.name, age, c.s.grace)
		}
	}
}

// refusals checks that consumers were refused only where it is unavoidable.
func (c *course) refusals() {
	for _, f := range c.w.refusals {
		if f.subject != c.s {
			continue
		}
		i := slices.IndexFunc(c.requests, func(r *request) bool { return r.issued == f.held })
		var after []*request // rotations of that service token since
		for _, r := range c.requests[i+1:] {
			if r.at.Before(f.at) && (i < 0 && r.tokenID == c.s.ids[0] || i >= 0 && r.tokenID == c.requests[i].tokenID) {
				after = append(after, r)
			}
		}
		there := false
		if len(after) > 0 {
			at := c.delivered(after[len(after)-1].issued)
			there = !at.IsZero() && at.Before(f.at.Add(-slack)) // Vault gives a version its time before it can be read
		}
		switch {
		case len(after) == 0:
			c.say("%s: what Vault held at %s was refused, and it is the latest secret", c.s.name, f.at.Format(clock))
		case c.s.pair:
			c.say("%s: a consumer of a pair was refused at %s", c.s.name, f.at.Format(clock))
		case there:
			c.say("%s: a consumer was refused at %s, and a newer secret was in Vault", c.s.name, f.at.Format(clock))
		case c.s.grace == 0:
			c.excused["look: no grace, and the new secret was not in Vault yet"]++
		case len(after) >= 2:
			c.excused["look: two rotations, of which the first was lost"]++
		case c.w.outages.between(after[0].at, f.at) > c.s.grace/2:
			c.excused["look: Vault could not be written for more than half of the grace"]++
		default:
			c.say("%s: a consumer was refused at %s, %s after the only rotation since (grace %s)", c.s.name, f.at.Format(clock), f.at.Sub(after[0].at), c.s.grace)
		}
	}
}

// leaks looks for secrets in logs, state directories and the shared ledger.
func (o *report) leaks() {
	where := map[string]string{}
	for _, r := range o.w.replicas {
		for n, p := range r.all() {
			where[fmt.Sprintf("the log of life %d of %s", n, r.name)] = p.log.String()
		}
		err := filepath.WalkDir(r.stateDir(), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			where[path] = string(b)
			return err
		})
		if err != nil {
			o.say("the state of %s cannot be read: %v", r.name, err)
		}
	}
	var ledger strings.Builder
	for _, s := range o.w.saves {
		b, _ := json.Marshal(s.record)
		ledger.Write(b)
	}
	where["the shared ledger"] = ledger.String()
	for name, text := range where {
		if secret.Scrub(text) != text {
			o.say("what looks like a secret is in %s", name)
		}
	}
}

// superseded returns the late answers of which a replica has told that a later secret took their place. They are kept
// until another rotation is done.
func (w *world) superseded() map[string]bool {
	all := map[string]bool{}
	for _, log := range w.logs() {
		for text := range strings.Lines(log) {
			var l line
			if strings.Contains(text, msgLate) && json.Unmarshal([]byte(text), &l) == nil && strings.Contains(l.Msg, "not delivered") {
				all[l.RotationID] = true
			}
		}
	}
	return all
}

// atRest says what is not at rest: a record that is in progress or held, a copy of an answer, an answer on a disk.
func (w *world) atRest() string {
	root := w.cluster.Leader(w.t).Root(w.t).Logical()
	var busy []string
	superseded := w.superseded()
	for _, s := range w.subjects {
		answer, err := root.Read(mount + "/data/" + prefix + "/tokens/" + s.name)
		if err != nil || answer == nil {
			return fmt.Sprintf("the record of %s cannot be read: %v", s.name, err)
		}
		b, _ := json.Marshal(answer.Data["data"])
		var e struct{ Record rotation.Record }
		if err := json.Unmarshal(b, &e); err != nil {
			return err.Error()
		}
		if e.Record.Step != rotation.StepIdle || e.Record.Hold != nil {
			busy = append(busy, fmt.Sprintf("%s is at %q, held %v", s.name, e.Record.Step, e.Record.Hold))
		}
	}
	if copies, err := root.List(mount + "/metadata/" + prefix + "/pending"); err != nil || copies != nil {
		busy = append(busy, fmt.Sprintf("copies of answers are left: %v, %v", copies, err))
	}
	for _, r := range w.replicas {
		dir := filepath.Join(r.stateDir(), "pending")
		sealed, err := pending.List(dir)
		if err != nil {
			busy = append(busy, err.Error())
		}
		for _, answer := range sealed {
			if superseded[answer.RotationID] {
				continue
			}
			busy = append(busy, fmt.Sprintf("the answer of rotation %s of %s is left on the disk of %s", answer.RotationID, answer.Token, r.name))
		}
	}
	return strings.Join(busy[:min(len(busy), 10)], "; ")
}

// agree says where replicas show different things, or do not show the pause.
func (w *world) agree() string {
	var views []map[string]shown
	for _, r := range w.replicas {
		all, err := r.tokens()
		if err != nil {
			return err.Error()
		}
		view := map[string]shown{}
		for _, s := range all {
			view[s.Name] = s
		}
		views = append(views, view)
	}
	for _, s := range w.subjects {
		first := views[0][s.name]
		for n, view := range views {
			if got := view[s.name]; got.Pause == nil {
				return fmt.Sprintf("%s does not show that %s is paused", w.replicas[n].name, s.name)
			} else if got.State != first.State || got.TokenID != first.TokenID || !got.LastSuccess.Equal(first.LastSuccess) || got.Failures != first.Failures {
				return fmt.Sprintf("%s shows %+v, and %s shows %+v", w.replicas[n].name, got, w.replicas[0].name, first)
			}
		}
	}
	return ""
}
