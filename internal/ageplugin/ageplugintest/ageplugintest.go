// Package ageplugintest makes a test binary a plugin of age that holds a key, answers, fails or hangs.
package ageplugintest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
)

const name = "rotatordtest"

// The ways in which the plugin behaves.
const (
	Good    = "good"
	Fails   = "fails"   // it says why it cannot
	Hangs   = "hangs"   // it never answers
	Escapes = "escapes" // it never answers, and a process that left its group has its pipes too
	Dies    = "dies"    // it ends in the middle, and says why on its standard error
	Spills  = "spills"  // the same, but what it says has a key in it
	Babbles = "babbles" // it writes lines of x without an end
	Asks    = "asks"    // it asks for a PIN, and fails without one
	ByName  = "byname"  // it seals to the recipient that its identity file names, and to no identity, as age-plugin-tpm
	Leaks   = "leaks"   // it fails if it gets a variable that it should not get
)

// Main runs the plugin if this process was started as one. Call it first in TestMain.
func Main() {
	if filepath.Base(os.Args[0]) != "age-plugin-"+name {
		return
	}
	p, err := plugin.New(name)
	if err != nil {
		os.Exit(3)
	}
	p.HandleIdentity(func(data []byte) (age.Identity, error) {
		key, err := behave(p, data)
		return key, err
	})
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return age.ParseX25519Recipient(string(data)) })
	p.HandleIdentityAsRecipient(func(data []byte) (age.Recipient, error) {
		key, err := behave(p, data)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(string(data), ByName+" ") {
			return nil, errors.New("identity encodings not supported")
		}
		return key.Recipient(), nil
	})
	os.Exit(p.Main())
}

func behave(p *plugin.Plugin, data []byte) (*age.X25519Identity, error) {
	how, key, _ := strings.Cut(string(data), " ")
	switch how {
	case Fails:
		return nil, errors.New("the device is \x1b[31maway")
	case Hangs:
		time.Sleep(time.Hour)
	case Escapes:
		child := exec.Command("sleep", "20")
		child.Stdin, child.Stdout = os.Stdin, os.Stdout
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			return nil, err
		}
		time.Sleep(time.Hour)
	case Dies:
		fmt.Fprintf(os.Stderr, "age-plugin-test: open /dev/tpmrm0: no such \x1b[31mfile\nUsage:\n%s", strings.Repeat("x", 1<<17))
		os.Exit(1)
	case Spills:
		fmt.Fprintln(os.Stderr, "cannot use "+plugin.EncodeIdentity(name, data))
		os.Exit(1)
	case Babbles:
		for {
			if _, err := fmt.Println(strings.Repeat("x", 4096)); err != nil {
				os.Exit(1)
			}
		}
	case Asks:
		if _, err := p.RequestValue("the PIN", true); err != nil {
			return nil, errors.New("no PIN")
		}
	case Leaks:
		for _, variable := range os.Environ() {
			switch name, _, _ := strings.Cut(variable, "="); name {
			case "PATH", "HOME", "TMPDIR", "XDG_RUNTIME_DIR", "PWD":
			default:
				return nil, fmt.Errorf("it got %s", name)
			}
		}
	}
	return age.ParseX25519Identity(key)
}

// Install puts the plugin first into PATH, for the length of the test.
func Install(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "age-plugin-"+name)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// Identity returns the text of an identity file of the plugin with a new key.
func Identity(t *testing.T, how string) string {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	comment := "# made by a test\n"
	if how == ByName {
		comment += "# Recipient: " + plugin.EncodeRecipient(name, []byte(key.Recipient().String())) + "\n"
	}
	return comment + plugin.EncodeIdentity(name, []byte(how+" "+key.String())) + "\n"
}
