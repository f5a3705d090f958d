package config

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"rotatord/internal/secret"
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

// Read returns the secret as it is now. A file is read anew at each call, so that a
// credential can be replaced without a restart; white space around it is dropped.
// An empty secret is an error.
func (s SecretSource) Read() (secret.Value, error) {
	var content string
	switch {
	case s.File != "":
		b, err := os.ReadFile(s.File)
		if err != nil {
			return secret.Value{}, fmt.Errorf("reading a secret: %w", err)
		}
		content = string(b)
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
