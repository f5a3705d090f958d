package drill

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rotatord/internal/rotation"
)

// TestKillAtTheWrongMoment: a gate that takes the preflight's probes for writes kills the daemon
// before anything was rotated, and the drill says so. TestDisasters shows that the real gate does not.
func TestKillAtTheWrongMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the program")
	}
	t.Parallel()
	program, err := BuildProgram()
	if err != nil {
		t.Fatal(err)
	}
	d := disaster{
		name: "kill at the probe", killedAt: rotation.StepSealed,
		kill: func(st *stage) <-chan struct{} { return killAt(st, func(*http.Request) bool { return false }) },
	}
	o := play(t.Context(), d, sampleOfOne(t, ""), Program{Path: program, Name: "rotatord"})
	// It is at "claimed" or, if the look-ahead check came first, not claimed yet.
	if !strings.Contains(o.Error, "the rotation of ci was at the step ") || !strings.HasSuffix(o.Error, `and not at "sealed"`) {
		t.Errorf("the error is %q", o.Error)
	}
}

// TestTally: a token that comes twice counts once, and one that does not take part does not count.
func TestTally(t *testing.T) {
	tally := newTally(&sample{tokens: []player{{name: "a"}, {name: "b"}}})
	for _, name := range []string{"a", "a", "c", ""} {
		tally.reached(name)
	}
	select {
	case <-tally.all:
		t.Fatal("it is complete without b")
	default:
	}
	tally.reached("b")
	tally.reached("b")
	select {
	case <-tally.all:
	default:
		t.Error("it is not complete")
	}
}

// TestRequestsAreRecognized: the gates know which token a request is about.
func TestRequestsAreRecognized(t *testing.T) {
	st, err := newStage(sampleOfOne(t, "  made: {create: {name: x}, sinks: [{vault: {mount: m, path: a/b}}]}\n"), Program{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	}()
	const account = "/client/v4/accounts/023e105f4ecef8ad9ca31a8372d0c353/access/service_tokens"
	for name, test := range map[string]struct {
		method, path, body string
		written, issued    string
		issues             bool
	}{
		"a rotation":        {method: "POST", path: account + "/f174e90a-fafe-4643-bbbc-4a0ed4fc8415/rotate", body: "{}", issued: "ci", issues: true},
		"another rotation":  {method: "POST", path: account + "/0174e90a-fafe-4643-bbbc-4a0ed4fc8415/rotate", body: "{}", issues: true},
		"a creation":        {method: "POST", path: account, body: `{"name":"made"}`, issued: "made", issues: true},
		"a listing":         {method: "GET", path: account},
		"a write":           {method: "PUT", path: "/v1/secret/data/ci", body: "{}", written: "ci"},
		"a write of two":    {method: "PUT", path: "/v1/m/data/a/b", body: "{}", written: "made"},
		"a write elsewhere": {method: "PUT", path: "/v1/m/data/a", body: "{}"},
		"a read":            {method: "GET", path: "/v1/secret/data/ci"},
	} {
		r := httptest.NewRequest(test.method, test.path, strings.NewReader(test.body))
		if got := st.writtenToken(r); got != test.written {
			t.Errorf("%s: it writes to %q, want %q", name, got, test.written)
		}
		if got, issues := st.issuedToken(r); got != test.issued || issues != test.issues {
			t.Errorf("%s: it issues a secret for %q, %t, want %q, %t", name, got, issues, test.issued, test.issues)
		}
	}
}
