package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8syaml "k8s.io/apimachinery/pkg/util/yaml"
)

const chartDir = "deploy/helm/rotatord"

// renderFiles returns what each template of the chart gives for a release and some values.
func renderFiles(chart, release string, values map[string]any) (map[string]string, error) {
	c, err := loader.Load(chart)
	if err != nil {
		return nil, err
	}
	options := common.ReleaseOptions{Name: release, Namespace: "rotatord", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(c, values, options, nil)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// render returns the objects of the chart for some values, as `helm template rotatord --namespace rotatord`.
func render(chart string, values map[string]any) ([]*unstructured.Unstructured, error) {
	files, err := renderFiles(chart, "rotatord", values)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for name, text := range files {
		if path.Ext(name) != ".yaml" {
			continue
		}
		more, err := objectsOf([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", name, err, text)
		}
		objects = append(objects, more...)
	}
	return objects, nil
}

// objectsOf decodes the documents of a YAML file. A duplicate key is an error.
func objectsOf(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	documents := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var document yaml.Node
		if err := documents.Decode(&document); err == io.EOF {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		var strict map[string]any // yaml.Node accepts duplicate keys, a map does not
		if err := document.Decode(&strict); err != nil {
			return nil, err
		}
		if strict == nil {
			continue // only comments
		}
		one, err := yaml.Marshal(&document)
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{}
		if err := k8syaml.Unmarshal(one, &o.Object); err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
}

func mustRender(t *testing.T, values map[string]any) []*unstructured.Unstructured {
	t.Helper()
	objects, err := render(filepath.Join(root, chartDir), values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// helmLabels are what Helm's objects have and those of kustomize have not. Nothing else may differ.
var helmLabels = []string{
	"app.kubernetes.io/instance", // also in selectors: two releases in one namespace are kept apart
	"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart",
}

// helmAnnotations are the same among annotations.
var helmAnnotations = []string{"helm.sh/resource-policy"}

// withoutHelm removes from an object what only Helm writes.
func withoutHelm(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, below := range value {
			m, _ := below.(map[string]any)
			names := map[string][]string{"labels": helmLabels, "matchLabels": helmLabels, "selector": helmLabels, "annotations": helmAnnotations}[key]
			for _, name := range names {
				delete(m, name)
			}
			if key == "annotations" && len(m) == 0 {
				delete(value, key)
			}
			withoutHelm(below)
		}
	case []any:
		for _, below := range value {
			withoutHelm(below)
		}
	}
}

// inOrder sorts volumes and mounts by name: their order has no meaning, and a patch of kustomize puts new
// ones first.
func inOrder(value any) {
	switch value := value.(type) {
	case map[string]any:
		for key, below := range value {
			if list, ok := below.([]any); ok && (key == "volumes" || key == "volumeMounts") {
				slices.SortFunc(list, func(a, b any) int {
					return strings.Compare(a.(map[string]any)["name"].(string), b.(map[string]any)["name"].(string))
				})
			}
			inOrder(below)
		}
	case []any:
		for _, below := range value {
			inOrder(below)
		}
	}
}

// byIdentity are objects as text, by kind, namespace and name.
func byIdentity(t *testing.T, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, o := range objects {
		id := fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
		inOrder(o.Object)
		text, err := json.MarshalIndent(o.Object, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if all[id] != "" {
			t.Errorf("%s is there twice", id)
		}
		all[id] = string(text)
	}
	return all
}

// helmEquivalents are the kustomizations, and the values that give the same objects. In each of them
// config is the config.yaml of the kustomization.
var helmEquivalents = map[string]map[string]any{
	"base":             {"image": map[string]any{"tag": "latest"}},
	"overlays/approle": {"image": map[string]any{"tag": "v0.1.0"}},
	"overlays/example": {
		"image":         map[string]any{"tag": "v0.1.0"},
		"persistence":   map[string]any{"storageClassName": "encrypted"},
		"networkPolicy": map[string]any{"vaultNamespace": "vault"},
	},
	withOptions: {
		"image":         map[string]any{"tag": "v0.1.0"},
		"persistence":   map[string]any{"storageClassName": "encrypted"},
		"networkPolicy": map[string]any{"vaultNamespace": "vault"},
		"podMonitor":    map[string]any{"enabled": true},
	},
	"overlays/secret-sink": {"image": map[string]any{"tag": "v0.1.0"}},
	movesLedger: {
		"image": map[string]any{"tag": "v0.1.0"}, "replicas": 3, "moveLedger": map[string]any{"fromClaim": "rotatord-state"},
		"persistence": map[string]any{"storageClassName": "encrypted"},
	},
	severalReplicas: {
		"image": map[string]any{"tag": "v0.1.0"}, "replicas": 3,
		"persistence": map[string]any{"storageClassName": "encrypted"},
	},
}

// valuesFor returns the values that give the objects of a kustomization.
func valuesFor(t *testing.T, name string) map[string]any {
	t.Helper()
	values, ok := helmEquivalents[name]
	if !ok {
		t.Fatalf("no values give the same as %s", name)
	}
	values = cloneMap(values)
	if name == movesLedger {
		name = severalReplicas
	}
	values["config"] = readFile(t, "deploy/kubernetes", strings.TrimSuffix(name, " with all options"), "config.yaml")
	return values
}

// cloneMap copies a map, because Helm writes into the one that it gets.
func cloneMap(m map[string]any) map[string]any {
	c := map[string]any{}
	for key, value := range m {
		if below, ok := value.(map[string]any); ok {
			value = cloneMap(below)
		}
		c[key] = value
	}
	return c
}

// TestHelmRendersTheSame compares each object of the chart with that of kustomize: name, namespace and
// content are the same, with the hash in the name of the ConfigMap.
func TestHelmRendersTheSame(t *testing.T) {
	for _, name := range builds {
		t.Run(name, func(t *testing.T) {
			rendered := mustRender(t, valuesFor(t, name))
			for _, o := range rendered {
				for _, label := range helmLabels {
					if o.GetLabels()[label] == "" {
						t.Errorf("%s %s has no label %s", o.GetKind(), o.GetName(), label)
					}
				}
				withoutHelm(o.Object)
			}
			var built []*unstructured.Unstructured
			for _, o := range kustomized(t, name) {
				// Helm does not create the namespace of its own release: its README does.
				if o.GetKind() != "Namespace" {
					built = append(built, o)
				}
			}
			chart, kustomize := byIdentity(t, rendered), byIdentity(t, built)
			for id, want := range kustomize {
				if got, ok := chart[id]; !ok {
					t.Errorf("the chart has no %s", id)
				} else if got != want {
					t.Errorf("%s differs:\n%s", id, firstDifference(got, want))
				}
			}
			for id := range chart {
				if _, ok := kustomize[id]; !ok {
					t.Errorf("kustomize has no %s", id)
				}
			}
			if want := map[bool]int{true: 6, false: 7}[name == severalReplicas]; len(kustomize) < want {
				t.Errorf("only %d objects were compared", len(kustomize))
			}
		})
	}
}

// firstDifference shows where two texts begin to differ.
func firstDifference(one, other string) string {
	a, b := strings.Split(one, "\n"), strings.Split(other, "\n")
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	part := func(lines []string) string {
		return strings.Join(lines[max(0, min(i-3, len(lines))):min(i+4, len(lines))], "\n")
	}
	return "one:\n" + part(a) + "\nthe other:\n" + part(b)
}

// TestHelmDifferencesAreSeen: a chart whose objects differ in one field is found.
func TestHelmDifferencesAreSeen(t *testing.T) {
	values := valuesFor(t, "base")
	values["shutdownSeconds"] = 31
	rendered := mustRender(t, values)
	for _, o := range rendered {
		withoutHelm(o.Object)
	}
	chart, kustomize := byIdentity(t, rendered), byIdentity(t, kustomized(t, "base"))
	const id = "Deployment rotatord/rotatord"
	if chart[id] == kustomize[id] {
		t.Error("another shutdown timeout is not seen")
	}
}

func TestHelmLint(t *testing.T) {
	for _, name := range builds {
		result := lint.RunAll(filepath.Join(root, chartDir), valuesFor(t, name), "rotatord")
		for _, m := range result.Messages {
			// An icon is recommended only; none is made for this project.
			if m.Severity > support.InfoSev || !strings.Contains(m.Err.Error(), "icon is recommended") {
				t.Errorf("%s: %s", name, m.Error())
			}
		}
	}
}

// TestHelmFollowsTheConfiguration: what the chart takes from config.yaml.
func TestHelmFollowsTheConfiguration(t *testing.T) {
	base := readFile(t, "deploy/kubernetes/base/config.yaml")
	config := func(pairs ...string) map[string]any {
		t.Helper()
		text := base
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(text, pairs[i]) {
				t.Fatalf("the configuration has no %q", pairs[i])
			}
			text = strings.Replace(text, pairs[i], pairs[i+1], 1)
		}
		return map[string]any{"config": text}
	}
	with := func(values map[string]any, key string, value any) map[string]any {
		values[key] = value
		return values
	}
	const kubernetes = "kubernetes: {role: rotatord, file: /var/run/secrets/rotatord/token}"
	const sink = "      - vault:\n          mount: secret\n          path: access/ci-deploy\n"
	for what, c := range map[string]struct {
		values        map[string]any
		want, without []string
	}{
		"the port":             {config("0.0.0.0:9321", "0.0.0.0:9000"), []string{`"containerPort":9000`, `"port":9000,"protocol":"TCP","targetPort":"metrics"`}, []string{"9321,"}},
		"Vault's port":         {config("example.com:8200", "example.com:8300"), []string{`"port":8300`}, []string{`"port":8200`}},
		"Vault at 443":         {config("example.com:8200", "example.com"), []string{`"port":443`}, []string{`"port":8200`}},
		"Vault's nodes":        {config("example.com:8200\n", "example.com:8200\n  nodes: [https://a:8210, https://b:8210]\n"), []string{`{"port":8200,"protocol":"TCP"},{"port":8210,"protocol":"TCP"}]`}, nil},
		"an agent on a socket": {config("https://vault.example.com:8200", "unix:///run/vault/agent.sock", kubernetes, "agent: {}"), nil, []string{`"port":8200`, "vault-token"}},
		"JWT":                  {config(kubernetes, "jwt: {role: rotatord, file: /var/run/secrets/rotatord/token}"), []string{`"audience":"vault"`}, nil},
		"the default file":     {config(kubernetes, "kubernetes: {role: rotatord}"), []string{`"audience":"vault"`}, nil},
		"AppRole":              {config(kubernetes, "approle: {role_id: {file: /x}, secret_id: {file: /y}}"), nil, []string{"serviceAccountToken"}},
		"Secrets in two namespaces": {config(sink, "      - kubernetes: {namespace: b, name: z}\n      - kubernetes: {namespace: b, name: u}\n      - kubernetes: {namespace: a, name: u}\n"),
			[]string{`"resourceNames":["u","z"]`, `"resourceNames":["u"]`, `"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"`, `"port":6443`}, []string{`"create"`, `"list"`, `"delete"`, `"*"`}},
		"Secrets that it may create": {with(config(sink, "      - kubernetes: {namespace: b, name: z}\n"), "secretSinks", map[string]any{"mayCreate": true}), []string{`"resourceNames":["z"],"resources":["secrets"],"verbs":["get","patch","create"]`}, nil},
		"restart hooks": {config(sink, sink+"    after:\n      - restart: {kind: StatefulSet, namespace: b, name: z}\n      - restart: {kind: Deployment, namespace: b, name: u}\n      - exec: {command: [x]}\n"),
			[]string{`{"apiGroups":["apps"],"resourceNames":["u"],"resources":["deployments"],"verbs":["get","patch"]},{"apiGroups":["apps"],"resourceNames":["z"],"resources":["statefulsets"],"verbs":["get","patch"]}`,
				`"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"`, `"port":6443`}, []string{`["secrets"]`, `"create"`}},
		"a restart hook beside a Secret": {config(sink, sink+"      - kubernetes: {namespace: b, name: z}\n    after:\n      - restart: {kind: Deployment, namespace: b, name: u}\n"),
			[]string{`"resources":["secrets"],"verbs":["get","patch"]},{"apiGroups":["apps"],"resourceNames":["u"]`}, []string{`"create"`}},
		"no sink in Kubernetes": {config(), nil, []string{"RoleBinding", "kubernetes.io/serviceaccount", "6443"}},
	} {
		t.Run(what, func(t *testing.T) {
			objects := mustRender(t, c.values)
			var all strings.Builder
			for _, o := range objects {
				if o.GetKind() == "ConfigMap" {
					continue
				}
				text, err := json.Marshal(o.Object)
				if err != nil {
					t.Fatal(err)
				}
				all.Write(text)
			}
			for _, want := range c.want {
				if !strings.Contains(all.String(), want) {
					t.Errorf("no %s in\n%s", want, all.String())
				}
			}
			for _, without := range c.without {
				if strings.Contains(all.String(), without) {
					t.Errorf("there is %s in\n%s", without, all.String())
				}
			}
		})
	}
}

// TestHelmConfigRollsThePod: another configuration gives the ConfigMap another name, and the pod mounts it.
func TestHelmConfigRollsThePod(t *testing.T) {
	names := map[string]bool{}
	for _, comment := range []string{"", "# <a> & b\n", "# ü\n"} {
		values := valuesFor(t, "base")
		values["config"] = comment + values["config"].(string)
		var name, mounted, text string
		for _, o := range mustRender(t, values) {
			switch o.GetKind() {
			case "ConfigMap":
				name = o.GetName()
				text, _, _ = unstructured.NestedString(o.Object, "data", "config.yaml")
			case "Deployment":
				volumes, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "volumes")
				mounted = volumes[0].(map[string]any)["configMap"].(map[string]any)["name"].(string)
			}
		}
		if name == "" || mounted != name {
			t.Errorf("the pod mounts %s, the ConfigMap is %s", mounted, name)
		}
		if text != values["config"] {
			t.Errorf("the ConfigMap has\n%s", text)
		}
		names[name] = true
	}
	if len(names) != 3 {
		t.Errorf("three configurations have the names %v", names)
	}
}

// TestHelmNames: a release with another name has objects and selectors of its own, so two of them fit into one
// namespace. The notes have the same names.
func TestHelmNames(t *testing.T) {
	files, err := renderFiles(filepath.Join(root, chartDir), "prod", valuesFor(t, "overlays/secret-sink"))
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name, text := range files {
		for _, word := range regexp.MustCompile(`(?m)^ *(?:name|serviceAccountName|claimName): (rotatord\S*|prod\S*)$`).FindAllStringSubmatch(text, -1) {
			if !strings.HasPrefix(word[1], "prod-rotatord") && word[1] != "rotatord" { // the container's name
				t.Errorf("%s names %s", name, word[1])
			}
			seen++
		}
		if selectors := strings.Count(text, "matchLabels:\n"); selectors > 0 && !strings.Contains(text, "app.kubernetes.io/instance: prod") {
			t.Errorf("%s selects the pods of all releases", name)
		}
	}
	if seen < 12 {
		t.Errorf("only %d names were found", seen)
	}
	notes := files["rotatord/templates/NOTES.txt"]
	for _, want := range []string{"--namespace rotatord exec deployment/prod-rotatord -- /usr/local/bin/rotatord doctor", "prod-rotatord-state", "without a registry"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no %q in the notes:\n%s", want, notes)
		}
	}
}
