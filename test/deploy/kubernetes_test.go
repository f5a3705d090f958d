package deploy

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// builds are the kustomizations that are shipped to be applied.
var builds = []string{"base", "overlays/example", withOptions, "overlays/approle", "overlays/secret-sink", severalReplicas, movesLedger}

// severalReplicas is the kustomization with a StatefulSet.
const severalReplicas = "overlays/replicas"

// movesLedger is the kustomization that the guide has the user make, on top of it.
const movesLedger = "overlays/move"

// withOptions is the example with what its comments offer.
const withOptions = "overlays/example with all options"

// files are those of deploy/kubernetes. For withOptions they have the comment signs removed.
func files(t *testing.T, name string) filesys.FileSystem {
	t.Helper()
	fs := filesys.MakeFsInMemory()
	dir, options := filepath.Join(root, "deploy/kubernetes"), 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if name == withOptions && rel == "overlays/example/kustomization.yaml" {
			content = regexp.MustCompile(`(?m)^( *)# ((components:| *- (\.\./|target:|op:)| +(patch:|path:|value:)).*)$`).ReplaceAllFunc(content, func(line []byte) []byte {
				options++
				return bytes.Replace(line, []byte("# "), nil, 1)
			})
		}
		return fs.WriteFile("/"+rel, content)
	})
	if err != nil {
		t.Fatal(err)
	}
	move := regexp.MustCompile(`(?ms)cat > overlays/move/kustomization.yaml <<'END'\n(.*?)^END$`).
		FindStringSubmatch(commandsOf(t, "deploy/kubernetes/README.md", "From one pod to several replicas"))
	if move == nil {
		t.Fatal("the guide makes no overlay that moves the ledger")
	}
	if err := fs.WriteFile("/"+movesLedger+"/kustomization.yaml", []byte(replaceOnce(t, move[1], "../mine", "../replicas"))); err != nil {
		t.Fatal(err)
	}
	if want := 2; name == withOptions && options != want {
		t.Fatalf("%d lines of options were found, want %d", options, want)
	}
	return fs
}

// strictDecoder refuses unknown and duplicate fields and kinds that it does not know.
func strictDecoder(t *testing.T) runtime.Decoder {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme, monitoringv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
}

// manifests are the objects of one kustomization, by type. Fields that stand for one
// object hold exactly one.
type manifests struct {
	namespace  *corev1.Namespace
	account    *corev1.ServiceAccount
	config     *corev1.ConfigMap
	claim      *corev1.PersistentVolumeClaim // of one pod, or the template of those of several
	deployment *appsv1.Deployment            // nil with several replicas
	replicas   *appsv1.StatefulSet           // nil with one
	service    *corev1.Service
	policy     *networkingv1.NetworkPolicy
	budget     *policyv1.PodDisruptionBudget
	role       *rbacv1.Role        // nil without a sink in Kubernetes
	binding    *rbacv1.RoleBinding // the same
	job        *batchv1.Job        // nil unless the ledger is moved
	monitors   []*monitoringv1.PodMonitor
}

func (m *manifests) pod() *corev1.PodTemplateSpec {
	if m.replicas != nil {
		return &m.replicas.Spec.Template
	}
	return &m.deployment.Spec.Template
}

func (m *manifests) container() *corev1.Container { return &m.pod().Spec.Containers[0] }

// kustomized are the objects of one kustomization.
func kustomized(t *testing.T, name string) []*unstructured.Unstructured {
	t.Helper()
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).
		Run(files(t, name), "/"+strings.TrimSuffix(name, " with all options"))
	if err != nil {
		t.Fatalf("kustomize build: %v", err)
	}
	text, err := result.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := objectsOf(text)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func build(t *testing.T, name string) *manifests {
	t.Helper()
	decoder, m, seen := strictDecoder(t), &manifests{}, map[string]bool{}
	for _, o := range kustomized(t, name) {
		content, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		kind, id := o.GetKind(), o.GetKind()+" "+o.GetName()
		object, _, err := decoder.Decode(content, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if seen[kind] {
			t.Errorf("a second %s", kind)
		}
		seen[kind] = true
		foreign := kind == "Role" || kind == "RoleBinding" // they are where the Secrets are
		if kind != "Namespace" && !foreign && o.GetNamespace() != "rotatord" {
			t.Errorf("%s is in the namespace %q", id, o.GetNamespace())
		}
		switch object := object.(type) {
		case *corev1.Namespace:
			m.namespace = object
		case *corev1.ServiceAccount:
			m.account = object
		case *corev1.ConfigMap:
			m.config = object
		case *corev1.PersistentVolumeClaim:
			m.claim = object
		case *appsv1.Deployment:
			m.deployment = object
		case *appsv1.StatefulSet:
			m.replicas = object
			if len(object.Spec.VolumeClaimTemplates) != 1 {
				t.Fatalf("%d templates of claims, want one", len(object.Spec.VolumeClaimTemplates))
			}
			seen["PersistentVolumeClaim"] = true
			m.claim = object.Spec.VolumeClaimTemplates[0].DeepCopy()
			m.claim.Name = claimOf(m.claim.Name, object.Name, 0)
			volumes := &object.Spec.Template.Spec.Volumes // as its controller does for the first pod
			*volumes = append(*volumes, claimVolume(object.Spec.VolumeClaimTemplates[0].Name, m.claim.Name))
		case *batchv1.Job:
			m.job = object
		case *corev1.Service:
			m.service = object
		case *networkingv1.NetworkPolicy:
			m.policy = object
		case *policyv1.PodDisruptionBudget:
			m.budget = object
		case *rbacv1.Role:
			m.role = object
		case *rbacv1.RoleBinding:
			m.binding = object
		case *monitoringv1.PodMonitor:
			m.monitors = append(m.monitors, object)
		default:
			t.Errorf("%s: nothing checks objects of this kind", id)
		}
	}
	for _, kind := range []string{"Namespace", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim", "Service", "NetworkPolicy", "PodDisruptionBudget"} {
		if !seen[kind] {
			t.Fatalf("no %s", kind)
		}
	}
	if seen["Deployment"] == seen["StatefulSet"] {
		t.Fatal("there must be a Deployment or a StatefulSet")
	}
	if n := len(m.pod().Spec.Containers); n != 1 {
		t.Fatalf("%d containers, want one", n)
	}
	return m
}

// kustomize forgives some faults in what it reads, such as duplicate keys, so the
// sources are decoded strictly as well.
func TestKubernetesSources(t *testing.T) {
	decoder, decoded := strictDecoder(t), 0
	paths, err := filepath.Glob(filepath.Join(root, "deploy/kubernetes/*/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "deploy/kubernetes/*/*/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths, more...) {
		if base := filepath.Base(path); base == "kustomization.yaml" || base == "config.yaml" {
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq(string(content), "\n---\n") {
			if _, _, err := decoder.Decode([]byte(document), nil, nil); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		decoded++
	}
	if decoded != 10 {
		t.Errorf("%d files were decoded, want 10", decoded)
	}
	twice := []byte("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, name: b}\n")
	if _, _, err := decoder.Decode(twice, nil, nil); err == nil {
		t.Error("the decoder accepts duplicate keys: this test shows nothing")
	}
}

func TestKubernetesPodSecurity(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, name := range builds {
		t.Run(name, func(t *testing.T) {
			m := build(t, name)
			for _, mode := range []string{"enforce", "audit", "warn"} {
				if got := m.namespace.Labels["pod-security.kubernetes.io/"+mode]; got != string(api.LevelRestricted) {
					t.Errorf("the namespace has %s=%q", mode, got)
				}
			}
			if m.job != nil {
				job := m.job.Spec.Template
				for _, result := range evaluator.EvaluatePod(restricted, &job.ObjectMeta, &job.Spec) {
					if !result.Allowed {
						t.Errorf("the Job: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
					}
				}
			}
			pod := m.pod().DeepCopy()
			for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			pod.Spec.Containers[0].SecurityContext.Capabilities.Drop = nil
			if result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec)); result.Allowed {
				t.Error("a pod with capabilities is allowed: this test shows nothing")
			}
		})
	}
}

func TestKubernetesPod(t *testing.T) {
	uid, gid := imageUser(t)
	for _, name := range builds {
		t.Run(name, func(t *testing.T) {
			m := build(t, name)
			spec, c := m.pod().Spec, m.container()

			if d := m.deployment; d != nil {
				if r := d.Spec.Replicas; r == nil || *r != 1 {
					t.Error("the ledger is local: there must be one replica, said outright")
				}
				if s := d.Spec.Strategy.Type; s != appsv1.RecreateDeploymentStrategyType {
					t.Errorf("strategy %s: two pods would run at once", s)
				}
			}
			if len(m.claim.Spec.AccessModes) != 1 || m.claim.Spec.AccessModes[0] != corev1.ReadWriteOncePod {
				t.Errorf("access modes %q: two pods could share the volume", m.claim.Spec.AccessModes)
			}

			if spec.ServiceAccountName != m.account.Name {
				t.Errorf("service account %q, want %q", spec.ServiceAccountName, m.account.Name)
			}
			for what, mounted := range map[string]*bool{"pod": spec.AutomountServiceAccountToken, "service account": m.account.AutomountServiceAccountToken} {
				if mounted == nil || *mounted {
					t.Errorf("the %s mounts a Kubernetes token that nothing needs", what)
				}
			}

			security := spec.SecurityContext
			if *security.RunAsUser != uid || *security.RunAsGroup != gid || *security.FSGroup != gid {
				t.Errorf("the pod runs as %d:%d with fsGroup %d, the image as %d:%d",
					*security.RunAsUser, *security.RunAsGroup, *security.FSGroup, uid, gid)
			}
			if p := security.FSGroupChangePolicy; p == nil || *p != corev1.FSGroupChangeOnRootMismatch {
				t.Error("each start would widen the mode of the files of the state")
			}
			if r := c.SecurityContext.ReadOnlyRootFilesystem; r == nil || !*r {
				t.Error("the root file system is writable")
			}
			for _, list := range []corev1.ResourceList{c.Resources.Requests, c.Resources.Limits} {
				if list.Cpu().IsZero() || list.Memory().IsZero() {
					t.Errorf("requests and limits must name CPU and memory: %v", c.Resources)
				}
			}

			grace := time.Duration(*spec.TerminationGracePeriodSeconds) * time.Second
			if timeout := shutdownTimeout(t, c.Args); grace < timeout+10*time.Second {
				t.Errorf("the pod has %s to end: too short to finish a rotation, which may take %s", grace, timeout)
			}
			if image, _, _ := strings.Cut(c.Image, ":"); image != "rotatord" {
				t.Errorf("image %s", c.Image)
			}
		})
	}
}

func TestKubernetesProbes(t *testing.T) {
	m := build(t, "base")
	c := m.container()
	for name, probe := range map[string]struct {
		*corev1.Probe
		path string
	}{
		"startup":   {c.StartupProbe, "/livez"},
		"liveness":  {c.LivenessProbe, "/livez"},
		"readiness": {c.ReadinessProbe, "/readyz"},
	} {
		if probe.Probe == nil || probe.HTTPGet == nil {
			t.Errorf("no %s probe by HTTP", name)
			continue
		}
		if probe.HTTPGet.Path != probe.path {
			t.Errorf("%s asks for %s, want %s", name, probe.HTTPGet.Path, probe.path)
		}
		if !hasPort(c, probe.HTTPGet.Port) {
			t.Errorf("%s: the container has no port %s", name, probe.HTTPGet.Port.String())
		}
	}
}

// hasPort tells whether a named port exists in the container.
func hasPort(c *corev1.Container, port intstr.IntOrString) bool {
	return port.Type == intstr.String && slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal })
}

func TestKubernetesSelectors(t *testing.T) {
	for _, name := range builds {
		t.Run(name, func(t *testing.T) {
			m := build(t, name)
			pod, c := labels.Set(m.pod().Labels), m.container()
			matches := func(what string, selector *metav1.LabelSelector) {
				t.Helper()
				s, err := metav1.LabelSelectorAsSelector(selector)
				if err != nil {
					t.Fatal(err)
				}
				if s.Empty() || !s.Matches(pod) {
					t.Errorf("%s selects %q, the pod has %q", what, s, pod)
				}
			}
			if m.replicas != nil {
				matches("the StatefulSet", m.replicas.Spec.Selector)
			} else {
				matches("the Deployment", m.deployment.Spec.Selector)
			}
			matches("the Service", &metav1.LabelSelector{MatchLabels: m.service.Spec.Selector})
			matches("the NetworkPolicy", &m.policy.Spec.PodSelector)
			matches("the PodDisruptionBudget", m.budget.Spec.Selector)

			if !m.service.Spec.PublishNotReadyAddresses {
				t.Error("the metrics of a daemon that is not ready would be lost")
			}
			for _, p := range m.service.Spec.Ports {
				if !hasPort(c, p.TargetPort) {
					t.Errorf("the Service goes to %s, which the container does not have", p.TargetPort.String())
				}
			}
			for _, rule := range m.policy.Spec.Ingress {
				if len(rule.From) == 0 || len(rule.Ports) == 0 {
					t.Error("ingress is open")
				}
				for _, p := range rule.Ports {
					if p.Port == nil || !hasPort(c, *p.Port) {
						t.Errorf("the NetworkPolicy lets in %v, which the container does not have", p.Port)
					}
				}
			}

			if wantMonitor := name == withOptions; wantMonitor != (len(m.monitors) == 1) {
				t.Fatalf("%d PodMonitors", len(m.monitors))
			}
			for _, monitor := range m.monitors {
				matches("the PodMonitor", &monitor.Spec.Selector)
				for _, e := range monitor.Spec.PodMetricsEndpoints {
					if e.Port == nil || !hasPort(c, intstr.FromString(*e.Port)) || e.Path != "/metrics" {
						t.Errorf("the PodMonitor scrapes %v%s", e.Port, e.Path)
					}
				}
			}
		})
	}
}

func TestKubernetesEgress(t *testing.T) {
	for _, name := range builds {
		t.Run(name, func(t *testing.T) {
			m := build(t, name)
			var got []string
			for _, rule := range m.policy.Spec.Egress {
				if len(rule.Ports) == 0 {
					t.Error("a rule without ports: egress is open")
				}
				for _, p := range rule.Ports {
					got = append(got, string(*p.Protocol)+" "+p.Port.String())
				}
			}
			want := []string{"UDP 53", "TCP 53", "TCP 443", "TCP " + mountedConfig(t, m).vaultPort(t)}
			if len(mountedConfig(t, m).secrets()) > 0 {
				want = append(want, "TCP 6443") // the API server, behind port 443 of its Service
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("egress to %q, want %q", got, want)
			}
			if !slices.Contains(m.policy.Spec.PolicyTypes, networkingv1.PolicyTypeEgress) || !slices.Contains(m.policy.Spec.PolicyTypes, networkingv1.PolicyTypeIngress) {
				t.Errorf("policy types %q", m.policy.Spec.PolicyTypes)
			}
		})
	}
}

func mountedConfig(t *testing.T, m *manifests) configFile {
	t.Helper()
	content, ok := m.config.Data["config.yaml"]
	if !ok {
		t.Fatal("the ConfigMap has no config.yaml")
	}
	return parseConfig(t, content)
}

// A changed configuration must give the ConfigMap another name, or the pod would continue
// with the old one.
func TestKubernetesConfigRollsThePod(t *testing.T) {
	base, example := build(t, "base"), build(t, "overlays/example")
	if base.config.Name == example.config.Name {
		t.Errorf("two configurations, one name: %s", base.config.Name)
	}
	for _, name := range builds {
		if c := build(t, name).config; c.Immutable == nil || !*c.Immutable {
			t.Errorf("%s: the content of %s can change: a rollback would not find what it had", name, c.Name)
		}
	}
}

// The guide's commands must make the Secret that the pod mounts, with the keys that the configurations read.
func TestKubernetesReadme(t *testing.T) {
	readme := readFile(t, "deploy/kubernetes/README.md")
	m := build(t, "base")
	for _, v := range m.pod().Spec.Volumes {
		if v.Secret != nil && !strings.Contains(readme, "--namespace rotatord create secret generic "+v.Secret.SecretName) {
			t.Errorf("the README does not make the Secret %s", v.Secret.SecretName)
		}
	}
	made := func(text string) (keys []string) {
		for _, match := range regexp.MustCompile(`--from-file=([a-z-]+)=`).FindAllStringSubmatch(text, -1) {
			keys = append(keys, match[1])
		}
		slices.Sort(keys)
		return keys
	}
	steps, rest, _ := strings.Cut(readme, "## AppRole\n")
	approle, _, _ := strings.Cut(rest, "\n## ")
	if got := made(steps); !slices.Equal(got, keysFor("base")) {
		t.Errorf("the steps make a Secret with %q, want %q", got, keysFor("base"))
	}
	if got, want := made(approle), keysFor("overlays/approle"); !slices.Equal(got, want) {
		t.Errorf("for AppRole the README makes a Secret with %q, want %q", got, want)
	}
	commands := regexp.MustCompile(`exec (?:deployment|statefulset)/(\S+) -- (\S+) `).FindAllStringSubmatch(readme, -1)
	for _, c := range commands {
		if c[1] != m.deployment.Name || !strings.Contains(readFile(t, "deploy/docker/Dockerfile"), " /out/rotatord "+c[2]+"\n") {
			t.Errorf("%s: no such deployment, or no such file in the image", c[0])
		}
	}
	if len(commands) == 0 {
		t.Error("the README does not say how to act on the daemon")
	}
	if bytes.Contains([]byte(readme), []byte("--from-literal")) {
		t.Error("a literal secret would end up in the shell's history")
	}
}
