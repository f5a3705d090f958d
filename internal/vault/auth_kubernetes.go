package vault

import (
	"fmt"

	"rotatord/internal/config"
)

// Kubernetes implements [config.AuthMethods].
func (m *methods) Kubernetes(c *config.KubernetesAuth) {
	m.chosen = &kubernetesAuth{jwtLogin{field: "vault.auth.kubernetes", mount: c.Mount, role: c.Role, source: c.JWT}}
}

// kubernetesAuth logs in with the token of a service account. Vault asks the API server of Kubernetes about it
// (TokenReview).
type kubernetesAuth struct{ jwtLogin }

func (*kubernetesAuth) name() string { return "kubernetes" }

func (k *kubernetesAuth) hint(refusal *ResponseError, namespace string) string {
	sent := k.lastClaims()
	role := fmt.Sprintf("the role %q at auth/%s/role", k.role, k.mount)
	token := "of the service account's token in " + k.source.String() + ", "
	switch {
	case refusal.says("invalid role name"), refusal.says("missing role"):
		return role + " does not exist: create it, or correct vault.auth.kubernetes.role." + askNamespace(namespace)
	case refusal.says("could not load backend configuration"):
		return "auth/" + k.mount + "/config is not written yet: kubernetes_host says where Vault reviews the token"
	case refusal.says("audience"):
		return token + sent.describe() + "; compare audience of " + role + " with the audience of the projected volume"
	case refusal.says("service account name not authorized"), refusal.says("namespace not authorized"):
		return token + sent.describe() + "; compare bound_service_account_names and bound_service_account_namespaces of " + role
	case refusal.says("issuer"):
		return token + sent.describe() + "; set disable_iss_validation=true at auth/" + k.mount + "/config, because the review checks the issuer"
	case refusal.says("claim"), refusal.says("signature"):
		return k.times(sent, token+sent.describe())
	}
	// Vault tells the reason of a failed review to its own log only.
	return k.times(sent, token+sent.describe()+"; the API server may have refused the review: does Vault's own service account have the ClusterRole system:auth-delegator, "+
		"does kubernetes_host name this cluster, and does the pod of the token still exist? Vault's log has the reason at the level debug. Otherwise "+
		noMount("kubernetes", k.mount)+askNamespace(namespace))
}
