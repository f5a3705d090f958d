package kubetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// applyType is the media type of server-side apply.
const applyType = "application/apply-patch+yaml"

// patch is a PATCH: a server-side apply, or a JSON patch that clears the record of managers.
func (s *Server) patch(w http.ResponseWriter, r *http.Request, user, namespace, name string, body []byte) {
	before := s.secrets[namespace+"/"+name]
	switch r.Header.Get("Content-Type") {
	case applyType:
	case "application/json-patch+json":
		var ops []struct{ Op, Path string }
		if json.Unmarshal(body, &ops) != nil || len(ops) != 1 || ops[0].Path != "/metadata/managedFields" || before == nil {
			fail(w, http.StatusBadRequest, "BadRequest", "this server only clears managedFields", "", "")
			return
		}
		s.version++
		before.managed, before.Version = nil, s.version
		answer(w, http.StatusOK, before.shown())
		return
	default:
		fail(w, http.StatusUnsupportedMediaType, "UnsupportedMediaType", "the body of the request was in an unknown format", "", "")
		return
	}
	query := r.URL.Query()
	manager, dry := query.Get("fieldManager"), query.Get("dryRun")
	options := func(field, text, reason string) {
		failWith(w, http.StatusUnprocessableEntity, "Invalid", fmt.Sprintf("PatchOptions.meta.k8s.io \"\" is invalid: %s: %s", field, text), "PatchOptions", "",
			[]cause{{reason, text, field}})
	}
	switch {
	case manager == "":
		options("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
		return
	case dry != "" && dry != "All":
		options("dryRun", fmt.Sprintf("Unsupported value: [%q]: supported values: \"All\"", dry), "FieldValueNotSupported")
		return
	}
	var in wire
	if err := json.Unmarshal(body, &in); err != nil || in.Metadata.Name != name {
		fail(w, http.StatusBadRequest, "BadRequest", "the object cannot be read, or has another name", "", "")
		return
	}
	s.apply(w, in, before, applied{user: user, namespace: namespace, manager: manager, force: query.Get("force") == "true", dry: dry != ""})
}

// applied is how an apply was asked for.
type applied struct {
	user, namespace, manager string
	force, dry               bool
}

func (s *Server) apply(w http.ResponseWriter, in wire, before *object, how applied) {
	wanted := in.object()
	wanted.Type = in.Type // no default: what is not there is not applied
	name := in.Metadata.Name
	code := http.StatusOK
	if before == nil {
		code = http.StatusCreated
		if in.Metadata.UID != "" {
			fail(w, http.StatusConflict, "Conflict", fmt.Sprintf("Operation cannot be fulfilled on secrets %q: uid mismatch: the provided object specified uid %s, and no existing object was found",
				name, in.Metadata.UID), "secrets", name)
			return
		}
		if !s.allowed(how.user, "create", "", how.namespace, name) {
			forbid(w, how.user, "create", how.namespace, name)
			return
		}
	}
	after := before.clone()
	if after == nil {
		after = &object{Namespace: how.namespace, Name: name}
	}
	if len(after.managed) == 0 && before != nil {
		after.managed = []entry{{"before-first-apply", "Update", after.paths()}}
	}
	if conflicts := merge(after, wanted, how); len(conflicts) > 0 {
		conflicted(w, conflicts)
		return
	}
	if after.Type == "" {
		after.Type = opaque
	}
	switch {
	case before != nil && in.Metadata.ResourceVersion != "" && in.Metadata.ResourceVersion != before.shown().Metadata.ResourceVersion:
		modified(w, name)
		return
	case before != nil && in.Metadata.UID != "" && in.Metadata.UID != before.UID:
		s.otherUID(w, in)
		return
	}
	if !s.admit(w, before, after, how.dry) {
		return
	}
	if how.dry {
		if before != nil {
			after.Version = before.Version
		}
		answer(w, code, after.shown())
		return
	}
	s.store(before, after)
	answer(w, code, after.shown())
}

func (s *Server) otherUID(w http.ResponseWriter, in wire) {
	text := fmt.Sprintf("Invalid value: %q: field is immutable", in.Metadata.UID)
	failWith(w, http.StatusUnprocessableEntity, "Invalid", fmt.Sprintf("Secret %q is invalid: metadata.uid: %s", in.Metadata.Name, text), "Secret", in.Metadata.Name,
		[]cause{{"FieldValueInvalid", text, "metadata.uid"}, {"FieldValueInvalid", text, "metadata.uid"}})
}

// conflict is a field that another manager owns.
type conflict struct{ manager, operation, path string }

// merge applies an object to another one. If there are conflicts and they are not forced, it returns them.
func merge(after, wanted *object, how applied) (conflicts []conflict) {
	applies := wanted.paths()
	for i := range after.managed {
		e := after.managed[i]
		if e.manager == how.manager && e.operation == "Apply" {
			continue
		}
		for path := range applies {
			now, there := after.value(path)
			if next, _ := wanted.value(path); !e.paths[path] || there && now == next {
				continue
			}
			if !how.force {
				conflicts = append(conflicts, conflict{e.manager, e.operation, path})
				continue
			}
			delete(e.paths, path)
		}
	}
	if len(conflicts) > 0 {
		slices.SortFunc(conflicts, func(a, b conflict) int { return strings.Compare(a.path+a.manager, b.path+b.manager) })
		return conflicts
	}
	own := after.entry(how.manager, "Apply")
	left := own.paths
	own.paths = maps.Clone(applies)
	for path := range left {
		owned := slices.ContainsFunc(after.managed, func(e entry) bool { return e.paths[path] })
		if !applies[path] && !owned {
			after.remove(path)
		}
	}
	for path := range applies {
		after.set(path, wanted)
	}
	return nil
}

func conflicted(w http.ResponseWriter, conflicts []conflict) {
	var causes []cause
	var text strings.Builder
	fmt.Fprintf(&text, "Apply failed with %d conflict", len(conflicts))
	if len(conflicts) > 1 {
		text.WriteString("s")
	}
	for _, c := range conflicts {
		message := fmt.Sprintf("conflict with %q", c.manager)
		if c.operation == "Update" {
			message += " using v1"
		}
		causes = append(causes, cause{"FieldManagerConflict", message, shownPath(c.path)})
		fmt.Fprintf(&text, ": %s: %s", message, shownPath(c.path))
	}
	failWith(w, http.StatusConflict, "Conflict", text.String(), "", "", causes)
}
