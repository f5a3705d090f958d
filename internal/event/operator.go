package event

import (
	"fmt"
	"strings"
)

// Command tells of an operator's command at the admin socket that would change state, done or refused.
// The event's actor is the process at the other end of the connection.
type Command struct {
	Verb    Kind   // one of those that begin with "operator."
	Account string // the account that it is about; empty if it is about tokens
	Args    []any  // its arguments, as arguments of slog
	Outcome string // what came of it
	Err     string // why it was not done; empty if it was
}

// Name returns the verb of an operator's command as it is typed: "revoke-previous".
func (k Kind) Name() string {
	return strings.ReplaceAll(strings.TrimPrefix(string(k), operatorPrefix), "_", "-")
}

const operatorPrefix = "operator."

func (d Command) kind() Kind { return d.Verb }

func (d Command) attrs(e Event) []any {
	token := e.Token
	if token == "" {
		token = "(all)"
	}
	attrs := []any{"verb", d.Verb.Name(), "token", token}
	if d.Account != "" {
		attrs = append(attrs, "account", d.Account)
	}
	if e.By.Peer {
		attrs = append(attrs, "uid", e.By.UID)
		if name := e.By.name(); name != "" {
			attrs = append(attrs, "user", name)
		}
		attrs = append(attrs, "gid", e.By.GID, "pid", e.By.PID)
	}
	attrs = append(append(attrs, d.Args...), "outcome", d.Outcome)
	if d.Err != "" {
		attrs = append(attrs, "error", d.Err)
	}
	return attrs
}

func (d Command) more(e Event) string {
	what := fmt.Sprintf("%s by %s: %s", d.Verb.Name(), e.By, d.Outcome)
	if d.Account != "" {
		what = fmt.Sprintf("%s of account %s by %s: %s", d.Verb.Name(), d.Account, e.By, d.Outcome)
	}
	return joined(what, d.Err)
}
