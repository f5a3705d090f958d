package vault

import (
	"encoding/json"
	"time"

	"rotatord/internal/printable"
)

// Origin is what Vault says about how a token was made, and how long it can last. It explains; nothing depends on
// it. So what is missing, or of another type than Vault's, is left out.
type Origin struct {
	Created time.Time // zero if Vault does not say
	// Period is what each renewal gives; 0 if renewals end at a maximum.
	Period time.Duration
	// ExplicitMax is the longest life of the token whatever it is renewed; 0 if it has none of its own.
	ExplicitMax time.Duration
	// Path is what made the token, such as auth/approle/login or auth/token/create.
	Path        string
	DisplayName string
	// Parented is set if the token is revoked together with the token that created it.
	Parented bool
	// Meta is what the auth method has noted, such as role.
	Meta map[string]string
}

// maxOrigin is how much of a text of Vault's is kept, in bytes.
const maxOrigin = 200

func originFrom(data map[string]any) (o Origin) {
	duration := func(name string) time.Duration {
		d, err := seconds(data, name)
		if err != nil {
			return 0
		}
		return d
	}
	text := func(value any) string {
		s, _ := value.(string)
		return printable.Line(s, maxOrigin)
	}
	o.Period, o.ExplicitMax = duration("period"), duration("explicit_max_ttl")
	if number, ok := data["creation_time"].(json.Number); ok {
		if n, err := number.Int64(); err == nil && n > 0 {
			o.Created = time.Unix(n, 0).UTC()
		}
	}
	o.Path, o.DisplayName = text(data["path"]), text(data["display_name"])
	orphan, known := data["orphan"].(bool)
	o.Parented = known && !orphan
	meta, _ := data["meta"].(map[string]any)
	o.Meta = make(map[string]string)
	for _, key := range []string{"role", "role_name", "cert_name"} {
		if value := text(meta[key]); value != "" {
			o.Meta[key] = value
		}
	}
	return o
}
