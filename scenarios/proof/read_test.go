package proof

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// readers are an application that only reads, on one cluster: one connection
// with SELECTs that take long and hold every table, one with short ones on each
// table in turn, and one that reads no table at all, which waits for nothing but
// the machine.
type readers struct {
	w               *world
	c               *lab.Cluster
	slow, fast, air *lab.Reader
}

// readerLimit is the longest that a short SELECT may wait.
const readerLimit = 200 * time.Millisecond

// lockLimit is how long a session waits for a lock before the server writes it
// down: longer than the tool may stand in a lock queue.
const lockLimit = "150ms"

func (w *world) readers(c *lab.Cluster, long time.Duration) *readers {
	w.t.Helper()
	tables := strings.Fields(w.Value(c, "shop", `SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND n.nspname = 'public'`))
	if len(tables) < 8 {
		w.t.Fatalf("only %v to read", tables)
	}
	var short, all []string
	for i, t := range tables {
		short = append(short, "SELECT count(*) FROM (SELECT FROM public."+t+" LIMIT 1) k")
		all = append(all, fmt.Sprintf("(SELECT FROM public.%s LIMIT 1) k%d", t, i))
	}
	slow := fmt.Sprintf("SELECT count(*), pg_sleep(%g) FROM (VALUES (1)) v LEFT JOIN %s ON true", long.Seconds(), strings.Join(all, " ON true LEFT JOIN "))
	return &readers{
		w: w, c: c,
		slow: w.Read(c.Conninfo("shop", "application_name=slow"), lab.ReaderOptions{SQL: []string{slow}, Timeout: 2 * time.Minute, Pause: 500 * time.Millisecond}),
		fast: w.Read(c.Conninfo("shop", "application_name=fast"), lab.ReaderOptions{SQL: short, Pause: time.Millisecond}),
		air:  w.Read(c.Conninfo("", "application_name=air"), lab.ReaderOptions{SQL: []string{"SELECT 1"}, Pause: time.Millisecond}),
	}
}

// stop ends the readers and tells what none of them should have seen: a wait for
// a lock.
func (r *readers) stop() []string {
	r.w.t.Helper()
	slow, fast, air := r.slow.Stop(), r.fast.Stop(), r.air.Stop()
	r.w.t.Logf("%s: %d long SELECTs; %d short ones, of which the longest took %s (%s); of %d that read no table the longest took %s",
		r.c.Name, slow.Queries, fast.Queries, fast.Longest.Gap, fast.Longest.SQL, air.Queries, air.Longest.Gap)
	var says []string
	if slow.Queries < 1 || fast.Queries < 500 {
		says = append(says, "it was hardly read")
	}
	// What a reader without a table has to wait for is the machine's doing.
	if limit := readerLimit + air.Longest.Length; fast.Longest.Length > limit {
		says = append(says, fmt.Sprintf("a short SELECT took %s, more than %s: %s", fast.Longest.Gap, limit, fast.Longest.SQL))
	}
	for line := range strings.Lines(r.c.Log()) {
		if strings.Contains(line, "still waiting for AccessShareLock") {
			says = append(says, fmt.Sprintf("a reader stood behind a lock for more than %s: %s", lockLimit, strings.TrimSpace(line)))
		}
	}
	for _, f := range fast.Failures {
		// Sessions of the side that is closed, and of the one that is opened, are ended: that is no wait.
		if f.SQLState != terminated && f.SQLState != "" {
			says = append(says, fmt.Sprintf("a short SELECT failed: %s", f))
		}
	}
	return says
}

// waits watches how long sessions of somebody else wait for a lock on a table,
// by the server's own clock.
func (w *world) waits(c *lab.Cluster, until <-chan struct{}, group *sync.WaitGroup) *string {
	w.t.Helper()
	longest := new(string)
	conn := w.session(c, "shop")
	group.Go(func() {
		var most float64
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-until:
				return
			case <-tick.C:
			}
			var seconds float64
			var who *string
			err := conn.QueryRow(w.t.Context(), `
				SELECT coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart)), 0)::float8, min(format('%s behind %s', l.mode, pg_blocking_pids(l.pid)))
				FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE NOT l.granted AND l.locktype = 'relation' AND a.application_name IN ('slow', 'fast')`).Scan(&seconds, &who)
			if err != nil {
				return // its session is ended with all others at close
			}
			if seconds > most && who != nil {
				most = seconds
				*longest = fmt.Sprintf("%.0f ms for %s", seconds*1000, *who)
			}
		}
	})
	return longest
}

// readWorld is a world whose servers write down who waits for a lock.
func readWorld(t *testing.T) *world {
	told := map[string]string{"log_lock_waits": "on", "deadlock_timeout": lockLimit}
	return newWorld(t, setting{
		sql: naiveTables + "CREATE TABLE bare (line text); INSERT INTO bare VALUES ('x');", oldSet: told, newSet: told,
		dbs: planSets, cutover: "  max_blocked: 10s\n",
	})
}

// TestReaders: long and short SELECTs run on every table from prepare to finish,
// with a table whose replica identity is set and put back, and through a cutover
// that is undone. No reader ever stands behind a lock of the tool for more than
// a moment.
func TestReaders(t *testing.T) {
	long := 3 * time.Second
	if all() {
		long = 30 * time.Second
	}
	w := readWorld(t)
	var watching sync.WaitGroup
	done := make(chan struct{})
	writer := w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 1, Pause: 5 * time.Millisecond, Retry: 50 * time.Millisecond})
	old := w.readers(w.old, long)
	waited := w.waits(w.old, done, &watching)
	part := func(what string, f func()) {
		began := time.Now()
		f()
		t.Logf("%s: %s", what, time.Since(began).Round(100*time.Millisecond))
	}
	part("prepare", func() { w.do(0, "prepare") })
	fresh := w.readers(w.new, long)
	part("undone", func() { w.failed(5, w.inject("CROSSFADE_PANIC=close", "cutover", "--yes")) })
	part("cutover", func() { w.do(0, "cutover", "--yes") })
	if all() {
		part("rollback", func() { w.do(0, "rollback", "--yes") })
		part("cutover", func() { w.do(0, "cutover", "--yes") })
	}
	part("finish", func() { w.do(0, "finish", "--yes") })
	close(done)
	watching.Wait()
	t.Logf("the longest wait for a lock that was seen on old: %s", *waited)
	for _, r := range []*readers{old, fresh} {
		for _, says := range r.stop() {
			t.Errorf("%s: %s", r.c.Name, says)
		}
	}
	w.Judge(w.new.Conninfo("shop"), "", writer.Stop())
}

// TestReadersAreSeenToWait: with a strong lock waited for as long as it takes,
// the short SELECTs stand behind the long ones, and that is found.
func TestReadersAreSeenToWait(t *testing.T) {
	long(t)
	w := readWorld(t)
	w.do(0, "prepare")
	w.exe = mutant(t, "cutover/fence.go", `"SET lock_timeout = '50ms'; "+TriggerOff(t)`, `"SET lock_timeout = '30s'; "+TriggerOff(t)`)
	old := w.readers(w.old, 4*time.Second)
	wantExit(t, w.follow(w.exe, "CROSSFADE_PANIC=close", nil, "cutover", "--yes").end(), 5)
	w.do(0, "cutover", "--yes")
	w.wait("enough long SELECTs", func() bool { return old.slow.Report().Queries >= 3 })
	says := old.stop()
	if len(says) < 2 {
		t.Errorf("readers that waited behind a DROP TRIGGER were not seen: %v", says)
	}
}
