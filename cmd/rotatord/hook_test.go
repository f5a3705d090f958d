package main

import (
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/status"
)

// TestHookRunOnly: hook run --only waits for the hooks that it names, and another one that fails does not end it.
func TestHookRunOnly(t *testing.T) {
	failing := status.Hook{Name: "webhook:https://app.example", Failures: 3}
	owed := status.Hook{Name: "exec:reload"}
	done := status.Hook{Name: "exec:reload", DoneAt: time.Now()}
	for _, test := range []struct {
		hooks         []status.Hook
		only          []string
		waits, failed bool
	}{
		{[]status.Hook{failing, owed}, []string{"exec"}, true, false},
		{[]status.Hook{failing, owed}, []string{"exec:reload"}, true, false},
		{[]status.Hook{failing, done}, []string{"exec"}, false, false},
		{[]status.Hook{failing, owed}, []string{"exec", "webhook"}, false, true},
		{[]status.Hook{failing, owed}, nil, false, true},
		{[]status.Hook{owed}, nil, true, false},
		{[]status.Hook{done}, nil, false, false},
	} {
		h := admin.Hooked{Token: status.Token{Hooks: test.hooks}}
		if waits, failed := hooksWait(h, test.only), hookFailed(h, test.only); waits != test.waits || failed != test.failed {
			t.Errorf("%v of %+v: waits %t, failed %t", test.only, test.hooks, waits, failed)
		}
	}
}
