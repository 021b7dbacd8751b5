package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
)

// told is what hooks are given of a crossing that runs.
type told struct {
	phase, behind report.Phase // now, and after its point of no return
	crossing      *cutover.Crossing
}

// tell sets what hooks are given from here on.
func (u *Upgrade) tell(t told) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.told = t
}

// hookEnv is what every hook sees beside its step. The fence LSN is the highest
// of all databases: no client's write of the closed side lies after it. It is
// empty until it has been read.
func (u *Upgrade) hookEnv() []string {
	u.mu.Lock()
	now := u.told
	u.mu.Unlock()
	fence := ""
	if now.crossing != nil {
		var highest pg.LSN
		for _, at := range now.crossing.Result().Fence {
			highest = max(highest, at)
		}
		if highest > 0 {
			fence = highest.String()
		}
	}
	return []string{
		"CROSSFADE_UPGRADE=" + u.rb.Upgrade, "CROSSFADE_PHASE=" + string(now.phase),
		"CROSSFADE_OLD=" + u.old.Conninfo(), "CROSSFADE_NEW=" + u.new.Conninfo(), "CROSSFADE_FENCE_LSN=" + fence,
	}
}

// hookSteps are the operator's programs around a crossing.
func (u *Upgrade) hookSteps() (before, after []flow.Step) {
	if h := u.rb.Hooks.BeforeCutover; h != nil {
		before = append(before, u.hookStep("hook/before", "Run the hook before_cutover", h))
	}
	if h := u.rb.Hooks.AfterOpen; h != nil {
		after = append(after, u.hookStep("hook/after", "Run the hook after_open", h))
	}
	return before, after
}

func (u *Upgrade) hookStep(id, title string, h *runbook.Hook) flow.Step {
	return flow.Step{
		ID: id, Title: title, Does: []flow.Effect{{On: "local", Run: h.Run}}, Done: flow.Never, Timeout: h.Timeout + 15*time.Second,
		Late: id == "hook/after",
		Do: func(ctx context.Context, _ *flow.Turn) error {
			ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout, fmt.Errorf("the hook %s took longer than its timeout of %s", h.Run[0], h.Timeout))
			defer cancel()
			err := pg.Local{}.Run(ctx, pg.Cmd{Args: h.Run, Env: append(u.hookEnv(), "CROSSFADE_STEP="+id)})
			if errors.Is(err, exec.ErrWaitDelay) {
				err = nil // what it has started keeps its stderr open; it is done all the same
			}
			if err != nil && id == "hook/before" {
				return &cutover.ErrGate{Closed: []cutover.GateState{{ID: id, Says: err.Error()}}}
			}
			return err
		},
	}
}
