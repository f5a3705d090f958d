package deploy

import (
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// releasedPackages has the distributions' own checkers look at the packages of a release, and reads the man pages in them. What the
// checkers say and is right as it is, is in deploy/packages, with a reason each.
func releasedPackages(t *testing.T, out string) {
	t.Helper()
	found := func(t *testing.T, pattern string) string {
		files, err := filepath.Glob(filepath.Join(out, pattern))
		if err != nil || len(files) != 1 {
			t.Fatalf("%q, %v", files, err)
		}
		return files[0]
	}
	t.Run("lintian", func(t *testing.T) {
		said, err := run(t, tool(t, "lintian"), "--allow-root", "--display-info", "--fail-on", "error,warning", "--tag-display-limit", "0", found(t, "*.deb"))
		if err != nil || strings.Contains(said, "unused-override") {
			t.Errorf("lintian: %v\n%s", err, said)
		}
	})
	t.Run("rpmlint", func(t *testing.T) {
		said, err := run(t, tool(t, "rpmlint"), "--rpmlintrc", filepath.Join(root, "deploy/packages/rpmlintrc"), found(t, "*.rpm"))
		if err != nil || !strings.Contains(said, "1 packages and 0 specfiles checked; 0 errors, 0 warnings") {
			t.Errorf("rpmlint: %v\n%s", err, said)
		}
	})
	content := t.TempDir()
	if said, err := run(t, "dpkg-deb", "--extract", found(t, "*.deb"), content); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	t.Run("binary", func(t *testing.T) { // that rpmlint does not see one is in rpmlintrc
		binary, err := elf.Open(filepath.Join(content, "usr/bin/rotatord"))
		if err != nil {
			t.Fatal(err)
		}
		_ = binary.Close()
	})
	t.Run("man pages", func(t *testing.T) { releasedPages(t, filepath.Join(content, "usr/share/man")) })
}

// releasedPages formats each man page, and looks for each key of the configuration in the page of the configuration file.
func releasedPages(t *testing.T, dir string) {
	t.Helper()
	mandoc := tool(t, "mandoc")
	pages, err := filepath.Glob(filepath.Join(dir, "man[15]", "*.gz"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, page := range pages {
		said, err := run(t, "sh", "-c", `gzip -dc "$1" | "$2" -Tlint -Werror`, "sh", page, mandoc)
		if err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(page), err, said)
		}
	}
	reference, err := run(t, "sh", "-c", `gzip -dc "$1" | "$2" -Tascii -O width=500 | col -b`, "sh", filepath.Join(dir, "man5/rotatord.yaml.5.gz"), mandoc)
	if err != nil {
		t.Fatalf("%v\n%s", err, reference)
	}
	keys := regexp.MustCompile("(?m)^\\| `([^`{]+)` \\|").FindAllStringSubmatch(readFile(t, "docs/configuration.md"), -1)
	if len(keys) < 100 {
		t.Fatalf("the reference has %d keys", len(keys))
	}
	for _, key := range keys {
		if !regexp.MustCompile(`(?m)^ +` + regexp.QuoteMeta(key[1]) + `( |$)`).MatchString(reference) {
			t.Errorf("rotatord.yaml(5) has no %s", key[1])
		}
	}
	for _, wrong := range []string{"](", "**", " | ", "configuration.md#"} {
		if line := regexp.MustCompile(`(?m)^.*` + regexp.QuoteMeta(wrong) + `.*$`).FindString(reference); line != "" {
			t.Errorf("rotatord.yaml(5) shows Markdown: %s", line)
		}
	}
	if !strings.Contains(reference, "\nNAME\n") || !strings.Contains(reference, "rotatord.yaml - the configuration file of rotatord") {
		t.Errorf("rotatord.yaml(5) has no name that man -k finds:\n%.300s", reference)
	}
	if top, err := run(t, "gzip", "-dc", filepath.Join(dir, "man1/rotatord.1.gz")); err != nil || !strings.Contains(top, "rotatord.yaml(5)") {
		t.Errorf("rotatord(1) does not name the page of the configuration file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "man1/rotatord-rotate.1.gz")); err != nil {
		t.Error(err)
	}
}
