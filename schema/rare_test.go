package schema_test

import (
	"context"
	"slices"
	"testing"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// TestRare: a kind of object that a database has one of alone is described. What
// describes the kinds that most databases lack is asked only where there is one.
func TestRare(t *testing.T) {
	s := fresh(t, 15)
	conn, err := s.Connect(t.Context())
	must(t, err)
	defer pg.Leave(conn)
	for _, c := range []struct{ kind, property, sql string }{
		{"operator", "function", "CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)"},
		{"operator class", "type", "CREATE OPERATOR CLASS public.rare FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int)"},
		{"operator family", "owner", "CREATE OPERATOR FAMILY public.rare USING btree"},
		{"cast", "context", "CREATE TABLE public.t (a int); CREATE CAST (public.t AS json) WITH INOUT"},
		{"transform", "from", "CREATE TYPE public.e AS ENUM ('a'); CREATE TRANSFORM FOR public.e LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal))"},
		{"conversion", "function", "CREATE CONVERSION public.rare FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8"},
		{"collation", "provider", `CREATE COLLATION public.rare FROM "C"`},
		{"language", "handler", "CREATE LANGUAGE rare HANDLER plpgsql_call_handler"},
		{"access method", "handler", "CREATE ACCESS METHOD rare TYPE INDEX HANDLER bthandler"},
		{"text search configuration", "parser", "CREATE TEXT SEARCH CONFIGURATION public.rare (COPY = pg_catalog.simple)"},
		{"text search dictionary", "template", "CREATE TEXT SEARCH DICTIONARY public.rare (TEMPLATE = pg_catalog.simple)"},
		{"text search parser", "functions", "CREATE TEXT SEARCH PARSER public.rare (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)"},
		{"text search template", "functions", "CREATE TEXT SEARCH TEMPLATE public.rare (INIT = dsimple_init, LEXIZE = dsimple_lexize)"},
		{"foreign data wrapper", "owner", "CREATE FOREIGN DATA WRAPPER rare"},
		{"server", "wrapper", "CREATE FOREIGN DATA WRAPPER rare; CREATE SERVER rare FOREIGN DATA WRAPPER rare"},
		{"user mapping", "options", "CREATE FOREIGN DATA WRAPPER rare; CREATE SERVER rare FOREIGN DATA WRAPPER rare; CREATE USER MAPPING FOR CURRENT_USER SERVER rare OPTIONS (a 'b')"},
		{"default privileges", "privileges", "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC"},
		{"aggregate", "aggregate", "CREATE AGGREGATE public.rare (int) (SFUNC = int4pl, STYPE = int)"},
		{"type", "range", "CREATE TYPE public.rare AS RANGE (SUBTYPE = int)"},
		{"type", "multirange", "CREATE TYPE public.rare AS RANGE (SUBTYPE = int)"},
		{"type", "representation", "CREATE TYPE public.rare; CREATE FUNCTION public.i(cstring) RETURNS public.rare LANGUAGE internal IMMUTABLE STRICT AS 'int4in'; " +
			"CREATE FUNCTION public.o(public.rare) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out'; " +
			"CREATE TYPE public.rare (INPUT = public.i, OUTPUT = public.o, LIKE = int)"},
	} {
		t.Run(c.kind+", "+c.property, func(t *testing.T) {
			tx, err := conn.Begin(t.Context())
			must(t, err)
			defer func() { must(t, tx.Rollback(context.WithoutCancel(t.Context()))) }()
			_, err = tx.Exec(t.Context(), c.sql, pgx.QueryExecModeSimpleProtocol)
			must(t, err)
			inv, err := schema.Read(t.Context(), conn, schema.Filter{})
			must(t, err)
			if !slices.ContainsFunc(inv.Objects, func(o schema.Object) bool { return o.Kind == c.kind && o.Property(c.property) != "" }) {
				t.Errorf("%s: no %s with its %s among %d objects", c.sql, c.kind, c.property, len(inv.Objects))
			}
		})
	}
}
