package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Shape is what a table is made of that ALTER TABLE can change in place.
type Shape struct {
	Columns []ShapeColumn
	Checks  []ShapeCheck
}

// ShapeColumn is one live column. Its texts are as the server prints them with an
// empty search_path.
type ShapeColumn struct {
	Name, Type, Collation, Default string
	NotNull                        bool
	Identity, Generated            string // as in pg_attribute; "" is neither
	// Instant: it was added with a default that is one value for all rows that
	// were there, which ADD COLUMN gives them on the other side, too.
	Instant bool
	// Inherited: it comes from a parent, and is changed there.
	Inherited bool
}

// ShapeCheck is one CHECK constraint of the table's own.
type ShapeCheck struct{ Name, Definition string }

// ReadShapes reads the shape of every user table by its quoted name.
func ReadShapes(ctx context.Context, conn *pgx.Conn) (map[string]*Shape, error) {
	version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, query("shapes", version))
	if err != nil {
		return nil, fmt.Errorf("read what tables are made of: %w", err)
	}
	all := map[string]*Shape{}
	var schema, table string
	var check bool
	var c ShapeColumn
	_, err = pgx.ForEachRow(rows, []any{&schema, &table, &check, &c.Name, &c.Type, &c.Collation, &c.Default, &c.NotNull, &c.Identity, &c.Generated, &c.Instant, &c.Inherited}, func() error {
		name := pg.Ident(schema, table)
		if all[name] == nil {
			all[name] = &Shape{}
		}
		if check {
			all[name].Checks = append(all[name].Checks, ShapeCheck{c.Name, c.Type})
		} else {
			all[name].Columns = append(all[name].Columns, c)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what tables are made of: %w", err)
	}
	return all, nil
}

// Alter is the statement that gives table, which has the shape there, the shape
// now, as far as that can be done without knowing rows: columns that were added
// without a default or with one value for all, columns and checks that are gone,
// checks, defaults and NOT NULL. "": nothing of it is to be done. What is left
// (types, identities, columns whose rows were computed one by one) the comparison
// of the catalogs names. calls: it may call functions for the rows that are there,
// in a check, a default, a generated column or the check of a domain. Pure.
func Alter(table string, now, there *Shape) (sql string, calls bool) {
	if now == nil || there == nil {
		return "", false
	}
	var does []string
	column := func(s *Shape, name string) *ShapeColumn {
		return find(s.Columns, func(c ShapeColumn) bool { return c.Name == name })
	}
	for _, c := range there.Checks {
		if have := find(now.Checks, func(o ShapeCheck) bool { return o.Name == c.Name }); have == nil || have.Definition != c.Definition {
			does = append(does, "DROP CONSTRAINT "+pg.Ident(c.Name))
		}
	}
	for _, c := range there.Columns {
		if column(now, c.Name) == nil && !c.Inherited {
			does = append(does, "DROP COLUMN "+pg.Ident(c.Name))
		}
	}
	for _, c := range now.Columns {
		have := column(there, c.Name)
		switch {
		case c.Inherited:
		case have == nil:
			if add := c.add(); add != "" {
				does = append(does, add)
				// Types of users, whose domains have checks, are printed with their schema.
				calls = calls || strings.Contains(c.Type, ".") || strings.ContainsAny(c.Default, "(.")
			}
		case have.Identity != "" || c.Identity != "" || have.Generated != c.Generated || have.Type != c.Type:
		default:
			alter := "ALTER COLUMN " + pg.Ident(c.Name)
			if c.Default != have.Default && c.Generated == "" {
				if c.Default == "" {
					does = append(does, alter+" DROP DEFAULT")
				} else {
					does = append(does, alter+" SET DEFAULT "+c.Default)
				}
			}
			if c.NotNull && !have.NotNull {
				does = append(does, alter+" SET NOT NULL")
			} else if !c.NotNull && have.NotNull {
				does = append(does, alter+" DROP NOT NULL")
			}
		}
	}
	for _, c := range now.Checks {
		if !slices.Contains(there.Checks, c) {
			does = append(does, "ADD CONSTRAINT "+pg.Ident(c.Name)+" "+c.Definition)
			calls = true
		}
	}
	if len(does) == 0 {
		return "", false
	}
	return "ALTER TABLE " + table + " " + strings.Join(does, ", ") + ";", calls
}

// add is the clause that adds the column; "" where its rows cannot be known.
func (c ShapeColumn) add() string {
	if c.Identity != "" || c.Default != "" && c.Generated == "" && !c.Instant || c.Default == "" && c.NotNull {
		return ""
	}
	out := "ADD COLUMN " + pg.Ident(c.Name) + " " + c.Type
	if c.Collation != "" {
		out += " COLLATE " + c.Collation
	}
	switch {
	case c.Generated == "s":
		out += " GENERATED ALWAYS AS (" + c.Default + ") STORED"
	case c.Generated == "v":
		out += " GENERATED ALWAYS AS (" + c.Default + ")"
	case c.Default != "":
		out += " DEFAULT " + c.Default
	}
	if c.NotNull {
		out += " NOT NULL"
	}
	return out
}
