package check

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/google/go-cmp/cmp"
)

// strange is what makes checks of a database's contents fire on every major
// that is moved from; a schema of its own keeps it from plainShop.
const strange = `
	CREATE SCHEMA s;
	SET search_path = s, public;
	CREATE TABLE days (at date PRIMARY KEY) PARTITION BY RANGE (at);
	CREATE TABLE hours (at timestamptz PRIMARY KEY) PARTITION BY RANGE (at);
	CREATE TABLE ages (at timestamp PRIMARY KEY) PARTITION BY RANGE (at);
	CREATE TABLE open (at date PRIMARY KEY) PARTITION BY RANGE (at);
	CREATE TABLE open_1 PARTITION OF open FOR VALUES FROM (MINVALUE) TO (MAXVALUE);
	DO $do$ BEGIN
	  EXECUTE format('CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (%L) TO (%L)', date_trunc('month', current_date)::date, current_date + 2);
	  EXECUTE format('CREATE TABLE hours_1 PARTITION OF hours FOR VALUES FROM (%L) TO (%L)', now() - interval '1 hour', now());
	  EXECUTE format('CREATE TABLE ages_1 PARTITION OF ages FOR VALUES FROM (%L) TO (%L)', '2001-01-01', '2099-01-01');
	END $do$;
	CREATE TYPE mood AS ENUM ('sad', 'happy');
	CREATE DOMAIN humour AS mood;
	CREATE TABLE moods (m mood) PARTITION BY HASH (m);
	CREATE TABLE humours (a int, h humour) PARTITION BY HASH (a, h);
	CREATE DOMAIN dry AS humour; CREATE TABLE in_domains (d dry) PARTITION BY HASH (d);
	CREATE DOMAIN drier AS dry[]; CREATE TABLE in_arrays (d drier) PARTITION BY HASH (d);
	CREATE TYPE moody AS RANGE (subtype = mood); CREATE TABLE in_ranges (r moody) PARTITION BY HASH (r);
	CREATE TABLE of_relations (r regclass) PARTITION BY HASH (r); CREATE TABLE of_text (t text) PARTITION BY HASH (t);
	CREATE TABLE numbers (m int) PARTITION BY HASH (m);
	CREATE TABLE names (name text) PARTITION BY RANGE (name);
	CREATE TABLE bytes (name text COLLATE "C") PARTITION BY RANGE (name);
	CREATE TABLE rates (currency text PRIMARY KEY);
	CREATE FUNCTION known(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM rates WHERE currency = $1)';
	CREATE FUNCTION well_known(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM s.rates WHERE rates.currency = $1)';
	CREATE FUNCTION set_known(text) RETURNS boolean LANGUAGE sql STABLE SET search_path = s AS 'SELECT EXISTS (SELECT FROM rates WHERE currency = $1)';
	CREATE TABLE "select" (id int PRIMARY KEY);
	CREATE TABLE total (id int PRIMARY KEY);
	CREATE FUNCTION taxed(total numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT total * 1.2';
	CREATE FUNCTION twice(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT taxed($1) * 2';
	CREATE FUNCTION unused(text) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM rates WHERE currency = $1)';
	CREATE FUNCTION upper(mood) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.upper($1::text)';
	CREATE FUNCTION shouted(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
	CREATE FUNCTION shouted(mood) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1)';
	CREATE FUNCTION handled() RETURNS fdw_handler LANGUAGE c AS '$libdir/postgres_fdw', 'postgres_fdw_handler';
	CREATE TABLE shouts (id int PRIMARY KEY, t text CHECK (shouted(t) <> ''), m mood CHECK (shouted(m) <> ''));
	CREATE TABLE paid (id int PRIMARY KEY, a text CHECK (known(a)), b text CHECK (well_known(b)), c text CHECK (set_known(c)), d numeric CHECK (taxed(d) > 0), e numeric CHECK (twice(e) > 0));
	CREATE TABLE parent (id int PRIMARY KEY);
	CREATE TABLE lax (id int PRIMARY KEY, p int CONSTRAINT "Lax" REFERENCES parent);
	ALTER TABLE lax DISABLE TRIGGER ALL;
	CREATE TABLE pictures (id int PRIMARY KEY, picture oid);
	SELECT lo_create(0);
	CREATE TABLE alembic_version (version_num text PRIMARY KEY);
	CREATE SERVER near FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '5432');
	CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'db.example.com');
	CREATE SEQUENCE wide;
	CREATE TABLE narrow (id int PRIMARY KEY DEFAULT nextval('wide'));
	ALTER SEQUENCE wide OWNED BY narrow.id;
	SELECT setval('wide', 2147483000);
	CREATE TABLE candidate (a int NOT NULL UNIQUE DEFERRABLE, b int UNIQUE, c text NOT NULL);
	CREATE UNIQUE INDEX ON candidate (lower(c));
	INSERT INTO pg_seclabel VALUES ('rates'::regclass, 'pg_class'::regclass, 0, 'selinux', 'x')`

// checked are the findings that strange makes.
func checked(major int) []string {
	want := []string{
		"warn partition-horizon old shop s.days", "warn partition-horizon old shop s.hours", "block enum-hash-partitions old shop s.moods", "block enum-hash-partitions old shop s.humours",
		"block enum-hash-partitions old shop s.in_domains", "block enum-hash-partitions old shop s.in_arrays", "block enum-hash-partitions old shop s.in_ranges", "block enum-hash-partitions old shop s.of_relations",
		"warn unqualified-names old shop s.known(text)", "warn unqualified-names old shop s.twice(numeric)", "warn unqualified-names old shop s.shouted(s.mood)", "warn foreign-key-disabled old shop s.lax.Lax", "block large-objects old shop",
		"warn foreign-tables old shop near", "note foreign-tables old shop far", "warn sequence-exhausted old shop s.wide",
		"block replica-identity old shop s.candidate", "block security-labels new shop selinux", "note stored-ids old shop columns",
	}
	if major < 14 {
		want = append(want, "note ddl-activity old shop s.alembic_version")
	} else {
		want = append(want, "warn ddl-activity old shop pg_stat_statements")
	}
	return want
}

// contents makes strange on old, and on the majors that know them what they
// alone know, and wants every finding of it and none beside.
func contents(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	l.Exec(old, "shop", "CREATE EXTENSION postgres_fdw", "SET allow_system_table_mods = on;"+strange, "ANALYZE")
	want := checked(old.Major)
	switch old.Major {
	case 13:
		l.Exec(
			old, "shop", "CREATE FUNCTION double(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2'", "CREATE OPERATOR !!! (LEFTARG = int, FUNCTION = double)",
			"CREATE TABLE sorted (id int PRIMARY KEY, t text COLLATE \"und-x-icu\")", "CREATE VIEW factorial AS SELECT 5::bigint ! AS n", "CREATE VIEW written AS SELECT buffers_backend FROM pg_stat_bgwriter",
			"CREATE AGGREGATE gather(anyelement) (SFUNC = array_append, STYPE = anyarray, INITCOND = '{}')", "CREATE AGGREGATE gather_text(text) (SFUNC = array_append, STYPE = text[], INITCOND = '{}')",
			"CREATE TABLE spans (i interval)", "CREATE INDEX spans_i ON spans ((i::text))", "CREATE FUNCTION backing_up() RETURNS boolean LANGUAGE sql AS 'SELECT pg_is_in_backup()'",
			"CREATE FUNCTION warned() RETURNS int LANGUAGE sql SET operator_precedence_warning = on AS 'SELECT 1'",
		)
		want = append(
			want, "block removed-types old shop public.!!!", "block removed-functions old shop view public.factorial", "block removed-columns old shop public.written",
			"block removed-functions old shop aggregate public.gather(anyelement)", "block not-immutable old shop index public.spans_i", "warn removed-in-bodies old shop public.backing_up()",
			"block setting-removed old shop public.warned()", "block replica-identity old shop public.spans",
		)
	case 17:
		l.Exec(
			old, "shop", "CREATE UNLOGGED TABLE halves (a int PRIMARY KEY) PARTITION BY RANGE (a)", "CREATE VIEW written AS SELECT wal_write FROM pg_stat_wal",
			"CREATE EXTENSION pg_stat_statements", "CREATE TABLE seen (a int PRIMARY KEY)", "TRUNCATE seen", "CREATE VIEW abbreviations AS SELECT abbrev FROM pg_timezone_abbrevs()",
			"CREATE TABLE packed (id int PRIMARY KEY, t text COMPRESSION lz4)", "ALTER ROLE postgres SET event_triggers = off",
		)
		l.Must(old.Set(t.Context(), "synchronized_standby_slots", "gone"))
		want = append(
			want, "block unlogged-partitioned old shop public.halves", "block removed-columns old shop public.written", "block removed-functions old shop view public.abbreviations",
			"warn event-triggers-off old role postgres", "warn synchronized-standby-slots old synchronized_standby_slots",
		)
	}
	got := run(t, pair(t, old, nw))
	wants(t, got, want...)
	named := map[string]bool{}
	for _, w := range want {
		named[strings.Fields(w)[1]] = true
	}
	for _, x := range got {
		switch {
		case named[x.ID] && !slices.Contains(want, short(x)):
			t.Errorf("not wanted: %s: %s", short(x), x.Says)
		case !named[x.ID] && !slices.Contains(ordinary, x.ID) && !strings.HasPrefix(x.ID, "extension-"):
			t.Errorf("neither ordinary nor wanted: %s: %s", short(x), x.Says)
		}
	}
	says := find(t, got, "replica-identity").Says
	for _, part := range []string{"candidate_a_key cannot serve (it is deferrable)", "candidate_b_key cannot serve (one of its columns may be NULL)", "candidate_lower_idx cannot serve (it has an expression)"} {
		if old.Major == 17 && !strings.Contains(says, part) {
			t.Errorf("%q is not in: %s", part, says)
		}
	}
	horizons(t, l, old, nw, got)
	if old.Major == 17 {
		altersNothing(t, l, old, nw)
	}
}

// horizons makes the partitions that a finding asks for; then it is gone.
func horizons(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster, got []Finding) {
	for _, x := range got {
		if x.ID != "partition-horizon" {
			continue
		}
		for line := range strings.Lines(x.Fix) {
			if strings.HasSuffix(strings.TrimSpace(line), ";") {
				l.Exec(old, "shop", line)
			}
		}
	}
	for _, x := range run(t, pair(t, old, nw)) {
		// 60 partitions of an hour each do not reach far.
		if x.ID == "partition-horizon" && x.Object != "s.hours" {
			t.Errorf("%s: %s", short(x), x.Says)
		}
	}
}

// altersNothing: a server that takes no ALTER SYSTEM.
func altersNothing(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	l.Exec(old, "", "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; echo allow_alter_system = off >> postgresql.conf'", "SELECT pg_reload_conf()")
	l.Until(old, "", "SELECT current_setting('allow_alter_system') = 'off'")
	wants(t, run(t, pair(t, old, nw)), "block alter-system-off old allow_alter_system")
}

// ordinary are the checks that speak of two clusters of the lab in whose way
// nothing stands: what they need, how they are set up, what is not known.
var ordinary = []string{
	"budget", "disk-unknown", "known-bad-minor", "settings-defaults", "settings-differ", "settings-renamed", "attribute-version", "collation-version", "extension-preload", "ddl-activity",
	"client-programs", "database-left",
}

// identityLost: a table of new that has not old's replica identity.
func identityLost(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	l.Exec(old, "shop", "CREATE TABLE chosen (a int NOT NULL, b text)", "CREATE UNIQUE INDEX chosen_a ON chosen (a)", "ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_a",
		"CREATE TABLE whole (a int)", "ALTER TABLE whole REPLICA IDENTITY FULL")
	l.Exec(nw, "", "CREATE DATABASE shop TEMPLATE template0")
	l.Exec(nw, "shop", "CREATE TABLE chosen (a int NOT NULL, b text)", "CREATE TABLE whole (a int)")
	o := pair(t, old, nw)
	o.Ours = true
	lost := func() (names []string) {
		for _, x := range run(t, o) {
			if x.ID == "identity-lost" {
				names = append(names, x.Object)
				for line := range strings.Lines(x.Fix) {
					if strings.HasSuffix(strings.TrimSpace(line), ";") {
						l.Exec(nw, "shop", line)
					}
				}
			}
		}
		return names
	}
	if diff := cmp.Diff([]string{"public.whole"}, lost()); diff != "" { // the index of chosen is to come
		t.Errorf("(-want +got):\n%s", diff)
	}
	l.Exec(nw, "shop", "CREATE UNIQUE INDEX chosen_a ON chosen (a)")
	if diff := cmp.Diff([]string{"public.chosen"}, lost()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again := lost(); again != nil {
		t.Errorf("still: %v", again)
	}
	l.Exec(nw, "", "DROP DATABASE shop")
	l.Exec(old, "shop", "DROP TABLE chosen, whole")
}

// disks: how much is free is asked of the machine that the runbook names.
func disks(t *testing.T, old, nw *lab.Cluster) {
	o := pair(t, old, nw)
	o.OldHost, o.NewHost, o.MaxWAL = pg.Local{}, pg.Local{}, 1<<60
	f, err := Gather(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for side, m := range map[string]Machine{OnOld: f.OldMachine, OnNew: f.NewMachine} {
		if !m.Asked || m.WAL == nil || m.Data == nil || m.WAL.Free <= 0 || m.Cores < 1 {
			t.Errorf("%s: %+v", side, m)
		}
	}
	fired := map[string]bool{}
	for _, x := range Judge(f) {
		fired[x.ID+" "+x.On] = true
	}
	if !fired["old-disk old"] || fired["disk-unknown old"] || fired["disk-unknown new"] || fired["new-disk new"] {
		t.Errorf("%v", fired)
	}
	o.OldHost, o.NewHost = nil, nil
	wants(t, run(t, o), "note disk-unknown old host", "note disk-unknown new host")
}

// pooled: a pooler in front of old is seen, whether it lets the session in or not.
func pooled(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	for _, c := range []struct {
		ignores, want string
	}{
		{"extra_float_digits", "server-unreachable"},
		{"search_path, statement_timeout, lock_timeout, idle_in_transaction_session_timeout, synchronous_commit, default_transaction_read_only, " +
			"default_transaction_isolation, default_transaction_deferrable, row_security, quote_all_identifiers, extra_float_digits, bytea_output, xmloption, jit, IntervalStyle, array_nulls, lc_monetary, backslash_quote", "server-through-pooler"},
	} {
		pool := l.PgBouncer(lab.PoolOptions{Name: "pool-" + c.want, Databases: map[string]lab.Backend{"postgres": {Cluster: old}, "shop": {Cluster: old}}, Settings: map[string]string{"ignore_startup_parameters": c.ignores}})
		o := pair(t, old, nw)
		through, err := pg.Parse("old", pool.Conninfo("postgres"), "")
		if err != nil {
			t.Fatal(err)
		}
		o.Old = through.As("crossfade up")
		got := run(t, o)
		wants(t, got, "block "+c.want+" old "+o.Old.String())
		if t.Failed() {
			t.Fatal(got[0].Says)
		}
		x := find(t, got, c.want)
		if x.On != OnOld || !strings.Contains(x.Fix, "address of the server itself") {
			t.Errorf("%+v", x)
		}
	}
}

// costs measures what one UPDATE costs the apply worker under REPLICA IDENTITY
// FULL, without an index and with one, for the constants that the check
// estimates with: it is printed, and held to be of the same order.
func costs(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	const rows, changes = 100_000, 100
	l.Exec(old, "", "CREATE DATABASE costs")
	l.Exec(nw, "", "CREATE DATABASE costs")
	for _, c := range []*lab.Cluster{old, nw} {
		l.Exec(c, "costs", "CREATE TABLE log (a int, b text)", fmt.Sprintf("INSERT INTO log SELECT g, repeat('x', 30) FROM generate_series(1, %d) g", rows), "ANALYZE log", "CREATE TABLE done (n int PRIMARY KEY)")
	}
	l.Exec(old, "costs", "ALTER TABLE log REPLICA IDENTITY FULL", "CREATE PUBLICATION costs FOR ALL TABLES")
	l.Exec(nw, "costs", fmt.Sprintf("CREATE SUBSCRIPTION costs CONNECTION '%s' PUBLICATION costs WITH (copy_data = false)", old.Conninfo("costs")))
	done := 0
	measure := func() time.Duration {
		apply := func(sql string) time.Duration {
			done++
			began := time.Now()
			l.Exec(old, "costs", sql, fmt.Sprintf("INSERT INTO done VALUES (%d)", done))
			l.Until(nw, "costs", fmt.Sprintf("SELECT EXISTS (SELECT FROM done WHERE n = %d)", done))
			return time.Since(began)
		}
		idle := apply("SELECT 1")
		return max(apply(fmt.Sprintf("UPDATE log SET a = a WHERE a %% %d = 0", rows/changes))-idle, time.Millisecond) / changes
	}
	measure() // the worker starts
	without := measure()
	l.Exec(nw, "costs", "CREATE INDEX log_a ON log (a)")
	with := measure()
	d := DatabaseFacts{}
	table := schema.Table{Schema: "public", Name: "log", Rows: rows}
	reads, _ := d.fullCost(table, nw.Major)
	d.Indexes = map[string][]Index{"public.log": {{Name: "log_a", Method: "btree", Distinct: -1}}}
	finds, by := d.fullCost(table, nw.Major)
	t.Logf("an UPDATE under FULL over %d rows: %s without an index (estimated %s), %s with one (%s)", rows, without, reads, with, finds)
	if by != "log_a" || finds >= reads || with >= without || without > 20*reads || without < reads/20 {
		t.Errorf("the estimate is of another order than what was measured")
	}
	l.Exec(nw, "costs", "DROP SUBSCRIPTION costs")
}
