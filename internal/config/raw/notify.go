package raw

// Receiver is a place that is told what is wrong with tokens and with what rotations need. It has a name and exactly
// one of webhook and smtp.
type Receiver struct {
	// A name of your choice, which is also the metric label and the name of the receiver's file in the state
	// directory: a receiver with a new name is told everything that is wrong again. Required.
	Name *string `yaml:"name" jsonschema:"required,example=night" hint:"give the receiver a name, such as night"`
	// An HTTP request for each message.
	Webhook WebhookReceiver `yaml:"webhook"`
	// A mail for each message.
	SMTP SMTPReceiver `yaml:"smtp"`
	// What it is told: in_doubt, failing, stranded, gone, outside_change, expiring, pending, recovered. Default all
	// of them. docs/notifications.md says what each has.
	On []*string `yaml:"on" hint:"give at least one of in_doubt, failing, stranded, gone, outside_change, expiring, pending and recovered, or remove the key"`
	// Patterns of names of tokens, such as ci-*: it is told of those tokens only, and not of what is wrong with checks
	// and replicas. Default all tokens, with checks and replicas.
	Tokens []*string `yaml:"tokens" hint:"give at least one name of a token or a pattern, such as ci-*, or remove the key"`
	// What lasts is told again after this time, 10m to 720h, or 0 for never. Default 24h.
	Repeat *Duration `yaml:"repeat" jsonschema:"default=24h"`
	// How long news is collected for one message, 1s to 1h. Default 30s. What begins and ends within this time is
	// not told.
	Group *Duration `yaml:"group" jsonschema:"default=30s"`
	// How long something with severity warning must last before it is told, 0 to 24h. Default 5m, so that what the
	// next attempt repairs wakes nobody. What is critical does not wait.
	Wait *Duration `yaml:"wait" jsonschema:"default=5m"`
}

// WebhookReceiver is a server that takes an HTTP POST for each message.
type WebhookReceiver struct {
	// Where the URL is. It is a secret: the URL of a chat contains its password. Required. https, or http for this host.
	URL Secret `yaml:"url" jsonschema:"required" hint:"say where the URL is, such as {file: /etc/rotatord/webhook-url}"`
	// The secret that messages are signed with (HMAC-SHA256, header X-Rotatord-Signature), so that the receiver
	// knows that they are from rotatord. Default none: then messages are not signed.
	Secret Secret `yaml:"secret"`
	// generic for JSON as in docs/notifications.md, slack for what Slack, Mattermost and others take. Default generic.
	Format *string `yaml:"format" jsonschema:"enum=generic,enum=slack,default=generic"`
	// Further headers, by name, with the place of each value. Default none.
	Headers map[string]Secret `yaml:"headers" hint:"give at least one header, such as Authorization: {file: /etc/rotatord/webhook-token}, or remove the key"`
	// A PEM file with the authorities that the server's certificate must come from, such as that of a private CA. It
	// is read again for each message. Default the system's.
	CAFile *string `yaml:"ca_file" jsonschema:"example=/etc/rotatord/webhook-ca.pem"`
}

// SMTPReceiver is a mail server that takes a mail for each message.
type SMTPReceiver struct {
	// The host:port of the mail server. Required.
	Server *string `yaml:"server" jsonschema:"required,example=mail.example.com:587" hint:"give host and port of the mail server, such as mail.example.com:587"`
	// The address of the sender. Required.
	From *string `yaml:"from" jsonschema:"required,example=rotatord@example.com" hint:"give the address of the sender, such as rotatord@example.com"`
	// The addresses that get the mail. Required.
	To []*string `yaml:"to" jsonschema:"required" hint:"give at least one address"`
	// The user name for the mail server (PLAIN or LOGIN), with password. Default none: no login.
	Username *string `yaml:"username"`
	// Where the password of username is. No default.
	Password Secret `yaml:"password"`
	// starttls for a connection that is encrypted before anything else is said, usual at port 587 and 25; tls for
	// one that begins with TLS, usual at port 465; none for no encryption, which is accepted for this host only. Default starttls.
	TLS *string `yaml:"tls" jsonschema:"enum=starttls,enum=tls,enum=none,default=starttls"`
	// A PEM file with the authorities that the server's certificate must come from, such as that of a private CA. It
	// is read again for each message. Default the system's.
	CAFile *string `yaml:"ca_file" jsonschema:"example=/etc/rotatord/mail-ca.pem"`
}
