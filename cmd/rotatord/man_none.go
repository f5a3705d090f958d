//go:build !man

package main

import "github.com/spf13/cobra"

// packaging returns the commands that only packages are made with: there are none without the build tag man.
func packaging() []*cobra.Command { return nil }
