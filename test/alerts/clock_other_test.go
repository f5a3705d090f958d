//go:build !(linux && amd64)

package alerts

import (
	"errors"
	"os/exec"
	"time"
)

const clockCanBeSet = false

type ownClock struct{}

func startWithClock(*exec.Cmd) (*ownClock, error) {
	return nil, errors.New("a daemon can have a clock of its own on Linux on amd64 only")
}

func (*ownClock) set(time.Duration) error { return errors.ErrUnsupported }
