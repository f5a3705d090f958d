package config

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/config/raw"
	"rotatord/internal/scheduler"
	"rotatord/internal/secret"
)

// decoder fills the raw types from YAML nodes, strictly, and records the position of
// every field. A field that is written and wrong keeps its zero value. [decoder.has]
// tells it from an absent field, so that one mistake is reported once.
//
// yaml's own Decode is not used: it reports no columns, quotes values (which may be
// secrets), and accepts merge keys and tags.
type decoder struct {
	report
	values map[string]position // of the values, by path
	keys   map[string]position // of the keys
	broken map[string]bool     // mappings and lists that could not be read or are empty
	merged map[string]bool     // mappings with a merge key, which may stand for any field

	fields map[reflect.Type]map[string]reflect.StructField // what fieldsOf found before
}

// has reports whether the file says anything about path.
func (d *decoder) has(path string) bool {
	_, ok := d.values[path]
	return ok
}

func (d *decoder) decode(n *yaml.Node, path, hint string, v reflect.Value) {
	d.values[path] = at(n)
	switch target := v.Addr().Interface().(type) {
	case *raw.Secret:
		d.secret(n, path, target)
		return
	}
	wanted, wording := yaml.ScalarNode, "a single value"
	switch v.Kind() {
	case reflect.Struct, reflect.Map:
		wanted, wording = yaml.MappingNode, "a mapping (lines of key: value)"
	case reflect.Slice:
		wanted, wording = yaml.SequenceNode, "a list (lines that begin with a dash)"
	}
	switch {
	case !d.literal(n, path):
		d.broken[path] = true
	case isNull(n):
		d.broken[path] = true
		home := ""
		if n.Value == "~" {
			home = " (to YAML, ~ alone means null and not a home directory)"
		}
		d.addf(at(n), path, "has no value%s: give one, or remove the key%s", home, prefixed("; ", hint))
	case n.Kind != wanted:
		d.broken[path] = true
		d.addf(at(n), path, "must be %s, not %s%s", wording, kind(n), otherKind(n, v.Kind()))
	case len(n.Content) == 0 && (v.Kind() == reflect.Map || v.Kind() == reflect.Slice):
		d.broken[path] = true
		d.addf(at(n), path, "is empty: %s", hint)
	default:
		d.fill(n, path, v)
	}
}

func (d *decoder) fill(n *yaml.Node, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		d.object(n, path, v)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		d.pairs(n, path, true, func(key string, _, value *yaml.Node) {
			entry := reflect.New(v.Type().Elem()).Elem()
			d.decode(value, join(path, key), "", entry)
			v.SetMapIndex(reflect.ValueOf(key), entry)
		})
	case reflect.Slice:
		for i, item := range n.Content {
			entry := reflect.New(v.Type().Elem()).Elem()
			d.decode(item, itemPath(path, i), "", entry)
			v.Set(reflect.Append(v, entry))
		}
	default:
		d.scalar(n, path, v)
	}
}

func prefixed(separator, s string) string {
	if s == "" {
		return ""
	}
	return separator + s
}

// literal refuses a node whose meaning differs from its text. The messages do not repeat
// names and tags: they may be a password without quotes.
func (d *decoder) literal(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		d.addf(at(n), path, "an alias (*name) is not accepted: write the value out, or use defaults")
	case n.Anchor != "":
		d.addf(at(n), path, "an anchor (&name) is not accepted: write the value out, or use defaults")
	case isTagged(n):
		d.addf(at(n), path, "a YAML tag (!name) is not accepted: remove it, or quote the value")
	default:
		return true
	}
	return false
}

// pairs calls each for every valid key of a mapping. For a repeated key the first value
// counts. echo says whether messages may show keys.
func (d *decoder) pairs(n *yaml.Node, path string, echo bool, each func(key string, k, v *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.ShortTag() == "!!merge":
			d.merged[path] = true
			d.addf(at(k), path, "a merge key (<<) is not accepted: write the fields out, or use defaults")
			continue
		case !d.literal(k, path):
			continue
		case k.Kind == yaml.ScalarNode && isNull(k) && k.Value != "":
			d.addf(at(k), path, "a key must be plain text, and YAML takes null and ~ for no value: put quotes around it, or choose another name")
			continue
		case k.Kind != yaml.ScalarNode || isNull(k) || k.Value == "":
			d.addf(at(k), path, "a key must be plain text")
			continue
		}
		if line, twice := seen[k.Value]; twice && echo {
			d.addf(at(k), join(path, k.Value), "is written twice, first on line %d: remove one", line)
			continue
		} else if twice {
			d.addf(at(k), path, "has one key twice, first on line %d: remove one", line)
			continue
		}
		seen[k.Value] = k.Line
		d.keys[join(path, k.Value)] = at(k)
		each(k.Value, k, v)
	}
}

// otherKind ends the message about a list in place of a mapping, or the other way round.
func otherKind(n *yaml.Node, wanted reflect.Kind) string {
	switch {
	case wanted == reflect.Map && n.Kind == yaml.SequenceNode:
		return ": begin each entry with its name and a colon in place of the dash"
	case wanted == reflect.Slice && n.Kind == yaml.MappingNode:
		return ": write a dash before each entry"
	case wanted == reflect.Slice && n.Kind == yaml.ScalarNode:
		return ": write [ ] around it, or a dash before it on a line of its own"
	}
	return ""
}

func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		if n.Style&yaml.FlowStyle != 0 && len(n.Content) == 2 && n.Content[0].Kind == yaml.MappingNode {
			return "a template that nothing has filled in ({{ ... }})"
		}
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// object decodes into a struct of package raw.
func (d *decoder) object(n *yaml.Node, path string, v reflect.Value) {
	fields, known := d.fields[v.Type()]
	if !known {
		fields = fieldsOf(v.Type())
		d.fields[v.Type()] = fields
	}
	d.pairs(n, path, true, func(key string, k, value *yaml.Node) {
		f, ok := fields[key]
		if !ok {
			d.unknown(at(k), path, key, v.Type(), fields)
			return
		}
		d.decode(value, join(path, key), f.Tag.Get("hint"), v.FieldByIndex(f.Index))
	})
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		f := fields[key]
		if required(f) && !d.has(join(path, key)) && !d.merged[path] {
			d.addf(at(n), join(path, key), "is missing: %s", f.Tag.Get("hint"))
		}
	}
}

// unknown reports an unknown key. The known key that was probably meant
// then counts as written, so that it is not reported as missing too.
func (d *decoder) unknown(p position, path, key string, t reflect.Type, fields map[string]reflect.StructField) {
	if t == reflect.TypeFor[raw.Defaults]() && (key == "id" || key == "pair" || key == "create") {
		d.addf(p, join(path, key), "is for one token: write it into that token's entry")
		return
	}
	meant, hint := suggest(key, slices.Collect(maps.Keys(fields)))
	d.addf(p, join(path, key), "unknown key: %s", hint)
	if meant != "" {
		d.written(join(path, meant), p)
	}
}

// written makes a field count as written. It is then not reported as missing, because a
// mistake in its place was reported.
func (d *decoder) written(path string, p position) {
	if !d.has(path) {
		d.values[path] = p
	}
}

// fieldsOf returns the fields of a raw struct by key, embedded ones included.
func fieldsOf(t reflect.Type) map[string]reflect.StructField {
	fields := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous {
			fields[f.Tag.Get("yaml")] = f
		}
	}
	return fields
}

func required(f reflect.StructField) bool {
	return slices.Contains(strings.Split(f.Tag.Get("jsonschema"), ","), "required")
}

// scalar decodes into a pointer. Text is taken as it stands: an id of digits only
// needs no quotes, and no is the word no.
func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value) {
	switch target := v.Addr().Interface().(type) {
	case **string:
		if problem := badText(n.Value); problem != "" {
			d.addf(at(n), path, "%s", problem)
			return
		}
		*target = &n.Value
	case **int:
		i, err := strconv.Atoi(n.Value)
		if err != nil || n.ShortTag() != "!!int" {
			d.addf(at(n), path, "must be a whole number in plain decimal digits, without quotes")
			return
		}
		*target = &i
	case **bool:
		if n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
			d.addf(at(n), path, "must be true or false, without quotes")
			return
		}
		*target = new(n.Value == "true")
	case **raw.Duration:
		parsed, err := time.ParseDuration(n.Value)
		switch {
		case err != nil:
			d.addf(at(n), path, "%s", notADuration(n.Value))
		case parsed < 0:
			d.addf(at(n), path, "must not be negative: write 0 or a duration such as 10m")
		default:
			*target = new(raw.Duration(parsed))
		}
	default:
		panic("config: no decoding for " + v.Type().String())
	}
}

// tooLong are durations that a time.Duration cannot hold.
var tooLong = regexp.MustCompile(`^\+?(\d+(\.\d*)?(h|m|s|ms|us|ns))+$`)

// notADuration says what to write in its place.
func notADuration(text string) string {
	hint := scheduler.DurationHint(text)
	switch negative, isNegative := strings.CutPrefix(text, "-"); {
	case isNegative && scheduler.DurationHint(negative) != "":
		return "must not be negative: write 0 or a duration such as 10m"
	case tooLong.MatchString(text):
		return fmt.Sprintf("%q is longer than 292 years: write a shorter duration, such as 720h", text)
	case hint != "":
		return fmt.Sprintf("%q is not a duration: write %s (units are h, m and s; a day is 24h)", text, hint)
	}
	return fmt.Sprintf("%q is not a duration: write a number with a unit, such as 90s, 10m or 24h (a day is 24h)", text)
}

// badText says what is wrong with a text, in any field.
func badText(s string) string {
	switch {
	case s == "":
		return "is empty: give a value, or remove the key"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "has a line break or another control character: write it on one line"
	case strings.TrimSpace(s) != s:
		return "has white space around it: remove it"
	}
	return ""
}

const secretForm = "write {file: PATH} or {env: NAME}"

// secret decodes a source. None of its messages repeats anything of the file,
// not even keys: by mistake the secret itself may be here.
func (d *decoder) secret(n *yaml.Node, path string, target *raw.Secret) {
	switch {
	case !d.literal(n, path):
		return
	case isNull(n):
		d.addf(at(n), path, "has no value: %s, or remove the key", secretForm)
		return
	case n.Kind == yaml.ScalarNode:
		d.addf(at(n), path, "never put a secret into this file: put it into a file of its own or an environment variable, and %s", secretForm)
		return
	case n.Kind != yaml.MappingNode:
		d.addf(at(n), path, "must say where the secret is, not %s: %s", kind(n), secretForm)
		return
	}
	before := len(d.faults)
	d.pairs(n, path, false, func(key string, k, v *yaml.Node) {
		switch key {
		case "file":
			target.File = d.secretPlace(v, join(path, key))
		case "env":
			target.Env = d.secretPlace(v, join(path, key))
		default:
			d.addf(at(k), path, "unknown key: %s", secretForm)
		}
	})
	switch {
	case len(d.faults) > before:
		*target = raw.Secret{}
	case (target.File == nil) == (target.Env == nil):
		d.addf(at(n), path, "needs exactly one of file and env: %s", secretForm)
		*target = raw.Secret{}
	}
}

func (d *decoder) secretPlace(n *yaml.Node, path string) *string {
	d.values[path] = at(n)
	problem := ""
	switch {
	case !d.literal(n, path):
		return nil
	case n.Kind != yaml.ScalarNode || isNull(n):
		problem = "must be a single value: " + secretForm
	case secret.Scrub(n.Value) != n.Value:
		problem = "looks like a secret itself: put it into a file of its own or an environment variable, and " + secretForm
	case strings.HasSuffix(path, ".env") && !isVariable(n.Value):
		problem = "must be the name of an environment variable: letters, digits and underscores, no digit first" + variableHint(n.Value)
	default:
		problem = badText(n.Value)
	}
	if problem != "" {
		d.addf(at(n), path, "%s", problem)
		return nil
	}
	return &n.Value
}

// variableHint ends the message about what is not the name of a variable. It repeats nothing.
func variableHint(s string) string {
	switch {
	case strings.HasPrefix(s, "$"):
		return "; leave out the $ and brackets"
	case strings.Contains(s, "="):
		return "; its value is set where the daemon is started, and not here"
	case strings.Contains(s, "/"):
		return "; for the path of a file write {file: PATH}"
	}
	return ""
}

func isVariable(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
