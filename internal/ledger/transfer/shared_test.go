package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/kvstore"
	"rotatord/internal/kvstore/kvtest"
	"rotatord/internal/ledger/transfer"
)

func TestMark(t *testing.T) {
	var server kvtest.Server
	kv := server.Client(nil)
	ctx := t.Context()
	none, err := transfer.ReadMark(ctx, kv)
	if err != nil || none.State != transfer.InUse || transfer.Usable(ctx, kv) != nil {
		t.Fatalf("without an entry: %v, %v", none, err)
	}
	exported, err := none.Replace(ctx, kv, transfer.Mark{State: transfer.Exported, At: at, By: "root"})
	if err != nil {
		t.Fatal(err)
	}
	if err := transfer.Usable(ctx, kv); err == nil || !strings.Contains(err.Error(), "exported at 2026-11-29T02:00:00Z by root. To use it again: rotatord ledger import FILE") {
		t.Errorf("exported: %v", err)
	}
	if _, err := none.Replace(ctx, kv, transfer.Mark{State: transfer.Importing}); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("a second command at the same time: %v", err)
	}
	importing, err := exported.Replace(ctx, kv, transfer.Mark{State: transfer.Importing, At: at, By: "root", File: "sum", OutOfUse: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := transfer.Usable(ctx, kv); err == nil || !strings.Contains(err.Error(), "Repeat it: rotatord ledger import FILE") {
		t.Errorf("importing: %v", err)
	}
	if read, err := transfer.ReadMark(ctx, kv); err != nil || read != importing {
		t.Errorf("%+v, %v", read, err)
	}
	if _, err := importing.Replace(ctx, kv, transfer.Mark{}); err != nil || transfer.Usable(ctx, kv) != nil {
		t.Errorf("in use again: %v, %v", err, transfer.Usable(ctx, kv))
	}
	// What cannot be read is never taken for in use.
	for _, content := range []string{`{"format":2,"state":""}`, `{"format":1,"state":"frozen"}`, `{"format":"x"}`, `{}`} {
		server.Set(transfer.MarkPath, content)
		if err := transfer.Usable(ctx, kv); err == nil {
			t.Errorf("%s is taken for in use", content)
		}
	}
	server.Delete(transfer.MarkPath)
	if err := transfer.Usable(ctx, kv); !errors.Is(err, kvstore.ErrDeleted) {
		t.Errorf("a deleted entry: %v", err)
	}
}

// entryOf is an entry as a replica publishes it.
func entryOf(name, claim string, leaving bool) map[string]any {
	return map[string]any{"format": 1, "replica": name, "claim": claim, "leaving": leaving}
}

func TestLiving(t *testing.T) {
	for name, test := range map[string]struct {
		claim string
		// beats is how often the replica writes after the first look, and every how long; late is when one that is
		// new begins.
		beats int
		every time.Duration
		want  []string
		// takes is how long it may take at least and at most.
		least, most time.Duration
	}{
		"none":            {},
		"dead":            {claim: "2m0s", least: 35 * time.Second, most: 38 * time.Second},
		"dead, short":     {claim: "6s", least: 4 * time.Second, most: 6 * time.Second},
		"living":          {claim: "2m0s", beats: 5, every: 10 * time.Second, want: []string{"a"}, least: 9 * time.Second, most: 12 * time.Second},
		"living, starved": {claim: "2m0s", beats: 1, every: 34 * time.Second, want: []string{"a"}, least: 33 * time.Second, most: 36 * time.Second},
		"unknown claim":   {claim: "soon", least: 35 * time.Second, most: 38 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var server kvtest.Server
				kv := server.Client(nil)
				put(t, kv, "stopped", 0, entryOf("stopped", "2m0s", true))
				if test.claim != "" {
					put(t, kv, "a", 0, entryOf("a", test.claim, false))
				}
				go func() {
					for i := range test.beats {
						time.Sleep(test.every)
						put(t, kv, "a", i+1, entryOf("a", test.claim, false))
					}
				}()
				began, waits := time.Now(), 0
				watch := transfer.Watch{Waits: func(names []string, longest time.Duration) {
					if waits++; !slices.Equal(names, []string{"a"}) || longest < test.least {
						t.Errorf("waits for %q, at most %s", names, longest)
					}
				}}
				got, err := watch.Living(t.Context(), kv)
				took := time.Since(began)
				if err != nil || !slices.Equal(got, test.want) || took < test.least || took > test.most {
					t.Errorf("%q, %v after %s", got, err, took)
				}
				if (waits == 1) != (test.claim != "") {
					t.Errorf("told %d times that it waits", waits)
				}
				time.Sleep(time.Minute) // the rest of the beats
				if len(test.want) > 0 {
					return
				}
				// A second look does not wait, and sees what has started since.
				began = time.Now()
				if got, err := watch.Living(t.Context(), kv); err != nil || len(got) > 0 || time.Since(began) > 0 {
					t.Errorf("a second look: %q, %v after %s", got, err, time.Since(began))
				}
				put(t, kv, "b", 0, entryOf("b", "2m0s", false))
				if got, err := watch.Living(t.Context(), kv); err != nil || !slices.Equal(got, []string{"b"}) {
					t.Errorf("one that has started: %q, %v", got, err)
				}
			})
		})
	}
}

func put(t *testing.T, kv kvstore.KV, name string, version int, data any) {
	if _, err := kv.Put(context.Background(), transfer.ReplicasDir+"/"+name, data, version); err != nil {
		t.Error(err)
	}
}

// TestLivingNew: one that starts while the dead are waited for lives.
func TestLivingNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var server kvtest.Server
		kv := server.Client(nil)
		put(t, kv, "dead", 0, entryOf("dead", "2m0s", false))
		go func() {
			time.Sleep(5 * time.Second)
			put(t, kv, "new", 0, entryOf("new", "2m0s", false))
		}()
		got, err := new(transfer.Watch).Living(t.Context(), kv)
		if err != nil || !slices.Equal(got, []string{"new"}) {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// TestLivingDeleted: an entry that a person has deleted does not hide a living replica, and does not keep a ledger
// from being moved.
func TestLivingDeleted(t *testing.T) {
	for _, lives := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var server kvtest.Server
			kv := server.Client(nil)
			put(t, kv, "a", 0, entryOf("a", "2m0s", false))
			server.Delete(transfer.ReplicasDir + "/a")
			if lives {
				go func() {
					time.Sleep(10 * time.Second)
					put(t, kv, "a", 1, entryOf("a", "2m0s", false))
				}()
			}
			got, err := new(transfer.Watch).Living(t.Context(), kv)
			if err != nil || (len(got) > 0) != lives {
				t.Errorf("lives: %t: %q, %v", lives, got, err)
			}
		})
	}
}

func TestLivingErrors(t *testing.T) {
	var server kvtest.Server
	kv := server.Client(nil)
	put(t, kv, "a", 0, entryOf("a", "2m0s", false))
	for operation := range map[string]bool{"list": true, "get": true} {
		kv.Break(func(op, _ string) kvtest.Fault {
			if op == operation {
				return kvtest.Fault{Before: fmt.Errorf("no %s", op)}
			}
			return kvtest.Fault{}
		})
		if got, err := new(transfer.Watch).Living(t.Context(), kv); err == nil {
			t.Errorf("%s fails, and it says %q", operation, got)
		}
	}
	kv.Break(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(transfer.Watch).Living(ctx, kv); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
