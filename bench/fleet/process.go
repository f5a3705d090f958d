//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// This file starts, watches and stops the processes, and reads what the kernel says about them.

// patience bounds every wait for something that is to happen. Only a program that hangs reaches it.
const patience = 30 * time.Minute

// other is the process of the doubles.
type other struct {
	addresses
	shape shape
	cmd   *exec.Cmd
	stdin io.Closer
}

func startDoubles(s shape) (*other, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o := &other{shape: s, cmd: exec.Command(self, "doubles", "-accounts", strconv.Itoa(s.accounts), "-per", strconv.Itoa(s.per),
		"-limit", strconv.Itoa(s.limit), "-hosts", strconv.Itoa(max(s.hosts, 1)))}
	o.cmd.Stderr = os.Stderr
	// A Ctrl-C is for the parent, which then stops this one.
	o.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if o.stdin, err = o.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := o.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewDecoder(out).Decode(&o.addresses); err != nil {
		o.stop()
		return nil, fmt.Errorf("the process of the doubles did not start: %w", err)
	}
	return o, nil
}

func (o *other) stop() {
	_ = o.stdin.Close()
	_ = o.cmd.Process.Kill()
	_ = o.cmd.Wait() // killed
}

func (o *other) control(ctx context.Context, path string, answer any) error {
	return getJSON(ctx, o.Control+path, answer)
}

func (o *other) seen(ctx context.Context) (s seen, err error) { return s, o.control(ctx, "/seen", &s) }
func (o *other) reset(ctx context.Context) error              { return o.control(ctx, "/reset", nil) }

func (o *other) truth(ctx context.Context, account int) (t truth, err error) {
	return t, o.control(ctx, fmt.Sprint("/truth?account=", account), &t)
}

// delay makes Cloudflare wait before it answers; 0 ends that. operation is one of the simulator's, or *. after says that the
// request is carried out first.
func (o *other) delay(ctx context.Context, operation string, d time.Duration, after bool) error {
	at := strings.TrimSuffix(o.Cloudflare[0], "/client/v4") + "/_sim/faults"
	if err := send(ctx, http.MethodDelete, at, nil, "", ""); err != nil || d == 0 {
		return err
	}
	fault := map[string]any{"operation": operation, "kind": "delay", "delay": d.String(), "count": -1}
	if after {
		fault["when"] = "after"
	}
	body, err := json.Marshal(fault)
	if err != nil {
		return err
	}
	return send(ctx, http.MethodPost, at, body, "", "")
}

// daemon is a rotatord that runs.
type daemon struct {
	url     string
	cmd     *exec.Cmd
	began   time.Time
	done    chan struct{} // closed when it has ended
	log     tail
	reloads chan time.Time // when each reload was reported
	fault   error          // of its end; read after done
}

// start starts the daemon, with words before its command line if it runs under another program.
func start(binary, config, listen string, under ...string) (*daemon, error) {
	words := append(under, binary, "run", "--config", config)
	d := &daemon{url: "http://" + listen, cmd: exec.Command(words[0], words[1:]...), done: make(chan struct{}), reloads: make(chan time.Time, 100)}
	// A Ctrl-C is for this program, which then stops the daemon; if this program is killed, the kernel kills the daemon.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	d.began = time.Now()
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.done)
		lines := bufio.NewReaderSize(stderr, 1<<16)
		for {
			line, err := lines.ReadSlice('\n')
			if bytes.Contains(line, []byte(`"the configuration was reloaded"`)) {
				d.reloads <- time.Now()
			}
			d.log.add(line)
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
		}
		d.fault = d.cmd.Wait()
	}()
	return d, nil
}

// tail keeps the end of a log.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) >= 20 {
		t.lines = t.lines[1:]
	}
	t.lines = append(t.lines, string(line))
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "")
}

// ready waits until the daemon is ready, and returns how long after its start that was.
func (d *daemon) ready(ctx context.Context) (time.Duration, error) {
	err := d.until(ctx, "is ready", 2*time.Millisecond, func() (bool, error) {
		res, err := client.Get(d.url + "/readyz")
		if err != nil {
			return false, nil
		}
		_, _ = io.Copy(io.Discard, res.Body) // the connection is used again
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK, nil
	})
	return time.Since(d.began), err
}

// until waits for a condition. It fails if the daemon ends.
func (d *daemon) until(ctx context.Context, what string, every time.Duration, condition func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if ok, err := condition(); err != nil || ok {
			return err
		}
		select {
		case <-d.done:
			return fmt.Errorf("the daemon ended before it %s: %w\n%s", what, d.fault, d.log.String())
		case <-ctx.Done():
			return fmt.Errorf("waiting until the daemon %s: %w\n%s", what, ctx.Err(), d.log.String())
		case <-time.After(every):
		}
	}
}

// stop ends the daemon in an orderly way, and at once after a minute.
func (d *daemon) stop() { d.end(syscall.SIGTERM) }

// kill ends it as a crash does.
func (d *daemon) kill() { d.end(syscall.SIGKILL) }

// end signals the daemon, and what it runs under if that is so: they are one group. It does nothing with one that was not
// started, or that has ended.
func (d *daemon) end(s syscall.Signal) {
	if d == nil {
		return
	}
	select {
	case <-d.done:
		return
	default:
	}
	_ = syscall.Kill(-d.cmd.Process.Pid, s) // it may have ended
	select {
	case <-d.done:
	case <-time.After(time.Minute):
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		<-d.done
	}
}

// reload sends SIGHUP, and returns how long it took until the reload was reported.
func (d *daemon) reload(ctx context.Context) (time.Duration, error) {
	for len(d.reloads) > 0 {
		<-d.reloads
	}
	began := time.Now()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case at := <-d.reloads:
		return at.Sub(began), nil
	case <-d.done:
		return 0, fmt.Errorf("the daemon ended during a reload: %w\n%s", d.fault, d.log.String())
	case <-ctx.Done():
		return 0, fmt.Errorf("the daemon did not reload: %w\n%s", ctx.Err(), d.log.String())
	}
}

// memory returns what /proc/PID/status says: VmRSS is what is resident, VmHWM the most that it ever was. In bytes.
func (d *daemon) memory(field string) (int64, error) {
	return d.proc("status", regexp.MustCompile(`(?m)^`+field+`:\s+(\d+) kB$`), 1024)
}

// writtenBytes returns how many bytes the process has sent to a disk.
func (d *daemon) writtenBytes() (int64, error) {
	return d.proc("io", regexp.MustCompile(`(?m)^write_bytes: (\d+)$`), 1)
}

func (d *daemon) proc(file string, field *regexp.Regexp, unit int64) (int64, error) {
	path := filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), file)
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	match := field.FindSubmatch(content)
	if match == nil {
		return 0, fmt.Errorf("%s does not show %s", path, field)
	}
	n, err := strconv.ParseInt(string(match[1]), 10, 64)
	return n * unit, err
}

// cpu returns the processor time that the process has used. The runtime of Go ends no threads, so their sum is all of it.
func (d *daemon) cpu() (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", d.cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		return 0, errors.Join(fmt.Errorf("/proc/%d shows no threads", d.cmd.Process.Pid), err)
	}
	for _, path := range threads {
		content, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		onProcessor, _, _ := strings.Cut(string(content), " ")
		n, err := strconv.ParseInt(onProcessor, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// client asks the daemon and the doubles.
var client = &http.Client{Timeout: 5 * time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}

// send sends a request that is to succeed, with a header if it is not empty.
func send(ctx context.Context, method, url string, body []byte, header, value string) error {
	_, err := ask(ctx, method, url, body, header, value)
	return err
}

func ask(ctx context.Context, method, url string, body []byte, header, value string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != "" {
		req.Header.Set(header, value)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, res.Status, answer)
	}
	return answer, err
}

// getJSON decodes an answer; a nil one is only fetched.
func getJSON(ctx context.Context, url string, answer any) error {
	body, err := ask(ctx, http.MethodGet, url, nil, "", "")
	if err != nil || answer == nil {
		return err
	}
	return json.Unmarshal(body, answer)
}
