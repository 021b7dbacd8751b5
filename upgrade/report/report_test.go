package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-golden +got); -update writes it anew:\n%s", name, d)
	}
}

var at = time.Date(2026, 11, 28, 2, 30, 1, 123456789, time.FixedZone("CET", 3600))

func lsn(s string) *pg.LSN {
	var l pg.LSN
	if err := l.Scan(s); err != nil {
		panic(err)
	}
	return &l
}

func ready() Status {
	s := Status{
		At: at, Upgrade: "wacken17", Phase: PhaseReady, Writable: WritableOld, WALKeptBytes: new(int64(12 << 20)),
		Step: &Work{
			Plan: "prepare", ID: "copy/shop", Since: new(at.Add(-90 * time.Second)), Done: new(int64(13 << 30)), Total: new(int64(28 << 30)),
			Unit: "bytes", ETASeconds: new(104.0),
		},
		Links: []Link{
			{
				Database: "shop", Set: "orders", Cluster: "wacken17", Direction: Forward, State: "streaming",
				Sent: lsn("0/1A2B3C8"), Confirmed: lsn("0/1A2B3C0"), LagBytes: new(int64(8)), LagSeconds: new(0.007),
				Receiver: &Receiver{
					State: "streaming", SyncState: "async",
					Received: Received{Sent: lsn("0/1A2B3C8"), Write: lsn("0/1A2B3C0"), Flush: lsn("0/1A2B3C0"), Replay: lsn("0/1A2B3C0"), WriteLag: new(0.0002)},
				},
			},
			{Database: "shop", Set: "rest", Cluster: "wacken17", Direction: Forward, State: "waiting", Error: "duplicate key value violates\nunique constraint"},
		},
		Standbys: []Standby{
			{
				Cluster: "old", Name: "metal", Upstream: "primary", State: "streaming", SyncState: "sync", SyncPriority: new(1),
				Received: Received{
					Sent: lsn("16/B374D848"), Write: lsn("16/B374D848"), Flush: lsn("16/B374D848"), Replay: lsn("16/B374D000"),
					WriteLag: new(0.0004), FlushLag: new(0.0011), ReplayLag: new(0.0202),
				},
			},
			{Cluster: "old", Name: "power", Upstream: "metal", State: "streaming", SyncState: "async", SyncPriority: new(0)},
			{Cluster: "old", Name: "rock"},
			{Cluster: "wacken17", Name: "metal", Upstream: "primary"},
		},
		Gates: []Gate{
			{ID: "tables", OK: true},
			{ID: "lag", OK: true, Says: "every link is below 16 MB, for 12 s"},
			{ID: "window", Says: "the window opens 2026-11-29 02:00 +0100 (Europe/Brussels), in 23 h 30 min"},
		},
		Next:   "crossfade cutover --wait",
		Silent: []Silence{{On: "rock", Says: "connection refused"}}, Notes: []string{"the trigger on public.log could not be dropped yet"},
	}
	s.Fence.Old, s.Fence.New = FenceArmed, FenceClosed
	return s
}

// unanswered is a status of which almost nothing is known.
func unanswered() Status {
	return Status{At: at, Upgrade: "wacken17", Silent: []Silence{{On: "old", Says: "connection refused"}}}
}

// examples has every kind of line, once full and once with as little as can be known.
func examples() []Line {
	full := Step{
		Plan: "prepare", ID: "schema/shop", Title: "Make the schema", Forecast: 1500 * time.Millisecond, Actual: 2 * time.Second,
		Effects: []flow.Effect{
			{On: "new", Database: "shop", SQL: "CREATE TABLE public.a (b int CHECK (b > 0 AND b < 9))"},
			{On: "local", Run: []string{"/usr/lib/postgresql/17/bin/pg_dump", "--schema-only"}},
			{On: "Patroni", Request: `PATCH /config {"pause":true}`},
		},
	}
	event, _ := EventOf(flow.Event{At: at, Plan: "cutover", Step: "canary", Kind: flow.Fail, Err: errors.New("the schemas differ"), Took: 12 * time.Millisecond})
	begin, _ := EventOf(flow.Event{At: at, Plan: "cutover", Step: "canary", Kind: flow.Begin})
	return []Line{
		Finding{
			ID: "replica-identity", Level: Block, On: "old", Database: "shop", Object: "public.log", Says: "has no primary key",
			Fix: "ALTER TABLE public.log REPLICA IDENTITY FULL;", Grid: &Grid{Columns: []string{"on old", "have"}, Rows: [][]string{{"slots", "10"}}}, Accepted: true, Acceptable: true,
		},
		Finding{ID: "versions", Level: Note, Says: "15.18 to 18.4"},
		full,
		Step{Plan: "prepare", ID: "gate", Title: "Look"},
		Figure{
			At: at, ID: "wal-kept", Object: "shop", Title: "WAL that old keeps", Value: new(12.5e9), Unit: "bytes", Exceeds: true, Formula: "rate × kept for",
			Terms: []Term{{Name: "rate", Unit: "bytes a second", Value: 1e6, How: "measured", Says: "in 30 s"}}, Says: "too much", Actual: new(11e9),
		},
		Figure{At: at, ID: "catch-up", Title: "Catch up", Unit: "seconds", Never: true, Formula: "changes"},
		event, begin,
		ready(), unanswered(),
		Table{
			Database: "shop", Table: "public.orders", Rows: new(int64(1234567)), Equal: new(false), LSN: lsn("0/1A2B3C8"), Ranges: new(1),
			Differing: []string{"id = 7"},
		},
		Table{Database: "shop", Table: "audit.log", Skipped: "excluded by the runbook"},
		Cutover{
			FenceLSN: map[string]pg.LSN{"shop": *lsn("0/1A2B3C8"), "crew": *lsn("0/1A2B3D0")}, BlockedSeconds: 0.0873,
			Steps:         []CutoverStep{{"arm", 0.8, new(1.0)}, {"canary", 0.0042, nil}},
			RefusedWrites: 3, Canaries: 6,
		},
		Cutover{RefusedWrites: -1},
		Rehearsal{
			WithTraffic: true, BlockedSeconds: 0.0873, LongestWaitSeconds: new(0.0951), Tries: 2, Canaries: 6,
			Steps: []CutoverStep{{"arm", 0.8, new(1.0)}, {"barrier", 0.0042, nil}}, Left: []string{`shop "public"."log"`},
		},
		Rehearsal{RefusedWrites: -1},
		Table{Database: "shop", Table: "public.hot", Rows: new(int64(1)), Equal: new(true), LSN: lsn("0/1A2B3C8"), Ranges: new(1), Differing: []string{}, Skipped: "1 row moved in every look"},
		Left{Says: []string{"old: fence", "new: nothing of this upgrade is left"}, Lift: []string{"DROP FUNCTION crossfade.fence() CASCADE;"}},
		Left{},
		Draft{File: "crossfade.yaml", Text: "upgrade: x\n"},
		Draft{Text: "upgrade: x\n"},
		Error{Exit: 5, Says: "the cutover was undone", On: "old", Object: "public.orders", SQLState: "55P03", Hint: "run it again"},
		Error{Exit: 1, Says: "failed"},
	}
}

func TestLines(t *testing.T) {
	var b bytes.Buffer
	for _, l := range examples() {
		if err := Encode(&b, l); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "lines.golden", b.Bytes())

	// The same keys whatever is known, but for the union of sql and run; "type" first.
	keys := map[string]string{}
	for line := range strings.Lines(b.String()) {
		if !strings.HasPrefix(line, `{"type":"`) {
			t.Errorf("type is not first: %s", line)
		}
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		kind, _ := m["type"].(string)
		var have []string
		dec := json.NewDecoder(strings.NewReader(line))
		if _, err := dec.Token(); err != nil {
			t.Fatal(err)
		}
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				t.Fatal(err)
			}
			have = append(have, k.(string))
			var v json.RawMessage
			if err := dec.Decode(&v); err != nil {
				t.Fatal(err)
			}
		}
		got := strings.Join(have, " ")
		if want, ok := keys[kind]; ok && want != got {
			t.Errorf("%s: a field is absent where its value is not known:\n%s\n%s", kind, want, got)
		}
		keys[kind] = got
	}
}

func TestProgressIsNoLine(t *testing.T) {
	for _, k := range []flow.Kind{flow.Progress, flow.Note} {
		if _, ok := EventOf(flow.Event{Kind: k}); ok {
			t.Errorf("%s became an event", k)
		}
	}
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	show := func(what string, err error) {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		b.WriteString("==\n")
	}
	show("ready", ready().Text(&b))
	show("unanswered", unanswered().Text(&b))
	for _, w := range []Writable{WritableNew, WritableNone, WritableBoth} {
		s := Status{At: at, Upgrade: "u", Phase: PhaseOpen, Writable: w}
		s.Fence.Old = FenceClosed
		show(string(w), s.Text(&b))
	}
	golden(t, "status.golden", b.Bytes())
}

func TestPlanText(t *testing.T) {
	var b bytes.Buffer
	var tables []flow.Effect
	for i := range 50 {
		sql := "INSERT INTO crossfade.ledger (key, value) VALUES ('toc', '{}');\nCREATE TABLE public.t ()"
		if i < 22 {
			sql = "INSERT INTO crossfade.ledger (key, value) VALUES ('toc', '{}');\nCREATE TYPE public.d AS ENUM ('a')"
		}
		tables = append(tables, flow.Effect{On: "new", Database: "shop", SQL: sql})
	}
	p := flow.Plan{Name: "prepare", AllOrNothing: true, Steps: []flow.Step{
		{ID: "globals", Title: "Make the roles", Forecast: 1200 * time.Millisecond, Does: []flow.Effect{
			{On: "new", SQL: "CREATE ROLE a;\nALTER ROLE a LOGIN;"},
			{On: "local", Run: []string{"/bin/pg_dump", "-d", "host=a dbname=b"}},
		}},
		{ID: "schema/shop", Title: "Make the tables", Does: append(tables, flow.Effect{On: "new", Database: "shop", SQL: "CREATE INDEX i ON t"})},
		{ID: "open", Title: "Decide", Commit: true},
	}}
	for _, full := range []bool{false, true} {
		if err := PlanText(&b, PlanOf(p), full); err != nil {
			t.Fatal(err)
		}
	}
	var r bytes.Buffer
	for _, l := range examples() {
		switch l := l.(type) {
		case Table:
			if err := l.Text(&r); err != nil {
				t.Fatal(err)
			}
		case Cutover:
			if err := l.Text(&r, "new"); err != nil {
				t.Fatal(err)
			}
		case Rehearsal:
			if err := l.Text(&r); err != nil {
				t.Fatal(err)
			}
		case Left:
			if err := l.Text(&r); err != nil {
				t.Fatal(err)
			}
		}
	}
	golden(t, "plan.golden", b.Bytes())
	golden(t, "results.golden", r.Bytes())
}

func TestExit(t *testing.T) {
	closed, open := []Gate{{ID: "lag"}}, []Gate{{ID: "lag", OK: true}}
	silent := []Silence{{"old", "refused"}}
	for _, c := range []struct {
		name string
		s    Status
		want int
	}{
		{"healthy", Status{Writable: WritableOld, Gates: open}, 0},
		{"after open", Status{Writable: WritableNew}, 0},
		{"gate", Status{Writable: WritableOld, Gates: closed}, 4},
		{"none", Status{Writable: WritableNone, Gates: closed, Silent: silent}, 6},
		{"both", Status{Writable: WritableBoth}, 6},
		{"silent", Status{Writable: WritableOld, Gates: open, Silent: silent}, 1},
		{"unknown", Status{Writable: WritableUnknown}, 1},
		{"zero", Status{}, 1},
		{"gate before silence", Status{Writable: WritableUnknown, Gates: closed, Silent: silent}, 4},
	} {
		if got := c.s.Exit(); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1 << 10: "1.0 kB", 16 << 20: "16 MB", 1500 << 20: "1.5 GB", 50 << 30: "50 GB", 1 << 50: "1.0 PB", -2048: "-2.0 kB"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{800 * time.Microsecond: "0.8 ms", 87 * time.Millisecond: "87 ms", 12 * time.Second: "12.0 s", time.Hour: "1h0m0s"} {
		if got := Took(d); got != want {
			t.Errorf("Took(%s) = %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "less than a second", 104 * time.Second: "about 104 s", 90 * time.Minute: "about 90 min", 150 * time.Minute: "about 2 h 30 min"} {
		if got := About(d); got != want {
			t.Errorf("About(%s) = %q, want %q", d, got, want)
		}
	}
	for _, c := range []struct {
		done  int64
		total *int64
		unit  string
		want  string
	}{
		{5, nil, "tables", "5 tables"},
		{5, new(int64(0)), "tables", "5 tables"},
		{5, new(int64(10)), "tables", "50 % (5 of 10 tables)"},
		{20, new(int64(10)), "", "100 % (20 of 10)"},
		{1 << 30, new(int64(2 << 30)), "bytes", "50 % (1.0 GB of 2.0 GB)"},
	} {
		if got := Progress(c.done, c.total, c.unit); got != c.want {
			t.Errorf("Progress(%d) = %q, want %q", c.done, got, c.want)
		}
	}
}

// TestClusters: of several new clusters, what is said of all together.
func TestClusters(t *testing.T) {
	t.Parallel()
	one := func(name string, phase Phase, w Writable) ClusterStatus {
		c := ClusterStatus{Cluster: name, Phase: phase, Writable: w}
		c.Fence.Old, c.Fence.New = FenceArmed, FenceClosed
		if w == WritableNew {
			c.Fence.Old, c.Fence.New = FenceClosed, FenceArmed
		}
		return c
	}
	for _, c := range []struct {
		clusters []ClusterStatus
		phase    Phase
		writable Writable
		exit     int
	}{
		{[]ClusterStatus{one("a", PhaseReady, WritableOld), one("b", PhaseReady, WritableOld)}, PhaseReady, WritableOld, 0},
		{[]ClusterStatus{one("a", PhaseOpen, WritableNew), one("b", PhaseReady, WritableOld)}, PhaseReady, WritableSplit, 0},
		{[]ClusterStatus{one("a", PhaseOpen, WritableNew), one("b", PhaseOpen, WritableNew)}, PhaseOpen, WritableNew, 0},
		{[]ClusterStatus{one("a", PhaseOpen, WritableNew), one("b", PhaseCutover, WritableNone)}, PhaseCutover, WritableNone, 6},
		{[]ClusterStatus{one("a", PhaseOpen, WritableBoth), one("b", PhaseReady, WritableOld)}, PhaseReady, WritableBoth, 6},
		{[]ClusterStatus{one("a", PhaseRolledBack, WritableOld), one("b", PhaseOpen, WritableNew)}, PhaseRolledBack, WritableSplit, 0},
		{[]ClusterStatus{one("a", "", ""), one("b", PhaseReady, WritableOld)}, "", WritableUnknown, 1},
	} {
		s := Status{Clusters: c.clusters}
		s.Summarize()
		if s.Phase != c.phase || s.Writable != c.writable || s.Exit() != c.exit {
			t.Errorf("%v: phase %s, writable %s, exit %d; wanted %s, %s, %d", c.clusters, s.Phase, s.Writable, s.Exit(), c.phase, c.writable, c.exit)
		}
		if (s.Fence.Old == "") != (c.clusters[0].Fence.Old != c.clusters[1].Fence.Old) {
			t.Errorf("%v: the fence of old is said to be %q", c.clusters, s.Fence.Old)
		}
	}
	s := Status{Upgrade: "wacken", Clusters: []ClusterStatus{one("a", PhaseOpen, WritableNew), one("b", PhaseReady, WritableOld)}}
	s.Summarize()
	var text, line bytes.Buffer
	if err := errors.Join(s.Text(&text), Encode(&line, s)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"cluster a: new takes writes; old refuses them (phase open)\n", "cluster b: old takes writes; new refuses them (phase ready)\n"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in\n%s", want, text.String())
		}
	}
	const want = `"clusters":[{"cluster":"a","phase":"open","writable":"new","fence":{"old":"closed","new":"armed"},"step":null,"next":null},`
	if !strings.Contains(line.String(), want) || !strings.Contains(line.String(), `"writable":"split"`) {
		t.Errorf("%s", line.String())
	}
}
