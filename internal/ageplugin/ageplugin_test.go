package ageplugin_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"rotatord/internal/ageplugin"
	"rotatord/internal/ageplugin/ageplugintest"
)

func TestMain(m *testing.M) {
	ageplugintest.Main()
	os.Exit(m.Run())
}

func find(t *testing.T, text string) *ageplugin.Identity {
	t.Helper()
	i, err := ageplugin.Find(text)
	if err != nil || i == nil {
		t.Fatalf("%v, %v", i, err)
	}
	return i
}

func seal(t *testing.T, plain string, to age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to)
	if err == nil {
		_, err = io.WriteString(w, plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(sealed []byte, with age.Identity) (string, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), with)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), err
}

// TestSealAndOpen, and the same with the client of the age library, which speaks the same protocol.
func TestSealAndOpen(t *testing.T) {
	ageplugintest.Install(t)
	t.Setenv("API_TOKEN", "CANARY")
	for _, how := range []string{ageplugintest.Good, ageplugintest.Leaks, ageplugintest.ByName} {
		text := ageplugintest.Identity(t, how)
		ours := find(t, text)
		sealed := seal(t, "secret", ours.Recipient())
		if got, err := open(sealed, ours); got != "secret" {
			t.Fatalf("%s: %q, %v", how, got, err)
		}
		if how != ageplugintest.Good {
			continue
		}
		theirs, err := plugin.NewIdentity(strings.Split(text, "\n")[1], &plugin.ClientUI{})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := open(sealed, theirs); got != "secret" {
			t.Errorf("the client of the library opens %q, %v", got, err)
		}
		if got, err := open(seal(t, "theirs", theirs.Recipient()), ours); got != "theirs" {
			t.Errorf("%q, %v", got, err)
		}
		if _, err := open(sealed, find(t, ageplugintest.Identity(t, how))); err == nil {
			t.Error("another identity opens it")
		}
	}
}

// TestTrouble: a program that does not work is an error soon, says what is wrong, and leaves no process.
func TestTrouble(t *testing.T) {
	ageplugintest.Install(t)
	for how, want := range map[string]string{
		ageplugintest.Fails:   `it failed: the device is \x1b[31maway`,
		ageplugintest.Hangs:   "did not answer within 300ms, and was ended: does it wait for a touch",
		ageplugintest.Escapes: "did not answer within 300ms, and was ended: does it wait for a touch",
		ageplugintest.Dies:    `it ended before it answered, and wrote: age-plugin-test: open /dev/tpmrm0: no such \x1b[31mfile`,
		ageplugintest.Spills:  "it ended before it answered",
		ageplugintest.Babbles: "does not keep to the protocol",
		ageplugintest.Asks:    "it failed: no PIN",
	} {
		t.Run(how, func(t *testing.T) {
			i := find(t, ageplugintest.Identity(t, how))
			if how == ageplugintest.Hangs || how == ageplugintest.Escapes {
				i.Within = 300 * time.Millisecond
			}
			begun := time.Now()
			_, err := i.Recipient().Wrap(make([]byte, 16))
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "AGE-") {
				t.Errorf("wrap: %v", err)
			}
			if _, err := i.Unwrap([]*age.Stanza{{Type: "X25519", Args: []string{"x"}, Body: make([]byte, 32)}}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("unwrap: %v", err)
			}
			if d := time.Since(begun); d > 20*time.Second {
				t.Errorf("it took %s", d)
			}
		})
	}
}

// TestRecipientOfTheFile: what a comment names is sealed to, if it is of this plugin or needs none.
func TestRecipientOfTheFile(t *testing.T) {
	ageplugintest.Install(t)
	text := ageplugintest.Identity(t, ageplugintest.ByName)
	_, bare, _ := strings.Cut(text[strings.Index(text, "# Recipient"):], "\n")
	if _, err := find(t, bare).Recipient().Wrap(make([]byte, 16)); err == nil || !strings.Contains(err.Error(), `identity encodings not supported: if it seals to recipients only, keep the line "# Recipient: age1..."`) {
		t.Errorf("without the comment: %v", err)
	}
	const other = "# Recipient: age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt\n"
	if _, err := find(t, other+ageplugintest.Identity(t, ageplugintest.Good)).Recipient().Wrap(make([]byte, 16)); err != nil {
		t.Errorf("with the recipient of another plugin: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	const tagged = "#\tpublic key: age1tag1qwy0t2n7ht4zhyc0ah9ylwaye2m2zrwl3n8sr7896vdxshncnqyh5hk6lkx\n"
	stanzas, err := find(t, tagged+bare).Recipient().Wrap(make([]byte, 16))
	if err != nil || len(stanzas) != 1 || stanzas[0].Type != "p256tag" {
		t.Errorf("a tagged recipient, which needs no program: %v, %v", stanzas, err)
	}
}

func TestMissingProgram(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := find(t, ageplugintest.Identity(t, ageplugintest.Good)).Recipient().Wrap(make([]byte, 16))
	if err == nil || !strings.Contains(err.Error(), "the program age-plugin-rotatordtest of the age identity cannot be run") || !strings.Contains(err.Error(), "ExecPaths=") {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	for _, text := range []string{"", "# only a comment", "AGE-SECRET-KEY-1X", "age1abc"} {
		if i, err := ageplugin.Find(text); i != nil || err != nil {
			t.Errorf("%q: %v, %v", text, i, err)
		}
	}
	for _, text := range []string{"AGE-PLUGIN-TPM-1CANARY", "AGE-PLUGIN-", "AGE-PLUGIN-../X-1ABC"} {
		if i, err := ageplugin.Find(text); i != nil || err == nil || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%q: %v, %v", text, i, err)
		}
	}
}
