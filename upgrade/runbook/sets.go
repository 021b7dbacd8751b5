package runbook

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

var setKeys = []keysUnder{{"a set", []string{"name", "tables", "to"}}}

// sets reads the table sets of a database, and what can be said of them before
// the tables are known.
func (r *reader) sets(m *yamlMap, exclude []Pattern) []Set {
	const right = `[{name: main, tables: ["*"]}]`
	var sets []Set
	names := map[string]int{}
	items := m.some("sets", right)
	for i, item := range items {
		s := r.mapping(item, "sets", "a set")
		s.require("name", "its name, like name: main")
		s.require("tables", `its tables, like tables: ["*"]`)
		set := Set{At: r.at(item)}
		set.To = r.to(s)
		if name, ok := s.word("name", nameForm, nameRight); ok {
			if line, twice := names[name]; twice {
				r.mistake(s.value("name"), "name: %s is the set in line %d already; each has a name of its own", name, line)
			}
			set.Name, names[name] = name, s.value("name").Line
		}
		for _, t := range s.some("tables", `[public.orders, "*"]`) {
			if p, ok := r.pattern(t, "tables"); ok {
				set.Tables = append(set.Tables, p)
				if p.Everything() && i < len(items)-1 {
					r.mistake(t, "tables: %s is every table that no other set has: it stands in the last set, once", p)
				}
			}
		}
		sets = append(sets, set)
	}
	r.overlaps(Database{Sets: sets, Exclude: exclude})
	return sets
}

// overlaps finds what contradicts itself whatever tables there are: tables
// named twice, or named and excluded.
func (r *reader) overlaps(db Database) {
	var named []TableName
	seen := map[string]taker{}
	db.each(func(t taker, p Pattern) {
		if first, twice := seen[p.text]; twice {
			if exact, ok := p.Exact(); t.set != first.set && ok {
				named = append(named, exact) // the conflict below
			} else if t.set == first.set || !p.Everything() { // else it is not in the last set
				r.mistakes = append(r.mistakes, p.At.Problem(fmt.Sprintf("tables: %s stands in line %d already; every table is in exactly one set, once",
					p, db.at(first).At.Line)))
			}
			return
		}
		seen[p.text] = t
		if exact, ok := p.Exact(); ok {
			named = append(named, exact)
			if i := matching(db.Exclude, exact); i >= 0 {
				r.mistakes = append(r.mistakes, p.At.Problem(fmt.Sprintf("tables: %s is excluded by %s in line %d; leave one of the two out",
					p, db.Exclude[i], db.Exclude[i].At.Line)))
			}
		}
	})
	slices.SortFunc(named, func(a, b TableName) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
	})
	r.mistakes = append(r.mistakes, db.distribute(slices.Compact(named)).conflicts(db)...)
}

// Assignment is which table of a database goes where.
type Assignment struct {
	Sets     []AssignedSet // as in the runbook, and in its order
	Excluded []TableName
	// Problems are the mistakes that only the tables show, by position: a
	// pattern that matches nothing, a table in two sets or in none. Warnings
	// are among them.
	Problems []Problem
}

// AssignedSet is a set with its tables, in the order they were given to Assign.
type AssignedSet struct {
	Name   string
	Tables []TableName
}

// Assign puts every table into exactly one set of db, or among the excluded. A
// pattern of its own wins over "*". A table that two sets claim goes to the
// first of them and is a problem; one that no set claims is a problem, too, and
// Goes nowhere. tables is every table of the database that would be published,
// each once. It is a pure function: the same tables in the same order give the
// same answer.
func Assign(db Database, tables []TableName) Assignment {
	d := db.distribute(tables)
	meant := meaning(tables)
	a := Assignment{Excluded: d.excluded, Problems: d.conflicts(db)}
	for i, s := range db.Sets {
		a.Sets = append(a.Sets, AssignedSet{Name: s.Name, Tables: d.sets[i]})
	}
	problem := func(at Position, format string, args ...any) {
		a.Problems = append(a.Problems, at.Problem(fmt.Sprintf(format, args...)))
	}
	db.each(func(t taker, p Pattern) {
		switch name := db.Sets[t.set].Name; {
		case p.At == (Position{}): // a default: a database may have no tables
		case p.Everything() && len(d.sets[t.set]) == 0:
			problem(p.At, "tables: nothing is left for %s in set %s of %s: every table is in another set or excluded; leave the set out", p, name, db.Name)
		case p.Everything() || d.taken[t] > 0:
		case d.missed[t] > 0:
			problem(p.At, "tables: %s in set %s matches only excluded tables of %s; leave one of the two out", p, name, db.Name)
		default:
			problem(p.At, "tables: %s in set %s matches no published table of %s; %s", p, name, db.Name, meant(p.text))
		}
	})
	for i, p := range db.Exclude {
		if d.excludes[i] == 0 {
			problem(p.At, "exclude: %s matches no published table of %s; %s", p, db.Name, meant(p.text))
			a.Problems[len(a.Problems)-1].Warning = true // nothing is lost by it
		}
	}
	exists := make(map[TableName]bool, len(tables))
	for _, t := range tables {
		exists[t] = true
	}
	for _, i := range db.Identity {
		if i.Of == nil && !exists[i.Table] {
			problem(i.At, "identity: %s is no published table of %s; %s", i.Table, db.Name, meant(i.Table.String()))
		}
	}
	if len(d.left) > 0 {
		problem(db.At, `sets: in no set of %s: %s; every table is in exactly one: name it in a set or in exclude, or end with a set of ["*"]`,
			db.Name, tablesOf(d.left))
	}
	a.Problems = sorted(a.Problems)
	return a
}

// taker is a pattern of a database by the numbers of its set and itself.
type taker struct{ set, pattern int }

// distribution is which pattern took which table.
type distribution struct {
	sets     [][]TableName
	excluded []TableName
	left     []TableName // in no set
	excludes []int       // excluded tables by pattern of exclude
	taken    map[taker]int
	missed   map[taker]int // matched, but excluded
	claims   map[[2]taker][]TableName
}

// each calls f for every pattern of the sets, in order.
func (db Database) each(f func(taker, Pattern)) {
	for i, s := range db.Sets {
		for j, p := range s.Tables {
			f(taker{i, j}, p)
		}
	}
}

func (db Database) at(t taker) Pattern { return db.Sets[t.set].Tables[t.pattern] }

// distribute asks each pattern with a wildcard of each table, and finds the
// others by name: ten thousand tables may each be named.
func (db Database) distribute(tables []TableName) distribution {
	d := distribution{
		sets: make([][]TableName, len(db.Sets)), excludes: make([]int, len(db.Exclude)),
		taken: map[taker]int{}, missed: map[taker]int{}, claims: map[[2]taker][]TableName{},
	}
	exact := map[TableName][]taker{}
	var wild []taker
	rest := -1
	db.each(func(t taker, p Pattern) {
		if name, ok := p.Exact(); ok {
			exact[name] = append(exact[name], t)
		} else if p.Everything() {
			rest = t.set
		} else {
			wild = append(wild, t)
		}
	})
	for _, table := range tables {
		takers := slices.Clone(exact[table])
		for _, t := range wild {
			if db.at(t).Match(table.Schema, table.Name) {
				takers = append(takers, t)
			}
		}
		slices.SortFunc(takers, func(a, b taker) int { return cmp.Or(a.set-b.set, a.pattern-b.pattern) })
		excluded := false
		for i, p := range db.Exclude {
			if p.Match(table.Schema, table.Name) {
				d.excludes[i]++
				excluded = true
			}
		}
		count := d.taken
		switch {
		case excluded:
			d.excluded, count = append(d.excluded, table), d.missed
		case len(takers) > 0:
			d.sets[takers[0].set] = append(d.sets[takers[0].set], table)
		case rest >= 0:
			d.sets[rest] = append(d.sets[rest], table)
		default:
			d.left = append(d.left, table)
		}
		for _, t := range takers {
			count[t]++
			if !excluded && t.set != takers[0].set {
				claim := [2]taker{takers[0], t}
				d.claims[claim] = append(d.claims[claim], table)
			}
		}
	}
	return d
}

// conflicts are the tables in two sets, at the later pattern.
func (d distribution) conflicts(db Database) []Problem {
	var problems []Problem
	for claim, tables := range d.claims {
		first, second := db.at(claim[0]), db.at(claim[1])
		problems = append(problems, second.At.Problem(fmt.Sprintf("tables: %s in set %s: %s in set %s already, by %s in line %d; every table is in exactly one set",
			second, db.Sets[claim[1].set].Name, tablesOf(tables)+isOrAre(tables), db.Sets[claim[0].set].Name, first, first.At.Line)))
	}
	return sorted(problems)
}

// matching is the first of patterns that matches, or -1.
func matching(patterns []Pattern, t TableName) int {
	return slices.IndexFunc(patterns, func(p Pattern) bool { return p.Match(t.Schema, t.Name) })
}

// tablesOf names tables, the first of many.
func tablesOf(tables []TableName) string {
	const most = 10
	names := make([]string, 0, most+1)
	for i, t := range tables {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(tables)-most))
			break
		}
		names = append(names, t.String())
	}
	return strings.Join(names, ", ")
}

func isOrAre(tables []TableName) string {
	if len(tables) == 1 {
		return " is"
	}
	return " are"
}

// meaning gives hints at the table that was probably meant. It stops after
// some: ten thousand wrong names compared with as many tables take minutes.
func meaning(tables []TableName) func(pattern string) string {
	hints := 20
	var names []string
	return func(pattern string) string {
		if names == nil {
			for _, t := range tables {
				names = append(names, t.String())
			}
		}
		if hints--; hints >= 0 {
			if near := nearest(pattern, names); near != "" {
				return "did you mean " + near + "?"
			}
		}
		return "upper and lower case count, and the schema is part of the name"
	}
}
