package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/secret"
)

// canary stands for a secret of no known format, such as a password.
const canary = "CANARYpassw0rd"

// misplaced are the ways in which a secret gets into a configuration, as the text
// after the key of a field that takes a secret.
var misplaced = []string{
	canary, `"` + canary + `"`, "'" + canary + "'", "|\n      " + canary, ">-\n      " + canary, `"` + canary, "'" + canary,
	"*" + canary, "&" + canary, "&" + canary + " x", "!" + canary, "!" + canary + " x", "!!" + canary + " x", "@" + canary, "%" + canary, "`" + canary,
	"[" + canary, "[" + canary + "]", "{" + canary + "}", "{" + canary + ": x}", "{file: {" + canary + ": x}}", "{file: [" + canary + "]}",
	"{fil: " + canary + "}", "{" + canary, "{env: " + canary + "/}", "{env: " + canary + "}\n      " + canary, "{env: '1" + canary + "'}",
	"{env: *" + canary + "}", `{file: " ` + canary + `"}`, `{file: "` + canary + `\n"}`, "{file: &" + canary + " x}", "{file: !" + canary + " x}",
	"{file: x, env: " + canary + "}", "{file: x, " + canary + ": y}", "{? " + canary + "}", "{<<: " + canary + "}", "{" + canary + ": a, " + canary + ": b}",
	"a: " + canary, canary + ": x", canary + "\t: x", "- " + canary, "\n      - " + canary, "\n      value: " + canary, "\n      " + canary + ": value",
	"x\n\t" + canary, "x\x00" + canary, "\xff" + canary, "\"\\" + canary + "\"", "\"\\x" + canary + "\"", "!<" + canary, "!" + canary + "!x y", "|" + canary, ">9" + canary,
}

// TestSecretNeverEchoed puts a secret at each field that takes one, in each way that
// it gets there, and looks for it in the error.
func TestSecretNeverEchoed(t *testing.T) {
	fields := []string{
		"state:\n  identity: %s\n" + minimal,
		"state:\n  recipients: [%s]\n" + minimal,
		"state:\n  recipients:\n    - %s\n" + minimal,
		"notify:\n  - name: a\n    webhook:\n     url: %s\n" + minimal,
		"notify:\n  - name: a\n    webhook:\n     url: {env: A}\n     secret: %s\n" + minimal,
		"notify:\n  - name: a\n    webhook:\n     url: {env: A}\n     headers:\n       Authorization: %s\n" + minimal,
		"notify:\n  - name: a\n    smtp:\n     server: localhost:25\n     from: a@b.c\n     to: [a@b.c]\n     username: u\n     password: %s\n" + minimal,
		replaced(t, "api_token: {file: /run/cloudflare-token}", "api_token: %s"),
		replaced(t, "api_token: {file: /run/cloudflare-token}", "api_email: a@b.c\n    api_key: %s"),
		replaced(t, "    token: {file: /run/vault-token}", "    token: %s"),
		replaced(t, "    token: {file: /run/vault-token}", "    approle:\n     role_id: {env: A}\n     secret_id: %s"),
		replaced(t, "    token: {file: /run/vault-token}", "    approle:\n     secret_id: {env: A}\n     role_id: %s"),
	}
	for _, field := range fields {
		for _, value := range misplaced {
			text := fmt.Sprintf(field, value)
			_, err := config.Parse("test.yaml", []byte(text))
			if err == nil {
				t.Errorf("accepted:\n%s", text)
			} else if strings.Contains(err.Error(), canary) {
				t.Errorf("%q: the error repeats a secret:\n%v", value, err)
			}
		}
	}
}

// TestClientSecretNeverEchoed puts a client secret where other values are quoted.
func TestClientSecretNeverEchoed(t *testing.T) {
	for _, s := range []string{"cfast_" + strings.Repeat("Ab12", 12), strings.Repeat("0123456789abcdef", 4)} {
		redacted := 0
		for _, text := range []string{
			s + ": 1\n" + minimal, "log: {level: " + s + "}\n" + minimal, "log: {" + s + ": x}\n" + minimal,
			"defaults: {grace: " + s + "}\n" + minimal, "defaults: {time_zone: " + s + "}\n" + minimal,
			"defaults: {schedule: '" + s + "'}\n" + minimal, "defaults: {schedule: '@every " + s + "'}\n" + minimal,
			"defaults: {account: " + s + "}\n" + minimal, "defaults: {catch_up: " + s + "}\n" + minimal,
			replaced(t, "  ci:", "  "+s+":"), replaced(t, "path: access/ci", "path: data/"+s),
			replaced(t, "path: access/ci}", "path: "+s+"}\n      - vault: {mount: secret, path: "+s+"}"),
			replaced(t, "  prod:", "  "+s+"/:"), replaced(t, "/run/cloudflare-token", s), s, "'" + s, "*" + s,
		} {
			_, err := config.Parse("test.yaml", []byte(text))
			if err == nil {
				t.Errorf("accepted:\n%s", text)
				continue
			}
			if strings.Contains(err.Error(), s) {
				t.Errorf("the error repeats a client secret:\n%v", err)
			}
			if strings.Contains(err.Error(), secret.Redacted) {
				redacted++
			}
		}
		if redacted < 8 {
			t.Errorf("only %d messages quoted the value at all, so this test proves little", redacted)
		}
	}
}

func TestSecretSourceRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := config.SecretSource{File: path}
	env := config.SecretSource{Env: "ROTATORD_TEST_SECRET"}

	if _, err := file.Read(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a missing file: %v", err)
	}
	write(" \n\t\n")
	if _, err := file.Read(); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "empty") {
		t.Errorf("a file of white space: %v", err)
	}
	for _, content := range []string{"first", "second\n", "\r\n third with spaces \r\n"} {
		write(content)
		v, err := file.Read()
		if err != nil || v.Reveal() != strings.TrimSpace(content) {
			t.Errorf("Read of a file with %q = %q, %v", content, v.Reveal(), err)
		}
	}
	if _, err := (config.SecretSource{File: dir}).Read(); err == nil {
		t.Error("a directory was read as a secret")
	}

	t.Setenv(env.Env, "")
	if _, err := env.Read(); err == nil || !strings.Contains(err.Error(), env.Env) {
		t.Errorf("an empty variable: %v", err)
	}
	t.Setenv(env.Env, " from the environment\n")
	if v, err := env.Read(); err != nil || v.Reveal() != "from the environment" {
		t.Errorf("Read = %q, %v", v.Reveal(), err)
	}
	if _, err := (config.SecretSource{}).Read(); err == nil {
		t.Error("no source was read as a secret")
	}

	if !(config.SecretSource{}).IsZero() || file.IsZero() || env.IsZero() {
		t.Error("IsZero is wrong")
	}
	for source, want := range map[config.SecretSource]string{
		{}: "none", {File: "/a"}: "file /a", env: "environment variable " + env.Env,
	} {
		if source.String() != want {
			t.Errorf("String() = %q, want %q", source.String(), want)
		}
	}
}

// TestSecretIsOverwritten: a file that is empty for a moment, because another program overwrites it, is
// read again.
func TestSecretIsOverwritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Millisecond)
			_ = os.WriteFile(path, []byte("second"), 0o600)
		}()
		if v, err := (config.SecretSource{File: path}).Read(); err != nil || v.Reveal() != "second" {
			t.Error(err)
		}
	})
}
