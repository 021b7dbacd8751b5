package schema_test

import (
	"fmt"
	"strings"
	"testing"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// apply executes globals as a step would, and returns what it sent.
func apply(t testing.TB, on *pg.Server, globals []schema.Global) []flow.Effect {
	t.Helper()
	var sent []flow.Effect
	for _, g := range globals {
		e := g.Effect.Fill(g.Vars)
		must(t, cluster(t, 0+majorOf(on)).Exec(t.Context(), "postgres", e.SQL))
		sent = append(sent, e)
	}
	return sent
}

func majorOf(s *pg.Server) (major int) {
	_, _ = fmt.Sscanf(s.Name, "pg%d", &major)
	return major
}

func globals(t testing.TB, old, new *pg.Server, database string) ([]schema.Global, []schema.Problem) {
	t.Helper()
	g, p, err := schema.Globals(t.Context(), connect(t, old.With("postgres")), connect(t, new.With("postgres")), []string{database})
	must(t, err)
	return g, p
}

func TestGlobalsAreCarriedOnce(t *testing.T) {
	for _, m := range majors {
		t.Run(fmt.Sprintf("%d to %d", m.old, m.new), func(t *testing.T) {
			old := loaded(t, m.old)
			to, err := pg.Parse(fmt.Sprintf("pg%d", m.new), cluster(t, m.new).Conninfo("postgres"), "")
			must(t, err)
			g, _ := globals(t, old, to, old.Database())
			apply(t, to, g)
			g, _ = globals(t, old, to, old.Database())
			for _, x := range g {
				t.Errorf("not done: %s: %s", x.Key, x.Effect.SQL)
			}
			want, got := shared(t, connect(t, old), old.Database()), shared(t, connect(t, to), old.Database())
			for _, d := range schema.Unexpected(schema.DiffShared(want, got)) {
				t.Error(d.Says)
			}
		})
	}
}

func shared(t testing.TB, conn *pgx.Conn, database string) *schema.Shared {
	t.Helper()
	s, err := schema.ReadShared(t.Context(), conn, []string{database})
	must(t, err)
	return s
}

func TestNoPlanShowsAPassword(t *testing.T) {
	old := loaded(t, 15)
	to := fresh(t, 18)
	g, _ := globals(t, old, to, old.Database())
	for _, x := range g {
		if strings.Contains(x.Effect.SQL+x.Undo.SQL, "SCRAM-SHA") {
			t.Errorf("%s shows a password", x.Key)
		}
	}
}
