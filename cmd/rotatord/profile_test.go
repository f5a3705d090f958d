package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestProfiles: with --profile-addr the real daemon serves profiles there and nowhere else, and no secret is in them.
// With another address nothing is started.
func TestProfiles(t *testing.T) {
	h := newHarness(t, "json")
	h.cloudflare.set(asItIs)
	h.vault.set(asItIs)
	config := filepath.Join(h.dir, "config.yaml")
	for _, address := range []string{"0.0.0.0:6060", ":6060", "192.0.2.1:6060"} {
		out, err := exec.CommandContext(t.Context(), h.program, "run", "-c", config, "--profile-addr", address).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "not a loopback address") {
			t.Errorf("%s: %v: %s", address, err, out)
		}
	}
	address := freePort(t)
	taken, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), h.program, "run", "-c", config, "--profile-addr", address).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nothing was started") {
		t.Errorf("an address in use: %v: %s", err, out)
	}
	_ = taken.Close()

	var log lockedBuffer
	daemon := exec.CommandContext(t.Context(), h.program, "run", "-c", config, "--profile-addr", address)
	daemon.Stdout, daemon.Stderr, daemon.Env = &log, &log, environment()
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	h.await(func() bool { return bytes.Contains(log.bytes(), []byte("rotatord is running")) })
	h.command("rotate", "ci") // a secret has been in the memory
	get := func(url string, want int) []byte {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != want {
			t.Fatalf("%s: %s, %v", url, answer.Status, err)
		}
		return body
	}
	profiles := "http://" + address + "/debug/pprof/"
	gzip := []byte{0x1f, 0x8b}
	for _, name := range []string{"profile?seconds=1", "heap"} {
		if content := get(profiles+name, http.StatusOK); !bytes.HasPrefix(content, gzip) {
			t.Errorf("%s: %.80q is not a profile", name, content)
		}
	}
	for _, name := range []string{"heap?debug=1", "goroutine?debug=1", "goroutine?debug=2"} {
		content := get(profiles+name, http.StatusOK)
		if !bytes.Contains(content, []byte("rotatord/internal/")) {
			t.Errorf("%s has no function of ours", name)
		}
		for _, secret := range []string{"cfast_", "an-api-token"} {
			if bytes.Contains(content, []byte(secret)) {
				t.Errorf("%s has the secret %s", name, secret)
			}
		}
	}
	page := "http://" + log.find(h, `"rotatord is running".*"address":"(127\.0\.0\.1:\d+)`)
	get(page+"/debug/pprof/", http.StatusNotFound)
	if os.Getenv("GOGC") == "" && !bytes.Contains(get(page+"/metrics", http.StatusOK), []byte("\ngo_gc_gogc_percent 30\n")) {
		t.Error("the daemon does not collect garbage as the documents say")
	}
	_ = daemon.Process.Signal(syscall.SIGTERM)
	if err := daemon.Wait(); err != nil {
		t.Errorf("the end: %v: %s", err, log.bytes())
	}
}
