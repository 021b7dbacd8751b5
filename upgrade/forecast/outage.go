package forecast

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"crossfade/upgrade/flow"
)

// cutoverFigures are the outage, and every step of the cutover and of the
// rollback, which is the same with the ends swapped. What a step costs stands on the
// step (flow.Cost); it was measured on two cores, with 4 to 10,000 tables, with and
// without a pooler.
func (f Facts) cutoverFigures(out *Forecast) {
	for _, plan := range []string{"cutover", "rollback"} {
		f.crossing(out, plan)
	}
}

// crossing is one cutover or rollback, summed up over the steps that block.
type crossing struct {
	blocked, fixed, perTable, perSequence, perLink, trips float64 // seconds
	tables, sequences, links                              float64
	slow                                                  float64
	waits                                                 float64 // for open transactions
	steps                                                 []StepKey
}

func (f Facts) crossing(out *Forecast, plan string) {
	if !slices.ContainsFunc(f.Steps, func(s StepFacts) bool { return s.Plan == plan }) {
		return
	}
	// These steps ask and wait more than they compute: a machine that computes
	// at a quarter of its pace was seen to take twice as long for them.
	c := crossing{slow: math.Sqrt(max(pace(f.ProbeOld), pace(f.ProbeNew)))}
	for _, db := range f.Databases {
		c.tables += float64(db.Tables)
		c.sequences += float64(db.Sequences)
		c.links += float64(len(db.Sets))
	}
	// Writers are let in again and try the locks anew when these are not acquired in time.
	c.waits = min(f.Oldest, f.LockTimeout).Seconds()
	waited := false
	for _, s := range f.Steps {
		cost := s.Cost
		if s.Plan != plan || cost == (flow.Cost{}) {
			continue
		}
		fixed, table := (cost.Base.Seconds()+cost.Pooler.Seconds()*float64(f.Poolers))*c.slow, c.tables*cost.Table.Seconds()*c.slow
		sequence, link := c.sequences*cost.Sequence.Seconds()*c.slow, c.links*cost.Set.Seconds()*c.slow
		trips := float64(cost.Trips) * max(f.TripOld, f.TripNew).Seconds()
		seconds := fixed + table + sequence + link + trips
		switch {
		case cost.Stable:
			seconds += f.Stable.Seconds()
		case cost.Transactions && s.Blocks && !waited: // the first of them waits
			seconds += c.waits
			waited = true
		case cost.Transactions && !s.Blocks:
			seconds += f.Oldest.Seconds()
		}
		out.step(plan, s.ID, seconds)
		if s.Blocks {
			c.blocked += seconds
			c.fixed, c.perTable, c.perSequence = c.fixed+fixed, c.perTable+table, c.perSequence+sequence
			c.perLink, c.trips = c.perLink+link, c.trips+trips
			c.steps = append(c.steps, s.StepKey)
		}
	}
	if plan == "cutover" {
		out.add(f.outage(c))
	}
}

// outage is how long writers wait.
func (f Facts) outage(c crossing) Figure {
	g := Figure{
		ID: "outage", Title: "Writers wait at the cutover", Unit: Seconds, Known: f.TripOld > 0 && f.TripNew > 0, Value: c.blocked, Steps: c.steps,
		Formula: "work + tables + sequences + sets + questions + open transactions",
		Terms: []Term{
			{Name: "work", Value: c.fixed, Unit: Seconds, How: Assumed, Says: fmt.Sprintf("of the steps from the pause to the resumption, %.2f times slower than usual, poolers and hooks: %d", c.slow, f.Poolers)},
			{Name: "tables", Value: c.perTable, Unit: Seconds, How: Assumed, Says: fmt.Sprintf("locked, looked at and closed: %.0f", c.tables)},
			{Name: "sequences", Value: c.perSequence, Unit: Seconds, How: Assumed, Says: fmt.Sprintf("read and set: %.0f", c.sequences)},
			{Name: "sets", Value: c.perLink, Unit: Seconds, How: Assumed, Says: fmt.Sprintf("drained, stopped and proven the other way: %.0f", c.links)},
			{Name: "questions", Value: c.trips, Unit: Seconds, How: Measured, Says: fmt.Sprintf("one and its answer take %s to old, %s to new", text(f.TripOld), text(f.TripNew))},
			{
				Name: "open transactions", Value: c.waits, Unit: Seconds, How: Measured,
				Says: fmt.Sprintf("%d that write were open at once at most, the oldest for %s; at most lock_timeout (%s) is waited, then they are let on and it is tried again", f.Writers, text(f.Oldest), text(f.LockTimeout)),
			},
			{Name: "max_blocked", Value: f.MaxBlocked.Seconds(), Unit: Seconds, How: Runbook, Says: "past it everything is undone"},
		},
	}
	switch {
	case !g.Known:
		g.Says = "the servers could not be asked" + f.why()
	case f.MaxBlocked > 0 && c.blocked > f.MaxBlocked.Seconds():
		g.Exceeds = true
		g.Says = "more than cutover.max_blocked: the cutover would be undone; raise it, or make fewer tables wait"
	case f.Oldest > f.LockTimeout:
		g.Says = "transactions that write for longer than lock_timeout were seen: the cutover waits for a moment without one, up to patience"
	}
	if f.Poolers == 0 {
		g.Says = join(g.Says, fmt.Sprintf("clients find new by themselves: theirs is longer by what they take to connect anew (%s for one session here)", text(f.Connect)))
	}
	return g
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// text is a short duration for a person.
func text(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case d == 0:
		return "0 ms"
	case ms < 10:
		return strconv.FormatFloat(math.Round(ms*100)/100, 'f', -1, 64) + " ms"
	case ms < 10000:
		return strconv.FormatFloat(math.Round(ms), 'f', -1, 64) + " ms"
	}
	return d.Round(time.Second).String()
}
