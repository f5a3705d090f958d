package notify_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/mail"
	"net/textproto"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/notify"
)

const (
	// patience is how long the senders of these tests wait for receivers that never answer, and prompt how long an attempt may
	// take otherwise.
	patience = 150 * time.Millisecond
	prompt   = 15 * time.Second
)

func timeout(waits bool) time.Duration {
	if waits {
		return patience
	}
	return 2 * prompt
}

// drip writes a byte after the other, slowly, until the connection is closed.
func drip(c io.Writer, text string) {
	for ; ; time.Sleep(20 * time.Millisecond) {
		for i := range len(text) {
			if _, err := io.WriteString(c, text[i:i+1]); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// withoutEnd writes a text again and again, until the connection is closed, and counts the bytes.
func withoutEnd(c io.Writer, text string, written *atomic.Int64) {
	many := strings.Repeat(text, 1000)
	for {
		n, err := io.WriteString(c, many)
		if written.Add(int64(n)); err != nil {
			return
		}
	}
}

// TestHostileWebhook: what a receiver may answer costs a bounded time and a bounded amount, is named, and repeats nothing of the answer.
func TestHostileWebhook(t *testing.T) {
	var bomb bytes.Buffer
	packed := gzip.NewWriter(&bomb)
	_, _ = packed.Write(make([]byte, 64<<20))
	_ = packed.Close()
	var written atomic.Int64
	answer := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text) }
	}
	silent := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text); _, _ = io.Copy(io.Discard, c) }
	}
	for name, test := range map[string]struct {
		serve   func(net.Conn)
		want    string // in the error; empty: taken
		refused bool
		waits   bool // until the time is over
	}{
		"closes":               {func(net.Conn) {}, "no answer: ", false, false},
		"silence":              {silent(""), "no answer within 150ms", false, true},
		"slow headers":         {func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nX-A: CANARY\r\n") }, "no answer within 150ms", false, true},
		"slow body of 200":     {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"); drip(c, "CANARY") }, "", false, false},
		"slow body of 500":     {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 500 X\r\n\r\n"); drip(c, "CANARY") }, "answered HTTP 500", false, true},
		"silent body of 400":   {silent("HTTP/1.1 400 X\r\nContent-Length: 1000\r\n\r\n"), "answered HTTP 400", true, true},
		"1xx without end":      {func(c net.Conn) { withoutEnd(c, "HTTP/1.1 103 Early Hints\r\nLink: <CANARY>\r\n\r\n", &written) }, "no answer: ", false, false},
		"100 without end":      {func(c net.Conn) { withoutEnd(c, "HTTP/1.1 100 Continue\r\n\r\n", &written) }, "no answer: ", false, false},
		"a status without end": {func(c net.Conn) { withoutEnd(c, "HTTP/1.1 200 CANARY", &written) }, "no answer: ", false, false},
		"chunks without end": {func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n")
			withoutEnd(c, "6\r\nCANARY\r\n", &written)
		}, "answered HTTP 503", false, false},
		"another protocol, and silence":   {silent("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: CANARY\r\n\r\n"), "answered HTTP 101", true, false},
		"another protocol, not asked for": {silent("HTTP/1.1 101 X\r\n\r\n"), "answered HTTP 101", true, false},
		"metadata of a cloud":             {answer("HTTP/1.1 307 X\r\nLocation: http://169.254.169.254/CANARY?CANARY\r\nContent-Length: 0\r\n\r\n"), "redirected to 169.254.169.254", true, false},
		"redirect to nothing":             {answer("HTTP/1.1 302 X\r\nLocation: %zz://CANARY\r\nContent-Length: 0\r\n\r\n"), "redirected without a readable address", true, false},
		"a bomb":                          {answer(fmt.Sprintf("HTTP/1.1 500 X\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", bomb.Len(), bomb.String())), "answered HTTP 500 (text/html)", false, false},
		"a bomb of 200":                   {answer(fmt.Sprintf("HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", bomb.Len(), bomb.String())), "", false, false},
		"garbage after 200":               {answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n\x00\xff\x1b[31mCANARY"), "", false, false},
		"a title with a terminal code":    {answer("HTTP/1.1 400 X\r\nContent-Type: text/html\r\n\r\n<title>\x1b[31m\r\nlevel=ERROR</title>"), `\x1b[31m level=ERROR`, true, false},
		"not HTTP":                        {answer("SSH-2.0-CANARY\r\n"), "no answer: ", false, false},
		"HTTP/2":                          {answer("\x00\x00\x12\x04\x00\x00\x00\x00\x00CANARY\r\n\r\n"), "no answer: ", false, false},
		"two lengths":                     {answer("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2CANARY\r\n\r\nab"), "no answer: ", false, false},
		"a header that is none":           {answer("HTTP/1.1 200 OK\r\nCANARY\r\n\r\n"), "no answer: ", false, false},
		"999":                             {answer("HTTP/1.1 999 CANARY\r\nContent-Length: 0\r\n\r\n"), "answered HTTP 999", false, false},
		"000":                             {answer("HTTP/1.1 000 CANARY\r\nContent-Length: 0\r\n\r\n"), "answered HTTP 0", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			written.Store(0)
			address := rawServer(t, func(c net.Conn) {
				_, _ = http.ReadRequest(bufio.NewReader(c))
				test.serve(c)
			})
			for _, format := range []string{config.FormatGeneric, config.FormatSlack} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				began := time.Now()
				err := notify.Hurried(&config.Webhook{URL: secretFile(t, "http://"+address), Format: format}, timeout(test.waits)).Send(t.Context(), message())
				took := time.Since(began)
				runtime.ReadMemStats(&after)
				switch {
				case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Errorf("%v, want %q", err, test.want)
				case err != nil && (notify.IsRefused(err) != test.refused || strings.Contains(err.Error(), "CANARY") || len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x1b\r\n")):
					t.Errorf("refused is %v: %.1000q", notify.IsRefused(err), err)
				}
				if took > prompt || test.waits && took < patience {
					t.Errorf("it took %s", took)
				}
				if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
					t.Errorf("%d MiB were allocated", grown>>20)
				}
			}
			if n := written.Load(); n > 16<<20 {
				t.Errorf("%d MiB were read", n>>20)
			}
		})
	}
}

// TestHostileMailServer is the same for mail servers.
func TestHostileMailServer(t *testing.T) {
	var written atomic.Int64
	after := func(verb string, then func(net.Conn)) func(net.Conn) {
		return func(c net.Conn) { upTo(c, verb, then) }
	}
	for name, test := range map[string]struct {
		serve func(net.Conn)
		want  string // in the error; empty: taken
		waits bool
	}{
		"closes":                        {func(net.Conn) {}, "closed the connection", false},
		"silence":                       {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "did not take the mail within 150ms", true},
		"a slow greeting":               {func(c net.Conn) { drip(c, "220 CANARY") }, "did not take the mail within 150ms", true},
		"a greeting without end":        {func(c net.Conn) { withoutEnd(c, "220-CANARY", &written) }, "said too much", false},
		"lines of a greeting":           {func(c net.Conn) { withoutEnd(c, "220-CANARY\r\n", &written) }, "said too much", false},
		"extensions without end":        {after("EHLO", func(c net.Conn) { withoutEnd(c, "250-CANARY\r\n", &written) }), "said too much", false},
		"slow extensions":               {after("EHLO", func(c net.Conn) { drip(c, "250-CANARY\r\n") }), "did not take the mail within 150ms", true},
		"a refusal without end":         {after("MAIL", func(c net.Conn) { withoutEnd(c, "550-CANARY\r\n", &written) }), "said too much", false},
		"an answer with another code":   {after("MAIL", func(c net.Conn) { withoutEnd(c, "250-CANARY\r\n550-CANARY\r\n", &written) }), "does not accept smtp.from", false},
		"silence after the address":     {after("RCPT", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "did not take the mail within 150ms", true},
		"silence after the mail":        {after(".", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "did not take the mail within 150ms", true},
		"a slow answer after the mail":  {after(".", func(c net.Conn) { drip(c, "250-CANARY\r\n") }), "did not take the mail within 150ms", true},
		"closes after the mail":         {after(".", func(net.Conn) {}), "does not take the mail: it closed the connection", false},
		"silence after QUIT":            {after("QUIT", func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }), "", false},
		"a flood after QUIT":            {after("QUIT", func(c net.Conn) { withoutEnd(c, "221-CANARY\r\n", &written) }), "", false},
		"an HTTP server":                {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 CANARY\r\n\r\n") }, "does not answer as a mail server does", false},
		"line breaks without an end":    {func(c net.Conn) { withoutEnd(c, "\n", &written) }, "does not greet", false},
		"a line break in the extension": {after("EHLO", func(c net.Conn) { _, _ = io.WriteString(c, "250-a\r250 CANARY\n\r\n") }), "does not answer EHLO", false},
	} {
		t.Run(name, func(t *testing.T) {
			written.Store(0)
			address := rawServer(t, test.serve)
			began := time.Now()
			err := notify.Hurried(&config.SMTP{Server: address, From: "a@example.com", To: []string{"b@example.com"}, TLS: "none"}, timeout(test.waits)).Send(t.Context(), message())
			took := time.Since(began)
			switch {
			case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			case err != nil && (notify.IsRefused(err) || strings.Contains(err.Error(), "CANARY") || len(err.Error()) > 1000):
				t.Errorf("refused is %v: %.1000q", notify.IsRefused(err), err)
			}
			if took > prompt || test.waits && took < patience {
				t.Errorf("it took %s", took)
			}
			if n := written.Load(); n > 16<<20 {
				t.Errorf("%d MiB were read", n>>20)
			}
		})
	}
}

// upTo serves a mail dialogue up to a command, or to the end of the mail if that is a dot, and then lets another function answer.
func upTo(c net.Conn, verb string, then func(net.Conn)) {
	lines := bufio.NewReader(c)
	_, _ = io.WriteString(c, "220 ready\r\n")
	for inData := false; ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		said, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		if inData && line != ".\r\n" {
			continue
		}
		if said == verb {
			then(c)
			return
		}
		answer := "250 ok\r\n"
		if inData = said == "DATA"; inData {
			answer = "354 go\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

// TestConnectionLostAfterTheMail: whether the server has the mail is not known then, so it is sent again, the same byte for byte.
func TestConnectionLostAfterTheMail(t *testing.T) {
	address, said := mailServer(t, map[string]string{"END": ""})
	sender := notify.NewMailer(&config.SMTP{Server: address, From: "a@example.com", To: []string{"b@example.com"}, TLS: "none"})
	m := message()
	for range 2 {
		if err := sender.Send(t.Context(), m); err == nil || notify.IsRefused(err) {
			t.Errorf("%v", err)
		}
	}
	_, text, _ := strings.Cut(said.String(), "DATA\r\n")
	first, rest, _ := strings.Cut(text, "\r\n.\r\n")
	_, rest, _ = strings.Cut(rest, "DATA\r\n")
	second, _, _ := strings.Cut(rest, "\r\n.\r\n")
	if first != second || !strings.Contains(first, "Message-ID: <"+m.ID+"@example.com>\r\n") {
		t.Errorf("%q\n%q", first, second)
	}
}

// TestMailText: whatever is in a message, the mail has no header that the message brought, only short lines of ASCII, and the whole text.
func TestMailText(t *testing.T) {
	for name, change := range map[string]func(*notify.Message){
		"nothing":               func(*notify.Message) {},
		"headers in the title":  func(m *notify.Message) { m.Title = "a\r\nBcc: x@example.com\r\n\r\nbody" },
		"a break of one byte":   func(m *notify.Message) { m.Title = "a\rBcc: x@example.com\nBcc: y@example.com\u2028Bcc:\u0085Bcc:" },
		"a title of umlauts":    func(m *notify.Message) { m.Title = strings.Repeat("ü", 75) },
		"a title of ideographs": func(m *notify.Message) { m.Title = strings.Repeat("証明書", 16) },
		"a long title":          func(m *notify.Message) { m.Title = strings.Repeat("x", 5000) },
		"an encoded word":       func(m *notify.Message) { m.Title = "=?utf-8?q?all_is_well?= =?utf-8?q?=0D=0ABcc:?=" },
		"not UTF-8":             func(m *notify.Message) { m.Title = "\xff\xfe\x00" },
		"headers in a name": func(m *notify.Message) {
			m.News[0].Tokens = []string{"a\r\nBcc: x@example.com"}
			m.Replica = "r\r\nBcc: x"
		},
		"dots":                   func(m *notify.Message) { m.News[0].What = "a\n.\n..\nMAIL FROM:<x@example.com>\n." },
		"dots with other breaks": func(m *notify.Message) { m.News[0].What = "a\r\n.\r\nb\r.\rc\n.\r\nd" },
		"a long line":            func(m *notify.Message) { m.News[0].What = strings.Repeat("long ", 5000) },
		"a long word":            func(m *notify.Message) { m.News[0].What = strings.Repeat("=", 3000) + strings.Repeat("ü", 3000) },
		"spaces at the end":      func(m *notify.Message) { m.News[0].What = "a \t \n b \t" },
	} {
		t.Run(name, func(t *testing.T) {
			address, said := mailServer(t, nil)
			m := message()
			change(m)
			to := make([]string, 50)
			for i := range to {
				to[i] = fmt.Sprintf("a-very-long-name-of-a-mailbox-%d@example.com", i)
			}
			if err := notify.NewMailer(&config.SMTP{Server: address, From: "a@example.com", To: to, TLS: "none"}).Send(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			before, sent, _ := strings.Cut(said.String(), "DATA\r\n")
			if n := strings.Count(said.String(), "MAIL FROM:<a@"); n != 1 || strings.Count(before, "RCPT") != 50 {
				t.Fatalf("%d mails:\n%s", n, said)
			}
			for line := range strings.SplitSeq(sent, "\r\n") {
				if len(line) > 200 || strings.ContainsAny(line, "\r\n\x00") || strings.ContainsFunc(line, func(r rune) bool { return r > 126 }) {
					t.Errorf("a line of %d bytes: %.100q", len(line), line)
				}
			}
			text, err := io.ReadAll(textproto.NewReader(bufio.NewReader(strings.NewReader(sent))).DotReader())
			if err != nil {
				t.Fatal(err)
			}
			got, err := mail.ReadMessage(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			names := []string{"Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "X-Rotatord-Delivery"}
			if len(got.Header) != len(names) {
				t.Errorf("headers: %v", got.Header)
			}
			for _, header := range names {
				if len(got.Header[header]) != 1 {
					t.Errorf("%s: %v", header, got.Header[header])
				}
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(got.Header.Get("Subject"))
			if err != nil || !strings.HasPrefix(subject, "[rotatord] CRITICAL ") || strings.ContainsAny(subject, "\r\n\u2028\u0085") || len(subject) > 200 {
				t.Errorf("%q, %v", subject, err)
			}
			if strings.HasPrefix(name, "a title of") && !strings.HasSuffix(subject, m.Title) {
				t.Errorf("%q is not %q", subject, m.Title)
			}
			if all, err := got.Header.AddressList("To"); err != nil || len(all) != 50 {
				t.Errorf("To: %v, %v", all, err)
			}
			body, err := io.ReadAll(quotedprintable.NewReader(got.Body))
			if plain := strings.ReplaceAll(string(body), "\r", ""); err != nil || plain != strings.ReplaceAll(m.Text(), "\r", "") && !strings.Contains(name, "other breaks") && name != "headers in a name" {
				t.Errorf("%v; the text is\n%q\nwant\n%q", err, plain, m.Text())
			}
		})
	}
}
