package deploy

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

// TestClusterReplicasUpgrade: a newer chart, configuration, image and number of replicas are accepted for the StatefulSet
// that is there. Of a StatefulSet most of what concerns its volumes can never be changed.
func TestClusterReplicasUpgrade(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	namespace, err := objectsOf([]byte(readFile(t, "deploy/kubernetes/base/namespace.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	apply := func(version string, values map[string]any) error {
		t.Helper()
		chart, err := loader.Load(filepath.Join(root, chartDir))
		if err != nil {
			t.Fatal(err)
		}
		chart.Metadata.Version, chart.Metadata.AppVersion = version, "v"+version
		all, err := util.ToRenderValues(chart, values, common.ReleaseOptions{Name: "rotatord", Namespace: "rotatord"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		files, err := engine.Render(chart, all)
		if err != nil {
			t.Fatal(err)
		}
		objects := []*unstructured.Unstructured{namespace[0]}
		for name, text := range files {
			if filepath.Ext(name) != ".yaml" {
				continue
			}
			more, err := objectsOf([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			objects = append(objects, more...)
		}
		for _, o := range objects {
			if _, err := c.apply(t, o); err != nil {
				return err
			}
		}
		return nil
	}
	values := func() map[string]any { return valuesFor(t, severalReplicas) }
	if err := apply("1.0.0", values()); err != nil {
		t.Fatal(err)
	}
	next := values()
	next["config"] = "# changed\n" + next["config"].(string)
	next["replicas"], next["podLabels"], next["shutdownSeconds"] = 5, map[string]any{"team": "a"}, 60
	if err := apply("1.1.0", next); err != nil {
		t.Errorf("an upgrade is refused: %v", err)
	}
	other := values()
	other["persistence"] = map[string]any{"storageClassName": "other"}
	if err := apply("1.2.0", other); refused(err) != http.StatusUnprocessableEntity || !strings.Contains(err.Error(), "Forbidden: updates to statefulset spec") {
		t.Errorf("another storage class: %v: this test shows nothing", err)
	}
}

// TestClusterHelmRefusesTwo: the chart does not start replicas beside one daemon that runs, and not the other way round: both
// would rotate the same tokens.
func TestClusterHelmRefusesTwo(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	namespace, err := objectsOf([]byte(readFile(t, "deploy/kubernetes/base/namespace.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.apply(t, namespace[0]); err != nil {
		t.Fatal(err)
	}
	upgrade := func(name string) error {
		t.Helper()
		chart, err := loader.Load(filepath.Join(root, chartDir))
		if err != nil {
			t.Fatal(err)
		}
		all, err := util.ToRenderValues(chart, valuesFor(t, name), common.ReleaseOptions{Name: "rotatord", Namespace: "rotatord", IsUpgrade: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = engine.RenderWithClient(chart, all, &rest.Config{Host: c.URL, BearerToken: c.AdminToken, TLSClientConfig: rest.TLSClientConfig{CAFile: c.CAFile}})
		return err
	}
	for _, from := range []struct{ installed, resource, to, says string }{
		{"base", "deployments", severalReplicas, "The Deployment of one daemon still runs"},
		{severalReplicas, "statefulsets", "base", "The StatefulSet of several replicas still runs"},
	} {
		for _, o := range mustRender(t, valuesFor(t, from.installed)) {
			if _, err := c.apply(t, o); err != nil {
				t.Fatal(err)
			}
		}
		if err := upgrade(from.installed); err != nil {
			t.Errorf("an upgrade of %s: %v", from.installed, err)
		}
		if err := upgrade(from.to); err == nil || !strings.Contains(err.Error(), from.says) {
			t.Errorf("%s beside %s: %v", from.to, from.installed, err)
		}
		path := "/apis/apps/v1/namespaces/rotatord/" + from.resource + "/rotatord"
		if _, err := c.send(t, c.AdminToken, http.MethodPatch, path, "application/merge-patch+json", `{"spec": {"replicas": 0}}`); err != nil {
			t.Fatal(err)
		}
		if err := upgrade(from.to); err != nil {
			t.Errorf("%s after %s was stopped: %v", from.to, from.installed, err)
		}
		if _, err := c.send(t, c.AdminToken, http.MethodDelete, path, "", ""); err != nil {
			t.Fatal(err)
		}
	}
}
