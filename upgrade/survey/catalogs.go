package survey

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// Partitioned says whether a table (schema.Table.SQL) is one.
func (db *Database) Partitioned(table string) bool {
	return slices.ContainsFunc(db.Inventory.Tables, func(t schema.Table) bool { return t.Kind == 'p' && t.SQL() == table })
}

// WithoutAttached leaves out the indexes that a partition made since prepare
// gets by being attached to its table, which has them on new already.
func (db *Database) WithoutAttached(entries []schema.Entry) []schema.Entry {
	later := map[string]bool{}
	for _, set := range db.Sets {
		for _, t := range set.Tables {
			later[t.SQL()] = t.Partition && strings.HasPrefix(set.Name, laterSet)
		}
	}
	attached := map[string]bool{}
	gets := func(e schema.Entry) bool {
		if !later[e.Table] || e.Stage != schema.Identify && e.Stage != schema.Index {
			return false
		}
		for _, a := range entries {
			if a.Type == "INDEX ATTACH" && a.Schema == e.Schema && (e.Name == a.Name || strings.HasSuffix(e.Name, " "+a.Name)) {
				attached[a.Key()] = true
				return true
			}
		}
		return false
	}
	kept := slices.DeleteFunc(slices.Clone(entries), gets)
	return slices.DeleteFunc(kept, func(e schema.Entry) bool { return e.Type == "INDEX ATTACH" && attached[e.Key()] })
}

// Dump reads the schema of a database of one side.
func (s *Survey) Dump(ctx context.Context, from cutover.Side, db *Database) ([]schema.Entry, []flow.Effect, error) {
	program, err := s.c.Program("pg_dump", s.New.Identity.Major())
	if err != nil {
		return nil, nil, err
	}
	apart := db.Apart
	if from.Name == "new" {
		apart = nil // it has only what goes there
	}
	entries, commands, err := schema.Dump(ctx, from.Server.With(db.Name), program, apart)
	if err != nil {
		return nil, nil, fmt.Errorf("dump the schema of database %s of %s: %w", db.Name, from.Name, err)
	}
	return entries, commands, nil
}

// Differences are those between the catalogs of both sides, of one database.
func Differences(ctx context.Context, c *clusters.Clusters, db *Database) ([]schema.Difference, error) {
	var want, got *schema.Inventory
	g, both := errgroup.WithContext(ctx)
	for side, inv := range map[string]**schema.Inventory{"old": &want, "new": &got} {
		g.Go(func() error {
			return Catalogs(both, c, side, db, func(conn *pgx.Conn) (err error) {
				*inv, err = schema.Read(both, conn, schema.Filter{NoSizes: true, NoUncalled: true})
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var diff []schema.Difference
	err := Catalogs(ctx, c, "new", db, func(conn *pgx.Conn) (err error) {
		diff, err = schema.Compare(ctx, conn, want.Without(db.Apart), got)
		return err
	})
	return diff, err
}

// Catalogs runs f, which has to do with the catalogs of a database on one side.
func Catalogs(ctx context.Context, c *clusters.Clusters, side string, db *Database, f func(*pgx.Conn) error) error {
	if err := c.In(ctx, side, db.Name, f); err != nil {
		return &pg.Error{Doing: "compare the catalogs of " + db.Name, On: c.Side(side).String(), Err: err}
	}
	return nil
}

// Restored says whether a side's database has the mark of each entry.
func Restored(ctx context.Context, c *clusters.Clusters, side string, db *Database, entries []schema.Entry) (bool, error) {
	done := false
	err := c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
		marks, err := schema.Marks(ctx, conn, "toc ")
		done = err == nil
		for _, e := range entries {
			done = done && marks[e.Key()]
		}
		return err
	})
	if pg.SQLState(err) == "3D000" {
		return false, nil
	}
	return done, err
}
