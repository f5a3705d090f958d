package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
)

func newCheck() *cobra.Command {
	var configPath string
	var format outputFormat
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration",
		Long: `Check the configuration without touching anything: no network, no state. All faults
are reported at once, with their places. Warnings do not fail the check, and neither do
secrets that cannot be read here, since a check may run elsewhere than the daemon.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format == "json" {
				return checkJSON(configPath, cmd.OutOrStdout())
			}
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			for _, w := range warnings(c) {
				fmt.Fprintln(cmd.ErrOrStderr(), "warning:", w)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: good: %d token(s), %d account(s)\n", configPath, len(c.Tokens), len(c.Accounts))
			return nil
		},
	}
	configFlag(cmd, &configPath)
	outputFlag(cmd, &format)
	return cmd
}

// checkJSON prints the outcome as one object and ends with exit code 1 on faults.
func checkJSON(path string, stdout io.Writer) error {
	result := struct {
		File     string   `json:"file"`
		Good     bool     `json:"good"`
		Faults   []string `json:"faults"`
		Warnings []string `json:"warnings"`
	}{File: path, Faults: []string{}, Warnings: []string{}}
	c, err := config.Load(path)
	if faults, ok := config.AsFaults(err); ok {
		for _, f := range faults {
			result.Faults = append(result.Faults, f.String())
		}
	} else if err != nil {
		return err
	} else {
		result.Good = true
		result.Warnings = append(result.Warnings, warnings(c)...)
	}
	encoder := json.NewEncoder(stdout)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(result); err != nil {
		return err
	}
	if !result.Good {
		return errReported
	}
	return nil
}

// warnings are what the loader found questionable, and the secrets that cannot be read.
func warnings(c *config.Config) []string {
	var all []string
	for _, w := range c.Warnings {
		all = append(all, w.String())
	}
	secrets := map[string]config.SecretSource{}
	for name, a := range c.Accounts {
		secrets["accounts."+name+".api_token"] = a.APIToken
		secrets["accounts."+name+".api_key"] = a.APIKey
	}
	if role := c.Vault.Auth.AppRole; role != nil {
		secrets["vault.auth.approle.role_id"], secrets["vault.auth.approle.secret_id"] = role.RoleID, role.SecretID
	}
	if token := c.Vault.Auth.Token; token != nil {
		secrets["vault.auth.token"] = *token
	}
	secrets["state.identity"] = c.State.Identity
	for _, path := range sortedKeys(secrets) {
		if secrets[path].IsZero() {
			continue
		}
		if _, err := secrets[path].Read(); err != nil {
			all = append(all, fmt.Sprintf("%s: %s: %v", c.File, path, err))
		}
	}
	return all
}
