package deploy

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestReplicas: what several replicas have that one pod has not.
func TestReplicas(t *testing.T) {
	m := build(t, severalReplicas)
	set := m.replicas.Spec
	if set.Replicas == nil || *set.Replicas != 3 {
		t.Error("there must be three replicas")
	}
	if set.PodManagementPolicy != appsv1.ParallelPodManagement {
		t.Error("a replica that is not ready would keep the others from starting, and its own repair from being rolled out")
	}
	if set.UpdateStrategy.Type != appsv1.RollingUpdateStatefulSetStrategyType || set.UpdateStrategy.RollingUpdate != nil {
		t.Errorf("a rollout does not go from one replica to the next: %+v", set.UpdateStrategy)
	}
	if p := set.PersistentVolumeClaimRetentionPolicy; p == nil || p.WhenDeleted != appsv1.RetainPersistentVolumeClaimRetentionPolicyType || p.WhenScaled != p.WhenDeleted {
		t.Errorf("a volume may have the only copy of a secret, and would be deleted: %+v", p)
	}
	if set.ServiceName != m.service.Name {
		t.Errorf("the StatefulSet names the Service %q", set.ServiceName)
	}
	// A rollout waits for each pod, so it must not need as many hosts as there are replicas.
	pod := m.pod().Spec
	if a := pod.Affinity.PodAntiAffinity; len(a.RequiredDuringSchedulingIgnoredDuringExecution) != 0 || len(a.PreferredDuringSchedulingIgnoredDuringExecution) != 1 ||
		a.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm.TopologyKey != corev1.LabelHostname {
		t.Errorf("anti-affinity: %+v", a)
	}
	hosts := pod.TopologySpreadConstraints[0]
	if hosts.TopologyKey != corev1.LabelHostname || hosts.WhenUnsatisfiable != corev1.DoNotSchedule || hosts.MaxSkew != *set.Replicas-1 || *hosts.MinDomains != 2 {
		t.Errorf("all replicas could be on one host: %+v", hosts)
	}
	// Only where it runs and its volume differ from the pod of the base.
	one := build(t, "base").pod().DeepCopy()
	several := m.pod().DeepCopy()
	for _, p := range []*corev1.PodTemplateSpec{one, several} {
		p.Spec.Affinity, p.Spec.TopologySpreadConstraints, p.Spec.Containers[0].Image = nil, nil, ""
		for i := range p.Spec.Volumes {
			if v := &p.Spec.Volumes[i]; v.Name == "config" || v.Name == "state" {
				v.VolumeSource = corev1.VolumeSource{}
			}
		}
	}
	if got, want := sortedPod(t, several), sortedPod(t, one); got != want {
		t.Errorf("the pod differs from that of the base:\n%s", firstDifference(got, want))
	}
}

func sortedPod(t *testing.T, pod *corev1.PodTemplateSpec) string {
	t.Helper()
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	o := &unstructured.Unstructured{}
	if err := json.Unmarshal(text, &o.Object); err != nil {
		t.Fatal(err)
	}
	for _, sorted := range byIdentity(t, []*unstructured.Unstructured{o}) {
		return sorted
	}
	return ""
}

// TestHelmReplicas: the kind of the workload follows the configuration, so scaling never abandons the volumes, and
// what keeps replicas apart follows their number.
func TestHelmReplicas(t *testing.T) {
	for replicas, skew := range map[int]string{1: `"maxSkew":1,"minDomains":2`, 2: `"maxSkew":1,"minDomains":2`, 3: `"maxSkew":2,"minDomains":2`, 5: `"maxSkew":4,"minDomains":2`} {
		values := valuesFor(t, severalReplicas)
		values["replicas"] = replicas
		kinds := map[string]string{}
		for _, o := range mustRender(t, values) {
			text, err := json.Marshal(o.Object)
			if err != nil {
				t.Fatal(err)
			}
			kinds[o.GetKind()] = string(text)
		}
		if kinds["Deployment"] != "" || kinds["PersistentVolumeClaim"] != "" || !strings.Contains(kinds["StatefulSet"], skew) {
			t.Errorf("%d replica(s): %v", replicas, kinds)
		}
	}
	values := valuesFor(t, severalReplicas)
	values["affinity"] = map[string]any{"nodeAffinity": map[string]any{}}
	values["topologySpreadConstraints"] = []any{map[string]any{"topologyKey": "rack", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway"}}
	for _, o := range mustRender(t, values) {
		if text, _ := json.Marshal(o.Object); o.GetKind() == "StatefulSet" && (strings.Contains(string(text), "podAntiAffinity") || strings.Contains(string(text), "minDomains") || !strings.Contains(string(text), `"rack"`)) {
			t.Errorf("the user's rules do not replace those of the chart:\n%s", text)
		}
	}
	notes, err := renderFiles(filepath.Join(root, chartDir), "prod", valuesFor(t, severalReplicas))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"rollout status statefulset/prod-rotatord", "state-prod-rotatord-0"} {
		if got := notes["rotatord/templates/NOTES.txt"]; !strings.Contains(got, want) {
			t.Errorf("no %q in the notes:\n%s", want, got)
		}
	}
}
