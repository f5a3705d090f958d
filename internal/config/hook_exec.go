package config

import (
	"strconv"
	"strings"

	"rotatord/internal/config/raw"
	"rotatord/internal/secret"
)

// ExecHook is a program on this machine. It implements [Hook].
type ExecHook struct {
	// Command is the program and its arguments.
	Command []string
	HookTimes
}

// maxCommand is how many bytes a program and its arguments may have together.
const maxCommand = 4096

// Kind implements [Hook].
func (*ExecHook) Kind() string { return "exec" }

// Target implements [Hook]: the command, with quotes where an argument would else not be seen as one.
func (e *ExecHook) Target() string {
	words := make([]string, len(e.Command))
	for i, word := range e.Command {
		if words[i] = word; word == "" || strings.ContainsAny(word, " \t\n\"'\\") {
			words[i] = strconv.Quote(word)
		}
	}
	return strings.Join(words, " ")
}

// NeedsKubernetes implements [Hook].
func (*ExecHook) NeedsKubernetes() bool { return false }

// Document implements [Hook].
func (e *ExecHook) Document() map[string]any { return e.addTo(map[string]any{"command": e.Command}) }

// Dispatch implements [Hook].
func (e *ExecHook) Dispatch(to HookKinds) { to.Exec(e) }

func (*ExecHook) eachSecret(string, func(string, *SecretSource, SecretKind)) {}

func (e *ExecHook) check(c *checker, path string, hook raw.Hook) bool {
	in := hook.Exec
	e.HookTimes = c.hookTimes(path, in.Timeout, in.Batch)
	at, size, ok := path+".command", 0, len(in.Command) > 0
	for i, word := range in.Command {
		if word == nil {
			return false // reported already
		}
		item := itemPath(at, i)
		switch size += len(*word) + 1; {
		case secret.Scrub(*word) != *word:
			c.wrong(item, "looks like a secret, and arguments are seen by every user of the machine: let the program read it from where it is")
			ok = false
		case strings.ContainsRune(*word, 0):
			c.wrong(item, "has a null character in it, which no argument can have")
			ok = false
		case i == 0 && (*word == "" || strings.HasSuffix(*word, "/")):
			c.wrong(item, "must be a program, such as systemctl or /usr/local/bin/reload-app")
			ok = false
		case i == 0 && strings.Contains(*word, "/") && !strings.HasPrefix(*word, "/"):
			c.wrong(item, "is a path that depends on the directory of the daemon: write an absolute path")
			ok = false
		case i == 0 && len(in.Command) == 1 && strings.Contains(*word, " "):
			c.wrong(item, "has a space in it, and no shell splits it: write one entry for each word, as in [systemctl, reload, app]")
			ok = false
		}
		e.Command = append(e.Command, c.intern(*word))
	}
	if size > maxCommand {
		c.wrong(at, "has %d bytes, and at most %d are accepted: write a script and name it here", size, maxCommand)
		ok = false
	}
	return ok
}
