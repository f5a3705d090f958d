package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"rotatord/internal/audit"
)

func newAudit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Verify the record of events",
		Long: `Verify the record of events, or print its head. The record is a file of one JSON object a line. Each line has
the hash of the line before it. See docs/audit.md.`,
		Args: onlyCommands("verify or head"),
		RunE: showHelp,
	}
	cmd.AddCommand(newAuditVerify(), newAuditHead())
	return cmd
}

// recordFlags say where the record of events is.
type recordFlags struct{ config, file string }

func (f *recordFlags) add(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().StringVar(&f.file, "file", "", "the record's `file` (default: audit.file of the configuration)")
	_ = cmd.MarkFlagFilename("file", "jsonl")
}

// path returns where the record is.
func (f *recordFlags) path(stderr io.Writer) (string, error) {
	if f.file != "" {
		return f.file, nil
	}
	c, err := loadConfig(f.config, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "rotatord: with --file FILE you can read a record without the configuration")
		return "", err
	}
	return c.Audit.File, nil
}

func newAuditVerify() *cobra.Command {
	var at recordFlags
	var format outputFormat
	var head string
	var from uint64
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Name each line of the record of events that is not as it was written",
		Long: `Read the record of events, with the full files beside it, and name each line that was changed, removed, moved,
repeated or inserted, as FILE:LINE. The end is compared with the head that is kept beside the record. Exit 1 if
there is such a line. Nothing is changed, and the daemon may run.

Whoever may write the files can write other ones that fit, and another head. So compare with a head that has
left the machine too: the log has one each hour ("the head of the record of events"), and the metric
rotatord_audit_sequence has its number. Give it as --head SEQ:HASH, or as --head SEQ.

After the daemon has found the record damaged, a new chain begins, and verify says so each time. Once you know
what happened, --from SEQ verifies what was written since.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := audit.VerifyOptions{From: from}
			var err error
			if head != "" {
				if o.Head, err = audit.ParseHead(head); err != nil {
					return usagef("--head: %v", err)
				}
			}
			if o.File, err = at.path(cmd.ErrOrStderr()); err != nil {
				return err
			}
			v, err := audit.Verify(cmd.Context(), o)
			if err != nil {
				return recordUnreadable(o.File, err)
			}
			if format == "json" {
				err = printJSON(cmd.OutOrStdout(), v)
			} else {
				printVerified(cmd.OutOrStdout(), v)
			}
			if err == nil && !v.OK {
				err = errReported
			}
			return err
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	cmd.Flags().StringVar(&head, "head", "", "a head that was kept elsewhere: `SEQ[:HASH]`")
	cmd.Flags().Uint64Var(&from, "from", 0, "the number of the first `line` that counts: problems before it are known")
	return cmd
}

// recordUnreadable returns an error that says what to do about a record that cannot be read.
func recordUnreadable(path string, err error) error {
	if os.IsNotExist(err) {
		return fmt.Errorf("there is no record of events at %s: it begins when the daemon starts. Is this its configuration, and its machine?", path)
	}
	return fmt.Errorf("reading the record of events: %w", explainPermission(err))
}

// explainPermission adds who may read the record to an error.
func explainPermission(err error) error {
	if os.IsPermission(err) {
		return fmt.Errorf("%w: run the command as root or as the daemon's user", err)
	}
	return err
}

func printVerified(w io.Writer, v audit.Verified) {
	for _, p := range v.Problems {
		fmt.Fprintln(w, p)
	}
	if v.More > 0 {
		fmt.Fprintf(w, "and %d more problems\n", v.More)
	}
	if v.Lines == 0 {
		fmt.Fprintln(w, "The record has no line.")
		return
	}
	fmt.Fprintf(w, "%d lines in %d files, from number %d to %d. The last one is of %s.\nHead: %s\n", v.Lines, len(v.Files), v.First, v.Last, v.LastAt.Format("2006-01-02 15:04:05 MST"), v.Head)
	if v.OK {
		fmt.Fprintln(w, "All lines are as they were written.")
	} else {
		fmt.Fprintf(w, "%d problems: the record is not as it was written.\n", len(v.Problems)+v.More)
	}
}

func newAuditHead() *cobra.Command {
	var at recordFlags
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "head",
		Short: "Print the head of the record of events",
		Long: `Print number and hash of the last line that is on the disk, as SEQ:HASH. Keep it on another machine: rotatord
audit verify --head SEQ:HASH finds out there, or here, whether that line is still in the record.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := at.path(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			head, err := audit.ReadHead(path)
			switch {
			case err != nil:
				return explainPermission(err)
			case head.IsZero():
				return recordUnreadable(path, os.ErrNotExist)
			case format == "json":
				return printJSON(cmd.OutOrStdout(), struct {
					File string `json:"file"`
					Seq  uint64 `json:"seq"`
					Hash string `json:"hash"`
				}{path, head.Seq, head.Hash})
			}
			fmt.Fprintln(cmd.OutOrStdout(), head)
			return nil
		},
	}
	at.add(cmd)
	outputFlag(cmd, &format)
	return cmd
}
