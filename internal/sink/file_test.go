package sink_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/sink"
	"rotatord/internal/sink/sinktest"
)

var fields = config.SinkFields{ClientIDField: sinktest.ClientIDField, ClientSecretField: sinktest.ClientSecretField}

// fileIn returns a sink for a file in a new directory.
func fileIn(t *testing.T, format string) (config.FileSink, *sink.File) {
	t.Helper()
	c := config.FileSink{Path: filepath.Join(t.TempDir(), "cf."+format), Format: format, Mode: 0o600, SinkFields: fields}
	return c, sink.NewFile(c)
}

func TestFileConformance(t *testing.T) {
	for _, format := range []string{"env", "json", "yaml"} {
		t.Run(format, func(t *testing.T) {
			sinktest.Run(t, func(t *testing.T) sinktest.Harness {
				c, f := fileIn(t, format)
				versions := 0
				f.Written(func() { versions++ })
				return sinktest.Harness{
					Sink: f, Typed: format != "env",
					WithPrevious: func(*testing.T) rotation.Sink {
						c := c
						c.SinkFields = previousFields
						f := sink.NewFile(c)
						f.Written(func() { versions++ })
						return f
					},
					Fields:       func(t *testing.T) map[string]any { return fieldsOf(t, c) },
					OutsideWrite: func(t *testing.T, all map[string]any) { write(t, c.Path, written(t, format, all)) },
					Delete: func(t *testing.T) {
						if err := os.Remove(c.Path); err != nil {
							t.Fatal(err)
						}
					},
					Versions: func(*testing.T) int { return versions },
					DuringNextWrite: func(_ *testing.T, do func()) {
						f.BeforeCheck(func() { f.BeforeCheck(nil); do() })
					},
					Deny: func(t *testing.T) {
						if err := os.Chmod(filepath.Dir(c.Path), 0o777); err != nil {
							t.Fatal(err)
						}
					},
					DeniedSays: "chmod o-w",
				}
			})
		})
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// written is a file with some fields. In an env file a value is a text.
func written(t *testing.T, format string, all map[string]any) string {
	t.Helper()
	if format != "env" {
		b, err := json.Marshal(all) // which is YAML, too
		if err != nil {
			t.Fatal(err)
		}
		if format == "yaml" {
			var node yaml.Node
			if err := errors.Join(yaml.Unmarshal(b, &node), unflow(&node)); err != nil {
				t.Fatal(err)
			}
			if b, err = yaml.Marshal(&node); err != nil {
				t.Fatal(err)
			}
		}
		return string(b)
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		text, ok := all[name].(string)
		if !ok {
			value, _ := json.Marshal(all[name])
			text = string(value)
		}
		fmt.Fprintf(&b, "%s='%s'\n", name, text)
	}
	return b.String()
}

// unflow lets a node be written in lines.
func unflow(n *yaml.Node) error {
	n.Style = 0
	for _, inner := range n.Content {
		_ = unflow(inner)
	}
	return nil
}

// fieldsOf reads a file as its consumers do: an env file by a shell.
func fieldsOf(t *testing.T, c config.FileSink) map[string]any {
	t.Helper()
	b, err := os.ReadFile(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	all := map[string]any{}
	switch c.Format {
	case "json":
		decoder := json.NewDecoder(strings.NewReader(string(b)))
		decoder.UseNumber()
		err = errors.Join(err, decoder.Decode(&all))
	case "yaml":
		err = errors.Join(err, yaml.Unmarshal(b, &all))
	default:
		all = shell(t, c.Path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// shell returns the variables that a shell has after reading a file.
func shell(t *testing.T, path string) map[string]any {
	t.Helper()
	cmd := exec.Command("env", "-i", "PATH="+os.Getenv("PATH"), "sh", "-c", `set -a; . "$0"; exec env -0`, path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	all := map[string]any{}
	for entry := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		if name, value, _ := strings.Cut(entry, "="); name != "PATH" && name != "PWD" && name != "_" && name != "SHLVL" && name != "OLDPWD" {
			all[name] = value
		}
	}
	return all
}

func credential(id, value string) rotation.Credential {
	return rotation.Credential{ClientID: id, ClientSecret: secret.New(value)}
}

// TestFileContents: what else is in a file stays, with its layout where that is possible.
func TestFileContents(t *testing.T) {
	const id, value = "88bf.access", "cfast_CANARY"
	for name, test := range map[string]struct{ format, before, after string }{
		"env, new":            {"env", "", "CF_ACCESS_CLIENT_ID=88bf.access\nCF_ACCESS_CLIENT_SECRET=cfast_CANARY\n"},
		"env, other lines":    {"env", "# mine\nA='b c'\n\nexport CF_ACCESS_CLIENT_SECRET=\"old\"\n; end", "# mine\nA='b c'\n\nexport CF_ACCESS_CLIENT_SECRET=cfast_CANARY\n; end\nCF_ACCESS_CLIENT_ID=88bf.access\n"},
		"env, similar names":  {"env", "XCF_ACCESS_CLIENT_ID=x\nCF_ACCESS_CLIENT_ID_OLD=y\n", "XCF_ACCESS_CLIENT_ID=x\nCF_ACCESS_CLIENT_ID_OLD=y\nCF_ACCESS_CLIENT_ID=88bf.access\nCF_ACCESS_CLIENT_SECRET=cfast_CANARY\n"},
		"json, new":           {"json", "", "{\n  \"CF_ACCESS_CLIENT_ID\": \"88bf.access\",\n  \"CF_ACCESS_CLIENT_SECRET\": \"cfast_CANARY\"\n}\n"},
		"json, order":         {"json", "{\n\t\"z\": 1.0,\n\t\"CF_ACCESS_CLIENT_SECRET\" : \"old\",\n\t\"a\": [1, 2]\n}", "{\n\t\"z\": 1.0,\n\t\"CF_ACCESS_CLIENT_SECRET\" : \"cfast_CANARY\",\n\t\"a\": [1, 2],\n\t\"CF_ACCESS_CLIENT_ID\": \"88bf.access\"\n}"},
		"json, one line":      {"json", `{"a":"<>"}`, `{"a":"<>", "CF_ACCESS_CLIENT_ID": "88bf.access", "CF_ACCESS_CLIENT_SECRET": "cfast_CANARY"}`},
		"yaml, new":           {"yaml", "", "CF_ACCESS_CLIENT_ID: '88bf.access'\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\n"},
		"yaml, comments":      {"yaml", "# head\nz: 1   # one\n\nCF_ACCESS_CLIENT_SECRET: old  # ours\na:\n    - b: >-\n        folded\n          more\n", "# head\nz: 1   # one\n\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'  # ours\na:\n    - b: >-\n        folded\n          more\nCF_ACCESS_CLIENT_ID: '88bf.access'\n"},
		"yaml, quotes":        {"yaml", "CF_ACCESS_CLIENT_ID: 'it''s # old' # x\nCF_ACCESS_CLIENT_SECRET: \"a\\\" # b\"\n", "CF_ACCESS_CLIENT_ID: '88bf.access' # x\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\n"},
		"yaml, in braces":     {"yaml", "{a: 1, CF_ACCESS_CLIENT_ID: old} # x\n", "{a: 1, CF_ACCESS_CLIENT_ID: '88bf.access', CF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'} # x\n"},
		"yaml, many lines":    {"yaml", "# top\n\nCF_ACCESS_CLIENT_ID: >-\n  old\n  value\nb: &x 1\nc: *x\n", "# top\n\nCF_ACCESS_CLIENT_ID: '88bf.access'\nb: &x 1\nc: *x\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\n"},
		"yaml, end marker":    {"yaml", "---\na: 1\n... # end\n# after\n", "---\na: 1\nCF_ACCESS_CLIENT_ID: '88bf.access'\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\n... # end\n# after\n"},
		"yaml, end, no break": {"yaml", "a: 1\n...", "a: 1\nCF_ACCESS_CLIENT_ID: '88bf.access'\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\n..."},
		"yaml, end in a text": {"yaml", "a: '...'\nb: |\n  ...\n", "a: '...'\nb: |\n  ...\nCF_ACCESS_CLIENT_ID: '88bf.access'\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\n"},
		"yaml, Windows":       {"yaml", "a: 1\r\nCF_ACCESS_CLIENT_ID: x\r\n", "a: 1\r\nCF_ACCESS_CLIENT_ID: '88bf.access'\r\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\r\n"},
		"yaml, Windows, cut":  {"yaml", "a: 1\r\nb: 2", "a: 1\r\nb: 2\r\nCF_ACCESS_CLIENT_ID: '88bf.access'\r\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\r\n"},
		"json, Windows":       {"json", "{\r\n  \"a\": 1\r\n}\r\n", "{\r\n  \"a\": 1,\r\n  \"CF_ACCESS_CLIENT_ID\": \"88bf.access\",\r\n  \"CF_ACCESS_CLIENT_SECRET\": \"cfast_CANARY\"\r\n}\r\n"},
		"json, Windows, new":  {"json", "{\r\n}\r\n", "{\r\n  \"CF_ACCESS_CLIENT_ID\": \"88bf.access\",\r\n  \"CF_ACCESS_CLIENT_SECRET\": \"cfast_CANARY\"\r\n}\r\n"},
		"yaml, comments only": {"yaml", "# mine\n", "# mine\nCF_ACCESS_CLIENT_ID: '88bf.access'\nCF_ACCESS_CLIENT_SECRET: 'cfast_CANARY'\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c, f := fileIn(t, test.format)
			if test.before != "" {
				write(t, c.Path, test.before)
			}
			if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential(id, value)}); err != nil {
				t.Fatal(err)
			}
			if got := content(t, c.Path); got != test.after {
				t.Errorf("got\n%s\nwant\n%s", got, test.after)
			}
			if found, err := f.ReadBack(t.Context()); err != nil || found.ClientID != id || found.ClientSecret.Reveal() != value {
				t.Errorf("%+v, %v", found, err)
			}
		})
	}
}

// TestFileForeign: a file that cannot be read in its format is refused and never overwritten, and the error
// repeats nothing of it.
func TestFileForeign(t *testing.T) {
	for name, test := range map[string]struct{ format, before, says string }{
		"env, text":          {"env", "hello CANARY\n", "line 1 is not NAME=VALUE"},
		"env, Windows":       {"env", "A=b\r\nCF_ACCESS_CLIENT_ID=CANARY\r\n", "line 1 ends with a carriage return"},
		"env, NUL":           {"env", "A=CANARY\x00\n", "it is not UTF-8 text"},
		"env, not UTF-8":     {"env", "A=CANARY\xff\n", "it is not UTF-8 text"},
		"env, two lines":     {"env", "A=\"CANARY\nCF_ACCESS_CLIENT_ID=x\"\n", "goes on in the next line"},
		"env, continued":     {"env", "A=CANARY\\\nB=c\n", "goes on in the next line"},
		"env, twice":         {"env", "CF_ACCESS_CLIENT_ID=CANARY\nexport CF_ACCESS_CLIENT_ID=y\n", "for the second time"},
		"env, mark":          {"env", "\ufeffA=CANARY\n", "byte order mark"},
		"env, UTF-16":        {"env", "\xff\xfeA\x00=\x00C\x00", "it is UTF-16 text"},
		"json, cut off":      {"json", "{\n\"CF_ACCESS_CLIENT_ID\": \"CANARY", "it ends before its object does, in line 2: is it cut off?"},
		"json, comma":        {"json", "{\n\"a\": 1,\n\"CANARY\": 2,\n}\n", "line 4 is not valid JSON"},
		"json, words":        {"json", "{\n\"a\": CANARY\n}\n", "line 2 is not valid JSON"},
		"json, list":         {"json", `["CANARY"]`, "valid JSON and not an object"},
		"json, two":          {"json", "{}\n{\"a\": \"CANARY\"}", "it has something after its first value, in line 2"},
		"json, twice":        {"json", `{"CF_ACCESS_CLIENT_ID": "a", "CF_ACCESS_CLIENT_ID": "CANARY"}`, "twice"},
		"json, mark":         {"json", "\ufeff{\"a\": \"CANARY\"}", "it begins with a byte order mark: save it as UTF-8 without one"},
		"json, UTF-16":       {"json", "\xfe\xff\x00{\x00}", "it is UTF-16 text"},
		"yaml, broken":       {"yaml", "a: 1\nb: [CANARY\n", "it is not valid YAML, in line 1 or near it"},
		"yaml, anchor":       {"yaml", "a: 1\nb: *CANARY\n", "it is not valid YAML"},
		"yaml, tab":          {"yaml", "a:\n\tb: CANARY\n", "it is not valid YAML, in line 2 or near it"},
		"yaml, text":         {"yaml", "CANARY\n", "valid YAML and not a mapping"},
		"yaml, list":         {"yaml", "- CANARY\n", "valid YAML and not a mapping"},
		"yaml, two":          {"yaml", "a: b\n---\nc: CANARY\n", "more than one YAML document"},
		"yaml, second":       {"yaml", "a: b\n---\nc: [CANARY\n", "it is not valid YAML, in line 2 or near it"},
		"yaml, twice":        {"yaml", "CF_ACCESS_CLIENT_ID: a\nCF_ACCESS_CLIENT_ID: CANARY\n", "twice"},
		"yaml, alias target": {"yaml", "CF_ACCESS_CLIENT_ID: &x CANARY\nb: *x\n", ""},
		"yaml, mark":         {"yaml", "\ufeffa: CANARY\n", "it begins with a byte order mark: save it as UTF-8 without one"},
		"yaml, UTF-16":       {"yaml", "\xff\xfea\x00:\x00 \x001\x00", "it is UTF-16 text"},
		"large":              {"env", strings.Repeat("# CANARY\n", 1<<17), "it is larger than 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			c, f := fileIn(t, test.format)
			write(t, c.Path, test.before)
			_, preflight := f.Preflight(t.Context())
			_, store := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", "cfast_NEW")})
			for _, err := range []error{preflight, store} {
				if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), c.Path) || strings.Contains(err.Error(), "CANARY") {
					t.Errorf("%v, want %q, and neither the path, which the caller names, nor anything of the file", err, test.says)
				}
			}
			if content(t, c.Path) != test.before {
				t.Error("it was overwritten")
			}
		})
	}
}

// TestFileQuotes: a shell reads back every value that can be on one line; a value with a line break or a NUL
// is refused, whatever the format.
func TestFileQuotes(t *testing.T) {
	for _, value := range []string{
		"cfast_0aZ-_", "a b", " a ", "$HOME", "`id`", "it's", `"`, `\`, `a\nb`, `it's "$x" \ ` + "`y`", "#x", "a #b", "~", "*", "!x", "é", "&;|<>()", "=", "'", "''",
	} {
		for _, format := range []string{"env", "json", "yaml"} {
			c, f := fileIn(t, format)
			for range 2 { // over nothing, and over itself with another mode
				if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", value)}); err != nil {
					t.Fatalf("%s %q: %v", format, value, err)
				}
				_ = os.Chmod(c.Path, 0o640)
			}
			if got := fieldsOf(t, c)[sinktest.ClientSecretField]; got != value {
				t.Errorf("%s: %q is read as %q", format, value, got)
			}
			if found, err := f.ReadBack(t.Context()); err != nil || found.ClientSecret.Reveal() != value {
				t.Errorf("%s: %q is read back as %q, %v", format, value, found.ClientSecret.Reveal(), err)
			}
		}
	}
	for _, value := range []string{"", "CANARY\n", "\nCANARY", "CANARY\x00", "CANARY\r", "\tCANARY", "CANARY\xff", "CANARY\u2028"} {
		for _, format := range []string{"env", "json", "yaml"} {
			c, f := fileIn(t, format)
			_, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", value)})
			if err == nil || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("%s %q: %v", format, value, err)
			}
			if _, err := os.Lstat(c.Path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s %q: there is a file", format, value)
			}
		}
	}
	// Every value of Cloudflare's is written without quotes, which Docker would take for a part of it.
	c, f := fileIn(t, "env")
	if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("88bf3b6d86161464f6509f7219099e57.access", "cfast_"+strings.Repeat("aB3-_", 9))}); err != nil || strings.ContainsAny(content(t, c.Path), `'"\`) {
		t.Errorf("%v\n%s", err, content(t, c.Path))
	}
}

// TestFileIsRefused: what is not a regular file, or is in a directory where others can write, is refused.
func TestFileIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		set  func(t *testing.T, c *config.FileSink) error
		says string
	}{
		"a symbolic link":           {func(_ *testing.T, c *config.FileSink) error { return os.Symlink("/etc/passwd", c.Path) }, "symbolic link"},
		"a link that leads nowhere": {func(_ *testing.T, c *config.FileSink) error { return os.Symlink("nowhere", c.Path) }, "symbolic link"},
		"a directory":               {func(_ *testing.T, c *config.FileSink) error { return os.Mkdir(c.Path, 0o700) }, "not a regular file"},
		"a named pipe":              {func(_ *testing.T, c *config.FileSink) error { return syscall.Mkfifo(c.Path, 0o600) }, "not a regular file"},
		"a device":                  {func(_ *testing.T, c *config.FileSink) error { c.Path = "/dev/null"; return nil }, "not a regular file"},
		"no directory": {func(_ *testing.T, c *config.FileSink) error {
			c.Path = filepath.Join(filepath.Dir(c.Path), "no", "x")
			return nil
		}, "does not exist: create it"},
		"a file above":           {func(t *testing.T, c *config.FileSink) error { write(t, c.Path, ""); c.Path += "/x"; return nil }, "not a directory"},
		"everyone writes there":  {func(_ *testing.T, c *config.FileSink) error { return os.Chmod(filepath.Dir(c.Path), 0o1777) }, "chmod o-w"},
		"everyone writes above":  {func(_ *testing.T, c *config.FileSink) error { return below(c, 0o777, 0) }, "can be changed by every user"},
		"no such user":           {func(_ *testing.T, c *config.FileSink) error { c.Owner = "nobody-here"; return nil }, "no user \"nobody-here\""},
		"no such group":          {func(_ *testing.T, c *config.FileSink) error { c.GroupName = "nobody-here"; return nil }, "no group \"nobody-here\""},
		"a stranger's directory": {func(_ *testing.T, c *config.FileSink) error { return os.Chown(filepath.Dir(c.Path), 64000, 64000) }, "belongs to uid 64000"},
		"a stranger's above":     {func(_ *testing.T, c *config.FileSink) error { c.Owner = "64000"; return below(c, 0o755, 64000) }, "belongs to uid 64000"},
		"a group writes there": {func(_ *testing.T, c *config.FileSink) error {
			dir := filepath.Dir(c.Path)
			return errors.Join(os.Chown(dir, 0, 64000), os.Chmod(dir, 0o770))
		}, "chmod g-w"},
		"another program's own file": {func(t *testing.T, c *config.FileSink) error { write(t, c.Path, "[Unit]\n"); return nil }, "not NAME=VALUE"},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := fileIn(t, "env")
			if err := test.set(t, &c); errors.Is(err, fs.ErrPermission) {
				t.Skip("only root can give files to other users")
			} else if err != nil {
				t.Fatal(err)
			}
			f := sink.NewFile(c)
			_, preflight := f.Preflight(t.Context())
			_, store := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", "cfast_CANARY")})
			for _, err := range []error{preflight, store} {
				if err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "CANARY") {
					t.Errorf("%v, want %q", err, test.says)
				}
			}
		})
	}
}

// below moves the file one directory down. The one above gets this mode and owner.
func below(c *config.FileSink, mode fs.FileMode, uid int) error {
	above := filepath.Dir(c.Path)
	dir := filepath.Join(above, "below")
	c.Path = filepath.Join(dir, "x")
	return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(above, mode), os.Chown(above, uid, -1))
}

// TestFileAccess: mode, owner and group are set on a new file and on one that is there; where none is
// configured, those of the file stay.
func TestFileAccess(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	c, f := fileIn(t, "env")
	is := func(mode fs.FileMode, uid, gid uint32) {
		t.Helper()
		info, err := os.Stat(c.Path)
		if err != nil {
			t.Fatal(err)
		}
		stat := info.Sys().(*syscall.Stat_t)
		if info.Mode() != mode || stat.Uid != uid || stat.Gid != gid {
			t.Errorf("the file is %s of %d:%d, want %s of %d:%d", info.Mode(), stat.Uid, stat.Gid, mode, uid, gid)
		}
	}
	store := func(f *sink.File, value string) {
		t.Helper()
		if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", value)}); err != nil {
			t.Fatal(err)
		}
	}
	self, group := uint32(os.Getuid()), uint32(os.Getgid())
	store(f, "one")
	is(0o600, self, group)
	if err := os.Chmod(c.Path, 0o644); err != nil {
		t.Fatal(err)
	}
	store(f, "one") // the same secret: the mode is still corrected
	is(0o600, self, group)
	if self != 0 {
		t.Skip("only root can give files to other users")
	}
	if err := os.Chown(c.Path, 64000, 64001); err != nil {
		t.Fatal(err)
	}
	store(f, "two")
	is(0o600, 64000, 64001)
	inherits, g := fileIn(t, "env") // a directory that gives its group to each new file
	if dir := filepath.Dir(inherits.Path); errors.Join(os.Chown(dir, 0, 64004), os.Chmod(dir, 0o750|fs.ModeSetgid)) != nil {
		t.Fatal(dir)
	}
	store(g, "one")
	if info, err := os.Stat(inherits.Path); err != nil || info.Sys().(*syscall.Stat_t).Gid != 64004 {
		t.Errorf("%v, %v", info, err)
	}
	c.Mode, c.Owner, c.GroupName = 0o640, "64002", "64003"
	f = sink.NewFile(c)
	f.BeforeCheck(func() { // while the new file has no name yet, only its owner can read it
		found, err := filepath.Glob(filepath.Join(filepath.Dir(c.Path), ".new-*"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%v, %v", found, err)
		}
		if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm()&^0o640 != 0 {
			t.Errorf("%v, %v", info, err)
		}
	})
	store(f, "three")
	is(0o640, 64002, 64003)
	if err := os.Chown(filepath.Dir(c.Path), 64002, 0); err != nil { // the owner of the file may own its directory
		t.Fatal(err)
	}
	store(f, "four")
	is(0o640, 64002, 64003)
}

// TestFileLeftover: what a crash left is removed by the next write, and nothing else is.
func TestFileLeftover(t *testing.T) {
	c, f := fileIn(t, "env")
	dir := filepath.Dir(c.Path)
	write(t, filepath.Join(dir, ".new-cf.env-123"), "CF_ACCESS_CLIENT_SECRET=cfast_CANARY\n")
	write(t, filepath.Join(dir, ".new-other-123"), "")
	if _, err := f.Preflight(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Store(t.Context(), rotation.Delivery{Credential: credential("id", "value")}); err != nil {
		t.Fatal(err)
	}
	var names []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{".new-other-123", "cf.env"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("the directory has %q, %v, want %q", names, err, want)
	}
}

// TestFileGivenUp: a write whose caller has given up does not take place.
func TestFileGivenUp(t *testing.T) {
	c, f := fileIn(t, "json")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f.BeforeCheck(cancel)
	if _, err := f.Store(ctx, rotation.Delivery{Credential: credential("id", "late")}); err == nil {
		t.Error("it was reported as done")
	}
	if _, err := f.Preflight(t.Context()); err != nil { // which waits for the write
		t.Error(err)
	}
	if _, err := os.Lstat(c.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("it was written")
	}
}
