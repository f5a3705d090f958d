package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"rotatord/internal/printable"
)

// TestRunEscapes: run escapes both of its outputs, also a character that is never finished.
func TestRunEscapes(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run([]string{"a\x1b[2J\u202e\x9b\xc3"}, strings.NewReader(""), &stdout, &stderr); code != exitUsage || !printable.IsPlain(stderr.String()) ||
		!strings.Contains(stderr.String(), "rotatord: unknown command") {
		t.Errorf("%d: %q", code, stderr.String())
	}
}

// TestRevealIsExact: a secret is printed as it is, whatever is in it, and not to a terminal that it would steer. What
// stands beside it is escaped.
func TestRevealIsExact(t *testing.T) {
	const odd = "a\x1b[2J\u202e\x9b secret"
	c := credential{ClientID: "id\x1b[2J\nFORGED", ClientSecret: odd, Others: []otherCredential{{ClientID: "\u202e", ClientSecret: odd + "2"}}}
	var below bytes.Buffer
	if err := printCredential(printable.Unescaped(printable.NewWriter(&below)), c); err != nil {
		t.Fatal(err)
	}
	want := "CF_ACCESS_CLIENT_ID=id\\x1b[2J FORGED\nCF_ACCESS_CLIENT_SECRET=" + odd + "\n# The answer had another secret too. Client ID: \\u202e\nCF_ACCESS_CLIENT_SECRET_2=" + odd + "2\n"
	if below.String() != want {
		t.Errorf("%q, want %q", below.String(), want)
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here")
	}
	defer terminal.Close()
	if !isTerminal(terminal) {
		t.Skip("the terminal is none")
	}
	if err := printCredential(terminal, c); err == nil || !strings.Contains(err.Error(), "could change your terminal") || strings.Contains(err.Error(), "secret"+"2") {
		t.Errorf("%v", err)
	}
	// As JSON it means the same, with nothing raw in it. JSON has no bytes that are not UTF-8.
	below.Reset()
	whole := strings.ReplaceAll(odd, "\x9b", "\u009b")
	if err := printJSON(printable.NewWriter(&below), credential{ClientSecret: whole}); err != nil {
		t.Fatal(err)
	}
	var back credential
	if err := json.Unmarshal(below.Bytes(), &back); err != nil || back.ClientSecret != whole || !printable.IsPlain(below.String()) {
		t.Errorf("%v: %q", err, below.String())
	}
}

// TestDemoDrawsOnATerminal: its own escapes reach a terminal, and none reach anything else.
func TestDemoDrawsOnATerminal(t *testing.T) {
	var below bytes.Buffer
	if v := newDemoView(printable.NewWriter(&below), false, nil); v.terminal {
		t.Error("a buffer is not a terminal")
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here")
	}
	defer terminal.Close()
	if v := newDemoView(printable.NewWriter(terminal), false, nil); !v.terminal || v.out != terminal {
		t.Error("the terminal is not drawn on")
	}
	if v := newDemoView(printable.NewWriter(terminal), true, nil); v.terminal {
		t.Error("--plain draws")
	}
}
