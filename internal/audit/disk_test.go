//go:build linux

package audit_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rotatord/internal/audit"
	"rotatord/internal/durable/disktest"
	"rotatord/internal/event"
	"rotatord/internal/status"
)

// onDisks runs a test on each kind of disk.
func onDisks(t *testing.T, test func(t *testing.T, d *disktest.Disk, path string)) {
	for kind, kib := range map[string]int{disktest.Tmpfs: 2 << 10, disktest.Ext4: 6 << 10} {
		t.Run(kind, func(t *testing.T) {
			d := disktest.New(t, kind, kib)
			test(t, d, filepath.Join(d.Dir, "audit", "audit.jsonl"))
		})
	}
}

// TestFullDisk: on a full disk no further request gets room. Those that have room record what comes after the request
// to its end, and all others' events are counted, and named by number once there is room again.
func TestFullDisk(t *testing.T) {
	onDisks(t, func(t *testing.T, d *disktest.Disk, path string) {
		r := open(t, audit.Options{File: path})
		var releases []func()
		for i := range 3 {
			release, err := r.Reserve(t.Context(), fmt.Sprint("in-progress-", i))
			if err != nil {
				t.Fatal(err)
			}
			releases = append(releases, release)
		}
		d.Fill()
		if _, err := r.Reserve(t.Context(), "new"); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("room on a full disk: %v", err)
		}
		if err := r.Prove(t.Context()); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("Prove: %v", err)
		}
		subscriber := r.Subscriber()
		for range 2000 { // others' events take what is left, and not the room of requests
			subscriber.Handle(event.New(now, "other", event.Daemon, event.RotationStuck{Err: errors.New("a long text about what failed there, again")}))
		}
		stats := r.Stats()
		if stats.Lost == 0 {
			t.Fatal("no event was lost on a full disk: this test proves nothing")
		}
		for i := range 3 {
			token := fmt.Sprint("in-progress-", i)
			leaves := leaving(i)
			leaves.Token = token
			if err := r.Record(t.Context(), leaves); err != nil {
				t.Errorf("%s: %v", token, err)
			}
			for range 60 { // what a rotation tells of itself, many times over
				subscriber.Handle(event.New(now, token, event.Daemon, event.SinkWrite{Sink: "vault:secret/access/ci"}))
			}
			if err := r.Sync(); err != nil {
				t.Errorf("%s: the outcome: %v", token, err)
			}
			releases[i]()
		}
		if now := r.Stats(); now.Lost != stats.Lost {
			t.Errorf("%d events of requests in progress were lost", now.Lost-stats.Lost)
		}
		d.Free()
		if err := r.Prove(t.Context()); err != nil {
			t.Errorf("after there is room again: %v", err)
		}
		subscriber.Handle(event.New(now, "other", event.Daemon, event.RotationStuck{}))
		gaps := 0
		for _, d := range r.Notices() {
			if gap, ok := d.(event.AuditGap); ok && gap.Events == stats.Lost {
				gaps++
			}
		}
		if gaps != 1 {
			t.Errorf("%d lines say how many events are missing", gaps)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if v := verify(t, audit.VerifyOptions{File: path}); !v.OK {
			t.Errorf("%v", v.Problems)
		}
	})
}

// TestStartOnAFullDisk: a daemon that starts then runs, and says why it sends nothing. Once there is room, it goes on by
// itself.
func TestStartOnAFullDisk(t *testing.T) {
	onDisks(t, func(t *testing.T, d *disktest.Disk, path string) {
		r := open(t, audit.Options{File: path})
		record(t, r, 1, 3)
		_ = r.Close()
		d.Fill()
		r = open(t, audit.Options{File: path})
		if _, err := r.Reserve(t.Context(), "ci"); err == nil && len(r.Notices()) == 0 {
			// What is allocated behind the end of the file stays over a restart.
			t.Log("there was room left from before")
		}
		d.Free()
		if err := r.Prove(t.Context()); err != nil {
			t.Errorf("after there is room: %v", err)
		}
		record(t, r, 4, 4)
		if v := verify(t, audit.VerifyOptions{File: path}); !v.OK {
			t.Errorf("%v", v.Problems)
		}
	})
}

// TestFirstStartOnAFullDisk: the record begins once there is room.
func TestFirstStartOnAFullDisk(t *testing.T) {
	onDisks(t, func(t *testing.T, d *disktest.Disk, path string) {
		d.Fill()
		r := open(t, audit.Options{File: path})
		if err := r.Record(t.Context(), leaving(1)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%v", err)
		}
		d.Free()
		if err := r.Prove(t.Context()); err != nil {
			t.Fatal(err)
		}
		record(t, r, 2, 2)
		if v := verify(t, audit.VerifyOptions{File: path}); !v.OK || v.First != 1 {
			t.Errorf("%+v", v)
		}
	})
}

// TestBrokenDisk: a disk that becomes read-only under the daemon stops requests at once.
func TestBrokenDisk(t *testing.T) {
	d := disktest.New(t, disktest.Ext4, 6<<10)
	r := open(t, audit.Options{File: filepath.Join(d.Dir, "audit", "audit.jsonl")})
	record(t, r, 1, 2)
	d.Break()
	if err := r.Record(t.Context(), leaving(3)); err == nil {
		t.Error("a request was recorded on a disk that is read-only")
	}
	if err := r.Prove(t.Context()); err == nil {
		t.Error("Prove finds nothing")
	}
}

// TestFrozenDisk: a disk that hangs in the middle of a write, and not only of an fsync. Who asks gets an answer, and
// what was given up leaves no room reserved and no gap.
func TestFrozenDisk(t *testing.T) {
	d := disktest.New(t, disktest.Ext4, 6<<10)
	path := filepath.Join(d.Dir, "audit", "audit.jsonl")
	r := open(t, audit.Options{File: path})
	record(t, r, 1, 2)
	d.Freeze()
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	if err := r.Record(short(), leaving(3)); !errors.Is(err, audit.ErrNoAnswer) {
		t.Errorf("%v", err)
	}
	if err := r.Record(short(), leaving(4)); !errors.Is(err, audit.ErrNoAnswer) {
		t.Errorf("%v", err)
	}
	if head, stats := r.Head(), r.Stats(); head.Seq != 3 || stats.Seq != 3 || len(r.Notices()) != 0 {
		t.Errorf("%v, %+v", head, stats)
	}
	if h, err := r.History(t.Context(), status.HistoryQuery{}); err != nil || len(h.Entries) < 3 {
		t.Errorf("%d lines, %v", len(h.Entries), err)
	}
	d.Thaw()
	record(t, r, 5, 5)
	h, err := r.History(t.Context(), status.HistoryQuery{Token: "ci"})
	var ids []string
	for _, e := range h.Entries {
		ids = append(ids, e.RotationID)
	}
	// The third may have been written late, and its rotation says that it was skipped. The fourth waited for its turn, and
	// was given up before.
	if got := strings.Join(ids, " "); err != nil || got != "R1 R2 R3 R5" {
		t.Errorf("%s, %v", got, err)
	}
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK {
		t.Error(v.Problems)
	}
}

// TestManyAtOnce: requests that wait at the same time share an fsync, and all lines are in one chain.
func TestManyAtOnce(t *testing.T) {
	path := at(t)
	r := open(t, audit.Options{File: path, MaxSize: 20_000, Keep: 1000})
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			for n := range 10 {
				e := leaving(i*10 + n)
				e.Token = fmt.Sprint("token-", i)
				release, err := r.Reserve(t.Context(), e.Token)
				if err == nil {
					err = r.Record(t.Context(), e)
				}
				if err != nil {
					t.Error(err)
					return
				}
				release()
			}
		})
	}
	all.Wait()
	if v := verify(t, audit.VerifyOptions{File: path}); !v.OK || v.Last < 501 || len(v.Files) < 5 {
		t.Errorf("%d lines in %d files: %v", v.Last, len(v.Files), v.Problems)
	}
}
