package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// Rotate implements [admin.Orders].
func (a *App) Rotate(ctx context.Context, name string, o rotation.Overrides, by string) (admin.Rotated, error) {
	record, err := a.engine.rotateNow(ctx, name, o, by)
	if errors.Is(err, rotation.ErrNotRotated) || errors.Is(err, rotation.ErrFinishedFirst) {
		return admin.Rotated{}, err
	}
	if errors.Is(err, rotation.ErrGone) {
		err = fmt.Errorf("%w: in the configuration give the entry the id of another service token, or create in place of id, and reload", err)
	}
	kept := ""
	if record.Order != nil {
		kept = fmt.Sprintf(". The order remains, and the daemon keeps trying: see rotatord status %s. To cancel it: rotatord rotate %s --cancel", name, name)
	}
	if err != nil {
		outcome := "failed: nothing was rotated"
		switch record.Step {
		case rotation.StepInDoubt:
			outcome = "in doubt: it is not known whether Cloudflare carried it out"
			err = fmt.Errorf("it is not known whether Cloudflare carried it out: %w. The token is in doubt, and the old secret is left alone: see rotatord resolve %s%s", err, name, kept)
		case rotation.StepSealed, rotation.StepStored:
			outcome = "rotated: the new secret is not in every sink yet"
			if record.Step == rotation.StepStored {
				outcome = "rotated: the new secret is in every sink, and the rotation has not ended yet"
			}
			err = fmt.Errorf("rotated at Cloudflare, but the new secret is not in every sink yet, or is refused where it was tried: %w. "+
				"It is safe, and the daemon continues: see rotatord status %s%s", err, name, kept)
		case rotation.StepIdle:
			err = fmt.Errorf("nothing was rotated: %w%s", err, kept)
		}
		return admin.Rotated{}, &admin.Unfinished{Outcome: outcome, Err: err}
	}
	rotated := admin.Rotated{Token: a.token(name), Ordered: record.Order != nil}
	switch {
	case record.Step != rotation.StepIdle: // verification in the application goes on for a while
		rotated.RotationID, rotated.Digest, rotated.GraceEndsAt = record.Work.RotationID, record.Work.Digest, record.Work.GraceEndsAt
		rotated.Verifying = true
	case record.Last != nil:
		rotated.RotationID, rotated.Digest, rotated.GraceEndsAt = record.Last.RotationID, record.Last.Digest, record.Last.GraceEndsAt
		rotated.Unverified = record.Last.Unverified
	}
	return rotated, nil
}

// RotateAll implements [admin.Orders].
func (a *App) RotateAll(ctx context.Context, account string, o rotation.Overrides, by string) (admin.Progress, error) {
	tokens, left, err := a.tokensOf(account)
	if err == nil {
		err = a.mayAct()
	}
	if err != nil {
		return admin.Progress{}, err
	}
	progress := admin.Progress{Account: account}
	for _, name := range left {
		progress.Problems = append(progress.Problems, fmt.Sprintf("%s: it is being added by a reload; give the order again", name))
	}
	for _, ordered := range a.engine.rotator.OrderAll(ctx, tokens, o, by) {
		if ordered.Err != nil {
			progress.Problems = append(progress.Problems, fmt.Sprintf("%s: %v", ordered.Token, ordered.Err))
		} else {
			a.engine.plan(ordered.Token, ordered.Record, 0)
		}
	}
	a.addProgress(&progress)
	return progress, nil
}

// CancelAll implements [admin.Orders].
func (a *App) CancelAll(ctx context.Context, account string) (admin.Progress, error) {
	tokens, _, err := a.tokensOf(account)
	if err != nil {
		return admin.Progress{}, err
	}
	changed, err := a.engine.rotator.CancelOrders(ctx, tokens)
	for _, record := range changed {
		a.engine.plan(record.Token, record, 0)
	}
	progress := admin.Progress{Account: account, Cancelled: len(changed)}
	a.addProgress(&progress)
	return progress, err
}

// Progress implements [admin.View].
func (a *App) Progress(account string) (admin.Progress, error) {
	if _, _, err := a.tokensOf(account); err != nil {
		return admin.Progress{}, err
	}
	progress := admin.Progress{Account: account}
	a.addProgress(&progress)
	return progress, nil
}

// addProgress adds how far the orders of an account are carried out.
func (a *App) addProgress(p *admin.Progress) {
	for configured := range a.tokensIn(p.Account) {
		p.Tokens++
		t := a.show(configured)
		if t.Order == nil {
			continue
		}
		left := admin.Left{Token: t.Name, State: t.State, Next: t.Next, Reason: t.Reason, LastError: t.LastError}
		if p.Since.IsZero() || t.Order.Since.Before(p.Since) {
			p.Since = t.Order.Since
		}
		p.Left = append(p.Left, left)
	}
}

// tokensOf returns the tokens of an account as they are configured now, and the names of those that the
// ledger does not know yet.
func (a *App) tokensOf(account string) (tokens []rotation.Token, left []string, err error) {
	c := a.InForce()
	if _, ok := c.Accounts[account]; !ok {
		return nil, nil, fmt.Errorf("%w %q is configured: %s", admin.ErrNoAccount, account, config.Suggest(account, slices.Collect(maps.Keys(c.Accounts))))
	}
	for t := range a.tokensIn(account) {
		switch seen, ok := a.engine.view(t.Name); {
		case !ok || seen.enrolling:
			left = append(left, t.Name)
		default:
			tokens = append(tokens, seen.token)
		}
	}
	return tokens, left, nil
}

// Cancel implements [admin.Orders].
func (a *App) Cancel(ctx context.Context, name string) (admin.Cancelled, error) {
	_, err := a.engine.runCommand(name, func(t rotation.Token) (rotation.Record, error) { return a.engine.rotator.CancelOrder(ctx, t) })
	return admin.Cancelled{Token: a.token(name)}, err
}

// RevokePrevious implements [admin.Orders].
func (a *App) RevokePrevious(ctx context.Context, name string, inUse bool) (admin.Grace, error) {
	return a.changeGrace(name, func(t rotation.Token) (rotation.Record, error) {
		if inUse {
			return a.engine.rotator.RevokeInUse(rotation.WithUrgency(ctx, rotation.UrgencyManual), t)
		}
		return a.engine.rotator.RevokePrevious(rotation.WithUrgency(ctx, rotation.UrgencyManual), t)
	})
}

// ExtendGrace implements [admin.Orders].
func (a *App) ExtendGrace(ctx context.Context, name string, grace time.Duration) (admin.Grace, error) {
	return a.changeGrace(name, func(t rotation.Token) (rotation.Record, error) {
		return a.engine.rotator.ExtendGrace(rotation.WithUrgency(ctx, rotation.UrgencyManual), t, grace)
	})
}

func (a *App) changeGrace(name string, order func(rotation.Token) (rotation.Record, error)) (admin.Grace, error) {
	record, err := a.engine.runCommand(name, order)
	if err != nil {
		return admin.Grace{}, err
	}
	return admin.Grace{Token: a.token(name), EndsAt: record.GraceEnd()}, nil
}

// Pause implements [admin.Orders].
func (a *App) Pause(ctx context.Context, name string, p rotation.Pause) (admin.Paused, error) {
	if err := a.sharing.errNotJoined(); err != nil {
		return admin.Paused{}, err
	}
	if err := a.engine.rotator.Pause(ctx, name, p); err != nil {
		return admin.Paused{}, err
	}
	a.engine.replan(name)
	return a.paused(name), nil
}

// Resume implements [admin.Orders].
func (a *App) Resume(ctx context.Context, name string) (admin.Paused, error) {
	if err := a.sharing.errNotJoined(); err != nil {
		return admin.Paused{}, err
	}
	lifted, err := a.engine.rotator.Resume(ctx, name)
	if err != nil {
		return admin.Paused{}, err
	}
	a.engine.replan(name)
	o := a.paused(name)
	o.Lifted = showPause(lifted)
	return o, nil
}

// paused returns what pauses a token, or all tokens.
func (a *App) paused(name string) admin.Paused {
	o := admin.Paused{Token: name, Pause: showPause(a.engine.rotator.PauseOf(name))}
	if name != rotation.AllTokens {
		o.Next = a.token(name).Next
	}
	inProgress := func(s scheduled) bool { return s.active > 0 || s.record.Step != rotation.StepIdle }
	if name == rotation.AllTokens {
		o.InProgress = a.engine.names(func(k *kept) bool { return inProgress(k.scheduled()) })
	} else if seen, ok := a.engine.view(name); ok && inProgress(seen) {
		o.InProgress = []string{name}
	}
	for _, token := range slices.Sorted(maps.Keys(a.engine.rotator.Pauses())) {
		if token != rotation.AllTokens {
			o.ByName = append(o.ByName, token)
		}
	}
	return o
}

// showPause returns what is shown of a pause; nil if there is none.
func showPause(p rotation.Pause) *status.Pause {
	if !p.On() {
		return nil
	}
	return &status.Pause{Since: p.Since, Until: p.Until, Reason: p.Reason, By: p.By}
}
