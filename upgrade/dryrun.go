package upgrade

import (
	"context"
	"fmt"
	"slices"
	"time"

	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/forecast"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"

	"golang.org/x/sync/errgroup"
)

// PlanOptions are what the person at the terminal decides.
type PlanOptions struct {
	Only string // one plan's name; "" is all
	// Sample bounds the sampling for the forecast; 0 is forecast.DefaultLimit,
	// and it ends as soon as there is nothing more to measure.
	Sample time.Duration
}

// Planned is the dry run: what was found, and the rest as report has it.
type Planned struct {
	Findings []check.Finding
	report.DryRun
}

// Plan builds the plans of the upgrade as it stands now, and forecasts them. It
// touches nothing.
func (u *Upgrade) Plan(ctx context.Context, o PlanOptions) (Planned, error) {
	if u.parts != nil {
		return u.parts.plan(ctx, o)
	}
	p := Planned{DryRun: report.DryRun{Upgrade: u.rb.Upgrade, Runbook: u.rb.File, At: time.Now()}}
	want, s, err := u.checkOptions(ctx, true)
	if err != nil {
		return p, err
	}
	var since *forecast.Mark
	asked := s
	if s != nil {
		since = u.watchOld(ctx)
	}
	var g errgroup.Group
	g.Go(func() (err error) {
		p.Findings, err = u.judged(ctx, want, asked)
		return err
	})
	if s == nil {
		s, err = survey.Take(ctx, u.c, true)
	}
	if err == nil {
		err = s.BothAnswer()
	}
	var plans []flow.Plan
	if err == nil {
		plans, err = u.plans(s).draw(ctx, o.Only)
	}
	if err := g.Wait(); err != nil {
		return p, err
	}
	if err != nil {
		if ctx.Err() == nil && len(check.Blocking(p.Findings)) > 0 {
			p.Undrawn, err = err.Error(), nil
		}
		return p, err
	}
	p.Phase = s.Phase
	p.Databases = sizes(s)
	p.Old, p.New = u.members.Topology(ctx, s)
	p.Traffic = trafficSays(u.rb)
	return p, u.forecast(ctx, s, &p, plans, forecast.Options{Limit: o.Sample, Since: since})
}

// forecast measures, when nothing else of the dry run is in the way of it, and
// puts the forecast and what has come of earlier ones beside the steps.
func (u *Upgrade) forecast(ctx context.Context, s *survey.Survey, p *Planned, plans []flow.Plan, o forecast.Options) error {
	f, facts, err := u.foresee(ctx, s, plans, o)
	if err != nil {
		return err
	}
	done := u.journal().ran()
	for _, plan := range plans {
		out := report.PlanOf(plan)
		for i := range out.Steps {
			st := &out.Steps[i]
			if r, ok := done[forecast.StepKey{Plan: st.Plan, ID: st.ID}]; ok && r.ended {
				st.Actual = r.took
				if r.forecast > 0 {
					st.Forecast = r.forecast
				}
			}
		}
		p.Plans = append(p.Plans, out)
	}
	p.Figures = figures(f, facts, done)
	p.Sampled = fmt.Sprintf("measured in %.1f s, in READ ONLY transactions of one session at a time on each server", facts.Window.Seconds())
	if o.Limit <= 0 {
		p.Sampled += "; --sample 30s measures for longer"
	}
	for _, g := range p.Figures {
		if g.Exceeds {
			found := check.Finding{ID: report.ForecastExceeds, Level: check.Warn, On: "old", Object: g.Label(), Says: g.Title + ": " + g.Says, Acceptable: true}
			found.Accepted = u.rb.Accepts(found.ID, found.Object)
			p.Findings = append(p.Findings, found)
		}
	}
	return nil
}

// biggest is how many tables of a database are named with their sizes.
const biggest = 10

// sizes are what is to be copied.
func sizes(s *survey.Survey) []report.Database {
	var out []report.Database
	for _, db := range s.Databases {
		d := report.Database{Name: db.Name, Tables: len(db.Inventory.Tables), Excluded: len(db.Excluded)}
		for _, set := range db.Sets {
			one := report.SetSize{Name: set.Name, Tables: len(set.Tables)}
			for _, t := range set.Tables {
				one.Bytes, one.IndexBytes = one.Bytes+t.Bytes, one.IndexBytes+t.IndexBytes
				d.Biggest = append(d.Biggest, report.TableSize{Name: t.String(), Set: set.Name, Bytes: t.Bytes, IndexBytes: t.IndexBytes, Rows: t.Rows})
			}
			d.Sets = append(d.Sets, one)
		}
		slices.SortStableFunc(d.Biggest, func(a, b report.TableSize) int {
			return int(min(max(b.Bytes+b.IndexBytes-a.Bytes-a.IndexBytes, -1), 1))
		})
		d.Biggest = slices.Clone(d.Biggest[:min(len(d.Biggest), biggest)])
		out = append(out, d)
	}
	return out
}

// draw builds the plans as they would run from where s shows the upgrade.
func (u plans) draw(ctx context.Context, only string) ([]flow.Plan, error) {
	s := u.s
	var plans []flow.Plan
	for _, one := range []struct {
		name  string
		build func() (flow.Plan, error)
	}{
		{"prepare", func() (flow.Plan, error) { return u.fill(ctx) }},
		{"cutover", func() (flow.Plan, error) { return u.crossingPlan(ctx, s, "cutover") }},
		{"rollback", func() (flow.Plan, error) { return u.crossingPlan(ctx, s, "rollback") }},
		{"rehearse", func() (flow.Plan, error) { return u.rehearsalPlan(ctx, s) }},
		{"finish", func() (flow.Plan, error) { return u.finish(ctx, false) }},
		{"abort", func() (flow.Plan, error) { return u.abort(ctx) }},
	} {
		// A rehearsal is no part of the way: it is shown when it is asked for.
		if only != one.name && (only != "" || one.name == "rehearse") {
			continue
		}
		plan, err := one.build()
		if err != nil {
			return nil, fmt.Errorf("plan %s: %w", one.name, err)
		}
		plans = append(plans, plan)
	}
	if len(plans) == 0 {
		return nil, exit.Errorf(exit.Usage, "it is one of prepare, cutover, rollback, rehearse, finish, abort", "there is no plan %q", only)
	}
	return plans, nil
}
