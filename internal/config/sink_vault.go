package config

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"rotatord/internal/config/raw"
)

// VaultSink is a secret in a KV mount, version 1 or 2. It implements [Sink].
type VaultSink struct {
	Mount string // without slashes at the ends
	Path  string // below the mount, without slashes at the ends
	SinkFields
	// Metadata says that rotations are noted in the custom metadata of the secret, where the policy allows
	// that and the mount has KV version 2.
	Metadata bool
}

// Kind implements [Sink].
func (*VaultSink) Kind() string { return "vault" }

// Place implements [Sink].
func (v *VaultSink) Place() string { return v.Mount + "/" + v.Path }

// writesTo implements [Sink]. It does not tell where the mount ends and the path begins: the path b/c of the mount a and
// the path c of the mount a/b are one place.
func (v *VaultSink) writesTo(c *checker) place {
	end := max(strings.LastIndex(v.Path, "/"), 0)
	return place{c.internJoined("vault:", v.Mount, v.Path[:end]), strings.TrimPrefix(v.Path[end:], "/")}
}

// Group implements [Sink]: the mount.
func (v *VaultSink) Group() string { return v.Kind() + ":" + v.Mount }

// NeedsVault implements [Sink].
func (*VaultSink) NeedsVault() bool { return true }

// NeedsKubernetes implements [Sink].
func (*VaultSink) NeedsKubernetes() bool { return false }

// Sibling implements [Sink].
func (v *VaultSink) Sibling(name string) Sink {
	other := *v
	other.Path = path.Join(path.Dir(v.Path), name)
	return &other
}

// Below implements [Sink]. A rehearsal has a Vault of its own.
func (v *VaultSink) Below(string) Sink { return v }

// Document implements [Sink].
func (v *VaultSink) Document() map[string]any {
	document := v.addTo(map[string]any{"mount": v.Mount, "path": v.Path})
	if !v.Metadata {
		document["metadata"] = false
	}
	return document
}

// PutBack implements [Versioned].
func (v *VaultSink) PutBack(version int, deleted bool) string {
	if deleted {
		return fmt.Sprintf("vault kv undelete -mount=%s -versions=%d %s", v.Mount, version, v.Path)
	}
	return fmt.Sprintf("vault kv rollback -mount=%s -version=%d %s", v.Mount, version, v.Path)
}

// Dispatch implements [Sink].
func (v *VaultSink) Dispatch(to SinkKinds) { to.Vault(v) }

func (v *VaultSink) check(c *checker, path string, sink raw.Sink) bool {
	in := sink.Vault
	v.SinkFields, v.Metadata = c.sinkFields(path, in.Fields), or(in.Metadata, true)
	if in.Mount != nil {
		v.Mount = c.intern(c.segments(path+".mount", *in.Mount))
		c.checkMount(path+".mount", v.Mount)
	}
	if in.Path != nil {
		v.Path = c.segments(path+".path", *in.Path)
		c.checkKVPath(path+".path", v)
	}
	return v.Mount != "" && v.Path != ""
}

func (*VaultSink) eachSecret(string, func(string, *SecretSource, SecretKind)) {}

// systemMounts belong to Vault itself and are not KV mounts.
var systemMounts = []string{"sys", "identity", "cubbyhole", "auth"}

// checkMount catches a text that is more than a mount, and a mount that is not a KV mount.
func (c *checker) checkMount(path, mount string) {
	first, rest, _ := strings.Cut(mount, "/")
	last := mount[strings.LastIndex(mount, "/")+1:]
	switch {
	case mount != last && last == "data":
		c.wrong(path, "must not end in /data: that is part of the API's path, not of the mount, and is added where it is needed")
	case first == "v1" && rest != "":
		c.warn(path, "begins with v1/, which is part of the API's path and is added where it is needed: write %q, if the mount is not named so", rest)
	case mount != last && last == "metadata":
		c.warn(path, "ends in /metadata, which is part of the API's path and is added where it is needed: leave it out, if the mount is not named so")
	case slices.Contains(systemMounts, first):
		c.wrong(path, "belongs to Vault itself and is not a KV mount: write the mount of a KV secrets engine, as vault secrets list shows it")
	}
}

// checkKVPath catches a path that was copied from an API call, a policy or the web interface.
func (c *checker) checkKVPath(path string, sink *VaultSink) {
	rest := strings.TrimPrefix(sink.Path, sink.Mount+"/")
	for _, prefix := range []string{"data/", "metadata/"} {
		below, found := strings.CutPrefix(rest, prefix)
		if !found {
			continue
		}
		c.wrong(path, "must not begin with %q: write the path as vault kv put takes it, %q; the rest is added where it is needed",
			strings.TrimSuffix(sink.Path, below), below)
		return
	}
	first, below, _ := strings.Cut(sink.Path, "/")
	second, deeper, _ := strings.Cut(below, "/")
	switch {
	case first == "v1" && below != "", strings.HasPrefix(sink.Path, "ui/vault/"):
		c.warn(path, "looks like a path of Vault's API or web interface: write the path below the mount alone, as vault kv put takes it, if that is not meant")
	case rest != sink.Path:
		c.warn(path, "begins with the name of the mount, so that the secret is at %q: write %q, if that is not meant", sink.Mount+"/"+sink.Path, rest)
	case second == "data" && deeper != "":
		c.warn(path, "looks like the path of an API call, MOUNT/data/PATH, and the secret is at %q: write mount: %s and path: %s, if that is not meant",
			sink.Mount+"/"+sink.Path, first, deeper)
	}
}

// segments checks a path in Vault and returns it without slashes at its ends.
func (c *checker) segments(path, text string) string {
	trimmed := strings.Trim(text, "/")
	switch {
	case strings.Contains(text, "://"):
		c.wrong(path, "is a URL: write the path alone, such as access/ci-deploy")
		return trimmed
	case hasTemplate(text):
		c.wrong(path, "has a variable or a template in it, which is not filled in: write the name out")
		return trimmed
	case strings.ContainsAny(text, "?#*<>"):
		c.warn(path, "has one of ? # * < > in it, which are something else in URLs, policies and placeholders: write letters, digits, dashes and dots, if that is not meant")
	}
	for segment := range strings.SplitSeq(trimmed, "/") {
		problem := ""
		switch segment {
		case "":
			problem = "an empty part"
		case ".", "..":
			problem = fmt.Sprintf("the part %q", segment)
		default:
			continue
		}
		c.wrong(path, "has %s: write names with single slashes between them, such as access/ci-deploy", problem)
		break
	}
	return trimmed
}
