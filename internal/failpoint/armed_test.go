//go:build failpoint

package failpoint

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	got, err := parse("rotate.after=kill,seal=off,ledger.intent.before=sleep:2s#3")
	if err != nil || len(got) != 3 || *got["rotate.after"] != (armed{action: "kill"}) || *got["seal"] != (armed{action: "off"}) ||
		*got["ledger.intent.before"] != (armed{action: "sleep", duration: 2 * time.Second, nth: 3}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"rotate", "=kill", "a=boom", "a=sleep", "a=sleep:x", "a=sleep:-1s", "a=kill#0", "a=kill#x", "a=bound"} {
		if _, err := parse(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestProcess arms points in processes of their own.
func TestProcess(t *testing.T) {
	if os.Getenv("FAILPOINT_TEST") != "" {
		for range 3 {
			Reach("here")
			os.Stdout.WriteString("passed\n")
		}
		if bound := Bound("limit", time.Minute); bound != time.Minute && (os.Getenv("ROTATORD_FAILPOINTS") != "limit=bound:1s" || bound != time.Second) {
			os.Exit(4)
		}
		if Off("here") || Off("step") != strings.Contains(os.Getenv("ROTATORD_FAILPOINTS"), "step=off") {
			os.Exit(3)
		}
		os.Exit(0)
	}
	for spec, want := range map[string]struct {
		passed int
		killed bool
		code   int
	}{
		"": {passed: 3}, "here=kill": {killed: true}, "here=kill#3": {passed: 2, killed: true}, "there=kill": {passed: 3},
		"here=sleep:1ms": {passed: 3}, "step=off": {passed: 3}, "limit=bound:1s": {passed: 3}, "here=boom": {code: 2},
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestProcess$")
		cmd.Env = append(os.Environ(), "FAILPOINT_TEST=1", "ROTATORD_FAILPOINTS="+spec)
		out, _ := cmd.Output()
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		if n := strings.Count(string(out), "passed"); n != want.passed || status.Signaled() != want.killed ||
			want.killed && status.Signal() != syscall.SIGKILL || !want.killed && status.ExitStatus() != want.code {
			t.Errorf("%q: passed %d times, %v", spec, n, cmd.ProcessState)
		}
	}
}
