// Command schemagen writes the JSON Schema of the configuration file. It creates the
// schema from the types of package raw and their comments, so that editors and the
// daemon agree. Rules about several fields are checked by the daemon only.
//
// It is a program of its own to keep the schema library out of the daemon.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"

	"rotatord/internal/config/raw"
)

const (
	// The reader's own rules for names, recipients, durations and moments.
	namePattern      = `^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`
	recipientPattern = `^age1[02-9ac-hj-np-z]{58}$`
	durationPattern  = `^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$`
	momentPattern    = `^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?)?$`
)

func main() {
	out := flag.String("out", "", "the file to write")
	source := flag.String("source", "raw", "the directory of package raw")
	flag.Parse()
	schema, err := generate(*source)
	if err == nil {
		err = os.WriteFile(*out, schema, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

// generate returns the schema as indented JSON. source is the directory of package
// raw, whose comments become the descriptions.
func generate(source string) ([]byte, error) {
	comments, err := commentsOf(source)
	if err != nil {
		return nil, err
	}
	reflector := &jsonschema.Reflector{
		Anonymous:                  true,
		ExpandedStruct:             true,
		FieldNameTag:               "yaml",
		RequiredFromJSONSchemaTags: true,
		Mapper:                     special,
		LookupComment: func(t reflect.Type, field string) string {
			return comments[strings.TrimSuffix(t.Name()+"."+field, ".")]
		},
	}
	schema := reflector.Reflect(&raw.File{})
	schema.Title = "rotatord configuration"
	constrain(schema)

	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		return nil, fmt.Errorf("encoding the schema: %w", err)
	}
	return out.Bytes(), nil
}

// special returns the schema of the types that reflection cannot describe.
func special(t reflect.Type) *jsonschema.Schema {
	if t == reflect.TypeFor[raw.Duration]() {
		return &jsonschema.Schema{Type: "string", Pattern: durationPattern} // and see constrain
	}
	return nil
}

// constrain adds the rules that a struct tag cannot express.
func constrain(schema *jsonschema.Schema) {
	token, defaults := schema.Definitions["Token"], schema.Definitions["Defaults"]
	for _, named := range []*jsonschema.Schema{
		schema.Properties.Value("accounts"), schema.Properties.Value("tokens"), schema.Properties.Value("freezes"),
		token.Properties.Value("freezes"), defaults.Properties.Value("freezes"),
	} {
		named.PropertyNames = &jsonschema.Schema{Pattern: namePattern}
		named.MinProperties = new(uint64(1))
	}
	for _, name := range []string{"Secret", "VaultAuth", "Sink"} {
		exactlyOne := schema.Definitions[name]
		exactlyOne.MinProperties, exactlyOne.MaxProperties = new(uint64(1)), new(uint64(1))
	}
	for _, settings := range []*jsonschema.Schema{token, defaults} {
		settings.Properties.Value("sinks").MinItems = new(uint64(1))
		except := settings.Properties.Value("except_freezes")
		except.MinItems, except.UniqueItems = new(uint64(1)), true
		except.Items.Pattern = namePattern
	}
	freeze := schema.Definitions["Freeze"]
	once, again := []string{"from", "to"}, []string{"schedule", "duration"}
	freeze.OneOf = []*jsonschema.Schema{{Required: once, Not: anyOf(again)}, {Required: again, Not: anyOf(once)}}
	freeze.Properties.Value("from").Pattern, freeze.Properties.Value("to").Pattern = momentPattern, momentPattern
	token.OneOf = []*jsonschema.Schema{{Required: []string{"id"}}, {Required: []string{"pair"}}, {Required: []string{"create"}}}
	schema.Definitions["Account"].OneOf = []*jsonschema.Schema{{Required: []string{"account_id"}}, {Required: []string{"zone_id"}}}
	schema.Definitions["Create"].Properties.Value("duration").Pattern = "^forever$|" + durationPattern
	schema.Definitions["Verify"].Properties.Value("header").Pattern = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
	pair := token.Properties.Value("pair")
	pair.MinItems, pair.MaxItems, pair.UniqueItems = new(uint64(2)), new(uint64(2)), true
	pair.Items.Pattern = token.Properties.Value("id").Pattern
	schema.Definitions["Shared"].Properties.Value("replica").Pattern = namePattern
	recipients := schema.Definitions["State"].Properties.Value("recipients")
	recipients.MinItems, recipients.UniqueItems = new(uint64(1)), true
	recipients.Items.Pattern = recipientPattern
	secret := schema.Definitions["KubernetesSink"]
	secret.Properties.Value("labels").MinProperties = new(uint64(1))
	takeOver := secret.Properties.Value("take_over")
	takeOver.MinItems, takeOver.UniqueItems = new(uint64(1)), true
	nodes := schema.Definitions["Vault"].Properties.Value("nodes")
	nodes.MinItems, nodes.UniqueItems, nodes.Items.Format = new(uint64(1)), true, "uri"
	// A duration may be a bare 0, which YAML takes for a number. The keywords of a
	// field's tag are only read for a plain type, so this comes after them.
	for _, definition := range schema.Definitions {
		for property := range definition.Properties.FromOldest() {
			if d := definition.Properties.Value(property); d.Pattern == durationPattern {
				d.OneOf = []*jsonschema.Schema{{Type: d.Type, Pattern: d.Pattern}, {Enum: []any{0, "0"}}}
				d.Type, d.Pattern = "", ""
			}
		}
	}
}

// anyOf matches a mapping with any of the keys.
func anyOf(keys []string) *jsonschema.Schema {
	var schema jsonschema.Schema
	for _, key := range keys {
		schema.AnyOf = append(schema.AnyOf, &jsonschema.Schema{Required: []string{key}})
	}
	return &schema
}

// commentsOf returns the comments of the types in source and their fields, as
// flowing text, by Type or Type.Field.
func commentsOf(source string) (map[string]string, error) {
	var reader jsonschema.Reflector
	if err := reader.AddGoComments("", source, jsonschema.WithFullComment()); err != nil {
		return nil, fmt.Errorf("reading the comments in %s: %w", source, err)
	}
	comments := make(map[string]string, len(reader.CommentMap))
	for name, text := range reader.CommentMap { // some/directory/raw.Type.Field
		_, name, _ = strings.Cut(path.Base(name), ".")
		comments[name] = strings.Join(strings.Fields(text), " ")
	}
	return comments, nil
}
