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

// SecretSource says where a secret is: in a file, or in an environment variable.
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

// Read returns the secret as it is now. It is [SecretSource.ReadWithin] without a context.
func (s SecretSource) Read() (secret.Value, error) { return s.ReadWithin(context.Background()) }

// ReadWithin returns the secret as it is now. A file is read again at each call, so that a
// credential can be replaced without a restart; white space around it is dropped. An empty
// secret is an error. It takes no longer than ctx and [smallfile.Wait], whatever the file is
// and whatever it is on; [smallfile.ErrHangs] is in the error if it was not read in time.
func (s SecretSource) ReadWithin(ctx context.Context) (secret.Value, error) {
	var content string
	switch {
	case s.File != "":
		var err error
		if content, err = s.readFile(ctx); err != nil {
			return secret.Value{}, err
		}
	case s.Env != "":
		content = variable(s.Env)
	default:
		return secret.Value{}, errors.New("no secret source is configured")
	}
	content = strings.TrimSpace(content)
	if content == "" {
		return secret.Value{}, fmt.Errorf("the secret in %s is empty or not set", s)
	}
	return secret.New(content), nil
}

// emptyPause is for how long a file may be empty because somebody is writing it over.
const emptyPause = 50 * time.Millisecond

func (s SecretSource) readFile(ctx context.Context) (string, error) {
	for again := true; ; again = false {
		b, err := smallfile.Read(ctx, s.File, smallfile.MaxSecret)
		if err != nil {
			return "", err
		}
		content := strings.TrimSpace(string(b))
		clear(b)
		if content != "" || !again {
			return content, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(emptyPause):
		}
	}
}
