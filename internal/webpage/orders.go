package webpage

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// orders has the entries of a fleet in the orders that readers have asked for. It is safe for concurrent use.
type orders struct {
	entries []*entry // by name

	mu     sync.Mutex
	sorted map[string][]int32 // by what they are sorted: indices of entries; a list is never changed
}

// by returns the indices of all entries in an order.
func (o *orders) by(sort string) []int32 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if list, ok := o.sorted[sort]; ok {
		return list
	}
	list := make([]int32, len(o.entries))
	for i := range list {
		list[i] = int32(i)
	}
	if sort != "name" {
		slices.SortFunc(list, func(a, b int32) int { return compare(o.entries[a], o.entries[b], sort) })
	}
	if o.sorted == nil {
		o.sorted = map[string][]int32{}
	}
	o.sorted[sort] = list
	return list
}

// with returns the orders of other entries, which have the same names and differ at these indices. What does not change is not
// sorted again.
func (o *orders) with(entries []*entry, changed []int32) *orders {
	if len(changed) == 0 {
		return o // also what is sorted later is for both
	}
	o.mu.Lock()
	sorted := maps.Clone(o.sorted)
	o.mu.Unlock()
	if len(changed) > len(entries)/4 {
		sorted = nil // each is sorted when it is asked for
	}
	isChanged := make(map[int32]bool, len(changed))
	for _, i := range changed {
		isChanged[i] = true
	}
	for sort, list := range sorted {
		sorted[sort] = moved(list, entries, changed, isChanged, sort)
	}
	return &orders{entries: entries, sorted: sorted}
}

// moved returns a sorted list with the changed entries at their new places.
func moved(list []int32, entries []*entry, changed []int32, isChanged map[int32]bool, sort string) []int32 {
	changed = slices.Clone(changed)
	slices.SortFunc(changed, func(a, b int32) int { return compare(entries[a], entries[b], sort) })
	merged := make([]int32, 0, len(list))
	for _, i := range list {
		if isChanged[i] {
			continue
		}
		for len(changed) > 0 && compare(entries[changed[0]], entries[i], sort) < 0 {
			merged, changed = append(merged, changed[0]), changed[1:]
		}
		merged = append(merged, i)
	}
	return append(merged, changed...)
}

// compare orders two tokens by what a reader has chosen, then by name. An unknown time comes last.
func compare(s, t *entry, by string) int {
	first := 0
	switch by {
	case "urgency":
		first = cmp.Or(cmp.Compare(s.level, t.level), compareTimes(s.Next, t.Next))
	case "next":
		first = compareTimes(s.Next, t.Next)
	case "last":
		first = compareTimes(s.last, t.last)
	case "expires":
		first = compareTimes(s.expires, t.expires)
	case "account":
		first = strings.Compare(s.Account, t.Account)
	}
	return cmp.Or(first, strings.Compare(s.Name, t.Name))
}

func compareTimes(s, t time.Time) int {
	if s.IsZero() != t.IsZero() {
		return t.Compare(s)
	}
	return s.Compare(t)
}
