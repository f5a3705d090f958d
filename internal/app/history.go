package app

import (
	"context"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/event"
	"rotatord/internal/httpapi"
	"rotatord/internal/status"
)

// This file is the record of events in the daemon.

// openRecord opens the record of events.
func (a *App) openRecord() (err error) {
	c := a.config.Audit
	a.record, err = audit.Open(audit.Options{File: c.File, MaxSize: c.MaxSize, MaxAge: c.MaxAge, Keep: c.Keep, Now: a.now})
	if err != nil {
		return err
	}
	a.onStop("record of events", func(context.Context) error {
		err := a.record.Close()
		a.tellNotices() // else a damage that was found just now would be in no log
		a.tellHead()    // of the last line
		return err
	})
	return nil
}

// How often the record is asked for news, and how often its head goes into the log while it grows.
const (
	recordEvery = time.Second
	headEvery   = time.Hour
)

// tellOfRecord tells what happens to the record itself, and carries its head into the log.
func (a *App) tellOfRecord(ctx context.Context) {
	ticker := time.NewTicker(recordEvery)
	defer ticker.Stop()
	told, last := time.Time{}, audit.Head{}
	for {
		turned := a.tellNotices()
		if now, head := time.Now(), a.record.Head(); head != last && (turned || now.Sub(told) >= headEvery) {
			a.tellHead()
			told, last = now, head
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// tellNotices tells what the record has to tell of itself. It reports whether a new file was begun.
func (a *App) tellNotices() (turned bool) {
	for _, d := range a.record.Notices() {
		a.tell("", d)
		switch d := d.(type) {
		case event.AuditFile:
			turned = true
		case event.AuditChain:
			a.damaged.Store(&recordDamage{d.Damage + ". A new chain has begun", a.now()})
		case event.AuditTouched:
			what := d.What + ". The chain goes on"
			if d.Kept != "" {
				what += ". They are kept in " + d.Kept
			}
			a.damaged.CompareAndSwap(nil, &recordDamage{what, a.now()}) // a chain that has ended is worse
		}
	}
	return turned
}

// recordDamage is what was wrong with the record when it was found damaged.
type recordDamage struct {
	what  string
	since time.Time
}

// recordDamage returns what was wrong with the record when it was found damaged since the start, and when that was;
// empty if it was not.
func (a *App) recordDamage() (string, time.Time) {
	d := a.damaged.Load()
	if d == nil {
		return "", time.Time{}
	}
	return d.what + ". Find out who or what did it: rotatord audit verify. This line ends with a restart", d.since
}

// tellHead writes the head of the record into the log, from where other machines may have it.
func (a *App) tellHead() {
	if head := a.record.Head(); !head.IsZero() {
		a.tell("", event.AuditHeadSeen{File: a.record.Path(), Head: head.String()})
	}
}

// recordState returns what metrics show of the record.
func (a *App) recordState() httpapi.RecordState {
	s := a.record.Stats()
	return httpapi.RecordState{Seq: s.Seq, Lost: s.Lost}
}

// History implements [httpapi.Source] and [admin.Daemon]: lines of the record of events, and whose record that is. While
// the disk does not answer, nothing is read.
func (a *App) History(ctx context.Context, q status.HistoryQuery) (status.History, error) {
	if err := a.record.Hung(); err != nil {
		return status.History{}, err
	}
	h, err := a.record.History(ctx, q)
	if a.sharing != nil {
		view := a.sharing.room.View()
		h.Replica = view.Name
		for _, r := range view.Replicas {
			if r.Name != view.Name {
				h.Others = append(h.Others, r.Name)
			}
		}
	}
	return h, err
}
