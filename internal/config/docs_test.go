package config_test

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"rotatord/internal/config"
	"rotatord/internal/config/raw"
	"rotatord/internal/racedetector"
)

const (
	examplePath   = "../../config.example.yaml"
	schemaPath    = "../../docs/config.schema.json"
	referencePath = "../../docs/configuration.md"
)

// field is one key that a file may have.
type field struct {
	defaultText string // from the schema's keywords
}

// rawFields returns all keys by path, such as tokens.NAME.sinks[].vault.
func rawFields() map[string]field {
	fields := map[string]field{}
	var walk func(path string, t reflect.Type)
	walk = func(path string, t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer:
			walk(path, t.Elem())
		case reflect.Map:
			walk(path+".NAME", t.Elem())
		case reflect.Slice:
			walk(path+"[]", t.Elem())
		case reflect.Struct:
			for _, f := range reflect.VisibleFields(t) {
				if f.Anonymous {
					continue
				}
				key := strings.TrimPrefix(path+"."+f.Tag.Get("yaml"), ".")
				var found field
				for keyword := range strings.SplitSeq(f.Tag.Get("jsonschema"), ",") {
					if text, ok := strings.CutPrefix(keyword, "default="); ok {
						found.defaultText = text
					}
				}
				fields[key] = found
				walk(key, f.Type)
			}
		}
	}
	walk("", reflect.TypeFor[raw.File]())
	return fields
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRawFields(t *testing.T) {
	fields := rawFields()
	for _, path := range []string{"listen", "vault.auth.approle.role_id.file", "tokens.NAME.sinks[].vault.fields.client_secret", "defaults.grace"} {
		if _, ok := fields[path]; !ok {
			t.Errorf("%s is not found, so the tests below prove nothing", path)
		}
	}
	for _, path := range []string{"defaults.id", "defaults.pair", "defaults.create"} {
		if _, ok := fields[path]; ok {
			t.Errorf("%s is taken", path)
		}
	}
}

// TestReference checks that docs/configuration.md has a row for each field, with its
// default, and no row for anything else.
func TestReference(t *testing.T) {
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`{]+)` \\|(.*)$").FindAllStringSubmatch(string(read(t, referencePath)), -1) {
		if _, twice := documented[row[1]]; twice {
			t.Errorf("%s has two rows", row[1])
		}
		documented[row[1]] = row[2]
	}
	fields := rawFields()
	for _, path := range slices.Sorted(maps.Keys(fields)) {
		f, secretForm := fields[path], regexp.MustCompile(`(api_token|api_key|identity|auth\.token|role_id|secret_id|webhook\.url|webhook\.secret|headers\.NAME|smtp\.password)\.(file|env)$`)
		if strings.HasPrefix(path, "defaults.") || strings.HasPrefix(path, "tokens.NAME.freezes.") || secretForm.MatchString(path) {
			continue // described once, for all
		}
		row, ok := documented[path]
		switch {
		case !ok:
			t.Errorf("%s has no row", path)
		case f.defaultText != "" && !strings.HasPrefix(row, " `"+f.defaultText+"` |"):
			t.Errorf("%s: the default is %s: %s", path, f.defaultText, row)
		}
		delete(documented, path)
	}
	for path := range documented {
		t.Errorf("%s is described and does not exist", path)
	}
}

// TestReferenceSnippet checks that the messages that the reference shows are real.
func TestReferenceSnippet(t *testing.T) {
	goldens := string(read(t, "testdata/ten-faults.txt"))
	_, rest, _ := strings.Cut(string(read(t, referencePath)), "```\n")
	snippet, _, _ := strings.Cut(rest, "```")
	shown := strings.Split(strings.TrimSpace(snippet), "\n")
	if len(shown) < 2 {
		t.Fatalf("the reference shows %d messages", len(shown))
	}
	message := regexp.MustCompile(`^\S+?:\d+:\d+: `)
	for _, line := range shown {
		if !strings.Contains(goldens, ": "+message.ReplaceAllString(line, "")+"\n") {
			t.Errorf("no such message: %s", line)
		}
	}
}

// TestLoginExamples checks that each example of docs/vault-auth.md is right, and that there is one for each method.
func TestLoginExamples(t *testing.T) {
	methods := map[string]bool{}
	_, tokens, _ := strings.Cut(minimal, "tokens:")
	accounts, _, _ := strings.Cut(minimal, "vault:")
	for _, found := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(read(t, "../../docs/vault-auth.md")), -1) {
		example := found[1]
		if !strings.HasPrefix(example, "vault:") { // only the method
			example = "vault:\n  address: https://vault.example.com\n  auth:\n" + example
		}
		cfg := parse(t, accounts+example+"tokens:"+tokens)
		if len(cfg.Warnings) != 0 {
			t.Errorf("%s\n%q", example, lines(cfg.Warnings))
		}
		methods[cfg.Vault.Auth.Kind()] = true
	}
	for method := range rawFields() {
		kind, isMethod := strings.CutPrefix(method, "vault.auth.")
		if isMethod && !strings.Contains(kind, ".") && !methods[kind] {
			t.Errorf("no example of %s", kind)
		}
	}
}

// TestReferenceFreezes checks that the freezes that the reference shows are right, and are
// what its comments say.
func TestReferenceFreezes(t *testing.T) {
	_, rest, _ := strings.Cut(string(read(t, referencePath)), "```yaml\n")
	snippet, _, _ := strings.Cut(rest, "```")
	shown := parse(t, snippet+replaced(t, "@weekly", "0 12 * * 2")).Tokens[0].Freezes
	if len(shown) != 2 || !shown[0].From.Equal(at(t, "2026-12-20T00:00:00+01:00")) || !shown[0].To.Equal(at(t, "2027-01-04T06:00:00+01:00")) {
		t.Fatalf("the reference shows %+v", shown)
	}
	_, until, _ := shown[1].PeriodAt(at(t, "2027-06-12T12:00:00+02:00"))
	if !until.Equal(at(t, "2027-06-14T08:00:00+02:00")) || !shown[1].Skip {
		t.Errorf("the weekend is over at %s", until)
	}
}

func TestExample(t *testing.T) {
	cfg, err := config.Load(examplePath)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Warnings) != 0 {
		t.Errorf("warnings: %q", lines(cfg.Warnings))
	}
	if len(cfg.Tokens) != 2 || len(cfg.Accounts) != 1 {
		t.Errorf("%d tokens and %d accounts", len(cfg.Tokens), len(cfg.Accounts))
	}
}

// TestExampleIsComplete checks that the example shows each field, in use or commented.
func TestExampleIsComplete(t *testing.T) {
	example := string(read(t, examplePath))
	for path := range rawFields() {
		key := path[strings.LastIndexByte(path, '.')+1:]
		if !regexp.MustCompile(`(?m)(^[ #-]*|[{ ])` + key + `:`).MatchString(example) {
			t.Errorf("%s is not shown", path)
		}
	}
}

// TestExampleAlternatives takes the comments off the alternatives and defaults that
// the example shows, so that they are right as well.
func TestExampleAlternatives(t *testing.T) {
	now := string(read(t, examplePath))
	shown := regexp.MustCompile(`(?m)^( +)# ((?:  )?[a-z_0-9]+:)( [^ ].*)?$`).ReplaceAllString(now, "$1$2$3")
	if strings.Count(shown, "#") == strings.Count(now, "#") {
		t.Fatal("nothing was uncommented")
	}
	_, err := config.Parse("example.yaml", []byte(shown))
	found, _ := config.AsFaults(err)
	var messages []string
	for _, f := range found {
		messages = append(messages, f.Path+": "+f.Message)
	}
	// Alternatives exclude each other; nothing else may be wrong.
	want := []string{
		"accounts.prod.zone_id: is written beside account_id: keep account_id for service tokens of the account, or zone_id for those of one zone",
		"accounts.prod.api_key: is written beside api_token: keep one credential, api_token or api_email with api_key",
		"vault.auth: has more than one method: keep exactly one of agent, approle, cert, jwt, kubernetes and token",
		"tokens.ci-deploy.pair: is written beside id: keep id for a single service token, or pair for two",
		"tokens.ci-deploy.create: is written beside id: keep create for a service token that does not exist yet, or id for what exists",
	}
	if diff := cmp.Diff(want, messages); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, shown)
	}
}

// TestDefaultsAreTrue writes each default that the schema and the reference state
// into a file that leaves it out. That must change nothing.
func TestDefaultsAreTrue(t *testing.T) {
	base := replaced(t, "    token: {file: /run/vault-token}", "    approle: {role_id: {env: A}, secret_id: {env: B}}",
		`"@weekly"`, "\"@weekly\"\n    after: [{exec: {command: [a]}}, {webhook: {url: 'https://a.example.com', secret: {env: A}}}, {restart: {kind: Deployment, namespace: a, name: a}}]\n    freezes: {f: {from: '2026-12-20', to: '2027-01-04'}}\n    verify: {url: 'https://app.example.com'}")
	base = strings.TrimSuffix(base, "\n") + "\n      - file: {path: /var/lib/ci/cf.env}\n      - kubernetes: {namespace: ci, name: cf-access}\n"
	base = "freezes: {g: {schedule: 0 12 * * 1, duration: 1h}}\n" + base + `  made:
    account: prod
    create: {name: made}
    schedule: "@weekly"
    sinks: [{vault: {mount: secret, path: access/made}}]
`
	approle := "approle: {role_id: {env: A}, secret_id: {env: B}}"
	tried := 0
	names := strings.NewReplacer("accounts.NAME", "accounts.prod", "tokens.NAME.freezes.NAME", "tokens.ci.freezes.f",
		"defaults.freezes.NAME", "tokens.ci.freezes.f", "tokens.NAME.create", "tokens.made.create", "defaults.verify", "tokens.ci.verify", "defaults.after", "tokens.ci.after",
		"tokens.NAME", "tokens.ci", "freezes.NAME", "freezes.g")
	for path, f := range rawFields() {
		if f.defaultText == "" {
			continue
		}
		base := base
		if strings.HasPrefix(path, "state.shared.") {
			base = "state: {shared: {vault: {mount: secret, prefix: rotatord}}}\n" + base
		}
		if strings.HasPrefix(path, "notify[]") {
			base = "notify: [{name: a, webhook: {url: {env: A}}}, {name: b, smtp: {server: 'localhost:25', from: a@example.com, to: [b@example.com]}}]\n" + base
		}
		for method, written := range authMethods {
			if strings.HasPrefix(path, "vault.auth."+method+".") {
				base = strings.Replace(base, approle, written, 1)
			}
		}
		want := parse(t, base)
		var document object
		if err := yaml.Unmarshal([]byte(base), &document); err != nil {
			t.Fatal(err)
		}
		keys := strings.Split(names.Replace(path), ".")
		set(document, keys, f.defaultText)
		text, err := yaml.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := config.Parse("test.yaml", text)
		if err != nil {
			t.Errorf("%s: its default is refused: %v", path, err)
			continue
		}
		want.Warnings, cfg.Warnings = nil, nil // their places differ
		if diff := cmp.Diff(want, cfg, sameConfig); diff != "" {
			t.Errorf("%s: %s is not the default (-default +written):\n%s", path, f.defaultText, diff)
		}
		tried++
	}
	if tried < 25 {
		t.Errorf("only %d defaults were tried", tried)
	}
}

// authMethods has one way to write each method that has defaults.
var authMethods = map[string]string{
	"kubernetes": "kubernetes: {role: rotatord}", "jwt": "jwt: {role: rotatord, file: /run/token}",
	"cert": "cert: {}\n  tls: {cert_file: /cert.pem, key_file: /key.pem}",
}

// places has one place of each kind of sink.
var places = map[string]object{
	"vault":      {"mount": "secret", "path": "access/ci"},
	"file":       {"path": "/var/lib/ci/cf.env"},
	"kubernetes": {"namespace": "ci", "name": "cf-access"},
}

// set writes a value below o, and creates the mappings on the way. A key that ends in [] means the entry of
// that list that has the next key.
func set(o object, keys []string, text string) {
	for i, key := range keys[:len(keys)-1] {
		list, isList := strings.CutSuffix(key, "[]")
		inner, _ := o[key].(object)
		if isList {
			kind := keys[i+1]
			if o[list] == nil {
				o[list] = []any{object{kind: places[kind]}}
			}
			entries := o[list].([]any)
			entry := max(0, slices.IndexFunc(entries, func(e any) bool { return e.(object)[kind] != nil })) // or the first, of which it is a key
			inner = entries[entry].(object)
		} else if inner == nil {
			inner = object{}
			o[key] = inner
		}
		o = inner
	}
	var value any = text
	if number, err := strconv.Atoi(text); err == nil {
		value = number
	} else if flag, err := strconv.ParseBool(text); err == nil {
		value = flag
	}
	o[keys[len(keys)-1]] = value
}

// schemaFields returns the keys that the committed schema knows, by the same paths.
func schemaFields(t *testing.T) map[string]field {
	t.Helper()
	var root object
	if err := json.Unmarshal(read(t, schemaPath), &root); err != nil {
		t.Fatal(err)
	}
	definitions := root["$defs"].(object)
	fields := map[string]field{}
	var walk func(path string, schema object)
	walk = func(path string, schema object) {
		if ref, ok := schema["$ref"].(string); ok {
			walk(path, definitions[strings.TrimPrefix(ref, "#/$defs/")].(object))
			return
		}
		if named, ok := schema["additionalProperties"].(object); ok {
			walk(path+".NAME", named)
		} else if schema["type"] == "object" && schema["additionalProperties"] != false {
			t.Errorf("%s takes unknown keys", path)
		}
		if items, ok := schema["items"].(object); ok {
			walk(path+"[]", items)
		}
		properties, _ := schema["properties"].(object)
		for key, value := range properties {
			property := value.(object)
			inner := strings.TrimPrefix(path+"."+key, ".")
			description, _ := property["description"].(string)
			if description == "" {
				t.Errorf("%s has no description", inner)
			}
			var f field
			if value, ok := property["default"]; ok {
				f.defaultText = fmt.Sprint(value)
			}
			fields[inner] = f
			walk(inner, property)
		}
	}
	walk("", root)
	return fields
}

// TestSchemaKnowsTheSameFields compares the raw types and the committed schema, in
// both directions.
func TestSchemaKnowsTheSameFields(t *testing.T) {
	if diff := cmp.Diff(rawFields(), schemaFields(t), cmp.AllowUnexported(field{})); diff != "" {
		t.Errorf("(-types +schema):\n%s", diff)
	}
}

// TestSchemaAgrees validates files with the schema: those that the daemon accepts
// pass, and those with a fault that a schema can express do not.
func TestSchemaAgrees(t *testing.T) {
	if racedetector.On {
		t.Skip("it has one goroutine, and runs without the race detector")
	}
	var schema openapi3.Schema
	if err := json.Unmarshal(read(t, schemaPath), &schema); err != nil {
		t.Fatal(err)
	}
	valid := func(data []byte) error {
		var root yaml.Node
		var document any
		if err := yaml.Unmarshal(data, &root); err != nil {
			return err
		}
		datesAreText(&root)
		if err := root.Decode(&document); err != nil {
			return err
		}
		return schema.VisitJSON(document, openapi3.EnableJSONSchema2020())
	}
	for name, data := range map[string][]byte{"the example": read(t, examplePath), "minimal": []byte(minimal)} {
		if err := valid(data); err != nil {
			t.Errorf("%s does not conform: %v", name, err)
		}
	}
	refused := 0
	for _, name := range []string{
		"unknown-key", "unknown-key-far", "no-account-id", "no-tokens", "empty-tokens", "no-token-id", "empty-sinks",
		"empty-sink", "no-sink-path", "log-level", "log-format", "secret-in-file", "secret-both", "secret-neither", "account-id",
		"token-id", "token-name", "duration-days", "duration-negative", "duration-no-unit", "requests-zero", "requests-too-many",
		"requests-text", "auth-two", "auth-none", "catch-up", "defaults-id", "not-a-mapping", "admin-socket-relative", "admin-socket-long",
		"recipient", "recipient-secret-key", "recipient-twice", "recipients-empty", "freeze-both", "freeze-no-to", "freeze-no-schedule", "freeze-neither", "freeze-slots", "freeze-name", "freezes-empty",
		"freeze-date-form", "except-twice", "except-empty", "shared-empty", "shared-prefix", "shared-replica", "zone-id", "zone-beside-account", "strategy", "outside-rotation", "create-beside-id", "create-no-name",
		"create-empty", "create-text", "create-long-name", "create-duration", "create-duration-zero", "create-adopt", "defaults-create",
		"file-no-path", "file-relative", "file-format", "file-mode-symbolic", "file-unknown-key", "sink-two-kinds",
		"renew-for-forever", "verify-no-url", "verify-text", "verify-header", "vault-nodes-empty",
	} {
		paths, _ := filepath.Glob("testdata/bad/" + name + ".yaml")
		if len(paths) == 0 {
			t.Errorf("no file %s", name)
		}
		for _, path := range paths {
			refused++
			if err := valid(read(t, path)); err == nil {
				t.Errorf("%s conforms", path)
			}
		}
	}
	if refused < 40 {
		t.Errorf("only %d broken files were tried", refused)
	}
}

// datesAreText turns a date into a text, which it is for the daemon and in JSON.
func datesAreText(n *yaml.Node) {
	if n.ShortTag() == "!!timestamp" {
		n.Tag = "!!str"
	}
	for _, inner := range n.Content {
		datesAreText(inner)
	}
}

// TestImports checks that reading the configuration needs no adapter, and that the
// schema library stays out of the daemon.
func TestImports(t *testing.T) {
	allowed := []string{
		"filippo.io/age", "go.yaml.in/yaml/v3", "rotatord/internal/config/raw", "rotatord/internal/printable", "rotatord/internal/scheduler", "rotatord/internal/secret",
		"rotatord/internal/smallfile",
	}
	paths, err := filepath.Glob("*.go")
	rawPaths, _ := filepath.Glob("raw/*.go")
	if err != nil || len(paths) < 5 || len(rawPaths) == 0 {
		t.Fatalf("found %d and %d files, %v", len(paths), len(rawPaths), err)
	}
	for _, path := range append(paths, rawPaths...) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			if first, _, _ := strings.Cut(name, "/"); (strings.Contains(first, ".") || first == "rotatord") && !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s", path, name)
			}
		}
	}
}
