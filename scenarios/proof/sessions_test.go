package proof

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/scenarios/lab"

	"github.com/jackc/pgx/v5"
)

// sampleEvery is how often the sessions of the tool are looked at.
const sampleEvery = 20 * time.Millisecond

// holding is what one session of the tool held in one look.
type holding struct {
	side, app, kind, state, query string
	pid                           int32
	since                         time.Time // when its transaction began
	changed                       time.Time // when it last began or ended a statement
	snapshot, xid                 bool
	locks                         []string // of relations of users
}

// watcher looks at the sessions of the tool on both sides.
type watcher struct {
	w    *world
	stop context.CancelFunc
	all  sync.WaitGroup

	mu   sync.Mutex
	step string // that is under way
	seen map[string]*stay
	// looks is how often it has looked.
	looks int
}

// stay is one thing that a session held on to: how many looks in a row saw it, in
// which steps.
type stay struct {
	holding
	looks int
	steps []string
}

// heldNow is what sessions of the tool hold: a transaction, a snapshot, locks of
// tables.
const heldNow = `
	SELECT a.pid, a.application_name, a.backend_type, coalesce(a.state, ''), left(regexp_replace(a.query, '\s+', ' ', 'g'), 100), a.xact_start, coalesce(a.state_change, a.backend_start),
	       a.backend_xmin IS NOT NULL, a.backend_xid IS NOT NULL,
	       ARRAY(SELECT l.mode || ' ' || l.relation FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted AND l.relation >= 16384 ORDER BY 1)
	FROM pg_stat_activity a
	WHERE a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid()
	  AND (a.application_name LIKE 'crossfade%' OR a.application_name LIKE 'pg\_%')`

// watch begins to look; end returns what was seen for longer than one statement.
func (w *world) watch() *watcher {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v := &watcher{w: w, stop: cancel, seen: map[string]*stay{}}
	w.t.Cleanup(func() { cancel(); v.all.Wait() })
	for side, c := range map[string]*lab.Cluster{"old": w.old, "new": w.new} {
		conn := w.connect(c.Conninfo("", "application_name=watcher"))
		w.Must(run(ctx, conn, "SET log_transaction_sample_rate = 0"))
		w.Must(run(ctx, conn, "SET log_statement = 'none'; SET log_min_duration_statement = -1"))
		if w.Value(c, "", "SELECT count(*) FROM pg_settings WHERE name = 'auto_explain.log_min_duration'") == "1" {
			w.Must(run(ctx, conn, "SET auto_explain.log_min_duration = -1"))
		}
		v.all.Go(func() {
			tick := time.NewTicker(sampleEvery)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				// An error of the statement is one of its rows, too.
				rows, _ := conn.Query(ctx, heldNow)
				all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h holding, err error) {
					h.side = side
					err = row.Scan(&h.pid, &h.app, &h.kind, &h.state, &h.query, &h.since, &h.changed, &h.snapshot, &h.xid, &h.locks)
					return h, err
				})
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					w.t.Errorf("look at the sessions on %s: %v", side, err)
					return
				}
				v.note(all)
			}
		})
	}
	return v
}

func (v *watcher) note(all []holding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.looks++
	for _, h := range all {
		key := fmt.Sprint(h.side, h.pid, h.since, h.changed, h.state)
		s := v.seen[key]
		if s == nil {
			s = &stay{holding: h}
			v.seen[key] = s
		}
		s.looks++
		if !slices.Contains(s.steps, v.step) {
			s.steps = append(s.steps, v.step)
		}
	}
}

func (s *stay) String() string {
	return fmt.Sprintf("%s: %q (%s, %s), snapshot %t, xid %t, locks %v, in %d looks, steps %v, after: %s", s.side, s.app, s.kind, s.state, s.snapshot, s.xid, s.locks, s.looks, s.steps, s.query)
}

// during runs a command and notes its steps.
func (v *watcher) during(exit int, args ...string) ran {
	v.w.t.Helper()
	step := func(s string) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.step = args[0] + " " + s
	}
	step("before")
	l := v.w.follow(v.w.exe, "", func(_ *os.Process, e event) {
		if e.Kind == "begin" {
			step(e.Step)
		}
	}, args...)
	r := l.end()
	wantExit(v.w.t, r, exit)
	return r
}

// may is what a session of the tool may hold while no statement of it runs: in
// which steps, and for how many looks in a row where that is more than the time
// from one statement to the next.
var may = []struct {
	steps, after string // "": any
	why          string
}{
	{"prepare before", "SELECT ", "pg_dump, while the plan is drawn"},
	{"prepare copy/", "SELECT pg_export_snapshot()", "the snapshot of the copy"},
	{"prepare copy/", "", "a reader of the copy, whose rows new still takes"},
	{"prepare verify/", "", "the pair of snapshots of a comparison, and its readers"},
	{"verify ", "", "the same"},
	{"cutover barrier", "", "the barrier"},
	{"rollback barrier", "", "the barrier"},
	{"rehearse barrier", "", "the barrier"},
}

// untilOpen are the steps through which the barrier's session holds its locks, and
// from close to open what lets clients wait at the fence.
var untilOpen = []string{"barrier", "canary", "drain", "sequences", "forward/stop", "back/prove", "durable", "close", "close/kept", "open", "traffic/point", "traffic/resume", "read-only", "undo/barrier"}

func (s *stay) allowed() bool {
	return !slices.ContainsFunc(s.steps, func(step string) bool {
		plan, id, _ := strings.Cut(step, " ")
		if (plan == "cutover" || plan == "rollback" || plan == "rehearse") && slices.Contains(untilOpen, id) && s.side == map[string]string{"cutover": "old", "rehearse": "old", "rollback": "new"}[plan] {
			return false
		}
		for _, m := range may {
			if strings.HasPrefix(step, m.steps) && strings.HasPrefix(s.query, m.after) {
				return false
			}
		}
		return true
	})
}

// secrets are what no log may hold.
const (
	linkPassword = "hush-link"
	fdwPassword  = "hush-mapping"
	rolePassword = "hush-role"
)

// TestSessions goes through every plan, with both servers writing down every
// statement that they can. What sessions of the tool hold while they execute
// nothing (a transaction with its snapshot, locks of tables) is what the step is
// for, and no password reaches a log, in the clear or as a hash.
func TestSessions(t *testing.T) {
	logged := map[string]string{
		"log_statement": "all", "log_min_duration_statement": "0", "log_min_error_statement": "debug5", "log_transaction_sample_rate": "1", "log_replication_commands": "on",
		"shared_preload_libraries": "pg_stat_statements,auto_explain", "auto_explain.log_min_duration": "0",
	}
	w := newWorld(t, setting{
		oldSet: logged, newSet: logged,
		sql: shopTables + "CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none; CREATE USER MAPPING FOR app SERVER far OPTIONS (\"user\" 'app', password '" + fdwPassword + "');" +
			"ALTER ROLE app PASSWORD '" + rolePassword + "'",
		wire: func(w *world, s *setting) {
			s.newLines += fmt.Sprintf("    from_new: %q\n    from_old: %q\n", w.old.Conninfo("postgres", "password="+linkPassword), w.new.Conninfo("postgres", "password="+linkPassword))
		},
	})
	w.Exec(w.old, "", "SELECT 'this is where the tool begins'")
	before := map[*lab.Cluster]int{w.old: len(w.settled(w.old)), w.new: 0}
	v := w.watch()
	said := ""
	for _, args := range [][]string{
		{"prepare"}, {"verify"}, {"rehearse", "--yes"}, {"cutover", "--yes"}, {"rollback", "--yes"}, {"abort", "--yes"},
	} {
		r := v.during(0, args...)
		said += r.stdout + r.stderr
	}
	v.stop()
	v.all.Wait()

	held := 0
	for _, s := range v.seen {
		switch {
		case !strings.HasPrefix(s.state, "idle"): // one statement; what it reads, it reads under a snapshot
		case strings.Contains(s.app, " lock "):
			t.Errorf("on 14 and later the lock needs no transaction: %s", s)
		case !s.snapshot && !s.xid && len(s.locks) == 0: // BEGIN alone holds nothing
		case s.allowed():
			held++
		case s.looks > 3: // more than the time from one statement to the next
			t.Errorf("it holds more than it is for: %s", s)
		}
	}
	if t.Logf("%d looks; %d times something was held that may be", v.looks, held); held < 5 || v.looks < 500 {
		t.Error("too little was seen: the test proves nothing")
	}

	hash := regexp.MustCompile(`SCRAM-SHA-256\$\d+:|\bmd5[0-9a-f]{32}`)
	for side, c := range map[string]*lab.Cluster{"old": w.old, "new": w.new} {
		log := w.settled(c)[before[c]:]
		if n := strings.Count(log, "CREATE PUBLICATION"); n == 0 {
			t.Errorf("the log of %s holds no statements", side)
		}
		for _, line := range strings.Split(log, "\n") {
			if strings.Contains(line, "hush-") || hash.MatchString(line) {
				t.Errorf("the log of %s: %s", side, line)
			}
		}
		w.Exec(c, "", "CREATE EXTENSION pg_stat_statements")
		if got := w.Value(c, "", "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%hush'||'-%' OR query LIKE '%SCRAM-SHA-256$%:%'"); side == "new" && got != "0" {
			t.Errorf("pg_stat_statements on %s has %s statements with a password", side, got)
		}
	}
	journal, err := os.ReadFile(filepath.Join(w.dir, "up.journal"))
	w.Must(err)
	for what, text := range map[string]string{"the journal": string(journal), "the output": said} {
		if strings.Contains(text, "hush-") || hash.MatchString(text) {
			t.Errorf("%s has a password", what)
		}
	}
}

// settled is a server's log with everything in it that was done so far.
func (w *world) settled(c *lab.Cluster) string {
	w.t.Helper()
	end := fmt.Sprintf("end of %d", time.Now().UnixNano())
	w.Value(c, "", "SELECT '"+end+"'")
	w.wait("the log", func() bool { return strings.Contains(c.Log(), end) })
	return c.Log()
}

// TestReindexBeside: REINDEX CONCURRENTLY and CREATE INDEX CONCURRENTLY, in a row
// on the side that serves, never wait for a session of the tool, which does not
// wait for them either: whatever command runs, and while it holds the upgrade.
func TestReindexBeside(t *testing.T) {
	long(t)
	w := newWorld(t, setting{extra: "verify: {mode: counts}\n", cutover: "  max_blocked: 20s\n"})
	for _, c := range []struct {
		args []string
		on   *lab.Cluster
		who  string // must not be waited for; prepare has snapshots, for as long as it dumps, copies and compares
	}{{[]string{"prepare"}, w.old, "% lock %"}, {[]string{"rollback", "--yes"}, w.new, "%"}} {
		if c.on == w.new {
			// Below 17 no event trigger refuses a REINDEX, whose new index changes
			// the catalogs: where one ends in the moment of the close, that is undone.
			w.do(0, "cutover", "--yes")
		}
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		rebuilt, waited := 0, map[string]int{}
		conn, watch := w.session(c.on, "side"), w.session(c.on, "side")
		all.Go(func() {
			for ctx.Err() == nil {
				// In cutover and rollback DDL is refused for a while.
				if err := run(ctx, conn, "REINDEX TABLE CONCURRENTLY public.kept"); err == nil {
					rebuilt++
				} else if conn.IsClosed() {
					return
				}
			}
		})
		all.Go(func() {
			tick := time.NewTicker(sampleEvery)
			defer tick.Stop()
			for ctx.Err() == nil {
				<-tick.C
				var who *string
				err := watch.QueryRow(ctx, `
					SELECT string_agg(DISTINCT a.application_name || ': ' || left(a.query, 60), '; ')
					FROM pg_locks w JOIN pg_locks h ON h.virtualxid = w.virtualxid AND h.granted JOIN pg_stat_activity a ON a.pid = h.pid
					WHERE w.locktype = 'virtualxid' AND NOT w.granted AND a.application_name LIKE 'crossfade%' AND a.application_name LIKE $1 AND a.state LIKE 'idle%'`, c.who).Scan(&who)
				if err != nil {
					return
				}
				if who != nil {
					waited[*who]++
				}
			}
		})
		r := w.do(0, c.args...)
		stop()
		all.Wait()
		t.Logf("%v: %d rebuilt", c.args, rebuilt)
		if rebuilt < 3 {
			t.Errorf("%v: only %d rebuilt\n%s", c.args, rebuilt, r)
		}
		for who, n := range waited {
			if n > 1 {
				t.Errorf("%v: REINDEX CONCURRENTLY waited in %d looks for a session that did nothing: %s", c.args, n, who)
			}
		}
	}
}
