package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"rotatord/test/program/kube"
)

// cluster is a real API server. No controller runs in it: what is applied is admitted and kept, no more.
type cluster struct{ *kube.Server }

// resources are the paths of the kinds that are shipped.
var resources = map[string]string{
	"Namespace": "", "ServiceAccount": "serviceaccounts", "ConfigMap": "configmaps", "PersistentVolumeClaim": "persistentvolumeclaims",
	"Service": "services", "Deployment": "deployments", "StatefulSet": "statefulsets", "NetworkPolicy": "networkpolicies", "PodDisruptionBudget": "poddisruptionbudgets",
	"Role": "roles", "RoleBinding": "rolebindings", "Job": "jobs", "PodMonitor": "podmonitors", "Secret": "secrets", "Pod": "pods",
}

func pathOf(t *testing.T, o *unstructured.Unstructured) string {
	t.Helper()
	resource, known := resources[o.GetKind()]
	if !known {
		t.Fatalf("no path for the kind %s", o.GetKind())
	}
	prefix := "/apis/" + o.GetAPIVersion()
	if o.GetAPIVersion() == "v1" {
		prefix = "/api/v1"
	}
	if resource == "" {
		return prefix + "/namespaces/" + o.GetName()
	}
	return fmt.Sprintf("%s/namespaces/%s/%s/%s", prefix, o.GetNamespace(), resource, o.GetName())
}

// apply applies an object by server-side apply, as `kubectl apply --server-side` does with strict validation. It
// returns the object as it is kept.
func (c cluster) apply(t *testing.T, o *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	t.Helper()
	body, err := o.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return c.send(t, c.AdminToken, http.MethodPatch, pathOf(t, o)+"?fieldManager=kubectl&fieldValidation=Strict", "application/apply-patch+yaml", string(body))
}

// send returns the object of the answer, or what the API server refuses.
func (c cluster) send(t *testing.T, token, method, path, contentType, body string) (*unstructured.Unstructured, error) {
	t.Helper()
	status, answer, err := c.Do(t.Context(), token, method, path, contentType, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if status/100 != 2 {
		return nil, &refusal{status, string(answer)}
	}
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(answer, &o.Object); err != nil {
		t.Fatal(err)
	}
	return o, nil
}

type refusal struct {
	status int
	answer string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.status, r.answer) }

// refused is the status of a refusal; 0 if nothing was refused.
func refused(err error) int {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status
	}
	return 0
}

// podMonitors is as much of the operator's definition as the API server needs.
const podMonitors = `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "podmonitors.monitoring.coreos.com"},
"spec": {"group": "monitoring.coreos.com", "scope": "Namespaced", "names": {"kind": "PodMonitor", "plural": "podmonitors", "singular": "podmonitor"},
"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}}`

func startCluster(t *testing.T) cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and starts an API server")
	}
	c := cluster{kube.Start(t)}
	if _, err := c.send(t, c.AdminToken, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "application/json", podMonitors); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if status, _, err := c.Do(t.Context(), c.AdminToken, http.MethodGet, "/apis/monitoring.coreos.com/v1/podmonitors", "", nil); err == nil && status == http.StatusOK {
			return c
		} else if time.Now().After(end) {
			t.Fatalf("PodMonitors are not served: %d, %v", status, err)
		}
	}
}

// moved puts objects into namespaces of their own, so that several kinds of a deployment fit into one cluster.
func moved(objects []*unstructured.Unstructured, suffix string) {
	for _, o := range objects {
		if o.GetKind() == "Namespace" {
			o.SetName(o.GetName() + suffix)
		} else {
			o.SetNamespace(o.GetNamespace() + suffix)
		}
		if subjects, found, _ := unstructured.NestedSlice(o.Object, "subjects"); found {
			for _, s := range subjects {
				subject := s.(map[string]any)
				subject["namespace"] = subject["namespace"].(string) + suffix
			}
			_ = unstructured.SetNestedSlice(o.Object, subjects, "subjects")
		}
	}
}

// deployment is what one kustomization or chart gives, in namespaces of its own.
type deployment struct {
	name, namespace string
	foreign         []string // namespaces that belong to others
	objects         []*unstructured.Unstructured
}

// deployments are all kustomizations, and the chart with the same values.
func deployments(t *testing.T) []deployment {
	t.Helper()
	namespace, err := objectsOf([]byte(readFile(t, "deploy/kubernetes/base/namespace.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	var all []deployment
	for i, name := range builds {
		built := kustomized(t, name)
		// As the README of the chart says: the namespace first.
		rendered := slices.Concat([]*unstructured.Unstructured{namespace[0].DeepCopy()}, mustRender(t, valuesFor(t, name)))
		for by, objects := range map[string][]*unstructured.Unstructured{"kustomize": built, "helm": rendered} {
			suffix := fmt.Sprintf("-%s-%d", by, i)
			moved(objects, suffix)
			all = append(all, deployment{by + " " + name, "rotatord" + suffix, foreignNamespaces(objects), objects})
		}
	}
	return all
}

// pod is a pod that the controller of the Deployment or StatefulSet would create: the first one, or another one
// of the StatefulSet.
func (d deployment) pod(t *testing.T, ordinal int) *unstructured.Unstructured {
	t.Helper()
	for _, o := range d.objects {
		if o.GetKind() != "Deployment" && o.GetKind() != "StatefulSet" {
			continue
		}
		template, _, _ := unstructured.NestedMap(o.Object, "spec", "template")
		pod := &unstructured.Unstructured{Object: template}
		pod.SetAPIVersion("v1")
		pod.SetKind("Pod")
		pod.SetName(fmt.Sprintf("%s-%d", o.GetName(), ordinal))
		pod.SetNamespace(d.namespace)
		if o.GetKind() == "StatefulSet" {
			d.ofSet(t, o, pod, ordinal)
		}
		return pod
	}
	t.Fatalf("%s has no Deployment and no StatefulSet", d.name)
	return nil
}

// ofSet gives a pod what the controller of a StatefulSet gives it: a host name, and its volumes.
func (d deployment) ofSet(t *testing.T, set, pod *unstructured.Unstructured, ordinal int) {
	t.Helper()
	subdomain, _, _ := unstructured.NestedString(set.Object, "spec", "serviceName")
	_ = unstructured.SetNestedField(pod.Object, pod.GetName(), "spec", "hostname")
	_ = unstructured.SetNestedField(pod.Object, subdomain, "spec", "subdomain")
	volumes, _, _ := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	templates, _, _ := unstructured.NestedSlice(set.Object, "spec", "volumeClaimTemplates")
	for _, template := range templates {
		name, _, _ := unstructured.NestedString(template.(map[string]any), "metadata", "name")
		volume, err := runtime.DefaultUnstructuredConverter.ToUnstructured(new(claimVolume(name, claimOf(name, set.GetName(), ordinal))))
		if err != nil {
			t.Fatal(err)
		}
		volumes = append(volumes, volume)
	}
	if err := unstructured.SetNestedSlice(pod.Object, volumes, "spec", "volumes"); err != nil {
		t.Fatal(err)
	}
}

// claimOf is the name of a replica's claim, by the name of its template.
func claimOf(template, set string, ordinal int) string {
	return fmt.Sprintf("%s-%s-%d", template, set, ordinal)
}

func claimVolume(name, claim string) corev1.Volume {
	source := corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}
	return corev1.Volume{Name: name, VolumeSource: source}
}

// foreignNamespaces are the namespaces in which objects are, except that of the deployment itself.
func foreignNamespaces(objects []*unstructured.Unstructured) []string {
	names := map[string]bool{}
	for _, o := range objects {
		if n := o.GetNamespace(); n != "" && !strings.HasPrefix(n, "rotatord-") {
			names[n] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// TestClusterApply applies everything that is shipped to a real API server: strictly, under the restricted Pod
// Security Standard, and twice, where the second time changes nothing. A pod of the template is admitted.
func TestClusterApply(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	for _, d := range deployments(t) {
		t.Run(d.name, func(t *testing.T) {
			first := c.applyAll(t, d)
			for id, second := range c.applyAll(t, d) {
				if second != first[id] {
					t.Errorf("%s: applying it again has changed it:\n%s", id, firstDifference(second, first[id]))
				}
			}
			pod := d.pod(t, 0)
			body, err := pod.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			pods := "/api/v1/namespaces/" + d.namespace + "/pods?fieldValidation=Strict"
			if _, err := c.send(t, c.AdminToken, http.MethodPost, pods, "application/json", string(body)); err != nil {
				t.Errorf("the pod is not admitted: %v", err)
			}
			// The namespace does enforce the standard: one field less, and the pod is refused.
			pod.SetName("other")
			unstructured.RemoveNestedField(pod.Object, "spec", "securityContext", "seccompProfile")
			if body, err = pod.MarshalJSON(); err != nil {
				t.Fatal(err)
			}
			_, err = c.send(t, c.AdminToken, http.MethodPost, pods, "application/json", string(body))
			if refused(err) != http.StatusForbidden || !strings.Contains(err.Error(), "violates PodSecurity") {
				t.Errorf("a pod without a seccomp profile: %v", err)
			}
		})
	}
	unknown, err := objectsOf([]byte("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: default}\nautomountServiceAccountTokens: false\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.apply(t, unknown[0]); err == nil {
		t.Error("an unknown field is accepted: this test shows nothing")
	}
}

// applyAll applies the objects of a deployment, and returns what is kept, by identity.
func (c cluster) applyAll(t *testing.T, d deployment) map[string]string {
	t.Helper()
	for _, name := range d.foreign { // those are there already, in a cluster
		_, err := c.send(t, c.AdminToken, http.MethodPost, "/api/v1/namespaces", "application/json", `{"metadata": {"name": "`+name+`"}}`)
		if err != nil && refused(err) != http.StatusConflict {
			t.Fatal(err)
		}
	}
	kept := make([]*unstructured.Unstructured, len(d.objects))
	for i, o := range d.objects {
		var err error
		if kept[i], err = c.apply(t, o); err != nil {
			t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
		kept[i].SetResourceVersion("") // a claim gets another one at each apply, with the same content
	}
	return byIdentity(t, kept)
}

// TestClusterRights: what the pod's service account may do, asked with its own tokens.
func TestClusterRights(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	for _, d := range deployments(t) {
		sink := strings.HasSuffix(d.name, "secret-sink")
		if !sink && !strings.HasSuffix(d.name, " base") {
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			ci := strings.Replace(d.namespace, "rotatord", "ci", 1)
			d.foreign = []string{ci}
			c.applyAll(t, d)
			secrets := "/api/v1/namespaces/" + ci + "/secrets"
			for _, name := range []string{"cf-access", "other"} {
				if _, err := c.send(t, c.AdminToken, http.MethodPost, secrets, "application/json", `{"metadata": {"name": "`+name+`"}}`); err != nil {
					t.Fatal(err)
				}
			}
			token := c.Token(t, d.namespace, "rotatord", time.Hour)
			apply := func(name string) (method, path, contentType, body string) {
				return http.MethodPatch, secrets + "/" + name + "?fieldManager=rotatord", "application/apply-patch+yaml",
					`{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "` + name + `", "namespace": "` + ci + `"}, "data": {"client_secret": "bWFkZS11cA=="}}`
			}
			allowed := map[bool]int{true: 0, false: http.StatusForbidden}[sink]
			for what, r := range map[string]struct {
				want                            int
				method, path, contentType, body string
			}{
				"get its Secret":              {allowed, http.MethodGet, secrets + "/cf-access", "", ""},
				"list Secrets":                {http.StatusForbidden, http.MethodGet, secrets, "", ""},
				"list its Secret":             {http.StatusForbidden, http.MethodGet, secrets + "?fieldSelector=metadata.name%3Dother", "", ""},
				"watch Secrets":               {http.StatusForbidden, http.MethodGet, secrets + "?watch=true", "", ""},
				"get another Secret":          {http.StatusForbidden, http.MethodGet, secrets + "/other", "", ""},
				"create a Secret":             {http.StatusForbidden, http.MethodPost, secrets, "application/json", `{"metadata": {"name": "new"}}`},
				"create its Secret":           {http.StatusForbidden, http.MethodPost, secrets, "application/json", `{"metadata": {"name": "cf-access"}}`},
				"update its Secret":           {http.StatusForbidden, http.MethodPut, secrets + "/cf-access", "application/json", `{"metadata": {"name": "cf-access"}}`},
				"delete its Secret":           {http.StatusForbidden, http.MethodDelete, secrets + "/cf-access", "", ""},
				"delete all Secrets":          {http.StatusForbidden, http.MethodDelete, secrets, "", ""},
				"Secrets of its namespace":    {http.StatusForbidden, http.MethodGet, "/api/v1/namespaces/" + d.namespace + "/secrets/cf-access", "", ""},
				"Secrets of other namespaces": {http.StatusForbidden, http.MethodGet, "/api/v1/namespaces/kube-system/secrets", "", ""},
				"pods":                        {http.StatusForbidden, http.MethodGet, "/api/v1/namespaces/" + d.namespace + "/pods", "", ""},
				"tokens of its own":           {http.StatusForbidden, http.MethodPost, "/api/v1/namespaces/" + d.namespace + "/serviceaccounts/rotatord/token", "application/json", `{"spec": {"audiences": ["x"]}}`},
			} {
				if _, err := c.send(t, token, r.method, r.path, r.contentType, r.body); refused(err) != r.want || (err != nil) != (r.want != 0) {
					t.Errorf("%s: %v, want status %d", what, err, r.want)
				}
			}
			for name, want := range map[string]int{"cf-access": allowed, "other": http.StatusForbidden, "new": http.StatusForbidden} {
				method, path, contentType, body := apply(name)
				if _, err := c.send(t, token, method, path, contentType, body); refused(err) != want {
					t.Errorf("apply %s: %v, want status %d", name, err, want)
				}
			}
			// A Secret that the Role names and that does not exist: to apply it would be to create it.
			if _, err := c.send(t, c.AdminToken, http.MethodDelete, secrets+"/cf-access", "", ""); err != nil {
				t.Fatal(err)
			}
			method, path, contentType, body := apply("cf-access")
			if _, err := c.send(t, token, method, path, contentType, body); refused(err) != http.StatusForbidden {
				t.Errorf("it can create its Secret: %v", err)
			}
			c.rules(t, token, ci, sink)
			if sink {
				c.mayCreate(t, d, token, apply)
			}
			// The token that the pod shows to Vault opens nothing here.
			if _, err := c.send(t, c.Token(t, d.namespace, "rotatord", time.Hour, "vault"), http.MethodGet, secrets+"/cf-access", "", ""); refused(err) != http.StatusUnauthorized {
				t.Errorf("the token for Vault is accepted by the API server: %v", err)
			}
		})
	}
}

// mayCreate: with the verb create, as the guide offers it, the service account can create the Secret that the Role
// names, by server-side apply, and no other.
func (c cluster) mayCreate(t *testing.T, d deployment, token string, apply func(string) (method, path, contentType, body string)) {
	t.Helper()
	i := slices.IndexFunc(d.objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == "Role" })
	role := d.objects[i].DeepCopy()
	rules, _, _ := unstructured.NestedSlice(role.Object, "rules")
	rules[0].(map[string]any)["verbs"] = []any{"get", "patch", "create"}
	_ = unstructured.SetNestedSlice(role.Object, rules, "rules")
	if _, err := c.apply(t, role); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"cf-access": 0, "new": http.StatusForbidden} {
		method, path, contentType, body := apply(name)
		if _, err := c.send(t, token, method, path, contentType, body); refused(err) != want {
			t.Errorf("with the verb create, apply %s: %v, want status %d", name, err, want)
		}
	}
}

// rules compares all rules that a token has in a namespace, beside those of every account, with the Role.
func (c cluster) rules(t *testing.T, token, namespace string, sink bool) {
	t.Helper()
	review, err := c.send(t, token, http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "application/json",
		`{"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "`+namespace+`"}}`)
	if err != nil {
		t.Fatal(err)
	}
	rules, _, _ := unstructured.NestedSlice(review.Object, "status", "resourceRules")
	var own []string
	for _, rule := range rules {
		text, err := json.Marshal(rule)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), `"authorization.k8s.io"`) && !strings.Contains(string(text), `"authentication.k8s.io"`) { // about itself
			own = append(own, string(text))
		}
	}
	want := []string(nil)
	if sink {
		want = []string{`{"apiGroups":[""],"resourceNames":["cf-access"],"resources":["secrets"],"verbs":["get","patch"]}`}
	}
	if !slices.Equal(own, want) {
		t.Errorf("the rights in %s are %q, want %q", namespace, own, want)
	}
}
