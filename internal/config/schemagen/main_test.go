package main

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCommittedSchema checks that docs/config.schema.json is what the types and their
// comments say.
func TestCommittedSchema(t *testing.T) {
	want, err := generate("../raw")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("docs/config.schema.json is out of date, run go generate ./internal/config (-want +got):\n%s", diff)
	}
}

// TestGenerateWithoutSource: a schema without descriptions must not be written.
func TestGenerateWithoutSource(t *testing.T) {
	if _, err := generate(t.TempDir() + "/absent"); err == nil {
		t.Error("generate works without the types' source")
	}
}
