package packed_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"rotatord/internal/packed"
	"rotatord/internal/racedetector"
	"rotatord/internal/rotation"
)

type named string

type all struct {
	Bool    bool
	Int     int
	Small   int8
	Uint    uint64
	Text    string
	Named   named
	At      time.Time
	For     time.Duration
	Inner   inner
	Pointer *inner
	Texts   []string
	Inners  []inner
	Map     map[named]inner
	Times   map[string]time.Time
}

type inner struct {
	Text string
	At   time.Time
	Next *innermost
}

type innermost struct{ Bytes []byte }

// TestRoundTrip: whatever is packed comes back, with nil and empty told apart.
func TestRoundTrip(t *testing.T) {
	text := rapid.StringN(0, 6, -1)
	at := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(-1<<36, 1<<36).Draw(t, "seconds"), rapid.Int64Range(0, 999_999_999).Draw(t, "nanoseconds")).UTC()
	})
	some := rapid.Custom(func(t *rapid.T) inner { return inner{Text: text.Draw(t, "text"), At: at.Draw(t, "at")} })
	rapid.Check(t, func(t *rapid.T) {
		want := all{
			Bool: rapid.Bool().Draw(t, "bool"), Int: rapid.Int().Draw(t, "int"), Small: rapid.Int8().Draw(t, "small"), Uint: rapid.Uint64().Draw(t, "uint"),
			Text: text.Draw(t, "text"), Named: named(text.Draw(t, "named")), At: at.Draw(t, "at"), For: time.Duration(rapid.Int64().Draw(t, "for")), Inner: some.Draw(t, "inner"),
		}
		if rapid.Bool().Draw(t, "more") {
			one := some.Draw(t, "pointed at")
			one.Next = &innermost{Bytes: []byte(text.Draw(t, "bytes"))}
			want.Pointer = &one
			want.Texts = rapid.SliceOf(text).Draw(t, "texts")
			want.Inners = rapid.SliceOf(some).Draw(t, "inners")
			want.Map = rapid.MapOf(rapid.Map(text, func(s string) named { return named(s) }), some).Draw(t, "map")
			want.Times = rapid.MapOf(text, at).Draw(t, "times")
		}
		if got := packed.Of(want).Get(); !reflect.DeepEqual(got, want) {
			t.Fatal(cmp.Diff(want, got))
		}
	})
}

// TestZero: the zero Value is the zero value, and so is what comes back of a packed one.
func TestZero(t *testing.T) {
	if got := (packed.Value[all]{}).Get(); !reflect.ValueOf(got).IsZero() {
		t.Errorf("%+v", got)
	}
	if got := packed.Of(all{}).Get(); !reflect.ValueOf(got).IsZero() {
		t.Errorf("%+v", got)
	}
}

// TestTimesAreUTC: a time is the same moment in UTC, and equal to what the ledger has of it.
func TestTimesAreUTC(t *testing.T) {
	at := time.Now().In(time.FixedZone("east", 3600))
	if got := packed.Of(inner{At: at}).Get().At; got != at.Round(0).UTC() {
		t.Errorf("%#v, want %#v", got, at.UTC())
	}
}

// TestRefused: a type of which a part would be lost cannot be packed.
func TestRefused(t *testing.T) {
	for want, pack := range map[string]func(){
		"the field hidden":    func() { packed.Of(struct{ hidden int }{1}) },
		"interface {}":        func() { packed.Of(struct{ Any any }{1}) },
		"float64":             func() { packed.Of(struct{ Number float64 }{1}) },
		"map[int]string":      func() { packed.Of(struct{ Map map[int]string }{}) },
		"func()":              func() { packed.Of(struct{ Func func() }{}) },
		"[2]int cannot be pa": func() { packed.Of(struct{ Array [2]int }{}) },
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, want) {
					t.Errorf("%q, want %q in it", got, want)
				}
			}()
			pack()
		}()
	}
}

// record is the record of a token that was listed and never rotated.
func record() rotation.Record {
	at := time.Date(2026, 1, 5, 4, 0, 0, 0, time.UTC)
	const id = "f174e90a-fafe-4643-bbbc-4a0ed4fc8415"
	return rotation.Record{
		Format: rotation.RecordFormat, Revision: 2, Token: "ci-deploy", TokenID: id, Account: "prod", Anchor: at, Schedule: "0 4 * * 1 UTC",
		Facts: rotation.TokenFacts{ID: id, ClientID: "88bf3b6d86161464f6509f7219099e57.access", Name: "ci-deploy", Enabled: true, Duration: "8760h",
			CreatedAt: at, ExpiresAt: at.AddDate(1, 0, 0), UpdatedAt: at},
	}
}

// TestNoGarbage: what is shown of all tokens unpacks each of them, and leaves no memory behind. A packed record has a
// string and no more.
func TestNoGarbage(t *testing.T) {
	if racedetector.On {
		t.Skip("it would count what the pools lose")
	}
	p := packed.Of(record())
	if n := testing.AllocsPerRun(100, func() { _ = p.Get() }); n > 0.5 {
		t.Errorf("%v allocations to unpack", n)
	}
	r := record()
	if n := testing.AllocsPerRun(100, func() { p = packed.Of(r) }); n > 1.5 {
		t.Errorf("%v allocations to pack", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	r := record()
	b.Run("pack", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			packed.Of(r)
		}
	})
	b.Run("unpack", func(b *testing.B) {
		b.ReportAllocs()
		p := packed.Of(r)
		for b.Loop() {
			p.Get()
		}
	})
}
