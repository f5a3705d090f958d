package notify_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/notify"
)

// message has everything that a message may have, with text that is dangerous in a chat and in a mail.
func message() *notify.Message {
	at := time.Date(2026, 11, 29, 3, 12, 5, 0, time.UTC)
	return &notify.Message{Version: 1, ID: "0123456789abcdef0123456789abcdef", Receiver: "night", Replica: "rotatord-0", At: at, Severity: "critical",
		Title: "ci-deploy: in doubt (and 1 more) ü", URL: "https://rotatord.example.com",
		News: []notify.News{
			{Change: notify.ChangeNew, Topic: "in_doubt", Kind: "in_doubt", Severity: "critical", Tokens: []string{"ci-deploy"}, TokenCount: 1, What: "in doubt <!channel> @here & *more*",
				ToDo: "rotatord resolve ci-deploy", Since: at.Add(-time.Hour), Until: at.Add(time.Hour), Runbook: "https://rotatord.example.com/docs/runbook.md#rotatordtokenindoubt"},
			{Change: notify.ChangeRecovered, Topic: "failing", Kind: "failing", Severity: "info", Tokens: []string{"a", "b", "c", "d"}, TokenCount: 240, What: "rotations work again"},
		}, More: 3}
}

// secretFile writes a secret and returns its place.
func secretFile(t *testing.T, content string) config.SecretSource {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.SecretSource{File: path}
}

// TestWebhook: the body, the headers and the signature, which a receiver checks.
func TestWebhook(t *testing.T) {
	const key = "CANARY-key"
	var header http.Header
	var body []byte
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header = r.Header
		body, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	c := &config.Webhook{URL: secretFile(t, server.URL+"/hook?x=y"), Secret: secretFile(t, key), Format: "generic", Headers: map[string]config.SecretSource{"Authorization": secretFile(t, "Bearer abc")}}
	m := message()
	if err := notify.NewWebhook(c).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	var got notify.Message
	if err := json.Unmarshal(body, &got); err != nil || got.ID != m.ID || len(got.News) != 2 || !got.News[0].Since.Equal(m.News[0].Since) {
		t.Errorf("%s, %v", body, err)
	}
	if header.Get("X-Rotatord-Delivery") != m.ID || header.Get("Authorization") != "Bearer abc" || header.Get("Content-Type") != "application/json" {
		t.Errorf("%v", header)
	}
	var seconds int64
	var sum string
	if _, err := fmt.Sscanf(header.Get("X-Rotatord-Signature"), "t=%d,v1=%s", &seconds, &sum); err != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute {
		t.Errorf("%q, %v", header.Get("X-Rotatord-Signature"), err)
	}
	mac := hmac.New(sha256.New, []byte(key))
	fmt.Fprintf(mac, "%d.%s", seconds, body)
	if sum != hex.EncodeToString(mac.Sum(nil)) {
		t.Errorf("the signature is %s", sum)
	}
}

// TestWebhookAnswers: which answers are taken, refused, or tried again, and that no error repeats an address or an answer's secret.
func TestWebhookAnswers(t *testing.T) {
	const canary = "CANARY"
	for code, want := range map[int]string{
		200: "", 201: "", 204: "", 299: "",
		301: "refused", 302: "refused", 307: "refused", 308: "refused", 400: "refused", 401: "refused", 403: "refused", 404: "refused", 410: "refused", 413: "refused", 422: "refused",
		408: "later", 425: "later", 429: "later", 500: "later", 502: "later", 503: "later", 599: "later",
	} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			followed := false
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/"+canary {
					followed = true
				}
				w.Header().Set("Location", "/elsewhere")
				w.Header().Set("Retry-After", "17")
				w.WriteHeader(code)
				fmt.Fprintf(w, "your URL %s and your token xoxb-%s", r.URL, canary)
			}))
			defer server.Close()
			err := notify.NewWebhook(&config.Webhook{URL: secretFile(t, server.URL+"/"+canary), Format: "generic"}).Send(t.Context(), message())
			got := ""
			if err != nil {
				got = "later"
				if notify.IsRefused(err) {
					got = "refused"
				}
			}
			if got != want || followed || err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("%q, want %q: %v (a redirect was followed: %v)", got, want, err, followed)
			}
			if pause := notify.PauseAfter(1, err); want == "later" && pause != 17*time.Second {
				t.Errorf("Retry-After is not obeyed: %s", pause)
			}
		})
	}
	for asked, want := range map[string]time.Duration{"": 5 * time.Second, "0": 5 * time.Second, "1": 5 * time.Second, "99999999999": time.Hour, "-1": 5 * time.Second, "soon": 5 * time.Second,
		time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat): time.Hour, time.Now().AddDate(-1, 0, 0).UTC().Format(http.TimeFormat): 5 * time.Second} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", asked)
			w.WriteHeader(429)
		}))
		err := notify.NewWebhook(&config.Webhook{URL: secretFile(t, server.URL), Format: "generic"}).Send(t.Context(), message())
		if got := notify.PauseAfter(1, err); got != want {
			t.Errorf("Retry-After: %s makes a pause of %s, want %s", asked, got, want)
		}
		server.Close()
	}
}

// TestWebhookWithoutEnd: a receiver that answers without end, or not at all, costs a bounded time and amount.
func TestWebhookWithoutEnd(t *testing.T) {
	stop := make(chan struct{})
	endless := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}
	}
	for _, code := range []int{200, 400, 500} {
		server := httptest.NewServer(endless(code))
		began := time.Now()
		err := notify.NewWebhook(&config.Webhook{URL: secretFile(t, server.URL), Format: "generic"}).Send(t.Context(), message())
		if took := time.Since(began); took > 5*time.Second || (err == nil) != (code == 200) {
			t.Errorf("%d: %v after %s", code, err, took)
		}
		server.CloseClientConnections()
		server.Close()
	}
	close(stop)

	headers := rawServer(t, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
		for {
			if _, err := io.WriteString(c, "X-A: "+strings.Repeat("a", 1000)+"\r\n"); err != nil {
				return
			}
		}
	})
	if err := notify.NewWebhook(&config.Webhook{URL: secretFile(t, "http://"+headers), Format: "generic"}).Send(t.Context(), message()); err == nil || strings.Contains(err.Error(), "aaaa") {
		t.Errorf("endless headers: %v", err)
	}
	silent := rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := notify.NewWebhook(&config.Webhook{URL: secretFile(t, "http://"+silent), Format: "generic"}).Send(ctx, message()); err == nil || notify.IsRefused(err) {
		t.Errorf("silence: %v", err)
	}
}

// rawServer serves each connection with a function, and returns its address.
func rawServer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
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
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return l.Addr().String()
}

// TestWebhookSecretsAreGone: a place of a secret that cannot be read is named, and nothing is sent.
func TestWebhookSecretsAreGone(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("something was sent") }))
	defer server.Close()
	gone := config.SecretSource{File: filepath.Join(t.TempDir(), "gone")}
	for want, c := range map[string]*config.Webhook{
		"webhook.url: ":                   {URL: gone},
		"webhook.secret: ":                {URL: secretFile(t, server.URL), Secret: gone},
		"webhook.headers.Authorization: ": {URL: secretFile(t, server.URL), Headers: map[string]config.SecretSource{"Authorization": gone}},
		"without encryption":              {URL: secretFile(t, "http://hooks.example.com/CANARY")},
	} {
		if err := notify.NewWebhook(c).Send(t.Context(), message()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "CANARY") || notify.IsRefused(err) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestSlack: a message to a chat is only text, and not too long.
func TestSlack(t *testing.T) {
	m := message()
	for range 40 {
		m.News = append(m.News, m.News[0])
	}
	m.News[1].What = strings.Repeat("long ", 5000)
	m.News[2].What = "<http://x|y> [all is well](http://x) ![](http://x/p.png) <@U1> <#C1> &lt;!here&gt; @channel"
	m.Title = "<!here> @all [a](http://x)"
	body, err := notify.SlackBody(m)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Text        string
		Markdown    *bool `json:"mrkdwn"`
		UnfurlLinks *bool `json:"unfurl_links"`
		UnfurlMedia *bool `json:"unfurl_media"`
		Attachments []struct {
			Color, Text, Fallback string
			MarkdownIn            []string `json:"mrkdwn_in"`
		}
	}
	if err := json.Unmarshal(body, &got); err != nil || len(got.Attachments) != 15 || len(body) > 64<<10 {
		t.Fatalf("%d bytes, %d attachments, %v", len(body), len(got.Attachments), err)
	}
	if !strings.Contains(got.Text, "30 more are not shown") || got.Attachments[0].Color != "danger" || got.Attachments[1].Color != "good" {
		t.Errorf("%s", body)
	}
	var all strings.Builder
	all.WriteString(string(body) + got.Text)
	for _, a := range got.Attachments {
		all.WriteString(a.Text + a.Fallback)
		if a.MarkdownIn == nil || len(a.MarkdownIn) != 0 {
			t.Errorf("an attachment is Markdown: %s", body)
		}
		if len(a.Text) > 3000 {
			t.Errorf("%d bytes", len(a.Text))
		}
	}
	for _, markup := range []string{"<!", "<@", "<#", "<http", "@here", "@channel", "@all", "](", "|y>"} {
		if strings.Contains(all.String(), markup) {
			t.Errorf("%s is markup: %s", markup, all.String())
		}
	}
	if !strings.Contains(all.String(), "&lt;!channel&gt;") || !strings.Contains(all.String(), "&amp;lt;!here&amp;gt;") {
		t.Errorf("text is lost: %s", all.String())
	}
	for _, off := range []*bool{got.Markdown, got.UnfurlLinks, got.UnfurlMedia} {
		if off == nil || *off {
			t.Errorf("markup and previews are not off: %s", body)
		}
	}
}

// TestText is what a person reads.
func TestText(t *testing.T) {
	const want = `rotatord, replica rotatord-0, 2026-11-29 03:12:05 UTC

NEW, critical: ci-deploy: in doubt <!channel> @here & *more*
  since: 2026-11-29 02:12:05 UTC, 1 h 0 min ago
  the old secret works until: 2026-11-29 04:12:05 UTC, in 1 h 0 min
  to do: rotatord resolve ci-deploy
  read: https://rotatord.example.com/docs/runbook.md#rotatordtokenindoubt

OVER: 240 tokens: rotations work again
  tokens: a, b, c, d and 236 more

And 3 more: rotatord status

Status page: https://rotatord.example.com

Message 0123456789abcdef0123456789abcdef
`
	if got := message().Text(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// transcript is what a server was told.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *transcript) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.WriteString(line)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

// mailServer says what answers has for each command, in order, and notes what it is told. An answer that is empty closes the
// connection.
//
// With settings it can begin TLS: at once if tls is config.MailTLS, else after STARTTLS. It takes the login of user and password.
func mailServer(t *testing.T, answers map[string]string, secure ...*tls.Config) (address string, said *transcript) {
	said = &transcript{}
	return rawServer(t, func(c net.Conn) {
		if answers["tls"] == config.MailTLS {
			c = tls.Server(c, secure[0])
		}
		lines := bufio.NewReader(c)
		_, _ = io.WriteString(c, or(answers["greeting"], "220 ready")+"\r\n")
		inData := false
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			said.add(line)
			verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " ")
			switch {
			case inData && line == ".\r\n":
				inData, verb = false, "END"
			case inData:
				continue
			}
			answer, scripted := answers[verb+" "+strings.TrimSpace(line[min(len(verb), len(line)):])]
			if !scripted {
				answer, scripted = answers[verb]
			}
			if !scripted {
				answer = map[string]string{"EHLO": "250-here\r\n250 8BITMIME", "DATA": "354 go", "QUIT": "221 bye"}[verb]
			}
			if scripted && answer == "" {
				return
			}
			inData = verb == "DATA" && strings.HasPrefix(or(answer, "250 ok"), "354")
			if _, err := io.WriteString(c, or(answer, "250 ok")+"\r\n"); err != nil {
				return
			}
			if verb == "STARTTLS" && len(secure) > 0 {
				c = tls.Server(c, secure[0])
				lines = bufio.NewReader(c)
				said.add("TLS\r\n")
			}
			if verb == "AUTH" && strings.HasSuffix(line, "LOGIN\r\n") {
				name, _ := lines.ReadString('\n')
				_, _ = io.WriteString(c, or(answers["question"], "334 UGFzc3dvcmQ6")+"\r\n")
				password, _ := lines.ReadString('\n')
				verdict := "535 CANARY"
				if name == "dXNlcg==\r\n" && password == "c2VjcmV0\r\n" {
					verdict = "235 good"
				}
				said.add(name + password)
				_, _ = io.WriteString(c, or(answers["verdict"], verdict)+"\r\n")
			}
		}
	}), said
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// TestMailServers: what each answer of a mail server means, and that none gets a message without encryption that was asked for.
func TestMailServers(t *testing.T) {
	for name, test := range map[string]struct {
		answers map[string]string
		tls     string
		want    string // empty: taken
		refused bool
	}{
		"good":                     {nil, "none", "", false},
		"no greeting":              {map[string]string{"greeting": "554 CANARY go away"}, "none", "does not greet", true},
		"no mail server":           {map[string]string{"greeting": "CANARY"}, "none", "does not answer as a mail server does", false},
		"no code":                  {map[string]string{"MAIL": "CANA CANARY"}, "none", "smtp.from: it does not answer as a mail server does", false},
		"busy":                     {map[string]string{"greeting": "421 later"}, "none", "does not greet", false},
		"sender refused":           {map[string]string{"MAIL": "550 CANARY"}, "none", "smtp.from (answer 550)", true},
		"sender refused for now":   {map[string]string{"MAIL": "451 CANARY"}, "none", "smtp.from (answer 451)", false},
		"all addresses refused":    {map[string]string{"RCPT": "550 CANARY"}, "none", "the address b@example.com (answer 550)", true},
		"one address refused":      {map[string]string{"RCPT TO:<b@example.com>": "550 CANARY"}, "none", "the address b@example.com (answer 550); the others have the mail", true},
		"refused and for now":      {map[string]string{"RCPT TO:<b@example.com>": "550 CANARY", "RCPT TO:<c@example.com>": "451 CANARY"}, "none", "c@example.com (answer 451)", false},
		"closes at an address":     {map[string]string{"RCPT TO:<c@example.com>": ""}, "none", "does not answer about the address c@example.com", false},
		"EHLO refused for now":     {map[string]string{"EHLO": "421 CANARY", "HELO": "421 CANARY"}, "starttls", "does not answer EHLO", false},
		"no TLS for now":           {map[string]string{"EHLO": "250-here\r\n250 STARTTLS", "STARTTLS": "454 CANARY"}, "starttls", "does not begin TLS (answer 454)", false},
		"data refused":             {map[string]string{"DATA": "452 CANARY"}, "none", "does not take a mail now (answer 452)", false},
		"mail refused":             {map[string]string{"END": "554 CANARY"}, "none", "does not take the mail (answer 554)", true},
		"closes after the mail":    {map[string]string{"END": ""}, "none", "closed the connection", false},
		"no starttls":              {nil, "starttls", "does not offer STARTTLS", true},
		"starttls and then no TLS": {map[string]string{"EHLO": "250-here\r\n250 STARTTLS"}, "starttls", "does not begin TLS (answer 250)", false},
		"no TLS":                   {nil, "tls", "cannot be reached", false},
		"an endless line":          {map[string]string{"greeting": "220 " + strings.Repeat("CANARY", 400_000)}, "none", "said too much", false},
		"endless lines":            {map[string]string{"EHLO": strings.Repeat("250-CANARY\r\n", 200_000)}, "none", "said too much", false},
		"binary":                   {map[string]string{"greeting": "\x00\xff\x1b[31m"}, "none", "does not greet", false},
	} {
		t.Run(name, func(t *testing.T) {
			address, said := mailServer(t, test.answers)
			err := notify.NewMailer(&config.SMTP{Server: address, From: "a@example.com", To: []string{"b@example.com", "c@example.com"}, TLS: test.tls}).Send(t.Context(), message())
			switch {
			case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			case err != nil && (strings.Contains(err.Error(), "CANARY") || len(err.Error()) > 1000 || notify.IsRefused(err) != test.refused):
				t.Errorf("refused is %v: %.1000v", notify.IsRefused(err), err)
			}
			if test.tls != "none" && strings.Contains(said.String(), "MAIL") {
				t.Errorf("the message was sent without encryption:\n%s", said)
			}
		})
	}
}

// TestMail: the mail has one subject on one line, its id, and all of its text.
func TestMail(t *testing.T) {
	address, said := mailServer(t, nil)
	m := message()
	m.Title = "evil\r\nBcc: x@example.com\r\n\r\nbody"
	if err := notify.NewMailer(&config.SMTP{Server: address, From: "a@example.com", To: []string{"b@example.com", "c@example.com"}, TLS: "none"}).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	text := said.String()
	for _, part := range []string{"From: rotatord <a@example.com>\r\n", "To: b@example.com,\r\n c@example.com\r\n", "Message-ID: <" + m.ID + "@example.com>\r\n", "X-Rotatord-Delivery: " + m.ID,
		"Auto-Submitted: auto-generated\r\n", "Date: Sun, 29 Nov 2026 03:12:05 +0000\r\n", "to do: rotatord resolve ci-deploy"} {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in\n%s", part, text)
		}
	}
	if strings.Contains(text, "\nBcc:") {
		t.Errorf("a title has become a header:\n%s", text)
	}
}

// TestMailServerIsSilent: a server that says nothing costs a bounded time.
func TestMailServerIsSilent(t *testing.T) {
	silent := rawServer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	hello := rawServer(t, func(c net.Conn) { // and it says nothing in the handshake
		lines := bufio.NewReader(c)
		for _, answer := range []string{"220 ready\r\n", "250-here\r\n250 STARTTLS\r\n", "220 go\r\n"} {
			_, _ = io.WriteString(c, answer)
			_, _ = lines.ReadString('\n')
		}
		_, _ = io.Copy(io.Discard, c)
	})
	for encryption, server := range map[string]string{"none": silent, "tls": silent, "starttls": hello} {
		c := &config.SMTP{Server: server, From: "a@example.com", To: []string{"b@example.com"}, TLS: encryption}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		began := time.Now()
		if err := notify.NewMailer(c).Send(ctx, message()); err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("%s, at the stop: %v after %s", encryption, err, time.Since(began))
		}
		cancel()
		if err := notify.Hurried(c, patience).Send(t.Context(), message()); err == nil || !strings.HasSuffix(err.Error(), "did not take the mail within 150ms") || notify.IsRefused(err) {
			t.Errorf("%s: %v", encryption, err)
		}
	}
}

// TestPage: the messages that docs/notifications.md shows are real, and the program there accepts a signature.
func TestPage(t *testing.T) {
	at := func(text string) time.Time {
		parsed, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	m := notify.Message{Version: 1, ID: "4c7a1f0e7ce84f7f8a3cbb7ad9c8a6f1", Receiver: "night", At: at("2026-11-29T03:12:05Z"), Severity: "critical", Title: "ci-deploy: in doubt (and 1 more)",
		News: []notify.News{
			{Change: "new", Topic: "in_doubt", Kind: "in_doubt", Severity: "critical", Tokens: []string{"ci-deploy"}, TokenCount: 1,
				What: "in doubt: a rotate request was sent, and it is not known whether Cloudflare carried it out", ToDo: "rotatord resolve ci-deploy looks again, and says what can be decided",
				Since: at("2026-11-29T03:11:30Z"), Until: at("2026-11-30T03:11:20Z"), Runbook: "docs/runbook.md#rotatordtokenindoubt"},
			{Change: "recovered", Topic: "failing", Kind: "check", Severity: "info", Subject: "Vault", What: "good again", Since: at("2026-11-29T02:40:12Z")},
		}}
	page, err := os.ReadFile("../../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil || !strings.Contains(string(page), "```json\n"+string(body)+"\n```\n") {
		t.Errorf("the page does not have\n%s\n%v", body, err)
	}
	if !strings.Contains(string(page), "```\n"+m.Text()+"```\n") {
		t.Errorf("the page does not have\n%s", m.Text())
	}
}
