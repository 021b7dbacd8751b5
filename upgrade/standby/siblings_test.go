package standby

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/upgrade/flow"
)

// TestSiblings builds three of one level, two at a time, within a rate that
// they share, and one following the first of them.
func TestSiblings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 17, nil)
	_, mn := w.place("metal")
	rock, rn := w.place("rock")
	_, bn := w.place("blues")
	power, pn := w.place("power")
	pn.Upstream = mn
	const limit = 32 << 20
	w.o.Nodes, w.o.Jobs, w.o.Limit = []Node{*pn, *mn, *rn, *bn}, 2, limit
	w.o.Nodes[0].Upstream = &w.o.Nodes[1]

	// One whose program fails does not cost the other its copy.
	w.o.Nodes[1].Bin = wrapped(t, mn.Bin, `[ "$1" = --version ] && exec "$REAL" "$@"; sleep 1; echo no disk >&2; exit 9`)
	did, err := w.run(Steps(w.o))
	if err == nil || !strings.Contains(err.Error(), "no disk") || !slices.Contains(did, "standby/rock/start") || slices.Contains(did, "standby/blues/slot") {
		t.Fatalf("did %v: %v", did, err)
	}
	w.o.Nodes[1].Bin = mn.Bin
	w.must(Steps(w.o))
	w.nothing(Steps(w.o))
	expect(t, "upstream of power", w.Value(power, "", "SELECT current_setting('primary_conninfo') LIKE '%port=' || "+fmt.Sprint(w.Clusters()[1].Port)+" || '%'"), "t")

	// All again, to see what is in work together, and at which rate.
	w.must(Remove(w.o))
	for _, n := range w.o.Nodes {
		w.Must(os.RemoveAll(n.DataDir))
	}
	began, took := map[string]time.Time{}, map[string]time.Duration{}
	together := map[string]bool{}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	err = flow.Run(ctx, flow.Plan{Name: "prepare", Steps: Steps(w.o)}, nil, func(e flow.Event) {
		name, ok := strings.CutSuffix(e.Step, "/copy")
		switch {
		case !ok:
		case e.Kind == flow.Begin:
			for other := range began {
				if _, over := took[other]; !over {
					together[other+" "+name] = true
				}
			}
			began[name] = e.At
		case e.Kind == flow.End:
			took[name] = e.Took
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	pair := together["standby/metal standby/rock"] || together["standby/rock standby/metal"]
	if len(together) != 1 || !pair {
		t.Errorf("in work together: %v", together)
	}
	var size int64
	w.Must(filepath.Walk(rock.DataDir, func(_ string, i os.FileInfo, err error) error {
		if err == nil && !i.IsDir() && !strings.Contains(i.Name(), "0000000") { // WAL is streamed beside it, at its own pace
			size += i.Size()
		}
		return err
	}))
	least := time.Duration(float64(size) / (limit / 2) * float64(time.Second) * 3 / 4)
	t.Logf("%d MB took %v", size>>20, took)
	for _, name := range []string{"standby/metal", "standby/rock"} {
		if took[name] < least {
			t.Errorf("%s took %s; at half of the limit %d bytes take %s", name, took[name], size, least)
		}
	}
	for i, s := range Steps(w.o) {
		if want := map[string]string{"standby/metal/copy": "16384", "standby/blues/copy": "32768"}[s.ID]; want != "" {
			if argv := s.Does[3].Run; !slices.Equal(argv[len(argv)-2:], []string{"-r", want}) {
				t.Errorf("step %d, %s: %v", i, s.ID, argv)
			}
		}
	}
}
