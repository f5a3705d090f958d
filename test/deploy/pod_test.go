package deploy

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
	"rotatord/test/program"
)

// TestPod runs the pod, as its manifest says and as far as that goes without a kubelet: the binary alone in a root
// of its own, with the user, the groups, the arguments and the files of the pod that a real API server has
// admitted. It logs in to a real Vault, which has the pod's token reviewed, and rotates.
func TestPod(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for chroot and the owners of files")
	}
	t.Parallel()
	c := startCluster(t)
	v := startVault(t)
	v.knows(t, c)
	for _, d := range deployments(t) {
		if name := strings.Fields(d.name)[1]; name != "overlays/secret-sink" && name != "overlays/approle" {
			continue
		}
		t.Run(d.name, func(t *testing.T) { runPod(t, c, v, d) })
	}
}

func runPod(t *testing.T, c cluster, v *vaultServer, d deployment) {
	sim := cfsim.New(cfsim.Options{SeedTokens: 1, APIToken: secret.New("cfat_made-up")})
	cloudflare := httptest.NewServer(sim)
	t.Cleanup(cloudflare.Close)
	kubernetes := strings.Contains(d.name, "secret-sink")

	// The peers of this test, in the configuration that is shipped.
	for _, o := range d.objects {
		if o.GetKind() != "ConfigMap" {
			continue
		}
		config, _, _ := unstructured.NestedString(o.Object, "data", "config.yaml")
		config = peersIn(t, config, cloudflare.URL, v)
		config = replaceOnce(t, config, "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", cfsim.SeedTokenID(1))
		config = replaceOnce(t, config, "path: access/ci-deploy", "path: access/"+d.namespace)
		if kubernetes {
			config = replaceOnce(t, config, "namespace: ci,", "namespace: "+d.foreign[0]+",")
			config = replaceOnce(t, config, "kubernetes: {role: rotatord,", "kubernetes: {role: "+d.namespace+",")
		}
		_ = unstructured.SetNestedField(o.Object, config, "data", "config.yaml")
	}
	c.applyAll(t, d)
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	credentials := map[string]string{"cloudflare-api-token": "cfat_made-up\n", "age-identity": identity.String() + "\n"}
	if kubernetes {
		if _, err := c.send(t, c.AdminToken, http.MethodPost, "/api/v1/namespaces/"+d.foreign[0]+"/secrets", "application/json", `{"metadata": {"name": "cf-access"}}`); err != nil {
			t.Fatal(err)
		}
		v.admits(t, d, "rotatord")
	} else {
		credentials["vault-role-id"], credentials["vault-secret-id"] = v.appRole(t)
	}
	pod := d.pod(t, 0)
	typed := c.create(t, pod)
	k := &kubelet{cluster: c, pod: typed, root: t.TempDir(), credentials: credentials, listen: program.FreeAddress(t)}
	k.prepare(t, d)
	daemon, log := k.command(t, typed.Spec.Containers[0].Args...), &program.Output{}
	daemon.Stdout, daemon.Stderr = log, log
	if err := k.inPod(daemon.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- daemon.Wait() }()
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		if t.Failed() {
			t.Logf("the log of the pod:\n%s", program.Tail(log.String()))
		}
	})
	k.ready(t, program.Patience)

	// The commands of the guide, as kubectl exec runs them.
	for _, args := range [][]string{{"doctor"}, {"rotate", "ci-deploy"}, {"status"}} {
		k.exec(t, args...)
	}
	inVault := v.read(t, "secret/data/access/"+d.namespace)["data"].(map[string]any)["client_secret"].(string)
	if inVault == "" {
		t.Error("Vault has no client secret")
	}
	if kubernetes {
		kept, err := c.send(t, c.AdminToken, http.MethodGet, "/api/v1/namespaces/"+d.foreign[0]+"/secrets/cf-access", "", "")
		if err != nil {
			t.Fatal(err)
		}
		encoded, _, _ := unstructured.NestedString(kept.Object, "data", "client_secret")
		if text, err := base64.StdEncoding.DecodeString(encoded); err != nil || string(text) != inVault {
			t.Error("the Secret does not have what Vault has")
		}
	}

	if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the pod ended with %v", err)
		}
	case <-time.After(time.Duration(*typed.Spec.TerminationGracePeriodSeconds) * time.Second):
		t.Error("the pod outlives its time to end")
	}
}

func replaceOnce(t *testing.T, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("the configuration has %q %d times", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, new, 1)
}

// peersIn returns the configuration that is shipped with the peers of a test: its Cloudflare and its Vault.
func peersIn(t *testing.T, config, cloudflare string, v *vaultServer) string {
	t.Helper()
	const account = "account_id: 023e105f4ecef8ad9ca31a8372d0c353\n"
	config = replaceOnce(t, config, account, account+"    base_url: "+cloudflare+cfsim.BasePath+"\n")
	return replaceOnce(t, config, "https://vault.example.com:8200", v.address)
}

// kubelet does what the kubelet and the runtime do for a pod, as far as the binary can see it.
type kubelet struct {
	cluster     cluster
	pod         *corev1.Pod
	root        string
	credentials map[string]string
	listen      string // in place of that of the configuration, because pods share the network here; empty: as it is
}

// prepare makes the root: that of the image, and the volumes with the owners and modes that the kubelet gives them.
func (k *kubelet) prepare(t *testing.T, d deployment) {
	t.Helper()
	group := int(*k.pod.Spec.SecurityContext.FSGroup)
	dir := func(path string, owner int, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(k.root, path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(k.root, path), owner, group); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(k.root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	file := func(path, content string, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(k.root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 0, group); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	if err := os.Chmod(k.root, 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(builtBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	file("/usr/local/bin/rotatord", string(binary), 0o755)
	file("/dev/null", "", 0o666)

	mounts := map[string]corev1.VolumeMount{}
	for _, m := range k.pod.Spec.Containers[0].VolumeMounts {
		mounts[m.Name] = m
	}
	for _, volume := range k.pod.Spec.Volumes {
		at := mounts[volume.Name].MountPath
		switch {
		case volume.ConfigMap != nil:
			for _, o := range d.objects {
				if o.GetKind() == "ConfigMap" && o.GetName() == volume.ConfigMap.Name {
					config, _, _ := unstructured.NestedString(o.Object, "data", "config.yaml")
					if k.listen != "" {
						config = replaceOnce(t, config, "listen: 0.0.0.0:9321", "listen: "+k.listen)
					}
					file(at, config, os.FileMode(*volume.ConfigMap.DefaultMode))
				}
			}
		case volume.Secret != nil:
			for key, value := range k.credentials {
				file(filepath.Join(at, key), value, os.FileMode(*volume.Secret.DefaultMode))
			}
		case volume.Projected != nil:
			mode := os.FileMode(*volume.Projected.DefaultMode)
			for _, source := range volume.Projected.Sources {
				switch {
				case source.ServiceAccountToken != nil:
					file(filepath.Join(at, source.ServiceAccountToken.Path), k.token(t, source.ServiceAccountToken), mode)
				case source.ConfigMap != nil: // kube-root-ca.crt, which a controller writes
					ca, err := os.ReadFile(k.cluster.CAFile)
					if err != nil {
						t.Fatal(err)
					}
					file(filepath.Join(at, source.ConfigMap.Items[0].Path), string(ca), mode)
				case source.DownwardAPI != nil:
					file(filepath.Join(at, source.DownwardAPI.Items[0].Path), k.pod.Namespace, mode)
				}
			}
		case volume.PersistentVolumeClaim != nil:
			dir(at, 0, 0o775|os.ModeSetgid)
		case volume.EmptyDir != nil:
			dir(at, 0, 0o777|os.ModeSetgid)
		default:
			t.Fatalf("nothing prepares the volume %s", volume.Name)
		}
	}
}

// token is one for the pod, as a kubelet asks for it.
func (k *kubelet) token(t *testing.T, p *corev1.ServiceAccountTokenProjection) string {
	t.Helper()
	audiences := []string{}
	if p.Audience != "" {
		audiences = append(audiences, p.Audience)
	}
	body, err := json.Marshal(map[string]any{"spec": map[string]any{
		"audiences": audiences, "expirationSeconds": p.ExpirationSeconds,
		"boundObjectRef": map[string]any{"apiVersion": "v1", "kind": "Pod", "name": k.pod.Name, "uid": k.pod.UID},
	}})
	if err != nil {
		t.Fatal(err)
	}
	path := "/api/v1/namespaces/" + k.pod.Namespace + "/serviceaccounts/" + k.pod.Spec.ServiceAccountName + "/token"
	granted, err := k.cluster.send(t, k.cluster.AdminToken, http.MethodPost, path, "application/json", string(body))
	if err != nil {
		t.Fatal(err)
	}
	token, _, _ := unstructured.NestedString(granted.Object, "status", "token")
	return token
}

// command is a process in the container.
func (k *kubelet) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	security := k.pod.Spec.SecurityContext
	cmd := exec.CommandContext(t.Context(), "/usr/local/bin/rotatord", args...)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader("")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: k.root, Credential: &syscall.Credential{
		Uid: uint32(*security.RunAsUser), Gid: uint32(*security.RunAsGroup), Groups: []uint32{uint32(*security.FSGroup)},
	}}
	host, port, _ := strings.Cut(strings.TrimPrefix(k.cluster.URL, "https://"), ":")
	cmd.Env = []string{"HOSTNAME=" + k.pod.Name, "KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
	return cmd
}

// inPod calls a function that starts a process, which has the host name of the pod then.
func (k *kubelet) inPod(start func() error) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with this goroutine
		err := syscall.Unshare(syscall.CLONE_NEWUTS)
		if err == nil {
			err = syscall.Sethostname([]byte(cmp.Or(k.pod.Spec.Hostname, k.pod.Name)))
		}
		if err == nil {
			err = start()
		}
		started <- err
	}()
	return <-started
}

// ready waits until the readiness probe is answered, on the address listen.
func (k *kubelet) ready(t *testing.T, within time.Duration) {
	t.Helper()
	said := ""
	for end := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		answer, err := http.Get("http://" + k.listen + k.pod.Spec.Containers[0].ReadinessProbe.HTTPGet.Path + "?verbose")
		if err == nil {
			text, _ := io.ReadAll(answer.Body)
			_ = answer.Body.Close()
			if said = string(text); answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s is not ready: %v\n%s", k.pod.Name, err, said)
		}
	}
}

// exec runs a command of the guide, as kubectl exec does, and returns what it prints.
func (k *kubelet) exec(t *testing.T, args ...string) string {
	t.Helper()
	cmd, out := k.command(t, args...), &program.Output{}
	cmd.Stdout, cmd.Stderr = out, out
	err := k.inPod(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		t.Errorf("rotatord %q: %v\n%s", args, err, out.String())
	}
	return out.String()
}

// vaultServer is a real Vault.
type vaultServer struct{ address, token string }

var (
	builtVault    = program.Build("vaultd", "./test/vaultd")
	builtRotatord = program.Rotatord()
)

// builtBinary is the binary as `make build` leaves it, and as the image has it.
func builtBinary(t *testing.T) string {
	t.Helper()
	path, err := builtRotatord()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func startVault(t *testing.T) *vaultServer {
	t.Helper()
	path, err := builtVault()
	if err != nil {
		t.Fatal(err)
	}
	dir, address, out := t.TempDir(), program.FreeAddress(t), &program.Output{}
	cmd := exec.Command(path, "-listen", address, "-dir", dir)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	program.Eventually(t, program.Patience, "Vault", func() bool { return strings.Contains(out.String(), "ready ") })
	text, err := os.ReadFile(filepath.Join(dir, "init.json"))
	if err != nil {
		t.Fatal(err)
	}
	var secrets struct {
		RootToken string `json:"root_token"`
	}
	if err := json.Unmarshal(text, &secrets); err != nil {
		t.Fatal(err)
	}
	return &vaultServer{"http://" + address, secrets.RootToken}
}

// do sends a request as the administrator, and returns the data of the answer.
func (v *vaultServer) do(t *testing.T, method, path string, body any) map[string]any {
	t.Helper()
	content, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, v.address+"/v1/"+path, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Vault-Token", v.token)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s %s %v", method, path, response.Status, text, err)
	}
	var answer struct{ Data map[string]any }
	if len(text) > 0 {
		if err := json.Unmarshal(text, &answer); err != nil {
			t.Fatal(err)
		}
	}
	return answer.Data
}

func (v *vaultServer) write(t *testing.T, path string, body map[string]any) map[string]any {
	t.Helper()
	return v.do(t, http.MethodPost, path, body)
}

func (v *vaultServer) read(t *testing.T, path string) map[string]any {
	t.Helper()
	return v.do(t, http.MethodGet, path, nil)
}

// knows prepares Vault as deploy/vault says, for a cluster that it is not in.
func (v *vaultServer) knows(t *testing.T, c cluster) {
	t.Helper()
	v.write(t, "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]any{"version": "2"}})
	for _, policy := range []string{"rotatord", "rotatord-replicas"} {
		v.write(t, "sys/policies/acl/"+policy, map[string]any{"policy": readFile(t, "deploy/vault", policy+"-policy.hcl")})
	}
	for _, method := range []string{"approle", "kubernetes"} {
		v.write(t, "sys/auth/"+method, map[string]any{"type": method})
	}
	v.write(t, "auth/approle/role/rotatord", map[string]any{"token_policies": "rotatord", "token_no_default_policy": true, "token_period": "1h"})
	for path, body := range map[string]string{
		"/api/v1/namespaces/kube-system/serviceaccounts": `{"metadata": {"name": "vault-token-review"}}`,
		"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings": `{"metadata": {"name": "vault-token-review"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
			"subjects": [{"kind": "ServiceAccount", "name": "vault-token-review", "namespace": "kube-system"}]}`,
	} {
		if _, err := c.send(t, c.AdminToken, http.MethodPost, path, "application/json", body); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	v.write(t, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": c.URL, "kubernetes_ca_cert": string(ca), "disable_local_ca_jwt": true,
		"token_reviewer_jwt": c.Token(t, "kube-system", "vault-token-review", time.Hour),
	})
}

// admits lets the pods of a deployment log in to Vault, with these policies.
func (v *vaultServer) admits(t *testing.T, d deployment, policies string) {
	t.Helper()
	v.write(t, "auth/kubernetes/role/"+d.namespace, map[string]any{
		"bound_service_account_names": "rotatord", "bound_service_account_namespaces": d.namespace, "audience": "vault",
		"token_policies": policies, "token_no_default_policy": true, "token_period": "1h",
	})
}

func (v *vaultServer) appRole(t *testing.T) (roleID, secretID string) {
	t.Helper()
	return fmt.Sprint(v.read(t, "auth/approle/role/rotatord/role-id")["role_id"]), fmt.Sprint(v.write(t, "auth/approle/role/rotatord/secret-id", nil)["secret_id"])
}
