package schema

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Apart is what a database holds that does not go where some of its tables go:
// other tables, and what needs them.
type Apart struct {
	// Relations are these tables, their sequences, and views, quoted as pg.Ident does.
	Relations []string
	// Crossings are what needs them and belongs to a table that does not go with
	// them: neither side can have it.
	Crossings []Crossing
	// Needs are the views and functions that need them, as a person reads it.
	Needs []string

	relations map[string]bool
	objects   map[string]bool    // names, as Object has them
	entries   map[[2]string]bool // schema and name of functions and statistics, as Entry has them
}

// Crossing is an object of a table that needs another table, which goes elsewhere.
type Crossing struct {
	ForeignKey bool
	Object     string // what PostgreSQL calls it: "constraint lines_order_fkey on table lines"
	Needs      string // what it needs, likewise
}

// ReadApart reads what goes elsewhere with tables, which are OIDs of the
// database of conn. No tables: nothing does.
func ReadApart(ctx context.Context, conn *pgx.Conn, tables []uint32) (*Apart, error) {
	a := &Apart{relations: map[string]bool{}, objects: map[string]bool{}, entries: map[[2]string]bool{}}
	if len(tables) == 0 {
		return a, nil
	}
	version, err := serverVersion(ctx, conn)
	if err != nil {
		return nil, err
	}
	// As Dump reads it: the dump calls a function by what the server prints.
	err = quoteAll(ctx, conn, func() error {
		rows, err := conn.Query(ctx, query("apart", version), tables)
		if err != nil {
			return err
		}
		return a.read(rows)
	})
	if err != nil {
		return nil, fmt.Errorf("read what needs the tables that go elsewhere: %w", err)
	}
	return a, nil
}

func (a *Apart) read(rows pgx.Rows) error {
	var kind, schema, name, object, named, what, says, needs string
	at := map[string]int{}
	_, err := pgx.ForEachRow(rows, []any{&kind, &schema, &name, &object, &named, &what, &says, &needs}, func() error {
		says, needs = unquoted(says), unquoted(needs)
		switch kind {
		case "nothing":
			return nil
		case "crosses":
			if says == "" {
				says = object
			}
			// Of several that it needs, such as a table and its index, the table.
			n, seen := at[says]
			if !seen {
				n, at[says] = len(a.Crossings), len(a.Crossings)
				a.Crossings = append(a.Crossings, Crossing{})
			}
			if !seen || strings.HasPrefix(needs, "table ") {
				a.Crossings[n] = Crossing{ForeignKey: what == "foreign key", Object: says, Needs: needs}
			}
			return nil
		case "function", "statistics":
			// The dump calls a function by its types, and in a comment by its arguments.
			a.entries[[2]string{schema, name}] = true
			a.entries[[2]string{schema, named}] = true
		case "index":
		default:
			a.Relations = append(a.Relations, pg.Ident(schema, name))
			a.relations[pg.Ident(schema, name)] = true
		}
		a.objects[object] = true
		if kind != "table" && kind != "sequence" && kind != "index" && kind != "statistics" {
			a.Needs = append(a.Needs, kind+" "+object)
		}
		return nil
	})
	return err
}

// Has says whether a relation, named as pg.Ident does, goes elsewhere.
func (a *Apart) Has(relation string) bool { return a != nil && a.relations[relation] }

// holds says whether o is one of the objects, or belongs to one.
func (a *Apart) holds(o Object) bool {
	name := o.Name
	switch o.Kind {
	case "column":
		return a.objects[name[:max(strings.LastIndex(name, "."), 0)]] || a.above(name)
	case "constraint", "trigger", "rule", "policy":
		_, of, ok := lastCut(name, " on ")
		return ok && a.objects[of]
	case "comment", "security label":
		// "table public.orders", "table column public.orders.id", "trigger t on public.orders"
		if _, of, ok := lastCut(name, " on "); ok && a.objects[of] {
			return true
		}
		for i := range name {
			if name[i] == ' ' && (a.objects[name[i+1:]] || strings.Contains(name, "column ") && a.above(name[i+1:])) {
				return true
			}
		}
		return false
	}
	return a.objects[name]
}

// above says whether name is one of the objects with something after a dot.
func (a *Apart) above(name string) bool {
	for i := range name {
		if name[i] == '.' && a.objects[name[:i]] {
			return true
		}
	}
	return false
}

func lastCut(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// Without is the inventory without what goes elsewhere.
func (i *Inventory) Without(a *Apart) *Inventory {
	if a == nil || len(a.objects) == 0 {
		return i
	}
	out := *i
	in := map[uint32]bool{}
	out.Tables = slices.DeleteFunc(slices.Clone(i.Tables), func(t Table) bool {
		in[t.OID] = !a.Has(t.SQL())
		return !in[t.OID]
	})
	out.ForeignKeys = slices.DeleteFunc(slices.Clone(i.ForeignKeys), func(e Edge) bool { return !in[e.From] || !in[e.To] })
	out.Sequences = slices.DeleteFunc(slices.Clone(i.Sequences), func(s Sequence) bool { return a.Has(s.SQL()) })
	out.MaterializedViews = slices.DeleteFunc(slices.Clone(i.MaterializedViews), func(m MaterializedView) bool { return a.Has(m.SQL()) })
	out.Triggers = slices.DeleteFunc(slices.Clone(i.Triggers), func(t FiringTrigger) bool { return a.fires(t) })
	out.Objects = slices.DeleteFunc(slices.Clone(i.Objects), a.holds)
	return &out
}

func (a *Apart) fires(t FiringTrigger) bool {
	return t.Table != "" && a.Has(pg.Ident(t.Schema, t.Table))
}

// Fire are the triggers but those of tables that go elsewhere.
func (a *Apart) Fire(all []FiringTrigger) []FiringTrigger {
	if a == nil {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), a.fires)
}

// Excluding is DumpEffects's program with what goes elsewhere left out.
func (a *Apart) excluding(run []string) []string {
	if a == nil {
		return run
	}
	for _, r := range a.Relations {
		run = append(run, "--exclude-table="+r)
	}
	return run
}

// without leaves out of a dump what pg_dump cannot leave out by name.
func (a *Apart) without(entries []Entry) []Entry {
	if a == nil || len(a.objects) == 0 {
		return entries
	}
	return slices.DeleteFunc(entries, func(e Entry) bool {
		name := e.Name
		switch e.Type {
		case "COMMENT", "ACL", "SECURITY LABEL":
			if _, rest, ok := strings.Cut(name, " "); ok {
				name = rest
			}
		case "MATERIALIZED VIEW DATA":
			return a.Has(e.Table)
		case "FUNCTION", "PROCEDURE", "AGGREGATE", "STATISTICS":
		default:
			return false
		}
		return a.entries[[2]string{e.Schema, name}]
	})
}
