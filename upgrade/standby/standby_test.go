package standby

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

func server(t *testing.T, name, conninfo string) *pg.Server {
	t.Helper()
	s, err := pg.Parse(name, conninfo, "")
	if err != nil {
		t.Fatal(err)
	}
	return s.As("crossfade test")
}

// world is a new primary with some places for standbys.
type world struct {
	*labtest.Lab
	t       *testing.T
	primary *lab.Cluster
	o       Options
}

func newWorld(t *testing.T, major int, settings map[string]string) *world {
	t.Helper()
	l := labtest.T(t)
	if settings == nil {
		settings = map[string]string{}
	}
	settings["wal_retrieve_retry_interval"] = "100ms" // a cascade whose upstream restarts comes back at once
	p := l.Start(lab.Options{Name: "wacken", Major: major, Settings: settings})
	l.Exec(p, "", "CREATE TABLE public.t (n int)", "INSERT INTO public.t SELECT generate_series(1, 10000)")
	return &world{l, t, p, Options{
		Upgrade: "up", Primary: server(t, "new", p.Conninfo("postgres")), Version: major * 10000, Patience: 15 * time.Second,
	}}
}

// place reserves a place and returns the node to be built there.
func (w *world) place(name string) (*lab.Cluster, *Node) {
	w.t.Helper()
	c := w.Reserve(name, w.primary.Major)
	return c, &Node{Name: name, Server: server(w.t, name, c.Conninfo("postgres")), Bin: c.Bin, DataDir: c.DataDir}
}

// run runs steps and returns which were not skipped.
func (w *world) run(steps []flow.Step) ([]string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 90*time.Second)
	defer cancel()
	var did []string
	err := flow.Run(ctx, flow.Plan{Name: "prepare", Steps: steps}, nil, func(e flow.Event) {
		switch e.Kind {
		case flow.Begin:
			did = append(did, e.Step)
		case flow.Note:
			w.t.Logf("%s: %s", e.Step, e.Says)
		}
	})
	return did, err
}

func (w *world) must(steps []flow.Step) []string {
	w.t.Helper()
	did, err := w.run(steps)
	if err != nil {
		w.t.Fatal(err)
	}
	return did
}

func (w *world) nothing(steps []flow.Step) {
	w.t.Helper()
	if did := w.must(steps); len(did) > 0 {
		w.t.Errorf("run again, it did %v", did)
	}
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %q, not %q", what, got, want)
	}
}

func TestTree(t *testing.T) {
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprintf("v%d", major), func(t *testing.T) { t.Parallel(); tree(t, major) })
	}
}

// tree builds a standby with settings, one following it and a delayed one, twice,
// and promotes the first.
func tree(t *testing.T, major int) {
	w := newWorld(t, major, nil)
	w.Exec(w.primary, "", "ALTER SYSTEM SET work_mem = '5MB'", "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'")
	metal, mn := w.place("metal")
	power, pn := w.place("power")
	blues, bn := w.place("blues")
	mn.Settings = []Setting{{"hot_standby_feedback", "on"}, {"max_standby_streaming_delay", "45min"}}
	mn.Slot = "slot_of_metal"
	pn.Upstream = mn
	bn.Delay = time.Hour
	names := "ANY 1 (metal, rock)"
	w.o.SynchronousStandbyNames = &names
	w.o.Temporary = []string{"max_slot_wal_keep_size"}
	w.o.Nodes = []Node{*pn, *mn, *bn} // not in the order of the tree
	if errs := Refusals(t.Context(), w.o); len(errs) > 0 {
		t.Fatal(errs)
	}
	began := time.Now()
	w.must(Steps(w.o))
	t.Logf("built in %s", time.Since(began))
	w.nothing(Steps(w.o))

	expect(t, "upstream of metal", w.Value(w.primary, "", "SELECT string_agg(application_name || ' ' || sync_state, ', ' ORDER BY application_name) FROM pg_stat_replication"), "blues async, metal quorum")
	expect(t, "upstream of power", w.Value(metal, "", "SELECT string_agg(application_name, ', ') FROM pg_stat_replication"), "power")
	expect(t, "slots of the primary", w.Value(w.primary, "", "SELECT string_agg(slot_name || ' ' || active, ', ' ORDER BY slot_name) FROM pg_replication_slots"), "blues true, slot_of_metal true")
	expect(t, "slots of metal", w.Value(metal, "", "SELECT string_agg(slot_name || ' ' || active, ', ' ORDER BY slot_name) FROM pg_replication_slots"), "power true")
	expect(t, "delay", w.Value(blues, "", "SHOW recovery_min_apply_delay"), "1h")
	expect(t, "feedback", w.Value(metal, "", "SHOW hot_standby_feedback"), "on")
	expect(t, "cluster_name", w.Value(power, "", "SHOW cluster_name"), "power")
	expect(t, "what ALTER SYSTEM set", w.Value(power, "", "SHOW work_mem"), "5MB")
	expect(t, "what is temporary", w.Value(metal, "", "SHOW max_slot_wal_keep_size"), "-1")

	// A write, while the primary waits for a standby.
	w.Exec(w.primary, "", "INSERT INTO public.t VALUES (0)")
	w.Until(power, "", "SELECT count(*) = 10001 FROM public.t")
	expect(t, "the delayed node's rows", w.Value(blues, "", "SELECT count(*) FROM public.t"), "10000")

	states := w.states()
	if len(states) != 2 || states[1].ApplicationName != "metal" || states[1].Flush == nil || states[1].Slot != "slot_of_metal" || states[1].Logical {
		t.Errorf("states: %+v", states)
	}

	// A setting of the runbook that changes is taken over.
	w.o.Nodes[1].Settings[0].Value = "off"
	did := strings.Join(w.must(Steps(w.o)), " ")
	if !strings.HasPrefix(did, "standby/metal/configure standby/metal/restart") || strings.Contains(did, "copy") {
		t.Errorf("steps of a changed setting: %s", did)
	}
	expect(t, "feedback", w.Value(metal, "", "SHOW hot_standby_feedback"), "off")
	w.nothing(Steps(w.o))

	w.Must(metal.Promote(t.Context()))
	w.Exec(metal, "", "INSERT INTO public.t VALUES (-1)")
}

func (w *world) states() []State {
	w.t.Helper()
	var states []State
	w.Must(with(w.t.Context(), w.o.Primary, func(conn *pgx.Conn) (err error) {
		states, err = States(w.t.Context(), conn, "new")
		return err
	}))
	return states
}

func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 17, nil)
	metal, mn := w.place("metal")
	power, pn := w.place("power")
	pn.Upstream = mn
	names := "metal"
	w.o.SynchronousStandbyNames = &names
	w.o.Nodes = []Node{*mn, *pn}
	w.must(Steps(w.o))
	w.must(Remove(w.o))
	w.nothing(Remove(w.o))
	expect(t, "slots", w.Value(w.primary, "", "SELECT count(*) FROM pg_replication_slots"), "0")
	expect(t, "synchronous names", w.Value(w.primary, "", "SHOW synchronous_standby_names"), "")
	expect(t, "ALTER SYSTEM", w.Value(w.primary, "", "SELECT count(*) FROM pg_file_settings WHERE name = 'synchronous_standby_names'"), "0")
	for _, c := range []*lab.Cluster{metal, power} {
		if c.Running() {
			t.Errorf("%s still runs", c.Name)
		}
		if _, err := os.Stat(filepath.Join(c.DataDir, "PG_VERSION")); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(c.DataDir + ".crossfade"); !os.IsNotExist(err) {
			t.Errorf("the mark of %s: %v", c.Name, err)
		}
	}
	if testing.Short() {
		return
	}
	// Again from the start: what was built is moved aside like anybody's.
	w.must(Steps(w.o))
	if old, err := filepath.Glob(metal.DataDir + ".before-up-*"); len(old) != 1 {
		t.Errorf("moved aside: %v %v", old, err)
	}
	// After finish the nodes are nobody's: an abort leaves them alone.
	w.must(Forget(w.o))
	w.nothing(Steps(w.o))
	w.o.SynchronousStandbyNames = nil
	w.nothing(Remove(w.o))
}
