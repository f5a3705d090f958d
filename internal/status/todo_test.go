package status_test

import (
	"strings"
	"testing"
	"time"

	"rotatord/internal/status"
)

// TestEveryStateHasACommand: whatever state and trouble a token is in, there is something to type about it.
func TestEveryStateHasACommand(t *testing.T) {
	tokens := map[string]status.Token{
		"waits for its turn":   {State: "idle", Waiting: true},
		"an exit without text": {State: "sealed", ToDo: []status.ToDo{{Does: "Mend the sink."}}},
		"no credential":        {State: "idle", Account: "prod", AccountError: "no such file"},
		"in its grace":         {State: "idle", GraceEnd: noon.Add(time.Hour)},
	}
	for _, state := range status.States {
		tokens["state "+state] = status.Token{State: state}
	}
	for kind, token := range inTrouble {
		tokens["trouble "+kind] = token
	}
	for name, token := range tokens {
		token.Name = "ci"
		all := token.WhatToType(noon)
		commands := status.Commands(all)
		if len(commands) == 0 {
			t.Errorf("%s: no command in %q", name, all)
		}
		for _, command := range commands {
			if !strings.HasPrefix(command, "rotatord ") && !strings.HasPrefix(command, "systemctl reload ") {
				t.Errorf("%s: %q", name, command)
			}
		}
	}
}

// TestWhatToType: what has to be done comes first, and what is possible only if nothing has to be done.
func TestWhatToType(t *testing.T) {
	for _, test := range []struct {
		token status.Token
		want  string
	}{
		{status.Token{State: "idle"}, "Nothing has to be done: it is rotated by itself.|rotatord rotate ci|rotatord pause ci --for 24h --reason WHY"},
		{status.Token{State: "claimed"}, "It goes on by itself.|rotatord status ci --watch"},
		{status.Token{State: "sealed", ToDo: []status.ToDo{{Does: "Mend the sink."}}}, "Mend the sink.|rotatord status ci --watch"},
		{status.Token{State: "idle", ToDo: []status.ToDo{{Command: "rotatord resume ci"}}}, "rotatord resume ci"},
		{status.Token{State: "idle", Hooks: inTrouble["hook_failing"].Hooks}, "rotatord hook run ci|rotatord hook drop ci"},
		{status.Token{State: "idle", Account: "prod", AccountError: "no such file"}, "rotatord doctor"},
	} {
		test.token.Name = "ci"
		var got []string
		for _, do := range test.token.WhatToType(noon) {
			if do.Command == "" {
				do.Command = do.Does
			}
			got = append(got, do.Command)
		}
		if strings.Join(got, "|") != test.want {
			t.Errorf("%q, want %q", strings.Join(got, "|"), test.want)
		}
	}
	inGrace := status.Token{Name: "ci", State: "idle", GraceEnd: noon.Add(time.Hour)}
	if all := inGrace.WhatToType(noon); !strings.Contains(all[1].Does, "--override-grace") {
		t.Errorf("in the grace: %+v", all)
	}
}
