package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/rotation"
)

// TestPagesAreGivenBack: after each thousand values, whichever way they are read or written, the pages of the file are given back.
// What is read afterwards is what was there before.
func TestPagesAreGivenBack(t *testing.T) {
	for _, n := range []int{pagesAfter, 2 * pagesAfter} {
		l, saved := fleet(t, n)
		times := func(want int, what string) {
			t.Helper()
			if got := l.dropped.Swap(0); got != int64(want) {
				t.Errorf("%s of %d records: pages were given back %d times, want %d", what, n, got, want)
			}
		}
		times(1, "saving")
		all, err := l.All(t.Context())
		if err != nil || !cmp.Equal(all, saved) {
			t.Errorf("All: %v, %v", err, cmp.Diff(saved, all))
		}
		times(1, "All")
		if err := l.Each(t.Context(), func(string) bool { return false }, func(rotation.Record) {}); err != nil {
			t.Error(err)
		}
		times(1, "Each")
		for _, want := range saved {
			if got, err := l.Load(t.Context(), want.Token); err != nil || !cmp.Equal(got, want) {
				t.Fatal(err, cmp.Diff(want, got))
			}
		}
		times(n/pagesAfter, "Load")
	}
}
