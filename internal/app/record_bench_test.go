package app

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// instant is a Cloudflare and a sink that answer at once, so that a benchmark sees what the disk costs.
type instant struct {
	id   string
	n    atomic.Int64
	mu   sync.Mutex
	held rotation.Stored
}

func (i *instant) facts() rotation.TokenFacts {
	return rotation.TokenFacts{ID: i.id, ClientID: i.id + ".access", Enabled: true, UpdatedAt: time.Now().UTC()}
}
func (i *instant) Ready(context.Context) error { return nil }
func (i *instant) Inspect(context.Context, string) (rotation.TokenFacts, error) {
	return i.facts(), nil
}
func (i *instant) Rotate(_ context.Context, r rotation.RotateRequest) (rotation.Issued, error) {
	value := secret.New(fmt.Sprintf("cfast_%040d%08d", i.n.Add(1), 0))
	return rotation.Issued{Credential: rotation.Credential{ClientID: i.id + ".access", ClientSecret: value}, Facts: i.facts(), GraceEndsAt: time.Now().Add(r.Grace)}, nil
}
func (i *instant) SetGrace(context.Context, string, time.Duration) (rotation.TokenFacts, time.Time, error) {
	return i.facts(), time.Now(), nil
}
func (i *instant) Name() string { return "instant:" + i.id }
func (i *instant) Preflight(context.Context) (rotation.Stored, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.held, nil
}
func (i *instant) Store(_ context.Context, d rotation.Delivery) (rotation.Stored, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.held = rotation.Stored{Exists: true, Version: i.held.Version + 1, ClientID: d.ClientID, Digest: d.ClientSecret.Digest()}
	return i.held, nil
}

// BenchmarkRecord measures whole rotations on a real disk, with and without the record of events. Cloudflare and the sink
// answer at once.
func BenchmarkRecord(b *testing.B) {
	for _, workers := range []int{1, 16} {
		for _, with := range []bool{false, true} {
			b.Run(fmt.Sprintf("%d at once, record %t", workers, with), func(b *testing.B) {
				dir := filepath.Join(b.TempDir(), "state")
				s, err := openState(config.State{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				defer s.close()
				o := rotation.Options{Ledger: s.ledger, Pending: s.pending, Pauses: s.ledger, Owner: "bench", Started: time.Now()}
				var record *audit.Recorder
				if with {
					if record, err = audit.Open(audit.Options{File: filepath.Join(dir, "audit", "audit.jsonl")}); err != nil {
						b.Fatal(err)
					}
					defer record.Close()
					o.Record = record
					o.Events = event.NewStream(time.Now, nil, record.Subscriber().Queued(logPatience, record.Dropped))
				}
				r := rotation.New(o)
				schedule, err := scheduler.Parse("@every 720h", nil)
				if err != nil {
					b.Fatal(err)
				}
				work := make(chan struct{})
				var all sync.WaitGroup
				for w := range workers {
					name := fmt.Sprint("token-", w)
					i := &instant{id: fmt.Sprintf("5eed0000-0000-4000-8000-%012d", w)}
					token := rotation.Token{Name: name, Account: "prod", ID: i.id, Issuer: i, Sinks: []rotation.Sink{i}, Timetable: scheduler.Timetable{Schedule: schedule, Key: name}}
					if _, err := r.Enroll(b.Context(), token); err != nil {
						b.Fatal(err)
					}
					all.Go(func() {
						for range work {
							if _, err := r.RotateNow(b.Context(), token, rotation.Overrides{Grace: true}, "bench"); err != nil {
								b.Error(err)
							}
						}
					})
				}
				b.ResetTimer()
				for range b.N {
					work <- struct{}{}
				}
				close(work)
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rotations/s")
				if record != nil {
					b.ReportMetric(float64(record.Stats().Syncs)/float64(b.N), "fsyncs/op")
				}
			})
		}
	}
}
