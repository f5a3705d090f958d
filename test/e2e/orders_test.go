package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rotatord/test/program"
)

// command runs the binary against the daemon of a world, and returns its output and exit code.
func (w *world) command(t *testing.T, args ...string) (output string, code int) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, append(args, "--config", w.config)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), 0
}

// edit writes the configuration again, with what change makes of it.
func (w *world) edit(t *testing.T, change func(string) string) {
	t.Helper()
	b, err := os.ReadFile(w.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.config, []byte(change(string(b))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reload edits the configuration, sends SIGHUP, and waits for what the log says then.
func (w *world) reload(t *testing.T, d *daemon, message string, change func(string) string) {
	t.Helper()
	said := func() (n int) {
		for _, l := range d.log(t) {
			if l.Msg == message {
				n++
			}
		}
		return n
	}
	before := said()
	w.edit(t, change)
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	program.Eventually(t, 10*time.Second, message, func() bool { return said() > before })
}

const (
	reloaded    = "the configuration was reloaded"
	notReloaded = "the configuration is not reloaded: the one in force stays"
)

// still checks that nothing is rotated for a while that has several slots.
func (w *world) still(t *testing.T, d *daemon, why string) {
	t.Helper()
	w.untilIdle(t, d) // what was in progress is finished
	before := w.stats(t).rotations()
	time.Sleep(6 * time.Second)
	if n := w.stats(t).rotations() - before; n != 0 {
		t.Errorf("%s, and there were %d rotations", why, n)
	}
}

// untilIdle waits until no token is being rotated, and no rotation has come for a second.
func (w *world) untilIdle(t *testing.T, d *daemon) {
	t.Helper()
	program.Eventually(t, 5*time.Second, "no token is being rotated", func() bool {
		before := w.stats(t).rotations()
		time.Sleep(time.Second)
		var all []shown
		if err := json.Unmarshal([]byte(get(t, d.url+"/api/v1/tokens")), &all); err != nil {
			t.Fatal(err)
		}
		return w.stats(t).rotations() == before && !slices.ContainsFunc(all, func(s shown) bool { return s.State != "idle" })
	})
}

// going waits until a token was rotated twice more.
func (w *world) going(t *testing.T, name string) {
	t.Helper()
	before := w.stats(t).Rotations[w.tokenID(name)]
	program.Eventually(t, 20*time.Second, "two more rotations of "+name, func() bool { return w.stats(t).Rotations[w.tokenID(name)] >= before+2 })
}

// TestOrders pauses, kills, rotates by hand, resumes, reloads and freezes a daemon whose
// tokens rotate every two seconds.
func TestOrders(t *testing.T) {
	t.Parallel() // it mostly waits
	w := newWorld(t, options{tokens: 3, schedule: "@every 2s", grace: time.Second})
	last := w.names[2]
	var third string // its line, which comes in later
	w.edit(t, func(c string) string {
		lines := strings.SplitAfter(strings.TrimSuffix(c, "\n"), "\n")
		third = lines[len(lines)-1] + "\n"
		return "admin_socket: " + filepath.Join(w.dir, "admin.sock") + "\n" + strings.Join(lines[:len(lines)-1], "")
	})
	d := w.run(t)
	w.going(t, w.names[0])

	if out, code := w.command(t, "pause", "--all", "--reason", "a migration"); code != 0 || !strings.Contains(out, "all tokens are paused") {
		t.Fatalf("pause: exit code %d\n%s", code, out)
	}
	w.still(t, d, "all tokens are paused")
	d.kill()
	<-d.done
	d = w.run(t)
	w.still(t, d, "all tokens were paused before the restart")
	if n := sumMetric(get(t, d.url+"/metrics"), `rotatord_token_paused\{token="[^"]+"\}`); n != 2 {
		t.Errorf("%v tokens are paused by the metrics, want 2", n)
	}
	if out, code := w.command(t, "rotate", w.names[0]); code != 1 || !strings.Contains(out, "--override-pause") {
		t.Errorf("rotate while paused: exit code %d\n%s", code, out)
	}
	before := w.stats(t).rotations()
	if out, code := w.command(t, "rotate", w.names[0], "--override-pause"); code != 0 || w.stats(t).rotations() != before+1 {
		t.Errorf("rotate in spite of the pause: exit code %d, %d rotations\n%s", code, w.stats(t).rotations()-before, out)
	}
	if out, code := w.command(t, "resume", "--all"); code != 0 || !strings.Contains(out, "a migration") {
		t.Errorf("resume: exit code %d\n%s", code, out)
	}
	w.going(t, w.names[1])

	w.reload(t, d, reloaded, func(c string) string { return c + third })
	w.going(t, last)
	w.reload(t, d, notReloaded, func(c string) string { return c + "nonsense: 1\n" })
	if v := metric(get(t, d.url+"/metrics"), "rotatord_config_last_reload_successful"); v != 0 {
		t.Errorf("after a reload that was refused rotatord_config_last_reload_successful is %v", v)
	}
	w.going(t, last)
	freeze := fmt.Sprintf("freezes: {now: {from: %s, to: %s}}\n",
		time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	w.reload(t, d, reloaded, func(c string) string { return freeze + strings.TrimSuffix(c, "nonsense: 1\n") })
	w.still(t, d, "a freeze lasts")
	if out, code := w.command(t, "rotate", last); code != 1 || !strings.Contains(out, "--override-freeze") {
		t.Errorf("rotate in a freeze: exit code %d\n%s", code, out)
	}
	if out, code := w.command(t, "rotate", last, "--override-freeze"); code != 0 {
		t.Errorf("rotate in spite of the freeze: exit code %d\n%s", code, out)
	}
	w.reload(t, d, reloaded, func(c string) string { return strings.TrimPrefix(c, freeze) })
	w.going(t, last)
	if out, code := w.command(t, "pause", "--all"); code != 0 {
		t.Errorf("pause: exit code %d\n%s", code, out)
	}
	w.still(t, d, "all tokens are paused")
	w.agree(t)
	if code := d.terminate(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
