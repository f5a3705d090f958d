package notify_test

import (
	"crypto/tls"
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"rotatord/internal/config"
	"rotatord/internal/notify"
)

// private returns a server's TLS settings with a certificate for 127.0.0.1, and the file of its authority, which the system does not
// know.
func private(t *testing.T) (settings *tls.Config, caFile string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	server.Close()
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	return &tls.Config{Certificates: server.TLS.Certificates}, caFile
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestPrivateCA: a receiver with a certificate of a private authority gets messages if ca_file names it, and nothing otherwise. The
// file is read for each message. What is wrong with it is said with its place.
func TestPrivateCA(t *testing.T) {
	settings, caFile := private(t)
	var got atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	server.TLS = settings
	server.StartTLS()
	defer server.Close()
	implicit, _ := mailServer(t, map[string]string{"tls": "tls"}, settings)
	explicit, _ := mailServer(t, map[string]string{"EHLO": "250-here\r\n250 STARTTLS", "STARTTLS": "220 go"}, settings)
	for name, with := range map[string]func(ca string) (notify.Sender, config.Receiver){
		"webhook": func(ca string) (notify.Sender, config.Receiver) {
			c := &config.Webhook{URL: secretFile(t, server.URL), CAFile: ca}
			return notify.NewWebhook(c), config.Receiver{Kind: c}
		},
		"tls": func(ca string) (notify.Sender, config.Receiver) {
			c := &config.SMTP{Server: implicit, From: "a@example.com", To: []string{"b@example.com"}, TLS: "tls", CAFile: ca}
			return notify.NewMailer(c), config.Receiver{Kind: c}
		},
		"starttls": func(ca string) (notify.Sender, config.Receiver) {
			c := &config.SMTP{Server: explicit, From: "a@example.com", To: []string{"b@example.com"}, TLS: "starttls", CAFile: ca}
			return notify.NewMailer(c), config.Receiver{Kind: c}
		},
	} {
		t.Run(name, func(t *testing.T) {
			kind := map[string]string{"webhook": "webhook"}[name]
			if kind == "" {
				kind = "smtp"
			}
			sender, _ := with("")
			if err := sender.Send(t.Context(), message()); err == nil || !strings.Contains(err.Error(), "name the file with its authority in "+kind+".ca_file") || got.Load() != 0 || notify.IsRefused(err) {
				t.Errorf("the system's authorities: %v; %d requests", err, got.Load())
			}
			file := filepath.Join(t.TempDir(), "ca.pem")
			sender, receiver := with(file)
			for content, want := range map[string]string{"": "it is empty", "hello": "has no line -----BEGIN", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "has no PEM certificate"} {
				writeFile(t, file, content)
				err := sender.Send(t.Context(), message())
				problem := notify.CAProblem(t.Context(), receiver)
				for _, err := range []error{err, problem} {
					if err == nil || !strings.HasPrefix(err.Error(), kind+".ca_file: "+file) || !strings.Contains(err.Error(), want) || notify.IsRefused(err) {
						t.Errorf("%q: %v, want %s", content, err, want)
					}
				}
			}
			authority, err := os.ReadFile(caFile)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, file, string(authority)) // while the sender is in use
			if err := sender.Send(t.Context(), message()); err != nil {
				t.Error(err)
			}
			if err := notify.CAProblem(t.Context(), receiver); err != nil {
				t.Error(err)
			}
			got.Store(0)
		})
	}
}

// TestLogin: the login PLAIN where it is offered, LOGIN where it is not, both over TLS; and what is said where neither can be used.
// Nothing of the password is said before the connection is encrypted, and no error repeats what the server says.
func TestLogin(t *testing.T) {
	settings, caFile := private(t)
	const plain = "AUTH PLAIN AHVzZXIAc2VjcmV0\r\n"
	for name, test := range map[string]struct {
		tls, offers string
		answers     map[string]string
		want        string // in the error; empty: taken
		refused     bool
		said        string
	}{
		"PLAIN":                         {"tls", "AUTH PLAIN LOGIN", map[string]string{"AUTH": "235 good"}, "", false, plain},
		"PLAIN after STARTTLS":          {"starttls", "AUTH LOGIN PLAIN", map[string]string{"AUTH": "235 good"}, "", false, "TLS\r\nEHLO example.com\r\n" + plain},
		"LOGIN":                         {"tls", "AUTH XOAUTH2 LOGIN", nil, "", false, "AUTH LOGIN\r\ndXNlcg==\r\nc2VjcmV0\r\n"},
		"login in lower case":           {"tls", "AUTH login", nil, "", false, "AUTH LOGIN\r\n"},
		"LOGIN after STARTTLS":          {"starttls", "AUTH LOGIN", nil, "", false, "TLS\r\nEHLO example.com\r\nAUTH LOGIN\r\n"},
		"LOGIN with other questions":    {"tls", "AUTH LOGIN", map[string]string{"AUTH": "334 VXNlciBOYW1lAA==", "question": "334 UGFzc3dvcnQ/"}, "", false, "c2VjcmV0\r\n"},
		"LOGIN with empty questions":    {"tls", "AUTH LOGIN", map[string]string{"AUTH": "334 ", "question": "334 "}, "", false, "c2VjcmV0\r\n"},
		"LOGIN that asks a third time":  {"tls", "AUTH LOGIN", map[string]string{"verdict": "334 CANARY=="}, "does not accept smtp.username", false, ""},
		"LOGIN that is refused":         {"tls", "AUTH LOGIN", map[string]string{"verdict": "535 CANARY c2VjcmV0"}, "does not accept smtp.username and smtp.password (answer 535)", true, ""},
		"LOGIN that is refused for now": {"tls", "AUTH LOGIN", map[string]string{"verdict": "454 CANARY"}, "(answer 454)", false, ""},
		"LOGIN without TLS":             {"none", "AUTH LOGIN", nil, "only the login LOGIN, which is used only over TLS: write smtp.tls: starttls or tls", true, ""},
		"another login":                 {"tls", "AUTH CRAM-MD5 CANARY", nil, "neither the login PLAIN nor LOGIN", true, ""},
		"no login":                      {"tls", "8BITMIME", nil, "offers no login (AUTH), and smtp.username asks for one", true, ""},
		"no login after STARTTLS":       {"starttls", "8BITMIME", nil, "offers no login (AUTH)", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			answers := map[string]string{"tls": test.tls, "STARTTLS": "220 go", "AUTH": "334 VXNlcm5hbWU6", "EHLO": "250-here\r\n250-STARTTLS\r\n250 " + test.offers}
			maps.Copy(answers, test.answers)
			address, said := mailServer(t, answers, settings)
			c := &config.SMTP{Server: address, From: "a@example.com", To: []string{"b@example.com"}, TLS: test.tls, Username: "user", Password: secretFile(t, "secret")}
			if test.tls != "none" {
				c.CAFile = caFile
			}
			err := notify.NewMailer(c).Send(t.Context(), message())
			switch {
			case test.want == "" && err != nil, test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("%v, want %q", err, test.want)
			case err != nil && (notify.IsRefused(err) != test.refused || strings.Contains(err.Error(), "CANARY") || strings.Contains(err.Error(), "c2VjcmV0")):
				t.Errorf("refused is %v: %v", notify.IsRefused(err), err)
			}
			if !strings.Contains(said.String(), test.said) || strings.Contains(said.String(), "MAIL FROM") != (test.want == "") {
				t.Errorf("%q, want %q in it", said, test.said)
			}
			if before, _, _ := strings.Cut(said.String(), "TLS\r\n"); test.tls != "tls" && strings.Contains(before, "AUTH") {
				t.Errorf("a login was begun without encryption: %q", before)
			}
		})
	}
}

// TestStartTLSInjection: what comes in plain text after the answer to STARTTLS, in the same packet, is not taken as an answer after it
// (CVE-2011-0411), and what the server has offered before TLS does not count.
func TestStartTLSInjection(t *testing.T) {
	settings, caFile := private(t)
	for name, more := range map[string]string{
		"answers":  "\r\n250-evil\r\n250 AUTH LOGIN\r\n334 VXNlcm5hbWU6",
		"one line": "\r\n535 CANARY",
	} {
		t.Run(name, func(t *testing.T) {
			address, said := mailServer(t, map[string]string{"STARTTLS": "220 go" + more, "EHLO": "250-here\r\n250-STARTTLS\r\n250 AUTH PLAIN", "AUTH": "235 good"}, settings)
			c := &config.SMTP{Server: address, From: "a@example.com", To: []string{"b@example.com"}, TLS: "starttls", CAFile: caFile, Username: "user", Password: secretFile(t, "secret")}
			err := notify.NewMailer(c).Send(t.Context(), message())
			// The plain text is dropped; or, if it arrives after the client has begun TLS, the handshake fails.
			text := said.String()
			if err == nil && !strings.Contains(text, "TLS\r\nEHLO example.com\r\nAUTH PLAIN") || strings.Contains(text, "AUTH LOGIN") || err != nil && (strings.Contains(err.Error(), "CANARY") || strings.Contains(text, "AUTH")) {
				t.Errorf("%v\n%s", err, text)
			}
			if err != nil {
				t.Logf("the handshake failed: %v", err)
			}
		})
	}
}
