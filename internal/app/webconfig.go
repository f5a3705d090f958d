package app

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"go.yaml.in/yaml/v3"

	"rotatord/internal/smallfile"
)

// This file keeps the web configuration from blocking. The library that uses it reads it, and the
// files that it names, again for each connection, without a bound: on a mount that hangs, or at
// a named pipe, each connection would hold a thread for ever.

// webConfigEvery is how often it is looked at.
const webConfigEvery = 5 * time.Second

// validateWebConfig checks the file and what it names; "" is fine.
func validateWebConfig(path string) error {
	if path == "" {
		return nil
	}
	if err := readableWebConfig(context.Background(), path); err != nil {
		return err
	}
	return smallfile.Within(context.Background(), path, func() error { return web.Validate(path) })
}

// readableWebConfig reads the file and what it names, as the library does.
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
	_ = yaml.Unmarshal(text, &named) // what is wrong with it, the library says
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
			a.log.Error("no HTTP client is served: the web configuration or what it names cannot be read", "error", err)
		} else if err == nil && was != nil {
			a.log.Info("HTTP clients are served again: the web configuration can be read")
		}
		was = err
		a.listener.TurnAway(err != nil)
	}
}
