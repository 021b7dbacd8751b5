package proof

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// killTables are shopTables, a table that takes a while to copy, and a trigger
// that fires on apply unless somebody sees to it.
const killTables = shopTables + `
CREATE TABLE big (id bigint PRIMARY KEY, pad text);
INSERT INTO big SELECT g, repeat('x', 200) FROM generate_series(1, 60000) g;
CREATE INDEX ON big (pad, id);
CREATE TABLE audit (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.audit (what) VALUES (NEW.what); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION noted();
ALTER TABLE orders ENABLE ALWAYS TRIGGER noted;
`

// crossingSteps is every step of a cutover and of a rollback, in order.
var crossingSteps = []string{
	"arm", "gate", "traffic/prepare", "back/make", "traffic/pause", "barrier", "canary", "drain", "sequences", "forward/stop", "back/prove", "durable", "close",
	"close/kept", "open", "traffic/point", "traffic/resume", "read-only", "back/follow", "forward/drop", "disarm",
}

// TestPrepareKilled: prepare is killed in the middle of every step (in make test of
// every second one), by turns
// here and elsewhere, and each time goes on. Then it has nothing to do any more.
func TestPrepareKilled(t *testing.T) {
	w := newWorld(t, setting{sql: killTables})
	clients := w.load()
	clients.start()
	kills, least := 0, 5
	if all() {
		least = 12
	}
	for i, step := range w.steps("prepare") {
		if step == "check" {
			continue // in a new upgrade it has been done before the plan is drawn
		}
		if i%2 == 1 && !all() {
			continue
		}
		kill := "CROSSFADE_KILL=" + step
		if strings.HasPrefix(step, "copy/") {
			kill += fmt.Sprintf("+%s", time.Duration(20+rand.Int64N(30))*time.Millisecond)
		}
		r := w.inject(kill, "prepare")
		wantExit(t, r, -1, 0)
		t.Logf("%s: exit %d", kill, r.exit)
		if r.exit == -1 {
			kills++
		}
		if kills%2 == 1 {
			w.elsewhere()
		}
	}
	if kills < least {
		t.Errorf("killed only %d times", kills)
	}
	w.do(0, "prepare")
	w.wantPhase("ready", "old")
	clients.flow(20)
	clients.stop()
	w.equal()
	w.idle("prepare")
	w.do(0, "cutover", "--yes")
	w.idle("cutover", "--yes")
	clients.judge("after prepare was killed", w.new, w.old)
	w.do(0, "rollback", "--yes")
	w.idle("rollback", "--yes")
	w.do(0, "cutover", "--yes")
	w.do(0, "finish", "--yes")
	w.idle("finish", "--yes")
}

// steps are the ids of a plan's steps, in order.
func (w *world) steps(plan string) []string {
	w.t.Helper()
	var ids []string
	for _, s := range w.do(0, "plan", "--only", plan, "--json").lines("step") {
		ids = append(ids, s["id"].(string))
	}
	if len(ids) < 5 {
		w.t.Fatalf("plan %s has steps %v", plan, ids)
	}
	return ids
}

// idle runs a plan whose work is done: it must do nothing.
func (w *world) idle(args ...string) {
	w.t.Helper()
	looks := []string{"check", "compare/shop", "compare/side"}
	before := [2]string{w.footprint(w.old), w.footprint(w.new)}
	r := w.do(0, append(args, "--json")...)
	for _, e := range r.lines("event") {
		if e["kind"] == "begin" && !slices.Contains(looks, e["step"].(string)) {
			w.t.Errorf("%v, done already, begins %v again", args, e["step"])
		}
	}
	for i, c := range []string{w.footprint(w.old), w.footprint(w.new)} {
		if d := diff(before[i], c); d != "" {
			w.t.Errorf("%v, done already, changed %s:\n%s", args, []string{"old", "new"}[i], d)
		}
	}
}

// TestCutoverKilled: cutover and rollback are killed at the beginning of each
// step, and somebody elsewhere, without the journal, runs the command again.
func TestCutoverKilled(t *testing.T) {
	w := newWorld(t, setting{sql: killTables, pooled: true, cutover: "  max_blocked: 3s\n"})
	w.do(0, "prepare")
	clients := w.load()
	// In make test each is killed at other steps: what follows a kill is the same plan.
	steps := some(crossingSteps, "barrier", "close/kept", "traffic/point", "disarm")
	backs := some(append(slices.Clone(crossingSteps[len(crossingSteps)/2:]), crossingSteps[:len(crossingSteps)/2]...), "close", "open", "back/prove", "traffic/resume")
	for i, step := range steps {
		back := backs[i]
		clients.start()
		w.killedCrossing(clients, "cutover", step)
		w.do(0, "cutover", "--yes")
		w.wantPhase("open", "new")
		clients.flow(20)
		clients.judge("cutover killed at "+step, w.new, w.old)
		w.Exec(w.new, "shop", "INSERT INTO orders (what) VALUES ('on new')")
		clients.start()
		w.killedCrossing(clients, "rollback", back)
		w.do(0, "rollback", "--yes")
		w.wantPhase("rolled_back", "old")
		clients.flow(20)
		clients.judge("rollback killed at "+back, w.old, w.new)
		w.Exec(w.old, "shop", "INSERT INTO orders (what) VALUES ('on old')")
		w.equal()
		if got := w.Value(w.old, "shop", "SELECT (SELECT count(*) FROM orders WHERE what LIKE 'on %') || ' ' || count(*) FROM audit"); got != fmt.Sprintf("%d %[1]d", 2*(i+1)) {
			t.Fatalf("orders made and noted: %s, wanted %d of each", got, 2*(i+1))
		}
	}
}

// killedCrossing kills a crossing at a step and wants what the contract says
// of that moment: who serves, that he serves within the budget, and that
// nobody else does.
func (w *world) killedCrossing(clients *load, command, step string) {
	w.t.Helper()
	clients.flow(5)
	began := time.Now()
	w.killed(step, command, "--yes")
	w.elsewhere()
	phase, writable := w.truth()
	from, to, before, behind := "old", "new", []string{"ready", "rolled_back"}, "open"
	if command == "rollback" {
		from, to, before, behind = "new", "old", []string{"open"}, "rolled_back"
	}
	at := slices.Index(crossingSteps, step)
	var phases []string
	want := ""
	switch {
	case at == 0:
		phases, want = before, from
	case at <= slices.Index(crossingSteps, "close"):
		phases, want = []string{"cutover"}, from
	case at <= slices.Index(crossingSteps, "open"):
		phases, want = []string{"cutover"}, "none"
	default:
		phases, want = []string{behind}, to
	}
	if !slices.Contains(phases, phase) || writable != want {
		w.t.Errorf("%s killed at %s: phase %s, writable %s; wanted %v and %s", command, step, phase, writable, phases, want)
	}
	if step == "traffic/resume" {
		clients.flow(20) // the child that guards the poolers resumes them
	}
	if want == from {
		clients.flow(20)
		gap := clients.pool.GapSince(began).Length
		if gap > 4*time.Second {
			w.t.Errorf("%s killed at %s: writers stood still for %s", command, step, gap)
		}
		w.t.Logf("%s killed at %s: phase %s, writable %s, longest gap %s", command, step, phase, writable, gap.Round(time.Millisecond))
		return
	}
	w.t.Logf("%s killed at %s: phase %s, writable %s", command, step, phase, writable)
}

// TestCutoverKilledAnywhere: the same at random moments.
func TestCutoverKilledAnywhere(t *testing.T) {
	long(t)
	w := newWorld(t, setting{sql: killTables, pooled: true, cutover: "  max_blocked: 3s\n"})
	w.do(0, "prepare")
	clients := w.load()
	rounds := 3
	if all() {
		rounds = 25
	}
	clients.start()
	for i := range rounds {
		for _, command := range []string{"cutover", "rollback"} {
			for again := true; again; {
				step := crossingSteps[3+rand.IntN(len(crossingSteps)-3)]
				after := time.Duration(rand.Int64N(int64(60 * time.Millisecond)))
				r := w.follow(w.exe, "", func(p *os.Process, e event) {
					if e.Kind == "begin" && e.Step == step {
						time.AfterFunc(after, func() { kill(p) })
					}
				}, command, "--yes").end()
				wantExit(t, r, -1, 0)
				w.elsewhere()
				phase, writable := w.truth()
				t.Logf("round %d: %s killed %s after %s: exit %d, phase %s, writable %s", i, command, after, step, r.exit, phase, writable)
				again = rand.IntN(2) == 0 && r.exit != 0
			}
			w.do(0, command, "--yes")
			clients.flow(10)
			if command == "cutover" {
				clients.judge(fmt.Sprintf("cutover, round %d", i), w.new, w.old)
			} else {
				clients.judge(fmt.Sprintf("rollback, round %d", i), w.old, w.new)
				w.equal()
			}
			clients.start()
		}
	}
}

// TestAbortAfterKill: a cutover that was killed before open is undone by
// abort, from elsewhere: then nothing of the tool is left on any server.
func TestAbortAfterKill(t *testing.T) {
	w := newWorld(t, setting{sql: killTables, pooled: true, cutover: "  max_blocked: 3s\n"})
	old, fresh := w.footprint(w.old), w.footprint(w.new)
	clients := w.load()
	for _, step := range some(crossingSteps[:14], "barrier", "close/kept") {
		clients.start()
		w.do(0, "prepare")
		w.killedCrossing(clients, "cutover", step)
		r := w.inject("CROSSFADE_KILL=unfence/old", "abort", "--yes")
		wantExit(t, r, -1)
		w.elsewhere()
		w.do(0, "abort", "--yes")
		clients.flow(20)
		clients.judge("abort after "+step, w.old, nil)
		if d := diff(old, w.footprint(w.old)); d != "" {
			t.Errorf("killed at %s, aborted: old, - before, + after:\n%s", step, d)
		}
		if d := diff(fresh, w.footprint(w.new)); d != "" {
			t.Errorf("killed at %s, aborted: new, - before, + after:\n%s", step, d)
		}
		w.elsewhere()
	}
}

// TestFinishKilled: finish is killed at each of its steps, and ends from elsewhere
// what it began. TestAbort does the same with abort.
func TestFinishKilled(t *testing.T) {
	w := newWorld(t, setting{sql: killTables})
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	for _, step := range some(w.steps("finish"), "unfence/new", "ground/slim/old") {
		r := w.inject("CROSSFADE_KILL="+step, "finish", "--yes")
		wantExit(t, r, -1, 0)
		w.elsewhere()
		if !w.takes(w.new) || w.takes(w.old) {
			t.Errorf("finish killed at %s: old takes writes: %t, new: %t", step, w.takes(w.old), w.takes(w.new))
		}
	}
	w.do(0, "finish", "--yes")
	w.onlyFence()
}
