package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"rotatord/internal/config/raw"
)

// TestTables compares the tables of kinds with what the file may say: each key that is supported is in
// the table, and each kind of the table is a key.
func TestTables(t *testing.T) {
	for name, test := range map[string]struct {
		written reflect.Type
		kinds   []string
	}{
		"sinks":        {reflect.TypeFor[raw.Sink](), keysOf(kindsIn[Sink, SinkKinds]())},
		"hooks":        {reflect.TypeFor[raw.Hook](), keysOf(kindsIn[Hook, HookKinds]())},
		"auth methods": {reflect.TypeFor[raw.VaultAuth](), keysOf(kindsIn[VaultAuth, AuthMethods]())},
	} {
		var keys []string
		for key := range fieldsOf(test.written) {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		if len(keys) == 0 || !slices.Equal(keys, test.kinds) {
			t.Errorf("%s: the file may say %q, and the table has %q", name, keys, test.kinds)
		}
	}
}

// TestReceiverTable: each kind of receiver in the table is a key of its entry.
func TestReceiverTable(t *testing.T) {
	for _, kind := range kindsIn[ReceiverKind, ReceiverKinds]() {
		if _, written := fieldsOf(reflect.TypeFor[raw.Receiver]())[kind.Kind()]; !written {
			t.Errorf("%s is in the table, and the file cannot say it", kind.Kind())
		}
	}
}

// withoutVault is a configuration whose only sink is a file.
const withoutVault = `
accounts: {prod: {account_id: 023e105f4ecef8ad9ca31a8372d0c353, api_token: {file: /run/cloudflare-token}}}
tokens:
  ci:
    account: prod
    id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415
    schedule: "@weekly"
    sinks: [{file: {path: %s}}]
`

// TestVaultIsOptional: without a sink that needs it the section may be missing, and is a warning if it is there.
func TestVaultIsOptional(t *testing.T) {
	text := fmt.Sprintf(withoutVault, "/var/lib/ci/cf.env")
	c, err := Parse("test.yaml", []byte(text))
	if err != nil || c.Vault != nil || len(c.Warnings) != 0 || len(c.Secrets()) != 1 || len(c.Files()) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	c, err = Parse("test.yaml", []byte("vault: {address: 'https://vault.example.com', auth: {token: {env: TOKEN}}}"+text))
	if err != nil || c.Vault == nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0].Message, "is used by no sink") {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestVolatileDirectory: files in one directory that a restart takes away are one warning, which names the tokens.
func TestVolatileDirectory(t *testing.T) {
	var text strings.Builder
	fmt.Fprintf(&text, withoutVault, "/run/ci/a.env")
	for i := range 8 {
		fmt.Fprintf(&text, "  other-%d: {account: prod, id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b1%d, schedule: \"@weekly\", sinks: [{file: {path: /run/ci/%d.env}}]}\n", i, i, i)
	}
	c, err := Parse("test.yaml", []byte(text.String()))
	if err != nil || len(c.Warnings) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	if want := "(and so is each file in /run/ci of other-0, other-1, other-2, other-3, other-4, 3 more)"; !strings.Contains(c.Warnings[0].Message, want) {
		t.Errorf("%s", c.Warnings[0].Message)
	}
}

// TestVolatilePlace: a file that a restart of the machine takes away is a warning.
func TestVolatilePlace(t *testing.T) {
	for place, want := range map[string]int{"/run/ci/cf.env": 1, "/tmp/cf.env": 1, "/dev/shm/cf.env": 1, "/var/lib/ci/run/cf.env": 0, "/runs/cf.env": 0} {
		c, err := Parse("test.yaml", fmt.Appendf(nil, withoutVault, place))
		if err != nil || len(c.Warnings) != want {
			t.Errorf("%s: %v, %v", place, c, err)
		}
	}
}

// TestOnePlaceWrittenInTwoWays: two entries that write to one place are refused however they write it, and such that
// only look alike are not.
func TestOnePlaceWrittenInTwoWays(t *testing.T) {
	for _, test := range []struct {
		first, second string
		refused       bool
	}{
		{"vault: {mount: a, path: b/c}", "vault: {mount: a/b, path: c}", true},
		{"vault: {mount: a/b, path: c}", "vault: {mount: a, path: b/c}", true},
		{"vault: {mount: a/b/c, path: d}", "vault: {mount: a, path: b/c/d}", true},
		{"vault: {mount: /a/, path: /b/}", "vault: {mount: a, path: b}", true},
		{"vault: {mount: a, path: bc}", "vault: {mount: ab, path: c}", false},
		{"vault: {mount: a, path: b/c}", "vault: {mount: a, path: b}", false},
		{"vault: {mount: a, path: b/c}", "vault: {mount: a, path: b/C}", false},
		{"vault: {mount: a, path: b}", "kubernetes: {namespace: a, name: b}", false},
		{"kubernetes: {namespace: a, name: b.c}", "kubernetes: {namespace: a, name: b.c}", true},
		{"kubernetes: {namespace: a, name: b-c}", "kubernetes: {namespace: a-b, name: c}", false},
		{"file: {path: /etc/ci/cf.env}", "file: {path: /etc//ci/./cf.env}", true},
		{"file: {path: /not-there/ci/cf.env}", "file: {path: //not-there/./ci//cf.env}", true},
		{"file: {path: /not-there/ci/cf.env}", "file: {path: /not-there/ci.cf/env}", false},
	} {
		first := strings.Replace(withoutVault, "file: {path: %s}", test.first, 1)
		text := first + "  other: {account: prod, id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b11, schedule: '@weekly', sinks: [{" + test.second + "}]}\n"
		_, err := Parse("test.yaml", []byte(text))
		if refused := err != nil && strings.Contains(err.Error(), ", and so does tokens.ci.sinks[0]"); refused != test.refused {
			t.Errorf("%s and %s: %v", test.first, test.second, err)
		}
	}
}

// TestOneFileThroughALink: two tokens that write to one file under two names of its directory are refused when the
// configuration is loaded, and the message has both names.
func TestOneFileThroughALink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", filepath.Join(dir, "link")); err != nil {
		t.Skip("no symbolic links:", err)
	}
	for _, test := range []struct {
		first, second string
		refused       bool
	}{
		{"real/cf.env", "link/cf.env", true},
		{"link/cf.env", "real/cf.env", true},
		{"real/cf.env", "real/../real/./cf.env", false}, // it has .. in it, which is another fault
		{"real/cf.env", "link/other.env", false},
		{"real/cf.env", "not-there/cf.env", false},
		{"not-there/cf.env", "not-there/cf.env", true},
	} {
		first, second := dir+"/"+test.first, dir+"/"+test.second
		text := fmt.Sprintf(withoutVault, first) + fmt.Sprintf("  other: {account: prod, id: 3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b11, schedule: '@weekly', sinks: [{file: {path: %s}}]}\n", second)
		_, err := Parse("test.yaml", []byte(text))
		says := fmt.Sprintf("writes to %q, and so does tokens.ci.sinks[0].file (line 8)", second)
		if refused := err != nil && strings.Contains(err.Error(), says); refused != test.refused {
			t.Errorf("%s and %s: %v", test.first, test.second, err)
		}
		if test.refused && first != second && !strings.Contains(err.Error(), fmt.Sprintf("as %q: a symbolic link or a mount leads both to one file", first)) {
			t.Errorf("%s and %s: %v", test.first, test.second, err)
		}
	}
}
