package vault

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rotatord/internal/config"
	"rotatord/internal/vault/vaulttest"
)

// TestInspect says what the files of each method mean for the next login, and repeats nothing of them.
func TestInspect(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	_ = os.Unsetenv("KUBERNETES_SERVICE_HOST")
	now := time.Now()
	claims := func(issued, expires time.Duration, audience ...string) string {
		all := map[string]any{"sub": "CANARY", "iat": now.Add(issued).Unix(), "aud": audience}
		if expires != 0 {
			all["exp"] = now.Add(expires).Unix()
		}
		return vaulttest.JWT(all)
	}
	jwt := func(content string) config.Vault {
		return config.Vault{Auth: &config.JWTAuth{Role: "r", Mount: "jwt", JWT: file(t, content)}}
	}
	withCert := func(auth config.VaultAuth, ends time.Duration) config.Vault {
		leaf, key := certificate(t, "rotatord", nil, nil, ends)
		return config.Vault{Auth: auth, TLS: config.TLS{CertFile: file(t, certPEM(leaf)).File, KeyFile: file(t, keyPEM(t, key)).File}}
	}
	opened := func(path string, mode os.FileMode) string {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	agent := func(path string) config.Vault {
		return config.Vault{Address: "unix://" + path, Auth: &config.AgentAuth{}}
	}
	for name, test := range map[string]struct {
		vault    config.Vault
		says     string // empty: nothing that asks for anything
		hopeless bool
	}{
		"jwt":                {jwt(claims(-time.Minute, time.Hour, "vault")), "", false},
		"expired":            {jwt(claims(-2*time.Hour, -time.Hour, "vault")), "whoever writes it no longer renews it", true},
		"from the future":    {jwt(claims(time.Hour, 2*time.Hour, "vault")), "(iat)", true},
		"late":               {jwt(claims(-time.Hour, 5*time.Minute, "vault")), "less than a tenth of its life is left", false},
		"no end":             {jwt(claims(-time.Hour, 0, "vault")), "does not end", false},
		"no audience":        {jwt(claims(-time.Minute, time.Hour)), "has no audience", false},
		"of the API server":  {jwt(claims(-time.Minute, time.Hour, "https://kubernetes.default.svc.cluster.local")), "is also for the API server", false},
		"odd claims":         {jwt("eyJhbGciOiJSUzI1NiJ9.W10.Q0FOQVJZ"), "has claims that cannot be read", true},
		"not in a pod":       {config.Vault{Auth: &config.KubernetesAuth{JWT: config.SecretSource{File: config.DefaultServiceAccountFile}}}, "this process is not in a pod", false},
		"cert":               {withCert(&config.CertAuth{}, 100*time.Hour), "", false},
		"cert that ended":    {withCert(&config.CertAuth{}, -time.Minute), "ended at", true},
		"mutual TLS, ended":  {withCert(&config.TokenAuth{}, -time.Minute), "ended at", false},
		"cert about to end":  {withCert(&config.CertAuth{}, 2*time.Minute), "was not renewed yet", false},
		"no key":             {config.Vault{Auth: &config.CertAuth{}, TLS: config.TLS{CertFile: "/nonexistent/cert", KeyFile: "/nonexistent/key"}}, "/nonexistent/cert", true},
		"token":              {config.Vault{Auth: &config.TokenAuth{Source: file(t, "hvs.CANARY")}}, "", false},
		"open token":         {config.Vault{Auth: &config.TokenAuth{Source: config.SecretSource{File: opened(file(t, "hvs.CANARY").File, 0o644)}}}, "every user of this machine can read", false},
		"token from outside": {config.Vault{Auth: &config.TokenAuth{Source: config.SecretSource{Env: "X"}}}, "", false},
		"agent":              {agent(opened(socket, 0o660)), "", false},
		"no agent":           {agent("/nonexistent/agent.sock"), "there is no socket", false},
		"not a socket":       {agent(file(t, "x").File), "is not a socket", true},
	} {
		var found []Remark
		for _, r := range Inspect(t.Context(), test.vault, now) {
			if strings.Contains(r.Text+r.Advice, "CANARY") || r.Field == "" || r.Text == "" {
				t.Errorf("%s: %+v", name, r)
			}
			if r.Advice != "" {
				found = append(found, r)
			}
		}
		switch {
		case test.says == "" && len(found) == 0:
		case len(found) != 1 || test.says == "" || !strings.Contains(found[0].Text, test.says) || found[0].Hopeless != test.hopeless:
			t.Errorf("%s: %+v, want %q, hopeless: %t", name, found, test.says, test.hopeless)
		}
	}
	if found := Inspect(t.Context(), agent(opened(socket, 0o666)), now); len(found) != 1 || !strings.Contains(found[0].Text, "can use the agent") {
		t.Errorf("an open socket: %+v", found)
	}
}

// TestInspectInAPod: in a volume of Kubernetes there is no other user of the machine, and the mode is that of the volume.
func TestInspectInAPod(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.Mkdir(at("..2026_11_28"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("..2026_11_28/token"), []byte("hvs.x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"..data": "..2026_11_28", "token": "..data/token"} {
		if err := os.Symlink(to, at(link)); err != nil {
			t.Skip(err)
		}
	}
	if found := Inspect(t.Context(), config.Vault{Auth: &config.TokenAuth{Source: config.SecretSource{File: at("token")}}}, time.Now()); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}
