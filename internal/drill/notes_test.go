package drill

import "testing"

// TestNotesTakeEachKind: what is not noted is ignored by name.
func TestNotesTakeEachKind(t *testing.T) {
	if missing := new(notes).subscriber().Missing(); len(missing) > 0 {
		t.Errorf("neither noted nor ignored: %v", missing)
	}
}
