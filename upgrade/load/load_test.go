package load

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"crossfade/scenarios/lab"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// pgbenchSets are pgbench's tables in two sets.
func (w *world) pgbenchSets() []schema.Set {
	w.tb.Helper()
	big := func(t schema.Table) bool { return t.Name == "pgbench_accounts" || t.Name == "pgbench_branches" }
	return []schema.Set{
		{Name: "big", Tables: w.tables(big)},
		{Name: "rest", Tables: w.tables(func(t schema.Table) bool { return !big(t) })},
	}
}

// TestUnderLoad copies two sets while pgbench writes, in chunks, follows, and
// compares every row. pgbench_history has no key: a doubled row would stay.
func TestUnderLoad(t *testing.T) {
	for _, majors := range [][2]int{{15, 18}, {13, 17}} {
		t.Run(fmt.Sprintf("%d→%d", majors[0], majors[1]), func(t *testing.T) {
			w := newWorld(t, majors[0], majors[1], lab.Options{})
			w.pgbenchInit(2)
			w.restore()
			stop := w.bench("-c", "4", "-R", "1000")
			w.lab.Until(w.old, db, "SELECT count(*) > 100 FROM pgbench_history")
			sets := w.pgbenchSets()
			w.publish(sets...)
			o := w.options(sets...)
			o.Chunk = 3 << 20
			w.must(o)
			w.subscribe(sets...)
			w.lab.Until(w.old, db, "SELECT count(*) > 1000 FROM pgbench_history")
			stop()
			w.caughtUp(sets...)
			w.same(w.tables(nil))
			if w.made != 1 {
				t.Errorf("%d snapshots", w.made)
			}
			chunks := w.lab.Value(w.new, db, "SELECT count(*) FROM crossfade.ledger WHERE starts_with(key, 'chunk/big/public.pgbench_accounts/(')")
			if want := map[int]string{15: "9", 13: "0"}[majors[0]]; chunks != want {
				t.Errorf("pgbench_accounts was copied in %s chunks, want %s", chunks, want)
			}
			if n := w.lab.Value(w.new, db, "SELECT count(*) FROM pg_index WHERE indisprimary AND indrelid::regclass::text LIKE 'pgbench%'"); n != "3" {
				t.Errorf("%s primary keys on new, want 3", n)
			}
			if n := w.lab.Value(w.new, db, "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated"); n != "5" {
				t.Errorf("%s valid foreign keys on new, want 5", n)
			}
			w.silent()
		})
	}
}

// shapes are tables that are easy to copy wrongly.
const shapes = `
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN cents AS numeric(12,2);
CREATE TABLE kinds (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n numeric, c char(5), f float8, r real, j jsonb, js json, a text[], b bytea, cash money,
  g int GENERATED ALWAYS AS (length(t)) STORED, t text, ts timestamptz, i interval, rng int4range, bits bit(3), ip inet, v tsvector, o oid, "char" "char");
INSERT INTO kinds (n, c, f, r, j, js, a, b, cash, t, ts, i, rng, bits, ip, v, o, "char")
  SELECT g / 7.0, 'ab', CASE WHEN g % 2 = 0 THEN '-0'::float8 ELSE random() END, random(), '{"a": 1}', '{"a" : 1}', '{a,NULL,"",","}', '\x00ff5c', g, E'a\\b\n\t\r' || g,
    now(), '1 mon -3 days', '[1,5)', '101', '::1', 'a:1 b:2', 4294967295, 'x' FROM generate_series(1, 1000) g;
CREATE TABLE own (id int PRIMARY KEY, m mood, p pair, d cents, rel regclass, x xml, ms mood[], cash money, s cents[]);
INSERT INTO own SELECT g, 'ok', (g, 'x,"'::text)::pair, 1.5, 'kinds', '<?xml version="1.0"?><a/>', '{ok,sad}', g, '{1.50}' FROM generate_series(1, 1000) g;
CREATE TABLE wide (id int PRIMARY KEY, t text);
ALTER TABLE wide ALTER t SET STORAGE EXTERNAL;
INSERT INTO wide SELECT g, repeat(md5(g::text), 300) FROM generate_series(1, 1000) g;
CREATE TABLE indexed (id int PRIMARY KEY, a int, b text, c numeric UNIQUE, EXCLUDE USING gist (int4range(a, a + 1) WITH &&));
INSERT INTO indexed SELECT g, g, md5(g::text), g FROM generate_series(1, 3000) g;
CREATE INDEX ON indexed (a); CREATE INDEX ON indexed (b); CREATE INDEX ON indexed (a, b); CREATE INDEX ON indexed (upper(b)); CREATE INDEX ON indexed USING gin (to_tsvector('english', b));
CREATE INDEX byb ON indexed (b DESC, (a + 1)); CREATE INDEX ON indexed (c) WHERE a > 5; ALTER TABLE indexed CLUSTER ON byb; COMMENT ON INDEX byb IS 'x'; CREATE STATISTICS st ON a, b FROM indexed; ALTER INDEX byb ALTER COLUMN 2 SET STATISTICS 5;
CREATE TABLE byindex (a int NOT NULL, b text); CREATE UNIQUE INDEX bi ON byindex (a); ALTER TABLE byindex REPLICA IDENTITY USING INDEX bi; INSERT INTO byindex VALUES (1, 'x');
CREATE TABLE part (id int, t text, PRIMARY KEY (id)) PARTITION BY RANGE (id); CREATE INDEX ON part (t);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (100); CREATE TABLE part2 PARTITION OF part DEFAULT PARTITION BY HASH (id);
CREATE TABLE part2a PARTITION OF part2 FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO part SELECT g, 'x' FROM generate_series(0, 500) g;
CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (t text) INHERITS (parent); INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'x');
CREATE TABLE "Odd ""na.me" (id int PRIMARY KEY, "col $slot_point" text, "select" int);
INSERT INTO "Odd ""na.me" VALUES (1, '$slot_point', 2);
CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE computed (g int GENERATED ALWAYS AS (1) STORED); INSERT INTO computed DEFAULT VALUES;
CREATE TABLE dropped (a int, b text, c int, PRIMARY KEY (c)); INSERT INTO dropped VALUES (1, 'x', 2); ALTER TABLE dropped DROP a;
CREATE TABLE empty (id int PRIMARY KEY);
CREATE SCHEMA other; CREATE TABLE other.wide (id int PRIMARY KEY, t text); INSERT INTO other.wide VALUES (1, 'x');
CREATE TABLE cycle1 (id int PRIMARY KEY, other int); CREATE TABLE cycle2 (id int PRIMARY KEY, other int REFERENCES cycle1);
ALTER TABLE cycle1 ADD FOREIGN KEY (other) REFERENCES cycle2; INSERT INTO cycle1 VALUES (1, NULL); INSERT INTO cycle2 VALUES (1, 1); UPDATE cycle1 SET other = 1`

func TestShapes(t *testing.T) {
	w := newWorld(t, 15, 18, lab.Options{}, shapes)
	w.restore()
	sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
	w.publish(sets...)
	o := w.options(sets...)
	o.Chunk = 100 << 10 // wide, kinds and indexed are split, the first by its toast
	w.must(o)
	w.same(sets[0].Tables)
	for name, sql := range map[string]string{
		"indexes":  "SELECT string_agg(pg_get_indexdef(indexrelid) || indisvalid || indisclustered || indisreplident, E'\\n' ORDER BY indexrelid::regclass::text COLLATE \"C\") FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE relnamespace::regnamespace::text IN ('public', 'other')",
		"attached": "SELECT string_agg(inhrelid::regclass || ' of ' || inhparent::regclass, E'\\n' ORDER BY inhrelid::regclass::text COLLATE \"C\") FROM pg_inherits",
		"comments": "SELECT string_agg(description, ',') FROM pg_description WHERE objoid = 'byb'::regclass",
	} {
		if a, b := w.lab.Value(w.old, db, sql), w.lab.Value(w.new, db, sql); a != b {
			t.Errorf("%s: old has\n%s\nnew has\n%s", name, a, b)
		}
	}
	kinds := w.lab.Value(w.new, db, "SELECT count(*) FROM crossfade.ledger WHERE starts_with(key, 'chunk/main/public.wide/(')")
	if kinds == "0" {
		t.Error("wide was not split")
	}
}

// TestEncodings copies bytes that are no UTF-8, without converting them.
// TestLongRows: however long a row is, the tool never holds it as a whole. A table
// that is copied as one needs no freezing any more.
func TestLongRows(t *testing.T) {
	const size = 50_000_000
	w := newWorld(t, 15, 18, lab.Options{}, "CREATE TABLE long (id int PRIMARY KEY, b bytea); ALTER TABLE long ALTER b SET STORAGE external",
		fmt.Sprintf("INSERT INTO long SELECT g, decode(repeat('ab', %d), 'hex') FROM generate_series(1, 3) g", size))
	w.restore()
	sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
	w.publish(sets...)
	o := w.options(sets...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	how, err := w.run(t.Context(), o)
	runtime.ReadMemStats(&after)
	if err != nil || how != "end" {
		t.Fatalf("%s: %v", how, err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > size {
		t.Errorf("3 rows of %d bytes took %d bytes of memory on their way", size, n)
	}
	if n := w.lab.Value(w.new, db, "CREATE EXTENSION pg_visibility; SELECT count(*) || ' of ' || count(*) FILTER (WHERE NOT all_frozen) FROM pg_visibility_map('long')"); n != "1 of 0" {
		t.Errorf("pages of long, of which not frozen: %s", n)
	}
	w.same(sets[0].Tables)
}

func TestEncodings(t *testing.T) {
	for _, encoding := range []string{"SQL_ASCII", "LATIN1"} {
		t.Run(encoding, func(t *testing.T) {
			w := newWorld(t, 15, 17, lab.Options{InitdbArgs: []string{"--encoding=" + encoding, "--locale=C"}})
			w.lab.Exec(w.old, db, "CREATE TABLE a (id int PRIMARY KEY, t text)", `SET client_encoding = `+encoding+`; INSERT INTO a VALUES (1, E'gr\xfc\xdfe\x81'), (2, 'x')`)
			w.restore()
			sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
			w.publish(sets...)
			o := w.options(sets...)
			if _, err := w.run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the database is in "+encoding+", the plan was made for UTF8") {
				t.Errorf("with the wrong encoding: %v", err)
			}
			o.Encoding = encoding
			w.must(o)
			for _, c := range []*lab.Cluster{w.old, w.new} {
				if got := w.lab.Value(c, db, "SELECT encode(convert_to(t, '"+encoding+"'), 'hex') FROM a WHERE id = 1"); got != "6772fcdf6581" {
					t.Errorf("%s has %s", c.Name, got)
				}
			}
		})
	}
}

// TestManySmall is 300 tables in one go; none may cost more than a few round
// trips.
func TestManySmall(t *testing.T) {
	w := newWorld(t, 15, 18, lab.Options{}, `DO $$ BEGIN FOR i IN 1..300 LOOP
		EXECUTE format('CREATE TABLE t%s (id serial PRIMARY KEY, t text UNIQUE)', i); EXECUTE format('INSERT INTO t%s (t) SELECT g FROM generate_series(1, 20) g', i); END LOOP; END $$`)
	w.restore()
	sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
	w.publish(sets...)
	o := w.options(sets...)
	w.must(o)
	w.same(sets[0].Tables)
	for _, want := range []flow.Kind{flow.End, flow.Skip} {
		var how flow.Kind
		w.lab.Must(flow.Run(t.Context(), flow.Plan{Steps: []flow.Step{Analyze(o, sets[0].Tables)}}, nil, func(e flow.Event) { how = e.Kind }))
		if n := w.lab.Value(w.new, db, "SELECT count(DISTINCT tablename) FROM pg_stats WHERE schemaname = 'public'"); n != "300" || how != want {
			t.Errorf("%s: %s tables have statistics, want 300", how, n)
		}
	}
	if n := w.lab.Value(w.new, db, "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE relnamespace = 'public'::regnamespace"); n != "600" {
		t.Errorf("%s indexes on new, want 600", n)
	}
}

// TestWhatThePlanShowsIsWhatRan reads the servers' logs: every write of the
// step is one of its effects, and every effect was seen.
func TestWhatThePlanShowsIsWhatRan(t *testing.T) {
	w := newWorld(t, 15, 18, lab.Options{Settings: map[string]string{"log_statement": "all"}},
		"CREATE TABLE a (id int PRIMARY KEY, t text); CREATE INDEX ON a (t); INSERT INTO a SELECT g, g FROM generate_series(1, 5000) g; CREATE TABLE b (id int PRIMARY KEY REFERENCES a); INSERT INTO b VALUES (1)",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p DEFAULT")
	w.restore()
	sets := []schema.Set{{Name: "main", Tables: w.tables(nil)}}
	w.publish(sets...)
	o := w.options(sets...)
	o.Chunk = 64 << 10
	o.SlotEffects = nil // the test's own
	skip := map[string]int{"old": len(w.old.Log()), "new": len(w.new.Log())}
	w.must(o)

	blanks := strings.NewReplacer("$workers", "*", "$memory", "*", "$slot_point", "*", "$from_ctid", "*", "$to_ctid", "*")
	unseen := map[string]string{} // pattern → effect
	for _, e := range Step(o).Does {
		unseen[e.On+": "+strings.Join(strings.Fields(blanks.Replace(e.SQL)), " ")] = e.SQL
	}
	seen := map[string]bool{}
	for _, c := range []*lab.Cluster{w.old, w.new} {
		for _, sql := range statements(c.Log()[skip[c.Name]:]) {
			got := c.Name + ": " + sql
			known := false
			for pattern := range unseen {
				if matches(pattern, got) {
					known, seen[pattern] = true, true
				}
			}
			word, _, _ := strings.Cut(sql, " ")
			if !known && slices.Contains([]string{"INSERT", "DELETE", "UPDATE", "TRUNCATE", "COPY", "CREATE", "ALTER", "DROP", "SET"}, word) {
				t.Errorf("not in the plan: %s", got)
			}
		}
	}
	for pattern := range unseen {
		if !seen[pattern] {
			t.Errorf("never seen: %s", pattern)
		}
	}
}

// statements are what the tool sent, as log_statement wrote it down.
func statements(log string) (out []string) {
	var sql strings.Builder
	add := func() {
		if sql.Len() > 0 {
			out = append(out, strings.Join(strings.Fields(sql.String()), " "))
		}
		sql.Reset()
	}
	for line := range strings.Lines(log) {
		switch {
		case strings.HasPrefix(line, "\t"):
			if sql.Len() > 0 {
				sql.WriteString(line)
			}
		default:
			add()
			if _, rest, ok := strings.Cut(line, " crossfade LOG:  statement: "); ok {
				sql.WriteString(rest)
			}
		}
	}
	add()
	return out
}

// matches: * in pattern is anything.
func matches(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(s, parts[0]) || !strings.HasSuffix(s, parts[len(parts)-1]) {
		return false
	}
	for _, p := range parts {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		pages, bytes, size int64
		want               []chunk
	}{
		{10, 100, 30, []chunk{{0, 3}, {3, 6}, {6, 9}, {9, last}}},
		{10, 100, 50, []chunk{{0, 5}, {5, last}}},
		{2, 1000, 10, []chunk{{0, 1}, {1, last}}}, // all toast
		{0, 1000, 10, []chunk{{0, last}}},
	} {
		if got := split(c.pages, c.bytes, c.size); !slices.Equal(got, c.want) {
			t.Errorf("%d pages, %d bytes by %d: %v, want %v", c.pages, c.bytes, c.size, got, c.want)
		}
	}
}

// TestOrder: the longest way to the last index goes first, not the largest heap.
func TestOrder(t *testing.T) {
	table := func(name string, bytes, indexes int64) schema.Table {
		return schema.Table{
			Schema: "public", Name: name, Kind: 'r', Persistence: 'p', Bytes: bytes, Pages: bytes / 8192, IndexBytes: indexes,
			Columns: []schema.Column{{Name: "id", TypeBuiltin: true}},
		}
	}
	o := Options{Database: db, Version: 150000, Jobs: 2, Sets: []schema.Set{{Name: "main", Tables: []schema.Table{
		table("a_small", 1<<20, 0), table("b_heap", 900<<20, 0), table("c_indexed", 600<<20, 500<<20), table("d_split", 3<<30, 0),
		table("e_gin", 200<<20, 180<<20), table("f_btree", 200<<20, 180<<20),
	}}}}
	o.Indexes = func(t schema.Table) []schema.Entry {
		if t.IndexBytes == 0 {
			return nil
		}
		return []schema.Entry{{Type: "INDEX", Schema: "public", Name: t.Name + "_idx", Stage: schema.Index}}
	}
	o.known = indexes{
		{"public", "e_gin_idx"}: {method: "gin", bytes: 180 << 20, rows: 1e6}, {"public", "f_btree_idx"}: {method: "btree", bytes: 180 << 20, rows: 1e6},
	}
	w, err := pg.Parse("x", "host=/nowhere", "")
	if err != nil {
		t.Fatal(err)
	}
	o.Old, o.New = w, w
	o = o.ready()
	var names []string
	for _, t := range o.work() {
		names = append(names, t.Name)
	}
	if want := []string{"e_gin", "c_indexed", "d_split", "b_heap", "f_btree", "a_small"}; !slices.Equal(names, want) {
		t.Errorf("order %v, want %v", names, want)
	}
	var _ flow.Step = Step(o)
}
