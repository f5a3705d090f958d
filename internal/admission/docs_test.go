package admission

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocumentedLimits: the documents have the limits of the code.
func TestDocumentedLimits(t *testing.T) {
	for page, texts := range map[string][]string{
		"rotation-cycle.md": {
			fmt.Sprintf("at most %d rotations of an account are in progress at once, and at most %d of all accounts together", maxActive, maxTotal),
			fmt.Sprintf("gets more: %d of an account, %d of all", maxActive+maxUrgentMore, maxTotal+maxTotalUrgentMore),
			fmt.Sprintf("for other accounts: %d of its account", maxActive+2*maxUrgentMore),
		},
		"sizing.md": {
			fmt.Sprintf("and at most %d a second", perSecond),
			fmt.Sprintf("at %d requests a second from one address", perSecond),
			fmt.Sprintf("More than %d requests a second leave no address", perSecond),
		},
		"benchmarks.md": {fmt.Sprintf("Faster than %d requests a second is not wanted", perSecond)},
		"adr/0013-one-budget-for-each-credential.md": {fmt.Sprintf("in its first second a process counts %d requests", perSecond)},
	} {
		data, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts {
			if !strings.Contains(string(data), text) {
				t.Errorf("docs/%s does not say %q", page, text)
			}
		}
	}
}
