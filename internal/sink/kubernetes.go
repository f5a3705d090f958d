package sink

import "rotatord/internal/config"

// Kubernetes implements [config.SinkKinds].
func (o *opener) Kubernetes(*config.KubernetesSink) {}
