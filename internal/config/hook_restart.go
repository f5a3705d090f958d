package config

import (
	"slices"
	"strings"

	"rotatord/internal/config/raw"
)

// RestartHook is a rollout restart of a workload in Kubernetes. It implements [Hook].
type RestartHook struct {
	Workload        string // Deployment, StatefulSet or DaemonSet
	Namespace, Name string
	HookTimes
}

// workloads are the kinds of objects that can be restarted.
var workloads = []string{"Deployment", "StatefulSet", "DaemonSet"}

// Kind implements [Hook].
func (*RestartHook) Kind() string { return "restart" }

// Target implements [Hook], as kubectl takes it.
func (r *RestartHook) Target() string {
	return r.Namespace + "/" + strings.ToLower(r.Workload) + "/" + r.Name
}

// NeedsKubernetes implements [Hook].
func (*RestartHook) NeedsKubernetes() bool { return true }

// Document implements [Hook].
func (r *RestartHook) Document() map[string]any {
	return r.addTo(map[string]any{"kind": r.Workload, "namespace": r.Namespace, "name": r.Name})
}

// Dispatch implements [Hook].
func (r *RestartHook) Dispatch(to HookKinds) { to.Restart(r) }

func (*RestartHook) eachSecret(string, func(string, *SecretSource, SecretKind)) {}

func (r *RestartHook) check(c *checker, path string, hook raw.Hook) bool {
	in := hook.Restart
	r.HookTimes = c.hookTimes(path, in.Timeout, in.Batch)
	kind, namespace, name := false, false, false
	if in.Kind != nil {
		r.Workload = c.oneOf(path+".kind", in.Kind, "", workloads...)
		kind = slices.Contains(workloads, r.Workload)
	}
	if in.Namespace != nil {
		r.Namespace = *in.Namespace
		namespace = c.dnsName(path+".namespace", r.Namespace, validNamespace, maxDNSLabel, "a-z, 0-9 and dash")
	}
	if in.Name != nil {
		r.Name = *in.Name
		name = c.dnsName(path+".name", r.Name, validSecretName, maxDNSName, "a-z, 0-9, dash and dot")
	}
	return kind && namespace && name
}
