package cloudflare

import (
	"encoding/json"
	"html"
	"regexp"
	"strings"

	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

// This file finds client secrets in answers. Cloudflare shows a secret once, so what is around it must not
// decide whether it is found. Whatever is wrong with an answer, a complete secret in it is sealed first; what
// the answer is worth is decided later (issued.go).
//
// The scanner reads JSON as a person does. It accepts text before or after a document, several documents, a
// document that ends too early or starts too late, and a document inside a string of another one.

// finding is a client secret in an answer.
type finding struct {
	secret secret.Value
	// object is the JSON object that has it as a field; nil if it is in plain text.
	object *object
	// cut is set if the answer ended before anything showed that the secret was over. The secret is still
	// complete, because both known formats have a fixed length.
	cut bool
}

// object is a JSON object or list, as far as it arrived.
type object struct {
	parent *object
	key    string            // its key in the parent, folded; empty in a list
	list   bool              // it is a list
	fields map[string]string // by folded key: strings without quotation marks, other values as they are
	text   map[string]bool   // the keys of fields that are strings
	filled map[string]bool   // the keys of lists and objects that are not empty
}

func (o *object) set(key, value string, isText bool) {
	if key == "" {
		return
	}
	if o.fields == nil {
		o.fields, o.text = map[string]string{}, map[string]bool{}
	}
	o.fields[key], o.text[key] = value, isText
}

// string returns a field that is a string; empty if there is none.
func (o *object) string(key string) string {
	if o == nil || !o.text[key] {
		return ""
	}
	return o.fields[key]
}

// isResult reports whether o is where Cloudflare documents the service token: under result, in the object
// that is the whole answer.
func (o *object) isResult() bool {
	return o != nil && o.key == "result" && o.parent != nil && !o.parent.list && o.parent.parent != nil && o.parent.parent.parent == nil
}

// facts returns what an answer shows of a service token.
func (o *object) facts() rotation.TokenFacts {
	if o == nil {
		return rotation.TokenFacts{}
	}
	at := func(key string) (t timestamp) {
		_ = t.UnmarshalJSON([]byte(`"` + o.string(key) + `"`)) // a time that cannot be read counts as absent
		return t
	}
	return rotation.TokenFacts{
		ID: o.string("id"), ClientID: o.string("clientid"), Name: o.string("name"), Duration: o.string("duration"),
		Enabled:   o.fields["enabled"] != "false",
		CreatedAt: at("createdat").past(), ExpiresAt: at("expiresat").Time,
		UpdatedAt: at("updatedat").past(), LastSeenAt: at("lastseenat").past(),
	}
}

// scan is one search for client secrets.
type scan struct {
	found []finding
	// refused is set if an object says success: false.
	refused bool
	// effort is how many more bytes may be read to look for the end of strings that have none.
	effort int
}

const (
	maxNesting  = 64 // of objects; a deeper object counts as a part of its parent
	maxInside   = 4  // documents inside strings of documents
	maxFindings = 16
	maxStarts   = 8 // places at which a search starts again
)

// Client secrets in plain text: the newer format anywhere; the older one, which looks like any digest, only
// after its name.
var (
	bareSecret  = regexp.MustCompile(`cfast_[A-Za-z0-9]{48}`)
	namedSecret = regexp.MustCompile(`(?i)client[_-]?secret[^A-Za-z0-9]{1,24}([0-9a-f]{64})`)
	documents   = regexp.MustCompile(`[{\[]\s*["{\[]`)
)

// findSecrets returns the different client secrets in a body, in their order, and whether the answer says
// that it is a refusal.
func findSecrets(body []byte) (found []finding, refused bool) {
	text := string(body)
	s := scan{effort: 4*len(text) + 1<<20}
	s.everywhere(text)
	if strings.Contains(text, "&quot;") || strings.Contains(text, "&#") {
		s.everywhere(html.UnescapeString(text))
	}
	if strings.Contains(text, `\"`) {
		s.everywhere(strings.ReplaceAll(text, `\"`, `"`))
	}
	s.plain(text)
	return s.found, s.refused
}

// everywhere reads text from its beginning, and again from places where a document may begin: after a single
// quotation mark too many, the scanner would take strings for the text between them.
func (s *scan) everywhere(text string) {
	s.read(text, &object{}, 0)
	if len(s.found) > 0 {
		return
	}
	for _, at := range documents.FindAllStringIndex(text, maxStarts) {
		if at[0] > 0 {
			s.read(text[at[0]:], &object{}, 0)
		}
	}
}

// plain looks for secrets that are not a field of an object.
func (s *scan) plain(text string) {
	for _, at := range append(bareSecret.FindAllStringIndex(text, maxFindings), named(text)...) {
		before, after := byte(' '), byte(' ')
		if at[0] > 0 {
			before = text[at[0]-1]
		}
		if at[1] < len(text) {
			after = text[at[1]]
		}
		if !isWord(before) && !isWord(after) { // otherwise it is a part of something longer
			s.add(finding{secret: secret.New(text[at[0]:at[1]]), cut: at[1] == len(text)})
		}
	}
}

func named(text string) (all [][]int) {
	for _, at := range namedSecret.FindAllStringSubmatchIndex(text, maxFindings) {
		all = append(all, at[2:4])
	}
	return all
}

func isWord(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// add adds a finding, unless its secret was found before in an object.
func (s *scan) add(f finding) {
	for i, known := range s.found {
		if known.secret.Equal(f.secret) {
			if known.object == nil || known.cut && !f.cut {
				s.found[i] = f
			}
			return
		}
	}
	if len(s.found) < maxFindings {
		s.found = append(s.found, f)
	}
}

// read scans text. root is the parent of its outermost objects.
func (s *scan) read(text string, root *object, inside int) {
	p := position{top: root}
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '{' || c == '[':
			p.open(c == '[')
			i++
		case c == '}' || c == ']':
			p.close()
			i++
		case c == '"' && s.effort > 0:
			i += s.readString(text[i:], &p, inside)
		case isWord(c) || c == '-':
			end := i + 1
			for end < len(text) && (isWord(text[end]) || text[end] == '.' || text[end] == '+' || text[end] == '-') {
				end++
			}
			s.value(p.top, p.takeKey(), text[i:end], false, inside)
			i = end
		default:
			if c == ',' {
				p.key = ""
			}
			i++
		}
	}
}

// readString reads a string at the beginning of text: a key, a value, or a quotation mark without an
// end. It returns how many bytes of the text are done.
func (s *scan) readString(text string, p *position, inside int) int {
	quoted, ended := stringAt(text)
	if !ended {
		s.effort -= len(quoted)
		if rest := unquote(text[1:] + `"`); isSecretKey(p.key) && secret.WellFormed(secret.New(rest)) {
			s.add(finding{secret: secret.New(rest), object: p.top, cut: true})
		}
		return 1
	}
	done, content := len(quoted), unquote(quoted[1:])
	if next := strings.TrimLeft(text[done:min(len(text), done+64)], " \t\r\n"); strings.HasPrefix(next, ":") {
		p.key = fold(content)
	} else {
		s.value(p.top, p.takeKey(), content, true, inside)
	}
	return done
}

// position is where in a document the scan is.
type position struct {
	top    *object // the innermost object or list
	key    string  // the key whose value comes next; empty if there is none
	depth  int     // how many objects and lists are open
	deeper int     // how many more are open beyond maxNesting
}

func (p *position) open(list bool) {
	if p.depth == maxNesting {
		p.deeper++
		p.key = ""
		return
	}
	p.top.fill()
	p.top = &object{parent: p.top, key: p.takeKey(), list: list}
	p.depth++
}

func (p *position) close() {
	switch {
	case p.deeper > 0:
		p.deeper--
	case p.depth > 0:
		p.top = p.top.parent
		p.depth--
	}
	p.key = ""
}

// takeKey returns the key whose value comes now, and forgets it.
func (p *position) takeKey() string {
	key := p.key
	p.key = ""
	return key
}

// value takes in a value that is neither an object nor a list.
func (s *scan) value(in *object, key, v string, isText bool, inside int) {
	in.set(key, v, isText)
	in.fill()
	switch {
	case isText && isSecretKey(key) && v != "":
		s.add(finding{secret: secret.New(v), object: in})
	case key == "success" && isFalse(v):
		s.refused = true
	case isText && inside < maxInside && strings.ContainsAny(v, "{[") && strings.Contains(v, `"`):
		s.read(v, &object{parent: in, key: key}, inside+1)
	}
}

// fill notes that o is not empty.
func (o *object) fill() {
	if o.parent == nil || o.key == "" {
		return
	}
	if o.parent.filled == nil {
		o.parent.filled = map[string]bool{}
	}
	o.parent.filled[o.key] = true
}

// stringAt returns the JSON string at the beginning of text, and whether it has an end; without an end, what
// was read of it.
func stringAt(text string) (quoted string, ended bool) {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return text[:i+1], true
		case '\n': // no JSON string contains one, so the quotation mark did not begin a string
			return text[:i], false
		}
	}
	return text, false
}

// unquote decodes a JSON string that is given without its first quotation mark.
func unquote(rest string) string {
	if !strings.Contains(rest, `\`) {
		return strings.TrimSuffix(rest, `"`)
	}
	var said string
	if json.Unmarshal([]byte(`"`+rest), &said) != nil {
		return strings.TrimSuffix(rest, `"`)
	}
	return said
}

// fold returns the same text for all ways to write a key: client_secret, clientSecret, Client-Secret.
func fold(key string) string {
	return strings.ToLower(strings.ReplaceAll(strings.ReplaceAll(key, "_", ""), "-", ""))
}

func isSecretKey(folded string) bool { return folded == "clientsecret" }

func isFalse(v string) bool {
	switch strings.ToLower(v) {
	case "false", "0", "no":
		return true
	}
	return false
}

func isTrue(v string) bool {
	switch strings.ToLower(v) {
	case "true", "1", "yes":
		return true
	}
	return false
}
