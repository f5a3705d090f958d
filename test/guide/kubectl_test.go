package guide

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"text/template"
)

// kubectlCommand is as much of kubectl as the guide to Vault uses, against the API server of the environment. It
// also does what a controller would: it writes a token into a Secret that is for one.
func kubectlCommand(args []string) error {
	k, err := newKubectl()
	if err != nil {
		return err
	}
	options, words := map[string]string{"namespace": "default"}, []string{}
	for i := 0; i < len(args); i++ {
		switch name, value, found := strings.Cut(args[i], "="); {
		case args[i] == "--namespace" || args[i] == "-f" || args[i] == "-o":
			options[strings.TrimLeft(args[i], "-")] = args[i+1]
			i++
		case strings.HasPrefix(name, "--") && found:
			options[name[2:]] = value
		default:
			words = append(words, args[i])
		}
	}
	switch command := strings.Join(words[:min(2, len(words))], " "); {
	case command == "create serviceaccount" && len(words) == 3:
		return k.do(http.MethodPost, "/api/v1/namespaces/"+options["namespace"]+"/serviceaccounts", "application/json",
			map[string]any{"metadata": map[string]any{"name": words[2]}}, nil)
	case command == "create clusterrolebinding" && len(words) == 3:
		namespace, name, _ := strings.Cut(options["serviceaccount"], ":")
		return k.do(http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "application/json", map[string]any{
			"metadata": map[string]any{"name": words[2]},
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": options["clusterrole"]},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "namespace": namespace, "name": name}},
		}, nil)
	case words[0] == "apply" && options["f"] != "":
		return k.applySecret(options["f"])
	case command == "get secret" && len(words) == 3:
		return k.show(options["namespace"], words[2], options["o"])
	}
	return fmt.Errorf("not among what the guides use: kubectl %s", strings.Join(args, " "))
}

type kubectl struct {
	url, token, ca string
	client         http.Client
}

func newKubectl() (*kubectl, error) {
	pem, err := os.ReadFile(os.Getenv("GUIDE_KUBE_CA"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return &kubectl{
		url: os.Getenv("GUIDE_KUBE_URL"), token: os.Getenv("GUIDE_KUBE_TOKEN"), ca: string(pem),
		client: http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}},
	}, nil
}

// do sends a request. A body that is bytes is sent as it is, any other one as JSON.
func (k *kubectl) do(method, path, contentType string, body, answer any) error {
	content, raw := body.([]byte)
	if !raw && body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequest(method, k.url+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+k.token)
	r.Header.Set("Content-Type", contentType)
	response, err := k.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s %s", method, path, response.Status, text)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

// applySecret applies a Secret for a token of a service account, and fills it.
func (k *kubectl) applySecret(file string) error {
	manifest, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	field := func(name string) string {
		m := regexp.MustCompile(`(?m)^ +` + regexp.QuoteMeta(name) + `: (\S+)$`).FindSubmatch(manifest)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	base := "/api/v1/namespaces/" + field("namespace")
	secret := base + "/secrets/" + field("name") + "?force=true&fieldManager="
	if err := k.do(http.MethodPatch, secret+"kubectl", "application/apply-patch+yaml", manifest, nil); err != nil {
		return err
	}
	account := field("kubernetes.io/service-account.name")
	var granted struct{ Status struct{ Token string } }
	err = k.do(http.MethodPost, base+"/serviceaccounts/"+account+"/token", "application/json", map[string]any{"spec": map[string]any{"expirationSeconds": 86400}}, &granted)
	if err != nil {
		return err
	}
	return k.do(http.MethodPatch, secret+"controller", "application/apply-patch+yaml", map[string]any{
		"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": field("name"), "namespace": field("namespace")},
		"data": map[string]any{"token": []byte(granted.Status.Token), "ca.crt": []byte(k.ca)},
	}, nil)
}

// show prints a Secret by a template.
func (k *kubectl) show(namespace, name, format string) error {
	text, found := strings.CutPrefix(format, "go-template=")
	if !found {
		return fmt.Errorf("no template in %q", format)
	}
	var secret map[string]any
	if err := k.do(http.MethodGet, "/api/v1/namespaces/"+namespace+"/secrets/"+name, "", nil, &secret); err != nil {
		return err
	}
	decode := func(s string) (string, error) { b, err := base64.StdEncoding.DecodeString(s); return string(b), err }
	shown, err := template.New("").Funcs(template.FuncMap{"base64decode": decode}).Parse(text)
	if err != nil {
		return err
	}
	return shown.Execute(os.Stdout, secret)
}
