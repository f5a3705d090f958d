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

	"rotatord/test/program"
)

// guided is a copy of the repository's files in which the commands of a guide are run. What asks a cluster
// or a registry is noted only; Cloudflare is the simulator.
type guided struct {
	dir, bin, cloudflare string
	ran                  *program.Commands
}

func newGuided(t *testing.T) guided {
	t.Helper()
	dir, bin := t.TempDir(), t.TempDir()
	binary := builtBinary(t)
	for _, command := range [][]string{
		{"mkdir", "-p", filepath.Join(dir, "bin")}, {"cp", "-r", filepath.Join(root, "deploy"), dir}, {"cp", binary, filepath.Join(dir, "bin", "rotatord")},
	} {
		if out, err := run(t, command[0], command[1:]...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for _, name := range []string{"kubectl", "docker", "make", "curl", "helm"} {
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
	return guided{dir, bin, string(address[1]), new(program.Commands)}
}

// commandsOf are the shell commands of a section.
func commandsOf(t *testing.T, path, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(readFile(t, path), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %q", path, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var lines strings.Builder
	for _, block := range regexp.MustCompile("(?ms)^ *```sh\n(.*?)^ *```").FindAllStringSubmatch(text, -1) {
		lines.WriteString(unindented(block[1]))
	}
	return lines.String()
}

// unindented removes the indent of a block in a list, so that here documents in it end.
func unindented(block string) string {
	indent := block[:len(block)-len(strings.TrimLeft(block, " "))]
	return strings.ReplaceAll("\n"+block, "\n"+indent, "\n")[1:]
}

// follow runs commands, with the words in capitals filled in and other replacements, and returns what they
// print. The credentials are kept.
func (g guided) follow(t *testing.T, script string, replace ...string) string {
	t.Helper()
	g.ran.Add(script)
	script = strings.NewReplacer(append(replace,
		"ACCOUNT_ID", "023e105f4ecef8ad9ca31a8372d0c353", "VAULT_HOST", "vault.example.com", "REGISTRY", "registry.example.com",
		"rotatord import ", "rotatord import --base-url "+g.cloudflare+" ", "cat > credentials/", "echo cfat_made-up > credentials/", "rm -r ", "ls ")...).Replace(script)
	cmd := exec.CommandContext(t.Context(), "bash", "-euc", "export PATH="+g.bin+":$PWD/bin:$PATH\n"+script)
	cmd.Dir = g.dir
	log, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	return string(log)
}

// says checks what commands have printed.
func says(t *testing.T, log string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

// TestKubernetesGuide follows the steps of the guide to Kubernetes. That the objects can be built is tried.
func TestKubernetesGuide(t *testing.T) {
	g := newGuided(t)
	script := commandsOf(t, "deploy/kubernetes/README.md", "Steps")
	says(t, g.follow(t, script),
		"3 service token(s) written", "overlays/mine/config.yaml: good: 3 token(s)", "asked: kubectl apply -k overlays/mine",
		"--from-file=cloudflare-api-token=credentials/cloudflare-api-token", "asked: docker push registry.example.com/rotatord:v0.1.0")
	// What kubectl would apply.
	mine := filepath.Join(g.dir, "deploy/kubernetes/overlays/mine")
	result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), mine)
	if err != nil {
		t.Fatal(err)
	}
	text, err := result.AsYaml()
	if err != nil || !strings.Contains(string(text), "5eed0000-0000-4000-8000-000000000003") {
		t.Errorf("%v\n%s", err, text)
	}
	for _, match := range regexp.MustCompile(`--from-file=\S+=(\S+)`).FindAllStringSubmatch(script, -1) {
		if _, err := os.Stat(filepath.Join(g.dir, "deploy/kubernetes", match[1])); err != nil {
			t.Errorf("the Secret is made of a file that no step makes: %v", err)
		}
	}
}

// TestKubernetesGuideVariants follows the same steps with AppRole, and with JWT, as the guide says.
func TestKubernetesGuideVariants(t *testing.T) {
	g := newGuided(t)
	steps := commandsOf(t, "deploy/kubernetes/README.md", "Steps")
	for auth, overlay := range map[string]string{"approle": "approle", "jwt": "example"} {
		says(t, g.follow(t, steps, "cp -r overlays/example overlays/mine", "rm -rf overlays/mine; cp -r overlays/"+overlay+" overlays/mine", "mkdir -m 0700 credentials", "rm -rf credentials; mkdir credentials",
			"rotatord import ", "rotatord import --vault-auth "+auth+" --base-url "+g.cloudflare+" "), "overlays/mine/config.yaml: good: 3 token(s)")
		mine := filepath.Join(g.dir, "deploy/kubernetes/overlays/mine")
		if result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), mine); err != nil {
			t.Errorf("%s: %v", auth, err)
		} else if text, err := result.AsYaml(); err != nil || !strings.Contains(string(text), "    "+auth+":") || strings.Contains(string(text), "vault-token") != (auth == "jwt") {
			t.Errorf("%s: %v\n%s", auth, err, text)
		}
	}
}

// TestKubernetesGuideReplicas follows the same steps for several replicas, and those that move the ledger of one pod
// to them. That the objects can be built is tried.
func TestKubernetesGuideReplicas(t *testing.T) {
	g := newGuided(t)
	const page = "deploy/kubernetes/README.md"
	steps := commandsOf(t, page, "Steps")
	several := commandsOf(t, page, "Several replicas")
	const example, replicas = "cp -r overlays/example overlays/mine", "cp -r overlays/replicas overlays/mine"
	if !strings.Contains(steps, example) || !strings.Contains(several, replicas) {
		t.Fatal("the guide copies no overlay")
	}
	says(t, g.follow(t, steps, example, replicas), "3 service token(s) written")
	// Step 4: the section state is written by hand.
	mine := filepath.Join(g.dir, "deploy/kubernetes/overlays/mine/config.yaml")
	imported, err := os.ReadFile(mine)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mine, []byte(withStateOf(t, string(imported), readFile(t, "deploy/kubernetes/overlays/replicas/config.yaml"))), 0o644); err != nil {
		t.Fatal(err)
	}
	says(t, g.follow(t, "cd deploy/kubernetes\n"+several+"rotatord check --config overlays/mine/config.yaml\n", replicas, ":"),
		"overlays/mine/config.yaml: good: 3 token(s)", "asked: kubectl --namespace rotatord rollout status statefulset/rotatord")
	says(t, g.follow(t, "cd deploy/kubernetes\n"+commandsOf(t, page, "From one pod to several replicas")),
		"asked: kubectl --namespace rotatord scale deployment/rotatord --replicas=0", "asked: kubectl apply -k overlays/move", "asked: kubectl apply -k overlays/mine")
	for overlay, replicas := range map[string]string{"mine": "3", "move": "0"} {
		result, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(g.dir, "deploy/kubernetes/overlays", overlay))
		if err != nil {
			t.Fatal(err)
		}
		text, err := result.AsYaml()
		if err != nil || !strings.Contains(string(text), "\n  replicas: "+replicas+"\n") || !strings.Contains(string(text), "5eed0000-0000-4000-8000-000000000003") {
			t.Errorf("%s: %v\n%s", overlay, err, text)
		}
	}
}

// TestKubernetesGuideIsWhole runs what the other tests of the guide leave out, and holds that nothing is.
func TestKubernetesGuideIsWhole(t *testing.T) {
	g := newGuided(t)
	const page = "deploy/kubernetes/README.md"
	g.follow(t, commandsOf(t, page, "Steps"))
	for _, heading := range []string{"AppRole", "Secrets of Kubernetes as sinks", "Act on the running daemon", "Change the configuration"} {
		says(t, g.follow(t, "cd deploy/kubernetes\n"+commandsOf(t, page, heading)), "asked: kubectl ")
	}
	g.ran.Add(commandsOf(t, page, "Several replicas") + commandsOf(t, page, "From one pod to several replicas")) // by TestKubernetesGuideReplicas
	program.AllRun(t, root, page, *g.ran)
}

// withStateOf returns a configuration with the section state of another one.
func withStateOf(t *testing.T, config, other string) string {
	t.Helper()
	section := regexp.MustCompile(`(?m)^state:.*\n(?:[ #].*\n)*`)
	mine, theirs := section.FindString(config), section.FindString(other)
	if mine == "" || theirs == "" {
		t.Fatalf("no section state in\n%s", config)
	}
	return replaceOnce(t, config, mine, theirs)
}

// TestHelmGuide follows the steps of the chart's README. That the chart renders with what they pass is tried.
func TestHelmGuide(t *testing.T) {
	g := newGuided(t)
	before := `mkdir -m 0700 deploy/kubernetes/credentials; echo cfat_made-up > deploy/kubernetes/credentials/cloudflare-api-token` + "\n"
	log := g.follow(t, before+commandsOf(t, chartDir+"/README.md", "Install"))
	says(t, log, "3 service token(s) written", "config.yaml: good: 3 token(s)", "asked: kubectl apply -f deploy/kubernetes/base/namespace.yaml",
		"asked: helm install rotatord deploy/helm/rotatord --namespace rotatord --set-file config=config.yaml --set image.repository=registry.example.com/rotatord --set image.tag=v0.1.0")
	config, err := os.ReadFile(filepath.Join(g.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := render(filepath.Join(g.dir, chartDir), map[string]any{
		"config": string(config), "image": map[string]any{"repository": "registry.example.com/rotatord", "tag": "v0.1.0"},
	})
	if err != nil || len(objects) != 7 {
		t.Errorf("%d objects, %v", len(objects), err)
	}
	says(t, g.follow(t, commandsOf(t, chartDir+"/README.md", "Several replicas")),
		"asked: helm install rotatord deploy/helm/rotatord --namespace rotatord --set replicas=3 --set-file config=config.yaml",
		"asked: kubectl --namespace rotatord scale deployment/rotatord --replicas=0", "--set moveLedger.fromClaim=rotatord-state")
	says(t, g.follow(t, commandsOf(t, chartDir+"/README.md", "Remove it")), "asked: helm uninstall rotatord --namespace rotatord")
	program.AllRun(t, root, chartDir+"/README.md", *g.ran)
}
