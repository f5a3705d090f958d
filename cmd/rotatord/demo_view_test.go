package main

import "testing"

// TestDemoTakesEachKind: what is not shown is ignored by name.
func TestDemoTakesEachKind(t *testing.T) {
	if missing := new(demoView).subscriber().Missing(); len(missing) > 0 {
		t.Errorf("neither shown nor ignored: %v", missing)
	}
}
