package ledger

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestPagesAreNotResident: the kernel counts no page of the file as memory of the process after they were given back.
func TestPagesAreNotResident(t *testing.T) {
	l, _ := fleet(t, pagesAfter)
	before, ok := residentOf(t, l.path)
	if !ok {
		t.Skip("the kernel does not say what is resident of a mapping")
	}
	if _, err := l.All(t.Context()); err != nil { // its end gives them back
		t.Fatal(err)
	}
	if after, _ := residentOf(t, l.path); after > 64 {
		t.Errorf("%d KiB of the file are resident; after saving it was %d", after, before)
	}
}

// residentOf returns how many KiB of the mappings of a file are resident.
func residentOf(t *testing.T, path string) (kib int, found bool) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	ours := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var n int
		switch line := lines.Text(); {
		case strings.HasSuffix(line, " "+path):
			ours = true
		case ours && strings.HasPrefix(line, "Rss:"):
			if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err != nil {
				t.Fatal(line)
			}
			kib, found, ours = kib+n, true, false
		}
	}
	return kib, found
}
