package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
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
		return u.finishPlan(ctx, s, o.ReopenOld)
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
	err = u.cleanUp(ctx, s, observe, u.abortPlan)
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

// dropLinksStep takes links away on both sides, whatever of them is there.
func (u *Upgrade) dropLinksStep(id, title string, s *survey.Survey, pick func(*survey.Database) []link.Link) flow.Step {
	var does []flow.Effect
	for _, db := range s.Databases {
		for _, l := range pick(db) {
			does = append(does, l.DropSubscription()...)
			does = append(does, l.DropSlot(), l.DropPublication())
		}
	}
	return flow.Step{
		ID: id, Title: title, Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			for _, db := range s.Databases {
				if err := u.dropLinks(ctx, t, s, db.Name, pick(db)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (u *Upgrade) dropLinks(ctx context.Context, t *flow.Turn, s *survey.Survey, db string, links []link.Link) error {
	if len(links) == 0 {
		return nil
	}
	from, to := links[0].From.Side, links[0].To.Side
	part := func(side string, f func(conn *pgx.Conn) error) error {
		if err := s.Silent(side); err != nil {
			t.Note("%s does not answer: what is there stays (%v)", side, err)
			return nil
		}
		err := u.c.In(ctx, side, db, f)
		if pg.SQLState(err) == "3D000" {
			return nil
		}
		return err
	}
	if err := part(to, func(conn *pgx.Conn) error { return cutover.DropLinks(ctx, nil, conn, links) }); err != nil {
		return err
	}
	return part(from, func(conn *pgx.Conn) error {
		if err := cutover.DropLinks(ctx, conn, nil, links); err != nil {
			return err
		}
		for _, l := range links {
			if err := pg.Exec(ctx, conn, l.DropPublication().SQL); err != nil {
				return &pg.Error{Doing: "drop publication " + l.Name, On: l.From.Server.String(), Err: err}
			}
		}
		return nil
	})
}

// unfenceStep takes the fence off every table of one side.
func (u *Upgrade) unfenceStep(s *survey.Survey, side string) flow.Step {
	var does []flow.Effect
	for _, db := range s.Databases {
		does = append(does, flow.SQL(side, db.Name, u.c.Part.Lowered()))
		for _, q := range u.c.Part.Unguard() {
			does = append(does, flow.SQL(side, db.Name, q))
		}
		for _, t := range db.Inventory.Tables {
			does = append(does, flow.SQL(side, db.Name, cutover.TriggerOff(t.SQL())))
		}
		does = append(does, flow.SQL(side, db.Name, u.lift(s, side, db.Name)))
	}
	return flow.Step{
		ID: "unfence/" + side, Title: "Take the fence off " + side, Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			for _, db := range s.Databases {
				if err := u.unfence(ctx, t, s, side, db); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (u *Upgrade) unfence(ctx context.Context, t *flow.Turn, s *survey.Survey, side string, in *survey.Database) error {
	db := in.Name
	if err := s.Silent(side); err != nil {
		t.Note("%s does not answer: its fence stays (%v)", side, err)
		return nil
	}
	err := u.c.In(ctx, side, db, func(conn *pgx.Conn) error {
		var there, fence bool
		err := conn.QueryRow(ctx, u.c.Part.Own(`SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'crossfade'),
			EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'crossfade' AND p.proname = 'fence')`)).Scan(&there, &fence)
		if err != nil || !there {
			return err
		}
		lower := u.c.Part.Unguard()
		if fence { // prepare may have stopped before it made it
			lower = append(lower, u.c.Part.Lowered())
		}
		for _, q := range lower {
			if err := pg.Exec(ctx, conn, q); err != nil {
				return &pg.Error{Doing: pg.Brief(q), On: u.c.Side(side).String() + ", database " + db, Err: err}
			}
		}
		var left []string
		left, err = cutover.DisarmTables(ctx, conn, in.Elsewhere(), time.Minute)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("the open fence is still on %s of %s, which are busy: run the same command again", strings.Join(left, ", "), db)
		}
		if err != nil {
			return err
		}
		return pg.Exec(ctx, conn, u.lift(s, side, db))
	})
	if pg.SQLState(err) == "3D000" {
		return nil
	}
	return err
}

// dropGroundStep drops schema crossfade on one side, the home database last:
// as long as its row is there, the plan can be run again.
func (u *Upgrade) dropGroundStep(s *survey.Survey, side string) flow.Step {
	var does []flow.Effect
	for i := len(s.Databases) - 1; i >= 0; i-- {
		does = append(does, flow.SQL(side, s.Databases[i].Name, u.dropGround(side, s.Databases[i], s.Home)))
	}
	return flow.Step{
		ID: "ground/drop/" + side, Title: "Drop schema crossfade on " + side, Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := s.Silent(side); err != nil {
				t.Note("%s does not answer: schema crossfade stays there (%v)", side, err)
				return nil
			}
			for _, e := range does {
				if err := u.c.Do(ctx, e); err != nil && pg.SQLState(err) != "3D000" {
					return err
				}
			}
			return nil
		},
	}
}

// slimStep leaves on the side that was given up what keeps it closed, and
// nothing else. The row of the upgrade goes last: as long as it is there, the
// plan can be run again.
func (u *Upgrade) slimStep(s *survey.Survey, side string) flow.Step {
	var does []flow.Effect
	for i := len(s.Databases) - 1; i >= 0; i-- {
		db := s.Databases[i]
		for _, q := range u.c.Part.Unguard() {
			does = append(does, flow.SQL(side, db.Name, q))
		}
		for _, set := range db.Sets {
			does = append(does, flow.SQL(side, db.Name, "DROP TABLE IF EXISTS "+link.Canary(set.Name)))
		}
		if side == "new" {
			does = append(does, flow.SQL(side, db.Name, "DROP TABLE IF EXISTS crossfade.ledger"))
		}
		if db.Name == s.Home {
			does = append(does, flow.SQL(side, db.Name, u.c.Part.Own("DROP TABLE IF EXISTS crossfade.upgrade")))
		}
	}
	return flow.Step{
		ID: "ground/slim/" + side, Title: "Leave on " + side + " what keeps it closed, and nothing else", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := s.Silent(side); err != nil {
				t.Note("%s does not answer: what is there stays (%v)", side, err)
				return nil
			}
			return u.c.Exec(does, nil)(ctx, t)
		},
	}
}

// settingsBackStep puts settings of a side back.
func (u *Upgrade) settingsBackStep(s *survey.Survey, side string) flow.Step {
	does := u.settingsBack(s, side)
	all := slices.Clone(does)
	for _, db := range s.Databases {
		all = append(all, flow.SQL(side, "", u.restoreSettings(s, side, db.Name)))
	}
	return flow.Step{
		ID: "settings/back/" + side, Title: "Put the settings of " + side + " back", Does: all, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := s.Silent(side); err != nil {
				t.Note("%s does not answer: its settings stay (%v)", side, err)
				return nil
			}
			if err := u.c.Exec(does, nil)(ctx, t); err != nil {
				return err
			}
			return u.linkSettingsBack(ctx, s, side)
		},
	}
}

// identityBackStep puts the replica identities back to what they were on old,
// on both sides.
func (u *Upgrade) identityBackStep(s *survey.Survey) flow.Step {
	var does []flow.Effect
	for _, db := range s.Databases {
		for _, t := range db.Inventory.Tables {
			clause, ok := s.Before("identity/" + db.Name + "/" + t.SQL())
			if s.Zero() == nil { // a plan drawn before prepare: as it will be remembered
				ok = slices.ContainsFunc(db.Book.Identity, func(id runbook.Identity) bool { return id.Table == runbook.TableName{Schema: t.Schema, Name: t.Name} })
				clause = identityClause(t.Identity.Kind, t.Identity.Index)
			}
			if ok {
				sql := "ALTER TABLE " + t.SQL() + " " + clause
				does = append(does, flow.SQL("old", db.Name, sql), flow.SQL("new", db.Name, sql))
			}
		}
	}
	return flow.Step{
		ID: "identity/back", Title: "Put the replica identities back", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			for _, e := range does {
				if err := s.Silent(e.On); err != nil {
					t.Note("%s does not answer: its replica identities stay (%v)", e.On, err)
					continue
				}
				if err := u.c.UnderLock(ctx, e); err != nil && !pg.Missing(err) { // not made yet, or dropped since
					return err
				}
			}
			return nil
		},
	}
}

// restoreTriggersStep puts back the triggers of old that fire on apply: it follows nobody
// any more. The cutover remembered them.
func (u *Upgrade) restoreTriggersStep(s *survey.Survey) flow.Step {
	var does []flow.Effect
	if d := s.Last(); d != nil {
		for _, db := range s.Databases {
			for _, sql := range d.RestoreTriggers[db.Name] {
				does = append(does, flow.SQL("old", db.Name, sql))
			}
		}
	}
	return flow.Step{
		ID: "triggers/old", Title: "Put the triggers of old back that fire on apply", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if s.OldErr != nil {
				t.Note("old does not answer: its triggers stay disabled (%v)", s.OldErr)
				return nil
			}
			for _, e := range does {
				if err := u.c.UnderLock(ctx, e); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func forwardLinks(db *survey.Database) []link.Link { return db.Links }

func backLinks(db *survey.Database) []link.Link { return db.Way }

// finishPlan ends an upgrade. In phase open new keeps serving and old stays
// closed; after a rollback old keeps serving and new is given up.
func (u *Upgrade) finishPlan(ctx context.Context, s *survey.Survey, reopen bool) (flow.Plan, error) {
	p := flow.Plan{Name: "finish"}
	p.Steps = []flow.Step{
		u.dropLinksStep("back/drop", "End the possibility of rollback", s, backLinks),
		u.dropLinksStep("forward/drop", "Drop what is left of the links from old to new", s, forwardLinks),
		u.settingsBackStep(s, "old"), u.settingsBackStep(s, "new"), u.identityBackStep(s),
	}
	around, err := u.outsideSteps(ctx, s, u.forgetStandbys)
	if err != nil {
		return p, err
	}
	p.Steps = append(p.Steps, around...)
	if s.Phase == report.PhaseRolledBack {
		// Old serves. New is given up: its fence stays, as old's would.
		p.Steps = append(p.Steps, u.unfenceStep(s, "old"), u.dropGroundStep(s, "old"), u.slimStep(s, "new"))
		return p, nil
	}
	if s.Phase == report.PhaseOpen {
		p.Steps = append(p.Steps, u.restoreTriggersStep(s))
	}
	p.Steps = append(p.Steps, u.unfenceStep(s, "new"), u.dropGroundStep(s, "new"))
	if reopen {
		p.Steps = append(p.Steps, u.unfenceStep(s, "old"), u.dropGroundStep(s, "old"))
		return p, nil
	}
	p.Steps = append(p.Steps, u.slimStep(s, "old"))
	return p, nil
}

// outsideSteps end what the upgrade has outside its databases: managers that were
// paused, standbys, scratch databases.
func (u *Upgrade) outsideSteps(ctx context.Context, s *survey.Survey, standbys func(context.Context, *survey.Survey) ([]flow.Step, error)) ([]flow.Step, error) {
	let, err := u.letGoSteps(ctx, s, true)
	if err != nil {
		return nil, err
	}
	theirs, err := standbys(ctx, s)
	if err != nil {
		return nil, err
	}
	scratch, err := u.scratchSteps(ctx, s)
	if err != nil {
		return nil, err
	}
	roles, err := u.loginSteps(ctx, s)
	return slices.Concat(let, theirs, scratch, roles), err
}

// abortPlan takes everything back: old is as it was, and new has nothing of
// this upgrade, where it made a database not even that.
func (u *Upgrade) abortPlan(ctx context.Context, s *survey.Survey) (flow.Plan, error) {
	p := flow.Plan{Name: "abort"}
	p.Steps = []flow.Step{
		u.dropLinksStep("forward/drop", "Drop the links from old to new", s, forwardLinks),
		u.dropLinksStep("back/drop", "Drop the links back", s, backLinks),
	}
	around, err := u.outsideSteps(ctx, s, u.removeStandbys)
	if err != nil {
		return p, err
	}
	p.Steps = append(p.Steps, around...)
	unmake, err := u.unmakeStep(ctx, s)
	if err != nil {
		return p, err
	}
	p.Steps = append(p.Steps,
		u.settingsBackStep(s, "old"), u.settingsBackStep(s, "new"), u.identityBackStep(s),
		// What this upgrade made on new goes while it is closed: nobody may
		// write there and see his rows go with the database.
		unmake, u.unfenceStep(s, "new"), u.unfenceStep(s, "old"), u.dropGroundStep(s, "new"), u.dropGroundStep(s, "old"))
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
		found, err := u.left(ctx, s, side)
		if err != nil {
			return out, err
		}
		if side == "new" && !closed {
			stays, err := u.unmade(ctx, s)
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
	out.Lines = append(out.Lines, u.placesTaken(ctx, s)...)
	if closed {
		for _, db := range s.Databases {
			out.Lift = append(out.Lift, "\\c "+db.Name, u.lift(s, "old", db.Name)+";", "DROP SCHEMA crossfade CASCADE;")
		}
	}
	return out, nil
}

func (u *Upgrade) left(ctx context.Context, s *survey.Survey, side string) ([]string, error) {
	if u.c.Part != "" && side == "old" {
		return u.leftOfPart(ctx, s)
	}
	return u.leftOn(ctx, s, side)
}

// leftOn is left for all parts together.
func (u *Upgrade) leftOn(ctx context.Context, s *survey.Survey, side string) ([]string, error) {
	var found []string
	look := func(server *pg.Server, sql string) error {
		err := u.c.Sessions.Do(ctx, server, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, sql, "c_"+u.rb.Upgrade)
			if err != nil {
				return err
			}
			some, err := pgx.CollectRows(rows, pgx.RowTo[string])
			found = append(found, some...)
			return err
		})
		if pg.SQLState(err) == "3D000" {
			return nil
		}
		return err
	}
	err := look(u.c.Side(side), `
		SELECT format('slot %I', slot_name) FROM pg_replication_slots WHERE slot_name ~ ('^c[fb]_' || substr($1, 3) || '_')
		UNION ALL SELECT format('subscription %I', subname) FROM pg_subscription WHERE subname ~ ('^c[fb]_' || substr($1, 3) || '_')`)
	if err != nil {
		return nil, err
	}
	if side == "new" {
		err := u.c.On(ctx, "new", func(conn *pgx.Conn) error {
			scratch, _, err := u.scratchLeft(ctx, conn)
			for _, name := range scratch {
				found = append(found, "scratch database "+name)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	for _, db := range s.Databases {
		err := look(u.c.Side(side).With(db.Name), `
			SELECT format('publication %I in %I', pubname, current_database()) FROM pg_publication WHERE pubname ~ ('^c[fb]_' || substr($1, 3) || '_')
			UNION ALL SELECT format('schema crossfade in %I', current_database()) FROM pg_namespace WHERE nspname = 'crossfade'
			UNION ALL SELECT format('the fence on %s tables of %I', count(*), current_database()) FROM pg_trigger WHERE tgname = '`+cutover.Trigger+`' HAVING count(*) > 0`)
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
