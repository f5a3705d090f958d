package main

import (
	"strings"
	"testing"

	"rotatord/internal/config"
)

// TestRoles: a Role has exactly the Secrets of sinks and the workloads of restart hooks, each once.
func TestRoles(t *testing.T) {
	restart := func(kind, namespace, name string) config.Hook {
		return &config.RestartHook{Workload: kind, Namespace: namespace, Name: name}
	}
	c := &config.Config{File: "rotatord.yaml", Tokens: []config.Token{
		{Sinks: []config.Sink{&config.KubernetesSink{Namespace: "ci", Name: "cf"}}, After: []config.Hook{restart("Deployment", "ci", "app"), restart("StatefulSet", "db", "app"), &config.ExecHook{Command: []string{"x"}}}},
		{After: []config.Hook{restart("Deployment", "ci", "app"), restart("Deployment", "ci", "app-2"), restart("DaemonSet", "db", "1")}},
	}}
	var out strings.Builder
	if err := printRoles(&out, c, "rotatord", "rotatord", true); err != nil {
		t.Fatal(err)
	}
	for _, rules := range []string{`  namespace: "ci"
rules:
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: ["cf"]
    verbs: [get, patch, create]
  - apiGroups: [apps]
    resources: [deployments]
    resourceNames: ["app", "app-2"]
    verbs: [get, patch]
---
`, `  namespace: "db"
rules:
  - apiGroups: [apps]
    resources: [daemonsets]
    resourceNames: ["1"]
    verbs: [get, patch]
  - apiGroups: [apps]
    resources: [statefulsets]
    resourceNames: ["app"]
    verbs: [get, patch]
---
`} {
		if !strings.Contains(out.String(), rules) {
			t.Errorf("no\n%s\nin\n%s", rules, out.String())
		}
	}
	if err := printRoles(&out, &config.Config{File: "rotatord.yaml"}, "rotatord", "rotatord", false); err == nil || !strings.Contains(err.Error(), "no hook restarts a workload") {
		t.Errorf("%v", err)
	}
}
