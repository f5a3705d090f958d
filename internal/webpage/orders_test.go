package webpage

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rotatord/internal/status"
)

// TestOrders: an order of which some entries were moved is the same as one that was sorted again.
func TestOrders(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	at := func() time.Time {
		if random.IntN(5) == 0 {
			return time.Time{}
		}
		return time.Unix(int64(random.IntN(20)), 0)
	}
	some := func(i int) *entry {
		return &entry{Concern: status.Concern{Name: fmt.Sprintf("t%03d", i), Account: fmt.Sprint(random.IntN(3)), Next: at()}, level: level(random.IntN(5)), last: at(), expires: at()}
	}
	for range 200 {
		n := random.IntN(60)
		var entries []*entry
		for i := range n {
			entries = append(entries, some(i))
		}
		o := &orders{entries: entries}
		for range 4 {
			for _, sort := range sorts {
				o.by(sort)
			}
			entries = slices.Clone(entries)
			var changed []int32
			for i := range n {
				if random.IntN(max(n/4, 1)) == 0 {
					entries[i], changed = some(i), append(changed, int32(i))
				}
			}
			o = o.with(entries, changed)
			again := &orders{entries: entries}
			for _, sort := range sorts {
				if got, want := o.by(sort), again.by(sort); !slices.Equal(got, want) {
					t.Fatalf("by %s: %v, want %v", sort, got, want)
				}
			}
		}
	}
}
