package rotation_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"syscall"
	"testing"

	"rotatord/internal/rotation"
)

type sealed struct{}

func (sealed) Error() string { return "Vault is sealed" }

func (sealed) Cause() string { return "sealed" }

// TestCauseOf: each error has one word, also if it is wrapped, and each word is documented.
func TestCauseOf(t *testing.T) {
	issuers := func(e rotation.IssuerError) error { return fmt.Errorf("preflight: %w", &e) }
	document, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for want, all := range map[string][]error{
		"no_space":      {&os.PathError{Err: syscall.ENOSPC}, fmt.Errorf("%w: %w", rotation.ErrLedger, syscall.EDQUOT)},
		"read_only":     {fmt.Errorf("%w: %w", rotation.ErrLedger, syscall.EROFS)},
		"disk_error":    {fmt.Errorf("writing: %w", syscall.EIO)},
		"no_permission": {fmt.Errorf("reading: %w", fs.ErrPermission), syscall.EACCES},
		"missing":       {&os.PathError{Err: syscall.ENOENT}},
		"timeout":       {fmt.Errorf("waiting: %w", context.DeadlineExceeded), issuers(rotation.IssuerError{Err: context.DeadlineExceeded})},
		"sealed":        {fmt.Errorf("sink vault:secret/x: %w", sealed{})},
		"clock":         {issuers(rotation.IssuerError{Class: rotation.NotCarriedOut, Err: fmt.Errorf("%w: by an hour", rotation.ErrClock)})},
		"gone":          {issuers(rotation.IssuerError{Class: rotation.Refused, Status: 404, Err: rotation.ErrGone})},
		"throttled":     {issuers(rotation.IssuerError{Class: rotation.Throttled, Status: 429})},
		"server_error":  {issuers(rotation.IssuerError{Class: rotation.Unknown, Status: 502})},
		"refused":       {issuers(rotation.IssuerError{Class: rotation.Refused, Status: 403})},
		"odd_answer":    {issuers(rotation.IssuerError{Class: rotation.Unknown, Status: 200})},
		"unreachable":   {issuers(rotation.IssuerError{Class: rotation.NotCarriedOut, Err: errors.New("no route to host")})},
		"other":         {errors.New("something"), rotation.ErrLedger, nil},
	} {
		for _, err := range all {
			if got := rotation.CauseOf(err); got != want {
				t.Errorf("%v: %q, want %q", err, got, want)
			}
		}
		if !regexp.MustCompile("(?m)^\\| .*`" + want + "`.* \\|").Match(document) {
			t.Errorf("docs/metrics.md does not explain the reason %s", want)
		}
	}
}
