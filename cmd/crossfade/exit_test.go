package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"crossfade/upgrade"
	"crossfade/upgrade/report"
)

func TestFailure(t *testing.T) {
	interrupted, cancel := context.WithCancelCause(context.Background())
	cancel(fmt.Errorf("%w by SIGINT", upgrade.ErrInterrupted))
	code := func(n int) error { return fmt.Errorf("wrapped: %w", &upgrade.ExitError{Code: n, Says: "it failed"}) }
	for _, c := range []struct {
		name      string
		err       error
		undisturb int // the exit code
		interrupt int // the same when a signal has come
	}{
		{"nothing", nil, 0, 0},
		{"usage", &usageError{says: "x"}, 2, 2},
		{"runbook", &upgrade.RunbookError{Problems: []upgrade.Problem{{File: "f", Line: 1, Column: 2, Says: "wrong"}}}, 2, 2},
		{"failed", code(1), 1, 130},
		{"plain", errors.New("x"), 1, 130},
		{"findings", code(3), 3, 130},
		{"gate", code(4), 4, 130},
		{"undone", code(5), 5, 5},
		{"behind", code(6), 6, 6},
		{"differences", code(7), 7, 130},
		{"held", code(8), 8, 8},
		{"crash", &crash{value: "x"}, 1, 130},
	} {
		for ctx, want := range map[context.Context]int{context.Background(): c.undisturb, interrupted: c.interrupt} {
			got := 0
			if e := failure(ctx, c.err); e != nil {
				got = e.Exit
			}
			if got != want {
				t.Errorf("%s (interrupted: %t): exit %d, want %d", c.name, ctx.Err() != nil, got, want)
			}
		}
	}
}

func TestFailureText(t *testing.T) {
	e := &report.Error{Says: "lock public.a on old: canceling statement (run it again)", Hint: "run it again"}
	if got := failureText(errors.New("x"), e); strings.Count(got, "run it again") != 1 {
		t.Errorf("the hint is told twice:\n%s", got)
	}
	e.Hint = "end the blockers"
	if got := failureText(errors.New("x"), e); !strings.HasSuffix(got, "\nhint: end the blockers\n") {
		t.Errorf("the hint is no line of its own:\n%s", got)
	}
	if got := failureText(protect(func() error { panic("x") }), e); !strings.Contains(got, "exit_test.go") {
		t.Errorf("a panic does not say where:\n%s", got)
	}
}

func TestExitsAreWhatCommandsName(t *testing.T) {
	for _, c := range commands() {
		for _, code := range c.exits {
			if exitText([]int{code}, nil) == "" {
				t.Errorf("%s ends with %d, which is no exit code", c.name, code)
			}
		}
	}
}

func TestHoist(t *testing.T) {
	for typed, want := range map[string]string{
		"":                            "",
		"plan --full":                 "plan --full",
		"-f x plan":                   "plan -f x",
		"--runbook=x -q plan -f y":    "plan --runbook=x -q -f y",
		"--json -v plan":              "plan --json -v",
		"-f":                          "",
		"--json":                      "",
		"--help":                      "--help",
		"-q --version":                "-q --version",
		"-f x --nonsense plan --full": "-f x --nonsense plan --full",
	} {
		if got := strings.Join(hoist(strings.Fields(typed)), " "); got != want {
			t.Errorf("%q became %q, want %q", typed, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"check", "cutover", "plan", "prepare", "f"}
	for typed, want := range map[string]string{"cutver": "cutover", "chekc": "", "pln": "plan", "x": "", "perpare": "prepare", "status": ""} {
		if got := nearest(typed, known); got != want {
			t.Errorf("%q: %q, want %q", typed, got, want)
		}
	}
	if !slices.Contains(known, nearest("prepar", known)) {
		t.Error("one letter is no slip")
	}
}
