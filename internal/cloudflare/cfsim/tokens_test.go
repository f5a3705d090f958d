package cfsim_test

import (
	"fmt"
	"hash/crc32"
	"regexp"
	"testing"
	"time"

	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/secret"
)

func TestSeededTokens(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 3})
	all := r.sim.Tokens()
	if len(all) != 3 {
		t.Fatalf("%d tokens", len(all))
	}
	uuid := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	for i, token := range all {
		if token.ID != cfsim.SeedTokenID(i+1) || !uuid.MatchString(token.ID) {
			t.Errorf("token %d has the ID %s", i+1, token.ID)
		}
		if want := fmt.Sprintf("seeded-%04d", i+1); token.Name != want {
			t.Errorf("token %d is called %s", i+1, token.Name)
		}
		if !token.Enabled || !token.ExpiresAt.Equal(epoch.Add(8760*time.Hour)) || token.Owner != "accounts/"+cfsim.DefaultAccountID {
			t.Errorf("token %d: %+v", i+1, token)
		}
		r.wantUse(token.ID, r.first(token.ID), 200, "current")
	}
	if got := cfsim.SeedTokenID(42); got != "5eed0000-0000-4000-8000-000000000042" {
		t.Errorf("SeedTokenID(42) = %s, which breaks configurations that were written before", got)
	}
	again := cfsim.New(cfsim.Options{SeedTokens: 1}).Tokens()[0]
	if again.ClientID != all[0].ClientID {
		t.Error("a restart changed the client ID of a seeded token")
	}
	if again.CurrentDigest == all[0].CurrentDigest {
		t.Error("without a seed, two simulators invented the same secret")
	}
}

func TestSeedMakesSecretsPredictable(t *testing.T) {
	run := func(seed uint64) []secret.Digest {
		r := newRig(t, cfsim.Options{Seed: seed, SeedTokens: 1})
		created := r.api("POST", tokensPath, `{"name":"x"}`).token(t)
		return []secret.Digest{
			r.first(cfsim.SeedTokenID(1)).Digest(), r.rotated(cfsim.SeedTokenID(1), 0).Digest(),
			secret.New(created.ClientSecret).Digest(), secret.New(created.ID + created.ClientID).Digest(),
		}
	}
	a, b, c := run(7), run(7), run(8)
	for i := range a {
		if a[i] != b[i] {
			t.Errorf("value %d differs under the same seed", i)
		}
		if a[i] == c[i] {
			t.Errorf("value %d is the same under another seed", i)
		}
	}
}

func TestSecretShape(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	seen := map[secret.Digest]bool{}
	for range 200 {
		v := r.rotated(cfsim.SeedTokenID(1), 0)
		s := v.Reveal()
		if !secretShape.MatchString(s) || !secret.WellFormed(v) {
			t.Fatal("a secret has the wrong shape")
		}
		if sum := fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(s[6:46]))); sum != s[46:] {
			t.Fatal("a secret has the wrong checksum")
		}
		if seen[v.Digest()] {
			t.Fatal("a secret came twice")
		}
		seen[v.Digest()] = true
	}
}

func TestRotateRevokesAtOnceWithoutGrace(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	old := r.first(id)
	before := r.get(id)
	r.clock.advance(time.Minute)
	fresh := r.rotated(id, 0)

	r.wantUse(id, fresh, 200, "current")
	r.wantUse(id, old, 401, "")
	after := r.get(id)
	if after.ClientID != before.ClientID || after.ExpiresAt != before.ExpiresAt || after.CreatedAt != before.CreatedAt {
		t.Errorf("rotating changed more than the secret: %+v to %+v", before, after)
	}
	if after.UpdatedAt == before.UpdatedAt {
		t.Error("updated_at did not move")
	}
	token, _ := r.sim.Token(id)
	if token.Rotations != 1 || token.CurrentDigest != fresh.Digest() || token.PreviousDigest != old.Digest() ||
		!token.PreviousExpiresAt.Equal(r.clock.Now()) {
		t.Errorf("the truth is %+v", token)
	}
}

func TestGraceEndsOnTime(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	old := r.first(id)
	fresh := r.rotated(id, time.Hour)

	r.wantUse(id, old, 200, "previous")
	r.clock.advance(time.Hour - time.Nanosecond)
	r.wantUse(id, old, 200, "previous")
	r.wantUse(id, fresh, 200, "current")
	r.clock.advance(time.Nanosecond)
	r.wantUse(id, old, 401, "")
	r.wantUse(id, fresh, 200, "current")
}

// TestSecondRotationDropsThePrevious tests the assumption that makes a blind second rotate so dangerous: the
// secret that clients use dies within its grace period.
func TestSecondRotationDropsThePrevious(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("KeepAllPrevious=%v", keep), func(t *testing.T) {
			r := newRig(t, cfsim.Options{SeedTokens: 1, Behaviour: cfsim.Behaviour{KeepAllPrevious: keep}})
			id := cfsim.SeedTokenID(1)
			inUse := r.first(id)
			lost := r.rotated(id, time.Hour)
			r.clock.advance(time.Minute)
			fresh := r.rotated(id, time.Hour)

			r.wantUse(id, fresh, 200, "current")
			r.wantUse(id, lost, 200, "previous")
			wantStatuses := []cfsim.Status{cfsim.StatusDead, cfsim.StatusPrevious, cfsim.StatusCurrent}
			if keep {
				r.wantUse(id, inUse, 200, "previous")
				wantStatuses[0] = cfsim.StatusPrevious
			} else {
				r.wantUse(id, inUse, 401, "")
			}
			all := r.sim.Secrets(id)
			for i, v := range []secret.Value{inUse, lost, fresh} {
				if all[i].Digest != v.Digest() || !all[i].Value.Equal(v) || all[i].Status != wantStatuses[i] {
					t.Errorf("secret %d is %v, want %s", i, all[i], wantStatuses[i])
				}
			}
			if len(all) != 3 || !all[2].ExpiresAt.IsZero() || !all[0].IssuedAt.Equal(epoch) {
				t.Errorf("the history is %v", all)
			}
		})
	}
}

func TestUpdateMovesTheGrace(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	old := r.first(id)
	r.rotated(id, time.Hour)
	move := func(d time.Duration) {
		t.Helper()
		body := `{"previous_client_secret_expires_at":"` + r.clock.Now().Add(d).Format(time.RFC3339Nano) + `"}`
		if a := r.api("PUT", tokensPath+"/"+id, body); a.status != 200 || a.token(t).ClientSecret != "" {
			t.Errorf("status %d", a.status)
		}
	}
	move(2 * time.Hour)
	r.clock.advance(90 * time.Minute)
	r.wantUse(id, old, 200, "previous")
	move(-time.Second)
	r.wantUse(id, old, 401, "")
	move(time.Hour) // a dead secret is not revived
	r.wantUse(id, old, 401, "")
	if got := r.sim.Stats().Rotations[id]; got != 1 {
		t.Errorf("moving the grace rotated: %d", got)
	}
}

func TestUpdateWithHigherVersionRotates(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	old := r.first(id)
	until := r.clock.Now().Add(time.Hour).Format(time.RFC3339)
	body := `{"client_secret_version":5,"previous_client_secret_expires_at":"` + until + `"}`

	if got := r.api("PUT", tokensPath+"/"+id, body).token(t); got.ClientSecret != "" {
		t.Error("an update showed the secret")
	}
	all := r.sim.Secrets(id)
	if len(all) != 2 {
		t.Fatalf("%d secrets", len(all))
	}
	r.wantUse(id, old, 200, "previous")
	r.wantUse(id, all[1].Value, 200, "current")

	r.api("PUT", tokensPath+"/"+id, body) // the same version again
	r.api("PUT", tokensPath+"/"+id, `{"client_secret_version":4}`)
	if token, _ := r.sim.Token(id); token.Rotations != 1 || token.Version != 5 {
		t.Errorf("%d rotations, version %v", token.Rotations, token.Version)
	}
	r.wantUse(id, old, 200, "previous")
	r.api("PUT", tokensPath+"/"+id, `{"client_secret_version":6}`) // without a grace
	r.wantUse(id, all[1].Value, 401, "")
	r.wantUse(id, old, 401, "")
	r.rotated(id, 0)
	if token, _ := r.sim.Token(id); token.Version != 7 {
		t.Errorf("after a rotate the version is %v", token.Version)
	}
}

func TestDisabledStopsBothSecrets(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	old := r.first(id)
	fresh := r.rotated(id, time.Hour)
	if r.api("PUT", tokensPath+"/"+id, `{"enabled":false}`).token(t).Enabled {
		t.Error("still enabled")
	}
	r.wantUse(id, old, 401, "")
	r.wantUse(id, fresh, 401, "")
	r.api("PUT", tokensPath+"/"+id, `{"name":"renamed"}`)
	r.wantUse(id, fresh, 401, "") // an update of something else does not enable
	r.api("PUT", tokensPath+"/"+id, `{"enabled":true}`)
	r.wantUse(id, old, 200, "previous")
	r.wantUse(id, fresh, 200, "current")
}

func TestTokenExpiresAndIsRenewed(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	path := tokensPath + "/" + id
	if got := r.api("PUT", path, `{"duration":"1h"}`).token(t); got.ExpiresAt != "2026-11-02T05:00:00.00000Z" || got.Duration != "1h" {
		t.Errorf("%+v", got)
	}
	r.clock.advance(time.Hour - time.Nanosecond)
	r.wantUse(id, r.first(id), 200, "current")
	r.clock.advance(time.Nanosecond)
	r.wantUse(id, r.first(id), 401, "")
	fresh := r.rotated(id, 0)
	r.wantUse(id, fresh, 401, "") // rotating the secret does not renew the token
	if got := r.api("POST", path+"/refresh", "").token(t); got.ExpiresAt != "2027-11-02T05:00:00.00000Z" || got.ClientSecret != "" {
		t.Errorf("%+v", got)
	}
	r.wantUse(id, fresh, 200, "current")
	if got := r.api("PUT", path, `{"duration":"forever"}`).token(t); got.ExpiresAt != "" || got.Duration != "forever" {
		t.Errorf("%+v", got)
	}
	r.clock.advance(20 * 8760 * time.Hour)
	r.wantUse(id, fresh, 200, "current")
	if got := r.api("POST", path+"/refresh", "").token(t); got.ExpiresAt != "" {
		t.Error("refreshing gave an end to a token that lasts forever")
	}
}

func TestLastSeen(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	r.wantUse(id, secret.New("wrong"), 401, "")
	if got := r.get(id).LastSeenAt; got != "" {
		t.Errorf("a refused client was seen at %s", got)
	}
	r.clock.advance(time.Second + 123456789)
	r.wantUse(id, r.first(id), 200, "current")
	if got := r.get(id).LastSeenAt; got != "2026-11-02T04:00:01.12345Z" {
		t.Errorf("last seen at %q", got)
	}
}

func TestBehaviour(t *testing.T) {
	r := newRig(t, cfsim.Options{SeedTokens: 1})
	id := cfsim.SeedTokenID(1)
	old, before := r.first(id), r.get(id)

	r.sim.SetBehaviour(cfsim.Behaviour{FrozenUpdatedAt: true, PropagationDelay: cfsim.Duration(10 * time.Second)})
	r.clock.advance(time.Minute)
	fresh := r.rotated(id, time.Hour)
	if got := r.get(id).UpdatedAt; got != before.UpdatedAt {
		t.Errorf("updated_at moved to %s", got)
	}
	r.wantUse(id, fresh, 401, "")
	r.wantUse(id, old, 200, "previous")
	r.clock.advance(10 * time.Second)
	r.wantUse(id, fresh, 200, "current")

	r.sim.SetBehaviour(cfsim.Behaviour{ClockSkew: cfsim.Duration(-30 * time.Minute)})
	a := r.rotate(id, "")
	if got, want := a.header.Get("Date"), r.clock.Now().Add(-30*time.Minute).Format(time.RFC1123); got != want[:len(want)-3]+"GMT" {
		t.Errorf("Date is %s, want %s", got, want)
	}
	if got := a.token(t).UpdatedAt; got != "2026-11-02T03:31:10.00000Z" {
		t.Errorf("updated_at is %s", got)
	}
}

func TestCreateDirectly(t *testing.T) {
	r := newRig(t, cfsim.Options{})
	token, v, err := r.sim.Create(cfsim.CreateParams{Name: "direct", Duration: "2h"})
	if err != nil {
		t.Fatal(err)
	}
	r.wantUse(token.ID, v, 200, "current")
	if got := r.get(token.ID); got.Name != "direct" || got.Duration != "2h" {
		t.Errorf("%+v", got)
	}
	disabled, v, err := r.sim.Create(cfsim.CreateParams{Name: "off", ZoneID: otherAccount, Disabled: true})
	if err != nil || disabled.Owner != "zones/"+otherAccount {
		t.Fatal(disabled, err)
	}
	r.wantUse(disabled.ID, v, 401, "")
	for name, p := range map[string]cfsim.CreateParams{
		"no name":      {},
		"bad duration": {Name: "x", Duration: "1 year"},
		"bad account":  {Name: "x", AccountID: "short"},
		"two owners":   {Name: "x", AccountID: otherAccount, ZoneID: otherAccount},
	} {
		if _, _, err := r.sim.Create(p); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := r.sim.Stats().Count(cfsim.OpCreate); got != 0 {
		t.Errorf("%d create requests were counted", got)
	}
}
