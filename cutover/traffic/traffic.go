// Package traffic sends clients to a cluster: it holds them back, points them
// at another server and resumes them.
//
// A Switch is a pooler with all its processes, or a program of the operator's.
// Prepare proves beforehand whatever Point will need, so that what can fail
// fails while nothing is paused. Resume always works on connections of its own,
// whatever became of a Pause. A Guard is the child process that resumes when
// the tool is gone.
//
// There are several kinds; kinds.go lists them, and each is a file with everything
// that the product knows of it: its keys in the runbook, what may block it, how it
// pauses, points and resumes, what a guard needs of it, and what people read of it.
package traffic

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"golang.org/x/sync/errgroup"
)

// Call is one of the acts of a Switch.
type Call string

// The calls that do something to the world.
const (
	Prepare  Call = "prepare"
	Withdraw Call = "withdraw"
	Pause    Call = "pause"
	Point    Call = "point"
	Resume   Call = "resume"
)

// Switch is what sends clients to a cluster.
type Switch interface {
	// Name says which one it is: "pgbouncer pool1:6432/shop", "hook move-dns".
	Name() string
	// Does is what a call does, the very values that it executes. to is the
	// server that clients are sent to; Pause and Resume do not look at it.
	Does(call Call, to *pg.Server) []flow.Effect
	// Prepare proves that Point to that server will work. Clients notice
	// nothing. Its error names every obstacle with what helps.
	Prepare(ctx context.Context, to *pg.Server) error
	// Withdraw undoes Prepare. It may be called without one.
	Withdraw(ctx context.Context) error
	// Pause holds clients back and returns when no transaction of theirs is
	// under way. When it fails, it has let all of them go on.
	Pause(ctx context.Context) error
	// Point sends clients to a server, also back to the one before. Calling it
	// again does nothing.
	Point(ctx context.Context, to *pg.Server) error
	// Resume resumes clients, also after a Pause that failed, timed out or
	// was another process's. What is not paused is fine.
	Resume(ctx context.Context) error
	// Where is the host:port that clients are sent to now; "" is not known.
	Where(ctx context.Context) (string, error)
	// Guarded is what a guard needs to resume clients in the place of this process; it
	// may hold secrets. It is asked of units.
	Guarded() (GuardUnit, error)
}

// Problem is something that blocks a switch.
type Problem struct {
	ID     string // pool-…
	On     string // "pgbouncer pool1:6432"
	Object string // a database of the pooler, a user; "" where there is none
	Says   string
	Fix    string // what helps; "" where nothing is to be added
	State  string // SQLSTATE of what PostgreSQL said; "" where it said nothing
	// Acceptable problems disturb some clients; the others stop all of them.
	Acceptable bool
}

func (p Problem) Error() string {
	s := p.On + ": " + p.Says
	if p.Fix != "" {
		s += " (" + p.Fix + ")"
	}
	return s
}

// What some switches can do, and others need not.
type (
	// Judge is a Switch that can tell all its problems at once, without writing
	// anything.
	Judge interface {
		Problems(ctx context.Context, to *pg.Server) ([]Problem, error)
		// Unreachable is the problem that Problems ended with err.
		Unreachable(err error) Problem
	}
	// Waiter is a Switch that knows the sessions that a Pause would wait for.
	Waiter interface {
		Busy(ctx context.Context) ([]Busy, error)
	}
	// Divisible is a Switch whose units can be pointed and resumed without each other.
	Divisible interface {
		Units() []Switch
	}
	// Reachable is a Switch that can be asked whether it answers.
	Reachable interface {
		Reach(ctx context.Context) error
	}
)

// Busy are the sessions that a Pause would wait for at one place.
type Busy struct {
	On       string        // "pgbouncer pool1:6432"
	Backends []int32       // the server's processes that work for clients now
	Patience time.Duration // how long the Pause would wait for them
	Says     string        // what becomes of a Pause that waits longer
}

// Group is several switches that act together.
type Group []Switch

// Busy is what a Pause of the group would wait for, as far as its switches know.
func (g Group) Busy(ctx context.Context) ([]Busy, error) {
	var busy []Busy
	for _, s := range g {
		if w, ok := s.(Waiter); ok {
			some, err := w.Busy(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.Name(), err)
			}
			busy = append(busy, some...)
		}
	}
	return busy, nil
}

// Prepare prepares all of them; when one cannot, all are withdrawn.
func (g Group) Prepare(ctx context.Context, to *pg.Server) error {
	err := g.each(ctx, func(ctx context.Context, s Switch) error { return s.Prepare(ctx, to) })
	if err != nil {
		return errors.Join(err, g.Withdraw(context.WithoutCancel(ctx)))
	}
	return nil
}

// Withdraw undoes Prepare on all.
func (g Group) Withdraw(ctx context.Context) error {
	return g.each(ctx, func(ctx context.Context, s Switch) error { return s.Withdraw(ctx) })
}

// Pause pauses all or none: when one fails, clients go on at every one.
func (g Group) Pause(ctx context.Context) error {
	err := g.each(ctx, func(ctx context.Context, s Switch) error { return s.Pause(ctx) })
	if err != nil {
		again, cancel := afterwards(ctx)
		defer cancel()
		return errors.Join(err, g.Resume(again))
	}
	return nil
}

// Point points all at once; one that fails does not stop the others.
func (g Group) Point(ctx context.Context, to *pg.Server) error {
	return g.each(ctx, func(ctx context.Context, s Switch) error { return s.Point(ctx, to) })
}

// Resume resumes all at once; one that fails does not stop the others.
func (g Group) Resume(ctx context.Context) error {
	return g.each(ctx, func(ctx context.Context, s Switch) error { return s.Resume(ctx) })
}

// Units are the switches that can be pointed and resumed without each other. One
// that is dead or frozen holds up none of the rest.
func (g Group) Units() Group {
	var units Group
	for _, s := range g {
		if d, ok := s.(Divisible); ok {
			units = append(units, d.Units()...)
		} else {
			units = append(units, s)
		}
	}
	return units
}

// Send points a unit at a server, and prepares it for that first where what was
// prepared is gone: an earlier run may have used it.
func Send(ctx context.Context, unit Switch, to *pg.Server) error {
	err := unit.Point(ctx, to)
	if err == nil {
		return nil
	}
	if unit.Prepare(ctx, to) != nil {
		return err
	}
	return unit.Point(ctx, to)
}

// Does is what a call does on all.
func (g Group) Does(call Call, to *pg.Server) []flow.Effect {
	var does []flow.Effect
	for _, s := range g {
		does = append(does, s.Does(call, to)...)
	}
	return does
}

// Each calls f for every switch at once and waits for all; the errors are joined in
// the group's order, each with the name of its switch.
func (g Group) Each(f func(Switch) error) error {
	return all(g, func(s Switch) error {
		if err := f(s); err != nil {
			return fmt.Errorf("%s: %w", s.Name(), err)
		}
		return nil
	})
}

func (g Group) each(ctx context.Context, f func(context.Context, Switch) error) error {
	return g.Each(func(s Switch) error { return f(ctx, s) })
}

// all calls f for every item at once, waits for all, and joins the errors in
// the order of the items.
func all[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var g errgroup.Group
	for i, item := range items {
		g.Go(func() error {
			errs[i] = f(item)
			return nil
		})
	}
	return errors.Join(g.Wait(), errors.Join(errs...))
}

// resumeLimit is how long letting clients go on may take after a failed pause.
const resumeLimit = 5 * time.Second

// afterwards is a context for what must happen although ctx may have ended.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.WithoutCancel(ctx), resumeLimit,
		fmt.Errorf("letting clients go on took longer than %s", resumeLimit))
}

// refuse makes one error of the problems that nobody accepts; nil if none.
func refuse(problems []Problem, accepted func(Problem) bool) error {
	var errs []error
	for _, p := range problems {
		if !p.Acceptable || accepted == nil || !accepted(p) {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

func list(names []string) string { return strings.Join(names, ", ") }
