package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"crossfade/schema"

	"github.com/jackc/pgx/v5"
)

func fingerprint(t testing.TB, conn *pgx.Conn, major int) string {
	t.Helper()
	var all []string
	for _, sql := range schema.FingerprintSQL(major * 10000) {
		var f string
		must(t, conn.QueryRow(t.Context(), sql).Scan(&f))
		all = append(all, f)
	}
	return strings.Join(all, " ")
}

func TestFingerprintSeesDDL(t *testing.T) {
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			conn := connect(t, hard(t, major))
			before := fingerprint(t, conn, major)
			for _, sql := range []string{
				`CREATE TABLE shop.extra (id int)`,
				`DROP TABLE shop.by_index`,
				`ALTER TABLE shop.orders ADD COLUMN more int`,
				`ALTER TABLE shop.orders RENAME COLUMN note TO remark`,
				`ALTER TABLE shop.orders RENAME TO ordered`,
				`ALTER TABLE shop.readings ALTER COLUMN value TYPE real`,
				`ALTER TABLE audit.orders ALTER COLUMN seen TYPE inet USING seen`,
				`ALTER TABLE shop.orders ALTER COLUMN note SET NOT NULL`,
				`ALTER TABLE shop.orders ALTER COLUMN note SET DEFAULT 'x'`,
				`ALTER TABLE shop.orders ALTER COLUMN channel SET DEFAULT 'x'`,
				`ALTER TABLE shop.orders ALTER COLUMN placed SET STATISTICS 7`,
				`ALTER TABLE shop.by_index DISABLE TRIGGER note`,
				`ALTER TABLE shop.orders DISABLE TRIGGER ALL`,
				`CREATE INDEX extra ON shop.orders (total)`,
				`DROP INDEX shop.orders_open`,
				`CREATE FUNCTION shop.extra() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
				`CREATE OR REPLACE FUNCTION audit.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'`,
				`ALTER SEQUENCE shop.free_seq INCREMENT 2`,
				`CREATE SEQUENCE shop.extra`,
				`ALTER TABLE shop.by_index REPLICA IDENTITY FULL`,
				`CREATE TABLE shop.events_2036 PARTITION OF shop.events FOR VALUES FROM ('2036-01-01') TO ('2037-01-01')`,
				`ALTER TABLE shop.events DETACH PARTITION shop.events_2024`,
				`ALTER TABLE shop.orders ADD CHECK (total < 1000000)`,
				`ALTER TABLE shop.orders DROP CONSTRAINT orders_customer_fkey`,
				`ALTER TABLE shop.orders VALIDATE CONSTRAINT note_short`,
				`CREATE TRIGGER extra BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION audit.nothing()`,
				`CREATE OR REPLACE VIEW shop.big_totals AS SELECT * FROM shop.totals WHERE total > 99`,
				`ALTER TYPE shop.state RENAME VALUE 'new' TO 'fresh'`,
				`ALTER TYPE shop.state ADD VALUE 'lost'`,
				`ALTER DOMAIN shop.email DROP CONSTRAINT email_short`,
				`CREATE TYPE shop.extra AS (a int)`,
				`CREATE RULE extra AS ON INSERT TO shop.by_index DO INSTEAD NOTHING`,
				`ALTER POLICY own ON shop.bookings USING (id > 1)`,
				`ALTER TABLE shop.bookings DISABLE ROW LEVEL SECURITY`,
				`ALTER TABLE shop.orders OWNER TO hard_app`,
				`GRANT SELECT ON shop.by_index TO hard_app`,
				`GRANT SELECT (note) ON shop.orders TO hard_reader`,
				`ALTER TABLE shop.orders SET (fillfactor = 70)`,
				`ALTER TABLE audit.cache SET LOGGED`,
				`CREATE SCHEMA extra`,
				`DROP EXTENSION hstore CASCADE`,
				`DROP STATISTICS shop.orders_correlation`,
				`CREATE EVENT TRIGGER extra ON ddl_command_end EXECUTE FUNCTION audit.ddl()`,
				`ALTER TABLE shop.orders SET SCHEMA "Odd Schema"`,
				`ALTER TABLE shop.by_index REPLICA IDENTITY NOTHING; ALTER TABLE shop.by_index REPLICA IDENTITY USING INDEX by_index_key`,
			} {
				exec(t, conn, "BEGIN")
				exec(t, conn, sql)
				if fingerprint(t, conn, major) == before {
					t.Errorf("not seen: %s", sql)
				}
				exec(t, conn, "ROLLBACK")
			}
			if after := fingerprint(t, conn, major); after != before {
				t.Error("DDL that was rolled back changed it")
			}
		})
	}
}

func TestFingerprintStays(t *testing.T) {
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			old := hard(t, major)
			conn, app := connect(t, old), connect(t, old)
			exec(t, conn, "VACUUM ANALYZE")
			before := fingerprint(t, conn, major)
			for _, sql := range []string{
				`INSERT INTO shop.by_index SELECT i::text, 'nl', repeat('x', 3000) FROM generate_series(1, 2000) i`,
				`UPDATE shop.orders SET note = 'y'`,
				`DELETE FROM audit.log`,
				`TRUNCATE audit.log, shop.readings`,
				`TRUNCATE audit.cache RESTART IDENTITY`,
				`SELECT nextval('shop.free_seq'), setval('shop.set_seq', 5, false)`,
				`ANALYZE`,
				`VACUUM (FREEZE, ANALYZE)`,
				`VACUUM FULL shop.customers`,
				`VACUUM FULL pg_catalog.pg_attribute`,
				`CLUSTER shop.orders`,
				`REINDEX TABLE shop.orders`,
				`REFRESH MATERIALIZED VIEW shop.totals`,
				`CREATE TEMP TABLE mine (id int PRIMARY KEY, b text DEFAULT 'x' CHECK (b <> '')); CREATE TEMP VIEW v AS SELECT * FROM mine; CREATE TEMP SEQUENCE q; CREATE INDEX ON mine (b)`,
				`CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE pg_temp.e AS (a int)`,
				`BEGIN; ALTER TABLE shop.orders ADD COLUMN more int; ROLLBACK`,
				`SELECT count(*) FROM shop.orders WHERE id = 5`,
				// what the tool does on old
				`CREATE SCHEMA crossfade; CREATE TABLE crossfade.canary_main (id int PRIMARY KEY DEFAULT 1, n bigint NOT NULL, at text DEFAULT 'x'); CREATE SEQUENCE crossfade.refused`,
				`CREATE FUNCTION crossfade.fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`,
				`CREATE TRIGGER crossfade_fence BEFORE INSERT OR TRUNCATE ON shop.by_index EXECUTE FUNCTION crossfade.fence()`,
				`CREATE FUNCTION crossfade.ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER crossfade_ddl ON ddl_command_start EXECUTE FUNCTION crossfade.ddl()`,
				`INSERT INTO crossfade.canary_main (n) VALUES (1); UPDATE crossfade.canary_main SET n = 2`,
				`CREATE OR REPLACE FUNCTION crossfade.fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END'`,
				`ALTER DATABASE ` + old.Database() + ` SET default_transaction_read_only = on`,
				`DROP TRIGGER crossfade_fence ON shop.by_index; DROP EVENT TRIGGER crossfade_ddl; DROP SCHEMA crossfade CASCADE`,
			} {
				exec(t, app, sql)
				if fingerprint(t, conn, major) != before {
					t.Errorf("changed by: %s", sql)
					before = fingerprint(t, conn, major)
				}
			}
			inv := read(t, old)
			if first := inv.Fingerprint(); first == "" || first != read(t, old).Fingerprint() {
				t.Error("an inventory's fingerprint differs from reading to reading")
			}
		})
	}
}
