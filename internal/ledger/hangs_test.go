package ledger

import (
	"path/filepath"
	"testing"
	"time"

	"rotatord/internal/rotation"
)

// TestSaveThatHangsIsNoted: health checks know since when a save of the ledger waits for its disk, and that it has ended.
func TestSaveThatHangsIsNoted(t *testing.T) {
	l, err := OpenLocal(filepath.Join(t.TempDir(), FileName), LocalOptions{New: true})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	writing, err := l.db.Begin(true) // no other transaction can write
	if err != nil {
		t.Fatal(err)
	}
	began, done := time.Now(), make(chan error, 1)
	go func() {
		_, err := l.Save(t.Context(), rotation.Record{Format: rotation.RecordFormat, Token: "ci", TokenID: "A", Account: "prod"})
		done <- err
	}()
	for l.writes.Since().IsZero() {
		if time.Since(began) > 10*time.Second {
			t.Fatal("a save that waits is not noted")
		}
		time.Sleep(time.Millisecond)
	}
	if since := l.writes.Since(); since.Before(began) {
		t.Errorf("since %s, before it began at %s", since, began)
	}
	if err := writing.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !l.writes.Since().IsZero() {
		t.Errorf("afterwards: %v, %s", err, l.writes.Since())
	}
}
