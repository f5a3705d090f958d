package config

import "rotatord/internal/config/raw"

// WebhookHook is a signed HTTP request. It implements [Hook].
type WebhookHook struct {
	URL    string
	Secret SecretSource
	// CAFile has the authorities that the receiver's certificate must come from. Empty: the system's.
	CAFile string
	HookTimes
}

// Kind implements [Hook].
func (*WebhookHook) Kind() string { return "webhook" }

// Target implements [Hook].
func (w *WebhookHook) Target() string { return w.URL }

// NeedsKubernetes implements [Hook].
func (*WebhookHook) NeedsKubernetes() bool { return false }

// Document implements [Hook].
func (w *WebhookHook) Document() map[string]any {
	document := map[string]any{"url": w.URL, "secret": w.Secret.Document()}
	if w.CAFile != "" {
		document["ca_file"] = w.CAFile
	}
	return w.addTo(document)
}

// Dispatch implements [Hook].
func (w *WebhookHook) Dispatch(to HookKinds) { to.Webhook(w) }

func (w *WebhookHook) eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind)) {
	do(path+".secret", &w.Secret, AnySecret)
}

func (w *WebhookHook) check(c *checker, path string, hook raw.Hook) bool {
	in := hook.Webhook
	w.HookTimes, w.URL = c.hookTimes(path, in.Timeout, in.Batch), or(in.URL, "")
	if in.URL != nil {
		c.checkURL(path+".url", w.URL, "names of tokens", true)
	}
	w.Secret = c.source(path+".secret", in.Secret)
	w.CAFile = c.filePath(path+".ca_file", in.CAFile)
	return in.URL != nil
}
