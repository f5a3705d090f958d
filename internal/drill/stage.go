package drill

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"rotatord/internal/app"
	"rotatord/internal/cloudflare/cfsim"
	"rotatord/internal/config"
	"rotatord/internal/kubernetes"
	"rotatord/internal/kubernetes/kubetest"
	"rotatord/internal/printable"
	"rotatord/internal/rotation"
	"rotatord/internal/secret"
	"rotatord/internal/statedir"
	"rotatord/internal/status"
	"rotatord/internal/vault/vaulttest"
)

// stage is the world of one disaster: the servers, the daemon and the consumers.
type stage struct {
	sample  *sample
	program Program
	dir     string
	config  *config.Config
	sim     *cfsim.Simulator
	vault   *vaulttest.Server
	cluster *kubetest.Server
	client  *kubernetes.Client // of that cluster, beside the daemon's

	atCloudflare, atVault *gate
	atCluster             *gate
	edge                  *edge
	servers               []*http.Server

	daemon    *app.App
	consumers *consumers
	notes     *notes
	issued    map[string]int // how many secrets each service token had when the disaster began

	closed chan struct{} // at the end

	mu      sync.Mutex
	began   time.Time       // when the disaster began, on the real clock
	aged    time.Duration   // how much time was skipped since then
	deleted map[string]bool // tokens for which rotatord asked to delete a service token that a sink named
}

// newStage starts a Cloudflare simulator and a KV server in which the tokens of the sample exist.
func newStage(s *sample, program Program) (_ *stage, err error) {
	st := &stage{
		sample: s, program: program, sim: cfsim.New(cfsim.Options{RateLimit: -1}),
		issued: map[string]int{}, deleted: map[string]bool{}, closed: make(chan struct{}),
	}
	var mounts []vaulttest.Mount
	for _, m := range s.mounts() {
		mounts = append(mounts, vaulttest.Mount{Path: m, Version: 2})
	}
	const token = "rehearsal"
	st.vault = vaulttest.New(vaulttest.Options{RootToken: token, Mounts: mounts})
	st.cluster = kubetest.New(secret.New(token))
	for _, p := range s.tokens {
		for _, one := range p.sinks {
			if k, ok := one.(*config.KubernetesSink); ok {
				st.cluster.AddNamespace(k.Namespace)
			}
		}
	}
	if st.dir, err = os.MkdirTemp("", "rotatord-drill-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.close())
		}
	}()
	if err := os.Mkdir(filepath.Join(st.dir, sinkDir), 0o700); err != nil {
		return nil, err
	}
	st.atCloudflare, st.atVault = &gate{next: st.guarded(st.sim)}, &gate{next: st.vault}
	st.atCluster = &gate{next: st.cluster}
	st.edge = newEdge(st)
	simURL, err := st.serve(st.atCloudflare)
	if err != nil {
		return nil, err
	}
	vaultURL, err := st.serve(st.atVault)
	if err != nil {
		return nil, err
	}
	clusterURL, err := st.serve(st.atCluster)
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(st.dir, kubeconfigFile)
	if err := os.WriteFile(kubeconfig, kubeconfigOf(clusterURL, token), 0o600); err != nil {
		return nil, err
	}
	st.client = kubernetes.New(config.Kubernetes{Kubeconfig: kubeconfig}, nil)
	appURL, err := st.serve(st.edge)
	if err != nil {
		return nil, err
	}
	for _, p := range s.tokens {
		if err := st.create(p); err != nil {
			return nil, err
		}
	}
	text, err := s.configuration(st.dir, simURL+cfsim.BasePath, vaultURL, appURL+appPath)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{configFile: text, vaultTokenFile: []byte(token), apiTokenFile: []byte(token)} {
		if err := os.WriteFile(filepath.Join(st.dir, name), content, 0o600); err != nil {
			return nil, err
		}
	}
	if st.config, err = config.Load(filepath.Join(st.dir, configFile)); err != nil {
		return nil, fmt.Errorf("the configuration of the drill: %w", err)
	}
	st.consumers = newConsumers(st)
	return st, st.anchor()
}

// kubeconfigOf returns a kubeconfig for the cluster of the drill. JSON is YAML.
func kubeconfigOf(server, token string) []byte {
	return fmt.Appendf(nil, `{"current-context": "drill", "contexts": [{"name": "drill", "context": {"cluster": "drill", "user": "drill"}}],
  "clusters": [{"name": "drill", "cluster": {"server": %q}}], "users": [{"name": "drill", "user": {"token": %q}}]}`, server, token)
}

// serve serves h on a free port of the loopback interface, and returns its address.
func (st *stage) serve(h http.Handler) (address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	st.servers = append(st.servers, server)
	go func() { _ = server.Serve(listener) }()
	return "http://" + listener.Addr().String(), nil
}

// anchor writes a ledger in which every token had its slot a moment ago.
func (st *stage) anchor() error {
	return st.withLedger(func(j *statedir.Dir) error {
		for _, p := range st.sample.tokens {
			record := rotation.Record{
				Format: rotation.RecordFormat, Token: p.name, Account: p.account,
				Anchor: time.Now().Add(-st.sample.every - time.Second).UTC().Truncate(time.Second),
			}
			if p.create {
				record.Origin = rotation.Token{Create: &rotation.Creation{Name: p.name}}.Origin()
			} else {
				record.TokenID = p.ids[0]
			}
			if _, err := j.Ledger.Save(context.Background(), record); err != nil {
				return err
			}
		}
		return nil
	})
}

func (st *stage) withLedger(do func(*statedir.Dir) error) error {
	j, err := statedir.Open(statedir.Options{Dir: filepath.Join(st.dir, stateDir)})
	if err != nil {
		return err
	}
	return errors.Join(do(j), j.Close())
}

// start starts the daemon.
func (st *stage) start() error {
	options := app.Options{Config: st.config}
	if st.notes != nil { // what happens before the disaster is not noted
		options.Subscriber = st.notes.subscriber()
	}
	daemon, err := app.New(options)
	if err != nil {
		return err
	}
	st.daemon = daemon
	daemon.Start()
	return nil
}

// stop stops the daemon, if it runs. Rotations in progress finish first.
func (st *stage) stop() error {
	if st.daemon == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	daemon := st.daemon
	st.daemon = nil
	return daemon.Stop(ctx)
}

// runAndKill runs the daemon in a process of its own, and kills it when the channel is closed.
func (st *stage) runAndKill(ctx context.Context, when <-chan struct{}) error {
	log, err := os.Create(filepath.Join(st.dir, killedLog))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := &exec.Cmd{
		Path: st.program.Path, Args: []string{st.program.Name, "run", "--config", filepath.Join(st.dir, configFile)}, Stderr: log,
		Env: []string{"GORACE=atexit_sleep_ms=0"}, // no variable that could lead to a real Vault
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-when:
		err = cmd.Process.Kill()
	case err := <-ended:
		return fmt.Errorf("the daemon ended before it was killed: %w: %s", err, lastLine(log.Name()))
	case <-time.After(patience):
		err = errors.Join(errors.New("the daemon did not reach the moment at which it should be killed"), cmd.Process.Kill())
	case <-ctx.Done():
		err = errors.Join(ctx.Err(), cmd.Process.Kill())
	}
	<-ended
	return err
}

func lastLine(path string) (last string) {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		last = lines.Text()
	}
	return printable.Text(last)
}

// mustHaveStopped returns an error unless the rotation of every token is at a step. It says whether
// the daemon was killed where the disaster says.
func (st *stage) mustHaveStopped(at rotation.Step) error {
	return st.withLedger(func(j *statedir.Dir) error {
		var wrong []error
		for _, p := range st.sample.tokens {
			record, err := j.Ledger.Load(context.Background(), p.name)
			if err == nil && record.Step != at {
				err = fmt.Errorf("when the daemon was killed, the rotation of %s was at the step %q and not at %q", p.name, record.Step, at)
			}
			wrong = append(wrong, err)
		}
		return errors.Join(wrong...)
	})
}

// elapsed returns the time since the disaster began, including skipped time.
func (st *stage) elapsed() time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.aged + time.Since(st.began)
}

// begin starts to count the time since the disaster began.
func (st *stage) begin() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.began, st.aged = time.Now(), 0
}

// age lets time pass. It stops the daemon first.
func (st *stage) age(d time.Duration) error {
	d = max(d, 0).Truncate(time.Second) + time.Second // updated_at has whole seconds
	if err := st.stop(); err != nil {
		return err
	}
	err := st.withLedger(func(j *statedir.Dir) error {
		records, err := j.Ledger.All(context.Background())
		if err != nil {
			return err
		}
		for i := range records {
			shift(reflect.ValueOf(&records[i]).Elem(), -d)
		}
		_, err = j.Ledger.SaveAll(context.Background(), records)
		return err
	})
	if err != nil {
		return err
	}
	return st.consumers.between(func() error { // consumers must see both changes at once
		st.mu.Lock()
		defer st.mu.Unlock()
		st.aged += d
		return st.sim.Age(d)
	})
}

var timeType = reflect.TypeFor[time.Time]()

// shift moves all times in v by d, except zero times.
func shift(v reflect.Value, d time.Duration) {
	switch {
	case v.Type() == timeType:
		if t := v.Interface().(time.Time); !t.IsZero() {
			v.Set(reflect.ValueOf(t.Add(d)))
		}
	case v.Kind() == reflect.Pointer && !v.IsNil():
		shift(v.Elem(), d)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				shift(v.Field(i), d)
			}
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			shift(v.Index(i), d)
		}
	}
}

// tokens returns what the daemon shows about each token.
func (st *stage) tokens() map[string]status.Token {
	all := map[string]status.Token{}
	for _, t := range status.Scrubbed(st.daemon.Tokens()) {
		all[t.Name] = t
	}
	return all
}

func (st *stage) close() error {
	close(st.closed)
	err := st.stop()
	if st.consumers != nil {
		st.consumers.end()
	}
	if st.client != nil {
		st.client.Close()
	}
	for _, s := range st.servers {
		_ = s.Close()
	}
	return errors.Join(err, os.RemoveAll(st.dir))
}
