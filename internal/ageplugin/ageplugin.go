// Package ageplugin uses an age identity that a program holds: age-plugin-NAME, for a TPM, a hardware key or a key service.
//
// Guarantees: a program that hangs is ended within a bound, with all processes of its group. What it writes is bounded. It gets no
// terminal, and of the environment only what it needs to run, so no secret of {env: NAME}. A question to a person is answered with
// a refusal, because nobody is there.
//
// The protocol is C2SP's age-plugin. filippo.io/age/plugin has a client too, which cannot be ended from outside, passes the
// whole environment on, and waits for ever: docs/adr/0033.
package ageplugin

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"

	"rotatord/internal/printable"
)

const (
	// defaultWithin is how long a program may take for one answer.
	defaultWithin = 30 * time.Second
	// maxOutput limits what a program may write, in bytes.
	maxOutput = 1 << 20
	prefix    = "AGE-PLUGIN-"
	// lastWords is how long a program that has closed its output may still write why.
	lastWords = 100 * time.Millisecond
)

// Identity is an identity of a plugin. It implements [age.Identity].
type Identity struct {
	// Name is that of the plugin: the program is age-plugin-NAME.
	Name string
	// Within limits one call of the program. 0: thirty seconds.
	Within time.Duration
	text   string
	to     string // the recipient that a comment of the file names; "": none
}

// recipientComment is how the plugins write the recipient beside an identity.
var recipientComment = regexp.MustCompile(`(?i)^#\s*(?:recipient|public key):\s*(age1[0-9a-z]+)\s*$`)

// Find returns the identity of a plugin in the text of an identity file, whose other lines are comments; nil if the first line
// that is not a comment is another kind of identity. The last comment before it that names a recipient, as plugins write it, is kept:
// not every program can seal to an identity. The error does not repeat the text.
func Find(text string) (*Identity, error) {
	to := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			if found := recipientComment.FindStringSubmatch(line); found != nil {
				to = found[1]
			}
			continue
		case !strings.HasPrefix(line, prefix):
			return nil, nil
		}
		name, _, err := plugin.ParseIdentity(line)
		if err != nil || strings.ContainsAny(name, "/") {
			return nil, errors.New("it has a line AGE-PLUGIN-... that is damaged: copy it again as the plugin printed it")
		}
		return &Identity{Name: name, text: line, to: to}, nil
	}
	return nil, nil
}

// Program returns the path of the program, or an error that says what to do.
func (i *Identity) Program() (string, error) {
	name := "age-plugin-" + i.Name
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("the program %s of the age identity cannot be run: %w: install it in a directory of PATH; the systemd unit has to allow it (ExecPaths=)", name, err)
	}
	return path, nil
}

// Unwrap implements [age.Identity].
func (i *Identity) Unwrap(stanzas []*age.Stanza) (fileKey []byte, err error) {
	err = i.talk("identity-v1", func(c *conversation) error {
		c.send("add-identity", nil, i.text)
		for _, s := range stanzas {
			c.send("recipient-stanza", s.Body, append([]string{"0", s.Type}, s.Args...)...)
		}
		c.send("done", nil)
		return c.listen(func(s *age.Stanza) error {
			if s.Type != "file-key" || len(s.Args) != 1 || s.Args[0] != "0" || fileKey != nil {
				return errProtocol
			}
			fileKey = s.Body
			return nil
		}, "file-key")
	})
	if err == nil && fileKey == nil {
		err = age.ErrIncorrectIdentity
	}
	return fileKey, err
}

// Recipient returns the recipient that this identity opens. If a comment of the file names it, that is used: a tagged recipient
// (age1tag1...) needs no program, and one of the plugin is sealed to by the program. Otherwise the program is asked to seal to the
// identity, which some cannot (age-plugin-tpm). A comment may be wrong: open what was sealed before anything depends on it.
func (i *Identity) Recipient() age.Recipient {
	if tagged, err := tag.ParseRecipient(i.to); err == nil {
		return tagged
	}
	if name, _, err := plugin.ParseRecipient(i.to); err == nil && name == i.Name {
		return recipient{i, "add-recipient", i.to}
	}
	return recipient{i, "add-identity", i.text}
}

// recipient is sealed to by the program. command tells it to whom, as text.
type recipient struct {
	identity      *Identity
	command, text string
}

// Wrap implements [age.Recipient].
func (r recipient) Wrap(fileKey []byte) (stanzas []*age.Stanza, err error) {
	err = r.identity.talk("recipient-v1", func(c *conversation) error {
		c.send(r.command, nil, r.text)
		c.send("wrap-file-key", fileKey)
		c.send("done", nil)
		return c.listen(func(s *age.Stanza) error {
			if len(s.Args) < 2 || s.Args[0] != "0" {
				return errProtocol
			}
			stanzas = append(stanzas, &age.Stanza{Type: s.Args[1], Args: s.Args[2:], Body: s.Body})
			return nil
		}, "recipient-stanza")
	})
	switch {
	case err != nil && r.command == "add-identity":
		err = fmt.Errorf("%w: if it seals to recipients only, keep the line \"# Recipient: age1...\" that it wrote above the identity", err)
	case err == nil && len(stanzas) == 0:
		err = fmt.Errorf("the program age-plugin-%s has sealed nothing", r.identity.Name)
	}
	return stanzas, err
}

// errEnded is the end of a program in the middle of a conversation.
var errEnded = errors.New("it ended before it answered")

var errProtocol = errors.New("it does not keep to the protocol of age plugins")

// talk runs the program for one conversation.
func (i *Identity) talk(protocol string, speak func(*conversation) error) error {
	path, err := i.Program()
	if err != nil {
		return err
	}
	within := i.Within
	if within == 0 {
		within = defaultWithin
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--age-plugin="+protocol)
	cmd.Dir = "/"
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = converse(ctx, cmd, speak)
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("it did not answer within %s, and was ended: does it wait for a touch, a PIN, or a device that is away?", within)
	case errors.Is(err, age.ErrIncorrectIdentity):
		return err
	}
	if err != nil {
		return fmt.Errorf("the program %s of the age identity: %w", path, err)
	}
	return nil
}

// environment is what a program gets.
func environment() (all []string) {
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR"} {
		if value, ok := os.LookupEnv(name); ok {
			all = append(all, name+"="+value)
		}
	}
	return all
}

func converse(ctx context.Context, cmd *exec.Cmd, speak func(*conversation) error) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var complaint firstLine
	cmd.Stderr = &complaint
	if err := cmd.Start(); errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: the systemd unit has to allow it (ExecPaths=), and the directories of its libraries unless it is static", err)
	} else if err != nil {
		return err
	}
	// A process that left the group is not ended, and may have the other ends of the pipes open.
	stop := context.AfterFunc(ctx, func() { _, _ = in.Close(), out.Close() })
	defer stop()
	c := &conversation{in: in, out: bufio.NewReader(io.LimitReader(out, maxOutput))}
	err = speak(c)
	_ = in.Close()
	if errors.Is(err, errEnded) {
		time.Sleep(lastWords)
	}
	_ = cmd.Cancel() // whatever is left of it and its children
	_ = cmd.Wait()
	if why := complaint.line(); why != "" && errors.Is(err, errEnded) {
		err = fmt.Errorf("%w, and wrote: %s", err, why)
	}
	return err
}

// keyText is found in the text of every identity, and in the names of no program.
var keyText = regexp.MustCompile(`(?i)age-[a-z0-9+._-]*1[0-9a-z]{6}`)

// firstLine keeps the beginning of what a program writes to its standard error.
type firstLine struct{ text []byte }

const maxComplaint = 300 // bytes

// Write implements [io.Writer]. It takes everything.
func (f *firstLine) Write(p []byte) (int, error) {
	f.text = append(f.text, p[:min(len(p), maxComplaint-len(f.text))]...)
	return len(p), nil
}

// line returns the first line. One with a key in it is left out.
func (f *firstLine) line() string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(f.text)), "\n")
	if keyText.MatchString(line) {
		return ""
	}
	return printable.Text(line)
}

// conversation is one exchange of stanzas.
type conversation struct {
	in     io.Writer
	out    *bufio.Reader
	failed error
}

// send writes a stanza. The first error is returned by listen.
func (c *conversation) send(kind string, body []byte, arguments ...string) {
	if c.failed == nil {
		_, c.failed = c.in.Write(marshal(kind, body, arguments))
	}
}

// listen reads stanzas until the program is done. take gets those of the kind wanted.
func (c *conversation) listen(take func(*age.Stanza) error, wanted string) error {
	for {
		if c.failed != nil {
			return errEnded // the pipe to it is broken
		}
		s, err := readStanza(c.out)
		if err != nil {
			return err
		}
		switch s.Type {
		case wanted:
			if err := take(s); err != nil {
				return err
			}
			c.send("ok", nil)
		case "done":
			return nil
		case "error":
			return errors.New("it failed: " + printable.Text(string(s.Body[:min(len(s.Body), 500)])))
		case "msg", "request-secret", "request-public", "confirm":
			c.send("fail", nil) // there is no person to ask
		default:
			c.send("unsupported", nil)
		}
	}
}

// marshal returns the text of a stanza.
func marshal(kind string, body []byte, arguments []string) []byte {
	var b bytes.Buffer
	fmt.Fprintln(&b, strings.Join(slices.Concat([]string{"->", kind}, arguments), " "))
	for text := encode(body); ; text = text[columns:] {
		if len(text) < columns {
			fmt.Fprintln(&b, text)
			return b.Bytes()
		}
		fmt.Fprintln(&b, text[:columns])
	}
}
