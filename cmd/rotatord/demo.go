package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/spf13/cobra"

	"rotatord/internal/app"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/printable"
	"rotatord/internal/vault/vaulttest"
)

func newDemo() *cobra.Command {
	var duration time.Duration
	var plain bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch rotations happen, without any setup",
		Long: `Run the real daemon for five tokens with schedules of seconds, against the Cloudflare simulator and a KV
server in this process in place of Vault. Everything is on this machine and is deleted at the end. If
VAULT_ADDR and VAULT_TOKEN are set, the demo writes to that Vault instead: to rotatord-demo/ in the KV
mount "secret".

A consumer reads each secret from the KV store five times a second and calls an application behind
Access with it. The last column shows what the application answered.`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if duration > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, duration)
				defer cancel()
			}
			return runDemo(ctx, cmd.OutOrStdout(), plain)
		},
	}
	durationVar(cmd, &duration, "for", "stop after this `duration`; 0: run until interrupted")
	cmd.Flags().BoolVar(&plain, "plain", false, "print lines, also to a terminal")
	return cmd
}

// demoTokens are the tokens of the demo. Their grace is shorter than the time between two slots, and
// longer than the time between two reads of the consumer.
var demoTokens = []struct{ Name, Schedule string }{
	{"ci-deploy", "@every 3s"},
	{"grafana-agent", "@every 5s"},
	{"backup-runner", "@every 7s"},
	{"warehouse-sync", "@every 11s"},
	{"edge-probe", "@every 13s"},
}

const demoMount = "secret"

var demoConfig = template.Must(template.New("config").Parse(`listen: 127.0.0.1:0
state: {dir: {{.Dir}}/state}
accounts:
  simulated:
    account_id: {{.AccountID}}
    api_token: {file: {{.Dir}}/cloudflare-api-token}
    base_url: {{.BaseURL}}
vault:
  address: {{.VaultAddress}}
  auth: {token: {file: {{.Dir}}/vault-token}}
defaults: {account: simulated, grace: 1s}
tokens:
{{- range .Tokens}}
  {{.Name}}:
    id: {{.ID}}
    schedule: "{{.Schedule}}"
    sinks: [{vault: {mount: {{$.Mount}}, path: rotatord-demo/{{.Name}}}}]
{{- end}}
`))

// demo is what runs besides the daemon.
type demo struct {
	dir       string
	simulator *cfsim.Simulator
	vaultAddr string
	vaultName string // for the screen
	tokens    []demoToken
	servers   []*http.Server
}

type demoToken struct{ Name, Schedule, ID string }

func runDemo(ctx context.Context, stdout io.Writer, plain bool) (err error) {
	d := &demo{}
	if d.dir, err = os.MkdirTemp("", "rotatord-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	c, err := d.setUp(ctx)
	if err != nil {
		return err
	}
	logFile, err := os.Create(filepath.Join(d.dir, "rotatord.log"))
	if err != nil {
		return err
	}
	defer logFile.Close()

	view := newDemoView(stdout, plain, d)
	daemon, err := app.New(app.Options{
		Config: c, Logger: slog.New(slog.NewJSONHandler(printable.NewWriter(logFile), nil)), Build: build(), Subscriber: view.subscriber().Queued(0, nil),
	})
	if err != nil {
		return err
	}
	consumer, err := newDemoConsumer(d, c)
	if err != nil {
		return errors.Join(err, daemon.Stop(ctx))
	}
	view.begin("http://"+daemon.Addr().String(), daemon, consumer)
	daemon.Start()
	consumerEnded := make(chan struct{})
	consumerCtx, stopConsumer := context.WithCancel(context.Background())
	go func() { defer close(consumerEnded); consumer.run(consumerCtx) }()

	var failed error
	select {
	case failed = <-daemon.Failed():
	case <-view.run(ctx):
	}
	bound, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	stopErr := daemon.Stop(bound)
	stopConsumer()
	<-consumerEnded
	view.end()
	return errors.Join(failed, stopErr)
}

// setUp starts the simulator and the KV server, creates the tokens, and returns the daemon's
// configuration, read by the real loader.
func (d *demo) setUp(ctx context.Context) (*config.Config, error) {
	d.simulator = cfsim.New(cfsim.Options{RateLimit: -1})
	simAddress, err := d.serve(d.simulator)
	if err != nil {
		return nil, err
	}
	vaultToken := os.Getenv("VAULT_TOKEN")
	if d.vaultAddr = os.Getenv("VAULT_ADDR"); d.vaultAddr != "" {
		if vaultToken == "" {
			return nil, errors.New("VAULT_ADDR is set but VAULT_TOKEN is not: set both to use that Vault, or neither")
		}
		d.vaultName = "the one at VAULT_ADDR, " + d.vaultAddr
	} else {
		vaultToken = "demo-root-token"
		double := vaulttest.New(vaulttest.Options{RootToken: vaultToken, Mounts: []vaulttest.Mount{{Path: demoMount, Version: 2}}})
		if d.vaultAddr, err = d.serve(double); err != nil {
			return nil, err
		}
		d.vaultName = "a KV server in this process, not a real Vault"
	}
	for name, content := range map[string]string{"vault-token": vaultToken, "cloudflare-api-token": "any"} {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte(content), 0o600); err != nil {
			return nil, err
		}
	}
	for _, t := range demoTokens {
		made, _, err := d.simulator.Create(cfsim.CreateParams{Name: t.Name})
		if err != nil {
			return nil, err
		}
		d.tokens = append(d.tokens, demoToken{t.Name, t.Schedule, made.ID})
	}
	var text strings.Builder
	err = demoConfig.Execute(&text, map[string]any{
		"Dir": d.dir, "AccountID": cfsim.DefaultAccountID, "BaseURL": simAddress + cfsim.BasePath,
		"VaultAddress": d.vaultAddr, "Mount": demoMount, "Tokens": d.tokens,
	})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(d.dir, "config.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return nil, err
	}
	return config.Load(path)
}

// serve serves h on a free port of the loopback interface until close.
func (d *demo) serve(h http.Handler) (address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	d.servers = append(d.servers, server)
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}

func (d *demo) close() error {
	for _, s := range d.servers {
		_ = s.Close()
	}
	return os.RemoveAll(d.dir)
}
