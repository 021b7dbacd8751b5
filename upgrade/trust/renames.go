package trust

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// rename is a replicated table that has another name on old than when its rows
// were copied. A publication knows its tables by OID, a subscription by name: the
// link stops at the first change of the table, and goes on when new's has the
// name, too.
type rename struct {
	oid      uint32
	set      string
	link     string
	from, to runbook.TableName
	// taken: another replicated table had the name before. Changes of this one may
	// have been applied to that one.
	taken bool
}

func (r rename) String() string {
	return schema.Name(r.from.Schema, r.from.Name) + " was renamed to " + schema.Name(r.to.Schema, r.to.Name) + " on old"
}

// renamesOf are the replicated tables of a database that old has renamed.
func renamesOf(db *survey.Database, made map[string]madeLink) []rename {
	had := map[runbook.TableName]bool{}
	for _, m := range made {
		for _, t := range m.names {
			had[t] = true
		}
	}
	var all []rename
	for _, l := range db.Links {
		for oid, was := range made[l.Name].names {
			t := db.Inventory.Table(oid)
			if t == nil || t.Schema == was.Schema && t.Name == was.Name {
				continue
			}
			now := runbook.TableName{Schema: t.Schema, Name: t.Name}
			all = append(all, rename{oid: oid, set: l.Set, link: l.Name, from: was, to: now, taken: had[now]})
		}
	}
	slices.SortFunc(all, func(a, b rename) int { return strings.Compare(a.from.String(), b.from.String()) })
	return all
}

// renameSQL gives new's tables the names that old's have, over names that nobody
// has, because two may have been swapped; and the marks of their rows with them.
// owners are those of old's schemas, which new may lack.
func renameSQL(all []rename, owners map[string]string) (string, error) {
	var away, back []string
	for _, r := range all {
		between := fmt.Sprintf("crossfade_renamed_%d", r.oid)
		loaded := func(t runbook.TableName) string {
			return pg.Literal("loaded/" + r.set + "/" + schema.Name(t.Schema, t.Name))
		}
		middle := runbook.TableName{Schema: r.from.Schema, Name: between}
		name, err := json.Marshal(storedName(r.to))
		if err != nil {
			return "", err
		}
		away = append(away, schema.RenameMarks(r.from.Schema, r.from.Name, middle.Schema, middle.Name),
			"ALTER TABLE "+pg.Ident(r.from.Schema, r.from.Name)+" RENAME TO "+pg.Ident(between),
			"UPDATE crossfade.ledger SET key = "+pg.Literal("loaded/"+r.set+"/"+between)+" WHERE key = "+loaded(r.from))
		if r.from.Schema != r.to.Schema {
			away = append(away, "CREATE SCHEMA IF NOT EXISTS "+pg.Ident(r.to.Schema)+" AUTHORIZATION "+pg.Ident(owners[r.to.Schema]))
			back = append(back, "ALTER TABLE "+pg.Ident(r.from.Schema, between)+" SET SCHEMA "+pg.Ident(r.to.Schema))
		}
		back = append(back, schema.RenameMarks(middle.Schema, middle.Name, r.to.Schema, r.to.Name),
			"ALTER TABLE "+pg.Ident(r.to.Schema, between)+" RENAME TO "+pg.Ident(r.to.Name),
			"UPDATE crossfade.ledger SET key = "+loaded(r.to)+" WHERE key = "+pg.Literal("loaded/"+r.set+"/"+between),
			fmt.Sprintf("UPDATE crossfade.ledger SET value = jsonb_set(value, '{names,%d}', %s) WHERE key = %s", r.oid, pg.Literal(string(name)), pg.Literal("link/"+r.link)))
	}
	return strings.Join(append(away, back...), ";\n"), nil
}

// RenamesStep renames on new what old has renamed; ok: there is something to do.
// It is done in one transaction, before anything is taken away.
func (tr *Trust) RenamesStep(ctx context.Context, s *survey.Survey, db *survey.Database) (step flow.Step, ok bool, err error) {
	if s.Zero() == nil {
		return step, false, nil
	}
	made, err := tr.readLinks(ctx, db)
	if err != nil {
		return step, false, err
	}
	all := renamesOf(db, made)
	if len(all) == 0 {
		return step, false, nil
	}
	owners := map[string]string{}
	err = tr.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT nspname::text, pg_get_userbyid(nspowner)::text FROM pg_namespace")
		if err != nil {
			return err
		}
		var name, owner string
		_, err = pgx.ForEachRow(rows, []any{&name, &owner}, func() error { owners[name] = owner; return nil })
		return err
	})
	if err != nil {
		return step, false, &pg.Error{Doing: "read who owns the schemas of " + db.Name, On: tr.c.Old.String(), Err: err}
	}
	sql, err := renameSQL(all, owners)
	if err != nil {
		return step, false, err
	}
	e := flow.SQL("new", db.Name, sql)
	return flow.Step{
		ID: "renames/" + db.Name, Title: "Rename on new what was renamed in " + db.Name + " of old", Does: []flow.Effect{e}, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			for _, r := range all {
				t.Note("%s: taken along to new", r)
			}
			err := tr.c.In(ctx, "new", db.Name, func(conn *pgx.Conn) error { return pg.Exec(ctx, conn, e.SQL) })
			if err != nil {
				return &pg.Error{
					Doing: "rename tables as old has renamed them", On: tr.c.New.String() + ", database " + db.Name, Err: err,
					Hint: "nothing was changed; rename them on new by hand (BEGIN READ WRITE comes before it), then run crossfade prepare again",
				}
			}
			return nil
		},
	}, true, nil
}
