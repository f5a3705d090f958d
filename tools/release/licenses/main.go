// Command licenses lists the licences of all that is linked into a program, and writes their texts.
//
//	licenses -list FILE.csv -texts FILE.txt PACKAGE
//
// It runs in the root of a module, with the GOOS, GOARCH and CGO_ENABLED of the build. It fails if a module has
// no licence file, a text that it does not recognise, or a licence that is not allowed here: then a person
// has to read it before it is shipped.
package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	classifier "github.com/google/licenseclassifier/v2"
	"github.com/google/licenseclassifier/v2/assets"
)

// allowed are the licences that a binary under Apache-2.0 may contain. MPL-2.0 asks that its files stay available as
// source, and they are: no module is changed.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "CC0-1.0", "0BSD", "Unlicense"}

// confidence is the lowest similarity, of 1, at which a text counts as that of a licence.
const confidence = 0.9

var licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|notice|unlicense|patents)([-._].*)?$`)

// component is a module, or Go's standard library.
type component struct {
	name, version string
	files         []string // absolute
	names         []string // of licences
	root          string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("licenses", flag.ContinueOnError)
	list := flags.String("list", "", "where the table goes: module, version, licences")
	texts := flags.String("texts", "", "where the texts go")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list == "" || *texts == "" || flags.NArg() != 1 {
		return errors.New("-list, -texts and one package are needed")
	}
	components, err := linked(flags.Arg(0))
	if err != nil {
		return err
	}
	known, err := assets.DefaultClassifier()
	if err != nil {
		return err
	}
	var faults []error
	for _, c := range components {
		if err := c.classify(known); err != nil {
			faults = append(faults, err)
		}
	}
	if len(faults) > 0 {
		return errors.Join(faults...)
	}
	if err := os.WriteFile(*list, table(components), 0o644); err != nil {
		return err
	}
	all, err := written(components)
	if err != nil {
		return err
	}
	return os.WriteFile(*texts, all, 0o644)
}

// linked returns what the package is built from, except its own module, in alphabetical order.
func linked(program string) ([]*component, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=Dir,Standard,Module", program)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	goRoot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return nil, err
	}
	goVersion, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return nil, err
	}
	found := map[string]*component{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir      string
			Standard bool
			Module   *struct {
				Path, Version, Dir string
				Main               bool
				Replace            *struct{ Path, Version, Dir string }
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		c := &component{name: "Go standard library", version: strings.TrimSpace(string(goVersion)), root: strings.TrimSpace(string(goRoot))}
		switch {
		case p.Module != nil && p.Module.Main:
			continue
		case p.Module != nil:
			c.name, c.version, c.root = p.Module.Path, p.Module.Version, p.Module.Dir
			if r := p.Module.Replace; r != nil {
				c.name, c.version, c.root = r.Path, r.Version, r.Dir
			}
		case !p.Standard:
			return nil, fmt.Errorf("the package in %s belongs to no module", p.Dir)
		}
		if have := found[c.name]; have != nil {
			c = have
		} else {
			found[c.name] = c
		}
		dir := p.Dir
		if p.Standard { // below it, BoringCrypto has a licence of its own, and is linked into no build without cgo
			dir = c.root
		}
		if err := c.collect(dir); err != nil {
			return nil, err
		}
	}
	var all []*component
	for _, c := range found {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *component) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// collect adds the licence files of a package's directory and of those above it in the module: code that a module
// took over from elsewhere has its licence beside it.
func (c *component) collect(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if path := filepath.Join(dir, e.Name()); e.Type().IsRegular() && filepath.Ext(path) != ".go" && licenceFile.MatchString(e.Name()) && !slices.Contains(c.files, path) {
				c.files = append(c.files, path)
			}
		}
		if dir == c.root || len(dir) <= len(c.root) {
			slices.Sort(c.files)
			return nil
		}
	}
}

// classify names the licences of a component.
func (c *component) classify(known *classifier.Classifier) error {
	for _, file := range c.files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, m := range known.Match(text).Matches {
			switch {
			case m.MatchType != "License" || m.Confidence < confidence:
			case !slices.Contains(allowed, m.Name):
				return fmt.Errorf("%s %s: %s is under %s, which is not among the licences that are allowed", c.name, c.version, filepath.Base(file), m.Name)
			case !slices.Contains(c.names, m.Name):
				c.names = append(c.names, m.Name)
			}
		}
	}
	if len(c.names) == 0 {
		return fmt.Errorf("%s %s: no licence was recognised in %q", c.name, c.version, c.files)
	}
	slices.Sort(c.names)
	return nil
}

func table(components []*component) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"module", "version", "licences"}) // a buffer takes everything
	for _, c := range components {
		_ = w.Write([]string{c.name, c.version, strings.Join(c.names, " and ")})
	}
	w.Flush()
	return b.Bytes()
}

// written returns all texts, each with the components that it belongs to.
func written(components []*component) ([]byte, error) {
	owners, order := map[string][]string{}, []string{}
	for _, c := range components {
		for _, file := range c.files {
			content, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			text := strings.TrimSpace(strings.ReplaceAll(string(content), "\r\n", "\n"))
			if owners[text] == nil {
				order = append(order, text)
			}
			owner := c.name + " " + c.version
			if rel, err := filepath.Rel(c.root, filepath.Dir(file)); err == nil && rel != "." {
				owner += " (" + filepath.ToSlash(rel) + ")"
			}
			owners[text] = append(owners[text], owner)
		}
	}
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	fmt.Fprintf(w, "The binary of rotatord contains the components below, each under its own licence.\n")
	for _, text := range order {
		fmt.Fprintf(w, "\n%s\n\n", strings.Repeat("=", 78))
		for _, owner := range slices.Compact(owners[text]) {
			fmt.Fprintf(w, "%s\n", owner)
		}
		fmt.Fprintf(w, "\n%s\n\n%s\n", strings.Repeat("-", 78), text)
	}
	err := w.Flush()
	return b.Bytes(), err
}
