package raw

// Hook is something that runs after each rotation. Exactly one of its fields.
type Hook struct {
	// A program on this machine.
	Exec ExecHook `yaml:"exec"`
	// A signed HTTP request.
	Webhook WebhookHook `yaml:"webhook"`
	// A rollout restart in the cluster that the section kubernetes names.
	Restart RestartHook `yaml:"restart"`
}

// ExecHook is a program that runs after a rotation. It gets no secret.
type ExecHook struct {
	// The program and its arguments, one entry each. Required. No shell reads them. A program without a
	// slash is searched in /usr/local/sbin, /usr/local/bin, /usr/sbin, /usr/bin, /sbin and /bin. The
	// arguments are shown in logs and in status, so they must not hold a secret.
	Command []*string `yaml:"command" jsonschema:"required,example=systemctl" hint:"give the program and its arguments, such as [systemctl, reload, app]"`
	// How long it may run, 1s to 10m. Default 30s. After that it is ended, with all that it has started.
	Timeout *Duration `yaml:"timeout" jsonschema:"default=30s"`
	// How long it waits after a rotation, up to 1h, so that one run serves all tokens with the same hook that
	// are rotated meanwhile. Default 0s: one run for each token, at once.
	Batch *Duration `yaml:"batch" jsonschema:"default=0s,example=1m"`
}

// WebhookHook is a signed POST request that tells of a rotation. It has no secret in it.
type WebhookHook struct {
	// Its URL, https. Required. Plain http is accepted for this host only. A redirect is not followed. The
	// URL is shown in logs and in status, so it must not hold a secret.
	URL *string `yaml:"url" jsonschema:"required,format=uri,example=https://app.example.com/reload" hint:"give the URL of the receiver"`
	// The secret that requests are signed with, in HMAC-SHA256; the receiver has it too. Required.
	Secret Secret `yaml:"secret" jsonschema:"required" hint:"say where the secret for the signature is, such as {file: /etc/rotatord/webhook-secret}"`
	// A PEM file with the authorities that the receiver's certificate must come from, such as that of a private CA. It
	// is read again for each request. Default the system's.
	CAFile *string `yaml:"ca_file" jsonschema:"example=/etc/rotatord/webhook-ca.pem"`
	// How long a request may take, 1s to 10m. Default 30s.
	Timeout *Duration `yaml:"timeout" jsonschema:"default=30s"`
	// How long it waits after a rotation, up to 1h, so that one request tells of all tokens with the same
	// hook that are rotated meanwhile. Default 0s: one request for each token, at once.
	Batch *Duration `yaml:"batch" jsonschema:"default=0s,example=1m"`
}

// RestartHook is a rollout restart of a workload, as kubectl rollout restart does it.
type RestartHook struct {
	// What it is: Deployment, StatefulSet or DaemonSet. Required.
	Kind *string `yaml:"kind" jsonschema:"required,enum=Deployment,enum=StatefulSet,enum=DaemonSet" hint:"give Deployment, StatefulSet or DaemonSet"`
	// Its namespace. Required.
	Namespace *string `yaml:"namespace" jsonschema:"required,pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63,example=ci" hint:"give the namespace, such as ci"`
	// Its name. Required.
	Name *string `yaml:"name" jsonschema:"required,pattern=^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$,maxLength=253,example=app" hint:"give the name of the workload, such as app"`
	// How long the requests to the API server may take, 1s to 10m. Default 30s. The rollout is not waited for.
	Timeout *Duration `yaml:"timeout" jsonschema:"default=30s"`
	// How long it waits after a rotation, up to 1h, so that one restart serves all tokens with the same hook
	// that are rotated meanwhile. Default 0s: one restart for each rotation, at once.
	Batch *Duration `yaml:"batch" jsonschema:"default=0s,example=1m"`
}
