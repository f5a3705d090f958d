package admission

import (
	"testing"

	"rotatord/internal/secret"
)

// TestShare: each process takes an equal part of a limit, also of a credential that is used later, and always at
// least one request.
func TestShare(t *testing.T) {
	all := NewBudgets()
	key := func(text string) Key { return Key{"https://api.example.com", secret.New(text).Digest()} }
	first := all.Join(900).Budget(key("a"))
	for sharers, want := range map[int]int{0: 900, 1: 900, 3: 300, 7: 128, 2000: 1} {
		all.Share(sharers)
		if first.limit != want {
			t.Errorf("%d sharers: %d requests, want %d", sharers, first.limit, want)
		}
	}
	all.Share(3)
	if later := all.Join(300).Budget(key("b")); later.limit != 100 {
		t.Errorf("a later credential: %d", later.limit)
	}
	if both := all.Join(90).Budget(key("a")); both != first || first.limit != 30 {
		t.Errorf("two accounts with one credential: %d", first.limit)
	}
}
