package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

const db = "shop"

// world is two servers, the new one following the old through one set.
type world struct {
	tb       testing.TB
	lab      *labtest.Lab
	old, new *lab.Cluster
	passes   atomic.Int64
}

const canary = `CREATE SCHEMA crossfade; CREATE TABLE crossfade.canary_main (id int PRIMARY KEY DEFAULT 1, n bigint NOT NULL)`

func newWorld(tb testing.TB, oldMajor, newMajor int, schemaSQL string) *world {
	tb.Helper()
	w := &world{tb: tb, lab: labtest.T(tb)}
	w.old, w.new = w.lab.Primary("old", oldMajor), w.lab.Primary("new", newMajor)
	for _, c := range []*lab.Cluster{w.old, w.new} {
		w.lab.Exec(c, "", "CREATE DATABASE "+db)
		w.lab.Exec(c, db, schemaSQL, canary)
	}
	return w
}

// follow publishes all tables that can be and lets new follow, rows included, with
// options of the subscription.
func (w *world) follow(options ...string) {
	w.tb.Helper()
	w.lab.Exec(w.old, db, "INSERT INTO crossfade.canary_main VALUES (1, 0)", "CREATE PUBLICATION p FOR ALL TABLES")
	w.lab.Exec(w.new, db, fmt.Sprintf("CREATE SUBSCRIPTION s CONNECTION %s PUBLICATION p WITH (%s)", pg.Literal(w.old.Conninfo(db)), strings.Join(append([]string{"copy_data = true"}, options...), ", ")))
	w.lab.Until(w.new, db, "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel")
	if _, err := w.pass(w.tb.Context()); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) server(c *lab.Cluster) *pg.Server {
	w.tb.Helper()
	s, err := pg.Parse(c.Name, c.Conninfo(db), c.Bin)
	if err != nil {
		w.tb.Fatal(err)
	}
	return s
}

func (w *world) pass(ctx context.Context) (pg.LSN, error) {
	old, err := w.server(w.old).Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer pg.Leave(old)
	fresh, err := w.server(w.new).Connect(ctx)
	if err != nil {
		return 0, err
	}
	defer pg.Leave(fresh)
	n := w.passes.Add(1)
	if _, err := old.Exec(ctx, "UPDATE crossfade.canary_main SET n = $1", n); err != nil {
		return 0, err
	}
	var lsn pg.LSN
	if err := old.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&lsn); err != nil {
		return 0, err
	}
	return lsn, pg.Poll(ctx, 2*time.Millisecond, "the canary", func(ctx context.Context) (seen bool, err error) {
		err = fresh.QueryRow(ctx, "SELECT n >= $1 FROM crossfade.canary_main", n).Scan(&seen)
		if err == pgx.ErrNoRows {
			return false, nil
		}
		return seen, err
	})
}

func (w *world) tables() []schema.Table {
	w.tb.Helper()
	conn, err := w.server(w.old).Connect(w.tb.Context())
	if err != nil {
		w.tb.Fatal(err)
	}
	defer pg.Leave(conn)
	inv, err := schema.Read(w.tb.Context(), conn, schema.Filter{NoObjects: true})
	if err != nil {
		w.tb.Fatal(err)
	}
	return inv.Tables
}

func (w *world) options() Options {
	return Options{Old: w.server(w.old), New: w.server(w.new), Database: db, Tables: w.tables(), Pass: w.pass}
}

// verify compares everything and returns the results by table.
func (w *world) verify(o Options) map[string]Result {
	w.tb.Helper()
	began := time.Now()
	results, err := Run(w.tb.Context(), o)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Logf("%d tables in %v", len(results), time.Since(began).Round(time.Millisecond))
	out := map[string]Result{}
	for _, r := range results {
		out[r.Table] = r
	}
	return out
}

// hard has every kind of column whose text could mislead.
const hard = `
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN cents AS numeric(12,2) CHECK (VALUE >= 0);
CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE kinds (id int PRIMARY KEY, n numeric, c char(5), f float8, r real, j jsonb, js json, a int[], p pair, d cents, m mood,
  b bytea, x xml, cash money, g int GENERATED ALWAYS AS (id * 2) STORED, t text, v varchar(10), ts timestamptz, i interval,
  ct text COLLATE nocase, rel regclass, rng int4range);
CREATE TABLE bykey (k1 varchar(10) COLLATE nocase, k2 bytea, "A b" numeric, PRIMARY KEY (k1, k2));
CREATE TABLE byenum (k mood PRIMARY KEY, t text);
CREATE TABLE nokey (a int, t text);
ALTER TABLE nokey REPLICA IDENTITY FULL;
CREATE TABLE part (id int, t text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (100);
CREATE TABLE "Odd ""name" (id int PRIMARY KEY, "col $from_ctid" text);
CREATE TABLE nothing ();
CREATE UNLOGGED TABLE cache (id int);
CREATE TABLE quiet (id int PRIMARY KEY, t text)`

const hardRows = `
INSERT INTO kinds (id, n, c, f, r, j, js, a, p, d, m, b, x, cash, t, v, ts, i, ct, rel, rng)
  SELECT g, 1.0, 'ab', 0.1, 0.1, '{"a": 1}', '{"a": 1}', '{1,NULL}', '(1,x)', 1, 'ok', '\x00ff', '<a/>', 1.5, '', '', '2026-01-01', '1 mon', 'a', 'kinds', '[1,2]'
  FROM generate_series(1, 50) g;
UPDATE kinds SET f = 0 WHERE id = 4;
INSERT INTO bykey SELECT 'k' || g, '\xff', g FROM generate_series(1, 30) g;
INSERT INTO byenum VALUES ('sad', 'a'), ('ok', 'b');
INSERT INTO nokey SELECT g % 7, 'x' FROM generate_series(1, 100) g;
INSERT INTO part SELECT g, 'x' FROM generate_series(0, 99) g;
INSERT INTO "Odd ""name" VALUES (1, 'x');
INSERT INTO nothing DEFAULT VALUES`

// spoil are mistakes planted on new, by row of kinds, and the column to be named.
var spoil = []struct{ column, set string }{
	1: {"n", "n = 1.00"}, 2: {"f", "f = 0.10000000000000002"}, 3: {"r", "r = 0.10000001"}, 4: {"f", "f = '-0'"},
	5: {"j", `j = '{"a": 1.0}'`}, 6: {"js", `js = '{"a":1}'`}, 7: {"a", "a = '{1,0}'"}, 8: {"p", `p = '(1,"x ")'`}, 9: {"d", "d = 1.01"},
	10: {"m", "m = 'sad'"}, 11: {"b", `b = '\x00fe'`}, 12: {"x", "x = '<a></a>'"}, 13: {"cash", "cash = 1.51"}, 14: {"t", "t = NULL"},
	15: {"v", "v = ' '"}, 16: {"ts", "ts = '2026-01-01 00:00:00.000001'"}, 17: {"i", "i = '30 days'"}, 18: {"ct", "ct = 'A'"},
	19: {"rel", "rel = 'public.part'"}, 20: {"rng", "rng = '[1,2)'"}, 21: {"c", "c = 'ab c'"}, 22: {"b", "b = NULL"},
}

func TestFindsWhatDiffers(t *testing.T) {
	w := newWorld(t, 15, 18, hard)
	w.lab.Exec(w.old, db, hardRows)
	w.follow()
	check := func(step string, want map[string][]string) {
		t.Helper()
		for table, r := range w.verify(w.options()) {
			if len(r.Differing) > 0 != !r.Equal && r.Skipped == "" || !slices.Equal(r.Differing, want[table]) {
				t.Errorf("%s: %s: equal %v, skipped %q, differing\n%s\nwant\n%s", step, table, r.Equal, r.Skipped,
					strings.Join(r.Differing, "\n"), strings.Join(want[table], "\n"))
			}
			skips := map[string]string{"part": "partitioned: its partitions are compared", "cache": "unlogged: its rows are not replicated"}
			if r.Skipped != skips[strings.TrimPrefix(table, "public.")] {
				t.Errorf("%s: %s skipped: %q", step, table, r.Skipped)
			}
			if r.Equal && (r.LSN == 0 || r.Rows < 0) {
				t.Errorf("%s: %s is equal, but where? %+v", step, table, r)
			}
		}
	}
	check("untouched", nil)

	var kinds []string
	for id, s := range spoil {
		if s.set != "" {
			w.lab.Exec(w.new, db, fmt.Sprintf("UPDATE kinds SET %s WHERE id = %d", s.set, id))
			kinds = append(kinds, fmt.Sprintf("id = %d: differs in %s", id, s.column))
		}
	}
	w.lab.Exec(w.new, db, `DELETE FROM kinds WHERE id = 40; INSERT INTO kinds (id) VALUES (1000);
		UPDATE bykey SET k1 = 'K1' WHERE k1 = 'k1'; UPDATE bykey SET "A b" = 2.0 WHERE k1 = 'k2'; DELETE FROM bykey WHERE k1 = 'k3';
		UPDATE byenum SET t = 'B' WHERE k = 'ok';
		DELETE FROM nokey WHERE ctid = (SELECT min(ctid) FROM nokey WHERE a = 3); INSERT INTO nokey VALUES (9, 'y');
		UPDATE part SET t = 'y' WHERE id = 99;
		UPDATE "Odd ""name" SET "col $from_ctid" = 'y';
		DELETE FROM nothing; DROP TABLE quiet`)
	kinds = append(kinds, "id = 40: is missing on new", "id = 1000: is on new only")
	check("spoiled", map[string][]string{
		"public.kinds":        kinds,
		"public.bykey":        {`k1 = K1, k2 = \xff: is on new only`, `k1 = k1, k2 = \xff: is missing on new`, `k1 = k2, k2 = \xff: differs in A b`, `k1 = k3, k2 = \xff: is missing on new`},
		"public.byenum":       {"k = ok: differs in t"},
		"public.nokey":        {"(3,x): 14 on old, 13 on new", "(9,y): 0 on old, 1 on new"},
		"public.part1":        {"id = 99: differs in t"},
		`public."Odd ""name"`: {"id = 1: differs in col $from_ctid"},
		"public.nothing":      {"(): 1 on old, 0 on new"},
		"public.quiet":        {"cannot be read on new: " + `ERROR: relation "public.quiet" does not exist (SQLSTATE 42P01)`},
	})
}

// near are rows whose values could be taken for each other where they are hashed:
// old's, new's, and the columns to be named.
var near = []struct{ old, new, columns string }{
	{"'ab', 'c', 1, NULL, NULL, 1, 1", "'a', 'bc', 1, NULL, NULL, 1, 1", "a, b"},
	{"'', NULL, 1, NULL, NULL, 1, 1", "NULL, '', 1, NULL, NULL, 1, 1", "a, b"},
	{"'', '', NULL, NULL, NULL, 1, 1", "'', '', 0, NULL, NULL, 1, 1", "n"},
	{"'', '', 1, NULL, NULL, 1, 1", "'', '', 1, '00000000-0000-0000-0000-000000000000', NULL, 1, 1", "u"},
	{"'', '', 1, NULL, NULL, 1, 1", "'', '', 1, NULL, '', 1, 1", "y"},
	{"'', '', 1, NULL, NULL, 1, 2", "'', '', 1, NULL, NULL, 2, 1", "s, l"},
	{"'', '', 1, NULL, NULL, 1, 0", "'', '', 1, NULL, NULL, 1, 4294967297", "l"}, // the folded halves of a bigint
	{"'', '', 1, NULL, NULL, 1, NULL", "'', '', 1, NULL, NULL, 1, 0", "l"},
	{"'x', '', 8, NULL, NULL, 1, 1", "'y', '', 8, NULL, NULL, 1, 1", "a"}, // the same values
	{"'y', '', 9, NULL, NULL, 1, 1", "'x', '', 9, NULL, NULL, 1, 1", "a"}, // in each other's rows
}

// TestNearRows: values that a hash of the row could take for each other, and a table
// of as many columns as there can be.
func TestNearRows(t *testing.T) {
	const most = 1600
	var columns, old, fresh []string
	for i := range most - 1 {
		columns = append(columns, fmt.Sprintf("c%d %s", i, []string{"text", "bigint"}[i%2]))
	}
	var want []string
	for i, n := range near {
		old = append(old, fmt.Sprintf("(%d, %s)", i, n.old))
		fresh = append(fresh, fmt.Sprintf("(%d, %s)", i, n.new))
		want = append(want, fmt.Sprintf("id = %d: differs in %s", i, n.columns))
	}
	w := newWorld(t, 15, 18, "CREATE TABLE near (id int PRIMARY KEY, a text, b text, n int, u uuid, y bytea, s smallint, l bigint);"+
		"CREATE TABLE wide (id int PRIMARY KEY, "+strings.Join(columns, ", ")+")")
	w.lab.Exec(w.old, db, "INSERT INTO near VALUES "+strings.Join(old, ", "), "INSERT INTO wide (id, c0, c1598) SELECT g, 'x', NULL FROM generate_series(1, 3) g")
	w.follow()
	for table, r := range w.verify(w.options()) {
		if !r.Equal || r.Skipped != "" {
			t.Errorf("%s, untouched: %+v", table, r)
		}
	}
	w.lab.Exec(w.new, db, "DELETE FROM near", "INSERT INTO near VALUES "+strings.Join(fresh, ", "),
		"UPDATE wide SET c1598 = '' WHERE id = 2", "UPDATE wide SET c700 = 'x', c0 = NULL WHERE id = 3")
	results := w.verify(w.options())
	if got := results["public.near"].Differing; !slices.Equal(got, want) {
		t.Errorf("near: differing\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got, want := results["public.wide"].Differing, []string{"id = 2: differs in c1598", "id = 3: differs in c0, c700"}; !slices.Equal(got, want) {
		t.Errorf("wide: differing %q, want %q", got, want)
	}
}
