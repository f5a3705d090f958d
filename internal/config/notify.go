package config

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config/raw"
)

// ReceiverKinds is the table of receivers of notifications: one line for each kind. See kinds.go for how to add one.
type ReceiverKinds interface {
	Webhook(*Webhook)
	SMTP(*SMTP)
}

// ReceiverKind is how a receiver gets its messages.
type ReceiverKind interface {
	// Kind is the key of the kind in the configuration file, such as webhook.
	Kind() string
	// Place says in a few words where messages go, for people. It has no secret.
	Place() string
	// Dispatch calls the method of the table for this kind.
	Dispatch(ReceiverKinds)

	// check takes over what the file says at path, which is the key of the kind.
	check(c *checker, path string, in raw.Receiver)
	// eachSecret calls do for each secret that the receiver is configured with.
	eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind))
	// authorities is where the path of ca_file is kept.
	authorities() *string
}

// Receiver is told what is wrong.
type Receiver struct {
	Name string
	Kind ReceiverKind
	// On are the topics that it is told of, in the order of [Topics]. Default all.
	On []string
	// Tokens are patterns of names, as in [path.Match]. Empty: all tokens, and checks and replicas.
	Tokens []string
	// Repeat is after which time it is told again of what lasts; 0 for never. Group is how long news is collected for
	// one message. Wait is how long a warning must last before it is told.
	Repeat, Group, Wait time.Duration
}

// The topics of notifications. What each has is in docs/notifications.md.
const (
	TopicInDoubt       = "in_doubt"
	TopicFailing       = "failing"
	TopicStranded      = "stranded"
	TopicGone          = "gone"
	TopicOutsideChange = "outside_change"
	TopicExpiring      = "expiring"
	TopicPending       = "pending"
	TopicRecovered     = "recovered"
)

// Topics are all topics, the worst first.
var Topics = []string{TopicStranded, TopicGone, TopicInDoubt, TopicOutsideChange, TopicPending, TopicExpiring, TopicFailing, TopicRecovered}

const (
	defaultRepeat  = 24 * time.Hour
	shortestRepeat = 10 * time.Minute
	longestRepeat  = 720 * time.Hour

	defaultGroup  = 30 * time.Second
	shortestGroup = time.Second
	longestGroup  = time.Hour

	defaultWait = 5 * time.Minute
	longestWait = 24 * time.Hour
)

// Secrets returns the secrets that the receiver is configured with.
func (r *Receiver) Secrets() []NamedSecret {
	var all []NamedSecret
	r.Kind.eachSecret(r.Kind.Kind(), func(field string, source *SecretSource, kind SecretKind) {
		if !source.IsZero() {
			all = append(all, NamedSecret{field, *source, kind})
		}
	})
	return all
}

// CAFile returns the file of the authorities that the receiver's certificate must come from. Its path is empty if there is none.
func (r *Receiver) CAFile() NamedFile {
	return NamedFile{Field: r.Kind.Kind() + ".ca_file", Path: *r.Kind.authorities()}
}

// WantsTopic reports whether the receiver is told of a topic.
func (r *Receiver) WantsTopic(topic string) bool { return slices.Contains(r.On, topic) }

// WantsToken reports whether the receiver is told of a token.
func (r *Receiver) WantsToken(name string) bool {
	return len(r.Tokens) == 0 || slices.ContainsFunc(r.Tokens, func(pattern string) bool {
		matched, err := path.Match(pattern, name)
		return err == nil && matched
	})
}

// checkNotify checks the receivers of notifications.
func (c *checker) checkNotify() {
	first := make(map[string]string) // the path of each name
	for i, in := range c.raw.Notify {
		at := itemPath("notify", i)
		if c.isBroken(at) {
			continue
		}
		r := Receiver{Name: or(in.Name, "")}
		if in.Name != nil {
			c.checkName(at+".name", r.Name)
			if other, twice := first[r.Name]; twice {
				c.wrong(at+".name", "is the name of %s too (line %d): give each receiver a name of its own", other, c.value(other).line)
			} else {
				first[r.Name] = at + ".name"
			}
		}
		r.On, r.Tokens = c.topics(at+".on", in.On), c.tokenPatterns(at+".tokens", in.Tokens)
		r.Group = c.between(at+".group", in.Group, defaultGroup, shortestGroup, longestGroup)
		r.Wait = c.between(at+".wait", in.Wait, defaultWait, 0, longestWait)
		if or(in.Repeat, raw.Duration(defaultRepeat)) != 0 {
			r.Repeat = c.between(at+".repeat", in.Repeat, defaultRepeat, shortestRepeat, longestRepeat)
		}
		if r.Kind = c.receiverKind(at, in); r.Kind != nil {
			c.cfg.Notify = append(c.cfg.Notify, r)
		}
	}
}

// receiverKind returns how a receiver gets its messages; nil if that is not known.
func (c *checker) receiverKind(at string, in raw.Receiver) ReceiverKind {
	chosen, _ := chosenKinds[ReceiverKind, ReceiverKinds, raw.Receiver](c, at) // it has other keys too
	switch {
	case len(chosen) > 1:
		c.wrong(at, "has %s: write one entry of the list for each, with names of their own", list(keysOf(chosen)))
	case len(chosen) == 0 && !c.isMerged(at):
		c.wrong(at, "has no place that messages are sent to: give one of %s", list(keysOf(kindsIn[ReceiverKind, ReceiverKinds]())))
	case len(chosen) == 1:
		if path := at + "." + chosen[0].Kind(); !c.isBroken(path) {
			chosen[0].check(c, path, in)
			return chosen[0]
		}
	}
	return nil
}

// topics returns the topics of a list, in the order of Topics; all if there is none.
func (c *checker) topics(path string, in []*string) []string {
	if len(in) == 0 {
		return slices.Clone(Topics)
	}
	wanted := make(map[string]bool)
	for i, topic := range in {
		if topic == nil {
			continue // reported already
		}
		if at := itemPath(path, i); !slices.Contains(Topics, *topic) {
			_, hint := suggest(*topic, Topics)
			c.wrong(at, "is not a topic: %s", hint)
		} else if wanted[*topic] {
			c.wrong(at, "is in the list twice: remove one")
		}
		wanted[*topic] = true
	}
	var out []string
	for _, topic := range Topics {
		if wanted[topic] {
			out = append(out, topic)
		}
	}
	if len(out) == 1 && out[0] == TopicRecovered {
		c.wrong(path, "has only recovered, which tells the end of what was told before: add what begins, such as in_doubt")
	}
	return out
}

// tokenPatterns checks patterns of names of tokens. A pattern that fits no token is a warning: the token may follow.
func (c *checker) tokenPatterns(at string, in []*string) (out []string) {
	for i, pattern := range in {
		if pattern == nil {
			continue
		}
		item := itemPath(at, i)
		if _, err := path.Match(*pattern, "x"); err != nil {
			c.wrong(item, "is not a pattern: * stands for any text, ? for one character, [a-z] for one of several; write a name, such as ci-deploy, or a pattern, such as ci-*")
			continue
		}
		fits := false
		for _, name := range c.tokensLike(*pattern) {
			c.compared++
			if matched, err := path.Match(*pattern, name); err == nil && matched {
				fits = true
				break
			}
		}
		if !fits && !c.isBroken("tokens") {
			c.warn(item, "fits no token of this file: is it spelled right?")
		}
		out = append(out, *pattern)
	}
	return out
}

// tokensLike returns the names of tokens that begin as a pattern does.
func (c *checker) tokensLike(pattern string) []string {
	if c.sortedNames == nil {
		c.sortedNames = slices.Sorted(maps.Keys(c.names))
	}
	prefix := pattern
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		prefix = pattern[:i]
	}
	from, _ := slices.BinarySearch(c.sortedNames, prefix)
	like := c.sortedNames[from:]
	to, _ := slices.BinarySearchFunc(like, prefix, func(name, prefix string) int {
		if strings.HasPrefix(name, prefix) {
			return -1
		}
		return 1
	})
	return like[:to]
}

// headerNames checks the names of further headers of a webhook, and returns where their values are.
func (c *checker) headerNames(path string, in map[string]raw.Secret) map[string]SecretSource {
	var out map[string]SecretSource
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(in)) {
		at, lower := join(path, name), strings.ToLower(name)
		switch {
		case strings.Trim(lower, "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") != "":
			c.addf(c.key(at), path, "has a name that is not one of an HTTP header, such as Authorization: letters, digits and dashes")
			continue
		case slices.Contains(transportHeaders, lower) || strings.HasPrefix(lower, "x-rotatord-") || lower == "content-type" || lower == "user-agent":
			c.addf(c.key(at), at, "is a header that rotatord or the connection sets: remove it")
			continue
		case seen[lower]:
			c.addf(c.key(at), at, "is in the list twice, in upper and lower case: remove one")
			continue
		}
		seen[lower] = true
		if out == nil {
			out = make(map[string]SecretSource, len(in))
		}
		out[name] = c.source(at, in[name])
	}
	return out
}
