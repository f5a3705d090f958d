// Package bench measures what a user would ask about: how long a rotation takes beyond
// Cloudflare and Vault, what a token costs in the queue, how fast the ledger is.
package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"rotatord/internal/cloudflare"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/statedir"
	"rotatord/internal/vault"
	"rotatord/internal/vault/vaulttest"
)

func secretFile(b *testing.B, content string) config.SecretSource {
	b.Helper()
	path := filepath.Join(b.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		b.Fatal(err)
	}
	return config.SecretSource{File: path}
}

// BenchmarkRotation is one whole rotation, over HTTP on loopback, with the simulator and
// the KV double: what is left is rotatord's own work, its fsyncs above all.
func BenchmarkRotation(b *testing.B) {
	simulator := cfsim.New(cfsim.Options{SeedTokens: 1, RateLimit: -1})
	api := httptest.NewServer(simulator)
	defer api.Close()
	kv := httptest.NewServer(vaulttest.New(vaulttest.Options{RootToken: "root", Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}}}))
	defer kv.Close()
	source := secretFile(b, "root")
	session, err := vault.New(config.Vault{Address: kv.URL, Timeout: time.Minute, Auth: &config.TokenAuth{Source: source}}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	go session.Run(ctx)
	j, err := statedir.Open(statedir.Options{Dir: filepath.Join(b.TempDir(), "state")})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	schedule, err := scheduler.Parse("@every 1s", nil)
	if err != nil {
		b.Fatal(err)
	}
	// A clock that runs ahead makes a slot due each time.
	now := time.Now()
	rotator := rotation.New(rotation.Options{Ledger: j.Ledger, Pending: j.Pending, Owner: "bench", Now: func() time.Time { return now }})
	token := rotation.Token{
		Name: "ci", Account: "prod", ID: cfsim.SeedTokenID(1),
		Timetable: scheduler.Timetable{Schedule: schedule, Key: "ci"},
		Issuer: cloudflare.New(config.Account{Name: "prod", AccountID: cfsim.DefaultAccountID, APIToken: secretFile(b, "any"),
			BaseURL: api.URL + cfsim.BasePath, RequestsPer5m: 1 << 40}, cloudflare.Options{}),
		Sinks: []rotation.Sink{sink.NewVault(session, config.VaultSink{Mount: "secret", Path: "ci", SinkFields: config.SinkFields{ClientIDField: "id", ClientSecretField: "secret"}})},
	}
	if _, err := rotator.Enroll(ctx, token); err != nil {
		b.Fatal(err)
	}
	n := 0
	for b.Loop() {
		now = now.Add(2 * time.Second)
		if _, err := rotator.Advance(ctx, token); err != nil {
			b.Fatal(err)
		}
		n++
	}
	if got := simulator.Stats().Rotations[token.ID]; got != n {
		b.Fatalf("%d rotations in %d iterations", got, n)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "rotations/s")
}

// BenchmarkReserve is what a rotation does before it asks for a secret: a file for the answer,
// written in full, and made durable with its name.
func BenchmarkReserve(b *testing.B) {
	sealing(b, func(j *statedir.Dir, key rotation.PendingKey) error { return j.Pending.Reserve(b.Context(), key) }, nil)
}

// BenchmarkSeal is the commit point alone: encryption and two durable writes in place.
func BenchmarkSeal(b *testing.B) {
	issued := rotation.Issued{Credential: rotation.Credential{ClientID: "id", ClientSecret: secret.New("cfast_0123")}}
	sealing(b, func(j *statedir.Dir, key rotation.PendingKey) error { return j.Pending.Seal(b.Context(), key, issued) },
		func(j *statedir.Dir, key rotation.PendingKey) error { return j.Pending.Reserve(b.Context(), key) })
}

// sealing measures what is done for each rotation, without what is done before it and after.
func sealing(b *testing.B, do, before func(*statedir.Dir, rotation.PendingKey) error) {
	j, err := statedir.Open(statedir.Options{Dir: filepath.Join(b.TempDir(), "state")})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	for b.Loop() {
		key := rotation.PendingKey{RotationID: rand.Text(), Token: "ci"}
		b.StopTimer()
		if before != nil {
			if err := before(j, key); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if err := do(j, key); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := j.Pending.Erase(b.Context(), key.RotationID); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// BenchmarkRecover opens the ledger of n tokens and computes when each is due.
func BenchmarkRecover(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint("tokens=", n), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "state")
			j, err := statedir.Open(statedir.Options{Dir: dir})
			if err != nil {
				b.Fatal(err)
			}
			schedule, err := scheduler.Parse("0 4 * * 1", nil)
			if err != nil {
				b.Fatal(err)
			}
			token := rotation.Token{Timetable: scheduler.Timetable{Schedule: schedule, Jitter: time.Hour, Key: "x"}}
			for i := range n {
				r := rotation.Record{Token: fmt.Sprint("token-", i), Anchor: time.Now(), Facts: rotation.TokenFacts{ID: "uuid"}}
				if _, err := j.Ledger.Save(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
			_ = j.Close()
			for b.Loop() {
				j, err := statedir.Open(statedir.Options{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				all, err := j.Ledger.All(b.Context())
				if err != nil || len(all) != n {
					b.Fatal(len(all), err)
				}
				for _, r := range all {
					fmt.Fprint(io.Discard, rotation.NextDue(token, r, rotation.Pause{}).At)
				}
				_ = j.Close()
			}
		})
	}
}

// BenchmarkQueue sets and fires n keys.
func BenchmarkQueue(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint("keys=", n), func(b *testing.B) {
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprint("token-", i)
			}
			for b.Loop() {
				q := scheduler.NewQueue(nil)
				start := time.Now().Add(-time.Hour)
				for i, k := range keys {
					q.Set(k, start.Add(time.Duration(i*7919%n)*time.Millisecond))
				}
				ctx, cancel := context.WithCancel(context.Background())
				fired := 0
				q.Run(ctx, func(string, time.Time) {
					if fired++; fired == n {
						cancel()
					}
				}, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/key")
		})
	}
}
