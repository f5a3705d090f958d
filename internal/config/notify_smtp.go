package config

import (
	"net"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"rotatord/internal/config/raw"
)

// How a connection to a mail server is encrypted.
const (
	MailStartTLS = "starttls"
	MailTLS      = "tls"
	MailPlain    = "none"
)

// SMTP is a mail server that takes a mail for each message. It implements [ReceiverKind].
type SMTP struct {
	Server string   // host:port
	From   string   // an address without a name
	To     []string // the same
	// Username is empty if there is no login.
	Username string
	Password SecretSource
	TLS      string // MailStartTLS (default), MailTLS or MailPlain
	// CAFile has the authorities that the server's certificate must come from. Empty: the system's.
	CAFile string
}

// maxRecipients is how many addresses a receiver may have.
const maxRecipients = 50

// Kind implements [ReceiverKind].
func (*SMTP) Kind() string { return "smtp" }

// Place implements [ReceiverKind].
func (m *SMTP) Place() string { return list(m.To) + " by " + m.Server }

// Dispatch implements [ReceiverKind].
func (m *SMTP) Dispatch(to ReceiverKinds) { to.SMTP(m) }

func (m *SMTP) eachSecret(path string, do func(string, *SecretSource, SecretKind)) {
	do(path+".password", &m.Password, AnySecret)
}

func (m *SMTP) authorities() *string { return &m.CAFile }

func (m *SMTP) check(c *checker, path string, receiver raw.Receiver) {
	in := receiver.SMTP
	m.TLS = c.oneOf(path+".tls", in.TLS, MailStartTLS, MailStartTLS, MailTLS, MailPlain)
	m.CAFile = c.filePath(path+".ca_file", in.CAFile)
	if m.TLS == MailPlain && in.CAFile != nil {
		c.wrong(path+".ca_file", "is for a connection with TLS, and tls: none has none: remove one of the two")
	}
	m.Server = or(in.Server, "")
	host, port, err := net.SplitHostPort(m.Server)
	n, numberErr := strconv.ParseUint(port, 10, 16)
	switch {
	case in.Server == nil:
	case err != nil || numberErr != nil || n == 0 || host == "" || hostProblem(host) != "":
		c.wrong(path+".server", "must be host:port without a scheme, such as mail.example.com:587")
	case m.TLS == MailPlain && !IsLoopback(host):
		c.wrong(path+".tls", "would send messages and the password without encryption: write starttls or tls (none is for localhost, 127.0.0.0/8 and ::1)")
	case m.TLS == MailStartTLS && n == 465:
		c.warn(path+".tls", "is starttls, and at port 465 mail servers expect TLS from the first byte: write tls: tls, if that is so here")
	case m.TLS == MailTLS && (n == 25 || n == 587):
		c.warn(path+".tls", "is tls, and at port %d mail servers expect starttls: remove it, if that is so here", n)
	}
	if in.From != nil {
		m.From = c.mailAddress(path+".from", *in.From)
	}
	for i, to := range in.To {
		if to == nil {
			continue
		}
		address := c.mailAddress(itemPath(path+".to", i), *to)
		if slices.Contains(m.To, address) {
			c.wrong(itemPath(path+".to", i), "is in the list twice: remove one")
		}
		m.To = append(m.To, address)
	}
	if len(m.To) > maxRecipients {
		c.wrong(path+".to", "has %d addresses, and at most %d are accepted: write to a mailing list", len(m.To), maxRecipients)
	}
	m.Username, m.Password = or(in.Username, ""), c.source(path+".password", in.Password)
	switch {
	case c.has(path+".username") && !c.has(path+".password"):
		c.missing(path, "password", "username is a login, which needs a password: write password: {file: PATH}")
	case c.has(path+".password") && !c.has(path+".username"):
		c.missing(path, "username", "password is for a login: write the user name too")
	}
}

// mailAddress checks one address, which has no name and no angle brackets.
func (c *checker) mailAddress(path, text string) string {
	address, err := mail.ParseAddress(text)
	switch {
	case strings.ContainsFunc(text, func(r rune) bool { return r > unicode.MaxASCII }):
		c.wrong(path, "has a character that is not ASCII, which many mail servers do not take")
	case err != nil || address.Address != text || strings.ContainsAny(text, "\" \\"):
		c.wrong(path, "must be one mail address without a name, such as ops@example.com")
	}
	return text
}
