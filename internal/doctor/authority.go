package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"rotatord/internal/config"
	"rotatord/internal/vault"
)

// This file finds out whether the session may do too much. Vault is asked about paths at which there is nothing: its
// answer depends on the policies alone, and nothing is read or changed there.

// nobody is the last part of the paths at which there is nothing.
const nobody = "rotatord-doctor"

// right is something that a session may be allowed to do at a path.
type right struct {
	path string
	// needs is set if rotatord needs that capability there. Otherwise every one in excess is too much; empty: all are.
	needs  string
	excess []string
}

// selfRights are what a session needs to look after itself.
func (e *examination) selfRights(self *vault.Self) []right {
	if self == nil || e.root {
		return nil
	}
	rights := []right{{path: "auth/token/lookup-self", needs: "read"}}
	if self.Renewable && e.Config.Vault.Auth.Kind() != "agent" { // an agent renews its own token
		rights = append(rights, right{path: "auth/token/renew-self", needs: "update"})
	}
	if e.Config.Vault.Auth.LogsIn() {
		rights = append(rights, right{path: "auth/token/revoke-self", needs: "update"})
	}
	return rights
}

// adminRights are what only an administrator should have. Some are paths that only sudo opens.
func adminRights() []right {
	var all []right
	for _, at := range []string{
		"sys/policies/acl/" + nobody, "sys/mounts/" + nobody, "sys/mounts", "sys/auth/" + nobody, "sys/audit/" + nobody, "sys/raw/" + nobody,
		"sys/leases/lookup/" + nobody, "sys/storage/raft/snapshot", "sys/seal", "auth/token/create", "auth/token/create-orphan", "auth/token/roles/" + nobody,
		"auth/token/accessors", "identity/entity/name/" + nobody, "identity/group/name/" + nobody,
	} {
		all = append(all, right{path: at})
	}
	return all
}

// missingRights adds a finding if the session may not look after itself.
func (e *examination) missingRights(self *vault.Self, may map[string][]string) {
	var missing, stanzas []string
	for _, r := range e.selfRights(self) {
		if !slices.Contains(may[r.path], r.needs) {
			missing = append(missing, r.path)
			stanzas = append(stanzas, fmt.Sprintf("path %q { capabilities = [%q] }", r.path, r.needs))
		}
	}
	if len(missing) > 0 {
		e.add(Warning, VaultSelfRights, "vault.auth", "the policy does not allow the session to look after itself: "+strings.Join(missing, ", ")+
			". A session that may not renew itself is replaced by a login before its end, and one that may not be revoked stays valid after it was replaced",
			"add to its policy: "+strings.Join(stanzas, " "))
	}
}

// administers adds a finding if the session may do what only an administrator should do.
func (e *examination) administers(rights []right, may map[string][]string) {
	var found []string
	for _, r := range rights {
		has := beyond(may[r.path])
		if r.needs != "" {
			has = slices.DeleteFunc(has, func(c string) bool { return c != "sudo" })
		} else if r.excess != nil {
			has = slices.DeleteFunc(has, func(c string) bool { return !slices.Contains(r.excess, c) })
		}
		if len(has) > 0 {
			found = append(found, r.path+" ("+strings.Join(has, ", ")+")")
		}
	}
	if len(found) > 0 {
		e.add(Warning, VaultAdmin, "vault", "the session may do what only an administrator should do: "+strings.Join(found, ", "), "use a policy for rotatord alone, as deploy/vault/rotatord-policy.hcl")
	}
}

// widePath is a path that no sink uses, and what it stands for.
type widePath struct {
	path, what string
	shared     bool // one that a usual policy covers together with the sinks
}

// widePaths are paths beside those of the sinks: in the same directories, elsewhere in their mounts, and in no mount
// at all.
func widePaths(places []place, versions map[string]int) []widePath {
	all := []widePath{{path: nobody + "/data/" + nobody, what: "any path of any mount"}, {path: nobody + "/" + nobody + "/" + nobody, what: "any path of any mount"}}
	for _, p := range places {
		all = append(all, widePath{path: dataPath(p.VaultSink, versions, nobody+"/nobody"), what: "any path of " + p.Mount + "/"})
		if dir := path.Dir(p.Path); dir != "." {
			all = append(all, widePath{path: dataPath(p.VaultSink, versions, dir+"/"+nobody), what: "any path below " + p.Mount + "/" + dir + "/", shared: true})
		}
	}
	slices.SortStableFunc(all, func(a, b widePath) int { return strings.Compare(a.path, b.path) })
	return slices.CompactFunc(all, func(a, b widePath) bool { return a.path == b.path })
}

// tooWide adds a finding for each group of paths that the policy covers and no sink needs.
func (e *examination) tooWide(paths []widePath, may map[string][]string) {
	var shared []string
	told := map[string]bool{}
	for _, w := range paths {
		has := beyond(may[w.path])
		switch {
		case len(has) == 0 || told[w.what]:
			continue
		case w.shared:
			shared = append(shared, strings.TrimPrefix(w.what, "any path below "))
		default:
			e.add(Warning, VaultWide, "vault", fmt.Sprintf("the policy allows %s at %s", strings.Join(has, ", "), w.what),
				"narrow it to the paths of the sinks, as deploy/vault/rotatord-policy.hcl does")
		}
		told[w.what] = true
	}
	if len(shared) > 0 {
		e.add(Good, VaultWide, "vault", "the policy covers every path below "+strings.Join(shared, ", ")+": keep nothing there that rotatord must not read or overwrite", "")
	}
}

// annotations says where custom metadata cannot be written, which only people miss.
func (e *examination) annotations(places []place, may map[string][]string, versions map[string]int) {
	all, not := 0, []string{}
	for _, p := range places {
		at := metadataPath(p.VaultSink, versions, p.Path)
		if !p.Metadata || at == "" {
			continue
		}
		all++
		if has := may[at]; !slices.Contains(has, "patch") && !slices.Contains(has, "root") {
			not = append(not, at)
		}
	}
	if len(not) > 0 {
		e.add(Good, SinkMetadata, "vault", fmt.Sprintf("the policy does not allow custom metadata, which says when and by what a secret was rotated, at %d of %d path(s), such as %s. "+
			"Rotations do not need it; to have it, allow patch there", len(not), all, not[0]), "")
	}
}

// versionPaths are the paths in KV version 2 that delete and destroy versions of a secret, or bring them back.
func versionPaths(s config.VaultSink, versions map[string]int) []string {
	if versions[s.Mount] != 2 {
		return nil
	}
	return []string{s.Mount + "/delete/" + s.Path, s.Mount + "/undelete/" + s.Path, s.Mount + "/destroy/" + s.Path}
}
