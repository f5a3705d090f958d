package app

import (
	"context"
	"time"

	"rotatord/internal/moment"
	"rotatord/internal/rotation"
	"rotatord/internal/status"
)

// This file connects the App with the other replicas: who lives, who comes first, and what is shown of them.

// room is what the App needs of package replica.
type room interface {
	// Run writes this replica's entry and reads those of the others until ctx ends.
	Run(ctx context.Context)
	// Leave tells the others that this replica stops, and waits for that within ctx.
	Leave(ctx context.Context) error
	// Nudge tells the others within a second what has changed about this replica itself.
	Nudge()
	// Notice tells the others within a second that an entry below the prefix has changed.
	Notice(name string)
	// Wait, MayBegin: see [peers].
	Wait(name string, r rotation.Record) time.Duration
	MayBegin() error
	// First returns the replica that comes first for a token; empty if none may begin.
	First(name string, r rotation.Record) string
	// Owns: see [peers].
	Owns(r rotation.Record) bool
	// Share returns how many replicas share a request budget, this one included; at least 1.
	Share() int
	// View returns what is known of the replicas.
	View() status.Replicas
}

// roomPeers answers the engine's questions. The room knows who comes first, and the rotator who may work.
type roomPeers struct {
	room
	engine *engine
}

// HeldFor implements [peers].
func (p roomPeers) HeldFor(r rotation.Record) time.Duration { return p.engine.rotator.HeldFor(r) }

// startSharing starts to work beside other replicas.
func (a *App) startSharing() {
	s := a.sharing
	if s == nil {
		return
	}
	a.background("replicas", s.room.Run)
	a.onStop("last changes", s.leave) // those of the rotations that were in progress
	a.background("late answers", s.lateAnswers)
	a.background("shared ledger", s.join)
}

// leave tells the other replicas that this one stops, so that they do at once what this one does not begin any more.
func (s *sharing) leave(bound context.Context) error {
	s.stopBeginning()
	ctx, cancel := context.WithTimeout(bound, leaveTime)
	defer cancel()
	if err := s.room.Leave(ctx); err != nil {
		s.app.log.Warn("the other replicas could not be told that this one stops; they find out by themselves", "replica", s.replica.Name, "error", err)
	}
	return nil
}

// leaveTime bounds how long a stop waits for that.
const leaveTime = 5 * time.Second

// livingChanged plans all tokens again, because another replica may come first for them now, and shares the request
// budgets again.
func (s *sharing) livingChanged() {
	s.app.budgets.Share(s.room.Share())
	signal(s.wake)
	if s.isJoined() {
		s.app.engine.replan(rotation.AllTokens)
	}
}

// mayAct returns why an operator's command cannot be carried out by this replica now; nil if it can.
func (a *App) mayAct() error {
	if err := a.sharing.errNotJoined(); err != nil {
		return err
	}
	return a.engine.mayBegin()
}

// synced returns when this replica last knew all that the others had saved, given when it has last heard of
// all others; zero if it never did. s.mu must be held.
func (s *sharing) synced(heard time.Time) time.Time {
	switch {
	case s.joinedAt.IsZero():
		return time.Time{}
	case heard.Before(s.joinedAt): // it had to hear of them to join
		heard = s.joinedAt
	}
	return moment.MinNonZero(heard, s.unread)
}

// Replicas returns the replicas that share the ledger; nil if this daemon is alone. It answers from memory.
func (a *App) Replicas() *status.Replicas {
	s := a.sharing
	if s == nil {
		return nil
	}
	view := s.room.View()
	view.Ledger = s.where
	view.ClaimSeconds = s.replica.Claim.Seconds()
	s.mu.Lock()
	if s.err != nil {
		view.LedgerError = s.err.Error()
	}
	view.SyncedAt = s.synced(view.SyncedAt)
	s.mu.Unlock()
	if err := s.room.MayBegin(); err != nil {
		view.StandsAside = err.Error()
	}
	a.countTokens(&view)
	return &view
}
