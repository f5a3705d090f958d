package ledger

import (
	"bytes"
	"testing"
)

// TestTallyCopiesNothing: each save counts the record before and after it, and a start counts all.
func TestTallyCopiesNothing(t *testing.T) {
	var sum tally
	value := bytes.Repeat([]byte("a record of a rotation in progress "), 100)
	if n := testing.AllocsPerRun(100, func() { sum.count("ci-deploy", value, +1) }); n > 0 {
		t.Errorf("to count a value of %d bytes takes %.0f allocations", len(value), n)
	}
}

// TestTallyStays: the tally of a ledger on the disk was made by an earlier version.
func TestTallyStays(t *testing.T) {
	var sum tally
	sum.count("ci-deploy", []byte(`{"format":1}`), +1)
	sum.count("x", bytes.Repeat([]byte("long "), 1000), +1)
	if want := (tally{2, 9220773431635989406}); sum != want {
		t.Errorf("got %+v, want %+v", sum, want)
	}
}
