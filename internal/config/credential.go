package config

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SecretKind is the kind of secret that a source is for. It decides which contents are refused before anything is sent.
type SecretKind int

// The kinds of secret.
const (
	AnySecret SecretKind = iota
	APIToken
	GlobalKey
	VaultToken
	RoleID
	SecretID
	WrappingToken
	JWT
	AgeIdentity
	WebhookURL
	HeaderValue
)

// String names the kind in messages.
func (k SecretKind) String() string {
	switch k {
	case APIToken:
		return "API token"
	case GlobalKey:
		return "global API key"
	case VaultToken:
		return "Vault token"
	case RoleID:
		return "role_id"
	case SecretID:
		return "secret_id"
	case WrappingToken:
		return "wrapping token"
	case JWT:
		return "JWT"
	case AgeIdentity:
		return "age identity"
	case WebhookURL:
		return "URL"
	case HeaderValue:
		return "value of the header"
	}
	return "secret"
}

// freeForm reports whether the administrator of Vault may choose the text. It may then have spaces.
func (k SecretKind) freeForm() bool {
	return k == RoleID || k == SecretID || k == AnySecret || k == HeaderValue
}

// maxCredential is longer than any credential on one line, in bytes.
const maxCredential = 16 << 10

// inspect returns the content of a file or a variable without the white space around it, or says
// what is wrong with it. The message repeats no part of the content.
func (k SecretKind) inspect(content string) (value, problem string) {
	if problem = encodingOf(content); problem != "" {
		return "", problem
	}
	value = strings.TrimSpace(content)
	if k == HeaderValue { // it may begin with Bearer
		return value, k.shape(value)
	}
	for _, look := range []func(string) string{k.document, k.wrapping} {
		if problem = look(value); problem != "" {
			return "", problem
		}
	}
	if k == AgeIdentity {
		return value, identityProblem(value)
	}
	for _, look := range []func(string) string{k.shape, k.mistaken} {
		if problem = look(value); problem != "" {
			return "", problem
		}
	}
	if k == WebhookURL {
		_, problem = ParseWebhookURL(value)
	}
	return value, problem
}

// encodingOf says what is wrong with the encoding of the content; empty if nothing is.
func encodingOf(content string) string {
	const save = "save it as plain text (ASCII or UTF-8, without a byte order mark)"
	switch {
	case strings.HasPrefix(content, "\xff\xfe"), strings.HasPrefix(content, "\xfe\xff"), strings.HasPrefix(content, "\x00\x00\xfe\xff"), isUTF16(content):
		return "is UTF-16, as Windows tools write it: " + save
	case strings.HasPrefix(strings.TrimSpace(content), "\ufeff"):
		return "begins with a byte order mark (BOM): " + save
	case strings.ContainsRune(content, 0):
		return "has NUL bytes in it: " + save
	case !utf8.ValidString(content):
		return "is not text but binary, and may be encrypted or compressed: " + save
	}
	return ""
}

// isUTF16 reports whether nearly every other byte is NUL.
func isUTF16[Text string | []byte](content Text) bool {
	var zero [2]int
	for i := range len(content) {
		if content[i] == 0 {
			zero[i%2]++
		}
	}
	most, least := max(zero[0], zero[1]), min(zero[0], zero[1])
	return most > 0 && most*10 >= len(content)/2*9 && least*10 <= most
}

var (
	pemBegin = regexp.MustCompile(`^-----BEGIN ([A-Z0-9 ]{1,40})-----`)
	markup   = regexp.MustCompile(`(?i)^<(!doctype|html|head|body|\?xml|!--|script|title)`)
)

// document says what kind of document the content is, if it is more than one secret.
func (k SecretKind) document(value string) string {
	switch {
	case strings.HasPrefix(value, "age-encryption.org/"), strings.HasPrefix(value, "-----BEGIN AGE ENCRYPTED FILE"):
		return "is encrypted with age: decrypt it, and name the file that comes out"
	case strings.HasPrefix(value, "$ANSIBLE_VAULT;"), strings.HasPrefix(value, "ENC["), strings.HasPrefix(value, "-----BEGIN PGP MESSAGE"):
		return "is encrypted (Ansible Vault, SOPS or PGP): decrypt it, and name the file that comes out"
	case strings.HasPrefix(value, "-----BEGIN "):
		what := "PEM"
		if found := pemBegin.FindStringSubmatch(value); found != nil {
			what += ", " + strings.ToLower(found[1])
		}
		return fmt.Sprintf("is a key or a certificate (%s): it must hold the %s alone", what, k)
	case markup.MatchString(value):
		return fmt.Sprintf("is an HTML or XML page, perhaps of a login or an error: it must hold the %s alone", k)
	case looksLikeJSON(value) && (json.Valid([]byte(value)) || !k.freeForm()):
		return k.jsonProblem(value)
	}
	return ""
}

func looksLikeJSON(value string) bool {
	return strings.HasPrefix(value, "{") && strings.HasSuffix(value, "}") && !strings.HasPrefix(value, "{{") ||
		strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]")
}

// jsonFields are the names of fields that hold a secret in JSON, in Vault's own answers too.
var jsonFields = []string{"token", "access_token", "api_token", "api_key", "key", "client_token", "secret_id", "role_id", "secret", "value", "password"}

// jsonProblem says which field of the JSON to write instead. It repeats no names but those in jsonFields.
func (k SecretKind) jsonProblem(value string) string {
	var answer struct {
		Wrap *struct{}                  `json:"wrap_info"`
		Auth map[string]json.RawMessage `json:"auth"`
		Data map[string]json.RawMessage `json:"data"`
	}
	var top map[string]json.RawMessage
	_ = json.Unmarshal([]byte(value), &top) // what does not fit stays empty
	_ = json.Unmarshal([]byte(value), &answer)
	if answer.Wrap != nil && k == WrappingToken {
		return fmt.Sprintf("is a wrapped answer of Vault: it must hold the %s alone, as jq -r .wrap_info.token prints it", k)
	}
	if answer.Wrap != nil {
		field := "token"
		if k == RoleID || k == SecretID {
			field = k.String()
		}
		text := fmt.Sprintf("is a wrapped answer of Vault (wrap_info): unwrap it once, as in vault unwrap -field=%s WRAPPING_TOKEN, and write what comes out", field)
		if k == SecretID {
			text += "; or write the token in it (jq -r .wrap_info.token), and set wrapped: true"
		}
		return text
	}
	for _, part := range []struct {
		path   string
		fields map[string]json.RawMessage
	}{{".", top}, {".auth.", answer.Auth}, {".data.", answer.Data}, {".data.data.", inner(answer.Data)}} {
		for _, field := range jsonFields {
			if text := ""; json.Unmarshal(part.fields[field], &text) == nil && text != "" {
				return fmt.Sprintf("is JSON: it must hold the %s alone, as jq -r %s%s prints it", k, part.path, field)
			}
		}
	}
	return fmt.Sprintf("is JSON: it must hold the %s alone", k)
}

// inner is the data of an answer of KV version 2.
func inner(data map[string]json.RawMessage) (fields map[string]json.RawMessage) {
	_ = json.Unmarshal(data["data"], &fields)
	return fields
}

var (
	bearer      = regexp.MustCompile(`(?i)^(authorization:\s*)?(bearer|token|basic)\s+\S`)
	header      = regexp.MustCompile(`(?i)^(authorization|x-auth-key|x-auth-email|x-vault-token|cf-access-client-id|cf-access-client-secret):`)
	assignment  = regexp.MustCompile(`^(?i:export |set |setx |declare -x |\$env:)?\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*[^=\s]`)
	setCommand  = regexp.MustCompile(`^(?i:export |set |setx |declare -x |\$env:)`)
	named       = regexp.MustCompile(`(?i)(token|key|secret|role|vault|cloudflare|cf_|passw|cred|auth|_id$|^id$)`)
	yamlLine    = regexp.MustCompile(`(?i)^[a-z_-]*(token|key|secret|secret_id|role_id|value):\s+\S`)
	placeholder = regexp.MustCompile(`^(\$\{?[A-Za-z_][A-Za-z0-9_]*\}?|\{\{.*\}\}|<[^<>]*>|%[A-Za-z_]+%|(?i:changeme|change-me|todo|xxx+|your[-_ ].*))$`)
	reference   = regexp.MustCompile(`^(op|vault|awssm|gcpsm|azurekv|file|env|ref\+[a-z]+)://\S|^arn:aws`)
)

// wrapping says what is around the secret, such as quotes.
func (k SecretKind) wrapping(value string) string {
	first, _ := utf8.DecodeRuneInString(value)
	last, _ := utf8.DecodeLastRuneInString(value)
	const quotes = "\"'`“”‘’«»"
	opens, closes := strings.ContainsRune(quotes, first), strings.ContainsRune(quotes, last) && utf8.RuneCountInString(value) > 1
	switch {
	case opens && closes:
		return fmt.Sprintf("has quotes around it: write the %s without them", k)
	case !k.freeForm() && (opens || closes):
		return fmt.Sprintf("has a quote at one end: write the %s without it", k)
	case placeholder.MatchString(value):
		return fmt.Sprintf("is a placeholder or a variable that nothing has replaced: write the %s itself", k)
	case reference.MatchString(value):
		return fmt.Sprintf("is a reference to another place, which rotatord does not follow: write the %s itself", k)
	case header.MatchString(value):
		return fmt.Sprintf("is a whole HTTP header: write the %s alone, what follows the name and the colon (and Bearer)", k)
	case bearer.MatchString(value):
		return fmt.Sprintf("begins with a word such as Bearer: write the %s alone, which follows it", k)
	case k != AgeIdentity && yamlLine.MatchString(value):
		return fmt.Sprintf("has the form NAME: VALUE: write the %s alone", k)
	}
	if found := assignment.FindStringSubmatch(value); found != nil && (setCommand.MatchString(value) || named.MatchString(found[1]) || !k.freeForm()) {
		return fmt.Sprintf("has the form NAME=VALUE, as in a shell or an environment file: write the %s alone, what follows the =", k)
	}
	return ""
}

// shape says what is wrong with the characters of a secret that is on one line.
func (k SecretKind) shape(value string) string {
	lines := 0
	for line := range strings.FieldsFuncSeq(value, func(c rune) bool { return c == '\n' || c == '\r' }) {
		if strings.TrimSpace(line) != "" {
			lines++
		}
	}
	switch {
	case lines > 1:
		return fmt.Sprintf("has %d lines: it must hold the %s alone, on one line", lines, k)
	case len(value) > maxCredential:
		return fmt.Sprintf("has %d bytes, which is too long for this kind of secret (%s): is it the right file?", len(value), k)
	case strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Sprintf("has a control character in it, such as a tab or an escape sequence of a terminal: write the %s again", k)
	case strings.ContainsFunc(value, func(c rune) bool { return unicode.Is(unicode.Cf, c) }):
		return fmt.Sprintf("has an invisible character in it, as texts that were copied from a page do: write the %s again", k)
	case k.freeForm():
		return ""
	case strings.ContainsFunc(value, unicode.IsSpace):
		return fmt.Sprintf("has a space in it, which this kind of secret (%s) never has: write it alone, without a comment or a name", k)
	case strings.ContainsFunc(value, func(c rune) bool { return c > unicode.MaxASCII }):
		return fmt.Sprintf("has a character in it that is not ASCII, which this kind of secret (%s) never has: copy it again", k)
	}
	return ""
}

// form is the shape of one kind of credential.
type form struct {
	pattern *regexp.Regexp
	is      string       // the article included
	kinds   []SecretKind // the kinds that have this form
	only    []SecretKind // if not empty, it is a mistake for these kinds only: others may look like it
	advice  string
}

// forms are tried in this order.
var forms = []form{
	{regexp.MustCompile(`^cfast_`), "the client secret of a service token", nil, nil, ""},
	{regexp.MustCompile(`^[0-9a-f]{64}$`), "like the client secret of a service token", nil, []SecretKind{APIToken, GlobalKey}, ""},
	{regexp.MustCompile(`^[0-9a-f]{32}\.access$`), "the client ID of a service token", nil, nil, ""},
	{regexp.MustCompile(`^cf[ua]t_`), "a Cloudflare API token", []SecretKind{APIToken}, nil, "name it in api_token, without api_email"},
	{regexp.MustCompile(`^(cfk_|[0-9a-f]{37}$)`), "a global API key of Cloudflare", []SecretKind{GlobalKey}, nil, "name it in api_key, with api_email"},
	{regexp.MustCompile(`^v1\.0-[0-9a-f]+`), "an Origin CA key of Cloudflare", nil, nil, ""},
	{regexp.MustCompile(`^[A-Za-z0-9_-]{40}$`), "like a Cloudflare API token", []SecretKind{APIToken}, []SecretKind{GlobalKey}, "name it in api_token, without api_email"},
	{vaultToken, "a Vault token", []SecretKind{VaultToken, WrappingToken}, nil, ""},
	{regexp.MustCompile(`^AGE-(SECRET-KEY|PLUGIN)-`), "an age identity", []SecretKind{AgeIdentity}, nil, ""},
	{regexp.MustCompile(`^age1[a-z0-9]+$`), "an age recipient", nil, nil, ""},
	{regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$`), "a JWT", []SecretKind{JWT}, nil, ""},
	{regexp.MustCompile(`^(gh[pousr]_|github_pat_|glpat-|AKIA[A-Z0-9]{16}$|xox[bp]-)`), "a credential of another service (GitHub, GitLab, AWS or Slack)", nil, nil, ""},
	{regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`), "a UUID, perhaps the ID of a service token", nil, []SecretKind{APIToken, GlobalKey}, ""},
	{regexp.MustCompile(`^[0-9a-f]{32}$`), "an ID (32 hex digits) of an account, a zone or a token", nil, []SecretKind{APIToken, GlobalKey}, ""},
	{regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[a-z]+$`), "an e-mail address", nil, []SecretKind{APIToken, GlobalKey, VaultToken}, ""},
	{regexp.MustCompile(`^/[^\s]+/[^\s]+$`), "the path of a file", nil, []SecretKind{APIToken, GlobalKey, VaultToken}, "write {file: PATH} in place of {env: NAME}, or the secret itself into the file"},
}

// mistaken says which other kind of credential the content is.
func (k SecretKind) mistaken(value string) string {
	if k == AnySecret {
		return ""
	}
	for _, f := range forms {
		if slices.Contains(f.kinds, k) || f.only != nil && !slices.Contains(f.only, k) || !f.pattern.MatchString(value) {
			continue
		}
		advice := f.advice
		switch {
		case k == SecretID && f.is == "a Vault token":
			advice = "if it is a wrapping token, set wrapped: true beside it, or unwrap it (vault unwrap -field=secret_id WRAPPING_TOKEN) and write what comes out"
		case advice == "" || strings.HasPrefix(advice, "name it") && k != APIToken && k != GlobalKey:
			advice = "write the " + k.String()
		}
		looks := "is "
		if strings.HasPrefix(f.is, "like ") {
			looks = "looks "
		}
		return fmt.Sprintf("%s%s, and not the %s: %s", looks, f.is, k, advice)
	}
	switch {
	case k == JWT && !jwtForm.MatchString(value):
		return "is not a JWT, which has three parts with dots between them and begins with eyJ: is it the right file?"
	case k == WrappingToken && !vaultToken.MatchString(value):
		return "is not a wrapping token, which begins with hvs.: write one there (vault write -wrap-ttl=... -f auth/MOUNT/role/ROLE/secret-id), or remove wrapped: true if it is the secret_id itself"
	}
	return ""
}

// jwtForm is the form of a JWT with a signature, and vaultToken that of a token of Vault.
var (
	jwtForm    = regexp.MustCompile(`^eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)
	vaultToken = regexp.MustCompile(`^(hv[sbr]\.|[sbr]\.[A-Za-z0-9]{24}(\.|$))`)
)

// identityProblem says what is wrong with an age identity file, as age-keygen writes them, with
// comments.
func identityProblem(value string) string {
	for line := range strings.Lines(value) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "age1"):
			return "is an age recipient (a public key, age1...): name the file of the identity (AGE-SECRET-KEY-1...) that belongs to it"
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			return "" // package ageplugin looks at it
		case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-"):
			return "is a post-quantum age identity, which is not supported: create one with rotatord identity create"
		case strings.HasPrefix(line, "ssh-"):
			return "is an SSH key, which is not supported: create an identity with rotatord identity create"
		case line == "none": // SetCredential= of the systemd unit
			return `is "none", which the systemd unit puts in place of a file that does not exist: put the identity back into /etc/rotatord/credentials/age-identity; if there never was one, make it (rotatord identity create)`
		case !strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
			return "is not an age identity: it must have a line AGE-SECRET-KEY-1... (rotatord identity create) or AGE-PLUGIN-..."
		}
		return ""
	}
	return "has comments only: it must have a line AGE-SECRET-KEY-1... (rotatord identity create) or AGE-PLUGIN-..."
}
