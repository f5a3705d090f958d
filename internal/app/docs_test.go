package app

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestDocumentedLooks: docs/sizing.md, and the arithmetic of bench/fleet in it, have how often accounts are looked at.
func TestDocumentedLooks(t *testing.T) {
	text, err := os.ReadFile("../../docs/sizing.md")
	if err != nil {
		t.Fatal(err)
	}
	day := 24 * time.Hour
	for _, want := range []string{
		fmt.Sprintf("one request every %s minutes", map[time.Duration]string{2 * time.Minute: "two"}[accountEvery]),
		fmt.Sprintf("if there are more than %d accounts", accountEvery/accountSpread),
		fmt.Sprintf("one every %s seconds at most", map[time.Duration]string{6 * time.Second: "six"}[accountSpread]),
		fmt.Sprintf("listings and looks at accounts | %d |", day/accountEvery),
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("docs/sizing.md does not say %q", want)
		}
	}
}
