package main

import (
	"os"
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
