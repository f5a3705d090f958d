package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/sink"
	"rotatord/internal/vault"
)

// capabilityBatch is how many paths Vault is asked about at once.
const capabilityBatch = 200

// place is a secret in Vault, and the token that writes there.
type place struct {
	config.VaultSink
	subject   string
	timetable scheduler.Timetable
}

// ownSession returns a session of our own with Vault, and a function that ends it. It returns nil if there is
// none, which is a finding.
func (e *examination) ownSession(ctx context.Context) (*vault.Session, func()) {
	session, err := vault.New(*e.Config.Vault, nil, nil)
	if err != nil {
		e.add(Bad, VaultLogin, "vault", err.Error(), "")
		return nil, nil
	}
	if err := session.LogInOnce(ctx); err != nil {
		advice := "look at vault.address, vault.tls and vault.auth" + e.loginSecrets()
		if rotation.CauseOf(err) == "sealed" {
			advice = e.unseal()
		}
		e.add(Bad, VaultLogin, "vault", "no session with Vault: "+err.Error(), advice)
		return nil, nil
	}
	return session, func() {
		if err := session.Revoke(ctx); err != nil {
			e.add(Warning, VaultNotRevoked, "vault.auth", err.Error(), "nothing: it ends by itself when its lease does")
		}
	}
}

// notTried says that doctor did not log in to Vault, and why.
func (e *examination) notTried(why string) {
	for _, s := range e.Config.Secrets() {
		if strings.HasPrefix(s.Field, "vault.auth.") {
			e.canRead(s.Field, s.Source, s.Kind)
		}
	}
	consumes := e.Config.Vault.Auth.Consumes()
	advice := "run doctor beside the daemon; or with --login, if you can spare " + consumes
	if unwraps(e.Config.Vault.Auth) {
		advice = "run doctor beside the daemon: only the daemon unwraps it"
	}
	e.add(Warning, VaultNotTried, "vault", "Vault was not checked: logging in uses up "+consumes+", and there may be no other; and "+why, advice)
}

// through checks the session, the mounts, and what the policies allow.
func (e *examination) through(ctx context.Context, session *vault.Session) {
	if err := session.CheckSeal(ctx); rotation.CauseOf(err) == "sealed" { // nothing else can be asked
		e.add(Bad, VaultLogin, "vault", err.Error(), e.unseal())
		return
	}
	self := e.session(ctx, session)
	versions := map[string]int{}
	var places []place
	for _, t := range e.Config.Tokens {
		for i, s := range t.Sinks {
			if s, ok := s.(*config.VaultSink); ok {
				places = append(places, place{*s, subjectOf(t, i), t.Timetable()})
			}
		}
	}
	for _, p := range places {
		if _, asked := versions[p.Mount]; asked {
			continue
		}
		version, err := session.KVVersion(ctx, p.Mount)
		if versions[p.Mount] = version; err != nil {
			e.add(Bad, VaultMountBad, "vault", err.Error(), "correct the mount, or let the policy allow the paths of the sinks: "+stanzas(places, p.Mount))
			continue
		}
		e.add(Good, VaultMount, "vault", fmt.Sprintf("%s/ is KV version %d", p.Mount, version), "")
	}
	e.places(ctx, session, self, places, versions)
	e.shared(ctx, session)
}

// loginSecrets says where the secrets of the login are; empty if it has none.
func (e *examination) loginSecrets() string {
	var all []string
	for _, s := range e.Config.Secrets() {
		if strings.HasPrefix(s.Field, "vault.auth.") {
			all = append(all, s.Field+" is in the "+s.Source.String())
		}
	}
	if len(all) == 0 {
		return ""
	}
	return ": " + strings.Join(all, ", ")
}

// unseal says how a sealed Vault can be used again.
func (e *examination) unseal() string {
	return "vault operator unseal -address=" + e.Config.Vault.Address + ", once for each key that is needed"
}

// maxStanzas is how many paths of a mount an advice spells out.
const maxStanzas = 3

// stanzas returns what a policy needs for the first paths of a mount, whose version is not known: of a mount of KV version
// 2, which is usual.
func stanzas(places []place, mount string) string {
	var all []string
	for _, p := range places {
		if p.Mount == mount {
			all = append(all, fmt.Sprintf(`path "%s/data/%s" { capabilities = ["create", "read", "update"] }`, mount, p.Path))
		}
	}
	more := ""
	if len(all) > maxStanzas {
		all, more = all[:maxStanzas], fmt.Sprintf(" and so on for %d more", len(all)-maxStanzas)
	}
	return strings.Join(all, " ") + more + ". rotatord docs deploy/vault/rotatord-policy.hcl has the whole policy"
}

// places compares what the session may do with what rotatord needs.
func (e *examination) places(ctx context.Context, s *vault.Session, self *vault.Self, places []place, versions map[string]int) {
	good, looked := 0, 0
	places = slices.DeleteFunc(places, func(p place) bool { return versions[p.Mount] == 0 })
	role := roleOf(e.Config.Vault.Auth, self)
	rights := slices.Concat(e.selfRights(self), adminRights(), role.rights())
	asked := []string{role.path()}
	for _, r := range rights {
		asked = append(asked, r.path)
	}
	for _, p := range places {
		asked = append(asked, dataPath(p.VaultSink, versions, p.Path), metadataPath(p.VaultSink, versions, p.Path))
		asked = append(asked, versionPaths(p.VaultSink, versions)...)
	}
	wide := widePaths(places, versions)
	for _, w := range wide {
		asked = append(asked, w.path)
	}
	may, err := capabilities(ctx, s, asked)
	if err != nil {
		e.add(Bad, SinkUnusable, "vault", err.Error(),
			"let the policy allow update at sys/capabilities-self: without it rotatord cannot find out whether it may do too much, nor, in a mount of KV version 1, whether it may write")
		return
	}
	for _, p := range places {
		looked++
		if e.place(ctx, s, p, may, versions) {
			good++
		}
	}
	noMore := ", and no more"
	if e.root {
		noMore = "" // that is a finding already
	}
	if good > 0 {
		e.add(Good, SinksGood, "vault", fmt.Sprintf("%d of %d path(s) can be read, created and updated%s", good, looked, noMore), "")
	}
	e.annotations(places, may, versions)
	e.missingRights(self, may)
	if !e.root {
		e.tooWide(wide, may)
		e.administers(rights, may)
	}
	e.role(ctx, s, role, may)
}

// place checks one path, and reports whether nothing is wrong with it.
func (e *examination) place(ctx context.Context, s *vault.Session, p place, may map[string][]string, versions map[string]int) bool {
	where := p.Mount + "/" + p.Path
	data, metadata := may[dataPath(p.VaultSink, versions, p.Path)], may[metadataPath(p.VaultSink, versions, p.Path)]
	stored, err := sink.NewVault(s, p.VaultSink).Preflight(ctx)
	if err != nil {
		e.add(Bad, SinkUnusable, p.subject, err.Error(), "let the policy allow create, read and update there")
		return false
	}
	root := slices.Contains(data, "root") // that is a finding already
	fine := e.lasting(p, stored)
	for _, need := range []string{"create", "update"} {
		if !root && !slices.Contains(data, need) {
			fine = false
			e.add(Warning, SinkPartial, p.subject, fmt.Sprintf("the policy does not allow %s at %s, which is needed when the secret is there, or when it is gone", need, where),
				"let it allow create, read and update")
		}
	}
	var excess []string
	for _, capability := range []string{"delete", "list", "sudo"} {
		if slices.Contains(data, capability) {
			excess = append(excess, capability)
		}
	}
	for _, capability := range []string{"create", "update", "delete", "patch", "sudo"} {
		if capability == "patch" && p.Metadata { // it writes the custom metadata
			continue
		}
		if slices.Contains(metadata, capability) {
			excess = append(excess, capability+" of the metadata")
		}
	}
	for _, path := range versionPaths(p.VaultSink, versions) {
		if len(beyond(may[path])) > 0 && !root {
			excess = append(excess, path)
		}
	}
	if len(excess) > 0 {
		fine = false
		e.add(Warning, SinkExcess, p.subject, fmt.Sprintf("the policy allows more than rotatord needs at %s: %s", where, strings.Join(excess, ", ")),
			"remove those rights: rotatord uses create, read and update only")
	}
	return fine
}

// beyond returns the capabilities other than deny.
func beyond(capabilities []string) []string {
	return slices.DeleteFunc(slices.Clone(capabilities), func(c string) bool { return c == "deny" })
}

func dataPath(s config.VaultSink, versions map[string]int, path string) string {
	if versions[s.Mount] == 2 {
		return s.Mount + "/data/" + path
	}
	return s.Mount + "/" + path
}

// metadataPath is the path in KV version 2 with which a secret can be destroyed with all its versions.
// Version 1 has no such path.
func metadataPath(s config.VaultSink, versions map[string]int, path string) string {
	if versions[s.Mount] == 2 {
		return s.Mount + "/metadata/" + path
	}
	return ""
}

// capabilities asks what the session may do at paths.
func capabilities(ctx context.Context, s *vault.Session, paths []string) (map[string][]string, error) {
	paths = slices.DeleteFunc(slices.Clone(paths), func(p string) bool { return p == "" })
	slices.Sort(paths)
	all := map[string][]string{}
	for batch := range slices.Chunk(slices.Compact(paths), capabilityBatch) {
		answer, err := s.Capabilities(ctx, batch)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, answer)
	}
	return all, nil
}
