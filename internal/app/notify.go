package app

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"rotatord/internal/event"
	"rotatord/internal/kvstore"
	"rotatord/internal/notify"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// This file connects the App with the receivers of notifications.

// notifyDir is the directory in state.dir that has what receivers were told.
const notifyDir = "notify"

// newNotifier makes the notifier. It sends nothing before it is started.
func (a *App) newNotifier() error {
	o := notify.Options{
		ExternalURL: a.config.ExternalURL,
		Dir:         filepath.Join(a.config.State.Dir, notifyDir), Look: a.whatIsWrong, Now: a.now, Log: a.log, Observer: a.metrics,
		Tell: func(d event.Detail) { a.tell("", d); a.lookAtReceivers() },
	}
	if shared := a.config.State.Shared; shared != nil {
		name, err := shared.Name()
		if err != nil {
			return err
		}
		o.Replica, o.Shared, o.Turn = name, laterStore{a}, a.tells
	}
	a.notifier = notify.New(o)
	return nil
}

// laterStore is the shared store, which is opened after the notifier is made.
type laterStore struct{ app *App }

func (s laterStore) kv() kvstore.KV { return s.app.sharing.kv }

func (s laterStore) Get(ctx context.Context, path string) (kvstore.Entry, error) {
	return s.kv().Get(ctx, path)
}

func (s laterStore) Put(ctx context.Context, path string, data any, version int) (kvstore.Entry, error) {
	return s.kv().Put(ctx, path, data, version)
}

// startNotifier starts to tell receivers.
func (a *App) startNotifier() {
	a.notifier.Set(a.config.Notify)
	a.background("notifications", a.notifier.Run)
}

// whatIsWrong returns what the receivers are told from. It answers from memory.
func (a *App) whatIsWrong() notify.Snapshot {
	return notify.Snapshot{At: a.engine.now(), Started: a.started, Tokens: a.Tokens(), Checks: a.Checks(), Replicas: a.Replicas(), Listed: a.listed}
}

// listed reports whether the service tokens of an account were listed since the start.
func (a *App) listed(name string) bool {
	account := a.accountOf(name)
	return account != nil && account.inventoried.Load()
}

// tells reports whether this replica is the one that tells a receiver about tokens and replicas.
func (a *App) tells(receiver string) bool {
	s := a.sharing
	return s.isJoined() && s.room.MayBegin() == nil && s.room.Wait(receiverKey(receiver), rotation.Record{}) == 0
}

// receiverKey stands for a receiver where replicas ask who comes first.
func receiverKey(receiver string) string { return "notify/" + receiver }

// lookAtReceiver returns why a receiver cannot be told: what it needs cannot be read, or the last attempt failed. It sends
// nothing.
func (a *App) lookAtReceiver(ctx context.Context, name string) error {
	for _, r := range a.InForce().Notify {
		if r.Name != name {
			continue
		}
		var errs []error
		for _, s := range r.Secrets() {
			if _, err := s.Source.ReadAs(ctx, s.Kind); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", s.Field, err))
			}
		}
		return errors.Join(append(errs, notify.CAProblem(ctx, r), a.notifier.Problem(name))...)
	}
	return nil
}

// TestNotify implements [admin.Daemon].
func (a *App) TestNotify(ctx context.Context, receiver string) ([]status.NotifyTest, error) {
	all, err := a.notifier.Test(ctx, receiver)
	a.lookAtReceivers()
	return all, err
}

// lookAtReceivers has the checks of all receivers look now.
func (a *App) lookAtReceivers() {
	a.ahead.LookNow(func(c status.Check) bool { return c.Name == status.CheckNotify })
}
