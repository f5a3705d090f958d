package sinktest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/rotation"
)

// Cluster is an API server, real or not, for [Cluster.Harness].
type Cluster struct {
	// Front is before the API server. The sink talks to it.
	Front *kubetest.Front
	// API is the API server itself, and Admin a token that may do everything there.
	API   http.Handler
	Admin string
	// Namespace exists.
	Namespace string
	// Deny takes the right to write from the sink's user.
	Deny func(t *testing.T)
}

// Outside is the field manager of writes that are not the sink's. The sink must be configured to take over
// from it.
const Outside = "outside"

// do sends a request of an administrator.
func (c Cluster) do(t *testing.T, method, path string, body any) (status int, answer map[string]any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, path, bytes.NewReader(text))
	r.Header.Set("Authorization", "Bearer "+c.Admin)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	c.API.ServeHTTP(w, r)
	content, _ := io.ReadAll(w.Body)
	if err := json.Unmarshal(content, &answer); err != nil {
		t.Fatalf("%s %s: HTTP %d, %v: %s", method, path, w.Code, err, content)
	}
	return w.Code, answer
}

// Harness returns the harness of one Secret, which does not exist. withPrevious is the same sink with the
// fields of a previous secret.
func (c Cluster) Harness(name string, sink, withPrevious rotation.Sink) Harness {
	all := "/api/v1/namespaces/" + c.Namespace + "/secrets"
	one := all + "/" + name
	written := c.Front.Writes()
	return Harness{
		Sink: sink,
		Fields: func(t *testing.T) map[string]any {
			status, answer := c.do(t, http.MethodGet, one, nil)
			data, _ := answer["data"].(map[string]any)
			if status != http.StatusOK || len(data) == 0 {
				return nil
			}
			fields := map[string]any{}
			for key, value := range data {
				fields[key] = decoded(t, fmt.Sprint(value))
			}
			return fields
		},
		OutsideWrite: func(t *testing.T, fields map[string]any) {
			data := map[string][]byte{}
			for key, value := range fields {
				text, isText := value.(string)
				if !isText {
					encoded, err := json.Marshal(value)
					if err != nil {
						t.Fatal(err)
					}
					text = string(encoded)
				}
				data[key] = []byte(text)
			}
			object := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name}, "data": data}
			status, answer := c.do(t, http.MethodPut, one+"?fieldManager="+Outside, object)
			if status == http.StatusNotFound {
				status, answer = c.do(t, http.MethodPost, all+"?fieldManager="+Outside, object)
			}
			if status >= 300 {
				t.Fatalf("an outside write: HTTP %d, %v", status, answer["message"])
			}
		},
		Delete: func(t *testing.T) {
			if status, answer := c.do(t, http.MethodDelete, one, nil); status != http.StatusOK {
				t.Fatalf("deleting: HTTP %d, %v", status, answer["message"])
			}
		},
		Versions: func(*testing.T) int { return c.Front.Writes() - written },
		DuringNextWrite: func(_ *testing.T, do func()) {
			c.Front.Inject(kubetest.Fault{Kind: kubetest.Write, Do: do})
		},
		LoseNextAnswer: func(_ *testing.T, carryOut bool) {
			c.Front.Inject(kubetest.Fault{Kind: kubetest.Write, CarryOut: carryOut})
		},
		FailNextAnswer: func(_ *testing.T, carryOut bool) {
			c.Front.Inject(kubetest.Fault{Kind: kubetest.Write, CarryOut: carryOut, Status: http.StatusInternalServerError})
		},
		HoldNextWrite: func(*testing.T) func() {
			held, served := make(chan struct{}), make(chan struct{})
			c.Front.Inject(kubetest.Fault{Kind: kubetest.Write, Do: func() { <-held }, Done: func() { close(served) }})
			return func() { close(held); <-served }
		},
		Deny: c.Deny, DeniedSays: "verbs: [get, patch]",
		FailReads: func(_ *testing.T, n int) {
			c.Front.Inject(kubetest.Fault{Kind: kubetest.Read, Do: func() {}})
			c.Front.Inject(kubetest.Fault{Kind: kubetest.Read, Status: http.StatusInternalServerError, Count: n})
		},
		WithPrevious: func(*testing.T) rotation.Sink { return withPrevious },
	}
}

func decoded(t *testing.T, text string) string {
	t.Helper()
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}
