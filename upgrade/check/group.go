package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/pg"
)

// group is how a finding stands among others of its kind: what is said of all of
// them, once, and what is its own in a table.
type group struct {
	says    string   // with %s for how many: "3 tables"
	what    string   // what is counted: "table"
	columns []string // the first is the object
	row     []string
	fix     func(all []Finding) string // nil: the fixes one after the other
}

// among makes f one of its kind: says has a %s where the number of objects and
// what they are called (what, in the singular) stands, and cells are what is its own,
// by the columns after that of the object.
func (f Finding) among(says, what string, columns []string, cells ...string) Finding {
	f.group = &group{says: says, what: what, columns: append([]string{what}, columns...), row: append([]string{f.Object}, cells...)}
	return f
}

// fixedBy sets the fix of all findings of the kind together.
func (f Finding) fixedBy(fix func(all []Finding) string) Finding {
	f.group.fix = fix
	return f
}

// Group makes one finding of those that say the same of several objects: its
// Objects are theirs, its Table has a row for each, its Object is "". What is
// accepted stands apart from what is not. The order is that of the first of each.
func Group(all []Finding) []Finding {
	type key struct {
		id, on, says string
		level        Level
		accepted     bool
	}
	at := map[key]int{}
	var kinds [][]Finding
	for _, f := range all {
		if f.group == nil {
			kinds = append(kinds, []Finding{f})
			continue
		}
		k := key{f.ID, f.On, f.group.says, f.Level, f.Accepted}
		i, seen := at[k]
		if !seen {
			i, at[k] = len(kinds), len(kinds)
			kinds = append(kinds, nil)
		}
		kinds[i] = append(kinds[i], f)
	}
	out := make([]Finding, len(kinds))
	for i, some := range kinds {
		out[i] = some[0]
		if len(some) > 1 {
			out[i] = together(some)
		} else if some[0].Object != "" {
			out[i].Objects = []string{some[0].Object}
		}
	}
	return out
}

func together(some []Finding) Finding {
	f := some[0]
	g := f.group
	f.Object, f.Objects = "", nil
	databases := 0
	for i, one := range some {
		f.Objects = append(f.Objects, one.Object)
		if i == 0 || one.Database != some[i-1].Database {
			databases++
		}
	}
	f.Says = fmt.Sprintf(g.says, count(int64(len(some)), g.what))
	f.Table = &Table{Columns: g.columns}
	if databases > 1 {
		f.Database = ""
		f.Table.Columns = append([]string{"database"}, g.columns...)
	}
	for _, one := range some {
		row := one.group.row
		if databases > 1 {
			row = append([]string{one.Database}, row...)
		}
		f.Table.Rows = append(f.Table.Rows, row)
	}
	if g.fix != nil {
		f.Fix = g.fix(some)
	} else {
		f.Fix = fixes(some)
	}
	return f
}

// fixes are the statements of several findings one after the other, those of
// another database after the command by which psql goes there, and then what is
// for people, once. Those of no database come first: psql is in one already.
func fixes(some []Finding) string {
	var sql, words []string
	some = slices.Clone(some)
	slices.SortStableFunc(some, func(a, b Finding) int {
		switch {
		case a.Database == "" && b.Database != "":
			return -1
		case a.Database != "" && b.Database == "":
			return 1
		}
		return 0
	})
	database := some[0].Database
	several := slices.ContainsFunc(some, func(f Finding) bool { return f.Database != database })
	for i, f := range some {
		began := false
		for line := range strings.Lines(f.Fix) {
			line = strings.TrimRight(line, "\r\n")
			switch {
			case strings.HasSuffix(line, ";"):
				if several && !began && f.Database != "" && (i == 0 || f.Database != database) {
					sql = append(sql, `\connect `+pg.Ident(f.Database))
					database = f.Database
				}
				began = true
				if !slices.Contains(sql, line) || several {
					sql = append(sql, line)
				}
			case line != "" && !slices.Contains(words, line):
				words = append(words, line)
			}
		}
	}
	return lines(append(sql, words...)...)
}
