package cutover

import (
	"context"
	"fmt"
	"time"

	"crossfade/cutover/traffic"
	"crossfade/upgrade/flow"
)

func (x *crossing) trafficPrepare() flow.Step {
	return flow.Step{
		ID: "traffic/prepare", Title: "Prove that traffic can be sent to " + x.Opening.Name, Done: never,
		Cost: flow.Cost{Base: 5 * time.Millisecond, Pooler: 40 * time.Millisecond, Trips: 2},
		Does: x.Traffic.Does(traffic.Prepare, x.Point), Undoes: x.Traffic.Does(traffic.Withdraw, x.Point),
		Do: func(ctx context.Context, _ *flow.Turn) error {
			err := x.Traffic.Prepare(ctx, x.Point)
			if err != nil && ctx.Err() != nil {
				return err // it was stopped: no gate said no
			}
			if err != nil {
				return &ErrGate{[]GateState{{ID: "traffic", Says: err.Error()}}}
			}
			return nil
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			return x.Traffic.Withdraw(ctx)
		},
	}
}

// pauseStep is the step with which clients begin to be held, and where a try that
// could not pause or lock begins again.
const pauseStep = "traffic/pause"

// trafficPause holds the clients of poolers and hooks, the recheck before it. They are
// one step, because a try that fails begins again with both.
func (x *crossing) trafficPause() flow.Step {
	option := ""
	if x.rehearsal != nil {
		option = pausesWith
	}
	return flow.Step{
		ID: pauseStep, Option: option, Title: "Recheck the gates, then pause the poolers", Done: never, Serves: true, Blocks: true,
		Cost: flow.Cost{Base: 10 * time.Millisecond, Pooler: 20 * time.Millisecond, Transactions: true},
		Does: append(x.recheckEffects(), x.Traffic.Does(traffic.Pause, x.Point)...), Undoes: x.Traffic.Does(traffic.Resume, x.Point),
		Do: func(ctx context.Context, t *flow.Turn) error {
			x.rehearsal.pausing()
			if err := x.recheck(ctx, t); err != nil {
				return err
			}
			// With many tables that takes a while, in which others have begun.
			if err := x.mayBegin(ctx, t); err != nil {
				return err
			}
			return x.pause(ctx)
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			err := x.resume(ctx)
			if err == nil {
				x.rehearsal.resumed()
			}
			return err
		},
	}
}

// pause starts the process that resumes clients when this one is gone, and pauses
// all of the traffic. The time of max_blocked begins here.
func (x *crossing) pause(ctx context.Context) error {
	if len(x.Traffic) == 0 {
		return nil
	}
	if x.Guard != nil {
		g, err := x.Guard(ctx, x.MaxBlocked)
		if err != nil {
			return fmt.Errorf("start the child that resumes traffic when this process is gone: %w", err)
		}
		x.guard = g
	}
	x.begin()
	ctx, cancel := x.budget(ctx)
	defer cancel()
	err := x.Traffic.Pause(ctx)
	return x.again(ctx, err)
}

// resume resumes all of the traffic where it was, and ends that process.
func (x *crossing) resume(ctx context.Context) error {
	if len(x.Traffic) == 0 {
		return nil
	}
	err := x.Traffic.Resume(ctx)
	if err == nil {
		err = x.stopGuard()
	}
	return err
}

func (x *crossing) stopGuard() error {
	if x.guard == nil {
		return nil
	}
	g := x.guard
	x.guard = nil
	return g.Stop()
}

// trafficPoint sends clients to the opening side and resumes them there, each unit
// of the traffic without waiting for another: one that is dead or frozen keeps
// nobody out but its own clients.
func (x *crossing) trafficPoint() flow.Step {
	units := x.Traffic.Units()
	var does []flow.Effect
	for _, u := range units {
		does = append(append(does, u.Does(traffic.Point, x.Point)...), u.Does(traffic.Resume, x.Point)...)
	}
	return flow.Step{
		ID: "traffic/point", Title: "Send traffic to " + x.Opening.Name + " and resume it there", Done: never,
		Beside: served, Lane: "traffic", Does: does, Blocks: true, Cost: flow.Cost{Base: time.Millisecond, Pooler: 4 * time.Millisecond},
		Do: func(ctx context.Context, t *flow.Turn) error {
			return units.Each(func(u traffic.Switch) error { return x.pointUnit(ctx, t, u) })
		},
	}
}

func (x *crossing) pointUnit(ctx context.Context, t *flow.Turn, u traffic.Switch) error {
	if err := traffic.Send(ctx, u, x.Point); err != nil {
		return fmt.Errorf("point it at %s: %w", x.Opening.Name, err)
	}
	x.mu.Lock()
	x.units[u.Name()] = unitState{pointed: true}
	guard := x.guard
	x.mu.Unlock()
	if guard != nil {
		if err := guard.Pointed(u.Name()); err != nil {
			t.Note("the child process that resumes clients could not be informed where %s sends them: %v", u.Name(), err)
		}
	}
	// One that fails here is tried again by the next step.
	if err := u.Resume(ctx); err != nil {
		t.Note("%s: clients could not be resumed, trying again: %v", u.Name(), err)
		return nil
	}
	x.mu.Lock()
	x.units[u.Name()] = unitState{pointed: true, resumed: true}
	x.mu.Unlock()
	return nil
}

// trafficResume resumes every unit that sends clients to the opening side and that
// traffic/point could not resume: a hook is called once. Those that could not be
// pointed there stay paused: they would send writes to the closed side, which
// refuses them.
func (x *crossing) trafficResume() flow.Step {
	units := x.Traffic.Units()
	return flow.Step{
		ID: "traffic/resume", Title: "Resume whatever is still paused", Done: never,
		Beside: served, Lane: "traffic", Does: units.Does(traffic.Resume, x.Point), Blocks: true,
		Cost: flow.Cost{Base: time.Millisecond, Pooler: 2 * time.Millisecond},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			err := units.Each(func(u traffic.Switch) error {
				x.mu.Lock()
				unit := x.units[u.Name()]
				x.mu.Unlock()
				if !unit.pointed || unit.resumed { // step traffic/point names the one, and has done the other
					return nil
				}
				return u.Resume(ctx)
			})
			if err == nil {
				err = x.stopGuard()
			}
			return err
		},
	}
}
