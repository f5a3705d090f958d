package hook_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/printable"
)

// TestHostilePrograms: whatever a program does, its run ends in time, and its error has one bounded line without secrets
// and control characters.
func TestHostilePrograms(t *testing.T) {
	canary := "cfast_" + strings.Repeat("Ab1", 16)
	for name, test := range map[string]struct {
		script string
		want   string // in the error; empty if it succeeds
	}{
		"writes without end":                        {"exec yes " + canary, "ended after 1s, the timeout"},
		"writes without end and ignores SIGTERM":    {`trap "" TERM; yes`, "ended after 1s, the timeout"},
		"closes its output and stays":               {"exec >&- 2>&-; sleep 60", "ended after 1s, the timeout"},
		"leaves a session that holds the output":    {"setsid sleep 8 & exit 0", ""},
		"leaves such a session and fails":           {"setsid sleep 8 & exit 9", "exit status 9"},
		"stops itself":                              {"kill -STOP $$", "ended after 1s, the timeout"},
		"ends by a signal":                          {"kill -SEGV $$", "was ended by a signal"},
		"ends its own group":                        {"kill -KILL 0", "was ended by a signal"},
		"prints escapes":                            {`printf '\033]0;owned\007\033[2Jred\r\nnext\302\233'; exit 1`, "exit status 1: "},
		"prints bytes that are not text":            {`head -c 300 /dev/urandom; exit 1`, "exit status 1"},
		"cannot run another program":                {"/etc/passwd", "exit status 126 (to a shell: a program was found and could not be run)"},
		"does not find another program":             {"no-such-program", "exit status 127 (to a shell: a program was not found)"},
		"has 250 tokens and a secret in its output": {"echo CLIENT_SECRET=" + canary + " 1>&2; exit 255", "exit status 255"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			err := open(t, command(time.Second, "sh", "-c", test.script)).Run(t.Context(), items)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("%v, want %q", err, test.want)
			}
			if err != nil && (strings.Contains(err.Error(), canary) || !printable.IsPlain(err.Error()) || len(err.Error()) > 700) {
				t.Errorf("it says %q", err)
			}
		})
	}
}

// TestProgramIsReplaced: a program that is being written is not run, and says what to do; one that is replaced during a run
// does not disturb it.
func TestProgramIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	sh, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(sh); err != nil {
		t.Fatal(err)
	}
	h := open(t, command(20*time.Second, path, "-c", "sleep 1; exit 7"))
	if err := h.Run(t.Context(), items); err == nil || !strings.Contains(err.Error(), "is being written: replace it by a rename") {
		t.Errorf("%v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Run(t.Context(), items) }()
	time.Sleep(200 * time.Millisecond)
	if err := os.WriteFile(path+".new", []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("the run in progress: %v", err)
	}
	if err := h.Run(t.Context(), items); err == nil || !strings.Contains(err.Error(), "its interpreter /no/such/interpreter") {
		t.Errorf("the next run: %v", err)
	}
}

// TestHostileReceivers: whatever a receiver answers, the request ends in time, and the error is one bounded line that says
// what it was.
func TestHostileReceivers(t *testing.T) {
	t.Setenv("HOOK_SECRET", "key")
	raw := func(answer func(w io.Writer)) string { // a server that speaks no HTTP of its own
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer func() { _ = c.Close() }()
					if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						answer(c)
					}
				}()
			}
		}()
		return "http://" + l.Addr().String()
	}
	served := func(status int, header, value string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(header, value)
			w.WriteHeader(status)
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	t.Cleanup(other.Close)
	wrong := quietTLS(t)
	endless := func(w io.Writer, text string, pause time.Duration) {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
			time.Sleep(pause)
		}
	}
	for name, test := range map[string]struct{ url, want string }{
		"redirects":          {served(http.StatusTemporaryRedirect, "Location", other.URL), "redirect"},
		"redirects to file":  {served(http.StatusFound, "Location", "file:///etc/passwd"), "redirect"},
		"gone":               {served(http.StatusGone, "X", "y"), "answered 410"},
		"says to wait long":  {served(http.StatusTooManyRequests, "Retry-After", "99999999999"), "answered 429"},
		"not modified":       {served(http.StatusNotModified, "X", "y"), "304"},
		"switches protocols": {served(http.StatusSwitchingProtocols, "Upgrade", "x"), "101"},
		"endless body": {raw(func(w io.Writer) {
			fmt.Fprint(w, "HTTP/1.1 500 No\r\n\r\n")
			endless(w, strings.Repeat("x", 10000), 0)
		}), "answered 500"},
		"endless slow body": {raw(func(w io.Writer) {
			fmt.Fprint(w, "HTTP/1.1 500 No\r\n\r\n")
			endless(w, "x", 10*time.Millisecond)
		}), "answered 500"},
		"slow headers": {raw(func(w io.Writer) { endless(w, "H", 300*time.Millisecond) }), "no answer within 1s"},
		"slow good headers": {raw(func(w io.Writer) {
			fmt.Fprint(w, "HTTP/1.1 200 OK\r\n")
			endless(w, "X: y\r\n", 10*time.Millisecond)
		}), "no answer within 1s"},
		"large headers": {raw(func(w io.Writer) {
			fmt.Fprint(w, "HTTP/1.1 200 OK\r\n")
			endless(w, "X: "+strings.Repeat("y", 1000)+"\r\n", 0)
		}), "header"},
		"flood of 1xx": {raw(func(w io.Writer) { endless(w, "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", 0) }), "headers exceeded"},
		"escapes": {raw(func(w io.Writer) {
			fmt.Fprint(w, "HTTP/1.1 500 \x1b[2Jno\r\nContent-Length: 8\r\n\r\n\x1b]0;x\x07\r\n")
		}), "answered 500"},
		"nothing":             {raw(func(io.Writer) {}), "EOF"},
		"another certificate": {wrong.URL, "certificate"},
		"TLS that is none":    {strings.Replace(other.URL, "http://", "https://", 1), "speaks plain http"},
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, &config.WebhookHook{URL: test.url, Secret: config.SecretSource{Env: "HOOK_SECRET"}, HookTimes: config.HookTimes{Timeout: time.Second}})
			began := time.Now()
			err := h.Run(t.Context(), items)
			if err == nil || !strings.Contains(err.Error(), test.want) || !printable.IsPlain(err.Error()) || len(err.Error()) > 1200 {
				t.Errorf("%v, want %q", err, test.want)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
	if elsewhere > 0 {
		t.Error("a redirect was followed")
	}
}

// quietTLS returns a server with a certificate that nobody trusts.
func quietTLS(t *testing.T) *httptest.Server {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// TestCheckOfAWebhook: its receiver is reached, with a valid certificate, and gets no request.
func TestCheckOfAWebhook(t *testing.T) {
	t.Setenv("HOOK_SECRET", "key")
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	defer server.Close()
	secure := quietTLS(t)
	for url, want := range map[string]string{
		server.URL: "", secure.URL: "certificate", "http://127.0.0.1:1/": "127.0.0.1:1",
		"https://no-such-host.invalid/": "no-such-host.invalid",
	} {
		h := open(t, &config.WebhookHook{URL: url, Secret: config.SecretSource{Env: "HOOK_SECRET"}, HookTimes: config.HookTimes{Timeout: 10 * time.Second}})
		if err := h.Check(t.Context()); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", url, err)
		}
	}
	if requests > 0 {
		t.Error("a request was sent")
	}
}
