package upgrade

import (
	"context"

	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/load"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/transfer"
)

// What clients make after prepare, they make on the side that serves: old up to
// the cutover, new in phase open, old again in phase rolled_back. prepare takes
// it along to the side that applies: in phase ready by the plan that has made
// everything (plans.prepare), later by plans.later, which touches nothing of the
// fence and of the links that run.

// later takes along what was made on the serving side since a cutover or a
// rollback.
func (u plans) later(ctx context.Context) (flow.Plan, error) {
	s := u.s
	p := flow.Plan{Name: "prepare", Cluster: string(u.c.Part), Steps: []flow.Step{u.owners.FunctionsStep(s)}}
	add := func(steps ...flow.Step) { p.Steps = append(p.Steps, steps...) }
	side := s.Applying().Name
	some := make([]*survey.Database, len(s.Databases))
	for i, db := range s.Databases {
		var err error
		if some[i], err = u.transfer.Taking(ctx, s, db); err != nil {
			return p, err
		}
		add(u.transfer.LaterGroundStep(s, some[i]))
	}
	globals, kept, err := u.transfer.GlobalsStep(ctx, s)
	if err != nil {
		return p, err
	}
	add(globals)
	for i, db := range s.Databases {
		late := some[i]
		stages, err := u.transfer.Stages(ctx, s, db, late)
		if err != nil {
			return p, err
		}
		add(stages.Changes, stages.Before)
		if identity, ok := u.ground.IdentityStep(s, s.Serving().Name, late.Only()); ok {
			add(identity)
		}
		add(u.transfer.PublicationsStep(late, late.Links))
		if len(late.Sets) > 0 {
			add(stages.Copy)
		}
		add(stages.After)
		add(stages.Validate...)
		if identity, ok := u.ground.IdentityStep(s, side, late.Only()); ok {
			add(identity)
		}
		add(u.ground.FenceStep(side, db, false), u.transfer.PublicationsStep(late, late.Way), u.transfer.CompareStep(s, db))
		if len(late.Sets) > 0 {
			add(u.ground.LinkSettingsStep(s, side, db))
			add(u.transfer.SubscribeStep(s, late), u.transfer.CatchupStep(s, late), u.transfer.LaterDoneStep(s, late))
			analyze := load.Analyze(load.Options{New: s.Applying().Server, Database: db.Name, Jobs: u.rb.Copy.Jobs}, late.Tables())
			add(transfer.Facing(side, analyze))
			if u.rb.Verify.Mode != runbook.VerifyOff {
				add(u.transfer.LaterVerifyStep(s, late))
			}
		}
	}
	add(kept)
	return p, nil
}

// mayTake refuses to take anything along while steps of the crossing are still
// to do: the links are theirs.
func (u *Upgrade) mayTake(ctx context.Context, s *survey.Survey) error {
	if err := s.BothAnswer(); err != nil {
		return err
	}
	d := s.Last()
	name := crossingName(d.Direction)
	if !u.crossed(ctx, s, *d) {
		return exit.Errorf(exit.Gate, "crossfade "+name+" goes on with them; then run crossfade prepare", "steps of the %s after open are still to do", name)
	}
	return nil
}
