package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"

	"github.com/jackc/pgx/v5"
)

// badShop is a database in which nearly everything stands in the way. Each
// statement is sent by itself.
var badShop = []string{
	"CREATE TABLE plain (a int)",
	"CREATE TABLE late (a int PRIMARY KEY DEFERRABLE)",
	"CREATE TABLE nullable (a int UNIQUE)",
	"CREATE TABLE expression (a text NOT NULL)", "CREATE UNIQUE INDEX ON expression (lower(a))",
	"CREATE TABLE candidate (a int NOT NULL, b int)", "CREATE UNIQUE INDEX candidate_a ON candidate (a)",
	"CREATE TABLE nothing (a int PRIMARY KEY)", "ALTER TABLE nothing REPLICA IDENTITY NOTHING",
	"CREATE TABLE js (a int, j json)", "ALTER TABLE js REPLICA IDENTITY FULL",
	"CREATE TABLE \"Full\" (a int)", "ALTER TABLE \"Full\" REPLICA IDENTITY FULL",
	"INSERT INTO \"Full\" SELECT generate_series(1, 20000)", "ANALYZE \"Full\"", "UPDATE \"Full\" SET a = a WHERE a = 7",
	"CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)",
	"SELECT lo_create(0)",
	"CREATE EXTENSION adminpack", "CREATE EXTENSION hstore VERSION '1.4'", "CREATE EXTENSION file_fdw", "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
	"CREATE FOREIGN TABLE far (a text) SERVER files OPTIONS (filename '/dev/null')",
	"CREATE MATERIALIZED VIEW mv AS SELECT 1 AS one",
	"CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
	"CREATE TRIGGER always BEFORE INSERT ON candidate FOR EACH ROW EXECUTE FUNCTION noop()", "ALTER TABLE candidate ENABLE ALWAYS TRIGGER always",
	"CREATE TRIGGER crossfade_fence BEFORE INSERT ON candidate FOR EACH ROW EXECUTE FUNCTION noop()",
	"CREATE RULE quiet AS ON DELETE TO candidate DO INSTEAD NOTHING", "ALTER TABLE candidate ENABLE REPLICA RULE quiet",
	"CREATE FUNCTION ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'", "CREATE EVENT TRIGGER log_ddl ON ddl_command_end EXECUTE FUNCTION ddl()",
	"CREATE PUBLICATION others", "CREATE PUBLICATION cf_up_shop_main",
	"CREATE SCHEMA crossfade",
	"SELECT pg_create_logical_replication_slot('debezium', 'test_decoding')", "SELECT pg_create_logical_replication_slot('cf_other_shop_main', 'pgoutput')",
	"CREATE TABLE counted (id serial PRIMARY KEY)", "SELECT setval('counted_id_seq', 2147483000)",
	"CREATE FUNCTION sound(text) RETURNS text LANGUAGE c AS '$libdir/fuzzystrmatch', 'soundex'",
	"CREATE TABLE fast (id int PRIMARY KEY) TABLESPACE ssd",
	"CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)", "ALTER SUBSCRIPTION sub SET (slot_name = 'sub')", "ALTER SUBSCRIPTION sub ENABLE",
	"CREATE TABLE dups (a int)", "INSERT INTO dups VALUES (1), (1)",
}

var badSettings = map[string]string{
	"max_replication_slots": "4", "max_wal_senders": "2", "max_worker_processes": "3", "max_logical_replication_workers": "1", "max_prepared_transactions": "5",
	"synchronous_standby_names": "*", "synchronous_commit": "local", "shared_preload_libraries": "auto_explain", "work_mem": "8MB", "max_slot_wal_keep_size": "100MB",
	"archive_mode": "on", "archive_command": "/bin/echo %p %f", "promote_trigger_file": "/nowhere", "max_connections": "60",
}

// TestBad: a cluster as bad as possible makes nearly every check fire for real,
// and what the findings print as SQL makes those go away that a statement can fix.
func TestBad(t *testing.T) {
	l := labtest.T(t)
	old := l.Start(lab.Options{Name: "old", Major: 15, Settings: badSettings})
	nw := l.Start(lab.Options{Name: "new", Major: 18, Settings: map[string]string{
		"wal_level": "replica", "max_replication_slots": "1", "max_active_replication_origins": "0", "max_connections": "30", "idle_replication_slot_timeout": "1h",
		"archive_mode": "on", "archive_command": "/bin/echo %p %f", "synchronous_standby_names": "nobody", "synchronous_commit": "local",
	}})
	folder := strings.TrimSuffix(old.DataDir, "/data") + "/ssd"
	l.Exec(old, "", fmt.Sprintf("COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; mkdir %s'", folder), "CREATE TABLESPACE ssd LOCATION '"+folder+"'")
	for _, sql := range []string{
		"CREATE DATABASE shop", "CREATE DATABASE closed", "ALTER DATABASE closed ALLOW_CONNECTIONS false", "CREATE DATABASE left_behind",
		"CREATE ROLE app LOGIN", "ALTER ROLE app SET force_parallel_mode = on", "ALTER ROLE app SET default_transaction_read_only = off",
		"CREATE ROLE etl LOGIN", "ALTER ROLE etl IN DATABASE shop SET session_replication_role = replica", "GRANT SET ON PARAMETER session_replication_role TO etl",
		"SET password_encryption = md5; CREATE ROLE old_timer LOGIN PASSWORD 'x'", "ALTER DATABASE shop SET statement_timeout = '5s'", "ALTER DATABASE shop CONNECTION LIMIT 0",
	} {
		l.Exec(old, "", sql)
	}
	for _, sql := range badShop {
		l.Exec(old, "shop", sql)
	}
	if err := old.Exec(t.Context(), "shop", "CREATE UNIQUE INDEX CONCURRENTLY dups_a ON dups (a)"); err == nil {
		t.Fatal("the index should have failed")
	}
	l.Exec(old, "shop", "BEGIN", "INSERT INTO counted VALUES (1)", "PREPARE TRANSACTION 'forgotten'")
	l.Exec(nw, "", "CREATE DATABASE shop TEMPLATE template0 ENCODING 'SQL_ASCII'")
	l.Exec(nw, "shop", "CREATE TABLE t (a int)", "INSERT INTO t VALUES (1)")
	l.Exec(old, "", "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; echo nonsense = 1 >> postgresql.conf; echo bogus line >> pg_hba.conf'")
	visitor, err := pgx.Connect(t.Context(), old.Conninfo("shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = visitor.Close(context.Background()) }()
	if _, err := visitor.Exec(t.Context(), "CREATE TEMP TABLE mine (a int)"); err != nil {
		t.Fatal(err)
	}
	o := pair(t, old, nw)
	o.Databases = []Database{{Name: "shop"}, {Name: "closed"}, {Name: "nope"}}
	o.NewStandbys = []Standby{{Name: "metal", Server: server(t, "metal", nw, "port=1")}}
	got := run(t, o)
	wants(t, got,
		"block replica-identity old shop public.plain", "block replica-identity old shop public.late", "block replica-identity old shop public.nullable",
		"block replica-identity old shop public.expression", "block replica-identity old shop public.candidate", "block replica-identity old shop public.nothing",
		"block replica-identity-equality old shop public.js", `warn replica-identity-full old shop public."Full"`,
		"block unlogged old shop public.cache", "block large-objects old shop", "block extension-missing new shop adminpack", "note extension-version new shop hstore",
		"note foreign-tables old shop files", "note materialized-views old shop", "note triggers-on-apply old shop public.candidate.always",
		"note triggers-on-apply old shop public.candidate.quiet", "note event-triggers old shop log_ddl", "note publications old shop others",
		"block name-collision old shop cf_up_shop_main", "block name-collision old shop crossfade", "block name-collision old shop crossfade_fence on public.candidate",
		"warn logical-slots old shop debezium", "block other-upgrade old shop other", "warn sequence-exhausted old shop public.counted_id_seq",
		"warn c-functions old shop $libdir/fuzzystrmatch", "block tablespace-missing new ssd", "block subscriptions-on-old old shop sub",
		"warn invalid-index old shop public.dups_a", "block prepared-transactions old shop forgotten", "block new-not-empty new shop shop", "block encoding new shop shop",
		"warn config-file old nonsense", "warn config-file old pg_hba.conf", "note temporary-tables old shop", "block database-missing old nope nope",
		"block database-closed old closed closed", "note database-left old left_behind left_behind", "note connection-limit old shop shop",
		"block setting-removed old force_parallel_mode", "warn read-only-override old role app", "block session-replication-role old shop role etl in database shop",
		"warn session-replication-role old etl", "note md5-passwords old", "note timeouts old shop statement_timeout",
		"block wal-level new wal_level", "block wal-senders old max_wal_senders", "block worker-processes old max_worker_processes", "block logical-workers old max_logical_replication_workers",
		"block replication-slots old max_replication_slots", "block replication-slots new max_replication_slots", "block replication-origins new max_active_replication_origins",
		"block idle-slot-timeout new idle_replication_slot_timeout", "block sync-names-any old synchronous_standby_names", "warn sync-names-nobody new synchronous_standby_names",
		"block archive-path new archive_command", "warn extension-preload new shared_preload_libraries", "note settings-differ new", "note settings-renamed old promote_trigger_file",
		"warn slot-wal-limit old max_slot_wal_keep_size", "warn max-connections new max_connections", "warn max-prepared-transactions new max_prepared_transactions",
	)
	if t.Failed() {
		return
	}
	applyFixes(t, l, o, map[string]*lab.Cluster{OnOld: old, OnNew: nw}, got)
}

// applyFixes applies the SQL of every fix, restarts both servers, and looks
// again: what only SQL can fix is gone.
func applyFixes(t *testing.T, l *labtest.Lab, o Options, clusters map[string]*lab.Cluster, got []Finding) {
	var fixed []Finding
	for _, x := range got {
		sql, people := 0, 0
		for line := range strings.Lines(x.Fix) {
			line = strings.TrimSpace(line)
			if !strings.HasSuffix(line, ";") {
				people++
				continue
			}
			sql++
			db := x.Database
			if db == "" || x.ID == "connection-limit" || strings.HasPrefix(line, "ALTER DATABASE") {
				db = "postgres"
			}
			l.Exec(clusters[x.On], db, line)
		}
		if sql > 0 && x.ID != "database-closed" { // opened, it is a database like any other
			fixed = append(fixed, x)
		}
	}
	l.Exec(clusters[OnOld], "", "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; sed -i /nonsense/d postgresql.conf; sed -i /bogus/d pg_hba.conf'")
	l.Must(clusters[OnOld].Restart(t.Context()))
	l.Must(clusters[OnNew].Restart(t.Context()))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	again, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range fixed {
		if slices.ContainsFunc(again, func(y Finding) bool { return short(y) == short(x) && y.Says == x.Says }) {
			t.Errorf("%s: %s\nis still there after: %s", short(x), x.Says, x.Fix)
		}
	}
	t.Logf("%d of %d findings had SQL as fix; %d findings are left", len(fixed), len(got), len(again))
}

// before14 is what only majors before 14 have.
func before14(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	for _, sql := range []string{
		"CREATE FUNCTION double(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'", "CREATE OPERATOR !!! (LEFTARG = int, FUNCTION = double)",
		"CREATE TABLE sorted (id int PRIMARY KEY, t text COLLATE \"und-x-icu\")",
	} {
		l.Exec(old, "shop", sql)
	}
	got := run(t, pair(t, old, nw))
	wants(t, got, "block removed-types old shop public.!!!")
	for _, x := range Blocking(got) {
		if x.ID != "removed-types" {
			t.Errorf("%s: %s", short(x), x.Says)
		}
	}
}
