package app

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"

	"rotatord/internal/config"
	"rotatord/internal/event"
	"rotatord/internal/smallfile"
)

// This file keeps the web configuration from blocking. The library that uses it reads it, and the files that
// it names, again for each connection and without a limit: on a mount that hangs, or on a named pipe, each
// connection would block a thread forever.

// webConfigEvery is how often the files are read.
const webConfigEvery = 5 * time.Second

// validateWebConfig checks the file and the files that it names. An empty path is valid.
func validateWebConfig(path string) error {
	if path == "" {
		return nil
	}
	if err := readableWebConfig(context.Background(), path); err != nil {
		return err
	}
	if err := checkPasswords(path); err != nil {
		return err
	}
	err := smallfile.Within(context.Background(), path, func() error { return web.Validate(path) })
	if err != nil {
		return fmt.Errorf("%s: %s (https://prometheus.io/docs/prometheus/latest/configuration/https/ describes the file)", path, withoutValues(err))
	}
	return nil
}

var (
	bcryptHash  = regexp.MustCompile(`^\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}$`)
	quotedValue = regexp.MustCompile("`[^`]*`|\"[^\"]*\"")
)

// checkPasswords reports what the library would not report, or would report with a part of a password:
// invalid YAML, and a password that is not a hash.
func checkPasswords(path string) error {
	text, err := smallfile.Read(context.Background(), path, smallfile.MaxPEM)
	if err != nil {
		return err
	}
	if err := config.CheckSyntax(path, text); err != nil {
		return err
	}
	var file struct {
		Users map[string]yaml.Node `yaml:"basic_auth_users"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		return nil // it has another shape, and the library says so
	}
	for _, user := range slices.Sorted(maps.Keys(file.Users)) {
		if hash := file.Users[user]; !bcryptHash.MatchString(hash.Value) {
			return fmt.Errorf("%s:%d:%d: basic_auth_users: the password of %q is not a bcrypt hash: write what htpasswd -nBC 10 %s prints behind the colon, in quotes",
				path, hash.Line, hash.Column, user, user)
		}
	}
	return nil
}

// withoutValues returns the text of an error on one line, without the values that it quotes.
func withoutValues(err error) string {
	return quotedValue.ReplaceAllString(strings.Join(strings.Fields(err.Error()), " "), "a value")
}

// readableWebConfig reads the file and the files that it names, as the library does.
func readableWebConfig(ctx context.Context, path string) error {
	text, err := smallfile.Read(ctx, path, smallfile.MaxPEM)
	if err != nil {
		return err
	}
	var named struct {
		TLS struct {
			Cert string `yaml:"cert_file"`
			Key  string `yaml:"key_file"`
			CA   string `yaml:"client_ca_file"`
		} `yaml:"tls_server_config"`
	}
	_ = yaml.Unmarshal(text, &named) // the library says what is wrong with it
	for _, file := range []string{named.TLS.Cert, named.TLS.Key, named.TLS.CA} {
		if file == "" {
			continue
		}
		if !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(path), file)
		}
		content, err := smallfile.Read(ctx, file, smallfile.MaxPEM)
		clear(content)
		if err != nil {
			return err
		}
	}
	return nil
}

// watchWebConfig turns clients away while the files cannot be read, until ctx ends.
func (a *App) watchWebConfig(ctx context.Context) {
	var was error
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(webConfigEvery):
		}
		err := readableWebConfig(ctx, a.options.WebConfigFile)
		if ctx.Err() != nil {
			return
		}
		if err != nil && fmt.Sprint(err) != fmt.Sprint(was) {
			a.tell("", event.WebConfig{Err: err})
		} else if err == nil && was != nil {
			a.tell("", event.WebConfig{})
		}
		was = err
		a.listener.TurnAway(err != nil)
	}
}
