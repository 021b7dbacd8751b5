package rights

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Validation is a constraint that was made NOT VALID, and is valid on old.
type Validation struct {
	Owner string // with whose rights its function runs; "": the tool's, which the runbook accepts
	SQL   string
	// Table and Domain are whose it is, quoted; one of them is "".
	Table, Domain, Constraint string
}

// Valid says whether it is valid by now.
func (v Validation) Valid(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var valid bool
	err := conn.QueryRow(ctx, `SELECT coalesce((SELECT convalidated FROM pg_constraint
		WHERE conname = $1 AND (conrelid <> 0 AND conrelid = to_regclass(nullif($2, '')) OR contypid <> 0 AND contypid = to_regtype(nullif($3, '')))), false)`,
		v.Constraint, v.Table, v.Domain).Scan(&valid)
	if err != nil {
		return false, fmt.Errorf("look whether constraint %s is valid: %w", v.Constraint, err)
	}
	return valid, nil
}

// FirstNotValid is the first major whose foreign keys of partitioned tables can be
// made NOT VALID, and validated with the rights of their owner.
const FirstNotValid = 18

// Defer changes what is restored so that none of it runs a function of an
// ordinary role. Constraints whose function would run while they are made are made
// NOT VALID; those of domains, whose functions run wherever a literal of the domain
// is read (in a view, a default, the bound of a partition), come last of all. What
// is to be validated when all rows are there is the second result. Foreign keys of
// tables that are partitioned stay as they are where major, on which they are made, is
// before FirstNotValid.
func (m *Map) Defer(entries []schema.Entry, major int, partitioned func(table string) bool) ([]schema.Entry, []Validation) {
	if m == nil || len(m.Code)+len(m.Domains) == 0 {
		return entries, nil
	}
	var out, last []schema.Entry
	var todo []Validation
	apart := map[string]bool{} // checks of domains that have an entry of their own
	for _, e := range entries {
		d := m.domainOf(e)
		switch {
		case d != nil && e.Type == "COMMENT":
			e.Stage = schema.Late
			last = append(last, e)
			continue
		case d != nil && e.Type == "CHECK CONSTRAINT":
			apart[d.SQL()+"."+d.Constraint] = true
			e.Stage = schema.Late
			if v := (Validation{Owner: d.as(), Domain: d.SQL(), Constraint: d.Constraint, SQL: "ALTER DOMAIN " + d.SQL() + " VALIDATE CONSTRAINT " + pg.Ident(d.Constraint)}); notValid(&e) {
				todo = append(todo, v)
			}
			last = append([]schema.Entry{e}, last...)
			continue
		}
		if owner, name := m.runsWhenMade(e); owner != "" && !(e.Type == "FK CONSTRAINT" && major < FirstNotValid && partitioned(e.Table)) && notValid(&e) {
			todo = append(todo, Validation{Owner: owner, Table: e.Table, Constraint: name, SQL: "ALTER TABLE ONLY " + e.Table + " VALIDATE CONSTRAINT " + pg.Ident(name)})
		}
		out = append(out, e)
	}
	for _, d := range m.Domains {
		if d.Contained || apart[d.SQL()+"."+d.Constraint] {
			continue
		}
		for i := range out {
			if e := &out[i]; e.Type == "DOMAIN" && e.Schema == d.Schema && e.Name == d.Name {
				e.SQL = strings.TrimRight(e.SQL, " \n") + "\nALTER DOMAIN " + d.SQL() + " DROP CONSTRAINT " + pg.Ident(d.Constraint) + ";"
				add := schema.Entry{
					Type: "CHECK CONSTRAINT", Schema: d.Schema, Name: d.Name + " " + d.Constraint, Owner: d.Owner, Stage: schema.Late,
					SQL: "ALTER DOMAIN " + d.SQL() + " ADD CONSTRAINT " + pg.Ident(d.Constraint) + " " + d.Definition + ";",
				}
				if notValid(&add) {
					todo = append(todo, Validation{Owner: d.as(), Domain: d.SQL(), Constraint: d.Constraint, SQL: "ALTER DOMAIN " + d.SQL() + " VALIDATE CONSTRAINT " + pg.Ident(d.Constraint)})
				}
				last = append([]schema.Entry{add}, last...)
			}
		}
	}
	return append(out, last...), todo
}

// as is the role with whose rights the check of a domain is validated; "" where
// that is a superuser: a member of it would be one, too.
func (d Domain) as() string {
	if d.OwnerSuper {
		return ""
	}
	return d.Owner
}

// Trial is Defer for a database in which everything belongs to the tool: without the
// indexes whose functions PostgreSQL would run, as their tables' owner, to plan them.
func (m *Map) Trial(entries []schema.Entry, major int, partitioned func(table string) bool) []schema.Entry {
	entries, _ = m.Defer(entries, major, partitioned)
	return slices.DeleteFunc(slices.Clone(entries), func(e schema.Entry) bool {
		return (e.Stage == schema.Index || e.Type == "INDEX") && m.Folds(e.Table) // those of materialized views come late
	})
}

// domainOf is the domain whose check an entry makes by itself, or speaks about.
func (m *Map) domainOf(e schema.Entry) *Domain {
	for i := range m.Domains {
		d := &m.Domains[i]
		if d.Contained {
			continue
		}
		switch e.Type {
		case "CHECK CONSTRAINT":
			if e.Schema == d.Schema && e.Name == d.Name+" "+d.Constraint && strings.HasPrefix(e.SQL, "ALTER DOMAIN") {
				return d
			}
		case "COMMENT":
			about := strings.ReplaceAll(e.Name, `"`, "")
			if about == "CONSTRAINT "+strings.ReplaceAll(d.Constraint, `"`, "")+" ON DOMAIN "+strings.ReplaceAll(d.Name, `"`, "") {
				return d
			}
		}
	}
	return nil
}

// runsWhenMade is the owner of a table with a constraint that runs functions where
// rows are there already, and the constraint's name.
func (m *Map) runsWhenMade(e schema.Entry) (owner, name string) {
	for _, c := range m.Of(e.Table) {
		name, ok := strings.CutPrefix(c.What, constraint)
		if !c.OwnerSuper && ok && (c.Kind == Check && e.Type == "CHECK CONSTRAINT" || c.Kind == ForeignKey && e.Type == "FK CONSTRAINT") && e.Name == c.Table+" "+name {
			return c.Owner, name
		}
	}
	return "", ""
}

// notValid adds NOT VALID to the statement that adds a constraint, and says
// whether it lacked it.
func notValid(e *schema.Entry) bool {
	sql := strings.TrimRight(e.SQL, " \n;")
	if strings.HasSuffix(sql, "NOT VALID") {
		return false
	}
	e.SQL = sql + " NOT VALID;"
	return true
}
