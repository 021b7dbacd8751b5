package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
)

// rehearsed is the rehearsal that a command reports.
func (w *world) rehearsed(r ran) map[string]any {
	w.t.Helper()
	lines := w.has(r, "rehearsal", "with_traffic", "blocked_seconds", "longest_wait_seconds", "refused_writes", "tries", "steps", "canaries", "left")
	if len(lines) != 1 {
		w.t.Fatalf("%d rehearsals\n%s", len(lines), r)
	}
	return lines[0]
}

// stepSeconds are the steps of a rehearsal or a cutover: what each took, or
// what was forecast.
func stepSeconds(line map[string]any, key string) map[string]float64 {
	took := map[string]float64{}
	for _, s := range line["steps"].([]any) {
		s := s.(map[string]any)
		if v, ok := s[key].(float64); ok {
			took[s["id"].(string)] = v
		}
	}
	return took
}

// blockedPart are the steps of a rehearsal in which writers wait.
var blockedPart = []string{"barrier", "canary", "drain", "sequences", "forward/stop", "back/prove"}

func sum(of map[string]float64, ids []string) (s float64) {
	for _, id := range ids {
		s += of[id]
	}
	return s
}

// standing is everything of both sides that a rehearsal must leave as it is:
// footprints, rows of the tool's own but for what was measured, and where the
// sequences of new stand.
func (w *world) standing() string {
	w.t.Helper()
	text := w.footprint(w.old) + "\n" + w.footprint(w.new)
	for _, c := range []*cluster{w.old, w.new} {
		text += w.Value(c, "shop", "SELECT string_agg(format('row %s %s %s', attempt, state, memory - 'rehearsed'), E'\\n' ORDER BY attempt) FROM crossfade.upgrade") + "\n"
	}
	return text + w.Value(w.new, "shop", "SELECT string_agg(format('%s %s', sequencename, last_value), E'\\n' ORDER BY 1) FROM pg_sequences")
}

// asBefore wants nothing to differ from what stood before.
func (w *world) asBefore(what, before string) {
	w.t.Helper()
	if d := diff(before, w.standing()); d != "" {
		w.t.Errorf("%s left something, - before, + after:\n%s", what, d)
	}
	for _, l := range w.status()["links"].([]any) {
		if l := l.(map[string]any); l["state"] != "streaming" {
			w.t.Errorf("after %s link %v is %v", what, l["set"], l["state"])
		}
	}
}

// TestRehearse: three rehearsals under load leave nothing and refuse nothing,
// nobody waits longer than they say, and the cutover takes what they forecast.
func TestRehearse(t *testing.T) {
	w := newWorld(t, setting{sql: killTables, pooled: true})
	w.errs(4, "rehearse", "--yes") // nothing is prepared
	w.do(0, "prepare")
	before := w.standing()
	pool := w.Write(w.pool.Conninfo("shop"), lab.WriterOptions{Writers: 3, Pause: 3 * time.Millisecond, FirstWorker: 100})
	// One connection: the time between two of its rows is what it waited.
	alone := w.Write(w.old.Conninfo("shop"), lab.WriterOptions{Writers: 1, Pause: time.Millisecond, FirstWorker: 200})
	w.Must(alone.Flow(t.Context(), 300))
	began := time.Now()
	w.Must(alone.Flow(t.Context(), 300))
	noise := alone.GapSince(began).Length

	w.errs(4, "rehearse") // nobody to ask
	var rehearsals []float64
	for i, args := range [][]string{{"rehearse", "--yes"}, {"rehearse", "--yes", "--with-traffic"}, {"rehearse", "--yes"}} {
		began = time.Now()
		r := w.do(0, append(args, "--json")...)
		gap := max(alone.GapSince(began).Length, pool.GapSince(began).Length)
		m := w.rehearsed(r)
		rehearsals = append(rehearsals, sum(stepSeconds(m, "seconds"), blockedPart))
		wait, blocked := inSeconds(m["longest_wait_seconds"]), inSeconds(m["blocked_seconds"])
		t.Logf("rehearsal %d: blocked %s, longest wait %s, seen by a writer %s (noise %s), tries %v", i+1, blocked, wait, gap, noise, m["tries"])
		if limit := wait + noise + 150*time.Millisecond; gap > limit {
			t.Errorf("a writer waited for %s, and the rehearsal says %s\n%s", gap, wait, r)
		}
		if wait < blocked/2 {
			t.Errorf("writers that never stop waited at most %s while they were blocked for %s", wait, blocked)
		}
		if m["refused_writes"] != 0.0 || len(m["left"].([]any)) > 0 || m["with_traffic"] != (i == 1) {
			t.Errorf("what was measured: %v", m)
		}
		if _, paused := stepSeconds(m, "seconds")["traffic/pause"]; paused != (i == 1) {
			t.Errorf("traffic was paused: %t", paused)
		}
		w.wantPhase("ready", "old")
	}
	w.asBefore("three rehearsals", before)
	for _, s := range w.do(0, "plan", "--only", "cutover", "--json").lines("step") {
		if s["id"] == "back/prove" && s["forecast_seconds"] == nil {
			t.Errorf("the plan has no forecast: %v", s["id"])
		}
	}

	// What clients do in its middle is neither refused nor in its way.
	l, wake := w.stopped("drain", "rehearse", "--yes")
	w.Exec(w.old, "shop", "CREATE TEMP TABLE k AS SELECT 1", "CREATE TABLE public.sudden (k int PRIMARY KEY)", "DROP TABLE public.sudden", "SELECT count(*) FROM orders")
	wake()
	if m := w.rehearsed(l.end()); m["refused_writes"] != 0.0 {
		t.Errorf("refused: %v", m)
	}
	w.asBefore("a rehearsal with DDL in its middle", before)

	// One that was killed is no cutover that was cut off; the cutover undoes it.
	w.killed("undo/forward/stop", "rehearse", "--yes", "--with-traffic")
	w.elsewhere()
	w.cutOff("undo/forward/stop")

	reports := []lab.Report{alone.Stop()}
	w.asForecast(rehearsals)
	w.errs(4, "rehearse", "--yes")
	reports = append(reports, pool.Stop())
	for _, r := range reports {
		if len(r.Failures) > 0 {
			t.Errorf("clients saw errors: %v", r.Failures)
		}
	}
	w.Judge(w.new.Conninfo("shop"), w.old.Conninfo("shop"), reports...)
}

// asForecast cuts over and wants it to take what was forecast, within 1.5: of
// the steps in which writers wait, all together, and on a machine that has other
// work wider by as much as the rehearsals differ among themselves. One cutover
// that falls into a bad moment is no proof: then the median of three counts.
func (w *world) asForecast(rehearsals []float64) {
	w.t.Helper()
	factor := 1.5 * slices.Max(rehearsals) / slices.Min(rehearsals)
	var took []float64
	for {
		c := w.has(w.do(0, "cutover", "--yes", "--json"), "cutover", "steps")[0]
		forecasts := stepSeconds(c, "forecast_seconds")
		if forecasts["traffic/pause"] == 0 || forecasts["arm"] == 0 || forecasts["open"] == 0 {
			w.t.Errorf("forecasts: %v", forecasts)
		}
		forecast := sum(forecasts, blockedPart)
		took = append(took, sum(stepSeconds(c, "seconds"), blockedPart))
		slices.Sort(took)
		m := took[len(took)/2]
		w.t.Logf("rehearsed %.3v, forecast %.3v, took %.3v s", rehearsals, forecast, took)
		if m < forecast*factor && m > forecast/factor || m-forecast < 0.1 && forecast-m < 0.1 {
			return
		}
		if len(took) == 3 {
			w.t.Errorf("forecast %.3f s, and the cutover took %.3f s", forecast, m)
			return
		}
		w.do(0, "rollback", "--yes")
		w.errs(4, "rehearse", "--yes")
	}
}

func inSeconds(v any) time.Duration {
	s, _ := v.(float64)
	return time.Duration(s * float64(time.Second))
}

// TestRehearseKilled: a rehearsal is killed at its steps. Writers go on within
// the budget, it is no cutover that was cut off, and whatever command comes
// next, from another machine, undoes what it left.
func TestRehearseKilled(t *testing.T) {
	long(t)
	w := newWorld(t, setting{sql: killTables, pooled: true, cutover: "  max_blocked: 3s\n"})
	old, fresh := w.footprint(w.old), w.footprint(w.new)
	w.do(0, "prepare")
	before := w.standing()
	clients := w.load()
	clients.start()
	rehearse := []string{"rehearse", "--yes", "--with-traffic"}
	for i, step := range []string{
		"gate", "traffic/prepare", "traffic/pause", "barrier", "canary", "drain", "sequences", "forward/stop", "back/prove",
		"undo/barrier", "undo/traffic/pause", "undo/back/prove", "undo/forward/stop", "undo/traffic/prepare", "undo/arm", "undone",
	} {
		w.rehearsalKilled(clients, step, rehearse)
		again := [][]string{rehearse[:2], {"prepare"}}[i%2]
		w.do(0, again...)
		w.asBefore(strings.Join(again, " ")+" after a rehearsal killed at "+step, before)
	}
	w.rehearsalKilled(clients, "undo/forward/stop", rehearse)
	w.do(0, "cutover", "--yes")
	clients.flow(20)
	if n := len(clients.pool.Errors()); n > 0 {
		t.Errorf("clients of the pooler saw errors: %v", clients.pool.Errors())
	}
	clients.judge("a cutover after a rehearsal that was killed", w.new, w.old)
	w.do(0, "rollback", "--yes")
	w.do(0, "abort", "--yes")
	w.do(0, "prepare")
	clients.start()
	w.rehearsalKilled(clients, "back/prove", rehearse)
	w.do(0, "abort", "--yes")
	clients.stop()
	for name, d := range map[string]string{"old": diff(old, w.footprint(w.old)), "new": diff(fresh, w.footprint(w.new))} {
		if d != "" {
			t.Errorf("after abort %s is not as it was, - before, + after:\n%s", name, d)
		}
	}
}

func (w *world) rehearsalKilled(clients *load, step string, rehearse []string) {
	w.t.Helper()
	clients.flow(5)
	began := time.Now()
	w.killed(step, rehearse...)
	w.elsewhere()
	clients.flow(20)
	gap := clients.pool.GapSince(began).Length
	w.t.Logf("killed at %s: longest gap %s", step, gap.Round(time.Millisecond))
	if gap > 4*time.Second {
		w.t.Errorf("killed at %s: writers stood still for %s", step, gap)
	}
	w.cutOff(step)
}

// cutOff wants of status that a rehearsal was killed at a step, and old serves.
func (w *world) cutOff(step string) {
	w.t.Helper()
	if phase, writable := w.truth(); phase != "ready" || writable != "old" {
		w.t.Errorf("killed at %s: phase %s, writable %s", step, phase, writable)
	}
	s := w.status()
	if step != "undone" && (s["next"] != "crossfade rehearse" || !strings.Contains(fmt.Sprint(s["notes"]), "was cut off") || s["step"] != nil) {
		w.t.Errorf("killed at %s: next %v, step %v, notes %v", step, s["next"], s["step"], s["notes"])
	}
}

// TestRehearseRefused: what ends a rehearsal with which code, and that old
// serves as before each time.
func TestRehearseRefused(t *testing.T) {
	long(t)
	w := newWorld(t, setting{sql: killTables, cutover: "  max_blocked: 3s\n"})
	w.do(0, "prepare")
	before := w.standing()
	w.runbookLine("patience: 60s", "patience: 2s")
	as := func(exit int, r ran, says string) {
		t.Helper()
		w.failed(exit, r)
		if !strings.Contains(r.stderr, says) {
			t.Errorf("it does not say %q\n%s", says, r)
		}
		w.asBefore(fmt.Sprintf("%v with exit %d", r.args, exit), before)
		w.wantPhase("ready", "old")
	}
	day := strings.ToLower(time.Now().UTC().Add(72 * time.Hour).Format("Mon"))
	w.runbookLine("cutover:\n", "cutover:\n  window: {zone: UTC, days: ["+day+"], from: \"02:00\", to: \"04:00\"}\n")
	as(4, w.try("rehearse", "--yes", "--json"), "T02:00:00Z")
	w.do(0, "rehearse", "--yes", "--now")
	w.errs(2, "rehearse", "--yes", "--now", "--wait")
	w.runbookLine("  window:", "  #window:")
	approve := filepath.Join(t.TempDir(), "approved")
	w.Must(os.WriteFile(approve, nil, 0o600))
	w.runbookLine("approve: auto", "approve: \"file:"+approve+"\"")
	as(4, w.try("rehearse", "--yes", "--json"), "touch "+approve)
	w.runbookLine("approve: \"file:"+approve+"\"", "approve: auto")

	// A lock that is never given back: first the fence is not acquired, then the barrier,
	// and then the fence cannot be taken off.
	tx := w.session(w.old, "shop")
	w.Must(run(t.Context(), tx, "BEGIN; LOCK TABLE public.parts_1 IN ROW EXCLUSIVE MODE"))
	as(5, w.try("rehearse", "--yes", "--json"), "held up by pid")
	w.Must(run(t.Context(), tx, "COMMIT"))
	w.runbookLine("patience: 2s", "patience: 8s")
	l, wake := w.stopped("traffic/prepare", "rehearse", "--yes")
	w.Must(run(t.Context(), tx, "BEGIN; LOCK TABLE public.parts_1 IN ROW EXCLUSIVE MODE"))
	wake()
	r := w.failed(5, l.end())
	if m := w.rehearsed(r); !strings.Contains(r.stderr, "held up by pid") || m["tries"].(float64) < 2 || fmt.Sprint(m["left"]) != `[shop "public"."parts_1"]` {
		t.Errorf("the locks were not had: %v\n%s", m, r)
	}
	w.Must(run(t.Context(), tx, "COMMIT"))
	w.runbookLine("patience: 8s", "patience: 60s")
	w.do(0, "rehearse", "--yes")
	w.asBefore("a rehearsal after one that could not take everything off", before)
	w.runbookLine("patience: 60s", "patience: 2s")
	w.Exec(w.old, "shop", "CREATE TABLE later (k int PRIMARY KEY)")
	w.failed(4, w.try("rehearse", "--yes", "--json"))
	w.Exec(w.old, "shop", "DROP TABLE later")
	w.runbookLine("patience: 2s", "patience: 60s")

	as(5, w.interrupted("canary", "rehearse", "--yes"), "interrupted by SIGINT")
	as(5, w.inject("CROSSFADE_PANIC=back/prove", "rehearse", "--yes"), "panic")
	as(5, w.interrupted("undo/back/prove", "rehearse", "--yes"), "interrupted by SIGINT")
	l, wake = w.stopped("gate", "rehearse", "--yes")
	w.errs(8, "rehearse", "--yes")
	if s := w.status(); s["phase"] != "ready" || !strings.Contains(fmt.Sprint(s["notes"]), "under way") {
		t.Errorf("a rehearsal is under way: %v", s)
	}
	wake()
	wantExit(t, l.end(), 0)
	w.asBefore("a rehearsal", before)

	// Where DDL is logged by what would fire on apply, it would go unlogged.
	w.Exec(w.old, "shop", "CREATE TABLE ddl_log (tag text)", "ALTER TABLE ddl_log REPLICA IDENTITY FULL",
		"CREATE FUNCTION logged() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.ddl_log VALUES (tg_tag); END $$",
		"CREATE EVENT TRIGGER logged ON ddl_command_end EXECUTE FUNCTION logged()", "ALTER EVENT TRIGGER logged ENABLE ALWAYS")
	w.do(0, "abort", "--yes")
	w.do(0, "prepare")
	before = w.standing()
	l, wake = w.stopped("traffic/prepare", "rehearse", "--yes")
	w.fails(w.old, "shop", "55006", "CREATE TABLE unlogged_by (k int)")
	wake()
	r = l.end()
	wantExit(t, r, 0)
	if m := w.rehearsed(r); m["refused_writes"] != 1.0 {
		t.Errorf("one statement was refused: %v", m)
	}
	w.asBefore("a rehearsal that refused DDL", before)
	if got := w.Value(w.old, "shop", "SELECT evtenabled FROM pg_event_trigger WHERE evtname = 'logged'"); got != "A" {
		t.Errorf("the event trigger is %s", got)
	}
}

// TestRehearsalIsPlanned: what a rehearsal does to servers and programs is what
// plan shows of it, and all of that.
func TestRehearsalIsPlanned(t *testing.T) {
	w, p := newPlanned(t)
	stored := append(w.planned(), w.planned("--only", "rehearse")...)
	w.do(0, "prepare")
	w.do(0, "rehearse", "--yes", "--with-traffic")
	for _, line := range p.compare(stored, "prepare", "rehearse") {
		t.Error(line)
	}
	t.Logf("%d statements and programs, all of the plan", p.seen)
}
