package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/secret"
)

const (
	mailDialTime = 10 * time.Second
	// mailTime is the longest time for one mail.
	mailTime = time.Minute
	// maxDialogue is how many bytes a mail server may say during one mail.
	maxDialogue = 1 << 20
	// quitTime is how long the answer to QUIT is waited for.
	quitTime = 2 * time.Second
)

// mailer sends messages by mail. It uses net/smtp: what it needs (STARTTLS, PLAIN, 8-bit safe text) is in it, and a
// library for mail would add attachments, templates and a queue that are not wanted here.
type mailer struct {
	c       *config.SMTP
	timeout time.Duration // mailTime, but in tests
}

func newMailer(c *config.SMTP) *mailer { return &mailer{c, mailTime} }

// Send implements [Sender].
func (s *mailer) Send(ctx context.Context, m *Message) error {
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	err := s.send(bounded, m)
	_, answered := errors.AsType[*AddressError](err)
	if err != nil && !answered && bounded.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("the mail server %s did not take the mail within %s", s.c.Server, s.timeout)
	}
	return err
}

func (s *mailer) send(ctx context.Context, m *Message) error {
	to := slices.DeleteFunc(slices.Clone(s.c.To), func(address string) bool { return slices.Contains(m.Reached, address) })
	if len(to) == 0 {
		return nil
	}
	var password secret.Value
	if s.c.Username != "" {
		var err error
		if password, err = s.c.Password.ReadWithin(ctx); err != nil {
			return fmt.Errorf("smtp.password: %w", err)
		}
	}
	host, _, _ := net.SplitHostPort(s.c.Server)
	client, err := s.connect(ctx, host)
	if err != nil {
		return err
	}
	defer client.Close()
	if s.c.Username != "" {
		if err := s.login(client, host, password); err != nil {
			return err
		}
	}
	if err := client.Mail(s.c.From); err != nil {
		return s.refused("does not accept smtp.from", err)
	}
	var reached []string
	var refusals []error
	for _, address := range to {
		err := client.Rcpt(address)
		if _, answered := errors.AsType[*textproto.Error](err); err != nil && !answered {
			return s.refused("does not answer about the address "+address, err)
		}
		if err != nil {
			refusals = append(refusals, s.refused("does not accept the address "+address, err))
			continue
		}
		reached = append(reached, address)
	}
	if len(reached) == 0 {
		return &AddressError{Err: summary(refusals, "")}
	}
	if err := s.data(client, m); err != nil {
		return err
	}
	// It has the mail, so what it says to QUIT changes nothing.
	hurry := time.AfterFunc(quitTime, func() { _ = client.Close() })
	defer hurry.Stop()
	_ = client.Quit()
	if len(refusals) > 0 {
		return &AddressError{Reached: reached, Err: summary(refusals, "; the others have the mail")}
	}
	return nil
}

// data sends the mail itself to the addresses that were accepted.
func (s *mailer) data(client *smtp.Client, m *Message) error {
	data, err := client.Data()
	if err != nil {
		return s.refused("does not take a mail now", err)
	}
	if _, err := data.Write(s.mail(m)); err != nil {
		return s.refused("does not take the mail", err)
	}
	if err := data.Close(); err != nil {
		return s.refused("does not take the mail", err)
	}
	return nil
}

// summary returns the refusals of addresses as one error. It is a [RefusedError] if none of the addresses may be accepted later.
func summary(refusals []error, end string) error {
	const shown = 3
	var text strings.Builder
	final := true
	for i, err := range refusals {
		final = final && isRefused(err)
		switch {
		case i == shown:
			fmt.Fprintf(&text, "; and %d more addresses", len(refusals)-shown)
		case i > shown:
		case i > 0:
			text.WriteString("; " + err.Error())
		default:
			text.WriteString(err.Error())
		}
	}
	err := errors.New(text.String() + end)
	if final {
		return &RefusedError{err}
	}
	return err
}

// connect returns a connection that is encrypted as configured.
func (s *mailer) connect(ctx context.Context, host string) (*smtp.Client, error) {
	trusted, err := authorities(ctx, config.NamedFile{Field: "smtp.ca_file", Path: s.c.CAFile})
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: mailDialTime}
	conn, err := dialer.DialContext(ctx, "tcp", s.c.Server)
	if err != nil {
		return nil, s.unreachable(err)
	}
	plain := conn
	context.AfterFunc(ctx, func() { _ = plain.Close() }) // ctx always ends, at the latest after mailTime
	settings := &tls.Config{ServerName: host, RootCAs: trusted, MinVersion: tls.VersionTLS12}
	conn = &boundedConn{conn, maxDialogue}
	if s.c.TLS == config.MailTLS {
		encrypted := tls.Client(conn, settings)
		if err := encrypted.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, s.unreachable(err)
		}
		conn = encrypted
	}
	client, err := smtp.NewClient(conn, host)
	if err != nil {
		_ = conn.Close()
		return nil, s.refused("does not greet as a mail server does", err)
	}
	if err := s.begin(client, settings); err != nil {
		_ = client.Close()
		return nil, err
	}
	return client, nil
}

// helloName is how this client introduces itself: with the domain of the sender. Many servers refuse a name without a domain, such as
// localhost or the name of a container.
func (s *mailer) helloName() string {
	_, domain, _ := strings.Cut(s.c.From, "@")
	return domain
}

// begin greets the server, and encrypts the connection if that is configured. What the server has said before that is forgotten.
func (s *mailer) begin(client *smtp.Client, settings *tls.Config) error {
	if err := client.Hello(s.helloName()); err != nil {
		return s.refused("does not answer EHLO as a mail server does", err)
	}
	if s.c.TLS != config.MailStartTLS {
		return nil
	}
	if offered, _ := client.Extension("STARTTLS"); !offered {
		return &RefusedError{fmt.Errorf("the mail server %s does not offer STARTTLS, and nothing is sent without encryption: is smtp.tls right (tls at port 465)?", s.c.Server)}
	}
	err := client.StartTLS(settings)
	_, isAnswer := errors.AsType[*textproto.Error](err)
	_, isOther := errors.AsType[textproto.ProtocolError](err)
	switch {
	case err == nil:
		return nil
	case isAnswer, isOther: // it quotes what the server said
		return s.refused("does not begin TLS", err)
	}
	return s.unreachable(err)
}

// unreachable returns the error for a connection that was not made.
func (s *mailer) unreachable(err error) error {
	peer := outbound.Peer{Name: "the mail server", Address: "smtp.server", CA: "smtp.ca_file"}
	return fmt.Errorf("the mail server %s cannot be reached: %w", s.c.Server, peer.Explained(err, &url.URL{Scheme: "smtp", Host: s.c.Server}))
}

// refused returns the error for an answer that is not good, or for none. What the server says is shown as its three digits:
// its text may quote the login.
func (s *mailer) refused(what string, err error) error {
	answer, isAnswer := errors.AsType[*textproto.Error](err)
	if !isAnswer {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errTooMuch) {
			return fmt.Errorf("the mail server %s %s: it closed the connection, or said too much", s.c.Server, what)
		}
		if _, quoting := errors.AsType[textproto.ProtocolError](err); quoting { // it quotes what the server said
			return fmt.Errorf("the mail server %s %s: it does not answer as a mail server does", s.c.Server, what)
		}
		return fmt.Errorf("the mail server %s %s: %s", s.c.Server, what, printable.Line(outbound.Unquoted(err).Error(), maxText))
	}
	text := fmt.Errorf("the mail server %s %s (answer %d)", s.c.Server, what, answer.Code)
	if answer.Code >= 500 {
		return &RefusedError{text}
	}
	return text
}

// errTooMuch is the error of a connection over which too much came.
var errTooMuch = errors.New("the server said too much")

// boundedConn is a connection over which a bounded number of bytes may come: the reader of answers has no bound.
type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errTooMuch
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

// mail returns a message as a mail. It is the same at each attempt. All lines are short and ASCII, and what a text has of line
// breaks and other control characters does not reach a header.
func (s *mailer) mail(m *Message) []byte {
	var b bytes.Buffer
	_, domain, _ := strings.Cut(s.c.From, "@")
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	header("From", "rotatord <"+s.c.From+">")
	header("To", strings.Join(s.c.To, ",\r\n "))
	header("Date", m.At.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	header("Message-ID", "<"+m.ID+"@"+domain+">")
	header("Subject", encodedSubject("[rotatord] "+subjectTag(m)+m.Title))
	header("Auto-Submitted", "auto-generated")
	header(outbound.DeliveryHeader, m.ID)
	header("MIME-Version", "1.0")
	header("Content-Type", "text/plain; charset=utf-8")
	header("Content-Transfer-Encoding", "quoted-printable")
	b.WriteString("\r\n")
	text := quotedprintable.NewWriter(&b)
	_, _ = io.WriteString(text, strings.ReplaceAll(m.Text(), "\n", "\r\n"))
	_ = text.Close() // into memory
	return b.Bytes()
}

// encodedSubject returns a subject as a header has it: encoded words of RFC 2047 on lines of their own if it is not ASCII.
func encodedSubject(text string) string {
	text = printable.Line(text, maxTitle+len("[rotatord] CRITICAL "))
	text = strings.ReplaceAll(text, "=?", "= ?") // would be read as an encoded word
	return strings.ReplaceAll(mime.QEncoding.Encode("utf-8", text), "?= =?", "?=\r\n =?")
}

func subjectTag(m *Message) string {
	switch {
	case m.Test:
		return ""
	case m.Severity == "critical":
		return "CRITICAL "
	case m.Severity == "info":
		return "over: "
	}
	return ""
}
