package load

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// The keys of crossfade.ledger that this package writes:
//
//	loaded/<set>/<table>         the table is loaded
//	chunk/<set>/<table>/emptied  there was made room for its chunks
//	chunk/<set>/<table>/<ctid>   one chunk of it is loaded
//	copied                       the copy has ended once
//	analyzed                     statistics were gathered
//
// The value of the first three is the consistent point of the copy.
func loadedKey(set string, t schema.Table) string { return "loaded/" + set + "/" + t.String() }

func chunkPrefix(set string, t schema.Table) string { return "chunk/" + set + "/" + t.String() + "/" }

const (
	emptiedKey = "emptied"
	copiedKey  = "copied"
)

func (o Options) insertMark(key string, h holes) flow.Effect {
	return o.onNew("INSERT INTO crossfade.ledger (key, value) VALUES (" + pg.Literal(key) + `, '{"point": "$` + h.point + `"}') ON CONFLICT (key) DO NOTHING`)
}

func (o Options) deleteMarks(prefix string) flow.Effect {
	return o.onNew("DELETE FROM crossfade.ledger WHERE starts_with(key, " + pg.Literal(prefix) + ")")
}

// forget takes away every mark of a set's rows.
func (o Options) forget(set string) flow.Effect {
	return o.onNew("DELETE FROM crossfade.ledger WHERE starts_with(key, " + pg.Literal("loaded/"+set+"/") +
		") OR starts_with(key, " + pg.Literal("chunk/"+set+"/") + ")")
}

// flush is the last statement of the step, in a session whose commits wait:
// with it everything that was committed before is on new's disk.
func (o Options) flush() flow.Effect {
	return o.onNew("INSERT INTO crossfade.ledger (key, value) VALUES (" + pg.Literal(copiedKey) +
		`, '{}') ON CONFLICT (key) DO UPDATE SET value = excluded.value`)
}

// marks is the ledger as it stands: the value of each key.
type marks map[string]json.RawMessage

// readMarks reads the whole ledger in one query. Nothing is there, and that is
// no error, where the ledger or the database does not exist yet.
func readMarks(ctx context.Context, conn *pgx.Conn) (marks, error) {
	m := marks{}
	rows, err := conn.Query(ctx, "SELECT key, value::text FROM crossfade.ledger")
	if err == nil {
		var key, value string
		_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
			m[key] = json.RawMessage(value)
			return nil
		})
	}
	switch pg.SQLState(err) {
	case "":
	case undefinedTable, undefinedSchema:
		return marks{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read crossfade.ledger: %w", err)
	}
	return m, nil
}

const (
	undefinedTable    = "42P01"
	undefinedSchema   = "3F000"
	undefinedDatabase = "3D000"
)

// at says whether key is marked, and at which point.
func (m marks) at(key string) (pg.LSN, bool) {
	value, ok := m[key]
	if !ok {
		return 0, false
	}
	return pointOf(value), true
}

func pointOf(value json.RawMessage) pg.LSN {
	var v struct{ Point string }
	var lsn pg.LSN
	if json.Unmarshal(value, &v) != nil || lsn.Scan(v.Point) != nil {
		return 0
	}
	return lsn
}

// whole says whether every table of s is loaded, all at one point, and at the
// given one unless that is 0.
func (m marks) whole(s schema.Set, point pg.LSN) bool {
	for _, t := range s.Tables {
		at, ok := m.at(loadedKey(s.Name, t))
		if !ok || at == 0 {
			return false
		}
		if point == 0 {
			point = at
		}
		if at != point {
			return false
		}
	}
	return true
}

// standing are the sets that need no copy: loaded for a slot that is valid.
func (o Options) standing(ctx context.Context, m marks) (map[string]bool, error) {
	ok := map[string]bool{}
	for _, s := range o.Sets {
		point, valid, err := o.Slot(ctx, s.Name)
		if err != nil {
			return nil, fmt.Errorf("look at the slot of set %s: %w", s.Name, err)
		}
		ok[s.Name] = valid && m.whole(s, point)
	}
	return ok, nil
}

// built says whether every entry is marked.
func (o Options) built(m marks) bool {
	for _, s := range o.Sets {
		for _, t := range s.Tables {
			if slices.ContainsFunc(o.Indexes(t), func(e schema.Entry) bool { return !m.has(e) }) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(slices.Concat(o.Foreign, o.Tail), func(e schema.Entry) bool { return !m.has(e) })
}

// readMarks reads the ledger in a session of its own; nothing is there where
// new lacks the database.
func (o Options) readMarks(ctx context.Context) (marks, error) {
	conn, err := o.New.Connect(ctx)
	if pg.SQLState(err) == undefinedDatabase {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer pg.Leave(conn)
	return readMarks(ctx, conn)
}

// done looks whether nothing is left to do.
func (o Options) done(ctx context.Context) (done bool, err error) {
	m, err := o.readMarks(ctx)
	if err != nil || len(m) == 0 || !o.built(m) {
		return false, err
	}
	ok, err := o.standing(ctx, m)
	if err != nil {
		return false, err
	}
	for _, s := range o.Sets {
		if !ok[s.Name] {
			return false, nil
		}
	}
	return true, nil
}

// ReadReferenced reads which tables of the database of conn foreign keys of
// other tables point to: Options.Referenced, for a run that may have to start
// a set again after the foreign keys.
func ReadReferenced(ctx context.Context, conn *pgx.Conn) (func(schema.Table) bool, error) {
	rows, err := conn.Query(ctx, `
		SELECT DISTINCT n.nspname, c.relname
		FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE f.contype = 'f' AND f.conrelid <> f.confrelid`)
	if err != nil {
		return nil, fmt.Errorf("read what foreign keys point to: %w", err)
	}
	type name struct{ schema, table string }
	found := map[name]bool{}
	var n name
	if _, err := pgx.ForEachRow(rows, []any{&n.schema, &n.table}, func() error {
		found[n] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read what foreign keys point to: %w", err)
	}
	return func(t schema.Table) bool { return found[name{t.Schema, t.Name}] }, nil
}
