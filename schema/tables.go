package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

func (i *Inventory) readTables(ctx context.Context, conn *pgx.Conn, want Filter) error {
	rows, err := conn.Query(ctx, query("tables", i.Version), !want.NoSizes)
	if err != nil {
		return err
	}
	i.Tables, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t Table, err error) {
		var kind, persistence string
		err = row.Scan(&t.OID, &t.Schema, &t.Name, &t.Owner, &kind, &persistence, &t.Partition, &t.Parents,
			&t.Pages, &t.Bytes, &t.IndexBytes, &t.Rows, &t.Inserts, &t.Updates, &t.Deletes,
			&t.Extension, &t.ExtConfig, &t.ExtCondition,
			&t.RowSecurity, &t.ForceRLS, &t.Triggers, &t.Fenced, &t.Rules, &t.Tablespace)
		t.Kind, t.Persistence = letter(kind), letter(persistence)
		t.Excluded = want.Excludes(t.Schema, t.Name)
		return t, err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(i.Tables, compareTables)
	const count = `SELECT count(*) FROM pg_largeobject_metadata`
	err = conn.QueryRow(ctx, count).Scan(&i.LargeObjects)
	if pg.SQLState(err) == insufficientPrivilege {
		i.LargeObjects, err = -1, nil
	}
	return err
}

// letter is the value of a catalog column of type "char".
func letter(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}

// byOID is where each table stands in Tables.
func (i *Inventory) byOID() map[uint32]*Table {
	m := make(map[uint32]*Table, len(i.Tables))
	for n := range i.Tables {
		m[i.Tables[n].OID] = &i.Tables[n]
	}
	return m
}

func (i *Inventory) readColumns(ctx context.Context, conn *pgx.Conn) error {
	types, err := readTypes(ctx, conn, i.Version)
	if err != nil {
		return err
	}
	rows, err := conn.Query(ctx, query("columns", i.Version))
	if err != nil {
		return err
	}
	tables := i.byOID()
	var rel uint32
	var c Column
	var generated, identity string
	_, err = pgx.ForEachRow(rows, []any{
		&rel, &c.Name, &c.Num, &c.Type, &c.TypeOID, &c.NotNull, &generated, &identity, &c.Collation,
	}, func() error {
		if t := tables[rel]; t != nil {
			c.Generated, c.Identity = letter(generated), letter(identity)
			c.TypeBuiltin, c.Equality = types.binary(c.TypeOID), types.equality(c.TypeOID, 0)
			t.Columns = append(t.Columns, c)
		}
		return nil
	})
	return err
}

// typeFacts is a type as the catalogs have it.
type typeFacts struct {
	name     string
	kind     byte // typtype
	array    bool
	of       uint32 // base type of a domain, element of an array
	parts    []uint32
	io       bool // binary input and output
	equality bool // by an operator class of its own
}

type typeTable map[uint32]typeFacts

func readTypes(ctx context.Context, conn *pgx.Conn, version int) (typeTable, error) {
	rows, err := conn.Query(ctx, query("types", version))
	if err != nil {
		return nil, err
	}
	types := typeTable{}
	var oid uint32
	var f typeFacts
	var kind string
	_, err = pgx.ForEachRow(rows, []any{&oid, &f.name, &kind, &f.array, &f.of, &f.parts, &f.io, &f.equality}, func() error {
		f.kind = letter(kind)
		types[oid] = f
		f.parts = nil
		return nil
	})
	return types, err
}

const (
	firstUserOID    = 16384
	firstInitdbOID  = 10000 // from here up to 16383 initdb gives OIDs, differently in each major
	xmlOID          = 142   // its binary form carries an encoding of its own
	deepestTypeNest = 64
)

// binary says whether values of the type look the same in binary COPY on every
// major and on both sides. The element's OID stands in an array's binary form;
// ranges and domains hold no OID; enums and composites do or differ.
func (t typeTable) binary(oid uint32) bool {
	f, ok := t[oid]
	if !ok || !f.io || oid == xmlOID || oid < firstUserOID && strings.HasPrefix(f.name, "reg") {
		return false
	}
	switch f.kind {
	case 'b':
		if f.array {
			return f.of < firstInitdbOID && t.binary(f.of)
		}
		return oid < firstInitdbOID
	case 'd':
		return t.binary(f.of)
	case 'r', 'm':
		return len(f.parts) == 1 && t.binary(f.parts[0])
	}
	return false
}

// equality says whether the type has an equality operator as the apply worker
// looks for it under REPLICA IDENTITY FULL.
func (t typeTable) equality(oid uint32, depth int) bool {
	f, ok := t[oid]
	if !ok || depth > deepestTypeNest {
		return false
	}
	switch f.kind {
	case 'e', 'r', 'm':
		return true
	case 'd':
		return t.equality(f.of, depth+1)
	case 'c':
		return len(f.parts) > 0 && !slices.ContainsFunc(f.parts, func(p uint32) bool { return !t.equality(p, depth+1) })
	}
	if f.equality {
		return true
	}
	return f.array && t.equality(f.of, depth+1)
}

// uniqueIndex is a unique index of a table, as sql/identities.sql reads it.
type uniqueIndex struct {
	name             *string
	primary, chosen  *bool
	whole, immediate *bool
	columns          []string
	notNull          bool
	keys             *int
}

func (i *Inventory) readIdentities(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, query("identities", i.Version))
	if err != nil {
		return err
	}
	tables := i.byOID()
	indexes := map[uint32][]uniqueIndex{}
	var rel uint32
	var kind string
	var x uniqueIndex
	_, err = pgx.ForEachRow(rows, []any{
		&rel, &kind, &x.name, &x.primary, &x.chosen, &x.whole, &x.immediate, &x.columns, &x.notNull, &x.keys,
	}, func() error {
		if t := tables[rel]; t != nil {
			t.Identity.Kind = letter(kind)
			if x.name != nil {
				indexes[rel] = append(indexes[rel], x)
			}
		}
		x = uniqueIndex{}
		return nil
	})
	for n := range i.Tables {
		t := &i.Tables[n]
		t.Identity = identify(*t, indexes[t.OID])
	}
	return err
}

// GeneratedOf is the first of columns that is generated; "" where none is. Such a
// column does not travel, so that no row is found by it.
func (t Table) GeneratedOf(columns []string) string {
	for _, c := range t.Columns {
		if c.Generated != 0 && slices.Contains(columns, c.Name) {
			return c.Name
		}
	}
	return ""
}

// identify judges what a table's rows are found by. Pure.
func identify(t Table, indexes []uniqueIndex) Identity {
	id := Identity{Kind: t.Identity.Kind}
	use := func(x uniqueIndex, what string) {
		id.Index, id.Columns = *x.name, x.columns
		switch {
		case !*x.immediate:
			id.Why = fmt.Sprintf("its %s %s is deferrable", what, *x.name)
		case !*x.whole:
			id.Why = fmt.Sprintf("its %s %s is not valid", what, *x.name)
		default:
			id.Usable = true
		}
	}
	for _, x := range indexes {
		if id.Kind == 'd' && *x.primary {
			use(x, "primary key")
		}
		if id.Kind == 'i' && *x.chosen {
			use(x, "replica identity index")
		}
	}
	switch {
	case id.Usable || id.Why != "":
	case id.Kind == 'd':
		id.Why = "it has no primary key"
	case id.Kind == 'i':
		id.Why = "the index of its replica identity was dropped"
	case id.Kind == 'n':
		id.Why = "its replica identity is NOTHING"
	case id.Kind == 'f':
		id.Usable = true
		for _, c := range t.Columns {
			if !c.Equality && c.Generated == 0 {
				id.Usable = false
				id.Why = fmt.Sprintf("its replica identity is FULL, and column %s has type %s, which has no equality", Name(c.Name), c.Type)
				break
			}
		}
	}
	if !id.Usable || id.Kind == 'f' {
		for _, x := range indexes { // fewest columns first
			if *x.whole && x.notNull && len(x.columns) == *x.keys && t.GeneratedOf(x.columns) == "" {
				id.Candidate = *x.name
				break
			}
		}
	}
	return id
}

func (i *Inventory) readForeignKeys(ctx context.Context, conn *pgx.Conn) error {
	const edges = `SELECT DISTINCT conrelid, confrelid FROM pg_constraint WHERE contype = 'f' ORDER BY 1, 2`
	rows, err := conn.Query(ctx, edges)
	if err != nil {
		return err
	}
	tables := i.byOID()
	var e Edge
	_, err = pgx.ForEachRow(rows, []any{&e.From, &e.To}, func() error {
		if tables[e.From] != nil && tables[e.To] != nil {
			i.ForeignKeys = append(i.ForeignKeys, e)
		}
		return nil
	})
	return err
}
