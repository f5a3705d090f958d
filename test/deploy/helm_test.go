package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
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
}

// valuesFor returns the values that give the objects of a kustomization.
func valuesFor(t *testing.T, name string) map[string]any {
	t.Helper()
	values, ok := helmEquivalents[name]
	if !ok {
		t.Fatalf("no values give the same as %s", name)
	}
	values = cloneMap(values)
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
			if len(kustomize) < 7 {
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

// TestHelmRefuses: each bad value gives a message that says where it is, and what to do.
func TestHelmRefuses(t *testing.T) {
	good := readFile(t, "deploy/kubernetes/base/config.yaml")
	replaced := func(old, new string) string {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("the configuration has no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	in := func(name string, value any) map[string]any { return map[string]any{"config": good, name: value} }
	for what, c := range map[string]struct {
		values map[string]any
		want   []string
	}{
		"no configuration":            {map[string]any{}, []string{"config is empty", "--set-file config=config.yaml", "rotatord import --for kubernetes"}},
		"a configuration as a map":    {map[string]any{"config": map[string]any{"listen": "x"}}, []string{"at '/config': got object, want string"}},
		"a configuration that is not": {map[string]any{"config": "a: [\n"}, []string{"config is not valid YAML", "rotatord check"}},
		"a list":                      {map[string]any{"config": "- a\n"}, []string{"config is not valid YAML"}},
		"a section that is not":       {map[string]any{"config": replaced("tokens:\n", "tokens: no\nother:\n")}, []string{"config: tokens is not a mapping", "rotatord check"}},
		"a sink that is not":          {map[string]any{"config": replaced("sinks:\n", "sinks: no\n    other:\n")}, []string{"config: tokens.ci-deploy.sinks is not a list", "rotatord check"}},
		"a name that is not text":     {map[string]any{"config": replaced("- vault:", "- kubernetes: {namespace: on, name: a}\n      - vault:")}, []string{"tokens.ci-deploy.sinks: namespace of a kubernetes sink", "write it in quotes"}},
		"a loopback":                  {map[string]any{"config": replaced("listen: 0.0.0.0:9321", "listen: 127.0.0.1:9321")}, []string{"listen is 127.0.0.1:9321", "write listen: 0.0.0.0:9321"}},
		"the default":                 {map[string]any{"config": replaced("listen: 0.0.0.0:9321\n", "")}, []string{"write listen: 0.0.0.0:9321"}},
		"a state elsewhere":           {map[string]any{"config": replaced("/var/lib/rotatord/state", "/tmp/state")}, []string{`state.dir is "/tmp/state"`, "state: {dir: /var/lib/rotatord/state}"}},
		"the mount itself":            {map[string]any{"config": replaced("/var/lib/rotatord/state", "/var/lib/rotatord")}, []string{"not below the volume"}},
		"a socket elsewhere":          {map[string]any{"config": replaced("/run/rotatord/admin.sock", "/run/admin.sock")}, []string{"admin_socket: /run/rotatord/admin.sock"}},
		"an unknown value":            {in("replicas", 2), []string{"additional properties 'replicas' not allowed"}},
		"an unknown value below":      {in("image", map[string]any{"repo": "x"}), []string{"at '/image': additional properties 'repo' not allowed"}},
		"no repository":               {in("image", map[string]any{"repository": ""}), []string{"at '/image/repository'"}},
		"a tag in the repository":     {in("image", map[string]any{"repository": "a/rotatord:v1"}), []string{"at '/image/repository'", "does not match pattern"}},
		"a short digest":              {in("image", map[string]any{"digest": "sha256:12"}), []string{"at '/image/digest'", "does not match pattern"}},
		"a pull policy":               {in("image", map[string]any{"pullPolicy": "always"}), []string{"value must be one of 'Always', 'IfNotPresent', 'Never'"}},
		"a short token":               {in("vaultToken", map[string]any{"expirationSeconds": 300}), []string{"at '/vaultToken/expirationSeconds': minimum: got 300, want 600"}},
		"no audience":                 {in("vaultToken", map[string]any{"audience": ""}), []string{"at '/vaultToken/audience'"}},
		"shared access":               {in("persistence", map[string]any{"accessMode": "ReadWriteMany"}), []string{"value must be one of 'ReadWriteOncePod', 'ReadWriteOnce'"}},
		"a number as a size":          {in("persistence", map[string]any{"size": 1}), []string{"at '/persistence/size': got number, want string"}},
		"a time with a unit":          {in("shutdownSeconds", "30s"), []string{"at '/shutdownSeconds': got string, want integer"}},
		"another configuration":       {in("extraArgs", []any{"--config=/x"}), []string{"at '/extraArgs/0'"}},
		"a label that is a number":    {in("podLabels", map[string]any{"a": 1}), []string{"at '/podLabels/a': got number, want string"}},
		"a policy switch as text":     {in("networkPolicy", map[string]any{"enabled": "false"}), []string{"at '/networkPolicy/enabled': got string, want boolean"}},
		"the API server's port":       {in("secretSinks", map[string]any{"apiServerPort": 70000}), []string{"maximum: got 70,000, want 65,535"}},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := render(filepath.Join(root, chartDir), c.values)
			if err == nil {
				t.Fatal("it is accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
		})
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
		"no sink in Kubernetes":      {config(), nil, []string{"RoleBinding", "kubernetes.io/serviceaccount", "6443"}},
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

// TestHelmAsDependency: a chart may have this one as a dependency, with a condition and global values. The strict
// schema must not refuse what Helm passes on then.
func TestHelmAsDependency(t *testing.T) {
	parent := t.TempDir()
	if err := os.CopyFS(filepath.Join(parent, "charts", "rotatord"), os.DirFS(filepath.Join(root, chartDir))); err != nil {
		t.Fatal(err)
	}
	const chart = "apiVersion: v2\nname: platform\nversion: 1.0.0\ndependencies:\n  - {name: rotatord, version: 0.0.0-dev, repository: '', condition: rotatord.enabled}\n"
	if err := os.WriteFile(filepath.Join(parent, "Chart.yaml"), []byte(chart), 0o644); err != nil {
		t.Fatal(err)
	}
	objects, err := render(parent, map[string]any{
		"global":   map[string]any{"region": "eu"},
		"rotatord": map[string]any{"enabled": true, "config": readFile(t, "deploy/kubernetes/base/config.yaml")},
	})
	if err != nil || len(objects) != 7 {
		t.Errorf("%d objects: %v", len(objects), err)
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

// value is one value of the chart: its path, its default and what the schema says of it.
type value struct{ path, preset, description string }

// valuesOf walks values.yaml and the schema side by side. Each of them has to have what the other has.
func valuesOf(t *testing.T) []value {
	t.Helper()
	type schema struct {
		Description          string
		Properties           map[string]schema
		AdditionalProperties *any `json:"additionalProperties"`
	}
	var top schema
	if err := json.Unmarshal([]byte(readFile(t, chartDir, "values.schema.json")), &top); err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(readFile(t, chartDir, "values.yaml")), &document); err != nil {
		t.Fatal(err)
	}
	var all []value
	var walk func(at string, node *yaml.Node, s schema)
	walk = func(at string, node *yaml.Node, s schema) {
		if len(s.Properties) == 0 {
			var preset any
			if err := node.Decode(&preset); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(preset)
			if err != nil {
				t.Fatal(err)
			}
			if s.Description == "" {
				t.Errorf("the schema does not describe %s", at)
			}
			all = append(all, value{at, string(text), s.Description})
			return
		}
		if s.AdditionalProperties == nil || *s.AdditionalProperties != false {
			t.Errorf("the schema accepts unknown values in %q", at)
		}
		known := map[string]bool{"global": at == "", "enabled": at == ""} // for charts that depend on this one
		for i := 0; i < len(node.Content); i += 2 {
			key := node.Content[i].Value
			known[key] = true
			below, ok := s.Properties[key]
			if !ok {
				t.Errorf("%s.%s is not in the schema", at, key)
				continue
			}
			walk(strings.TrimPrefix(at+"."+key, "."), node.Content[i+1], below)
		}
		for key := range s.Properties {
			if !known[key] {
				t.Errorf("%s.%s is in the schema and not in values.yaml", at, key)
			}
		}
	}
	walk("", document.Content[0], top)
	return all
}

// TestHelmReadme: the table of values in the chart's README is that of values.yaml and of the schema. The
// failure shows the table that it should have.
func TestHelmReadme(t *testing.T) {
	readme := readFile(t, chartDir, "README.md")
	var table strings.Builder
	for _, v := range valuesOf(t) {
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", v.path, v.preset, v.description)
	}
	if !strings.Contains(readme, "| --- | --- | --- |\n"+table.String()) {
		t.Errorf("the table of values in %s/README.md should be:\n%s", chartDir, table.String())
	}
	// What it says of the chart is what the chart has.
	for _, match := range regexp.MustCompile(`--set(?:-file)? ([a-zA-Z.]+)=`).FindAllStringSubmatch(readme, -1) {
		if !slices.ContainsFunc(valuesOf(t), func(v value) bool { return v.path == match[1] }) {
			t.Errorf("the README sets %s, which does not exist", match[1])
		}
	}
}
