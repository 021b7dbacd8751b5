package forecast

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/schema"
	"crossfade/upgrade/pg"
)

// oddTables are tables that a sample must get along with: big, with wide keys,
// with generated columns, with none, locked by somebody.
var oddTables = []string{
	"CREATE TABLE big (id bigint PRIMARY KEY, pad text, twice bigint GENERATED ALWAYS AS (id * 2) STORED)",
	"INSERT INTO big SELECT g, repeat('x', 100) FROM generate_series(1, 100000) g",
	"CREATE INDEX ON big (pad, id)", "CREATE INDEX ON big (lower(pad))", "CREATE INDEX ON big (id) WHERE id > 5",
	`CREATE TABLE "Odd ""Table""" ("a, b" text PRIMARY KEY)`, `INSERT INTO "Odd ""Table""" SELECT repeat('k', 2000) || g FROM generate_series(1, 3000) g`,
	"CREATE TABLE bare ()", "INSERT INTO bare SELECT FROM generate_series(1, 3000)",
	"CREATE TABLE locked (a int PRIMARY KEY)", "INSERT INTO locked SELECT generate_series(1, 300000)",
	"ANALYZE",
}

// TestTake: a sample reads and sorts pieces of every kind of table on the
// oldest and a newer major, keeps its limit, needs no temporary file, writes
// nothing, and does not wait for a lock.
func TestTake(t *testing.T) {
	for _, major := range []int{13, 15} {
		t.Run(fmt.Sprint(major), func(t *testing.T) { take(t, major) })
	}
}

func take(t *testing.T, major int) {
	l := labtest.T(t)
	old := l.Start(lab.Options{Name: "old", Major: major, Settings: map[string]string{"autovacuum": "off", "work_mem": "64kB"}})
	fresh := l.Primary("new", 18)
	l.Exec(old, "", "CREATE DATABASE shop", "CREATE DATABASE odd TEMPLATE template0 ENCODING 'SQL_ASCII'")
	for _, sql := range oddTables {
		l.Exec(old, "shop", sql)
	}
	l.Exec(old, "odd", "CREATE TABLE bytes (t text)", `INSERT INTO bytes SELECT E'\xff' FROM generate_series(1, 1000)`)
	conn, err := old.Connect(t.Context(), "shop")
	l.Must(err)
	_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE locked; INSERT INTO bare DEFAULT VALUES")
	l.Must(err)
	defer func() { _ = conn.Close(t.Context()) }() // the server goes with the test

	// Three times what it takes on a quiet machine: others may work beside it.
	o := Options{Old: server(t, "old", old), New: server(t, "new", fresh), Version: major * 10000, Limit: 6 * time.Second}
	for _, name := range []string{"shop", "odd"} {
		o.Databases = append(o.Databases, database(t, o.Old, name))
	}
	counts := func() string {
		l.Until(old, "", "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name LIKE 'crossfade%'")
		return l.Value(old, "", "SELECT string_agg(format('%s: %s %s %s %s', datname, tup_inserted, tup_updated, tup_deleted, temp_files), '; ' ORDER BY datname) FROM pg_stat_database WHERE datname IN ('shop', 'odd')")
	}
	before, began := counts(), time.Now()
	f, err := Take(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*o.Limit {
		t.Errorf("it took %s, the limit is %s", took, o.Limit)
	}
	if after := counts(); after != before {
		t.Errorf("old had counted %s, and has counted %s", before, after)
	}
	for _, db := range f.Databases {
		for _, table := range db.Sets[0].Tables {
			t.Logf("%s %s: read %v, sorted %v", db.Name, table.Name, table.Read, table.Sorts)
			if strings.Contains(table.Name, "locked") != (table.Read == nil) {
				t.Errorf("%s was read: %v", table.Name, table.Read)
			}
			if table.Name == "public.big" && len(table.Sorts) != 2 {
				t.Errorf("of big's indexes over plain columns %d were sorted", len(table.Sorts))
			}
		}
	}
	if len(f.Missing) != 1 || !strings.Contains(f.Missing[0], "locked") {
		t.Errorf("missing: %q", f.Missing)
	}
	if f.Writers < 1 || f.Oldest <= 0 || f.TripOld <= 0 || f.TripNew <= 0 || f.ProbeOld <= 0 || f.ProbeNew <= 0 || f.Connect <= 0 || f.Cores <= 0 || f.Window < time.Second {
		t.Errorf("not everything was measured: %+v", f)
	}
	o.Brief = true
	if f, err = Take(t.Context(), o); err != nil || f.Databases[0].Sets[0].Tables[0].Read != nil || f.Writers < 1 {
		t.Errorf("a brief look read tables, or saw no writer: %v", err)
	}
	l.Must(fresh.Kill(t.Context()))
	if f, err = Take(t.Context(), o); err != nil || f.TripNew != 0 || f.TripOld <= 0 || len(f.Missing) != 1 {
		t.Errorf("without new: %v, %+v", err, f)
	}
}

func server(t *testing.T, name string, c *lab.Cluster) *pg.Server {
	t.Helper()
	s, err := pg.Parse(name, c.Conninfo(""), "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func database(t *testing.T, s *pg.Server, name string) Database {
	t.Helper()
	conn, err := s.With(name).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }() // it was only read from
	d := Database{Name: name}
	if d.Inventory, err = schema.Read(t.Context(), conn, schema.Filter{NoObjects: true}); err != nil {
		t.Fatal(err)
	}
	if err := conn.QueryRow(t.Context(), "SHOW server_encoding").Scan(&d.Encoding); err != nil {
		t.Fatal(err)
	}
	d.Sets = []schema.Set{{Name: "main", Tables: d.Inventory.Tables}}
	return d
}
