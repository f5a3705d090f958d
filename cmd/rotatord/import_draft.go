package main

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
)

const (
	maxName      = 63  // of an entry, as the configuration has it
	maxShownName = 200 // how many bytes of a service token's name are in its comment
	// unusedFor is the time without use after which a service token gets a comment.
	unusedFor = 60 * 24 * time.Hour
	// expiryWarning is how long before its end a service token gets a comment.
	expiryWarning = 60 * 24 * time.Hour
)

// importedToken is one entry of the file.
type importedToken struct {
	name, id string
	comments []string
}

// nameAll returns an entry for each service token, with a valid name that no other entry has, and with
// comments that say what speaks against rotating it. They are sorted by name.
func nameAll(all []rotation.TokenFacts, taken map[string]bool, now time.Time) []importedToken {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b rotation.TokenFacts) int {
		return cmp.Or(cmp.Compare(entryName(a), entryName(b)), a.CreatedAt.Compare(b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	same := map[string]int{}
	for _, f := range all {
		same[f.Name]++
	}
	tokens := make([]importedToken, 0, len(all))
	for _, f := range all {
		name := entryName(f)
		for n := 2; taken[name]; n++ {
			suffix := fmt.Sprintf("-%d", n)
			base := entryName(f)
			name = strings.TrimRight(base[:min(len(base), maxName-len(suffix))], "-._") + suffix
		}
		taken[name] = true
		tokens = append(tokens, importedToken{name: name, id: f.ID, comments: remarks(f, same[f.Name], now)})
	}
	return tokens
}

// entryName returns a valid name for an entry, from the name of its service token: characters that are
// not allowed become a dash.
func entryName(f rotation.TokenFacts) string {
	var b strings.Builder
	for _, r := range strings.ToLower(f.Name) {
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9', r == '.', r == '_':
			b.WriteRune(r)
		case !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-._")
	name = strings.TrimRight(name[:min(len(name), maxName)], "-._")
	return cmp.Or(name, "token-"+f.ID[:min(len(f.ID), 8)])
}

// remarks returns what an operator should know before a service token is rotated.
func remarks(f rotation.TokenFacts, same int, now time.Time) []string {
	day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	seen := "never used"
	if !f.LastSeenAt.IsZero() {
		seen = "last used " + day(f.LastSeenAt)
	}
	ends := "does not expire"
	if !f.ExpiresAt.IsZero() {
		ends = "expires " + day(f.ExpiresAt)
	}
	// A name can contain any character: quoted it stays on its line.
	name := printable.Shortened(printable.Text(strconv.Quote(f.Name)), maxShownName)
	all := []string{fmt.Sprintf("%s, %s, %s", name, seen, ends)}
	last := f.LastSeenAt
	if last.IsZero() {
		last = f.CreatedAt
	}
	if !last.IsZero() && now.Sub(last) > unusedFor {
		all = append(all, fmt.Sprintf("UNUSED for %d days: is it still needed?", int(now.Sub(last)/(24*time.Hour))))
	}
	switch {
	case f.ExpiresAt.IsZero():
	case !f.ExpiresAt.After(now):
		all = append(all, "EXPIRED: renew it at Cloudflare (a rotation does not renew it), or remove this entry")
	case f.ExpiresAt.Sub(now) < expiryWarning:
		all = append(all, "EXPIRES SOON: renew_before renews it")
	}
	if !f.Enabled {
		all = append(all, "DISABLED: enable it, or remove this entry")
	}
	if same > 1 {
		all = append(all, fmt.Sprintf("SAME NAME: %d service tokens have this name", same))
	}
	return all
}

// importDraft is the file without its tokens.
type importDraft struct {
	place                   place
	account                 config.Account
	vault                   *config.Vault // nil: not known
	vaultAddress            string        // if vault is nil; empty for a placeholder
	like                    config.Sink   // sinks are written like this one; nil: in Vault, by mount and prefix
	schedule, mount, prefix string
	spans                   spans
}

// render returns the text of the file. left is the number of service tokens that are left out.
func (d importDraft) render(tokens []importedToken, left int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by rotatord import, for %s: %d service token(s) of %s. %d others are already configured.", d.place.what, len(tokens), d.account.Name, left)
	line("# This file contains no secret. The daemon's user must be able to read it: keep its mode 0644.")
	line("# Check each entry's comment and its sink, then run: rotatord check, and rotatord doctor.")
	line("listen: %s", strconv.Quote(d.place.listen))
	if d.place.adminSocket != "" {
		line("admin_socket: %s", strconv.Quote(d.place.adminSocket))
	}
	if d.place.identity != "" {
		line("state: {dir: %s, identity: {file: %s}}", strconv.Quote(d.place.stateDir), strconv.Quote(d.place.identity))
	} else {
		line("state: {dir: %s}", strconv.Quote(d.place.stateDir))
	}
	line("accounts:")
	line("  %s:", d.account.Name)
	if d.account.ZoneID != "" {
		line("    zone_id: %s", strconv.Quote(d.account.ZoneID))
	} else {
		line("    account_id: %s", strconv.Quote(d.account.AccountID))
	}
	if d.account.APIToken.IsZero() {
		line("    api_email: %s", strconv.Quote(d.account.APIEmail))
		line("    api_key: %s", sourceYAML(d.account.APIKey))
	} else {
		line("    api_token: %s", sourceYAML(d.account.APIToken))
	}
	if d.account.BaseURL != "" {
		line("    base_url: %s", strconv.Quote(d.account.BaseURL))
	}
	if d.account.RequestsPer5m != 0 {
		line("    requests_per_5m: %d", d.account.RequestsPer5m)
	}
	if d.account.InventoryEvery != 0 {
		line("    inventory_every: %s", d.account.InventoryEvery)
	}
	if d.sinkOf("probe").NeedsVault() {
		d.renderVault(line)
	}
	line("defaults:")
	line("  account: %s", d.account.Name)
	line("  schedule: %s", strconv.Quote(d.schedule))
	line("  time_zone: UTC")
	line("  jitter: %s   # each token and slot has a fixed delay, so that not all rotations start at once", inFile(d.spans.jitter))
	line("  window: %s   # how late a slot may be served; 0: until the next slot", inFile(d.spans.window))
	line("  catch_up: once   # one rotation makes up for missed slots")
	line("  grace: %s   # how long the previous secret works: longer than consumers need to read the new one", inFile(d.spans.grace))
	line("  renew_before: 720h   # the service token itself is renewed when it expires within this time")
	if d.account.ZoneID != "" {
		line("  strategy: replace   # Cloudflare rotates service tokens of accounts only")
	}
	line("tokens:")
	for _, t := range tokens {
		for _, comment := range t.comments {
			line("  # %s", comment)
		}
		line("  %s:", strconv.Quote(t.name))
		line("    id: %s", strconv.Quote(t.id))
		s := d.sinkOf(t.name)
		line("    sinks: [{%s: %s}]", s.Kind(), flow(s.Document()))
	}
	return b.String()
}

// sinkOf is where the draft has the secret of a token.
func (d importDraft) sinkOf(token string) config.Sink {
	if d.like != nil {
		return d.like.Sibling(token)
	}
	return &config.VaultSink{Mount: d.mount, Path: path.Join(d.prefix, token), Metadata: true, SinkFields: config.DefaultFields()}
}

// flow writes a mapping of the configuration on one line.
func flow(document map[string]any) string {
	text := &strings.Builder{}
	text.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(document)) {
		if i > 0 {
			text.WriteString(", ")
		}
		text.WriteString(key + ": ")
		switch value := document[key].(type) {
		case map[string]any:
			text.WriteString(flow(value))
		case string:
			text.WriteString(strconv.Quote(value))
		default:
			fmt.Fprint(text, value)
		}
	}
	text.WriteByte('}')
	return text.String()
}

func (d importDraft) renderVault(line func(string, ...any)) {
	line("vault:")
	if d.vault == nil {
		if d.vaultAddress != "" {
			line("  address: %s", strconv.Quote(d.vaultAddress))
		} else {
			line("  address: https://vault.example.com:8200   # CHANGE THIS to the address of your Vault")
		}
		line("  auth:")
		renderAuth(line, d.place.auth)
		return
	}
	v := *d.vault
	line("  address: %s", strconv.Quote(v.Address))
	if len(v.Nodes) > 0 {
		line("  nodes:")
		for _, node := range v.Nodes {
			line("    - %s", strconv.Quote(node))
		}
	}
	if v.Namespace != "" {
		line("  namespace: %s", strconv.Quote(v.Namespace))
	}
	line("  timeout: %s", v.Timeout)
	if v.TLS != (config.TLS{}) {
		line("  tls:")
		for _, field := range [][2]string{{"ca_file", v.TLS.CAFile}, {"cert_file", v.TLS.CertFile}, {"key_file", v.TLS.KeyFile}, {"server_name", v.TLS.ServerName}} {
			if field[1] != "" {
				line("    %s: %s", field[0], strconv.Quote(field[1]))
			}
		}
	}
	line("  auth:")
	line("    %s: %s", v.Auth.Kind(), flow(v.Auth.Document()))
}

// renderAuth writes how a new daemon logs in. What is the default is left out.
func renderAuth(line func(string, ...any), auth config.VaultAuth) {
	switch auth := auth.(type) {
	case *config.AppRole:
		line("    approle:")
		line("      role_id: %s", sourceYAML(auth.RoleID))
		line("      secret_id: %s", sourceYAML(auth.SecretID))
	case *config.KubernetesAuth:
		line("    kubernetes: {role: %s, file: %s}", strconv.Quote(auth.Role), strconv.Quote(auth.JWT.File))
	case *config.JWTAuth:
		line("    jwt: {role: %s, file: %s}", strconv.Quote(auth.Role), strconv.Quote(auth.JWT.File))
	}
}

// sourceYAML returns where a secret is, in YAML.
func sourceYAML(s config.SecretSource) string {
	if s.Env != "" {
		return "{env: " + strconv.Quote(s.Env) + "}"
	}
	return "{file: " + strconv.Quote(s.File) + "}"
}

// inFile returns a duration without the parts that are zero.
func inFile(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	text := d.String()
	if d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
