package sink

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/moment"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
)

const (
	// fieldManager is the name under which rotatord owns its keys. It is the same for all sinks and all daemons,
	// so a token can be renamed and moved. See [Kubernetes.application] for why that removes nothing.
	fieldManager = "rotatord"
	// creator is the field manager that creates a Secret without data. It differs from fieldManager, so that a
	// creation that arrives late cannot remove keys.
	creator = "rotatord-create"
	// dataMargin is how many bytes a rotation may add to a Secret.
	dataMargin = 4 << 10
)

// Kubernetes is a Secret of a cluster. It implements [Sink].
//
// It is written by server-side apply, with only our keys and labels. Every write that has a secret names the
// version of the Secret that was read, so a write that arrives late, or after a change by another writer, is
// refused. A field that another field manager owns is never taken, unless take_over names that manager.
// Nothing is ever removed from a Secret: neither a key nor a label.
type Kubernetes struct {
	client *kubernetes.Client
	config config.KubernetesSink
	base   kept[basis] // what the last Preflight has read
}

// basis is what a write is against.
type basis struct {
	now    *kubernetes.Secret // nil if there was none
	stored rotation.Stored
}

// Kubernetes implements [config.SinkKinds].
func (o *opener) Kubernetes(c *config.KubernetesSink) {
	o.opened = NewKubernetes(o.Deps.Kubernetes, *c)
}

// NewKubernetes returns a sink for one Secret.
func NewKubernetes(client *kubernetes.Client, c config.KubernetesSink) *Kubernetes {
	return &Kubernetes{client: client, config: c}
}

// Name implements [rotation.Sink].
func (k *Kubernetes) Name() string { return config.SinkName(&k.config) }

// Preflight implements [rotation.Sink]. It sends the same request as the write, as a dry run.
func (k *Kubernetes) Preflight(ctx context.Context) (rotation.Stored, error) {
	now, err := k.preflight(ctx)
	if err != nil {
		return rotation.Stored{}, err
	}
	s := k.stored(now)
	k.base.keep(basis{now, s})
	return s, nil
}

// LookAhead implements [Sink].
func (k *Kubernetes) LookAhead(ctx context.Context) error {
	_, err := k.preflight(ctx)
	return err
}

// Look implements [rotation.Looker].
func (k *Kubernetes) Look(ctx context.Context) (rotation.Stored, error) {
	now, err := k.read(ctx)
	if err != nil {
		return rotation.Stored{}, err
	}
	return k.stored(now), nil
}

// ReadBack implements [rotation.SinkReader].
func (k *Kubernetes) ReadBack(ctx context.Context) (rotation.Credential, error) {
	now, err := k.read(ctx)
	if err != nil {
		return rotation.Credential{}, err
	}
	get := textOf(now)
	return rotation.Credential{ClientID: get(k.config.ClientIDField), ClientSecret: secret.New(get(k.config.ClientSecretField))}, nil
}

func (k *Kubernetes) read(ctx context.Context) (*kubernetes.Secret, error) {
	now, err := k.client.Get(ctx, k.config.Namespace, k.config.Name)
	if err != nil {
		return nil, k.wrap("reading", err)
	}
	return now, nil
}

func (k *Kubernetes) wrap(doing string, err error) error {
	return fmt.Errorf("%s the Secret %s: %w", doing, k.config.Place(), err)
}

// textOf returns the function that returns the value of a key, empty if there is none.
func textOf(s *kubernetes.Secret) func(name string) string {
	return func(name string) string {
		if s == nil {
			return ""
		}
		return string(s.Data[name])
	}
}

// stored describes a Secret. One that was created beforehand, without data, is an empty place.
func (k *Kubernetes) stored(now *kubernetes.Secret) rotation.Stored {
	if now == nil || len(now.Data) == 0 {
		return rotation.Stored{}
	}
	get := textOf(now)
	return rotation.Stored{Exists: true, ClientID: get(k.config.ClientIDField), Digest: secret.New(get(k.config.ClientSecretField)).Digest()}
}

// preflight reads the Secret and proves that it can be written. The dry run goes through authentication, RBAC,
// admission and validation. It has the values that are stored already, so a server that ignored dryRun would
// store nothing new. Who owns our keys is therefore decided here, as the API server decides it.
func (k *Kubernetes) preflight(ctx context.Context) (*kubernetes.Secret, error) {
	for range maxConflicts {
		now, err := k.read(ctx)
		if err != nil {
			return nil, err
		}
		if err := k.writable(now); err != nil {
			return nil, err
		}
		get := textOf(now)
		var same, changed []assignment
		for _, name := range ownFields(k.config.SinkFields) {
			same, changed = append(same, assignment{name, get(name)}), append(changed, assignment{name, get(name) + "?"})
		}
		force, err := k.ownership(now, changed)
		if err != nil {
			return nil, err
		}
		probe := k.application(now, same)
		probe.Force, probe.DryRun, probe.Operation = force, true, "probe"
		_, err = k.client.Apply(ctx, probe)
		switch {
		case err == nil:
			return now, nil
		case !kubernetes.Changed(err):
			return nil, k.wrap("trying whether a write is allowed to", err)
		}
		if err := moment.Sleep(ctx, conflictPause); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("another writer changed the Secret %s %d times in a row, each time between reading it and trying to write it", k.config.Place(), maxConflicts)
}

// writable refuses a Secret that cannot take a credential, or would not keep it.
func (k *Kubernetes) writable(now *kubernetes.Secret) error {
	if now == nil {
		return nil
	}
	place := k.config.Place()
	switch {
	case now.Deleting:
		return fmt.Errorf("the Secret %s is being deleted and waits for its finalizers: what is written now would be lost with it. "+
			"See kubectl get secret %s -n %s -o jsonpath='{.metadata.finalizers}'", place, k.config.Name, k.config.Namespace)
	case now.Immutable:
		return fmt.Errorf("the Secret %s is immutable, and Kubernetes never lets that be changed: delete it and create one that is not, or name another one", place)
	case now.Type != k.config.Type:
		return fmt.Errorf("the Secret %s has the type %s and not %s, and Kubernetes never changes the type of a Secret: "+
			"write type: %s in the configuration, or delete the Secret", place, shown(now.Type), k.config.Type, shown(now.Type))
	case now.Size() > kubernetes.MaxData-dataMargin:
		return fmt.Errorf("the Secret %s has %d bytes of data, and Kubernetes accepts at most %d: remove keys that are not used, or name another Secret",
			place, now.Size(), kubernetes.MaxData)
	}
	return nil
}

// ownership returns whether fields must be taken from other field managers so that ours get their values. It
// returns an error if such a manager is not one of take_over. The API server decides the same when the write
// comes; before a rotation it must be known without a secret.
func (k *Kubernetes) ownership(now *kubernetes.Secret, ours []assignment) (force bool, err error) {
	if now == nil {
		return false, nil
	}
	var foreign []kubernetes.Conflict
	look := func(shown string, path ...string) {
		for _, owner := range now.Owners(fieldManager, path...) {
			force = true
			if owner != fieldManager && owner != creator && !slices.Contains(k.config.TakeOver, owner) {
				foreign = append(foreign, kubernetes.Conflict{Field: shown, Manager: owner})
			}
		}
	}
	for _, a := range ours {
		if has, there := now.Data[a.name]; there && string(has) != a.value {
			look("data."+a.name, "data", a.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.config.Labels)) {
		if has, there := now.Labels[name]; there && has != k.config.Labels[name] {
			look("metadata.labels."+name, "metadata", "labels", name)
		}
	}
	return force, k.conflict(foreign)
}

// conflict describes fields that other field managers own; nil if there are none.
func (k *Kubernetes) conflict(foreign []kubernetes.Conflict) error {
	if len(foreign) == 0 {
		return nil
	}
	var fields, managers []string
	for _, f := range foreign {
		fields = append(fields, fmt.Sprintf("%s belongs to the field manager %s", shown(f.Field), shown(f.Manager)))
		if !slices.Contains(managers, f.Manager) {
			managers = append(managers, f.Manager)
		}
	}
	return fmt.Errorf("in the Secret %s %s: if that program writes the key again, it undoes each rotation. Stop it, and then write "+
		"take_over: [%s] in the sink; or write other names in fields", k.config.Place(), strings.Join(fields, ", and "), shown(strings.Join(managers, ", ")))
}

// application is a server-side apply of our keys and labels, against what was read.
//
// The API server removes what the same field manager has applied before and leaves out now. So the keys, labels
// and annotations that it owns beside ours are applied again, with the values that were read: those of a key
// that had another name in an older configuration, or those of another sink. The version of the Secret
// in the request keeps that from undoing a change.
func (k *Kubernetes) application(now *kubernetes.Secret, ours []assignment) kubernetes.Application {
	a := kubernetes.Application{
		Namespace: k.config.Namespace, Name: k.config.Name, Manager: fieldManager, Type: k.config.Type,
		Data: make(map[string][]byte, len(ours)), Labels: map[string]string{}, Annotations: map[string]string{},
	}
	if now != nil {
		a.UID, a.ResourceVersion = now.UID, now.ResourceVersion
		keep(a.Data, now.Data, now.Applied(fieldManager, "data"))
		keep(a.Labels, now.Labels, now.Applied(fieldManager, "metadata", "labels"))
		keep(a.Annotations, now.Annotations, now.Applied(fieldManager, "metadata", "annotations"))
	}
	for _, one := range ours {
		a.Data[one.name] = []byte(one.value)
	}
	maps.Copy(a.Labels, k.config.Labels)
	return a
}

// keep copies the named entries that are there.
func keep[V any](to, from map[string]V, names []string) {
	for _, name := range names {
		if value, there := from[name]; there {
			to[name] = value
		}
	}
}
