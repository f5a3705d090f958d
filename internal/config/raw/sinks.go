package raw

// Sink is one place that a secret is written to. Exactly one of its fields.
type Sink struct {
	// A secret in Vault.
	Vault VaultSink `yaml:"vault"`
	// A file on this machine.
	File FileSink `yaml:"file"`
	// A Secret of a Kubernetes cluster.
	Kubernetes KubernetesSink `yaml:"kubernetes"`
}

// VaultSink is a secret in a KV mount, version 1 or 2.
type VaultSink struct {
	// The KV mount. Required.
	Mount *string `yaml:"mount" jsonschema:"required,example=secret" hint:"give the KV mount, such as secret"`
	// The secret's path below the mount, as vault kv put takes it: without data/.
	// Required. No two sinks may write to one path.
	Path *string `yaml:"path" jsonschema:"required,example=access/ci-deploy" hint:"give the path below the mount, such as access/ci-deploy"`
	// The names of the fields. Other fields of the secret stay as they are.
	Fields Fields `yaml:"fields"`
	// Writes the rotation, its time, its host and the end of the grace into the custom metadata of the secret,
	// for people: see docs/vault.md. Default true. Without permission to patch the metadata, and in KV
	// version 1, nothing is written there, and rotations work as before. false: never write it.
	Metadata *bool `yaml:"metadata" jsonschema:"default=true"`
}

// FileSink is a file on this machine.
type FileSink struct {
	// The file, as an absolute path. Required. Its directory must exist, and only root, the daemon
	// and the owner of the file may be able to write to it. No two sinks may write to one file. A
	// file that does not survive a restart of the machine, such as one in /run, is gone after it:
	// rotatord keeps no copy of a secret that it has delivered.
	Path *string `yaml:"path" jsonschema:"required,pattern=^/,example=/var/lib/ci/cf.env" hint:"give the absolute path of the file, such as /var/lib/ci/cf.env"`
	// env for lines of NAME=VALUE, as systemd, shells and Docker read them; json or yaml for a
	// mapping. Default env. What else is in the file stays as it is. A file that cannot be read in
	// this format is never overwritten.
	Format *string `yaml:"format" jsonschema:"enum=env,enum=json,enum=yaml,default=env"`
	// The mode of the file in octal digits. Default 0600, which lets only its owner read the
	// secret. The file gets it at each write, whatever mode it had before.
	Mode *string `yaml:"mode" jsonschema:"pattern=^0?[0-7]{3}$,default=0600,example=0640"`
	// The user that owns the file, by name or number. Default that of the file that is there, or
	// else the daemon's user. Only root can give a file to another user.
	Owner *string `yaml:"owner" jsonschema:"example=ci"`
	// The group of the file, by name or number. Default that of the file that is there, or else
	// the daemon's group. Without being root the daemon can give it only to its own groups.
	Group *string `yaml:"group" jsonschema:"example=ci"`
	// The names of the two variables (env) or keys (json, yaml).
	Fields Fields `yaml:"fields"`
}

// KubernetesSink is a Secret of the cluster that the section kubernetes names.
type KubernetesSink struct {
	// The namespace of the Secret. It must exist. Required.
	Namespace *string `yaml:"namespace" jsonschema:"required,pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63,example=ci" hint:"give the namespace, such as ci"`
	// The name of the Secret. Required. No two sinks may write to one Secret. It is best
	// created beforehand, and empty: then rotatord needs no right to create Secrets.
	Name *string `yaml:"name" jsonschema:"required,pattern=^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$,maxLength=253,example=cf-access" hint:"give the name of the Secret, such as cf-access"`
	// The type of the Secret. Default Opaque. Kubernetes never changes the type of a Secret, so
	// one of another type is refused. The types of Kubernetes itself (kubernetes.io/...)
	// need other keys and are not accepted.
	Type *string `yaml:"type" jsonschema:"default=Opaque,example=example.com/access"`
	// Labels that the Secret gets. Default none. Its other labels stay, and so does one that is
	// removed from here.
	Labels map[string]*string `yaml:"labels" jsonschema:"example=team=ci" hint:"give at least one label, or remove the key"`
	// Field managers, such as kubectl-create, from which rotatord takes over its keys and labels.
	// Default none: a key that another program has written and may write again is refused,
	// with the name to write here. A name that stays here is harmless.
	TakeOver []*string `yaml:"take_over" jsonschema:"example=kubectl-create" hint:"give the name of at least one field manager, such as kubectl-create, or remove the key"`
	// The names of the two keys in the Secret's data. Other keys stay as they are.
	Fields Fields `yaml:"fields"`
}

// Fields are the names under which the two halves of the credential are stored, and those of the previous
// one. All must differ.
type Fields struct {
	// The field of the client id. Default client_id.
	ClientID *string `yaml:"client_id" jsonschema:"default=client_id,example=CF_ACCESS_CLIENT_ID"`
	// The field of the client secret. Default client_secret.
	ClientSecret *string `yaml:"client_secret" jsonschema:"default=client_secret,example=CF_ACCESS_CLIENT_SECRET"`
	// The field of the previous client secret, while its grace lasts. By default there is none: whoever
	// reads the place then reads two secrets that work. It is empty while no previous secret works.
	PreviousSecret *string `yaml:"previous_client_secret" jsonschema:"example=CF_ACCESS_PREVIOUS_CLIENT_SECRET"`
	// The field of the time, as in RFC 3339, until which the previous secret works at least. By default there
	// is none. It needs previous_client_secret.
	PreviousEnds *string `yaml:"previous_expires_at" jsonschema:"example=CF_ACCESS_PREVIOUS_EXPIRES_AT"`
	// The field of the client id that belongs to the previous secret. A pair, and strategy: replace, change
	// the client id and need it beside previous_client_secret. By default there is none.
	PreviousID *string `yaml:"previous_client_id" jsonschema:"example=CF_ACCESS_PREVIOUS_CLIENT_ID"`
}
