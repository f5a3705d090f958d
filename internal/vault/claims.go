package vault

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"rotatord/internal/printable"
)

// claims are what a JWT says of itself. They are not verified: they only explain a refusal. None of them is
// secret, and the signature is not among them.
type claims struct {
	known             bool
	issuer, subject   string
	audience          []string
	issued, notBefore time.Time // zero if the JWT does not say
	expires           time.Time
}

// maxClaim is how many bytes of one claim are shown.
const maxClaim = 200

// claimsOf reads the claims of a JWT. It returns claims that are not known if that is not possible.
func claimsOf(jwt string) (c claims) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return claims{}
	}
	content, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return claims{}
	}
	var body struct {
		Issuer    string          `json:"iss"`
		Subject   string          `json:"sub"`
		Audience  json.RawMessage `json:"aud"`
		Issued    float64         `json:"iat"`
		NotBefore float64         `json:"nbf"`
		Expires   float64         `json:"exp"`
	}
	if json.Unmarshal(content, &body) != nil {
		return claims{}
	}
	c = claims{known: true, issuer: body.Issuer, subject: body.Subject, issued: atSecond(body.Issued), notBefore: atSecond(body.NotBefore), expires: atSecond(body.Expires)}
	var one string
	if json.Unmarshal(body.Audience, &c.audience) != nil && json.Unmarshal(body.Audience, &one) == nil {
		c.audience = []string{one}
	}
	return c
}

// atSecond returns a time of a JWT; zero for 0 and for what is not a time.
func atSecond(seconds float64) time.Time {
	if seconds <= 0 || seconds > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0).UTC()
}

// describe says whose the JWT is and for whom.
func (c claims) describe() string {
	if !c.known {
		return "its claims cannot be read"
	}
	audience := "no audience"
	if len(c.audience) > 0 {
		audience = "the audience " + printable.Line(strings.Join(c.audience, ", "), maxClaim)
	}
	return fmt.Sprintf("it is of %s, from the issuer %s, for %s", shown(c.subject), shown(c.issuer), audience)
}

func shown(claim string) string {
	if claim == "" {
		return "(none)"
	}
	return printable.Line(claim, maxClaim)
}

// skew is how far a time of a JWT may be from the local clock without a remark.
const skew = 5 * time.Second

// clockProblem says what is wrong with the times of the JWT by the local clock; empty if nothing is.
func (c claims) clockProblem(now time.Time) string {
	ahead := func(t time.Time) bool { return !t.IsZero() && t.Sub(now) > skew }
	switch {
	case !c.expires.IsZero() && now.After(c.expires):
		return fmt.Sprintf("it expired %s ago, at %s: whoever writes it no longer renews it", now.Sub(c.expires).Round(time.Second), c.expires.Format(time.RFC3339))
	case ahead(c.notBefore):
		return fmt.Sprintf("it is not valid before %s (nbf), which is %s from now: look at the clocks of this machine, of Vault and of the issuer",
			c.notBefore.Format(time.RFC3339), c.notBefore.Sub(now).Round(time.Second))
	case ahead(c.issued):
		return fmt.Sprintf("it was issued at %s (iat), which is %s from now: look at the clocks of this machine, of Vault and of the issuer",
			c.issued.Format(time.RFC3339), c.issued.Sub(now).Round(time.Second))
	}
	return ""
}
