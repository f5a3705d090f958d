package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault"
)

// loginRole is the role by which a session was got.
type loginRole struct {
	mount, kind, name string // auth/MOUNT/KIND/NAME; name is empty if it is not known
	// secretIDs is set if the role has secret IDs, which whoever may make them logs in with.
	secretIDs bool
	// width finds what the role accepts beyond this daemon, by what Vault says of it. hints are what could be
	// narrower, and often cannot.
	width func(role map[string]any) (wide []width, hints []string)
}

// width is a way in which a role accepts more than it must.
type width struct{ what, advice string }

// roleFinder implements [config.AuthMethods]: each method has its roles elsewhere, and other ways to be too wide. A
// token has no role, and an agent's is not known.
type roleFinder struct {
	self  *vault.Self // nil: Vault says nothing
	found loginRole
}

func (f *roleFinder) Kubernetes(a *config.KubernetesAuth) {
	f.found = loginRole{mount: a.Mount, kind: "role", name: a.Role, width: kubernetesWidth}
}

func (f *roleFinder) JWT(a *config.JWTAuth) {
	f.found = loginRole{mount: a.Mount, kind: "role", name: a.Role, width: jwtWidth}
}

func (f *roleFinder) Cert(a *config.CertAuth) {
	f.found = loginRole{mount: a.Mount, kind: "certs", name: cmp.Or(a.Role, f.noted("cert_name")), width: certWidth}
}

func (f *roleFinder) AppRole(a *config.AppRole) {
	f.found = loginRole{mount: a.Mount, kind: "role", name: f.noted("role_name"), secretIDs: true, width: appRoleWidth}
}

func (*roleFinder) Token(*config.TokenAuth) {}
func (*roleFinder) Agent(*config.AgentAuth) {}

// noted returns the name of the role that the method has noted at the session; empty if it did not.
func (f *roleFinder) noted(key string) string {
	if f.self == nil || strings.Contains(f.self.Meta[key], "/") {
		return ""
	}
	return f.self.Meta[key]
}

// roleOf returns the role of a session; the zero loginRole if the method has none.
func roleOf(auth config.VaultAuth, self *vault.Self) loginRole {
	f := roleFinder{self: self}
	auth.Dispatch(&f)
	return f.found
}

// path is where Vault has the role; empty if it is not known.
func (r loginRole) path() string {
	if r.name == "" {
		return ""
	}
	return "auth/" + r.mount + "/" + r.kind + "/" + r.name
}

// changes are the capabilities with which a role can be changed. To read it is harmless.
var changes = []string{"create", "update", "patch", "delete", "sudo"}

// rights are what lets a session give itself more: changing its role, or any role of its method.
func (r loginRole) rights() (all []right) {
	if r.mount == "" {
		return nil
	}
	at := "auth/" + r.mount + "/"
	all = []right{{path: at + "config", excess: changes}, {path: at + r.kind + "/" + nobody, excess: changes}}
	if own := r.path(); own != "" {
		all = append(all, right{path: own, excess: changes})
	}
	if r.secretIDs {
		all = append(all, right{path: at + r.kind + "/" + nobody + "/secret-id", excess: changes})
	}
	return all
}

// role says whether the role of the session accepts more than this daemon. Most policies do not let the session see
// its role.
func (e *examination) role(ctx context.Context, s *vault.Session, role loginRole, may map[string][]string) {
	at := role.path()
	if at == "" {
		return
	}
	cannot := func(why string) {
		e.add(Good, VaultRoleNotSeen, "vault.auth", fmt.Sprintf("could not look whether the role accepts more than this daemon: %s. An administrator sees it with: vault read %s. "+
			"To have doctor look, give the policy for a moment: path %q { capabilities = [\"read\"] }", why, at, at), "")
	}
	if has := may[at]; !slices.Contains(has, "read") && !slices.Contains(has, "root") {
		cannot("the policy does not allow " + at)
		return
	}
	answer, err := s.Read(ctx, at)
	switch {
	case err != nil:
		cannot(err.Error())
		return
	case answer == nil || answer.Data == nil:
		cannot("there is nothing at " + at)
		return
	}
	wide, hints := role.width(answer.Data)
	for _, w := range wide {
		e.add(Warning, VaultRoleWide, "vault.auth", "the role "+at+" "+w.what, w.advice)
	}
	if len(wide) == 0 {
		e.add(Good, VaultRole, "vault.auth", strings.Join(append([]string{"the role " + at + " is bound to this daemon"}, hints...), "; "), "")
	}
}

func kubernetesWidth(role map[string]any) (wide []width, hints []string) {
	anyName, anyNamespace := slices.Contains(texts(role["bound_service_account_names"]), "*"), slices.Contains(texts(role["bound_service_account_namespaces"]), "*")
	switch {
	case anyName && anyNamespace:
		wide = append(wide, width{"accepts every service account of the cluster", "set bound_service_account_names and bound_service_account_namespaces to those of rotatord"})
	case anyName:
		wide = append(wide, width{"accepts every service account of its namespaces", "set bound_service_account_names to the one of rotatord"})
	case anyNamespace:
		wide = append(wide, width{"accepts the service account of that name in every namespace: whoever may create a namespace can log in", "set bound_service_account_namespaces to the one of rotatord"})
	case text(role["bound_service_account_namespace_selector"]) != "":
		wide = append(wide, width{"accepts namespaces by their labels: whoever may label a namespace can log in", "set bound_service_account_namespaces in place of the selector"})
	}
	if text(role["audience"]) == "" {
		wide = append(wide, width{"accepts tokens of every audience, also those that pods show to other services", "set audience at the role to that of the projected token, such as vault"})
	}
	return wide, nil
}

func jwtWidth(role map[string]any) (wide []width, hints []string) {
	if len(texts(role["bound_audiences"])) == 0 {
		wide = append(wide, width{"accepts tokens of every audience", "set bound_audiences to that of the JWT, such as vault"})
	}
	claims, _ := role["bound_claims"].(map[string]any)
	bound := text(role["bound_subject"]) != ""
	for _, accepted := range claims {
		bound = bound || !slices.Contains(texts(accepted), "*")
	}
	if !bound {
		wide = append(wide, width{"accepts every subject of the issuer", "set bound_subject, or bound_claims, to what only the JWT of rotatord has"})
	}
	return wide, nil
}

func appRoleWidth(role map[string]any) (wide []width, hints []string) {
	if bound, ok := role["bind_secret_id"].(bool); ok && !bound {
		wide = append(wide, width{"needs no secret_id: whoever knows the role_id can log in", "set bind_secret_id=true"})
	}
	if len(texts(role["secret_id_bound_cidrs"])) == 0 {
		hints = append(hints, "secret_id_bound_cidrs could bind the secret_id to the daemon's address")
	}
	if number(role["secret_id_ttl"]) == 0 {
		hints = append(hints, "secret_id_ttl is 0: a secret_id that was copied works until a person destroys it")
	}
	return wide, hints
}

// certNames are the settings of a role of the method cert of which one at least should be set.
var certNames = []string{"allowed_names", "allowed_common_names", "allowed_dns_sans", "allowed_email_sans", "allowed_uri_sans", "allowed_organizational_units", "required_extensions"}

func certWidth(role map[string]any) (wide []width, hints []string) {
	named := slices.ContainsFunc(certNames, func(key string) bool {
		all := texts(role[key])
		return len(all) > 0 && !slices.Contains(all, "*")
	})
	if !named && !pinned(text(role["certificate"])) {
		wide = append(wide, width{"accepts every certificate of its authority", "set allowed_common_names, or allowed_uri_sans, to what only the certificate of rotatord has"})
	}
	return wide, nil
}

// pinned reports whether a role names one certificate that is not an authority, and so accepts only that.
func pinned(text string) bool {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return false
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	return err == nil && !certificate.IsCA
}

// texts returns the texts of a list of Vault's, which is a list, one text, or null.
func texts(value any) (all []string) {
	switch v := value.(type) {
	case string:
		if v != "" {
			all = append(all, v)
		}
	case []any:
		for _, one := range v {
			if s := text(one); s != "" {
				all = append(all, s)
			}
		}
	}
	return all
}

func text(value any) string {
	s, _ := value.(string)
	return s
}

// number returns a number of seconds of Vault's; 0 if it is none.
func number(value any) time.Duration {
	n, ok := value.(json.Number)
	if !ok {
		return 0
	}
	i, _ := n.Int64()
	return time.Duration(i) * time.Second
}
