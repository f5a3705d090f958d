package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"rotatord/internal/outbound"
)

// fieldManager is the field manager of what rotatord writes into workloads.
const fieldManager = "rotatord"

// Workload is a Deployment, a StatefulSet or a DaemonSet.
type Workload struct{ Kind, Namespace, Name string }

// resource is the name of the kind in paths and in Roles.
func (w Workload) resource() string { return strings.ToLower(w.Kind) + "s" }

func (w Workload) path() string {
	return "/apis/apps/v1/namespaces/" + w.Namespace + "/" + w.resource() + "/" + w.Name
}

// String returns the workload as kubectl takes it.
func (w Workload) String() string {
	return strings.ToLower(w.Kind) + "/" + w.Name + " in the namespace " + w.Namespace
}

// Template is what is read of a workload.
type Template struct {
	ResourceVersion string
	Annotations     map[string]string // of the pod template
}

// workloadManifest is the part of a workload that is read.
type workloadManifest struct {
	Kind     string   `json:"kind"`
	Metadata metadata `json:"metadata"`
	Spec     struct {
		Template struct {
			Metadata struct {
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
		} `json:"template"`
	} `json:"spec"`
}

// Template reads a workload.
func (c *Client) Template(ctx context.Context, w Workload) (Template, error) {
	a, err := c.send(ctx, request{operation: "read_workload", method: http.MethodGet, path: w.path()})
	if err != nil {
		return Template{}, err
	}
	return c.template(a, w)
}

func (c *Client) template(a answer, w Workload) (Template, error) {
	if a.status != http.StatusOK {
		if a.status < 400 {
			return Template{}, notKubernetes(a, "to a request for a "+w.Kind)
		}
		return Template{}, explainedWorkload(failed(a, func(text string) string { return text }), w, c.usesToken())
	}
	var m workloadManifest
	switch {
	case outbound.DecodeOne(a.body, &m) != nil:
		return Template{}, notKubernetes(a, "with a body that is not a "+w.Kind+" in JSON")
	case m.Kind != w.Kind || m.Metadata.Name != w.Name || m.Metadata.Namespace != w.Namespace || m.Metadata.ResourceVersion == "":
		return Template{}, notKubernetes(a, "with another object than that "+w.Kind)
	}
	return Template{ResourceVersion: m.Metadata.ResourceVersion, Annotations: m.Spec.Template.Metadata.Annotations}, nil
}

// Annotate sets annotations of the pod template of a workload that has that version. All others stay. If it has another
// version by now, nothing is written: see [Changed].
func (c *Client) Annotate(ctx context.Context, w Workload, version string, annotations map[string]string) error {
	return c.annotate(ctx, w, version, annotations, false)
}

// TryAnnotate has the API server check what Annotate would do, and write nothing.
func (c *Client) TryAnnotate(ctx context.Context, w Workload, version string, annotations map[string]string) error {
	return c.annotate(ctx, w, version, annotations, true)
}

// annotate sends a merge patch. Unlike an apply it never creates the object, and needs no right to.
func (c *Client) annotate(ctx context.Context, w Workload, version string, annotations map[string]string, dry bool) error {
	patch := map[string]any{
		"metadata": map[string]any{"resourceVersion": version},
		"spec":     map[string]any{"template": map[string]any{"metadata": map[string]any{"annotations": annotations}}},
	}
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("the %s: %w", w.Kind, err)
	}
	operation, query := "restart", url.Values{"fieldManager": {fieldManager}, "fieldValidation": {"Strict"}}
	if dry {
		operation = "restart_dry_run"
		query.Set("dryRun", "All")
	}
	a, err := c.send(ctx, request{operation: operation, method: http.MethodPatch, path: w.path(), query: query, kind: "application/merge-patch+json", body: body})
	if err != nil {
		return err
	}
	_, err = c.template(a, w)
	return err
}

// explainedWorkload adds to an error about a workload what an operator can do.
func explainedWorkload(err error, w Workload, hasToken bool) error {
	e, ok := errors.AsType[*StatusError](err)
	if !ok {
		return err
	}
	switch {
	case e.Code == http.StatusUnauthorized:
		e.hint = loginHint(hasToken)
	case e.Code == http.StatusForbidden && strings.Contains(e.Message, "cannot "):
		e.hint = fmt.Sprintf("give %s in the namespace %s a Role with this rule\n  - apiGroups: [apps]\n    resources: [%s]\n    resourceNames: [%s]\n    verbs: [get, patch]",
			denied(e), w.Namespace, w.resource(), w.Name)
	case webhook.MatchString(e.Message):
		e.hint = "an admission policy of the cluster refuses it: ask its owner to let rotatord annotate this pod template"
	case e.Code == http.StatusNotFound:
		e.hint = "there is no " + w.String() + ": correct the hook, or create it"
	}
	return err
}
