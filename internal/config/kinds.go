package config

import (
	"reflect"
	"slices"
	"strings"
)

// Sinks, auth methods and hooks come in kinds. Each has a table, which is an interface with one
// method for each kind ([SinkKinds], [AuthMethods], [HookKinds]). To add a kind:
//
//  1. Declare how it is written in the file, in package raw.
//  2. Write one file here with the type of the kind and its rules (sink_KIND.go, auth_METHOD.go, hook_KIND.go).
//  3. Add one line to the table.
//  4. Write one file that does the work, in package sink, vault or hook.
//
// A kind that is in the table and is not implemented everywhere does not compile. A test compares
// the tables with package raw.

// keyed is a kind, by its key in the configuration file.
type keyed interface{ Kind() string }

// kindsIn returns an empty value of each kind in a table, ordered by key.
func kindsIn[Kind keyed, Table any]() []Kind {
	table := reflect.TypeFor[Table]()
	var all []Kind
	for method := range table.Methods() {
		kind := method.Type.In(0) // a pointer to the type of the kind
		all = append(all, reflect.New(kind.Elem()).Interface().(Kind))
	}
	slices.SortFunc(all, func(a, b Kind) int { return strings.Compare(a.Kind(), b.Kind()) })
	return all
}

// chosenKinds returns the kinds that the file names at path, which is a mapping with one key for
// each kind; In is its type. It returns false if the mapping has another key, which was reported already.
func chosenKinds[Kind keyed, Table, In any](c *checker, path string) (chosen []Kind, ok bool) {
	table := reflect.TypeFor[Table]()
	known, seen := c.tables[table]
	if !seen {
		known = make(map[string]reflect.Type)
		for _, kind := range kindsIn[Kind, Table]() {
			known[kind.Kind()] = reflect.TypeOf(kind).Elem()
		}
		c.tables[table] = known
	}
	ok = true
	for _, key := range c.shapeOf(reflect.TypeFor[In]()).keys {
		if !c.has(path + "." + key) {
			continue
		}
		kind, supported := known[key]
		if !supported {
			ok = false // not supported yet
			continue
		}
		chosen = append(chosen, reflect.New(kind).Interface().(Kind))
	}
	return chosen, ok
}

// keysOf lists the keys of kinds, for messages.
func keysOf[Kind keyed](kinds []Kind) []string {
	var keys []string
	for _, k := range kinds {
		keys = append(keys, k.Kind())
	}
	return keys
}
