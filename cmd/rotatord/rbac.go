package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"rotatord/internal/config"
)

const rbacHelp = `Print the Roles and RoleBindings that the Kubernetes sinks and restart hooks of the configuration need, for kubectl apply:

  rotatord rbac --config rotatord.yaml | kubectl apply -f -

There is one of each in each namespace, and it names exactly the Secrets that rotatord writes there and the workloads that
it restarts. The rights are get and patch. So the Secrets must exist: kubectl create secret generic NAME -n NAMESPACE. With --create rotatord may create
them itself, and no others. No network is used.`

func newRBAC() *cobra.Command {
	var configPath, account string
	var create bool
	cmd := &cobra.Command{
		Use:   "rbac",
		Short: "Print the Roles that Kubernetes sinks and restart hooks need",
		Long:  rbacHelp,
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			namespace, name, found := strings.Cut(account, "/")
			if !found || namespace == "" || name == "" || strings.ContainsAny(account, " \n\"'{}:,") {
				return usagef("--service-account: must be NAMESPACE/NAME")
			}
			c, err := loadConfig(configPath, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return printRoles(cmd.OutOrStdout(), c, namespace, name, create)
		},
	}
	configFlag(cmd, &configPath)
	cmd.Flags().StringVar(&account, "service-account", "rotatord/rotatord", "the `account` of the daemon, as NAMESPACE/NAME")
	cmd.Flags().BoolVar(&create, "create", false, "with the right to create these Secrets")
	return cmd
}

// rights are what rotatord needs in one namespace: names of objects.
type rights struct {
	secrets   []string
	workloads map[string][]string // by resource, such as deployments
}

// rightsIn returns what the sinks and hooks of a configuration need, by namespace.
func rightsIn(c *config.Config) map[string]*rights {
	needed := map[string]*rights{}
	in := func(namespace string) *rights {
		if needed[namespace] == nil {
			needed[namespace] = &rights{workloads: map[string][]string{}}
		}
		return needed[namespace]
	}
	for _, t := range c.Tokens {
		for _, s := range t.Sinks {
			if k, ok := s.(*config.KubernetesSink); ok {
				r := in(k.Namespace)
				r.secrets = append(r.secrets, k.Name)
			}
		}
		for _, h := range t.After {
			if restart, ok := h.(*config.RestartHook); ok {
				r, resource := in(restart.Namespace), strings.ToLower(restart.Workload)+"s"
				r.workloads[resource] = append(r.workloads[resource], restart.Name)
			}
		}
	}
	return needed
}

// rules returns the rules of a Role in YAML.
func (r *rights) rules(create bool) string {
	var rules strings.Builder
	rule := func(group, resource, verbs string, names []string) {
		if len(names) == 0 {
			return
		}
		names = slices.Compact(slices.Sorted(slices.Values(names)))
		for i, one := range names {
			names[i] = strconv.Quote(one) // a name may look like a number to YAML
		}
		_, _ = fmt.Fprintf(&rules, "  - apiGroups: [%s]\n    resources: [%s]\n    resourceNames: [%s]\n    verbs: [%s]\n", group, resource, strings.Join(names, ", "), verbs)
	}
	verbs := "get, patch"
	if create {
		verbs = "get, patch, create"
	}
	rule(`""`, "secrets", verbs, r.secrets)
	for _, resource := range slices.Sorted(maps.Keys(r.workloads)) {
		rule("apps", resource, "get, patch", r.workloads[resource])
	}
	return rules.String()
}

func printRoles(w io.Writer, c *config.Config, namespace, name string, create bool) error {
	needed := rightsIn(c)
	if len(needed) == 0 {
		return fmt.Errorf("no sink in %s is a Secret of Kubernetes, and no hook restarts a workload, so no right is needed", c.File)
	}
	for _, in := range slices.Sorted(maps.Keys(needed)) {
		_, err := fmt.Fprintf(w, `---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: rotatord
  namespace: %[1]s
rules:
%[2]s---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: rotatord
  namespace: %[1]s
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: rotatord
subjects:
  - kind: ServiceAccount
    name: %[3]s
    namespace: %[4]s
`, strconv.Quote(in), needed[in].rules(create), strconv.Quote(name), strconv.Quote(namespace))
		if err != nil {
			return err
		}
	}
	return nil
}
