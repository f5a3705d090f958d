package config

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"rotatord/internal/config/raw"
)

// The formats of a webhook.
const (
	FormatGeneric = "generic"
	FormatSlack   = "slack"
)

// Webhook is a server that takes an HTTP POST for each message. It implements [ReceiverKind].
type Webhook struct {
	URL SecretSource
	// Secret signs messages. Zero: they are not signed.
	Secret SecretSource
	Format string // FormatGeneric (default) or FormatSlack
	// Headers are further headers by name, with the places of their values.
	Headers map[string]SecretSource
	// CAFile has the authorities that the server's certificate must come from. Empty: the system's.
	CAFile string
}

// Kind implements [ReceiverKind].
func (*Webhook) Kind() string { return "webhook" }

// Place implements [ReceiverKind].
func (w *Webhook) Place() string { return "the URL in " + w.URL.String() }

// Dispatch implements [ReceiverKind].
func (w *Webhook) Dispatch(to ReceiverKinds) { to.Webhook(w) }

func (w *Webhook) eachSecret(path string, do func(string, *SecretSource, SecretKind)) {
	do(path+".url", &w.URL, WebhookURL)
	do(path+".secret", &w.Secret, AnySecret)
	for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
		source := w.Headers[name]
		do(join(path+".headers", name), &source, HeaderValue)
		w.Headers[name] = source
	}
}

func (w *Webhook) authorities() *string { return &w.CAFile }

func (w *Webhook) check(c *checker, path string, receiver raw.Receiver) {
	in := receiver.Webhook
	w.URL, w.Secret = c.source(path+".url", in.URL), c.source(path+".secret", in.Secret)
	w.Format = c.oneOf(path+".format", in.Format, FormatGeneric, FormatGeneric, FormatSlack)
	if w.Format == FormatSlack && c.has(path+".secret") {
		c.warn(path+".secret", "signs messages, and a chat does not look at the signature: remove it, unless a program of yours does")
	}
	w.Headers = c.headerNames(path+".headers", in.Headers)
	w.CAFile = c.filePath(path+".ca_file", in.CAFile)
}

// ParseWebhookURL returns the URL that a place of a secret has, or says what is wrong with it. The text repeats no
// part of it.
func ParseWebhookURL(text string) (u *url.URL, problem string) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, "is not an absolute URL, such as https://host.example.com/path" + prefixed(": ", urlHint(text))
	case u.User != nil:
		return nil, "has a user or a password in front of the host: write them into a header of their own (headers: Authorization)"
	case strings.Contains(text, "#"):
		return nil, "has a fragment (#), which is never sent: remove it"
	case badPort(u):
		return nil, "has a colon without a port of 1 to 65535 after it"
	case hostProblem(u.Hostname()) != "":
		return nil, hostProblem(u.Hostname())
	case u.Scheme == "http" && !IsLoopback(u.Hostname()):
		return nil, "would send messages without encryption: use https (plain http is for localhost, 127.0.0.0/8 and ::1)"
	}
	return u, ""
}
