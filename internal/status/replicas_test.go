package status_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/status"
)

// TestTroublesOfReplicas: what is wrong with replicas is critical only if no other one works.
func TestTroublesOfReplicas(t *testing.T) {
	self := status.Replica{Name: "a", Living: true, SeenAt: noon}
	living, dead, left := status.Replica{Name: "b", Living: true, SeenAt: noon}, status.Replica{Name: "b", SeenAt: noon.Add(-time.Hour)}, status.Replica{Name: "b", Leaving: true, SeenAt: noon.Add(-time.Hour)}
	aside := func(r status.Replica) status.Replica { r.StandsAside = "its clock is wrong"; return r }
	leaving := aside(self)
	leaving.Leaving, leaving.Living = true, false
	for name, test := range map[string]struct {
		replicas []status.Replica
		synced   time.Time
		want     []string // kinds and severities
	}{
		"all live":                   {[]status.Replica{self, living}, noon, nil},
		"alone from the start":       {[]status.Replica{self}, noon, nil},
		"one has stopped":            {[]status.Replica{self, left}, noon, nil},
		"one is dead":                {[]status.Replica{self, dead}, noon, []string{"replica_dead", "warning"}},
		"stands aside":               {[]status.Replica{aside(self), living}, noon, []string{"stands_aside", "warning"}},
		"the other one stands aside": {[]status.Replica{self, aside(living)}, noon, nil},
		"both stand aside":           {[]status.Replica{aside(self), aside(living)}, noon, []string{"stands_aside", "critical"}},
		"aside and the other dead":   {[]status.Replica{aside(self), dead}, noon, []string{"stands_aside", "critical", "replica_dead", "warning"}},
		"it stops":                   {[]status.Replica{leaving, living}, noon, nil},
		"an old view":                {[]status.Replica{aside(self), living}, noon.Add(-61 * time.Second), []string{"ledger_unread", "warning"}},
		"cut off for a moment":       {[]status.Replica{aside(self), living}, noon.Add(-10 * time.Second), []string{"stands_aside", "warning"}},
		"cut off":                    {[]status.Replica{aside(self), living}, noon.Add(-11 * time.Second), []string{"ledger_unread", "warning"}},
		"a view of now":              {[]status.Replica{self, living}, noon.Add(-60 * time.Second), nil},
		"nothing read, nobody works": {[]status.Replica{aside(self)}, time.Time{}, []string{"ledger_unread", "critical"}},
	} {
		all := status.Replicas{Name: "a", SyncedAt: test.synced, Replicas: test.replicas}
		var got []string
		for _, trouble := range status.AllTroubles([]status.Token{{Name: "fine", Unread: test.synced.IsZero()}}, nil, &all, noon) {
			got = append(got, trouble.Kind, string(trouble.Severity))
			if trouble.ToDo == "" || len(trouble.Line(noon)) < 40 {
				t.Errorf("%s: %s", name, trouble.Line(noon))
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if got := status.AllTroubles(nil, nil, nil, noon); got != nil {
		t.Errorf("alone: %+v", got)
	}
}

// TestWhyAViewIsOld: the line about a view that is old has its cause, and what to do about that.
func TestWhyAViewIsOld(t *testing.T) {
	const name, vault = "another process has its name", "Vault is sealed"
	for _, test := range []struct{ aside, ledger, what, toDo string }{
		{name, name, name, "stands_aside"},
		{name, "", name, "stands_aside"},
		{name, vault, vault, "doctor"},
		{"", vault, vault, "doctor"},
	} {
		all := status.Replicas{Name: "a", StandsAside: test.aside, LedgerError: test.ledger, Replicas: []status.Replica{{Name: "a", StandsAside: test.aside}}}
		got := status.AllTroubles(nil, nil, &all, noon)
		if len(got) != 1 || !strings.HasSuffix(got[0].What, test.what) || !strings.Contains(strings.ReplaceAll(got[0].ToDo, "rotatordreplicastandsaside", "stands_aside"), test.toDo) {
			t.Errorf("%+v: %+v", test, got)
		}
	}
}

func TestTakenOverFrom(t *testing.T) {
	for _, test := range []struct {
		s    *status.Sharing
		want string
	}{
		{nil, ""},
		{&status.Sharing{BegunBy: "a"}, ""},
		{&status.Sharing{Hold: &status.Hold{Replica: "a"}, BegunBy: "a"}, ""},
		{&status.Sharing{Hold: &status.Hold{Replica: "b"}}, ""},
		{&status.Sharing{Hold: &status.Hold{Replica: "b"}, BegunBy: "a"}, "a"},
	} {
		if got := test.s.TakenOverFrom(); got != test.want {
			t.Errorf("%+v: %q, want %q", test.s, got, test.want)
		}
	}
}
