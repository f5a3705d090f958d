// Mixin renders the alert rules and the dashboard from the mixin in deploy/mixin.
//
// Usage:
//
//	mixin [-config JSONNET] [-out FILE] rules|dashboard
//
// The expression after -config is added to the mixin's _config, such as {selector: 'job="rotatord"'}.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-jsonnet"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mixin:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("mixin", flag.ContinueOnError)
	dir := flags.String("mixin", "../../deploy/mixin", "the `directory` of the mixin")
	config := flags.String("config", "{}", "a jsonnet `object` that is added to _config")
	out := flags.String("out", "", "the `file` to write, in place of standard output")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var content []byte
	var err error
	switch flags.Arg(0) {
	case "rules":
		content, err = rules(*dir, *config)
	case "dashboard":
		content, err = dashboard(*dir, *config)
	default:
		return fmt.Errorf("%q is not known: want rules or dashboard", flags.Arg(0))
	}
	if err != nil {
		return err
	}
	if *out == "" {
		_, err = os.Stdout.Write(content)
		return err
	}
	return os.WriteFile(*out, content, 0o644)
}

// evaluate returns a field of the mixin as JSON.
func evaluate(dir, config, field string) (string, error) {
	path, err := filepath.Abs(filepath.Join(dir, "mixin.libsonnet"))
	if err != nil {
		return "", err
	}
	quoted, err := json.Marshal(path)
	if err != nil {
		return "", err
	}
	return jsonnet.MakeVM().EvaluateAnonymousSnippet("mixin",
		fmt.Sprintf("((import %s) + {_config+:: (%s)}).%s", quoted, config, field))
}

func rules(dir, config string) ([]byte, error) {
	text, err := evaluate(dir, config, "prometheusAlerts")
	if err != nil {
		return nil, err
	}
	var file ruleFile
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, fmt.Errorf("the rules of the mixin: %w", err)
	}
	return file.yaml()
}

func dashboard(dir, config string) ([]byte, error) {
	text, err := evaluate(dir, config, `grafanaDashboards["rotatord.json"]`)
	if err != nil {
		return nil, err
	}
	return []byte(text), nil
}
