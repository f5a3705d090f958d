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
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/printable"
)

const (
	mailDialTime = 10 * time.Second
	// mailTime is the longest time for one mail.
	mailTime = time.Minute
	// maxDialogue is how many bytes a mail server may say during one mail.
	maxDialogue = 1 << 20
)

// mailer sends messages by mail. It uses net/smtp: what it needs (STARTTLS, PLAIN, 8-bit safe text) is in it, and a
// library for mail would add attachments, templates and a queue that are not wanted here.
type mailer struct {
	c *config.SMTP
	// tls is for tests; nil for the system's authorities.
	tls *tls.Config
}

func newMailer(c *config.SMTP) *mailer { return &mailer{c: c} }

// Send implements [Sender].
func (s *mailer) Send(ctx context.Context, m *Message) error {
	bounded, cancel := context.WithTimeout(ctx, mailTime)
	defer cancel()
	err := s.send(bounded, m)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("the mail server %s did not take the mail within %s", s.c.Server, mailTime)
	}
	return err
}

func (s *mailer) send(ctx context.Context, m *Message) error {
	var auth smtp.Auth
	host, _, _ := net.SplitHostPort(s.c.Server)
	if s.c.Username != "" {
		password, err := s.c.Password.ReadWithin(ctx)
		if err != nil {
			return fmt.Errorf("smtp.password: %w", err)
		}
		auth = smtp.PlainAuth("", s.c.Username, password.Reveal(), host)
	}
	client, err := s.connect(ctx, host)
	if err != nil {
		return err
	}
	defer client.Close()
	if auth != nil {
		if err := client.Auth(auth); err != nil {
			return s.refused("does not accept smtp.username and smtp.password", err)
		}
	}
	if err := client.Mail(s.c.From); err != nil {
		return s.refused("does not accept smtp.from", err)
	}
	var refusals []error
	for _, to := range s.c.To {
		if err := client.Rcpt(to); err != nil {
			refusals = append(refusals, s.refused("does not accept the address "+to, err))
		}
	}
	if len(refusals) == len(s.c.To) {
		return errors.Join(refusals...)
	}
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
	_ = client.Quit() // it has the mail
	return nil
}

// connect returns a connection that is encrypted as configured.
func (s *mailer) connect(ctx context.Context, host string) (*smtp.Client, error) {
	dialer := net.Dialer{Timeout: mailDialTime}
	conn, err := dialer.DialContext(ctx, "tcp", s.c.Server)
	if err != nil {
		return nil, s.unreachable(err)
	}
	plain := conn
	context.AfterFunc(ctx, func() { _ = plain.Close() }) // ctx always ends, at the latest after mailTime
	settings := &tls.Config{}
	if s.tls != nil {
		settings = s.tls.Clone()
	}
	settings.ServerName, settings.MinVersion = host, tls.VersionTLS12
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
	if s.c.TLS == config.MailStartTLS {
		if offered, _ := client.Extension("STARTTLS"); !offered {
			_ = client.Close()
			return nil, &RefusedError{fmt.Errorf("the mail server %s does not offer STARTTLS, and nothing is sent without encryption: is smtp.tls right (tls at port 465)?", s.c.Server)}
		}
		if err := client.StartTLS(settings); err != nil {
			_ = client.Close()
			return nil, s.unreachable(err)
		}
	}
	return client, nil
}

// unreachable returns the error for a connection that was not made.
func (s *mailer) unreachable(err error) error {
	peer := outbound.Peer{Name: "the mail server", Address: "smtp.server"}
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

// mail returns a message as a mail.
func (s *mailer) mail(m *Message) []byte {
	var b bytes.Buffer
	_, domain, _ := strings.Cut(s.c.From, "@")
	header := func(name, value string) { fmt.Fprintf(&b, "%s: %s\r\n", name, value) }
	header("From", "rotatord <"+s.c.From+">")
	header("To", strings.Join(s.c.To, ",\r\n "))
	header("Date", m.At.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	header("Message-ID", "<"+m.ID+"@"+domain+">")
	header("Subject", mime.QEncoding.Encode("utf-8", "[rotatord] "+subjectTag(m)+m.Title))
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
