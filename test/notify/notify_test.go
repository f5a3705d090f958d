// Package notify runs the built binary as a process with receivers of notifications: a webhook, and a real SMTP server with
// TLS and a login. It kills the process at each step of a message, and looks at what the receivers have got.
package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"rotatord/test/program"
	"rotatord/test/program/ca"
)

// binary is the daemon with failpoints, for kills.
var binary = program.Rotatord("failpoint")

const (
	apiToken = "notify-api-token"
	password = "CANARY-smtp-password"
	signKey  = "CANARY-signing-key"
	urlPath  = "/CANARY-url"
)

// received is one message that a receiver has taken.
type received struct{ id, text string }

// receivers are a webhook and a mail server.
type receivers struct {
	t       *testing.T
	webhook *httptest.Server
	mailAt  string // its address
	ca      string // the file with its authority

	mu  sync.Mutex
	got map[string][]received // by the name of the receiver
	bad []string
}

func newReceivers(t *testing.T) *receivers {
	r := &receivers{t: t, got: map[string][]received{}}
	r.webhook = httptest.NewServer(http.HandlerFunc(r.serveHook))
	t.Cleanup(r.webhook.Close)
	authority := ca.New(t, "authority of the mail server")
	r.ca = authority.File
	pair := authority.Server(t)
	certificate, err := tls.LoadX509KeyPair(pair.CertFile, pair.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{r: r}, nil }))
	server.Domain, server.TLSConfig = "localhost", &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.ErrorLog = quiet{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.mailAt = fmt.Sprintf("localhost:%d", l.Addr().(*net.TCPAddr).Port)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return r
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func (r *receivers) take(name string, m received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got[name] = append(r.got[name], m)
}

func (r *receivers) wrong(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad = append(r.bad, fmt.Sprintf(format, args...))
}

// serveHook takes a message whose signature is right.
func (r *receivers) serveHook(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	var seconds int64
	var sum string
	_, err := fmt.Sscanf(req.Header.Get("X-Rotatord-Signature"), "t=%d,v1=%s", &seconds, &sum)
	mac := hmac.New(sha256.New, []byte(signKey))
	fmt.Fprintf(mac, "%d.%s", seconds, body)
	if err != nil || sum != hex.EncodeToString(mac.Sum(nil)) || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute {
		r.wrong("the signature is wrong: %v", req.Header)
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var m struct{ ID, Title string }
	if err := json.Unmarshal(body, &m); err != nil || m.ID != req.Header.Get("X-Rotatord-Delivery") {
		r.wrong("%s: %v", body, err)
	}
	r.take("hook", received{m.ID, string(body)})
}

// session is one mail.
type session struct {
	r    *receivers
	user bool
	to   []string
}

func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, given string) error {
		if username != "rotatord" || given != password {
			return errors.New("no such user")
		}
		s.user = true
		return nil
	}), nil
}
func (s *session) Reset()        {}
func (s *session) Logout() error { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error {
	if !s.user {
		return smtp.ErrAuthRequired
	}
	return nil
}
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error { s.to = append(s.to, to); return nil }
func (s *session) Data(content io.Reader) error {
	m, err := mail.ReadMessage(content)
	if err != nil {
		s.r.wrong("not a mail: %v", err)
		return err
	}
	text, err := io.ReadAll(m.Body)
	if err != nil || !slices.Equal(s.to, []string{"ops@example.com", "night@example.com"}) {
		s.r.wrong("to %q: %v", s.to, err)
	}
	if date, err := m.Header.Date(); err != nil || time.Since(date).Abs() > time.Hour {
		s.r.wrong("the date is %q", m.Header.Get("Date"))
	}
	id, _, _ := strings.Cut(strings.Trim(m.Header.Get("Message-ID"), "<>"), "@")
	if id != m.Header.Get("X-Rotatord-Delivery") {
		s.r.wrong("%v", m.Header)
	}
	s.r.take("mail", received{id, m.Header.Get("Subject") + "\n" + string(text)})
	return nil
}

// count returns how many messages a receiver has with a text, and how many different ids they have.
func (r *receivers) count(name, text string) (messages, ids int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := map[string]bool{}
	for _, m := range r.got[name] {
		if strings.Contains(m.text, text) {
			messages++
			seen[m.id] = true
		}
	}
	return messages, len(seen)
}

// world is a simulator and a configuration with receivers.
type world struct {
	*receivers
	dir, config string
}

func newWorld(t *testing.T) *world {
	w := &world{receivers: newReceivers(t), dir: t.TempDir()}
	sim := w.start("", "sim", "--listen", "127.0.0.1:0", "--seed-tokens", "1", "--api-token", apiToken)
	base := ""
	program.Eventually(t, 20*time.Second, "the simulator's address", func() bool {
		if m := regexp.MustCompile(`base_url:\s+(http://[0-9.:]+/client/v4)`).FindStringSubmatch(sim.out.String()); m != nil {
			base = m[1]
		}
		return base != ""
	})
	for name, content := range map[string]string{"api-token": apiToken, "url": w.webhook.URL + urlPath, "key": signKey, "password": password} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.config = filepath.Join(w.dir, "config.yaml")
	config := fmt.Sprintf(`listen: 127.0.0.1:0
admin_socket: %[1]s/admin.sock
state: {dir: %[1]s/state}
accounts: {prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: %[1]s/api-token}, base_url: %[2]s}}
notify:
  - name: hook
    group: 1s
    webhook: {url: {file: %[1]s/url}, secret: {file: %[1]s/key}}
  - name: mail
    group: 1s
    smtp: {server: "%[3]s", from: rotatord@example.com, to: [ops@example.com, night@example.com], username: rotatord, password: {file: %[1]s/password}}
tokens:
  good: {account: prod, id: 5eed0000-0000-4000-8000-000000000001, schedule: "@yearly", sinks: [{file: {path: %[1]s/sinks/good.env}}]}
  lost: {account: prod, id: 5eed0000-0000-4000-8000-000000009999, schedule: "@yearly", sinks: [{file: {path: %[1]s/sinks/lost.env}}]}
`, w.dir, base, w.mailAt)
	if err := errors.Join(os.Mkdir(filepath.Join(w.dir, "sinks"), 0o700), os.WriteFile(w.config, []byte(config), 0o600)); err != nil {
		t.Fatal(err)
	}
	return w
}

// process is a running binary.
type process struct {
	cmd       *exec.Cmd
	out, errs program.Output
	done      chan struct{}
}

func (w *world) start(failpoints string, args ...string) *process {
	w.t.Helper()
	path, err := binary()
	if err != nil {
		w.t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errs
	p.cmd.Env = append(os.Environ(), "ROTATORD_FAILPOINTS="+failpoints, "SSL_CERT_FILE="+w.ca)
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	w.t.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.done })
	return p
}

func (w *world) run(failpoints string) *process {
	return w.start(failpoints, "run", "--config", w.config)
}

// end waits until the process has ended.
func (p *process) end(t *testing.T, what string) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(program.Patience):
		t.Fatalf("%s: the process did not end:\n%s", what, program.Tail(p.errs.String()))
	}
}

// check reports what was wrong with what receivers have got, and a secret anywhere.
func (w *world) check(processes ...*process) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, bad := range w.bad {
		w.t.Error(bad)
	}
	var text strings.Builder
	text.WriteString(fmt.Sprint(w.got))
	for _, p := range processes {
		text.WriteString(p.out.String() + p.errs.String())
	}
	files, _ := filepath.Glob(filepath.Join(w.dir, "state", "notify", "*"))
	if len(files) == 0 {
		w.t.Error("nothing was written down")
	}
	for _, file := range files {
		text.WriteString(readFile(w.t, file))
	}
	if strings.Contains(text.String(), "CANARY") {
		w.t.Error("a secret has leaked")
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// lost is the news that each world has from the start.
const lost = "Cloudflare has no such service token"

// TestKilledAtEachStep kills the daemon at each step of its first message to each receiver. The next process tells the news;
// what is told twice has one id, and nothing is told a third time.
func TestKilledAtEachStep(t *testing.T) {
	points := []string{"notify.compose.after", "notify.save.after", "notify.send.before", "notify.send.after", "notify.note.after"}
	for _, receiver := range []string{"hook", "mail"} {
		for _, point := range points {
			t.Run(receiver+"/"+point, func(t *testing.T) {
				w := newWorld(t)
				content := readFile(t, w.config) // only that receiver
				other := map[string]string{"hook": `(?s)  - name: mail.*?(tokens:)`, "mail": `(?s)  - name: hook.*?(  - name: mail)`}[receiver]
				if err := os.WriteFile(w.config, []byte(regexp.MustCompile(other).ReplaceAllString(content, "$1")), 0o600); err != nil {
					t.Fatal(err)
				}
				first := w.run(point + "=kill#1")
				first.end(t, point)
				if !strings.Contains(first.errs.String(), `"point":"`+point+`"`) {
					t.Fatalf("the failpoint did not strike:\n%s", program.Tail(first.errs.String()))
				}
				before, _ := w.count(receiver, lost)
				second := w.run("")
				program.Eventually(t, 30*time.Second, "the news", func() bool {
					n, _ := w.count(receiver, lost)
					return n > before || n > 0 && point == "notify.note.after"
				})
				time.Sleep(3 * time.Second) // three times group: nothing more may come
				messages, ids := w.count(receiver, lost)
				wantMessages := 1
				if point == "notify.send.after" { // it was taken, and that was not noted
					wantMessages = 2
				}
				if messages != wantMessages || ids != 1 {
					t.Errorf("%d messages with %d ids, want %d with 1", messages, ids, wantMessages)
				}
				w.check(first, second)
			})
		}
	}
}

// TestCommand sends test messages by the daemon and without one, and to a receiver that is not there any more.
func TestCommand(t *testing.T) {
	w := newWorld(t)
	d := w.run("")
	program.Eventually(t, 30*time.Second, "the news at both", func() bool {
		hook, _ := w.count("hook", lost)
		mails, _ := w.count("mail", lost)
		return hook == 1 && mails == 1
	})
	run := func(want int, args ...string) string {
		t.Helper()
		p := w.start("", append([]string{"notify", "test", "--config", w.config}, args...)...)
		p.end(t, "notify test")
		if code := p.cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("%q: exit code %d, want %d: %s%s", args, code, want, p.out.String(), p.errs.String())
		}
		w.check(p)
		return p.out.String() + p.errs.String()
	}
	out := run(0)
	if !regexp.MustCompile(`(?m)^hook: taken by .*\nmail: taken by ops@example.com and night@example.com by localhost:\d+ \(message [0-9a-f]{32}\)$`).MatchString(out) {
		t.Errorf("%s", out)
	}
	run(0, "mail", "--here")
	if n, _ := w.count("mail", "This is a test of the receiver mail"); n != 2 {
		t.Errorf("%d test mails", n)
	}
	if out := run(1, "nobody"); !strings.Contains(out, "no receiver of notifications") {
		t.Errorf("%s", out)
	}
	w.webhook.Close()
	if out := run(1, "hook"); !strings.Contains(out, "NOT TAKEN") || !strings.Contains(out, "nothing listens at") {
		t.Errorf("%s", out)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "password"), []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := run(1, "mail"); !strings.Contains(out, "does not accept smtp.username and smtp.password (answer ") {
		t.Errorf("%s", out)
	}
	w.check(d)
}

// TestReceiverThatHangs: with a receiver that takes connections and says nothing, another one is told, a rotation takes no longer
// than without it, and the daemon stops in time.
func TestReceiverThatHangs(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	if err := os.WriteFile(filepath.Join(w.dir, "url"), []byte("http://"+l.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d := w.run("")
	program.Eventually(t, 30*time.Second, "the news at the other receiver", func() bool { n, _ := w.count("mail", lost); return n == 1 })
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), program.Patience)
	defer cancel()
	path, _ := binary()
	if out, err := exec.CommandContext(ctx, path, "rotate", "good", "--config", w.config).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	t.Logf("the rotation took %s", time.Since(began).Round(time.Millisecond))
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	d.end(t, "stop")
	if took := time.Since(began); took > 10*time.Second || d.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("the stop took %s, exit code %d:\n%s", took, d.cmd.ProcessState.ExitCode(), program.Tail(d.errs.String()))
	}
	w.check(d)
}
