package upgrade

import (
	"context"
	"fmt"

	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"

	"golang.org/x/sync/errgroup"
)

// Planned is the dry run: what was found, and every plan as it would run.
type Planned struct {
	Findings []check.Finding
	// Plans are to be looked at: their steps have nothing to execute them with.
	Plans []flow.Plan
	// Undrawn is why there are no plans although there are findings that say
	// what stands in the way; nil where there are plans.
	Undrawn error
}

// Plan builds the plans of the upgrade as it stands now; only names one of
// them, "" is all. It touches nothing.
func (u *Upgrade) Plan(ctx context.Context, only string) (Planned, error) {
	var p Planned
	o, s, err := u.checkOptions(ctx)
	if err != nil {
		return p, err
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		p.Findings, err = u.judged(ctx, o)
		return err
	})
	var undrawn error
	if s == nil {
		s, undrawn = u.look(ctx, true)
	}
	if undrawn == nil {
		undrawn = s.bothAnswer()
	}
	if undrawn == nil {
		p.Plans, undrawn = u.draw(ctx, s, only)
	}
	if err := g.Wait(); err != nil {
		return p, err
	}
	if undrawn != nil && ctx.Err() == nil && len(check.Blocking(p.Findings)) > 0 {
		p.Undrawn, undrawn = undrawn, nil
	}
	return p, undrawn
}

// draw builds the plans as they would run from where s shows the upgrade.
func (u *Upgrade) draw(ctx context.Context, s *survey, only string) ([]flow.Plan, error) {
	var plans []flow.Plan
	for _, one := range []struct {
		name  string
		build func() (flow.Plan, error)
	}{
		{"prepare", func() (flow.Plan, error) { return u.preparePlan(ctx, s) }},
		{"cutover", func() (flow.Plan, error) { return u.crossingPlan(ctx, s, "cutover") }},
		{"rollback", func() (flow.Plan, error) { return u.crossingPlan(ctx, s, "rollback") }},
		{"rehearse", func() (flow.Plan, error) { return u.rehearsalPlan(ctx, s) }},
		{"finish", func() (flow.Plan, error) { return u.finishPlan(ctx, s, false) }},
		{"abort", func() (flow.Plan, error) { return u.abortPlan(ctx, s) }},
	} {
		// A rehearsal is no part of the way: it is shown when it is asked for.
		if only != one.name && (only != "" || one.name == "rehearse") {
			continue
		}
		plan, err := one.build()
		if err != nil {
			return nil, fmt.Errorf("plan %s: %w", one.name, err)
		}
		plans = append(plans, toLookAt(plan))
	}
	if len(plans) == 0 {
		return nil, exitf(ExitUsage, "it is one of prepare, cutover, rollback, rehearse, finish, abort", "there is no plan %q", only)
	}
	return plans, nil
}

// toLookAt is a plan without what executes it, which holds on to everything
// that was read to draw it.
func toLookAt(p flow.Plan) flow.Plan {
	steps := make([]flow.Step, len(p.Steps))
	for i, s := range p.Steps {
		steps[i] = flow.Step{ID: s.ID, Title: s.Title, Does: s.Does, Commit: s.Commit, Late: s.Late, Serves: s.Serves, Forecast: s.Forecast}
	}
	p.Steps = steps
	return p
}
