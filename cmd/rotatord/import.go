package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/cloudflare"
	"rotatord/internal/config"
	"rotatord/internal/durable"
	"rotatord/internal/rotation"
)

// importOptions are the flags of import.
type importOptions struct {
	configPath   string
	configGiven  bool
	account      string
	accountID    string
	zoneID       string
	apiTokenFile string
	baseURL      string
	out          string
	overwrite    bool

	schedule, mount, prefix string

	placement                          string // --for
	placementGiven                     bool
	vaultAddress, listen               string
	stateDir, roleIDFile, secretIDFile string
}

func newImport() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Write the service tokens of an account as a configuration file",
		Long: `Write the service tokens of an account as a configuration file, to standard output or to a new
file. Cloudflare is asked to list, and nothing is changed anywhere. The account is one of --config's
file, which gives Vault and all paths too, or is named by --account-id (or --zone-id) and --api-token-file.
Service tokens that --config's file has already are left out.

--for says how the daemon will run, and so which paths the file names: those of the shipped systemd
unit (the default), those of deploy/kubernetes, or those given here, for a daemon that you start by hand.
For systemd and kubernetes the API token is read from --api-token-file this once; the daemon will
find it where the unit or the Secret puts it.

No secret is in the file. It has mode 0644 whatever the umask is, since the daemon's user must be able
to read it; a directory that is missing is made.

Each entry has a place in Vault made from its name, and a comment that says what speaks against
rotating it: look through them before you run the daemon with it.`,
		Example: `  rotatord import --account-id ID --api-token-file /etc/rotatord/credentials/cloudflare-api-token \
    --vault-address https://vault.example.com:8200 --out /etc/rotatord/config.yaml
  rotatord import --for here --account-id ID --api-token-file cloudflare-api-token \
    --base-url http://127.0.0.1:8787/client/v4 --vault-address http://127.0.0.1:8200 --out config.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.configGiven, o.placementGiven = cmd.Flags().Changed("config"), cmd.Flags().Changed("for")
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), time.Now())
		},
	}
	o.addFlags(cmd)
	return cmd
}

func (o *importOptions) addFlags(cmd *cobra.Command) {
	configFlag(cmd, &o.configPath)
	flags := cmd.Flags()
	flags.StringVar(&o.account, "account", "", "`name` of the account, in --config's file or, with an ID, for the new one")
	flags.StringVar(&o.accountID, "account-id", "", "Cloudflare's `id` of an account that is in no configuration yet")
	flags.StringVar(&o.zoneID, "zone-id", "", "Cloudflare's `id` of a zone, in place of --account-id")
	flags.StringVar(&o.apiTokenFile, "api-token-file", "", "`file` with the API token for --account-id or --zone-id")
	flags.StringVar(&o.baseURL, "base-url", "", "`address` of the API for --account-id or --zone-id, such as that of rotatord sim")
	flags.StringVar(&o.out, "out", "", "new `file` to write to, in place of standard output; it must not exist")
	flags.BoolVar(&o.overwrite, "overwrite", false, "let --out take the place of a file that exists")
	flags.StringVar(&o.schedule, "schedule", "0 4 * * 1", "schedule of all tokens, in UTC")
	flags.StringVar(&o.mount, "mount", "secret", "KV `mount` that the secrets are written to")
	flags.StringVar(&o.prefix, "path-prefix", "access", "`path` in it, to which each token's name is added")
	flags.StringVar(&o.placement, "for", forSystemd, "how the daemon will run: systemd, kubernetes or here")
	flags.StringVar(&o.vaultAddress, "vault-address", "", "`address` of Vault; default a placeholder, which you have to change in the file")
	flags.StringVar(&o.listen, "listen", "", "`address` of metrics and status page; default by --for")
	flags.StringVar(&o.stateDir, "state-dir", "", "state `directory`; default by --for (here: state beside --out)")
	flags.StringVar(&o.roleIDFile, "vault-role-id-file", "", "`file` with the AppRole's role ID; default by --for (here: vault-role-id beside --api-token-file)")
	flags.StringVar(&o.secretIDFile, "vault-secret-id-file", "", "`file` with its secret ID; default by --for (here: vault-secret-id beside --api-token-file)")
	for _, name := range []string{"api-token-file", "out", "vault-role-id-file", "vault-secret-id-file"} {
		_ = cmd.MarkFlagFilename(name)
	}
	_ = cmd.MarkFlagDirname("state-dir")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{forSystemd, forKubernetes, forHere}, cobra.ShellCompDirectiveNoFileComp))
}

// check refuses flags that do not go together.
func (o *importOptions) check() error {
	alone := o.accountID != "" || o.zoneID != ""
	switch {
	case o.accountID != "" && o.zoneID != "":
		return usagef("--account-id and --zone-id exclude each other")
	case alone && o.apiTokenFile == "":
		return usagef("--api-token-file is missing: it goes with --account-id and --zone-id")
	case !alone && (o.apiTokenFile != "" || o.baseURL != ""):
		return usagef("--api-token-file and --base-url go with --account-id or --zone-id: the account of a configuration has its own")
	case !alone && (o.placementGiven || o.vaultAddress+o.listen+o.stateDir+o.roleIDFile+o.secretIDFile != ""):
		return usagef("--for, --vault-address, --listen, --state-dir and the --vault-...-file flags go with --account-id or --zone-id: a configuration has its own")
	case o.overwrite && o.out == "":
		return usagef("--overwrite goes with --out")
	case !alone && o.account == "":
		return usagef("say which account: --account NAME of --config's file, or --account-id ID with --api-token-file FILE")
	}
	if alone && o.account == "" {
		o.account = "main"
	}
	if _, err := placeFor(o.placement, "", ""); err != nil {
		return err
	}
	if o.out != "" && !o.overwrite {
		if _, err := os.Lstat(o.out); err == nil { // before anything is asked; write looks again
			return o.exists()
		}
	}
	return nil
}

func (o *importOptions) exists() error {
	return fmt.Errorf("%s exists, and is not overwritten: remove it, choose another name, or say --overwrite", o.out)
}

func (o *importOptions) run(ctx context.Context, stdout, stderr io.Writer, now time.Time) error {
	var known *config.Config // what is configured already
	if o.accountID == "" && o.zoneID == "" || o.configGiven {
		var err error
		if known, err = loadConfig(o.configPath, stderr); err != nil {
			return err
		}
	}
	draft, err := o.draft(known)
	if err != nil {
		return err
	}
	// The loader judges the account before a credential is sent to it, by a file with one made-up token.
	probe, err := config.Parse("import", []byte(draft.render([]importedToken{{name: "probe", id: "00000000-0000-4000-8000-000000000000"}}, 0)))
	if err != nil {
		return fmt.Errorf("these options make no configuration that can be loaded:\n%w", err)
	}
	if _, err := systemPlaces().relocate(probe, ""); err != nil { // it is asked with the credential as it lies here
		return err
	}
	listing, err := o.client(probe.Accounts[o.account]).List(ctx)
	if err != nil {
		return err
	}
	if what := listing.Unreadable(); what != "" {
		fmt.Fprintln(stderr, "note:", what)
	}
	listed := listing.Tokens
	fresh := slices.DeleteFunc(slices.Clone(listed), func(f rotation.TokenFacts) bool { return configured(known, f) })
	left := len(listed) - len(fresh)
	if len(fresh) == 0 {
		return fmt.Errorf("there is nothing to import: %d service token(s), of which %d are in %s already", len(listed), left, o.configPath)
	}
	tokens := nameAll(fresh, takenNames(known), now)
	remarkReplacements(known, o.account, fresh, tokens)
	text := draft.render(tokens, left)
	if _, err := config.Parse("import", []byte(text)); err != nil {
		return fmt.Errorf("what was made of the account cannot be loaded:\n%w", err)
	}
	if err := o.write(stdout, text); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%d service token(s) written, %d configured already\n", len(fresh), left)
	if draft.vault == nil && draft.vaultAddress == "" && draft.like == nil {
		fmt.Fprintln(stderr, "note: vault.address is a placeholder: put the address of your Vault there")
	}
	return nil
}

// draft is the file without its tokens.
func (o *importOptions) draft(known *config.Config) (importDraft, error) {
	d := importDraft{schedule: o.schedule, spans: spansOf(o.schedule), mount: o.mount, prefix: strings.Trim(o.prefix, "/"), vaultAddress: o.vaultAddress}
	if o.accountID == "" && o.zoneID == "" {
		var found bool
		if d.account, found = known.Accounts[o.account]; !found {
			return d, usagef("%s has no account %q: it has %s", o.configPath, o.account, strings.Join(sortedKeys(known.Accounts), ", "))
		}
		d.place = knownPlace(known)
		d.follow(known)
		return d, nil
	}
	var err error
	if d.place, err = o.place(); err != nil {
		return d, err
	}
	d.account = config.Account{
		Name: o.account, AccountID: o.accountID, ZoneID: o.zoneID, BaseURL: o.baseURL, APIToken: config.SecretSource{File: d.place.apiToken},
	}
	if known != nil {
		if o.vaultAddress != "" {
			return d, usagef("--vault-address and --config exclude each other: %s has a Vault of its own", o.configPath)
		}
		d.follow(known)
	}
	return d, nil
}

// follow takes over the Vault of a configuration. If it has none, the draft has sinks like its own.
func (d *importDraft) follow(known *config.Config) {
	if d.vault = known.Vault; d.vault == nil {
		d.like = known.Tokens[0].Sinks[0]
	}
}

// client asks Cloudflare with the credential as it is here. A daemon elsewhere has it elsewhere.
func (o *importOptions) client(account config.Account) *cloudflare.Client {
	if o.apiTokenFile != "" {
		account.APIToken = config.SecretSource{File: o.apiTokenFile}
	}
	return cloudflare.New(account, cloudflare.Options{})
}

// configured reports whether a configuration has a service token, or would make one of its name.
func configured(c *config.Config, f rotation.TokenFacts) bool {
	return c != nil && slices.ContainsFunc(c.Tokens, func(t config.Token) bool {
		return t.ID == f.ID || t.Partner == f.ID || t.Create != nil && t.Create.Name == f.Name
	})
}

// madeByReplacing is what strategy: replace calls what it makes: a name and a suffix of its own.
var madeByReplacing = regexp.MustCompile(`^.+-[a-z2-7]{10}$`)

// remarkReplacements says of which service tokens only the ledger knows whether an entry has them,
// or had them and is about to delete them.
func remarkReplacements(c *config.Config, account string, listed []rotation.TokenFacts, tokens []importedToken) {
	if c == nil || !slices.ContainsFunc(c.Tokens, func(t config.Token) bool { return t.Account == account && t.Replace }) {
		return
	}
	for i := range tokens {
		if slices.ContainsFunc(listed, func(f rotation.TokenFacts) bool { return f.ID == tokens[i].id && madeByReplacing.MatchString(f.Name) }) {
			tokens[i].comments = append(tokens[i].comments,
				"its name is of the kind that strategy: replace gives: leave it out if that made it, which rotatord status NAME and the ledger know")
		}
	}
}

func takenNames(c *config.Config) map[string]bool {
	taken := map[string]bool{}
	if c != nil {
		for _, t := range c.Tokens {
			taken[t.Name] = true
		}
	}
	return taken
}

// write puts the text where it is wanted.
func (o *importOptions) write(stdout io.Writer, text string) error {
	if o.out == "" {
		_, err := io.WriteString(stdout, text)
		return err
	}
	err := makeDirs(filepath.Dir(o.out))
	if err == nil {
		save := durable.CreateFile
		if o.overwrite {
			save = durable.WriteFile
		}
		err = save(o.out, []byte(text), 0o644)
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return o.exists()
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("writing %s: %w: run import as a user who may write there, or name another --out", o.out, err)
	case err != nil:
		return fmt.Errorf("writing %s: %w", o.out, err)
	}
	return nil
}
