package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// rowZero and keepMemory write the row of the upgrade itself.
const (
	rowZero    = "INSERT INTO crossfade.upgrade (attempt, upgrade, state, memory) VALUES (0, $upgrade, 'preparing', $memory) ON CONFLICT (attempt) DO NOTHING"
	keepMemory = "UPDATE crossfade.upgrade SET memory = $memory WHERE attempt = 0"
)

// groundEffects make the tool's own schema in one database of one side.
func (u *Upgrade) groundEffects(s *survey.Survey, side string, db *survey.Database) []flow.Effect {
	sql := []string{"CREATE SCHEMA IF NOT EXISTS crossfade"}
	if db.Name == s.Home {
		// One transaction: a schema without the row would be a stranger's.
		sql[0] += ";\n" + u.c.Part.Table() + ";\n" + u.c.Part.Own(rowZero)
	}
	for _, set := range db.Sets {
		sql = append(sql, link.CanaryTable(set.Name))
	}
	if side == "new" {
		sql = append(sql, schema.Ledger("new", db.Name).SQL)
	}
	sql = append(sql, u.c.Part.Ground(u.rb.Upgrade, side == "new")...)
	if side == "new" {
		// Closed from its first day: what arrives here comes from old alone.
		sql = append(sql, cutover.ReadOnly(db.Name))
	}
	var does []flow.Effect
	for _, q := range sql {
		does = append(does, flow.SQL(side, db.Name, q))
	}
	return does
}

// grounded reports whether the tool's own schema is complete in a database.
func (u *Upgrade) grounded(ctx context.Context, s *survey.Survey, side string, db *survey.Database) (bool, error) {
	end := ""
	if u.c.Part != "" {
		end = "_" + string(u.c.Part)
	}
	want := []string{"fence" + end}
	for _, set := range db.Sets {
		want = append(want, "canary_"+set.Name)
	}
	if side == "new" {
		want = append(want, "ledger")
	}
	if db.Name == s.Home {
		want = append(want, "upgrade"+end)
	}
	var missing int
	err := u.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `
			SELECT count(*) FROM unnest($1::text[]) w(name)
			WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'crossfade' AND c.relname = w.name)
			  AND NOT EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'crossfade' AND p.proname = w.name)`, want).Scan(&missing)
	})
	if pg.SQLState(err) == "3D000" {
		return false, nil
	}
	return err == nil && missing == 0, err
}

func (u *Upgrade) groundStep(s *survey.Survey, side string, db *survey.Database) flow.Step {
	does := u.groundEffects(s, side, db)
	return flow.Step{
		ID: "ground/" + side + "/" + db.Name, Title: "Make schema crossfade in " + db.Name + " of " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) { return u.grounded(ctx, s, side, db) },
		Do: func(ctx context.Context, t *flow.Turn) error {
			m, err := u.memory(ctx, s)
			if err != nil {
				return err
			}
			b, err := json.Marshal(m)
			if err != nil {
				return err
			}
			vars := map[string]string{"upgrade": pg.Literal(u.rb.Upgrade), "memory": pg.Literal(string(b))}
			return u.c.Exec(does, func() map[string]string { return vars })(ctx, t)
		},
	}
}

// memory is what row 0 remembers: as it stands, or as it begins.
func (u *Upgrade) memory(ctx context.Context, s *survey.Survey) (cutover.Memory, error) {
	var m cutover.Memory
	found := false
	err := u.c.In(ctx, "old", s.Home, func(conn *pgx.Conn) error {
		ds, err := u.c.Part.ReadDecisions(ctx, conn)
		for _, d := range ds {
			if d.Attempt == 0 {
				m, found = d.Memory, true
			}
		}
		return err
	})
	if err != nil || found {
		return m, err
	}
	m.Closing, m.Opening = cutover.WhomOf(s.Old), cutover.WhomOf(s.New)
	m.Before = map[string]string{}
	for _, db := range s.Databases {
		m.Before["tag/"+db.Name] = link.DatabaseTag(db.Name, db.OID)
		for _, id := range db.Book.Identity {
			if t := db.Inventory.Find(id.Table.Schema, id.Table.Name); t != nil {
				m.Before["identity/"+db.Name+"/"+t.SQL()] = identityClause(t.Identity.Kind, t.Identity.Index)
			}
		}
	}
	for _, side := range []string{"old", "new"} {
		if err := u.readBefore(ctx, s, side, m.Before); err != nil {
			return m, err
		}
	}
	if err := u.readApplied(ctx, m.Before); err != nil {
		return m, err
	}
	if err := u.rememberStood(ctx, s, m.Before); err != nil {
		return m, err
	}
	names, err := s.OldSynchronous(ctx)
	if err == nil && len(u.successors()) > 0 {
		m.Before[oldSynchronousNames] = names
	}
	if err != nil {
		return m, err
	}
	return m, u.inherit(ctx, m.Before)
}

// systemSettings are those that the upgrade changes while it runs.
var systemSettings = []string{"max_slot_wal_keep_size", "wal_retrieve_retry_interval"}

// readBefore reads the settings of one side that the upgrade will change.
func (u *Upgrade) readBefore(ctx context.Context, s *survey.Survey, side string, before map[string]string) error {
	err := u.c.On(ctx, side, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT d.datname || '/default_transaction_read_only', split_part(c, '=', 2)
			FROM pg_db_role_setting r JOIN pg_database d ON d.oid = r.setdatabase, unnest(r.setconfig) c
			WHERE r.setrole = 0 AND c LIKE 'default_transaction_read_only=%'
			UNION ALL
			SELECT 'system/' || name, setting FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf' AND name = ANY ($1)`, append([]string{"synchronous_standby_names"}, systemSettings...))
		if err != nil {
			return err
		}
		var key, value string
		_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
			before[side+"/"+key] = value
			return nil
		})
		return err
	})
	if err != nil {
		return &pg.Error{Doing: "read the settings that the upgrade changes", On: u.c.Side(side).String(), Err: err}
	}
	return nil
}

func identityClause(kind byte, index string) string {
	switch kind {
	case 'f':
		return "REPLICA IDENTITY FULL"
	case 'i':
		return "REPLICA IDENTITY USING INDEX " + pg.Ident(index)
	case 'n':
		return "REPLICA IDENTITY NOTHING"
	}
	return "REPLICA IDENTITY DEFAULT"
}

// identityStep sets the replica identities that the runbook orders on one
// side: on old before anything is published, on new when its indexes are
// there, so that the way back finds rows the same way.
func (u *Upgrade) identityStep(s *survey.Survey, side string, db *survey.Database) (flow.Step, bool) {
	var does []flow.Effect
	want := map[string]string{}
	for _, id := range db.Book.Identity {
		t := db.Inventory.Find(id.Table.Schema, id.Table.Name)
		if t == nil {
			continue
		}
		clause := identityClause('f', "")
		if id.Index != "" {
			clause = identityClause('i', id.Index)
		}
		want[t.SQL()] = clause
		does = append(does, flow.SQL(side, db.Name, "ALTER TABLE "+t.SQL()+" "+clause))
	}
	return flow.Step{
		ID: "identity/" + side + "/" + db.Name, Title: "Set the replica identities that the runbook orders in " + db.Name + " of " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			done := false
			err := u.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
				inv, err := schema.Read(ctx, conn, schema.Filter{NoObjects: true, NoSizes: true})
				if err != nil {
					return err
				}
				done = true
				for _, t := range inv.Tables {
					clause, ordered := want[t.SQL()]
					done = done && (!ordered || identityClause(t.Identity.Kind, t.Identity.Index) == clause)
				}
				return nil
			})
			return done, err
		},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			if side == "old" {
				if err := u.rememberIdentities(ctx, s, db, want); err != nil {
					return err
				}
			}
			for _, e := range does {
				if err := u.c.UnderLock(ctx, e); err != nil {
					return err
				}
			}
			return nil
		},
	}, len(does) > 0
}

// rememberIdentities adds what tables have that were not there, or not ordered,
// when the upgrade began: finish and abort put it back.
func (u *Upgrade) rememberIdentities(ctx context.Context, s *survey.Survey, db *survey.Database, want map[string]string) error {
	m, err := u.memory(ctx, s)
	if err != nil {
		return err
	}
	more := map[string]string{}
	for _, t := range db.Inventory.Tables {
		key := "identity/" + db.Name + "/" + t.SQL()
		if _, known := m.Before[key]; !known && want[t.SQL()] != "" {
			more[key] = identityClause(t.Identity.Kind, t.Identity.Index)
		}
	}
	if len(more) == 0 {
		return nil
	}
	return u.remember(ctx, s, func(m *cutover.Memory) {
		if m.Before == nil {
			m.Before = map[string]string{}
		}
		maps.Copy(m.Before, more)
	})
}

// setting is a step that changes settings of a whole server while the upgrade
// runs; finish and abort put them back.
func (u *Upgrade) settingStep(side string, version int, want map[string]string) flow.Step {
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
			err := u.c.On(ctx, side, func(conn *pgx.Conn) error {
				return conn.QueryRow(ctx, `SELECT count(DISTINCT name) FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf' AND name = ANY ($1)`, names).Scan(&set)
			})
			return set == len(names), err
		},
		Do: u.c.Exec(does, nil),
	}
}

// settingsBack are the effects that put a server's settings back to what stood
// there before.
func (u *Upgrade) settingsBack(s *survey.Survey, side string) []flow.Effect {
	var does []flow.Effect
	for _, name := range systemSettings {
		if v, ok := s.Before(side + "/system/" + name); ok {
			does = append(does, flow.SQL(side, "", "ALTER SYSTEM SET "+name+" = "+pg.Literal(v)))
		} else if name != "max_slot_wal_keep_size" || s.Side(side).Version >= 130000 { // it came with 13
			does = append(does, flow.SQL(side, "", "ALTER SYSTEM RESET "+name))
		}
	}
	return append(does, flow.SQL(side, "", "SELECT pg_reload_conf()"))
}

// duringSettings are the settings of a side for the time of the upgrade. A
// worker that dies costs wal_retrieve_retry_interval, 5 s by default; slots
// that are forgotten must not fill a disk.
func (u *Upgrade) duringSettings(ctx context.Context, side string, version int) (map[string]string, error) {
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
	err := u.c.On(ctx, side, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'").Scan(&keep)
	})
	if err != nil {
		return nil, &pg.Error{Doing: "read max_slot_wal_keep_size", On: u.c.Side(side).String(), Err: err}
	}
	mb := fmt.Sprintf("%dMB", max(u.rb.Catchup.MaxWAL>>20, 1))
	if keep == "-1" || keep+"MB" == mb {
		want["max_slot_wal_keep_size"] = mb
	}
	return want, nil
}
