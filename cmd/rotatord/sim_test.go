package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var helpFlag = regexp.MustCompile(`(?m)^ +(?:-\w, |    )--([a-z-]+)`)

// TestManualOfSim: every flag of the command is in the manual.
func TestManualOfSim(t *testing.T) {
	page, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	flags := helpFlag.FindAllStringSubmatch(invoke(t, []string{"sim", "--help"}, exitGood), -1)
	for _, f := range flags {
		if f[1] != "help" && !strings.Contains(string(page), "`--"+f[1]+"`") {
			t.Errorf("--%s is not there", f[1])
		}
	}
	if len(flags) < 18 {
		t.Errorf("only %d flags were found", len(flags))
	}
}

// TestRehearseWithFiles: the configuration in the manual is good, without a warning.
func TestRehearseWithFiles(t *testing.T) {
	page, err := os.ReadFile("../../docs/simulator.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?s)\ncat > config\.yaml <<END\n(.*?)END\n`).FindSubmatch(page)
	if block == nil {
		t.Fatal("there is no configuration")
	}
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cloudflare-api-token", "cfat_made-up")
	// The directory of the test may be below /tmp, about which there is a warning.
	text := strings.ReplaceAll(string(block[1]), "$PWD/files/", "/var/lib/rehearsal/files/")
	write("config.yaml", strings.ReplaceAll(text, "$PWD", dir))
	var out, errs strings.Builder
	if code := run([]string{"check", "--config", filepath.Join(dir, "config.yaml")}, strings.NewReader(""), &out, &errs); code != exitGood || errs.Len() > 0 {
		t.Errorf("exit code %d\n%s%s", code, out.String(), errs.String())
	}
}
