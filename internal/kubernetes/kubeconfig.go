package kubernetes

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"rotatord/internal/config"
	"rotatord/internal/outbound"
	"rotatord/internal/printable"
	"rotatord/internal/smallfile"
)

// kubeconfigFile is a context of a kubeconfig file.
type kubeconfigFile struct {
	path    string
	context string // empty: its current-context
}

// kubeconfig is what is read of such a file. Everything else in it, such as preferences and extensions, has no
// effect on a request.
type kubeconfig struct {
	CurrentContext string         `yaml:"current-context"`
	Contexts       []namedContext `yaml:"contexts"`
	Clusters       []struct {
		Name    string  `yaml:"name"`
		Cluster cluster `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		Name string `yaml:"name"`
		User user   `yaml:"user"`
	} `yaml:"users"`
}

type namedContext struct {
	Name    string `yaml:"name"`
	Context struct {
		Cluster string `yaml:"cluster"`
		User    string `yaml:"user"`
	} `yaml:"context"`
}

type cluster struct {
	Server        string `yaml:"server"`
	Authority     string `yaml:"certificate-authority"`
	AuthorityData string `yaml:"certificate-authority-data"`
	ServerName    string `yaml:"tls-server-name"`
	Insecure      bool   `yaml:"insecure-skip-tls-verify"`
	Proxy         string `yaml:"proxy-url"`
}

type user struct {
	Token           string    `yaml:"token"`
	TokenFile       string    `yaml:"tokenFile"`
	Certificate     string    `yaml:"client-certificate"`
	CertificateData string    `yaml:"client-certificate-data"`
	Key             string    `yaml:"client-key"`
	KeyData         string    `yaml:"client-key-data"`
	Username        string    `yaml:"username"`
	Exec            yaml.Node `yaml:"exec"`
	AuthProvider    yaml.Node `yaml:"auth-provider"`
	As              string    `yaml:"as"`
	AsGroups        yaml.Node `yaml:"as-groups"`
}

func (k kubeconfigFile) peer() outbound.Peer {
	return outbound.Peer{Name: "the API server", Address: "server in " + k.path, TLS: ""}
}

func (k kubeconfigFile) read(ctx context.Context) (access, error) {
	content, err := smallfile.Read(ctx, k.path, smallfile.MaxConfig)
	if err != nil {
		return access{}, fmt.Errorf("kubernetes.kubeconfig: %w", err)
	}
	a, err := k.parse(ctx, content)
	if err != nil {
		return access{}, fmt.Errorf("kubernetes.kubeconfig: %s: %w", k.path, err)
	}
	return a, nil
}

// yamlLine finds the line in an error of the YAML library, whose text may quote a token.
var yamlLine = regexp.MustCompile(`line \d+`)

func (k kubeconfigFile) parse(ctx context.Context, content []byte) (access, error) {
	var file kubeconfig
	if err := yaml.Unmarshal(content, &file); err != nil {
		at := yamlLine.FindString(err.Error())
		if at == "" {
			at = "its form"
		}
		return access{}, fmt.Errorf("is not a kubeconfig: %s cannot be read", at)
	}
	name := k.context
	if name == "" {
		name = file.CurrentContext
	}
	if name == "" {
		return access{}, errors.New("has no current-context: write kubernetes.context")
	}
	at := slices.IndexFunc(file.Contexts, func(c namedContext) bool { return c.Name == name })
	if at < 0 {
		var known []string
		for _, c := range file.Contexts {
			known = append(known, c.Name)
		}
		return access{}, fmt.Errorf("has no context %q (it has: %s)", printable.Line(name, maxWords), printable.Line(strings.Join(known, ", "), maxWords))
	}
	chosen := file.Contexts[at].Context
	var a access
	found := false
	for _, c := range file.Clusters {
		if c.Name == chosen.Cluster {
			found = true
			if err := k.cluster(ctx, c.Cluster, &a); err != nil {
				return access{}, fmt.Errorf("cluster %q: %w", printable.Line(c.Name, maxWords), err)
			}
			break
		}
	}
	if !found {
		return access{}, fmt.Errorf("has no cluster %q, which its context %q names", printable.Line(chosen.Cluster, maxWords), printable.Line(name, maxWords))
	}
	for _, u := range file.Users {
		if u.Name == chosen.User {
			if err := k.user(ctx, u.User, &a); err != nil {
				return access{}, fmt.Errorf("user %q: %w", printable.Line(u.Name, maxWords), err)
			}
			return a, nil
		}
	}
	return access{}, fmt.Errorf("has no user %q, which its context %q names", printable.Line(chosen.User, maxWords), printable.Line(name, maxWords))
}

// cluster reads where the API server is, and whom to trust for it.
func (k kubeconfigFile) cluster(ctx context.Context, c cluster, a *access) (err error) {
	a.base, err = url.Parse(c.Server)
	switch {
	case err != nil || a.base.Host == "" || a.base.User != nil || a.base.RawQuery != "" || a.base.Fragment != "":
		return errors.New("server is not the URL of an API server, such as https://10.0.0.1:6443")
	case a.base.Scheme == "http" && !config.IsLoopback(a.base.Hostname()):
		return errors.New("server is plain http, which would show the token and the secrets: write https")
	case a.base.Scheme != "http" && a.base.Scheme != "https":
		return errors.New("server must begin with https://")
	case c.Insecure:
		return errors.New("insecure-skip-tls-verify is not accepted, since any server would get the secrets: write certificate-authority")
	}
	if c.Proxy != "" {
		a.proxy, err = url.Parse(c.Proxy)
		if err != nil || a.proxy.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, a.proxy.Scheme) {
			return errors.New("proxy-url is not the address of a proxy: write http://HOST:PORT or socks5://HOST:PORT")
		}
		if a.base.Scheme != "https" {
			return errors.New("proxy-url is only for a server with https")
		}
	}
	a.serverName = c.ServerName
	a.authorities, err = k.material(ctx, "certificate-authority", c.Authority, c.AuthorityData)
	return err
}

// user reads the credential.
func (k kubeconfigFile) user(ctx context.Context, u user, a *access) (err error) {
	switch {
	case !u.Exec.IsZero():
		return errors.New("exec is not accepted, since the daemon runs no other program: write tokenFile, token or a client certificate, such as those of a service account (kubectl create token)")
	case !u.AuthProvider.IsZero():
		return errors.New("auth-provider is not accepted: write tokenFile, token or a client certificate")
	case u.Username != "":
		return errors.New("username and password are not accepted, and API servers take none since version 1.19: write tokenFile, token or a client certificate")
	case u.As != "" || !u.AsGroups.IsZero():
		return errors.New("as is not accepted: bind the role to the user itself")
	}
	if u.TokenFile != "" {
		a.token, err = readToken(ctx, k.beside(u.TokenFile))
	} else if u.Token != "" {
		a.token, err = tokenIn(u.Token, "token")
	}
	if err != nil {
		return err
	}
	if a.certificate, err = k.material(ctx, "client-certificate", u.Certificate, u.CertificateData); err != nil {
		return err
	}
	if a.key, err = k.material(ctx, "client-key", u.Key, u.KeyData); err != nil {
		return err
	}
	switch {
	case (len(a.certificate) > 0) != (len(a.key) > 0):
		return errors.New("client-certificate and client-key go together")
	case a.token.IsZero() && len(a.certificate) == 0:
		return errors.New("has no credential: write tokenFile, token or a client certificate")
	}
	return nil
}

// material returns PEM that is in the kubeconfig itself (data, in base64) or in a file beside it; data counts
// if both are there, as for kubectl.
func (k kubeconfigFile) material(ctx context.Context, name, path, data string) ([]byte, error) {
	switch {
	case data != "":
		content, err := base64.StdEncoding.DecodeString(data)
		if err != nil {
			return nil, fmt.Errorf("%s-data is not base64", name)
		}
		return content, nil
	case path != "":
		content, err := smallfile.Read(ctx, k.beside(path), maxPEM)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return content, nil
	}
	return nil, nil
}

// beside returns a path that is relative to the kubeconfig.
func (k kubeconfigFile) beside(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(k.path), path)
}
