package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rotatord/internal/admin"
	"rotatord/internal/printable"
	"rotatord/internal/status"
)

// TestColours: they are on what matters, on a terminal only, not with NO_COLOR, and never from a foreign text.
func TestColours(t *testing.T) {
	const text = "CRITICAL  ci: gone\nWARNING   \x1b[31mforged: CRITICAL  x\n\nci\n  CUT OFF          since\n  state            idle\n  rotatord rotate ci\n"
	var out bytes.Buffer
	d := display{out: &out, terminal: true, colour: true, size: func() (int, int) { return 200, 50 }}
	if err := d.print(text); err != nil {
		t.Fatal(err)
	}
	want := red + "CRITICAL" + plain + "  ci: gone\n" + yellow + "WARNING" + plain + "   \\x1b[31mforged: CRITICAL  x\n\nci\n" +
		"  " + red + "CUT OFF" + plain + "          since\n  state            idle\n  " + bold + "rotatord rotate ci" + plain + "\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	out.Reset()
	if err := newDisplay(printable.NewWriter(&out)).print(text); err != nil || strings.Contains(out.String(), "\x1b") {
		t.Errorf("in a file: %v %q", err, out.String())
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here")
	}
	defer terminal.Close()
	for _, test := range []struct {
		noColour, term string
		want           bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", test.noColour)
		t.Setenv("TERM", test.term)
		if d := newDisplay(printable.NewWriter(terminal)); !d.terminal || d.colour != test.want {
			t.Errorf("NO_COLOR=%s TERM=%s: %+v", test.noColour, test.term, d)
		}
	}
}

// TestDraw: what does not fit on the screen is left out and counted, also if lines are longer than it is wide.
func TestDraw(t *testing.T) {
	var out bytes.Buffer
	d := display{out: &out, terminal: true, size: func() (int, int) { return 10, 4 }}
	for text, want := range map[string]string{
		"a\nb\nc\nd\n":                "a|b|c|d",
		"a\nb\nc\nd\ne\n":             "a|b|c|... 2 more lines: make the terminal larger",
		"12345678901\nb\nc\n":         "12345678901|b|c",
		"12345678901\nb\nc\nd\n":      "12345678901|b|... 2 more lines: make the terminal larger",
		"a\nb\n1234567890123456789\n": "a|b|1234567890123456789",
		"":                            "",
	} {
		out.Reset()
		if err := d.draw(text); err != nil {
			t.Fatal(err)
		}
		got := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\x1b[H"), "\x1b[K\x1b[J")
		if got = strings.ReplaceAll(got, "\x1b[K\r\n", "|"); got != want {
			t.Errorf("%q is drawn as %q, want %q", text, got, want)
		}
	}
}

// TestFolded: long lines are broken between words below their values, and tables are not broken. No word is lost.
func TestFolded(t *testing.T) {
	for text, want := range map[string]string{
		"CRITICAL  ci: the service token is gone and its clients are locked out\n":    "CRITICAL  ci: the service token is gone|          and its clients are locked out|",
		"          to do: make a service token, put its id into the configuration\n":  "          to do: make a service token,|          put its id into the|          configuration|",
		"  last error       the disk is full and has been for days now\n":             "  last error       the disk is full and|                   has been for days now|",
		"TOKEN   STATE   NEXT   LAST SUCCESS   GRACE ENDS   FAILURES   REASON\n":      "TOKEN   STATE   NEXT   LAST SUCCESS   GRACE ENDS   FAILURES   REASON|",
		"nothing is wrong with 10 tokens; next: ci in 3 min 2 s (--all shows each)\n": "nothing is wrong with 10 tokens; next:|ci in 3 min 2 s (--all shows each)|",
		"short\n\nlines\n": "short||lines|",
		"CRITICAL  äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöü and more\n":      "CRITICAL  äöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöüäöü|          and more|",
		"no newline at the end of a line that is longer than the screen": "no newline at the end of a line that is|longer than the screen|",
	} {
		got := folded(text, 40)
		if got != strings.ReplaceAll(want, "|", "\n") {
			t.Errorf("%q\nis broken to\n%q", text, strings.ReplaceAll(got, "\n", "|"))
		}
		if strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(text), " ") {
			t.Errorf("words are lost: %q", got)
		}
	}
}

// TestWatch: it asks at the interval. While there is no answer, the last one stays and the error is above it. It ends
// with its context, and with a refusal.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var out bytes.Buffer
		d := display{out: &out, terminal: true, size: func() (int, int) { return 200, 50 }}
		var asked []time.Duration
		began := time.Now()
		ask := func(context.Context) (status.Overview, error) {
			asked = append(asked, time.Since(began))
			switch len(asked) {
			case 2:
				return status.Overview{}, errors.New("no process listens")
			case 4:
				cancel()
			}
			return status.Overview{Tokens: []status.Token{{Name: "ci", State: "idle"}}, PendingSecrets: len(asked)}, nil
		}
		shown := func(o status.Overview, now time.Time) string { return overviewText(o, false, now) }
		if err := watch(ctx, d, 5*time.Second, "rotatord status", ask, shown); err != nil {
			t.Fatal(err)
		}
		if len(asked) != 4 || asked[3] != 15*time.Second {
			t.Errorf("asked at %v", asked)
		}
		screens := strings.Split(out.String(), "\x1b[H")
		if len(screens) != 4 || strings.Contains(screens[1], "NO ANSWER") || !strings.Contains(screens[2], "NO ANSWER for 5s: no process listens") ||
			!strings.Contains(screens[2], "1 new secret") || strings.Contains(screens[3], "NO ANSWER") || !strings.Contains(screens[3], "3 new secret") {
			t.Errorf("%q", screens)
		}
		if !strings.HasPrefix(out.String(), "\x1b[?1049h\x1b[?25l") || !strings.Contains(out.String(), "\x1b[?25h\x1b[?1049l") {
			t.Error("the screen is not given back")
		}
	})
	refused := &admin.Refused{Code: http.StatusNotFound, Message: "no token"}
	d := display{out: io.Discard, terminal: true, size: func() (int, int) { return 80, 24 }}
	if err := watch(t.Context(), d, time.Second, "", func(context.Context) (status.Overview, error) { return status.Overview{}, refused }, nil); !errors.Is(err, refused) {
		t.Errorf("the first answer is a refusal: %v", err)
	}
}

// TestWatchOnATerminal: with a real daemon on a real terminal, --watch draws, Ctrl-C ends it with 0, and the terminal is
// given back with what was seen last.
func TestWatchOnATerminal(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for seconds")
	}
	for _, program := range []string{"script", "curl", "setsid"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	s := newSandbox(t)
	out, err := s.run(inDoubt + `
(sleep 0.5; until [ "$(grep -o 'every 1s: ' screen 2> /dev/null | wc -l)" -ge 2 ]; do sleep 0.05; done; printf '\003'; sleep 0.5) |
  TERM=xterm NO_COLOR= script --quiet --flush --return --command 'stty cols 100 rows 30; exec rotatord status --watch=1s' screen > /dev/null
echo "exit code $?"
cat screen
`)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"exit code 0\n", "\x1b[?1049h\x1b[?25l", "\x1b[Hrotatord status, every 1s: ", red + "CRITICAL" + plain + "  seeded-0003: in doubt", "\x1b[?25h\x1b[?1049l",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%q", want, out)
		}
	}
	if n := strings.Count(out, "\x1b[H"); n < 2 {
		t.Errorf("it was drawn %d times", n)
	}
	if _, last, _ := strings.Cut(out, "\x1b[?1049l"); !strings.Contains(last, "seeded-0003") {
		t.Errorf("what was seen last is gone: %q", last)
	}
}
