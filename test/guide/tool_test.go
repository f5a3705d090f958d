package guide

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/hashicorp/vault/api"
)

// roleEnv has this test binary play another program, where the guide needs one.
const roleEnv = "ROTATORD_GUIDE_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch role := os.Getenv(roleEnv); role {
	case "":
		os.Exit(m.Run())
	case "vault":
		err = vaultCommand(os.Args[1:])
	case "kubectl":
		err = kubectlCommand(os.Args[1:])
	case "loopback":
		err = raiseLoopback()
	case "tpm":
		err = tpmDevice(os.Args[1], os.Args[2])
	default:
		err = fmt.Errorf("no such role: %s", role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(2)
	}
}

// vaultCommand is as much of HashiCorp's command of that name as the guides use: no package has it, and
// it cannot be built as a library. It talks to a real Vault.
func vaultCommand(args []string) error {
	client, err := api.NewClient(api.DefaultConfig())
	if err != nil {
		return err
	}
	if client.Token() == "" { // in the machine, where an administrator is logged in
		b, err := os.ReadFile("/guide/vault/init.json")
		if err != nil {
			return err
		}
		var secrets struct {
			RootToken string `json:"root_token"`
		}
		if err := json.Unmarshal(b, &secrets); err != nil {
			return err
		}
		client.SetToken(secrets.RootToken)
	}
	options, words := map[string]string{}, []string{}
	for _, a := range args {
		if name, option := strings.CutPrefix(a, "-"); option {
			key, value, _ := strings.Cut(name, "=")
			options[key] = value
		} else {
			words = append(words, a)
		}
	}
	if ttl := options["wrap-ttl"]; ttl != "" {
		client.SetWrappingLookupFunc(func(string, string) string { return ttl })
	}
	show := func(s *api.Secret, err error) error {
		switch field := options["field"]; {
		case err != nil || field == "":
		case field == "wrapping_token":
			fmt.Print(s.WrapInfo.Token)
		default:
			fmt.Print(s.Data[field])
		}
		return err
	}
	switch command := strings.Join(words[:min(2, len(words))], " "); {
	case command == "policy write" && len(words) == 4:
		text, err := os.ReadFile(words[3])
		if err != nil {
			return err
		}
		return client.Sys().PutPolicy(words[2], string(text))
	case command == "auth enable" && len(words) == 3:
		return client.Sys().EnableAuthWithOptions(words[2], &api.EnableAuthOptions{Type: words[2]})
	case command == "secrets enable" && len(words) == 3:
		return client.Sys().Mount(options["path"], &api.MountInput{Type: words[2], Options: map[string]string{"version": options["version"]}})
	case len(words) == 2 && words[0] == "read":
		return show(client.Logical().Read(words[1]))
	case len(words) >= 2 && words[0] == "write":
		data := map[string]any{}
		for _, pair := range words[2:] {
			key, value, _ := strings.Cut(pair, "=")
			if file, is := strings.CutPrefix(value, "@"); is {
				content, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				value = string(content)
			}
			data[key] = value
		}
		return show(client.Logical().Write(words[1], data))
	}
	return fmt.Errorf("not among what the guides use: vault %s", strings.Join(args, " "))
}

// raiseLoopback lets a new network reach itself.
func raiseLoopback() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: uint16(net.FlagUp) | syscall.IFF_UP | syscall.IFF_RUNNING}
	copy(request.name[:], "lo")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// notifyEnd delivers the signal by which systemd ends a process.
func notifyEnd(to chan<- os.Signal) { signal.Notify(to, syscall.SIGTERM) }
