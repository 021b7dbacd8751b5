// Package flow runs plans: lists of named steps that can be looked at before
// they run, stopped at any moment, run again, and undone.
//
// It knows nothing of PostgreSQL. What a step does to the world stands in
// Step.Does as values (Effect); Do executes exactly these values, so that the
// dry run and the run cannot drift apart. A step that can look at the servers
// has Done, and is believed over the journal, which is only a memory.
package flow

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Effect is one thing that a step does to one server, host or service: a
// statement, a program or a request, one of them. What is known only when the
// step runs stands in it as $name (lower-case letters and underscores); Fill puts
// it in.
type Effect struct {
	On       string   `json:"on"`                 // server or host as the contract names it: old, new, <cluster>, local …
	Database string   `json:"database,omitempty"` // "" where a program runs, or the server's own database
	SQL      string   `json:"sql,omitempty"`      // one statement, or the statements of one TOC entry
	Run      []string `json:"run,omitempty"`      // argv
	Request  string   `json:"request,omitempty"`  // of HTTP: method, path and body
	// Secrets fill further $names of SQL when it is executed, and are never shown.
	Secrets map[string]string `json:"-"`
}

// SQL is the effect of one statement, or of the statements of one text.
func SQL(on, database, sql string) Effect { return Effect{On: on, Database: database, SQL: sql} }

// hole is a $name in an effect, not the tag of a dollar-quoted string.
var hole = regexp.MustCompile(`\$[a-z][a-z0-9_]*\$?`)

// Fill replaces every $name of e that vars has. Values are put in as they are:
// the caller quotes them for SQL (pg.Literal), or leaves them raw for argv. A
// $name that vars lacks stays, and makes PostgreSQL refuse the statement.
func (e Effect) Fill(vars map[string]string) Effect {
	fill := func(s string) string {
		return hole.ReplaceAllStringFunc(s, func(h string) string {
			if strings.HasSuffix(h, "$") {
				return h
			}
			if v, ok := vars[h[1:]]; ok {
				return v
			}
			return h
		})
	}
	e.SQL = fill(e.SQL)
	if e.Run != nil {
		run := make([]string, len(e.Run))
		for i, a := range e.Run {
			run[i] = fill(a)
		}
		e.Run = run
	}
	return e
}

// Step is one named, idempotent part of a plan.
type Step struct {
	// ID is stable from release to release and unique within its plan
	// ("copy/shop"); Title is the sentence a person reads.
	ID, Title string
	// Does is what the step does to the world; Do executes these values.
	Does []Effect
	// Done looks at the servers whether nothing is left to do. Nil asks the
	// journal instead.
	Done func(ctx context.Context) (bool, error)
	// Do may run again after a crash in its middle, so it begins by looking.
	// Nil is a step without effect.
	Do func(ctx context.Context, t *Turn) error
	// Undo undoes a whole or half Do, also one of an earlier process; it
	// does nothing where nothing was done. Nil: there is nothing to undo.
	Undo func(ctx context.Context, t *Turn) error
	// Undoes is what a whole Undo does to the world, as Does is for Do: for plans
	// in which undoing is a part. Nil elsewhere.
	Undoes []Effect
	// Serves marks a step whose Undo gives clients their service back: such
	// undos come first, newest first, before those that only clean up.
	Serves bool
	// Apart: Undo touches no server of either side, and is done even where none can
	// be asked whether the work is still this run's to undo.
	Apart bool
	// Commit marks the point of no return. It is journalled before Do runs.
	// Its Do returns ErrNotTaken (wrapped) where it is certain that nothing
	// was decided; any other error counts as decided.
	Commit bool
	// Late marks a step after the point of no return that can wait for another
	// run: clients are served by then. See Plan.Interrupt.
	Late bool
	// Stops marks a late step whose Do ends when Plan.Interrupt comes, for those
	// that take hours; the others are run to their end.
	Stops bool
	// Needs are the ids of earlier steps without whose success this one cannot be
	// done. It matters after the point of no return alone, where a step that fails
	// does not end the run: every later step is tried but those that need it. All
	// steps after the Commit step need that one. Nil: none else.
	Needs []string
	// Beside and Lane: steps that follow each other and have the same Beside run
	// side by side, those of one Lane in their order. A lane that fails does not
	// end the others: what they have done would be lost. None of them has Commit,
	// Undo or Again. "" is a step of its own.
	Beside, Lane string
	// Timeout limits Do; 0 is no limit of its own. UndoTimeout limits Undo; 0 is 30 s.
	Timeout, UndoTimeout time.Duration
	// Blocks: clients that write wait while Do runs.
	Blocks bool
	// Cost is what Do takes, for a forecast to be made from; the zero Cost is not known.
	Cost Cost
	// Forecast is how long Do is expected to take; 0 is not known.
	Forecast time.Duration
	// Option is the option of the command without which this step is left out; "" is
	// none. It tells a plan that is shown with all that it may do from one that runs.
	Option string
}

// Cost is what a step takes on the machine that it was measured on. Package forecast
// adds it up, for as many of each thing as there are, and for other machines; flow
// does nothing with it.
type Cost struct {
	Base                         time.Duration
	Table, Sequence, Set, Pooler time.Duration // beside Base, for each that the plan is about
	Trips                        int           // questions to the servers, one after the other, beside all that
	Transactions                 bool          // it waits for transactions that are open
	Stable                       bool          // it waits until the lag has been low for as long as the runbook says
}

// Plan is a list of steps that run in order, but for those that run beside
// each other.
type Plan struct {
	Name string // prepare, cutover, rollback, rehearse, finish, abort
	// Cluster is the new cluster that the plan is about, where there are several;
	// it tells their steps apart in the journal and in events.
	Cluster string
	// Attempt tells one run of the same plan from another in the journal: a
	// second cutover must not believe the records of the first.
	Attempt int
	Steps   []Step
	// Interrupt is the cause of a cancelled context that is heeded after the
	// Commit step too, but no sooner than before the first Late step. Nil: none.
	Interrupt error
	// AllOrNothing: a failure before the Commit step undoes every step.
	AllOrNothing bool
	// Committed: an earlier run has passed the point of no return, so that this one
	// only moves forward from its first step on. The Commit step, where the plan has
	// it, is then a step like the others, which those after it need.
	Committed bool
}

// ErrNotTaken says that a Commit step decided nothing, so that undo is right.
var ErrNotTaken = errors.New("the decision was not taken")

// Again is the error of a step that wants everything back to step From undone
// and run again from there, after Wait.
type Again struct {
	From string
	Wait time.Duration
	Err  error // why, for the person who watches
}

func (a *Again) Error() string { return a.Err.Error() }
func (a *Again) Unwrap() error { return a.Err }

// Failure is how Run reports a step that failed.
type Failure struct {
	Plan, Step string
	Err        error
	// Undone: the plan is all-or-nothing, the failure came before its Commit
	// step, and every Undo that gives service back succeeded.
	Undone bool
	// Committed: the failure came after the point of no return.
	Committed bool
	// Left are the steps that are still to do after the point of no return, in the
	// plan's order: those that failed, and those that could not be tried without
	// them. Step and Err are those of the first. Nil where Committed is false.
	Left []Left
	// UndoErrs are the undos that failed; they never stopped the next one.
	UndoErrs []error
}

// Left is a step that is still to do after the point of no return.
type Left struct {
	Step, Title string
	// Err is why: what the step failed with, ErrNeeds (wrapped) where it was not
	// tried, or the cause of an interruption.
	Err error
}

// ErrNeeds says that a step was not tried because one that it needs has failed.
var ErrNeeds = errors.New("not tried")

func (f *Failure) Error() string {
	var b strings.Builder
	if len(f.Left) > 0 {
		fmt.Fprintf(&b, "%s: still to do:", f.Plan)
		var waiting []string
		between := " "
		for _, l := range f.Left {
			if errors.Is(l.Err, ErrNeeds) {
				waiting = append(waiting, l.Step)
				continue
			}
			fmt.Fprintf(&b, "%s%s (%v)", between, l.Step, l.Err)
			between = "; "
		}
		if len(waiting) > 0 {
			fmt.Fprintf(&b, "; and after that %s", strings.Join(waiting, ", "))
		}
		return b.String()
	}
	fmt.Fprintf(&b, "%s: step %s: %v", f.Plan, f.Step, f.Err)
	for _, err := range f.UndoErrs {
		fmt.Fprintf(&b, "; undo: %v", err)
	}
	return b.String()
}

func (f *Failure) Unwrap() []error {
	errs := append([]error{f.Err}, f.UndoErrs...)
	for _, l := range f.Left {
		errs = append(errs, l.Err)
	}
	return errs
}

// Event is what happened in a run. Events are the only source for terminal,
// JSON, metrics and report. They come one at a time.
type Event struct {
	At      time.Time
	Cluster string // the plan's
	Plan    string
	Step    string
	Title   string
	Kind    Kind
	Err     error         // fail
	Took    time.Duration // end, fail, undone
	Done    int64         // progress
	Total   int64         // progress; 0 is not known
	Unit    string        // progress: "bytes", "tables", …
	Says    string        // note: a sentence for the person who watches; progress: what is in work
	Commits bool          // the step is the point of no return
	Beside  string        // as the step has it: those that begin with the same one are in work together
	// Forecast is what the step was expected to take; 0 is not known.
	Forecast time.Duration
}

// Kind of an Event.
type Kind string

// The kinds of events. Progress and note are shown, never journalled.
const (
	Begin    Kind = "begin"
	End      Kind = "end"
	Skip     Kind = "skip"
	Fail     Kind = "fail"
	Undone   Kind = "undone"
	Progress Kind = "progress"
	Note     Kind = "note"
)

// Turn is one execution of a step's Do or Undo: its memory and its voice.
type Turn struct {
	mem     Memory
	observe func(Event)
	event   Event
}

// Memory is a step's own cursor. What Save was given is durable when it
// returns; Load fills v and reports whether there was anything.
type Memory interface {
	Load(v any) (bool, error)
	Save(v any) error
}

// Load reads what an earlier execution of this step saved.
func (t *Turn) Load(v any) (bool, error) { return t.mem.Load(v) }

// Save remembers v for the next execution of this step, and for its Undo.
func (t *Turn) Save(v any) error { return t.mem.Save(v) }

// Progress says how far the step is; total 0 is not known.
func (t *Turn) Progress(done, total int64, unit, says string) {
	e := t.event
	e.At, e.Kind, e.Done, e.Total, e.Unit, e.Says = time.Now(), Progress, done, total, unit, says
	t.observe(e)
}

// Note tells the person who watches one sentence.
func (t *Turn) Note(format string, args ...any) {
	e := t.event
	e.At, e.Kind, e.Says = time.Now(), Note, fmt.Sprintf(format, args...)
	t.observe(e)
}

// NewTurn makes a turn outside a run, for tests and for commands that use a
// step's parts alone. A nil mem forgets everything; a nil observe is silent.
func NewTurn(plan, step string, mem Memory, observe func(Event)) *Turn {
	if mem == nil {
		mem = &volatile{}
	}
	if observe == nil {
		observe = func(Event) {}
	}
	return &Turn{mem: mem, observe: observe, event: Event{Plan: plan, Step: step}}
}

// Never is the Done of a step that is done again whenever its plan is run.
func Never(context.Context) (bool, error) { return false, nil }

// Exec is the ordinary Do: it executes effects in order with run, after
// filling in what vars returns (nil: nothing).
func Exec(run func(context.Context, Effect) error, effects []Effect, vars func() map[string]string) func(context.Context, *Turn) error {
	return func(ctx context.Context, t *Turn) error {
		var v map[string]string
		if vars != nil {
			v = vars()
		}
		for i, e := range effects {
			if err := run(ctx, e.Fill(v)); err != nil {
				return err
			}
			if len(effects) > 20 {
				t.Progress(int64(i+1), int64(len(effects)), "statements", "")
			}
		}
		return nil
	}
}
