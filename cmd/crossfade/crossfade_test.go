package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"crossfade": main})
}

// TestScripts runs what the command line promises and no server is needed for:
// one script a promise.
func TestScripts(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("CROSSFADE_RUNBOOK", "") // the developer's own
			e.Setenv("PGCONNECT_TIMEOUT", "2")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exitsWith},
	})
}

// exitsWith is `exits CODE PROGRAM ARGS…`: exec with that exit code and no other.
func exitsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS…")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("exits %s: %v", args[0], err)
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit %d, want %d", got, want)
	}
}

// TestProgram is about the program as a user gets it, built once.
func TestProgram(t *testing.T) {
	program := t.TempDir() + "/crossfade"
	build := exec.Command("go", "build", "-o", program, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		t.Fatal(err)
	}
	t.Run("commands are the contract's", func(t *testing.T) { contractCommands(t, program) })
	t.Run("exit codes are the contract's", func(t *testing.T) { contractExitCodes(t, program) })
	t.Run("interrupt", func(t *testing.T) { interrupt(t, program) })
}

// interrupt: the first signal ends a command with 130 and says so, with --json
// in the last line. status --watch needs no server that answers.
func interrupt(t *testing.T, program string) {
	runbook := t.TempDir() + "/crossfade.yaml"
	text := "upgrade: demo\nold: {primary: 'host=127.0.0.1 port=1 user=x dbname=postgres'}\n" +
		"new: [{cluster: demo, primary: 'host=127.0.0.1 port=2 user=x dbname=postgres'}]\n"
	if err := os.WriteFile(runbook, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for s, name := range map[os.Signal]string{syscall.SIGINT: "SIGINT", syscall.SIGTERM: "SIGTERM", syscall.SIGHUP: "SIGHUP"} {
		if signal.Ignored(s.(syscall.Signal)) { // the tests run under nohup
			continue
		}
		cmd := exec.Command(program, "status", "--watch", "--json", "-f", runbook)
		var said strings.Builder
		cmd.Stderr = &said
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stdout)
		last := ""
		for n := 0; lines.Scan(); n++ {
			last = lines.Text()
			if n == 0 {
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
		}
		err = cmd.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 130 {
			t.Errorf("%s: %v, want exit 130", name, err)
		}
		if !strings.HasPrefix(last, `{"type":"error","exit":130,"says":"interrupted by `+name+`"`) {
			t.Errorf("%s: the last line is %s", name, last)
		}
		if got, want := said.String(), "crossfade: interrupted by "+name+"\nhint: nothing was changed\n"; got != want {
			t.Errorf("%s: it said %s, want %s: there is nothing to undo, and nothing to resume", name, got, want)
		}
	}
}
