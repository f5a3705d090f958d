package config_test

import (
	"strings"
	"testing"

	"rotatord/internal/config"
)

// TestAuditAndAdminRules: each value that cannot work is refused with its place and what would be right.
func TestAuditAndAdminRules(t *testing.T) {
	for _, c := range []struct{ section, want string }{
		{"audit: {file: audit.jsonl}", "audit.file: must be an absolute path"},
		{"audit: {file: /var/log/}", "audit.file: is a directory"},
		{"audit: {file: /var/lib/rotatord/audit.jsonl}", "audit.file: is among the files of state.dir"},
		{"admin_socket: /run/x/admin.sock\naudit: {file: /run/x/admin.sock}", "audit.file: is also admin_socket"},
		{"audit: {max_size: 64MB}", "audit.max_size: \"64MB\" is not a size: write 64MiB"},
		{"audit: {max_size: 1KiB}", "audit.max_size: must be 1MiB to 1GiB"},
		{"audit: {max_age: 10m}", "audit.max_age: must be at least 1h"},
		{"audit: {keep: 0}", "audit.keep: must be 1 to 10000"},
		{"admin: {allow: [{verbs: [all]}]}", "admin.allow[0]: needs user or group"},
		{"admin: {allow: [{user: a, group: b, verbs: [all]}]}", "admin.allow[0]: has both user and group"},
		{"admin: {allow: [{user: a b, verbs: [all]}]}", "admin.allow[0].user: is not the name"},
		{"admin: {allow: [{user: a, verbs: [rotat]}]}", "did you mean rotate?"},
		{"admin: {allow: [{user: a, verbs: [all, all]}]}", "is in the list twice"},
	} {
		_, err := config.Parse("x.yaml", []byte(c.section+"\n"+minimal))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%s: %v, want %q", c.section, err, c.want)
		}
	}
}
