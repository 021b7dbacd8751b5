package schema_test

import (
	"fmt"
	"testing"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

func read(t testing.TB, s *pg.Server) *schema.Inventory {
	t.Helper()
	inv, err := schema.Read(t.Context(), connect(t, s), schema.Filter{})
	must(t, err)
	return inv
}

func TestDiffOfARestoredSchema(t *testing.T) {
	for _, m := range majors {
		t.Run(fmt.Sprintf("%d to %d", m.old, m.new), func(t *testing.T) {
			old, to := hard(t, m.old), fresh(t, m.new)
			roles(t, m.new)
			carry(t, old, to, m.new)
			for _, d := range compare(t, old, to) {
				if d.Expected == "" {
					t.Error(d.Says)
				} else {
					t.Log(d.Says, d.Expected)
				}
			}
		})
	}
}

func compare(t testing.TB, old, to *pg.Server) []schema.Difference {
	t.Helper()
	all, err := schema.Compare(t.Context(), connect(t, to), read(t, old), read(t, to))
	must(t, err)
	return all
}
