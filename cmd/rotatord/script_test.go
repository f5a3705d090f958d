package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"rotatord/internal/rotation"
	"rotatord/internal/statedir"
	"rotatord/internal/vault/vaulttest"
)

// minScripts is how many scripts there are at least: a glob that matches nothing, or less
// than it did, must not pass for a good test.
const minScripts = 25

// patience is how long a script waits for something that is to happen. It is far longer than that
// takes on a loaded machine.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rotatord": main, "fakevault": fakeVault, "doubtledger": doubtLedger, "makestate": makeState, "makecopies": makeCopies, "peekprocess": peekProcess})
}

// TestScripts runs the scripts in testdata/script against the real program. Beside the
// commands of testscript they have:
//
//	exits CODE PROGRAM ARGS...          run it and want just that exit code
//	start NAME PROGRAM ARGS...          run it in the background; output in NAME.out and NAME.err
//	terminate NAME TERM|INT CODE         signal it, and want it to end with that exit code
//	await FILE REGEXP [VAR]             wait until FILE matches; VAR gets the first group
//	get STATUS URL [NAME:VALUE...]      an HTTP GET with headers; the body is stdout
//	ready URL                           wait until a GET is answered with 200
//	lastline FILE REGEXP                the last line of FILE matches
//	idle N tcp|unix ADDRESS             connect so often, and say nothing until the script ends
//	listening VAR                       VAR gets an address on which a server listens
func TestScripts(t *testing.T) {
	const glob = "testdata/script/*.txtar"
	scripts, err := filepath.Glob(glob)
	if err != nil || len(scripts) < minScripts {
		t.Fatalf("%s matches %d scripts (%v), want at least %d", glob, len(scripts), err, minScripts)
	}
	testscript.Run(t, testscript.Params{
		Files:               scripts,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			rules, err := filepath.Abs("../../deploy/prometheus/rotatord.rules.yaml")
			if err != nil {
				return err
			}
			env.Setenv("RULES", rules)
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Values[childrenKey{}] = map[string]*child{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "start": scriptStart, "terminate": scriptTerminate, "await": scriptAwait,
			"get": scriptGet, "lastline": scriptLastLine, "listening": scriptListening, "idle": scriptIdle,
			"ready": scriptReady,
		},
	})
}

// fakeVault is a program that serves the KV double, which has the root token "root" and an AppRole
// of which both halves are "made-up". Its argument is how long a session of that lasts; without one it does not end.
func fakeVault() {
	var ttl time.Duration
	if len(os.Args) > 1 {
		ttl, _ = time.ParseDuration(os.Args[1])
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("http://%s\n", listener.Addr())
	double := vaulttest.New(vaulttest.Options{
		RootToken: "root", AppRole: &vaulttest.AppRole{RoleID: "made-up", SecretID: "made-up", TTL: ttl}, Mounts: []vaulttest.Mount{{Path: "secret", Version: 2}},
	})
	fmt.Fprintln(os.Stderr, http.Serve(listener, double))
	os.Exit(1)
}

// doubtLedger is a program that leaves a ledger behind in which a rotation of a token was
// asked for 20 s ago and is in doubt since, with a grace of 30 minutes.
func doubtLedger() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: doubtledger STATE-DIR TOKEN ID")
		os.Exit(2)
	}
	since, token, id := time.Now().Add(-20*time.Second).UTC(), os.Args[2], os.Args[3]
	j, err := statedir.Open(statedir.Options{Dir: os.Args[1]})
	if err == nil {
		_, err = j.Ledger.Save(context.Background(), rotation.Record{
			Format: rotation.RecordFormat, Token: token, TokenID: id, Account: "sim", Anchor: since.Add(-720 * time.Hour),
			Step: rotation.StepInDoubt, NotBefore: since, Failures: 1, LastError: "the connection broke",
			Work: &rotation.Work{
				RotationID: "R1", TokenID: id, Slot: since, IntentAt: since, Grace: rotation.Grace(30 * time.Minute),
				Before: rotation.TokenFacts{ID: id, UpdatedAt: since.Add(-time.Hour)},
			},
			Doubt: &rotation.Doubt{Since: since, Reason: rotation.ReasonOutcomeUnknown, Detail: "the connection broke", OldWorksUntil: since.Add(30 * time.Minute)},
		})
		err = errors.Join(err, j.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func usage(ts *testscript.TestScript, neg, ok bool, text string) {
	if neg || !ok {
		ts.Fatalf("usage: %s", text)
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "exits CODE PROGRAM ARGS...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("running %s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// child is a program in the background. ended is closed once it has been waited for.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

type childrenKey struct{}

func scriptStart(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "start NAME PROGRAM ARGS...")
	name := args[0]
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Dir = ts.MkAbs(".")
	for _, variable := range []string{"PATH", "HOME", "TMPDIR", "GORACE", "GOCOVERDIR", "CF_TOKEN"} {
		cmd.Env = append(cmd.Env, variable+"="+ts.Getenv(variable))
	}
	for suffix, stream := range map[string]*io.Writer{".out": &cmd.Stdout, ".err": &cmd.Stderr} {
		f, err := os.Create(ts.MkAbs(name + suffix))
		ts.Check(err)
		defer f.Close() // the child has its own
		*stream = f
	}
	ts.Check(cmd.Start())
	c := &child{cmd, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(c.ended) }()
	children(ts)[name] = c
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		<-c.ended
		if stderr, err := os.ReadFile(ts.MkAbs(name + ".err")); err == nil {
			ts.Logf("[stderr of %s]\n%s", name, stderr)
		}
	})
}

// children are the programs that a script has in the background.
func children(ts *testscript.TestScript) map[string]*child {
	return ts.Value(childrenKey{}).(map[string]*child)
}

func scriptTerminate(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "terminate NAME TERM|INT CODE")
	c, ok := children(ts)[args[0]]
	signal, known := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT}[args[1]]
	if !ok || !known {
		ts.Fatalf("no program %s, or no signal %s", args[0], args[1])
	}
	ts.Check(c.cmd.Process.Signal(signal))
	select {
	case <-c.ended:
	case <-time.After(patience):
		ts.Fatalf("%s still runs %s after SIG%s", args[0], patience, args[1])
	}
	if got := strconv.Itoa(c.cmd.ProcessState.ExitCode()); got != args[2] { // -1: ended by a signal
		ts.Fatalf("%s: exit code %s, want %s", args[0], got, args[2])
	}
}

func scriptAwait(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2 || len(args) == 3, "await FILE REGEXP [VAR]")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		content, err := os.ReadFile(ts.MkAbs(args[0]))
		ts.Check(err)
		if found := re.FindSubmatch(content); found != nil {
			if len(args) == 3 {
				ts.Setenv(args[2], string(found[1]))
			}
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%s did not come to match %s within %s:\n%s", args[0], args[1], patience, content)
		}
	}
}

func scriptGet(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) >= 2, "get STATUS URL [NAME:VALUE...]")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[1], nil)
	ts.Check(err)
	for _, header := range args[2:] {
		name, value, _ := strings.Cut(header, ":")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	_, _ = ts.Stdout().Write(body)
	if got := strconv.Itoa(res.StatusCode); got != args[0] {
		ts.Fatalf("GET %s: %s, want %s\n%s", args[1], got, args[0], body)
	}
}

func scriptReady(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "ready URL")
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(args[0])
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			ts.Fatalf("%s was not answered with 200 within %s: %v", args[0], patience, err)
		}
	}
}

func scriptLastLine(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 2, "lastline FILE REGEXP")
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	lines := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	if last := lines[len(lines)-1]; !re.MatchString(last) {
		ts.Fatalf("the last line of %s does not match %s: %s", args[0], args[1], last)
	}
}

func scriptListening(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 1, "listening VAR")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = listener.Close() })
	ts.Setenv(args[0], listener.Addr().String())
}

func scriptIdle(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, len(args) == 3, "idle N tcp|unix ADDRESS")
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	address := args[2]
	if args[1] == "unix" {
		address = ts.MkAbs(address)
	}
	for range n {
		c, err := net.DialTimeout(args[1], address, patience)
		ts.Check(err)
		ts.Defer(func() { _ = c.Close() })
	}
}

// TestHelp asks every command for help, in both ways.
func TestHelp(t *testing.T) {
	var all []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		all = append(all, cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := newRoot()
	root.InitDefaultCompletionCmd()
	walk(root)
	if len(all) < 15 { // the root, ten of ours, completion and its four shells
		t.Fatalf("only %d commands were found", len(all))
	}
	for _, cmd := range all {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			if cmd.Short == "" {
				t.Error("it has no short description")
			}
			words := strings.Fields(cmd.CommandPath())[1:]
			flag := invoke(t, append(words, "--help"), exitGood)
			if !strings.Contains(flag, "Usage:\n  "+cmd.CommandPath()) {
				t.Errorf("the help does not show the usage:\n%s", flag)
			}
			if got := invoke(t, append([]string{"help"}, words...), exitGood); got != flag {
				t.Errorf("help and --help differ:\n%s\n%s", got, flag)
			}
			if out := invoke(t, append(words, "--nosuch"), exitUsage); out != "" {
				t.Errorf("wrong usage printed to stdout: %q", out)
			}
		})
	}
}

// invoke calls run in this process, and wants an exit code and nothing on stderr if that
// is 0.
func invoke(t *testing.T, args []string, want int) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if got := run(args, strings.NewReader(""), &stdout, &stderr); got != want {
		t.Fatalf("%q: exit code %d, want %d\n%s", args, got, want, stderr.String())
	}
	if (want == exitGood) != (stderr.Len() == 0) {
		t.Errorf("%q: exit code %d with this on stderr: %q", args, want, stderr.String())
	}
	return stdout.String()
}
