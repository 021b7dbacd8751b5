package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
)

// exits is every exit code and what it means, in the words of docs/contract.md.
// It is an interface: codes are added, never changed, and a script treats one
// that it does not know as a failure.
var exits = []struct {
	code  int
	means string
}{
	{exit.Done, "done"},
	{exit.Failed, "failed; run again to resume"},
	{exit.Usage, "bad usage or runbook"},
	{exit.Findings, "blocking findings"},
	{exit.Gate, "outside the window, wrong phase, not approved, or a gate is closed; nothing was changed (anything changed was reverted)"},
	{exit.Undone, "cutover or rollback failed and was undone; the cluster that served before serves again (seen, not assumed; otherwise 1)"},
	{exit.AfterOpen, "failed after the point of no return: run the same command again; it only moves forward"},
	{exit.Differences, "verification found differences"},
	{exit.Held, "another run holds this upgrade"},
	{exit.Interrupted, "interrupted (SIGINT, SIGTERM); run again to resume"},
}

// firstOf is the order in which several reasons to fail decide: the first wins.
var firstOf = []int{
	exit.AfterOpen, exit.Undone, exit.Interrupted, exit.Differences,
	exit.Findings, exit.Gate, exit.Failed,
}

// usageError is a command line that cannot be understood.
type usageError struct {
	says string
	try  string // what to type instead
}

func (e *usageError) Error() string { return e.says }

// failure is what err means for the caller of the command; nil where the
// command did what it was asked.
func failure(ctx context.Context, err error) *report.Error {
	if err == nil {
		return nil
	}
	var usage *usageError
	var runbook *runbook.Error
	var unwritten *unwrittenError
	switch {
	case errors.As(err, &usage):
		return &report.Error{Exit: exit.Usage, Says: cmp.Or(usage.says, "bad usage"), Hint: cmp.Or(usage.try, "crossfade --help")}
	case errors.As(err, &runbook):
		return &report.Error{Exit: exit.Usage, Says: runbook.Error(), Hint: runbook.Hint()}
	case errors.As(err, &unwritten):
		return &report.Error{Exit: exit.Failed, Says: err.Error(), Hint: unwritten.hint()}
	}
	e := exit.Of(err)
	out := &report.Error{Exit: e.Code, Says: e.Says, On: e.On, Object: e.Object, SQLState: e.SQLState, Hint: e.Hint}
	if errors.Is(context.Cause(ctx), exit.ErrInterrupted) && before(exit.Interrupted, out.Exit) {
		out.Exit, out.Hint = exit.Interrupted, "run the same command again to resume"
	}
	return out
}

// before reports whether code a decides before code b. Codes outside the order
// (bad usage, held elsewhere) mean that nothing was begun: they stay.
func before(a, b int) bool {
	i, j := slices.Index(firstOf, a), slices.Index(firstOf, b)
	return i >= 0 && j >= 0 && i < j
}

// failureText is e for a person: what was being done and what went wrong, then
// what to type next.
func failureText(err error, e *report.Error) string {
	var b strings.Builder
	var runbook *runbook.Error
	if errors.As(err, &runbook) {
		for _, p := range runbook.Problems {
			b.WriteString(p.String() + "\n" + p.Excerpt())
		}
		b.WriteString("hint: " + runbook.Hint() + "\n")
		return b.String()
	}
	// What a server said may have several lines; none of them begins as this
	// program's own do.
	says := strings.ReplaceAll(strings.TrimSpace(e.Says), "\n", "\n  ")
	b.WriteString("crossfade: " + says + "\n")
	if e.Hint != "" && !strings.Contains(e.Says, e.Hint) {
		b.WriteString("hint: " + strings.ReplaceAll(e.Hint, "\n", "\n  ") + "\n")
	}
	b.Write(stackOf(err))
	return b.String()
}

// stackOf is where a panic happened: a person sends it with the bug report.
func stackOf(err error) []byte {
	var c *crash
	var p *flow.Panic
	switch {
	case errors.As(err, &c):
		return c.stack
	case errors.As(err, &p):
		return p.Stack
	}
	return nil
}
