package survey

import (
	"context"
	"maps"
	"slices"

	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
)

// Elsewhere are the tables of old's database, quoted, that are no part of this.
func (db *Database) Elsewhere() []string { return db.TablesApart }

// divide leaves in a database what goes to the part's cluster. What goes
// elsewhere is read from old, whichever side serves: new has only its own.
func (s *Survey) divide(ctx context.Context, db *Database) error {
	if s.c.Part == "" {
		return nil
	}
	db.Sets = slices.DeleteFunc(db.Sets, func(set schema.Set) bool {
		to, known := db.Book.To(set.Name)
		return known && to != string(s.c.Part)
	})
	if s.OldErr != nil {
		return nil
	}
	return s.c.In(ctx, "old", db.Name, func(conn *pgx.Conn) error {
		whole := &Database{Name: db.Name, Book: db.Book, Inventory: db.Inventory}
		if s.Serving().Name != "old" {
			inv, err := schema.Read(ctx, conn, schema.Filter{NoObjects: true, NoSizes: true, NoUncalled: true})
			if err != nil {
				return &pg.Error{Doing: "read what database " + db.Name + " holds", On: s.c.Old.String(), Err: err}
			}
			whole.Inventory = inv
		}
		whole.Assign()
		var mine, others []uint32
		to := whole.clusters()
		for _, t := range whole.Inventory.Tables {
			if to[t.OID] == string(s.c.Part) {
				mine = append(mine, t.OID)
				continue
			}
			others = append(others, t.OID)
			db.TablesApart = append(db.TablesApart, t.SQL())
		}
		var err error
		if db.Apart, err = schema.ReadApart(ctx, conn, others); err != nil {
			return &pg.Error{Doing: "divide database " + db.Name, On: s.c.Old.String(), Err: err}
		}
		with, err := schema.ReadApart(ctx, conn, mine)
		if err != nil {
			return &pg.Error{Doing: "divide database " + db.Name, On: s.c.Old.String(), Err: err}
		}
		for _, n := range db.Apart.Needs {
			if slices.Contains(with.Needs, n) {
				db.Nowhere = append(db.Nowhere, n)
			}
		}
		if s.Serving().Name == "old" {
			db.Inventory = db.Inventory.Without(db.Apart)
			db.Excluded = slices.DeleteFunc(db.Excluded, func(t schema.Table) bool { return db.Apart.Has(t.SQL()) })
		}
		return nil
	})
}

// clusters is the cluster of every table, by OID: that of its set. A partitioned
// table goes with its partitions; what is in no set goes with the last one.
func (db *Database) clusters() map[uint32]string {
	to := map[uint32]string{}
	for _, set := range db.Sets {
		cluster, _ := db.Book.To(set.Name)
		for _, t := range set.Tables {
			to[t.OID] = cluster
		}
	}
	// From the leaves up: the parents of a leaf may have parents themselves.
	for again := true; again; {
		again = false
		for _, t := range db.Inventory.Tables {
			for _, p := range t.Parents {
				if to[t.OID] != "" && to[p] == "" {
					to[p], again = to[t.OID], true
				}
			}
		}
	}
	last := db.Book.Sets[len(db.Book.Sets)-1].To
	for _, t := range db.Inventory.Tables {
		if to[t.OID] == "" {
			to[t.OID] = last
		}
	}
	return to
}

// ofThis leaves of what has been published what this part has published, and
// returns the names of all sets, which no other may take.
func (s *Survey) ofThis(db *Database, published map[string][]runbook.TableName) (taken []string) {
	taken = slices.Sorted(maps.Keys(published))
	if s.c.Part == "" {
		return taken
	}
	maps.DeleteFunc(published, func(set string, tables []runbook.TableName) bool {
		if to, known := db.Book.To(set); known {
			return to != string(s.c.Part)
		}
		return !slices.ContainsFunc(tables, func(t runbook.TableName) bool { return db.Inventory.Find(t.Schema, t.Name) != nil })
	})
	return taken
}

// only refuses to go on where the upgrade of this name has begun with one new
// cluster, and the runbook has several by now, or the other way round.
func only(ctx context.Context, c *clusters.Clusters, conn *pgx.Conn) error {
	const others = `SELECT coalesce(string_agg(relname, ', ' ORDER BY relname), '') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'crossfade' AND c.relkind = 'r' AND (c.relname = 'upgrade' OR c.relname LIKE 'upgrade\_%') AND c.relname <> ALL ($1::text[])`
	mine := []string{"upgrade"}
	if parts := c.Parts(); parts != nil {
		mine = nil
		for _, p := range parts {
			mine = append(mine, "upgrade_"+string(p.Part))
		}
	}
	var found string
	if err := conn.QueryRow(ctx, others, mine).Scan(&found); err != nil {
		return err
	}
	if found != "" {
		return exit.Errorf(exit.Findings, "finish or abort it first, with the runbook that it was begun with", "an upgrade to other new clusters than those of the runbook has begun (crossfade.%s)", found)
	}
	return nil
}
