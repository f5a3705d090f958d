package kubetest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const opaque = "Opaque"

// object is a stored Secret.
type object struct {
	Namespace, Name, UID string
	Version              int
	Created              time.Time
	Deleting             bool
	Finalizers           []string
	Type                 string
	Immutable            bool
	Labels, Annotations  map[string]string
	Data                 map[string][]byte
	managed              []entry
}

// entry says which fields a manager owns, by their paths.
type entry struct {
	manager, operation string
	paths              map[string]bool
}

// The beginnings of paths.
const (
	inData        = "data\x00"
	inLabels      = "metadata\x00labels\x00"
	inAnnotations = "metadata\x00annotations\x00"
	atType        = "type"
	atImmutable   = "immutable"
)

// wire is a Secret in JSON.
type wire struct {
	Kind       string            `json:"kind"`
	APIVersion string            `json:"apiVersion"`
	Metadata   wireMetadata      `json:"metadata"`
	Data       map[string][]byte `json:"data,omitempty"`
	Type       string            `json:"type,omitempty"`
	Immutable  *bool             `json:"immutable,omitempty"`
}

type wireMetadata struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace,omitempty"`
	UID               string            `json:"uid,omitempty"`
	ResourceVersion   string            `json:"resourceVersion,omitempty"`
	CreationTimestamp string            `json:"creationTimestamp,omitempty"`
	DeletionTimestamp string            `json:"deletionTimestamp,omitempty"`
	Finalizers        []string          `json:"finalizers,omitempty"`
	Labels            map[string]string `json:"labels,omitempty"`
	Annotations       map[string]string `json:"annotations,omitempty"`
	ManagedFields     []wireManaged     `json:"managedFields,omitempty"`
}

type wireManaged struct {
	Manager    string         `json:"manager"`
	Operation  string         `json:"operation"`
	APIVersion string         `json:"apiVersion"`
	FieldsType string         `json:"fieldsType"`
	FieldsV1   map[string]any `json:"fieldsV1"`
}

func (in wire) object() *object {
	version, _ := strconv.Atoi(in.Metadata.ResourceVersion)
	o := &object{
		Namespace: in.Metadata.Namespace, Name: in.Metadata.Name, UID: in.Metadata.UID, Version: version, Finalizers: in.Metadata.Finalizers,
		Type: in.Type, Immutable: in.Immutable != nil && *in.Immutable, Labels: in.Metadata.Labels, Annotations: in.Metadata.Annotations, Data: in.Data,
	}
	if o.Type == "" {
		o.Type = opaque
	}
	return o
}

func (o *object) clone() *object {
	if o == nil {
		return nil
	}
	other := *o
	other.Labels, other.Annotations, other.Data = maps.Clone(o.Labels), maps.Clone(o.Annotations), maps.Clone(o.Data)
	other.managed = nil
	for _, e := range o.managed {
		other.managed = append(other.managed, entry{e.manager, e.operation, maps.Clone(e.paths)})
	}
	return &other
}

// shown returns the object as the API shows it.
func (o *object) shown() wire {
	out := wire{Kind: "Secret", APIVersion: "v1", Data: o.Data, Type: o.Type, Metadata: wireMetadata{
		Name: o.Name, Namespace: o.Namespace, UID: o.UID, Labels: o.Labels, Annotations: o.Annotations, Finalizers: o.Finalizers,
		CreationTimestamp: o.Created.Format(time.RFC3339),
	}}
	if o.Version > 0 {
		out.Metadata.ResourceVersion = strconv.Itoa(o.Version)
	}
	if o.Immutable {
		out.Immutable = &o.Immutable
	}
	if o.Deleting {
		out.Metadata.DeletionTimestamp = time.Now().UTC().Format(time.RFC3339)
	}
	for _, e := range o.managed {
		out.Metadata.ManagedFields = append(out.Metadata.ManagedFields, wireManaged{e.manager, e.operation, "v1", "FieldsV1", e.fields()})
	}
	return out
}

func (e entry) fields() map[string]any {
	root := map[string]any{}
	for path := range e.paths {
		at := root
		for name := range strings.SplitSeq(path, "\x00") {
			next, there := at["f:"+name].(map[string]any)
			if !there {
				next = map[string]any{}
				at["f:"+name] = next
			}
			at = next
		}
	}
	return root
}

// entry returns the entry of a manager, a new one if there is none.
func (o *object) entry(manager, operation string) *entry {
	i := slices.IndexFunc(o.managed, func(e entry) bool { return e.manager == manager && e.operation == operation })
	if i < 0 {
		o.managed = append(o.managed, entry{manager, operation, map[string]bool{}})
		i = len(o.managed) - 1
	}
	return &o.managed[i]
}

// paths returns the fields that the object has.
func (o *object) paths() map[string]bool {
	all := map[string]bool{}
	if o == nil {
		return all
	}
	for key := range o.Data {
		all[inData+key] = true
	}
	for key := range o.Labels {
		all[inLabels+key] = true
	}
	for key := range o.Annotations {
		all[inAnnotations+key] = true
	}
	if o.Type != "" {
		all[atType] = true
	}
	if o.Immutable {
		all[atImmutable] = true
	}
	return all
}

// value returns the value of a field, and false if the object does not have it.
func (o *object) value(path string) (value string, there bool) {
	if o == nil {
		return "", false
	}
	if key, ok := strings.CutPrefix(path, inData); ok {
		content, there := o.Data[key]
		return string(content), there
	}
	if key, ok := strings.CutPrefix(path, inLabels); ok {
		value, there = o.Labels[key]
		return value, there
	}
	if key, ok := strings.CutPrefix(path, inAnnotations); ok {
		value, there = o.Annotations[key]
		return value, there
	}
	if path == atType {
		return o.Type, o.Type != ""
	}
	return strconv.FormatBool(o.Immutable), o.Immutable
}

// set takes over the value of a field from another object.
func (o *object) set(path string, from *object) {
	if key, ok := strings.CutPrefix(path, inData); ok {
		if o.Data == nil {
			o.Data = map[string][]byte{}
		}
		o.Data[key] = from.Data[key]
	} else if key, ok := strings.CutPrefix(path, inLabels); ok {
		if o.Labels == nil {
			o.Labels = map[string]string{}
		}
		o.Labels[key] = from.Labels[key]
	} else if key, ok := strings.CutPrefix(path, inAnnotations); ok {
		if o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[key] = from.Annotations[key]
	} else if path == atType {
		o.Type = from.Type
	} else {
		o.Immutable = from.Immutable
	}
}

// remove removes a field.
func (o *object) remove(path string) {
	if key, ok := strings.CutPrefix(path, inData); ok {
		delete(o.Data, key)
	} else if key, ok := strings.CutPrefix(path, inLabels); ok {
		delete(o.Labels, key)
	} else if key, ok := strings.CutPrefix(path, inAnnotations); ok {
		delete(o.Annotations, key)
	} else if path == atImmutable {
		o.Immutable = false
	}
}

// changes returns the fields that differ.
func changes(before, after *object) (all []string) {
	paths := before.paths()
	maps.Copy(paths, after.paths())
	for path := range paths {
		a, there := before.value(path)
		b, here := after.value(path)
		if a != b || there != here {
			all = append(all, path)
		}
	}
	slices.Sort(all)
	return all
}

func (o *object) equal(other *object) bool {
	return len(changes(o, other)) == 0 && slices.EqualFunc(o.managed, other.managed, func(a, b entry) bool {
		return a.manager == b.manager && a.operation == b.operation && maps.Equal(a.paths, b.paths)
	})
}

func sameData(a, b map[string][]byte) bool {
	return maps.EqualFunc(a, b, func(x, y []byte) bool { return string(x) == string(y) })
}

// shownPath returns a path as conflicts show it.
func shownPath(path string) string { return "." + strings.ReplaceAll(path, "\x00", ".") }
