package admin_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// TestForeignServer: what a client makes of a server at the socket that is not rotatord. It counts
// what the server can write.
func TestForeignServer(t *testing.T) {
	var written atomic.Int64
	endless := func(w io.Writer, start, more string) {
		n, err := io.WriteString(w, start)
		for written.Add(int64(n)); err == nil && written.Load() < 64<<20; written.Add(int64(n)) {
			n, err = io.WriteString(w, more)
		}
	}
	for name, test := range map[string]struct {
		answer func(http.ResponseWriter)
		want   string
	}{
		"empty": {func(http.ResponseWriter) {}, "cannot be read"},
		"null":  {func(w http.ResponseWriter) { fmt.Fprint(w, "null") }, "cannot be read"},
		"list":  {func(w http.ResponseWriter) { fmt.Fprint(w, "[]") }, "cannot be read"},
		"other": {func(w http.ResponseWriter) { fmt.Fprint(w, `{"tokens":7}`) }, "cannot be read"},
		"deep":  {func(w http.ResponseWriter) { fmt.Fprint(w, `{"tokens":`+strings.Repeat("[", 1<<16)) }, "cannot be read"},
		"204":   {func(w http.ResponseWriter) { w.WriteHeader(204) }, "is not rotatord (it answered 204 No Content)"},
		"endless error": {func(w http.ResponseWriter) {
			w.WriteHeader(500)
			endless(w, `{"error":"`, strings.Repeat("x", 64<<10))
		}, "is larger than 64 KiB: is something else at this address?"},
		"endless headers": {func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			endless(conn, "HTTP/1.1 200 OK\r\n", strings.Repeat("X-A: a\r\n", 1<<10))
		}, "exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { test.answer(w) })}
			go func() { _ = server.Serve(l) }()
			defer server.Close()
			written.Store(0)
			if o, err := admin.NewClient(path).Tokens(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, %v, want %q", o, err, test.want)
			}
			if n := written.Load(); n > 8<<20 {
				t.Errorf("the server could write %d MiB", n>>20)
			}
		})
	}
}

// TestAnswersOfTheSocketAreMadePrintable: what a server at the socket says cannot steer a terminal, whatever it is.
func TestAnswersOfTheSocketAreMadePrintable(t *testing.T) {
	const hostile = `\u001b[2J\u202e\u009b\u200b hvs.Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4zA`
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "rotate") {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error":"`+hostile+`"}`)
			return
		}
		if strings.HasSuffix(r.URL.Path, "progress") {
			fmt.Fprint(w, `{"account":"`+hostile+`","problems":["`+hostile+`"],"left":[{"last_error":"`+hostile+`"}]}`)
			return
		}
		fmt.Fprint(w, `{"tokens":[{"name":"`+hostile+`","client_id":"`+hostile+`","doubt":{"detail":"`+hostile+`"},"to_do":[{"does":"`+hostile+`"}]}],`+
			`"findings":[{"message":"`+hostile+`","advice":"`+hostile+`"}]}`)
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	c := admin.NewClient(path)
	tokens, err := c.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vault, err := c.LookAtVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	progress, err := c.Progress(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	_, refused := c.Rotate(t.Context(), "ci", rotation.Overrides{})
	for what, text := range map[string]string{
		"tokens": fmt.Sprintf("%v %v %v", tokens.Tokens, *tokens.Tokens[0].Doubt, tokens.Tokens[0].ToDo), "findings": fmt.Sprintf("%v", vault), "progress": fmt.Sprintf("%v", progress),
		"refusal": fmt.Sprint(refused),
	} {
		if !printable.IsPlain(text) || !strings.Contains(text, `\x1b[2J\u202e`) || strings.Contains(text, "hvs.") {
			t.Errorf("%s: %q", what, text)
		}
	}
}

// TestForeignClient: what a client can send to the daemon is bounded, and is nothing that a command
// is read from.
func TestForeignClient(t *testing.T) {
	d := newDaemon()
	path, _ := serve(t, d)
	for name, send := range map[string]string{
		"null":    "POST /v1/tokens/ci/rotate HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull",
		"list":    "POST /v1/tokens/ci/rotate HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]",
		"body":    "POST /v1/tokens/ci/rotate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n", 64),
		"headers": "GET /v1/tokens HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 64),
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(conn, send) // the daemon may hang up
		answer := make([]byte, 64)
		n, _ := io.ReadAtLeast(conn, answer, len("HTTP/1.1 400"))
		if got := string(answer[:n]); !strings.HasPrefix(got, "HTTP/1.1 4") {
			t.Errorf("%s: answered %q", name, got)
		}
		_ = conn.Close()
	}
	if c := d.commands(); len(c) != 0 {
		t.Errorf("the daemon was asked %v", c)
	}
}
