package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
)

// running is the crossing that this process is at work on, as hooks are given it.
type running struct {
	mu  sync.Mutex
	now underWay
}

// underWay is how far a crossing is.
type underWay struct {
	phase, opened report.Phase // now, and after its point of no return
	crossing      *cutover.Crossing
}

// is sets what hooks are given from here on.
func (r *running) is(now underWay) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = now
}

// watch sees the point of no return pass.
func (r *running) watch(e flow.Event) {
	if e.Commits && e.Kind == flow.End {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.now.phase = r.now.opened
	}
}

// env is what every hook sees beside its step. The fence LSN is the highest of all
// databases: no client's write of the closed side lies after it. It is empty until
// it has been read.
func (r *running) env(c *clusters.Clusters) []string {
	r.mu.Lock()
	now := r.now
	r.mu.Unlock()
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
		"CROSSFADE_UPGRADE=" + c.Book.Upgrade, "CROSSFADE_PHASE=" + string(now.phase),
		"CROSSFADE_OLD=" + c.Old.Conninfo(), "CROSSFADE_NEW=" + c.New.Conninfo(), "CROSSFADE_FENCE_LSN=" + fence,
	}
}

// hookEnv is running.env, now.
func (u *Upgrade) hookEnv() []string { return u.running.env(u.c) }

// steps are the operator's programs around a crossing.
func (r *running) steps(c *clusters.Clusters) (before, after []flow.Step) {
	if h := c.Book.Hooks.BeforeCutover; h != nil {
		before = append(before, r.step(c, "hook/before", "Run the hook before_cutover", h))
	}
	if h := c.Book.Hooks.AfterOpen; h != nil {
		after = append(after, r.step(c, "hook/after", "Run the hook after_open", h))
	}
	return before, after
}

func (r *running) step(c *clusters.Clusters, id, title string, h *runbook.Hook) flow.Step {
	return flow.Step{
		ID: id, Title: title, Does: []flow.Effect{{On: "local", Run: h.Run}}, Done: flow.Never, Timeout: h.Timeout + 15*time.Second,
		Late: id == "hook/after",
		Do: func(ctx context.Context, _ *flow.Turn) error {
			ctx, cancel := context.WithTimeoutCause(ctx, h.Timeout, fmt.Errorf("the hook %s took longer than its timeout of %s", h.Run[0], h.Timeout))
			defer cancel()
			err := pg.Local{}.Run(ctx, pg.Cmd{Args: h.Run, Env: append(r.env(c), "CROSSFADE_STEP="+id)})
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
