package webpage_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/status"
	"rotatord/internal/webpage"
	"rotatord/internal/webpage/webpagetest"
)

// live is a source whose tokens change, which counts the tokens that are read, and takes its time for that.
type live struct {
	*webpagetest.Sample
	perToken time.Duration

	mu      sync.Mutex
	read    int
	looks   int // from the first token
	changed []string
	panics  bool
}

// set changes a token. told says whether there is an event about it.
func (l *live) set(name string, told bool, change func(*status.Token)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.All {
		if l.All[i].Name == name {
			change(&l.All[i])
		}
	}
	if told {
		l.changed = append(l.changed, name)
	}
}

func (l *live) Token(name string) (status.Token, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.read++
	return l.Sample.Token(name)
}

func (l *live) TokensAfter(name string, n int) []status.Token {
	l.mu.Lock()
	tokens := l.Sample.TokensAfter(name, n)
	l.read += len(tokens)
	if name == "" {
		l.looks++
	}
	panics := l.panics
	l.mu.Unlock()
	if panics {
		panic("a fault")
	}
	if l.perToken > 0 {
		time.Sleep(time.Duration(len(tokens)) * l.perToken)
	}
	return tokens
}

func (l *live) Changes(since uint64) (tokens []string, now uint64, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range l.changed[min(int(since), len(l.changed)):] {
		all = all || name == ""
		tokens = append(tokens, name)
	}
	return tokens, uint64(len(l.changed)), all
}

// counts returns how many tokens and how often all of them were read since the last call.
func (l *live) counts() (read, looks int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	read, looks = l.read, l.looks
	l.read, l.looks = 0, 0
	return read, looks
}

// serving returns the pages of a source, with the time of the bubble.
func serving(source webpage.Source) http.Handler {
	mux := http.NewServeMux()
	webpage.Register(mux, webpage.Options{Source: source, Version: "v1.2.3", Now: time.Now, Conditions: func() []webpage.Condition { return nil }})
	return mux
}

// TestReadsFewTokens: how many tokens a page reads does not depend on how many there are, once the first look was made.
func TestReadsFewTokens(t *testing.T) {
	read := func(n int, path string) (count int) {
		synctest.Test(t, func(t *testing.T) {
			source := &live{Sample: webpagetest.Trouble(webpagetest.Fleet(n))}
			h := handler(source)
			get(t, h, "/")
			synctest.Wait() // the plan is made
			source.counts()
			source.set("ci-deploy", true, func(token *status.Token) { token.Failures++ })
			if w := get(t, h, path); w.Code != http.StatusOK {
				t.Fatal(path, w.Code)
			}
			count, _ = source.counts()
		})
		return count
	}
	for path, most := range map[string]int{"/tokens/ci-deploy": 2, "/": 60, "/?state=trouble": 15, "/?sort=expires&page=2": 60, "/?account=prod&sort=name": 60} {
		few, many := read(300, path), read(1200, path)
		if few == 0 || few != many || few > most {
			t.Errorf("%s reads %d of 300 tokens and %d of 1200; want the same, at most %d", path, few, many, most)
		}
	}
}

// TestLookIsFresh: what an event is about is shown at once, and every other change after two seconds. After a minute without a
// reader nothing is read.
func TestLookIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &live{Sample: webpagetest.Fleet(300)}
		h := serving(source)
		shows := func(text string) bool { return strings.Contains(get(t, h, "/").Body.String(), text) }
		pause := func(token *status.Token) { token.Pause, token.Reason = &status.Pause{Since: time.Now()}, "paused" }
		if !shows("300 tokens") || shows("paused or frozen") {
			t.Fatal("a fleet without pauses is not shown")
		}
		source.set("backup", true, pause)
		if !shows("paused or frozen <b>1</b>") {
			t.Error("an event is not shown at once")
		}
		source.set("edge-probe", false, pause)
		time.Sleep(2100 * time.Millisecond)
		if !shows("paused or frozen <b>2</b>") {
			t.Error("a change without an event is not shown after two seconds")
		}
		source.set("edge-probe", false, func(token *status.Token) { token.Pause, token.Reason = nil, "slot" })
		source.set("", true, nil) // an event that may be about several tokens
		if !shows("paused or frozen <b>1</b>") {
			t.Error("what an event without a token has changed is not shown at once")
		}
		time.Sleep(time.Minute)
		source.counts()
		time.Sleep(time.Hour)
		if read, _ := source.counts(); read > 0 {
			t.Errorf("%d tokens were read while there was no reader", read)
		}
		source.set("edge-probe", false, pause)
		if !shows("paused or frozen <b>2</b>") {
			t.Error("the first look after an hour is an old one")
		}
	})
}

// TestLookTakesLong: a page does not wait for a look that takes long. Until the first one is there it says so, and has what is
// known without it. There is only one look at a time, and it takes at most a fifth of the time.
func TestLookTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &live{Sample: webpagetest.Trouble(webpagetest.Fleet(300)), perToken: 10 * time.Millisecond} // a look takes 3 s
		h := begun(source)
		answer := func() (w *httptest.ResponseRecorder, took time.Duration) {
			start := time.Now()
			w = get(t, h, "/")
			return w, time.Since(start)
		}
		w, took := answer()
		if body := w.Body.String(); took > 250*time.Millisecond || w.Header().Get("Refresh") != "1" || !strings.Contains(body, "The tokens are being read.") || !strings.Contains(body, "is sealed: unseal it") ||
			strings.Contains(body, "tokens are affected") {
			t.Errorf("the first answer, after %v, with Refresh %q: %s", took, w.Header().Get("Refresh"), body)
		}
		time.Sleep(3 * time.Second)
		source.counts()
		for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(700 * time.Millisecond) {
			w, took := answer()
			if took > 50*time.Millisecond || w.Header().Get("Refresh") != "" || !strings.Contains(w.Body.String(), "5 of 300 tokens are affected") {
				t.Fatalf("an answer took %v", took)
			}
		}
		if _, looks := source.counts(); looks < 3 || looks > 5 {
			t.Errorf("%d looks in a minute; each takes 3 s, and then rests for 12 s", looks)
		}
	})
}

// TestSlowLookIsKept: a look that takes so long that the next one comes after more than a minute is shown until then.
func TestSlowLookIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &live{Sample: webpagetest.Fleet(300), perToken: 50 * time.Millisecond} // a look takes 15 s
		h := begun(source)
		get(t, h, "/")
		time.Sleep(16 * time.Second)
		for start := time.Now(); time.Since(start) < 5*time.Minute; time.Sleep(15 * time.Second) {
			if w := get(t, h, "/"); w.Header().Get("Refresh") != "" {
				t.Fatalf("after %v the tokens are not shown", time.Since(start))
			}
		}
	})
}

// TestChangeDuringALook: a change that comes while the fleet is looked at, to a token that was read already, is not lost with
// that look.
func TestChangeDuringALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &live{Sample: webpagetest.Fleet(300), perToken: 10 * time.Millisecond} // a look takes 3 s
		h := serving(source)
		go get(t, h, "/")
		time.Sleep(1500 * time.Millisecond)
		first := source.All[0].Name
		source.set(first, true, func(token *status.Token) { token.Gone = true })
		time.Sleep(2 * time.Second)
		if body := get(t, h, "/").Body.String(); !strings.Contains(body, "1 critical") || !strings.Contains(body, "1 of 300 tokens is affected") {
			t.Error("the change is not shown after the look")
		}
	})
}

// TestManyReaders: readers who come at the same moment cause one look.
func TestManyReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &live{Sample: webpagetest.Fleet(100), perToken: time.Millisecond}
		h := serving(source)
		var readers sync.WaitGroup
		for range 50 {
			readers.Go(func() { get(t, h, "/") })
		}
		readers.Wait()
		if _, looks := source.counts(); looks != 1 {
			t.Errorf("%d looks", looks)
		}
	})
}

// TestLookPanics: a fault of the program while the fleet is looked at is told on the page, and does not end the daemon.
func TestLookPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &live{Sample: webpagetest.Fleet(3), panics: true}
		h := serving(source)
		if body := get(t, h, "/").Body.String(); !strings.Contains(body, "The tokens could not be read: a fault in the program (string)") {
			t.Error("the page does not tell it")
		}
		source.mu.Lock()
		source.panics = false
		source.mu.Unlock()
		time.Sleep(2 * time.Second)
		if body := get(t, h, "/").Body.String(); !strings.Contains(body, "Nothing is wrong") {
			t.Error("it is not tried again")
		}
	})
}

// TestReloadOfTokens: tokens that a reload adds or removes are shown after two seconds, and a page that names one that is gone does
// not fail.
func TestReloadOfTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &live{Sample: webpagetest.Fleet(60)}
		h := serving(source)
		get(t, h, "/")
		source.mu.Lock()
		source.All = append(source.All[:10:10], webpagetest.Fleet(90).All[30:]...)
		source.mu.Unlock()
		if w := get(t, h, "/?sort=name"); w.Code != http.StatusOK {
			t.Error(w.Code)
		}
		time.Sleep(2100 * time.Millisecond)
		if body := get(t, h, "/").Body.String(); !strings.Contains(body, "70 tokens: every client") {
			t.Error("the new tokens are not shown")
		}
	})
}

// BenchmarkLook measures looks at fleets: one token that has changed, a page of what is kept, the page of a token, and the first
// page. What was looked at is looked at again every two seconds for a while, which the last ones of them feel.
func BenchmarkLook(b *testing.B) {
	for _, n := range []int{10_000} {
		source := &live{Sample: webpagetest.Trouble(webpagetest.Fleet(n))}
		kept := handler(source)
		b.Run(fmt.Sprintf("changed/%d", n), func(b *testing.B) {
			for b.Loop() {
				source.set("backup", true, func(token *status.Token) { token.Failures++ })
				get(b, kept, "/")
			}
		})
		b.Run(fmt.Sprintf("kept/%d", n), func(b *testing.B) {
			for b.Loop() {
				get(b, kept, "/?q=deploy&sort=expires")
			}
		})
		b.Run(fmt.Sprintf("token/%d", n), func(b *testing.B) {
			for b.Loop() {
				get(b, kept, "/tokens/ci-deploy")
			}
		})
		b.Run(fmt.Sprintf("first/%d", n), func(b *testing.B) {
			for b.Loop() {
				get(b, begun(source), "/")
			}
		})
	}
}

// far is a source whose record has the lines of a token only far before its end.
type far struct{ *webpagetest.Sample }

func (f far) History(ctx context.Context, q status.HistoryQuery) (status.History, error) {
	if q.MaxRead > 0 && q.MaxRead <= 8<<20 {
		return status.History{More: true, Unread: "audit.jsonl"}, nil
	}
	return f.Sample.History(ctx, q)
}

// TestHistoryIsBounded: a page reads the end of the record alone, and says where older lines are.
func TestHistoryIsBounded(t *testing.T) {
	body := get(t, handler(far{webpagetest.Trouble(webpagetest.Fleet(12))}), "/tokens/ci-deploy").Body.String()
	if !strings.Contains(body, `Older ones: <code class="cmd">rotatord history ci-deploy</code>`) {
		t.Error("the page does not say where older lines are")
	}
}
