package status_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"rotatord/internal/racedetector"
	"rotatord/internal/status"
)

// many is a fleet of n tokens, each made when it is asked for.
type many struct{ n int }

func (m many) Checks() []status.Check {
	return []status.Check{{Name: status.CheckVault, Detail: `Vault is sealed; "tokens": [],`, Stops: true, Since: noon.Add(-time.Hour)}}
}
func (m many) Replicas() *status.Replicas { return nil }
func (m many) Pending() (int, time.Time)  { return 1, noon }
func (m many) token(i int) status.Token {
	return status.Token{Name: fmt.Sprintf("token-%06d", i), Known: true, Enabled: i%50 != 0, Next: noon.Add(time.Hour), LastError: `,"tokens":[], <b> & ` + strings.Repeat("x", 200), Mounts: []string{"vault:secret"}}
}

func (m many) Token(name string) (status.Token, bool) {
	for i := range m.n {
		if t := m.token(i); t.Name == name {
			return t, true
		}
	}
	return status.Token{}, false
}

func (m many) TokensAfter(name string, n int) (all []status.Token) {
	i := 0
	if name != "" {
		_, _ = fmt.Sscanf(name, "token-%d", &i)
		i++
	}
	for ; i < m.n && len(all) < n; i++ {
		all = append(all, m.token(i))
	}
	return all
}

// TestStreamedJSON: what is written a few tokens at a time is, to the byte, what is written of all of them at once.
func TestStreamedJSON(t *testing.T) {
	for _, n := range []int{0, 1, 99, 100, 101, 250} {
		from := many{n}
		all := from.TokensAfter("", n)
		var got, want bytes.Buffer
		if err := status.WriteTokens(&got, from); err != nil {
			t.Fatal(err)
		}
		if err := status.WriteJSON(&want, status.Scrubbed(all)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%d tokens are\n%s\nand must be\n%s", n, got.Bytes(), want.Bytes())
		}
		got.Reset()
		want.Reset()
		if err := status.WriteOverview(&got, from, status.Page{Limit: -1}, true, noon); err != nil {
			t.Fatal(err)
		}
		if err := status.WriteJSON(&want, status.NewOverview(from, all, noon)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("the overview of %d tokens is\n%s\nand must be\n%s", n, got.Bytes(), want.Bytes())
		}
	}
}

// TestPagesOfTokens: the pages have each token once, whatever their size, and an overview of a page has all troubles.
func TestPagesOfTokens(t *testing.T) {
	for _, n := range []int{0, 1, 7, 20} {
		for _, limit := range []int{1, 3, 7, 20, 1000, 5000} {
			var names []string
			page, more := status.Page{Limit: limit}, true
			for more {
				var tokens []status.Token
				tokens, page, more = status.ReadPage(many{n}, page)
				if len(tokens) > limit {
					t.Errorf("%d tokens on a page of %d", len(tokens), limit)
				}
				for _, token := range tokens {
					names = append(names, token.Name)
				}
			}
			if len(names) != n || n > 0 && (names[0] != "token-000000" || names[n-1] != fmt.Sprintf("token-%06d", n-1)) {
				t.Errorf("%d tokens in pages of %d: %q", n, limit, names)
			}
		}
	}
	var b bytes.Buffer
	if err := status.WriteOverview(&b, many{120}, status.Page{After: "token-000100", Limit: 2}, true, noon); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.Count(text, `"name": "token-`) != 2 || !strings.Contains(text, `"name": "token-000101"`) || !strings.Contains(text, "\"token-000000\",\n") || !strings.Contains(text, `"kind": "disabled"`) {
		t.Errorf("a page of the overview:\n%s", text)
	}
}

// TestStreamIsSmall: the memory that an answer needs at one time does not grow with it.
func TestStreamIsSmall(t *testing.T) {
	if racedetector.On {
		t.Skip("it collects garbage all the time, and runs without the race detector")
	}
	peak := func(n int) uint64 {
		var most uint64
		watched := writeFunc(func(p []byte) (int, error) {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
			return len(p), nil
		})
		written := 0
		sampled := writeFunc(func(p []byte) (int, error) {
			if written += len(p); written/len(p)%100 == 0 {
				return watched(p)
			}
			return len(p), nil
		})
		if err := status.WriteTokens(sampled, many{n}); err != nil {
			t.Fatal(err)
		}
		return most
	}
	few, lots := peak(1000), peak(20000)
	if lots > few+2<<20 {
		t.Errorf("1000 tokens need %d bytes and 20000 need %d", few, lots)
	}
}

type writeFunc func([]byte) (int, error)

func (w writeFunc) Write(p []byte) (int, error) { return w(p) }
