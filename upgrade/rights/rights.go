// Package rights keeps functions of ordinary roles from running with the tool's
// rights. A function that a CHECK, a domain, a generated column, a partition key
// or an index calls runs with the rights of whatever session writes the row,
// validates the constraint, or merely plans a query over the table: in a session
// of the tool, as a superuser.
//
// Read finds what of a database runs such functions. Where there is any, Logins
// opens sessions that have the rights of the table's owner and no others: they
// log in as a role that is a member of the owner and of nothing else, so that
// neither RESET ROLE nor RESET SESSION AUTHORIZATION leads anywhere. What the
// tool restores is made without running the functions, and validated in such a
// session (Defer).
package rights

import (
	"context"
	"embed"
	"fmt"
	"slices"
	"strings"
	"text/template"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

var queries = template.Must(template.New("").Funcs(template.FuncMap{
	"since": func(int) bool { return false }, // replaced for each version
}).ParseFS(sqlFiles, "sql/*.sql"))

func query(name string, version int) string {
	t := template.Must(queries.Clone()).Funcs(template.FuncMap{
		"since": func(major int) bool { return version >= major*10000 },
	})
	var b strings.Builder
	if err := t.ExecuteTemplate(&b, name+".sql", nil); err != nil {
		panic("rights: " + err.Error()) // the files are part of the program
	}
	return pg.Spelled(b.String(), version)
}

// LastAsOwner is the last major whose apply workers run all code as the owner of the
// subscription, a superuser; later ones switch to the table's owner.
const LastAsOwner = 15

// Kind is what of a table runs a function.
type Kind string

// The kinds.
const (
	Check      Kind = "check"
	Generated  Kind = "generated"
	Index      Kind = "index"     // its expressions or its predicate
	Exclusion  Kind = "exclusion" // the same of an exclusion constraint
	Statistics Kind = "statistics"
	Trigger    Kind = "trigger" // enabled ALWAYS or REPLICA
	OfDomain   Kind = "domain"  // the type of a column
	Partition  Kind = "partition"
	Default    Kind = "default" // of a column, for rows that are applied without it
	// ForeignKey calls an implicit cast to compare, or is over a table of which Folds
	// is true: it is validated by a query.
	ForeignKey Kind = "foreign-key"
	// Literal is a stored expression that runs the check of a domain when it is read,
	// where that check must be there before it. It belongs to no table.
	Literal Kind = "literal"
	// EventTrigger belongs to no table, and is enabled ALWAYS or REPLICA.
	EventTrigger Kind = "event-trigger"
	// Query is that of a superuser's materialized view, with all that it leads to.
	Query Kind = "query"
)

// Code is a function of a role that is no superuser, and what of a table runs it.
type Code struct {
	Kind          Kind
	Schema, Table string
	Owner         string // of the table
	OwnerSuper    bool
	Materialized  bool // the table is a materialized view, which nobody but REFRESH writes
	Partitioned   bool
	Unidentified  bool   // no index of the table is its primary key or replica identity
	What          string // "constraint c", "index i", "column x"
	Function      string // with its arguments
	FunctionOwner string
	// Folds: planning a query over the table may run the function by itself,
	// because it is called with constants alone, or because its SQL may be put in
	// its place and have such calls.
	Folds bool
}

// Name is the table as schema.Table.SQL writes it.
func (c Code) Name() string { return pg.Ident(c.Schema, c.Table) }

// OnApply says whether it may run where a row is applied: a default for a column that
// the row comes without, because the serving side has dropped it; a trigger that
// fires on apply until the tool, which makes it there, disables it.
func (c Code) OnApply() bool { return c.written() || c.Kind == Default || c.Kind == Trigger }

// written says whether it runs where a row with all its columns is written.
func (c Code) written() bool {
	switch c.Kind {
	case Check, Generated, Index, Exclusion, OfDomain, Partition:
		return !c.Materialized
	}
	return false
}

// Domain is a check of a domain that runs functions of ordinary roles.
type Domain struct {
	Schema, Name, Owner string
	OwnerSuper          bool
	Constraint          string
	Definition          string // CHECK (…)
	Valid               bool
	// Contained: a column has it inside an array, a row or a range. Then PostgreSQL
	// cannot validate the check any more once the table is there.
	Contained bool
	// Function is one that the check runs, with its arguments.
	Function, FunctionOwner string
}

// SQL is the quoted name of the domain.
func (d Domain) SQL() string { return pg.Ident(d.Schema, d.Name) }

// Map is all code of ordinary roles that one database runs by itself. The zero
// value is none.
type Map struct {
	Code    []Code
	Domains []Domain
	of      map[string][]Code // by table
	super   map[string]bool
}

// Read finds it in the database of conn: two queries over the catalogs, in which
// nothing runs. Bodies of functions that are strings are not looked into: what
// they call runs as part of them.
func Read(ctx context.Context, conn *pgx.Conn, version int) (*Map, error) {
	m := &Map{of: map[string][]Code{}, super: map[string]bool{}}
	rows, err := conn.Query(ctx, query("code", version))
	if err == nil {
		var c Code
		var exprs string
		var all, sql []uint32
		_, err = pgx.ForEachRow(rows, []any{&c.Kind, &c.Schema, &c.Table, &c.Owner, &c.OwnerSuper, &c.Materialized, &c.Partitioned, &c.Unidentified, &c.What, &c.Function, &c.FunctionOwner, &exprs, &all, &sql}, func() error {
			c.Folds = folds(exprs, all, sql)
			m.add(c)
			return nil
		})
	}
	if err == nil {
		err = m.readQueries(ctx, conn, version)
	}
	if err == nil && slices.ContainsFunc(m.Code, func(c Code) bool { return c.Folds }) {
		err = m.readKeys(ctx, conn, version)
	}
	if err == nil {
		if rows, err = conn.Query(ctx, eventTriggers); err == nil {
			c := Code{Kind: EventTrigger}
			_, err = pgx.ForEachRow(rows, []any{&c.Owner, &c.OwnerSuper, &c.What, &c.Function, &c.FunctionOwner}, func() error {
				m.Code = append(m.Code, c)
				return nil
			})
		}
	}
	if err == nil {
		if rows, err = conn.Query(ctx, query("domains", version)); err == nil {
			m.Domains, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Domain])
		}
	}
	if err == nil && m.contained() {
		if rows, err = conn.Query(ctx, query("literals", version)); err == nil {
			c := Code{Kind: Literal}
			_, err = pgx.ForEachRow(rows, []any{&c.What, &c.Function, &c.FunctionOwner}, func() error {
				m.Code = append(m.Code, c)
				return nil
			})
		}
	}
	if err == nil {
		if rows, err = conn.Query(ctx, "SELECT rolname::text FROM pg_roles WHERE rolsuper"); err == nil {
			var name string
			_, err = pgx.ForEachRow(rows, []any{&name}, func() error { m.super[name] = true; return nil })
		}
	}
	if err != nil {
		return nil, fmt.Errorf("read what runs functions of ordinary roles: %w", err)
	}
	return m, nil
}

// add adds code of a table.
func (m *Map) add(c Code) {
	m.Code = append(m.Code, c)
	m.of[c.Name()] = append(m.of[c.Name()], c)
}

// readQueries reads what superusers' materialized views run. Where one reads a
// table, its query is planned, which may run what belongs to that table.
func (m *Map) readQueries(ctx context.Context, conn *pgx.Conn, version int) error {
	rows, err := conn.Query(ctx, query("matviews", version))
	if err != nil {
		return err
	}
	type row struct {
		Schema, View, Owner                                   string
		Function, FunctionOwner, What, TableSchema, TableName *string
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	for _, r := range all {
		c := Code{Kind: Query, Schema: r.Schema, Table: r.View, Owner: r.Owner, OwnerSuper: true, Materialized: true}
		if r.Function != nil {
			c.Function, c.FunctionOwner, c.What = *r.Function, *r.FunctionOwner, *r.What
			m.add(c)
			continue
		}
		for _, of := range m.Of(pg.Ident(*r.TableSchema, *r.TableName)) {
			if of.Folds && of.Name() != c.Name() {
				c.Function, c.FunctionOwner, c.What = of.Function, of.FunctionOwner, of.What+" of "+of.Name()
				m.add(c)
			}
		}
	}
	return err
}

// readKeys reads the foreign keys over tables of which Folds is true.
func (m *Map) readKeys(ctx context.Context, conn *pgx.Conn, version int) error {
	rows, err := conn.Query(ctx, query("keys", version))
	if err != nil {
		return err
	}
	c := Code{Kind: ForeignKey}
	var name, schema, table string
	_, err = pgx.ForEachRow(rows, []any{&c.Schema, &c.Table, &c.Owner, &c.OwnerSuper, &c.Partitioned, &name, &schema, &table}, func() error {
		for _, over := range slices.Compact([]string{c.Name(), pg.Ident(schema, table)}) {
			for _, of := range m.Of(over) {
				if c := c; of.Folds {
					c.What, c.Function, c.FunctionOwner = constraint+name, of.Function, of.FunctionOwner
					m.add(c)
				}
			}
		}
		return nil
	})
	return err
}

// constraint begins What of a constraint.
const constraint = "constraint "

const eventTriggers = `
	SELECT o.rolname::text, o.rolsuper, 'event trigger ' || e.evtname, p.oid::regprocedure::text, r.rolname::text
	FROM pg_event_trigger e JOIN pg_proc p ON p.oid = e.evtfoid JOIN pg_roles r ON r.oid = p.proowner JOIN pg_roles o ON o.oid = e.evtowner
	WHERE e.evtenabled IN ('A', 'R') AND NOT r.rolsuper ORDER BY e.evtname`

// Super says whether a role was a superuser when the map was read.
func (m *Map) Super(role string) bool { return m != nil && m.super[role] }

// Of is the code of one table (schema.Table.SQL).
func (m *Map) Of(table string) []Code {
	if m == nil {
		return nil
	}
	return m.of[table]
}

// Filler is the role with whose rights rows must be written into a table before
// anything of it is indexed; "" is anybody's. The checks of domains count: they come
// when all rows are there (Defer), but of a table that is made later they are there.
func (m *Map) Filler(table string) string {
	return m.owner(table, func(c Code) bool {
		return c.written() && c.Kind != Index && c.Kind != Exclusion || c.Folds
	})
}

func (m *Map) contained() bool {
	return m != nil && slices.ContainsFunc(m.Domains, func(d Domain) bool { return d.Contained })
}

// Reader is the role with whose rights queries over a table must be planned; ""
// is anybody's.
func (m *Map) Reader(table string) string {
	return m.owner(table, func(c Code) bool { return c.Folds })
}

// Folds says whether planning a query over a table may run functions.
func (m *Map) Folds(table string) bool {
	return slices.ContainsFunc(m.Of(table), func(c Code) bool { return c.Folds })
}

// Refiller is Filler where indexes and the checks of domains may be there already.
func (m *Map) Refiller(table string) string {
	return m.owner(table, func(c Code) bool { return c.written() || c.Folds })
}

func (m *Map) owner(table string, runs func(Code) bool) string {
	for _, c := range m.Of(table) {
		if runs(c) && !c.OwnerSuper {
			return c.Owner
		}
	}
	return ""
}

// Owners are the roles whose rights Filler, Reader and Defer ask for, sorted: those
// of a copy that is not begun again.
func (m *Map) Owners() []string {
	if m == nil {
		return nil
	}
	var all []string
	for _, c := range m.Code {
		if c.OwnerSuper || c.Materialized {
			continue
		}
		switch c.Kind {
		case Check, Generated, Partition, ForeignKey, OfDomain:
			all = append(all, c.Owner)
		default:
			if c.Folds {
				all = append(all, c.Owner)
			}
		}
	}
	for _, d := range m.Domains {
		if !d.OwnerSuper {
			all = append(all, d.Owner)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Readers are the roles that Reader names, sorted.
func (m *Map) Readers() []string {
	var all []string
	for _, c := range m.Code {
		if !c.OwnerSuper && !c.Materialized && c.Folds {
			all = append(all, c.Owner)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// And is m with what the same database has on the other side.
func (m *Map) And(other *Map) *Map {
	out := m.Without(func(string, string) bool { return false })
	for _, c := range other.Code {
		if !slices.Contains(out.Code, c) {
			out.add(c)
		}
	}
	return out
}

// Beyond is what of m the other side of the same database has not.
func (m *Map) Beyond(other *Map) *Map {
	out := &Map{super: m.super, of: map[string][]Code{}}
	for _, c := range m.Code {
		if !slices.Contains(other.Code, c) {
			out.add(c)
		}
	}
	for _, d := range m.Domains {
		if !slices.ContainsFunc(other.Domains, func(o Domain) bool {
			return o.SQL() == d.SQL() && o.Constraint == d.Constraint && o.Function == d.Function && o.OwnerSuper == d.OwnerSuper
		}) {
			out.Domains = append(out.Domains, d)
		}
	}
	return out
}

// Making is m for what is restored on the other side of the same database: of the
// domains, those whose checks are not there yet.
func (m *Map) Making(other *Map) *Map {
	out := *m
	out.Domains = m.Beyond(other).Domains
	return &out
}

// Without is m without the tables of which drop is true.
func (m *Map) Without(drop func(schema, table string) bool) *Map {
	out := &Map{Domains: m.Domains, super: m.super, of: map[string][]Code{}}
	for _, c := range m.Code {
		if !drop(c.Schema, c.Table) {
			out.add(c)
		}
	}
	return out
}
