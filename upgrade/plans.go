package upgrade

import (
	"context"
	"time"

	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/forecast"
	"crossfade/upgrade/load"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/transfer"
)

// plans are what an upgrade does, drawn from where a survey shows it.
type plans struct {
	*Upgrade
	s *survey.Survey
}

func (u *Upgrade) plans(s *survey.Survey) plans { return plans{u, s} }

// fill is what prepare does in the phase that the upgrade is in.
func (u plans) fill(ctx context.Context) (flow.Plan, error) {
	s := u.s
	if s.Phase != report.PhaseOpen && s.Phase != report.PhaseRolledBack {
		return u.prepare(ctx)
	}
	follows, err := u.transfer.Follows(ctx, s)
	if err != nil || !follows { // no way back: there is nothing to take anything along to
		return flow.Plan{Name: "prepare", Cluster: string(u.c.Part)}, err
	}
	return u.later(ctx)
}

// prepare is everything up to ready, in the order in which it happens:
// what old remembers, what new is, then rows, then what follows them.
func (u plans) prepare(ctx context.Context) (flow.Plan, error) {
	s := u.s
	p := flow.Plan{Name: "prepare", Cluster: string(u.c.Part), Steps: []flow.Step{u.checkStep()}}
	add := func(steps ...flow.Step) { p.Steps = append(p.Steps, steps...) }
	left, err := u.owners.LeftSteps(ctx, s)
	if err != nil {
		return p, err
	}
	add(left...)
	for _, db := range s.Databases {
		add(u.ground.Step(s, "old", db))
	}
	globals, kept, err := u.transfer.GlobalsStep(ctx, s)
	if err != nil {
		return p, err
	}
	add(globals)
	for _, db := range s.Databases {
		renames, ok, err := u.trust.RenamesStep(ctx, s, db)
		if err != nil {
			return p, err
		}
		if ok {
			add(renames)
		}
	}
	all := make([]transfer.Stages, len(s.Databases))
	for i, db := range s.Databases {
		if all[i], err = u.transfer.Stages(ctx, s, db, nil); err != nil {
			return p, err
		}
		add(all[i].Trial)
		if s.Zero() != nil {
			add(all[i].Changes)
		}
	}
	// Nothing is taken away before both sides are known to be alike.
	trust, ok, err := u.trust.Step(ctx, s)
	if err != nil {
		return p, err
	}
	if ok {
		add(trust)
	}
	during, err := u.ground.DuringSettings(ctx, "old", s.Old.Version)
	if err != nil {
		return p, err
	}
	add(u.ground.SettingsStep("old", s.Old.Version, during))
	spare, err := u.members.SpareSteps(ctx, s)
	if err != nil {
		return p, err
	}
	add(spare...)
	for i, db := range s.Databases {
		stages := all[i]
		add(u.ground.Step(s, "new", db), stages.Before)
		if identity, ok := u.ground.IdentityStep(s, "old", db); ok {
			add(identity)
		}
		add(u.transfer.PublicationsStep(db, db.Links), stages.Copy, stages.After)
		add(stages.Validate...)
		if identity, ok := u.ground.IdentityStep(s, "new", db); ok {
			add(identity)
		}
		add(u.ground.FenceStep("new", db, s.Guarded()), u.transfer.PublicationsStep(db, db.Way), u.transfer.CompareStep(s, db), u.ground.LinkSettingsStep(s, "new", db), u.transfer.SubscribeStep(s, db))
	}
	add(kept)
	for _, db := range s.Databases {
		add(u.transfer.CatchupStep(s, db))
	}
	for _, db := range s.Databases {
		add(u.transfer.StatisticsSteps(s, db)...)
	}
	standbys, err := u.members.StandbySteps(ctx, s)
	if err != nil {
		return p, err
	}
	add(standbys...)
	during, err = u.ground.DuringSettings(ctx, "new", s.New.Version)
	if err != nil {
		return p, err
	}
	add(u.ground.SettingsStep("new", s.New.Version, during))
	if u.rb.Verify.Mode != runbook.VerifyOff {
		for _, db := range s.Databases {
			add(u.transfer.VerifyStep(s, db))
		}
	}
	add(u.ground.ReadyStep(s))
	return p, nil
}

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

// lookBefore is for how long prepare may measure before it begins: half a second for
// each gigabyte, which is a small part of what copying that takes, even where
// most of it lies in TOAST.
func lookBefore(s *survey.Survey) time.Duration {
	var bytes int64
	for _, db := range s.Databases {
		for _, t := range db.Inventory.Tables {
			bytes += t.Bytes
		}
	}
	long := time.Duration(float64(bytes) / (1 << 30) * float64(time.Second/2))
	return min(max(long, 200*time.Millisecond), forecast.DefaultLimit)
}

// PrepareOptions are what the person at the terminal decides.
type PrepareOptions struct {
	Until string // stop after this step; "": run all
}

// Prepare runs the prepare plan: from a new upgrade, or on from where it
// stopped. In phase ready it takes along what was made on old since.
func (u *Upgrade) Prepare(ctx context.Context, o PrepareOptions, observe func(flow.Event)) error {
	if u.parts != nil {
		return u.parts.prepare(ctx, o, observe)
	}
	s, err := survey.Take(ctx, u.c, false)
	if err != nil {
		if s == nil {
			return err
		}
		return u.findings(ctx, err)
	}
	switch s.Phase {
	case report.PhaseNew, report.PhasePreparing, report.PhaseReady:
	case report.PhaseFinished:
		return nil
	case report.PhaseOpen, report.PhaseRolledBack:
		if err := u.mayTake(ctx, s); err != nil {
			return err
		}
	default:
		return exit.WrongPhase(s.Phase, "prepare")
	}
	if s.OldErr != nil || s.NewErr != nil {
		return u.findings(ctx, s.BothAnswer())
	}
	if s.Phase == report.PhaseNew {
		// What check would refuse must be said before a plan is drawn from it.
		if err := u.mustPass(ctx); err != nil {
			return err
		}
	}
	since := u.watchOld(ctx)
	held, release, err := u.c.Hold(ctx, s.Serving().Server.With(s.Home))
	if err != nil {
		return err
	}
	defer release()
	j, err := u.journal().open()
	if err != nil {
		return err
	}
	defer closeQuietly(j)
	if s, err = survey.Take(held, u.c, true); err != nil {
		return err
	}
	if err := s.Evict(held); err != nil {
		return err
	}
	if err := u.endRehearsal(held, s, j, observe); err != nil {
		return err
	}
	p, err := u.plans(s).fill(held)
	if err != nil {
		return err
	}
	if len(p.Steps) == 0 {
		return nil
	}
	if p.Steps, err = until(p.Steps, o.Until); err != nil {
		return err
	}
	// What is expected of each step is journalled when it begins.
	if _, _, err := u.foresee(held, s, []flow.Plan{p}, forecast.Options{Since: since, Limit: lookBefore(s)}); err != nil {
		return err
	}
	return flow.Run(held, p, j, func(e flow.Event) {
		u.running.watch(e)
		observe(e)
	})
}

// until cuts a plan after a step.
func until(steps []flow.Step, id string) ([]flow.Step, error) {
	if id == "" {
		return steps, nil
	}
	for i, s := range steps {
		if s.ID == id {
			return steps[:i+1], nil
		}
	}
	return nil, exit.Errorf(exit.Usage, "crossfade plan --only prepare lists them", "prepare has no step %q", id)
}
