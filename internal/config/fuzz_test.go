package config_test

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"rotatord/internal/config"
	"rotatord/internal/secret"
)

// FuzzParse checks for any file: there is either a configuration or at least one
// fault; faults have a place in the file, are in its order, fit on one line each and
// hold no client secret; and a configuration that is written out with every default
// spelled out reads as the same configuration.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "testdata/bad/*.yaml", "../../config.example.yaml"} {
		paths, err := filepath.Glob(pattern)
		if err != nil || len(paths) == 0 {
			f.Fatalf("%s: %d seeds, %v", pattern, len(paths), err)
		}
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(minimal))
	f.Add([]byte(everything))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := config.Parse("fuzz.yaml", data)
		if err == nil {
			checkRoundTrip(t, cfg)
			return
		}
		faults, ok := config.AsFaults(err)
		if cfg != nil || !ok || len(faults) == 0 {
			t.Fatalf("Parse = %v, %T with %d faults", cfg, err, len(faults))
		}
		checkFaults(t, faults, strings.Count(string(data), "\n")+strings.Count(string(data), "\r")+
			strings.Count(string(data), "\u0085")+strings.Count(string(data), "\u2028")+strings.Count(string(data), "\u2029")+1)
	})
}

func checkFaults(t *testing.T, faults config.Faults, lines int) {
	t.Helper()
	for _, fault := range faults {
		text := fault.String()
		if fault.Line < 1 || fault.Column < 1 || fault.Line > lines+1 || fault.Message == "" || !strings.HasPrefix(text, "fuzz.yaml:") {
			t.Errorf("a fault without a place in a file of %d lines: %#v", lines, fault)
		}
		if strings.ContainsAny(text, "\r\n\x00") {
			t.Errorf("a fault on more than one line: %q", text)
		}
		if secret.Scrub(text) != text {
			t.Errorf("a fault with a secret: %q", text)
		}
	}
	if !slices.IsSortedFunc(faults, func(a, b config.Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	}) {
		t.Errorf("not in the order of the file:\n%v", faults)
	}
}

func checkRoundTrip(t *testing.T, cfg *config.Config) {
	t.Helper()
	written, err := yaml.Marshal(spelledOut(cfg))
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Parse(cfg.File, written)
	if err != nil {
		t.Fatalf("a configuration that was accepted is refused when written out:\n%v\n%s", err, written)
	}
	cfg.Warnings, again.Warnings = nil, nil // their places differ
	if diff := gocmp.Diff(cfg, again, sameConfig); diff != "" {
		t.Fatalf("a configuration changed when written out (-first +second):\n%s", diff)
	}
}

type object = map[string]any

// spelledOut is the file that says all of cfg.
func spelledOut(cfg *config.Config) object {
	accounts, tokens := object{}, object{}
	for name, a := range cfg.Accounts {
		accounts[name] = given(object{
			"account_id": a.AccountID, "api_token": source(a.APIToken), "api_email": a.APIEmail,
			"api_key": source(a.APIKey), "base_url": a.BaseURL, "requests_per_5m": a.RequestsPer5m,
			"zone_id": a.ZoneID, "inventory_every": a.InventoryEvery.String(),
		})
	}
	for _, token := range cfg.Tokens {
		var sinks []any
		for _, sink := range token.Sinks {
			sinks = append(sinks, object{sink.Kind(): sink.Document()})
		}
		written := object{
			"account": token.Account, "schedule": token.Schedule.String(),
			"time_zone": token.Schedule.Location().String(), "jitter": token.Jitter.String(),
			"grace": token.Grace.String(), "window": token.Window.String(), "catch_up": "once", "sinks": sinks,
			"strategy": "rotate", "renew_before": token.RenewBefore.String(), "outside_rotation": "alarm", "outside_change": "alarm",
		}
		var hooks []any
		for _, hook := range token.After {
			hooks = append(hooks, object{hook.Kind(): hook.Document()})
		}
		if len(hooks) > 0 {
			written["after"] = hooks
		}
		if token.Replace {
			written["strategy"] = "replace"
		}
		if token.Heal {
			written["outside_rotation"] = "rotate"
		}
		if token.Restore {
			written["outside_change"] = "restore"
		}
		if token.RenewFor != "" {
			written["renew_for"] = token.RenewFor
		}
		if v := token.Verify; v != nil {
			written["verify"] = given(object{"url": v.URL, "header": v.Header, "within": v.Within.String(), "every": v.Every.String()})
		}
		if token.SkipMissed {
			written["catch_up"] = "skip"
		}
		if len(token.Freezes) > 0 {
			written["freezes"] = freezes(token)
		}
		switch {
		case token.Create != nil:
			written["create"] = object{"name": token.Create.Name, "duration": token.Create.Duration, "adopt": token.Create.Adopt}
		case token.Partner != "":
			written["pair"] = []any{token.ID, token.Partner}
		default:
			written["id"] = token.ID
		}
		tokens[token.Name] = written
	}
	root := object{}
	if len(cfg.Notify) > 0 {
		root["notify"] = receivers(cfg.Notify)
	}
	maps.Copy(root, object{
		"listen": cfg.Listen, "hosts": cfg.Hosts, "external_url": cfg.ExternalURL, "admin_socket": cfg.AdminSocket,
		"log":        object{"level": cfg.Log.Level, "format": cfg.Log.Format},
		"metrics":    object{"per_token": cfg.Metrics.PerToken},
		"state":      given(object{"dir": cfg.State.Dir, "identity": source(cfg.State.Identity), "recipients": cfg.State.Recipients, "shared": shared(cfg.State.Shared)}),
		"audit":      auditOf(cfg),
		"admin":      adminOf(cfg),
		"vault":      vault(cfg),
		"kubernetes": cluster(cfg),
		"accounts":   accounts,
		"tokens":     tokens,
	})
	return given(root)
}

func receivers(all []config.Receiver) (list []any) {
	for _, r := range all {
		written := object{"name": r.Name, "on": r.On, "tokens": r.Tokens, "repeat": r.Repeat.String(), "group": r.Group.String(), "wait": r.Wait.String()}
		switch kind := r.Kind.(type) {
		case *config.Webhook:
			headers := object{}
			for name, value := range kind.Headers {
				headers[name] = source(value)
			}
			written["webhook"] = given(object{"url": source(kind.URL), "secret": source(kind.Secret), "format": kind.Format, "headers": headers, "ca_file": kind.CAFile})
		case *config.SMTP:
			written["smtp"] = given(object{"server": kind.Server, "from": kind.From, "to": kind.To, "username": kind.Username, "password": source(kind.Password), "tls": kind.TLS, "ca_file": kind.CAFile})
		}
		list = append(list, given(written))
	}
	return list
}

func shared(s *config.Shared) object {
	if s == nil {
		return nil
	}
	return given(object{"vault": object{"mount": s.Mount, "prefix": s.Prefix}, "claim": s.Claim.String(), "replica": s.Replica})
}

func vault(cfg *config.Config) object {
	v := cfg.Vault
	if v == nil {
		return nil
	}
	return given(object{
		"address": v.Address, "nodes": v.Nodes, "namespace": v.Namespace, "timeout": v.Timeout.String(), "watch_every": cfg.WatchEvery.String(), "auth": object{v.Auth.Kind(): v.Auth.Document()},
		"tls": given(object{
			"ca_file": v.TLS.CAFile, "cert_file": v.TLS.CertFile, "key_file": v.TLS.KeyFile, "server_name": v.TLS.ServerName,
		}),
	})
}

// freezes writes all freezes of a token as its own, in their order.
func freezes(token config.Token) *yaml.Node {
	all := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range token.Freezes {
		written := object{"slots": "defer"}
		if f.Skip {
			written["slots"] = "skip"
		}
		if f.Schedule != nil {
			written["schedule"], written["duration"] = f.Schedule.String(), f.Duration.String()
			written["time_zone"] = f.Schedule.Location().String()
		} else {
			written["from"], written["to"] = f.From.Format(time.RFC3339), f.To.Format(time.RFC3339)
			written["time_zone"] = f.From.Location().String()
		}
		var key, value yaml.Node
		key.SetString(f.Name)
		if err := value.Encode(written); err != nil {
			panic(err)
		}
		all.Content = append(all.Content, &key, &value)
	}
	return all
}

// given leaves out what is not set.
func given(o object) object {
	for key, value := range o {
		inner, isObject := value.(object)
		list, isList := value.([]string)
		if isObject && len(inner) == 0 || isList && len(list) == 0 || !isObject && !isList && value == "" {
			delete(o, key)
		}
	}
	return o
}

func source(s config.SecretSource) object {
	return given(object{"file": s.File, "env": s.Env})
}

// FuzzSecretNeverEchoed writes a secret, with anything around it, where a secret
// source should stand.
func FuzzSecretNeverEchoed(f *testing.F) {
	for _, value := range misplaced {
		before, after, _ := strings.Cut(value, canary)
		f.Add(before, after)
	}
	lineBreaks := strings.NewReplacer("\n", "", "\r", "", "\u0085", "", "\u2028", "", "\u2029", "")
	f.Fuzz(func(t *testing.T, before, after string) {
		text := strings.Replace(minimal, "{file: /run/cloudflare-token}",
			lineBreaks.Replace(before)+canary+lineBreaks.Replace(after), 1)
		_, err := config.Parse("fuzz.yaml", []byte(text))
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error repeats a secret:\n%v\n%s", err, text)
		}
	})
}

// auditOf is the section audit.
func auditOf(cfg *config.Config) object {
	return object{"file": cfg.Audit.File, "max_size": fmt.Sprintf("%dKiB", cfg.Audit.MaxSize>>10), "max_age": cfg.Audit.MaxAge.String(), "keep": cfg.Audit.Keep}
}

// adminOf is the section admin; empty if all may use all commands.
func adminOf(cfg *config.Config) object {
	var allow []object
	for _, a := range cfg.Allow {
		allow = append(allow, given(object{"user": a.User, "group": a.Group, "verbs": a.Verbs}))
	}
	if allow == nil {
		return object{}
	}
	return object{"allow": allow}
}

// cluster is the section kubernetes; empty in the cluster.
func cluster(cfg *config.Config) object {
	return given(object{"kubeconfig": cfg.Kubernetes.Kubeconfig, "context": cfg.Kubernetes.Context})
}
