package config

import (
	"os"
	"sync"
	"testing"
)

// TestWithoutEnvironment: what is hidden comes back as it was, and a credential is never missed.
func TestWithoutEnvironment(t *testing.T) {
	t.Setenv("HIDDEN_TOKEN", "a=b")
	t.Setenv("HIDDEN_EMPTY", "")
	t.Setenv("SEEN", "x")
	source := SecretSource{Env: "HIDDEN_TOKEN"}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if v, err := source.Read(); err != nil || v.Reveal() != "a=b" {
					t.Errorf("a credential was missed: %v", err)
					return
				}
			}
		})
	}
	for range 200 {
		WithoutEnvironment("HIDDEN_", func() {
			_, token := os.LookupEnv("HIDDEN_TOKEN")
			_, empty := os.LookupEnv("HIDDEN_EMPTY")
			if token || empty || os.Getenv("SEEN") != "x" {
				t.Error("not hidden, or too much is")
			}
		})
	}
	close(stop)
	readers.Wait()
	func() {
		defer func() { _ = recover() }()
		WithoutEnvironment("HIDDEN_", func() { panic("in a library") })
	}()
	if v, ok := os.LookupEnv("HIDDEN_EMPTY"); !ok || v != "" || os.Getenv("HIDDEN_TOKEN") != "a=b" {
		t.Error("they did not come back")
	}
}
