package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/ledger/shared"
	"rotatord/internal/ledger/transfer"
	"rotatord/internal/rotation"
)

// sharedAt is a shared ledger in memory, as a command has it.
func sharedAt(server *kvtest.Server, fault func(operation, path string) kvtest.Fault) sharedPlace {
	kv := server.Client(fault)
	c := &config.Shared{Mount: "secret", Prefix: "rotatord", Claim: 2 * time.Minute}
	return newSharedPlace(&sharedLedger{store: kv, ledger: wholeLedger{shared.Open(shared.Options{KV: kv})}, config: c}, io.Discard)
}

// moving is what the tests move.
func moving(names ...string) incoming {
	var all []rotation.Record
	for _, name := range names {
		all = append(all, rotation.Record{Format: rotation.RecordFormat, Token: name, Abandoned: []string{"R-" + name}, Last: &rotation.Done{RotationID: "L-" + name}})
	}
	at := time.Date(2026, 11, 29, 2, 0, 0, 0, time.UTC)
	return incoming{Content: transfer.Of("a local ledger", "1", at, all, map[string]rotation.Pause{rotation.AllTokens: {Since: at}}), file: "the file"}
}

// failing fails the n-th request of all, counted from 1, before or after it is carried out.
type failing struct {
	n, seen int
	after   bool
	failed  string
}

func (f *failing) fault(operation, path string) kvtest.Fault {
	if f.seen++; f.seen != f.n {
		return kvtest.Fault{}
	}
	f.failed = operation + " " + path
	if f.after {
		return kvtest.Fault{After: kvtest.ErrLost}
	}
	return kvtest.Fault{Before: kvtest.ErrLost}
}

// TestSharedImportInterrupted fails an import at each request to Vault, in both ways. Until it was repeated, either
// nothing has changed, or no replica starts; then all is there.
func TestSharedImportInterrupted(t *testing.T) {
	in := moving("a", "b", "ci")
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			var server kvtest.Server
			f := &failing{n: n, after: after}
			err := importLedger(t.Context(), io.Discard, sharedAt(&server, f.fault), in)
			place := sharedAt(&server, nil)
			if err == nil && f.failed == "" {
				if n < 10 {
					t.Errorf("only %d requests", n)
				}
				break
			}
			records, loadErr := place.ledger.All(t.Context())
			if loadErr != nil {
				t.Fatal(loadErr)
			}
			usable := transfer.Usable(t.Context(), place.store)
			if err != nil && usable == nil && len(records) != 0 && len(records) != len(in.Records) {
				t.Errorf("%s fails (carried out: %t): %d records, and replicas may start: %v", f.failed, after, len(records), err)
			}
			if err == nil && usable != nil {
				t.Errorf("%s fails (carried out: %t): the import says that all is well, and: %v", f.failed, after, usable)
			}
			if err := importLedger(t.Context(), io.Discard, place, in); err != nil {
				t.Errorf("%s fails (carried out: %t): repeated: %v", f.failed, after, err)
			}
			if err := transfer.Usable(t.Context(), place.store); err != nil {
				t.Errorf("%s fails (carried out: %t): in the end: %v", f.failed, after, err)
			}
			if records, err := place.ledger.All(t.Context()); err != nil || len(records) != 3 {
				t.Errorf("%s fails (carried out: %t): in the end %d records, %v", f.failed, after, len(records), err)
			}
		}
	}
}

// TestSharedExportInterrupted fails an export at each request to Vault, in both ways: the ledger is in use again, or
// the message says how to put it into use.
func TestSharedExportInterrupted(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			var server kvtest.Server
			if err := importLedger(t.Context(), io.Discard, sharedAt(&server, nil), moving("a", "b")); err != nil {
				t.Fatal(err)
			}
			f := &failing{n: n, after: after}
			err := exportLedger(t.Context(), io.Discard, sharedAt(&server, f.fault), filepath.Join(t.TempDir(), "out.jsonl"))
			if f.failed == "" {
				break
			}
			usable := transfer.Usable(t.Context(), server.Client(nil))
			if (err == nil) != (usable != nil) && !(err != nil && strings.Contains(err.Error(), "vault kv metadata delete -mount=secret rotatord/moved")) {
				t.Errorf("%s fails (carried out: %t): the export says %v, and a replica is told %v", f.failed, after, err, usable)
			}
			place := sharedAt(&server, nil)
			if err := exportLedger(t.Context(), io.Discard, place, filepath.Join(t.TempDir(), "again.jsonl")); err != nil {
				t.Errorf("%s fails (carried out: %t): repeated: %v", f.failed, after, err)
			}
		}
	}
}

// TestSharedRefusals: what is refused leaves the ledger as it was.
func TestSharedRefusals(t *testing.T) {
	busy := rotation.Record{Format: rotation.RecordFormat, Token: "grid", Step: rotation.StepSealed, Work: &rotation.Work{RotationID: "R"}}
	for name, test := range map[string]struct {
		prepare func(t *testing.T, place sharedPlace)
		in      incoming
		want    string
		export  bool
	}{
		"export while a rotation is in progress":          {func(t *testing.T, p sharedPlace) { save(t, p, busy) }, incoming{}, "grid: sealed: start the daemon", true},
		"import into one that has a rotation in progress": {func(t *testing.T, p sharedPlace) { save(t, p, busy) }, moving("a"), "grid: sealed: start the daemon", false},
		"import over other records":                       {func(t *testing.T, p sharedPlace) { save(t, p, rotation.Record{Format: 3, Token: "a", Failures: 1}) }, moving("a"), "holds other records of a", false},
	} {
		t.Run(name, func(t *testing.T) {
			var server kvtest.Server
			place := sharedAt(&server, nil)
			test.prepare(t, place)
			before, err := place.ledger.All(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if test.export {
				err = exportLedger(t.Context(), io.Discard, place, filepath.Join(t.TempDir(), "out.jsonl"))
			} else {
				err = importLedger(t.Context(), io.Discard, place, test.in)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v\nwant: %s", err, test.want)
			}
			after, loadErr := place.ledger.All(t.Context())
			if diff := cmp.Diff(before, after); loadErr != nil || diff != "" {
				t.Errorf("it has changed: %v\n%s", loadErr, diff)
			}
			if err := transfer.Usable(t.Context(), place.store); err != nil {
				t.Errorf("it is out of use: %v", err)
			}
		})
	}
}

func save(t *testing.T, p sharedPlace, r rotation.Record) {
	t.Helper()
	if _, err := p.ledger.Save(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// TestSharedBesideReplicas: nothing moves while a replica lives, also one that starts in the middle; one that is dead
// is waited for.
func TestSharedBesideReplicas(t *testing.T) {
	for name, test := range map[string]struct {
		// starts is when the replica begins to write, and stops when it ends without a word.
		starts, stops time.Duration
		refused       bool
	}{
		"living":               {stops: time.Hour, refused: true},
		"died before":          {stops: 5 * time.Second},
		"starts in the middle": {starts: 40 * time.Second, stops: time.Hour, refused: true},
	} {
		for _, export := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, export: %t", name, export), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var server kvtest.Server
					if test.starts > 0 {
						heartbeat(t, &server, "dead", 0, time.Second) // so that there is something to wait for
					}
					go heartbeat(t, &server, "a", test.starts, test.stops)
					time.Sleep(6 * time.Second)
					place := sharedAt(&server, slow)
					var err error
					if export {
						err = exportLedger(t.Context(), io.Discard, place, filepath.Join(t.TempDir(), "out.jsonl"))
					} else {
						err = importLedger(t.Context(), io.Discard, place, moving("ci"))
					}
					if (err != nil) != test.refused || err != nil && !strings.Contains(err.Error(), "living replica(s): a: stop all of them first") {
						t.Errorf("%v", err)
					}
					usable := transfer.Usable(t.Context(), server.Client(nil))
					if refusedOrImported := test.refused || !export; (usable == nil) != refusedOrImported {
						t.Errorf("afterwards: %v", usable)
					}
					time.Sleep(2 * time.Hour) // the heartbeats end
				})
			})
		}
	}
}

// slow makes the mark take its time, so that a replica can start beside it.
func slow(operation, path string) kvtest.Fault {
	if operation == "put" && path == transfer.MarkPath {
		return kvtest.Fault{Delay: 5 * time.Second}
	}
	return kvtest.Fault{}
}

// heartbeat writes the entry of a replica every ten seconds of that time.
func heartbeat(t *testing.T, server *kvtest.Server, name string, from, until time.Duration) {
	kv := server.Client(nil)
	time.Sleep(from)
	for version, passed := 0, from; passed < until; version, passed = version+1, passed+10*time.Second {
		if _, err := kv.Put(context.Background(), transfer.ReplicasDir+"/"+name, map[string]any{"replica": name, "claim": "2m0s", "seq": version}, version); err != nil {
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			return
		}
		time.Sleep(10 * time.Second)
	}
}
