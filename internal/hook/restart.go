package hook

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"rotatord/internal/config"
	"rotatord/internal/failpoint"
	"rotatord/internal/kubernetes"
	"rotatord/internal/rotation"
)

// Annotation is the annotation of the pod template by which a workload is restarted. Its value has one entry for each
// token, such as ci-deploy=sha256:0123456789abcdef. It changes with each rotation, and not with anything else.
const Annotation = "rotatord.dev/restarted-for"

// restartTries is how often the restart is tried if another writer changes the object at the same time.
const restartTries = 5

// Restart implements [config.HookKinds].
func (o *opener) Restart(c *config.RestartHook) { o.opened = &restart{c, o.Kubernetes} }

// restart restarts a workload.
type restart struct {
	config *config.RestartHook
	client *kubernetes.Client
}

func (r *restart) workload() kubernetes.Workload {
	return kubernetes.Workload{Kind: r.config.Workload, Namespace: r.config.Namespace, Name: r.config.Name}
}

// Run implements [Hook]. If the annotation says already that the workload was restarted for all items, nothing is
// written: a restart that took place is not repeated after a crash. The entries of other tokens stay.
func (r *restart) Run(ctx context.Context, items []Item) error {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	var last error
	for range restartTries {
		template, err := r.client.Template(ctx, r.workload())
		if err != nil {
			return err
		}
		value, changed := restartedFor(template.Annotations[Annotation], items)
		if !changed {
			return nil
		}
		if err := rotation.MaySend(ctx); err != nil { // after a conflict, the restart may have been for something newer than ours
			return err
		}
		failpoint.Reach("hook.effect.before")
		err = r.client.Annotate(ctx, r.workload(), template.ResourceVersion, map[string]string{Annotation: value})
		failpoint.Reach("hook.effect.after")
		if err == nil || !kubernetes.Changed(err) {
			return err
		}
		last = err // another writer was faster
	}
	return fmt.Errorf("other writers changed the object %d times meanwhile: %w", restartTries, last)
}

// Check implements [Hook]: it reads the object and changes it in a dry run.
func (r *restart) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.config.Timeout)
	defer cancel()
	template, err := r.client.Template(ctx, r.workload())
	if err != nil {
		return err
	}
	return r.client.TryAnnotate(ctx, r.workload(), template.ResourceVersion, map[string]string{Annotation: "dry-run"})
}

// restartedFor returns the annotation after a restart for the items, and whether it differs from the one before.
func restartedFor(before string, items []Item) (value string, changed bool) {
	entries := strings.Fields(before)
	for _, item := range items {
		entry := item.Token + "=" + string(item.Digest)
		if suffix, again := strings.CutPrefix(item.ID, item.RotationID); again {
			entry += suffix // an operator wants it again
		}
		at := slices.IndexFunc(entries, func(e string) bool { return strings.HasPrefix(e, item.Token+"=") })
		switch {
		case at < 0:
			entries, changed = append(entries, entry), true
		case entries[at] != entry:
			entries[at], changed = entry, true
		}
	}
	slices.Sort(entries)
	return strings.Join(entries, " "), changed
}
