package proof

import (
	"fmt"
	"strings"
	"testing"
)

// realTables is what schemas of well-known applications have and examples do not:
// many tables without a key, most of them with a unique index; functions that name
// others without a schema, below an index; rows that break their foreign keys.
const realTables = `
CREATE SCHEMA api;
DO $$ BEGIN FOR i IN 10..24 LOOP
  EXECUTE format('CREATE TABLE api.indexed%s (a int NOT NULL, v text); CREATE UNIQUE INDEX indexed%1$s_a ON api.indexed%1$s (a)', i);
  EXECUTE format('CREATE TABLE api.bare%s (a int, v text); INSERT INTO api.indexed%1$s SELECT g, g FROM generate_series(1, 20) g; INSERT INTO api.bare%1$s SELECT g, g FROM generate_series(1, 20) g', i);
END LOOP; END $$;
CREATE FUNCTION plain(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower($1)';
CREATE FUNCTION sorted(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT plain($1)';
CREATE TABLE people (id int PRIMARY KEY, name text);
CREATE INDEX people_name ON people (sorted(name));
CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day);
CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (0) TO (100);
CREATE TABLE visits (id int PRIMARY KEY, day int CONSTRAINT of_day REFERENCES days);
INSERT INTO days SELECT generate_series(1, 10);
SET session_replication_role = replica;
INSERT INTO visits SELECT g, g FROM generate_series(1, 11) g;`

// TestRealSchema: what check and a prepare that stops print helps where it is pasted,
// before the copy and after it, and one line of the runbook gives a replica
// identity to every table that lacks one, until it is put back.
func TestRealSchema(t *testing.T) {
	w := newWorld(t, setting{sql: realTables, dbs: "  - name: shop\n"})

	r := w.do(3, "check", "--json")
	var blocks []map[string]any
	for _, f := range r.lines("finding") {
		if f["level"] == "block" {
			blocks = append(blocks, f)
		}
	}
	if len(blocks) != 2 || len(listed(blocks[0]))+len(listed(blocks[1])) != 30 {
		t.Fatalf("wanted two blocking findings of 15 tables each: %v", blocks)
	}
	order := ""
	for _, f := range blocks {
		for line := range strings.Lines(fmt.Sprint(f["fix"])) {
			if strings.HasPrefix(line, "identity: ") && f["id"] == "replica-identity" && (order == "" || order == line) {
				order = line
			} else if strings.HasPrefix(line, "identity: ") {
				t.Errorf("the lines for the runbook contradict each other: %q and %q", order, line)
			}
		}
	}
	w.runbookLine("  - name: shop\n", "  - name: shop\n    "+order)
	notes := 0
	for _, f := range w.do(0, "check", "--json").lines("finding") {
		if f["id"] == "replica-identity-full" {
			notes++
		}
		if f["level"] == "block" {
			t.Errorf("still found: %v", f)
		}
	}
	if notes != 1 {
		t.Errorf("%d notes about FULL", notes)
	}

	// The trial finds it before anything is published, and then again nothing.
	warned := r.finding("unqualified-names", "old", "public.sorted(text)")
	if warned == nil {
		t.Fatalf("check does not warn of the function\n%s", r)
	}
	tried := w.do(3, "prepare", "--json")
	if f := tried.finding("schema-rejected", "new", "index public.people_name"); f == nil || !strings.Contains(fmt.Sprint(f["says"]), "sorted") || !strings.Contains(fmt.Sprint(f["fix"]), "unqualified-names") {
		t.Errorf("the trial does not name the index, the function and the finding that has the fix\n%s", tried)
	}
	if n := w.Value(w.old, "shop", "SELECT count(*) FROM pg_publication"); n != "0" {
		t.Errorf("%s publications before the trial succeeds", n)
	}
	w.Exec(w.old, "shop", fmt.Sprint(warned["fix"]))

	// What rows break is found when they are there, here after their copy was whole;
	// what is fixed on old is copied again.
	if r := w.do(1, "prepare"); !strings.Contains(r.stderr, "of_day") || !strings.Contains(r.stderr, "run the same command again") {
		t.Errorf("wanted of_day, and what to do\n%s", r)
	}
	w.Exec(w.old, "shop", "DELETE FROM visits WHERE id = 11")
	w.do(0, "prepare")
	w.do(0, "prepare")

	const identities = "SELECT string_agg(DISTINCT format('%s %s', regexp_replace(relname, '\\d+', ''), relreplident), ', ') FROM pg_class WHERE relnamespace = 'api'::regnamespace AND relkind = 'r'"
	writes := []string{}
	for i := 10; i < 25; i++ {
		for _, table := range []string{"indexed", "bare"} {
			writes = append(writes, fmt.Sprintf("UPDATE api.%s%d SET v = v || '!' WHERE a %% 3 = 0; DELETE FROM api.%[1]s%[2]d WHERE a = (SELECT min(a) FROM api.%[1]s%[2]d)", table, i))
		}
	}
	write := strings.Join(writes, ";")
	for _, side := range []*cluster{w.old, w.new} {
		if got := w.Value(side, "shop", identities); got != "bare f, indexed i" {
			t.Errorf("replica identities of %s: %s", side.Name, got)
		}
	}
	w.Exec(w.old, "shop", write)
	w.do(0, "cutover", "--yes")
	w.patiently(w.new, write)
	w.do(0, "rollback", "--yes")
	w.patiently(w.old, write)
	w.do(0, "verify")
	w.do(0, "abort", "--yes")
	if got := w.Value(w.old, "shop", identities); got != "bare d, indexed d" {
		t.Errorf("replica identities after abort: %s", got)
	}
	if got := w.Value(w.old, "shop", "SELECT string_agg(v, ' ' ORDER BY v) FROM api.bare10"); !strings.Contains(got, "15!!!") || strings.HasPrefix(got, "1 ") {
		t.Errorf("old has %s", got)
	}
}
