// Command vaultd is a real Vault for tests: HashiCorp's own core with the KV secrets
// engine and AppRole, on a loopback address, with file storage.
//
// The first start initialises the storage with one unseal key and writes the key and the
// root token to init.json beside it; later starts unseal with it. So a test can kill it
// and start it again, as it would a server.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "loopback address to listen on")
	dir := flag.String("dir", "", "directory for storage and init.json")
	flag.Parse()
	if err := run(*listen, *dir); err != nil {
		log.Fatal("vaultd: ", err)
	}
}

// initialised is what init.json holds.
type initialised struct {
	UnsealKey string `json:"unseal_key"` // hex
	RootToken string `json:"root_token"`
}

func run(listen, dir string) error {
	if dir == "" {
		return errors.New("-dir is required")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	core, err := newCore(dir)
	if err != nil {
		return err
	}
	if err := unseal(ctx, core, filepath.Join(dir, "init.json")); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core:           core,
		ListenerConfig: &configutil.Listener{Type: "tcp", Address: listener.Addr().String(), TLSDisable: true},
	})}
	go func() {
		<-ctx.Done()
		bound, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(bound)
	}()
	fmt.Printf("ready http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return core.Shutdown()
}

func newCore(dir string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn})
	storage, err := file.NewFileBackend(map[string]string{"path": filepath.Join(dir, "storage")}, logger)
	if err != nil {
		return nil, err
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical: storage, StorageType: "file", Logger: logger, DisableMlock: true,
		BuiltinRegistry:    registry{},
		LogicalBackends:    map[string]logical.Factory{"kv": kv.Factory},
		CredentialBackends: map[string]logical.Factory{"approle": approle.Factory},
	})
}

// unseal initialises the storage if it is new, and unseals it.
func unseal(ctx context.Context, core *vault.Core, initFile string) error {
	var secrets initialised
	b, err := os.ReadFile(initFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
		result, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one, RecoveryConfig: &vault.SealConfig{}})
		if err != nil {
			return fmt.Errorf("initialising: %w", err)
		}
		secrets = initialised{UnsealKey: hex.EncodeToString(result.SecretShares[0]), RootToken: result.RootToken}
		if b, err = json.Marshal(secrets); err != nil {
			return err
		}
		if err := os.WriteFile(initFile, b, 0o600); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &secrets); err != nil {
			return err
		}
	}
	key, err := hex.DecodeString(secrets.UnsealKey)
	if err != nil {
		return err
	}
	unsealed, err := core.Unseal(key)
	if err != nil || !unsealed {
		return fmt.Errorf("unsealing: %t, %w", unsealed, err)
	}
	return nil
}

// registry names the built-in plugins, which is all that mounting them asks for.
type registry struct{}

func (registry) Contains(name string, kind consts.PluginType) bool {
	return name == "kv" && kind == consts.PluginTypeSecrets || name == "approle" && kind == consts.PluginTypeCredential
}

func (r registry) Get(name string, kind consts.PluginType) (func() (any, error), bool) {
	return nil, r.Contains(name, kind)
}

func (registry) Keys(kind consts.PluginType) []string {
	switch kind {
	case consts.PluginTypeSecrets:
		return []string{"kv"}
	case consts.PluginTypeCredential:
		return []string{"approle"}
	default:
		return nil
	}
}

func (r registry) DeprecationStatus(name string, kind consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, kind)
}

func (registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
