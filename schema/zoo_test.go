package schema_test

import (
	"fmt"
	"os"
	"testing"

	"crossfade/upgrade/pg"
)

// zoo is a new database with what scenarios/zoo.sql makes in it.
func zoo(t testing.TB, major int) *pg.Server {
	t.Helper()
	s := fresh(t, major)
	script, err := os.ReadFile("../scenarios/zoo.sql")
	must(t, err)
	_, err = cluster(t, major).Psql(t.Context(), s.Database(), string(script))
	must(t, err)
	return s
}

func zooRoles(t testing.TB, major int) {
	t.Helper()
	for _, r := range []string{"zoo_owner", "zoo_user", "system_user", `zoo Übung"s`} {
		must(t, cluster(t, major).Exec(t.Context(), "postgres", fmt.Sprintf(
			"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = %s) THEN CREATE ROLE %s; END IF; END $$", pg.Literal(r), pg.Ident(r))))
	}
}

// TestZoo: a schema with an object of every kind comes over, and the comparison
// of the catalogs finds nothing that a major writes in another way.
func TestZoo(t *testing.T) {
	pairs := [][2]int{{15, 18}}
	if os.Getenv("CROSSFADE_ALL") != "" {
		pairs = append(pairs, [][2]int{{13, 14}, {13, 18}, {14, 15}, {15, 16}, {16, 17}, {17, 18}}...)
	}
	for _, p := range pairs {
		t.Run(fmt.Sprintf("%d to %d", p[0], p[1]), func(t *testing.T) {
			old, to := zoo(t, p[0]), fresh(t, p[1])
			zooRoles(t, p[1])
			carry(t, old, to, p[1])
			noDifference(t, old, to)
		})
	}
}
