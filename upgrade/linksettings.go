package upgrade

import (
	"context"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// The settings of an apply worker are those of the role that owns the
// subscriptions in their database (link.PinSettings). They are set before the
// subscriptions are made, and put back in the transaction that opens the
// database, or when the links are given up.

// appliedKey is where the memory keeps what a side is to have again.
func appliedKey(side, db, name string) string { return side + "/" + db + "/applied/" + name }

// pinSettings pins them in one database of a side.
func (u *Upgrade) pinSettings(s *survey.Survey, side, db string) string {
	return link.PinSettings(u.c.Side(side).User(), db, s.Side(side).Version)
}

// restoreSettings puts back what stood there before. On
// new that is what old has: prepare carries the settings of roles over. On an old
// that several clusters follow from, other parts may still need them: finish and
// abort put them back.
func (u *Upgrade) restoreSettings(s *survey.Survey, side, db string) string {
	before := map[string]string{}
	for _, name := range link.AppliedSettings() {
		if v, ok := s.Before(appliedKey(side, db, name)); ok {
			before[name] = v
		}
	}
	return link.RestoreSettings(u.c.Side(side).User(), db, s.Side(side).Version, before)
}

// opened are the statements that let clients into a database as it was: without
// its read-only default, and without the settings of the links.
func (u *Upgrade) opened(s *survey.Survey, side, db string) string {
	sql := []string{u.lift(s, side, db)}
	if u.c.Part == "" || side == "new" {
		sql = append(sql, u.restoreSettings(s, side, db))
	}
	return strings.Join(sql, ";\n")
}

// readApplied reads what each side is to have again.
func (u *Upgrade) readApplied(ctx context.Context, before map[string]string) error {
	// New's own first: what old has for the same role is carried over it.
	for _, r := range []struct{ on, of string }{{"old", "old"}, {"new", "new"}, {"old", "new"}} {
		err := u.c.On(ctx, r.on, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, `
				SELECT d.datname::text, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
				FROM pg_db_role_setting r JOIN pg_database d ON d.oid = r.setdatabase JOIN pg_roles o ON o.oid = r.setrole, unnest(r.setconfig) c
				WHERE o.rolname = $1 AND split_part(c, '=', 1) = ANY ($2)`, u.c.Side(r.of).User(), link.AppliedSettings())
			if err != nil {
				return err
			}
			var db, name, value string
			_, err = pgx.ForEachRow(rows, []any{&db, &name, &value}, func() error {
				before[appliedKey(r.of, db, name)] = value
				return nil
			})
			return err
		})
		if err != nil {
			return &pg.Error{Doing: "read the settings of the tool's role", On: u.c.Side(r.on).String(), Err: err}
		}
	}
	return nil
}

// linkSettingsStep pins the settings of the apply workers of one database of the
// side that applies.
func (u *Upgrade) linkSettingsStep(s *survey.Survey, side string, db *survey.Database) flow.Step {
	does := []flow.Effect{flow.SQL(side, db.Name, u.pinSettings(s, side, db.Name))}
	return flow.Step{
		ID: "link-settings/" + db.Name, Title: "Pin the settings with which the links of " + db.Name + " apply on " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			done := false
			err := u.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, `
					SELECT EXISTS (SELECT FROM pg_db_role_setting r JOIN pg_roles o ON o.oid = r.setrole JOIN pg_database d ON d.oid = r.setdatabase
					WHERE o.rolname = $1 AND d.datname = current_database() AND `+link.PinnedSettings(s.Side(side).Version)+`)`, u.c.Side(side).User()).Scan(&done)
			})
			return done, err
		},
		Do: u.c.Exec(does, nil),
	}
}

// ownSettings are the keys, of schema.Global and schema.Kept, of the settings that
// the links to a side have there: they are pinned while it applies, and are not
// taken along.
func (u *Upgrade) ownSettings(s *survey.Survey, side string) map[string]bool {
	keys := map[string]bool{}
	for _, db := range s.Databases {
		for _, name := range link.AppliedSettings() {
			keys["setting "+schema.Setting{Database: db.Name, Role: u.c.Side(side).User(), Name: name}.String()] = true
		}
	}
	return keys
}

// linkSettingsBack puts back what the links have set on a side, in the databases
// that are there.
func (u *Upgrade) linkSettingsBack(ctx context.Context, s *survey.Survey, side string) error {
	for _, db := range s.Databases {
		err := u.c.Do(ctx, flow.SQL(side, "", u.restoreSettings(s, side, db.Name)))
		if state := pg.SQLState(err); err != nil && state != "3D000" && state != "42704" {
			return err
		}
	}
	return nil
}
