package app_test

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var updatePage = flag.Bool("update", false, "write the imports in docs/architecture.md again")

const architecturePage = "../../docs/architecture.md"

// importsCell returns what a package may import, as docs/architecture.md shows it. The core is one word.
func importsCell(may []string) string {
	var all []string
	hasCore := !slices.ContainsFunc(core, func(p string) bool { return !slices.Contains(may, p) })
	if hasCore {
		all = append(all, "*core*")
	}
	may = slices.Clone(may)
	slices.Sort(may)
	for _, p := range may {
		if !hasCore || !slices.Contains(core, p) {
			all = append(all, "`"+strings.TrimPrefix(p, "internal/")+"`")
		}
	}
	return strings.Join(all, ", ")
}

// TestArchitecturePage checks that the page has every package, its job, and what it may import.
func TestArchitecturePage(t *testing.T) {
	content, err := os.ReadFile(architecturePage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	_, section, found := strings.Cut(page, "\n## The rooms\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatal("the section \"The rooms\" is not there")
	}
	for _, p := range core {
		if sentence, _, _ := strings.Cut(section, "A test compares"); !strings.Contains(sentence, "`"+strings.TrimPrefix(p, "internal/")+"`") {
			t.Errorf("%s does not say that the core has %s", architecturePage, p)
		}
	}
	var rooms []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*?) \\|(?: (.*))? ?\\|$").FindAllStringSubmatch(section, -1) {
		room, job, imports := row[1], row[2], strings.TrimSpace(row[3])
		rooms = append(rooms, room)
		may, known := allowed[room]
		want := importsCell(may)
		switch {
		case !known:
			t.Errorf("%s has the room %s, which is not in the picture", architecturePage, room)
		case job == "":
			t.Errorf("%s does not say what %s is for", architecturePage, room)
		case imports == want:
		case *updatePage:
			page = strings.Replace(page, row[0], "| `"+room+"` | "+job+" | "+want+" |", 1)
		default:
			t.Errorf("%s says that %s may import %q, the picture says %q: run go test ./internal/app -run TestArchitecturePage -update", architecturePage, room, imports, want)
		}
	}
	for room := range allowed {
		if !slices.Contains(rooms, room) {
			t.Errorf("%s has no row for %s: write what it is for", architecturePage, room)
		}
	}
	if *updatePage && page != string(content) {
		if err := os.WriteFile(architecturePage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
