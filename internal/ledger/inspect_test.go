package ledger

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// TestReadWhole: the content of a file is read, and is not in the memory of the garbage collector.
func TestReadWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, size := range []int{0, 1, 4096, 8<<20 + 3} {
		want := bytes.Repeat([]byte{'x'}, size)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, release, err := readWhole(path)
		runtime.ReadMemStats(&after)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: %d were read, %v", size, len(got), err)
		}
		if more := after.TotalAlloc - before.TotalAlloc; more > 1<<20 {
			t.Errorf("%d bytes cost %d bytes of memory", size, more)
		}
		release()
	}
	if _, _, err := readWhole(path + ".none"); err == nil {
		t.Error("a file that is not there was read")
	}
	if _, _, err := readWhole(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
}
