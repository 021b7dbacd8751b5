package ground

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Lift is the statement that puts a database's read-only default back to what
// stood there before the upgrade.
func (gr *Ground) Lift(s *survey.Survey, side, db string) string {
	v, _ := s.Before(side + "/" + db + "/default_transaction_read_only")
	if v == "" {
		return "ALTER DATABASE " + pg.Ident(db) + " RESET default_transaction_read_only"
	}
	return "ALTER DATABASE " + pg.Ident(db) + " SET default_transaction_read_only = " + pg.Literal(v)
}

// SettingsBackStep puts settings of a side back.
func (gr *Ground) SettingsBackStep(s *survey.Survey, side string) flow.Step {
	does := gr.settingsBack(s, side)
	all := slices.Clone(does)
	for _, db := range s.Databases {
		all = append(all, flow.SQL(side, "", gr.RestoreSettings(s, side, db.Name)))
	}
	return flow.Step{
		ID: "settings/back/" + side, Title: "Put the settings of " + side + " back", Does: all, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if err := s.Silent(side); err != nil {
				t.Note("%s does not answer: its settings stay (%v)", side, err)
				return nil
			}
			if err := gr.c.Exec(does, nil)(ctx, t); err != nil {
				return err
			}
			return gr.linkSettingsBack(ctx, s, side)
		},
	}
}

// SystemSettings are those that the upgrade changes while it runs.
var SystemSettings = []string{"max_slot_wal_keep_size", "wal_retrieve_retry_interval"}

// SettingsStep changes settings of a whole server while the upgrade
// runs; finish and abort put them back.
func (gr *Ground) SettingsStep(side string, version int, want map[string]string) flow.Step {
	var does []flow.Effect
	names := slices.Sorted(maps.Keys(want))
	for _, name := range names {
		does = append(does, flow.SQL(side, "", "ALTER SYSTEM SET "+name+" = "+pg.Literal(want[name])))
	}
	does = append(does, flow.SQL(side, "", "SELECT pg_reload_conf()"))
	return flow.Step{
		ID: "settings/" + side, Title: "Change settings of " + side + " for the time of the upgrade: " + strings.Join(names, ", "), Does: does,
		Done: func(ctx context.Context) (bool, error) {
			set := 0
			err := gr.c.On(ctx, side, func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, `SELECT count(DISTINCT name) FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf' AND name = ANY ($1)`, names).Scan(&set)
			})
			return set == len(names), err
		},
		Do: gr.c.Exec(does, nil),
	}
}

// settingsBack are the effects that put a server's settings back to what stood
// there before.
func (gr *Ground) settingsBack(s *survey.Survey, side string) []flow.Effect {
	var does []flow.Effect
	for _, name := range SystemSettings {
		if v, ok := s.Before(side + "/system/" + name); ok {
			does = append(does, flow.SQL(side, "", "ALTER SYSTEM SET "+name+" = "+pg.Literal(v)))
		} else if name != "max_slot_wal_keep_size" || s.Side(side).Version >= 130000 { // it came with 13
			does = append(does, flow.SQL(side, "", "ALTER SYSTEM RESET "+name))
		}
	}
	return append(does, flow.SQL(side, "", "SELECT pg_reload_conf()"))
}

// DuringSettings are the settings of a side for the time of the upgrade. A
// worker that dies costs wal_retrieve_retry_interval, 5 s by default; slots
// that are forgotten must not fill a disk.
func (gr *Ground) DuringSettings(ctx context.Context, side string, version int) (map[string]string, error) {
	want := map[string]string{"wal_retrieve_retry_interval": "200ms"}
	if version < 160000 {
		// There the launcher waits so long between two workers, too, and the
		// first workers of the way back start while writers wait.
		want["wal_retrieve_retry_interval"] = "50ms"
	}
	if version < 130000 {
		return want, nil
	}
	var keep string
	err := gr.c.On(ctx, side, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'").Scan(&keep)
	})
	if err != nil {
		return nil, &pg.Error{Doing: "read max_slot_wal_keep_size", On: gr.c.Side(side).String(), Err: err}
	}
	mb := fmt.Sprintf("%dMB", max(gr.c.Book.Catchup.MaxWAL>>20, 1))
	if keep == "-1" || keep+"MB" == mb {
		want["max_slot_wal_keep_size"] = mb
	}
	return want, nil
}

// The settings of an apply worker are those of the role that owns the
// subscriptions in their database (link.PinSettings). They are set before the
// subscriptions are made, and put back in the transaction that opens the
// database, or when the links are given up.

// appliedKey is where the memory keeps what a side is to have again.
func appliedKey(side, db, name string) string { return side + "/" + db + "/applied/" + name }

// PinSettings pins them in one database of a side.
func (gr *Ground) PinSettings(s *survey.Survey, side, db string) string {
	return link.PinSettings(gr.c.Side(side).User(), db, s.Side(side).Version)
}

// RestoreSettings puts back what stood there before. On
// new that is what old has: prepare carries the settings of roles over. On an old
// that several clusters follow from, other parts may still need them: finish and
// abort put them back.
func (gr *Ground) RestoreSettings(s *survey.Survey, side, db string) string {
	before := map[string]string{}
	for _, name := range link.AppliedSettings() {
		if v, ok := s.Before(appliedKey(side, db, name)); ok {
			before[name] = v
		}
	}
	return link.RestoreSettings(gr.c.Side(side).User(), db, s.Side(side).Version, before)
}

// Opened are the statements that let clients into a database as it was: without
// its read-only default, and without the settings of the links.
func (gr *Ground) Opened(s *survey.Survey, side, db string) string {
	sql := []string{gr.Lift(s, side, db)}
	if gr.c.Part == "" || side == "new" {
		sql = append(sql, gr.RestoreSettings(s, side, db))
	}
	return strings.Join(sql, ";\n")
}

// readApplied reads what each side is to have again.
func (gr *Ground) readApplied(ctx context.Context, before map[string]string) error {
	// New's own first: what old has for the same role is carried over it.
	for _, r := range []struct{ on, of string }{{"old", "old"}, {"new", "new"}, {"old", "new"}} {
		err := gr.c.On(ctx, r.on, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, `
				SELECT d.datname::text, split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
				FROM pg_db_role_setting r JOIN pg_database d ON d.oid = r.setdatabase JOIN pg_roles o ON o.oid = r.setrole, unnest(r.setconfig) c
				WHERE o.rolname = $1 AND split_part(c, '=', 1) = ANY ($2)`, gr.c.Side(r.of).User(), link.AppliedSettings())
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
			return &pg.Error{Doing: "read the settings of the tool's role", On: gr.c.Side(r.on).String(), Err: err}
		}
	}
	return nil
}

// LinkSettingsStep pins the settings of the apply workers of one database of the
// side that applies.
func (gr *Ground) LinkSettingsStep(s *survey.Survey, side string, db *survey.Database) flow.Step {
	does := []flow.Effect{flow.SQL(side, db.Name, gr.PinSettings(s, side, db.Name))}
	return flow.Step{
		ID: "link-settings/" + db.Name, Title: "Pin the settings with which the links of " + db.Name + " apply on " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			done := false
			err := gr.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, `
					SELECT EXISTS (SELECT FROM pg_db_role_setting r JOIN pg_roles o ON o.oid = r.setrole JOIN pg_database d ON d.oid = r.setdatabase
					WHERE o.rolname = $1 AND d.datname = current_database() AND `+link.PinnedSettings(s.Side(side).Version)+`)`, gr.c.Side(side).User()).Scan(&done)
			})
			return done, err
		},
		Do: gr.c.Exec(does, nil),
	}
}

// OwnSettings are the keys, of schema.Global and schema.Kept, of the settings that
// the links to a side have there: they are pinned while it applies, and are not
// taken along.
func (gr *Ground) OwnSettings(s *survey.Survey, side string) map[string]bool {
	keys := map[string]bool{}
	for _, db := range s.Databases {
		for _, name := range link.AppliedSettings() {
			keys["setting "+schema.Setting{Database: db.Name, Role: gr.c.Side(side).User(), Name: name}.String()] = true
		}
	}
	return keys
}

// linkSettingsBack puts back what the links have set on a side, in the databases
// that are there.
func (gr *Ground) linkSettingsBack(ctx context.Context, s *survey.Survey, side string) error {
	for _, db := range s.Databases {
		err := gr.c.Do(ctx, flow.SQL(side, "", gr.RestoreSettings(s, side, db.Name)))
		if state := pg.SQLState(err); err != nil && state != "3D000" && state != "42704" {
			return err
		}
	}
	return nil
}
