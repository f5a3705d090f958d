package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWebConfigFaults: an error names what is wrong with the web configuration and where, and contains no
// password.
func TestWebConfigFaults(t *testing.T) {
	const hash = "$2a$04$1HNQSecWf1CLQCGQA1y1DeSIYDVey8WSpzCFoHWnPew3czCe.1Kxe"
	for text, want := range map[string]string{
		"": "", "basic_auth_users: {ops: '" + hash + "'}\n": "", "\ufeffbasic_auth_users: {ops: '" + hash + "'}\n": "",
		"basic_auth_users:\n  ops: CANARY\n": "FILE:2:8: basic_auth_users: the password of \"ops\" is not a bcrypt hash: " +
			"write what htpasswd -nBC 10 ops prints behind the colon, in quotes",
		"basic_auth_users:\n  ops: [CANARY]\n": "FILE:2:8: basic_auth_users: the password of \"ops\" is not a bcrypt hash: " +
			"write what htpasswd -nBC 10 ops prints behind the colon, in quotes",
		"basic_auth_users:\n\tops: CANARY\n":      "FILE:2:1: not valid YAML: a tab in the indentation: indent with spaces",
		"basic_auth_users:\n  ops: *CANARY\n":     "FILE:2:8: not valid YAML: a value that begins with * is an alias: aliases are not accepted, and text like that needs quotes",
		"basic_auth_users:\n  ops: @CANARY\n":     "FILE:2:8: not valid YAML: YAML reserves @ at the beginning of a value: put quotes around the value",
		"basic_auth_users: CANARY\n":              "FILE: yaml: unmarshal errors: line 1: cannot unmarshal !!str a value into map[string]config.Secret (https",
		"CANARY\n":                                "FILE: yaml: unmarshal errors: line 1: cannot unmarshal !!str a value into web.Config (https",
		"basic_auth: {ops: CANARY}\n":             "FILE: yaml: unmarshal errors: line 1: field basic_auth not found in type web.Config (https",
		"tls_server_config: {cert_file: FILE}\n":  "FILE: missing one of key or key_file (https",
		"tls_server_config: {cert_file: ~/c.pem}": "no such file or directory: there is no directory DIR/~: put the file there",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "web.yaml")
		in := strings.NewReplacer("FILE", path, "DIR", dir)
		if err := os.WriteFile(path, []byte(in.Replace(text)), 0o600); err != nil {
			t.Fatal(err)
		}
		err := validateWebConfig(path)
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), in.Replace(want)) || strings.Contains(err.Error(), "CANARY")) {
			t.Errorf("%q\n got %v\nwant %s", text, err, in.Replace(want))
		}
	}
}
