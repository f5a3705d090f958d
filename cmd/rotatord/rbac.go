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

const rbacHelp = `Print the Roles and RoleBindings that the Kubernetes sinks of the configuration need, for kubectl apply:

  rotatord rbac --config rotatord.yaml | kubectl apply -f -

There is one of each in each namespace, and it names exactly the Secrets that rotatord writes there. The rights are get and
patch. So the Secrets must exist: kubectl create secret generic NAME -n NAMESPACE. With --create rotatord may create
them itself, and no others. No network is used.`

func newRBAC() *cobra.Command {
	var configPath, account string
	var create bool
	cmd := &cobra.Command{
		Use:   "rbac",
		Short: "Print the Roles that Kubernetes sinks need",
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

func printRoles(w io.Writer, c *config.Config, namespace, name string, create bool) error {
	secrets := map[string][]string{} // names by namespace
	for _, t := range c.Tokens {
		for _, s := range t.Sinks {
			if k, ok := s.(*config.KubernetesSink); ok {
				secrets[k.Namespace] = append(secrets[k.Namespace], k.Name)
			}
		}
	}
	if len(secrets) == 0 {
		return fmt.Errorf("no sink in %s is a Secret of Kubernetes, so no right is needed", c.File)
	}
	verbs := "get, patch"
	if create {
		verbs = "get, patch, create"
	}
	for _, in := range slices.Sorted(maps.Keys(secrets)) {
		names := slices.Sorted(slices.Values(secrets[in]))
		for i, one := range names {
			names[i] = strconv.Quote(one) // a name may look like a number to YAML
		}
		_, err := fmt.Fprintf(w, `---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: rotatord
  namespace: %[1]s
rules:
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [%[2]s]
    verbs: [%[3]s]
---
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
    name: %[4]s
    namespace: %[5]s
`, strconv.Quote(in), strings.Join(names, ", "), verbs, strconv.Quote(name), strconv.Quote(namespace))
		if err != nil {
			return err
		}
	}
	return nil
}
