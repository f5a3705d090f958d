package rotation

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// Pause is an operator's command that no rotation starts. A rotation in progress continues, and a doubt is
// resolved, with its reissue: a pause must not leave consumers without a secret. The zero Pause pauses
// nothing.
type Pause struct {
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is resumed
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by,omitempty"` // who paused it, as the kernel names them
}

// On reports whether p is a pause. It does not say whether the pause is over. [NextDue] needs no clock for
// that: it delays a due time until the end of the pause.
func (p Pause) On() bool { return !p.Since.IsZero() }

// over reports whether p has ended by itself.
func (p Pause) over(now time.Time) bool { return !p.Until.IsZero() && !now.Before(p.Until) }

// AllTokens means all tokens where the name of one token is expected.
const AllTokens = ""

// Pauses stores pauses, so that they survive restarts. Implementations are safe for concurrent use and
// durable: what SetPause returned nil for survives a crash of the machine.
type Pauses interface {
	// LoadPauses returns what is paused, by token; the pause of all tokens is under AllTokens.
	LoadPauses(ctx context.Context) (map[string]Pause, error)
	// SetPause replaces the pause of a token, or of AllTokens; nil ends it. It returns what is paused then, as
	// LoadPauses does. Every other pause stays, also one that another replica has set meanwhile.
	SetPause(ctx context.Context, token string, p *Pause) (map[string]Pause, error)
}

// LoadPauses reads what is paused. Call it before anything is due, and again when another replica may have
// paused or resumed something.
func (r *Rotator) LoadPauses(ctx context.Context) error {
	r.savePause.Lock() // what is read must not replace what is saved at the same time
	defer r.savePause.Unlock()
	all, err := r.pauseStore.LoadPauses(ctx)
	if err != nil {
		return fmt.Errorf("reading what is paused: %w", err)
	}
	r.pauseMu.Lock()
	defer r.pauseMu.Unlock()
	r.pauses = all
	return nil
}

// PauseOf returns the pause of a token: its own or the pause of all tokens, the one that lasts longer. For
// AllTokens it returns only the pause of all tokens.
func (r *Rotator) PauseOf(token string) Pause {
	r.pauseMu.Lock()
	defer r.pauseMu.Unlock()
	return PauseAt(r.pauses, token, r.now())
}

// PauseAt returns the pause of all that a token is under at that time, as [Rotator.PauseOf] does.
func PauseAt(pauses map[string]Pause, token string, now time.Time) Pause {
	own, all := pauses[token], pauses[AllTokens]
	switch {
	case !all.On() || all.over(now):
		all, own = own, Pause{}
	case own.On() && !own.over(now) && (own.Until.IsZero() || !all.Until.IsZero() && own.Until.After(all.Until)):
		return own
	}
	if all.over(now) {
		return Pause{}
	}
	return all
}

// Pauses returns what is paused by name, AllTokens included.
func (r *Rotator) Pauses() map[string]Pause {
	r.pauseMu.Lock()
	defer r.pauseMu.Unlock()
	all := maps.Clone(r.pauses)
	maps.DeleteFunc(all, func(_ string, p Pause) bool { return p.over(r.now()) })
	return all
}

// Pause pauses a token, or all of them. It replaces an earlier pause. A rotation in progress is
// finished.
func (r *Rotator) Pause(ctx context.Context, token string, p Pause) error {
	return r.setPause(ctx, token, &p)
}

// Resume ends the pause of a token, or the pause of all tokens; one does not end the other. It returns the
// pause that it ended; the zero Pause if there was none.
func (r *Rotator) Resume(ctx context.Context, token string) (Pause, error) {
	was := r.Pauses()[token]
	return was, r.setPause(ctx, token, nil)
}

func (r *Rotator) setPause(ctx context.Context, token string, p *Pause) error {
	r.savePause.Lock() // one after the other, while callers that ask what is paused do not wait for the disk
	defer r.savePause.Unlock()
	all, err := r.pauseStore.SetPause(ctx, token, p)
	if err != nil {
		return fmt.Errorf("%w: saving what is paused: %w", ErrLedger, err)
	}
	r.pauseMu.Lock()
	defer r.pauseMu.Unlock()
	r.pauses = all
	return nil
}

// Due says when a token is due, paused or not.
func (r *Rotator) Due(t Token, record Record) Due { return NextDue(t, record, r.PauseOf(t.Name)) }

// WithPause returns pauses in which that of a token is replaced; nil ends it. It does not change all.
func WithPause(all map[string]Pause, token string, p *Pause) map[string]Pause {
	changed := maps.Clone(all)
	if changed == nil {
		changed = make(map[string]Pause)
	}
	delete(changed, token)
	if p != nil {
		changed[token] = *p
	}
	return changed
}

// memoryPauses is the store of a Rotator that was created without one: its pauses end with the process.
type memoryPauses struct{ all map[string]Pause }

func (m *memoryPauses) LoadPauses(context.Context) (map[string]Pause, error) { return m.all, nil }

func (m *memoryPauses) SetPause(_ context.Context, token string, p *Pause) (map[string]Pause, error) {
	m.all = WithPause(m.all, token, p)
	return m.all, nil
}
