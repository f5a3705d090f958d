package config

import (
	"rotatord/internal/config/raw"
)

// JWTAuth is Vault's jwt auth method. It implements [VaultAuth].
type JWTAuth struct {
	Role  string
	Mount string // default "jwt"
	JWT   SecretSource
}

// Kind implements [VaultAuth].
func (*JWTAuth) Kind() string { return "jwt" }

// Consumes implements [VaultAuth].
func (*JWTAuth) Consumes() string { return "" }

// LogsIn implements [VaultAuth].
func (*JWTAuth) LogsIn() bool { return true }

// Document implements [VaultAuth].
func (j *JWTAuth) Document() map[string]any {
	document := j.JWT.Document()
	document["role"], document["mount"] = j.Role, j.Mount
	return document
}

// Dispatch implements [VaultAuth].
func (j *JWTAuth) Dispatch(to AuthMethods) { to.JWT(j) }

func (j *JWTAuth) check(c *checker, path string, auth raw.VaultAuth) {
	in := auth.JWT
	j.Role, j.Mount = c.role(path+".role", in.Role), c.authMount(path+".mount", in.Mount, "jwt")
	j.JWT = SecretSource{File: c.filePath(path+".file", in.File), Env: or(in.Env, "")}
	switch file, env := c.has(path+".file"), c.has(path+".env"); {
	case file && env:
		c.wrong(path+".env", "is written beside file: keep the one that has the JWT")
	case !file && !env && !c.isMerged(path) && !c.isBroken(path):
		c.missing(path, "file", "say where the JWT is, such as file: /run/token")
	case env && in.Env != nil && !isVariable(*in.Env):
		c.wrong(path+".env", "must be the name of an environment variable: letters, digits and underscores, no digit first%s", variableHint(*in.Env))
	case env:
		c.warn(path+".env", "is read once, when the daemon starts, and a JWT ends after minutes or hours: name a file that another program renews")
	}
}

func (j *JWTAuth) eachSecret(path string, do func(field string, source *SecretSource, kind SecretKind)) {
	field := path + ".file"
	if j.JWT.Env != "" {
		field = path + ".env"
	}
	do(field, &j.JWT, JWT)
}
