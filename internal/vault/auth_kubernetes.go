package vault

import "rotatord/internal/config"

// Kubernetes implements [config.AuthMethods].
func (m *methods) Kubernetes(c *config.KubernetesAuth) {
	m.chosen = &kubernetesAuth{jwtLogin{field: "vault.auth.kubernetes", mount: c.Mount, role: c.Role, source: c.JWT}}
}

// kubernetesAuth logs in with the token of a service account. Vault asks the API server of Kubernetes about it
// (TokenReview).
type kubernetesAuth struct{ jwtLogin }

func (*kubernetesAuth) name() string { return "kubernetes" }

func (k *kubernetesAuth) hint(refusal *ResponseError, namespace string) string {
	return "does the role exist, and is kubernetes mounted at auth/" + k.mount + "?" + askNamespace(namespace)
}
