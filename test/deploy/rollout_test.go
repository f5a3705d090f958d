package deploy

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
	"rotatord/internal/vault/vaulttest"
)

// rolloutFor is how long TestRolloutCostsNoSlot goes on: -args -rollout-for 10m.
var rolloutFor = flag.Duration("rollout-for", 100*time.Second, "how long configurations are rolled out")

const (
	rolloutTokens = 60
	rolloutJitter = 35 * time.Second
	rolloutWindow = 20 * time.Second
)

// TestRolloutCostsNoSlot changes the configuration again and again, in the way of `kubectl apply`: the old
// pod gets SIGTERM, finishes and is gone; some time later the next one starts on the same volume. Every third
// time the pod is evicted from its node instead: then the next one is started at once, and has to fail and to
// be started again until the old one is gone. Slots come all the time, a rotation takes a second, and each slot
// has to be served once, within its window.
func TestRolloutCostsNoSlot(t *testing.T) {
	if testing.Short() {
		t.Skip("takes more than a minute")
	}
	t.Parallel()
	r := newRollout(t)
	p := r.start(t, 0)
	begin := p.ready
	var rollouts, refused int
	var longest, sum time.Duration
	// On a loaded machine a container may come so late that it need not wait for the volume: then there are more.
	for time.Since(begin) < *rolloutFor || refused == 0 && time.Since(begin) < 3**rolloutFor {
		time.Sleep(time.Duration(rand.Int64N(int64(5 * time.Second))))
		rollouts++
		if rollouts%3 == 0 { // longer than the next daemon waits for the volume
			r.answersAfter(t, 4*time.Second, time.Second)
			for end := time.Now().Add(40 * time.Second); len(r.cloudflare.Faults()) > 1 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
		}
		told := p.terminate(t)
		if rollouts%3 > 0 {
			p.gone(t)
			// Until the next container runs: the ReplicaSet, the scheduler, the volume.
			time.Sleep(time.Second + time.Duration(rand.Int64N(int64(2*time.Second))))
		}
		next := r.start(t, rollouts)
		if gap := next.ready.Sub(told); rollouts%3 > 0 { // an eviction has the back-off of a failed container
			longest, sum = max(longest, gap), sum+gap
		}
		p.gone(t) // if it is not yet: it has given the volume back before it ended
		if p.rotated.After(next.ready) {
			t.Errorf("a pod was running at %s, and the one before it rotated until %s", next.ready, p.rotated)
		}
		p, refused = next, refused+next.refused
	}
	time.Sleep(rolloutWindow) // what came last is served
	end := p.terminate(t)
	p.gone(t)

	served, missed := r.outcome()
	if len(missed) > 0 {
		t.Errorf("slots were missed:\n%s", strings.Join(missed, "\n"))
	}
	late, during, n := time.Duration(0), 0, 0
	for name, f := range r.slots(begin, end) {
		n++
		at, ok := r.servedOnce(t, served, name, f)
		if !ok {
			continue
		}
		delay := at.Sub(f.Begin)
		if delay > time.Second/2 {
			during++
		}
		late = max(late, delay)
	}
	if n < rolloutTokens || rollouts < 5 || refused == 0 {
		t.Fatalf("only %d slots, %d rollouts and %d containers that had to wait for the volume: this shows nothing", n, rollouts, refused)
	}
	if got, want := r.rotations(), r.count(served); got != want {
		t.Errorf("Cloudflare carried out %d rotations, the daemons report %d", got, want)
	}
	changes := rollouts - rollouts/3
	t.Logf("%d changes of the configuration and %d evictions in %s: %d slots, each served once; %d of them had to wait for the next daemon. "+
		"From SIGTERM to the next daemon that is running, after a change: %s on average, %s at most. "+
		"%d containers were refused because the old one had not ended. The latest rotation began %s after it was due.",
		changes, rollouts/3, end.Sub(begin).Round(time.Second), n, during, (sum / time.Duration(changes)).Round(time.Millisecond), longest.Round(time.Millisecond),
		refused, late.Round(time.Millisecond))
}

// rollout is what stays while pods are replaced: Cloudflare, Vault and the volume.
type rollout struct {
	binary, dir string
	cloudflare  *cfsim.Simulator
	addresses   [2]string // of Cloudflare and Vault
	schedule    *scheduler.Schedule

	mu     sync.Mutex
	served map[string]map[time.Time][]time.Time // by token and slot: when the rotation began
	missed []string                             // lines of the log
}

func newRollout(t *testing.T) *rollout {
	t.Helper()
	r := &rollout{binary: builtBinary(t), dir: t.TempDir(), served: map[string]map[time.Time][]time.Time{}}
	var err error
	if r.schedule, err = scheduler.Parse("* * * * *", time.UTC); err != nil {
		t.Fatal(err)
	}
	r.cloudflare = cfsim.New(cfsim.Options{SeedTokens: rolloutTokens, APIToken: secret.New("made-up"), RateLimit: -1})
	r.answersAfter(t, time.Second, time.Second)
	vault := vaulttest.New(vaulttest.Options{RootToken: "made-up", Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}}})
	for i, handler := range []http.Handler{r.cloudflare, vault} {
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		r.addresses[i] = server.URL
	}
	if err := os.WriteFile(filepath.Join(r.dir, "token"), []byte("made-up"), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// answersAfter has Cloudflare answer the next rotate request after the first delay, and all others after the second.
func (r *rollout) answersAfter(t *testing.T, next, others time.Duration) {
	t.Helper()
	r.cloudflare.ClearFaults()
	if err := errors.Join(
		r.cloudflare.Inject(cfsim.Fault{Operation: cfsim.OpRotate, Count: 1, Delay: cfsim.Duration(next)}),
		r.cloudflare.Inject(cfsim.Fault{Operation: cfsim.OpRotate, Count: -1, Delay: cfsim.Duration(others)}),
	); err != nil {
		t.Fatal(err)
	}
}

// config writes the next configuration. It differs from the last one: each has another comment, and another
// token with another grace.
func (r *rollout) config(t *testing.T, n int) string {
	t.Helper()
	var c strings.Builder
	fmt.Fprintf(&c, `# change %[1]d
listen: 127.0.0.1:0
admin_socket: %[2]s/run/admin.sock
state: {dir: %[2]s/state}
accounts:
  main: {account_id: %[3]s, api_token: {file: %[2]s/token}, base_url: %[4]s%[5]s}
vault:
  address: %[6]s
  auth: {token: {file: %[2]s/token}}
defaults: {account: main, schedule: "* * * * *", jitter: %[7]s, window: %[8]s, grace: 3s}
tokens:
`, n, r.dir, cfsim.DefaultAccountID, r.addresses[0], cfsim.BasePath, r.addresses[1], rolloutJitter, rolloutWindow)
	for i := range rolloutTokens {
		fmt.Fprintf(&c, "  seeded-%04d: {id: %s, grace: %ds, sinks: [{vault: {mount: secret, path: access/%d}}]}\n", i+1, cfsim.SeedTokenID(i+1), 2+(n+i)%3, i+1)
	}
	path := filepath.Join(r.dir, fmt.Sprintf("config-%d.yaml", n))
	if err := os.WriteFile(path, []byte(c.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// pod is one process of the daemon.
type pod struct {
	cmd     *exec.Cmd
	done    chan struct{}
	serving chan struct{}
	ready   time.Time
	rotated time.Time // the end of its last rotation; known when it is done
	last    string    // what it wrote last; the same
	refused int       // how many before it could not have the volume
}

// start starts the daemon as its container would, and waits until it runs. A container that ends before is
// started again.
func (r *rollout) start(t *testing.T, n int) *pod {
	t.Helper()
	path := r.config(t, n)
	for refused := 0; ; refused++ {
		p := r.run(t, path)
		p.refused = refused
		select {
		case <-p.serving:
			return p
		case <-p.done:
			if !strings.Contains(p.last, "another process") || refused > 20 {
				t.Fatalf("the daemon ended: %v\n%s", p.cmd.ProcessState, p.last)
			}
		case <-time.After(time.Minute):
			t.Fatal("the daemon did not come up")
		}
	}
}

func (r *rollout) run(t *testing.T, config string) *pod {
	t.Helper()
	cmd := exec.Command(r.binary, "run", "--config="+config, "--shutdown-timeout=30s")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &pod{cmd: cmd, done: make(chan struct{}), serving: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.last, p.rotated = r.follow(log, sync.OnceFunc(func() { p.ready = time.Now(); close(p.serving) }))
		_ = cmd.Wait()
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-p.done })
	return p
}

// terminate tells it to end, as the kubelet does, and returns when.
func (p *pod) terminate(t *testing.T) time.Time {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// gone waits until it has ended.
func (p *pod) gone(t *testing.T) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(45 * time.Second):
		t.Fatal("the daemon outlives the time that the pod has to end")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
}

// follow reads a daemon's log, and returns its last line and the end of its last rotation.
func (r *rollout) follow(log io.Reader, serving func()) (last string, rotated time.Time) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			Msg, Token, Duration string
			Time, Slot           time.Time
		}
		last = lines.Text()
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch {
		case line.Msg == "rotatord is running":
			serving()
		case line.Msg == "rotated":
			r.mu.Lock()
			if r.served[line.Token] == nil {
				r.served[line.Token] = map[time.Time][]time.Time{}
			}
			rotated = line.Time
			slot := line.Slot.UTC()
			took, _ := time.ParseDuration(line.Duration)
			r.served[line.Token][slot] = append(r.served[line.Token][slot], line.Time.Add(-took))
			r.mu.Unlock()
		case strings.HasPrefix(line.Msg, "slots passed without"):
			r.mu.Lock()
			r.missed = append(r.missed, lines.Text())
			r.mu.Unlock()
		}
	}
	return last, rotated
}

// slots are the tokens and slots that have to be served between two times.
func (r *rollout) slots(begin, end time.Time) iter.Seq2[string, scheduler.Firing] {
	return func(yield func(string, scheduler.Firing) bool) {
		for token := range rolloutTokens {
			name := fmt.Sprintf("seeded-%04d", token+1)
			table := scheduler.Timetable{Schedule: r.schedule, Key: name, Jitter: rolloutJitter, Window: rolloutWindow}
			for slot := r.schedule.Next(begin); ; slot = r.schedule.Next(slot) {
				f := table.Firing(slot)
				if f.Close.After(end) {
					break
				}
				if !f.Begin.Before(begin) && !yield(name, f) {
					return
				}
			}
		}
	}
}

// servedOnce checks that a slot was served once and within its window. It returns when, if it was served once.
func (r *rollout) servedOnce(t *testing.T, served map[string]map[time.Time][]time.Time, name string, f scheduler.Firing) (at time.Time, once bool) {
	t.Helper()
	all := served[name][f.Slot]
	if len(all) != 1 {
		t.Errorf("%s: the slot of %s, due at %s, was served %d times: %v", name, f.Slot, f.Begin, len(all), all)
		return at, false
	}
	const rounding = 2 * time.Millisecond // of the duration in the log
	if at = all[0]; at.Before(f.Begin.Add(-rounding)) || at.After(f.Close) {
		t.Errorf("%s: the slot of %s, due from %s to %s, was served at %s", name, f.Slot, f.Begin, f.Close, at)
	}
	return at, true
}

func (r *rollout) outcome() (served map[string]map[time.Time][]time.Time, missed []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.served, r.missed
}

func (r *rollout) count(served map[string]map[time.Time][]time.Time) (n int) {
	for _, slots := range served {
		for _, at := range slots {
			n += len(at)
		}
	}
	return n
}

// rotations is how many Cloudflare has carried out.
func (r *rollout) rotations() (n int) {
	for _, count := range r.cloudflare.Stats().Rotations {
		n += count
	}
	return n
}
