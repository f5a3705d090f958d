package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/secret"
	"rotatord/internal/smallfile"
)

const (
	// serviceAccountDir is where the kubelet puts the token of the service account.
	serviceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"
	// The variables that the kubelet sets in each container.
	hostVariable = "KUBERNETES_SERVICE_HOST"
	portVariable = "KUBERNETES_SERVICE_PORT"

	maxToken = 64 << 10
	maxPEM   = 1 << 20
)

// pod is the service account of the pod that the daemon runs in.
type pod struct {
	dir        string
	host, port string // of the API server; empty outside of a pod
}

func (p pod) read(ctx context.Context) (access, error) {
	if p.host == "" || p.port == "" {
		return access{}, errors.New("this is not a pod of a cluster, since " + hostVariable + " is not set: name a kubeconfig in kubernetes.kubeconfig")
	}
	base, err := url.Parse("https://" + net.JoinHostPort(p.host, p.port))
	if err != nil {
		return access{}, errors.New(hostVariable + " and " + portVariable + " are not an address: they must be as the kubelet sets them")
	}
	a := access{base: base}
	if a.token, err = readToken(ctx, filepath.Join(p.dir, "token")); err != nil {
		return access{}, fmt.Errorf("the token of the service account: %w; does the pod have automountServiceAccountToken: false?", err)
	}
	if a.authorities, err = smallfile.Read(ctx, filepath.Join(p.dir, "ca.crt"), maxPEM); err != nil {
		return access{}, fmt.Errorf("the certificate authority of the cluster: %w", err)
	}
	return a, nil
}

func (p pod) peer() outbound.Peer {
	return outbound.Peer{Name: "the API server", Address: hostVariable}
}

// readToken reads a token. The error repeats nothing of the file.
func readToken(ctx context.Context, path string) (secret.Value, error) {
	content, err := smallfile.Read(ctx, path, maxToken)
	if err != nil {
		return secret.Value{}, err
	}
	return tokenIn(string(content), path)
}

// tokenIn returns the token in a text. A token with a line break would end the header that it is sent in.
func tokenIn(text, where string) (secret.Value, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return secret.Value{}, fmt.Errorf("%s is empty", where)
	case !printable.IsPlain(text) || strings.ContainsAny(text, " \t\r\n"):
		return secret.Value{}, fmt.Errorf("%s is not a token: it has white space or control characters in it", where)
	}
	return secret.New(text), nil
}
