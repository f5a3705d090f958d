package doctor

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rotatord/internal/ageplugin/ageplugintest"
	"rotatord/internal/audit"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/rotation"
	"rotatord/internal/scheduler"
	"rotatord/internal/status"
	"rotatord/internal/vault"
)

// ill is a fault, with the finding that reports it. Each begins with a healthy world, which has good findings
// only.
type ill struct {
	make    func(w *world)
	level   Level
	code    Code
	subject string
	says    string
}

// ills returns all faults by name.
func ills() map[string]ill {
	all := maps.Clone(generalIlls)
	maps.Copy(all, authIlls)
	maps.Copy(all, sharedIlls)
	return all
}

// generalIlls are those that have nothing to do with a method of vault.auth.
var generalIlls = map[string]ill{
	"the daemon finds nothing": {func(w *world) { w.daemon() }, Good, DaemonGood, "the running daemon", "no trouble"},
	"the daemon finds what doctor sees": {func(w *world) {
		w.daemon(status.Trouble{Severity: status.Critical, Kind: "disabled", Tokens: []string{"one"}, What: "disabled", ToDo: "enable it"})
	}, Good, DaemonGood, "the running daemon", "no trouble"},
	"in doubt at the daemon": {func(w *world) {
		w.daemon(status.Troubles([]status.Token{{Name: "one", State: status.InDoubt, Doubt: &status.Doubt{}}}, nil, time.Now())...)
	}, Bad, DaemonTrouble, "tokens.one", "the daemon says: one: in doubt: a rotate request was sent"},
	"the daemon cannot write": {func(w *world) {
		w.daemon(status.Troubles(nil, []status.Check{{Name: status.CheckStateDirectory, Stops: true, Detail: "no space left"}}, time.Now())...)
	}, Warning, DaemonTrouble, "the running daemon", "the daemon says: state directory: no space left"},
	"in doubt in the ledger": {func(w *world) {
		w.record(func(r *rotation.Record) {
			r.Step, r.Doubt, r.Work = rotation.StepInDoubt, &rotation.Doubt{OldWorksUntil: time.Now().Add(time.Hour)}, &rotation.Work{}
		})
	}, Bad, TokenInDoubt, "tokens.one", "If it has, consumers work until"},
	"the request has left": {func(w *world) {
		w.record(func(r *rotation.Record) { r.Step, r.Work = rotation.StepIntent, &rotation.Work{} })
	}, Bad, TokenInDoubt, "tokens.one", "it is not known whether Cloudflare has carried it out"},
	"overtaken in the ledger": {func(w *world) {
		w.record(func(r *rotation.Record) {
			r.Step, r.Work = rotation.StepSealed, &rotation.Work{Overtaken: &rotation.Overtaken{}}
		})
	}, Bad, TokenOvertaken, "tokens.one", "a sink holds a later one"},
	"a secret waits": {func(w *world) {
		w.record(func(r *rotation.Record) {
			r.Step, r.Work, r.LastError = rotation.StepSealed, &rotation.Work{GraceEndsAt: time.Now().Add(5 * time.Hour)}, "Vault is sealed"
		})
	}, Warning, TokenPending, "tokens.one", ": Vault is sealed"},
	"a secret waits and the grace ends": {func(w *world) {
		w.record(func(r *rotation.Record) {
			r.Step, r.Work = rotation.StepSealed, &rotation.Work{GraceEndsAt: time.Now().Add(time.Hour)}
		})
	}, Bad, TokenPending, "tokens.one", "the previous one works until"},
	"a secret was lost": {func(w *world) { w.record(func(r *rotation.Record) { r.Lost = &rotation.Lost{} }) }, Bad, TokenOwed, "tokens.one", "a secret was lost"},
	"rotated by others": {func(w *world) { w.record(func(r *rotation.Record) { r.Outside = time.Now() }) }, Bad, TokenOutside, "tokens.one", "rotated by others"},
	"its attempts fail": {func(w *world) {
		w.record(func(r *rotation.Record) { r.Failures, r.LastError = 3, "Vault is sealed" })
	}, Warning, TokenFailing, "tokens.one", "its last 3 attempt(s) failed: Vault is sealed"},

	"nothing": {func(*world) {}, Good, CredentialActive, "accounts.prod.api_token", "account API token is active until"},
	"of a user": {func(w *world) {
		w.account(func(a *config.Account) { a.APIToken = w.file("token", "cfut_api-token-CANARY") })
		w.anyToken()
	}, Warning, CredentialUserToken, "accounts.prod.api_token", "API token of a user"},
	"credential file is gone": {func(w *world) {
		w.account(func(a *config.Account) { a.APIToken.File = "/nonexistent/token" })
	}, Bad, CredentialUnreadable, "accounts.prod.api_token", "no such file"},
	"credential in quotes": {func(w *world) {
		w.account(func(a *config.Account) { a.APIToken = w.file("quoted", `"token-CANARY"`) })
	}, Bad, CredentialUnreadable, "accounts.prod.api_token", "has quotes around it: write the API token without them"},
	"key file is gone": {func(w *world) {
		w.account(func(a *config.Account) {
			a.APIToken, a.APIEmail, a.APIKey = config.SecretSource{}, "a@b.c", config.SecretSource{File: "/nonexistent/key"}
		})
	}, Bad, CredentialUnreadable, "accounts.prod.api_key", "no such file"},
	"disabled": {func(w *world) { w.behave(cfsim.Behaviour{APITokenStatus: cfsim.APITokenDisabled}) }, Bad, CredentialInactive, "accounts.prod.api_token", "is disabled"},
	"expired":  {func(w *world) { w.behave(cfsim.Behaviour{APITokenStatus: cfsim.APITokenExpired}) }, Bad, CredentialInactive, "accounts.prod.api_token", "is expired"},
	"revoked":  {func(w *world) { w.behave(cfsim.Behaviour{APITokenStatus: cfsim.APITokenRevoked}) }, Bad, CredentialRefused, "accounts.prod.api_token", "HTTP 401"},
	"not yet": {func(w *world) { w.behave(cfsim.Behaviour{APITokenNotBefore: time.Now().Add(time.Hour)}) }, Bad, CredentialNotYet,
		"accounts.prod.api_token", "not valid before"},
	"not to be verified": {func(w *world) { w.inject(cfsim.Fault{Operation: "verify", Status: 403}) }, Warning, CredentialNotVerified, "accounts.prod.api_token", "it works"},
	"ends soon": {func(w *world) { w.behave(cfsim.Behaviour{APITokenExpiresOn: time.Now().Add(29 * 24 * time.Hour)}) }, Warning, CredentialEndsSoon,
		"accounts.prod.api_token", "ends at"},
	"without an end": {func(w *world) { w.behave(cfsim.Behaviour{}) }, Warning, CredentialWithoutEnd, "accounts.prod.api_token", "no end"},
	"global key": {func(w *world) {
		w.sim = nil // another one, which takes any credential
		server := httptest.NewServer(cfsim.New(cfsim.Options{SeedTokens: 2}))
		w.Cleanup(server.Close)
		w.account(func(a *config.Account) {
			a.APIToken, a.APIEmail, a.APIKey, a.BaseURL = config.SecretSource{}, "a@b.c", w.file("key", "key-CANARY"), server.URL+cfsim.BasePath
		})
	}, Warning, CredentialGlobalKey, "accounts.prod.api_key", "whatever its user can"},

	"unreachable":   {func(w *world) { w.account(func(a *config.Account) { a.BaseURL = "http://127.0.0.1:1/client/v4" }) }, Bad, AccountUnreachable, "accounts.prod", "no connection"},
	"throttled":     {func(w *world) { w.inject(cfsim.Fault{Status: 429, RetryAfter: 300}) }, Bad, AccountThrottled, "accounts.prod", "retry after 5m"},
	"may not list":  {func(w *world) { w.inject(cfsim.Fault{Operation: "list", Status: 403}) }, Bad, ListRefused, "accounts.prod", "HTTP 403"},
	"wrong account": {func(w *world) { w.inject(cfsim.Fault{Operation: "list", Status: 404, Code: 7003}) }, Bad, AccountUnknown, "accounts.prod.account_id", "7003"},
	"failing":       {func(w *world) { w.inject(cfsim.Fault{Operation: "list", Status: 503}) }, Bad, ListFailed, "accounts.prod", "HTTP 503"},
	"may list":      {func(*world) {}, Good, ListAllowed, "accounts.prod", "its 2 service token(s)"},
	"has written":   {func(*world) {}, Good, WriteSeen, "accounts.prod", "Only a write would prove that it still has it"},
	"never written": {func(w *world) { w.Records = nil }, Warning, WriteUnproven, "accounts.prod", "there was no rotation yet"},
	"ledger is open": {func(w *world) { w.Records, w.LedgerErr = nil, errors.New("it is open") }, Good, WriteUnproven, "accounts.prod",
		"The ledger cannot be read: it is open"},
	"clock is right":   {func(*world) {}, Good, ClockGood, "accounts.prod", "agree"},
	"clock is off":     {func(w *world) { w.skew(-time.Minute) }, Warning, ClockApart, "accounts.prod", "from Cloudflare's"},
	"clock is far off": {func(w *world) { w.skew(time.Hour) }, Bad, ClockApart, "accounts.prod", "no scheduled rotation begins"},
	"rate limit":       {func(*world) {}, Good, BudgetGood, "accounts.prod.requests_per_5m", "of the 1200 requests"},
	"smaller limit": {func(w *world) {
		w.WrapTransport = reply(func(h http.Header) { h.Set("Ratelimit-Policy", `"default";q=600;w=300`) }).wrap
	}, Warning, BudgetTooLarge, "accounts.prod.requests_per_5m", "it is 1000, and Cloudflare accepts 600"},
	"shared limit": {func(w *world) {
		w.WrapTransport = reply(func(h http.Header) { h.Set("Ratelimit", `"default";r=7;t=100`) }).wrap
	}, Warning, BudgetShared, "accounts.prod.requests_per_5m", "only 7 requests are left of the 1200"},

	"good tokens": {func(*world) {}, Good, TokensGood, "accounts.prod", "2 of 2"},
	"token is gone": {func(w *world) { w.config.Tokens[0].ID = "00000000-0000-4000-8000-000000000000" }, Bad, TokenGone, "tokens.one",
		"prod has no service token 00000000"},
	"partner is gone": {func(w *world) { w.config.Tokens[0].Partner = "00000000-0000-4000-8000-000000000000" }, Bad, TokenGone, "tokens.one",
		"prod has no service token 00000000"},
	"token is elsewhere": {func(w *world) {
		other := w.config.Accounts["prod"]
		other.Name, other.AccountID = "other", otherID
		w.config.Accounts["other"] = other
		w.config.Tokens[0].ID = w.made(cfsim.CreateParams{Name: "x", AccountID: otherID})
	}, Bad, TokenElsewhere, "tokens.one", "is not in prod but in other"},
	"token is disabled": {func(w *world) { w.config.Tokens[1].ID = w.made(cfsim.CreateParams{Name: "x", Disabled: true}) }, Bad, TokenDisabled, "tokens.two", "is disabled"},
	"token has ended":   {func(w *world) { w.config.Tokens[1].ID = w.made(cfsim.CreateParams{Name: "x", Duration: "1ns"}) }, Bad, TokenEnded, "tokens.two", "ended at"},
	"token ends soon":   {func(w *world) { w.config.Tokens[1].ID = w.made(cfsim.CreateParams{Name: "x", Duration: "48h"}) }, Warning, TokenEndsSoon, "tokens.two", "ends at"},
	"token is renewed": {func(w *world) {
		w.config.Tokens[1].ID, w.config.Tokens[1].RenewBefore = w.made(cfsim.CreateParams{Name: "x", Duration: "48h"}), time.Hour
	}, Good, TokensGood, "accounts.prod", "2 of 2"},
	"to be made": {func(w *world) { w.create(config.Create{Name: "new"}) }, Good, TokenToBeCreated, "tokens.one", "it will be created"},
	"to be adopted": {func(w *world) { w.create(config.Create{Name: "seeded-0001", Adopt: true}) }, Good, TokenToBeCreated, "tokens.one",
		cfsim.SeedTokenID(1) + " will be adopted"},
	"name is taken": {func(w *world) { w.create(config.Create{Name: "seeded-0001"}) }, Bad, TokenNameTaken, "tokens.one", cfsim.SeedTokenID(1)},
	"name is taken twice": {func(w *world) {
		w.made(cfsim.CreateParams{Name: "seeded-0001"})
		w.create(config.Create{Name: "seeded-0001", Adopt: true})
	}, Bad, TokenNameTaken, "tokens.one", "2 service tokens"},
	"made by us": {func(w *world) {
		w.create(config.Create{Name: "seeded-0001"})
		w.Records["one"] = rotation.Record{Account: "prod", TokenID: cfsim.SeedTokenID(1), Last: w.Records["one"].Last}
	}, Good, TokensGood, "accounts.prod", "2 of 2"},
	"made, ledger is open": {func(w *world) {
		w.create(config.Create{Name: "seeded-0001"})
		w.Records, w.LedgerErr = nil, errors.New("it is open")
	}, Good, TokenNotLooked, "tokens.one", "it is open"},
	"ours cannot be read": {func(w *world) { w.inject(cfsim.Fault{Operation: cfsim.OpList, Shape: "entry-no-name"}) }, Warning, ListOdd, "tokens.one",
		"exists, and its entry in the listing cannot be read"},
	"ours may be the one": {func(w *world) {
		w.inject(cfsim.Fault{Operation: cfsim.OpList, Shape: "entry-null"})
		w.config.Tokens[0].ID = otherID
	},
		Warning, ListOdd, "tokens.one", "it is not known whether"},
	"the name may be taken": {func(w *world) {
		w.inject(cfsim.Fault{Operation: cfsim.OpList, Shape: "entry-null"})
		w.create(config.Create{Name: "new"})
	}, Warning, ListOdd, "tokens.one", "it is not known whether"},
	"an entry cannot be read": {func(w *world) { w.inject(cfsim.Fault{Operation: cfsim.OpList, Shape: "entry-null"}) }, Warning, ListOdd, "accounts.prod", "1 entries"},
	"zone": {func(w *world) {
		zone := w.config.Accounts["prod"]
		zone.Name, zone.AccountID, zone.ZoneID = "zone", "", otherID
		w.config.Accounts["zone"] = zone
		w.config.Tokens[0].Account, w.config.Tokens[0].ID = "zone", w.made(cfsim.CreateParams{Name: "x", ZoneID: otherID})
	}, Bad, TokenZoneRotate, "tokens.one", "rotates only service tokens of accounts"},

	"Vault is away":     {func(w *world) { w.config.Vault.Address = "http://127.0.0.1:1" }, Bad, VaultLogin, "vault", "cannot be reached"},
	"Vault is sealed":   {func(w *world) { w.vault.Seal(true) }, Bad, VaultLogin, "vault", "sealed"},
	"CA file is gone":   {func(w *world) { w.config.Vault.TLS.CAFile = "/nonexistent/ca" }, Bad, VaultLogin, "vault", "no such file"},
	"secret ID is gone": {func(w *world) { w.config.Vault.Auth.(*config.AppRole).SecretID.File = "/nonexistent/id" }, Bad, VaultLogin, "vault", "no such file"},
	"nobody logged in":  {func(w *world) { w.LogIn = false }, Warning, VaultNotTried, "vault", "uses up one use of the secret_id"},
	"the daemon cannot be asked": {func(w *world) {
		w.LogIn, w.AskDaemon = false, func(context.Context) ([]Finding, error) { return nil, errors.New("it is not running") }
	}, Warning, VaultNotTried, "vault", "it is not running"},
	"nobody logged in, and could not": {func(w *world) {
		w.LogIn, w.config.Vault.Auth.(*config.AppRole).SecretID.File = false, "/nonexistent/id"
	}, Bad, CredentialUnreadable, "vault.auth.approle.secret_id", "no such file"},
	"the daemon is asked": {func(w *world) {
		w.LogIn, w.AskDaemon = false, func(context.Context) ([]Finding, error) {
			return []Finding{{Level: Good, Code: VaultSession, Subject: "vault.auth", Message: "of the daemon"}}, nil
		}
	}, Good, VaultSession, "vault.auth", "of the daemon"},
	"may not be revoked": {func(w *world) { w.forbid("auth/token/revoke-self") }, Warning, VaultNotRevoked, "vault.auth", "revoking the session"},
	"session":            {func(*world) {}, Good, VaultSession, "vault.auth", "logged in by approle, for 1h0m0s, renewable"},
	"session cannot be renewed": {func(w *world) {
		w.vaultAuth(func(r *http.Request) any {
			return map[string]any{"ttl": 600, "expire_time": "2030-01-01T00:00:00Z", "renewable": false, "policies": []string{"rotatord"}}
		})
	}, Warning, VaultSessionEnds, "vault.auth", "for 10m0s, and not renewable"},
	"session may not look": {func(w *world) { w.vaultAuth(func(*http.Request) any { return nil }) }, Warning, VaultLookup, "vault.auth", "may not look itself up"},
	"root": {func(w *world) {
		token := w.file("root", vaultToken)
		w.config.Vault.Auth = &config.TokenAuth{Source: token}
		w.vault.SetPolicy(func(string) []string { return []string{"root"} })
	}, Warning, VaultRoot, "vault.auth", "root"},
	"administrator": {func(w *world) { w.vault.SetPolicy(also("auth/token/create", "update")) }, Warning, VaultAdmin, "vault", "auth/token/create"},
	"mount":         {func(*world) {}, Good, VaultMount, "vault", "secret/ is KV version 2"},
	"no mount":      {func(w *world) { w.config.Tokens[0].Sinks = inVault("nosuch", "x") }, Bad, VaultMountBad, "vault", "nosuch"},
	"sinks":         {func(*world) {}, Good, SinksGood, "vault", "2 of 2"},
	"may not ask":   {func(w *world) { w.forbid("sys/capabilities-self") }, Bad, SinkUnusable, "vault", "denied permission"},
	"versions delete themselves": {func(w *world) {
		w.vault.SetPolicy(also("secret/config", "read"))
		w.vault.DeleteVersionAfter("secret", "", time.Hour)
	}, Bad, SinkDeletes, "tokens.one.sinks[0]", "after 1h0m0s"},
	"versions delete themselves after the next rotation": {func(w *world) {
		schedule, err := scheduler.Parse("0 4 * * *", time.UTC)
		if err != nil {
			w.Fatal(err)
		}
		w.config.Tokens[0].Schedule = schedule
		w.vault.SetPolicy(also("secret/config", "read"))
		w.vault.DeleteVersionAfter("secret", "", 72*time.Hour)
	}, Warning, SinkDeletes, "tokens.one.sinks[0]", "after 72h0m0s"},
	"the present version deletes itself": {func(w *world) {
		w.vault.DeleteVersionAfter("secret", "access/one", time.Hour)
		w.vault.Write("secret", "access/one", map[string]any{"client_id": "x"})
	}, Bad, SinkDeletes, "tokens.one.sinks[0]", "version 1"},
	"few uses":      {func(w *world) { w.vault.SetNumUses(100) }, Warning, VaultSessionUses, "vault.auth", "token_num_uses"},
	"may not write": {func(w *world) { w.vault.SetPolicy(also("secret/data/access/one", "read")) }, Bad, SinkUnusable, "tokens.one.sinks[0]", "does not allow create"},
	"may not update": {func(w *world) { w.vault.SetPolicy(also("old/access/two", "create", "read")) }, Warning, SinkPartial, "tokens.two.sinks[0]",
		"does not allow update at old/access/two"},
	"may delete": {func(w *world) {
		w.vault.SetPolicy(also("secret/data/access/one", "create", "read", "update", "delete", "list", "sudo"))
	}, Warning, SinkExcess,
		"tokens.one.sinks[0]", "delete, list, sudo"},
	"may destroy": {func(w *world) { w.vault.SetPolicy(also("secret/metadata/access/one", "delete", "read", "list")) }, Warning, SinkExcess,
		"tokens.one.sinks[0]", ": delete of the metadata"},
	"may read metadata": {func(w *world) { w.vault.SetPolicy(also("secret/metadata/access/one", "read", "list")) }, Good, SinksGood, "vault", "2 of 2"},
	"whole mount":       {func(w *world) { w.vault.SetPolicy(also("secret/data/"+nobody+"/nobody", "read")) }, Warning, VaultWide, "vault", "read at any path of secret/"},

	"no record yet": {func(*world) {}, Good, RecordMissing, "audit.file", "begins it"},
	"record":        {func(w *world) { w.events(nil) }, Good, RecordGood, "audit.file", "the last line is number 1"},
	"record of another user": {func(w *world) {
		w.inspect = func(string) (audit.Inspected, error) { return audit.Inspected{}, fs.ErrPermission }
	}, Warning, RecordNotSeen, "audit.file", "may not read it"},
	"record of others": {func(w *world) {
		w.events(func(path string) error { return os.Chmod(path, 0o666) })
	}, Bad, RecordOpen, "audit.file", "refuses"},
	"head of the record of others": {func(w *world) {
		w.events(func(path string) error { return os.Chmod(audit.Paths(path)[2], 0o666) })
	}, Bad, RecordOpen, "audit.file", "audit.head"},
	"cut record": {func(w *world) {
		w.events(func(path string) error { return os.Truncate(path, 0) })
	}, Bad, RecordDamaged, "audit.file", "ends at number 0"},
	"record was damaged": {func(w *world) {
		w.events(func(path string) error { return os.WriteFile(path+".000000000001.damaged", nil, 0o600) })
	}, Warning, RecordDamaged, "audit.file", "a new chain has begun"},
	"record is a directory": {func(w *world) {
		if err := os.MkdirAll(w.config.Audit.File, 0o700); err != nil {
			w.Fatal(err)
		}
	}, Bad, RecordUnusable, "audit.file", "not a regular file"},
	"no place for the record": {func(w *world) { w.config.Audit.File = "/nonexistent/x/audit.jsonl" }, Bad, RecordUnusable, "audit.file", "does not exist"},
	"no room for the record": {func(w *world) {
		w.events(nil)
		w.on(disk{known: true, writable: true, free: 1 << 20})
	}, Bad, RecordLow, "audit.file", "1024 KiB are free"},

	"state":             {func(*world) {}, Good, StateGood, "state.dir", "1024 MiB are free"},
	"no state":          {func(w *world) { w.remove() }, Warning, StateMissing, "state.dir", "does not exist"},
	"no state, nowhere": {func(w *world) { w.config.State.Dir = "/nonexistent/a/b" }, Warning, StateMissing, "state.dir", "may not create it"},
	"no state before the unit's first start": {func(w *world) {
		w.euid = func() int { return 1000 }
		w.config.State.Dir, w.Relocations = "/var/lib/rotatord-nonexistent", []Relocation{{From: "/run/credentials/rotatord.service", To: "/etc/rotatord/credentials"}}
	}, Good, StateMissing, "state.dir", "systemd creates it"},
	"key beside what it opens": {func(w *world) { w.identity() }, Warning, IdentityBeside, "state.identity", "a copy of the state directory is enough"},
	"key configured in the state directory": {func(w *world) {
		w.config.State.Identity.File = w.identity()
		w.IdentityFile = "/nonexistent"
	}, Warning, IdentityBeside, "state.identity", "is in the state directory too"},
	"key left beside": {func(w *world) {
		w.identity()
		w.config.State.Identity.File = "/etc/rotatord/credentials/age-identity"
	}, Warning, IdentityBeside, "state.identity", "lies beside the sealed secrets still"},
	"key elsewhere": {func(w *world) {
		w.config.State.Identity.File, w.IdentityFile = "/etc/rotatord/credentials/age-identity", w.config.State.Dir+"/identity.age"
	}, Good, IdentityApart, "state.identity", "is not in the state directory"},
	"key that a program holds": {func(w *world) {
		ageplugintest.Install(w.T)
		w.config.State.Identity, w.IdentityFile = w.file("plugin", ageplugintest.Identity(w.T, ageplugintest.Hangs)), w.config.State.Dir+"/identity.age"
	}, Good, IdentityPlugin, "state.identity", "age-plugin-rotatordtest holds the key"},
	"key of a program that is missing": {func(w *world) {
		w.config.State.Identity, w.IdentityFile = w.file("plugin", ageplugintest.Identity(w.T, ageplugintest.Good)), w.config.State.Dir+"/identity.age"
	}, Bad, IdentityPlugin, "state.identity", "age-plugin-rotatordtest of the age identity cannot be run"},
	"state of a dynamic user": {func(w *world) {
		w.euid = func() int { return 1000 }
		w.stat = func(string) (fs.FileInfo, error) { return nil, fs.ErrPermission }
	}, Warning, StateNotSeen, "state.dir", "may not enter it"},
	"credentials before the unit's first start": {func(w *world) {
		w.Relocations = []Relocation{{From: "/run/credentials/rotatord.service", To: "/etc/rotatord/credentials"}}
	}, Good, CredentialsElsewhere, "credentials", "the unit does not run, so there is no /run/credentials/rotatord.service"},
	"credentials that the command line names": {func(w *world) {
		w.Relocations = []Relocation{{From: "/run/credentials/rotatord.service", To: "/x", Requested: true}}
	}, Good, CredentialsElsewhere, "credentials", "as --credentials says"},
	"credentials before the first start, as another user": {func(w *world) {
		w.account(func(a *config.Account) { a.APIToken.File = "/run/credentials/rotatord-nonexistent.service/token" })
	}, Warning, CredentialUnreadable, "accounts.prod.api_token", "no such file"},
	"credential that the unit does not hand over": {func(w *world) {
		stat := os.Stat
		w.stat = func(path string) (fs.FileInfo, error) {
			if path == "/run/credentials/rotatord-nonexistent.service" {
				path = "/"
			}
			return stat(path)
		}
		w.account(func(a *config.Account) { a.APIToken.File = "/run/credentials/rotatord-nonexistent.service/token" })
	}, Bad, CredentialUnreadable, "accounts.prod.api_token", "no such file"},
	"file that the service cannot read": {func(w *world) {
		w.User = &ServiceUser{UID: 64000, GID: 64000}
		w.openAs = func(_ ServiceUser, path string) (string, error) {
			if path == w.config.Accounts["prod"].APIToken.File {
				return path, fs.ErrPermission
			}
			return "", nil
		}
	}, Bad, ServiceCannotRead, "accounts.prod.api_token", "and the service's user (uid 64000) cannot"},
	"file that an unknown service cannot read": {func(w *world) {
		w.remove()
		w.Relocations = []Relocation{{From: "/run/credentials/rotatord.service", To: "/etc/rotatord/credentials"}}
		w.euid = func() int { return 0 }
		w.config.File = "/etc/hostname"
		w.openAs = func(u ServiceUser, path string) (string, error) {
			if u.Assumed && path == "/etc/hostname" {
				return "/etc", fs.ErrPermission
			}
			return "", nil
		}
	}, Warning, ServiceCannotRead, "--config", "a service user without any rights cannot: it may not enter /etc"},
	"file that the unit hides": {func(w *world) {
		w.User, w.Relocations = &ServiceUser{UID: 64000, GID: 64000}, []Relocation{{From: "/run/credentials/rotatord.service", To: "/etc/rotatord/credentials"}}
		w.openAs = func(ServiceUser, string) (string, error) { return "", nil }
		w.config.Vault.TLS.CAFile = "/root/ca.pem"
	}, Warning, ServiceCannotRead, "vault.tls.ca_file", "hides from the service"},
	"authorities of a receiver that the unit hides": {func(w *world) {
		w.User, w.Relocations = &ServiceUser{UID: 64000, GID: 64000}, []Relocation{{From: "/run/credentials/rotatord.service", To: "/etc/rotatord/credentials"}}
		w.openAs = func(ServiceUser, string) (string, error) { return "", nil }
		w.config.Notify = []config.Receiver{{Name: "mail", Kind: &config.SMTP{CAFile: "/root/mail-ca.pem"}}}
	}, Warning, ServiceCannotRead, "notify[0].smtp.ca_file", "hides from the service"},
	"state is a file": {func(w *world) {
		w.remove()
		if err := os.WriteFile(w.config.State.Dir, nil, 0o600); err != nil {
			w.Fatal(err)
		}
	}, Bad, StateUnusable, "state.dir", "not a directory"},
	"state is open": {func(w *world) {
		if err := os.Chmod(w.config.State.Dir, 0o755); err != nil {
			w.Fatal(err)
		}
	}, Bad, StateOpen, "state.dir", "mode 0755"},
	"state is refused":  {func(w *world) { w.StateErr = errors.New("journal.db is missing") }, Bad, StateRefused, "state.dir", "journal.db is missing"},
	"state is not ours": {func(w *world) { w.on(disk{known: true, free: 1 << 30}) }, Bad, StateUnusable, "state.dir", "may not write"},
	"state is full":     {func(w *world) { w.on(disk{known: true, writable: true, free: 1 << 20}) }, Bad, StateLow, "state.dir", "1 MiB are free"},
	"state gets full":   {func(w *world) { w.on(disk{known: true, writable: true, free: 50 << 20}) }, Warning, StateLow, "state.dir", "50 MiB are free"},
	"state of a third user": {func(w *world) {
		w.User = &ServiceUser{UID: 64000, GID: 64000}
		w.openAs = func(ServiceUser, string) (string, error) { return "", nil }
		if os.Geteuid() == 0 {
			if err := os.Chown(w.config.State.Dir, 64001, 64001); err != nil {
				w.Fatal(err)
			}
		}
	}, Bad, StateUnusable, "state.dir", "and the daemon runs as uid 64000"},
	"state in memory": {func(w *world) { w.on(disk{known: true, writable: true, free: 1 << 30, volatile: "x"}) }, Warning, StateVolatile, "state.dir",
		"may not survive"},
	"state on btrfs": {func(w *world) { w.on(disk{known: true, writable: true, free: 1 << 30, copies: "btrfs"}) }, Good, StateGood, "state.dir", "On btrfs"},
	"sink outside of Vault, of another user": {func(w *world) {
		w.User = &ServiceUser{UID: 64000, GID: 64000}
		w.openAs = func(ServiceUser, string) (string, error) { return "", nil }
		w.config.Vault = nil
		for i := range w.config.Tokens {
			w.config.Tokens[i].Sinks = []config.Sink{outside{w.config.Tokens[i].Sinks[0].(*config.VaultSink)}}
		}
	}, Warning, SinkNotTried, "tokens.one.sinks[0]", "only the service's user (uid 64000) can prove"},
	"hook without a program": {func(w *world) {
		for i := range w.config.Tokens {
			w.config.Tokens[i].After = []config.Hook{&config.ExecHook{Command: []string{"true"}}, &config.ExecHook{Command: []string{"/nonexistent/reload"}}}
		}
	}, Warning, HookUnusable, "tokens.one.after[1]", "(of 2 tokens): the program cannot be found"},
	"hook without its secret": {func(w *world) {
		w.config.Tokens[1].After = []config.Hook{&config.WebhookHook{URL: "https://example.com/", Secret: config.SecretSource{File: "/nonexistent/key"}}}
	}, Warning, HookUnusable, "tokens.two.after[0]", "the secret for the signature"},
	"hook without a cluster": {func(w *world) {
		w.config.Kubernetes.Kubeconfig = "/nonexistent/kubeconfig"
		w.config.Tokens[1].After = []config.Hook{&config.RestartHook{Workload: "Deployment", Namespace: "ci", Name: "app", HookTimes: config.HookTimes{Timeout: time.Second}}}
	}, Warning, HookUnusable, "tokens.two.after[0]", "/nonexistent/kubeconfig"},
	"program that the daemon may not run": {func(w *world) {
		w.User = &ServiceUser{UID: 64000, GID: 64000}
		w.openAs = func(ServiceUser, string) (string, error) { return "", nil }
		w.config.Vault = nil
		for i := range w.config.Tokens {
			w.config.Tokens[i].Sinks = []config.Sink{outside{w.config.Tokens[i].Sinks[0].(*config.VaultSink)}}
		}
		script := filepath.Join(filepath.Dir(w.config.State.Dir), "reload")
		if err := errors.Join(os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700), os.Chmod(script, 0o700)); err != nil {
			panic(err)
		}
		w.config.Tokens[0].After = []config.Hook{&config.ExecHook{Command: []string{script}}}
	}, Warning, HookUnusable, "tokens.one.after[0]", "uid 64000 may not"},
	"hook of a receiver that is not there": {func(w *world) {
		w.config.Tokens[1].After = []config.Hook{&config.WebhookHook{URL: "http://127.0.0.1:1/", Secret: config.SecretSource{File: "/etc/hostname"}, HookTimes: config.HookTimes{Timeout: time.Second}}}
	}, Warning, HookUnusable, "tokens.two.after[0]", "127.0.0.1:1"},
	"hook that can run": {func(w *world) { w.config.Tokens[0].After = []config.Hook{&config.ExecHook{Command: []string{"true"}}} }, Good, HooksGood, "after", "1 of 1"},
	"hook of another user": {func(w *world) {
		w.User = &ServiceUser{UID: 64000, GID: 64000}
		w.openAs = func(ServiceUser, string) (string, error) { return "", nil }
		w.config.Vault = nil
		for i := range w.config.Tokens {
			w.config.Tokens[i].Sinks = []config.Sink{outside{w.config.Tokens[i].Sinks[0].(*config.VaultSink)}}
		}
		w.config.Tokens[0].After = []config.Hook{&config.WebhookHook{URL: "https://example.com/", Secret: config.SecretSource{File: "/nonexistent/key"}}}
	}, Warning, HookNotTried, "tokens.one.after[0]", "only the service's user (uid 64000) can prove"},
	"other system": {func(w *world) { w.on(disk{}) }, Good, StateGood, "state.dir", "tells nothing more about it"},
}

// outside is a sink that is not in Vault.
type outside struct{ *config.VaultSink }

func (outside) NeedsVault() bool { return false }

// TestFindings causes one fault at a time. Doctor finds it, with its code, level and place, changes
// nothing, and shows no secret.
func TestFindings(t *testing.T) {
	seen := map[Code]bool{}
	for name, ill := range ills() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			ill.make(w)
			written := w.vault.Writes()
			findings := Examine(t.Context(), w.Options)
			found := false
			for _, f := range findings {
				seen[f.Code] = true
				text := fmt.Sprintf("%+v", f)
				if f.Code == ill.code && f.Level == ill.level && f.Subject == ill.subject && strings.Contains(f.Message, ill.says) {
					found = true
				}
				if strings.Contains(text, "CANARY") {
					t.Errorf("a secret is told: %s", text)
				}
				if f.Level != Good && (f.Message == "" || f.Advice == "" && f.Code != VaultLogin) {
					t.Errorf("it says nothing, or not what to do: %s", text)
				}
			}
			if !found {
				t.Errorf("no %s %s about %s with %q in:\n%+v", ill.level, ill.code, ill.subject, ill.says, findings)
			}
			if worst := Worst(findings); ill.level == Good && worst != Good {
				t.Errorf("the worst is %s:\n%+v", worst, findings)
			}
			if n := w.vault.Writes() - written; n != 0 {
				t.Errorf("%d secrets were written", n)
			}
			if w.sim != nil {
				stats := w.sim.Stats()
				for _, op := range []string{cfsim.OpCreate, cfsim.OpUpdate, cfsim.OpDelete, cfsim.OpRotate, cfsim.OpRefresh} {
					if n := stats.Count(op); n != 0 {
						t.Errorf("%d requests for %s", n, op)
					}
				}
			}
		})
	}
	for _, code := range codes(t) {
		if !seen[code] {
			t.Errorf("nothing made the finding %s", code)
		}
	}
}

// TestAdviceAboutMissingCredential: a file that is not there is not called unreadable.
func TestAdviceAboutMissingCredential(t *testing.T) {
	w := newWorld(t)
	w.account(func(a *config.Account) { a.APIToken.File = "/nonexistent/token" })
	for _, f := range Examine(t.Context(), w.Options) {
		if f.Code == CredentialUnreadable && !strings.HasPrefix(f.Advice, "correct the path, or put the file there") {
			t.Errorf("the advice does not fit: %s → %s", f.Message, f.Advice)
		}
	}
}

// TestSealedVault: of a sealed Vault nothing is said but that, and how it is unsealed: with a session from before, and
// without one. What Vault answers to other questions then is not a missing right.
func TestSealedVault(t *testing.T) {
	w := newWorld(t)
	session, err := vault.New(*w.config.Vault, nil, nil)
	if err == nil {
		err = session.LogInOnce(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	w.vault.Seal(true)
	for name, findings := range map[string][]Finding{"session": Sinks(t.Context(), w.config, session), "login": Examine(t.Context(), w.Options)} {
		found := 0
		for _, f := range findings {
			switch about := strings.HasPrefix(f.Subject, "vault"); {
			case about && f.Code == VaultLogin && strings.Contains(f.Message, "sealed") && strings.Contains(f.Advice, "vault operator unseal -address="+w.config.Vault.Address):
				found++
			case about && f.Level != Good:
				t.Errorf("%s: %+v", name, f)
			}
		}
		if found != 1 {
			t.Errorf("%s: %d findings say it: %+v", name, found, findings)
		}
	}
}

// TestLostPolicySaysTheStanzas: an administrator of Vault can copy what the policy lacks.
func TestLostPolicySaysTheStanzas(t *testing.T) {
	w := newWorld(t)
	w.config.Tokens[0].Sinks = inVault("nosuch", "access/one")
	const want = `path "nosuch/data/access/one" { capabilities = ["create", "read", "update"] }. rotatord docs deploy/vault/rotatord-policy.hcl has the whole policy`
	for _, f := range Examine(t.Context(), w.Options) {
		if f.Code == VaultMountBad && strings.HasSuffix(f.Advice, want) {
			return
		}
	}
	t.Errorf("no finding advises %s: %+v", want, Examine(t.Context(), w.Options))
}

// TestHealthyIsGood: a world without a fault has good findings only. Operators would stop reading a
// warning that is always there.
func TestHealthyIsGood(t *testing.T) {
	w := newWorld(t)
	if findings := Examine(t.Context(), w.Options); Worst(findings) != Good || len(findings) < 10 {
		t.Errorf("%+v", findings)
	}
	w.config.Accounts["prod"] = config.Account{Name: "prod", APIToken: config.SecretSource{File: "/nonexistent"}}
	if worst := Worst(Examine(t.Context(), w.Options)); worst != Bad {
		t.Errorf("the worst is %s", worst)
	}
}

// TestSecretIDIsNotUsedUp: a secret ID that can be used once is left for the daemon, unless doctor
// is told to log in; and then no session stays behind.
func TestSecretIDIsNotUsedUp(t *testing.T) {
	w := newWorld(t)
	w.LogIn = false
	for range 3 {
		Examine(t.Context(), w.Options)
	}
	if n := w.vault.Logins(); n != 0 {
		t.Errorf("%d logins", n)
	}
	w.LogIn = true
	if findings := Examine(t.Context(), w.Options); Worst(findings) != Good {
		t.Errorf("%+v", findings)
	}
	if logins, left := w.vault.Logins(), w.vault.Sessions(); logins != 1 || left != 0 {
		t.Errorf("%d logins, and %d sessions stay behind", logins, left)
	}
}

// TestEndsInTime: an examination that runs out of time reports what it could not check.
func TestEndsInTime(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got []Code
	for _, f := range Examine(ctx, w.Options) {
		got = append(got, f.Code)
	}
	if !slices.Contains(got, AccountUnreachable) || !slices.Contains(got, VaultLogin) {
		t.Errorf("%v", got)
	}
}

// codes returns all codes of the package.
func codes(t *testing.T) (all []Code) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "doctor.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Code" {
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, Code(value))
		}
		return true
	})
	if len(all) < 40 {
		t.Fatalf("only %d codes were found", len(all))
	}
	return all
}

// TestCodesAreDocumented: docs/doctor.md has each code with a level that it comes with, and no
// other.
func TestCodesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[Code]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z, ]+) \\|").FindAllStringSubmatch(string(page), -1) {
		documented[Code(row[1])] = row[2]
	}
	all := codes(t)
	for _, code := range all {
		levels := map[Level]bool{}
		for _, ill := range ills() {
			if ill.code == code {
				levels[ill.level] = true
			}
		}
		var want []string
		for _, level := range []Level{Bad, Warning, Good} {
			if levels[level] {
				want = append(want, string(level))
			}
		}
		if got := documented[code]; got != strings.Join(want, ", ") {
			t.Errorf("%s is documented as %q, and comes as %q", code, got, strings.Join(want, ", "))
		}
		delete(documented, code)
	}
	if len(documented) > 0 {
		t.Errorf("documented, and never found: %v", documented)
	}
}

// TestDiskOf: the system answers about a directory that is there.
func TestDiskOf(t *testing.T) {
	dir := t.TempDir()
	if d := diskOf(dir); d.known && (!d.writable || d.free == 0) {
		t.Errorf("%+v", d)
	}
	if d := diskOf(filepath.Join(dir, "nosuch")); d.known {
		t.Errorf("%+v", d)
	}
}

// TestOpenAs tries what another user may read, with the kernel's own rules.
func TestOpenAs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may try what another user can read")
	}
	dir, err := os.MkdirTemp("", "rotatord-doctor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	make := func(name string, mode os.FileMode, gid int) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("x"), 0o600), os.Chmod(path, mode), os.Chown(path, 0, gid)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	open, secret, shared, below := make("open", 0o644, 0), make("secret", 0o600, 0), make("shared", 0o640, 64001), make("closed/file", 0o644, 0)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(below), 0o700)); err != nil {
		t.Fatal(err)
	}
	user, member := ServiceUser{UID: 64000, GID: 64000}, ServiceUser{UID: 64000, GID: 64000, Groups: []int{64001}}
	for name, test := range map[string]struct {
		user         ServiceUser
		path, closed string
	}{
		"open": {user, open, ""}, "secret": {user, secret, secret}, "of another group": {user, shared, shared}, "of its group": {member, shared, ""},
		"below a closed directory": {user, below, filepath.Dir(below)}, "root's own group": {user, make("roots", 0o640, 0), filepath.Join(dir, "roots")},
	} {
		closed, err := openAs(test.user, test.path)
		if closed != test.closed || (err != nil) != (test.closed != "") || err != nil && !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %q, %v", name, closed, err)
		}
	}
	if f, err := os.Open(secret); err != nil {
		t.Errorf("this process has lost its rights: %v", err)
	} else {
		_ = f.Close()
	}
}
