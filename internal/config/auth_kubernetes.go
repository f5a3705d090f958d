package config

import (
	"path/filepath"

	"rotatord/internal/config/raw"
)

// KubernetesAuth is Vault's kubernetes auth method. It implements [VaultAuth].
type KubernetesAuth struct {
	Role  string
	Mount string // default "kubernetes"
	// JWT is the token of the service account. Default [DefaultServiceAccountFile].
	JWT SecretSource
}

// DefaultServiceAccountFile is the file in which the manifests of deploy/ mount a token for Vault alone.
const DefaultServiceAccountFile = "/var/run/secrets/rotatord/token"

// apiServerTokenDir is the directory of the token that every pod has for the API server.
const apiServerTokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// Kind implements [VaultAuth].
func (*KubernetesAuth) Kind() string { return "kubernetes" }

// Consumes implements [VaultAuth].
func (*KubernetesAuth) Consumes() string { return "" }

// LogsIn implements [VaultAuth].
func (*KubernetesAuth) LogsIn() bool { return true }

// Document implements [VaultAuth].
func (k *KubernetesAuth) Document() map[string]any {
	return map[string]any{"role": k.Role, "mount": k.Mount, "file": k.JWT.File}
}

// Dispatch implements [VaultAuth].
func (k *KubernetesAuth) Dispatch(to AuthMethods) { to.Kubernetes(k) }

func (k *KubernetesAuth) check(c *checker, path string, auth raw.VaultAuth) {
	in := auth.Kubernetes
	k.Role, k.Mount = c.role(path+".role", in.Role), c.authMount(path+".mount", in.Mount, "kubernetes")
	k.JWT = SecretSource{File: DefaultServiceAccountFile}
	if in.File != nil {
		k.JWT = SecretSource{File: c.filePath(path+".file", in.File)}
	}
	if dir := filepath.Dir(k.JWT.File); dir == apiServerTokenDir || "/var"+dir == apiServerTokenDir {
		c.warn(path+".file", "is the token for the API server: whoever sees it at Vault can use it there. Mount a projected token with an audience of its own, "+
			"such as vault, and name that audience at the role")
	}
}

func (k *KubernetesAuth) eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind)) {
	do(path+".file", &k.JWT, JWT)
}
