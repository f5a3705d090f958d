// Package kube runs a real Kubernetes API server with its store as processes for tests: etcd and kube-apiserver,
// built from their modules, on loopback addresses, with TLS, RBAC, service-account tokens and the default
// admission plugins, Pod Security among them. Nobody is let in anonymously. Rights that a test gives or takes away are
// in force when the call returns.
//
// There is no kubelet, and there are no controllers but for those that a test starts by [Server.Control]: objects are
// admitted and kept, pods do not run, a namespace has no service account of its own, and a namespace that is deleted does
// not go away.
//
// The package and its module have no dependencies, so that every module of tests can use it.
package kube

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"rotatord/test/program"
	"rotatord/test/program/ca"
)

// Issuer is the issuer of service-account tokens, and their audience where none is asked for.
const Issuer = "https://kubernetes.default.svc.cluster.local"

// Server is one API server with its store.
type Server struct {
	URL        string // https://127.0.0.1:PORT
	CAFile     string // of the certificate of URL
	AdminToken string // of a user in system:masters
	// PublicKeyPEM checks the signatures of service-account tokens, for who does not ask the API server.
	PublicKeyPEM string

	dir        string
	address    string
	etcd       string // address
	serving    ca.Pair
	signingKey *ecdsa.PrivateKey
	store, api *exec.Cmd
	log        program.Output
	client     *http.Client
	kinds      map[string]resource // by apiVersion and kind
	marking    sync.Mutex          // of awaitRights
}

// The programs are built once for each test process. With these flags a vet of their modules finds what was
// compiled. The first build of the API server takes minutes.
var (
	etcdBinary = program.Build("etcd", "./test/kube/etcd", "-ldflags=-s -w")
	apiBinary  = program.Build("kube-apiserver", "./test/kube/apiserver", "-ldflags=-s -w")
	// controllerBinary is built only by tests that ask for it: it takes as long again.
	controllerBinary = program.Build("kube-controller-manager", "./test/kube/controllers", "-ldflags=-s -w")
)

// Start makes a new store and API server and waits until it is ready. Both end with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	authority := ca.New(t, "kube-ca")
	s := &Server{
		CAFile: authority.File, AdminToken: "admin-" + rand.Text(), dir: t.TempDir(), serving: authority.Server(t),
		address: program.FreeAddress(t), etcd: program.FreeAddress(t), kinds: map[string]resource{},
	}
	s.URL = "https://" + s.address
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(authority.PEM()))
	s.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	s.writeKeys(t)
	s.write(t, "tokens.csv", s.AdminToken+",admin,admin,system:masters\n")
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("the end of the API server's log:\n%s", program.Tail(s.log.String()))
		}
	})
	s.Resume(t)
	return s
}

// Resume starts what does not run of store and API server, on the same storage and addresses, and waits until
// the API server is ready.
func (s *Server) Resume(t testing.TB) {
	t.Helper()
	if s.store == nil {
		peer := "http://" + program.FreeAddress(t)
		s.store = s.run(t, etcdBinary, "--name=one", "--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--log-level=error",
			"--listen-client-urls=http://"+s.etcd, "--advertise-client-urls=http://"+s.etcd,
			"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=one="+peer)
	}
	// The API server ends if it finds no store within twenty seconds, which a busy machine can take.
	program.Eventually(t, program.Patience, "the store listens", func() bool {
		c, err := net.DialTimeout("tcp", s.etcd, 5*time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if s.api == nil {
		host, port, _ := net.SplitHostPort(s.address)
		s.api = s.run(t, apiBinary, "--etcd-servers=http://"+s.etcd, "--bind-address="+host, "--secure-port="+port, "--v=0",
			"--tls-cert-file="+s.serving.CertFile, "--tls-private-key-file="+s.serving.KeyFile, "--cert-dir="+s.dir,
			"--token-auth-file="+filepath.Join(s.dir, "tokens.csv"), "--anonymous-auth=false", "--authorization-mode=RBAC",
			"--service-account-issuer="+Issuer, "--service-account-key-file="+filepath.Join(s.dir, "service-account.pub"),
			"--service-account-signing-key-file="+filepath.Join(s.dir, "service-account.key"), "--service-account-extend-token-expiration=false",
			"--service-cluster-ip-range=10.96.0.0/24", "--endpoint-reconciler-type=none", "--allow-privileged=true", "--shutdown-delay-duration=0s")
	}
	var last string
	for deadline := time.Now().Add(program.Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		status, body, err := s.Do(ctx, s.AdminToken, http.MethodGet, "/readyz", "", nil)
		cancel()
		if err == nil && status == http.StatusOK {
			return
		}
		last = fmt.Sprintf("%d %s %v", status, body, err)
	}
	t.Fatalf("the API server did not get ready: %s\n%s", last, program.Tail(s.log.String()))
}

// Control starts controllers by their names in kube-controller-manager, such as deployment-controller. They end with the
// test.
func (s *Server) Control(t testing.TB, names string) {
	t.Helper()
	kubeconfig := s.Kubeconfig(t, "controllers", s.AdminToken)
	cmd := s.run(t, controllerBinary, "--kubeconfig="+kubeconfig, "--controllers="+names, "--leader-elect=false", "--secure-port=0", "--v=0")
	t.Cleanup(func() { end(&cmd, syscall.SIGKILL) })
}

// Kill ends both processes at once.
func (s *Server) Kill() {
	end(&s.api, syscall.SIGKILL)
	end(&s.store, syscall.SIGKILL)
}

// KillAPI ends the API server at once. Its store goes on.
func (s *Server) KillAPI() { end(&s.api, syscall.SIGKILL) }

// Pause stops the API server as a machine under load does: connections are accepted by the kernel and nothing
// answers. Continue ends that.
func (s *Server) Pause() { _ = s.api.Process.Signal(syscall.SIGSTOP) }

// Continue ends [Server.Pause].
func (s *Server) Continue() { _ = s.api.Process.Signal(syscall.SIGCONT) }

func (s *Server) run(t testing.TB, binary func() (string, error), args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func end(cmd **exec.Cmd, signal syscall.Signal) {
	if *cmd != nil {
		_ = (*cmd).Process.Signal(signal)
		_ = (*cmd).Wait()
		*cmd = nil
	}
}

// Kubeconfig writes a kubeconfig file for a token, with a context of this name, and returns its path.
func (s *Server) Kubeconfig(t testing.TB, context, token string) string {
	t.Helper()
	return s.write(t, "kubeconfig-"+context, fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
clusters: [{name: %[1]s, cluster: {server: %[2]q, certificate-authority: %[3]q}}]
users: [{name: %[1]s, user: {token: %[4]q}}]
contexts: [{name: %[1]s, context: {cluster: %[1]s, user: %[1]s}}]
`, context, s.URL, s.CAFile, token))
}

// CA returns the certificate of CAFile.
func (s *Server) CA(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (s *Server) write(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// writeKeys makes the key pair for service-account tokens.
func (s *Server) writeKeys(t testing.TB) {
	t.Helper()
	var err error
	if s.signingKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(s.signingKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&s.signingKey.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_ = pem.Encode(&b, &pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	s.write(t, "service-account.key", b.String())
	b.Reset()
	_ = pem.Encode(&b, &pem.Block{Type: "PUBLIC KEY", Bytes: public})
	s.PublicKeyPEM = b.String()
	s.write(t, "service-account.pub", s.PublicKeyPEM)
}
