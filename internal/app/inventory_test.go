package app

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
)

// TestIncompleteListing: what it does not have is not gone, and what it has is recorded. If one of our
// entries cannot be read, the service token exists, and what was known about it stays.
func TestIncompleteListing(t *testing.T) {
	j := openTestState(t)
	schedule := parsed("@every 1h", "UTC")
	token := rotation.Token{Name: "ci", Account: "prod", ID: "a", Issuer: goneIssuer{}, Timetable: scheduler.Timetable{Schedule: schedule}}
	entry := config.Token{Name: "ci", Account: "prod", ID: "a", Schedule: schedule}
	var log strings.Builder
	a := &App{state: j, log: slog.New(slog.NewTextHandler(&log, nil)), options: Options{Now: time.Now}, now: time.Now, config: &config.Config{Tokens: []config.Token{entry}}}
	a.events = event.NewStream(time.Now, nil, event.NewLog(a.log))
	a.engine = newEngine(time.Now, a.log, a.events)
	a.engine.rotator = rotation.New(rotation.Options{Ledger: j.ledger, Pending: j.pending, Started: time.Now()})
	if err := a.engine.enroll(t.Context(), []rotation.Token{token}); err != nil {
		t.Fatal(err)
	}
	known := rotation.TokenFacts{ID: "a", ClientID: "a.access", Name: "ci", Enabled: true, ExpiresAt: time.Now().Add(8760 * time.Hour).UTC().Truncate(time.Second)}
	record := func(seen cloudflare.Listing, whole bool) (gone bool, facts rotation.TokenFacts) {
		a.recordListing(t.Context(), "prod", listing{seen, whole, time.Now()})
		record, err := j.ledger.Load(t.Context(), "ci")
		if err != nil {
			t.Fatal(err)
		}
		s, _ := a.engine.view("ci")
		return s.gone, record.Facts
	}
	there := cloudflare.Listing{Tokens: []rotation.TokenFacts{known}}
	if gone, facts := record(there, false); gone || facts != known {
		t.Errorf("what a part of a listing has is not learned: gone %t, %+v", gone, facts)
	}
	if gone, _ := record(cloudflare.Listing{}, false); gone {
		t.Error("a listing that is not whole has it gone")
	}
	log.Reset()
	odd := cloudflare.Listing{Odd: map[string]string{"a": "expires_at is not a time"}}
	if gone, facts := record(odd, true); gone || facts != known || !strings.Contains(log.String(), "expires_at is not a time") {
		t.Errorf("an entry that cannot be read: gone %t, %+v, %s", gone, facts, log.String())
	}
	if gone, _ := record(cloudflare.Listing{}, true); !gone {
		t.Error("that it is gone is not noticed")
	}
	if gone, _ := record(cloudflare.Listing{}, false); !gone {
		t.Error("a listing that is not whole ends the alarm")
	}
	if gone, _ := record(there, false); gone {
		t.Error("the alarm stays although it is there")
	}
}
