package raw

// VaultAuth is how to log in to Vault. Exactly one of its fields.
type VaultAuth struct {
	// The approle method: the daemon logs in by itself and renews its session. It is the
	// better choice for a daemon.
	AppRole AppRole `yaml:"approle"`
	// A Vault token that exists already. Another program has to renew it, such as Vault
	// Agent with a file sink.
	Token Secret `yaml:"token"`
	// Not supported yet.
	Kubernetes Unsupported `yaml:"kubernetes" hint:"and use another method"`
	// Not supported yet.
	Cert Unsupported `yaml:"cert" hint:"and use another method"`
	// Not supported yet.
	JWT Unsupported `yaml:"jwt" hint:"and use another method"`
}

// AppRole is Vault's approle auth method.
type AppRole struct {
	// Where the method is mounted. Default approle.
	Mount *string `yaml:"mount" jsonschema:"default=approle"`
	// The role's id. Required.
	RoleID Secret `yaml:"role_id" jsonschema:"required" hint:"write {file: PATH} or {env: NAME}"`
	// The secret id. Required. Read again at each login, so a file may be replaced
	// while the daemon runs.
	SecretID Secret `yaml:"secret_id" jsonschema:"required" hint:"write {file: PATH} or {env: NAME}"`
}
