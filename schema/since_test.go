package schema_test

import (
	"strings"
	"testing"

	"crossfade/schema"
)

// TestChanges: what is taken along of entries whose text has changed, that are
// gone, or that both sides have without a mark.
func TestChanges(t *testing.T) {
	entry := func(kind, name, table, sql string) schema.Entry {
		return schema.Entry{Type: kind, Schema: "public", Name: name, Table: table, SQL: sql}
	}
	orders := entry("TABLE", "orders", "", `CREATE TABLE public.orders (id integer);`)
	const on = `"public"."orders"`
	for _, c := range []struct {
		name       string
		was, is    schema.Entry // is without SQL: it is gone
		drops, new string
	}{
		{
			"function", entry("FUNCTION", "f(integer)", "", `CREATE FUNCTION public.f(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';`),
			entry("FUNCTION", "f(integer)", "", `CREATE FUNCTION public.f(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2';`),
			"", `CREATE OR REPLACE FUNCTION public.f(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 2';`,
		},
		{
			"function that is gone", entry("FUNCTION", "F(integer)", "", "CREATE FUNCTION public.\"F\"(n integer) RETURNS integer LANGUAGE sql AS 'SELECT 1';\n\nALTER FUNCTION public.\"F\"(n integer) OWNER TO app;"),
			schema.Entry{},
			`DROP FUNCTION public."F"(n integer);`, "",
		},
		{
			"privileges", entry("ACL", "TABLE orders", "", "GRANT SELECT(id) ON TABLE public.orders TO a;\nGRANT INSERT ON TABLE public.orders TO b WITH GRANT OPTION;\nREVOKE ALL ON TABLE public.orders FROM owner;"),
			entry("ACL", "TABLE orders", "", "GRANT INSERT ON TABLE public.orders TO a;"),
			"GRANT ALL ON TABLE public.orders TO owner;\nREVOKE INSERT ON TABLE public.orders FROM b;\nREVOKE SELECT(id) ON TABLE public.orders FROM a;", "GRANT INSERT ON TABLE public.orders TO a;",
		},
		{
			"default privileges that are gone", entry("DEFAULT ACL", "DEFAULT PRIVILEGES FOR TABLES", "", "ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA public GRANT SELECT ON TABLES TO b;"),
			schema.Entry{},
			"ALTER DEFAULT PRIVILEGES FOR ROLE a IN SCHEMA public REVOKE SELECT ON TABLES FROM b;", "",
		},
		{"comment that is gone", entry("COMMENT", "TABLE orders", "", "COMMENT ON TABLE public.orders IS 'what IS it';"), schema.Entry{}, "COMMENT ON TABLE public.orders IS NULL;", ""},
		{"index that is gone", entry("INDEX", "Orders_at", on, `CREATE INDEX "Orders_at" ON public.orders USING btree (at);`), schema.Entry{}, `DROP INDEX "public"."Orders_at";`, ""},
		{
			"constraint", entry("CONSTRAINT", "orders c", on, "ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT c UNIQUE (id);"), entry("CONSTRAINT", "orders c", on, "ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT c UNIQUE (id, n);"),
			`ALTER TABLE "public"."orders" DROP CONSTRAINT c;`, "ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT c UNIQUE (id, n);",
		},
		{"trigger that is gone", entry("TRIGGER", "orders t", on, "CREATE TRIGGER \"T\" AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.f();"), schema.Entry{}, `DROP TRIGGER "T" ON "public"."orders";`, ""},
		{"trigger of a table that is gone", entry("TRIGGER", "other t", `"public"."other"`, "CREATE TRIGGER t AFTER INSERT ON public.other FOR EACH ROW EXECUTE FUNCTION public.f();"), schema.Entry{}, "", ""},
		{"table that is gone", entry("TABLE", "lines", "", "CREATE TABLE public.lines (id integer);\n\nALTER TABLE public.lines OWNER TO app;"), schema.Entry{}, "", ""},
		{"table", entry("TABLE", "lines", "", "CREATE TABLE public.lines (id integer);"), entry("TABLE", "lines", "", "CREATE TABLE public.lines (id bigint);"), "", `altered "public"."lines"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			now, there := []schema.Entry{orders}, []schema.Entry{orders, c.was}
			marks := map[string]string{c.was.Key(): "as it was"}
			if c.is.SQL != "" {
				now = append(now, c.is)
			}
			facts := schema.ChangeFacts{Alter: func(table string) (string, bool) { return "altered " + table, false }, Differs: func(_, _ string) bool { return false }}
			var drops, makes []string
			for _, change := range schema.Changes(now, there, marks, facts) {
				if change.Drops != "" {
					drops = append(drops, change.Drops)
				}
				if change.Makes != "" {
					makes = append(makes, change.Makes)
				}
			}
			if got := strings.Join(drops, "; "); got != c.drops {
				t.Errorf("drops\n%s\nwanted\n%s", got, c.drops)
			}
			if got := strings.Join(makes, "; "); got != c.new {
				t.Errorf("makes\n%s\nwanted\n%s", got, c.new)
			}
		})
	}
}

// TestAlter: what can be altered without knowing rows, and nothing else.
func TestAlter(t *testing.T) {
	id := schema.ShapeColumn{Name: "id", Type: "integer", NotNull: true}
	there := &schema.Shape{Columns: []schema.ShapeColumn{id, {Name: "gone", Type: "text"}, {Name: "n", Type: "integer"}}, Checks: []schema.ShapeCheck{{"c", "CHECK ((n > 0))"}}}
	now := &schema.Shape{
		Columns: []schema.ShapeColumn{
			id,
			{Name: "n", Type: "integer", NotNull: true, Default: "1"},
			{Name: "plain", Type: "text"},
			{Name: "constant", Type: "text", Default: "'x'::text", NotNull: true, Instant: true},
			{Name: "random", Type: "double precision", Default: "random()"},
			{Name: "number", Type: "bigint", Identity: "a", NotNull: true},
			{Name: "twice", Type: "integer", Default: "(n * 2)", Generated: "s"},
			{Name: "parent", Type: "integer", Inherited: true},
		},
		Checks: []schema.ShapeCheck{{"c", "CHECK ((n > 1))"}},
	}
	const want = `ALTER TABLE t DROP CONSTRAINT "c", DROP COLUMN "gone", ALTER COLUMN "n" SET DEFAULT 1, ALTER COLUMN "n" SET NOT NULL, ` +
		`ADD COLUMN "plain" text, ADD COLUMN "constant" text DEFAULT 'x'::text NOT NULL, ADD COLUMN "twice" integer GENERATED ALWAYS AS ((n * 2)) STORED, ` +
		`ADD CONSTRAINT "c" CHECK ((n > 1));`
	if got, calls := schema.Alter("t", now, there); got != want || !calls {
		t.Errorf("got (calls functions: %t)\n%s\nwanted\n%s", calls, got, want)
	}
	if got, _ := schema.Alter("t", now, now); got != "" {
		t.Errorf("alters what is as it should be: %s", got)
	}
	one := func(c schema.ShapeColumn) *schema.Shape { return &schema.Shape{Columns: []schema.ShapeColumn{id, c}} }
	for _, c := range []struct {
		column schema.ShapeColumn
		calls  bool
	}{
		{schema.ShapeColumn{Name: "x", Type: "numeric(10,2)"}, false},
		{schema.ShapeColumn{Name: "x", Type: "text", Default: "'x'::text", Instant: true}, false},
		{schema.ShapeColumn{Name: "x", Type: "public.positive"}, true},
		{schema.ShapeColumn{Name: "x", Type: "text", Default: "public.f()", Instant: true}, true},
	} {
		if got, calls := schema.Alter("t", one(c.column), one(id)); calls != c.calls {
			t.Errorf("calls functions: %t: %s", calls, got)
		}
	}
}
