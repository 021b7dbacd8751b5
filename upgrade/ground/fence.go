package ground

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// UnfenceStep takes the fence off every table of one side.
func (gr *Ground) UnfenceStep(s *survey.Survey, side string) flow.Step {
	var does []flow.Effect
	for _, db := range s.Databases {
		does = append(does, flow.SQL(side, db.Name, gr.c.Part.Lowered()))
		for _, q := range gr.c.Part.Unguard() {
			does = append(does, flow.SQL(side, db.Name, q))
		}
		for _, t := range db.Inventory.Tables {
			does = append(does, flow.SQL(side, db.Name, cutover.TriggerOff(t.SQL())))
		}
		does = append(does, flow.SQL(side, db.Name, gr.Lift(s, side, db.Name)))
	}
	return flow.Step{
		ID: "unfence/" + side, Title: "Take the fence off " + side, Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			for _, db := range s.Databases {
				if err := gr.unfence(ctx, t, s, side, db); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (gr *Ground) unfence(ctx context.Context, t *flow.Turn, s *survey.Survey, side string, in *survey.Database) error {
	db := in.Name
	if err := s.Silent(side); err != nil {
		t.Note("%s does not answer: its fence stays (%v)", side, err)
		return nil
	}
	err := gr.c.In(ctx, side, db, func(conn *pgx.Conn) error {
		var there, fence bool
		err := conn.QueryRow(ctx, gr.c.Part.Own(`SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'crossfade'),
			EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'crossfade' AND p.proname = 'fence')`)).Scan(&there, &fence)
		if err != nil || !there {
			return err
		}
		lower := gr.c.Part.Unguard()
		if fence { // prepare may have stopped before it made it
			lower = append(lower, gr.c.Part.Lowered())
		}
		for _, q := range lower {
			if err := pg.Exec(ctx, conn, q); err != nil {
				return &pg.Error{Doing: pg.Brief(q), On: gr.c.Side(side).String() + ", database " + db, Err: err}
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
		return pg.Exec(ctx, conn, gr.Lift(s, side, db))
	})
	if pg.SQLState(err) == "3D000" {
		return nil
	}
	return err
}

// RestoreTriggersStep puts back the triggers of old that fire on apply: it follows nobody
// any more. The cutover remembered them.
func (gr *Ground) RestoreTriggersStep(s *survey.Survey) flow.Step {
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
				if err := gr.c.UnderLock(ctx, e); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// FenceStep puts the closed fence on every table of the side that applies, and
// keeps triggers that fire on apply from firing until that side takes clients. guard:
// DDL there is refused as well.
func (gr *Ground) FenceStep(side string, db *survey.Database, guard bool) flow.Step {
	var does []flow.Effect
	for _, t := range db.Inventory.Tables {
		does = append(does, flow.SQL(side, db.Name, gr.c.Part.TriggerOn(t.SQL())))
	}
	for _, t := range db.Inventory.Triggers {
		does = append(does, flow.SQL(side, db.Name, t.Disable()))
	}
	if guard {
		for _, sql := range append(gr.c.Part.Unguard(), gr.c.Part.Guards(gr.c.Book.Upgrade)...) {
			does = append(does, flow.SQL(side, db.Name, sql))
		}
	}
	return flow.Step{
		ID: "fence/" + db.Name, Title: "Close every table of " + db.Name + " on " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			done := false
			err := gr.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
				open, err := cutover.Unarmed(ctx, conn, db.Elsewhere())
				if err != nil {
					return err
				}
				firing, err := schema.FiringTriggers(ctx, conn)
				done = err == nil && len(open) == 0 && len(firing) == 0
				if done && guard {
					done, err = gr.c.Part.Guarded(ctx, conn)
				}
				return err
			})
			return done, err
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			return gr.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
				for i, e := range does {
					err := pg.Exec(ctx, conn, e.SQL)
					if pg.SQLState(err) == "42710" && i < len(db.Inventory.Tables) { // it is there, and may have been disabled
						err = pg.Exec(ctx, conn, "ALTER TABLE "+db.Inventory.Tables[i].SQL()+" ENABLE TRIGGER "+cutover.Trigger)
					}
					if err != nil {
						return &pg.Error{Doing: pg.Brief(e.SQL), On: gr.c.Side(side).String() + ", database " + db.Name, Err: err}
					}
					if len(does) > 100 && i%100 == 0 {
						t.Progress(int64(i), int64(len(does)), "tables", db.Name)
					}
				}
				return nil
			})
		},
	}
}
