package config

import (
	"os"
	"strings"
	"sync"
)

// environment is locked for writing while variables are hidden, and for reading while a variable that
// the configuration names is read.
var environment sync.RWMutex

// WithoutEnvironment calls f while the process has no variable whose name begins with prefix, and
// puts them back. It is for libraries that read variables which the configuration does not name.
// A [SecretSource] that names such a variable waits until f is done; f must not read one.
func WithoutEnvironment(prefix string, f func()) {
	environment.Lock()
	defer environment.Unlock()
	hidden := map[string]string{}
	defer func() {
		for name, value := range hidden {
			_ = os.Setenv(name, value) // it was there before, so its name and value are valid
		}
	}()
	for _, variable := range os.Environ() {
		name, value, ok := strings.Cut(variable, "=")
		if !ok || !strings.HasPrefix(name, prefix) {
			continue
		}
		hidden[name] = value
		_ = os.Unsetenv(name) // fails for no name that exists
	}
	f()
}

// variable returns the value of a variable, and whether there is one.
func variable(name string) (value string, set bool) {
	environment.RLock()
	defer environment.RUnlock()
	return os.LookupEnv(name)
}
