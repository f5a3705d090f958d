package config_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"rotatord/internal/config"
)

// good are credentials of each kind in every form that is known.
var good = map[config.SecretKind][]string{
	config.AnySecret: {"made-up", "third with spaces", "a=b", "x: y"},
	config.APIToken: {
		"x", "made-up", "cfut_" + strings.Repeat("Ab1", 16), "cfat_" + strings.Repeat("Ab1", 16), strings.Repeat("aB_-9", 8), "token=", "Zm9v==",
	},
	config.GlobalKey:   {"key-1", "cfk_" + strings.Repeat("Ab1", 16), strings.Repeat("0", 37)},
	config.VaultToken:  {"root", strings.Repeat("1f", 32), "hvs.CAESIabc_-DEF", "hvb.AAAA", "s.abcdefghijklmnopqrstuvwx", "s.abcdefghijklmnopqrstuvwx.ns1", "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "b.AAAA"},
	config.RoleID:      {"f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "my role", "rotatord", "a=b", "größe"},
	config.SecretID:    {"f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "a custom one: with = and such", `ends with"`, "{braces}", strings.Repeat("ab", 32)},
	config.AgeIdentity: {identity, "# created: 2026-01-01T00:00:00Z\n# public key: age1x\n" + identity, "\r\n# x\r\n" + identity + "\r\n"},
}

const identity = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ"

// readAs reads content as a file, and as a variable where one can hold it.
func readAs(t *testing.T, kind config.SecretKind, content string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := config.SecretSource{File: path}.ReadAs(t.Context(), kind)
	if strings.Contains(content, "\x00") {
		return v.Reveal(), trimmed(err, "the secret in file "+path+" ")
	}
	t.Setenv("ROTATORD_TEST_KIND", content)
	w, envErr := config.SecretSource{Env: "ROTATORD_TEST_KIND"}.ReadAs(t.Context(), kind)
	err, envErr = trimmed(err, "the secret in file "+path+" "), trimmed(envErr, "the secret in environment variable ROTATORD_TEST_KIND ")
	if v.Reveal() != w.Reveal() || (err == nil) != (envErr == nil) || err != nil && err.Error() != envErr.Error() {
		t.Errorf("%q is %q, %v as a file and %q, %v as a variable", content, v.Reveal(), err, w.Reveal(), envErr)
	}
	return v.Reveal(), err
}

func trimmed(err error, prefix string) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.TrimPrefix(err.Error(), prefix))
}

// TestCredentialIsRead checks what is accepted, and which white space around it is dropped.
func TestCredentialIsRead(t *testing.T) {
	for kind, values := range good {
		for _, value := range values {
			for _, around := range [][2]string{{"", ""}, {"", "\n"}, {"", "\r\n"}, {" \t\n", " \n\n"}, {"\r\n", "\r\n\r\n"}} {
				got, err := readAs(t, kind, around[0]+value+around[1])
				if err != nil || got != strings.TrimSpace(value) {
					t.Errorf("%s, %q: %q, %v", kind, around[0]+value+around[1], got, err)
				}
			}
		}
	}
}

func utf16le(s string, order binary.AppendByteOrder) (out string) {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

// What the messages of many mistakes end with, and a secret that none may repeat.
const save = "save it as plain text (ASCII or UTF-8, without a byte order mark)"

// mistakes are what people put into the place of a credential, and what is said of it.
var mistakes = []struct {
	kind          config.SecretKind
	content, want string
}{
	{config.APIToken, "", "is empty: write the API token there"},
	{config.APIToken, " \r\n\t", "is empty: write the API token there"},
	{config.APIToken, "\ufeff" + canary + "\n", "begins with a byte order mark (BOM): " + save},
	{config.AgeIdentity, "\ufeff" + identity, "begins with a byte order mark (BOM): " + save},
	{config.APIToken, "\xff\xfe" + utf16le(canary+"\r\n", binary.LittleEndian), "is UTF-16, as Windows tools write it: " + save},
	{config.APIToken, "\xfe\xff" + utf16le(canary, binary.BigEndian), "is UTF-16, as Windows tools write it: " + save},
	{config.VaultToken, utf16le(canary+"\n", binary.LittleEndian), "is UTF-16, as Windows tools write it: " + save},
	{config.VaultToken, utf16le(canary+"\n", binary.BigEndian), "is UTF-16, as Windows tools write it: " + save},
	{config.SecretID, canary + "\x00", "has NUL bytes in it: " + save},
	{config.RoleID, canary + "\x00" + canary, "has NUL bytes in it: " + save},
	{config.APIToken, canary + "\xff", "is not text but binary, and may be encrypted or compressed: " + save},
	{config.APIToken, "\x1f\x8b\x08" + canary, "is not text but binary, and may be encrypted or compressed: " + save},

	{config.APIToken, `"` + canary + "\"\n", "has quotes around it: write the API token without them"},
	{config.SecretID, "'" + canary + "'", "has quotes around it: write the secret_id without them"},
	{config.VaultToken, "“" + canary + "”", "has quotes around it: write the Vault token without them"},
	{config.AgeIdentity, `"` + identity + `"`, "has quotes around it: write the age identity without them"},
	{config.APIToken, `"` + canary, "has a quote at one end: write the API token without it"},
	{config.APIToken, canary + "'", "has a quote at one end: write the API token without it"},
	{config.APIToken, `"`, "has a quote at one end: write the API token without it"},
	{config.APIToken, "Bearer " + canary, "begins with a word such as Bearer: write the API token alone, which follows it"},
	{config.VaultToken, "bearer  " + canary, "begins with a word such as Bearer: write the Vault token alone, which follows it"},
	{config.APIToken, "Authorization: Bearer " + canary, "is a whole HTTP header: write the API token alone, what follows the name and the colon (and Bearer)"},
	{config.VaultToken, "X-Vault-Token: " + canary, "is a whole HTTP header: write the Vault token alone, what follows the name and the colon (and Bearer)"},
	{config.APIToken, "CLOUDFLARE_API_TOKEN=" + canary, "has the form NAME=VALUE, as in a shell or an environment file: write the API token alone, what follows the ="},
	{config.APIToken, "export T=" + canary, "has the form NAME=VALUE, as in a shell or an environment file: write the API token alone, what follows the ="},
	{config.APIToken, "$env:CF = '" + canary + "x", "has the form NAME=VALUE, as in a shell or an environment file: write the API token alone, what follows the ="},
	{config.APIToken, "A=1\nCF_TOKEN=" + canary, "has the form NAME=VALUE, as in a shell or an environment file: write the API token alone, what follows the ="},
	{config.SecretID, "secret_id=" + canary, "has the form NAME=VALUE, as in a shell or an environment file: write the secret_id alone, what follows the ="},
	{config.RoleID, "export X=" + canary, "has the form NAME=VALUE, as in a shell or an environment file: write the role_id alone, what follows the ="},
	{config.APIToken, "api_token: " + canary, "has the form NAME: VALUE: write the API token alone"},
	{config.SecretID, "secret_id: " + canary + "\nrole_id: x", "has the form NAME: VALUE: write the secret_id alone"},
	{config.APIToken, "${CF_TOKEN}", "is a placeholder or a variable that nothing has replaced: write the API token itself"},
	{config.VaultToken, "{{ vault_token }}", "is a placeholder or a variable that nothing has replaced: write the Vault token itself"},
	{config.APIToken, "<your-token>", "is a placeholder or a variable that nothing has replaced: write the API token itself"},
	{config.APIToken, "op://vault/" + canary, "is a reference to another place, which rotatord does not follow: write the API token itself"},

	{config.APIToken, `{"token": "` + canary + `"}`, "is JSON: it must hold the API token alone, as jq -r .token prints it"},
	{config.SecretID, `{"data": {"secret_id": "` + canary + `"}, "wrap_info": null}`, "is JSON: it must hold the secret_id alone, as jq -r .data.secret_id prints it"},
	{config.VaultToken, `{"auth": {"client_token": "` + canary + `"}}`, "is JSON: it must hold the Vault token alone, as jq -r .auth.client_token prints it"},
	{config.APIToken, `{"data": {"data": {"token": "` + canary + `"}}}`, "is JSON: it must hold the API token alone, as jq -r .data.data.token prints it"},
	{config.APIToken, `{"` + canary + `": "x"}`, "is JSON: it must hold the API token alone"},
	{config.APIToken, `["` + canary + `"]`, "is JSON: it must hold the API token alone"},
	{config.APIToken, "{token: " + canary + "}", "is JSON: it must hold the API token alone"},
	{config.SecretID, `{"request_id": "", "wrap_info": {"token": "` + canary + `", "ttl": 60}}`,
		"is a wrapped answer of Vault (wrap_info): unwrap it once, as in vault unwrap -field=secret_id WRAPPING_TOKEN, and write what comes out; " +
			"or write the token in it (jq -r .wrap_info.token), and set wrapped: true"},
	{config.VaultToken, `{"wrap_info": {"token": "` + canary + `"}, "auth": null}`,
		"is a wrapped answer of Vault (wrap_info): unwrap it once, as in vault unwrap -field=token WRAPPING_TOKEN, and write what comes out"},
	{config.APIToken, "-----BEGIN CERTIFICATE-----\n" + canary + "\n-----END CERTIFICATE-----\n", "is a key or a certificate (PEM, certificate): it must hold the API token alone"},
	{config.AgeIdentity, "-----BEGIN OPENSSH PRIVATE KEY-----\n" + canary, "is a key or a certificate (PEM, openssh private key): it must hold the age identity alone"},
	{config.APIToken, "-----BEGIN " + canary, "is a key or a certificate (PEM): it must hold the API token alone"},
	{config.APIToken, "<!DOCTYPE html>\n<html>" + canary, "is an HTML or XML page, perhaps of a login or an error: it must hold the API token alone"},
	{config.APIToken, "<html><body>" + canary, "is an HTML or XML page, perhaps of a login or an error: it must hold the API token alone"},
	{config.AgeIdentity, "age-encryption.org/v1\n" + canary, "is encrypted with age: decrypt it, and name the file that comes out"},
	{config.APIToken, "$ANSIBLE_VAULT;1.1;AES256\n" + canary, "is encrypted (Ansible Vault, SOPS or PGP): decrypt it, and name the file that comes out"},

	{config.APIToken, canary + "\n" + canary, "has 2 lines: it must hold the API token alone, on one line"},
	{config.SecretID, canary + "\r\n\r\n" + canary + "\r" + canary, "has 3 lines: it must hold the secret_id alone, on one line"},
	{config.APIToken, "# comment\n" + canary, "has 2 lines: it must hold the API token alone, on one line"},
	{config.APIToken, canary + " " + canary, "has a space in it, which this kind of secret (API token) never has: write it alone, without a comment or a name"},
	{config.VaultToken, canary + " # comment", "has a space in it, which this kind of secret (Vault token) never has: write it alone, without a comment or a name"},
	{config.VaultToken, canary + "\u00a0" + canary, "has a space in it, which this kind of secret (Vault token) never has: write it alone, without a comment or a name"},
	{config.APIToken, canary + "\t" + canary, "has a control character in it, such as a tab or an escape sequence of a terminal: write the API token again"},
	{config.RoleID, "\x1b[0m" + canary, "has a control character in it, such as a tab or an escape sequence of a terminal: write the role_id again"},
	{config.APIToken, canary + "\u200b", "has an invisible character in it, as texts that were copied from a page do: write the API token again"},
	{config.SecretID, canary + "\u202e" + canary, "has an invisible character in it, as texts that were copied from a page do: write the secret_id again"},
	{config.APIToken, canary + "ä", "has a character in it that is not ASCII, which this kind of secret (API token) never has: copy it again"},
	{config.APIToken, strings.Repeat(canary, 2000), "has 28000 bytes, which is too long for this kind of secret (API token): is it the right file?"},

	{config.APIToken, "cfk_" + canary, "is a global API key of Cloudflare, and not the API token: name it in api_key, with api_email"},
	{config.APIToken, strings.Repeat("1f", 18) + "0", "is a global API key of Cloudflare, and not the API token: name it in api_key, with api_email"},
	{config.GlobalKey, "cfut_" + canary, "is a Cloudflare API token, and not the global API key: name it in api_token, without api_email"},
	{config.GlobalKey, "cfat_" + canary, "is a Cloudflare API token, and not the global API key: name it in api_token, without api_email"},
	{config.GlobalKey, strings.Repeat("aB_-9", 8), "looks like a Cloudflare API token, and not the global API key: name it in api_token, without api_email"},
	{config.APIToken, "cfast_" + canary, "is the client secret of a service token, and not the API token: write the API token"},
	{config.VaultToken, "cfast_" + canary, "is the client secret of a service token, and not the Vault token: write the Vault token"},
	{config.APIToken, strings.Repeat("1f", 32), "looks like the client secret of a service token, and not the API token: write the API token"},
	{config.APIToken, strings.Repeat("1f", 16) + ".access", "is the client ID of a service token, and not the API token: write the API token"},
	{config.APIToken, "hvs." + canary, "is a Vault token, and not the API token: write the API token"},
	{config.SecretID, "hvs." + canary, "is a Vault token, and not the secret_id: if it is a wrapping token, set wrapped: true beside it, or unwrap it (vault unwrap -field=secret_id WRAPPING_TOKEN) and write what comes out"},
	{config.WrappingToken, "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "is not a wrapping token, which begins with hvs.: write one there " +
		"(vault write -wrap-ttl=... -f auth/MOUNT/role/ROLE/secret-id), or remove wrapped: true if it is the secret_id itself"},
	{config.WrappingToken, `{"wrap_info": {"token": "` + canary + `"}, "auth": null}`,
		"is a wrapped answer of Vault: it must hold the wrapping token alone, as jq -r .wrap_info.token prints it"},
	{config.JWT, "not.a." + canary, "is not a JWT, which has three parts with dots between them and begins with eyJ: is it the right file?"},
	{config.JWT, "eyJhbGciOiJub25lIn0." + canary, "is not a JWT, which has three parts with dots between them and begins with eyJ: is it the right file?"},
	{config.JWT, "hvs." + canary, "is a Vault token, and not the JWT: write the JWT"},
	{config.JWT, "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0." + canary, "begins with a word such as Bearer: write the JWT alone, which follows it"},
	{config.RoleID, "hvs." + canary, "is a Vault token, and not the role_id: write the role_id"},
	{config.VaultToken, "cfut_" + canary, "is a Cloudflare API token, and not the Vault token: write the Vault token"},
	{config.SecretID, "cfat_" + canary, "is a Cloudflare API token, and not the secret_id: write the secret_id"},
	{config.APIToken, "v1.0-0123456789abcdef", "is an Origin CA key of Cloudflare, and not the API token: write the API token"},
	{config.APIToken, identity, "is an age identity, and not the API token: write the API token"},
	{config.VaultToken, "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "is an age recipient, and not the Vault token: write the Vault token"},
	{config.VaultToken, "eyJhbGciOi.eyJzdWIi." + canary, "is a JWT, and not the Vault token: write the Vault token"},
	{config.APIToken, "ghp_" + canary, "is a credential of another service (GitHub, GitLab, AWS or Slack), and not the API token: write the API token"},
	{config.APIToken, "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", "is a UUID, perhaps the ID of a service token, and not the API token: write the API token"},
	{config.APIToken, "023e105f4ecef8ad9ca31a8372d0c353", "is an ID (32 hex digits) of an account, a zone or a token, and not the API token: write the API token"},
	{config.APIToken, "ops@example.com", "is an e-mail address, and not the API token: write the API token"},
	{config.APIToken, "/run/credentials/cf-token", "is the path of a file, and not the API token: write {file: PATH} in place of {env: NAME}, or the secret itself into the file"},

	{config.AgeIdentity, "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p", "is an age recipient (a public key, age1...): name the file of the identity (AGE-SECRET-KEY-1...) that belongs to it"},
	{config.AgeIdentity, "# public key: age1x\n", "has comments only: it must have a line AGE-SECRET-KEY-1... (rotatord identity create) or AGE-PLUGIN-..."},
	{config.AgeIdentity, "AGE-SECRET-KEY-PQ-1" + canary, "is a post-quantum age identity, which is not supported: create one with rotatord identity create"},
	{config.AgeIdentity, "ssh-ed25519 " + canary, "is an SSH key, which is not supported: create an identity with rotatord identity create"},
	{config.AgeIdentity, "none", `is "none", which the systemd unit puts in place of a file that does not exist: put the identity back into /etc/rotatord/credentials/age-identity; if there never was one, make it (rotatord identity create)`},
	{config.AgeIdentity, canary, "is not an age identity: it must have a line AGE-SECRET-KEY-1... (rotatord identity create) or AGE-PLUGIN-..."},
	{config.AgeIdentity, "hvs." + canary, "is not an age identity: it must have a line AGE-SECRET-KEY-1... (rotatord identity create) or AGE-PLUGIN-..."},
}

// TestCredentialIsRefused checks what is said of each mistake.
func TestCredentialIsRefused(t *testing.T) {
	for _, test := range mistakes {
		got, err := readAs(t, test.kind, test.content)
		if err == nil || got != "" || err.Error() != test.want {
			t.Errorf("%s, %.100q\n got %v\nwant %s", test.kind, test.content, err, test.want)
		}
		if err != nil && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%s, %q: the error repeats a secret", test.kind, test.content)
		}
	}
}

// TestCredentialNotSet checks that a variable that is not set is told from an empty one, and that
// what could be read and is of no use is told from what could not be read.
func TestCredentialNotSet(t *testing.T) {
	_, err := config.SecretSource{Env: "ROTATORD_TEST_NOT_SET"}.Read()
	if want := "environment variable ROTATORD_TEST_NOT_SET is not set: set it where the daemon is started, or name a file with {file: PATH}"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, malformed := errors.AsType[*config.ContentError](err); malformed {
		t.Error("a variable that is not set is taken for one that is wrong")
	}
	t.Setenv("ROTATORD_TEST_KIND", `"x"`)
	_, err = config.SecretSource{Env: "ROTATORD_TEST_KIND"}.Read()
	if _, malformed := errors.AsType[*config.ContentError](err); !malformed {
		t.Errorf("%v is a %T", err, err)
	}
}

// FuzzCredential checks for any content that no part of it is in the error, and that what is
// accepted can be sent in a header.
func FuzzCredential(f *testing.F) {
	for kind, values := range good {
		for _, value := range values {
			f.Add(uint8(kind), value, "")
		}
	}
	for _, s := range []string{"\ufeff", "Bearer ", "export X=", `{"token": "`, "-----BEGIN ", "<html>", "$", "X-Vault-Token: ", "cfk_", "a: ", "\x00"} {
		f.Add(uint8(config.APIToken), s, "")
		f.Add(uint8(config.SecretID), s, `"}`)
	}
	f.Fuzz(func(t *testing.T, kind uint8, before, after string) {
		content := before + "CANARYxyzzy" + after
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		v, err := config.SecretSource{File: path}.ReadAs(t.Context(), config.SecretKind(kind%7))
		if err != nil && (strings.Contains(err.Error(), "CANARY") || strings.Contains(strings.ToUpper(err.Error()), "XYZZY")) {
			t.Errorf("%q: %v", content, err)
		}
		if err == nil && kind%7 != uint8(config.AgeIdentity) && strings.ContainsAny(v.Reveal(), "\r\n\x00") {
			t.Errorf("%q is read as %q", content, v.Reveal())
		}
	})
}
