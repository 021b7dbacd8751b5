package proof

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// aroundTables are shopTables with materialized views: one that can be refreshed
// while it is read, one that cannot and reads the other, one that fails when
// log has 501 rows, and one that was never filled.
const aroundTables = shopTables + `
CREATE MATERIALIZED VIEW sums AS SELECT orders_id, count(*) AS n FROM lines GROUP BY 1;
CREATE UNIQUE INDEX ON sums (orders_id);
CREATE MATERIALIZED VIEW most AS SELECT count(*) AS n FROM sums;
CREATE MATERIALIZED VIEW share AS SELECT 1 / (501 - count(*)) AS n FROM log;
CREATE MATERIALIZED VIEW never AS SELECT 1 AS n WITH NO DATA;
`

// called is one call of a hook: what it saw.
type called map[string]string

// hookLog is a hook that writes down what it sees, fails at the step that a file
// names, and after open writes to the side that has been opened, by the
// connection string that it was given.
type hookLog struct {
	w          *world
	run, fails string
	read       int
}

func (w *world) hookLog() *hookLog {
	w.t.Helper()
	h := &hookLog{w: w, run: filepath.Join(w.dir, "told"), fails: filepath.Join(w.dir, "fails")}
	w.script("told", fmt.Sprintf(`#!/bin/sh
for name in UPGRADE PHASE STEP OLD NEW FENCE_LSN TO; do
	eval "echo \"$name=\${CROSSFADE_$name-unset}\""
done >> %[1]q.log
echo "arg=$1" >> %[1]q.log
echo . >> %[1]q.log
if [ "$(cat %[2]q 2>/dev/null)" = "$CROSSFADE_STEP" ]; then echo "no luck at $CROSSFADE_STEP" >&2; exit 3; fi
if [ "$CROSSFADE_STEP" = hook/after ]; then
	to=$CROSSFADE_NEW; [ "$CROSSFADE_PHASE" = rolled_back ] && to=$CROSSFADE_OLD
	%[3]q -qX -v ON_ERROR_STOP=1 -c "INSERT INTO public.told VALUES (DEFAULT, nullif('$CROSSFADE_FENCE_LSN', '')::pg_lsn)" "$to dbname=shop"
fi
`, h.run, h.fails, filepath.Join(w.new.Bin, "psql")))
	return h
}

func (h *hookLog) fail(step string) { h.w.Must(os.WriteFile(h.fails, []byte(step), 0o600)) }

// calls are the calls since the last look.
func (h *hookLog) calls() []called {
	h.w.t.Helper()
	b, err := os.ReadFile(h.run + ".log")
	h.w.Must(err)
	all := strings.Split(strings.TrimSuffix(string(b), ".\n"), ".\n")
	var out []called
	for _, text := range all[h.read:] {
		c := called{}
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			c[name] = value
		}
		out = append(out, c)
	}
	h.read = len(all)
	return out
}

// TestAroundOpen: what happens before the gate and after open. Hooks see what
// the contract says, and what fails in them ends as it says; materialized views,
// which nothing replicates, are brought up to date.
func TestAroundOpen(t *testing.T) {
	var h *hookLog
	w := newWorld(t, setting{
		sql: aroundTables + "CREATE TABLE told (n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, lsn pg_lsn);",
		wire: func(w *world, s *setting) {
			h = w.hookLog()
			s.cutover += fmt.Sprintf("  traffic:\n    - hook: {run: [%q, move]}\n", h.run)
			s.extra += fmt.Sprintf("hooks:\n  before_cutover: {run: [%[1]q, before]}\n  after_open: {run: [%[1]q, after], timeout: 20s}\n", h.run)
		},
	})
	w.do(0, "prepare")

	h.fail("hook/before")
	r := w.do(4, "cutover", "--yes", "--json")
	if !strings.Contains(r.stderr+r.stdout, "no luck at hook/before") {
		t.Errorf("the hook's own words are missing\n%s", r)
	}
	w.wantPhase("ready", "old")
	w.told(h.calls(), called{"STEP": "hook/before", "PHASE": "cutover", "FENCE_LSN": "", "arg": "before"})

	// What changes on old between the refresh ahead and open.
	w.Exec(w.old, "shop", "INSERT INTO log (line) VALUES ('the 501st')", "DELETE FROM lines WHERE orders_id = 1")
	h.fail("hook/after")
	l, wake := w.stopped("arm", "cutover", "--yes")
	w.Exec(w.old, "shop", "DELETE FROM lines WHERE orders_id = 2")
	wake()
	r = l.end()
	wantExit(t, r, 6)
	fence := "0/0"
	for _, at := range w.has(r, "cutover", "fence_lsn")[0]["fence_lsn"].(map[string]any) {
		fence = w.Value(w.old, "", fmt.Sprintf("SELECT greatest('%s'::pg_lsn, '%s')", at, fence))
	}
	w.told(
		h.calls(),
		called{"STEP": "hook/before", "PHASE": "cutover", "FENCE_LSN": ""},
		called{"STEP": "traffic/prepare", "PHASE": "cutover", "FENCE_LSN": "", "TO": "new", "arg": "move"},
		called{"STEP": "traffic/pause", "PHASE": "cutover", "FENCE_LSN": ""},
		called{"STEP": "traffic/point", "PHASE": "open", "FENCE_LSN": fence, "TO": "new"},
		called{"STEP": "traffic/resume", "PHASE": "open", "FENCE_LSN": fence},
		called{"STEP": "hook/after", "PHASE": "open", "FENCE_LSN": fence, "arg": "after"},
	)
	w.allElse(r)
	w.viewsUpToDate(r)

	h.fail("nothing")
	w.do(0, "cutover", "--yes")
	w.told(last(h.calls(), 1), called{"STEP": "hook/after", "PHASE": "open", "FENCE_LSN": fence})
	if got := w.Value(w.new, "shop", "SELECT string_agg(lsn::text, ' ') FROM told"); got != fence {
		t.Errorf("the hook wrote on new: %s", got)
	}
	if next := w.status()["next"]; next != "crossfade status --watch" {
		t.Errorf("next is %v", next)
	}
	w.do(0, "cutover", "--yes")
	if calls := h.calls(); len(calls) > 0 {
		t.Errorf("called although the work was done: %v", calls)
	}

	w.viewsOnTheWayBack()
	w.told(last(h.calls(), 1), called{"STEP": "hook/after", "PHASE": "rolled_back"})
	if got := w.Value(w.old, "shop", "SELECT count(*) FROM told"); got != "2" {
		t.Errorf("the hook has written %s rows, one after each open", got)
	}
	w.aheadAgain(h)
}

// aheadAgain gives new up for good, with traffic that cannot be sent to old at
// first: there is only forward, and the second run does what is left.
func (w *world) aheadAgain(h *hookLog) {
	w.t.Helper()
	w.do(0, "cutover", "--yes")
	w.Must(w.new.Kill(w.t.Context()))
	h.calls()
	h.fail("traffic/point")
	w.errs(6, "rollback", "--without-new", "--yes")
	w.wantPhase("rolled_back", "old")
	if next := w.status()["next"]; next != "crossfade rollback" {
		w.t.Errorf("next is %v", next)
	}
	h.fail("nothing")
	w.do(0, "rollback", "--without-new", "--yes")
	calls := h.calls()
	w.told(
		last(calls, 3),
		called{"STEP": "traffic/point", "PHASE": "rolled_back", "TO": "old"},
		called{"STEP": "traffic/resume", "PHASE": "rolled_back"},
		called{"STEP": "hook/after", "PHASE": "rolled_back", "FENCE_LSN": ""},
	)
	w.do(0, "rollback", "--without-new", "--yes")
	if more := h.calls(); len(more) > 0 {
		w.t.Errorf("called although the work was done: %v", more)
	}
}

// last are the last n of some.
func last[T any](some []T, n int) []T { return some[max(0, len(some)-n):] }

// told wants the hook to have been called so, each with what is named.
func (w *world) told(got []called, want ...called) {
	w.t.Helper()
	if len(got) != len(want) {
		w.t.Fatalf("%d calls, wanted %d:\n%v", len(got), len(want), got)
	}
	for i, c := range want {
		c["UPGRADE"] = "up"
		for name, value := range c {
			if got[i][name] != value {
				w.t.Errorf("call %d saw %s=%q, wanted %q: %v", i, name, got[i][name], value, got[i])
			}
		}
		for name, port := range map[string]int{"OLD": w.old.Port, "NEW": w.new.Port} {
			if !slices.Contains(strings.Fields(got[i][name]), fmt.Sprintf("port=%d", port)) && !strings.Contains(got[i][name], fmt.Sprintf("port='%d'", port)) {
				w.t.Errorf("call %d saw %s=%q, wanted port %d", i, name, got[i][name], port)
			}
		}
	}
}

// allElse wants everything after open to have been done although the hook
// after_open failed, and status to say what to type.
func (w *world) allElse(r ran) {
	w.t.Helper()
	w.wantPhase("open", "new")
	if !strings.Contains(r.stderr+r.stdout, "no luck at hook/after") {
		w.t.Errorf("the hook's own words are missing\n%s", r)
	}
	if next := w.status()["next"]; next != "crossfade cutover" {
		w.t.Errorf("next is %v", next)
	}
	if got := w.Value(w.old, "", "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'cf_%'"); got != "0" {
		w.t.Errorf("%s slots of the links to new are left", got)
	}
	if got := w.Value(w.new, "shop", "SELECT count(*) FROM pg_trigger WHERE tgname = 'crossfade_fence'"); got != "0" {
		w.t.Errorf("the open fence is on %s tables of new", got)
	}
}

// viewsUpToDate looks at the materialized views of new after a cutover in
// which lines of order 1 went before, and those of order 2 after the refresh
// ahead of it.
func (w *world) viewsUpToDate(r ran) {
	w.t.Helper()
	for view, want := range map[string]string{"sums": "1998", "best": "1999", "most": "1"} {
		if got := w.Value(w.new, "shop", "SELECT count(*) FROM "+view); got != want {
			w.t.Errorf("%s has %s rows on new, wanted %s", view, got, want)
		}
	}
	if got := w.Value(w.new, "shop", "SELECT n FROM most"); got != "1999" {
		w.t.Errorf("most says %s: it was refreshed before what it reads", got)
	}
	if w.Value(w.new, "shop", "SELECT n FROM share") != "1" || w.Value(w.new, "shop", "SELECT relispopulated FROM pg_class WHERE relname = 'never'") != "f" {
		w.t.Error("a view whose refresh fails shows something else, or one that was never filled is")
	}
	for _, said := range []string{"public.best of shop", "public.most of shop", "not up to date", "division by zero", `REFRESH MATERIALIZED VIEW "public"."share"`} {
		if !strings.Contains(r.stderr, said) {
			w.t.Errorf("it does not say %q\n%s", said, r.stderr)
		}
	}
}

// viewsOnTheWayBack rolls back, with a reader in the middle of one of the views
// when it is refreshed after open: he is not waited for, and holds nobody up.
func (w *world) viewsOnTheWayBack() {
	w.t.Helper()
	w.Exec(w.new, "shop", "DELETE FROM lines WHERE orders_id BETWEEN 3 AND 5", "DELETE FROM log WHERE line = 'the 501st'")
	l, wake := w.stopped("refresh/again", "rollback", "--yes")
	if got := w.Value(w.old, "shop", "SELECT (SELECT count(*) FROM sums) || ' ' || (SELECT count(*) FROM best)"); got != "1995 1995" {
		w.t.Errorf("sums and best have %s rows on old right after open", got)
	}
	reader := w.session(w.old, "shop")
	w.Must(run(w.t.Context(), reader, "BEGIN; SELECT count(*) FROM public.sums"))
	w.Exec(w.old, "shop", "DELETE FROM lines WHERE orders_id = 6")
	wake()
	wantExit(w.t, l.end(), 0)
	w.Must(run(w.t.Context(), reader, "COMMIT"))
	if got := w.Value(w.old, "shop", "SELECT (SELECT count(*) FROM sums) || ' ' || (SELECT count(*) FROM best)"); got != "1994 1995" {
		w.t.Errorf("sums and best have %s rows on old", got)
	}
	w.wantPhase("rolled_back", "old")
}
