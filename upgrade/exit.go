package upgrade

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"crossfade/cutover"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// Exit codes, as the contract has them.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitFindings    = 3
	ExitGate        = 4
	ExitUndone      = 5
	ExitBehind      = 6
	ExitDifferences = 7
	ExitHeld        = 8
	ExitInterrupted = 130
)

// ExitError is an error with the exit code that it means and what a person
// needs to read: what was being done, on which server and object, and what to
// do next.
type ExitError struct {
	Code     int
	Says     string
	On       string
	Object   string
	SQLState string
	Hint     string
	Err      error
}

func (e *ExitError) Error() string { return e.Says }

func (e *ExitError) Unwrap() error { return e.Err }

// refused is an exit 4: before it nothing was changed, and it says so.
func refused(hint, format string, args ...any) *ExitError {
	return exitf(ExitGate, hint, "%s; nothing was changed", fmt.Sprintf(format, args...))
}

// exitf is an ExitError without a cause.
func exitf(code int, hint, format string, args ...any) *ExitError {
	return &ExitError{Code: code, Says: fmt.Sprintf(format, args...), Hint: hint}
}

// ErrInterrupted is the cause of a context that a signal ended.
var ErrInterrupted = errors.New("interrupted")

// hints are what to do after each exit code, where nothing better is known.
var hints = map[int]string{
	ExitFailed:      "crossfade status shows where the upgrade stands; when the reason is gone, run the same command again to resume",
	ExitUsage:       "crossfade --help lists the commands; crossfade COMMAND --help says what each takes",
	ExitFindings:    "crossfade check says what to do about each finding",
	ExitGate:        "crossfade status shows every gate, and says what to type next",
	ExitUndone:      "when the reason is gone, run the same command again; crossfade status shows where the upgrade stands",
	ExitBehind:      "run the same command again: it only moves forward",
	ExitDifferences: "crossfade verify names the rows that differ",
	ExitHeld:        "wait for the other run, or end it; status needs no lock",
	ExitInterrupted: "run the same command again to resume",
}

// Exit finds what an error means for the caller of the command, and what to do
// about it: Says and Hint are never empty. Every error means something; nil
// stays nil.
func Exit(err error) *ExitError {
	if err == nil {
		return nil
	}
	e := *exit(err)
	e.Says, e.Hint = cmp.Or(e.Says, err.Error(), "failed"), cmp.Or(e.Hint, hints[e.Code], hints[ExitFailed])
	return &e
}

// exit is Exit as far as the error itself says.
func exit(err error) *ExitError {
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e
	}
	e := &ExitError{Code: ExitFailed, Says: err.Error(), SQLState: pg.SQLState(err), Err: err}
	if p, ok := errors.AsType[*pg.Error](err); ok {
		e.On, e.Object, e.Hint = p.On, p.Object, p.Hint
	}
	var gate *cutover.ErrGate
	var failure *flow.Failure
	isFailure := errors.As(err, &failure)
	// The servers decide, in this order: 6, 5, 130, 7, 3, 4, 1.
	switch {
	case isFailure && failure.Committed:
		e.Code, e.Hint = ExitBehind, hints[ExitBehind]
	case isFailure && failure.Undone && !errors.As(err, &gate):
		e.Code = ExitUndone
	case errors.Is(err, ErrInterrupted):
		e.Code, e.Hint = ExitInterrupted, hints[ExitInterrupted]
	case errors.As(err, &gate):
		e.Code, e.Hint = ExitGate, gate.Do()
		if e.Hint == "" {
			e.Hint = "when what the gates name has ended, run the same command again; crossfade status shows every gate"
		}
	case errors.Is(err, flow.ErrHeld):
		e.Code, e.Hint = ExitHeld, hints[ExitHeld]
	case errors.Is(err, context.DeadlineExceeded):
		e.Hint = "run the same command again to resume"
	case e.Hint == "":
		e.Hint = hintOf(err)
	}
	return e
}

// hintOf is what to do about an error that any statement may meet; "": nothing
// that holds of all of them.
func hintOf(err error) string {
	if pg.SQLState(err) == "57P01" {
		return "an administrator ended this session of crossfade (pg_terminate_backend), or shut the server down: run the same command again"
	}
	return ""
}
