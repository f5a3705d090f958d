//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// armed says what happens at one point.
type armed struct {
	action   string
	duration time.Duration
	nth      int // 0: every time
	seen     int
}

var (
	mu     sync.Mutex
	points = mustParse(os.Getenv("ROTATORD_FAILPOINTS"))
)

func mustParse(spec string) map[string]*armed {
	points, err := parse(spec)
	if err != nil {
		fmt.Fprintln(os.Stderr, "failpoint:", err)
		os.Exit(2)
	}
	return points
}

func parse(spec string) (map[string]*armed, error) {
	points := map[string]*armed{}
	for item := range strings.SplitSeq(spec, ",") {
		if item == "" {
			continue
		}
		name, action, ok := strings.Cut(item, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not NAME=ACTION", item)
		}
		p := &armed{}
		action, nth, counted := strings.Cut(action, "#")
		if counted {
			n, err := strconv.Atoi(nth)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("%q does not end in a number of at least 1", item)
			}
			p.nth = n
		}
		p.action, _, _ = strings.Cut(action, ":")
		switch p.action {
		case "kill", "off":
		case "sleep", "bound":
			_, text, _ := strings.Cut(action, ":")
			d, err := time.ParseDuration(text)
			if err != nil || d <= 0 {
				return nil, fmt.Errorf("%q has no duration", item)
			}
			p.duration = d
		default:
			return nil, fmt.Errorf("%q: the action must be kill, off, sleep:DURATION or bound:DURATION", item)
		}
		points[name] = p
	}
	return points, nil
}

// strikes counts that a point is reached, and reports whether it strikes now.
func strikes(name string, action func(string) bool) *armed {
	mu.Lock()
	defer mu.Unlock()
	p := points[name]
	if p == nil || !action(p.action) {
		return nil
	}
	p.seen++
	if p.nth != 0 && p.nth != p.seen {
		return nil
	}
	fmt.Fprintf(os.Stderr, "{\"msg\":\"failpoint\",\"point\":%q,\"action\":%q}\n", name, p.action)
	return p
}

// Reach is called when a point is reached.
func Reach(name string) {
	p := strikes(name, func(action string) bool { return action == "kill" || action == "sleep" })
	if p == nil {
		return
	}
	if p.action == "sleep" {
		time.Sleep(p.duration)
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // do nothing until the signal arrives
}

// Off reports whether a step must be left out.
func Off(name string) bool {
	return strikes(name, func(action string) bool { return action == "off" }) != nil
}

// Bound returns a time limit, or the one that a test sets.
func Bound(name string, d time.Duration) time.Duration {
	if p := strikes(name, func(action string) bool { return action == "bound" }); p != nil {
		return p.duration
	}
	return d
}
