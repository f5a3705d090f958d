package kubernetes

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"rotatord/internal/outbound"
	"rotatord/internal/secret"
)

// MaxData is how many bytes the values of a Secret may have together.
const MaxData = 1 << 20

// BeforeFirstApply is the field manager to which the API server gives what was written before managers were
// recorded, or after the record was cleared.
const BeforeFirstApply = "before-first-apply"

// Secret is a Secret as the API server shows it.
type Secret struct {
	UID             string
	ResourceVersion string
	Type            string
	Immutable       bool
	Deleting        bool // it has a deletionTimestamp, and waits for its finalizers
	Labels          map[string]string
	Annotations     map[string]string
	Data            map[string][]byte

	managed []managed
}

// managed says which fields a field manager owns.
type managed struct {
	Manager     string          `json:"manager"`
	Operation   string          `json:"operation"`
	Subresource string          `json:"subresource"`
	FieldsV1    json.RawMessage `json:"fieldsV1"`
}

// manifest is a Secret in JSON.
type manifest struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metadata          `json:"metadata"`
	Type       string            `json:"type,omitempty"`
	Immutable  *bool             `json:"immutable,omitempty"`
	Data       map[string][]byte `json:"data,omitempty"` // in base64, by encoding/json
}

type metadata struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	UID               string            `json:"uid,omitempty"`
	ResourceVersion   string            `json:"resourceVersion,omitempty"`
	DeletionTimestamp *string           `json:"deletionTimestamp,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	ManagedFields     []managed         `json:"managedFields,omitempty"`
}

// Get reads a Secret. It returns nil without an error if the API server says that there is none.
func (c *Client) Get(ctx context.Context, namespace, name string) (*Secret, error) {
	a, err := c.send(ctx, request{operation: "read", method: http.MethodGet, path: pathOf(namespace, name)})
	if err != nil {
		return nil, err
	}
	if a.status == http.StatusOK {
		return secretIn(a, namespace, name, false)
	}
	err = c.failure(a, namespace, name, nil)
	if e, ok := errors.AsType[*StatusError](err); ok && e.Code == http.StatusNotFound && e.Reason == "NotFound" && e.kind == "secrets" && e.name == name {
		return nil, nil
	}
	return nil, err
}

// Application is a server-side apply of a Secret. What the manager has applied before and is not here is
// removed by the API server.
type Application struct {
	Namespace, Name string
	Manager         string
	// Force takes fields from other managers.
	Force bool
	// DryRun has everything checked and nothing written.
	DryRun bool
	// UID and ResourceVersion are those of the Secret that was read. If the Secret is not that one any more, the
	// write is refused: see [Changed]. Both are empty if there was none: then any Secret is accepted.
	UID, ResourceVersion string
	Type                 string
	Labels, Annotations  map[string]string
	Data                 map[string][]byte
	// Operation is its name in metrics.
	Operation string
}

// Apply applies a Secret, and returns it as it is after that. An error that is not [Refused] does not mean that
// nothing was written.
func (c *Client) Apply(ctx context.Context, apply Application) (*Secret, error) {
	body, err := json.Marshal(manifest{
		APIVersion: "v1", Kind: "Secret", Type: apply.Type, Data: apply.Data,
		Metadata: metadata{Name: apply.Name, Namespace: apply.Namespace, UID: apply.UID, ResourceVersion: apply.ResourceVersion,
			Labels: apply.Labels, Annotations: apply.Annotations},
	})
	if err != nil {
		return nil, fmt.Errorf("the Secret: %w", err)
	}
	query := url.Values{"fieldManager": {apply.Manager}, "fieldValidation": {"Strict"}}
	if apply.Force {
		query.Set("force", "true")
	}
	if apply.DryRun {
		query.Set("dryRun", "All")
	}
	a, err := c.send(ctx, request{operation: apply.Operation, method: http.MethodPatch, path: pathOf(apply.Namespace, apply.Name), query: query,
		kind: "application/apply-patch+yaml", body: body})
	switch {
	case err != nil:
		return nil, err
	case a.status == http.StatusOK, a.status == http.StatusCreated:
		return secretIn(a, apply.Namespace, apply.Name, apply.DryRun && apply.ResourceVersion == "")
	}
	return nil, c.failure(a, apply.Namespace, apply.Name, apply.Data)
}

func pathOf(namespace, name string) string {
	return "/api/v1/namespaces/" + namespace + "/secrets/" + name
}

// failure returns the error that an answer is which has no Secret.
func (c *Client) failure(a answer, namespace, name string, sent map[string][]byte) error {
	if a.status < 400 {
		return notKubernetes(a, "to a request for a Secret")
	}
	return explained(failed(a, without(sent)), namespace, name, c.usesToken())
}

// usesToken reports whether the last request had a token.
func (c *Client) usesToken() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current == nil || len(c.current.made.certificate) == 0
}

// shortest is the shortest value that is removed from messages. Shorter ones, such as true, stay.
const shortest = 6

// without returns a function that removes values of a Secret from a text: an admission webhook may have quoted
// them, also as base64.
func without(sent map[string][]byte) func(string) string {
	var all []string
	for _, value := range sent {
		if len(value) >= shortest {
			all = append(all, string(value), base64.StdEncoding.EncodeToString(value))
		}
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return func(text string) string {
		for _, value := range all {
			text = strings.ReplaceAll(text, value, secret.Redacted)
		}
		return text
	}
}

// secretIn decodes an answer, which must be that Secret. A dry run of a creation has no version.
func secretIn(a answer, namespace, name string, dry bool) (*Secret, error) {
	var m manifest
	if err := outbound.DecodeOne(a.body, &m); err != nil {
		return nil, notKubernetes(a, "with a body that is not a Secret in JSON")
	}
	switch {
	case m.Kind != "Secret" || m.APIVersion != "v1":
		return nil, notKubernetes(a, "with another object than a Secret")
	case m.Metadata.Name != name || m.Metadata.Namespace != namespace:
		return nil, notKubernetes(a, "with another Secret")
	case !dry && (m.Metadata.UID == "" || m.Metadata.ResourceVersion == ""):
		return nil, notKubernetes(a, "with a Secret that has no uid or no resourceVersion")
	}
	return &Secret{
		UID: m.Metadata.UID, ResourceVersion: m.Metadata.ResourceVersion, Type: m.Type, Immutable: m.Immutable != nil && *m.Immutable,
		Deleting: m.Metadata.DeletionTimestamp != nil, Labels: m.Metadata.Labels, Annotations: m.Metadata.Annotations, Data: m.Data,
		managed: m.Metadata.ManagedFields,
	}, nil
}

// Size returns how many bytes the values have together.
func (s *Secret) Size() (size int) {
	for _, value := range s.Data {
		size += len(value)
	}
	return size
}

// Owners returns the field managers that a change of a field takes it from, beside those applications of the
// manager itself. path leads to it, as in data, client_secret. The record of managers can be cleared: then all
// belongs to [BeforeFirstApply].
func (s *Secret) Owners(manager string, path ...string) (owners []string) {
	if len(s.managed) == 0 {
		return []string{BeforeFirstApply}
	}
	for _, m := range s.managed {
		if m.Manager == manager && m.Operation == "Apply" && m.Subresource == "" {
			continue
		}
		if m.owns(path) && !slices.Contains(owners, m.Manager) {
			owners = append(owners, m.Manager)
		}
	}
	return owners
}

// Applied returns the names below a field, such as data, that a manager has applied.
func (s *Secret) Applied(manager string, path ...string) (names []string) {
	for _, m := range s.managed {
		if m.Manager != manager || m.Operation != "Apply" || m.Subresource != "" {
			continue
		}
		for name := range m.below(path) {
			if name, ok := strings.CutPrefix(name, "f:"); ok {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// below returns what a manager owns below a path.
func (m managed) below(path []string) map[string]json.RawMessage {
	fields := map[string]json.RawMessage{}
	if json.Unmarshal(m.FieldsV1, &fields) != nil {
		return nil
	}
	for _, name := range path {
		raw, owned := fields["f:"+name]
		fields = map[string]json.RawMessage{}
		if !owned || json.Unmarshal(raw, &fields) != nil {
			return nil
		}
	}
	return fields
}

func (m managed) owns(path []string) bool {
	last := len(path) - 1
	_, owned := m.below(path[:last])["f:"+path[last]]
	return owned
}

// Older reports whether a version of a Secret comes before another one. Versions of the API server are
// numbers that grow; others cannot be compared, and are not older.
func Older(version, than string) bool {
	a, err1 := strconv.ParseUint(version, 10, 64)
	b, err2 := strconv.ParseUint(than, 10, 64)
	return err1 == nil && err2 == nil && a < b
}
