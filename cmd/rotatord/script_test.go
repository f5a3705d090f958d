package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"rotatord": main})
}

// TestScripts runs the command line as a user would, from testdata/script.
func TestScripts(t *testing.T) {
	const dir = "testdata/script"
	if scripts, err := filepath.Glob(dir + "/*.txtar"); err != nil || len(scripts) < 8 {
		t.Fatalf("only %d scripts were found: %v", len(scripts), err)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			return fillIn(e, map[string]string{"PORT": freePort(t), "OTHERPORT": freePort(t)})
		},
		Condition: func(cond string) (bool, error) {
			if cond == "long" {
				return !testing.Short(), nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits,
			"http":  cmdHTTP,
		},
	})
}

// fillIn sets variables, and puts them into the YAML files of a script: testscript itself
// knows them in commands only.
func fillIn(e *testscript.Env, vars map[string]string) error {
	for name, value := range vars {
		e.Setenv(name, value)
	}
	vars["WORK"] = e.WorkDir
	files, err := filepath.Glob(filepath.Join(e.WorkDir, "*.yaml"))
	for _, f := range files {
		b, readErr := os.ReadFile(f)
		text := os.Expand(string(b), func(name string) string { return vars[name] })
		err = errors.Join(err, readErr, os.WriteFile(f, []byte(text), 0o600))
	}
	return err
}

// freePort is a port that nobody listens on at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// cmdExits runs a command and wants that very exit code: exits 2 rotatord nonsense. Its
// output is there for stdout and stderr as after exec.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG ...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if e, ok := err.(interface{ ExitCode() int }); ok {
		code = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// cmdHTTP waits until a URL answers with a status, for ten seconds: http 200 URL
// [HEADER=VALUE ...].
func cmdHTTP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: http STATUS URL [HEADER=VALUE ...]")
	}
	last := "nothing"
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		req, err := http.NewRequest(http.MethodGet, args[1], nil)
		ts.Check(err)
		for _, h := range args[2:] {
			name, value, _ := strings.Cut(h, "=")
			req.Header.Set(name, value)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err.Error()
			continue
		}
		_ = res.Body.Close()
		if last = strconv.Itoa(res.StatusCode); last == args[0] {
			return
		}
	}
	ts.Fatalf("%s: %s, want %s", args[1], last, args[0])
}

// TestRunReturnsUsageCode: the exit codes, without a process.
func TestRunReturnsUsageCode(t *testing.T) {
	discard, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer discard.Close()
	for args, want := range map[string]int{
		"version": exitGood, "": exitGood, "nonsense": exitUsage, "version --nonsense": exitUsage,
		"version extra": exitUsage, "version -o xml": exitUsage, "check --config /nowhere.yaml": exitFailed,
	} {
		if got := run(strings.Fields(args), os.Stdin, discard, discard); got != want {
			t.Errorf("rotatord %s: exit code %d, want %d", args, got, want)
		}
	}
}
