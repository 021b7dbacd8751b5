package ground

import (
	"context"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// DropLinksStep takes links away on both sides, whatever of them is there.
func (gr *Ground) DropLinksStep(id, title string, s *survey.Survey, pick func(*survey.Database) []link.Link) flow.Step {
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
				if err := gr.dropLinks(ctx, t, s, db.Name, pick(db)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (gr *Ground) dropLinks(ctx context.Context, t *flow.Turn, s *survey.Survey, db string, links []link.Link) error {
	if len(links) == 0 {
		return nil
	}
	from, to := links[0].From.Side, links[0].To.Side
	part := func(side string, f func(conn *pgx.Conn) error) error {
		if err := s.Silent(side); err != nil {
			t.Note("%s does not answer: what is there stays (%v)", side, err)
			return nil
		}
		err := gr.c.In(ctx, side, db, f)
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

// DropStep drops schema crossfade on one side, the home database last:
// as long as its row is there, the plan can be run again.
func (gr *Ground) DropStep(s *survey.Survey, side string) flow.Step {
	var does []flow.Effect
	for i := len(s.Databases) - 1; i >= 0; i-- {
		does = append(does, flow.SQL(side, s.Databases[i].Name, gr.dropGround(side, s.Databases[i], s.Home)))
	}
	return flow.Step{
		ID: "ground/drop/" + side, Title: "Drop schema crossfade on " + side, Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := s.Silent(side); err != nil {
				t.Note("%s does not answer: schema crossfade stays there (%v)", side, err)
				return nil
			}
			for _, e := range does {
				if err := gr.c.Do(ctx, e); err != nil && pg.SQLState(err) != "3D000" {
					return err
				}
			}
			return nil
		},
	}
}

// SlimStep leaves on the side that was given up what keeps it closed, and
// nothing else. The row of the upgrade goes last: as long as it is there, the
// plan can be run again.
func (gr *Ground) SlimStep(s *survey.Survey, side string) flow.Step {
	var does []flow.Effect
	for i := len(s.Databases) - 1; i >= 0; i-- {
		db := s.Databases[i]
		for _, q := range gr.c.Part.Unguard() {
			does = append(does, flow.SQL(side, db.Name, q))
		}
		for _, set := range db.Sets {
			does = append(does, flow.SQL(side, db.Name, "DROP TABLE IF EXISTS "+link.Canary(set.Name)))
		}
		if side == "new" {
			does = append(does, flow.SQL(side, db.Name, "DROP TABLE IF EXISTS crossfade.ledger"))
		}
		if db.Name == s.Home {
			does = append(does, flow.SQL(side, db.Name, gr.c.Part.Own("DROP TABLE IF EXISTS crossfade.upgrade")))
		}
	}
	return flow.Step{
		ID: "ground/slim/" + side, Title: "Leave on " + side + " what keeps it closed, and nothing else", Does: does, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := s.Silent(side); err != nil {
				t.Note("%s does not answer: what is there stays (%v)", side, err)
				return nil
			}
			return gr.c.Exec(does, nil)(ctx, t)
		},
	}
}

// ForwardLinks are the links of a database from old to new.
func ForwardLinks(db *survey.Database) []link.Link { return db.Links }

// BackLinks are those from new to old.
func BackLinks(db *survey.Database) []link.Link { return db.Way }

// Left is what is left of this upgrade on a side; of this part, where there are
// several.
func (gr *Ground) Left(ctx context.Context, s *survey.Survey, side string) ([]string, error) {
	if gr.c.Part != "" && side == "old" {
		return gr.leftOfPart(ctx, s)
	}
	return gr.LeftOn(ctx, s, side)
}

// LeftOn is left for all parts together.
func (gr *Ground) LeftOn(ctx context.Context, s *survey.Survey, side string) ([]string, error) {
	var found []string
	look := func(server *pg.Server, sql string) error {
		err := gr.c.Sessions.Do(ctx, server, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, sql, "c_"+gr.c.Book.Upgrade)
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
	err := look(gr.c.Side(side), `
		SELECT format('slot %I', slot_name) FROM pg_replication_slots WHERE slot_name ~ ('^c[fb]_' || substr($1, 3) || '_')
		UNION ALL SELECT format('subscription %I', subname) FROM pg_subscription WHERE subname ~ ('^c[fb]_' || substr($1, 3) || '_')`)
	if err != nil {
		return nil, err
	}
	if side == "new" {
		err := gr.c.On(ctx, "new", func(conn *pgx.Conn) error {
			scratch, _, err := gr.scratch.Left(ctx, conn)
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
		err := look(gr.c.Side(side).With(db.Name), `
			SELECT format('publication %I in %I', pubname, current_database()) FROM pg_publication WHERE pubname ~ ('^c[fb]_' || substr($1, 3) || '_')
			UNION ALL SELECT format('schema crossfade in %I', current_database()) FROM pg_namespace WHERE nspname = 'crossfade'
			UNION ALL SELECT format('the fence on %s tables of %I', count(*), current_database()) FROM pg_trigger WHERE tgname = '`+cutover.Trigger+`' HAVING count(*) > 0`)
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// ReadyStep says on both sides that a cutover may begin.
func (gr *Ground) ReadyStep(s *survey.Survey) flow.Step {
	const ready = "UPDATE crossfade.upgrade SET state = 'ready', at = clock_timestamp() WHERE attempt = 0"
	does := []flow.Effect{flow.SQL("new", s.Home, gr.c.Part.Own(ready)), flow.SQL("old", s.Home, gr.c.Part.Own(ready))}
	return flow.Step{
		ID: "ready", Title: "Ready for the cutover", Does: does,
		Done: func(context.Context) (bool, error) { return s.Ready(), nil },
		Do:   gr.c.Exec(does, nil),
	}
}

// dropGround is the statement that takes the tool's own schema away: all of it,
// or where other parts have theirs in it, this part's.
func (gr *Ground) dropGround(side string, db *survey.Database, home string) string {
	if gr.c.Part == "" || side == "new" {
		return "DROP SCHEMA IF EXISTS crossfade CASCADE"
	}
	var sql []string
	for _, set := range db.Sets {
		sql = append(sql, "DROP TABLE IF EXISTS "+link.Canary(set.Name))
	}
	sql = append(sql, "DROP FUNCTION IF EXISTS crossfade.fence()", "DROP SEQUENCE IF EXISTS crossfade.refused")
	if db.Name == home {
		sql = append(sql, "DROP TABLE IF EXISTS crossfade.upgrade")
	}
	sql = append(sql, "DO $ground$ BEGIN DROP SCHEMA IF EXISTS crossfade; EXCEPTION WHEN dependent_objects_still_exist THEN NULL; END $ground$")
	return gr.c.Part.Own(strings.Join(sql, ";\n"))
}

// leftOfPart is what is left of this part on old, where others may have theirs.
func (gr *Ground) leftOfPart(ctx context.Context, s *survey.Survey) ([]string, error) {
	var found []string
	for _, db := range s.Databases {
		var names, tables []string
		for _, set := range db.Book.Sets {
			if set.To != string(gr.c.Part) {
				continue
			}
			for _, forward := range []bool{true, false} {
				names = append(names, link.Name(forward, gr.c.Book.Upgrade, s.Tag(db), set.Name))
			}
			tables = append(tables, "canary_"+set.Name)
		}
		end := "_" + string(gr.c.Part)
		tables = append(tables, "upgrade"+end, "refused"+end)
		err := gr.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, `
				SELECT format('slot %I', slot_name) FROM pg_replication_slots WHERE slot_name = ANY ($1)
				UNION ALL SELECT format('subscription %I', subname) FROM pg_subscription WHERE subname = ANY ($1)
				UNION ALL SELECT format('publication %I in %I', pubname, current_database()) FROM pg_publication WHERE pubname = ANY ($1)
				UNION ALL SELECT format('%s of schema crossfade in %I', relname, current_database()) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
					WHERE n.nspname = 'crossfade' AND relname = ANY ($2)
				UNION ALL SELECT format('the fence on %s tables of %I', count(*), current_database()) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
					WHERE tgname = $3 AND p.proname = $4 HAVING count(*) > 0`, names, tables, cutover.Trigger, "fence"+end)
			if err != nil {
				return err
			}
			some, err := pgx.CollectRows(rows, pgx.RowTo[string])
			found = append(found, some...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}
