package verify

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

// queries are the statements that look at one table. What is hashed of a value is
// what the output function of its type writes: blanks at the end of char(n) count,
// so do a numeric's scale, a float's last bit (extra_float_digits) and the sign of
// zero. Everything that text depends on is pinned in the session. Hashes are taken
// in collation C, or texts that a collation calls equal would be.
type queries struct {
	from string // ONLY schema.table AS t
	// row, key and version are hashes: of everything, of what the row is found
	// by (everything, without an identity), of where it lies. text is what a row
	// without an identity is shown by.
	text, row, key, version string
	keyColumns              []schema.Column // nil without an identity
	columns                 []schema.Column
}

func newQueries(t schema.Table) queries {
	q := queries{from: "ONLY " + t.SQL() + " AS t", columns: t.Columns}
	q.text = record(t.Columns)
	q.row = hashed(t.Columns, 0)
	q.version = "hashtextextended((t.xmin::text || t.ctid::text) COLLATE \"C\", 0)"
	q.key = hashed(t.Columns, 1)
	for _, name := range t.Identity.Columns {
		i := slices.IndexFunc(t.Columns, func(c schema.Column) bool { return c.Name == name })
		if i < 0 {
			q.keyColumns = nil
			return q
		}
		q.keyColumns = append(q.keyColumns, t.Columns[i])
	}
	if len(q.keyColumns) > 0 {
		q.key = hashed(q.keyColumns, 1)
	}
	return q
}

func (q queries) keyed() bool { return len(q.keyColumns) > 0 }

// record is the text of some columns of a row.
func record(columns []schema.Column) string {
	parts := make([]string, len(columns))
	for i, c := range columns {
		parts[i] = "t." + pg.Ident(c.Name)
		if c.Type == "bytea" {
			parts[i] = digest(parts[i])
		}
	}
	return "ROW(" + strings.Join(parts, ", ") + ")::text"
}

// digest stands for a bytea: as hexadecimal text, one of more than half a gigabyte
// would not fit.
func digest(v string) string { return "sha256(" + v + ")" }

// longest is how many columns are hashed into each other. PostgreSQL's parser
// cannot nest calls as deep as a table may have columns.
const longest = 64

// hashed is the hash of some columns of a row, a bigint: that of each column is the
// seed of the next one's, so that where a value ends counts, and in which column it
// is. The record's own text says as much, and takes three times as long to write:
// record_out looks at each character.
func hashed(columns []schema.Column, seed int) string {
	all := []string{}
	for part := range slices.Chunk(columns, longest) {
		h := fmt.Sprintf("%d::bigint", seed)
		for _, c := range part {
			h = mixed(c, h)
		}
		all = append(all, h)
	}
	switch len(all) {
	case 0:
		return fmt.Sprintf("%d::bigint", seed)
	case 1:
		return all[0]
	}
	return fmt.Sprintf(`hashtextextended(concat_ws(' ', %s) COLLATE "C", %d)`, strings.Join(all, ", "), seed)
}

// mixed is the hash of a column with a seed; a NULL counts by another seed than what
// stands for it. Common types are taken as they are where that has all of the value
// in it (hashint8extended folds a bigint to half its bits), others as text: by
// concat, because a cast may cut blanks off.
func mixed(c schema.Column, seed string) string {
	v := "t." + pg.Ident(c.Name)
	seed += " # CASE WHEN " + v + " IS NULL THEN 1 ELSE 0 END"
	number := func(v, seed string) string { return "hashint4extended(coalesce(" + v + ", 0), " + seed + ")" }
	text := func(v string) string { return "hashtextextended(" + v + ` COLLATE "C", ` + seed + ")" }
	switch name, _, _ := strings.Cut(c.Type, "("); {
	case strings.HasSuffix(c.Type, "[]"):
	case name == "smallint", name == "integer":
		return number(v, seed)
	case name == "boolean":
		return number(v+"::int4", seed)
	case name == "bigint":
		return number("("+v+" >> 32)::int4", number("(("+v+" << 32) >> 32)::int4", seed))
	case name == "uuid":
		return "uuid_hash_extended(coalesce(" + v + ", '00000000-0000-0000-0000-000000000000'), " + seed + ")"
	case name == "text", name == "character varying":
		return text("coalesce(" + v + ", '')")
	case strings.HasPrefix(name, "timestamp") && strings.HasSuffix(c.Type, " with time zone"):
		return text("coalesce(encode(timestamptz_send(" + v + "), 'hex'), '')")
	case strings.HasPrefix(name, "timestamp") && strings.HasSuffix(c.Type, " without time zone"):
		return text("coalesce(encode(timestamp_send(" + v + "), 'hex'), '')")
	case name == "bytea":
		return text("concat(" + digest(v) + ")")
	}
	return text("concat(" + v + ")")
}

// count is the number of rows; versions adds where they lie, so that a later
// look can tell that nothing moved.
func (q queries) count(versions bool) string {
	if versions {
		return "SELECT count(*), coalesce(sum(" + q.version + "), 0)::text FROM " + q.from
	}
	return "SELECT count(*), '' FROM " + q.from
}

// sum is count and sum of row hashes.
func (q queries) sum() string {
	return "SELECT count(*), coalesce(sum(" + q.row + "), 0)::text FROM " + q.from
}

// buckets is count and sum for each of $1 + 1 buckets of rows by key, $1 + 1 a
// power of two.
func (q queries) buckets() string {
	return "SELECT b, count(*), sum(h)::text FROM (SELECT " + q.key + " & $1::bigint AS b, " + q.row + " AS h FROM " + q.from + ") r GROUP BY b"
}

// inBuckets are the rows of buckets $2, of $1 + 1. Without an identity rows of
// the same text are one, and their number is what is compared.
func (q queries) inBuckets() string {
	join := " JOIN unnest($2::bigint[]) AS w(b) ON w.b = "
	if q.keyed() {
		return q.selectKeyed(false) + " FROM " + q.from + join + "(" + q.key + " & $1::bigint)"
	}
	return `SELECT ARRAY[min(left(x, 200))], k, count(*)::text, sum(v)::text, '{}'::text[] FROM (
		SELECT ` + q.text + ` AS x, ` + q.key + ` AS k, ` + q.version + ` AS v FROM ` + q.from + `) r` +
		join + "(r.k & $1::bigint) GROUP BY k"
}

// selectKeyed selects a row's key as texts, the hash of its key, that of all
// of it, where it lies, and a hash of each column, or none.
func (q queries) selectKeyed(columns bool) string {
	keys := make([]string, len(q.keyColumns))
	for i, c := range q.keyColumns {
		keys[i] = "format('%s', t." + pg.Ident(c.Name) + ")"
	}
	each := "'{}'::text[]"
	if columns {
		parts := make([]string, len(q.columns))
		for i, c := range q.columns {
			parts[i] = mixed(c, "0::bigint") + "::text"
		}
		each = "ARRAY[" + strings.Join(parts, ", ") + "]"
	}
	return "SELECT ARRAY[" + strings.Join(keys, ", ") + "], " + q.key + ", " + q.row + "::text, " + q.version + "::text, " + each
}

// byIndex says whether rows can be found by the values of their key, so that
// the index is used. Other types may lack an operator in reach.
func (q queries) byIndex() bool {
	return q.keyed() && !slices.ContainsFunc(q.keyColumns, func(c schema.Column) bool { return !c.TypeBuiltin })
}

// these are the rows of some keys: $1, $2 … the texts of each column of the
// key where byIndex, else $1 the hashes of the keys.
func (q queries) these() string {
	if !q.byIndex() {
		return q.selectKeyed(true) + " FROM " + q.from + " JOIN unnest($1::bigint[]) AS w(h) ON w.h = " + q.key
	}
	var arrays, names, on []string
	for i, c := range q.keyColumns {
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		names = append(names, fmt.Sprintf("k%d", i+1))
		as := fmt.Sprintf("w.k%d::%s", i+1, c.Type)
		if c.Collation != "" {
			as = "(" + as + ") COLLATE " + c.Collation
		}
		on = append(on, "t."+pg.Ident(c.Name)+" = "+as)
	}
	return q.selectKeyed(true) + " FROM unnest(" + strings.Join(arrays, ", ") + ") AS w(" + strings.Join(names, ", ") + ") JOIN " +
		q.from + " ON " + strings.Join(on, " AND ")
}

// show is a key as a person reads it.
func (q queries) show(key []string) string {
	if !q.keyed() {
		return key[0]
	}
	parts := make([]string, len(key))
	for i, k := range key {
		parts[i] = q.keyColumns[i].Name + " = " + k
	}
	return strings.Join(parts, ", ")
}
