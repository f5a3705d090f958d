package realkube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/secret"
)

// call is one request. {rv} and {uid} in its body are those of the last Secret that was answered.
type call struct {
	what, method, path, body string
	mayCreate                bool // as the user who may also create; otherwise as an administrator
	mayNotCreate             bool // as the user who may only get and patch
}

const secrets = "/api/v1/namespaces/ci/secrets"

func post(manager, name, rest string) call {
	return call{what: "create " + name, method: http.MethodPost, path: secrets + "?fieldManager=" + manager, body: fmt.Sprintf(`{"metadata":{"name":%q}%s}`, name, rest)}
}

func put(manager, name, metadata, rest string) call {
	return call{what: "replace " + name, method: http.MethodPut, path: secrets + "/" + name + "?fieldManager=" + manager,
		body: fmt.Sprintf(`{"metadata":{"name":%q%s}%s}`, name, metadata, rest)}
}

func apply(query, name, metadata, rest string) call {
	return call{what: "apply " + name + " " + query + " " + metadata + rest, method: http.MethodPatch, path: secrets + "/" + name + "?" + query,
		body: fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q%s}%s}`, name, metadata, rest)}
}

func get(name string) call {
	return call{what: "get " + name, method: http.MethodGet, path: secrets + "/" + name}
}

func (c call) by(create bool) call { c.mayCreate, c.mayNotCreate = create, !create; return c }

// data is the data of a Secret.
func data(pairs ...string) string {
	all := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		all[pairs[i]] = kubetest.Encoded(pairs[i+1])
	}
	text, _ := json.Marshal(all)
	return `,"data":` + string(text)
}

// script is what the sink, and the programs beside it, do to Secrets.
var script = []call{
	get("none"), get("none").by(false), get("other").by(false),
	apply("fieldManager=rotatord", "none", "", data("a", "1")).by(false),
	apply("fieldManager=rotatord&dryRun=All", "none", "", data("a", "1")).by(false),
	apply("fieldManager=rotatord&dryRun=All", "none", "", data("a", "1")).by(true), get("none"),
	apply("fieldManager=rotatord", "other", "", data("a", "1")).by(true),
	apply("fieldManager=rotatord", "none", `,"uid":"00000000-0000-0000-0000-000000000000"`, data("a", "1")),
	apply("", "none", "", data("a", "1")), apply("fieldManager=rotatord&dryRun=Maybe", "none", "", data("a", "1")),
	// Created by another program, then ours.
	post("kubectl-create", "made", data("id", "x", "secret", "old", "note", "mine")+`,"type":"Opaque"`),
	post("kubectl-create", "made", ""),
	apply("fieldManager=rotatord", "made", "", data("id", "x", "secret", "new")),
	apply("fieldManager=rotatord", "made", "", data("id", "y", "secret", "new")),
	apply("fieldManager=rotatord", "made", "", data("id", "x", "secret", "old")),
	apply("fieldManager=rotatord", "made", "", data("id", "x", "secret", "new")), get("made"),
	apply("fieldManager=rotatord&force=true", "made", `,"uid":"{uid}","resourceVersion":"{rv}"`, data("id", "x", "secret", "new")+`,"type":"Opaque"`),
	apply("fieldManager=rotatord", "made", `,"uid":"{uid}","resourceVersion":"{rv}"`, data("id", "x", "secret", "newer")+`,"type":"Opaque"`),
	apply("fieldManager=rotatord", "made", `,"uid":"{uid}","resourceVersion":"3"`, data("id", "x", "secret", "late")),
	apply("fieldManager=rotatord", "made", `,"uid":"{uid}","resourceVersion":"3"`, data("note", "late")),
	apply("fieldManager=rotatord&dryRun=All", "made", `,"resourceVersion":"3"`, data("id", "x")),
	apply("fieldManager=rotatord", "made", `,"uid":"00000000-0000-0000-0000-000000000000"`, data("id", "x")), get("made"),
	apply("fieldManager=rotatord", "made", "", data("id", "x", "third", "z")), // secret is left out
	apply("fieldManager=rotatord-create", "made", "", `,"type":"Opaque"`), get("made"),
	put("kubectl-edit", "made", "", data("id", "x", "third", "edited")+`,"type":"Opaque"`), get("made"),
	apply("fieldManager=rotatord", "made", "", data("id", "x", "third", "mine")),
	apply("fieldManager=kubectl-edit", "made", "", data("third", "again")),
	put("kubectl-edit", "made", `,"resourceVersion":"3"`, data("id", "x")),
	apply("fieldManager=rotatord", "made", "", `,"type":"example.com/x"`),
	// Its own type, and labels.
	apply("fieldManager=rotatord-create", "typed", "", `,"type":"example.com/x"`),
	apply("fieldManager=rotatord", "typed", `,"labels":{"team":"a","example.com/b":"c"}`, data("id", "x")+`,"type":"example.com/x"`),
	apply("fieldManager=rotatord", "typed", "", data("id", "x")+`,"type":"Opaque"`),
	apply("fieldManager=helm", "typed", `,"labels":{"team":"b"}`, ""),
	apply("fieldManager=helm&force=true", "typed", `,"labels":{"team":"b"}`, ""), get("typed"),
	apply("fieldManager=rotatord", "typed", `,"labels":{"team":"a"}`, data("id", "x")+`,"type":"example.com/x"`),
	apply("fieldManager=helm", "typed", "", ""), get("typed"),
	// Immutable.
	post("kubectl-create", "fixed", data("secret", "old")+`,"type":"Opaque","immutable":true`),
	apply("fieldManager=rotatord&force=true", "fixed", "", data("secret", "new")),
	apply("fieldManager=rotatord&dryRun=All", "fixed", "", data("secret", "old")),
	put("kubectl-edit", "fixed", "", data("secret", "old")+`,"type":"Opaque"`),
	// The record of managers was cleared.
	post("kubectl-create", "cleared", data("secret", "old")+`,"type":"Opaque"`),
	{what: "clear", method: http.MethodPatch, path: secrets + "/cleared", body: `[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]`},
	apply("fieldManager=rotatord", "cleared", "", data("secret", "new")),
	apply("fieldManager=rotatord&force=true", "cleared", "", data("secret", "new")),
	apply("fieldManager=x", "bare", "", ""), put("kubectl-edit", "bare", "", data("secret", "old")+`,"type":"Opaque"`),
	apply("fieldManager=rotatord", "bare", "", data("secret", "new")),
	// The same name, but an update.
	post("rotatord", "own", data("secret", "old")+`,"type":"Opaque"`),
	apply("fieldManager=rotatord", "own", "", data("secret", "new")), apply("fieldManager=rotatord&force=true", "own", "", data("secret", "new")),
	// Being deleted.
	{what: "create ending", method: http.MethodPost, path: secrets + "?fieldManager=x", body: `{"metadata":{"name":"ending","finalizers":["example.com/x"]},"type":"Opaque"}`},
	{what: "delete ending", method: http.MethodDelete, path: secrets + "/ending"},
	apply("fieldManager=rotatord", "ending", "", data("secret", "new")), get("ending"),
	{what: "delete made", method: http.MethodDelete, path: secrets + "/made"}, get("made"),
	// Elsewhere.
	{what: "no such namespace", method: http.MethodPatch, path: "/api/v1/namespaces/none/secrets/x?fieldManager=rotatord", body: `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x"}}`},
	{what: "get in no such namespace", method: http.MethodGet, path: "/api/v1/namespaces/none/secrets/x"},
	apply("fieldManager=rotatord&dryRun=All", "big", "", data("x", strings.Repeat("x", 1<<20))),
	apply("fieldManager=rotatord&dryRun=All", "big", "", data("x", strings.Repeat("x", 1<<20+1))),
	apply("fieldManager=rotatord&dryRun=All", "big", "", data("x", strings.Repeat("x", 3<<20))),
}

// users are the tokens of the administrator, and of who may create Secrets and who may not.
type users struct{ admin, creates, patches string }

// play sends the script and returns what matters of each answer.
func play(t *testing.T, api http.Handler, u users) []string {
	t.Helper()
	var lines []string
	rv, uid := "", ""
	for _, c := range script {
		body := strings.NewReplacer("{rv}", rv, "{uid}", uid).Replace(c.body)
		r := httptest.NewRequest(c.method, c.path, bytes.NewReader([]byte(body)))
		token, kind := u.admin, "application/json"
		switch {
		case c.mayCreate:
			token = u.creates
		case c.mayNotCreate:
			token = u.patches
		}
		if c.method == http.MethodPatch {
			kind = "application/apply-patch+yaml"
			if c.what == "clear" {
				kind = "application/json-patch+json"
			}
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		var a answer
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatalf("%s: %v: %.200s", c.what, err, w.Body)
		}
		if a.Kind == "Secret" && a.Metadata.ResourceVersion != "" {
			rv, uid = a.Metadata.ResourceVersion, a.Metadata.UID
		}
		lines = append(lines, fmt.Sprintf("%.150s -> %d %s", c.what, w.Code, a))
	}
	return lines
}

// answer is a Secret or a Status.
type answer struct {
	Kind     string
	Reason   string
	Message  string
	Type     string
	Data     map[string]string
	Metadata struct {
		UID, ResourceVersion string
		DeletionTimestamp    *string
		Labels               map[string]string
		ManagedFields        []struct {
			Manager, Operation string
			FieldsV1           map[string]any
		}
	}
	Details struct {
		Kind, Name string
		Causes     []struct{ Reason, Message, Field string }
	}
}

// String returns what rotatord looks at.
func (a answer) String() string {
	if a.Kind != "Secret" {
		var causes []string
		for _, c := range a.Details.Causes {
			causes = append(causes, c.Reason+" "+c.Field+" "+c.Message)
		}
		slices.Sort(causes)
		denied := ""
		if _, after, found := strings.Cut(a.Message, " cannot "); found {
			denied = "cannot " + after
		}
		return fmt.Sprintf("%s %s %s %s %q %s", a.Kind, a.Reason, a.Details.Kind, a.Details.Name, causes, denied)
	}
	var managers []string
	for _, m := range a.Metadata.ManagedFields {
		managers = append(managers, fmt.Sprintf("%s %s %q", m.Manager, m.Operation, leaves("", m.FieldsV1)))
	}
	slices.Sort(managers)
	var values []string
	for key, value := range a.Data {
		values = append(values, fmt.Sprintf("%s=%.20s", key, value))
	}
	slices.Sort(values)
	return fmt.Sprintf("Secret %s %q labels %v deleting %t version %t, managed by %q", a.Type, values, a.Metadata.Labels, a.Metadata.DeletionTimestamp != nil,
		a.Metadata.ResourceVersion != "", managers)
}

// leaves returns the fields that a manager owns: keys of data, labels, the type and immutable. A map itself
// belongs to no one, as far as rotatord is concerned.
func leaves(prefix string, fields map[string]any) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		below, _ := fields[name].(map[string]any)
		switch {
		case name == "." || name == "f:finalizers":
		case len(below) == 0 && name != "f:data" && name != "f:labels" && name != "f:metadata":
			all = append(all, prefix+strings.TrimPrefix(name, "f:"))
		default:
			all = append(all, leaves(prefix+strings.TrimPrefix(name, "f:")+".", below)...)
		}
	}
	return all
}

// bound is a service account with rights of its own.
const bound = `apiVersion: v1
kind: ServiceAccount
metadata:
  name: creates
  namespace: rotatord
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: creates
  namespace: ci
rules:
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [none]
  verbs: [get, patch, create]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: creates
  namespace: ci
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: creates}
subjects:
- {kind: ServiceAccount, name: creates, namespace: rotatord}
`

// TestDoubleIsTrue: the double answers as the real API server does. Among other things this shows that RBAC
// can limit create to the names of Secrets, if it is server-side apply that creates them.
func TestDoubleIsTrue(t *testing.T) {
	real := start(t)
	real.Apply(t, bound)
	real.grant(t, "get, patch", "none")
	who := users{real.AdminToken, real.Token(t, "rotatord", "creates", time.Hour), real.token}
	want := play(t, real.api, who)

	double := kubetest.New(secret.New(who.admin))
	double.AddNamespace("ci")
	double.AddUser("creates", secret.New(who.creates), kubetest.Rule{Namespace: "ci", Names: []string{"none"}, Verbs: []string{"get", "patch", "create"}})
	double.AddUser("patches", secret.New(who.patches), kubetest.Rule{Namespace: "ci", Names: []string{"none"}, Verbs: []string{"get", "patch"}})
	for i, got := range play(t, double, who) {
		if got != want[i] {
			t.Errorf("real:   %s\ndouble: %s", want[i], got)
		}
	}
}
