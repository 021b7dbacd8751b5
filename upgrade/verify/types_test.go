package verify

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"crossfade/upgrade/pg"
)

// nearly are, by type, two values that a comparison could take for the same:
// the last bit, a trailing blank, a scale, a sign, another spelling.
var nearly = map[string][2]string{
	"bool": {"t", "f"}, "bytea": {`\x00`, `\x0000`}, "char": {"a", "A"}, "name": {"a", "a "}, "text": {"a", "a "}, "varchar": {"", " "},
	"bpchar": {"a", "b"}, "int2": {"1", "-1"}, "int4": {"2147483647", "2147483646"}, "int8": {"9223372036854775807", "9223372036854775806"},
	"float4": {"0.1", "0.10000001"}, "float8": {"0", "-0"}, "numeric": {"1.0", "1.00"}, "money": {"1.50", "1.51"},
	"oid": {"4294967295", "4294967294"}, "tid": {"(0,1)", "(0,2)"}, "xid": {"3", "4"}, "cid": {"3", "4"}, "xid8": {"4294967299", "3"},
	"int2vector": {"1 2", "2 1"}, "oidvector": {"1 2", "1 2 0"}, "uuid": {"00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000001"},
	"json": {`{"a":1}`, `{"a": 1}`}, "jsonb": {`{"a": 1}`, `{"a": 1.0}`}, "jsonpath": {"$.a", "strict $.a"}, "xml": {"<a/>", "<a></a>"},
	"date": {"2026-01-01", "2026-01-02"}, "time": {"00:00:00", "24:00:00"}, "timetz": {"00:00:00+00", "01:00:00+01"},
	"timestamp": {"2026-01-01", "2026-01-01 00:00:00.000001"}, "timestamptz": {"infinity", "-infinity"}, "interval": {"1 mon", "30 days"},
	"bit": {"0", "1"}, "varbit": {"01", "010"}, "point": {"(0,0)", "(0,-0)"}, "lseg": {"[(0,0),(1,1)]", "[(1,1),(0,0)]"},
	"path": {"[(0,0),(1,1)]", "((0,0),(1,1))"}, "box": {"(1,1),(0,0)", "(1,1),(0,0.5)"}, "polygon": {"((0,0),(1,1))", "((1,1),(0,0))"},
	"line": {"{1,2,3}", "{2,4,6}"}, "circle": {"<(0,0),1>", "<(0,0),1.0000000000000002>"},
	"macaddr": {"08:00:2b:01:02:03", "08:00:2b:01:02:04"}, "macaddr8": {"08:00:2b:ff:fe:01:02:03", "08:00:2b:ff:fe:01:02:04"},
	"inet": {"10.0.0.1/8", "10.0.0.1"}, "cidr": {"10.0.0.0/8", "10.0.0.0/9"}, "aclitem": {"postgres=r/postgres", "postgres=r*/postgres"},
	"refcursor": {"a", "a "}, "pg_lsn": {"0/1", "1/0"}, "tsvector": {"'a':1", "'a':2"}, "tsquery": {"'a' & 'b'", "'a' <-> 'b'"},
	"txid_snapshot": {"10:20:", "10:20:15"}, "pg_snapshot": {"10:20:", "10:20:15"},
	"regproc": {"now", "version"}, "regprocedure": {"abs(integer)", "abs(bigint)"}, "regoper": {"|/", "||/"}, "regoperator": {"+(integer,integer)", "+(bigint,bigint)"},
	"regclass": {"pg_class", "pg_type"}, "regcollation": {`"C"`, `"POSIX"`}, "regtype": {"integer", "bigint"}, "regrole": {"postgres", "pg_monitor"},
	"regnamespace": {"public", "pg_catalog"}, "regconfig": {"simple", "english"}, "regdictionary": {"simple", "english_stem"}, "regdatabase": {"postgres", "template1"},
	"int4range": {"[1,2)", "[1,3)"}, "int8range": {"empty", "(,)"}, "numrange": {"[1.0,2]", "[1.00,2]"}, "daterange": {"[2026-01-01,)", "(,2026-01-01)"},
	"tsrange": {"[2026-01-01,2026-01-02)", "[2026-01-01,2026-01-02]"}, "tstzrange": {"(2026-01-01,2026-01-02)", "[2026-01-01,2026-01-02)"},
	"int4multirange": {"{[1,2)}", "{[1,2),[3,4)}"}, "int8multirange": {"{}", "{(,)}"}, "nummultirange": {"{[1.0,2]}", "{[1.00,2]}"},
	"datemultirange": {"{[2026-01-01,)}", "{(,2026-01-01)}"}, "tsmultirange": {"{[2026-01-01,2026-01-02)}", "{[2026-01-01,2026-01-02]}"},
	"tstzmultirange": {"{(2026-01-01,2026-01-02)}", "{[2026-01-01,2026-01-02)}"},
}

// typed is a table with a column of one type, and of its arrays.
type typed struct {
	table  string // qualified, not quoted
	make   string
	fill   string   // four rows of the first value
	spoil  string   // others in some of them
	differ []string // what verify says then
}

// everyType makes a table for every type that PostgreSQL ships and takes from a
// client.
func everyType(w *world) []typed {
	w.tb.Helper()
	rows, err := w.old.Query(w.tb.Context(), db, `
		SELECT typname, typarray <> 0 FROM pg_type
		WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A' AND typname !~ '^_'
		  -- What nobody but the server makes: their input functions raise.
		  AND typname NOT IN ('pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary', 'gtsvector')
		ORDER BY 1`)
	w.lab.Must(err)
	var all []typed
	for _, r := range rows {
		name, array := r[0], r[1] == "t"
		v, ok := nearly[name]
		if !ok {
			w.tb.Errorf("no values of type %s", name)
			continue
		}
		quoted := "pg_catalog." + pg.Ident(name)
		table := pg.Ident("t_" + name)
		a, b := pg.Literal(v[0])+"::"+quoted, pg.Literal(v[1])+"::"+quoted
		columns, aa, bb := "", "", ""
		if array {
			columns, aa, bb = ", va "+quoted+"[]", ", ARRAY["+a+"]", "ARRAY["+b+"]"
		}
		one := typed{
			table: "public.t_" + name, make: fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, v %s%s)", table, quoted, columns),
			fill:   fmt.Sprintf("INSERT INTO %s SELECT g, %s%s FROM generate_series(1, 4) g", table, a, aa),
			spoil:  fmt.Sprintf("UPDATE %s SET v = %s WHERE id = 1; UPDATE %s SET v = NULL WHERE id = 2", table, b, table),
			differ: []string{"id = 1: differs in v", "id = 2: differs in v"},
		}
		if array {
			one.spoil += fmt.Sprintf("; UPDATE %s SET va = %s WHERE id = 3", table, bb)
			one.differ = append(one.differ, "id = 3: differs in va")
		}
		all = append(all, one)
	}
	return all
}

// TestEveryType: a value, a NULL and an element of an array that differ are
// found in columns of every type that PostgreSQL ships and takes from a client.
func TestEveryType(t *testing.T) {
	w := newWorld(t, 15, 18, "SELECT 1")
	want := map[string][]string{}
	var make, fill, spoil []string
	for _, one := range everyType(w) {
		want[one.table] = one.differ
		make, fill, spoil = append(make, one.make), append(fill, one.fill), append(spoil, one.spoil)
	}
	w.lab.Exec(w.old, db, strings.Join(append(slices.Clone(make), fill...), ";\n"))
	w.lab.Exec(w.new, db, strings.Join(make, ";\n"))
	w.follow()
	for table, r := range w.verify(w.options()) {
		if want[table] != nil && (!r.Equal || r.Skipped != "" || r.Rows != 4) {
			t.Errorf("%s, untouched: %+v", table, r)
		}
	}
	w.lab.Exec(w.new, db, strings.Join(spoil, ";\n"))
	for table, r := range w.verify(w.options()) {
		if !slices.Equal(r.Differing, want[table]) {
			t.Errorf("%s: differing %q, want %q", table, r.Differing, want[table])
		}
	}
}

// TestEveryTypeInBinary: where schema says that a table's columns travel in binary
// (schema.Table.Binary), a subscription applies them so, both values of each type,
// from 15 to 18 and back.
func TestEveryTypeInBinary(t *testing.T) {
	for _, majors := range [][2]int{{15, 18}, {18, 15}} {
		t.Run(fmt.Sprintf("%d→%d", majors[0], majors[1]), func(t *testing.T) {
			w := newWorld(t, majors[0], majors[1], "SELECT 1")
			all := everyType(w)
			for _, one := range all {
				w.lab.Exec(w.old, db, one.make)
			}
			binary := map[string]bool{}
			for _, table := range w.tables() {
				binary[table.Schema+"."+table.Name] = table.Binary()
			}
			var spoil []string
			for _, one := range all {
				if !binary[one.table] {
					w.lab.Exec(w.old, db, "DROP TABLE "+pg.Ident("public", strings.TrimPrefix(one.table, "public.")))
					continue
				}
				w.lab.Exec(w.old, db, one.fill)
				w.lab.Exec(w.new, db, one.make)
				spoil = append(spoil, one.spoil)
			}
			if len(spoil) < 40 {
				t.Errorf("only %d types travel in binary", len(spoil))
			}
			w.follow("binary = true")
			w.lab.Exec(w.old, db, strings.Join(spoil, ";\n"))
			for table, r := range w.verify(w.options()) {
				if !r.Equal || r.Skipped != "" {
					t.Errorf("%s: %+v", table, r)
				}
			}
		})
	}
}
