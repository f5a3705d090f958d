package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
)

// TestNotify reads each kind of receiver in its shortest and in its longest form.
func TestNotify(t *testing.T) {
	file := func(path string) config.SecretSource { return config.SecretSource{File: path} }
	got := parse(t, `notify:
  - {name: short, webhook: {url: {env: HOOK}}}
  - name: long
    webhook: {url: {file: /u}, secret: {file: /s}, format: slack, headers: {Authorization: {file: /h}}, ca_file: /ca}
    on: [recovered, gone]
    tokens: ["c?", "*"]
    repeat: 0
    group: 1h
    wait: 0
  - {name: mail, smtp: {server: "mail.example.com:587", from: a@example.com, to: [b@example.com]}}
  - {name: private, smtp: {server: "mail.example.com:465", from: a@example.com, to: [b@example.com], tls: tls, ca_file: /m}}
  - {name: mails, smtp: {server: "[::1]:25", from: a@example.com, to: [b@example.com, c@example.com], username: u, password: {file: /p}, tls: none}, repeat: 10m, group: 1s, wait: 24h}
`+minimal)
	want := []config.Receiver{
		{Name: "short", Kind: &config.Webhook{URL: config.SecretSource{Env: "HOOK"}, Format: "generic"}, On: config.Topics, Repeat: 24 * time.Hour, Group: 30 * time.Second, Wait: 5 * time.Minute},
		{Name: "long", Kind: &config.Webhook{URL: file("/u"), Secret: file("/s"), Format: "slack", Headers: map[string]config.SecretSource{"Authorization": file("/h")}, CAFile: "/ca"},
			On: []string{"gone", "recovered"}, Tokens: []string{"c?", "*"}, Group: time.Hour},
		{Name: "mail", Kind: &config.SMTP{Server: "mail.example.com:587", From: "a@example.com", To: []string{"b@example.com"}, TLS: "starttls"},
			On: config.Topics, Repeat: 24 * time.Hour, Group: 30 * time.Second, Wait: 5 * time.Minute},
		{Name: "private", Kind: &config.SMTP{Server: "mail.example.com:465", From: "a@example.com", To: []string{"b@example.com"}, TLS: "tls", CAFile: "/m"},
			On: config.Topics, Repeat: 24 * time.Hour, Group: 30 * time.Second, Wait: 5 * time.Minute},
		{Name: "mails", Kind: &config.SMTP{Server: "[::1]:25", From: "a@example.com", To: []string{"b@example.com", "c@example.com"}, Username: "u", Password: file("/p"), TLS: "none"},
			On: config.Topics, Repeat: 10 * time.Minute, Group: time.Second, Wait: 24 * time.Hour},
	}
	if diff := cmp.Diff(want, got.Notify); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	kinds := map[string]config.SecretKind{}
	for _, s := range got.Secrets() {
		if strings.HasPrefix(s.Field, "notify") {
			kinds[s.Field] = s.Kind
		}
	}
	if diff := cmp.Diff(map[string]config.SecretKind{
		"notify[0].webhook.url": config.WebhookURL, "notify[1].webhook.url": config.WebhookURL, "notify[1].webhook.secret": config.AnySecret,
		"notify[1].webhook.headers.Authorization": config.HeaderValue, "notify[4].smtp.password": config.AnySecret,
	}, kinds); diff != "" {
		t.Errorf("secrets (-want +got):\n%s", diff)
	}
	files := map[string]config.NamedFile{}
	for _, f := range got.Files() {
		files[f.Field] = f
	}
	for field, path := range map[string]string{"notify[1].webhook.ca_file": "/ca", "notify[3].smtp.ca_file": "/m"} {
		if f := files[field]; f.Path != path || f.Secret {
			t.Errorf("%s is %+v", field, f)
		}
	}
	if ca := got.Notify[3].CAFile(); ca.Field != "smtp.ca_file" || ca.Path != "/m" || got.Notify[0].CAFile().Path != "" {
		t.Errorf("%+v", ca)
	}
	if n := got.Relocate("/", "/creds"); n < 6 || got.Notify[1].CAFile().Path != "/creds/ca" || got.Notify[1].Kind.(*config.Webhook).Headers["Authorization"].File != "/creds/h" {
		t.Errorf("%d files were moved: %+v", n, got.Notify[1].Kind)
	}
	if !got.Notify[1].WantsToken("ci") || got.Notify[1].WantsTopic("failing") || !got.Notify[0].WantsToken("ci") {
		t.Error("what is wanted is not read from the patterns and the topics")
	}
}

// TestNotifyFaults has one fault in each entry.
func TestNotifyFaults(t *testing.T) {
	for entry, want := range map[string]string{
		"{name: a}":                                                                                    "notify[0]: has no place that messages are sent to: give one of smtp and webhook",
		"{webhook: {url: {env: A}}}":                                                                   "notify[0].name: is missing",
		"{name: A b, webhook: {url: {env: A}}}":                                                        "notify[0].name: ",
		"{name: a, webhook: {}}":                                                                       "notify[0].webhook.url: is missing",
		"{name: a, webhook: https://x.example}":                                                        "notify[0].webhook: must be a mapping",
		"{name: a, webhook: {url: https://CANARY}}":                                                    "never put a secret into this file",
		"{name: a, webhook: {url: {env: A}, format: teams}}":                                           "notify[0].webhook.format: must be generic or slack",
		"{name: a, webhook: {url: {env: A}, headers: {Host: {env: B}}}}":                               "is a header that rotatord or the connection sets",
		"{name: a, webhook: {url: {env: A}, headers: {x-a: {env: B}, X-A: {env: B}}}}":                 "in upper and lower case",
		"{name: a, webhook: {url: {env: A}, headers: {'a b': {env: B}}}}":                              "has a name that is not one of an HTTP header",
		"{name: a, webhook: {url: {env: A}}, smtp: {server: 'a:25', from: a@b.c, to: [a@b.c]}}":        "has smtp and webhook: write one entry",
		"{name: a, webhook: {url: {env: A}}, on: [in-doubt]}":                                          "is not a topic: did you mean in_doubt",
		"{name: a, webhook: {url: {env: A}}, on: [gone, gone]}":                                        "is in the list twice",
		"{name: a, webhook: {url: {env: A}}, on: [recovered]}":                                         "has only recovered",
		"{name: a, webhook: {url: {env: A}}, tokens: ['[']}":                                           "is not a pattern",
		"{name: a, webhook: {url: {env: A}}, repeat: 1m}":                                              "notify[0].repeat: must be 10m to 720h: it is 1m",
		"{name: a, webhook: {url: {env: A}}, group: 0}":                                                "notify[0].group: must be 1s to 1h",
		"{name: a, webhook: {url: {env: A}}, wait: 25h}":                                               "notify[0].wait: must be 0s to 24h",
		"{name: a, smtp: {server: mail, from: a@b.c, to: [a@b.c]}}":                                    "notify[0].smtp.server: must be host:port",
		"{name: a, smtp: {server: 'smtp://a:25', from: a@b.c, to: [a@b.c]}}":                           "notify[0].smtp.server: must be host:port",
		"{name: a, smtp: {server: 'a:25', from: a@b.c, to: [a@b.c], tls: none}}":                       "without encryption",
		"{name: a, smtp: {server: 'localhost:25', from: a@b.c, to: [a@b.c], tls: none, ca_file: /ca}}": "notify[0].smtp.ca_file: is for a connection with TLS",
		"{name: a, webhook: {url: {env: A}, ca_file: ~/ca.pem}}":                                       "notify[0].webhook.ca_file: ",
		"{name: a, smtp: {server: 'a:25', from: 'A <a@b.c>', to: [a@b.c]}}":                            "notify[0].smtp.from: must be one mail address",
		"{name: a, smtp: {server: 'a:25', from: a@b.c, to: [a@b.c, 'ä@b.c']}}":                         "not ASCII",
		"{name: a, smtp: {server: 'a:25', from: a@b.c, to: [a@b.c, a@b.c]}}":                           "is in the list twice",
		"{name: a, smtp: {server: 'a:25', from: a@b.c, to: [a@b.c], username: u}}":                     "notify[0].smtp.password: is missing",
		"{name: a, smtp: {server: 'a:25', from: a@b.c, to: [a@b.c], password: {env: P}}}":              "notify[0].smtp.username: is missing",
		"{name: a, webhook: {url: {env: A}}}, {name: a, webhook: {url: {env: A}}}":                     "is the name of notify[0].name too",
	} {
		_, err := config.Parse("test.yaml", []byte("notify: ["+entry+"]\n"+minimal))
		switch {
		case err == nil:
			t.Errorf("%s is accepted", entry)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%s:\n%v\nwant %s", entry, err, want)
		case strings.Contains(err.Error(), "CANARY"):
			t.Errorf("%s: the error repeats a secret:\n%v", entry, err)
		}
	}
}

// TestNotifyWarnings: what works and is most often a mistake is a warning.
func TestNotifyWarnings(t *testing.T) {
	for entry, want := range map[string]string{
		"{name: a, webhook: {url: {env: A}}, tokens: [cj-*]}":                                  "fits no token",
		"{name: a, webhook: {url: {env: A}, secret: {env: B}, format: slack}}":                 "a chat does not look at the signature",
		"{name: a, smtp: {server: 'a:465', from: a@b.c, to: [a@b.c]}}":                         "expect TLS from the first byte",
		"{name: a, smtp: {server: 'a:587', from: a@b.c, to: [a@b.c], tls: tls}}":               "expect starttls",
		"{name: a, webhook: {url: {env: A}, headers: {Authorization: {file: relative/path}}}}": "is relative to the directory",
	} {
		if got := strings.Join(lines(parse(t, "notify: ["+entry+"]\n"+minimal).Warnings), "\n"); !strings.Contains(got, want) {
			t.Errorf("%s: %q", entry, got)
		}
	}
}

// TestWebhookURL: the content of a secret that is a URL, or the value of a header.
func TestWebhookURL(t *testing.T) {
	for content, want := range map[string]string{
		"https://hooks.example.com/services/T0/B0/CANARY": "",
		"http://127.0.0.1:8080/x?y=z":                     "",
		"http://hooks.example.com/CANARY":                 "without encryption",
		"hooks.example.com/CANARY":                        "is not an absolute URL",
		"https://user:CANARY@hooks.example.com":           "has a user or a password",
		"https://hooks.example.com/#CANARY":               "has a fragment",
		"https://hooks.example.com:/CANARY":               "has a colon without a port",
		"'https://hooks.example.com/CANARY'":              "has quotes around it",
		"https://hooks.example.com/CANARY https://b.c":    "space",
	} {
		t.Setenv("HOOK", content)
		_, err := config.SecretSource{Env: "HOOK"}.ReadAs(t.Context(), config.WebhookURL)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "CANARY")) {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
	}
	t.Setenv("HOOK", "Bearer abc def=\n")
	if v, err := (config.SecretSource{Env: "HOOK"}).ReadAs(t.Context(), config.HeaderValue); err != nil || v.Reveal() != "Bearer abc def=" {
		t.Errorf("%q, %v", v.Reveal(), err)
	}
	t.Setenv("HOOK", "a\nb")
	if _, err := (config.SecretSource{Env: "HOOK"}).ReadAs(t.Context(), config.HeaderValue); err == nil {
		t.Error("a header with two lines is accepted")
	}
}
