package proof

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// TestOldest: the oldest majors of old are told what 12 and 14 took away, and
// once it is gone they go there and back as any other.
func TestOldest(t *testing.T) {
	long(t)
	for _, majors := range [][2]int{{11, 18}, {12, 17}} {
		t.Run(fmt.Sprintf("%d to %d", majors[0], majors[1]), func(t *testing.T) {
			s := setting{old: majors[0], new: majors[1], pooled: true}
			if majors[0] == 11 {
				if r := newWorld(t, s).do(3, "check"); !strings.Contains(r.stdout, "slot-copy") {
					t.Errorf("two sets of a database: %s", r)
				}
				s.dbs = "  - {name: shop}\n  - {name: side}\n"
			}
			w := newWorld(t, s)
			gone := []string{"CREATE VIEW factorials AS SELECT n ! AS f FROM lines"}
			fires := []string{"removed-functions"}
			if majors[0] == 11 {
				gone = append(gone, "CREATE TABLE with_oids (a int PRIMARY KEY) WITH OIDS", "CREATE TABLE old_times (a int PRIMARY KEY, at abstime)")
				fires = append(fires, "table-oids", "removed-types")
			}
			w.Exec(w.old, "shop", gone...)
			seen := func(exit int) (ids []string) {
				for _, f := range w.do(exit, "check", "--json").lines("finding") {
					ids = append(ids, fmt.Sprint(f["id"]))
				}
				return ids
			}
			ids := seen(3)
			for _, id := range fires {
				if !slices.Contains(ids, id) {
					t.Errorf("%s does not fire: %q", id, ids)
				}
			}
			w.Exec(w.old, "shop", "DROP VIEW factorials", "DROP TABLE IF EXISTS with_oids, old_times")
			ids = seen(0)
			for _, id := range fires {
				if slices.Contains(ids, id) {
					t.Errorf("%s still fires", id)
				}
			}
			writer := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 2 * time.Millisecond})
			w.do(0, "prepare")
			w.do(0, "abort", "--yes")
			w.do(0, "prepare")
			w.do(0, "prepare")
			w.do(0, "rehearse", "--yes")
			w.do(0, "cutover", "--yes")
			w.Must(writer.Flow(t.Context(), 100))
			w.do(0, "rollback", "--yes")
			w.Must(writer.Flow(t.Context(), 100))
			w.do(0, "cutover", "--yes")
			w.Must(writer.Flow(t.Context(), 100))
			w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), writer.Stop())
			w.do(0, "finish", "--yes")
		})
	}
}
