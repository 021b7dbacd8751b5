package schema_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"crossfade/schema"
)

// twoGroups are tables a.* and b.*, and what needs them or is needed by them.
const twoGroups = `
CREATE TYPE mood AS ENUM ('slow', 'heavy');
CREATE SEQUENCE numbers;
CREATE FUNCTION shout(t text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper(t)';
CREATE SCHEMA a;
CREATE TABLE a.orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text, how mood, n int DEFAULT nextval('numbers'));
CREATE TABLE a.lines (id serial PRIMARY KEY, orders_id bigint REFERENCES a.orders, "odd.name" text);
CREATE TABLE a."odd ""table" (k int PRIMARY KEY);
CREATE INDEX on_what ON a.orders (shout(what));
CREATE STATISTICS a.some ON what, how FROM a.orders;
CREATE VIEW a.totals AS SELECT orders_id, count(*) FROM a.lines GROUP BY 1;
CREATE VIEW a.above AS SELECT * FROM a.totals;
CREATE MATERIALIZED VIEW a.best AS SELECT max(id) FROM a.orders;
CREATE INDEX on_best ON a.best (max);
CREATE FUNCTION a.all_of(t a.orders, n int) RETURNS SETOF a.lines LANGUAGE sql AS 'SELECT * FROM a.lines';
CREATE FUNCTION a.touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON a.orders FOR EACH ROW EXECUTE FUNCTION a.touched();
ALTER TABLE a.lines ENABLE ROW LEVEL SECURITY;
CREATE POLICY theirs ON a.lines USING (id > 0);
CREATE RULE quiet AS ON DELETE TO a.lines WHERE false DO INSTEAD NOTHING;
COMMENT ON TABLE a.orders IS 'a comment';
COMMENT ON COLUMN a.lines."odd.name" IS 'a comment';
COMMENT ON INDEX a.on_what IS 'a comment';
COMMENT ON TRIGGER touched ON a.orders IS 'a comment';
COMMENT ON FUNCTION a.all_of(a.orders, int) IS 'a comment';
COMMENT ON CONSTRAINT lines_pkey ON a.lines IS 'a comment';
GRANT SELECT ON a.orders, a.totals TO PUBLIC;
REVOKE ALL ON FUNCTION a.all_of(a.orders, int) FROM PUBLIC;
CREATE SCHEMA b;
CREATE TABLE b.parts (k int PRIMARY KEY, how mood, part text) PARTITION BY RANGE (k);
CREATE TABLE b.parts_1 PARTITION OF b.parts FOR VALUES FROM (0) TO (10);
CREATE TABLE b.logs (line text);
CREATE VIEW b.names AS SELECT part FROM b.parts;
CREATE VIEW b.joined AS SELECT k FROM b.parts UNION ALL SELECT id FROM a.lines;
CREATE VIEW b.on_both AS SELECT * FROM b.joined;
`

// groups are the tables of a database by schema.
func groups(t *testing.T, inv *schema.Inventory) (mine map[string][]uint32) {
	t.Helper()
	mine = map[string][]uint32{}
	for _, table := range inv.Tables {
		mine[table.Schema] = append(mine[table.Schema], table.OID)
	}
	return mine
}

// TestApart: what is left of a dump and of an inventory when tables go
// elsewhere is the same, whole, and the rest of it is on the other side.
func TestApart(t *testing.T) {
	for _, m := range []struct{ old, new int }{{15, 18}, {13, 17}} {
		t.Run(fmt.Sprintf("%d to %d", m.old, m.new), func(t *testing.T) {
			from := fresh(t, m.old)
			_, err := cluster(t, m.old).Psql(t.Context(), from.Database(), twoGroups)
			must(t, err)
			conn := connect(t, from)
			old, err := schema.Read(t.Context(), conn, schema.Filter{})
			must(t, err)
			tables := groups(t, old)
			for side, others := range map[string][]uint32{"a": tables["b"], "b": tables["a"]} {
				apart, err := schema.ReadApart(t.Context(), conn, others)
				must(t, err)
				if len(apart.Crossings) > 0 {
					t.Errorf("without %s: crossings %v", side, apart.Crossings)
				}
				if !slices.Contains(apart.Needs, "view b.joined") || !slices.Contains(apart.Needs, "view b.on_both") {
					t.Errorf("%s: a view of both is not named: %q", side, apart.Needs)
				}
				entries, _, err := schema.Dump(t.Context(), from, program(t, m.new, "pg_dump"), apart)
				must(t, err)
				to := fresh(t, m.new)
				s := session(t, to)
				exec(t, s, "CREATE SCHEMA crossfade; "+schema.Ledger("new", to.Database()).SQL)
				must(t, schema.Restore(t.Context(), s, entries, nil))
				got, err := schema.Read(t.Context(), connect(t, to), schema.Filter{})
				must(t, err)
				diff, err := schema.Compare(t.Context(), connect(t, to), old.Without(apart), got)
				must(t, err)
				for _, d := range schema.Unexpected(diff) {
					t.Errorf("%s: %s", side, d.Says)
				}
				for _, o := range got.Objects {
					other := map[string]string{"a": "b.", "b": "a."}[side]
					if o.Kind != "schema" && strings.HasPrefix(o.Name, other) && o.Name != "a.touched()" {
						t.Errorf("%s has %s %s", side, o.Kind, o.Name)
					}
				}
			}
		})
	}
}

// TestCrossings: whatever belongs to a table and needs one that goes elsewhere.
func TestCrossings(t *testing.T) {
	from := fresh(t, 15)
	_, err := cluster(t, 15).Psql(t.Context(), from.Database(), twoGroups+`
CREATE SEQUENCE b.theirs OWNED BY b.logs.line;
CREATE TABLE a.parts_2 PARTITION OF b.parts FOR VALUES FROM (10) TO (20);
CREATE TABLE a.refers (k int REFERENCES b.parts);
CREATE TABLE a.counts (k int DEFAULT nextval('b.theirs'));
CREATE TABLE a.holds (l b.logs);
CREATE TABLE a.heir () INHERITS (b.logs);
CREATE POLICY looks ON a.lines USING (EXISTS (SELECT FROM b.logs));
CREATE RULE writes AS ON INSERT TO a.refers DO ALSO INSERT INTO b.logs VALUES ('x');
CREATE FUNCTION b.fits(l b.logs) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
`)
	must(t, err)
	conn := connect(t, from)
	old, err := schema.Read(t.Context(), conn, schema.Filter{NoObjects: true})
	must(t, err)
	apart, err := schema.ReadApart(t.Context(), conn, groups(t, old)["b"])
	must(t, err)
	var got []string
	for _, c := range apart.Crossings {
		got = append(got, fmt.Sprintf("%s needs %s, foreign key %t", c.Object, c.Needs, c.ForeignKey))
	}
	all := strings.Join(got, "\n")
	for _, want := range []string{"a.parts_2", "constraint refers_k_fkey on table a.refers", "default value for column k of table a.counts", "a.holds", "a.heir", "policy looks on table a.lines", "a.refers"} {
		if !strings.Contains(all, want) {
			t.Errorf("%s is not found in:\n%s", want, all)
		}
	}
	if n := strings.Count(all, "foreign key true"); n != 1 {
		t.Errorf("%d foreign keys in:\n%s", n, all)
	}
}
