//go:build man

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"rotatord/docs"
)

// packaging returns the command that writes the man pages. It is in no binary that is shipped, because it brings a
// Markdown parser along: scripts/package.sh builds one with it.
func packaging() []*cobra.Command {
	return []*cobra.Command{{
		Use:    "man DIRECTORY",
		Short:  "Write the man pages of all commands and of the configuration file into a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // it has the date of today
			date, err := sourceDate()
			if err != nil {
				return err
			}
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Date: &date, Source: "rotatord " + version, Manual: "rotatord"}, args[0]); err != nil {
				return err
			}
			return writeConfigurationPage(args[0], date)
		},
	}}
}

// sourceDate is the date of the pages: SOURCE_DATE_EPOCH, so that the same sources give the same bytes.
func sourceDate() (time.Time, error) {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		return time.Now().UTC(), nil
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("SOURCE_DATE_EPOCH is not a number of seconds: %w", err)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// writeConfigurationPage writes rotatord.yaml(5), which is docs/configuration.md in another form.
func writeConfigurationPage(dir string, date time.Time) error {
	reference, err := docs.Files.ReadFile("configuration.md")
	if err != nil {
		return err
	}
	// The title is a line of its own: md2man has none for the source and the manual.
	title := fmt.Sprintf("%% \"ROTATORD.YAML\" \"5\" %q %q %q\n", date.Format("Jan 2006"), "rotatord "+version, "rotatord")
	page := md2man.Render([]byte(title + manMarkdown(string(reference))))
	if !bytes.HasPrefix(bytes.TrimPrefix(page, []byte(`'\" t`+"\n")), []byte(".nh\n.TH")) {
		return fmt.Errorf("rotatord.yaml(5) does not begin as a man page: %.60q", page)
	}
	if err := os.WriteFile(filepath.Join(dir, "rotatord.yaml.5"), page, 0o644); err != nil {
		return err
	}
	// rotatord(1) names it among the others.
	path := filepath.Join(dir, "rotatord.1")
	top, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, after, found := bytes.Cut(top, []byte(".SH SEE ALSO\n"))
	if !found {
		return fmt.Errorf("%s has no section SEE ALSO", path)
	}
	return os.WriteFile(path, bytes.Join([][]byte{before, []byte(".SH SEE ALSO\n\\fBrotatord.yaml(5)\\fP, "), after}, nil), 0o644)
}
