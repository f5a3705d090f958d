// Package hook runs what follows a rotation, so that consumers learn of a new secret: a program, a signed HTTP request,
// or a rollout restart in Kubernetes.
//
// Guarantees: no hook gets a secret, neither in arguments nor in the environment nor in a request. A run takes no longer
// than its timeout and a few seconds to end it. What a program or a server answers is bounded, and removed from it is
// what looks like a credential, before it is in an error.
//
// That each hook runs once for a rotation, and is tried again until it succeeds, is the work of package rotation, which
// keeps account of it in the ledger. A process that dies during a run cannot know how far the run came, so the hook
// runs again: a program sees that in ROTATORD_ATTEMPT, a receiver of requests by their delivery ID, and a restart that
// took place is not repeated.
package hook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/secret"
)

// Hook is a hook that is ready to run. Implementations are safe for concurrent use.
type Hook interface {
	// Run runs the hook once, for all items, and returns nil if it has succeeded for all of them. It ends soon after
	// ctx does.
	Run(ctx context.Context, items []Item) error
	// Check returns why the hook could not run now, as far as that can be found out without running it; nil if
	// nothing was found.
	Check(ctx context.Context) error
}

// Item is a token whose rotation the hook follows.
type Item struct {
	Token      string // its name in the configuration
	ID         string // of what is owed; another one when an operator wants the hook to run again
	RotationID string
	Digest     secret.Digest // of the new client secret
	Attempt    int           // 1 for the first run for this ID
}

// MaxItems is how many tokens one run serves at most.
const MaxItems = 250

// Deps are what hooks work with.
type Deps struct {
	Kubernetes *kubernetes.Client // nil if no hook needs it
}

// Open returns the hook of a configuration. It reaches for nothing yet.
func Open(c config.Hook, d Deps) (Hook, error) {
	if c.NeedsKubernetes() && d.Kubernetes == nil {
		return nil, fmt.Errorf("%s needs a Kubernetes cluster, and none is configured", config.HookName(c))
	}
	o := opener{Deps: d}
	c.Dispatch(&o)
	return o.opened, nil
}

// opener implements [config.HookKinds]. Its methods are in the files of the kinds.
type opener struct {
	Deps
	opened Hook
}

var _ config.HookKinds = (*opener)(nil)

// deliveryID identifies a run. It is the same for each attempt with the same items.
func deliveryID(items []Item) string {
	if len(items) == 1 {
		return items[0].ID
	}
	sum := sha256.New()
	for _, item := range items {
		_, _ = fmt.Fprintf(sum, "%s\x00%s\x00", item.Token, item.ID)
	}
	return "batch-" + hex.EncodeToString(sum.Sum(nil)[:13])
}

// attempt returns the highest attempt of the items.
func attempt(items []Item) (highest int) {
	for _, item := range items {
		highest = max(highest, item.Attempt)
	}
	return highest
}

// joined joins something of each item by spaces, which no name of a token has.
func joined(items []Item, part func(Item) string) string {
	all := make([]string, len(items))
	for i, item := range items {
		all[i] = part(item)
	}
	return strings.Join(all, " ")
}
