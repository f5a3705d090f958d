package deploy

import (
	"net"
	"net/url"
	"slices"
	"testing"

	"go.yaml.in/yaml/v3"
)

// configFile is what the manifests have to agree with in a configuration. Whether the
// configuration is valid is for the product's own loader to say.
type configFile struct {
	Listen      string
	AdminSocket string `yaml:"admin_socket"`
	State       struct{ Dir string }
	root        yaml.Node
	Vault       struct{ Address string }
	Tokens      map[string]struct {
		Sinks []struct {
			Kubernetes *struct{ Namespace, Name string }
		}
	}
}

func parseConfig(t *testing.T, content string) configFile {
	t.Helper()
	var c configFile
	if err := yaml.Unmarshal([]byte(content), &c); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(content), &c.root); err != nil {
		t.Fatal(err)
	}
	return c
}

// files are all paths that the configuration reads, by file: PATH, in the order of the file.
func (c configFile) files() []string {
	var files []string
	var walk func(*yaml.Node)
	walk = func(n *yaml.Node) {
		if n.Kind == yaml.MappingNode {
			for i := 0; i < len(n.Content); i += 2 {
				if n.Content[i].Value == "file" && n.Content[i+1].Kind == yaml.ScalarNode {
					files = append(files, n.Content[i+1].Value)
				}
			}
		}
		for _, child := range n.Content {
			walk(child)
		}
	}
	walk(&c.root)
	return files
}

// secrets are the Secrets of Kubernetes that the configuration writes, as NAMESPACE/NAME.
func (c configFile) secrets() []string {
	var secrets []string
	for _, token := range c.Tokens {
		for _, sink := range token.Sinks {
			if k := sink.Kubernetes; k != nil {
				secrets = append(secrets, k.Namespace+"/"+k.Name)
			}
		}
	}
	slices.Sort(secrets)
	return secrets
}

func (c configFile) listen(t *testing.T) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	return host, port
}

func (c configFile) vaultPort(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(c.Vault.Address)
	if err != nil {
		t.Fatalf("vault.address: %v", err)
	}
	if port := u.Port(); port != "" {
		return port
	}
	return "443"
}
