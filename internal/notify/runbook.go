package notify

import "rotatord/internal/status"

// runbookOf returns the section of the runbook that explains a trouble.
func runbookOf(t status.Trouble) string {
	if t.Kind == "" {
		return ""
	}
	return "docs/runbook.md"
}
