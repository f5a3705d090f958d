package sink

import (
	"context"
	"errors"
	"fmt"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/rotation"
	"rotatord/internal/vault"
)

// Sink is an open sink. Beside what rotations need, it can be checked long before it is needed.
type Sink interface {
	rotation.Sink
	rotation.Looker
	rotation.SinkReader
	// LookAhead proves what Preflight proves, at any time. It sends nothing that a rotation would
	// miss. [ErrNotTried] is in the error if it proved nothing.
	LookAhead(ctx context.Context) error
}

// ErrNotTried is in the error of LookAhead if the sink was not tried: because what it works through
// is not there, which is checked by itself, or because trying it would use up something.
var ErrNotTried = errors.New("the sink was not tried")

// Deps are what sinks work with.
type Deps struct {
	Vault *vault.Session // nil if no Vault is configured
	Files *Files         // all file sinks; nil: it is not looked whether two of them write to one file
	// Kubernetes is nil if no sink needs it.
	Kubernetes *kubernetes.Client
}

// Open returns the sink of a configuration. It reaches for nothing yet. It serves all that work with
// sinks, so none of them knows the kinds.
func Open(c config.Sink, d Deps) (Sink, error) {
	if c.NeedsVault() && d.Vault == nil {
		return nil, fmt.Errorf("%s needs a Vault, and the configuration has no section vault", config.SinkName(c))
	}
	if c.NeedsKubernetes() && d.Kubernetes == nil {
		return nil, fmt.Errorf("%s needs a Kubernetes cluster, and none is configured", config.SinkName(c))
	}
	o := opener{Deps: d}
	c.Dispatch(&o)
	return o.opened, nil
}

// opener implements [config.SinkKinds]. Its methods are in the files of the kinds.
type opener struct {
	Deps
	opened Sink
}

var _ config.SinkKinds = (*opener)(nil)
