package kube

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"rotatord/test/program"
)

// rbac is where all roles and bindings are.
const rbac = "/apis/rbac.authorization.k8s.io/v1"

// changesRights tells whether a request, if it succeeds, changes what users may do.
func changesRights(method, path string) bool {
	return method != http.MethodGet && strings.HasPrefix(path, rbac+"/")
}

// AwaitRights waits until the API server decides by all roles and bindings that were written or deleted so far. What
// goes through this package does that by itself; it is for those that another program writes.
func (s *Server) AwaitRights(t testing.TB) {
	t.Helper()
	if err := s.awaitRights(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// awaitRights works because the API server reads Roles, RoleBindings, ClusterRoles and ClusterRoleBindings by one watch
// each, and a watch keeps the order: who has the last object of a kind has all before it, and all deletions. So it
// writes one object of each kind, a mark, that allows a new user to see a new name, and waits until that is allowed.
func (s *Server) awaitRights(ctx context.Context) error {
	s.marking.Lock() // there is one mark of each kind
	defer s.marking.Unlock()
	ctx, cancel := context.WithTimeout(ctx, program.Patience)
	defer cancel()
	for _, m := range []struct{ role, binding, path, namespace string }{
		{"Role", "RoleBinding", "/namespaces/kube-system", "kube-system"},
		{"ClusterRole", "ClusterRoleBinding", "", ""}, // with another user: this one is allowed everywhere
	} {
		user := "mark-" + strings.ToLower(rand.Text())
		if err := s.mark(ctx, m.role, m.binding, rbac+m.path, user); err != nil {
			return fmt.Errorf("marking a %s and a %s: %w", m.role, m.binding, err)
		}
		for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
			seen, err := s.sees(ctx, user, m.namespace)
			if seen {
				break
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("the API server does not decide by the last %s and %s, %s after they were written: %w",
					m.role, m.binding, time.Since(began).Round(time.Millisecond), err)
			}
		}
	}
	return nil
}

// markName is the name of all marks and of what they allow to see.
const markName = "mark"

// mark writes a role and its binding, which allow a user to see the mark of his name.
func (s *Server) mark(ctx context.Context, role, binding, base, user string) error {
	const group = "rbac.authorization.k8s.io"
	for _, o := range []struct {
		resource, kind string
		fields         map[string]any
	}{
		{"roles", role, map[string]any{"rules": []any{map[string]any{
			"apiGroups": []string{markName}, "resources": []string{markName}, "resourceNames": []string{user}, "verbs": []string{"see"}}}}},
		{"rolebindings", binding, map[string]any{
			"roleRef":  map[string]any{"apiGroup": group, "kind": role, "name": markName},
			"subjects": []any{map[string]any{"apiGroup": group, "kind": "User", "name": user}}}},
	} {
		resource := o.resource
		if strings.HasPrefix(o.kind, "Cluster") {
			resource = "cluster" + resource
		}
		o.fields["apiVersion"], o.fields["kind"], o.fields["metadata"] = group+"/v1", o.kind, map[string]any{"name": markName}
		body, err := json.Marshal(o.fields)
		if err != nil {
			return err
		}
		path := base + "/" + resource + "/" + markName + "?force=true&fieldManager=" + Manager
		if err := refused(s.send(ctx, s.AdminToken, http.MethodPatch, path, "application/apply-patch+yaml", body)); err != nil {
			return err
		}
	}
	return nil
}

// sees asks whether a user may see the mark of his name; in all namespaces, if the namespace is empty.
func (s *Server) sees(ctx context.Context, user, namespace string) (bool, error) {
	body, err := json.Marshal(map[string]any{"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": map[string]any{
		"user":               user,
		"resourceAttributes": map[string]any{"namespace": namespace, "group": markName, "resource": markName, "name": user, "verb": "see"},
	}})
	if err != nil {
		return false, err
	}
	status, answer, err := s.send(ctx, s.AdminToken, http.MethodPost, "/apis/authorization.k8s.io/v1/subjectaccessreviews", "application/json", body)
	if err := refused(status, answer, err); err != nil {
		return false, err
	}
	var review struct{ Status struct{ Allowed bool } }
	err = json.Unmarshal(answer, &review)
	return review.Status.Allowed, err
}
