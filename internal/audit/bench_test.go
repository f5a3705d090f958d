package audit_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"rotatord/internal/audit"
	"rotatord/internal/event"
	"rotatord/internal/status"
)

// BenchmarkGate measures what the line before a request costs, for one rotation at a time and for many at once, and how
// many fsyncs each one needs.
func BenchmarkGate(b *testing.B) {
	for _, at := range []int{1, 8, 50} {
		b.Run(fmt.Sprintf("%d at once", at), func(b *testing.B) {
			r := open(b, audit.Options{File: filepath.Join(b.TempDir(), "audit", "audit.jsonl")})
			var n atomic.Int64
			before := r.Stats().Syncs
			b.SetParallelism(at)
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					e := leaving(int(n.Add(1)))
					e.Token = fmt.Sprint("token-", n.Add(1))
					release, err := r.Reserve(context.Background(), e.Token)
					if err == nil {
						err = r.Record(context.Background(), e)
					}
					if err != nil {
						b.Error(err)
						return
					}
					release()
				}
			})
			b.ReportMetric(float64(r.Stats().Syncs-before)/float64(b.N), "fsyncs/op")
		})
	}
}

// BenchmarkLine measures an event that nothing waits for.
func BenchmarkLine(b *testing.B) {
	r := open(b, audit.Options{File: filepath.Join(b.TempDir(), "audit", "audit.jsonl")})
	s := r.Subscriber()
	e := event.New(now, "ci", event.Daemon, event.SinkWrite{Sink: "vault:secret/access/ci"})
	for b.Loop() {
		s.Handle(e)
	}
	b.ReportMetric(float64(r.Stats().Lost), "lost")
}

// BenchmarkRead measures verifying and reading a full file of 64 MiB, of 10,000 tokens.
func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "audit", "audit.jsonl")
	r := open(b, audit.Options{File: path})
	s := r.Subscriber()
	for n := 0; ; n++ {
		e := leaving(n)
		e.Token = fmt.Sprintf("token-%05d", n%10_000)
		s.Handle(event.New(e.At, e.Token, e.By, event.RotationEnded{RotationID: fmt.Sprint("R", n), Trigger: "schedule", Result: event.ResultSuccess, Slot: now, Digest: "sha256:3ZDk9Vm7mdZitaSULbYNzgu4xxMcA5ZCoN-lmhhI2l8", GraceEndsAt: e.At}))
		if n%1000 == 0 {
			if err := r.Sync(); err != nil {
				b.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Size() > 64<<20 {
				break
			}
		}
	}
	for name, do := range map[string]func() error{
		"verify": func() error { _, err := audit.Verify(b.Context(), audit.VerifyOptions{File: path}); return err },
		"history of all": func() error {
			_, err := audit.ReadHistory(b.Context(), path, status.HistoryQuery{})
			return err
		},
		"history of a token": func() error {
			_, err := audit.ReadHistory(b.Context(), path, status.HistoryQuery{Token: "token-00007"})
			return err
		},
		"start": func() error {
			_ = r.Close()
			var err error
			r, err = audit.Open(audit.Options{File: path})
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
