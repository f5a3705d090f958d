package fleet

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
)

// script is script/rotate.sh under a cron: one entry for each credential,
// at the same times as the daemon's schedules.
type script struct {
	w       *world
	retries string

	mu      sync.Mutex
	running map[int]*exec.Cmd
	away    time.Time // nothing is started before
	failed  int
	armed   map[int]bool // to be killed at its next write

	quit chan struct{}
	all  sync.WaitGroup
}

func (s *script) start(t *testing.T) {
	t.Helper()
	s.running, s.armed, s.quit = map[int]*exec.Cmd{}, map[int]bool{}, make(chan struct{})
	for i := range s.w.names {
		s.all.Go(func() {
			ticker := time.NewTicker(s.w.pace.periods[i])
			defer ticker.Stop()
			for {
				select {
				case <-s.quit:
					return
				case <-ticker.C:
				}
				s.runOnce(t, i)
			}
		})
	}
	t.Cleanup(func() { s.kill(); s.stop(t) })
}

func (s *script) runOnce(t *testing.T, i int) {
	w := s.w
	cmd := exec.Command("script/rotate.sh", cfsim.SeedTokenID(i+1), path(w.names[i]), fmt.Sprint(int(w.pace.grace.Seconds())))
	cmd.Env = append(os.Environ(), "RETRIES="+s.retries, "CF_API="+w.cloudflareURL, "CF_API_TOKEN="+apiToken,
		"CF_ACCOUNT_ID="+cfsim.DefaultAccountID, "VAULT_ADDR="+w.vaultURL, "VAULT_TOKEN="+w.vault.RootToken)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	s.mu.Lock()
	if time.Now().Before(s.away) {
		s.mu.Unlock()
		return
	}
	err := cmd.Start()
	if err == nil {
		s.running[i] = cmd
	}
	s.mu.Unlock()
	if err != nil {
		t.Error(err)
		return
	}
	err = cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, i)
	if err != nil && cmd.ProcessState.ExitCode() > 0 { // who was killed says nothing
		s.failed++
		if w.scenario.calm() {
			t.Errorf("rotate.sh failed and nothing was wrong: %v\n%s", err, out.String())
		}
	}
}

func (s *script) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, cmd := range s.running {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	s.away = time.Now().Add(downtime)
}

func (s *script) answered(credential int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed[credential] = true
}

// interruptsWrite kills the script when it has the answer only in a variable: as its write
// arrives, and before the write is passed on.
func (s *script) interruptsWrite(credential int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	cmd := s.running[credential]
	if !s.armed[credential] || cmd == nil {
		return false
	}
	s.armed[credential] = false
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return true
}

func (s *script) stop(*testing.T) {
	s.mu.Lock()
	select {
	case <-s.quit:
	default:
		close(s.quit)
	}
	s.mu.Unlock()
	s.all.Wait()
}

func (s *script) alarms() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}
