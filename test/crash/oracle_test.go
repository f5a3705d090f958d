package crash

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rotatord/internal/event"
	"rotatord/internal/pending"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
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
	Slot       time.Time `json:"slot"`
	Step       string    `json:"step"`
	Duration   string    `json:"duration"`
	Error      string    `json:"error"`
	Point      string    `json:"point"` // of a failpoint
	Action     string    `json:"action"`
}

// inDoubtAtStart is what the daemon says of a doubt that it finds.
const inDoubtAtStart = "the token is in doubt, and has been since before this start"

// raised reports whether a line reports a doubt.
func (l line) raised() bool { return l.Result == "in_doubt" || l.Msg == inDoubtAtStart }

// slack is by how much Cloudflare's end of a grace may lie behind the one that was promised: a
// second since its clock is known to the second only, one for rounding up to whole seconds, and
// the way to Cloudflare.
const slack = 2500 * time.Millisecond

// underWay returns how long a request was on its way since the intent: the daemon counts a grace from
// the intent, and the oracle from the arrival. It trusts the log up to the daemon's own bound for
// the request.
func (r request) underWay(token string, lines []line) time.Duration {
	var intent time.Time
	for _, l := range lines {
		if l.Token == token && l.Msg == "step ended" && l.Step == string(event.PhaseIntent) && l.Time.Before(r.at) {
			took, _ := time.ParseDuration(l.Duration)
			intent = l.Time.Add(-took)
		}
	}
	return min(r.at.Sub(intent), rotateBound) + 20*time.Millisecond
}

// violations is the oracle. It returns what is wrong. It does not trust what the daemon says
// about events: what happened, and when, it takes from the simulator and from Vault.
func (w *world) violations() []string {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	lines, logs := w.lines()
	w.checkState(lines, say)
	slots, gone := map[string]bool{}, map[string]bool{}
	for _, l := range lines {
		if l.Reason == rotation.ReasonSealedLost && !gone[l.RotationID] {
			gone[l.RotationID] = true
			say("the sealed answer of rotation %s was lost", l.RotationID)
		}
		if slot := l.Token + " " + l.Slot.Format(time.RFC3339Nano); l.Msg == "rotated" {
			if slots[slot] {
				say("the slot %s was served twice", slot)
			}
			slots[slot] = true
		}
	}
	for _, s := range w.subjects {
		w.checkSubject(s, lines, say)
	}
	w.checkLeaks(logs, say)
	return wrong
}

// checkState checks that nothing is left pending but answers that failed validation.
func (w *world) checkState(lines []line, say func(string, ...any)) {
	dir := filepath.Join(w.dir, "state")
	records, err := statedir.ReadLedger(w.t.Context(), dir)
	if err != nil {
		say("the ledger cannot be read: %v", err)
		return
	}
	for _, r := range records {
		if r.Step != rotation.StepIdle {
			say("%s is left at %s", r.Token, r.Step)
		}
	}
	files, err := os.ReadDir(filepath.Join(dir, "pending")) // before Open, which tidies up
	if err != nil && !os.IsNotExist(err) {
		say("what is pending cannot be read: %v", err)
	}
	j, err := statedir.Open(statedir.Options{Dir: dir})
	if err != nil {
		say("the journal cannot be opened: %v", err)
		return
	}
	defer j.Close()
	sealed, err := j.Pending.Sealed()
	if err != nil {
		say("the journal cannot be read: %v", err)
	}
	invalid := map[string]bool{}
	for _, l := range lines {
		if l.Reason == rotation.ReasonAnswerInvalid || l.Reason == rotation.ReasonUnfamiliarSecret || l.Reason == rotation.ReasonOddAnswer {
			invalid[l.RotationID] = true
		}
	}
	for _, s := range sealed {
		if !invalid[s.RotationID] {
			say("rotation %s is left sealed", s.RotationID)
		}
	}
	for _, f := range files {
		if !slices.ContainsFunc(sealed, func(s pending.Sealed) bool { return s.RotationID == f.Name() }) {
			say("%s is left in pending/", f.Name())
		}
	}
}

// checkLeaks looks for every secret in every log and in every file of the state.
func (w *world) checkLeaks(logs string, say func(string, ...any)) {
	where := map[string]string{"a log": logs}
	err := filepath.WalkDir(filepath.Join(w.dir, "state"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		where[filepath.Base(path)] = string(b)
		return err
	})
	if err != nil {
		say("the state cannot be read: %v", err)
	}
	for _, s := range w.subjects {
		for _, id := range w.idsOf(s) {
			for i, issued := range w.sim.Secrets(id) {
				for name, text := range where {
					if strings.Contains(text, issued.Value.Reveal()) {
						say("secret %d of %s is in %s", i, id, name)
					}
				}
			}
		}
	}
	if secret.Scrub(logs) != logs {
		say("what looks like a secret is in a log")
	}
}

// checkSubject checks one token: what Vault holds, where each secret is, and each rotate.
func (w *world) checkSubject(s subject, lines []line, say func(string, ...any)) {
	versions := history(w.t, w.server.Root(w.t), s.path)
	if len(versions) == 0 {
		say("%s: Vault holds nothing", s.name)
		return
	}
	last := versions[len(versions)-1]
	if !program.Accepts(w.sim, last.clientID, last.secret) {
		say("%s: what Vault holds is refused", s.name)
	}
	for i, v := range versions {
		if !s.kind.absent() && v.canary != canary {
			say("%s: version %d has lost what another program keeps there", s.name, i+1)
		}
	}
	ids := w.idsOf(s)
	w.mu.Lock()
	defer w.mu.Unlock()
	var requests []request
	for _, r := range w.requests {
		if slices.Contains(ids, r.tokenID) {
			requests = append(requests, r)
		}
	}
	slices.SortFunc(requests, func(a, b request) int { return a.at.Compare(b.at) })
	lost, inARow := w.checkSecrets(s, requests, versions, lines, say)
	w.checkRuns(s, inARow, say)
	w.checkRequests(s, requests, versions, lines, say)
	w.checkRefusals(s, lost, say)
	w.checkProbes(s, requests, versions, say)
	w.checkCreated(s, requests, versions, say)
}

// checkSecrets checks that each issued secret reached Vault, or that a doubt was reported
// before another request was sent. It returns how many secrets of rotates did not reach Vault,
// and how many at most in a row.
func (w *world) checkSecrets(s subject, requests []request, versions []version, lines []line, say func(string, ...any)) (lost, inARow int) {
	row := 0 // of the last requests that were carried out
	told := map[string]int{}
	for _, r := range requests {
		if r.carriedOut() && !r.creates {
			told[r.tokenID]++
		}
	}
	for _, id := range s.ids {
		if token, ok := w.sim.Token(id); ok && told[id] != token.Rotations {
			say("%s: the protocol of the requests has %d rotations of %s and Cloudflare %d: the oracle cannot decide", s.name, told[id], id, token.Rotations)
		}
	}
	for i, r := range requests {
		if !r.carriedOut() {
			continue
		}
		if slices.ContainsFunc(versions, func(v version) bool { return digest(v.secret) == r.issued }) {
			row = 0
			continue
		}
		if !r.creates { // no consumer used what was created, and it cut no consumer off
			lost++
			row++
			inARow = max(inARow, row)
		}
		doubt := slices.IndexFunc(lines, func(l line) bool {
			return l.Token == s.name && l.raised() && l.Time.After(r.at) && (i+1 == len(requests) || l.Time.Before(requests[i+1].at))
		})
		if doubt < 0 {
			say("%s: what was issued at %s never reached Vault, and no doubt was reported before the next request", s.name, r.at.Format(clock))
			continue
		}
		l := lines[doubt]
		lateForUs := strings.Contains(l.Error, "deadline exceeded") || strings.Contains(l.Error, "Timeout exceeded")
		if r.answered && l.Reason == rotation.ReasonOutcomeUnknown && !lateForUs {
			say("%s: what was answered at %s, whole, was not kept: %s", s.name, r.at.Format(clock), l.Error)
		}
	}
	return lost, inARow
}

// checkRequests checks that no rotate cut off what consumers had, nor what they were promised.
func (w *world) checkRequests(s subject, requests []request, versions []version, lines []line, say func(string, ...any)) {
	last := map[string]request{} // that was carried out
	for _, r := range requests {
		if !r.carriedOut() {
			continue
		}
		creation, known := last[r.tokenID] // the request that created the current secret
		last[r.tokenID] = r
		switch {
		case r.creates:
			continue
		case s.kind.inZone():
			say("%s: a service token of a zone was rotated", s.name)
		}
		known = known && !creation.creates // the first secret promised nothing about another one
		held := heldAt(versions, r.at)
		used, age, way := digest(held.secret), r.at.Sub(creation.at), creation.underWay(s.name, lines)
		switch {
		case s.kind == pair && held.clientID == r.before.ClientID:
			say("%s: the service token in use was rotated", s.name)
		case s.kind == pair || s.grace == 0:
		case used == r.before.PreviousDigest && known && age < s.grace/2-way:
			say("%s: rotated at %s, %s after a rotation that consumers had not got (grace %s)", s.name, r.at.Format(clock), age, s.grace)
		case used == r.before.CurrentDigest && known && age < s.grace-way:
			say("%s: rotated at %s, %s after a rotation that promised a grace of %s", s.name, r.at.Format(clock), age, s.grace)
		}
		granted := r.after.PreviousExpiresAt.Sub(r.at)
		if s.grace > 0 && (granted < s.grace-r.underWay(s.name, lines) || granted > s.grace+slack) {
			say("%s: rotated at %s with a grace of %s, not %s", s.name, r.at.Format(clock), granted, s.grace)
		}
	}
}

// clock is how times are shown.
const clock = "15:04:05.000"

// checkRefusals checks that consumers were refused only where it is unavoidable.
func (w *world) checkRefusals(s subject, lost int, say func(string, ...any)) {
	n := 0
	for _, r := range w.refusals {
		if r.token == s.name {
			n++
		}
	}
	if n == 0 || !s.kind.apart() && (s.grace == 0 || lost > 0) {
		return
	}
	// If no daemon reached Vault for half a grace, none could deliver in time.
	if down := w.longestDown(); !s.kind.apart() && down > s.grace/2 {
		w.excused = append(w.excused, fmt.Sprintf("%s: refused %d times, and no daemon was there for %s of a grace of %s", s.name, n, down, s.grace))
	} else {
		say("%s: what Vault held was refused %d times (grace %s, %s)", s.name, n, s.grace, s.kind)
	}
}

// longestDown is the longest time from the end of a daemon to when the next one reached Vault.
func (w *world) longestDown() (longest time.Duration) {
	var died time.Time
	for _, p := range w.lives {
		for l := range strings.Lines(p.log.String()) {
			var parsed line
			if json.Unmarshal([]byte(l), &parsed) == nil && parsed.Msg == "logged in to Vault" && !died.IsZero() {
				longest, died = max(longest, parsed.Time.Sub(died)), time.Time{}
			}
		}
		if died.IsZero() { // else this one never reached it
			died = p.died
		}
	}
	return longest
}

func (w *world) lines() (all []line, text string) {
	var logs strings.Builder
	for _, log := range w.logs {
		logs.WriteString(log.String())
		for l := range strings.Lines(log.String()) {
			var parsed line
			if json.Unmarshal([]byte(l), &parsed) == nil { // the last line of a killed process may be half
				all = append(all, parsed)
			}
		}
	}
	return all, logs.String()
}
