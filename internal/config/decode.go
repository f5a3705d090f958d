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
// tells it from an absent field, so that one mistake is reported once. What it records of the entry of a token is
// there until the next entry is read.
//
// yaml's own Decode is not used: it reports no columns, quotes values (which may be
// secrets), and accepts merge keys and tags.
type decoder struct {
	report
	top   marks // outside of the entries of tokens
	inner marks // in the entry that is being read
	file  *file // whose entries of tokens are in parts

	tokens *yaml.Node             // the mapping of tokens, if its entries are not in parts
	names  map[string]int         // the keys of tokens so far, with their lines
	paths  map[pathStep]string    // see decoder.below
	shapes map[reflect.Type]shape // see decoder.shapeOf
}

// marks are what the decoder records, by path.
type marks struct {
	values map[string]position // of the values
	keys   map[string]position // of the keys
	broken map[string]bool     // mappings and lists that could not be read or are empty
	merged map[string]bool     // mappings with a merge key, which may stand for any field
}

func newMarks() marks {
	return marks{map[string]position{}, map[string]position{}, map[string]bool{}, map[string]bool{}}
}

// clear forgets all.
func (m *marks) clear() {
	clear(m.values)
	clear(m.keys)
	clear(m.broken)
	clear(m.merged)
}

// marks returns what was recorded where path is.
func (d *decoder) marks(path string) *marks {
	if strings.HasPrefix(path, inEntry) {
		return &d.inner
	}
	return &d.top
}

// has reports whether the file says anything about path.
func (d *decoder) has(path string) bool {
	_, ok := d.marks(path).values[path]
	return ok
}

// value returns the position of the value at path, key that of its key.
func (d *decoder) value(path string) position { return d.marks(path).values[path] }
func (d *decoder) key(path string) position   { return d.marks(path).keys[path] }

// isBroken reports whether the value at path could not be read or is empty, isMerged whether it has a merge key.
func (d *decoder) isBroken(path string) bool { return d.marks(path).broken[path] }
func (d *decoder) isMerged(path string) bool { return d.marks(path).merged[path] }

// pathStep is a step from a path to a key or, if key is empty, to an item of a list.
type pathStep struct {
	path, key string
	item      int
}

// maxPaths is how many paths in the entries of tokens are remembered. Most tokens have the same few.
const maxPaths = 4096

// below is join or, without a key, itemPath. Each path in the entries of tokens is made once for all of them.
func (d *decoder) below(path, key string, item int) string {
	if !strings.HasPrefix(path, inEntry) {
		return pathStep{path, key, item}.join()
	}
	step := pathStep{path, key, item}
	joined, known := d.paths[step]
	if !known {
		if len(d.paths) >= maxPaths {
			clear(d.paths)
		}
		joined = step.join()
		d.paths[step] = joined
	}
	return joined
}

func (s pathStep) join() string {
	if s.key == "" {
		return itemPath(s.path, s.item)
	}
	return join(s.path, s.key)
}

func (d *decoder) decode(n *yaml.Node, path, hint string, v reflect.Value) {
	d.marks(path).values[path] = at(n)
	if path == "tokens" && len(d.file.parts) > 0 {
		d.top.values[path] = d.file.at
		return // see decoder.entries
	}
	if v.Type() == reflect.TypeFor[raw.Secret]() {
		d.secret(n, path, v.Addr().Interface().(*raw.Secret))
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
		d.marks(path).broken[path] = true
	case isNull(n):
		d.marks(path).broken[path] = true
		home := ""
		if n.Value == "~" {
			home = " (to YAML, ~ alone means null and not a home directory)"
		}
		d.addf(at(n), path, "has no value%s: give one, or remove the key%s", home, prefixed("; ", hint))
	case n.Kind != wanted:
		d.marks(path).broken[path] = true
		d.addf(at(n), path, "must be %s, not %s%s", wording, kind(n), otherKind(n, v.Kind()))
	case len(n.Content) == 0 && (v.Kind() == reflect.Map || v.Kind() == reflect.Slice):
		d.marks(path).broken[path] = true
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
		if path == "tokens" {
			d.tokens = n
			return // see decoder.entries
		}
		v.Set(reflect.MakeMap(v.Type()))
		d.pairs(n, path, true, func(key string, _, value *yaml.Node) {
			entry := reflect.New(v.Type().Elem()).Elem()
			d.decode(value, d.below(path, key, 0), "", entry)
			v.SetMapIndex(reflect.ValueOf(key), entry)
		})
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			d.decode(item, d.below(path, "", i), "", v.Index(i))
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
		if k := n.Content[i]; d.isKey(k, path, echo, seen) {
			d.marks(path).keys[d.below(path, k.Value, 0)] = at(k)
			each(k.Value, k, n.Content[i+1])
		}
	}
}

// isKey reports whether a key is valid. seen are the lines of those before it in its mapping.
func (d *decoder) isKey(k *yaml.Node, path string, echo bool, seen map[string]int) bool {
	switch {
	case k.ShortTag() == "!!merge":
		d.marks(path).merged[path] = true
		d.addf(at(k), path, "a merge key (<<) is not accepted: write the fields out, or use defaults")
		return false
	case !d.literal(k, path):
		return false
	case k.Kind == yaml.ScalarNode && isNull(k) && k.Value != "":
		d.addf(at(k), path, "a key must be plain text, and YAML takes null and ~ for no value: put quotes around it, or choose another name")
		return false
	case k.Kind != yaml.ScalarNode || isNull(k) || k.Value == "":
		d.addf(at(k), path, "a key must be plain text")
		return false
	}
	if line, twice := seen[k.Value]; twice && echo {
		d.addf(at(k), join(path, k.Value), "is written twice, first on line %d: remove one", line)
		return false
	} else if twice {
		d.addf(at(k), path, "has one key twice, first on line %d: remove one", line)
		return false
	}
	seen[k.Value] = k.Line
	return true
}

// entries calls each for the entry of each token, in the order of the file, with where its key is. The entry that is
// given to each is overwritten by the next one. If the entries are in parts, it may return errWhole.
func (d *decoder) entries(each func(name string, key position, in *raw.Token)) error {
	defer func() { d.entry = "" }()
	var in raw.Token
	do := func(n *yaml.Node) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			if d.entry = ""; !d.isKey(k, "tokens", true, d.names) {
				continue
			}
			d.inner.clear()
			d.entry, in = k.Value, raw.Token{}
			d.inner.keys[inEntry] = at(k)
			d.decode(n.Content[i+1], inEntry, "", reflect.ValueOf(&in).Elem())
			each(d.entry, at(k), &in)
		}
	}
	if d.tokens != nil {
		do(d.tokens)
	}
	for n, err := range d.file.mappings() {
		if err != nil {
			return err
		}
		do(n)
	}
	return nil
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
	shape := d.shapeOf(v.Type())
	fields := shape.fields
	d.pairs(n, path, true, func(key string, k, value *yaml.Node) {
		f, ok := fields[key]
		if !ok {
			d.unknown(at(k), path, key, v.Type(), fields)
			return
		}
		d.decode(value, d.below(path, key, 0), f.Tag.Get("hint"), v.FieldByIndex(f.Index))
	})
	for _, key := range shape.required {
		if below := d.below(path, key, 0); !d.has(below) && !d.isMerged(path) {
			d.addf(at(n), below, "is missing: %s", fields[key].Tag.Get("hint"))
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
		d.marks(path).values[path] = p
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

// shape is a struct of package raw.
type shape struct {
	fields   map[string]reflect.StructField // see fieldsOf
	keys     []string                       // all, sorted
	required []string                       // sorted
}

// shapeOf looks at a struct of package raw once.
func (d *decoder) shapeOf(t reflect.Type) shape {
	k, known := d.shapes[t]
	if known {
		return k
	}
	k.fields = fieldsOf(t)
	k.keys = slices.Sorted(maps.Keys(k.fields))
	for _, key := range k.keys {
		if required(k.fields[key]) {
			k.required = append(k.required, key)
		}
	}
	d.shapes[t] = k
	return k
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
		*target = new(n.Value)
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
			target.File = d.secretPlace(v, d.below(path, key, 0))
		case "env":
			target.Env = d.secretPlace(v, d.below(path, key, 0))
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
	d.marks(path).values[path] = at(n)
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
	return new(n.Value)
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
