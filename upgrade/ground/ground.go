// Package ground is what an upgrade has and changes on both clusters beside rows:
// schema crossfade, row 0 of crossfade.upgrade with what stood before, settings,
// replica identities and the fence on tables; and how all of it is taken back.
package ground

import (
	"context"
	"encoding/json"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/scratch"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Ground is that of one upgrade.
type Ground struct {
	c       *clusters.Clusters
	scratch *scratch.Scratch
}

// New is the ground of c.
func New(c *clusters.Clusters, s *scratch.Scratch) *Ground { return &Ground{c, s} }

// rowZero and keepMemory write the row of the upgrade itself.
const (
	rowZero    = "INSERT INTO crossfade.upgrade (attempt, upgrade, state, memory) VALUES (0, $upgrade, 'preparing', $memory) ON CONFLICT (attempt) DO NOTHING"
	KeepMemory = "UPDATE crossfade.upgrade SET memory = $memory WHERE attempt = 0"
)

// effects make the tool's own schema in one database of one side.
func (gr *Ground) effects(s *survey.Survey, side string, db *survey.Database) []flow.Effect {
	sql := []string{"CREATE SCHEMA IF NOT EXISTS crossfade"}
	if db.Name == s.Home {
		// One transaction: a schema without the row would be a stranger's.
		sql[0] += ";\n" + gr.c.Part.Table() + ";\n" + gr.c.Part.Own(rowZero)
	}
	for _, set := range db.Sets {
		sql = append(sql, link.CanaryTable(set.Name))
	}
	if side == "new" {
		sql = append(sql, schema.Ledger("new", db.Name).SQL)
	}
	sql = append(sql, gr.c.Part.Ground(gr.c.Book.Upgrade, side == "new")...)
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
func (gr *Ground) grounded(ctx context.Context, s *survey.Survey, side string, db *survey.Database) (bool, error) {
	end := ""
	if gr.c.Part != "" {
		end = "_" + string(gr.c.Part)
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
	err := gr.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
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

// Step makes the tool's own schema in one database of one side.
func (gr *Ground) Step(s *survey.Survey, side string, db *survey.Database) flow.Step {
	does := gr.effects(s, side, db)
	return flow.Step{
		ID: "ground/" + side + "/" + db.Name, Title: "Make schema crossfade in " + db.Name + " of " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) { return gr.grounded(ctx, s, side, db) },
		Do: func(ctx context.Context, t *flow.Turn) error {
			m, err := gr.Memory(ctx, s)
			if err != nil {
				return err
			}
			b, err := json.Marshal(m)
			if err != nil {
				return err
			}
			vars := map[string]string{"upgrade": pg.Literal(gr.c.Book.Upgrade), "memory": pg.Literal(string(b))}
			return gr.c.Exec(does, func() map[string]string { return vars })(ctx, t)
		},
	}
}
