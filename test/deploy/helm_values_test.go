package deploy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

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
		"an unknown value":            {in("replica", 2), []string{"additional properties 'replica' not allowed"}},
		"replicas with no ledger":     {in("replicas", 2), []string{"replicas is 2, but the configuration has no state.shared", "docs/replicas.md"}},
		"no replica":                  {in("replicas", 0), []string{"at '/replicas': minimum: got 0, want 1"}},
		"replicas as text":            {in("replicas", "3"), []string{"at '/replicas': got string, want integer"}},
		"one name for all replicas":   {map[string]any{"replicas": 3, "config": replaced("state:\n", "state:\n  shared: {replica: a, vault: {mount: secret, prefix: rotatord}}\n")}, []string{"config: state.shared.replica would give all pods the same name", "remove it"}},
		"one volume for all replicas": {map[string]any{"config": replaced("state:\n", "state:\n  shared: {vault: {mount: secret, prefix: rotatord}}\n"), "persistence": map[string]any{"existingClaim": "a"}}, []string{"persistence.existingClaim is one volume", "remove it"}},
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
