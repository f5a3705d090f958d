// Package prometheus holds the alert rules that are shipped, so that the binary can print them.
// rotatord.rules.yaml beside this file is made from the mixin in deploy/mixin.
package prometheus

//go:generate go run -C ../../tools/mixin . -out ../../deploy/prometheus/rotatord.rules.yaml rules
//go:generate go run -C ../../tools/mixin . -out ../../deploy/grafana/rotatord.json dashboard

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

//go:embed rotatord.rules.yaml
var rules string

// RunbookURL is where the shipped rules say that the runbook is: a placeholder.
const RunbookURL = "https://example.com/rotatord/docs/runbook.md"

// urlCharacters are those of a URL that mean nothing in YAML or in an alert's template. A quote, a
// brace, a backslash, white space and whatever is not ASCII must be percent-encoded.
const urlCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?@!$&()*+,;=%"

// Rules returns the rules with the address of the runbook in every runbook_url. Each alert adds its own
// fragment, such as #rotatordabsent.
func Rules(runbook string) (string, error) {
	if err := check(runbook); err != nil {
		return "", err
	}
	return strings.ReplaceAll(rules, "runbook_url: "+RunbookURL+"#", "runbook_url: "+runbook+"#"), nil
}

// check refuses text that is not the address of a page, or would not stay one within YAML.
func check(runbook string) error {
	if strings.Contains(runbook, "#") {
		return errors.New("it must have no # part: each alert adds its own, such as #rotatordabsent")
	}
	if i := strings.IndexFunc(runbook, func(r rune) bool { return !strings.ContainsRune(urlCharacters, r) }); i >= 0 {
		r := []rune(runbook[i:])[0]
		return fmt.Errorf("the character %q must be percent-encoded", r)
	}
	u, err := url.Parse(runbook)
	switch {
	case err != nil:
		return errors.New("it is not a URL")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return errors.New("it must begin with https:// or http:// and a host")
	case u.User != nil:
		return errors.New("it must hold no user name and no password: alerts are sent to many places")
	}
	return nil
}
