package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"rotatord/deploy/prometheus"
)

const rulesHelp = `Print the Prometheus alert rules of this version, with the address of your copy of the
runbook in every alert's runbook_url:

  rotatord rules --runbook-url https://wiki.example.org/rotatord/runbook > rotatord.rules.yaml

Each alert adds the name of its section to the address, such as #rotatordabsent: the heading in
docs/runbook.md in lower case. Print the rules again after each upgrade, because they match the metrics
of this version.`

func newRules() *cobra.Command {
	var runbook, out string
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Print the Prometheus alert rules, with the address of your runbook",
		Long:  rulesHelp,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return printRules(runbook, out, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVar(&runbook, "runbook-url", prometheus.RunbookURL, "`address` of your copy of docs/runbook.md, without the # part")
	cmd.Flags().StringVar(&out, "out", "", "`file` to write to, in place of standard output; an existing file is replaced")
	_ = cmd.MarkFlagFilename("out", "yaml", "yml")
	return cmd
}

func printRules(runbook, out string, stdout, stderr io.Writer) error {
	rules, err := prometheus.Rules(runbook)
	if err != nil {
		return usagef("--runbook-url: %v", err)
	}
	if runbook == prometheus.RunbookURL {
		fmt.Fprintf(stderr, "rotatord: runbook_url in these rules is a placeholder: give the address of your copy of docs/runbook.md with --runbook-url\n")
	}
	if out == "" {
		_, err = io.WriteString(stdout, rules)
		return err
	}
	return writeOut(out, []byte(rules))
}
