package crash

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rotatord/internal/journal"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// line is what the oracle reads of a log line.
type line struct {
	Msg        string    `json:"msg"`
	Token      string    `json:"token"`
	RotationID string    `json:"rotation_id"`
	Result     string    `json:"result"`
	Reason     string    `json:"reason"`
	Slot       time.Time `json:"slot"`
}

// inDoubtAtStart is what the daemon says of a doubt that it finds.
const inDoubtAtStart = "the token is in doubt, and has been since before this start"

// slack is by how much Cloudflare's end of a grace may lie behind the one that was promised: a
// second since its clock is known to the second only, one for rounding up to whole seconds, and
// the way to Cloudflare.
const slack = 2500 * time.Millisecond

// judge is the oracle. It returns what is wrong, and nothing if all is well.
func (w *world) judge() []string {
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	lines, logs := w.lines()
	sealed, records, err := w.state()
	if err != nil {
		say("the state cannot be read: %v", err)
		return wrong
	}
	for _, r := range records {
		if r.Step != rotation.StepIdle {
			say("%s is left at %s", r.Token, r.Step)
		}
	}
	doubted := map[string]map[string]string{} // reasons, by token and rotation
	slots := map[string]bool{}
	for _, l := range lines {
		if l.Result == "in_doubt" || l.Msg == "doubt judged" || l.Msg == inDoubtAtStart {
			if doubted[l.Token] == nil {
				doubted[l.Token] = map[string]string{}
			}
			if l.Reason == rotation.ReasonSealedLost {
				say("the sealed answer of rotation %s was lost", l.RotationID)
			}
			if l.Result == "in_doubt" || l.Msg == inDoubtAtStart || doubted[l.Token][l.RotationID] == "" {
				doubted[l.Token][l.RotationID] = l.Reason
			}
		}
		if slot := l.Token + " " + l.Slot.Format(time.RFC3339Nano); l.Msg == "rotated" {
			if slots[slot] {
				say("the slot %s was served twice", slot)
			}
			slots[slot] = true
		}
	}
	kept := map[string]int{} // sealed answers that failed validation, by token
	for _, s := range sealed {
		token := ""
		for name, byRotation := range doubted {
			if reason := byRotation[s.RotationID]; reason == rotation.ReasonAnswerInvalid || reason == rotation.ReasonUnfamiliarSecret {
				token = name
			}
		}
		if token == "" {
			say("rotation %s is left sealed", s.RotationID)
		}
		kept[token]++
	}
	for _, s := range w.subjects {
		w.judgeSubject(s, len(doubted[s.name]), kept[s.name], say)
	}
	for _, s := range w.subjects {
		for _, id := range s.ids {
			for i, issued := range w.sim.Secrets(id) {
				if strings.Contains(logs, issued.Value.Reveal()) {
					say("secret %d of %s stands in a log", i, id)
				}
			}
		}
	}
	if secret.Scrub(logs) != logs {
		say("what looks like a secret stands in a log")
	}
	return wrong
}

// judgeSubject judges one token: what Vault holds, what became of each secret, each rotate.
func (w *world) judgeSubject(s subject, doubts, kept int, say func(string, ...any)) {
	versions := history(w.t, w.server.Root(w.t), s.path)
	last := versions[len(versions)-1]
	if !w.accepted(s, last.clientID, last.secret) {
		say("%s: what Vault holds is refused", s.name)
	}
	inVault := map[secret.Digest]bool{}
	for i, v := range versions {
		inVault[digest(v.secret)] = true
		if v.canary != "kept" {
			say("%s: version %d has lost what somebody else keeps there", s.name, i+1)
		}
	}
	lost := 0
	for _, id := range s.ids {
		for i, issued := range w.sim.Secrets(id) {
			if i > 0 && !inVault[issued.Digest] { // the first one was there before
				lost++
			}
		}
	}
	if lost > doubts {
		say("%s: %d secrets are unaccounted for, with %d rotations in doubt (%d answers sealed)", s.name, lost, doubts, kept)
	}
	w.judgeRequests(s, versions, say)
	w.judgeRefusals(s, lost, say)
}

// judgeRequests holds that no rotate cut off what consumers had.
func (w *world) judgeRequests(s subject, versions []version, say func(string, ...any)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if !slices.Contains(s.ids, r.tokenID) || r.after.Rotations == r.before.Rotations {
			continue
		}
		held := versions[0]
		for _, v := range versions {
			if v.at.Before(r.at) {
				held = v
			}
		}
		used := digest(held.secret)
		left := r.before.PreviousExpiresAt.Sub(r.at)
		switch {
		case s.paired() && held.clientID == r.before.ClientID:
			say("%s: the service token in use was rotated", s.name)
		case s.paired() || s.grace == 0 || used == r.before.CurrentDigest:
		case used == r.before.PreviousDigest && left > s.grace/4+slack:
			say("%s: rotated again although what consumers had was good for another %s (grace %s)", s.name, left, s.grace)
		}
	}
}

// judgeRefusals holds that consumers were refused only where nothing can be done about it.
func (w *world) judgeRefusals(s subject, lost int, say func(string, ...any)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, r := range w.refusals {
		if r.token == s.name {
			n++
		}
	}
	if n > 0 && (s.paired() || s.grace > 0 && lost == 0) {
		say("%s: what Vault held was refused %d times (grace %s, pair %t)", s.name, n, s.grace, s.paired())
	}
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

// state reads the ledger, and what is sealed.
func (w *world) state() ([]journal.Sealed, []rotation.Record, error) {
	dir := filepath.Join(w.dir, "state")
	records, err := journal.ReadLedger(w.t.Context(), dir)
	if err != nil {
		return nil, nil, err
	}
	j, err := journal.Open(journal.Options{Dir: dir})
	if err != nil {
		return nil, nil, err
	}
	defer j.Close()
	sealed, err := j.Sealed()
	return sealed, records, err
}
