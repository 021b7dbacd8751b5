package upgrade

import (
	"context"
	"fmt"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"
)

// Preview says, for the person who is asked for the upgrade's name, what
// cutover, rollback, finish or abort will do from where the upgrade stands. A
// plan in the wrong phase is an error, so is one outside its window as o has it;
// one whose work is done has no lines.
func (u *Upgrade) Preview(ctx context.Context, plan string, o CutoverOptions) ([]string, error) {
	if u.parts != nil {
		return u.parts.preview(ctx, plan, o)
	}
	s, err := survey.Take(ctx, u.c, false)
	if err != nil && (s == nil || s.Phase == "") {
		return nil, err
	}
	if done, err := u.timely(ctx, s, plan); done || err != nil {
		return nil, err
	}
	if windowed(s, plan) {
		if err := u.consent().outside(o); err != nil {
			return nil, err
		}
	}
	names := make([]string, len(s.Databases))
	for i, db := range s.Databases {
		names[i] = db.Name
	}
	dbs := strings.Join(names, ", ")
	cut := u.rb.Cutover
	crossing := func(from, to *pg.Server) []string {
		lines := []string{
			fmt.Sprintf("this will close %s and open %s for writes in: %s", from, to, dbs),
			fmt.Sprintf("writers will wait at most %s per attempt; if it takes longer, everything is undone", cut.MaxBlocked),
			fmt.Sprintf("%d poolers or hooks will send clients to %s", len(cut.Traffic), to.Name),
		}
		if len(cut.Traffic) == 0 {
			lines[2] = "crossfade will send no traffic: clients will find " + to.Name + " by themselves"
		}
		if cut.Back {
			return append(lines, fmt.Sprintf("%s will follow %s, so that the way back stays open", from.Name, to.Name))
		}
		return append(lines, "back: false: there will be no way back after open")
	}
	switch plan {
	case "rehearse", "rehearse --with-traffic":
		return u.previewRehearsal(dbs, plan != "rehearse"), nil
	case "cutover":
		lines := crossing(u.c.Old, u.c.New)
		if names := u.rb.New[0].Successors(); len(names) > 0 {
			lines = append(lines, fmt.Sprintf("after open the old cluster's standbys %s will be stopped, one level after the other, and new ones built in their places: old, and a rollback, will be without them", strings.Join(names, ", ")))
		}
		return lines, nil
	case "rollback":
		lines := crossing(u.c.New, u.c.Old)
		if names := u.rb.New[0].Successors(); len(names) > 0 {
			lines = append(lines, fmt.Sprintf("old will open without its standbys whose places the new cluster's have taken: %s", strings.Join(names, ", ")))
		}
		return lines, nil
	case "rollback --without-new":
		return []string{
			fmt.Sprintf("this will give up %s for good: what was written there and has not reached %s will be lost", u.c.New, u.c.Old),
			fmt.Sprintf("it will open %s for writes in: %s", u.c.Old, dbs),
		}, nil
	case "finish":
		if s.Phase == report.PhaseRolledBack {
			return []string{fmt.Sprintf("this will give up %s; %s will serve alone, with nothing of this upgrade left on it", u.c.New, u.c.Old)}, nil
		}
		return []string{
			fmt.Sprintf("this will end the possibility of a rollback to %s for good", u.c.Old),
			fmt.Sprintf("%s will go on serving, with nothing of this upgrade left on it", u.c.New),
			fmt.Sprintf("%s will stay closed, unless --reopen-old is given", u.c.Old),
		}, nil
	}
	lines := []string{fmt.Sprintf("this will remove everything that this upgrade made on %s and %s; %s will be as it was", u.c.Old, u.c.New, u.c.Old)}
	if z := s.Zero(); z != nil && len(z.Made) > 0 {
		lines = append(lines, "it will drop on new, because this upgrade made them: "+strings.Join(z.Made, ", "))
	}
	return lines, nil
}

// windowed reports whether a plan keeps to the window, from where the upgrade
// stands. What is to be completed after open does not, nor what was cut off when
// one side was closed already: nobody takes writes until it goes on.
func windowed(s *survey.Survey, plan string) bool {
	switch plan {
	case "cutover":
		return s.Phase == report.PhaseReady || s.Phase == report.PhaseRolledBack || s.Phase == report.PhaseCutover && !s.Closed()
	case "rollback":
		return s.Phase == report.PhaseOpen || s.Phase == report.PhaseCutover && !s.Closed()
	}
	return strings.HasPrefix(plan, "rehearse")
}

// timely refuses a plan that is not for the phase, and reports one that is done.
func (u *Upgrade) timely(ctx context.Context, s *survey.Survey, plan string) (done bool, err error) {
	switch plan {
	case "cutover", "rollback":
		dir := cutover.Forward
		if plan == "rollback" {
			dir = cutover.Back
		}
		may, behind := begins(dir, s.Phase)
		switch d := s.Last(); {
		case may || s.Phase == report.PhaseCutover && d.Direction == dir:
			return false, nil
		case behind:
			return d == nil || u.crossed(ctx, s, *d), nil
		}
	case "rehearse", "rehearse --with-traffic":
		if s.Phase == report.PhaseReady {
			return false, nil
		}
		plan = "rehearse"
	case "finish":
		if s.Phase == report.PhaseOpen || s.Phase == report.PhaseRolledBack || s.Phase == report.PhaseFinished {
			return false, nil
		}
		if s.Phase == report.PhaseNew && u.journal().says("finish") {
			return true, nil
		}
	case "abort":
		switch s.Phase {
		case report.PhaseNew:
			return true, nil
		case report.PhasePreparing, report.PhaseReady, report.PhaseCutover, report.PhaseRolledBack:
			return false, nil
		}
	default:
		return false, nil
	}
	return false, exit.WrongPhase(s.Phase, plan)
}
