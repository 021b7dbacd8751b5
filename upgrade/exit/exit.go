// Package exit is how a command ends: its exit code, what it says, and what to do
// next. Of finds it for every error.
package exit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
)

// The exit codes, as the contract has them.
const (
	Done        = 0
	Failed      = 1
	Usage       = 2
	Findings    = 3
	Gate        = 4
	Undone      = 5
	AfterOpen   = 6
	Differences = 7
	Held        = 8
	Interrupted = 130
)

// Error is an error with the exit code that it means and what a person
// needs to read: what was being done, on which server and object, and what to
// do next.
type Error struct {
	Code     int
	Says     string
	On       string
	Object   string
	SQLState string
	Hint     string
	Err      error
}

func (e *Error) Error() string { return e.Says }

func (e *Error) Unwrap() error { return e.Err }

// Refused is an exit 4: before it nothing was changed, and it says so.
func Refused(hint, format string, args ...any) *Error {
	return Errorf(Gate, hint, "%s; nothing was changed", fmt.Sprintf(format, args...))
}

// Errorf is an Error without a cause.
func Errorf(code int, hint, format string, args ...any) *Error {
	return &Error{Code: code, Says: fmt.Sprintf(format, args...), Hint: hint}
}

// WrongPhase is a command in the wrong phase, with the right one.
func WrongPhase(p report.Phase, command string) *Error {
	next := map[report.Phase]string{
		report.PhaseNew: "prepare", report.PhaseAborted: "prepare", report.PhasePreparing: "prepare or abort", report.PhaseReady: "cutover, rehearse, verify or abort",
		report.PhaseCutover: "cutover or abort", report.PhaseOpen: "rollback, prepare, finish or verify", report.PhaseRolledBack: "cutover, prepare, finish or abort", report.PhaseFinished: "nothing more: the upgrade is finished",
	}
	return Refused("the right command now: "+next[p], "%s is not for phase %s", command, p)
}

// ErrFindings is a check that found what blocks the upgrade.
type ErrFindings struct{ Blocking []check.Finding }

func (e *ErrFindings) Error() string {
	says := make([]string, len(e.Blocking))
	for i, f := range e.Blocking {
		says[i] = f.ID + " on " + f.On + ": " + f.Says
	}
	return "blocking findings: " + strings.Join(says, "; ")
}

// Blocks is the error of findings that block the upgrade.
func Blocks(blocking []check.Finding) error {
	blocking = check.Group(blocking)
	e := &ErrFindings{blocking}
	return &Error{Code: Findings, Says: e.Error(), On: blocking[0].On, Object: blocking[0].Object, Hint: "crossfade check says what to do about each", Err: e}
}

// ErrInterrupted is the cause of a context that a signal ended.
var ErrInterrupted = errors.New("interrupted")

// hints are what to do after each exit code, where nothing better is known.
var hints = map[int]string{
	Failed:      "crossfade status shows where the upgrade stands; when the reason is gone, run the same command again to resume",
	Usage:       "crossfade --help lists the commands; crossfade COMMAND --help says what each takes",
	Findings:    "crossfade check says what to do about each finding",
	Gate:        "crossfade status shows every gate, and says what to type next",
	Undone:      "when the reason is gone, run the same command again; crossfade status shows where the upgrade stands",
	AfterOpen:   "run the same command again: it only moves forward",
	Differences: "crossfade verify names the rows that differ",
	Held:        "wait for the other run, or end it; status needs no lock",
	Interrupted: "run the same command again to resume",
}

// Of finds what an error means for the caller of the command, and what to do
// about it: Says and Hint are never empty. Every error means something; nil
// stays nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	e := *find(err)
	e.Says, e.Hint = cmp.Or(e.Says, err.Error(), "failed"), cmp.Or(e.Hint, hints[e.Code], hints[Failed])
	return &e
}

// find is Of as far as the error itself says.
func find(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := &Error{Code: Failed, Says: err.Error(), SQLState: pg.SQLState(err), Err: err}
	if p, ok := errors.AsType[*pg.Error](err); ok {
		e.On, e.Object, e.Hint = p.On, p.Object, p.Hint
	}
	var gate *cutover.ErrGate
	var failure *flow.Failure
	isFailure := errors.As(err, &failure)
	// The servers decide, in this order: 6, 5, 130, 7, 3, 4, 1.
	switch {
	case isFailure && failure.Committed:
		e.Code, e.Hint = AfterOpen, hints[AfterOpen]
	case isFailure && failure.Undone && !errors.As(err, &gate):
		e.Code = Undone
	case errors.Is(err, ErrInterrupted):
		e.Code, e.Hint = Interrupted, hints[Interrupted]
	case errors.As(err, &gate):
		e.Code, e.Hint = Gate, gate.Do()
		if e.Hint == "" {
			e.Hint = "when what the gates name has ended, run the same command again; crossfade status shows every gate"
		}
	case errors.Is(err, flow.ErrHeld):
		e.Code, e.Hint = Held, hints[Held]
	case errors.Is(err, context.DeadlineExceeded):
		e.Hint = "run the same command again to resume"
	case e.Hint == "":
		e.Hint = HintOf(err)
	}
	return e
}

// HintOf is what to do about an error that any statement may meet; "": nothing
// that holds of all of them.
func HintOf(err error) string {
	if pg.SQLState(err) == "57P01" {
		return "an administrator ended this session of crossfade (pg_terminate_backend), or shut the server down: run the same command again"
	}
	return ""
}
