package survey

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
)

// LinksOf are the links from old to new of some sets.
func (db *Database) LinksOf(sets []string) []link.Link {
	var some []link.Link
	for _, l := range db.Links {
		if slices.Contains(sets, l.Set) {
			some = append(some, l)
		}
	}
	return some
}

// Directed are the links of a database from the serving side, and those back.
func (db *Database) Directed(serving string) (links, way []link.Link) {
	if serving == "new" {
		return db.Way, db.Links
	}
	return db.Links, db.Way
}

// Only is a database whose inventory has the tables of its sets and no others.
func (db *Database) Only() *Database {
	some := *db
	inv := *db.Inventory
	inv.Tables = db.Tables()
	some.Inventory = &inv
	return &some
}

// Tables are those of the sets of a database.
func (db *Database) Tables() []schema.Table {
	var all []schema.Table
	for _, set := range db.Sets {
		all = append(all, set.Tables...)
	}
	slices.SortFunc(all, func(a, b schema.Table) int { return strings.Compare(a.SQL(), b.SQL()) })
	return all
}

// Stays are the tables, quoted, that are not moved, or to another cluster.
func (db *Database) Stays() []string {
	names := slices.Clone(db.TablesApart)
	for _, t := range db.Excluded {
		names = append(names, t.SQL())
	}
	return names
}

// ReadTables reads the inventory of every database on the side that serves,
// assigns tables to sets, and names the links.
func (s *Survey) ReadTables(ctx context.Context) error {
	return s.ReadTablesWith(ctx, schema.Filter{NoObjects: true, NoUncalled: true})
}

// ReadTablesWith is ReadTables for who needs less, or more, of what they hold.
func (s *Survey) ReadTablesWith(ctx context.Context, want schema.Filter) error {
	var problems []runbook.Problem
	for _, db := range s.Databases {
		err := s.c.Sessions.Do(ctx, s.Serving().Server.With(db.Name), func(conn *pgx.Conn) error {
			want := want
			want.NoSizes = want.NoSizes && db.Book.Split == 0
			inv, err := schema.Read(ctx, conn, want)
			db.Inventory = inv
			return err
		})
		if err != nil {
			return &pg.Error{Doing: "read what database " + db.Name + " holds", On: s.Serving().Server.String(), Err: err}
		}
		db.Book.Identity = db.Book.Identities(db.Inventory.Tables)
		db.Assign()
		if s.c.Part == "" || s.Serving().Name == "old" { // new has the tables of its own sets alone
			problems = append(problems, db.problems...)
		}
		if err := s.divide(ctx, db); err != nil {
			return err
		}
		if err := s.assigned(ctx, db); err != nil {
			return err
		}
		s.linkUp(db)
	}
	var mistakes []runbook.Problem
	for _, p := range problems {
		if !p.Warning {
			p.File = s.c.Book.File
			mistakes = append(mistakes, p)
		}
	}
	if len(mistakes) > 0 {
		return &runbook.Error{Problems: mistakes}
	}
	return nil
}

// Assign puts every published table into its set. A pattern that names a
// partitioned table takes its whole tree; otherwise leaves are matched by
// their own names. Where the tool is to make the sets, patterns say only what
// is excluded.
func (db *Database) Assign() {
	var names []runbook.TableName
	leaves := map[runbook.TableName][]runbook.TableName{}
	roots := db.roots()
	for i := range db.Inventory.Tables {
		t := &db.Inventory.Tables[i]
		root := roots[t.OID]
		for _, p := range db.Book.Exclude {
			t.Excluded = t.Excluded || p.Match(t.Schema, t.Name) || p.Match(root.Schema, root.Name)
		}
		if t.Excluded {
			db.Excluded = append(db.Excluded, *t)
		}
		if t.Kind != 'r' || t.Persistence != 'p' || t.Extension != "" && !t.ExtConfig {
			continue
		}
		name := runbook.TableName{Schema: t.Schema, Name: t.Name}
		if db.named(root) {
			name = root
		}
		if leaves[name] == nil {
			names = append(names, name)
		}
		leaves[name] = append(leaves[name], runbook.TableName{Schema: t.Schema, Name: t.Name})
	}
	a := runbook.Assign(db.Book, names)
	db.problems = a.Problems
	for _, set := range a.Sets {
		out := schema.Set{Name: set.Name}
		for _, n := range set.Tables {
			for _, leaf := range leaves[n] {
				if t := db.Inventory.Find(leaf.Schema, leaf.Name); t != nil && !t.Excluded {
					out.Tables = append(out.Tables, *t)
				}
			}
		}
		db.Sets = append(db.Sets, out)
	}
	if db.Book.Split > 0 {
		db.Sets = db.Inventory.Split(db.Book.Split)
	}
}

// assigned replaces what the runbook says of sets by what has been published,
// once there are publications: a table stays in the set that it was copied
// with, and tables that were made since are a set of their own, because the
// slots of the others began before they were published.
func (s *Survey) assigned(ctx context.Context, db *Database) error {
	if z := s.Zero(); z == nil {
		return nil
	}
	published := map[string][]runbook.TableName{}
	prefix := link.Name(true, s.c.Book.Upgrade, s.Tag(db), "")
	side := s.Serving()
	if side.Name == "new" {
		prefix = link.Name(false, s.c.Book.Upgrade, s.Tag(db), "")
	}
	err := s.c.Sessions.Do(ctx, side.Server.With(db.Name), func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT substr(p.pubname, length($1) + 1), n.nspname::text, c.relname::text
			FROM pg_publication p LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid
			LEFT JOIN pg_class c ON c.oid = r.prrelid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
			WHERE starts_with(p.pubname, $1) ORDER BY 1, 2, 3`, prefix)
		if err != nil {
			return err
		}
		var set string
		var schema, name *string
		_, err = pgx.ForEachRow(rows, []any{&set, &schema, &name}, func() error {
			published[set] = append(published[set], runbook.TableName{})
			if schema != nil && *schema != "crossfade" {
				published[set] = append(published[set], runbook.TableName{Schema: *schema, Name: *name})
			}
			return nil
		})
		return err
	})
	if err != nil {
		return &pg.Error{Doing: "read what is published of " + db.Name, On: side.Server.String(), Err: err}
	}
	db.Published = map[string]bool{}
	for set := range published {
		db.Published[set] = true
	}
	if taken := s.ofThis(db, published); len(published) > 0 {
		db.keep(published, taken)
	}
	return nil
}

// laterSet begins the names of sets of tables that were made since prepare.
const laterSet = "later"

// keep makes the sets what published says; what is in none is a set of its
// own, named later1, later2 …, but none of taken.
func (db *Database) keep(published map[string][]runbook.TableName, taken []string) {
	in := map[runbook.TableName]string{}
	for set, tables := range published {
		for _, t := range tables {
			in[t] = set
		}
	}
	var sets []schema.Set
	at := map[string]int{}
	add := func(name string) {
		if _, ok := at[name]; !ok {
			at[name] = len(sets)
			sets = append(sets, schema.Set{Name: name})
		}
	}
	for _, set := range db.Sets {
		add(set.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(published)) {
		add(name)
	}
	var fresh []schema.Table
	for _, set := range db.Sets {
		for _, t := range set.Tables {
			if name, ok := in[runbook.TableName{Schema: t.Schema, Name: t.Name}]; ok {
				sets[at[name]].Tables = append(sets[at[name]].Tables, t)
				continue
			}
			if _, made := published[set.Name]; !made {
				sets[at[set.Name]].Tables = append(sets[at[set.Name]].Tables, t)
				continue
			}
			fresh = append(fresh, t)
		}
	}
	if len(fresh) > 0 {
		n := 1
		for had := true; had; {
			name := fmt.Sprintf("%s%d", laterSet, n)
			if _, had = at[name]; had || slices.Contains(taken, name) {
				had = true
				n++
			}
		}
		sets = append(sets, schema.Set{Name: fmt.Sprintf("%s%d", laterSet, n), Tables: fresh})
	}
	db.Sets = sets
}

// named reports whether a set's pattern, other than the one for everything,
// matches a table.
func (db *Database) named(t runbook.TableName) bool {
	for _, set := range db.Book.Sets {
		for _, p := range set.Tables {
			if !p.Everything() && p.Match(t.Schema, t.Name) {
				return true
			}
		}
	}
	return false
}

// roots are the topmost partitioned tables above every table, itself where
// there is none.
func (db *Database) roots() map[uint32]runbook.TableName {
	roots := make(map[uint32]runbook.TableName, len(db.Inventory.Tables))
	by := make(map[uint32]*schema.Table, len(db.Inventory.Tables))
	for i := range db.Inventory.Tables {
		by[db.Inventory.Tables[i].OID] = &db.Inventory.Tables[i]
	}
	for oid, t := range by {
		for t.Partition && len(t.Parents) > 0 && by[t.Parents[0]] != nil {
			t = by[t.Parents[0]]
		}
		roots[oid] = runbook.TableName{Schema: t.Schema, Name: t.Name}
	}
	return roots
}

// Tag is how a database stands in names. The oid in it is old's, also where
// only new answers.
func (s *Survey) Tag(db *Database) string {
	if v, ok := s.Before("tag/" + db.Name); ok {
		return v
	}
	return link.DatabaseTag(db.Name, db.OID)
}

// linkUp names the links of a database in both directions.
func (s *Survey) linkUp(db *Database) {
	tag := s.Tag(db)
	old := link.End{Side: "old", Server: s.c.Old.With(db.Name), Version: s.Old.Version}
	fresh := link.End{Side: "new", Server: s.c.New.With(db.Name), Version: s.New.Version}
	for _, set := range db.Sets {
		l := link.Link{
			Name: link.Name(true, s.c.Book.Upgrade, tag, set.Name), Database: db.Name, Set: set.Name, Forward: true,
			From: old, To: fresh, Conninfo: s.c.OldFromNew.With(db.Name).Conninfo(), Secret: s.c.OldFromNew.Secret(), Tables: set.Tables,
		}
		db.Links = append(db.Links, l)
		l.Name, l.Forward = link.Name(false, s.c.Book.Upgrade, tag, set.Name), false
		l.From, l.To = fresh, old
		l.Conninfo, l.Secret = s.c.NewFromOld.With(db.Name).Conninfo(), s.c.NewFromOld.Secret()
		db.Way = append(db.Way, l)
	}
}
