package config

import "rotatord/internal/config/raw"

// WebhookHook is a signed HTTP request. It implements [Hook].
type WebhookHook struct {
	URL    string
	Secret SecretSource
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
	return w.addTo(map[string]any{"url": w.URL, "secret": w.Secret.Document()})
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
	return in.URL != nil
}
