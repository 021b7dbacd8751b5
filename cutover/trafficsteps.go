package cutover

import (
	"context"
	"fmt"

	"crossfade/cutover/traffic"
	"crossfade/upgrade/flow"
)

func (x *crossing) trafficPrepare() flow.Step {
	return flow.Step{
		ID: "traffic/prepare", Title: "Prove that traffic can be sent to " + x.Opening.Name, Done: never,
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

func (x *crossing) trafficPause() flow.Step {
	return flow.Step{
		ID: "traffic/pause", Title: "Look a last time, and hold clients in the pooler", Done: never, Serves: true,
		Does: append(x.meetEffects(), x.Traffic.Does(traffic.Pause, x.Point)...), Undoes: x.Traffic.Does(traffic.Resume, x.Point),
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := x.mayBegin(ctx, t); err != nil {
				return err
			}
			x.mu.Lock()
			clear(x.fence) // that of an attempt that was undone tells nothing of this one
			x.mu.Unlock()
			if err := x.meet(ctx, t); err != nil {
				return err
			}
			// With many tables that takes a while, in which others have begun.
			if err := x.mayBegin(ctx, t); err != nil {
				return err
			}
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
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			if len(x.Traffic) == 0 {
				return nil
			}
			err := x.Traffic.Resume(ctx)
			if err == nil {
				err = x.stopGuard()
			}
			return err
		},
	}
}

func (x *crossing) stopGuard() error {
	if x.guard == nil {
		return nil
	}
	g := x.guard
	x.guard = nil
	return g.Stop()
}

func (x *crossing) trafficPoint() flow.Step {
	return flow.Step{
		ID: "traffic/point", Title: "Send traffic to " + x.Opening.Name, Done: never,
		Does: x.Traffic.Does(traffic.Point, x.Point),
		Do: func(ctx context.Context, t *flow.Turn) error {
			err := x.Traffic.Point(ctx, x.Point)
			if err != nil && x.Traffic.Prepare(ctx, x.Point) == nil {
				// An earlier run prepared it, and what it prepared is gone.
				err = x.Traffic.Point(ctx, x.Point)
			}
			if err == nil && x.guard != nil {
				if perr := x.guard.Pointed(); perr != nil {
					t.Note("the child that resumes traffic could not be told where clients go now: %v", perr)
				}
			}
			return err
		},
	}
}

func (x *crossing) trafficResume() flow.Step {
	return flow.Step{
		ID: "traffic/resume", Title: "Let clients go on", Done: never,
		Does: x.Traffic.Does(traffic.Resume, x.Point),
		Do: func(ctx context.Context, _ *flow.Turn) error {
			err := x.Traffic.Resume(ctx)
			if err == nil {
				err = x.stopGuard()
			}
			return err
		},
	}
}
