package upgrade

import (
	"context"
	"errors"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"
)

// FinishOptions are what the person at the terminal decides.
type FinishOptions struct {
	ReopenOld bool // old takes writes again: a cluster of its own from now on
}

// Leftovers is what a plan that cleans up has left, as seen on the servers.
type Leftovers struct {
	Lines []string // one a server: what is left there
	Lift  []string // statements that would lift the fence that stays on old
}

// Finish gives the way back up and cleans both sides. Old keeps refusing
// writes, unless o says otherwise.
func (u *Upgrade) Finish(ctx context.Context, o FinishOptions, observe func(flow.Event)) (Leftovers, error) {
	if u.parts != nil {
		return u.parts.clean(ctx, "finish", func(p *Upgrade) (Leftovers, error) { return p.Finish(ctx, o, p.Telling(observe)) })
	}
	s, err := survey.Take(ctx, u.c, false)
	if err != nil {
		return Leftovers{}, err
	}
	if s.Phase == report.PhaseFinished && (!o.ReopenOld || s.GaveNewUp()) {
		return u.leftovers(ctx, s, !s.GaveNewUp())
	}
	if s.Phase != report.PhaseOpen && s.Phase != report.PhaseRolledBack && s.Phase != report.PhaseFinished {
		if s.Phase == report.PhaseNew && u.journal().says("finish") {
			return u.leftovers(ctx, s, false)
		}
		return Leftovers{}, exit.WrongPhase(s.Phase, "finish")
	}
	gone := s.Phase == report.PhaseOpen || s.Phase == report.PhaseFinished
	err = u.cleanUp(ctx, s, observe, func(ctx context.Context, s *survey.Survey) (flow.Plan, error) {
		if last := s.Incomplete(); last != nil {
			command := crossingName(last.Direction)
			return flow.Plan{}, exit.Errorf(exit.Gate, "run crossfade "+command+" again, then crossfade finish", "the last %s is not complete: it has steps that are still to do after open; nothing was changed", command)
		}
		return u.plans(s).finish(ctx, o.ReopenOld)
	})
	if err != nil {
		return Leftovers{}, err
	}
	return u.leftovers(ctx, s, gone && !o.ReopenOld)
}

// Abort takes everything back before open.
func (u *Upgrade) Abort(ctx context.Context, observe func(flow.Event)) (Leftovers, error) {
	if u.parts != nil {
		return u.parts.clean(ctx, "abort", func(p *Upgrade) (Leftovers, error) { return p.Abort(ctx, p.Telling(observe)) })
	}
	s, err := survey.Take(ctx, u.c, false)
	if err != nil {
		return Leftovers{}, err
	}
	switch s.Phase {
	case report.PhaseNew:
		return u.leftovers(ctx, s, false)
	case report.PhasePreparing, report.PhaseReady, report.PhaseRolledBack:
	case report.PhaseCutover:
		if d := s.Last(); d.Direction == cutover.Back {
			return Leftovers{}, exit.Refused("crossfade rollback", "a rollback was cut off before open")
		}
		if err := u.undoCutOff(ctx, s, observe); err != nil {
			return Leftovers{}, err
		}
	default:
		return Leftovers{}, exit.WrongPhase(s.Phase, "abort")
	}
	err = u.cleanUp(ctx, s, observe, func(ctx context.Context, s *survey.Survey) (flow.Plan, error) { return u.plans(s).abort(ctx) })
	if err != nil {
		return Leftovers{}, err
	}
	return u.leftovers(ctx, s, false)
}

// undoCutOff undoes a cutover that was cut off before open: service first.
func (u *Upgrade) undoCutOff(ctx context.Context, s *survey.Survey, observe func(flow.Event)) error {
	held, release, err := u.c.Hold(ctx, u.c.Old.With(s.Home))
	if err != nil {
		return err
	}
	defer release()
	if s, err = survey.Take(held, u.c, true); err != nil {
		return err
	}
	d := s.Last()
	if d == nil || d.State == cutover.Open {
		return nil
	}
	if err := s.Evict(held); err != nil {
		return err
	}
	c, err := u.config(held, s, cutover.Forward)
	if err != nil {
		return err
	}
	x := cutover.Earlier(c, *d)
	defer x.Close()
	x.Plan.Cluster = string(u.c.Part)
	return flow.Undo(held, x.Plan, nil, observe)
}

// cleanUp runs a plan that ends an upgrade, under the hold.
func (u *Upgrade) cleanUp(ctx context.Context, s *survey.Survey, observe func(flow.Event), build func(context.Context, *survey.Survey) (flow.Plan, error)) error {
	server := u.c.Old
	if s.OldErr != nil {
		server = u.c.New
	}
	held, release, err := u.c.Hold(ctx, server.With(s.Home))
	if err != nil {
		return err
	}
	defer release()
	if s, err = survey.Take(held, u.c, true); err != nil {
		return err
	}
	if err := s.Evict(held); err != nil {
		return err
	}
	j, err := u.journal().open()
	if err != nil {
		return err
	}
	defer closeQuietly(j)
	// What it made on a new that does not answer is the plan's own to leave.
	if err := u.endRehearsal(held, s, j, observe); err != nil && s.NewErr == nil {
		return err
	}
	p, err := build(held, s)
	if err != nil {
		return err
	}
	p.Attempt, p.Cluster = s.Attempt(), string(u.c.Part)
	return flow.Run(held, p, j, func(e flow.Event) {
		u.running.watch(e)
		observe(e)
	})
}

// finish ends an upgrade. In phase open new keeps serving and old stays
// closed; after a rollback old keeps serving and new is given up.
func (u plans) finish(ctx context.Context, reopen bool) (flow.Plan, error) {
	s := u.s
	p := flow.Plan{Name: "finish"}
	p.Steps = []flow.Step{
		u.ground.DropLinksStep("back/drop", "End the possibility of rollback", s, ground.BackLinks),
		u.ground.DropLinksStep("forward/drop", "Drop what is left of the links from old to new", s, ground.ForwardLinks),
		u.ground.SettingsBackStep(s, "old"), u.ground.SettingsBackStep(s, "new"), u.ground.IdentityBackStep(s),
	}
	around, err := u.outside(ctx, u.members.ForgetStandbys)
	if err != nil {
		return p, err
	}
	p.Steps = append(p.Steps, around...)
	if s.Phase == report.PhaseRolledBack {
		// Old serves. New is given up: its fence stays, as old's would.
		p.Steps = append(p.Steps, u.ground.UnfenceStep(s, "old"), u.ground.DropStep(s, "old"), u.ground.SlimStep(s, "new"))
		return p, nil
	}
	if s.Phase == report.PhaseOpen {
		p.Steps = append(p.Steps, u.ground.RestoreTriggersStep(s))
	}
	p.Steps = append(p.Steps, u.ground.UnfenceStep(s, "new"), u.ground.DropStep(s, "new"))
	if reopen {
		p.Steps = append(p.Steps, u.ground.UnfenceStep(s, "old"), u.ground.DropStep(s, "old"))
		return p, nil
	}
	p.Steps = append(p.Steps, u.ground.SlimStep(s, "old"))
	return p, nil
}

// outside are the steps that end what the upgrade has outside its databases: managers that were
// paused, standbys, scratch databases.
func (u plans) outside(ctx context.Context, standbys func(context.Context, *survey.Survey) ([]flow.Step, error)) ([]flow.Step, error) {
	s := u.s
	let, err := u.members.LetGoSteps(ctx, s, true)
	if err != nil {
		return nil, err
	}
	theirs, err := standbys(ctx, s)
	if err != nil {
		return nil, err
	}
	scratch, err := u.scratch.Steps(ctx, s)
	if err != nil {
		return nil, err
	}
	roles, err := u.owners.LeftSteps(ctx, s)
	return slices.Concat(let, theirs, scratch, roles), err
}

// abort takes everything back: old is as it was, and new has nothing of
// this upgrade, where it made a database not even that.
func (u plans) abort(ctx context.Context) (flow.Plan, error) {
	s := u.s
	p := flow.Plan{Name: "abort"}
	p.Steps = []flow.Step{
		u.ground.DropLinksStep("forward/drop", "Drop the links from old to new", s, ground.ForwardLinks),
		u.ground.DropLinksStep("back/drop", "Drop the links back", s, ground.BackLinks),
	}
	around, err := u.outside(ctx, u.members.RemoveStandbys)
	if err != nil {
		return p, err
	}
	p.Steps = append(p.Steps, around...)
	unmake, err := u.ground.UnmakeStep(ctx, s)
	if err != nil {
		return p, err
	}
	p.Steps = append(p.Steps,
		u.ground.SettingsBackStep(s, "old"), u.ground.SettingsBackStep(s, "new"), u.ground.IdentityBackStep(s),
		// What this upgrade made on new goes while it is closed: nobody may
		// write there and see his rows go with the database.
		unmake, u.ground.UnfenceStep(s, "new"), u.ground.UnfenceStep(s, "old"), u.ground.DropStep(s, "new"), u.ground.DropStep(s, "old"))
	return p, nil
}

// leftovers looks at every database of every server for what is the tool's.
func (u *Upgrade) leftovers(ctx context.Context, s *survey.Survey, closed bool) (Leftovers, error) {
	var out Leftovers
	for _, side := range []string{"old", "new"} {
		if err := s.Silent(side); err != nil {
			out.Lines = append(out.Lines, side+" does not answer: what is there is not known")
			continue
		}
		found, err := u.ground.Left(ctx, s, side)
		if err != nil {
			return out, err
		}
		if side == "new" && !closed {
			stays, err := u.ground.Unmade(ctx, s)
			if err != nil {
				return out, err
			}
			if len(stays) > 0 {
				out.Lines = append(out.Lines, "new: made by this upgrade and still there, because something that it did not make needs it: "+strings.Join(stays, ", "))
				if len(found) == 0 {
					continue
				}
			}
		}
		switch {
		case len(found) == 0:
			out.Lines = append(out.Lines, side+": nothing of this upgrade is left")
		default:
			out.Lines = append(out.Lines, side+": "+strings.Join(found, ", "))
		}
		if len(found) > 0 && !(closed && side == "old") && !((s.Phase == report.PhaseRolledBack || s.GaveNewUp()) && side == "new") {
			return out, errors.New("something is left: " + strings.Join(out.Lines, "; "))
		}
	}
	out.Lines = append(out.Lines, u.members.PlacesTaken(ctx, s)...)
	if closed {
		for _, db := range s.Databases {
			out.Lift = append(out.Lift, "\\c "+db.Name, u.ground.Lift(s, "old", db.Name)+";", "DROP SCHEMA crossfade CASCADE;")
		}
	}
	return out, nil
}
