package proof

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// afterOpen is a world with two PgBouncers, a hook that sends traffic, too, a hook
// after open, and a standby of old. w.pool is the pooler that nothing happens to.
type afterOpen struct {
	*world
	broken  *lab.Pool // what happens, happens to this one
	metal   *lab.Cluster
	mode    string // a file with what the hooks do: "", "fail", "hang"
	journal string // its folder
	direct  *lab.Writer
	rows    *load
	values  *numbers
}

// hookScript calls nobody, and does what its mode says.
const hookScript = `#!/bin/sh
case "$1:$(cat "$0.mode" 2>/dev/null)" in
point:fail|:fail) echo "the address cannot be moved" >&2; exit 1;;
point:hang|:hang) sleep 600;;
esac
`

func newAfterOpen(t *testing.T) *afterOpen {
	a := &afterOpen{}
	a.world = newWorld(t, setting{standby: false, cutover: "  max_blocked: 20s\n  sequences: {margin: 0}\n", wire: func(w *world, s *setting) {
		pool := func(name string) *lab.Pool {
			return w.PgBouncer(lab.PoolOptions{Name: name, Users: map[string]string{"app": ""}, Databases: map[string]lab.Backend{"shop": {Cluster: w.old, DB: "shop"}}})
		}
		w.pool, a.broken = pool("pool1"), pool("pool2")
		a.metal = w.Lab.Standby(w.old, "metal", lab.StandbyOptions{})
		hook := filepath.Join(w.dir, "hook")
		a.mode = hook + ".mode"
		w.Must(os.WriteFile(hook, []byte(hookScript), 0o755))
		a.journal = filepath.Join(w.dir, "journal")
		w.Must(os.Mkdir(a.journal, 0o755))
		s.cutover += fmt.Sprintf("  traffic:\n    - pgbouncer: {databases: [shop], instances: [{admin: %q, config: %q}, {admin: %q, config: %q}]}\n    - hook: {run: [%q], timeout: 3s}\n",
			w.pool.AdminConninfo(), w.pool.Config, a.broken.AdminConninfo(), a.broken.Config, hook)
		s.extra += fmt.Sprintf("hooks: {after_open: {run: [%q], timeout: 3s}}\njournal: %q\n", hook, filepath.Join(a.journal, "up.journal"))
	}})
	return a
}

// A trouble is something that happens while a crossing stands between two steps.
type trouble struct {
	name string
	// long is left to make test-all.
	long bool
	// make lets it happen, and the function that it returns ends it.
	make func(a *afterOpen) (mend func())
	// left are the steps that the command says are still to do where it happens with
	// the first step after open; none: exit 0.
	left []string
	// starved: the open side itself takes nobody, so that nobody can be served.
	starved bool
}

var troubles = []trouble{
	{"nothing", true, func(*afterOpen) func() { return func() {} }, nil, false},
	{"a pooler is dead", true, func(a *afterOpen) func() {
		a.Must(a.broken.Kill(a.t.Context()))
		return func() { a.Must(a.broken.Boot(a.t.Context())) }
	}, []string{"traffic/point", "done"}, false},
	{"a pooler is frozen", false, func(a *afterOpen) func() {
		a.Must(a.broken.Freeze(a.t.Context()))
		return func() { a.Must(a.broken.Thaw(a.t.Context())) }
	}, []string{"traffic/point", "done"}, false},
	{"a pooler's configuration is unwritable", true, func(a *afterOpen) func() {
		folder := filepath.Dir(a.broken.Config)
		a.Must(os.Chmod(folder, 0o555))
		return func() { a.Must(os.Chmod(folder, 0o755)) }
	}, []string{"traffic/point", "done"}, false},
	{"the hooks fail", true, func(a *afterOpen) func() { return a.hooks("fail") }, []string{"traffic/point", "hook/after", "done"}, false},
	{"the hooks hang", true, func(a *afterOpen) func() { return a.hooks("hang") }, []string{"traffic/point", "hook/after", "done"}, false},
	{"a standby of old is gone", true, func(a *afterOpen) func() {
		a.Must(a.metal.Kill(a.t.Context()))
		return func() { a.Must(a.metal.Boot(a.t.Context())) }
	}, nil, false},
	{"the closed side takes no connections", false, func(a *afterOpen) func() { return a.refuses(a.closed()) }, []string{"read-only", "back/follow", "forward/drop", "done"}, false},
	{"the open side takes no connections", true, func(a *afterOpen) func() { return a.refuses(a.opened()) }, nil, true},
	{"the journal's disk is full", false, func(a *afterOpen) func() {
		fill := filepath.Join(a.journal, "fill")
		// As much as there is room for, however little.
		_ = exec.CommandContext(a.t.Context(), "dd", "if=/dev/zero", "of="+fill, "bs=1k").Run()
		return func() { a.Must(os.Remove(fill)) }
	}, nil, false},
}

// afterOpenLanes are the steps after open: two lanes beside each other, and what
// follows them.
var afterOpenLanes = [][]string{{"traffic/point", "traffic/resume"}, {"read-only", "back/follow"}, {"forward/drop", "disarm", "hook/after", "done"}}

// leaves are the steps that a trouble must leave and may leave that happens when a
// step begins: what was done before it is done, and what runs beside it may be.
func (tr trouble) leaves(step string) (must, may []string) {
	in := func(lane []string, s string) int { return slices.Index(lane, s) }
	last := afterOpenLanes[2]
	for _, s := range tr.left {
		switch {
		case s == "done":
		case step == "close" || in(last, s) >= in(last, step) && in(last, s) >= 0:
			must = append(must, s)
		case in(last, step) >= 0:
		case slices.ContainsFunc(afterOpenLanes[:2], func(l []string) bool { return in(l, s) >= 0 && in(l, step) >= 0 }):
			if i := slices.IndexFunc(afterOpenLanes, func(l []string) bool { return in(l, s) >= 0 }); in(afterOpenLanes[i], s) >= in(afterOpenLanes[i], step) {
				must = append(must, s)
			}
		default:
			may = append(may, s)
		}
	}
	// The last step needs all.
	if len(must) > 0 {
		must = append(must, "done")
	} else if len(may) > 0 {
		may = append(may, "done")
	}
	return must, may
}

func (a *afterOpen) hooks(mode string) func() {
	a.Must(os.WriteFile(a.mode, []byte(mode), 0o644))
	return func() { a.Must(os.Remove(a.mode)) }
}

func (a *afterOpen) mount(options string) {
	a.t.Helper()
	if out, err := exec.CommandContext(a.t.Context(), "mount", "-o", options, a.journal).CombinedOutput(); err != nil {
		a.t.Fatalf("mount -o %s: %v: %s", options, err, out)
	}
}

// closed and opened are by the decision's row.
func (a *afterOpen) closed() *lab.Cluster {
	if a.opened() == a.new {
		return a.old
	}
	return a.new
}

func (a *afterOpen) opened() *lab.Cluster {
	if a.Value(a.old, "shop", "SELECT direction FROM crossfade.upgrade WHERE state IN ('closed', 'open') ORDER BY attempt DESC LIMIT 1") == "forward" {
		return a.new
	}
	return a.old
}

// refuses lets a database take no new connection, and ends those that are there.
func (a *afterOpen) refuses(c *lab.Cluster) func() {
	a.Exec(c, "postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS false",
		"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'client backend'")
	return func() { a.Exec(c, "postgres", "ALTER DATABASE shop ALLOW_CONNECTIONS true") }
}

// begin lets clients work on every way that leads to either side.
func (a *afterOpen) begin() {
	a.rows.start()
	a.direct = a.Write(a.both(), lab.WriterOptions{Writers: 1, Pause: 10 * time.Millisecond, Retry: 50 * time.Millisecond, FirstWorker: a.rows.next})
	a.rows.next++
	a.rows.writers = append(a.rows.writers, a.direct)
	a.values = a.number("INSERT INTO public.log (line) VALUES ('before the number')",
		a.old.Conninfo("shop"), a.new.Conninfo("shop"), a.pool.Conninfo("shop"))
}

// served wants writes through the sound pooler and of direct clients acknowledged.
func (a *afterOpen) served() {
	a.t.Helper()
	a.rows.flow(5)
	ctx, cancel := context.WithTimeout(a.t.Context(), time.Minute)
	defer cancel()
	if err := a.direct.Flow(ctx, 5); err != nil {
		a.t.Fatalf("direct clients: %v", err)
	}
	a.values.flow(a.world, 20)
}

// cell lets a trouble happen at a step of a crossing and wants what can be done to
// be done, the rest named, and the same command to end it when the trouble is over.
func (a *afterOpen) cell(command, step string, tr trouble) {
	a.t.Helper()
	phase, open, shut := "open", a.new, a.old
	if command == "rollback" {
		phase, open, shut = "rolled_back", a.old, a.new
	}
	a.begin()
	a.served()
	l, wake := a.stopped(step, command, "--yes", "--json")
	mend := tr.make(a)
	mended := false
	defer func() {
		if !mended {
			mend()
		}
	}()
	began := time.Now()
	wake()
	waited := "nobody can be served"
	if !tr.starved && step != "close" {
		a.served()
		direct, pooled := a.direct.GapSince(began).Length, a.rows.pool.GapSince(began).Length
		if direct > 20*time.Second {
			a.t.Errorf("direct clients waited %s after open, longer than max_blocked", direct)
		}
		if pooled > 20*time.Second {
			a.t.Errorf("clients of the sound pooler waited %s after open, longer than max_blocked", pooled)
		}
		waited = max(direct, pooled).Round(time.Millisecond).String()
	}
	r := l.end()
	if step != "close" {
		a.t.Logf("after open: %s at %s of %s: exit %d, %s", tr.name, step, command, r.exit, waited)
	}
	must, may := tr.leaves(step)
	switch {
	case tr.starved || len(must) == 0 && len(may) > 0 && r.exit == 0:
	case len(must)+len(may) == 0:
		wantExit(a.t, r, 0)
	default:
		a.failed(6, r)
		says := r.lines("error")[0]["says"].(string)
		for _, s := range must {
			if !strings.Contains(says, s) {
				a.t.Errorf("%s is not named as still to do: %s", s, says)
			}
		}
		for _, s := range crossingSteps {
			if strings.Contains(says, s+" (") && !slices.Contains(must, s) && !slices.Contains(may, s) {
				a.t.Errorf("%s is named as still to do, which it is not: %s", s, says)
			}
		}
	}
	if !tr.starved {
		a.served()
		if !strings.Contains(tr.name, "closed side") && a.takes(shut) {
			a.t.Errorf("the closed side takes writes")
		}
		if r.exit == 6 {
			// Until it is complete, the other way does not begin.
			other := "rollback"
			if command == "rollback" {
				other = "cutover"
			}
			if strings.Contains(tr.name, "closed side") { // which the other way would have to open
				a.do(1, other, "--yes")
			} else if again := a.do(4, other, "--yes"); !strings.Contains(again.stderr, "is not complete") {
				a.t.Errorf("%s does not say why it did not begin\n%s", other, again)
			}
			a.served()
			if os.Getuid() == 0 { // it cannot even open its journal
				a.mount("remount,ro")
				defer a.mount("remount,rw")
			}
			a.do(6, command, "--yes")
		}
	}
	mend()
	mended = true
	a.do(0, command, "--yes")
	a.wantPhase(phase, map[string]string{"open": "new", "rolled_back": "old"}[phase])
	a.served()
	a.values.judge()
	a.rows.judge(command+", "+tr.name, open, shut)
}

// killedCell kills the tool at a step and wants the same command to end what it began,
// while clients of the closed side have used what they could.
func (a *afterOpen) killedCell(command, step string) {
	a.t.Helper()
	open, shut := a.new, a.old
	if command == "rollback" {
		open, shut = a.old, a.new
	}
	a.begin()
	a.served()
	a.killed(step, command, "--yes")
	// Those that waited at the fence come from before close: they must be gone before
	// they can use the sequence again.
	a.wait("the fence to let go of those that waited", func() bool {
		return a.Value(shut, "shop", "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'advisory' AND backend_type = 'client backend'") == "0"
	})
	a.do(0, command, "--yes")
	a.served()
	a.values.judge()
	a.rows.judge(command+" killed at "+step, open, shut)
}

// TestAfterOpen: whatever fails after open, everything else that can be done is
// done, clients that can be served are served within max_blocked, no value of a
// sequence is given twice, and the command names what is still to do.
func TestAfterOpen(t *testing.T) {
	a := newAfterOpen(t)
	if os.Getuid() == 0 { // elsewhere the two rows of the journal are left out
		if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=256k", "none", a.journal).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v: %s", err, out)
		}
		t.Cleanup(func() {
			if out, err := exec.Command("umount", "-l", a.journal).CombinedOutput(); err != nil {
				t.Errorf("umount: %v: %s", err, out)
			}
		})
	}
	a.do(0, "prepare")
	a.rows = a.load()
	steps := []string{"traffic/point"}
	if all() {
		steps = crossingSteps[slices.Index(crossingSteps, "traffic/point"):]
	}
	n := 0
	for _, step := range some(crossingSteps[slices.Index(crossingSteps, "close/kept"):], "close/kept") {
		command := []string{"cutover", "rollback"}[n%2]
		n++
		a.part(fmt.Sprintf("%s killed at %s", command, step), func(*testing.T) { a.killedCell(command, step) })
	}
	a.part("a pooler is dead at close of "+[]string{"cutover", "rollback"}[n%2], func(*testing.T) { a.cell([]string{"cutover", "rollback"}[n%2], "close", troubles[1]) })
	n++
	for _, step := range steps {
		for _, tr := range troubles {
			if tr.long && !all() {
				continue
			}
			if strings.Contains(tr.name, "journal") && os.Getuid() != 0 {
				t.Logf("%s: needs a file system of its own, which only root can mount", tr.name)
				continue
			}
			command := []string{"cutover", "rollback"}[n%2]
			n++
			a.part(fmt.Sprintf("%s at %s of %s", tr.name, step, command), func(*testing.T) { a.cell(command, step, tr) })
		}
	}
}
