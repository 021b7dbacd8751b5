package cutover

import (
	"context"
	"fmt"
	"time"

	"crossfade/cutover/traffic"
	"crossfade/upgrade/flow"
)

// hold is what keeps clients waiting, and then sends them to the opening side.
type hold struct {
	*attempt
	recheck *recheck
	guard   Guard                // resumes clients when this process is gone; nil: none runs
	units   map[string]unitState // of the traffic, by name
}

// unitState is how far one unit of the traffic is after open.
type unitState struct {
	pointed bool // it sends clients to the opening side
	resumed bool // and they go on there
}

func (h *hold) prepareStep() flow.Step {
	return flow.Step{
		ID: "traffic/prepare", Title: "Prove that traffic can be sent to " + h.Opening.Name, Done: never, Apart: true,
		Cost: flow.Cost{Base: 5 * time.Millisecond, Pooler: 40 * time.Millisecond, Trips: 2},
		Does: h.Traffic.Does(traffic.Prepare, h.Point), Undoes: h.Traffic.Does(traffic.Withdraw, h.Point),
		Do: func(ctx context.Context, _ *flow.Turn) error {
			err := h.Traffic.Prepare(ctx, h.Point)
			if err != nil && ctx.Err() != nil {
				return err // it was stopped: no gate said no
			}
			if err != nil {
				return &ErrGate{[]GateState{{ID: "traffic", Says: err.Error()}}}
			}
			return nil
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			return h.Traffic.Withdraw(ctx)
		},
	}
}

// pauseStep is the step with which clients begin to be held, and where a try that
// could not pause or lock begins again.
const pauseStep = "traffic/pause"

// pauseStep holds the clients of poolers and hooks, the recheck before it. They are
// one step, because a try that fails begins again with both.
func (h *hold) pauseStep() flow.Step {
	option := ""
	if h.rehearsal != nil {
		option = pausesWith
	}
	return flow.Step{
		ID: pauseStep, Option: option, Title: "Recheck the gates, then pause the poolers", Done: never, Serves: true, Apart: true, Blocks: true,
		Cost: flow.Cost{Base: 10 * time.Millisecond, Pooler: 20 * time.Millisecond, Transactions: true},
		Does: append(h.recheck.effects(), h.Traffic.Does(traffic.Pause, h.Point)...), Undoes: h.Traffic.Does(traffic.Resume, h.Point),
		Do: func(ctx context.Context, t *flow.Turn) error {
			h.rehearsal.pausing()
			if err := h.recheck.look(ctx, t); err != nil {
				return err
			}
			// With many tables that takes a while, in which others have begun.
			if err := h.recheck.mayBegin(ctx, t); err != nil {
				return err
			}
			return h.pause(ctx)
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			err := h.resume(ctx)
			if err == nil {
				h.rehearsal.resumed()
			}
			return err
		},
	}
}

// pause starts the process that resumes clients when this one is gone, and pauses
// all of the traffic. The time of max_blocked begins here.
func (h *hold) pause(ctx context.Context) error {
	if len(h.Traffic) == 0 {
		return nil
	}
	if h.Guard != nil {
		g, err := h.Guard(ctx, h.MaxBlocked)
		if err != nil {
			return fmt.Errorf("start the child that resumes traffic when this process is gone: %w", err)
		}
		h.guard = g
	}
	h.begin()
	ctx, cancel := h.budget(ctx)
	defer cancel()
	err := h.Traffic.Pause(ctx)
	return h.tryAgain(ctx, err)
}

// resume resumes all of the traffic where it was, and ends that process.
func (h *hold) resume(ctx context.Context) error {
	if len(h.Traffic) == 0 {
		return nil
	}
	err := h.Traffic.Resume(ctx)
	if err == nil {
		err = h.stopGuard()
	}
	return err
}

func (h *hold) stopGuard() error {
	if h.guard == nil {
		return nil
	}
	g := h.guard
	h.guard = nil
	return g.Stop()
}

// decided reports to the child that the decision has been taken.
func (h *hold) decided(t *flow.Turn) {
	if h.guard == nil {
		return
	}
	if err := h.guard.Decided(); err != nil {
		t.Note("the child that resumes traffic could not be sent the decision: %v", err)
	}
}

// pointStep sends clients to the opening side and resumes them there, each unit
// of the traffic without waiting for another: one that is dead or frozen keeps
// nobody out but its own clients.
func (h *hold) pointStep() flow.Step {
	units := h.Traffic.Units()
	var does []flow.Effect
	for _, u := range units {
		does = append(append(does, u.Does(traffic.Point, h.Point)...), u.Does(traffic.Resume, h.Point)...)
	}
	return flow.Step{
		ID: "traffic/point", Title: "Send traffic to " + h.Opening.Name + " and resume it there", Done: never,
		Beside: served, Lane: "traffic", Does: does, Blocks: true, Cost: flow.Cost{Base: time.Millisecond, Pooler: 4 * time.Millisecond},
		Do: func(ctx context.Context, t *flow.Turn) error {
			return units.Each(func(u traffic.Switch) error { return h.pointUnit(ctx, t, u) })
		},
	}
}

func (h *hold) pointUnit(ctx context.Context, t *flow.Turn, u traffic.Switch) error {
	if err := traffic.Send(ctx, u, h.Point); err != nil {
		return fmt.Errorf("point it at %s: %w", h.Opening.Name, err)
	}
	h.mu.Lock()
	h.units[u.Name()] = unitState{pointed: true}
	guard := h.guard
	h.mu.Unlock()
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
	h.mu.Lock()
	h.units[u.Name()] = unitState{pointed: true, resumed: true}
	h.mu.Unlock()
	return nil
}

// resumeStep resumes every unit that sends clients to the opening side and that
// traffic/point could not resume: a hook is called once. Those that could not be
// pointed there stay paused: they would send writes to the closed side, which
// refuses them.
func (h *hold) resumeStep() flow.Step {
	units := h.Traffic.Units()
	return flow.Step{
		ID: "traffic/resume", Title: "Resume whatever is still paused", Done: never,
		Beside: served, Lane: "traffic", Does: units.Does(traffic.Resume, h.Point), Blocks: true,
		Cost: flow.Cost{Base: time.Millisecond, Pooler: 2 * time.Millisecond},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			err := units.Each(func(u traffic.Switch) error {
				h.mu.Lock()
				unit := h.units[u.Name()]
				h.mu.Unlock()
				if !unit.pointed || unit.resumed { // step traffic/point names the one, and has done the other
					return nil
				}
				return u.Resume(ctx)
			})
			if err == nil {
				err = h.stopGuard()
			}
			return err
		},
	}
}
