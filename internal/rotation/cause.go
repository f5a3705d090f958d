package rotation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"rotatord/internal/event"
)

// Cause is an error that says in one stable word what is wrong, such as "sealed". The words are labels of
// metrics: there are few of them, and all are written in this code.
type Cause interface {
	error
	Cause() string
}

// CauseOther is the cause of an error that does not say one.
const CauseOther = "other"

// CauseOf returns in one word what is wrong. An error of the disk has its own word. For other errors the
// first [Cause] in the chain counts.
func CauseOf(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "no_space"
	case errors.Is(err, syscall.EROFS):
		return "read_only"
	case errors.Is(err, syscall.EIO):
		return "disk_error"
	}
	if e, ok := errors.AsType[Cause](err); ok {
		return e.Cause()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, fs.ErrPermission):
		return "no_permission"
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	}
	return CauseOther
}

// CauseOr returns the cause of an error, or another word if the error does not say one.
func CauseOr(err error, otherwise string) string {
	if cause := CauseOf(err); cause != CauseOther {
		return cause
	}
	return otherwise
}

// StuckOn returns what tells that a token could not be worked on.
func StuckOn(err error) event.RotationStuck {
	return event.RotationStuck{Err: err, Cause: ToldAs(err)}
}

// ToldAs returns by what it is known that an error was told before: by its cause. A refusal says more than one word, such as which of several
// permissions is missing, so the number that Cloudflare gives it counts too, or else its text without words that have a digit: they may be times, or
// what a proxy calls each request. ToldAs is empty if the error has no cause.
func ToldAs(err error) string {
	cause := CauseOr(err, "")
	if cause != refusedCause {
		return cause
	}
	if e, ok := errors.AsType[*IssuerError](err); ok {
		return fmt.Sprintf("%s %d %d", cause, e.Status, e.Code)
	}
	words := strings.FieldsFunc(err.Error(), func(r rune) bool { return r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	words = slices.DeleteFunc(words, func(word string) bool { return strings.ContainsFunc(word, unicode.IsDigit) })
	return cause + " " + strings.Join(words, " ")
}

// refusedCause is the cause of what a server refuses.
const refusedCause = "refused"

// Cause implements [Cause].
func (e *IssuerError) Cause() string {
	if errors.Is(e.Err, ErrClock) {
		return "clock"
	}
	if errors.Is(e.Err, ErrGone) {
		return "gone"
	}
	if inner, ok := errors.AsType[Cause](e.Err); ok {
		return inner.Cause()
	}
	switch {
	case e.Class == Throttled:
		return "throttled"
	case e.Status >= 500:
		return "server_error"
	case e.Status >= 400:
		return refusedCause
	case e.Status != 0:
		return "odd_answer"
	case errors.Is(e.Err, context.DeadlineExceeded):
		return "timeout"
	}
	return "unreachable"
}
