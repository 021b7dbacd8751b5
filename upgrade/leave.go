package upgrade

import (
	"context"
	"fmt"
	"time"

	"crossfade/cutover"
	"crossfade/cutover/traffic"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// withoutNew opens old because new is gone for good. What the back links had
// applied is what there is; it says up to which position and time.
func (u *Upgrade) withoutNew(ctx context.Context, o CutoverOptions, observe func(flow.Event)) (*report.Cutover, error) {
	s, err := survey.Take(ctx, u.c, false)
	if err != nil && (s == nil || s.OldErr != nil) {
		return nil, err
	}
	opened := s.Phase == report.PhaseRolledBack
	switch {
	case s.OldErr != nil:
		return nil, s.OldErr
	case opened && s.Last().Done:
		return nil, nil
	case !opened && s.Phase != report.PhaseOpen && !(s.Phase == report.PhaseCutover && s.Last().Direction == cutover.Back):
		return nil, exit.WrongPhase(s.Phase, "rollback --without-new")
	case s.NewErr == nil && !s.New.Identity.InRecovery:
		return nil, exit.Refused("use rollback, which loses nothing", "new answers: it is not gone")
	case !o.Approved:
		return nil, exit.Refused("type the upgrade's name when asked, or give --yes", "not approved")
	}
	held, release, err := u.c.Hold(ctx, u.c.Old.With(s.Home))
	if err != nil {
		return nil, err
	}
	defer release()
	if s, err = survey.Take(held, u.c, false); err != nil && (s == nil || s.OldErr != nil) {
		return nil, err
	}
	s.OnlyOld = true
	if err := s.ReadTables(held); err != nil {
		return nil, err
	}
	j, err := u.journal().open()
	if err != nil {
		return nil, err
	}
	defer closeQuietly(j)
	began := time.Now()
	u.running.is(underWay{phase: s.Phase, opened: report.PhaseRolledBack})
	p, err := u.plans(s).withoutNew(held)
	if err != nil {
		return nil, err
	}
	p.Cluster = string(u.c.Part)
	err = flow.Run(held, p, j, func(e flow.Event) {
		u.running.watch(e)
		observe(e)
	})
	return &report.Cutover{BlockedSeconds: time.Since(began).Seconds(), RefusedWrites: -1}, err
}

// withoutNew opens old; where it has been opened, it does what is left.
func (u plans) withoutNew(ctx context.Context) (flow.Plan, error) {
	s := u.s
	let, err := u.members.LetGoSteps(ctx, s, false)
	if err != nil {
		return flow.Plan{}, err
	}
	opened := s.Phase == report.PhaseRolledBack
	attempt := s.Attempt()
	if !opened {
		attempt++
	}
	ifOpened := func(context.Context) (bool, error) { return opened, nil }
	var drop, open []flow.Effect
	for i := len(s.Databases) - 1; i >= 0; i-- {
		db := s.Databases[i]
		for _, l := range db.Way {
			drop = append(drop, l.DropSubscription()...)
		}
		sql := u.c.Part.Lowered() + ";\n" + u.ground.Opened(s, "old", db.Name)
		// They are disabled on old, which follows: what they were is remembered.
		if d := s.Last(); d != nil {
			for _, q := range d.RestoreTriggers[db.Name] {
				sql += ";\n" + q
			}
		}
		if db.Name == s.Home {
			sql += fmt.Sprintf(u.c.Part.Own(";\nINSERT INTO crossfade.upgrade (attempt, upgrade, direction, state) VALUES (%d, %s, 'back', 'open')"), attempt, pg.Literal(u.rb.Upgrade))
		}
		open = append(open, flow.SQL("old", db.Name, sql))
	}
	switches, serr := u.switches("old")
	ahead := u.transfer.AheadStep(s)
	ahead.Done = ifOpened
	steps := []flow.Step{
		{
			ID: "without-new/known", Title: "Report how far old has what was written on new", Done: flow.Never,
			Do: func(ctx context.Context, t *flow.Turn) error { return u.reportKnown(ctx, t) },
		},
		{
			ID: "back/drop", Title: "End the links from new", Does: drop, Done: flow.Never,
			Do: func(ctx context.Context, _ *flow.Turn) error {
				for _, db := range s.Databases {
					err := u.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error { return cutover.DropLinks(ctx, nil, conn, db.Way) })
					if err != nil {
						return err
					}
				}
				return nil
			},
		},
		ahead,
		{ID: "open", Title: "Open old", Does: open, Commit: true, Done: ifOpened, Do: u.c.Exec(open, nil)},
		{
			ID: "traffic/point", Title: "Send traffic to old", Done: flow.Never,
			Do: func(ctx context.Context, _ *flow.Turn) error {
				if serr != nil {
					return serr
				}
				return switches.Units().Each(func(unit traffic.Switch) error {
					if err := traffic.Send(ctx, unit, u.c.Old); err != nil {
						return err
					}
					return unit.Resume(ctx)
				})
			},
		},
		u.ground.UnfenceStep(s, "old"),
	}
	_, after := u.running.steps(u.c)
	done := []flow.Effect{flow.SQL("old", s.Home, u.c.Part.DoneDecision()).Fill(map[string]string{"attempt": fmt.Sprint(attempt)})}
	steps = append(append(steps, let...), after...)
	last := flow.Step{ID: "done", Title: cutover.DoneTitle, Does: done, Done: flow.Never, Do: u.c.Exec(done, nil)}
	for _, st := range steps {
		last.Needs = append(last.Needs, st.ID)
	}
	return flow.Plan{Name: "rollback", Attempt: attempt, Steps: append(steps, last), Committed: opened}, nil
}

// reportKnown says up to which position and time each back link was applied.
func (u plans) reportKnown(ctx context.Context, t *flow.Turn) error {
	s := u.s
	for _, db := range s.Databases {
		err := u.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error {
			at, err := link.Positions(ctx, nil, conn, db.Way)
			if err != nil {
				return err
			}
			for _, l := range db.Way {
				var when time.Time
				if err := conn.QueryRow(ctx, "SELECT at FROM "+link.Canary(l.Set)).Scan(&when); err != nil {
					return &pg.Error{Doing: "read the canary of set " + l.Set, On: u.c.Old.String(), Err: err}
				}
				p := at[l.Name]
				if p.Origin == nil {
					t.Note("set %s of %s: nothing that was written on new has reached old; its last canary is of %s", l.Set, db.Name, when.Format(time.RFC3339))
					continue
				}
				t.Note("set %s of %s: old has what was written on new up to LSN %s of new; its last canary is of %s", l.Set, db.Name, *p.Origin, when.Format(time.RFC3339))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
