package upgrade

import (
	"context"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/forecast"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
)

// lockPause is how long writers go on undisturbed between two tries to have a
// strong lock on a table.
const lockPause = 300 * time.Millisecond

// fillPlan is what prepare does in the phase that the upgrade is in.
func (u *Upgrade) fillPlan(ctx context.Context, s *survey) (flow.Plan, error) {
	if s.phase != report.PhaseOpen && s.phase != report.PhaseRolledBack {
		return u.preparePlan(ctx, s)
	}
	follows, err := u.follows(ctx, s)
	if err != nil || !follows { // no way back: there is nothing to take anything along to
		return flow.Plan{Name: "prepare", Cluster: string(u.part)}, err
	}
	return u.laterPlan(ctx, s)
}

// preparePlan is everything up to ready, in the order in which it happens:
// what old remembers, what new is, then rows, then what follows them.
func (u *Upgrade) preparePlan(ctx context.Context, s *survey) (flow.Plan, error) {
	p := flow.Plan{Name: "prepare", Cluster: string(u.part), Steps: []flow.Step{u.checkStep()}}
	add := func(steps ...flow.Step) { p.Steps = append(p.Steps, steps...) }
	left, err := u.loginSteps(ctx, s)
	if err != nil {
		return p, err
	}
	add(left...)
	for _, db := range s.databases {
		add(u.groundStep(s, "old", db))
	}
	globals, kept, err := u.globalsStep(ctx, s)
	if err != nil {
		return p, err
	}
	add(globals)
	for _, db := range s.databases {
		renames, ok, err := u.renamesStep(ctx, s, db)
		if err != nil {
			return p, err
		}
		if ok {
			add(renames)
		}
	}
	all := make([]stages, len(s.databases))
	for i, db := range s.databases {
		if all[i], err = u.schemaStages(ctx, s, db); err != nil {
			return p, err
		}
		add(all[i].trial)
		if s.zero() != nil {
			add(all[i].changes)
		}
	}
	// Nothing is taken away before both sides are known to be alike.
	trust, ok, err := u.trustStep(ctx, s)
	if err != nil {
		return p, err
	}
	if ok {
		add(trust)
	}
	during, err := u.duringSettings(ctx, "old", s.old.Version)
	if err != nil {
		return p, err
	}
	add(u.settingStep("old", s.old.Version, during))
	spare, err := u.spareSteps(ctx, s)
	if err != nil {
		return p, err
	}
	add(spare...)
	for i, db := range s.databases {
		stages := all[i]
		add(u.groundStep(s, "new", db), stages.before)
		if identity, ok := u.identityStep(s, "old", db); ok {
			add(identity)
		}
		add(u.publicationsStep(db, db.links), stages.copy, stages.after)
		add(stages.validate...)
		if identity, ok := u.identityStep(s, "new", db); ok {
			add(identity)
		}
		add(u.fenceStep(s, "new", db, s.guarded()), u.publicationsStep(db, db.way), u.compareStep(s, db), u.linkSettingsStep(s, "new", db), u.subscribeStep(s, db))
	}
	add(kept)
	for _, db := range s.databases {
		add(u.catchupStep(s, db))
	}
	for _, db := range s.databases {
		add(u.statisticsSteps(s, db)...)
	}
	standbys, err := u.standbySteps(ctx, s)
	if err != nil {
		return p, err
	}
	add(standbys...)
	during, err = u.duringSettings(ctx, "new", s.new.Version)
	if err != nil {
		return p, err
	}
	add(u.settingStep("new", s.new.Version, during))
	if u.rb.Verify.Mode != runbook.VerifyOff {
		for _, db := range s.databases {
			add(u.verifyStep(s, db))
		}
	}
	add(u.readyStep(s))
	return p, nil
}

// lookBefore is for how long prepare may measure before it begins: half a second for
// each gigabyte, which is a small part of what copying that takes, even where
// most of it lies in TOAST.
func (s *survey) lookBefore() time.Duration {
	var bytes int64
	for _, db := range s.databases {
		for _, t := range db.inventory.Tables {
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
		return u.prepareParts(ctx, o, observe)
	}
	s, err := u.look(ctx, false)
	if err != nil {
		if s == nil {
			return err
		}
		return u.findings(ctx, err)
	}
	switch s.phase {
	case report.PhaseNew, report.PhasePreparing, report.PhaseReady:
	case report.PhaseFinished:
		return nil
	case report.PhaseOpen, report.PhaseRolledBack:
		if err := u.mayTake(ctx, s); err != nil {
			return err
		}
	default:
		return wrongPhase(s.phase, "prepare")
	}
	if s.oldErr != nil || s.newErr != nil {
		return u.findings(ctx, s.bothAnswer())
	}
	if s.phase == report.PhaseNew {
		// What check would refuse must be said before a plan is drawn from it.
		if err := u.mustPass(ctx); err != nil {
			return err
		}
	}
	since := u.watchOld(ctx)
	held, release, err := u.hold(ctx, s.serving().Server.With(s.home))
	if err != nil {
		return err
	}
	defer release()
	j, err := u.openJournal()
	if err != nil {
		return err
	}
	defer closeQuietly(j)
	if s, err = u.look(held, true); err != nil {
		return err
	}
	if err := u.evict(held, s); err != nil {
		return err
	}
	if err := u.endRehearsal(held, s, j, observe); err != nil {
		return err
	}
	p, err := u.fillPlan(held, s)
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
	if _, _, err := u.foresee(held, s, []flow.Plan{p}, forecast.Options{Since: since, Limit: s.lookBefore()}); err != nil {
		return err
	}
	return flow.Run(held, p, j, func(e flow.Event) {
		u.watch(e)
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
	return nil, exitf(ExitUsage, "crossfade plan --only prepare lists them", "prepare has no step %q", id)
}
