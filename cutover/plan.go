package cutover

import (
	"context"
	"slices"

	"crossfade/upgrade/flow"
)

// stage is a part of a crossing that some plans take and others leave out.
type stage int

const (
	ahead      stage = iota // nobody is blocked, and nothing is to be undone
	arming                  // nobody is blocked
	before                  // of the operator's and of managers; no rehearsal takes it
	reversible              // what a rehearsal takes: clients are blocked from its pause on
	closing                 // ends with the close
	opening                 // the point of no return
	after                   // each step is tried, whatever became of the others
)

// line is one place in the order: the steps that stand there, built when a plan
// takes them, and none where the crossing does not need them.
type line struct {
	stage stage
	build func() []flow.Step
}

// order is a whole crossing, in the order in which its steps run, each with the
// reason why it stands where it stands. What else there is to know of a step, what it
// costs, whether clients wait for it, how it is undone, stands on the step itself.
func (x *crossing) order() []line {
	pause := x.hold.pauseStep
	if x.quietly() {
		pause = x.hold.quiet
	}
	one := func(step func() flow.Step) func() []flow.Step {
		return func() []flow.Step { return []flow.Step{step()} }
	}
	given := func(needed bool, step func() flow.Step) func() []flow.Step {
		if !needed {
			return func() []flow.Step { return nil }
		}
		return one(step)
	}
	all := func(steps []flow.Step) func() []flow.Step { return func() []flow.Step { return steps } }
	return []line{
		{ahead, all(x.Ahead)},                        // refreshes materialized views: takes as long as it takes, so before anything waits
		{arming, one(x.openFence.arm)},               // puts the open fence on every table: CREATE TRIGGER waits for locks, which nothing may do later
		{before, all(x.Before)},                      // pauses managers, runs before_cutover: the gates must see what these leave
		{arming, given(x.Stopped, x.forward.again)},  // resumes links that an earlier attempt stopped: the gates wait for them
		{reversible, one(x.gates.step)},              // the last moment at which waiting costs nothing
		{reversible, one(x.hold.prepareStep)},        // connects to the poolers: nothing is opened while clients are held
		{reversible, given(x.Back, x.way.makeStep)},  // makes the subscriptions of the way back, disabled: slow, and only their slots need the locks
		{reversible, one(pause)},                     // rechecks what takes time, and pauses: poolers first: their clients are spared the locks
		{reversible, one(x.barrier.lock)},            // the barrier: from here nothing commits on the closing side
		{reversible, one(x.forward.canary)},          // reads the gates again and the fence LSN: now nothing can move them
		{reversible, one(x.forward.drain)},           // the opening side has everything up to the fence LSN, and shows the canary
		{reversible, one(x.sequences.step)},          // after the last nextval that a committed row can hold
		{reversible, one(x.forward.stop)},            // before the way back runs, or rows would travel in a circle
		{reversible, given(x.Back, x.way.proveStep)}, // before close: a way back that does not work is found while everything can be undone
		{closing, one(x.forward.durable)},            // what the opening side has survives its failover
		{closing, one(x.fence.close)},                // raises the fence in the sessions that hold the locks, and lets the locks go
		{closing, one(x.standbys.step)},              // no standby of the closing side can be promoted without the fence
		{opening, one(x.open)},                       // the point of no return
		{after, one(x.hold.pointStep)},               // clients of poolers and hooks have waited longest
		{after, one(x.hold.resumeStep)},              // what traffic/point could not resume
		{after, one(x.readOnly)},                     // direct clients leave the closed side
		{after, one(x.follow)},                       // the way back is seen to run
		{after, one(x.leaks.step)},                   // looks for writes after the fence LSN while the slots are there, then drops the links
		{after, one(x.openFence.disarm)},             // the open fence costs statements time: off the side that serves
		{after, all(x.After)},                        // refreshes, standbys in the place of others, after_open: they may take long
	}
}

// in are the steps of these stages, in their order.
func in(lines []line, stages ...stage) []flow.Step {
	var steps []flow.Step
	for _, l := range lines {
		if slices.Contains(stages, l.stage) {
			steps = append(steps, l.build()...)
		}
	}
	return steps
}

// New builds the whole plan: from arm to what follows open.
func New(c Config) *Crossing {
	x := newCrossing(c)
	lines := x.order()
	return &Crossing{Plan: x.plan(append(in(lines, ahead, arming, before, reversible, closing), x.fromOpen(lines)...)), Anew: true, x: x}
}

// Resume builds the plan for an attempt that was found closed: it looks at
// everything again that the decision stands on, and goes on to open. Where that
// does not hold any more, what the earlier run did is undone as its own.
func Resume(c Config, d Decision) *Crossing {
	x := newCrossing(c)
	x.remember(d)
	lines := x.order()
	var steps []flow.Step
	for _, s := range in(lines, arming, before, reversible, closing) {
		if s.Undo != nil {
			s.Done = func(context.Context) (bool, error) { return true, nil }
			steps = append(steps, s)
		}
	}
	steps = append(steps, x.closedAgain(d), x.forward.durable(), x.standbys.step())
	return &Crossing{Plan: x.plan(append(steps, x.fromOpen(lines)...)), x: x}
}

// Earlier builds the plan of an attempt that was found cut off before open, to
// be undone.
func Earlier(c Config, d Decision) *Crossing {
	c.Attempt = d.Attempt
	again := New(c)
	again.Anew = false
	again.x.remember(d)
	return again
}

// Forwards builds the plan for an attempt that was found open: only forward.
func Forwards(c Config, d Decision) *Crossing {
	x := newCrossing(c)
	x.remember(d)
	x.decided = true
	// Sequences first: a database that is still to be opened hands out nothing twice.
	steps := append([]flow.Step{x.sequences.again()}, x.fromOpen(x.order())...)
	done := &steps[len(steps)-1]
	done.Needs = append(done.Needs, steps[0].ID)
	return &Crossing{Plan: x.plan(steps), x: x}
}

// fromOpen are open and what follows it. Each of these steps is tried whatever
// became of the others; only the last needs all.
func (x *crossing) fromOpen(lines []line) []flow.Step {
	steps, done := in(lines, after), x.done()
	for _, s := range steps {
		done.Needs = append(done.Needs, s.ID)
	}
	return append(append(in(lines, opening), steps...), done)
}

// plan names the steps' plan, and gives each what every step of a crossing has.
func (x *crossing) plan(steps []flow.Step) flow.Plan {
	name := "cutover"
	if x.Direction == Back {
		name = "rollback"
	}
	for i := range steps {
		steps[i] = x.reviving(steps[i])
		steps[i].Forecast = x.Forecast[steps[i].ID]
	}
	return flow.Plan{Name: name, Attempt: x.Attempt, Steps: steps, AllOrNothing: true, Committed: x.decided}
}
