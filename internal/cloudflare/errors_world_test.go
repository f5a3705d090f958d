package cloudflare_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// rotateIn runs one rotation of a service token, or creates one, with the real client, for which one
// operation fails.
func rotateIn(t *testing.T, trouble trouble, n int, operation string) (rotation.Record, *cfsim.Simulator, error) {
	t.Helper()
	schedule, err := scheduler.Parse("@every 24h", time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	c, simulator, id := troubled(t, trouble, n, operation)
	token := rotation.Token{
		Name: "ci", Account: "prod", ID: id, Grace: time.Hour, Timetable: scheduler.Timetable{Schedule: schedule, Key: "ci"},
		Issuer: c, Creator: c, Sinks: []rotation.Sink{&shelf{}},
	}
	if operation == "create" {
		token.ID, token.Create = "", &rotation.Creation{Name: "new"}
	}
	var passed time.Duration
	r := rotation.New(rotation.Options{
		Ledger: &book{records: map[string]rotation.Record{}}, Pending: &drawer{issued: map[string]rotation.Issued{}},
		Now: func() time.Time { return time.Now().Add(passed) },
	})
	if _, err := r.Enroll(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	passed = 25 * time.Hour
	record, err := r.Advance(t.Context(), token)
	if !record.NotBefore.IsZero() {
		record.NotBefore = record.NotBefore.Add(-passed)
	}
	return record, simulator, err
}

// book is a ledger, drawer keeps sealed answers, and shelf is a sink: in memory and without faults.
type book struct {
	mu      sync.Mutex
	records map[string]rotation.Record
}

func (b *book) Load(_ context.Context, token string) (rotation.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.records[token], nil
}

func (b *book) Save(_ context.Context, r rotation.Record) (rotation.Record, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.records[r.Token].Revision != r.Revision {
		return r, rotation.ErrConflict
	}
	r.Revision++
	b.records[r.Token] = r
	return r, nil
}

func (b *book) SaveAll(context.Context, []rotation.Record) ([]rotation.Record, error) {
	panic("one token is not many")
}

func (b *book) All(context.Context) ([]rotation.Record, error) { panic("one token is not many") }

type drawer struct{ issued map[string]rotation.Issued }

func (d *drawer) Reserve(context.Context, rotation.PendingKey) error { return nil }

func (d *drawer) Seal(_ context.Context, key rotation.PendingKey, issued rotation.Issued) error {
	d.issued[key.RotationID] = issued
	return nil
}

func (d *drawer) Open(_ context.Context, rotationID string) (rotation.Issued, bool, error) {
	issued, ok := d.issued[rotationID]
	return issued, ok, nil
}

func (d *drawer) Erase(_ context.Context, rotationID string) error {
	delete(d.issued, rotationID)
	return nil
}

type shelf struct{ stored rotation.Stored }

func (s *shelf) Name() string { return "shelf" }

func (s *shelf) Preflight(context.Context) (rotation.Stored, error) { return s.stored, nil }

func (s *shelf) Store(_ context.Context, d rotation.Delivery) (rotation.Stored, error) {
	s.stored = rotation.Stored{Exists: true, Version: s.stored.Version + 1, ClientID: d.ClientID, Digest: d.ClientSecret.Digest()}
	return s.stored, nil
}
