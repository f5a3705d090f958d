package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// TestKubernetesGuide follows the steps of the guide in a copy of the repository's files. What asks a
// cluster or a registry is noted only; that the objects can be built is tried.
func TestKubernetesGuide(t *testing.T) {
	dir, bin := t.TempDir(), t.TempDir()
	binary := builtBinary(t)
	for _, command := range [][]string{
		{"mkdir", "-p", filepath.Join(dir, "bin")}, {"cp", "-r", filepath.Join(root, "deploy"), dir}, {"cp", binary, filepath.Join(dir, "bin", "rotatord")},
	} {
		if out, err := run(t, command[0], command[1:]...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, name := range []string{"kubectl", "docker", "make", "curl"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\necho \"asked: "+name+" $*\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sim := exec.CommandContext(t.Context(), binary, "sim", "--listen", "127.0.0.1:0", "--seed-tokens", "3")
	out, err := sim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Process.Kill(); _ = sim.Wait() })
	said := make([]byte, 4096)
	n, err := out.Read(said) // it says all at once
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`base_url: +(\S+)`).FindSubmatch(said[:n])
	if address == nil {
		t.Fatalf("the simulator says %q", said[:n])
	}

	_, steps, _ := strings.Cut(readFile(t, "deploy/kubernetes/README.md"), "## Steps\n")
	steps, _, _ = strings.Cut(steps, "\n## ")
	var lines []string
	for _, block := range regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```").FindAllStringSubmatch(steps, -1) {
		lines = append(lines, block[1])
	}
	script := strings.NewReplacer(
		"ACCOUNT_ID", "023e105f4ecef8ad9ca31a8372d0c353", "VAULT_HOST", "vault.example.com", "REGISTRY", "registry.example.com",
		"rotatord import ", "rotatord import --base-url "+string(address[1])+" ", "cat >", "echo cfat_made-up >",
		// Written by what the guide to Vault says; and kept, to look at them.
		"rm -r credentials", "ls credentials", "cp -r overlays", "echo x > credentials/vault-role-id; echo x > credentials/vault-secret-id; cp -r overlays",
	).Replace(strings.Join(lines, ""))
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", "export PATH="+bin+":$PATH\n"+script)
	cmd.Dir = dir
	log, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{
		"3 service token(s) written", "overlays/mine/config.yaml: good: 3 token(s)", "asked: kubectl apply -k overlays/mine",
		"--from-file=vault-secret-id=credentials/vault-secret-id", "asked: docker push registry.example.com/rotatord:v0.1.0",
	} {
		if !strings.Contains(string(log), want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
	// What kubectl would apply.
	mine := filepath.Join(dir, "deploy/kubernetes/overlays/mine")
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), mine)
	if err != nil {
		t.Fatal(err)
	}
	text, err := result.AsYaml()
	if err != nil || !strings.Contains(string(text), "5eed0000-0000-4000-8000-000000000003") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, match := range regexp.MustCompile(`--from-file=\S+=(\S+)`).FindAllStringSubmatch(script, -1) {
		if _, err := os.Stat(filepath.Join(dir, "deploy/kubernetes", match[1])); err != nil {
			t.Errorf("the Secret is made of a file that no step makes: %v", err)
		}
	}
}
