package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the flag tables of docs/commands.md again")

const commandsPage = "../../docs/commands.md"

// everywhere are the flags that the page explains once, at its top.
var everywhere = []string{"config", "output", "socket"}

// flagTable is what the page says of a command's flags.
func flagTable(cmd *cobra.Command) string {
	var b strings.Builder
	var common []string
	rows := 0
	fmt.Fprintf(&b, "<!-- flags -->\n`%s`\n\n| flag | meaning |\n| --- | --- |\n", cmd.UseLine())
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Hidden || f.Name == "help":
			return
		case slices.Contains(everywhere, f.Name):
			common = append(common, "`--"+f.Name+"`")
			return
		}
		rows++
		value, meaning := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + "`, `" + name
		}
		if value != "" {
			name += " " + value
		}
		switch f.DefValue {
		case "", "0", "0s", "false", "[]":
		default:
			if !strings.Contains(meaning, "default") {
				meaning += " (default " + f.DefValue + ")"
			}
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, strings.ReplaceAll(meaning, "|", "\\|"))
	})
	if rows == 0 {
		b.Reset()
		fmt.Fprintf(&b, "<!-- flags -->\n`%s`\n", cmd.UseLine())
	}
	if len(common) > 0 {
		fmt.Fprintf(&b, "\nAlso %s.\n", strings.Join(common, ", "))
	}
	return b.String() + "<!-- end of flags -->\n"
}

// documentedOf returns the commands that have a section: all but help, and in place of one that only has
// commands of its own those. The shells of completion share its section.
func documentedOf(root *cobra.Command) (all []*cobra.Command) {
	for _, cmd := range root.Commands() {
		switch {
		case cmd.Hidden || cmd.Name() == "help":
		case cmd.HasSubCommands() && cmd.Name() != "completion":
			all = append(all, documentedOf(cmd)...)
		default:
			all = append(all, cmd)
		}
	}
	return all
}

// TestCommandsPage: the page has every command, the flags that the program has, and an example.
func TestCommandsPage(t *testing.T) {
	content, err := os.ReadFile(commandsPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	var want []string
	root := newRoot()
	root.InitDefaultCompletionCmd()
	for _, cmd := range documentedOf(root) {
		name := strings.TrimPrefix(cmd.CommandPath(), root.Name()+" ")
		want = append(want, name)
		_, section, found := strings.Cut(page, "\n## rotatord "+name+"\n")
		if !found {
			t.Errorf("%s has no section for rotatord %s", commandsPage, name)
			continue
		}
		section, _, _ = strings.Cut(section, "\n## ")
		if !regexp.MustCompile(`(?m)^(?:\$ )?rotatord ` + name + `\b`).MatchString(section) {
			t.Errorf("%s shows no example of rotatord %s", commandsPage, name)
		}
		old := regexp.MustCompile(`(?s)<!-- flags -->\n(?:.*?<!-- end of flags -->\n)?`).FindString(section)
		switch table := flagTable(cmd); {
		case old == "":
			t.Errorf("%s has no line <!-- flags --> in the section of rotatord %s", commandsPage, name)
		case *update:
			page = strings.Replace(page, section, strings.Replace(section, old, table, 1), 1)
		case old != table:
			t.Errorf("%s does not have the flags of rotatord %s: run go test ./cmd/rotatord -run TestCommandsPage -update\nwant\n%s\nhave\n%s", commandsPage, name, table, old)
		}
	}
	var have []string
	for _, heading := range regexp.MustCompile(`(?m)^## rotatord (.+)$`).FindAllStringSubmatch(page, -1) {
		have = append(have, heading[1])
	}
	slices.Sort(want)
	slices.Sort(have)
	if !slices.Equal(want, have) {
		t.Errorf("%s has sections for %q, the program has the commands %q", commandsPage, have, want)
	}
	if *update && page != string(content) {
		if err := os.WriteFile(commandsPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
