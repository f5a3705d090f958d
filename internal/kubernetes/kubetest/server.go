// Package kubetest is an API server for Secrets, and for annotations of workloads: for tests, and for rotatord drill. It
// does what kube-apiserver does with the requests that rotatord and its users send: server-side apply with field managers
// and conflicts, dry runs, versions, immutable fields, rights by verb and name. One suite compares it with a
// real kube-apiserver.
package kubetest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rotatord/internal/secret"
)

// maxData is how many bytes the values of a Secret may have, and maxRequest how many a request.
const (
	maxData    = 1 << 20
	maxRequest = 3145728
)

// Server is an API server. It is safe for concurrent use.
type Server struct {
	mu         sync.Mutex
	tokens     map[string]string // users by token
	rules      map[string][]Rule // by user; a user without an entry may do everything
	namespaces map[string]bool   // true: it is being deleted
	secrets    map[string]*object
	workloads  map[string]*workload
	version    int
	created    int
	refuse     func(Secret) string
	quota      map[string]int // the most Secrets of a namespace
}

// Rule is a rule of a Role.
type Rule struct {
	Namespace string
	Names     []string // of the objects; empty: all
	Verbs     []string
	Resource  string // a resource of the API group apps, such as deployments; empty: Secrets
}

// Secret is what a webhook sees.
type Secret struct {
	Namespace, Name string
	Data            map[string]string
	DryRun          bool
}

// New returns a server with one token, whose user may do everything, and no namespaces.
func New(admin secret.Value) *Server {
	return &Server{
		tokens: map[string]string{admin.Reveal(): "admin"}, rules: map[string][]Rule{}, namespaces: map[string]bool{}, secrets: map[string]*object{},
		version: 100, quota: map[string]int{}, workloads: map[string]*workload{},
	}
}

// AddUser adds a user with a token, who may do what the rules say, and nothing without one.
func (s *Server) AddUser(name string, token secret.Value, rules ...Rule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens[token.Reveal()], s.rules[name] = name, rules
	if rules == nil {
		s.rules[name] = []Rule{}
	}
}

// RemoveToken makes a token unknown.
func (s *Server) RemoveToken(token secret.Value) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tokens, token.Reveal())
}

// AddNamespace adds a namespace. EndNamespace begins to delete it.
func (s *Server) AddNamespace(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namespaces[name] = false
}

// EndNamespace lets nothing be created in a namespace any more.
func (s *Server) EndNamespace(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namespaces[name] = true
}

// SetQuota limits how many Secrets a namespace may have.
func (s *Server) SetQuota(namespace string, most int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quota[namespace] = most
}

// SetWebhook has each write be looked at. A text that is not empty refuses it.
func (s *Server) SetWebhook(refuse func(Secret) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = refuse
}

// Read returns the data of a Secret, nil if there is none.
func (s *Server) Read(namespace, name string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.secrets[namespace+"/"+name]
	if o == nil {
		return nil
	}
	data := make(map[string]string, len(o.Data))
	for key, value := range o.Data {
		data[key] = string(value)
	}
	return data
}

// Write sets keys of a Secret as a field manager, and creates the Secret if there is none.
func (s *Server) Write(namespace, name, manager string, data map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.namespaces[namespace] = false
	before := s.secrets[namespace+"/"+name]
	after := before.clone()
	if before == nil {
		after = &object{Namespace: namespace, Name: name, Type: opaque}
	}
	if after.Data == nil {
		after.Data = map[string][]byte{}
	}
	for key, value := range data {
		after.Data[key] = []byte(value)
	}
	s.update(before, after, manager)
}

var secretPath = regexp.MustCompile(`^/api/v1/namespaces/([^/]+)/secrets(?:/([^/]+))?$`)

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	user, known := s.tokens[token]
	if !known {
		fail(w, http.StatusUnauthorized, "Unauthorized", "Unauthorized", "", "")
		return
	}
	if r.URL.Path == "/api/v1/namespaces" && r.Method == http.MethodPost {
		s.makeNamespace(w, body)
		return
	}
	if at := workloadPath.FindStringSubmatch(r.URL.Path); at != nil {
		s.serveWorkload(w, r, user, at[1], at[2], at[3], body)
		return
	}
	found := secretPath.FindStringSubmatch(r.URL.Path)
	if found == nil {
		fail(w, http.StatusNotFound, "NotFound", "the server could not find the requested resource", "", "")
		return
	}
	namespace, name := found[1], found[2]
	verbs := map[string]string{http.MethodGet: "get", http.MethodPatch: "patch", http.MethodPut: "update", http.MethodPost: "create", http.MethodDelete: "delete"}
	if verb := verbs[r.Method]; !s.allowed(user, verb, "", namespace, name) {
		forbid(w, user, verb, namespace, name)
		return
	}
	if len(body) > maxRequest {
		fail(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", "Request entity too large: limit is "+strconv.Itoa(maxRequest), "", "")
		return
	}
	o := s.secrets[namespace+"/"+name]
	switch {
	case r.Method == http.MethodPost:
		s.create(w, r, namespace, body)
	case r.Method == http.MethodPatch:
		s.patch(w, r, user, namespace, name, body)
	case o == nil:
		fail(w, http.StatusNotFound, "NotFound", fmt.Sprintf("secrets %q not found", name), "secrets", name)
	case r.Method == http.MethodGet:
		answer(w, http.StatusOK, o.shown())
	case r.Method == http.MethodPut:
		s.replace(w, r, o, body)
	case r.Method == http.MethodDelete:
		if len(o.Finalizers) > 0 {
			o.Deleting = true
			s.version++
			o.Version = s.version
			answer(w, http.StatusOK, o.shown())
			return
		}
		delete(s.secrets, namespace+"/"+name)
		answer(w, http.StatusOK, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Success",
			"details": map[string]any{"kind": "secrets", "name": name, "uid": o.UID}})
	}
}

func (s *Server) makeNamespace(w http.ResponseWriter, body []byte) {
	var in wire
	if json.Unmarshal(body, &in) != nil {
		fail(w, http.StatusBadRequest, "BadRequest", "cannot be read", "", "")
		return
	}
	s.namespaces[in.Metadata.Name] = false
	answer(w, http.StatusCreated, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": in.Metadata.Name}})
}

// allowed reports whether a user may do that with an object. resource is as in [Rule].
func (s *Server) allowed(user, verb, resource, namespace, name string) bool {
	rules, limited := s.rules[user]
	if !limited {
		return true
	}
	return slices.ContainsFunc(rules, func(r Rule) bool {
		return r.Resource == resource && r.Namespace == namespace && slices.Contains(r.Verbs, verb) && (len(r.Names) == 0 || slices.Contains(r.Names, name))
	})
}

func forbid(w http.ResponseWriter, user, verb, namespace, name string) {
	fail(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("secrets %q is forbidden: User %q cannot %s resource \"secrets\" in API group \"\" in the namespace %q",
		name, user, verb, namespace), "secrets", name)
}

// create is a POST, as of kubectl create.
func (s *Server) create(w http.ResponseWriter, r *http.Request, namespace string, body []byte) {
	in, ok := decoded(w, body)
	if !ok {
		return
	}
	in.Namespace = namespace
	if s.secrets[namespace+"/"+in.Name] != nil {
		fail(w, http.StatusConflict, "AlreadyExists", fmt.Sprintf("secrets %q already exists", in.Name), "secrets", in.Name)
		return
	}
	if !s.admit(w, nil, in, false) {
		return
	}
	s.update(nil, in, managerOf(r))
	answer(w, http.StatusCreated, in.shown())
}

// replace is a PUT, as of kubectl edit.
func (s *Server) replace(w http.ResponseWriter, r *http.Request, before *object, body []byte) {
	after, ok := decoded(w, body)
	if !ok {
		return
	}
	if after.Version != 0 && after.Version != before.Version {
		modified(w, before.Name)
		return
	}
	after.Namespace, after.Name, after.UID, after.Version, after.Finalizers = before.Namespace, before.Name, before.UID, before.Version, before.Finalizers
	after.managed = before.clone().managed
	if !s.admit(w, before, after, false) {
		return
	}
	s.update(before, after, managerOf(r))
	answer(w, http.StatusOK, s.secrets[before.Namespace+"/"+before.Name].shown())
}

func managerOf(r *http.Request) string {
	if manager := r.URL.Query().Get("fieldManager"); manager != "" {
		return manager
	}
	name, _, _ := strings.Cut(r.Header.Get("User-Agent"), "/")
	return name
}

// update stores an object that a manager has created or updated. The manager owns what it has changed.
func (s *Server) update(before, after *object, manager string) {
	if before != nil && len(before.managed) == 0 { // nothing is recorded before the first apply
		s.store(before, after)
		return
	}
	changed := changes(before, after)
	for i := range after.managed {
		for _, path := range changed {
			delete(after.managed[i].paths, path)
		}
	}
	now := after.paths()
	for i := range after.managed { // what is gone is owned by no one
		for path := range after.managed[i].paths {
			if !now[path] {
				delete(after.managed[i].paths, path)
			}
		}
	}
	own := after.entry(manager, "Update")
	for _, path := range changed {
		if now[path] {
			own.paths[path] = true
		}
	}
	s.store(before, after)
}

// store stores an object and gives it a version, unless nothing changed.
func (s *Server) store(before, after *object) {
	after.managed = slices.DeleteFunc(after.managed, func(e entry) bool { return len(e.paths) == 0 })
	switch {
	case before == nil:
		s.created++
		after.UID = fmt.Sprintf("00000000-0000-4000-8000-%012d", s.created)
		after.Created = time.Now().UTC().Truncate(time.Second)
	case before.equal(after):
		after.Version = before.Version
		s.secrets[after.Namespace+"/"+after.Name] = after
		return
	}
	s.version++
	after.Version = s.version
	s.secrets[after.Namespace+"/"+after.Name] = after
}

// admit answers, and returns false, if an object must not be stored.
func (s *Server) admit(w http.ResponseWriter, before, after *object, dry bool) bool {
	ending, there := s.namespaces[after.Namespace]
	size := 0
	for _, value := range after.Data {
		size += len(value)
	}
	invalid := func(field, text, reason string) {
		failWith(w, http.StatusUnprocessableEntity, "Invalid", fmt.Sprintf("Secret %q is invalid: %s: %s", after.Name, field, text), "Secret", after.Name,
			[]cause{{reason, text, field}})
	}
	if before == nil {
		count := 0
		for _, o := range s.secrets {
			if o.Namespace == after.Namespace {
				count++
			}
		}
		most, limited := s.quota[after.Namespace]
		switch {
		case !there:
			fail(w, http.StatusNotFound, "NotFound", fmt.Sprintf("namespaces %q not found", after.Namespace), "namespaces", after.Namespace)
			return false
		case ending:
			failWith(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("secrets %q is forbidden: unable to create new content in namespace %s because it is being terminated",
				after.Name, after.Namespace), "secrets", after.Name, []cause{{"NamespaceTerminating", fmt.Sprintf("namespace %s is being terminated", after.Namespace), "metadata.namespace"}})
			return false
		case limited && count >= most:
			fail(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("secrets %q is forbidden: exceeded quota: secrets, requested: secrets=1, used: secrets=%d, limited: secrets=%d",
				after.Name, count, most), "secrets", after.Name)
			return false
		}
	}
	if s.refuse != nil {
		seen := Secret{Namespace: after.Namespace, Name: after.Name, Data: map[string]string{}, DryRun: dry}
		for key, value := range after.Data {
			seen.Data[key] = string(value)
		}
		if text := s.refuse(seen); text != "" {
			fail(w, http.StatusForbidden, "Forbidden", fmt.Sprintf("admission webhook \"policy.example.com\" denied the request: %s", text), "", "")
			return false
		}
	}
	switch {
	case before != nil && before.Type != after.Type:
		invalid("type", fmt.Sprintf("Invalid value: %q: field is immutable", after.Type), "FieldValueInvalid")
	case before != nil && before.Immutable && !after.Immutable:
		invalid("immutable", "Forbidden: field is immutable when `immutable` is set", "FieldValueForbidden")
	case before != nil && before.Immutable && !sameData(before.Data, after.Data):
		invalid("data", "Forbidden: field is immutable when `immutable` is set", "FieldValueForbidden")
	case size > maxData:
		invalid("data", fmt.Sprintf("Too long: may not be more than %d bytes", maxData), "FieldValueTooLong")
	default:
		return true
	}
	return false
}

func modified(w http.ResponseWriter, name string) {
	fail(w, http.StatusConflict, "Conflict", fmt.Sprintf("Operation cannot be fulfilled on secrets %q: the object has been modified; "+
		"please apply your changes to the latest version and try again", name), "secrets", name)
}

func decoded(w http.ResponseWriter, body []byte) (*object, bool) {
	var in wire
	if err := json.Unmarshal(body, &in); err != nil {
		fail(w, http.StatusBadRequest, "BadRequest", "the object cannot be read", "", "")
		return nil, false
	}
	return in.object(), true
}

type cause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field"`
}

func fail(w http.ResponseWriter, code int, reason, message, kind, name string) {
	failWith(w, code, reason, message, kind, name, nil)
}

func failWith(w http.ResponseWriter, code int, reason, message, kind, name string, causes []cause) {
	details := map[string]any{}
	if kind != "" {
		details["kind"] = kind
	}
	if name != "" {
		details["name"] = name
	}
	if causes != nil {
		details["causes"] = causes
	}
	answer(w, code, map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "message": message,
		"reason": reason, "details": details, "code": code})
}

func answer(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(text) // the client went away
}

// Encoded returns a value as it is in the data of a Secret.
func Encoded(value string) string { return base64.StdEncoding.EncodeToString([]byte(value)) }
