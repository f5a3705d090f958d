package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rotatord/internal/drill"
)

// TestManualOfDrill: every disaster and every flag is in the manual, the configuration there
// is one, and what it shows is what the program says.
func TestManualOfDrill(t *testing.T) {
	content, err := os.ReadFile("../../docs/drill.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	for _, d := range drill.Names() {
		if row := "| `" + d[0] + "` | " + d[1] + " |\n"; !strings.Contains(page, row) {
			t.Errorf("the manual does not have the row %s", row)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil || !regexp.MustCompile(`rehearses up to `+strings.TrimSpace(counted(len(drill.Names()), "", ""))+` disasters`).Match(readme) {
		t.Errorf("the README does not say that there are %d disasters (%v)", len(drill.Names()), err)
	}
	for _, f := range helpFlag.FindAllStringSubmatch(invoke(t, []string{"drill", "--help"}, exitGood), -1) {
		if f[1] != "help" && f[1] != "output" && !strings.Contains(page, "--"+f[1]) {
			t.Errorf("--%s is not there", f[1])
		}
	}
	if testing.Short() {
		return
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindStringSubmatch(page)
	if example == nil {
		t.Fatal("there is no example")
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(example[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	out := invoke(t, []string{"drill", "--config", path, "--only", "500-before"}, exitGood)
	lines := regexp.MustCompile(`(?m)^(?:\d tokens take part|500-before|  ci-deploy|  pair|  alerts).*$`).FindAllString(out, -1)
	if len(lines) != 5 {
		t.Errorf("%d lines to compare in\n%s", len(lines), out)
	}
	for _, line := range lines {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("the manual does not show %q", line)
		}
	}
}
