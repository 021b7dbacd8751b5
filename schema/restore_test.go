package schema_test

import (
	"fmt"
	"testing"

	"crossfade/schema"
)

var majors = []struct{ old, new int }{{15, 18}, {13, 18}, {15, 17}, {17, 18}}

func TestRestoreOfAHardSchema(t *testing.T) {
	for _, m := range majors {
		t.Run(fmt.Sprintf("%d to %d", m.old, m.new), func(t *testing.T) {
			old, to := hard(t, m.old), fresh(t, m.new)
			roles(t, m.new)
			carry(t, old, to, m.new)
			firing, err := schema.FiringTriggers(t.Context(), connect(t, old))
			must(t, err)
			conn := session(t, to)
			for _, f := range firing {
				exec(t, conn, f.Restore())
			}
			sameOracle(t, old, to, m.new)
			again := 0
			must(t, schema.Restore(t.Context(), conn, dump(t, old, m.new), func(schema.Entry) { again++ }))
		})
	}
}
