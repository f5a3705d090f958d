package program

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Commands are lines of commands, as documents have them.
type Commands []string

// Add adds the lines of a text.
func (c *Commands) Add(text string) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		*c = append(*c, strings.Join(strings.Fields(line), " "))
	}
}

var shellBlock = regexp.MustCompile("(?ms)^( *<!-- illustration: [^\n]* -->\n)? *```sh\n(.*?)^ *```")

// AllRun fails the test for each block of shell commands of a document that has a line which is not in ran, unless a
// comment before it says why it is only an illustration: see TestBlocks in cmd/rotatord.
func AllRun(t *testing.T, repository, document string, ran Commands) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, document))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range unrun(string(text), ran) {
		t.Errorf("%s: %s", document, fault)
	}
}

// unrun returns what is wrong with the blocks of a document.
func unrun(text string, ran Commands) (faults []string) {
	blocks := shellBlock.FindAllStringSubmatch(text, -1)
	if len(blocks) == 0 {
		faults = append(faults, "it has no commands")
	}
	for _, block := range blocks {
		var lines Commands
		lines.Add(block[2])
		missing := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return slices.Contains(ran, line) })
		switch marked := block[1] != ""; {
		case len(missing) > 0 && !marked:
			faults = append(faults, fmt.Sprintf("no test runs this block: run it, or say before it why it is an illustration: <!-- illustration: why -->\n%s\nnot run: %q", block[2], missing))
		case len(missing) == 0 && marked:
			faults = append(faults, "this block is run, and marked as an illustration:\n"+block[2])
		}
	}
	return faults
}
