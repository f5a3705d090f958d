package vault

import (
	"context"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
)

// Remark is something that the files of vault.tls and vault.auth say about the next login, without a request to Vault.
type Remark struct {
	Field string // in the configuration
	Text  string
	// Advice is what to do; empty if all is well.
	Advice string
	// Hopeless is set if no login can succeed.
	Hopeless bool
	// Unusable is set if [New] fails, and says so too.
	Unusable bool
}

// Inspect looks at the files that a login needs. It sends nothing, and what it returns repeats no secret. A credential
// that cannot be read, or cannot be what it should, is left to [config.SecretSource.ReadAs].
func Inspect(ctx context.Context, c config.Vault, now time.Time) (all []Remark) {
	i := inspection{ctx: ctx, now: now, socket: c.Socket()}
	c.Auth.Dispatch(&i)
	return append(inspectTLS(ctx, c, now), i.found...)
}

// inspection implements [config.AuthMethods].
type inspection struct {
	ctx    context.Context
	now    time.Time
	socket string // of an agent
	found  []Remark
}

func (i *inspection) Kubernetes(a *config.KubernetesAuth) {
	i.found = inspectJWT(i.ctx, "vault.auth.kubernetes.file", a.JWT, i.now)
}

func (i *inspection) JWT(a *config.JWTAuth) {
	i.found = inspectJWT(i.ctx, "vault.auth.jwt", a.JWT, i.now)
}
func (i *inspection) AppRole(a *config.AppRole) {
	i.found = inspectMode("vault.auth.approle.secret_id", a.SecretID.File)
}
func (i *inspection) Token(a *config.TokenAuth) {
	i.found = inspectMode("vault.auth.token", a.Source.File)
}
func (i *inspection) Agent(*config.AgentAuth) { i.found = inspectSocket(i.socket) }
func (*inspection) Cert(*config.CertAuth)     {} // its certificate is that of vault.tls

func inspectTLS(ctx context.Context, c config.Vault, now time.Time) (all []Remark) {
	files, err := readTLS(ctx, c.TLS)
	if err != nil {
		return []Remark{{Field: "vault.tls", Text: err.Error(), Advice: "correct the files: without them there is no connection to Vault", Hopeless: true, Unusable: true}}
	}
	if files.pair == nil {
		return nil
	}
	const field = "vault.tls.cert_file"
	leaf, add := files.pair.Leaf, func(hopeless bool, text, advice string) {
		all = append(all, Remark{Field: field, Text: "the client certificate in " + c.TLS.CertFile + " " + text, Advice: advice, Hopeless: hopeless})
	}
	ends := leaf.NotAfter.UTC().Format(timeLayout)
	_, needed := c.Auth.(*config.CertAuth)
	switch {
	case !now.Before(leaf.NotAfter):
		add(needed, "ended at "+ends, "renew it; the daemon reads it again without a restart")
	case now.Before(leaf.NotBefore):
		add(needed, "is not valid before "+leaf.NotBefore.UTC().Format(timeLayout), "look at the clocks of this machine and of the authority")
	case now.After(renewedBy(leaf)):
		add(false, "ends at "+ends+" and was not renewed yet", "renew it; the daemon reads it again without a restart")
	default:
		add(false, "is valid until "+ends, "")
	}
	usages := leaf.ExtKeyUsage
	if needed && len(usages)+len(leaf.UnknownExtKeyUsage) > 0 && !slices.Contains(usages, x509.ExtKeyUsageClientAuth) && !slices.Contains(usages, x509.ExtKeyUsageAny) {
		add(true, "is not for clients (extended key usage), so Vault refuses it", "have it issued with the usage client authentication")
	}
	return append(all, inspectMode("vault.tls.key_file", c.TLS.KeyFile)...)
}

// late is the part of a JWT's life, at its end, in which whoever renews it is late. The kubelet renews the token of a
// service account when a fifth of its life is left.
const late = 10

// apiServerAudience is in the audience that the API server of every cluster accepts by default.
const apiServerAudience = "kubernetes.default.svc"

func inspectJWT(ctx context.Context, field string, source config.SecretSource, now time.Time) (all []Remark) {
	add := func(hopeless bool, text, advice string) {
		all = append(all, Remark{Field: field, Text: "the JWT in " + source.String() + " " + text, Advice: advice, Hopeless: hopeless})
	}
	jwt, err := source.ReadAs(ctx, config.JWT)
	if err != nil {
		_, inPod := os.LookupEnv("KUBERNETES_SERVICE_HOST")
		if source.File == config.DefaultServiceAccountFile && !inPod {
			add(false, "cannot be read here, and this process is not in a pod: only the kubelet puts it there", "run this in the pod (kubectl exec), or name another file or method of vault.auth")
		}
		return all
	}
	c := claimsOf(jwt.Reveal())
	switch problem := c.clockProblem(now); {
	case !c.known:
		add(true, "has claims that cannot be read", "put a signed JWT there")
		return all
	case problem != "":
		add(true, "cannot be used: "+problem, "find out why it is not renewed, or correct the clock")
		return all
	case c.expires.IsZero():
		add(false, "does not end: a copy of it works until the key of its issuer is replaced", "have it issued with an end (exp), such as a projected token with expirationSeconds")
	case !c.issued.IsZero() && c.expires.Sub(now) < c.expires.Sub(c.issued)/late:
		add(false, fmt.Sprintf("ends at %s, and less than a tenth of its life is left: whoever renews it does so too rarely, or has stopped", c.expires.Format(timeLayout)),
			"have it renewed when half of its life is over")
	default:
		add(false, "is valid until "+c.expires.Format(timeLayout), "")
	}
	switch {
	case len(c.audience) == 0:
		add(false, "has no audience: every service that trusts its issuer accepts it", "have it issued for Vault alone, such as with the audience vault, and name that at the role")
	case slices.ContainsFunc(c.audience, func(a string) bool { return strings.Contains(a, apiServerAudience) }):
		add(false, "is also for the API server: whoever sees it at Vault can use it there", "project a token with an audience of its own, such as vault, and name that at the role")
	}
	return all
}

// inspectMode warns of a credential that every user of the machine can read. In the volumes of a pod there is no other
// user, and the mode is that of the volume.
func inspectMode(field, path string) []Remark {
	if path == "" || strings.HasPrefix(path, "/run/credentials/") {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	if real, err := filepath.EvalSymlinks(path); err != nil || strings.Contains(real, "/..") { // of a Secret or a projected volume
		return nil
	}
	return []Remark{{Field: field, Text: fmt.Sprintf("every user of this machine can read %s (mode %04o)", path, info.Mode().Perm()), Advice: "run chmod o-r " + path + ", and replace what is in it if others are on this machine"}}
}

// inspectSocket looks at the socket of an agent; empty if it has another address.
func inspectSocket(path string) []Remark {
	if path == "" {
		return nil
	}
	const field = "vault.address"
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return []Remark{{Field: field, Text: "there is no socket of an agent: " + err.Error(), Advice: "start the agent, or correct the path"}}
	case info.Mode().Type() != fs.ModeSocket:
		return []Remark{{Field: field, Text: path + " is not a socket", Advice: "name the socket that the agent listens at", Hopeless: true}}
	case info.Mode().Perm()&0o002 != 0:
		return []Remark{{Field: field, Text: fmt.Sprintf("every user of this machine can use the agent at %s (mode %04o), and so has what its token may do", path, info.Mode().Perm()),
			Advice: "set socket_mode, socket_user and socket_group in the agent's listener, so that only the daemon can"}}
	}
	return nil
}
