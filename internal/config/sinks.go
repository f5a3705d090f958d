package config

import (
	"fmt"
	"slices"

	"rotatord/internal/config/raw"
)

// SinkKinds is the table of sinks: one line for each kind. What has to know the kinds, such as the
// code that opens a sink, implements it. See kinds.go for how to add a kind.
type SinkKinds interface {
	Vault(*VaultSink)
	File(*FileSink)
	Kubernetes(*KubernetesSink)
}

// Sink is one place that a secret is written to. A Sink must not be changed: tokens share those of
// defaults.
type Sink interface {
	// Kind is the key of the kind in the configuration file, such as vault.
	Kind() string
	// Place says where the secret is. Two sinks of one kind and place would overwrite each other.
	Place() string
	// Group is the same for sinks that fail together, such as those of one mount. Of each group,
	// one sink at a time is checked before it is needed.
	Group() string
	// NeedsVault reports whether the sink works through the session with Vault.
	NeedsVault() bool
	// NeedsKubernetes reports whether the sink works through the API server of a cluster.
	NeedsKubernetes() bool
	// Fields are the names under which the credential is stored.
	Fields() SinkFields

	// Document is what the configuration file says below the key of the kind. It has no secret.
	Document() map[string]any
	// Sibling returns a sink like this one, at a place for another token of that name.
	Sibling(name string) Sink
	// Below returns a sink like this one that changes nothing on this machine outside of dir.
	Below(dir string) Sink

	// Dispatch calls the method of the table for this kind.
	Dispatch(SinkKinds)

	// check takes over what the file says at path, which is the key of the kind. It reports what is
	// wrong, and returns false if the place is not known.
	check(c *checker, path string, in raw.Sink) bool
	// writesTo is Place where that is written in one way only, so that two names of one place are seen.
	writesTo(c *checker) place
	// eachSecret calls do for each secret that the sink is configured with.
	eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind))
}

// Versioned is a [Sink] that keeps earlier versions.
type Versioned interface {
	// PutBack returns the command with which an operator makes that version the current one again. deleted is
	// set if it is the current one and was deleted.
	PutBack(version int, deleted bool) string
}

// SinkName is the name of a sink in the ledger, in logs and in metrics, such as
// vault:secret/access/ci-deploy.
func SinkName(s Sink) string { return s.Kind() + ":" + s.Place() }

// SinkFields are the names under which the two halves of a credential are stored. The defaults are
// client_id and client_secret.
type SinkFields struct {
	ClientIDField, ClientSecretField string
	// PreviousSecretField, PreviousEndsField and PreviousIDField are the names for the previous secret, until
	// when it works, and its client ID. An empty name means that it is not stored.
	PreviousSecretField, PreviousEndsField, PreviousIDField string
}

var defaultFields = SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}

// DefaultFields are the names that a sink has if the file gives none.
func DefaultFields() SinkFields { return defaultFields }

// Fields implements [Sink].
func (f SinkFields) Fields() SinkFields { return f }

// addTo adds the names to what the configuration file says of a sink, unless they are the defaults.
func (f SinkFields) addTo(document map[string]any) map[string]any {
	if f == defaultFields {
		return document
	}
	names := make(map[string]any)
	for _, n := range f.named() {
		if n.name != "" {
			names[n.key] = n.name
		}
	}
	document["fields"] = names
	return document
}

// namedField is one name in the configuration file.
type namedField struct{ key, name string }

// below returns the path of the name below that of its sink.
func (n namedField) below(sink string) string { return sink + ".fields." + n.key }

// named returns the names of the fields. An optional one may be empty.
func (f SinkFields) named() [5]namedField {
	return [...]namedField{{"client_id", f.ClientIDField}, {"client_secret", f.ClientSecretField},
		{"previous_client_secret", f.PreviousSecretField}, {"previous_expires_at", f.PreviousEndsField},
		{"previous_client_id", f.PreviousIDField}}
}

// placedSink is a sink and its place in the file.
type placedSink struct {
	path string // of the key of the kind
	Sink
}

// sinks returns the sinks of a list whose places are known.
func (c *checker) sinks(path string, in []raw.Sink) []placedSink {
	var out []placedSink
	for i, sink := range in {
		item := c.below(path, "", i)
		if c.isBroken(item) {
			continue
		}
		chosen, ok := chosenKinds[Sink, SinkKinds, raw.Sink](c, item)
		switch {
		case len(chosen) > 1:
			c.wrong(item, "has %s: write one entry of the list for each place", list(keysOf(chosen)))
		case len(chosen) == 1:
			at := c.below(item, chosen[0].Kind(), 0)
			if chosen[0].check(c, at, sink) {
				out = append(out, placedSink{at, chosen[0]})
			}
		case ok:
			c.wrong(item, "has no place: give one of %s", list(keysOf(kindsIn[Sink, SinkKinds]())))
		}
	}
	return out
}

// sinkFields checks the names of the fields, which must differ.
func (c *checker) sinkFields(path string, in raw.Fields) SinkFields {
	out := SinkFields{c.intern(or(in.ClientID, defaultFields.ClientIDField)), c.intern(or(in.ClientSecret, defaultFields.ClientSecretField)),
		c.intern(or(in.PreviousSecret, "")), c.intern(or(in.PreviousEnds, "")), c.intern(or(in.PreviousID, ""))}
	names := out.named()
	if out.ClientIDField == out.ClientSecretField {
		switch id, secret := names[0].below(path), names[1].below(path); {
		case c.has(secret) && in.ClientSecret != nil:
			c.wrong(secret, "is also the name of the client id's field: the two must differ")
		case c.has(id):
			c.wrong(id, "is also the name of the client secret's field: the two must differ")
		}
	}
	for i, n := range names[2:] {
		if n.name == "" {
			continue
		}
		switch first := slices.IndexFunc(names[:], func(other namedField) bool { return other.name == n.name }); {
		case first < i+2:
			c.wrong(n.below(path), "is also the name of the field %s: all must differ", names[first].key)
		case out.PreviousSecretField == "" && !c.has(names[2].below(path)):
			c.wrong(n.below(path), "needs previous_client_secret beside it, which it belongs to")
		}
	}
	return out
}

// checkPrevious refuses a previous secret without its client ID where a rotation changes the client ID.
func (c *checker) checkPrevious(t *Token, sinks []placedSink) {
	if t.Partner == "" && !t.Replace {
		return
	}
	for _, sink := range sinks {
		if f := sink.Fields(); f.PreviousSecretField != "" && f.PreviousIDField == "" {
			c.wrong(sink.path+".fields.previous_client_secret", "needs previous_client_id beside it for %s: a rotation of a pair, or with strategy: replace, "+
				"changes the client id, and the previous secret works only with the previous one", t.Name)
		}
	}
}

// place is something that one sink alone may write to: the kind of the sink with what many sinks have in common, such
// as a directory, and a name there.
type place struct{ common, name string }

// placedWriter is a sink and its place in the file.
type placedWriter struct {
	spot spot
	sink Sink
}

// checkPlaces refuses two writers to one place.
func (c *checker) checkPlaces(sinks []placedSink) {
	for _, sink := range sinks {
		at, path := sink.writesTo(c), sink.path
		if sink.NeedsVault() && c.needVault == "" {
			c.needVault = c.full(path)
		}
		if sink.NeedsKubernetes() && c.needKubernetes == "" {
			c.needKubernetes = c.full(path)
		}
		here := c.placed(path)
		if sink.Kind() == fileKind {
			c.noteFile(here)
		}
		first, taken := c.places[at]
		why := ""
		if taken && first.sink.Place() != sink.Place() {
			why = fmt.Sprintf(", as %q: a symbolic link or a mount leads both to one file", first.sink.Place())
		}
		switch {
		case !taken:
			c.places[at] = placedWriter{here, sink.Sink}
		case first.spot.path == here.path && first.spot.entry == here.entry:
			c.wrong(path, "more than one token would write to %q by these defaults: give each token sinks of its own", sink.Place())
		default:
			c.wrong(path, "writes to %q, and so does %s (line %d)%s: give each its own path", sink.Place(), first.spot, first.spot.at.line, why)
		}
	}
}
