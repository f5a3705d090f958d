package raw

// VaultAuth is how to log in to Vault. Exactly one of its fields.
type VaultAuth struct {
	// The kubernetes method: the daemon logs in with the token of its service account, which
	// Kubernetes renews. It is the better choice in a cluster, because there is no long-lived secret.
	Kubernetes KubernetesAuth `yaml:"kubernetes" hint:"write at least the role, as in {role: rotatord}"`
	// The jwt method: the daemon logs in with a JWT that another program writes and renews.
	JWT JWTAuth `yaml:"jwt" hint:"write at least the role and the place of the JWT, as in {role: rotatord, file: /run/token}"`
	// The cert method: the daemon logs in with the client certificate of tls.cert_file. The
	// address must be https.
	Cert CertAuth `yaml:"cert" hint:"write {} or the role, as in {role: rotatord}"`
	// The approle method: the daemon logs in with a role ID and a secret ID. It is the
	// better choice on a host.
	AppRole AppRole `yaml:"approle"`
	// A Vault token that exists already. Another program has to renew it, such as Vault
	// Agent with a file sink.
	Token Secret `yaml:"token"`
	// A Vault Agent or Vault Proxy on this machine that adds its own token (auto-auth). The daemon sends
	// none. The address must be on this machine: http://127.0.0.1:8100, or unix:///run/vault/agent.sock.
	Agent AgentAuth `yaml:"agent" hint:"write {}"`
}

// KubernetesAuth is Vault's kubernetes auth method.
type KubernetesAuth struct {
	// The role of the method. Required.
	Role *string `yaml:"role" jsonschema:"required,example=rotatord" hint:"give the role that Vault has at auth/MOUNT/role/ROLE"`
	// Where the method is mounted. Default kubernetes.
	Mount *string `yaml:"mount" jsonschema:"default=kubernetes"`
	// The file of the service account's token. Default
	// /var/run/secrets/rotatord/token, where deploy/kubernetes mounts a token for Vault alone.
	// Read at each login, and when it changes the daemon logs in again.
	File *string `yaml:"file" jsonschema:"default=/var/run/secrets/rotatord/token"`
}

// JWTAuth is Vault's jwt auth method.
type JWTAuth struct {
	// The role of the method. Required.
	Role *string `yaml:"role" jsonschema:"required,example=rotatord" hint:"give the role that Vault has at auth/MOUNT/role/ROLE"`
	// Where the method is mounted. Default jwt.
	Mount *string `yaml:"mount" jsonschema:"default=jwt"`
	// The file of the JWT. Exactly one of file and env. Read at each login, and when it changes the
	// daemon logs in again.
	File *string `yaml:"file" jsonschema:"example=/run/token"`
	// The environment variable of the JWT. A JWT ends after minutes or hours, and a variable is fixed
	// when the daemon starts, so a file is nearly always better.
	Env *string `yaml:"env"`
}

// CertAuth is Vault's cert auth method.
type CertAuth struct {
	// The role of the method. Default none: Vault tries all its roles.
	Role *string `yaml:"role" jsonschema:"example=rotatord"`
	// Where the method is mounted. Default cert.
	Mount *string `yaml:"mount" jsonschema:"default=cert"`
}

// AgentAuth is a Vault Agent or Vault Proxy that authenticates for the daemon.
type AgentAuth struct{}

// AppRole is Vault's approle auth method.
type AppRole struct {
	// Where the method is mounted. Default approle.
	Mount *string `yaml:"mount" jsonschema:"default=approle"`
	// The role's id. Required.
	RoleID Secret `yaml:"role_id" jsonschema:"required" hint:"write {file: PATH} or {env: NAME}"`
	// The secret id. Required. Read again at each login, so a file may be replaced
	// while the daemon runs.
	SecretID Secret `yaml:"secret_id" jsonschema:"required" hint:"write {file: PATH} or {env: NAME}"`
	// What secret_id is: true for a wrapping token, which the daemon unwraps once; false for the
	// secret id itself. Default false. A wrapping token shows if another program has read the secret id on its
	// way. The unwrapped secret id is kept sealed in state.dir, so that a restart needs no other one.
	Wrapped *bool `yaml:"wrapped" jsonschema:"default=false"`
}
