package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
	"rotatord/internal/pending"
	"rotatord/internal/statedir"
)

func newIdentity() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "identity",
		Short: "Make the age identity of the sealed secrets, and keep it apart from them",
		Long: `The age identity opens the secrets that are sealed in the state directory. Without state.identity the
daemon makes one in that directory, and whoever has a copy of the directory can open them.
These commands make one elsewhere, and move one without a loss.`,
		Args: onlyCommands("create, copy, remove or show"),
		RunE: showHelp,
	}
	cmd.AddCommand(newIdentityCreate(), newIdentityCopy(), newIdentityRemove(), newIdentityShow())
	return cmd
}

func newIdentityCreate() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "create --out FILE",
		Short: "Make a new age identity",
		Long: `Write a new age identity to a file with mode 0600, and print its public key. A file that exists is not
replaced. Keep a copy of it where you keep such keys: if it is lost, what is sealed at that time is lost.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("--out is missing: name the file for the identity")
			}
			publicKey, err := pending.CreateIdentity(out)
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), publicKey)
			return nil
		},
	}
	outFlag(cmd, &out)
	return cmd
}

func outFlag(cmd *cobra.Command, out *string) {
	cmd.Flags().StringVar(out, "out", "", "the new `file`")
	_ = cmd.MarkFlagFilename("out")
}

func newIdentityCopy() *cobra.Command {
	var out, dir, configPath string
	cmd := &cobra.Command{
		Use:   "copy --out FILE",
		Short: "Copy the identity of the state directory to another place",
		Long: `Copy the identity that the daemon has made in its state directory to a file with mode 0600, and read it
back. The daemon may run. Then let state.identity name the copy, restart the daemon, and remove the old
one with rotatord identity remove. With --out - the identity is printed, for a place that is not a file.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usagef("--out is missing: name the file for the copy, or - for standard output")
			}
			if dir == "" {
				c, err := loadConfig(configPath, io.Discard)
				if err != nil {
					return err
				}
				dir = c.State.Dir
			}
			return copyIdentity(cmd.OutOrStdout(), cmd.ErrOrStderr(), statedir.IdentityFile(dir), out)
		},
	}
	outFlag(cmd, &out)
	cmd.Flags().StringVar(&dir, "state-dir", "", "state `directory` (default: state.dir of the configuration)")
	_ = cmd.MarkFlagDirname("state-dir")
	configFlag(cmd, &configPath)
	return cmd
}

func copyIdentity(stdout, stderr io.Writer, from, to string) error {
	if to == "-" {
		text, _, err := pending.IdentityText(from)
		if err == nil {
			_, err = stdout.Write(text)
			clear(text)
		}
		return err
	}
	publicKey, err := pending.CopyIdentity(from, to)
	if err != nil {
		return err
	}
	fmt.Fprintln(stdout, publicKey)
	absolute, err := filepath.Abs(to)
	fmt.Fprintf(stderr, "%s has the identity now, and %s still has it. Next:\n"+
		"  1. keep another copy of it where you keep such keys\n"+
		"  2. let the daemon read it: state: {identity: {file: %s}}, or where a unit or a pod has this file\n"+
		"  3. restart the daemon\n"+
		"  4. rotatord identity remove\n", to, from, cmp.Or(absolute, to))
	return err
}

func newIdentityRemove() *cobra.Command {
	var configPath, credentials string
	cmd := &cobra.Command{
		Use:   "remove",
		Short: "Remove the identity from the state directory when it is kept elsewhere",
		Long: `Remove identity.age from the state directory. This is refused unless state.identity of the configuration
can be read and is the same identity in another place, so that nothing that is sealed is lost. The daemon may run.

Backups of the state directory still have the old file. If that matters, change to a new identity when
rotatord_pending_secrets is 0.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configuredIdentity(configPath, credentials)
			if err != nil {
				return err
			}
			if c.State.Identity.IsZero() {
				return errors.New("the configuration has no state.identity: the daemon needs the identity in the state directory")
			}
			path := statedir.IdentityFile(c.State.Dir)
			if sameFile(c.State.Identity.File, path) {
				return fmt.Errorf("state.identity names %s itself, by this or another path: copy it with rotatord identity copy first", path)
			}
			kept, err := c.State.Identity.ReadAs(cmd.Context(), config.AgeIdentity)
			if err != nil {
				return fmt.Errorf("the configured age identity: %w", err)
			}
			removed, err := pending.RemoveIdentity(path, kept.Reveal())
			switch {
			case err != nil:
				return err
			case removed:
				fmt.Fprintf(cmd.OutOrStdout(), "%s is removed; %s has the same identity\n", path, c.State.Identity)
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "%s does not exist: nothing to do\n", path)
			}
			return nil
		},
	}
	configFlag(cmd, &configPath)
	credentialsFlag(cmd, &credentials)
	return cmd
}

// sameFile reports whether two paths lead to one file, also through a link or a mount.
func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// configuredIdentity loads the configuration with the place of the identity that this process can read.
func configuredIdentity(configPath, credentials string) (*config.Config, error) {
	c, err := loadConfig(configPath, io.Discard)
	if err == nil {
		_, err = systemPlaces().relocate(c, credentials)
	}
	return c, err
}

// shownIdentity is what identity show prints.
type shownIdentity struct {
	PublicKey string `json:"public_key"`
	Where     string `json:"where"`
	// Beside is the file in the state directory that has an identity too; empty if there is none.
	Beside string `json:"beside,omitempty"`
}

func newIdentityShow() *cobra.Command {
	var configPath, credentials string
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show where the identity is, and its public key",
		Long: `Show the public key of the daemon's age identity, where the identity is, and whether the state directory has
one too. Other replicas name the public key in state.recipients. No secret is shown.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := configuredIdentity(configPath, credentials)
			if err != nil {
				return err
			}
			shown, err := showIdentity(cmd.Context(), c)
			if err != nil {
				return err
			}
			if format == "json" {
				return printJSON(cmd.OutOrStdout(), shown)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "public key  %s\nwhere       %s\n", shown.PublicKey, shown.Where)
			if shown.Beside != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "beside      %s: whoever has a copy of the state directory can open what is sealed there\n", shown.Beside)
			}
			return nil
		},
	}
	configFlag(cmd, &configPath)
	credentialsFlag(cmd, &credentials)
	outputFlag(cmd, &format)
	return cmd
}

func showIdentity(ctx context.Context, c *config.Config) (shown shownIdentity, err error) {
	path := statedir.IdentityFile(c.State.Dir)
	if !missing(path) {
		shown.Beside = path
	}
	if source := c.State.Identity; !source.IsZero() {
		text, err := source.ReadAs(ctx, config.AgeIdentity)
		if err != nil {
			return shown, fmt.Errorf("the configured age identity: %w", err)
		}
		shown.Where = source.String()
		shown.PublicKey, err = pending.PublicKeyOf(text.Reveal(), path)
		return shown, err
	}
	text, publicKey, err := pending.IdentityText(path)
	clear(text)
	shown.Where, shown.PublicKey = path, publicKey
	return shown, err
}
