package main

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"rotatord/deploy"
	"rotatord/docs"
	"rotatord/internal/webpage"
)

const docsHelp = `Print the documents of this version: they are in the program, so they can be read when no daemon runs and no page can be
reached. Without an argument list them.

  rotatord docs runbook                          a whole page
  rotatord docs runbook#rotatordtokenindoubt     one section, as rotatord status names it
  rotatord docs RotatordTokenInDoubt             the section of an alert
  rotatord docs deploy/vault/rotatord-policy.hcl a file that the guides use

No configuration is read and no network is used.`

func newDocs() *cobra.Command {
	return &cobra.Command{
		Use:   "docs [PAGE][#SECTION]",
		Short: "Print the runbook and the other documents of this version",
		Long:  docsHelp,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("name one page: rotatord docs lists them")
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return beginning(pageNames(), begun)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listDocs(cmd.OutOrStdout())
			}
			text, err := documentAt(args[0])
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), text)
			return err
		},
	}
}

// docsCommand returns the command that prints a place in the documents, such as docs/runbook.md#x.
func docsCommand(place string) string {
	page, section, found := strings.Cut(strings.TrimPrefix(place, "docs/"), "#")
	page = strings.TrimSuffix(page, ".md")
	if found {
		page += "#" + section
	}
	return "rotatord docs " + page
}

// documentAt returns a document, or the section of one.
func documentAt(place string) (string, error) {
	name, section, _ := strings.Cut(place, "#")
	text, err := findDocument(name)
	if err != nil && section == "" && !strings.ContainsAny(name, "/.") { // the name of an alert
		if runbook, readErr := findDocument("runbook"); readErr == nil {
			if found := webpage.Section(runbook, strings.ToLower(name)); found != "" {
				return found, nil
			}
		}
	}
	if err != nil || section == "" {
		return text, err
	}
	found := webpage.Section(text, strings.ToLower(section))
	if found == "" {
		return "", fmt.Errorf("%s has no section %q; it has: %s", name, section, strings.Join(webpage.Sections(text), ", "))
	}
	return found, nil
}

// findDocument returns the text of a document by its name: "runbook", "docs/runbook.md" or "deploy/vault/README.md".
func findDocument(name string) (string, error) {
	name = path.Clean(name)
	files, name := fs.FS(docs.Files), strings.TrimPrefix(name, "docs/")
	if inDeploy, is := strings.CutPrefix(name, "deploy/"); is {
		files, name = deploy.Files, inDeploy
	}
	for _, candidate := range []string{name, name + ".md", name + "/README.md"} {
		if text, err := fs.ReadFile(files, candidate); err == nil {
			return string(text), nil
		}
	}
	return "", fmt.Errorf("there is no document %q in this version: rotatord docs lists them", name)
}

// pageNames returns the names of all documents, as the command takes them.
func pageNames() (names []string) {
	_ = fs.WalkDir(docs.Files, ".", func(name string, d fs.DirEntry, _ error) error { // it is in the program, and cannot fail
		if !d.IsDir() {
			names = append(names, strings.TrimSuffix(name, ".md"))
		}
		return nil
	})
	_ = fs.WalkDir(deploy.Files, ".", func(name string, d fs.DirEntry, _ error) error {
		if !d.IsDir() {
			names = append(names, "deploy/"+name)
		}
		return nil
	})
	slices.Sort(names)
	return names
}

// listDocs prints the names of all documents with their titles.
func listDocs(w io.Writer) error {
	for _, name := range pageNames() {
		text, err := findDocument(name)
		if err != nil {
			return err
		}
		title := ""
		if first, _, _ := strings.Cut(text, "\n"); strings.HasPrefix(first, "# ") {
			title = first[2:]
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%-42s %s", name, title), " ")); err != nil {
			return err
		}
	}
	return nil
}
