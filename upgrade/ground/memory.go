package ground

import (
	"context"
	"encoding/json"
	"maps"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Memory is what row 0 remembers: as it stands, or as it begins.
func (gr *Ground) Memory(ctx context.Context, s *survey.Survey) (cutover.Memory, error) {
	var m cutover.Memory
	found := false
	err := gr.c.In(ctx, "old", s.Home, func(conn *pgx.Conn) error {
		ds, err := gr.c.Part.ReadDecisions(ctx, conn)
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
		if err := gr.readBefore(ctx, s, side, m.Before); err != nil {
			return m, err
		}
	}
	if err := gr.readApplied(ctx, m.Before); err != nil {
		return m, err
	}
	if err := gr.rememberStood(ctx, s, m.Before); err != nil {
		return m, err
	}
	names, err := s.OldSynchronous(ctx)
	if err == nil && len(gr.c.Book.New[0].Successors()) > 0 {
		m.Before[OldSynchronousNames] = names
	}
	if err != nil {
		return m, err
	}
	return m, gr.inherit(ctx, m.Before)
}

// readBefore reads the settings of one side that the upgrade will change.
func (gr *Ground) readBefore(ctx context.Context, s *survey.Survey, side string, before map[string]string) error {
	err := gr.c.On(ctx, side, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT d.datname || '/default_transaction_read_only', split_part(c, '=', 2)
			FROM pg_db_role_setting r JOIN pg_database d ON d.oid = r.setdatabase, unnest(r.setconfig) c
			WHERE r.setrole = 0 AND c LIKE 'default_transaction_read_only=%'
			UNION ALL
			SELECT 'system/' || name, setting FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf' AND name = ANY ($1)`, append([]string{"synchronous_standby_names"}, SystemSettings...))
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
		return &pg.Error{Doing: "read the settings that the upgrade changes", On: gr.c.Side(side).String(), Err: err}
	}
	return nil
}

// Remember changes what row 0 remembers, on old and, where it is, on new.
func (gr *Ground) Remember(ctx context.Context, s *survey.Survey, f func(*cutover.Memory)) error {
	m, err := gr.Memory(ctx, s)
	if err != nil {
		return err
	}
	f(&m)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	vars := map[string]string{"memory": pg.Literal(string(b))}
	return gr.c.Do(ctx, flow.SQL("old", s.Home, gr.c.Part.Own(KeepMemory)).Fill(vars))
}

// inherit takes over what another part remembers of old: what that one has
// changed there is not what stood there before the upgrade.
func (gr *Ground) inherit(ctx context.Context, before map[string]string) error {
	for _, p := range gr.c.Siblings() {
		err := gr.c.In(ctx, "old", p.Book.Databases[0].Name, func(conn *pgx.Conn) error {
			ds, err := p.Part.ReadDecisions(ctx, conn)
			for _, d := range ds {
				if d.Attempt != 0 {
					continue
				}
				maps.DeleteFunc(before, func(key, _ string) bool {
					return strings.HasPrefix(key, "old/") && !strings.HasPrefix(key, "old/identity/")
				})
				for key, v := range d.Before {
					if strings.HasPrefix(key, "old/") {
						before[key] = v
					}
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// OldSynchronousNames is where row 0 remembers synchronous_standby_names of old.
const OldSynchronousNames = "old/in force/synchronous_standby_names"
