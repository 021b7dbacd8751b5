package proof

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// lockedSteps are those that begin with the locks of the barrier held, and the
// pooler paused.
var lockedSteps = []string{"canary", "drain", "sequences", "forward/stop", "back/prove", "durable", "close"}

// frozenBudget is max_blocked of these worlds: the longest that a frozen or
// cut-off tool may hold anybody up.
const frozenBudget = 4 * time.Second

// goOn waits until writers go on that stood still since a moment, each of them,
// and wants none to have stood for more than the budget and what a loaded
// machine needs to notice.
func (w *world) goOn(since time.Time, what string, writers map[string]*lab.Writer) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for name, wr := range writers {
		if err := wr.Flow(ctx, 20); err != nil {
			w.t.Fatalf("%s, writers %s: %v", what, name, err)
		}
	}
	for name, wr := range writers {
		gap := wr.GapSince(since).Length
		w.t.Logf("%s: writers %s stood still for %s", what, name, gap.Round(time.Millisecond))
		if gap > 2*frozenBudget {
			w.t.Errorf("%s: writers %s stood still for %s, with a budget of %s", what, name, gap, frozenBudget)
		}
	}
}

// TestFrozenWithLocks: the tool is stopped with the locks held and the pooler
// paused. The server ends the locks, and the child that guards the pooler lets
// clients go on. The tool, woken, has lost its locks and undoes.
func TestFrozenWithLocks(t *testing.T) {
	w := newWorld(t, setting{pooled: true, cutover: fmt.Sprintf("  max_blocked: %s\n", frozenBudget)})
	w.do(0, "prepare")
	clients := w.load()
	for _, step := range some(lockedSteps, "canary", "back/prove", "close") {
		clients.start()
		clients.flow(10)
		began := time.Now()
		l, wake := w.stopped(step, "cutover", "--yes")
		if got := w.Value(w.old, "shop", "SELECT count(*) > 0 FROM pg_locks WHERE mode = 'ShareRowExclusiveLock' AND granted"); got != "t" && time.Since(began) < frozenBudget/2 {
			t.Errorf("stopped at %s, nobody holds the barrier's locks", step)
		}
		w.goOn(began, "stopped at "+step, map[string]*lab.Writer{"through the pooler": clients.pool, "of old": clients.writers[1]})
		wake()
		r := l.end()
		wantExit(t, r, 5)
		if phase, writable := w.truth(); phase != "ready" || writable != "old" {
			t.Fatalf("woken at %s: phase %s, writable %s\n%s", step, phase, writable, r)
		}
		clients.judge("stopped at "+step, w.old, w.new)
	}
	clients.start()
	w.do(0, "cutover", "--yes")
	clients.flow(20)
	clients.judge("the cutover that was not stopped", w.new, w.old)
}

// line is the way between the tool and old.
type line struct {
	cut, heal func()
	direct    func() *lab.Writer // clients of old that no pooler holds back
}

// TestCutOffWithLocks: nothing comes through between the tool and old any more,
// in neither direction, with the locks held and the pooler paused; nobody is
// told. Clients go on, and the tool, which cannot see that old serves, does not
// say that it does.
func TestCutOffWithLocks(t *testing.T) {
	long(t)
	var l line
	var w *world
	if _, err := exec.LookPath("ip"); os.Geteuid() == 0 && err == nil {
		t.Log("old, new and the pooler on hosts of their own, and a dropped route")
		w, l = dropped(t)
	} else {
		t.Log("no network namespaces here (they need root and the program ip): old behind a proxy that swallows every byte, so that the kernel's keepalives are not seen")
		w, l = swallowed(t)
	}
	w.do(0, "prepare")
	for i, step := range some(lockedSteps, "close") {
		pooled := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 2, Pause: 5 * time.Millisecond})
		direct := l.direct()
		w.Must(pooled.Flow(t.Context(), 10))
		began := time.Now()
		run, wake := w.stopped(step, "cutover", "--yes")
		l.cut()
		wake()
		w.goOn(began, "cut off at "+step, map[string]*lab.Writer{"through the pooler": pooled, "of old": direct})
		r := run.end()
		t.Logf("cut off at %s: it ended after %s with exit %d: %s", step, time.Since(began).Round(100*time.Millisecond), r.exit, lastLine(r.stderr))
		wantExit(t, r, 1)
		w.Must(pooled.Flow(t.Context(), 20))
		l.heal()
		if phase, writable := w.truth(); writable != "old" {
			t.Fatalf("cut off at %s: phase %s, writable %s\n%s", step, phase, writable, r)
		}
		if i%2 == 0 {
			w.elsewhere()
		}
		w.do(0, "cutover", "--yes")
		w.Must(pooled.Flow(t.Context(), 20))
		w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), pooled.Stop(), direct.Stop())
		w.do(0, "rollback", "--yes")
		w.Exec(w.old, "shop", "TRUNCATE ledger, ledger_log")
	}
}

// dropped is a world on four hosts; this process, and with it the tool, is one.
func dropped(t *testing.T) (*world, line) {
	var hosts [3]*lab.Host
	var net *lab.Network
	var stray *lab.Pool
	w := newWorld(t, setting{
		hosts: func(w *world) (old, fresh *lab.Host) {
			var err error
			net, err = w.Network(t.Context())
			w.Must(err)
			for i, name := range []string{"wacken", "wacken18", "pools"} {
				hosts[i], err = net.Host(t.Context(), name)
				w.Must(err)
			}
			return hosts[0], hosts[1]
		},
		cutover: fmt.Sprintf("  max_blocked: %s\n", frozenBudget),
		wire: func(w *world, s *setting) {
			shop := map[string]lab.Backend{"shop": {Cluster: w.old, DB: "shop"}}
			w.pool = w.PgBouncer(lab.PoolOptions{Host: hosts[2], Databases: shop})
			stray = w.PgBouncer(lab.PoolOptions{Name: "stray", Host: hosts[2], Databases: shop})
			s.cutover += fmt.Sprintf("  traffic:\n    - pgbouncer: {databases: [shop], instances: [{admin: %q, config: %q}]}\n", w.pool.AdminConninfo(), w.pool.Config)
		},
	})
	return w, line{
		cut:  func() { w.Must(net.Cut(t.Context(), nil, hosts[0])) },
		heal: func() { w.Must(net.Heal(t.Context(), nil, hosts[0])) },
		direct: func() *lab.Writer {
			return w.Write(stray.Conninfo("shop"), lab.WriterOptions{Writers: 1, Pause: 5 * time.Millisecond, Retry: 50 * time.Millisecond})
		},
	}
}

// swallowed is a world where the tool reaches old through a proxy, and nobody
// else does.
func swallowed(t *testing.T) (*world, line) {
	var proxy *lab.Proxy
	w := newWorld(t, setting{
		pooled: true, cutover: fmt.Sprintf("  max_blocked: %s\n", frozenBudget),
		wire: func(w *world, s *setting) {
			proxy = w.Proxy(w.old)
			s.newLines += fmt.Sprintf("    from_new: %q\n", w.old.Conninfo("postgres"))
		},
	})
	w.runbookLine(fmt.Sprintf("primary: %q", w.old.Conninfo("postgres")), fmt.Sprintf("primary: %q", w.old.Conninfo("postgres", proxy.Words())))
	return w, line{
		cut: proxy.Cut, heal: proxy.Heal,
		direct: func() *lab.Writer {
			return w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 1, Pause: 5 * time.Millisecond, Retry: 50 * time.Millisecond})
		},
	}
}

// lastLine is the last line of a text.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
