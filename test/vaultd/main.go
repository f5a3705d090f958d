// Command vaultd is a real Vault for tests: HashiCorp's own core with the KV secrets engine and the auth
// methods AppRole, Kubernetes, JWT and TLS certificates, on a loopback address.
//
// By default it is alone and its storage is a directory of files. With -cluster-address it is a member of a
// cluster on Raft storage: the first member makes the cluster, another one joins it through -join.
//
// The first start initialises the storage with one unseal key and writes the key and the root token to a file;
// later starts, and the other members, unseal with it. So a test can kill it and start it again, as it would a
// server.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
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
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/file"
	"github.com/hashicorp/vault/vault"
)

// options are the flags.
type options struct {
	listen, dir, initFile string
	cert, key, clientCA   string
	clusterAddress, join  string
	advertise             string
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:0", "loopback address to listen on")
	flag.StringVar(&o.dir, "dir", "", "directory for storage")
	flag.StringVar(&o.initFile, "init", "", "file of the unseal key and the root token (default: init.json in -dir)")
	flag.StringVar(&o.cert, "tls-cert", "", "certificate: the listener speaks TLS, and asks clients for a certificate that they need not have")
	flag.StringVar(&o.key, "tls-key", "", "key of -tls-cert")
	flag.StringVar(&o.clientCA, "tls-client-ca", "", "require a client certificate that this CA signed")
	flag.StringVar(&o.clusterAddress, "cluster-address", "", "loopback address for the other members: storage is Raft")
	flag.StringVar(&o.advertise, "cluster-advertise", "", "address at which the other members reach -cluster-address, such as that of a proxy (default: -cluster-address)")
	flag.StringVar(&o.join, "join", "", "URL of a member of the cluster to join")
	flag.Parse()
	if err := run(o); err != nil {
		log.Fatal("vaultd: ", err)
	}
}

// initialised is what init.json holds.
type initialised struct {
	UnsealKey string `json:"unseal_key"` // hex
	RootToken string `json:"root_token"`
}

func run(o options) error {
	if o.dir == "" {
		return errors.New("-dir is required")
	}
	if o.initFile == "" {
		o.initFile = filepath.Join(o.dir, "init.json")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	scheme := "http://"
	tlsConfig, err := o.tls()
	if err != nil {
		return err
	}
	if tlsConfig != nil {
		listener, scheme = tls.NewListener(listener, tlsConfig), "https://"
	}
	address := scheme + listener.Addr().String()
	core, err := newCore(o, address)
	if err != nil {
		return err
	}
	handler := vaulthttp.Handler.Handler(&vault.HandlerProperties{
		Core: core,
		ListenerConfig: &configutil.Listener{
			Type: "tcp", Address: listener.Addr().String(), TLSDisable: tlsConfig == nil,
		},
	})
	if err := clusterOf(ctx, core, o, handler); err != nil {
		return err
	}
	if err := unseal(ctx, core, o.initFile); err != nil {
		return err
	}
	server := &http.Server{Handler: handler}
	go func() {
		<-ctx.Done()
		bound, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(bound)
	}()
	fmt.Println("ready", address)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return core.Shutdown()
}

// tls returns the configuration of the listener, as Vault's own makes it: nil without a certificate.
func (o options) tls() (*tls.Config, error) {
	if o.cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}}
	if o.clientCA != "" {
		b, err := os.ReadFile(o.clientCA)
		if err != nil {
			return nil, err
		}
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		c.ClientCAs.AppendCertsFromPEM(b)
	}
	return c, nil
}

func newCore(o options, address string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn})
	c := &vault.CoreConfig{
		StorageType: "file", Logger: logger, DisableMlock: true,
		BuiltinRegistry: registry{}, LogicalBackends: backends(engines), CredentialBackends: backends(authMethods),
	}
	storage := filepath.Join(o.dir, "storage")
	if o.clusterAddress == "" {
		var err error
		c.Physical, err = file.NewFileBackend(map[string]string{"path": storage}, logger)
		if err != nil {
			return nil, err
		}
		return vault.NewCore(c)
	}
	if err := os.MkdirAll(storage, 0o700); err != nil {
		return nil, err
	}
	// A multiplier of 1 is what HashiCorp recommends for production: a new leader within seconds.
	backend, err := raft.NewRaftBackend(map[string]string{"path": storage, "node_id": address, "performance_multiplier": "1"}, logger)
	if err != nil {
		return nil, err
	}
	c.Physical, c.HAPhysical, c.StorageType = backend, backend.(physical.HABackend), "raft"
	c.RedirectAddr, c.ClusterAddr = address, "https://"+cmp.Or(o.advertise, o.clusterAddress)
	return vault.NewCore(c)
}

// clusterOf makes the core a member of a cluster, if it is to be one. It joins when it is unsealed for the first
// time.
func clusterOf(ctx context.Context, core *vault.Core, o options, handler http.Handler) error {
	if o.clusterAddress == "" {
		return nil
	}
	address, err := net.ResolveTCPAddr("tcp", o.clusterAddress)
	if err != nil {
		return err
	}
	core.SetClusterListenerAddrs([]*net.TCPAddr{address})
	core.SetClusterHandler(handler)
	if o.join == "" {
		return nil
	}
	_, err = core.JoinRaftCluster(ctx, []*raft.LeaderJoinInfo{{LeaderAPIAddr: o.join}}, false)
	return err
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
	if _, err := core.Unseal(key); err != nil {
		return fmt.Errorf("unsealing: %w", err)
	}
	// A member that has just joined unseals itself when the barrier's keys have reached it.
	for deadline := time.Now().Add(time.Minute); core.Sealed(); {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if time.Now().After(deadline) {
			return errors.New("it did not unseal itself within a minute of joining")
		}
	}
	return nil
}
