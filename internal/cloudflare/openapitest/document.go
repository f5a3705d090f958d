// Package openapitest compares HTTP requests and answers with Cloudflare's own OpenAPI document.
//
// Guarantee: a request or an answer that passes through [Transport] in a test and is not what Cloudflare
// publishes fails that test, whichever side is wrong. It is stricter than the document in one way: fields
// that the document does not name are errors. In requests Cloudflare would ignore them, and in answers a
// simulator must not invent what the real API does not send.
//
// The document comes from the module of Cloudflare's Go SDK, which embeds it in the script that starts its
// mock server. It has 12 MB. Only the paths for service tokens and token verification, with what they refer
// to, are parsed, once in a process. If the document cannot be found, the test fails: a check that silently
// stops is worse than no check.
package openapitest

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"
)

const sdkModule = "github.com/cloudflare/cloudflare-go/v7"

// basePath is the path of the document's only server.
const basePath = "/client/v4"

// wanted are the paths that rotatord uses. All of them must be in the document.
var wanted = []string{
	"/{accounts_or_zones}/{account_or_zone_id}/access/service_tokens",
	"/{accounts_or_zones}/{account_or_zone_id}/access/service_tokens/{service_token_id}",
	"/accounts/{account_id}/access/service_tokens/{service_token_id}/rotate",
	"/accounts/{account_id}/access/service_tokens/{service_token_id}/refresh",
	"/accounts/{account_id}/tokens/verify",
	"/user/tokens/verify",
}

// specification finds the operation of a request.
type specification struct {
	routers.Router
	paths map[string]*openapi3.PathItem
}

// router is created once in a process.
var router = sync.OnceValues(func() (*specification, error) {
	spec, err := embeddedSpec()
	if err != nil {
		return nil, fmt.Errorf("finding Cloudflare's OpenAPI document: %w", err)
	}
	r, err := newRouter(spec)
	if err != nil {
		return nil, fmt.Errorf("reading Cloudflare's OpenAPI document: %w", err)
	}
	return r, nil
})

// embeddedSpec reads the document from the SDK's module folder.
func embeddedSpec() ([]byte, error) {
	var stderr bytes.Buffer
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", sdkModule)
	list.Stderr = &stderr
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m %s: %w: %s", sdkModule, err, stderr.Bytes())
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return nil, fmt.Errorf("module %s is not downloaded: run go mod download", sdkModule)
	}
	script, err := os.ReadFile(filepath.Join(dir, "scripts", "mock"))
	if err != nil {
		return nil, err
	}
	return decodeSpec(script)
}

// decodeSpec unpacks the document from the shell variable that holds it.
func decodeSpec(script []byte) ([]byte, error) {
	_, rest, found := bytes.Cut(script, []byte(`EMBEDDED_SPEC="`))
	encoded, _, closed := bytes.Cut(rest, []byte(`"`))
	if !found || !closed {
		return nil, errors.New("scripts/mock has no EMBEDDED_SPEC any more")
	}
	unzipped, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, bytes.NewReader(encoded)))
	if err != nil {
		return nil, fmt.Errorf("unpacking EMBEDDED_SPEC: %w", err)
	}
	spec, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, fmt.Errorf("unpacking EMBEDDED_SPEC: %w", err)
	}
	return spec, nil
}

// document is the part of an OpenAPI document that is kept, not parsed further.
type document struct {
	OpenAPI    string                                `json:"openapi"`
	Info       json.RawMessage                       `json:"info"`
	Security   json.RawMessage                       `json:"security,omitempty"`
	Paths      map[string]json.RawMessage            `json:"paths"`
	Components map[string]map[string]json.RawMessage `json:"components"`
}

// newRouter cuts the document down, parses the rest and makes it strict.
func newRouter(spec []byte) (*specification, error) {
	small, err := cutDown(spec)
	if err != nil {
		return nil, err
	}
	doc, err := openapi3.NewLoader().LoadFromData(small)
	if err != nil {
		return nil, err
	}
	for _, item := range doc.Paths.Map() {
		for _, operation := range item.Operations() {
			forbidUnknownFields(operation)
		}
	}
	// The document's own examples and the siblings of $ref do not all follow the standard; neither matters
	// here.
	found, err := legacy.NewRouter(doc, openapi3.DisableExamplesValidation(), openapi3.DisableSchemaDefaultsValidation(),
		openapi3.AllowExtraSiblingFields("description", "title", "type", "readOnly", "example", "minLength", "x-stainless-skip"))
	if err != nil {
		return nil, err
	}
	return &specification{found, doc.Paths.Map()}, nil
}

// cutDown keeps the wanted paths and all that they refer to.
func cutDown(spec []byte) ([]byte, error) {
	var whole document
	if err := json.Unmarshal(spec, &whole); err != nil {
		return nil, err
	}
	small := document{
		OpenAPI: whole.OpenAPI, Info: whole.Info, Security: whole.Security,
		Paths:      map[string]json.RawMessage{},
		Components: map[string]map[string]json.RawMessage{"securitySchemes": whole.Components["securitySchemes"]},
	}
	for _, path := range wanted {
		item, ok := whole.Paths[path]
		if !ok {
			return nil, fmt.Errorf("it has no path %s any more", path)
		}
		small.Paths[path] = item
		if err := keepReferences(&small, &whole, item); err != nil {
			return nil, err
		}
	}
	return json.Marshal(small)
}

// keepReferences copies every component that part refers to, however deep.
func keepReferences(small, whole *document, part json.RawMessage) error {
	var tree any
	if err := json.Unmarshal(part, &tree); err != nil {
		return err
	}
	for _, ref := range references(tree, nil) {
		kind, name, ok := strings.Cut(strings.TrimPrefix(ref, "#/components/"), "/")
		component, exists := whole.Components[kind][name]
		if !ok || !exists {
			return fmt.Errorf("it refers to %s, which it does not have", ref)
		}
		if _, kept := small.Components[kind][name]; kept {
			continue
		}
		if small.Components[kind] == nil {
			small.Components[kind] = map[string]json.RawMessage{}
		}
		small.Components[kind][name] = component
		if err := keepReferences(small, whole, component); err != nil {
			return err
		}
	}
	return nil
}

func references(tree any, found []string) []string {
	switch node := tree.(type) {
	case map[string]any:
		if ref, ok := node["$ref"].(string); ok {
			found = append(found, ref)
		}
		for _, child := range node {
			found = references(child, found)
		}
	case []any:
		for _, child := range node {
			found = references(child, found)
		}
	}
	return found
}

// forbidUnknownFields closes every object that an operation receives or answers.
func forbidUnknownFields(operation *openapi3.Operation) {
	if operation.RequestBody != nil {
		closeContent(operation.RequestBody.Value.Content)
	}
	for _, response := range operation.Responses.Map() {
		closeContent(response.Value.Content)
	}
}

func closeContent(content openapi3.Content) {
	for _, media := range content {
		closeObjects(media.Schema)
	}
}

func closeObjects(ref *openapi3.SchemaRef) {
	if ref == nil || ref.Value == nil {
		return
	}
	schema := ref.Value
	if len(schema.Properties) > 0 {
		closed := false
		schema.AdditionalProperties = openapi3.AdditionalProperties{Has: &closed}
	}
	for _, property := range schema.Properties {
		closeObjects(property)
	}
	closeObjects(schema.Items)
}
