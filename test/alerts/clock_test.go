package alerts

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/scheduler"
)

var showClock = flag.Bool("show-clock", false, "print a clock for each line of standard input; for TestOwnClock")

// TestShowClock is the program of TestOwnClock.
func TestShowClock(t *testing.T) {
	if !*showClock {
		t.Skip("TestOwnClock runs it")
	}
	clock := scheduler.NewClock(nil)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Printf("clock %d %d\n", time.Now().Unix(), int(clock.Drift().Seconds()))
	}
}

// TestOwnClock: a program with a clock of its own sees that it is set while it runs. Its monotonic clock stays.
func TestOwnClock(t *testing.T) {
	t.Parallel()
	if !clockCanBeSet {
		t.Skip("on Linux on amd64 only")
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestShowClock$", "-show-clock")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	clock, err := startWithClock(cmd)
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("this machine does not let a program trace another one: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	lines := bufio.NewReader(out)
	for _, ahead := range []time.Duration{0, 3 * time.Minute, -90 * time.Second, 0} {
		if err := clock.set(ahead); err != nil {
			t.Fatal(err)
		}
		before := time.Now().Add(ahead).Unix()
		_, _ = fmt.Fprintln(in)
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var shown, drift int64
		if _, err := fmt.Sscanf(line, "clock %d %d", &shown, &drift); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if after := time.Now().Add(ahead).Unix(); shown < before || shown > after || time.Duration(drift)*time.Second-ahead > time.Second || ahead-time.Duration(drift)*time.Second > time.Second {
			t.Errorf("set %s ahead it shows %d and a drift of %d s, and now it is %d to %d", ahead, shown, drift, before, after)
		}
	}
}
