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
	files                   string // the directory of --files

	placement                          string // --for
	placementGiven, vaultRoleGiven     bool
	vaultAddress, listen               string
	stateDir, roleIDFile, secretIDFile string
	vaultAuth, vaultRole, jwtFile      string
}

func newImport() *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Write the service tokens of an account as a configuration file",
		Long: `Write a configuration file with the service tokens of an account, to standard output or to a new file.
The command lists the service tokens at Cloudflare. It changes nothing there or elsewhere.

The account is one of the configuration at --config, from which Vault and all paths are taken too. Or it
is a new account, with --account-id (or --zone-id) and --api-token-file. Service tokens that the
configuration at --config has already are left out.

--for says how the daemon will run, which decides the paths in the file: systemd for those of the shipped
unit (the default), kubernetes for those of deploy/kubernetes, or here for a daemon that you start by
hand, with the paths of this command line. With systemd and kubernetes, only this command reads
--api-token-file; the daemon will read the API token where the unit or the Secret puts it.

--vault-auth says how the daemon logs in to Vault: kubernetes with the token of its pod (the default with
--for kubernetes), approle with a role ID and a secret ID (the default otherwise), or jwt with a token from
a file that another program renews.

The file contains no secret. It has mode 0644 regardless of the umask, because the daemon's user must be
able to read it. A missing directory is created.

Each entry gets a path in Vault that is derived from its name, or with --files a file, and a comment if
something speaks against rotating it. Read these comments before you start the daemon with the file.`,
		Example: `  rotatord import --account-id ID --api-token-file /etc/rotatord/credentials/cloudflare-api-token \
    --vault-address https://vault.example.com:8200 --out /etc/rotatord/config.yaml
  rotatord import --for here --account-id ID --api-token-file cloudflare-api-token \
    --base-url http://127.0.0.1:8787/client/v4 --vault-address http://127.0.0.1:8200 --out config.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.vaultRoleGiven = cmd.Flags().Changed("vault-role")
			for _, name := range []string{"mount", "path-prefix", "vault-address", "vault-role-id-file", "vault-secret-id-file", "vault-auth", "vault-role", "vault-jwt-file", "config"} {
				if o.files != "" && cmd.Flags().Changed(name) {
					return usagef("give either --files or --%s", name)
				}
			}
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
	flags.StringVar(&o.account, "account", "", "`name` of the account in the configuration, or with an ID the name of the new one")
	flags.StringVar(&o.accountID, "account-id", "", "Cloudflare's `id` of an account that is not configured yet")
	flags.StringVar(&o.zoneID, "zone-id", "", "Cloudflare's `id` of a zone, in place of --account-id")
	flags.StringVar(&o.apiTokenFile, "api-token-file", "", "`file` with the API token for --account-id or --zone-id")
	flags.StringVar(&o.baseURL, "base-url", "", "`address` of the API for --account-id or --zone-id, such as that of rotatord sim")
	flags.StringVar(&o.out, "out", "", "new `file` to write to, in place of standard output; it must not exist yet")
	flags.BoolVar(&o.overwrite, "overwrite", false, "replace an existing file at --out")
	flags.StringVar(&o.schedule, "schedule", "0 4 * * 1", "schedule of all tokens, in UTC")
	flags.StringVar(&o.mount, "mount", "secret", "KV `mount` to write the secrets to")
	flags.StringVar(&o.prefix, "path-prefix", "access", "`path` in the mount; each token's name is added to it")
	flags.StringVar(&o.files, "files", "", "`directory` of files to write the secrets to, in place of Vault; it must exist when the daemon starts")
	flags.StringVar(&o.placement, "for", forSystemd, "how the daemon will run: systemd, kubernetes or here")
	flags.StringVar(&o.vaultAddress, "vault-address", "", "`address` of Vault (default: a placeholder, which you have to change in the file)")
	flags.StringVar(&o.listen, "listen", "", "`address` of the metrics and the status page (default: by --for)")
	flags.StringVar(&o.stateDir, "state-dir", "", "state `directory` (default: by --for; with here, the directory state next to --out)")
	flags.StringVar(&o.roleIDFile, "vault-role-id-file", "", "`file` with the AppRole's role ID (default: by --for; with here, vault-role-id next to --api-token-file)")
	flags.StringVar(&o.secretIDFile, "vault-secret-id-file", "", "`file` with the AppRole's secret ID (default: by --for; with here, vault-secret-id next to --api-token-file)")
	flags.StringVar(&o.vaultAuth, "vault-auth", "", "how the daemon logs in to Vault: approle, kubernetes or jwt (default: kubernetes with --for kubernetes, else approle)")
	flags.StringVar(&o.vaultRole, "vault-role", "rotatord", "`name` of the role in Vault, for kubernetes and jwt")
	flags.StringVar(&o.jwtFile, "vault-jwt-file", "", "`file` with the JWT for --vault-auth jwt (default with --for kubernetes: the pod's token for Vault)")
	for _, name := range []string{"api-token-file", "out", "vault-role-id-file", "vault-secret-id-file", "vault-jwt-file"} {
		_ = cmd.MarkFlagFilename(name)
	}
	_ = cmd.MarkFlagDirname("state-dir")
	_ = cmd.RegisterFlagCompletionFunc("vault-auth", cobra.FixedCompletions([]string{authAppRole, authKubernetes, authJWT}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("files")
	_ = cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{forSystemd, forKubernetes, forHere}, cobra.ShellCompDirectiveNoFileComp))
}

// check refuses flags that exclude each other.
func (o *importOptions) check() error {
	alone := o.accountID != "" || o.zoneID != ""
	switch {
	case o.accountID != "" && o.zoneID != "":
		return usagef("give either --account-id or --zone-id")
	case alone && o.apiTokenFile == "":
		return usagef("--api-token-file is missing: --account-id and --zone-id need it")
	case !alone && (o.apiTokenFile != "" || o.baseURL != ""):
		return usagef("--api-token-file and --base-url need --account-id or --zone-id: a configured account has its own")
	case !alone && (o.placementGiven || o.files+o.vaultAddress+o.listen+o.stateDir+o.roleIDFile+o.secretIDFile+o.vaultAuth+o.jwtFile != "" || o.vaultRoleGiven):
		return usagef("--for, --files, --listen, --state-dir and the --vault-... flags need --account-id or --zone-id: a configuration has its own")
	case o.overwrite && o.out == "":
		return usagef("--overwrite needs --out")
	case !alone && o.account == "":
		return usagef("name the account: --account NAME for one of the configuration, or --account-id ID with --api-token-file FILE")
	}
	if alone && o.account == "" {
		o.account = "main"
	}
	if o.files != "" && !filepath.IsAbs(o.files) {
		return usagef("--files must be an absolute path, such as /var/lib/ci: the daemon runs in another directory")
	}
	if p, err := placeFor(o.placement, "", ""); err != nil {
		return err
	} else if _, err := o.logIn(p.auth, ""); err != nil {
		return err
	}
	if o.out != "" && !o.overwrite {
		if _, err := os.Lstat(o.out); err == nil { // before Cloudflare is asked; write checks again
			return o.exists()
		}
	}
	return nil
}

func (o *importOptions) exists() error {
	return fmt.Errorf("%s exists already: remove it, choose another name, or use --overwrite", o.out)
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
	// The loader checks the account before a credential is sent to it, in a file with one invented token.
	probe, err := config.Parse("import", []byte(draft.render([]importedToken{{name: "probe", id: "00000000-0000-4000-8000-000000000000"}}, 0)))
	if err != nil {
		return fmt.Errorf("these flags do not lead to a valid configuration:\n%w", err)
	}
	if _, err := systemPlaces().relocate(probe, ""); err != nil { // this command reads the credential where it is now
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
		return fmt.Errorf("there is nothing to import: the account has %d service token(s), and %d of them are in %s already", len(listed), left, o.configPath)
	}
	tokens := nameAll(fresh, takenNames(known), now)
	remarkReplacements(known, o.account, fresh, tokens)
	text := draft.render(tokens, left)
	if _, err := config.Parse("import", []byte(text)); err != nil {
		return fmt.Errorf("the configuration that was generated is not valid:\n%w", err)
	}
	if err := o.write(stdout, text); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%d service token(s) written, %d already configured\n", len(fresh), left)
	if draft.vault == nil && draft.vaultAddress == "" && draft.like == nil {
		fmt.Fprintln(stderr, "note: vault.address is a placeholder: put the address of your Vault there")
	}
	return nil
}

// draft returns the file without its tokens.
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
	if o.files != "" {
		d.like = config.FilesIn(o.files)
	}
	if known != nil {
		if o.vaultAddress != "" {
			return d, usagef("give either --vault-address or --config: %s has its own Vault", o.configPath)
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

// client returns a client with the credential of --api-token-file. In the file that is written, the path
// of the credential is the daemon's, which may be on another machine.
func (o *importOptions) client(account config.Account) *cloudflare.Client {
	if o.apiTokenFile != "" {
		account.APIToken = config.SecretSource{File: o.apiTokenFile}
	}
	return cloudflare.New(account, cloudflare.Options{})
}

// configured reports whether a configuration has a service token, or would create one with its name.
func configured(c *config.Config, f rotation.TokenFacts) bool {
	return c != nil && slices.ContainsFunc(c.Tokens, func(t config.Token) bool {
		return t.ID == f.ID || t.Partner == f.ID || t.Create != nil && t.Create.Name == f.Name
	})
}

// replacementName matches the names that strategy: replace gives to service tokens: a name and a suffix.
var replacementName = regexp.MustCompile(`^.+-[a-z2-7]{10}$`)

// remarkReplacements adds a comment to service tokens that strategy: replace may have created. Only the
// ledger knows whether it did, and whether the daemon will delete them.
func remarkReplacements(c *config.Config, account string, listed []rotation.TokenFacts, tokens []importedToken) {
	if c == nil || !slices.ContainsFunc(c.Tokens, func(t config.Token) bool { return t.Account == account && t.Replace }) {
		return
	}
	for i := range tokens {
		if slices.ContainsFunc(listed, func(f rotation.TokenFacts) bool { return f.ID == tokens[i].id && replacementName.MatchString(f.Name) }) {
			tokens[i].comments = append(tokens[i].comments,
				"its name looks like one that strategy: replace gives: remove this entry if rotatord created it (see rotatord status NAME, or the ledger)")
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

// write writes the text to --out, or to standard output.
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
		return fmt.Errorf("writing %s: %w: run import as a user who may write there, or choose another --out", o.out, err)
	case err != nil:
		return fmt.Errorf("writing %s: %w", o.out, err)
	}
	return nil
}
