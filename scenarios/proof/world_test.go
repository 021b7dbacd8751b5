package proof

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

// binaries are the shipped programs under test, built once.
var binaries struct {
	sync.Mutex
	dir   string
	built map[string]string
}

// binary builds cmd/crossfade, with build tags for what only a test injects.
func binary(tb testing.TB, tags string) string {
	tb.Helper()
	binaries.Lock()
	defer binaries.Unlock()
	if path, ok := binaries.built[tags]; ok {
		return path
	}
	if binaries.built == nil {
		dir, err := os.MkdirTemp("", "crossfade-bin")
		if err != nil {
			tb.Fatal(err)
		}
		binaries.dir, binaries.built = dir, map[string]string{}
	}
	path := filepath.Join(binaries.dir, "crossfade"+tags)
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "crossfade/cmd/crossfade").CombinedOutput()
	if err != nil {
		tb.Fatalf("build crossfade: %v\n%s", err, out)
	}
	binaries.built[tags] = path
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		if err := os.RemoveAll(binaries.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	os.Exit(code)
}

// world is an old and a new cluster, a runbook, and the shipped binary.
type world struct {
	*labtest.Lab
	t        testing.TB
	old, new *lab.Cluster
	pool     *lab.Pool
	dir      string // of the runbook and the journal
	exe      string
	env      []string       // of the commands, over this process's
	standbys []*lab.Cluster // of new, built by the tool
}

// setting shapes a world.
type setting struct {
	old, new int               // majors; 0: 15 and 18
	sql      string            // run in database shop of old
	extra    string            // runbook lines at the top level
	cutover  string            // runbook lines under cutover:, two blanks in
	dbs      string            // runbook lines of databases:; "": shop and side
	newLines string            // runbook lines of the new cluster, four blanks in
	oldLines string            // runbook lines of old, two blanks in
	pooled   bool              // PgBouncer in front of shop
	oldSet   map[string]string // settings of old
	newSet   map[string]string
	standby  bool // a standby metal of old
	// wire is called when the clusters are there, before old's databases are
	// filled; it may start more, and change what the runbook is made of.
	wire           func(w *world, s *setting)
	oldBin, newBin string // of the runbook; "": those of the clusters
	// oldInstall is what old runs; nil: what the lab finds for its major.
	oldInstall *lab.Install
	// hosts makes the machines that old and new run on; nil: this one.
	hosts func(w *world) (old, new *lab.Host)
}

// shopTables is a small database with what usually goes wrong in it.
const shopTables = `
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text NOT NULL, at timestamptz DEFAULT now());
CREATE TABLE lines (orders_id bigint REFERENCES orders, n int, price numeric(10,2), PRIMARY KEY (orders_id, n));
CREATE TABLE log (line text, at timestamptz DEFAULT now());
ALTER TABLE log REPLICA IDENTITY FULL;
CREATE SEQUENCE free_numbers;
CREATE TABLE parts (k int, v text, PRIMARY KEY (k)) PARTITION BY RANGE (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (1000) TO (2000);
INSERT INTO orders (what) SELECT 'order ' || g FROM generate_series(1, 2000) g;
INSERT INTO lines SELECT id, n, n * 1.5 FROM orders, generate_series(1, 3) n;
INSERT INTO log SELECT 'line ' || g FROM generate_series(1, 500) g;
INSERT INTO parts SELECT g, 'part ' || g FROM generate_series(0, 1999) g;
CREATE VIEW totals AS SELECT orders_id, sum(price) FROM lines GROUP BY 1;
CREATE MATERIALIZED VIEW best AS SELECT orders_id, max(price) m FROM lines GROUP BY 1;
`

// newWorld boots old with databases shop and side, and an empty new.
func newWorld(t testing.TB, s setting) *world {
	t.Helper()
	if s.old == 0 {
		s.old, s.new = 15, 18
	}
	w := &world{Lab: labtest.T(t), t: t, dir: t.TempDir(), exe: binary(t, "")}
	set := map[string]string{"wal_level": "logical", "max_replication_slots": "20", "max_wal_senders": "20", "max_worker_processes": "20", "max_logical_replication_workers": "12", "wal_retrieve_retry_interval": "100ms"}
	with := func(more map[string]string) map[string]string {
		out := map[string]string{}
		for k, v := range set {
			out[k] = v
		}
		for k, v := range more {
			out[k] = v
		}
		return out
	}
	var oldHost, newHost *lab.Host
	if s.hosts != nil {
		oldHost, newHost = s.hosts(w)
	}
	old := lab.Options{Name: "wacken", Major: s.old, Install: s.oldInstall, Settings: with(s.oldSet), Host: oldHost}
	if s.old < 13 {
		old.Install = labtest.Server(t, s.old)
	}
	w.old = w.Start(old)
	w.new = w.Start(lab.Options{Name: "wacken18", Major: s.new, Settings: with(s.newSet), Host: newHost})
	s.oldBin, s.newBin = w.old.Bin, w.new.Bin
	if s.wire != nil {
		s.wire(w, &s)
	}
	w.Exec(w.old, "", "CREATE DATABASE shop", "CREATE DATABASE side", "CREATE ROLE app LOGIN")
	w.Ledger(w.old.Conninfo("shop"))
	sql := s.sql
	if sql == "" {
		sql = shopTables
	}
	w.Exec(w.old, "shop", sql)
	w.Exec(w.old, "shop", "GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
	w.Exec(w.old, "side", "CREATE TABLE kept (k int PRIMARY KEY, v text)", "INSERT INTO kept SELECT g, 'v' || g FROM generate_series(1, 100) g")
	if s.standby {
		w.Lab.Standby(w.old, "metal", lab.StandbyOptions{})
	}
	if s.pooled {
		w.pool = w.PgBouncer(lab.PoolOptions{Users: map[string]string{"app": ""}, Databases: map[string]lab.Backend{"shop": {Cluster: w.old, DB: "shop"}}})
		s.cutover += fmt.Sprintf("  traffic:\n    - pgbouncer: {databases: [shop], instances: [{admin: %q, config: %q}]}\n", w.pool.AdminConninfo(), w.pool.Config)
	}
	if s.dbs == "" {
		s.dbs = "  - name: shop\n    sets:\n      - {name: orders, tables: [public.orders, public.lines]}\n      - {name: rest, tables: [\"*\"]}\n  - {name: side}\n"
	}
	w.runbook(s)
	return w
}

func (w *world) runbook(s setting) {
	w.t.Helper()
	text := fmt.Sprintf(`upgrade: up
old:
  primary: %q
  bin: %q
%snew:
  - cluster: fresh
    primary: %q
    bin: %q
%sdatabases:
%scopy: {jobs: 2, index_jobs: 1}
catchup: {stable: 200ms}
cutover:
  approve: auto
  patience: 60s
%s%s`, w.old.Conninfo("postgres"), s.oldBin, s.oldLines, w.new.Conninfo("postgres"), s.newBin, s.newLines, s.dbs, s.cutover, s.extra)
	if err := os.WriteFile(w.book(), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// both is what a client names that has no pooler: either side's shop, whichever
// takes writes.
func (w *world) both() string {
	return fmt.Sprintf("host=%s,%s port=%d,%d user=postgres dbname=shop sslmode=disable target_session_attrs=read-write",
		w.old.Address(), w.new.Address(), w.old.Port, w.new.Port)
}

func (w *world) book() string { return filepath.Join(w.dir, "crossfade.yaml") }

// ran is a finished command.
type ran struct {
	exit   int
	maxRSS int64 // kB
	stdout string
	stderr string
	args   []string
}

// lines are the JSON objects of one type.
func (r ran) lines(kind string) []map[string]any {
	var out []map[string]any
	s := bufio.NewScanner(strings.NewReader(r.stdout))
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		var m map[string]any
		if json.Unmarshal(s.Bytes(), &m) == nil && m["type"] == kind {
			out = append(out, m)
		}
	}
	return out
}

func (r ran) String() string {
	return fmt.Sprintf("crossfade %s: exit %d\nstdout:\n%s\nstderr:\n%s", strings.Join(r.args, " "), r.exit, r.stdout, r.stderr)
}

// try runs a command to its end.
func (w *world) try(args ...string) ran {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.exe, append(args, "-f", w.book())...)
	cmd.Env = append(os.Environ(), w.env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	r := ran{stdout: out.String(), stderr: errs.String(), args: args}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.maxRSS = u.Maxrss
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		r.exit = exit.ExitCode()
	} else if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// do runs a command and wants an exit code.
func (w *world) do(exit int, args ...string) ran {
	w.t.Helper()
	r := w.try(args...)
	if r.exit != exit {
		w.t.Fatalf("wanted exit %d\n%s", exit, r)
	}
	return r
}

// status asks where the upgrade stands.
func (w *world) status() map[string]any {
	w.t.Helper()
	r := w.try("status", "--json")
	s := r.lines("status")
	if len(s) != 1 {
		w.t.Fatalf("no status\n%s", r)
	}
	return s[0]
}

// wantPhase wants a phase and a side that takes writes.
func (w *world) wantPhase(phase, writable string) {
	w.t.Helper()
	if s := w.status(); s["phase"] != phase || s["writable"] != writable {
		w.t.Fatalf("phase %v, writable %v; wanted %s and %s\n%v", s["phase"], s["writable"], phase, writable, s)
	}
}

// runbookLine changes a line of the runbook.
func (w *world) runbookLine(from, to string) {
	w.t.Helper()
	b, err := os.ReadFile(w.book())
	if err != nil {
		w.t.Fatal(err)
	}
	text := strings.Replace(string(b), from, to, 1)
	if text == string(b) {
		w.t.Fatalf("the runbook has no %q", from)
	}
	if err := os.WriteFile(w.book(), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// long leaves a test to make test-all.
func long(tb testing.TB) {
	tb.Helper()
	if !all() {
		tb.Skip("one of the long ones: make test-all")
	}
}
