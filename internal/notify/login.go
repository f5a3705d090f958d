package notify

import (
	"errors"
	"fmt"
	"net/smtp"
	"slices"
	"strings"

	"rotatord/internal/secret"
)

// login logs in with PLAIN, or with LOGIN if the server has only that.
func (s *mailer) login(client *smtp.Client, host string, password secret.Value) error {
	offered, text := client.Extension("AUTH")
	_, encrypted := client.TLSConnectionState()
	mechanisms := strings.Fields(strings.ToUpper(text))
	var auth smtp.Auth
	switch {
	case !offered:
		return s.noLogin("offers no login (AUTH), and smtp.username asks for one: is the port in smtp.server right (587, or 465 with tls: tls)? If the server wants no login, remove smtp.username and smtp.password")
	case slices.Contains(mechanisms, "PLAIN"):
		auth = smtp.PlainAuth("", s.c.Username, password.Reveal(), host)
	case !slices.Contains(mechanisms, "LOGIN"):
		return s.noLogin("offers neither the login PLAIN nor LOGIN, and rotatord knows no other: let the server offer one of them, or send by another server")
	case !encrypted:
		return s.noLogin("offers only the login LOGIN, which is used only over TLS: write smtp.tls: starttls or tls")
	default:
		auth = &loginAuth{host: host, username: s.c.Username, password: password}
	}
	if err := client.Auth(auth); err != nil {
		return s.refused("does not accept smtp.username and smtp.password", err)
	}
	return nil
}

func (s *mailer) noLogin(why string) error {
	return &RefusedError{fmt.Errorf("the mail server %s %s", s.c.Server, why)}
}

// loginAuth is the login LOGIN, which some servers offer alone: the server asks twice, for the name and for the password. What
// it asks is not looked at, because servers ask in different words.
type loginAuth struct {
	host, username string
	password       secret.Value
	asked          int
}

// Start implements [smtp.Auth].
func (a *loginAuth) Start(server *smtp.ServerInfo) (string, []byte, error) {
	if !server.TLS || server.Name != a.host {
		return "", nil, errors.New("the login LOGIN is used only over TLS")
	}
	return "LOGIN", nil, nil
}

// Next implements [smtp.Auth].
func (a *loginAuth) Next(_ []byte, more bool) ([]byte, error) {
	if !more {
		return nil, nil
	}
	a.asked++
	switch a.asked {
	case 1:
		return []byte(a.username), nil
	case 2:
		return []byte(a.password.Reveal()), nil
	}
	return nil, errors.New("the server asks for more than a name and a password")
}
