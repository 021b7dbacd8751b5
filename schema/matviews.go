package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// MaterializedView is one materialized view.
type MaterializedView struct {
	OID          uint32
	Schema, Name string
	Populated    bool
	Bytes        int64 // as of the last VACUUM, without asking the disk
	// Unique: a unique index covers all rows, so that it can be refreshed
	// CONCURRENTLY.
	Unique bool
}

// String is schema.view as a person reads it.
func (m MaterializedView) String() string { return Name(m.Schema, m.Name) }

// SQL is schema.view, quoted.
func (m MaterializedView) SQL() string { return pg.Ident(m.Schema, m.Name) }

// Refresh is the statement that fills it. Its readers wait meanwhile.
func (m MaterializedView) Refresh() string { return "REFRESH MATERIALIZED VIEW " + m.SQL() }

// RefreshAgain is the statement that brings one up to date that has been filled
// before: where it can, while its readers go on.
func (m MaterializedView) RefreshAgain() string {
	if m.Unique {
		return "REFRESH MATERIALIZED VIEW CONCURRENTLY " + m.SQL()
	}
	return m.Refresh()
}

// ReadMaterializedViews reads the materialized views in the order they must be
// refreshed in: those that others read, directly or through views, first.
// What a function in a view reads is not known to the catalogs.
func ReadMaterializedViews(ctx context.Context, conn *pgx.Conn) ([]MaterializedView, error) {
	const views = `
		SELECT c.oid, n.nspname, c.relname, c.relkind = 'm', c.relispopulated,
		       c.relpages::bigint * current_setting('block_size')::int,
		       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid
		               AND i.indpred IS NULL AND i.indexprs IS NULL),
		       ARRAY(SELECT DISTINCT d.refobjid FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
		             WHERE r.ev_class = c.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid ORDER BY 1)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('v', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'crossfade')
		ORDER BY n.nspname::text COLLATE "C", c.relname::text COLLATE "C"`
	rows, err := conn.Query(ctx, views)
	if err != nil {
		return nil, fmt.Errorf("read materialized views: %w", err)
	}
	var order []uint32
	nodes := map[uint32]viewNode{}
	var v viewNode
	_, err = pgx.ForEachRow(rows, []any{&v.OID, &v.Schema, &v.Name, &v.materialized, &v.Populated, &v.Bytes, &v.Unique, &v.reads}, func() error {
		nodes[v.OID] = v
		order = append(order, v.OID)
		v.reads = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read materialized views: %w", err)
	}
	return refreshOrder(order, nodes), nil
}

type viewNode struct {
	MaterializedView
	materialized bool
	reads        []uint32
}

// refreshOrder is a depth-first walk; views cannot depend on each other in a
// circle, and if the catalogs say so all the same, each is still named once.
func refreshOrder(order []uint32, nodes map[uint32]viewNode) []MaterializedView {
	var out []MaterializedView
	seen := map[uint32]bool{}
	var walk func(oid uint32)
	walk = func(oid uint32) {
		v, ok := nodes[oid]
		if !ok || seen[oid] {
			return
		}
		seen[oid] = true
		for _, r := range v.reads {
			walk(r)
		}
		if v.materialized {
			out = append(out, v.MaterializedView)
		}
	}
	for _, oid := range order {
		walk(oid)
	}
	return out
}

// Analyze are the statements that collect statistics of tables, with target as
// default_statistics_target (0 leaves the server's), biggest first, up to
// batch tables in one (0 is 50). Each statement commits table by table, so it
// must be sent alone, outside of a transaction. Partitioned roots are analyzed
// too: autovacuum never does that.
func Analyze(tables []Table, target, batch int) []string {
	if batch <= 0 {
		batch = 50
	}
	big := slices.Clone(tables)
	slices.SortStableFunc(big, func(a, b Table) int { return int(min(1, max(-1, b.Bytes-a.Bytes))) })
	var out []string
	if target > 0 {
		out = append(out, fmt.Sprintf("SET default_statistics_target = %d", target))
	}
	for part := range slices.Chunk(big, batch) {
		names := make([]string, len(part))
		for i, t := range part {
			names[i] = t.SQL()
		}
		out = append(out, "ANALYZE "+strings.Join(names, ", "))
	}
	if target > 0 {
		out = append(out, "RESET default_statistics_target")
	}
	return out
}
