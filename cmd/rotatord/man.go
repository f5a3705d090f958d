//go:build man

package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// packaging returns the command that writes the man pages. It is in no binary that is shipped, because it brings a
// Markdown parser along: scripts/package.sh builds one with it.
func packaging() []*cobra.Command {
	return []*cobra.Command{{
		Use:    "man DIRECTORY",
		Short:  "Write the man pages of all commands into a directory",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // it has the date of today
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			// The date is that of SOURCE_DATE_EPOCH.
			return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "rotatord " + version, Manual: "rotatord"}, args[0])
		},
	}}
}
