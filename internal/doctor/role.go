package doctor

import (
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

// rolePath is the path of the role that the session was got by; empty if the method has none, or it is not known.
func rolePath(auth config.VaultAuth, self *vault.Self) string {
	noted := func(key string) string {
		if self == nil || strings.Contains(self.Meta[key], "/") {
			return ""
		}
		return self.Meta[key]
	}
	at := func(mount, kind, name string) string {
		if name == "" {
			return ""
		}
		return "auth/" + mount + "/" + kind + "/" + name
	}
	switch a := auth.(type) {
	case *config.KubernetesAuth:
		return at(a.Mount, "role", a.Role)
	case *config.JWTAuth:
		return at(a.Mount, "role", a.Role)
	case *config.AppRole:
		return at(a.Mount, "role", noted("role_name"))
	case *config.CertAuth:
		if a.Role != "" {
			return at(a.Mount, "certs", a.Role)
		}
		return at(a.Mount, "certs", noted("cert_name"))
	}
	return ""
}

// ownRole is the right to change the role of the session.
func (e *examination) ownRole(self *vault.Self) []right {
	if at := rolePath(e.Config.Vault.Auth, self); at != "" {
		return []right{{path: at, excess: []string{"create", "update", "patch", "delete", "sudo"}}}
	}
	return nil
}

// role says whether the role of the session accepts more than this daemon. Most policies do not let the session see
// its role.
func (e *examination) role(ctx context.Context, s *vault.Session, self *vault.Self, may map[string][]string) {
	at := rolePath(e.Config.Vault.Auth, self)
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
	wide, hints := widthOf(e.Config.Vault.Auth, answer.Data)
	for _, w := range wide {
		e.add(Warning, VaultRoleWide, "vault.auth", "the role "+at+" "+w.what, w.advice)
	}
	if len(wide) == 0 {
		e.add(Good, VaultRole, "vault.auth", strings.Join(append([]string{"the role " + at + " is bound to this daemon"}, hints...), "; "), "")
	}
}

// width is a way in which a role accepts more than it must.
type width struct{ what, advice string }

// widthOf finds what a role accepts beyond this daemon. hints are what could be narrower, and often cannot.
func widthOf(auth config.VaultAuth, role map[string]any) (wide []width, hints []string) {
	add := func(what, advice string) { wide = append(wide, width{what, advice}) }
	switch auth.(type) {
	case *config.KubernetesAuth:
		anyName, anyNamespace := slices.Contains(texts(role["bound_service_account_names"]), "*"), slices.Contains(texts(role["bound_service_account_namespaces"]), "*")
		switch {
		case anyName && anyNamespace:
			add("accepts every service account of the cluster", "set bound_service_account_names and bound_service_account_namespaces to those of rotatord")
		case anyName:
			add("accepts every service account of its namespaces", "set bound_service_account_names to the one of rotatord")
		case anyNamespace:
			add("accepts the service account of that name in every namespace: whoever may create a namespace can log in", "set bound_service_account_namespaces to the one of rotatord")
		case text(role["bound_service_account_namespace_selector"]) != "":
			add("accepts namespaces by their labels: whoever may label a namespace can log in", "set bound_service_account_namespaces in place of the selector")
		}
		if text(role["audience"]) == "" {
			add("accepts tokens of every audience, also those that pods show to other services", "set audience at the role to that of the projected token, such as vault")
		}
	case *config.JWTAuth:
		if len(texts(role["bound_audiences"])) == 0 {
			add("accepts tokens of every audience", "set bound_audiences to that of the JWT, such as vault")
		}
		claims, _ := role["bound_claims"].(map[string]any)
		if text(role["bound_subject"]) == "" && !slices.ContainsFunc(values(claims), func(v any) bool { return !slices.Contains(texts(v), "*") }) {
			add("accepts every subject of the issuer", "set bound_subject, or bound_claims, to what only the JWT of rotatord has")
		}
	case *config.AppRole:
		if bound, ok := role["bind_secret_id"].(bool); ok && !bound {
			add("needs no secret_id: whoever knows the role_id can log in", "set bind_secret_id=true")
		}
		if len(texts(role["secret_id_bound_cidrs"])) == 0 {
			hints = append(hints, "secret_id_bound_cidrs could bind the secret_id to the daemon's address")
		}
		if number(role["secret_id_ttl"]) == 0 {
			hints = append(hints, "secret_id_ttl is 0: a secret_id that was copied works until a person destroys it")
		}
	case *config.CertAuth:
		names := 0
		for _, key := range []string{"allowed_names", "allowed_common_names", "allowed_dns_sans", "allowed_email_sans", "allowed_uri_sans", "allowed_organizational_units", "required_extensions"} {
			if all := texts(role[key]); len(all) > 0 && !slices.Contains(all, "*") {
				names++
			}
		}
		if names == 0 && !pinned(text(role["certificate"])) {
			add("accepts every certificate of its authority", "set allowed_common_names, or allowed_uri_sans, to what only the certificate of rotatord has")
		}
	}
	return wide, hints
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

func values(m map[string]any) (all []any) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
