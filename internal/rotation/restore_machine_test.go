package rotation_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
)

// This file lets random writers change the sinks of a token with outside_change: restore, while people rotate by
// hand, faults strike and processes die. It checks what a restore must never do, and that nothing stays unseen.

// meddling is one random run.
type meddling struct {
	Acts   []string
	Faults []plannedFault // of the calls that a restore makes
	Shelf  bool           // there is a second sink
}

// meddlings are what can happen between two looks.
var meddlings = []string{
	"write a", "write b", "roll back a", "roll back b", "delete a", "delete b", "destroy a", "gone a", "empty a", "rewrite a",
	"rotate by hand", "rotate by hand and write", "rotate by hand and write a", "edit", "use", "pause", "resume", "restart", "accept", "list",
	"slot", "slot", "wait", "wait", "wait", "a day",
}

func drawMeddling(t *rapid.T) meddling {
	return meddling{
		Acts:   rapid.SliceOfN(rapid.SampledFrom(meddlings), 1, 14).Draw(t, "acts"),
		Faults: rapid.SliceOfN(drawPlannedFault(14), 0, 2).Draw(t, "faults"),
		Shelf:  rapid.Bool().Draw(t, "two sinks"),
	}
}

// meddler runs one meddling.
type meddler struct {
	*world
	findings
	faultPlan
	meddling
	token    rotation.Token
	r        *rotation.Rotator
	a, b     *shelf
	accepted map[string]bool // secrets that an operator has accepted
	restored []time.Time
	written  int // secrets of other writers

	plan             func(n int, call string) fault // of the calls of restores
	calledInRestores int
}

func (m *meddler) sinks() []*shelf {
	if m.Shelf {
		return []*shelf{m.a, m.b}
	}
	return []*shelf{m.a}
}

func (m *meddler) run() []string {
	m.gone = map[string]bool{}
	m.a, m.b = &shelf{w: m.world, name: "a"}, &shelf{w: m.world, name: "b"}
	m.token = m.world.token(10 * time.Minute)
	m.token.Sinks, m.token.Restore = nil, true
	for _, s := range m.sinks() {
		s.write(m.current)
		m.token.Sinks = append(m.token.Sinks, s)
	}
	m.r = m.start()
	if _, err := m.r.Enroll(m.Context(), m.token); err != nil {
		m.Fatal(err)
	}
	m.advance(m.r, m.token)
	m.sleep(20 * time.Minute)
	m.faultPlan = faultPlan{all: m.Faults, issuer: []string{"inspect", "ready"}, onFault: func(string, string) bool { return false }}
	m.plan = m.faultPlan.next()
	for _, act := range m.Acts {
		m.sleep(2 * time.Second) // two changes in the same moment have the same updated_at
		m.act(act)
		m.tick()
		if len(m.problems) > 0 {
			return m.problems
		}
	}
	m.fault = nil
	_, _ = m.r.Resume(m.Context(), m.token.Name)
	for range 2 {
		m.tick()
	}
	m.checkNothingIsUnseen()
	return m.problems
}

// act does what happens between two looks.
func (m *meddler) act(what string) {
	verb, name, _ := strings.Cut(strings.TrimPrefix(what, "roll "), " ")
	s := m.a
	if strings.HasSuffix(name, "b") && m.Shelf {
		s = m.b
	}
	switch {
	case what == "rotate by hand", strings.HasPrefix(what, "rotate by hand and write"):
		m.replace(m.secretOf(700+len(m.issued)), time.Hour)
		m.issued, m.updatedAt = append(m.issued, m.current), time.Now().UTC()
		if what != "rotate by hand" {
			m.a.write(m.current)
		}
		if what == "rotate by hand and write" {
			m.b.write(m.current)
		}
	case what == "edit":
		m.name, m.updatedAt = m.name+"x", time.Now().UTC()
	case what == "use":
		m.updatedAt = time.Now().UTC() // no document says that this does not happen
	case what == "pause":
		_ = m.r.Pause(m.Context(), m.token.Name, rotation.Pause{Since: time.Now()})
	case what == "resume":
		_, _ = m.r.Resume(m.Context(), m.token.Name)
	case what == "restart":
		m.restart()
	case what == "list":
		_, _ = m.r.RecordListing(m.Context(), m.token, m.facts())
	case what == "accept":
		if _, _, err := m.r.Resolve(m.Context(), m.token, rotation.ResolveAccept); err == nil {
			m.accepted[m.a.last().ClientSecret.Reveal()] = true
		}
	case what == "slot":
		if m.record().Step == rotation.StepIdle && m.record().Order == nil && !m.r.PauseOf(m.token.Name).On() {
			m.mayCutOff = true
			m.advance(m.r, m.token)
		}
	case what == "a day":
		m.sleep(24 * time.Hour)
	case what == "wait":
	case len(s.versions) == 0:
	case verb == "write":
		m.written++
		s.write(m.secretOf(1000 + m.written))
	case verb == "back":
		s.put(s.versions[max(len(s.versions)-2, 0)].Credential)
	case verb == "delete":
		s.last().deleted = true
	case verb == "destroy":
		s.last().destroyed = true
	case verb == "gone":
		s.versions = nil
	case verb == "empty":
		s.put(rotation.Credential{ClientID: clientID})
	case verb == "rewrite":
		s.put(s.last().Credential)
	}
}

func (m *meddler) restart() {
	m.r = m.start()
	if _, err := m.r.Enroll(m.Context(), m.token); err != nil {
		m.Fatal(err)
	}
}

// tick is one period of the watch: a look that was confirmed, and a restore. What a restore orders is carried out.
func (m *meddler) tick() {
	m.sleep(15 * time.Minute)
	m.fault = nil
	for _, s := range m.sinks() {
		before := m.record()
		stored, _ := s.Look(m.Context())
		record, err := m.r.RecordLook(m.Context(), m.token, rotation.Look{Sink: s.name, Before: before, Stored: stored})
		if err != nil {
			m.Errorf("recording a look: %v", err)
		}
		if kind := record.Findings[s.name].Kind; kind == "" != m.expected(s) && record.Outside.IsZero() {
			m.Errorf("sink %s has the finding %q and holds what was written: %t", s.name, kind, m.expected(s))
		}
	}
	m.restoreOnce()
	if order := m.record().Order; order != nil && !m.r.PauseOf(m.token.Name).On() {
		if end := m.record().Last.GraceEndsAt; m.r.Due(m.token, m.record()).At.Before(end) {
			m.Errorf("a rotation that restores is due before %s, the end of the grace", end)
		}
		m.mayCutOff = true
		m.advance(m.r, m.token)
	}
}

// expected reports whether a sink holds what the ledger expects there.
func (m *meddler) expected(s *shelf) bool {
	want := m.record().Written[s.name]
	return len(s.versions) > 0 && !s.last().deleted && !s.last().destroyed && s.last().ClientID == want.ClientID && s.last().ClientSecret.Digest() == want.Digest
}

// held returns what each sink holds now.
func (m *meddler) held() (all []string) {
	for _, s := range m.sinks() {
		c, _ := s.ReadBack(m.Context())
		all = append(all, c.ClientSecret.Reveal())
	}
	return all
}

// restoreOnce restores, perhaps with a fault or a crash, and checks what it has done.
func (m *meddler) restoreOnce() {
	before, rotates, recordBefore := m.held(), m.rotates, m.record()
	m.fault = func(_ int, call string) fault {
		m.calledInRestores++
		return m.plan(m.calledInRestores, call)
	}
	func() {
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(crashed); !ok {
					panic(p)
				}
				m.fault = nil
				m.restart()
			}
		}()
		_, _ = m.r.Restore(m.Context(), m.token)
	}()
	m.fault = nil
	if m.rotates != rotates {
		m.Errorf("a restore has rotated")
	}
	after, wrote := m.held(), false
	for i := range after {
		if before[i] == after[i] {
			continue
		}
		wrote = true
		switch {
		case after[i] != m.current:
			m.Errorf("a restore wrote a secret that is not the current one")
		case before[i] == m.current:
			m.Errorf("a restore wrote over the current secret")
		}
	}
	if !wrote {
		return
	}
	if m.r.PauseOf(m.token.Name).On() || recordBefore.Step != rotation.StepIdle || !recordBefore.Outside.IsZero() {
		m.Errorf("restored although the token is paused, being rotated, or rotated by others")
	}
	now := time.Now()
	m.restored = slices.DeleteFunc(append(m.restored, now), func(at time.Time) bool { return now.Sub(at) >= 24*time.Hour })
	if len(m.restored) > 3 {
		m.Errorf("restored %d times in a day", len(m.restored))
	}
}

// checkNothingIsUnseen checks that a sink without the current secret is known, unless an operator has accepted it,
// or Cloudflare showed nothing.
func (m *meddler) checkNothingIsUnseen() {
	_, _ = m.r.RecordListing(m.Context(), m.token, m.facts())
	record := m.record()
	for i, value := range m.held() {
		seen := record.Findings[m.sinks()[i].name].Kind != "" || !record.Outside.IsZero() || record.Step != rotation.StepIdle
		byHand := slices.ContainsFunc(m.Acts, func(act string) bool { return strings.HasPrefix(act, "rotate by hand") })
		if value != m.current && !seen && !m.accepted[value] && !byHand {
			m.Errorf("nothing is known of a sink that does not hold the current secret: %+v", record)
		}
	}
}

// TestRestoreMachine runs thousands of random runs.
func TestRestoreMachine(t *testing.T) {
	checks := fewer(3000)
	if testing.Short() {
		checks = 300
	}
	seen := map[string]int{}
	for seed := range checks {
		run := rapid.Custom(drawMeddling).Example(seed)
		var m *meddler
		synctest.Test(t, func(*testing.T) {
			m = &meddler{meddling: run, accepted: map[string]bool{}}
			m.world = newWorld(m)
			m.run()
		})
		for _, e := range m.events {
			seen[string(e.Kind)]++
		}
		for _, reason := range rotation.RestoreReasons {
			if m.record().Restoring.Refused == reason {
				seen[reason]++
			}
		}
		if len(m.problems) > 0 {
			t.Fatalf("seed %d: %s\n%+v\ncalls: %q", seed, strings.Join(m.problems, "\n"), run, m.calls)
		}
	}
	for _, what := range []string{"sink.changed", "sink.rolled_back", "sink.deleted", "sink.without_secret", "sink.as_written", "sink.restored",
		"sink.restore_ordered", "sink.not_restored", rotation.RestoreNotProven, rotation.RestoreTooOften, rotation.RestoreOutside} {
		if seen[what] == 0 && !testing.Short() && !racedetector.On {
			t.Errorf("%s never happened, so the runs do not test it", what)
		}
	}
	t.Log(seen)
}
