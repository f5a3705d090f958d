package config

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"rotatord/internal/secret"
	"rotatord/internal/smallfile"
)

// SecretSource is the place of a secret: a file or an environment variable.
// Exactly one field is set; the zero SecretSource means that none was configured.
type SecretSource struct {
	File string
	Env  string
}

// IsZero reports whether no source was configured.
func (s SecretSource) IsZero() bool { return s == SecretSource{} }

// String names the source, never its content.
func (s SecretSource) String() string {
	switch {
	case s.File != "":
		return "file " + s.File
	case s.Env != "":
		return "environment variable " + s.Env
	}
	return "none"
}

// Document returns what the configuration file says of the source.
func (s SecretSource) Document() map[string]any {
	if s.Env != "" {
		return map[string]any{"env": s.Env}
	}
	return map[string]any{"file": s.File}
}

// Read returns the secret as it is now. It is [SecretSource.ReadWithin] without a context.
func (s SecretSource) Read() (secret.Value, error) { return s.ReadWithin(context.Background()) }

// ReadWithin is [SecretSource.ReadAs] for a secret of any kind.
func (s SecretSource) ReadWithin(ctx context.Context) (secret.Value, error) {
	return s.ReadAs(ctx, AnySecret)
}

// ReadAs returns the secret as it is now. A file is read again at each call, so that a
// credential can be replaced without a restart; white space around it is dropped. An empty
// secret is an error, and so is one that cannot be of that kind: the server would refuse it. The error
// says what is wrong, and repeats nothing of the secret. It takes no longer than ctx and [smallfile.Wait], whatever the file is
// and whatever it is on; [smallfile.ErrHangs] is in the error if it was not read in time.
func (s SecretSource) ReadAs(ctx context.Context, kind SecretKind) (secret.Value, error) {
	var content string
	switch {
	case s.File != "":
		var err error
		if content, err = s.readFile(ctx); err != nil {
			return secret.Value{}, err
		}
	case s.Env != "":
		var set bool
		if content, set = variable(s.Env); !set {
			return secret.Value{}, fmt.Errorf("%s is not set: set it where the daemon is started, or name a file with {file: PATH}", s)
		}
	default:
		return secret.Value{}, errors.New("no secret source is configured")
	}
	if strings.TrimSpace(content) == "" {
		return secret.Value{}, fmt.Errorf("the secret in %s is empty: write the %s there", s, kind)
	}
	value, problem := kind.inspect(content)
	if problem != "" {
		return secret.Value{}, &ContentError{fmt.Sprintf("the secret in %s %s", s, problem)}
	}
	return secret.New(value), nil
}

// A ContentError is about a secret that could be read and cannot be used: it is of another kind, or has
// something around it. The error repeats nothing of the secret.
type ContentError struct{ text string }

func (e *ContentError) Error() string { return e.text }

// Cause implements rotation.Cause: the label in metrics.
func (e *ContentError) Cause() string { return "malformed" }

// emptyPause is for how long a file may be empty because another program is overwriting it.
const emptyPause = 50 * time.Millisecond

func (s SecretSource) readFile(ctx context.Context) (string, error) {
	for again := true; ; again = false {
		b, err := smallfile.Read(ctx, s.File, smallfile.MaxSecret)
		if err != nil {
			return "", err
		}
		content := string(b)
		clear(b)
		if strings.TrimSpace(content) != "" || !again {
			return content, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(emptyPause):
		}
	}
}
