package proof

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// crash kills a server as a power cut would, and boots it again.
func (w *world) crash(c *cluster) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	if err := c.Kill(ctx); err != nil {
		w.t.Error(err)
	}
	if err := c.Boot(ctx); err != nil {
		w.t.Error(err)
	}
}

// TestServerCrashesInPrepare: each primary is killed and booted again in the
// middle of copy, catch-up and what lies between, in an upgrade that is begun
// anew for each. Prepare fails or not, and run again it finishes.
func TestServerCrashesInPrepare(t *testing.T) {
	long(t)
	w := newWorld(t, setting{sql: killTables})
	clients := w.load()
	clients.start()
	crashes := []struct {
		step string
		c    *cluster
	}{
		{"copy/shop", w.old},
		{"copy/shop", w.new},
		{"catchup/shop", w.old},
		{"catchup/shop", w.new},
		{"constraints/shop", w.old},
		{"constraints/shop", w.new},
		{"verify/shop", w.old},
		{"verify/shop", w.new},
	}
	if !all() {
		crashes = crashes[:4]
	}
	for i, one := range crashes {
		if i > 0 {
			w.do(0, "abort", "--yes")
		}
		var booted sync.WaitGroup
		began := false
		after := time.Duration(rand.Int64N(int64(40 * time.Millisecond)))
		r := w.follow(w.exe, "", func(_ *os.Process, e event) {
			if e.Step == one.step && !began { // catch-up is skipped where little is to be caught up
				began = true
				booted.Go(func() {
					time.Sleep(after)
					w.crash(one.c)
				})
			}
		}, "prepare").end()
		booted.Wait()
		if wantExit(t, r, 0, 1); !began {
			t.Errorf("there was no step %s\n%s", one.step, r)
		}
		t.Logf("%s crashed %s into %s: exit %d", one.c.Name, after.Round(time.Millisecond), one.step, r.exit)
		if r.exit == 1 && len(r.lines("error")) != 1 {
			t.Errorf("no error line\n%s", r)
		}
		w.do(0, "prepare")
		clients.flow(20)
		w.do(0, "verify")
	}
	clients.stop()
	w.equal()
	w.do(0, "cutover", "--yes")
	clients.judge("crashes in prepare", w.new, w.old)
}

// TestServerCrashesInCutover: each primary is killed at the beginning of the
// steps of a cutover, with the tool standing still there, and booted again.
// The command says what is true, and run again it finishes.
func TestServerCrashesInCutover(t *testing.T) {
	w := newWorld(t, setting{sql: killTables, pooled: true, cutover: "  max_blocked: 10s\n"})
	w.do(0, "prepare")
	clients := w.load()
	for side, steps := range map[string][]string{
		"old": some(crossingSteps, "barrier", "close/kept", "open"),
		"new": some(crossingSteps, "drain", "open", "back/follow"),
	} {
		c := w.old
		if side == "new" {
			c = w.new
		}
		for _, step := range steps {
			clients.start()
			clients.flow(5)
			cmd, wake := w.stopped(step, "cutover", "--yes")
			w.crash(c)
			wake()
			r := cmd.end()
			wantExit(t, r, 0, 1, 5, 6)
			phase, writable := w.truth()
			t.Logf("%s crashed at %s: exit %d, phase %s, writable %s", side, step, r.exit, phase, writable)
			if r.exit == 1 && writable == "old" {
				t.Errorf("undone, and not said so\n%s", r.stderr)
			}
			at, open := slices.Index(crossingSteps, step), slices.Index(crossingSteps, "open")
			switch {
			case r.exit == 5 && writable != "old":
				t.Errorf("undone, and old does not serve\n%s", r)
			case r.exit == 6 && phase != "open", r.exit == 0 && writable != "new":
				t.Errorf("phase %s, writable %s\n%s", phase, writable, r)
			case at > open && r.exit != 0 && r.exit != 6:
				t.Errorf("after open there is only forward\n%s", r)
			}
			w.elsewhere()
			for try := 0; r.exit != 0; try++ {
				if r = w.try("cutover", "--yes"); r.exit != 0 && try == 2 {
					t.Fatalf("run again and again\n%s", r)
				}
			}
			w.wantPhase("open", "new")
			clients.flow(20)
			clients.judge(side+" crashed at "+step, w.new, w.old)
			w.do(0, "rollback", "--yes")
			w.equal()
		}
	}
}

// TestWholeWay: prepare, abort, and then there, back, there and the end, under
// load, with the journal deleted after each; the proof follows each.
func TestWholeWay(t *testing.T) {
	w := newWorld(t, setting{sql: killTables, pooled: true})
	old, fresh := w.footprint(w.old), w.footprint(w.new)
	clients := w.load()
	clients.start()
	w.do(0, "prepare")
	w.noJournal()
	w.do(0, "abort", "--yes")
	for name, d := range map[string]string{"old": diff(old, w.footprint(w.old)), "new": diff(fresh, w.footprint(w.new))} {
		if d != "" {
			t.Errorf("after abort %s is not as it was, - before, + after:\n%s", name, d)
		}
	}
	w.noJournal()
	w.do(0, "prepare")
	w.noJournal()
	for _, c := range []struct {
		command, phase string
		final, other   *cluster
	}{
		{"cutover", "open", w.new, w.old},
		{"rollback", "rolled_back", w.old, w.new},
		{"cutover", "open", w.new, w.old},
	} {
		clients.flow(50)
		w.do(0, c.command, "--yes")
		w.noJournal()
		clients.flow(50)
		if n := len(clients.pool.Errors()); n > 0 {
			t.Errorf("clients of the pooler saw errors: %v", clients.pool.Errors())
		}
		clients.judge(c.command, c.final, c.other)
		w.equal()
		if phase, _ := w.truth(); phase != c.phase {
			t.Fatalf("after %s the phase is %s", c.command, phase)
		}
		w.noJournal()
		clients.start()
	}
	w.do(0, "finish", "--yes")
	w.noJournal()
	clients.flow(50)
	clients.judge("finish", w.new, w.old)
	w.onlyFence()
	w.wantPhase("finished", "new")
	w.noJournal()
	w.do(0, "finish", "--yes", "--reopen-old")
	if !w.takes(w.old) || !w.takes(w.new) {
		t.Errorf("reopened, old takes writes: %t, new: %t", w.takes(w.old), w.takes(w.new))
	}
	if d := diff(old, w.footprint(w.old)); d != "" {
		t.Errorf("reopened, old is not as it was, - before, + after:\n%s", d)
	}
}

// TestFinishAfterRollback: new is given up, and old serves as if nothing had
// been.
func TestFinishAfterRollback(t *testing.T) {
	w := newWorld(t, setting{sql: killTables})
	old := w.footprint(w.old)
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	w.do(0, "rollback", "--yes")
	w.noJournal()
	w.do(0, "finish", "--yes")
	for range 2 {
		if d := diff(old, w.footprint(w.old)); d != "" {
			t.Errorf("old is not as it was, - before, + after:\n%s", d)
		}
		if !w.takes(w.old) || w.takes(w.new) {
			t.Errorf("old takes writes: %t, new: %t", w.takes(w.old), w.takes(w.new))
		}
		w.wantPhase("finished", "old")
		const left = "SELECT (SELECT count(*) FROM pg_event_trigger WHERE evtname ~ '^crossfade') || ' ' || (SELECT count(*) FROM pg_class WHERE relnamespace = 'crossfade'::regnamespace AND relkind = 'r')"
		if got := w.Value(w.new, "shop", left); got != "0 0" {
			t.Errorf("new has event triggers and tables of the upgrade beside its fence: %s", got)
		}
		w.noJournal()
		w.do(0, "finish", "--yes", "--reopen-old") // there is nothing to do
	}
}
