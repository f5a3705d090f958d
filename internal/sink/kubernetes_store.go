package sink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rotatord/internal/kubernetes"
	"rotatord/internal/moment"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

// maxShown is the longest text of the cluster that is shown, in bytes.
const maxShown = 200

func shown(text string) string { return printable.Line(text, maxShown) }

// takeBase returns what the last Preflight has read, if the delivery has it as its base. It is used once.
func (k *Kubernetes) takeBase(d rotation.Delivery) (now *kubernetes.Secret, ok bool) {
	base, ok := k.base.take()
	if !ok || base.now == nil || base.stored != d.Base {
		return nil, false
	}
	return base.now, true
}

// Store implements [rotation.Sink]. Its first write is against what Preflight has read, if the delivery has
// that as its base; after a conflict it reads again.
func (k *Kubernetes) Store(ctx context.Context, d rotation.Delivery) (rotation.Stored, error) {
	now, ok := k.takeBase(d)
	if !ok || have(textOf(now), wanted(k.config.SinkFields, textOf(now), d)) {
		var err error
		if now, err = k.read(ctx); err != nil {
			return rotation.Stored{}, err
		}
	}
	for range maxConflicts {
		ours := wanted(k.config.SinkFields, textOf(now), d)
		if have(textOf(now), ours) {
			return k.stored(now), nil
		}
		if err := d.MayReplace(k.stored(now)); err != nil {
			return rotation.Stored{}, err
		}
		after, err := k.storeOnce(ctx, now, ours)
		if err != nil {
			return rotation.Stored{}, err
		}
		if have(textOf(after), ours) {
			return k.stored(after), nil
		}
		if err := ctx.Err(); err != nil {
			return rotation.Stored{}, err
		}
		now = after // without a pause, in which a busy writer would write again
	}
	return rotation.Stored{}, fmt.Errorf("another writer changed the Secret %s %d times in a row, each time between reading and writing it", k.config.Place(), maxConflicts)
}

// storeOnce writes once and returns what is stored then. If that is not what was written, another writer came
// between, or the Secret had to be created first.
func (k *Kubernetes) storeOnce(ctx context.Context, now *kubernetes.Secret, ours []assignment) (*kubernetes.Secret, error) {
	if now == nil {
		return k.create(ctx)
	}
	if err := k.writable(now); err != nil {
		return nil, err
	}
	force, err := k.ownership(now, ours)
	if err != nil {
		return nil, err
	}
	if err := rotation.MaySend(ctx); err != nil { // after a conflict, what is stored may be newer than ours
		return nil, err
	}
	apply := k.application(now, ours)
	apply.Force, apply.Operation = force, "write"
	wrote, writeErr := k.client.Apply(ctx, apply)
	if e, ok := errors.AsType[*kubernetes.StatusError](writeErr); ok && len(e.Conflicts) > 0 {
		return nil, errors.Join(k.conflict(e.Conflicts), e)
	}
	if writeErr != nil && kubernetes.Refused(writeErr) && !kubernetes.Changed(writeErr) {
		return nil, k.wrap("writing", writeErr)
	}
	// What is stored now decides, whatever the answer was, and also if none came.
	after, err := k.readBack(ctx, now, wrote, writeErr, ours)
	switch {
	case err != nil && writeErr != nil:
		return nil, errors.Join(k.wrap("writing", writeErr), fmt.Errorf("reading back: %w", err))
	case err != nil:
		return nil, fmt.Errorf("reading back: %w", err)
	case have(textOf(after), ours):
		return after, nil
	case writeErr != nil && !kubernetes.Changed(writeErr):
		// The write may still arrive. It names the version that was read, so after any other write it is
		// refused, and the next attempt can begin with a read like this one.
		return nil, k.wrap("writing", writeErr)
	case wrote != nil && after != nil && after.ResourceVersion == wrote.ResourceVersion:
		return nil, fmt.Errorf("the Secret %s does not hold what was written: the API server wrote version %s, and that version reads back with other values",
			k.config.Place(), shown(wrote.ResourceVersion))
	}
	return after, nil
}

// create creates the Secret without data. It has no secret in it, so it does no harm if it arrives late: then
// the Secret is there, and the creation changes nothing. Each write of a credential can then name a version.
func (k *Kubernetes) create(ctx context.Context) (*kubernetes.Secret, error) {
	made, err := k.client.Apply(ctx, kubernetes.Application{
		Namespace: k.config.Namespace, Name: k.config.Name, Manager: creator, Type: k.config.Type, Operation: "create",
	})
	if err == nil {
		return made, nil
	}
	if kubernetes.Refused(err) && !kubernetes.Changed(err) {
		return nil, k.wrap("creating", err)
	}
	after, readErr := k.read(ctx)
	if readErr != nil || after == nil {
		return nil, errors.Join(k.wrap("creating", err), readErr)
	}
	return after, nil
}

// readBack reads what is stored after a write, or after a write that was refused because the Secret had changed.
// now is what was read before the write; wrote and writeErr are its answer. A cache before the API server may
// show an older state. Then readBack reads again, and does not take the old state for another writer's.
func (k *Kubernetes) readBack(ctx context.Context, now, wrote *kubernetes.Secret, writeErr error, ours []assignment) (*kubernetes.Secret, error) {
	wait := firstStalePause
	for deadline := time.Now().Add(staleBound); ; wait = min(2*wait, lastStalePause) {
		after, err := k.read(ctx)
		if err != nil {
			return nil, err
		}
		if have(textOf(after), ours) {
			return after, nil
		}
		if err = staleSecret(now, after, wrote, writeErr); err == nil {
			return after, nil
		}
		if time.Now().Add(wait).After(deadline) {
			return nil, fmt.Errorf("the Secret %s: %w; it did not catch up within %s", k.config.Place(), err, staleBound)
		}
		if ended := moment.Sleep(ctx, wait); ended != nil {
			return nil, fmt.Errorf("the Secret %s: %w; it did not catch up in time: %w", k.config.Place(), err, ended)
		}
	}
}

// staleSecret returns why a read is older than what the API server has confirmed; nil if it is not.
func staleSecret(now, after, wrote *kubernetes.Secret, writeErr error) error {
	const from = "from a cache or a proxy before the API server"
	switch {
	case after == nil || after.UID != now.UID: // it was deleted
		return nil
	case wrote != nil && (kubernetes.Older(after.ResourceVersion, wrote.ResourceVersion) || after.ResourceVersion == now.ResourceVersion):
		return fmt.Errorf("it shows version %s, but version %s was written: %w %s", shown(after.ResourceVersion), shown(wrote.ResourceVersion), errStale, from)
	case kubernetes.Older(after.ResourceVersion, now.ResourceVersion):
		return fmt.Errorf("it shows version %s, but version %s was read before: %w %s", shown(after.ResourceVersion), shown(now.ResourceVersion), errStale, from)
	case kubernetes.Changed(writeErr) && after.ResourceVersion == now.ResourceVersion:
		return fmt.Errorf("it shows version %s, and the API server says that another version is the current one: %w %s", shown(after.ResourceVersion), errStale, from)
	}
	return nil
}
