package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"rotatord/internal/httpapi"
)

// The linker sets version and revision: -X main.version=v1.2.3. In a build inside a repository the
// toolchain records the revision too; in a container it does not.
var version, revision = "", ""

// build returns the version of this program, from what the linker and the toolchain recorded.
func build() httpapi.Build {
	b := httpapi.Build{Version: version, Revision: "unknown", GoVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			b.Revision += "-dirty"
		}
	}
	b.Version, b.Revision = cmp.Or(b.Version, "devel"), cmp.Or(revision, b.Revision)
	return b
}

func newVersion() *cobra.Command {
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := build()
			if format == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
					"version": b.Version, "revision": b.Revision, "goversion": b.GoVersion,
				})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "rotatord %s (revision %s, %s)\n", b.Version, b.Revision, b.GoVersion)
			return err
		},
	}
	outputFlag(cmd, &format)
	return cmd
}
