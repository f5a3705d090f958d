package logqueue_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/logqueue"
)

const patience = 100 * time.Millisecond

// stalled returns a Writer to a pipe that is full, and a reader of its lines. Nothing is read before the reader
// is used.
func stalled(t *testing.T, o logqueue.Options) (w *logqueue.Writer, reader *bufio.Reader) {
	t.Helper()
	r, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), pipe.Close() })
	if err := pipe.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	filler := bytes.Repeat([]byte("."), 1<<20)
	n, err := pipe.Write(filler)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the pipe is not full: %v", err)
	}
	if err := pipe.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	return logqueue.New(pipe, o), bufio.NewReader(io.MultiReader(&skip{r, n}, r))
}

// skip reads and drops the first n bytes.
type skip struct {
	from io.Reader
	n    int
}

func (s *skip) Read([]byte) (int, error) {
	if _, err := io.CopyN(io.Discard, s.from, int64(s.n)); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

func lineOf(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	text, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(text, "\n")
}

// TestInTime: with a reader, a line is below when Write returns, and no queue is left.
func TestInTime(t *testing.T) {
	var b bytes.Buffer
	w := logqueue.New(&b, logqueue.Options{Patience: time.Minute})
	for i := range 100 {
		line := fmt.Sprintf("line %d\n", i)
		if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
		if !strings.HasSuffix(b.String(), line) {
			t.Fatalf("%q was not written before Write returned", line)
		}
	}
}

// TestStall: one write waits, the others do not; what does not fit is counted at its place.
func TestStall(t *testing.T) {
	w, reader := stalled(t, logqueue.Options{Patience: patience, Bytes: 100})
	w.TellMissing(func(w io.Writer, n int) { fmt.Fprintf(w, "missing: %d\n", n) })
	began := time.Now()
	for i := range 50 {
		fmt.Fprintf(w, "line %02d..\n", i) // ten bytes: ten of them fit
	}
	if took := time.Since(began); took < patience || took > 20*patience {
		t.Errorf("50 lines took %s: only one may wait, for %s", took, patience)
	}
	if w.Flush(patience) {
		t.Error("Flush says that all was written, and nothing was read")
	}
	for i := range 10 {
		if got, want := lineOf(t, reader), fmt.Sprintf("line %02d..", i); got != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if got := lineOf(t, reader); got != "missing: 40" {
		t.Errorf("%q after the lines that fitted", got)
	}
	if !w.Flush(10 * time.Second) {
		t.Error("not everything was written, although it was read")
	}
	fmt.Fprintln(w, "after")
	if got := lineOf(t, reader); got != "after" {
		t.Errorf("%q, want the next line", got)
	}
}

// TestGap: the count is where the lines are missing, also if others follow.
func TestGap(t *testing.T) {
	gate := &gate{open: make(chan struct{})}
	w := logqueue.New(gate, logqueue.Options{Patience: time.Millisecond, Bytes: 10})
	for _, s := range []string{"12345678\n", "too long to fit\n", "too long as well\n", "\n"} {
		_, _ = io.WriteString(w, s)
	}
	close(gate.open)
	if !w.Flush(10 * time.Second) {
		t.Fatal("it was not written")
	}
	want := "12345678\nlines are missing here, since nothing read them for too long or they could not be written: 2\n\n"
	if got := gate.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestFails: a line that cannot be written is counted, and told once writing succeeds.
func TestFails(t *testing.T) {
	gate := &gate{open: make(chan struct{}), err: errors.New("no space left")}
	close(gate.open)
	w := logqueue.New(gate, logqueue.Options{})
	for range 3 {
		if _, err := io.WriteString(w, "lost\n"); err != nil {
			t.Error(err)
		}
	}
	gate.heal()
	_, _ = io.WriteString(w, "kept\n")
	if got := gate.String(); !strings.HasSuffix(got, "written: 3\nkept\n") || strings.Contains(got, "lost") {
		t.Errorf("%q", got)
	}
}

// TestConcurrent: each line of many writers is there once, whole, and in the order of its writer.
func TestConcurrent(t *testing.T) {
	w, reader := stalled(t, logqueue.Options{Patience: patience})
	var group sync.WaitGroup
	for writer := range 8 {
		group.Go(func() {
			for i := range 100 {
				fmt.Fprintf(w, "%d %03d\n", writer, i)
			}
		})
	}
	group.Wait()
	got := map[string][]string{}
	for range 800 {
		writer, i, _ := strings.Cut(lineOf(t, reader), " ")
		got[writer] = append(got[writer], i)
	}
	for writer, all := range got {
		if len(all) != 100 || !slices.IsSorted(all) {
			t.Errorf("writer %s: %d lines, %v", writer, len(all), all)
		}
	}
	if len(got) != 8 {
		t.Errorf("%d writers", len(got))
	}
}

// gate writes once it is open.
type gate struct {
	open chan struct{}

	mu  sync.Mutex
	err error
	b   bytes.Buffer
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	return g.b.Write(p)
}

func (g *gate) heal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = nil
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

// slowOnce is a log that stalls for its first line, and then takes a moment for each.
type slowOnce struct{ lines int }

func (s *slowOnce) Write(p []byte) (int, error) {
	if s.lines++; s.lines == 1 {
		time.Sleep(1100 * time.Millisecond)
	}
	time.Sleep(100 * time.Microsecond)
	return len(p), nil
}

// TestFastAgain: a reader that has stalled once is waited for again as soon as it keeps up, also while lines wait all the time.
// Otherwise those who log without a pause fill the queue, and lines are lost although they are read.
func TestFastAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var below slowOnce
		w := logqueue.New(&below, logqueue.Options{Patience: time.Second, Bytes: 50_000})
		const writers, each = 200, 200
		var all sync.WaitGroup
		for range writers {
			all.Go(func() {
				for range each {
					fmt.Fprintln(w, "ten bytes")
					time.Sleep(10 * time.Millisecond) // together twice as many as are read
				}
			})
		}
		all.Wait()
		w.Flush(time.Minute)
		if below.lines != writers*each {
			t.Errorf("%d of %d lines were written", below.lines, writers*each)
		}
	})
}
