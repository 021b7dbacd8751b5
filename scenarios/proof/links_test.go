package proof

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"

	"github.com/jackc/pgx/v5"
)

// hostile are settings of a database that change how text becomes a value or a
// value text, or that stop a worker. lc_monetary has no other locale on every
// machine.
var hostile = []string{
	"array_nulls = off", "xmloption = document", "DateStyle = 'SQL, DMY'", "IntervalStyle = sql_standard", "bytea_output = escape",
	"extra_float_digits = '-10'", "quote_all_identifiers = on", "TimeZone = 'Asia/Kolkata'", "standard_conforming_strings = off", "backslash_quote = on",
	"lock_timeout = '1ms'", "statement_timeout = '150ms'", "idle_in_transaction_session_timeout = '150ms'", "row_security = off",
	"default_transaction_isolation = serializable",
}

const linkTables = `
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE v (id int PRIMARY KEY, a text[], e mood, x xml, d date, r daterange, i interval, ts timestamptz, f float8, b bytea, m money, c regclass, s text);
CREATE TABLE log (v_id int, s text[]);
ALTER TABLE log REPLICA IDENTITY FULL;`

// values writes one row of every kind, as an application with ordinary settings.
// (A declaration <?xml version="1.0"?> and no more is not in the output of xml.)
func values(first int) string {
	return fmt.Sprintf(`SET array_nulls = on; SET xmloption = content; SET DateStyle = ISO; SET statement_timeout = 0; SET IntervalStyle = postgres;
		SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0; SET standard_conforming_strings = on; SET default_transaction_isolation = 'read committed';
		INSERT INTO v VALUES
		(%[1]d, ARRAY['x', NULL, 'NULL'], 'ok', xmlparse(content 'a<b/>'), '2026-02-03', '[2026-02-03,2026-04-05)', '-1 day +02:03:04.5', '1883-11-18 12:03:58+00', 1/3.0::float8, decode('00275cff', 'hex'), '-1234.56', 'pg_class', E'back\\slash ''q'''),
		(%[1]d + 1, '{}', NULL, xmlparse(document '<?xml version="1.0" standalone="yes"?><!DOCTYPE a><a/>'), 'infinity', 'empty', '1 year -2 mons 3 days', '-infinity', 'NaN', '', '0', NULL, NULL);
		INSERT INTO log VALUES (%[1]d, ARRAY[NULL, 'y']); UPDATE log SET s = s || ARRAY[NULL]::text[] WHERE v_id = %[1]d`, first)
}

// rowsOfV is every value of tables v and log, in words that no setting changes.
const rowsOfV = `SELECT string_agg(h, E'\n' ORDER BY h COLLATE "C") FROM (
	SELECT id || to_jsonb(a)::text || coalesce(e::text, '') || x::text || coalesce(isfinite(d)::text, '') || coalesce(extract(epoch FROM d)::text, '') || lower_inf(r) || coalesce(extract(epoch FROM upper(r))::text, '')
	  || extract(epoch FROM i) || extract(epoch FROM ts) || encode(float8send(f), 'hex') || encode(b, 'hex') || encode(cash_send(m), 'hex') || coalesce(c::oid::text, '') || coalesce(s, '') h FROM v
	UNION ALL SELECT 'log' || v_id || to_jsonb(s)::text FROM log) q`

// roleSettings are the settings of roles and databases, as the catalog has them.
const roleSettings = `SELECT coalesce(string_agg(l, E'\n' ORDER BY l COLLATE "C"), '') FROM (
	SELECT format('%s/%s/%s', r.rolname, d.datname, c) l
	FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
	WHERE c NOT LIKE 'default_transaction_read_only=%') q`

// TestLinkSettings: values arrive as they were written, both ways, whatever the
// settings of server, database, role and role in database are, and those settings
// are exactly as they were where clients are let in.
func TestLinkSettings(t *testing.T) {
	pairs := [][2]int{{15, 18}}
	if all() {
		pairs = append(pairs, [2]int{13, 17}, [2]int{17, 18})
	}
	for _, p := range pairs {
		t.Run(fmt.Sprintf("%d to %d", p[0], p[1]), func(t *testing.T) { linkSettings(t, p[0], p[1]) })
	}
}

func linkSettings(t *testing.T, old, fresh int) {
	// Of the server: what nothing else sets here.
	server := map[string]string{"array_nulls": "off", "xmloption": "document", "lock_timeout": "1ms"}
	w := newWorld(t, setting{
		old: old, new: fresh, sql: linkTables, oldSet: server, newSet: server,
		dbs: "  - {name: shop}\n", extra: "accept: [settings-results]\n",
	})
	w.Exec(w.old, "", "CREATE ROLE locked", "ALTER ROLE postgres IN DATABASE shop SET array_nulls = off", "ALTER ROLE postgres IN DATABASE shop SET work_mem = '5MB'",
		"ALTER ROLE postgres SET xmloption = document", "ALTER ROLE postgres SET lock_timeout = '2ms'")
	for _, s := range hostile {
		w.Exec(w.old, "", "ALTER DATABASE shop SET "+s)
	}
	w.Exec(w.old, "", "ALTER DATABASE shop SET statement_timeout = '150ms'")
	before := w.Value(w.old, "", roleSettings)
	w.Exec(w.old, "shop", values(1))
	w.do(0, "prepare")
	w.do(0, "prepare") // the second time nothing is to be done
	w.Exec(w.old, "shop", values(10))
	if fresh >= 17 {
		w.Exec(w.new, "", "ALTER DATABASE shop SET transaction_timeout = '1ms'")
		w.Exec(w.old, "shop", "SET statement_timeout = 0; SET lock_timeout = 0; INSERT INTO v (id, x, s) SELECT g, '<a/>', repeat('x', 1000) FROM generate_series(100, 3000) g")
	}
	w.agree(w.old, w.new)
	if fresh >= 17 {
		w.Exec(w.new, "", "SET transaction_timeout = 0; SET default_transaction_read_only = off; ALTER DATABASE shop RESET transaction_timeout")
	}
	w.do(0, "cutover", "--yes")
	w.wantPhase("open", "new")
	if now := w.Value(w.new, "", roleSettings); now != before {
		t.Fatalf("settings on open new:\n%s\nmust be\n%s", now, before)
	}
	w.Exec(w.new, "shop", values(20))
	w.agree(w.new, w.old)
	w.later("later", w.new, w.old)
	w.do(0, "rollback", "--yes")
	if now := w.Value(w.old, "", roleSettings); now != before {
		t.Fatalf("settings on open old:\n%s\nmust be\n%s", now, before)
	}
	w.Exec(w.old, "shop", values(30))
	w.agree(w.old, w.new)
	w.later("later_still", w.old, w.new)
	w.do(0, "finish", "--yes")
	for _, c := range []*lab.Cluster{w.old, w.new} {
		if now := w.Value(c, "", roleSettings); now != before {
			t.Fatalf("settings of %s when all is over:\n%s\nmust be\n%s", c.Name, now, before)
		}
	}
}

// later makes a table on the side that serves, and wants its values on the other
// side as they were written, those of the copy and those of the link.
func (w *world) later(table string, from, to *lab.Cluster) {
	w.t.Helper()
	write := "SET array_nulls = on; SET xmloption = content; INSERT INTO " + table + " VALUES (%d, ARRAY['x', NULL], xmlparse(content 'a<b/>'))"
	w.patiently(from, "CREATE TABLE "+table+" (id int PRIMARY KEY, a text[], x xml)", fmt.Sprintf(write, 1))
	w.do(0, "prepare")
	w.patiently(from, fmt.Sprintf(write, 2))
	w.do(0, "verify")
	const want = `1["x", null]a<b/> 2["x", null]a<b/>`
	if got := w.patiently(to, "SELECT string_agg(id || to_jsonb(a)::text || x::text, ' ' ORDER BY id) FROM "+table); got != want {
		w.t.Fatalf("%s of %s has %s", table, to.Name, got)
	}
}

// patiently runs statements in database shop, whatever its timeouts are, and
// returns the first value of the last one.
func (w *world) patiently(c *lab.Cluster, statements ...string) (v string) {
	w.t.Helper()
	options := "-c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0"
	if c.Major >= 17 {
		options += " -c transaction_timeout=0"
	}
	conn, err := pgx.Connect(w.t.Context(), c.Conninfo("shop", "options='"+options+"'"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { w.Must(conn.Close(context.WithoutCancel(w.t.Context()))) }()
	for _, sql := range statements {
		results, err := conn.PgConn().Exec(w.t.Context(), sql).ReadAll()
		if err != nil {
			w.t.Fatalf("%s: %s: %v", c.Name, sql, err)
		}
		if last := results[len(results)-1]; len(last.Rows) > 0 {
			v = string(last.Rows[0][0])
		}
	}
	return v
}

// agree waits until the closed side has what the open one has.
func (w *world) agree(from, to *lab.Cluster) {
	w.t.Helper()
	want := w.patiently(from, rowsOfV)
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	got := ""
	err := lab.Poll(ctx, 100*time.Millisecond, func() (bool, error) {
		got = w.patiently(to, rowsOfV)
		return got == want, nil
	})
	if err != nil {
		log := strings.Split(to.Log(), "\n")
		log = slices.DeleteFunc(log, func(l string) bool { return !strings.Contains(l, "ERROR") && !strings.Contains(l, "FATAL") })
		a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
		i := 0
		for i < min(len(a), len(b))-1 && a[i] == b[i] {
			i++
		}
		w.t.Fatalf("%s has %d values, %s has %d; the first that differs:\n%s\n%s\n%s", from.Name, len(a), to.Name, len(b), a[i], b[i], strings.Join(log[max(0, len(log)-5):], "\n"))
	}
}

const fieldTables = `
CREATE ROLE arch;
GRANT CREATE ON SCHEMA public TO arch;
CREATE TABLE theirs (id int PRIMARY KEY, v text);
ALTER TABLE theirs OWNER TO arch;
CREATE TABLE twofold (a int NOT NULL UNIQUE, b int GENERATED ALWAYS AS (a * 2) STORED);
ALTER TABLE twofold REPLICA IDENTITY FULL;
CREATE TABLE keyless (a int, b int GENERATED ALWAYS AS (a * 2) STORED);
CREATE TABLE ev (id int PRIMARY KEY, tx xid8 DEFAULT pg_current_xact_id(), seen bigint DEFAULT txid_current());
INSERT INTO ev SELECT generate_series(1, 10);
INSERT INTO twofold (a) VALUES (1), (2);
INSERT INTO theirs VALUES (1, 'v'), (2, 'v');`

// TestLinkFindings: what would stop a link, or lead the readers of an outbox
// astray, is found before anything is touched; what the findings say to do does
// away with them, and everything is right on new afterwards. A timeout of the
// database is no finding: the trial subscription turns it off as the real ones do.
// A service that only the tool knows becomes an address for the servers, and a
// standby has what its primary was given on the command line.
func TestLinkFindings(t *testing.T) {
	w := newWorld(t, setting{
		sql: fieldTables, dbs: "  - {name: shop}\n",
		wire: func(w *world, s *setting) {
			s.newLines += w.standbyLines("rock", w.new.Bin)
			w.Must(w.old.Stop(w.t.Context(), lab.Fast))
			w.Must(w.old.Command(w.t.Context(), "pg_resetwal", "-e", "5", "-D", w.old.DataDir).Run())
			w.Must(w.old.Boot(w.t.Context()))
		},
	})
	// The servers know nothing of this file.
	services := filepath.Join(w.dir, "services")
	w.Must(os.WriteFile(services, []byte(fmt.Sprintf("[wacken]\nhost=%s\nport=%d\nuser=postgres\nsslmode=disable\n", w.old.Address(), w.old.Port)), 0o600))
	w.env = []string{"PGSERVICEFILE=" + services}
	w.runbookLine(fmt.Sprintf("%q", w.old.Conninfo("postgres")), "service=wacken dbname=postgres")
	// newWorld grants on all tables.
	w.Exec(w.old, "shop", "REVOKE INSERT, UPDATE ON theirs FROM arch", "ALTER DATABASE shop SET statement_timeout = '1ms'")
	found := map[string]string{}
	for _, f := range w.do(3, "check", "--json").lines("finding") {
		if level := f["level"]; level == "block" || f["id"] == "transaction-ids" {
			found[fmt.Sprintf("%s %s %s", level, f["id"], f["object"])] = fmt.Sprint(f["fix"])
		}
	}
	wanted := []string{"block identity-generated public.twofold", "block owner-rights public.theirs", "block replica-identity public.keyless", "warn transaction-ids epoch"}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, wanted) {
		t.Fatalf("check finds %q, and must find %q", got, wanted)
	}
	if fix := found[wanted[2]]; strings.Contains(fix, "public.keyless: full") || !strings.Contains(fix, "without generated columns") {
		t.Errorf("the fix of keyless would be refused: %s", fix)
	}
	// As they are printed.
	for _, f := range wanted[:2] {
		for line := range strings.Lines(found[f]) {
			if strings.HasSuffix(strings.TrimSpace(line), ";") {
				w.patiently(w.old, line)
			}
		}
	}
	w.patiently(w.old, "ALTER TABLE keyless ADD PRIMARY KEY (a)")
	_, command, _ := strings.Cut(found[wanted[3]], "\n")
	words := strings.Fields(strings.ReplaceAll(command, "'", ""))
	if len(words) != 5 || words[1] != "-e" || words[2] != "6" {
		t.Fatalf("the fix of transaction-ids is %q", found[wanted[3]])
	}
	w.Must(w.new.Stop(t.Context(), lab.Fast))
	w.Must(w.new.Command(t.Context(), "pg_resetwal", words[1:]...).Run())
	w.Must(w.new.Command(t.Context(), "pg_ctl", "-D", w.new.DataDir, "-w", "-l", "/dev/null", "-o", "-c max_worker_processes=30 -c max_wal_senders=30 -c max_connections=150", "start").Run())
	for _, f := range w.do(0, "check", "--json").lines("finding") {
		// What the command line overrides is no mistake of the file's.
		if f["level"] == "block" || f["id"] == "transaction-ids" || f["id"] == "config-file" {
			t.Errorf("still found: %v", f)
		}
	}
	w.do(0, "prepare")
	w.do(0, "prepare")
	if c := w.Value(w.new, "", "SELECT string_agg(subconninfo, ' ') FROM pg_subscription"); strings.Contains(c, "service") || !strings.Contains(c, fmt.Sprintf("port=%d ", w.old.Port)) {
		t.Errorf("new follows %q", c)
	}
	const limits = "SELECT string_agg(name || ' ' || setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN ('max_worker_processes', 'max_wal_senders', 'max_connections')"
	if got := w.Value(w.standbys[0], "postgres", limits); got != "max_connections 150 max_wal_senders 30 max_worker_processes 30" {
		t.Errorf("the standby has %s", got)
	}
	w.patiently(w.old, `INSERT INTO ev SELECT generate_series(11, 20); UPDATE twofold SET a = 3 WHERE a = 1; INSERT INTO keyless VALUES (1), (2);
		DELETE FROM keyless WHERE a = 2; INSERT INTO theirs VALUES (3, 'v'); UPDATE theirs SET v = 'w' WHERE id = 2; DELETE FROM theirs WHERE id = 1`)
	w.do(0, "cutover", "--yes")
	const state = `SELECT (SELECT count(*) FILTER (WHERE tx < pg_snapshot_xmin(pg_current_snapshot()) AND seen < txid_snapshot_xmin(txid_current_snapshot())) FROM ev)
		|| (SELECT string_agg(format(' %s/%s', a, b), '' ORDER BY a) FROM twofold) || (SELECT string_agg(format(' %s/%s', a, b), '' ORDER BY a) FROM keyless)
		|| (SELECT string_agg(format(' %s/%s', id, v), '' ORDER BY id) FROM theirs)`
	if got := w.patiently(w.new, state); got != "20 2/4 3/6 1/2 2/w 3/v" {
		t.Errorf("new has %q", got)
	}
	// And on the way back, which 18 publishes.
	w.patiently(w.new, "UPDATE twofold SET a = 5 WHERE a = 3; UPDATE keyless SET a = 7; DELETE FROM theirs WHERE id = 2")
	w.do(0, "rollback", "--yes")
	if got := w.patiently(w.old, state); !strings.HasSuffix(got, " 2/4 5/10 7/14 3/v") {
		t.Errorf("old has %q", got)
	}
}
