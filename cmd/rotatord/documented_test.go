package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// documents are where users copy commands from.
var documents = []string{"README.md", "docs/*.md", "docs/*/*.md", "deploy/*/README.md", "deploy/*/*/README.md"}

// TestDocumentedCommands: each command line of rotatord that a document shows is one that it takes:
// the command, its flags and its arguments.
func TestDocumentedCommands(t *testing.T) {
	found := 0
	for _, glob := range documents {
		paths, err := filepath.Glob(filepath.Join("../..", glob))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s matches nothing: %v", glob, err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, words := range documentedCommands(string(text)) {
				found++
				if err := understood(words); err != nil {
					t.Errorf("%s: rotatord %s: %v", path, strings.Join(words, " "), err)
				}
			}
		}
	}
	if found < 60 {
		t.Errorf("only %d commands were found", found)
	}
	for _, wrong := range []string{"rotatord plam", "rotatord plan --form x", "rotatord check x", "rotatord resume --for"} {
		commands := documentedCommands("```sh\n" + wrong + "\n```\n")
		if len(commands) != 1 || understood(commands[0]) == nil {
			t.Errorf("%s is taken for right: this test shows nothing", wrong)
		}
	}
}

// understood reports why a command line would be wrong usage.
func understood(words []string) error {
	root := newRoot()
	root.InitDefaultCompletionCmd()
	root.SetOut(&bytes.Buffer{})
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	if cmd == root && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return usagef("there is no such command")
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if help, err := cmd.Flags().GetBool("help"); err == nil && help {
		return nil
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

var (
	fence = regexp.MustCompile("(?ms)^ *```(\\w*)\n(.*?)^ *```")
	// program is what stands before the arguments: also in a container, and from source.
	program = regexp.MustCompile(`^(?:sudo )?(?:kubectl .* -- )?(?:\S*/)?(?:rotatord|go run \./cmd/rotatord) (.*)$`)
)

// documentedCommands are the words after rotatord of each command line in the shell blocks of a
// document, and of each line after a prompt in its other blocks.
func documentedCommands(text string) (all [][]string) {
	for _, block := range fence.FindAllStringSubmatch(text, -1) {
		joined := strings.ReplaceAll(block[2], "\\\n", " ")
		for line := range strings.Lines(joined) {
			line = strings.TrimSpace(line)
			if block[1] != "sh" {
				var prompt bool
				if line, prompt = strings.CutPrefix(line, "$ "); !prompt {
					continue
				}
			}
			for _, command := range shellCommands(line) {
				if found := program.FindStringSubmatch(strings.Join(strings.Fields(command), " ")); found != nil {
					all = append(all, shellWords(found[1]))
				}
			}
		}
	}
	return all
}

// shellCommands splits a line at what separates commands, outside of quotes, and drops comments and
// redirections.
func shellCommands(line string) []string {
	var all []string
	var b strings.Builder
	var quote rune
	end := func() { all = append(all, strings.Trim(b.String(), " (")); b.Reset() }
	for i, r := range line {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case r == '#' && (i == 0 || line[i-1] == ' '), r == '>', r == '<':
			end()
			return all
		case strings.ContainsRune(";&|)", r):
			end()
			continue
		}
		b.WriteRune(r)
	}
	end()
	return all
}

// shellWords are the words of a command, without their quotes.
func shellWords(command string) (all []string) {
	var quote rune
	var b strings.Builder
	has := false
	end := func() {
		if has {
			all = append(all, b.String())
		}
		b.Reset()
		has = false
	}
	for _, r := range command {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			b.WriteRune(r)
		case r == '\'' || r == '"':
			quote, has = r, true
		case unicode.IsSpace(r):
			end()
		default:
			b.WriteRune(r)
			has = true
		}
	}
	end()
	return all
}
