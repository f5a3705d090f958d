package app

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
	"rotatord/internal/packed"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/sink"
	"rotatord/internal/status"
)

// healthyFleet is a daemon with n tokens that are all right.
func healthyFleet(t *testing.T, n int) *App {
	t.Helper()
	schedule, err := scheduler.Parse("@weekly", nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &App{config: &config.Config{WatchEvery: time.Hour}, now: time.Now, log: slog.New(slog.DiscardHandler)}
	a.engine = newEngine(time.Now, a.log, nil)
	a.engine.rotator = rotation.New(rotation.Options{Owner: "test", Started: time.Now()})
	for i := range n {
		name := fmt.Sprintf("token-%05d", i)
		kept := &config.VaultSink{Mount: "secret", Path: "access/" + name}
		a.config.Tokens = append(a.config.Tokens, config.Token{Name: name, Account: "prod", ID: name, Schedule: schedule, Sinks: []config.Sink{kept}})
		a.engine.tokens[name] = keep(scheduled{
			token: rotation.Token{Name: name, Account: "prod", ID: name, RenewBefore: time.Hour, Sinks: []rotation.Sink{sink.NewVault(nil, *kept)}},
			record: rotation.Record{Token: name, TokenID: name, Last: &rotation.Done{At: time.Now(), GraceEndsAt: time.Now().Add(time.Hour)},
				Facts: rotation.TokenFacts{ID: name, ClientID: name + ".access", Enabled: true, ExpiresAt: time.Now().Add(1000 * time.Hour)}},
			due: rotation.Due{At: time.Now().Add(time.Hour)},
		})
	}
	return a
}

// TestStatesAreCheap: what the metrics read of a token that is all right allocates its last rotation, and nothing else.
func TestStatesAreCheap(t *testing.T) {
	if racedetector.On {
		t.Skip("the race detector has pools lose some of what they are given")
	}
	var allocated [2]float64
	for i, n := range []int{100, 400} {
		a := healthyFleet(t, n)
		allocated[i] = testing.AllocsPerRun(20, func() {
			for range a.States() {
			}
		})
	}
	if allocated[1] > allocated[0]+300+20 {
		t.Errorf("%.0f allocations for 100 tokens, %.0f for 400", allocated[0], allocated[1])
	}
}

// TestStatesAreTheTokens: the metrics show what the pages show, but for texts.
func TestStatesAreTheTokens(t *testing.T) {
	a := healthyFleet(t, 3)
	failing := a.engine.tokens["token-00001"]
	record := failing.record.Get()
	record.Failures, record.LastCause = 2, "sealed"
	failing.record = packed.Of(record)
	a.engine.tokens["token-00002"].gone = true
	var got, want []status.Token
	for s := range a.States() {
		got = append(got, *s)
	}
	for _, s := range a.Tokens() {
		if len(s.Sinks) == 0 || len(s.Mounts) == 0 {
			t.Errorf("%s has no sinks: this test shows nothing", s.Name)
		}
		s.Sinks, s.Mounts, s.Troubles, s.ToDo, s.AccountError, s.WaitsFor, s.WaitsUntil = nil, nil, nil, nil, "", "", time.Time{}
		s.Renews, s.RenewalError = time.Time{}, ""
		want = append(want, s)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-tokens +states):\n%s", diff)
	}
}

// TestMendTheSinkThatFailed: what to type is about the sink that failed, and not about one that only the text names.
func TestMendTheSinkThatFailed(t *testing.T) {
	a := healthyFleet(t, 1)
	sinks := []config.Sink{&config.VaultSink{Mount: "secret", Path: "a"}, &config.FileSink{Path: "/run/ci/cf.env"}}
	a.config.Tokens[0].Sinks = sinks
	token := a.engine.tokens["token-00000"]
	for _, test := range []struct{ failed, want string }{
		{"vault:secret/a", "vault:secret"},
		{"file:/run/ci/cf.env", "file:/run/ci"},
		{"file:/run/gone/cf.env", ""}, // it is not configured any more
		{"", ""},
	} {
		record := token.record.Get()
		record.Failures, record.LastCause, record.LastSink = 2, "no_permission", test.failed
		record.LastError = "sink " + test.failed + ": refused: sink vault:secret/a: sink file:/run/ci/cf.env:"
		token.record = packed.Of(record)
		var want []status.ToDo
		if test.want != "" {
			c := status.Check{Name: status.CheckSink, Subject: test.want, Reason: record.LastCause}
			c.Place = placeOf(c, a.config)
			want = status.StepsOf(c)
		}
		s := a.token("token-00000")
		if got := a.mendLast(s, scheduled{record: record}); !slices.Equal(got, want) || len(want) > 0 && !slices.Contains(s.ToDo, want[0]) {
			t.Errorf("of %q: %+v; want %+v", test.failed, got, want)
		}
	}
}
