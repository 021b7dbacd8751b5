package forecast

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// part is what one step of a cutover takes, at the usual probe of the slower
// server: base, more for each table, sequence and link of all databases, and
// so many questions to both servers one after the other.
type part struct {
	base                  time.Duration
	table, sequence, link time.Duration
	trips                 int
	pooler                time.Duration
	blocks                bool // writers wait while it runs
	transactions          bool // it waits for open transactions
}

// parts are the steps of a cutover, in their order. What was measured: two
// cores, 4 to 10,000 tables, with and without a pooler.
var parts = []struct {
	id string
	part
}{
	{"arm", part{base: 30 * time.Millisecond, table: 80 * time.Microsecond, trips: 4, transactions: true}},
	{"gate", part{base: 500 * time.Millisecond, table: 2 * compareTable, trips: 20}},
	{"traffic/prepare", part{base: 5 * time.Millisecond, pooler: 40 * time.Millisecond, trips: 2}},
	{"back/make", part{base: 20 * time.Millisecond, link: 15 * time.Millisecond, trips: 4}},
	{"traffic/pause", part{base: 10 * time.Millisecond, pooler: 20 * time.Millisecond, blocks: true, transactions: true}},
	{"barrier", part{base: 2 * time.Millisecond, table: 15 * time.Microsecond, trips: 5, blocks: true, transactions: true}},
	{"canary", part{base: 8 * time.Millisecond, table: 15 * time.Microsecond, trips: 5, blocks: true}},
	{"drain", part{base: 6 * time.Millisecond, link: time.Millisecond, trips: 6, blocks: true}},
	{"sequences", part{base: 2 * time.Millisecond, sequence: 5 * time.Microsecond, trips: 4, blocks: true}},
	{"forward/stop", part{base: 10 * time.Millisecond, link: 2 * time.Millisecond, trips: 4, blocks: true}},
	{"back/prove", part{base: 35 * time.Millisecond, link: 10 * time.Millisecond, table: 5 * time.Microsecond, trips: 10, blocks: true}},
	{"durable", part{base: 2 * time.Millisecond, trips: 2, blocks: true}},
	{"close", part{base: 40 * time.Millisecond, table: 12 * time.Microsecond, sequence: 5 * time.Microsecond, trips: 8, blocks: true}},
	{"close/kept", part{base: time.Millisecond, trips: 2, blocks: true}},
	{"open", part{base: 5 * time.Millisecond, trips: 3, blocks: true}},
	{"traffic/point", part{base: time.Millisecond, pooler: 4 * time.Millisecond, blocks: true}},
	{"traffic/resume", part{base: time.Millisecond, pooler: 2 * time.Millisecond, blocks: true}},
	{"read-only", part{base: 2 * time.Millisecond, trips: 2}},
	{"back/follow", part{base: 3 * time.Millisecond, trips: 2}},
	{"forward/drop", part{base: 200 * time.Millisecond, link: 15 * time.Millisecond, trips: 8}},
	{"disarm", part{base: 30 * time.Millisecond, table: 90 * time.Microsecond, trips: 4}},
}

// cutoverFigures are the outage, and every step of the cutover and of the
// rollback, which is the same with the ends swapped.
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
	mine := map[string]bool{}
	for _, s := range f.Steps {
		if s.Plan == plan {
			mine[s.ID] = true
		}
	}
	if len(mine) == 0 {
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
	for _, p := range parts {
		if !mine[p.id] {
			continue
		}
		fixed, table := (p.base.Seconds()+p.pooler.Seconds()*float64(f.Poolers))*c.slow, c.tables*p.table.Seconds()*c.slow
		sequence, link := c.sequences*p.sequence.Seconds()*c.slow, c.links*p.link.Seconds()*c.slow
		trips := float64(p.trips) * max(f.TripOld, f.TripNew).Seconds()
		seconds := fixed + table + sequence + link + trips
		switch {
		case p.id == "gate":
			seconds += f.Stable.Seconds()
		case p.transactions && p.blocks && !waited: // the first of them waits
			seconds += c.waits
			waited = true
		case p.transactions && !p.blocks:
			seconds += f.Oldest.Seconds()
		}
		out.step(plan, p.id, seconds)
		if p.blocks {
			c.blocked += seconds
			c.fixed, c.perTable, c.perSequence = c.fixed+fixed, c.perTable+table, c.perSequence+sequence
			c.perLink, c.trips = c.perLink+link, c.trips+trips
			c.steps = append(c.steps, StepKey{plan, p.id})
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
