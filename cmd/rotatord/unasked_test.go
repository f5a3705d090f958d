package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUnaskedAnswer: Go's HTTP client logs what a server sends without having been asked, word by word. That is not shown.
func TestUnaskedAnswer(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				lines := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(lines)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = io.WriteString(c, "HTTP/1.1 403 X\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nX-Secret: CANARY\r\n\r\n")
				}
			}()
		}
	}()
	program := filepath.Join(dir, "rotatord")
	if err := os.Symlink(os.Args[0], program); err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(expiringConfig, "STATE", dir)
	config = strings.Replace(config, "https://vault.example.com:8200", "http://"+l.Addr().String(), 1)
	config = strings.Replace(config, "vault:\n", "    base_url: http://"+l.Addr().String()+"/client/v4\nvault:\n", 1)
	for name, content := range map[string]string{"config.yaml": config, "secret": "x"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := exec.CommandContext(t.Context(), program, "doctor", "-c", filepath.Join(dir, "config.yaml")).CombinedOutput()
	if text := string(out); !strings.Contains(text, "403") || strings.Contains(text, "CANARY") || strings.Contains(text, "Unsolicited") {
		t.Errorf("%s", text)
	}
}
