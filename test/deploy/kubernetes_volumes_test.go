package deploy

import (
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// credentialKeys are the keys of the Secret that the guide creates, by kustomization.
var credentialKeys = map[string][]string{
	"":                 {"age-identity", "cloudflare-api-token"},
	"overlays/approle": {"age-identity", "cloudflare-api-token", "vault-role-id", "vault-secret-id"},
}

func keysFor(name string) []string {
	if keys, ok := credentialKeys[name]; ok {
		return keys
	}
	return credentialKeys[""]
}

// What the pod mounts, and what the configuration in it reads and writes, must be the
// same files.
func TestKubernetesVolumes(t *testing.T) {
	for _, name := range builds {
		t.Run(name, func(t *testing.T) {
			m := build(t, name)
			cfg := mountedConfig(t, m)
			mounts := map[string]corev1.VolumeMount{}
			for _, mount := range m.container().VolumeMounts {
				mounts[mount.Name] = mount
			}
			var provided []string
			apiToken := false
			for _, v := range m.pod().Spec.Volumes {
				mount, ok := mounts[v.Name]
				if !ok {
					t.Errorf("the volume %s is not mounted", v.Name)
				}
				delete(mounts, v.Name)
				if mount.SubPath != "" && v.ConfigMap == nil {
					t.Errorf("the volume %s is mounted by subPath: what is replaced in it would not be seen", v.Name)
				}
				switch {
				case v.ConfigMap != nil:
					if v.ConfigMap.Name != m.config.Name {
						t.Errorf("the pod mounts the ConfigMap %s, there is %s", v.ConfigMap.Name, m.config.Name)
					}
					if !slices.Contains(m.container().Args, "--config="+mount.MountPath) || mount.SubPath != "config.yaml" {
						t.Errorf("the configuration is at %s, the arguments are %q", mount.MountPath, m.container().Args)
					}
				case v.Secret != nil:
					if mode := v.Secret.DefaultMode; mode == nil || *mode&0o007 != 0 {
						t.Error("every user could read the credentials")
					}
					for _, key := range keysFor(name) {
						provided = append(provided, filepath.Join(mount.MountPath, key))
					}
				case v.Projected != nil:
					if mode := v.Projected.DefaultMode; mode == nil || *mode&0o007 != 0 || !mount.ReadOnly {
						t.Errorf("%s: every user could read or change the tokens", v.Name)
					}
					token := v.Projected.Sources[0].ServiceAccountToken
					path := filepath.Join(mount.MountPath, token.Path)
					if *token.ExpirationSeconds < 600 || *token.ExpirationSeconds > 3600 {
						t.Errorf("%s lasts %d seconds", path, *token.ExpirationSeconds)
					}
					if path == "/var/run/secrets/kubernetes.io/serviceaccount/token" {
						apiToken = true
						if len(v.Projected.Sources) != 3 || token.Audience != "" {
							t.Errorf("the API server needs its certificate, the namespace and a token for itself: %+v", v.Projected.Sources)
						}
						continue
					}
					if token.Audience != "vault" || len(v.Projected.Sources) != 1 {
						t.Errorf("the token for Vault would be accepted by %q", token.Audience)
					}
					provided = append(provided, path)
				case v.PersistentVolumeClaim != nil:
					if v.PersistentVolumeClaim.ClaimName != m.claim.Name {
						t.Errorf("the pod mounts the claim %s, there is %s", v.PersistentVolumeClaim.ClaimName, m.claim.Name)
					}
					// Below the mount and not the mount itself, which a storage class may leave
					// open to every user: rotatord refuses that.
					if dir := cfg.State.Dir; filepath.Dir(dir) != mount.MountPath || mount.ReadOnly {
						t.Errorf("state.dir is %s, the claim is mounted at %s (read only: %t)", dir, mount.MountPath, mount.ReadOnly)
					}
				case v.EmptyDir != nil:
					// The mount is open to every user: rotatord makes a directory of its own in it.
					if socket := cfg.AdminSocket; filepath.Dir(filepath.Dir(socket)) != mount.MountPath || mount.ReadOnly {
						t.Errorf("admin_socket is %s, the only other place that can be written to is %s", socket, mount.MountPath)
					}
				default:
					t.Errorf("nothing checks the volume %s", v.Name)
				}
			}
			for name := range mounts {
				t.Errorf("%s is mounted, but is not a volume", name)
			}

			files := cfg.files()
			slices.Sort(files)
			slices.Sort(provided)
			if !slices.Equal(files, provided) {
				t.Errorf("the configuration reads %q, the pod provides %q", files, provided)
			}
			if wanted := len(cfg.secrets()) > 0; wanted != apiToken {
				t.Errorf("the pod has a token for the API server: %t, the configuration needs one: %t", apiToken, wanted)
			}
			host, port := cfg.listen(t)
			if host == "127.0.0.1" || host == "localhost" {
				t.Errorf("listen: %s cannot be reached by probes", host)
			}
			if got := intstr.FromInt32(m.container().Ports[0].ContainerPort); got.String() != port {
				t.Errorf("the configuration listens on %s, the container's port is %s", port, got.String())
			}
		})
	}
}

// The Role names exactly the Secrets of the configuration, and its binding the pod's service account.
func TestKubernetesRole(t *testing.T) {
	for _, name := range builds {
		t.Run(name, func(t *testing.T) {
			m := build(t, name)
			secrets := mountedConfig(t, m).secrets()
			if len(secrets) == 0 {
				if m.role != nil || m.binding != nil {
					t.Error("there are rights that nothing needs")
				}
				return
			}
			if m.role == nil || m.binding == nil {
				t.Fatal("no Role, or no RoleBinding")
			}
			var named []string
			for _, rule := range m.role.Rules {
				if !slices.Equal(rule.APIGroups, []string{""}) || !slices.Equal(rule.Resources, []string{"secrets"}) || !slices.Equal(rule.Verbs, []string{"get", "patch"}) {
					t.Errorf("the rule %+v", rule)
				}
				for _, name := range rule.ResourceNames {
					named = append(named, m.role.Namespace+"/"+name)
				}
			}
			if !slices.Equal(named, secrets) {
				t.Errorf("the Role names %q, the configuration writes %q", named, secrets)
			}
			want := []rbacv1.Subject{{Kind: "ServiceAccount", Name: m.account.Name, Namespace: m.account.Namespace}}
			if m.binding.Namespace != m.role.Namespace || m.binding.RoleRef.Kind != "Role" || m.binding.RoleRef.Name != m.role.Name || !slices.Equal(m.binding.Subjects, want) {
				t.Errorf("the binding %+v", m.binding)
			}
		})
	}
}

// A drain of the node must be able to evict the pod: the budget has to allow it, also when the pod is not ready.
func TestKubernetesDisruption(t *testing.T) {
	for _, name := range builds {
		m := build(t, name)
		spec := m.budget.Spec
		if spec.MinAvailable != nil || spec.MaxUnavailable == nil || spec.MaxUnavailable.IntValue() != 1 {
			t.Errorf("%s: the budget would block the drain of a node, or let all replicas go at once: %+v", name, spec)
		}
		if p := spec.UnhealthyPodEvictionPolicy; p == nil || *p != policyv1.AlwaysAllow {
			t.Errorf("%s: a pod that is not ready would block the drain of a node", name)
		}
	}
}
