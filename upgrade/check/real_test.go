package check

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
)

// These tests ask real servers; the judgements themselves are tested in
// judge_test.go over facts made by hand.

func server(t *testing.T, name string, c *lab.Cluster, extra ...string) *pg.Server {
	t.Helper()
	s, err := pg.Parse(name, c.Conninfo("postgres", extra...), c.Bin)
	if err != nil {
		t.Fatal(err)
	}
	return s.As("crossfade up")
}

func pair(t *testing.T, old, nw *lab.Cluster) Options {
	return Options{Upgrade: "up", Old: server(t, "old", old), New: server(t, "new", nw), Databases: []Database{{Name: "shop"}}, Back: true, MaxWAL: 1 << 30}
}

func run(t *testing.T, o Options) []Finding {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	got, err := Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// wants fails for every wanted finding that is missing, as short writes them.
func wants(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	var have []string
	for _, x := range got {
		have = append(have, short(x))
	}
	missing := false
	for _, w := range want {
		if !slices.Contains(have, w) {
			t.Errorf("missing: %s", w)
			missing = true
		}
	}
	if missing {
		t.Logf("got:\n%s", strings.Join(have, "\n"))
	}
}

func find(t *testing.T, got []Finding, id string) Finding {
	t.Helper()
	for _, x := range got {
		if x.ID == id {
			return x
		}
	}
	t.Fatalf("no finding %s", id)
	return Finding{}
}

const plainShop = `
	CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text NOT NULL, at timestamptz DEFAULT now());
	CREATE TABLE lines (order_id bigint REFERENCES orders, n int, what text, PRIMARY KEY (order_id, n));
	CREATE TABLE parts (id int, k text) PARTITION BY LIST (k);
	CREATE TABLE parts_a PARTITION OF parts (PRIMARY KEY (id)) FOR VALUES IN ('a');
	CREATE INDEX ON lines (what);
	INSERT INTO orders (who) SELECT 'x' FROM generate_series(1, 100);
	ANALYZE`

// TestPairs: every query runs on the oldest and newest majors, on both sides,
// nothing blocks a plain upgrade, and what is strange is found
// where the catalogs differ. 15 to 18 is in Test15.
func TestPairs(t *testing.T) {
	for _, majors := range [][2]int{{13, 17}, {17, 18}} {
		t.Run(fmt.Sprintf("%d to %d", majors[0], majors[1]), func(t *testing.T) {
			l := labtest.T(t)
			old := l.Start(lab.Options{Name: "old", Major: majors[0], Settings: map[string]string{"shared_preload_libraries": "pg_stat_statements"}})
			nw := l.Primary("new", majors[1])
			plain(t, l, old, nw)
			contents(t, l, old, nw)
		})
	}
}

// plain is an upgrade in whose way nothing stands.
func plain(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	l.Exec(old, "", "CREATE DATABASE shop", "CREATE DATABASE second")
	l.Exec(old, "shop", plainShop)
	l.Exec(nw, "", "CREATE DATABASE second TEMPLATE template0")
	o := pair(t, old, nw)
	o.Databases, o.AllDatabases = nil, true
	f, err := Gather(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Incomplete {
		t.Errorf("could not read %s of %s %s: %v", i.What, i.On, i.Database, i.Err)
	}
	if len(f.Databases) != 3 || len(f.Reach) != 5 || len(f.Programs) != 2 { // new has no shop: tried as postgres
		t.Errorf("%d databases, %d reaches, %d programs", len(f.Databases), len(f.Reach), len(f.Programs))
	}
	for _, x := range Judge(f) {
		if !slices.Contains(ordinary, x.ID) {
			t.Errorf("%s: %s", short(x), x.Says)
		}
	}
	if n := len(f.Budgets()); n != 14 {
		t.Errorf("%d budgets", n)
	}
}

// Test15 asks one pair of servers, from 15 to 18.
func Test15(t *testing.T) {
	l := labtest.T(t)
	old := l.Start(lab.Options{Name: "old", Major: 15, HBA: []string{
		"host postgres repl all trust", "host shop repl all scram-sha-256", "host all norepl all trust",
	}})
	nw := l.Start(lab.Options{Name: "new", Major: 18, HBA: []string{"host shop app all reject", "host shop locked all scram-sha-256"}})
	t.Run("plain", func(t *testing.T) { plain(t, l, old, nw) })
	l.Exec(old, "", "CREATE ROLE repl LOGIN REPLICATION PASSWORD 'right-Sekret-7'", "CREATE ROLE norepl LOGIN",
		"CREATE ROLE app LOGIN", "CREATE ROLE locked LOGIN", "CREATE ROLE fine LOGIN")
	t.Run("reach", func(t *testing.T) { reaches(t, old, nw) })
	t.Run("pg_hba.conf", func(t *testing.T) { refuses(t, old, nw) })
	t.Run("held up", func(t *testing.T) { heldUp(t, old, nw) })
	t.Run("sets", func(t *testing.T) { crosses(t, l, old, nw) })
	t.Run("publications", func(t *testing.T) { narrows(t, l, old, nw) })
	t.Run("schemas of owners", func(t *testing.T) { outsiders(t, l, old, nw) })
	t.Run("identity", func(t *testing.T) { identityLost(t, l, old, nw) })
	t.Run("disks", func(t *testing.T) { disks(t, old, nw) })
	t.Run("pooler", func(t *testing.T) { pooled(t, l, old, nw) })
	t.Run("cost of FULL", func(t *testing.T) { costs(t, l, old, nw) })
}

// dump is everything that a cluster says of itself.
func dump(t *testing.T, c *lab.Cluster) string {
	t.Helper()
	var all strings.Builder
	for _, cmd := range []*exec.Cmd{
		c.Command(t.Context(), "pg_dumpall", "-d", c.Conninfo("postgres"), "--globals-only"),
		c.Command(t.Context(), "pg_dump", "-d", c.Conninfo("postgres"), "--create"),
		c.Command(t.Context(), "pg_dump", "-d", c.Conninfo("shop"), "--create"),
	} {
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", cmd.Args, err)
		}
		all.Write(out)
	}
	for _, q := range []string{
		"SELECT slot_name, slot_type, plugin, active FROM pg_replication_slots ORDER BY 1", "SELECT subname, subslotname FROM pg_subscription ORDER BY 1",
		"SELECT roname FROM pg_replication_origin ORDER BY 1", "SELECT pubname FROM pg_publication ORDER BY 1",
		"SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'lc_%' ORDER BY 1", "SELECT count(*) FROM pg_class", "SELECT count(*) FROM pg_depend", "SELECT count(*) FROM pg_shdepend",
		"SELECT datname, temp_files, deadlocks, conflicts FROM pg_stat_database ORDER BY 1",
		"SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables ORDER BY 1",
	} {
		for _, db := range []string{"postgres", "shop"} {
			rows, err := c.Query(t.Context(), db, q)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&all, q, rows)
		}
	}
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(all.String(), "")
}

// statements are those that the tool has sent so far, as a server with
// log_statement = all logged them: pid and text.
func statements(t *testing.T, l *labtest.Lab, c *lab.Cluster) [][2]string {
	t.Helper()
	// The log is written by a process of its own, in the order of what it got.
	end := fmt.Sprintf("end of %d", time.Now().UnixNano())
	l.Value(c, "", "SELECT '"+end+"'")
	err := pg.Poll(t.Context(), 10*time.Millisecond, "the log", func(context.Context) (bool, error) { return strings.Contains(c.Log(), end), nil })
	if err != nil {
		t.Fatal(err)
	}
	var out [][2]string
	text := c.Log()
	for _, entry := range regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\d `).Split(text, -1) {
		m := regexp.MustCompile(`(?s)\[(\d+)\] .*? LOG:  (?:statement: |execute [^:]*: )(.*)$`).FindStringSubmatch(entry)
		if m != nil && strings.Contains(entry, " crossfade up LOG:") {
			out = append(out, [2]string{m[1], strings.TrimSpace(m[2])})
		}
	}
	return out
}

var comment = regexp.MustCompile(`(?m)^\s*--.*$`)

// TestLeavesNothing: both clusters say the same of themselves before and after,
// what is sent are SELECTs but for the proofs, which are rolled back, and
// their number does not depend on the number of tables.
func TestLeavesNothing(t *testing.T) {
	l := labtest.T(t)
	settings := map[string]string{"log_statement": "all", "stats_fetch_consistency": "none"}
	old := l.Start(lab.Options{Name: "old", Major: 15, Settings: settings})
	nw := l.Start(lab.Options{Name: "new", Major: 18, Settings: settings})
	for _, c := range []*lab.Cluster{old, nw} {
		l.Exec(c, "", "CREATE DATABASE shop")
	}
	l.Exec(old, "shop", plainShop, "SELECT setval('orders_id_seq', 500, false)")
	o := pair(t, old, nw)
	before := [2]string{dump(t, old), dump(t, nw)}
	run(t, o)
	after := [2]string{dump(t, old), dump(t, nw)}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	first := [2]int{len(statements(t, l, old)), len(statements(t, l, nw))}
	for _, c := range []*lab.Cluster{old, nw} {
		open, proofs := map[string]bool{}, 0
		for _, s := range statements(t, l, c) {
			pid, sql := s[0], strings.TrimSpace(comment.ReplaceAllString(s[1], ""))
			verb, _, _ := strings.Cut(sql, " ")
			switch verb = strings.ToUpper(strings.TrimRight(strings.Fields(verb)[0], ";")); verb {
			case "SELECT", "WITH":
			case "BEGIN":
				open[pid] = true
			case "ROLLBACK":
				open[pid] = false
			case "CREATE":
				proofs++
				if !open[pid] || !strings.HasPrefix(sql, "CREATE SUBSCRIPTION crossfade_check ") {
					t.Errorf("%s: %s", c.Name, sql)
				}
			default:
				t.Errorf("%s: %s", c.Name, sql)
			}
		}
		for pid, is := range open {
			if is {
				t.Errorf("%s: transaction of %s was left open", c.Name, pid)
			}
		}
		if proofs != 1 {
			t.Errorf("%s: %d proofs", c.Name, proofs)
		}
	}
	l.Exec(old, "shop", `DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE many%s (id serial PRIMARY KEY)', i); END LOOP; END $$`)
	run(t, o)
	second := [2]int{len(statements(t, l, old)) - first[0], len(statements(t, l, nw)) - first[1]}
	if second != first {
		t.Errorf("%v statements with 4 tables, %v with 304", first, second)
	}
	t.Logf("statements on old and new: %v", first)
}

// TestServers: whoever is not what the runbook says is named, not an error.
func TestServers(t *testing.T) {
	l := labtest.T(t)
	old := l.Primary("old", 15)
	l.Exec(old, "", "CREATE DATABASE shop", "CREATE ROLE plain LOGIN")
	nw := l.Primary("new", 18)
	metal := l.Standby(old, "metal", lab.StandbyOptions{})
	power := l.Standby(metal, "power", lab.StandbyOptions{ApplicationName: "rock"})
	l.Standby(old, "blues", lab.StandbyOptions{NoApplicationName: true, Settings: map[string]string{"cluster_name": ""}})
	older := l.Primary("older", 13)

	t.Run("unreachable", func(t *testing.T) {
		o := pair(t, old, nw)
		o.New = server(t, "new", nw, "port=1")
		got := run(t, o)
		wants(t, got, "block server-unreachable new "+o.New.String())
		if len(Blocking(got)) != 1 {
			t.Errorf("%v", got)
		}
	})
	t.Run("a standby as old", func(t *testing.T) {
		wants(t, run(t, pair(t, metal, nw)), "block server-is-standby old "+server(t, "old", metal).String())
	})
	t.Run("the same server", func(t *testing.T) {
		got := run(t, pair(t, old, old))
		wants(t, got, "block same-server new "+server(t, "new", old).String())
	})
	t.Run("a standby of old as new", func(t *testing.T) {
		got := run(t, pair(t, old, metal))
		wants(t, got, "block same-server new "+server(t, "new", metal).String(), "block server-is-standby new "+server(t, "new", metal).String())
	})
	t.Run("an older major as new", func(t *testing.T) {
		got := run(t, pair(t, old, older))
		x := find(t, got, "server-version")
		if x.Level != Block || x.On != OnNew {
			t.Errorf("%+v", x)
		}
	})
	t.Run("an ordinary role", func(t *testing.T) {
		o := pair(t, old, nw)
		o.Old = server(t, "old", old, "user=plain")
		o.FromNew = server(t, "old", old)
		got := run(t, o)
		wants(t, got, "block privileges old plain", "block check-incomplete old postgres whether it reaches new", "warn check-incomplete old pg_hba.conf")
	})
	t.Run("standbys", func(t *testing.T) {
		o := pair(t, old, nw)
		o.OldStandbys = []Standby{
			{Name: "metal", Server: server(t, "metal", metal)},
			{Name: "power", Server: server(t, "power", power)},
			{Name: "stray", Server: server(t, "stray", older)},
			{Name: "gone", Server: server(t, "gone", older, "port=1")},
		}
		o.NewStandbys = []Standby{{Name: "occupied", Server: server(t, "occupied", nw)}, {Name: "free", Server: server(t, "free", nw, "port=1")}}
		l.Must(old.Set(t.Context(), "synchronous_standby_names", "FIRST 1 (power, metal)", "synchronous_commit", "local"))
		got := run(t, o)
		wants(t, got,
			"warn standby-misnamed power rock", "block standby-role stray stray", "warn standby-unreachable gone gone", "block standby-role occupied occupied",
			"warn sync-names-nobody old synchronous_standby_names", "note sync-fragile old synchronous_standby_names", "warn standby-unnamed old 127.0.0.1", "note standby-unknown old walreceiver",
		)
		for _, x := range got {
			if x.On == "metal" || x.On == "free" || x.ID == "standby-unknown" && x.Object != "walreceiver" || x.ID == "standby-duplicate" {
				t.Errorf("%s: %s", short(x), x.Says)
			}
		}
		// The trap: which node calls itself what, and who would be waited for.
		x := find(t, got, "standby-misnamed")
		if !strings.Contains(x.Says, "one that names rock waits for it") || x.Table == nil {
			t.Fatalf("%+v", x)
		}
		want := [][]string{{"metal", "metal", "the primary", "streaming", "sync"}, {"power", "rock", "metal", "streaming", "async"}}
		if diff := cmp.Diff(want, x.Table.Rows); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
		for line := range strings.Lines(x.Fix) {
			if strings.HasSuffix(strings.TrimSpace(line), ";") {
				l.Exec(power, "", line)
			}
		}
		l.Until(metal, "", "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = 'power' AND state = 'streaming')")
		for _, x := range run(t, o) {
			if x.ID == "standby-misnamed" {
				t.Errorf("%s: %s", short(x), x.Says)
			}
		}
		l.Must(old.Set(t.Context(), "synchronous_standby_names", "*"))
		o.OldStandbys = o.OldStandbys[:1]
		got = run(t, o)
		wants(t, got, "block sync-names-any old synchronous_standby_names", "note standby-unknown metal power")
		// The printed fix makes it go away.
		for line := range strings.Lines(find(t, got, "sync-names-any").Fix) {
			l.Exec(old, "", line)
		}
		l.Until(old, "", "SELECT current_setting('synchronous_standby_names') <> '*'")
		for _, x := range run(t, o) {
			if x.ID == "sync-names-any" {
				t.Errorf("%s: %s", short(x), x.Says)
			}
		}
	})
}

// reaches: whether the servers reach each other is tried from the servers.
func reaches(t *testing.T, old, nw *lab.Cluster) {
	for _, c := range []struct {
		name  string
		extra []string
		want  string // "" reaches
	}{
		{"right", []string{"user=repl", "password=right-Sekret-7"}, ""},
		{"a wrong password", []string{"user=repl", "password=wrong-Sekret-7"}, "password authentication failed"},
		{"no password", []string{"user=repl"}, "no password supplied"},
		{"no right to replicate", []string{"user=norepl"}, "replication role"},
		{"nobody listens", []string{"port=1"}, "onnection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := pair(t, old, nw)
			o.FromNew = server(t, "old", old, c.extra...)
			got := run(t, o)
			i := slices.IndexFunc(got, func(x Finding) bool { return x.ID == "new-cannot-reach-old" })
			switch {
			case c.want == "" && i >= 0:
				t.Error(got[i].Says)
			case c.want != "" && (i < 0 || !strings.Contains(got[i].Says, c.want) || got[i].Database != "shop"):
				t.Errorf("%v", got)
			}
			for _, x := range got {
				if strings.Contains(x.Says+x.Fix+x.Object, "Sekret") {
					t.Errorf("the password is in %s: %s", short(x), x.Says)
				}
			}
		})
	}
	t.Run("back", func(t *testing.T) {
		o := pair(t, old, nw)
		o.FromOld = server(t, "new", nw, "port=1")
		wants(t, run(t, o), "block old-cannot-reach-new old postgres "+o.FromOld.With("postgres").Conninfo())
	})
	if strings.Contains(nw.Log(), "Sekret") {
		t.Error("the password is in new's log")
	}
}

// refuses: a pg_hba.conf on new that refuses the application.
func refuses(t *testing.T, old, nw *lab.Cluster) {
	for _, role := range []string{"app", "locked", "fine"} {
		conn, err := pgx.Connect(t.Context(), old.Conninfo("shop", "user="+role))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
	}
	got := run(t, pair(t, old, nw))
	wants(t, got, "block client-refused new shop app", "block client-refused new shop locked")
	for _, x := range got {
		if x.ID == "client-refused" && x.Object == "fine" {
			t.Errorf("%s: %s", short(x), x.Says)
		}
	}
}

// crosses: foreign keys across the sets that the caller makes.
func crosses(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	l.Exec(old, "shop", "CREATE TABLE log (a int NOT NULL, b int)", "CREATE UNIQUE INDEX log_a ON log (a)", "CREATE UNIQUE INDEX log_b ON log (b)")
	o := pair(t, old, nw)
	o.Databases[0].Identity = map[string]string{"public.log": "index:log_b"}
	o.Databases[0].Sets = func(inv *schema.Inventory) []schema.Set {
		sets := []schema.Set{{Name: "a"}, {Name: "b"}}
		for _, t := range inv.Tables {
			n := 0
			if t.Name == "lines" {
				n = 1
			}
			sets[n].Tables = append(sets[n].Tables, t)
		}
		return sets
	}
	got := run(t, o)
	wants(t, got, "warn foreign-key-sets old shop a, b", "warn truncate-cascade old shop public.orders", "block identity-order old shop public.log")
	o.Databases[0].Identity["public.log"] = "index:log_a"
	o.Databases[0].Exclude = func(_, table string) bool { return table == "orders" }
	got = run(t, o)
	wants(t, got, "block foreign-key-excluded old shop public.lines", "note excluded-tables old shop public.orders")
	for _, x := range got {
		if x.ID == "identity-order" || x.ID == "replica-identity" {
			t.Errorf("%s: %s", short(x), x.Says)
		}
	}
}

// narrows: publications of somebody else with which PostgreSQL refuses the application's
// UPDATE under the identities that the runbook orders.
func narrows(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	if old.Major < 15 {
		return
	}
	l.Exec(old, "shop",
		"CREATE TABLE narrow (id int PRIMARY KEY, a int NOT NULL UNIQUE, b int)", "CREATE TABLE filtered (LIKE narrow INCLUDING ALL)", "CREATE TABLE inserted (LIKE narrow INCLUDING ALL)",
		"CREATE TABLE root (id int PRIMARY KEY, b int) PARTITION BY RANGE (id)", "CREATE TABLE leaf PARTITION OF root DEFAULT",
		"ALTER TABLE filtered REPLICA IDENTITY FULL",
		"CREATE PUBLICATION narrow FOR TABLE narrow (id, a), filtered WHERE (id > 0)",
		"CREATE PUBLICATION by_root FOR TABLE root (id) WITH (publish_via_partition_root)",
		"CREATE PUBLICATION inserts FOR TABLE inserted (id) WITH (publish = 'insert')")
	o := pair(t, old, nw)
	orders := map[string]string{"public.narrow": "full", "public.filtered": "index:filtered_a_key", "public.inserted": "full", "public.leaf": "full"}
	o.Databases[0].Identity = orders
	var objects []string
	for _, x := range run(t, o) {
		if x.ID == "identity-order" {
			objects = append(objects, x.Object)
		}
	}
	slices.Sort(objects)
	if want := []string{"public.filtered", "public.leaf", "public.narrow"}; !slices.Equal(objects, want) {
		t.Errorf("identity-order names %v, not %v", objects, want)
	}
	// PostgreSQL refuses what is named, and nothing else.
	for table, order := range orders {
		identity := "FULL"
		if name, ok := strings.CutPrefix(order, "index:"); ok {
			identity = "USING INDEX " + name
		}
		l.Exec(old, "shop", "ALTER TABLE "+table+" REPLICA IDENTITY "+identity)
		err := old.Exec(t.Context(), "shop", "UPDATE "+table+" SET b = 1")
		if refused := err != nil; refused != slices.Contains(objects, table) {
			t.Errorf("UPDATE of %s: %v", table, err)
		}
	}
	l.Exec(old, "shop", "DROP TABLE narrow, filtered, inserted, root", "DROP PUBLICATION narrow", "DROP PUBLICATION by_root", "DROP PUBLICATION inserts")
}

// outsiders: an owner that may not use the schema of its table, whose function is to run
// with its rights.
func outsiders(t *testing.T, l *labtest.Lab, old, nw *lab.Cluster) {
	l.Exec(old, "shop", "CREATE ROLE arch", "CREATE SCHEMA inside", "CREATE FUNCTION arches(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN true; END'", "ALTER FUNCTION arches OWNER TO arch",
		"CREATE TABLE inside.checked (id int PRIMARY KEY CHECK (arches(id)))", "CREATE TABLE inside.plain (id int PRIMARY KEY)", "ALTER TABLE inside.checked OWNER TO arch", "ALTER TABLE inside.plain OWNER TO arch")
	found := func() (says []string) {
		for _, x := range run(t, pair(t, old, nw)) {
			if x.ID == "owner-schema" {
				says = append(says, x.Says)
			}
		}
		return says
	}
	if says := found(); len(says) != 1 || !strings.Contains(says[0], "checked") || strings.Contains(says[0], "plain") {
		t.Errorf("without USAGE on the schema: %q", says)
	}
	l.Exec(old, "shop", "GRANT USAGE ON SCHEMA inside TO arch")
	if says := found(); len(says) > 0 {
		t.Errorf("with USAGE on the schema: %q", says)
	}
	l.Exec(old, "shop", "DROP SCHEMA inside CASCADE", "DROP FUNCTION arches", "DROP ROLE arch")
}

// heldUp: what cannot be read for a lock is said to be unknown, and what to do.
func heldUp(t *testing.T, old, nw *lab.Cluster) {
	conn, err := pgx.Connect(t.Context(), old.Conninfo("shop"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE pg_catalog.pg_subscription IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	o := pair(t, old, nw)
	o.Back = false // or making a subscription is held up too
	got := run(t, o)
	wants(t, got, "block check-incomplete old subscriptions")
	if x := find(t, got, "check-incomplete"); !strings.Contains(x.Fix, "exclusively") {
		t.Errorf("%+v", x)
	}
}
