package rotation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

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
	return event.RotationStuck{Err: err, Cause: toldAs(err)}
}

// toldAs returns by what a token knows that it has told an error before: by its cause. A refusal says more than one word, such as
// which of several permissions is missing, so its text counts without the numbers, which may be times, or the number that Cloudflare gives
// it. It is empty if the text counts as it is.
func toldAs(err error) string {
	cause := CauseOr(err, "")
	if cause != refusedCause {
		return cause
	}
	if e, ok := errors.AsType[*IssuerError](err); ok { // its text may have the number of a request
		return fmt.Sprintf("%s %d %d", cause, e.Status, e.Code)
	}
	return cause + " " + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, err.Error())
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
