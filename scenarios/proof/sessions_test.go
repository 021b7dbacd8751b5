package proof

import (
	"context"
	"fmt"
	"os"
	"slices"
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

func TestSessions(t *testing.T) {
	w := newWorld(t, setting{sql: killTables})
	v := w.watch()
	v.during(0, "check")
	for _, args := range [][]string{
		{"prepare"}, {"verify"}, {"status"}, {"plan"}, {"check", "--restore"}, {"rehearse", "--yes"}, {"cutover", "--yes"}, {"verify"}, {"status"}, {"rollback", "--yes"}, {"cutover", "--yes"}, {"finish", "--yes"},
	} {
		v.during(0, args...)
	}
	v.stop()
	v.all.Wait()
	t.Logf("%d looks", v.looks)
	for _, s := range v.seen {
		if s.looks > 1 && s.state != "active" {
			t.Log(s)
		}
	}
}
