package schema_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// servers are shared by the tests of the package: one cluster of each major,
// started when a test first asks for it, one database for each test.
var servers struct {
	sync.Mutex
	lab      *lab.Lab
	clusters map[int]*lab.Cluster
	hard     map[int]*pg.Server
	n        int
}

func TestMain(m *testing.M) {
	code := m.Run()
	if servers.lab != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if err := servers.lab.Down(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		cancel()
	}
	os.Exit(code)
}

// cluster is the shared server of a major.
func cluster(t testing.TB, major int) *lab.Cluster {
	t.Helper()
	servers.Lock()
	defer servers.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if servers.lab == nil {
		l, err := lab.New(ctx, lab.Config{})
		if err != nil {
			t.Fatal(err)
		}
		servers.lab, servers.clusters = l, map[int]*lab.Cluster{}
		servers.hard = map[int]*pg.Server{}
	}
	if c, ok := servers.clusters[major]; ok {
		return c
	}
	c, err := servers.lab.Start(ctx, lab.Options{Name: fmt.Sprintf("pg%d", major), Major: major, Settings: map[string]string{
		"fsync": "off", "jit": "off", "autovacuum": "off", "log_statement": "all",
	}})
	if err != nil {
		if reason := os.Getenv("CROSSFADE_SKIP"); reason != "" {
			t.Skipf("%s (%v)", reason, err)
		}
		t.Fatal(err)
	}
	servers.clusters[major] = c
	return c
}

// fresh is a new empty database of a shared server, as crossfade reaches it.
func fresh(t testing.TB, major int, template ...string) *pg.Server {
	t.Helper()
	c := cluster(t, major)
	servers.Lock()
	servers.n++
	name := fmt.Sprintf("db%d", servers.n)
	servers.Unlock()
	must(t, c.Exec(t.Context(), "postgres", "CREATE DATABASE "+name+" TEMPLATE "+append(template, "template0")[0]))
	s, err := pg.Parse(fmt.Sprintf("pg%d", major), c.Conninfo(name), "")
	must(t, err)
	return s
}

// hard is a new database with what scenarios/hard.sql makes in it: a copy of
// one that was loaded once, which has all but the properties of the database.
func hard(t testing.TB, major int) *pg.Server {
	t.Helper()
	servers.Lock()
	original, ok := servers.hard[major]
	servers.Unlock()
	if !ok {
		original = loaded(t, major)
		servers.Lock()
		servers.hard[major] = original
		servers.Unlock()
	}
	return fresh(t, major, original.Database())
}

// loaded is a new database that scenarios/hard.sql was loaded into.
func loaded(t testing.TB, major int) *pg.Server {
	t.Helper()
	s := fresh(t, major)
	script, err := os.ReadFile("../scenarios/hard.sql")
	must(t, err)
	_, err = cluster(t, major).Psql(t.Context(), s.Database(), string(script))
	must(t, err)
	return s
}

// program is a client program of a shared server's major.
func program(t testing.TB, major int, name string) string {
	t.Helper()
	return filepath.Join(cluster(t, major).Bin, name)
}

func connect(t testing.TB, s *pg.Server) *pgx.Conn {
	t.Helper()
	conn, err := s.Connect(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func session(t testing.TB, s *pg.Server) *pgx.Conn {
	t.Helper()
	conn, err := schema.Session(t.Context(), s, nil)
	must(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if err := pg.Exec(t.Context(), conn, sql); err != nil {
		t.Fatalf("%s: %v", pg.Brief(sql), err)
	}
}

func dump(t testing.TB, from *pg.Server, newMajor int) []schema.Entry {
	t.Helper()
	entries, _, err := schema.Dump(t.Context(), from, program(t, newMajor, "pg_dump"), nil)
	must(t, err)
	return entries
}

// roles makes the roles of hard.sql on a server, as Globals would.
func roles(t testing.TB, major int) {
	t.Helper()
	for _, r := range []string{"hard_owner", "hard_app", "hard_reader", `Hard "Quoted" Role`} {
		must(t, cluster(t, major).Exec(t.Context(), "postgres", fmt.Sprintf(
			"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) THEN CREATE ROLE %s; END IF; END $$", pg.Literal(r), pg.Ident(r))))
	}
}

// carry restores the whole schema of from into to.
func carry(t testing.TB, from, to *pg.Server, newMajor int) {
	t.Helper()
	conn := session(t, to)
	exec(t, conn, schema.Ledger("new", to.Database()).SQL)
	must(t, schema.Restore(t.Context(), conn, dump(t, from, newMajor), nil))
}

var (
	noise  = regexp.MustCompile(`(?m)^(\\(un)?restrict .*|-- Dumped (from|by) .*|SET default_tablespace = '';|SET default_table_access_method = heap;|--.*)\n`)
	attver = regexp.MustCompile(`(?m)^ALTER .* SET \(pg_attver=\d+\);\n|pg_attver=\d+, `)
)

func pgDump(t testing.TB, s *pg.Server, newMajor int) string {
	t.Helper()
	cmd := s.Command(t.Context(), program(t, newMajor, "pg_dump"), "--schema-only", "--no-publications", "--no-subscriptions",
		"--exclude-schema=crossfade", "--dbname="+s.Conninfo())
	out, err := cmd.Output()
	must(t, err)
	return attver.ReplaceAllString(string(out), "")
}

// sameOracle compares new with what pg_dump of old, piped into psql, makes on
// new's major: an opinion that owes nothing to this package.
func sameOracle(t testing.TB, old, new *pg.Server, newMajor int) {
	t.Helper()
	other := fresh(t, newMajor)
	_, err := cluster(t, newMajor).Psql(t.Context(), other.Database(), pgDump(t, old, newMajor))
	must(t, err)
	parts := func(s *pg.Server) map[string]int {
		parts := map[string]int{}
		for _, p := range strings.Split(noise.ReplaceAllString(pgDump(t, s, newMajor), ""), "\n\n") {
			if p = strings.TrimSpace(p); p != "" {
				parts[p]++
			}
		}
		return parts
	}
	want, got := parts(other), parts(new)
	for p, n := range want {
		if got[p] != n {
			t.Errorf("only pg_dump | psql made:\n%s", p)
		}
	}
	for p, n := range got {
		if want[p] != n {
			t.Errorf("only Restore made:\n%s", p)
		}
	}
}
