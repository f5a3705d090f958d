package vaulttest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rotatord/internal/vault/vaulttest"
)

func TestIsProbe(t *testing.T) {
	for name, test := range map[string]struct {
		method, body string
		want         bool
	}{
		"a probe":            {http.MethodPut, `{"data":{},"options":{"cas":-1}}`, true},
		"a first version":    {http.MethodPut, `{"data":{"a":"b"},"options":{"cas":0}}`, false},
		"a later version":    {http.MethodPost, `{"data":{"a":"b"},"options":{"cas":12}}`, false},
		"without a version":  {http.MethodPut, `{"data":{"a":"b"}}`, false},
		"KV version 1":       {http.MethodPut, `{"cas":-1}`, false},
		"not JSON":           {http.MethodPut, `cas=-1`, false},
		"a read":             {http.MethodGet, `{"options":{"cas":-1}}`, false},
		"a write of nothing": {http.MethodPut, ``, false},
	} {
		r := httptest.NewRequest(test.method, "/v1/secret/data/ci", strings.NewReader(test.body))
		if got := vaulttest.IsProbe(r); got != test.want {
			t.Errorf("%s: %t, want %t", name, got, test.want)
		}
		if left, err := io.ReadAll(r.Body); err != nil || string(left) != test.body {
			t.Errorf("%s: afterwards the body is %q, %v", name, left, err)
		}
	}
}
