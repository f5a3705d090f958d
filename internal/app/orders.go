package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"rotatord/internal/admin"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// Rotate implements [admin.Orders].
func (a *App) Rotate(ctx context.Context, name string, o rotation.Overrides) (admin.Rotated, error) {
	record, err := a.engine.rotateNow(ctx, name, o)
	if errors.Is(err, rotation.ErrHeldUp) {
		return admin.Rotated{}, err
	}
	if err != nil {
		switch record.Step {
		case rotation.StepInDoubt:
			err = fmt.Errorf("nobody knows whether Cloudflare carried it out: %w. The token is in doubt, and the old secret is left alone: see rotatord resolve %s", err, name)
		case rotation.StepSealed, rotation.StepStored:
			err = fmt.Errorf("rotated at Cloudflare, but the new secret is not in every sink yet: %w. "+
				"It is safe, and the daemon delivers it as soon as it can: see rotatord status %s", err, name)
		case rotation.StepIdle:
			err = fmt.Errorf("nothing was rotated: %w", err)
		}
		return admin.Rotated{}, err
	}
	return admin.Rotated{Token: a.token(name), RotationID: record.Last.RotationID, Digest: record.Last.Digest, GraceEndsAt: record.Last.GraceEndsAt}, nil
}

// Pause implements [admin.Orders].
func (a *App) Pause(ctx context.Context, name string, p rotation.Pause) (admin.Paused, error) {
	if err := a.engine.rotator.Pause(ctx, name, p); err != nil {
		return admin.Paused{}, err
	}
	a.engine.replanOne(name)
	return a.paused(name), nil
}

// Resume implements [admin.Orders].
func (a *App) Resume(ctx context.Context, name string) (admin.Paused, error) {
	lifted, err := a.engine.rotator.Resume(ctx, name)
	if err != nil {
		return admin.Paused{}, err
	}
	a.engine.replanOne(name)
	o := a.paused(name)
	o.Lifted = showPause(lifted)
	return o, nil
}

// paused is what holds a token up, or all of them.
func (a *App) paused(name string) admin.Paused {
	o := admin.Paused{Token: name, Pause: showPause(a.engine.rotator.PauseOf(name))}
	if name != rotation.AllTokens {
		o.Next = a.token(name).Next
	}
	o.InHand = a.engine.names(func(s *scheduled) bool {
		return (name == rotation.AllTokens || s.token.Name == name) && (s.working > 0 || s.record.Step != rotation.StepIdle)
	})
	for _, token := range slices.Sorted(maps.Keys(a.engine.rotator.Pauses())) {
		if token != rotation.AllTokens {
			o.ByName = append(o.ByName, token)
		}
	}
	return o
}

// showPause is nil for no pause.
func showPause(p rotation.Pause) *status.Pause {
	if !p.On() {
		return nil
	}
	return &status.Pause{Since: p.Since, Until: p.Until, Reason: p.Reason, By: p.By}
}
