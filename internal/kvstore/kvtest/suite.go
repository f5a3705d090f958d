package kvtest

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rotatord/internal/kvstore"
)

// Place is an empty place for the suite.
type Place struct {
	// Open returns a way to the place, as another process has.
	Open func() kvstore.KV
	// Delete and Destroy do to the current version of an entry what a person may do.
	Delete, Destroy func(path string)
}

// Run is the suite that every KV passes. It calls place for each of its tests.
func Run(t *testing.T, place func(t *testing.T) Place) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Place)
	}{
		{"check-and-set", testPut},
		{"content", testContent},
		{"names", testNames},
		{"deleted", testDeleted},
		{"many writers", testWriters},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, place(t)) })
	}
}

type content struct {
	Text   string         `json:"text"`
	Number uint64         `json:"number"`
	Float  float64        `json:"float"`
	Inner  map[string]any `json:"inner,omitempty"`
}

func put(t *testing.T, kv kvstore.KV, path string, data any, version int) kvstore.Entry {
	t.Helper()
	e, err := kv.Put(t.Context(), path, data, version)
	if err != nil {
		t.Fatalf("writing %s against version %d: %v", path, version, err)
	}
	return e
}

func get(t *testing.T, kv kvstore.KV, path string) kvstore.Entry {
	t.Helper()
	e, err := kv.Get(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func testPut(t *testing.T, p Place) {
	a, b := p.Open(), p.Open()
	if e := get(t, a, "tokens/ci"); e.Version != 0 || e.Data != nil {
		t.Errorf("nothing was written: %+v", e)
	}
	if _, err := a.Put(t.Context(), "tokens/ci", content{}, kvstore.Never); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("a write that never matches: %v", err)
	}
	if _, err := a.Put(t.Context(), "tokens/ci", content{}, 1); !errors.Is(err, kvstore.ErrConflict) {
		t.Errorf("a version of nothing: %v", err)
	}
	if e := get(t, b, "tokens/ci"); e.Version != 0 {
		t.Errorf("a conflict has written %+v", e)
	}
	first := put(t, a, "tokens/ci", content{Text: "first"}, 0)
	second := put(t, b, "tokens/ci", content{Text: "second"}, 1)
	if first.Version != 1 || second.Version != 2 || second.CreatedAt.Before(first.CreatedAt) || time.Since(second.CreatedAt).Abs() > time.Hour {
		t.Errorf("%+v, %+v", first, second)
	}
	for _, version := range []int{kvstore.Never, 0, 1, 3} {
		if _, err := a.Put(t.Context(), "tokens/ci", content{Text: "other"}, version); !errors.Is(err, kvstore.ErrConflict) {
			t.Errorf("against version %d of 2: %v", version, err)
		}
	}
	if e := get(t, a, "tokens/ci"); !reflect.DeepEqual(e, second) {
		t.Errorf("%+v, want what Put has returned: %+v", e, second)
	}
	if _, err := a.Put(t.Context(), "x", []string{"no object"}, 0); err == nil {
		t.Error("a list was written")
	}
}

// testContent writes what JSON and HTTP may change on the way.
func testContent(t *testing.T, p Place) {
	kv := p.Open()
	for name, want := range map[string]content{
		"empty":   {},
		"numbers": {Number: 1 << 53, Inner: map[string]any{"z": nil, "a": true, "list": []any{"x", map[string]any{}}}},
		"larger":  {Number: 1<<60 + 1<<10, Float: 1e21},
		"float":   {Float: 0.1},
		"text":    {Text: "<a href=\"x\">&amp; ü \u2028 \x00 \n"},
		"large":   {Text: strings.Repeat("long ", 50000)},
	} {
		written := put(t, kv, "content/"+name, want, 0)
		read := get(t, p.Open(), "content/"+name)
		var got content
		if err := read.Decode(name, &got); err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(read, written) {
			t.Errorf("%s: %v, %.200s and %.200s", name, err, written.Data, read.Data)
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(read.Data, &object); err != nil || len(object) < 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testNames(t *testing.T, p Place) {
	kv := p.Open()
	list := func(dir string, want ...string) {
		t.Helper()
		got, err := kv.List(t.Context(), dir)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("below %s: %q, %v; want %q", dir, got, err, want)
		}
	}
	list("tokens")
	want := []string{".proof", "a", "a.b_c-d", "a.~b"}
	for _, name := range want {
		put(t, kv, "tokens/"+name, content{Text: name}, 0)
	}
	put(t, kv, "pauses", content{}, 0)
	put(t, kv, "deep/er/still", content{}, 0)
	list("tokens", want...)
	list("replicas")
	list("deep")
	list("deep/er", "still")
	for _, name := range want {
		var c content
		if err := get(t, kv, "tokens/"+name).Decode(name, &c); err != nil || c.Text != name {
			t.Errorf("%s holds %q, %v", name, c.Text, err)
		}
	}
	// A limit is neither a version nor needs one.
	for range 2 {
		if err := errors.Join(kv.Limit(t.Context(), "tokens/a", 3), kv.Limit(t.Context(), "tokens/limited", 1)); err != nil {
			t.Error(err)
		}
	}
	if e := get(t, kv, "tokens/limited"); e.Version != 0 {
		t.Errorf("a limit has written %+v", e)
	}
	put(t, kv, "tokens/limited", content{}, 0)
	for version := 1; version < 6; version++ {
		put(t, kv, "tokens/limited", content{}, version)
		put(t, kv, "tokens/a", content{}, version)
	}
}

func testDeleted(t *testing.T, p Place) {
	kv := p.Open()
	put(t, kv, "pending/x", content{}, 0)
	for range 2 { // removing nothing is not an error
		if err := kv.Remove(t.Context(), "pending/x"); err != nil {
			t.Fatal(err)
		}
		if e := get(t, kv, "pending/x"); e.Version != 0 {
			t.Errorf("removed: %+v", e)
		}
	}
	if e := put(t, kv, "pending/x", content{}, 0); e.Version != 1 {
		t.Errorf("written after it was removed: %+v", e)
	}
	for name, do := range map[string]func(string){"deleted": p.Delete, "destroyed": p.Destroy} {
		path := "tokens/" + name
		put(t, kv, path, content{Text: "first"}, 0)
		put(t, kv, path, content{Text: "second"}, 1)
		do(path)
		if e, err := kv.Get(t.Context(), path); !errors.Is(err, kvstore.ErrDeleted) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %+v, %v", name, e, err)
		}
		if _, err := kv.Put(t.Context(), path, content{}, 0); err == nil {
			t.Errorf("%s: it was taken for an empty place", name)
		}
		if names, err := kv.List(t.Context(), "tokens"); err != nil || !slices.Contains(names, name) {
			t.Errorf("%s: not in the list %q, %v", name, names, err)
		}
		if e := put(t, kv, path, content{Text: "third"}, 2); e.Version != 3 || get(t, kv, path).Version != 3 {
			t.Errorf("%s, and written again: %+v", name, e)
		}
	}
}

// testWriters has many processes count in one entry. Each count is there once.
func testWriters(t *testing.T, p Place) {
	const writers, each = 6, 6
	var all sync.WaitGroup
	for range writers {
		kv := p.Open()
		all.Go(func() {
			for done := 0; done < each; {
				e, err := kv.Get(t.Context(), "counter")
				var c content
				if err == nil && e.Version > 0 {
					err = e.Decode("counter", &c)
				}
				if err != nil {
					t.Error(err)
					return
				}
				c.Number++
				c.Text = time.Now().String() // no two write the same
				switch _, err = kv.Put(t.Context(), "counter", c, e.Version); {
				case err == nil:
					done++
				case !errors.Is(err, kvstore.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	var c content
	e := get(t, p.Open(), "counter")
	if err := e.Decode("counter", &c); err != nil || c.Number != writers*each || e.Version != writers*each {
		t.Errorf("%d writes left %d, at version %d, %v", writers*each, c.Number, e.Version, err)
	}
}
