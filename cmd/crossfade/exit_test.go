package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"crossfade/cutover"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
)

func TestFailure(t *testing.T) {
	interrupted, cancel := context.WithCancelCause(context.Background())
	cancel(fmt.Errorf("%w by SIGINT", exit.ErrInterrupted))
	code := func(n int) error { return fmt.Errorf("wrapped: %w", &exit.Error{Code: n, Says: "it failed"}) }
	for _, c := range []struct {
		name      string
		err       error
		undisturb int // the exit code
		interrupt int // the same when a signal has come
	}{
		{"nothing", nil, 0, 0},
		{"usage", &usageError{says: "x"}, 2, 2},
		{"runbook", &runbook.Error{Problems: []runbook.Problem{{File: "f", Line: 1, Column: 2, Says: "wrong"}}}, 2, 2},
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

// TestEveryExitSaysWhatToDo: whatever a command fails with, it says so and what to
// do about it.
func TestEveryExitSaysWhatToDo(t *testing.T) {
	var errs []error
	for _, e := range exits {
		if e.code != exit.Done {
			errs = append(errs, &exit.Error{Code: e.code}, fmt.Errorf("wrapped: %w", &exit.Error{Code: e.code, Says: "x"}))
		}
	}
	gate := &cutover.ErrGate{Closed: []cutover.GateState{{ID: "lag", Says: "behind"}}}
	errs = append(errs,
		errors.New("x"), &usageError{}, &crash{value: "x"}, &unwrittenError{syscall.EPIPE}, &unwrittenError{syscall.ENOSPC},
		&runbook.Error{Problems: []runbook.Problem{{Says: "x"}}}, &pg.Error{Doing: "x", Err: errors.New("y")},
		context.DeadlineExceeded, exit.ErrInterrupted, flow.ErrHeld, gate, cutover.ErrPatience, cutover.ErrTakenOver, &flow.Panic{Value: "x"},
	)
	for _, undone := range []bool{false, true} {
		for _, committed := range []bool{false, true} {
			for _, err := range []error{errors.New("x"), gate, exit.ErrInterrupted} {
				errs = append(errs, &flow.Failure{Plan: "cutover", Step: "gate", Err: err, Undone: undone, Committed: committed})
			}
		}
	}
	interrupted, cancel := context.WithCancelCause(context.Background())
	cancel(exit.ErrInterrupted)
	for _, err := range errs {
		for _, ctx := range []context.Context{context.Background(), interrupted} {
			e := failure(ctx, err)
			if e.Says == "" || e.Hint == "" {
				t.Errorf("%T %v: exit %d says %q, and to do: %q", err, err, e.Exit, e.Says, e.Hint)
			}
			if text := failureText(err, e); !strings.Contains(text, "\nhint: ") {
				t.Errorf("%T %v: a person reads\n%s", err, err, text)
			}
		}
	}
	shut := &cutover.ErrGate{Closed: []cutover.GateState{{ID: "lag", Says: "behind"}, {ID: "links", Says: "lost", Do: "crossfade prepare"}}}
	if e := failure(context.Background(), shut); e.Hint != "crossfade prepare" {
		t.Errorf("a gate that no waiting opens: %s", e.Hint)
	}
}

// TestLiveLineShowsEscapes: no title and no report of a step acts on the terminal
// that the live line is drawn on, nor does what --watch draws over itself.
func TestLiveLineShowsEscapes(t *testing.T) {
	const evil = "evil\x1b]0;x\x07\u202e\r\nname"
	var p progress
	var drawn bytes.Buffer
	p.observe(flow.Event{Kind: flow.Begin, Step: "copy", Title: evil})
	p.draw(&drawn, 200)
	p.observe(flow.Event{Kind: flow.Progress, Step: "copy", Done: 1, Total: 2, Says: evil})
	p.draw(&drawn, 200)
	for _, text := range []string{drawn.String(), string(frame([]byte(evil), true))} {
		if strings.Contains(text, "\x1b]0") || strings.ContainsAny(text, "\x07\u202e") || strings.Contains(text, "\rname") {
			t.Errorf("it acts on the terminal: %q", text)
		}
		if !strings.Contains(text, `evil\x1b]0;x\x07\u202e`) {
			t.Errorf("it does not show the name: %q", text)
		}
	}
}
