package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// head is a file without the entries of tokens.
const head = `
accounts:
  prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: /run/cloudflare-token}}
vault: {address: "https://vault.example.com", auth: {token: {file: /run/vault-token}}}
defaults: {account: prod, schedule: "@weekly"}
`

// entry is one of tokens, with a number of its own.
func entry(i int) string {
	return fmt.Sprintf("  t%d:\n    id: f174e90a-fafe-4643-bbbc-%012d\n    sinks: [{vault: {mount: secret, path: access/t%d}}]\n", i, i, i)
}

// FuzzParts: a file whose entries of tokens are read in parts gives the same configuration, or the same faults, as
// one that is read as a whole.
func FuzzParts(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "testdata/bad/*.yaml", "../../config.example.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("%s: %d seeds, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(string(data))
		}
	}
	for _, body := range bodies {
		f.Add(head + body)
	}
	f.Fuzz(func(t *testing.T, text string) {
		whole, wholeErr := parse("test.yaml", []byte(text), 0)
		for _, size := range []int{1, 100} {
			apart, apartErr := parse("test.yaml", []byte(text), size)
			if !reflect.DeepEqual(wholeErr, apartErr) {
				t.Fatalf("in parts of %d bytes the error is\n%v\nand as a whole\n%v", size, apartErr, wholeErr)
			}
			if !reflect.DeepEqual(whole, apart) {
				t.Fatalf("in parts of %d bytes the configuration is\n%+v\nand as a whole\n%+v", size, apart, whole)
			}
		}
	})
}

// bodies are texts below head: each could be read differently in parts.
var bodies = []string{
	"tokens:\n" + entry(1) + entry(2) + entry(3),
	"tokens:   # all\n# a comment\n\n" + entry(1) + "  # another\n" + entry(2) + "\n\n",
	"tokens:\n" + entry(1) + entry(2) + "listen: 127.0.0.1:1\n",
	"tokens:\n" + entry(1) + "listen: 127.0.0.1:1\ntokens:\n" + entry(2),
	"tokens:\n" + entry(1) + "tokens:\n" + entry(2),
	"tokens:\n" + entry(1) + entry(1),
	"tokens:\n" + entry(1) + entry(2) + "    listen: x\n   listen: y\n",
	"tokens:\n" + entry(1) + "    schedule: |\n      @weekly\n" + entry(2),
	"tokens:\n" + entry(1) + "    schedule: |2\n  @weekly\n" + entry(2),
	"tokens:\n" + entry(1) + "    schedule: |\n" + entry(2),
	"tokens:\n" + entry(1) + "    schedule: \"@weekly\n" + entry(2) + "    grace: \"\n",
	"tokens:\n" + entry(1) + "    schedule: '\n" + entry(2) + "'\nlisten: x\n",
	"tokens:\n" + entry(1) + "    freezes: {\n" + entry(2) + "  }\n",
	"tokens:\n" + entry(1) + "    after: [\n" + entry(2) + "]\n",
	"tokens:\n" + entry(1) + "    account: prod\n  t3\n" + entry(2),
	"tokens:\n" + entry(1) + "    account: prod\n      t3\n" + entry(2),
	"tokens:\n" + entry(1) + "    account: &a prod\n" + entry(2) + "    grace: *a\n",
	"tokens:\n" + entry(1) + "  t3: &t\n    account: prod\n" + entry(2) + "  t4: *t\n",
	"tokens:\n" + entry(1) + "  <<: {a: b}\n" + entry(2),
	"tokens:\n" + entry(1) + "  ? t3\n  : account\n" + entry(2),
	"tokens:\n" + entry(1) + "  t3:\n  - a\n" + entry(2),
	"tokens:\n" + entry(1) + "  t3:\n" + entry(2),
	"tokens:\n" + entry(1) + "  !!str t3: a\n" + entry(2),
	"tokens:\n" + entry(1) + "---\n" + entry(2),
	"tokens:\n" + entry(1) + "...\n" + entry(2),
	"tokens:\n" + entry(1) + "...\n",
	"tokens:\n" + entry(1) + "- a\n" + entry(2),
	"tokens:\n" + entry(1) + ": a\n" + entry(2),
	"tokens:\n  - a\n" + entry(1), "tokens:\n", "tokens:", "tokens: {}\n", "tokens: ~\n", "tokens: &a\n" + entry(1), "tokens: !!map\n" + entry(1),
	"tokens:\n  # nothing\n", "tokens:\nlisten: x\n", "tokens:\n\t\n" + entry(1), "tokens:\n" + entry(1) + "\t\n" + entry(2),
	"tokens:#x\n" + entry(1), "\"tokens\":\n" + entry(1), "'tokens':\n" + entry(1), "tokens :\n" + entry(1), "tokens: # x\n" + entry(1) + "# y\nlog: {level: x}\n",
	"admin_socket: \"/run\ntokens:\n" + entry(1) + "\"\n", "admin_socket: 'a\ntokens:\n" + entry(1) + "'\n", "log: {level: info,\ntokens:\n" + entry(1) + "}\n",
	"admin_socket: /run\ntokens:\n" + entry(1), "admin_socket: |\n  /run\ntokens:\n" + entry(1), "admin_socket:\ntokens:\n" + entry(1),
	"tokens:\n" + entry(1) + entry(2) + "admin_socket: |\n  /run\n", "tokens:\n" + entry(1) + "log: {level: none}\n" + "state: {dir: x}\n",
	"tokens:\n" + entry(1) + strings.Replace(entry(2), "id:", "ids:", 1) + strings.Replace(entry(3), "f174", "g", 1),
	"tokens:\n" + entry(1) + "    renew_for: 1h\n" + entry(2) + "    freezes: {a: {from: 2026-01-01, to: 2026-01-02}}\n    after: [{exec: {command: [a]}}]\n",
	strings.ReplaceAll("tokens:\n"+entry(1)+entry(2), "\n", "\r\n"), strings.ReplaceAll("tokens:\n"+entry(1)+entry(2), "\n", "\r"),
	"tokens:\n" + entry(1) + "    schedule: \"a\u2028  b\"\n" + entry(2), "tokens:\n" + entry(1) + "    schedule: \"a\u0085  b\"\n" + entry(2),
	"tokens:\n" + entry(1) + "    schedule: @weekly\n" + entry(2), "tokens:\n" + entry(1) + "    a: b: c\n" + entry(2), "tokens:\n" + entry(1) + "  \x01\n" + entry(2),
	"tokens:\n" + entry(1) + "  " + strings.Repeat("a", 2000) + ": b\n" + entry(2), "tokens:\n" + entry(1) + "  \"t 3\": b\n  't4': c\n" + entry(2),
	"tokens:\n" + strings.ReplaceAll(entry(1)+entry(2), "  ", " "), "tokens:\n" + entry(1) + strings.ReplaceAll(entry(2), "  ", "   "),
	"%YAML 1.1\n---\ntokens:\n" + entry(1), "tokens:\n" + entry(1) + "    sinks: [{file: {path: /run/x/a}}]\n" + entry(2) + "    sinks: [{file: {path: /run/x/a}}]\n",
}

// FuzzNames: what is a name and what is a UUID is checked without a pattern, and as if there were one.
func FuzzNames(f *testing.F) {
	name := regexp.MustCompile(`^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$`)
	uuid := regexp.MustCompile(`^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	plain := regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	for _, text := range []string{"", "a", "-", "a-", "-a", "a.b_c-d", "A", "a b", "ä", strings.Repeat("a", 63), strings.Repeat("a", 64), "_", "a_b-C9", "a\n",
		"f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "F174e90a-fafe-4643-bbbc-4a0ed4fc8415", "f174e90a-fafe-4643-bbbc-4a0ed4fc841", "f174e90afafe--4643-bbbc-4a0ed4fc8415", "f174e90a-fafe-4643-bbbc-4a0ed4fc84-5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if ValidName(text) != name.MatchString(text) || isUUID(text) != uuid.MatchString(text) || isPlain(text) != plain.MatchString(text) {
			t.Errorf("%q: name %v, UUID %v, plain %v", text, ValidName(text), isUUID(text), isPlain(text))
		}
	})
}

// TestEntriesThatOnlyLookLikeOne: a file makes no more memory ready than entries of its size could fill, and no less than
// entries fill that are short.
func TestEntriesThatOnlyLookLikeOne(t *testing.T) {
	const size = 1 << 20
	for _, test := range []struct {
		line        string
		least, most int
	}{
		{"  a\n", 0, size / entrySize},
		{"  a:\n", 0, size / entrySize},
		{entry(1), size / len(entry(1)), size / len(entry(1))},
	} {
		lines := size / len(test.line)
		f, ok := apart([]byte(head+"tokens:\n"+strings.Repeat(test.line, lines)), partSize)
		if !ok || f.count < test.least || f.count > test.most+1 {
			t.Errorf("%d times %q: room is made for %d entries (%t); want %d to %d", lines, test.line, f.count, ok, test.least, test.most+1)
		}
	}
}
