package raw

// Sink is one place that a secret is written to. Exactly one of its fields.
type Sink struct {
	// A secret in Vault.
	Vault VaultSink `yaml:"vault"`
	// Not supported yet.
	File Unsupported `yaml:"file" hint:"and use a vault sink"`
}

// VaultSink is a secret in a KV mount, version 1 or 2.
type VaultSink struct {
	// The KV mount. Required.
	Mount *string `yaml:"mount" jsonschema:"required,example=secret" hint:"give the KV mount, such as secret"`
	// The secret's path below the mount, as vault kv put takes it: without data/.
	// Required. No two sinks may write to one path.
	Path *string `yaml:"path" jsonschema:"required,example=access/ci-deploy" hint:"give the path below the mount, such as access/ci-deploy"`
	// The names of the two fields. Other fields of the secret stay as they are.
	Fields Fields `yaml:"fields"`
}

// Fields are the names under which the two halves of the credential are stored.
// They must differ.
type Fields struct {
	// The field of the client id. Default client_id.
	ClientID *string `yaml:"client_id" jsonschema:"default=client_id,example=CF_ACCESS_CLIENT_ID"`
	// The field of the client secret. Default client_secret.
	ClientSecret *string `yaml:"client_secret" jsonschema:"default=client_secret,example=CF_ACCESS_CLIENT_SECRET"`
}
