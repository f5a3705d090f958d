package replica

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// good returns an entry as a replica writes it, with another value at some keys.
func good(name string, change map[string]any) string {
	e := map[string]any{"format": 1, "replica": name, "process": "p", "home": "h", "started": "2000-01-01T00:00:00Z", "version": "v1", "claim": "2m0s",
		"listen": "127.0.0.1:1", "leaving": false, "wall": "2000-01-01T00:00:00Z", "seq": 0, "since": 0, "changes": []any{}}
	maps.Copy(e, change)
	raw, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// odd are contents that a replica does not write.
func odd(name string) map[string]string {
	long := make([]any, keptNotices+1)
	for i := range long {
		long[i] = map[string]any{"name": fmt.Sprint(i), "seq": i + 1}
	}
	return map[string]string{
		"empty object":    `{}`,
		"other types":     `{"format":"one","replica":[],"changes":7}`,
		"of a person":     `{"note":"do not touch"}`,
		"another name":    good("another", nil),
		"no process":      good(name, map[string]any{"process": ""}),
		"long process":    good(name, map[string]any{"process": strings.Repeat("x", maxShort+1)}),
		"no claim":        good(name, map[string]any{"claim": "0s"}),
		"negative claim":  good(name, map[string]any{"claim": -1}),
		"odd claim":       good(name, map[string]any{"claim": "soon"}),
		"old format":      good(name, map[string]any{"format": 0}),
		"too many":        good(name, map[string]any{"seq": len(long), "changes": long}),
		"odd numbers":     good(name, map[string]any{"seq": 3, "changes": []any{map[string]any{"name": "a", "seq": 2}, map[string]any{"name": "b", "seq": 1}}}),
		"future numbers":  good(name, map[string]any{"seq": 1, "changes": []any{map[string]any{"name": "a", "seq": 2}}}),
		"control bytes":   good(name, map[string]any{"seq": 1, "changes": []any{map[string]any{"name": "\x1b[2J", "seq": 1}}}),
		"long name":       good(name, map[string]any{"seq": 1, "changes": []any{map[string]any{"name": strings.Repeat("x", maxName+1), "seq": 1}}}),
		"huge":            good(name, map[string]any{"version": 1, "listen": strings.Repeat("x", 1<<20)}),
		"impossible time": good(name, map[string]any{"wall": "yesterday"}),
	}
}

// TestOddEntriesOfOthers: an entry that no replica writes is logged at most, and hurts nobody. If it is that of a living
// replica, that one writes it again.
func TestOddEntriesOfOthers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(2)
		for name, content := range odd("stranger") {
			w.server.Set(pathOf("stranger"), content)
			pass(15 * time.Second)
			for _, m := range all {
				if m.Share() != 2 || len(m.View().Replicas) != 2 {
					t.Errorf("%s: %d living: %+v", name, m.Share(), m.View().Replicas)
				}
				m.expect(2)
			}
		}
		for name, content := range odd(all[1].o.Self.Name) {
			w.server.Set(pathOf(all[1].o.Self.Name), content)
			for range 30 {
				pass(time.Second)
				all[0].expect(2)
				all[1].expect(2)
			}
			if e := w.entryOf(all[1].o.Self.Name); e.check(all[1].o.Self.Name) != nil {
				t.Errorf("%s: it is still there", name)
			}
		}
		for _, m := range all {
			if told := m.tellings(); told != nil {
				t.Errorf("told: %q", told)
			}
		}
		all[0].Notice("ci")
		pass(10 * time.Second)
		if got := all[1].took(); !slices.Contains(got, "ci") {
			t.Errorf("%q", got)
		}
	})
}

// TestOddEntryAtStart: a replica whose entry is not readable when it starts waits as for an earlier process, and then
// writes its own. It needs no operator.
func TestOddEntryAtStart(t *testing.T) {
	contents := odd("a")
	contents["newer"] = good("a", map[string]any{"format": 7, "changes": "other"})
	contents["newer, with what we know"] = good("a", map[string]any{"format": 7})
	contents["deleted"] = ""
	for name, content := range contents {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) {
				w.server.Set(pathOf("a"), content)
				if content == "" {
					w.server.Set(pathOf("a"), good("a", nil))
					w.server.Delete(pathOf("a"))
				}
				a := w.start("a", "p of a", "disk of a")
				pass(deadAfter(2*time.Minute) + 5*time.Second)
				a.expect(1)
			})
		})
	}
}

// TestDeletedEntries: what a person deletes of the entries is written again, and nobody dies of it.
func TestDeletedEntries(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(3)
		path := pathOf(all[1].o.Self.Name)
		for i, remove := range []func(){
			func() { w.server.Delete(path) },
			func() {
				if err := w.server.Client(nil).Remove(t.Context(), path); err != nil {
					t.Error(err)
				}
			},
		} {
			remove()
			for range 60 {
				pass(time.Second)
				for _, m := range all {
					m.expect(3)
				}
			}
			all[1].Notice(fmt.Sprint("ci-", i))
			pass(10 * time.Second)
			if got := all[0].took(); !slices.Contains(got, fmt.Sprint("ci-", i)) {
				t.Errorf("%q", got)
			}
			if told := all[0].tellings(); told != nil {
				t.Errorf("told: %q", told)
			}
		}
	})
}

// TestNewerReplica: a replica of a newer version with another format is known to live, so the preference stays the same
// for all. What it changes is learned late.
func TestNewerReplica(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(2)
		before := len(all[0].took())
		for i := range 120 {
			w.server.Set(pathOf("newer"), good("newer", map[string]any{"format": 2, "seq": i + 5, "changes": []any{}}))
			pass(time.Second)
			if i > 15 {
				all[0].expect(3)
				all[1].expect(3)
			}
		}
		if got := len(all[0].took()) - before; got < 2 || got > 3 {
			t.Errorf("everything was read %d times in two minutes", got)
		}
		part := 0
		for i := range 300 {
			if len(firsts(fmt.Sprint("token-", i), rotation.Record{}, all...)) == 0 {
				part++
			}
		}
		if part < 60 || part > 140 {
			t.Errorf("%d of 300 tokens are left to it", part)
		}
	})
}

// TestManyEntries: entries of programs that are not replicas are read up to a limit, and names that no replica can have not at all.
func TestManyEntries(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		all := w.startAll(1)
		for i := range 3 * maxReplicas {
			w.server.Set(pathOf(fmt.Sprint("x", i)), "{}")
		}
		for _, name := range []string{"..", ".", "UPPER", "a b", "\x1b[2J", strings.Repeat("x", 300), "-", "é"} {
			w.server.Set(pathOf(name), good(name, nil))
		}
		pass(busyFor)
		before := w.server.Count("get")
		pass(time.Minute)
		if got := w.server.Count("get") - before; got > 13*maxReplicas {
			t.Errorf("%d reads in a minute", got)
		}
		all[0].expect(1)
	})
}

// FuzzEntry: what is read of another replica can be anything.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(good("a", nil)), uint64(0))
	for _, content := range odd("a") {
		if len(content) < 1000 {
			f.Add([]byte(content), uint64(1))
		}
	}
	f.Add([]byte(good("a", map[string]any{"seq": 2, "since": 1, "changes": []any{map[string]any{"name": "a", "seq": 2}}})), uint64(1))
	f.Fuzz(func(t *testing.T, raw []byte, seq uint64) {
		var e entry
		if json.Unmarshal(raw, &e) != nil || e.check("a") != nil || e.isNewer() {
			return
		}
		names := e.after(seq)
		if len(names) > keptNotices || seq == e.Seq && len(names) > 0 {
			t.Errorf("after %d: %q", seq, names)
		}
		if d := deadAfter(time.Duration(e.Claim)); d < 3*time.Second || d > 35*time.Second {
			t.Errorf("it counts as dead after %s", d)
		}
		again, err := json.Marshal(e)
		var back entry
		if err != nil || json.Unmarshal(again, &back) != nil || back.check("a") != nil || !slices.Equal(back.after(seq), names) {
			t.Errorf("%s is not what was read: %v", again, err)
		}
	})
}
