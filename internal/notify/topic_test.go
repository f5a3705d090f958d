package notify_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"rotatord/internal/config"
	"rotatord/internal/notify"
	"rotatord/internal/status"
)

// TestTopicsAreComplete: each kind of trouble has a topic, and docs/notifications.md says which.
func TestTopicsAreComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	known := append(slices.Concat(status.Kinds(), status.ReplicaKinds()), "check")
	for _, kind := range known {
		topic, there := notify.TopicOf[kind]
		if !there {
			t.Errorf("%s has no topic", kind)
			continue
		}
		row := ""
		for line := range strings.Lines(string(page)) {
			if strings.HasPrefix(line, "| `"+topic+"` |") {
				row = line
			}
		}
		if !strings.Contains(row, "`"+kind+"`") {
			t.Errorf("docs/notifications.md does not say that %s is in %s", kind, topic)
		}
	}
	for kind := range maps.Keys(notify.TopicOf) {
		if !slices.Contains(known, kind) {
			t.Errorf("%s is not a kind of trouble", kind)
		}
	}
	for kind := range notify.Ended {
		if !slices.Contains(known, kind) {
			t.Errorf("%s ends, and is not a kind of trouble", kind)
		}
	}
	if notify.Topic("a kind of a later version") != config.TopicFailing {
		t.Error("an unknown kind has no topic")
	}
}
