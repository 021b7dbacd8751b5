// Package forecast tells, before anything is touched, how long an upgrade will
// take, how much WAL old will keep for it, and for how long writers will wait.
//
// Take measures: it reads pieces of the biggest tables the way the copy will,
// sorts the keys of their indexes, and watches old's WAL and transactions, in
// READ ONLY transactions, in one session at a time on each server, within a
// limit, and without a temporary file. Of is a pure function from these facts
// to figures, each with its formula and with where every number in it is from.
//
// What cannot be measured without writing (how fast new loads, applies and
// flushes) is taken from what was measured on PostgreSQL 15 to 18, in
// proportion to what can: such terms are Assumed, and are told so.
package forecast

import (
	"slices"
	"time"
)

// Unit is what a number counts.
type Unit string

// The units.
const (
	Seconds  Unit = "seconds"
	Bytes    Unit = "bytes"
	Rate     Unit = "bytes a second"
	Changes  Unit = "changes a second"
	Count    Unit = "count"
	Multiple Unit = "times"
)

// How says where a number is from.
type How string

// Where numbers are from.
const (
	Measured   How = "measured" // on these servers, for this forecast
	Counted    How = "counted"  // in the catalogs and statistics
	Runbook    How = "runbook"
	Assumed    How = "assumed"    // measured elsewhere, by us
	Forecasted How = "forecasted" // another figure
)

// Term is one number in a formula.
type Term struct {
	Name  string // as the formula calls it
	Value float64
	Unit  Unit
	How   How
	Says  string // more about where it is from; "" where Name says it all
}

// Figure is one thing that is forecast, with its formula.
type Figure struct {
	// ID is stable from release to release; Object is what it is about: a
	// database, a standby; "" where it is about the whole upgrade.
	ID, Object string
	Title      string
	Value      float64
	Unit       Unit
	// Known is false where something that it takes could not be measured; Says
	// tells what. Never: the end that it counts to is not reached.
	Known, Never bool
	Formula      string
	Terms        []Term
	// Says is what a person must know beside the number; "" is nothing.
	Says string
	// Exceeds: it is more than the runbook allows; Says tells what.
	Exceeds bool
	// Steps are the steps of plans that it is the sum of, for the actual beside
	// it; nil where no step tells.
	Steps []StepKey
}

// StepKey names a step of a plan.
type StepKey struct{ Plan, ID string }

// Forecast is what the facts say.
type Forecast struct {
	Figures []Figure
	// Steps is how long each step will take, of those that can be told.
	Steps map[StepKey]time.Duration
}

// Figure returns a figure, or nil.
func (f Forecast) Figure(id, object string) *Figure {
	i := slices.IndexFunc(f.Figures, func(g Figure) bool { return g.ID == id && g.Object == object })
	if i < 0 {
		return nil
	}
	return &f.Figures[i]
}

func (f *Forecast) add(g Figure) { f.Figures = append(f.Figures, g) }

// step notes how long one step will take.
func (f Forecast) step(plan, id string, seconds float64) {
	if seconds > 0 {
		f.Steps[StepKey{plan, id}] = duration(seconds)
	}
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
