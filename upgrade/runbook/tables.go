package runbook

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"crossfade/schema"

	"go.yaml.in/yaml/v4"
)

// Database is a database that is moved.
type Database struct {
	At       Position
	Name     string
	Exclude  []Pattern  // tables that are not moved, and reported
	Identity []Identity // replica identities to set on old, in the order written
	Sets     []Set      // at least one, in the order written
	Split    int        // how many sets the tool is to make, whatever Sets says; 0: Sets is what was written
}

// Identity is a replica identity that prepare sets on old, and finish and
// abort put back.
type Identity struct {
	At    Position
	Table TableName
	Index string // name of the index; "": full, the whole row
	// Of is a pattern with wildcards, in the place of Table: for every table that
	// it matches and that has no other replica identity of its own.
	Of *Pattern
	// ByIndex, of a pattern: a table with an index that can serve gets that one, as
	// check names it, in the place of full.
	ByIndex bool
}

// Identities are the orders for the tables that there are: each of a pattern is one
// for every table that it stands for. A table named by itself is never a pattern's.
func (db Database) Identities(tables []schema.Table) []Identity {
	var out []Identity
	named := map[TableName]bool{}
	for _, id := range db.Identity {
		if id.Of == nil {
			out = append(out, id)
			named[id.Table] = true
		}
	}
	for _, t := range tables {
		name := TableName{t.Schema, t.Name}
		if named[name] {
			continue
		}
		if index, ok := db.Patterned(t); ok {
			out = append(out, Identity{Table: name, Index: index})
		}
	}
	return out
}

// Patterned is what a pattern of identity: orders for a table: an index, "" for
// full. ok: there is such a pattern. It is the same before prepare and after it: a
// table that has FULL or an index already keeps it.
func (db Database) Patterned(t schema.Table) (index string, ok bool) {
	if !t.Published() || t.Identity.Usable && t.Identity.Kind == 'd' || matching(db.Exclude, TableName{t.Schema, t.Name}) >= 0 {
		return "", false
	}
	for _, id := range db.Identity {
		if id.Of == nil || !id.Of.Match(t.Schema, t.Name) {
			continue
		}
		switch {
		case t.Identity.Usable && t.Identity.Kind == 'i':
			return t.Identity.Index, id.ByIndex
		case t.Identity.Kind != 'f' && id.ByIndex:
			return t.Identity.Candidate, true
		}
		return "", true
	}
	return "", false
}

// Set is a table set: one publication, one slot, one subscription.
type Set struct {
	At     Position
	Name   string // [a-z][a-z0-9]{0,14}
	To     string // the cluster that it goes to; "" where there is one
	Tables []Pattern
}

// DefaultDatabase is a database of which the runbook says nothing, or nothing
// of its sets: all tables are one set, `main`.
func DefaultDatabase(name string) Database {
	everything := Pattern{text: "*", schema: nameGlob{globAny}, table: nameGlob{globAny}}
	return Database{Name: name, Sets: []Set{{Name: "main", Tables: []Pattern{everything}}}}
}

// TableName is the name of a table as the catalog has it, without quotes.
type TableName struct{ Schema, Name string }

// String is schema.table, quoted where SQL asks for it. It is a pattern that
// matches this table alone.
func (t TableName) String() string { return Ident(t.Schema) + "." + Ident(t.Name) }

func Ident(s string) string {
	for i, c := range s {
		if c != '_' && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
		}
	}
	if s == "" {
		return `""`
	}
	return s
}

// Pattern is schema.table as the runbook has it. Each part matches the
// catalog's name exactly as written, upper and lower case included: unlike in
// SQL and psql, Orders without quotes is not orders. Outside double quotes *
// stands for any characters, none included, and ? for any one. Within them
// every character is itself, and "" is a double quote; a name with a dot, a
// blank, a comma or a wildcard in it needs them. * alone is every table.
type Pattern struct {
	At            Position
	text          string
	schema, table nameGlob
}

// nameGlob is the characters of a pattern's part, wildcards being negative.
type nameGlob []rune

const (
	globAny rune = -1 // any characters, none included
	globOne rune = -2 // any one character
)

// ParsePattern reads a pattern that stands nowhere.
func ParsePattern(text string) (Pattern, error) {
	p := Pattern{text: text}
	if text == "*" {
		p.schema, p.table = nameGlob{globAny}, nameGlob{globAny}
		return p, nil
	}
	parts := []nameGlob{nil}
	last, quoted, closed := 0, false, false
	for _, c := range text {
		again := closed // the character before was a closing quote
		closed = false
		switch {
		case c == '"' && again: // "" within quotes
			parts[last], quoted = append(parts[last], '"'), true
		case c == '"':
			closed, quoted = quoted, !quoted
		case c == 0:
			return Pattern{}, errors.New("a NUL is in no name")
		case quoted:
			parts[last] = append(parts[last], c)
		case c == '.':
			parts, last = append(parts, nil), last+1
		case c == '*':
			parts[last] = append(parts[last], globAny)
		case c == '?':
			parts[last] = append(parts[last], globOne)
		case unicode.IsSpace(c) || strings.ContainsRune(`,;()'`, c):
			return Pattern{}, fmt.Errorf(`no %q outside double quotes; a name that has one is written public."odd name"`, c)
		default:
			parts[last] = append(parts[last], c)
		}
	}
	switch {
	case quoted:
		return Pattern{}, errors.New("a double quote is not closed")
	case len(parts) == 1:
		return Pattern{}, errors.New("the schema is missing; a table is schema.table, like public.orders")
	case len(parts) > 2:
		return Pattern{}, errors.New("more than one dot; a table is schema.table, and a name with a dot stands in double quotes")
	case len(parts[0]) == 0 || len(parts[1]) == 0:
		return Pattern{}, errors.New("an empty name; a table is schema.table, like public.orders")
	}
	p.schema, p.table = parts[0], parts[1]
	return p, nil
}

// String is the pattern as written.
func (p Pattern) String() string { return p.text }

// Match reports whether the pattern stands for that table.
func (p Pattern) Match(schema, table string) bool {
	return p.schema.match(schema) && p.table.match(table)
}

// Everything reports whether the pattern stands for every table, whatever its
// name: it is * (or *.*), which takes what no other pattern of a database takes.
func (p Pattern) Everything() bool { return p.schema.all() && p.table.all() }

// Exact is the one table that the pattern can stand for, if it has no wildcard.
func (p Pattern) Exact() (TableName, bool) {
	schema, ok := p.schema.exact()
	table, ok2 := p.table.exact()
	return TableName{schema, table}, ok && ok2
}

func (g nameGlob) all() bool {
	for _, c := range g {
		if c != globAny {
			return false
		}
	}
	return len(g) > 0
}

func (g nameGlob) exact() (string, bool) {
	for _, c := range g {
		if c < 0 {
			return "", false
		}
	}
	return string(g), true
}

// match goes back only to the last *, so that its time is bounded by the
// product of the lengths.
func (g nameGlob) match(name string) bool {
	s := []rune(name)
	star, from, i := -1, 0, 0
	for j := 0; j < len(s); {
		switch {
		case i < len(g) && g[i] == globAny:
			star, from = i, j
			i++
		case i < len(g) && (g[i] == globOne || g[i] == s[j]):
			i, j = i+1, j+1
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	return i == len(g) || g[i:].all()
}

var databaseKeys = []keysUnder{{"a database", []string{"name", "exclude", "identity", "sets"}}}

func (r *reader) databases(top *yamlMap) []Database {
	var all []Database
	names := map[string]int{}
	for _, item := range top.some("databases", "[{name: shop}]") {
		m := r.mapping(item, "databases", "a database")
		m.require("name", "the database's name, like name: shop")
		name, ok := m.text("name", "shop")
		db := DefaultDatabase(name)
		db.At = r.at(item)
		switch line, twice := names[name]; {
		case !ok:
		case len(name) > 63:
			r.mistake(m.value("name"), "name: %s is longer than the 63 bytes of a name in PostgreSQL", show(name))
		case twice:
			r.mistake(m.value("name"), "name: %s is the database in line %d already; one entry holds all its sets", show(name), line)
		default:
			names[name] = m.value("name").Line
		}
		db.Exclude = r.exclude(m)
		db.Identity = r.identity(m, db.Exclude)
		switch n := m.value("sets"); {
		case n != nil && n.ShortTag() == "!!int":
			db.Split = int(m.integer("sets", 4, 1))
		case n != nil:
			db.Sets = r.sets(m, db.Exclude)
		}
		all = append(all, db)
	}
	return all
}

// pattern reads one entry of tables or exclude.
func (r *reader) pattern(n *yaml.Node, key string) (Pattern, bool) {
	s, ok := r.scalar(n, key, "public.orders")
	if !ok {
		return Pattern{}, false
	}
	p, err := ParsePattern(s)
	if err != nil {
		r.mistake(n, "%s: %s: %s", key, show(s), err)
		return Pattern{}, false
	}
	p.At = r.at(n)
	return p, true
}

func (r *reader) exclude(m *yamlMap) []Pattern {
	var patterns []Pattern
	seen := map[string]int{}
	for _, n := range m.items("exclude", `["audit.*"]`) {
		p, ok := r.pattern(n, "exclude")
		line, twice := seen[p.text]
		switch {
		case !ok:
		case p.Everything():
			r.mistake(n, "exclude: %s leaves no table to move; leave the database out of databases", p)
		case twice:
			r.mistake(n, "exclude: %s stands in line %d already; once is right", p, line)
		default:
			seen[p.text] = n.Line
			patterns = append(patterns, p)
		}
	}
	return patterns
}

func (r *reader) identity(m *yamlMap, exclude []Pattern) []Identity {
	n := m.value("identity")
	if n == nil {
		return nil
	}
	const right = "public.log: full"
	var all []Identity
	seen := map[TableName]int{}
	pairs, _ := r.pairs(n, "identity", right)
	for _, pair := range pairs {
		p, err := ParsePattern(pair.name)
		if err != nil {
			r.mistake(pair.key, "identity: %s: %s", show(pair.name), err)
			continue
		}
		table, ok := p.Exact()
		if !ok {
			if what, fine := r.scalar(pair.value, "identity", "full"); fine && what != "full" && what != "index" {
				r.mistake(pair.value, "identity: %s is for one table; a pattern such as %s takes full, or index", show(what), show(pair.name))
			} else if fine {
				p.At = r.at(pair.key)
				all = append(all, Identity{At: p.At, Of: &p, ByIndex: what == "index"})
			}
			continue
		}
		if line, twice := seen[table]; twice {
			r.mistake(pair.key, "identity: %s is given in line %d already; once is right", table, line)
			continue
		}
		seen[table] = pair.key.Line
		if i := matching(exclude, table); i >= 0 {
			r.mistake(pair.key, "identity: %s is excluded by %s in line %d; leave one of the two out", table, exclude[i], exclude[i].At.Line)
		}
		what, ok := r.scalar(pair.value, "identity", "full")
		if !ok {
			continue
		}
		index, named := strings.CutPrefix(what, "index:")
		if what != "full" && (!named || strings.TrimSpace(index) == "") {
			r.mistake(pair.value, "identity: %s is none of its values; it is full, or index:<name>", show(what))
			continue
		}
		if !named {
			index = ""
		}
		all = append(all, Identity{At: r.at(pair.key), Table: table, Index: index})
	}
	return all
}
