package config_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"rotatord/internal/config"
	"rotatord/internal/scheduler"
)

// everything sets every supported field to something that is not its default, and
// in its least tidy accepted form.
const everything = `listen: :0
hosts: [Rotatord.Example.com, rotatord]
external_url: https://rotatord.example.com/
admin_socket: /run//rotatord/./admin.sock
log: {level: debug, format: text}
metrics: {per_token: essential}
state: {dir: /srv/rotatord/, identity: {env: AGE_IDENTITY}, shared: {vault: {mount: /team/kv/, prefix: /ops/rotatord/}, claim: 5s, replica: b.2}}
audit: {file: /var/log//rotatord/audit.jsonl, max_size: 1GiB, max_age: 0, keep: 3}
admin: {allow: [{group: no-such-group, verbs: [status, rotate]}, {user: "1000", verbs: [all]}]}
accounts:
  a.b:
    account_id: 023E105F4ECEF8AD9CA31A8372D0C353
    api_email: ops@example.com
    api_key: {env: CF_KEY}
    base_url: http://[::1]:8080/client/v4/
    requests_per_5m: 1200
    inventory_every: 24h
  digits:
    account_id: 01234567890123456789012345678901
    api_token: {file: /run/token}
  zone:
    zone_id: 123E105F4ECEF8AD9CA31A8372D0C353
    api_token: {file: /run/token}
    inventory_every: 1m
vault:
  address: HTTPS://vault.example.com/
  nodes: [https://vault-1.example.com:8200/, https://vault-2.example.com]
  namespace: /team/a/
  timeout: 1m30s
  watch_every: 24h
  tls: {ca_file: /ca.pem, cert_file: /cert.pem, key_file: /key.pem, server_name: vault.internal}
  auth:
    approle: {mount: /auth-mount/, role_id: {file: /role}, secret_id: {env: SECRET_ID}}
defaults:
  account: a.b
  schedule: 0 4 * * 1
  time_zone: Europe/Berlin
  jitter: 10m
  grace: 48h
  window: 6h
  catch_up: skip
  except_freezes: [quarter]
  strategy: replace
  renew_before: 720h
  renew_for: 1440h
  verify: {url: "https://app.example.com/health?a=b", header: authorization, within: 0, every: 5m}
  outside_rotation: rotate
  outside_change: restore
  after:
    - exec: {command: [/usr/bin/systemctl, reload, "an app"], timeout: 1s, batch: 1h}
    - webhook: {url: "https://app.example.com/reload?a=b", secret: {env: HOOK_SECRET}, ca_file: /etc/rotatord/hook-ca.pem, batch: 1m}
    - restart: {kind: StatefulSet, namespace: ci, name: app.one, timeout: 10m}
  sinks:
    - vault: {mount: /kv/team/, path: /inherited/, fields: {client_id: ID, client_secret: SECRET}}
notify: [{name: a.b, webhook: {url: {env: HOOK}}, on: [failing]}]
kubernetes: {kubeconfig: /etc/rotatord/kubeconfig, context: "prod:admin"}
freezes:
  weekend: {schedule: 0 18 * * 5, duration: 50h, time_zone: Europe/Berlin, slots: skip}
  quarter: {from: 2026-12-20, to: 2027-01-04 06:00:01, slots: defer}
tokens:
  second: {id: F174E90A-FAFE-4643-BBBC-4A0ED4FC8415}
  first:
    account: digits
    id: f174e90a-fafe-4643-bbbc-4a0ed4fc8415
    schedule: "@every 720h"
    time_zone: UTC
    jitter: 0
    grace: 1h
    window: 0
    catch_up: once
    except_freezes: [weekend]
    strategy: rotate
    renew_before: 0
    renew_for: 87600h0m0s
    verify: {url: "http://[::1]:8080"}
    outside_rotation: alarm
    outside_change: alarm
    freezes:
      weekend: {schedule: "@weekly", duration: 24h}
      a: {from: 2026-12-20T18:00:00-05:00, to: 2026-12-21T00:00Z, time_zone: Asia/Kathmandu}
    after: [{exec: {command: [reload]}}]
    sinks:
      - vault: {mount: kv, path: no}
      - vault: {mount: kv, path: 0x10, metadata: false, fields: {client_id: client_secret, client_secret: client_id, previous_client_id: old_id, previous_client_secret: old, previous_expires_at: old_until}}
      - file: {path: /srv//ci/./cf.yaml, format: yaml, mode: 640, owner: 0, group: ci, fields: {client_id: client-id}}
      - kubernetes: {namespace: ci, name: cf.access, type: example.com/access, labels: {team: ci, example.com/a: "1"}, take_over: [kubectl-create, helm], fields: {client_id: .id, client_secret: A_b-c.d}}
  third:
    create: {name: A name, duration: 1000h30m0s, adopt: true}
    sinks: [{vault: {mount: kv, path: third}}]
    renew_for: 721h
  fourth:
    account: zone
    create: {name: A name, duration: forever, adopt: false}
    sinks: [{vault: {mount: kv, path: fourth}}]
    renew_before: 0
  fifth:
    account: zone
    id: 3F2B8A52-1D0E-4C3C-9A54-7D0C0F6F2B11
    sinks: [{vault: {mount: kv, path: fifth}}]
`

func TestEverything(t *testing.T) {
	got := parse(t, everything)
	inheriting := func(token config.Token) config.Token {
		token.Schedule, token.Jitter, token.Grace = schedule(t, "0 4 * * 1", "Europe/Berlin"), 10*time.Minute, 48*time.Hour
		token.Window, token.SkipMissed, token.Replace, token.Heal = 6*time.Hour, true, true, true
		token.Restore = true
		token.After = []config.Hook{
			&config.ExecHook{Command: []string{"/usr/bin/systemctl", "reload", "an app"}, HookTimes: config.HookTimes{Timeout: time.Second, Batch: time.Hour}},
			&config.WebhookHook{URL: "https://app.example.com/reload?a=b", Secret: config.SecretSource{Env: "HOOK_SECRET"}, CAFile: "/etc/rotatord/hook-ca.pem", HookTimes: config.HookTimes{Timeout: 30 * time.Second, Batch: time.Minute}},
			&config.RestartHook{Workload: "StatefulSet", Namespace: "ci", Name: "app.one", HookTimes: config.HookTimes{Timeout: 10 * time.Minute}},
		}
		token.Freezes = []scheduler.Freeze{
			{Name: "weekend", Skip: true, Schedule: schedule(t, "0 18 * * 5", "Europe/Berlin"), Duration: 50 * time.Hour},
		}
		token.Verify = &config.Verify{URL: "https://app.example.com/health?a=b", Header: "authorization", Every: 5 * time.Minute}
		if token.Sinks == nil {
			token.Sinks = []config.Sink{&config.VaultSink{Mount: "kv", Path: token.Name, Metadata: true, SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}}}
		}
		return token
	}
	want := &config.Config{
		Notify: []config.Receiver{{Name: "a.b", Kind: &config.Webhook{URL: config.SecretSource{Env: "HOOK"}, Format: "generic"}, On: []string{"failing"},
			Repeat: 24 * time.Hour, Group: 30 * time.Second, Wait: 5 * time.Minute}},
		File:   "test.yaml",
		Listen: ":0", Hosts: []string{"rotatord.example.com", "rotatord"}, ExternalURL: "https://rotatord.example.com", AdminSocket: "/run/rotatord/admin.sock",
		Log:     config.Log{Level: "debug", Format: "text"},
		Metrics: config.Metrics{PerToken: "essential"},
		State: config.State{
			Dir: "/srv/rotatord", Identity: config.SecretSource{Env: "AGE_IDENTITY"},
			Shared: &config.Shared{Mount: "team/kv", Prefix: "ops/rotatord", Claim: 5 * time.Second, Replica: "b.2"},
		},
		Accounts: map[string]config.Account{
			"a.b": {
				Name: "a.b", AccountID: "023e105f4ecef8ad9ca31a8372d0c353", APIEmail: "ops@example.com",
				APIKey: config.SecretSource{Env: "CF_KEY"}, BaseURL: "http://[::1]:8080/client/v4", RequestsPer5m: 1200,
				InventoryEvery: 24 * time.Hour,
			},
			"digits": {
				Name: "digits", AccountID: "01234567890123456789012345678901", APIToken: config.SecretSource{File: "/run/token"},
				BaseURL: "https://api.cloudflare.com/client/v4", RequestsPer5m: 1000, InventoryEvery: time.Hour,
			},
			"zone": {
				Name: "zone", ZoneID: "123e105f4ecef8ad9ca31a8372d0c353", APIToken: config.SecretSource{File: "/run/token"},
				BaseURL: "https://api.cloudflare.com/client/v4", RequestsPer5m: 1000, InventoryEvery: time.Minute,
			},
		},
		WatchEvery: 24 * time.Hour,
		Vault: &config.Vault{
			Address: "HTTPS://vault.example.com", Nodes: []string{"https://vault-1.example.com:8200", "https://vault-2.example.com"}, Namespace: "team/a", Timeout: 90 * time.Second,
			TLS: config.TLS{CAFile: "/ca.pem", CertFile: "/cert.pem", KeyFile: "/key.pem", ServerName: "vault.internal"},
			Auth: &config.AppRole{
				Mount: "auth-mount", RoleID: config.SecretSource{File: "/role"}, SecretID: config.SecretSource{Env: "SECRET_ID"},
			},
		},
		Audit:      config.Audit{File: "/var/log/rotatord/audit.jsonl", MaxSize: 1 << 30, Keep: 3},
		Allow:      []config.Allow{{Group: "no-such-group", Verbs: []string{"status", "rotate"}}, {User: "1000", Verbs: []string{"all"}}},
		Kubernetes: config.Kubernetes{Kubeconfig: "/etc/rotatord/kubeconfig", Context: "prod:admin"},
		Tokens: []config.Token{
			inheriting(config.Token{
				Name: "fifth", Account: "zone", ID: "3f2b8a52-1d0e-4c3c-9a54-7d0c0f6f2b11", RenewBefore: 720 * time.Hour, RenewFor: "1440h",
			}),
			{
				Name: "first", Account: "digits", ID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8415",
				Schedule: schedule(t, "@every 720h", "UTC"), Grace: time.Hour, RenewFor: "87600h",
				Verify: &config.Verify{URL: "http://[::1]:8080", Within: time.Minute},
				After:  []config.Hook{&config.ExecHook{Command: []string{"reload"}, HookTimes: config.HookTimes{Timeout: 30 * time.Second}}},
				Freezes: []scheduler.Freeze{
					{Name: "quarter", From: at(t, "2026-12-20T00:00:00Z"), To: at(t, "2027-01-04T06:00:01Z")},
					{Name: "weekend", Schedule: schedule(t, "@weekly", "UTC"), Duration: 24 * time.Hour},
					{Name: "a", From: at(t, "2026-12-20T23:00:00Z"), To: at(t, "2026-12-21T00:00:00Z")},
				},
				Sinks: []config.Sink{
					&config.VaultSink{Mount: "kv", Path: "no", Metadata: true, SinkFields: config.SinkFields{ClientIDField: "client_id", ClientSecretField: "client_secret"}},
					&config.VaultSink{Mount: "kv", Path: "0x10", SinkFields: config.SinkFields{ClientIDField: "client_secret", ClientSecretField: "client_id",
						PreviousIDField: "old_id", PreviousSecretField: "old", PreviousEndsField: "old_until"}},
					&config.FileSink{
						Path: "/srv/ci/cf.yaml", Format: "yaml", Mode: 0o640, Owner: "0", GroupName: "ci",
						SinkFields: config.SinkFields{ClientIDField: "client-id", ClientSecretField: "client_secret"},
					},
					&config.KubernetesSink{
						Namespace: "ci", Name: "cf.access", Type: "example.com/access", Labels: map[string]string{"team": "ci", "example.com/a": "1"},
						TakeOver: []string{"kubectl-create", "helm"}, SinkFields: config.SinkFields{ClientIDField: ".id", ClientSecretField: "A_b-c.d"},
					},
				},
			},
			inheriting(config.Token{Name: "fourth", Account: "zone", Create: &config.Create{Name: "A name", Duration: "forever"}, RenewFor: "1440h"}),
			inheriting(config.Token{
				Name: "second", Account: "a.b", ID: "f174e90a-fafe-4643-bbbc-4a0ed4fc8415", RenewBefore: 720 * time.Hour, RenewFor: "1440h",
				Sinks: []config.Sink{
					&config.VaultSink{Mount: "kv/team", Path: "inherited", Metadata: true, SinkFields: config.SinkFields{ClientIDField: "ID", ClientSecretField: "SECRET"}},
				},
			}),
			inheriting(config.Token{
				Name: "third", Account: "a.b", Create: &config.Create{Name: "A name", Duration: "1000h30m", Adopt: true},
				RenewBefore: 720 * time.Hour, RenewFor: "721h",
			}),
		},
	}
	if len(got.Warnings) != 6 {
		t.Errorf("warnings: %q, want only those about api_key, replace, the renew_for that is of no use, and a short claim, a file with a shared ledger, and a group that no machine has", lines(got.Warnings))
	}
	got.Warnings = nil
	if diff := cmp.Diff(want, got, sameConfig); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
