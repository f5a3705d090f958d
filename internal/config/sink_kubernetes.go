package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"rotatord/internal/config/raw"
)

// KubernetesSink is a Secret of a Kubernetes cluster. It implements [Sink].
type KubernetesSink struct {
	Namespace, Name string
	// Type is Opaque by default. It cannot change after the Secret was created.
	Type string
	// Labels are set beside those that the Secret has; nil for none.
	Labels map[string]string
	// TakeOver are field managers that lose our keys and labels to us. Default none.
	TakeOver []string
	SinkFields
}

const defaultSecretType = "Opaque"

// Kind implements [Sink].
func (*KubernetesSink) Kind() string { return "kubernetes" }

// Place implements [Sink].
func (k *KubernetesSink) Place() string { return k.Namespace + "/" + k.Name }

// writesTo implements [Sink].
func (k *KubernetesSink) writesTo(c *checker) place {
	return place{c.internJoined("kubernetes:", k.Namespace, ""), k.Name}
}

// Group implements [Sink]: the namespace, since rights and quotas are given for one.
func (k *KubernetesSink) Group() string { return k.Kind() + ":" + k.Namespace }

// NeedsVault implements [Sink].
func (*KubernetesSink) NeedsVault() bool { return false }

// NeedsKubernetes implements [Sink].
func (*KubernetesSink) NeedsKubernetes() bool { return true }

// Sibling implements [Sink].
func (k *KubernetesSink) Sibling(name string) Sink {
	other := *k
	other.Name = strings.Trim(notInDNSNames.ReplaceAllString(strings.ToLower(name), "-"), "-.")
	return &other
}

// Below implements [Sink]. A rehearsal has an API server of its own.
func (k *KubernetesSink) Below(string) Sink { return k }

// Document implements [Sink].
func (k *KubernetesSink) Document() map[string]any {
	document := k.addTo(map[string]any{"namespace": k.Namespace, "name": k.Name})
	if k.Type != defaultSecretType {
		document["type"] = k.Type
	}
	if len(k.Labels) > 0 {
		document["labels"] = k.Labels
	}
	if len(k.TakeOver) > 0 {
		document["take_over"] = k.TakeOver
	}
	return document
}

// Dispatch implements [Sink].
func (k *KubernetesSink) Dispatch(to SinkKinds) { to.Kubernetes(k) }

func (*KubernetesSink) eachSecret(string, func(string, *SecretSource, SecretKind)) {}

func (k *KubernetesSink) check(c *checker, path string, sink raw.Sink) bool {
	in := sink.Kubernetes
	k.SinkFields = c.sinkFields(path, in.Fields)
	for _, n := range k.named() {
		if n.name != "" {
			c.secretKey(path, n)
		}
	}
	k.Type = c.intern(or(in.Type, defaultSecretType))
	c.secretType(path+".type", k.Type)
	k.Labels = c.secretLabels(path+".labels", in.Labels)
	k.TakeOver = c.fieldManagers(path+".take_over", in.TakeOver)
	namespace, name := false, false
	if in.Namespace != nil {
		k.Namespace = c.intern(*in.Namespace)
		namespace = c.dnsName(path+".namespace", k.Namespace, validNamespace, maxDNSLabel, "a-z, 0-9 and dash")
	}
	if in.Name != nil {
		k.Name = *in.Name
		name = c.dnsName(path+".name", k.Name, validSecretName, maxDNSName, "a-z, 0-9, dash and dot")
	}
	return namespace && name
}

// Kubernetes' own limits, in bytes.
const (
	maxDNSLabel     = 63
	maxDNSName      = 253
	maxLabelValue   = 63
	maxFieldManager = 128
)

var (
	validNamespace  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
	validSecretName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	validSecretKey  = regexp.MustCompile(`^[-._a-zA-Z0-9]+$`)
	validLabelName  = regexp.MustCompile(`^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$`)
	notInDNSNames   = regexp.MustCompile(`[^a-z0-9.-]+`)
)

// dnsName checks the name of a namespace or of a Secret.
func (c *checker) dnsName(path, name string, valid *regexp.Regexp, longest int, letters string) bool {
	switch {
	case hasTemplate(name):
		c.wrong(path, "has a variable or a template in it, which is not filled in: write the name out")
	case strings.Contains(name, "/"):
		c.wrong(path, "has a slash in it: write namespace and name as two fields")
	case len(name) > longest || !valid.MatchString(name):
		c.wrong(path, "is not a name that Kubernetes accepts: 1 to %d of %s, with a letter or digit at both ends", longest, letters)
	default:
		return true
	}
	return false
}

// secretKey checks the name of a key in the data of a Secret; path is that of the sink.
func (c *checker) secretKey(path string, n namedField) {
	switch key := n.name; {
	case len(key) > maxDNSName || !validSecretKey.MatchString(key):
		c.wrong(n.below(path), "is not a key that Kubernetes accepts in a Secret: 1 to %d of letters, digits, dash, dot and underscore", maxDNSName)
	case key == "." || strings.HasPrefix(key, ".."):
		c.wrong(n.below(path), "is not a key that Kubernetes accepts in a Secret: it would be a directory in a volume")
	}
}

// secretType refuses types whose keys Kubernetes prescribes.
func (c *checker) secretType(path, text string) {
	domain, _, _ := strings.Cut(text, "/")
	switch {
	case strings.EqualFold(text, defaultSecretType) && text != defaultSecretType:
		c.wrong(path, "must be spelled %s", defaultSecretType)
	case domain == "kubernetes.io" || strings.HasSuffix(domain, ".kubernetes.io"):
		c.wrong(path, "is a type of Kubernetes itself, which requires other keys than a client id and a client secret: leave it out, or write one of your own, such as example.com/access")
	case len(text) > maxDNSName || strings.ContainsAny(text, " \t"):
		c.wrong(path, "must be Opaque, or a type of your own without spaces, such as example.com/access")
	}
}

// secretLabels checks the labels of a Secret.
func (c *checker) secretLabels(path string, in map[string]*string) map[string]string {
	var out map[string]string
	for _, key := range slices.Sorted(maps.Keys(in)) {
		value, at := in[key], join(path, key)
		if value == nil {
			continue // reported already
		}
		prefix, name, prefixed := strings.Cut(key, "/")
		if !prefixed {
			prefix, name = "", key
		}
		switch {
		case prefixed && (len(prefix) > maxDNSName || !validSecretName.MatchString(prefix)), len(name) > maxLabelValue || !validLabelName.MatchString(name):
			c.addf(c.key(at), at, "is not a label that Kubernetes accepts: NAME or DOMAIN/NAME, with a NAME of 1 to %d letters, digits, dashes, dots and underscores", maxLabelValue)
		case len(*value) > maxLabelValue || !validLabelName.MatchString(*value):
			c.wrong(at, "is not a value that Kubernetes accepts for a label: 1 to %d letters, digits, dashes, dots and underscores, with a letter or digit at both ends", maxLabelValue)
		default:
			if out == nil {
				out = make(map[string]string, len(in))
			}
			out[key] = *value
		}
	}
	return out
}

// fieldManagers checks the names of field managers.
func (c *checker) fieldManagers(path string, in []*string) []string {
	var out []string
	for i, name := range in {
		if name == nil {
			continue // reported already
		}
		at := itemPath(path, i)
		switch {
		case len(*name) > maxFieldManager:
			c.wrong(at, "has %d bytes, and Kubernetes accepts field managers of at most %d: write the name that the error shows", len(*name), maxFieldManager)
		case strings.ContainsAny(*name, "*?"):
			c.wrong(at, "has a placeholder in it, which matches nothing: write each field manager out, as the error shows it")
		case slices.Contains(out, *name):
			c.wrong(at, "is in the list twice: remove one")
		default:
			out = append(out, *name)
		}
	}
	return out
}

// checkKubernetes comes after the tokens, whose sinks decide whether a cluster is needed.
func (c *checker) checkKubernetes() {
	in := c.raw.Kubernetes
	if c.has("kubernetes") && c.needKubernetes == "" && len(c.cfg.Tokens) > 0 {
		c.warn("kubernetes", "is used by no sink and by no hook: remove it, or write one that needs it")
	}
	c.cfg.Kubernetes = Kubernetes{Kubeconfig: c.filePath("kubernetes.kubeconfig", in.Kubeconfig), Context: or(in.Context, "")}
	if in.Context != nil && in.Kubeconfig == nil && !c.has("kubernetes.kubeconfig") {
		c.wrong("kubernetes.context", "goes with kubeconfig: without one, the daemon uses the service account of its pod")
	}
}

// String names the cluster as far as the configuration does, for messages.
func (k Kubernetes) String() string {
	switch {
	case k.Kubeconfig == "":
		return "the cluster that the daemon runs in"
	case k.Context == "":
		return fmt.Sprintf("the cluster of %s", k.Kubeconfig)
	}
	return fmt.Sprintf("the cluster of the context %s in %s", k.Context, k.Kubeconfig)
}
