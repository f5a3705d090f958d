package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/secret"
)

const canary = "cfast_CANARYcanaryCANARYcanaryCANARYcanary0123deadbeef"

type holder struct {
	Public secret.Value
	hidden secret.Value
	nested *holder
	list   []secret.Value
	byName map[string]secret.Value
	any    any
}

// TestValueNeverPrints walks every verb, flag and encoder over every shape that a
// Value may hide in.
func TestValueNeverPrints(t *testing.T) {
	v := secret.New(canary)
	h := holder{Public: v, hidden: v, list: []secret.Value{v}, byName: map[string]secret.Value{"k": v}, any: v}
	h.nested = &holder{hidden: v}
	shapes := []any{v, &v, h, &h, []any{v, h}, map[string]any{"x": h}, struct{ holder }{h}, fmt.Errorf("wrap: %v", h)}

	var out bytes.Buffer
	for _, shape := range shapes {
		for _, verb := range "vsdqxXtbcoOUeEfFgGpTw" {
			for _, flag := range []string{"", "+", "#", "-", " ", "0", "80", "+#"} {
				fmt.Fprintf(&out, "%"+flag+string(verb)+"\n", shape)
			}
		}
		for _, encode := range []func(any) ([]byte, error){json.Marshal, xml.Marshal, yaml.Marshal} {
			func() {
				defer func() { fmt.Fprintln(&out, recover()) }()
				b, err := encode(shape)
				fmt.Fprintln(&out, string(b), err)
			}()
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", shape)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", shape)
	}
	if got := out.String(); strings.Contains(got, "CANARY") || strings.Contains(got, fmt.Sprintf("%x", "CANARY")) ||
		strings.Contains(got, fmt.Sprintf("%X", "CANARY")) {
		t.Fatal("a secret was printed")
	}
	if !strings.Contains(out.String(), secret.Redacted) {
		t.Fatal("nothing was printed at all, so this test proves nothing")
	}
}

func TestScrubAndWellFormed(t *testing.T) {
	hex64 := strings.Repeat("0123456789abcdef", 4)
	for _, s := range []string{canary, hex64} {
		if !secret.WellFormed(secret.New(s)) {
			t.Errorf("WellFormed(%q) = false", s)
		}
		if got := secret.Scrub("before " + s + " after"); got != "before "+secret.Redacted+" after" {
			t.Errorf("Scrub left %q", got)
		}
	}
	for _, s := range []string{"", "cfast_short", hex64[1:], hex64 + "0", canary + "x", strings.ToUpper(hex64)} {
		if secret.WellFormed(secret.New(s)) {
			t.Errorf("WellFormed(%q) = true", s)
		}
	}
	for s, want := range map[string]bool{"cfast_short": true, hex64[1:]: true, canary + "x": true, hex64: false, canary: false, "cfnew_abc": false, "": false} {
		if got := secret.Damaged(secret.New(s)); got != want {
			t.Errorf("Damaged(%q) = %t", s, got)
		}
	}
	if got := secret.Scrub(string(secret.New(hex64).Digest())); got != string(secret.New(hex64).Digest()) {
		t.Errorf("a digest was scrubbed: %q", got)
	}
}

func TestValue(t *testing.T) {
	var zero secret.Value
	if !zero.IsZero() || zero.Reveal() != "" || zero.Digest() != "" {
		t.Error("the zero Value is not empty")
	}
	if !secret.New("a").Equal(secret.New("a")) || secret.New("a").Equal(secret.New("b")) || secret.New("a").Equal(zero) {
		t.Error("Equal is wrong")
	}
	if secret.New("a").Digest() == secret.New("b").Digest() {
		t.Error("digests collide")
	}
}
