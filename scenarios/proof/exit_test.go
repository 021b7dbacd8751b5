package proof

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// errs wants a command to end with a code, and with --json the last line to
// be an error that says so.
func (w *world) errs(exit int, args ...string) ran {
	w.t.Helper()
	return w.failed(exit, w.do(exit, append(args, "--json")...))
}

func (w *world) failed(exit int, r ran) ran {
	w.t.Helper()
	wantExit(w.t, r, exit)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	var last map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last["type"] != "error" || last["exit"] != float64(exit) || last["says"] == "" {
		w.t.Errorf("the last line is no error with exit %d\n%s", exit, r)
	}
	if hint, _ := last["hint"].(string); hint == "" {
		w.t.Errorf("the error does not say what to do\n%s", r)
	}
	w.has(r, "error", "exit", "says", "on", "object", "sqlstate", "hint")
	return r
}

// has wants at least one line of a type, each with all these keys.
func (w *world) has(r ran, kind string, keys ...string) []map[string]any {
	w.t.Helper()
	lines := r.lines(kind)
	if len(lines) == 0 {
		w.t.Errorf("no line of type %s\n%s", kind, r)
	}
	for _, l := range lines {
		for _, k := range keys {
			if _, ok := l[k]; !ok {
				w.t.Fatalf("%s has no %q: %v", kind, k, l)
			}
		}
	}
	return lines
}

// interrupted runs a command, sends it SIGINT where it begins a step, and
// returns how it ended.
func (w *world) interrupted(step string, args ...string) ran {
	w.t.Helper()
	l, wake := w.stopped(step, args...)
	w.Must(l.cmd.Process.Signal(syscall.SIGINT))
	wake()
	return l.end()
}

// TestExitCodes provokes every exit code and every type of line, in the order
// in which one upgrade can see them.
func TestExitCodes(t *testing.T) {
	w := newWorld(t, setting{sql: killTables, cutover: "  max_blocked: 10s\n"})
	w.part("2", func(t *testing.T) {
		w.errs(2, "prepare", "--nonsense")
		w.errs(2, "undo")
		w.runbookLine("upgrade: up\n", "upgrade: up\nnonsense: 1\n")
		if r := w.errs(2, "check"); !strings.Contains(r.stderr, "crossfade.yaml:2:1:") {
			t.Errorf("the place is not named\n%s", r)
		}
		w.runbookLine("nonsense: 1\n", "")
	})
	w.part("3", func(t *testing.T) {
		w.Exec(w.old, "shop", "CREATE TABLE nameless (k int)")
		r := w.errs(3, "check")
		found := false
		for _, f := range w.has(r, "finding", "id", "level", "on", "database", "object", "says", "fix", "accepted", "acceptable") {
			found = found || f["level"] == "block" && f["object"] == "public.nameless" && f["fix"] != ""
		}
		if !found {
			t.Errorf("the table without identity is not among the findings\n%s", r)
		}
		w.errs(3, "prepare")
		w.Exec(w.old, "shop", "DROP TABLE nameless")
	})
	w.part("0", func(t *testing.T) {
		w.do(0, "check")
		for _, s := range w.has(w.do(0, "plan", "--json"), "step", "plan", "id", "title", "effects", "forecast_seconds") {
			for _, e := range s["effects"].([]any) {
				e := e.(map[string]any)
				if e["on"] == nil || (e["sql"] == nil) == (e["run"] == nil) {
					t.Fatalf("an effect of %v is %v", s["id"], e)
				}
			}
		}
	})
	w.part("4", func(t *testing.T) {
		w.errs(4, "rollback", "--yes")
		w.errs(4, "finish", "--yes")
		w.errs(4, "verify")
		w.errs(4, "cutover") // nobody to ask
	})
	w.part("130", func(t *testing.T) {
		w.failed(130, w.interrupted("copy/shop", "prepare"))
		w.wantPhase("preparing", "old")
	})
	w.part("1", func(t *testing.T) {
		l, wake := w.stopped("copy/shop", "prepare")
		w.Must(w.new.Kill(t.Context()))
		wake()
		w.failed(1, l.end())
		w.errs(1, "status", "--exit-code")
		w.Must(w.new.Boot(t.Context()))
		w.failed(1, w.inject("CROSSFADE_PANIC=compare/side", "prepare"))
	})
	w.part("8", func(t *testing.T) {
		l, wake := w.stopped("subscriptions/side", "prepare")
		w.errs(8, "prepare")
		before := w.dir
		w.elsewhere()
		w.errs(8, "prepare")
		w.do(0, "status")
		w.dir = before
		wake()
		if r := l.end(); r.exit != 0 {
			// Two looks may have taken longer than a frozen run keeps its lock.
			wantExit(t, r, 1)
			w.do(0, "prepare")
		}
		w.wantPhase("ready", "old")
	})
	w.part("7", func(t *testing.T) { w.differs(t) })
	w.part("window", func(t *testing.T) {
		day := strings.ToLower(time.Now().UTC().Add(72 * time.Hour).Format("Mon"))
		w.runbookLine("cutover:\n", "cutover:\n  window: {zone: UTC, days: ["+day+"], from: \"02:00\", to: \"04:00\"}\n")
		if r := w.errs(4, "cutover", "--yes"); !strings.Contains(r.stderr, "T02:00:00Z") {
			t.Errorf("the next window is not named\n%s", r)
		}
	})
	w.part("5", func(t *testing.T) { w.undone(t) })
	w.part("6", func(t *testing.T) { w.behind(t) })
	w.part("rollback", func(t *testing.T) {
		w.failed(5, w.interrupted("close", "rollback", "--yes"))
		w.wantPhase("open", "new")
		w.failed(5, w.inject("CROSSFADE_PANIC=close/kept", "rollback", "--yes"))
		w.wantPhase("open", "new")
		w.failed(6, w.inject("CROSSFADE_PANIC=traffic/resume", "rollback", "--yes"))
		w.wantPhase("rolled_back", "old")
		w.do(0, "rollback", "--yes")
		w.equal()
	})
}

// differs makes one row of new another one: exit 7 names it.
func (w *world) differs(t *testing.T) {
	keys := []string{"database", "table", "rows", "equal", "lsn", "ranges", "differing", "skipped"}
	for _, l := range w.has(w.do(0, "verify", "--json"), "table", keys...) {
		if l["equal"] != true || l["lsn"] == nil {
			t.Errorf("not equal: %v", l)
		}
	}
	const as = "SET session_replication_role = replica; SET default_transaction_read_only = off; "
	w.Exec(w.new, "side", as+"BEGIN READ WRITE; UPDATE kept SET v = 'other' WHERE k = 5; COMMIT")
	different := ""
	for _, l := range w.has(w.errs(7, "verify"), "table", keys...) {
		if l["equal"] == false {
			different += fmt.Sprint(l["database"], " ", l["table"])
			if len(l["differing"].([]any)) == 0 {
				t.Errorf("what differs is not named: %v", l)
			}
		}
	}
	if different != "side public.kept" {
		t.Errorf("different: %q", different)
	}
	w.Exec(w.new, "side", as+"BEGIN READ WRITE; UPDATE kept SET v = 'v5' WHERE k = 5; COMMIT")
	w.do(0, "verify")
}

// undone fails cutovers before open in every way: exit 5, and old serves. It
// leaves a cutover that was killed between close and open.
func (w *world) undone(t *testing.T) {
	for _, step := range some(crossingSteps[:12], "barrier", "close") {
		w.failed(5, w.interrupted(step, "cutover", "--now", "--yes"))
		w.wantPhase("ready", "old")
		if !w.takes(w.old) || w.takes(w.new) {
			t.Fatalf("interrupted at %s: old takes writes: %t, new: %t", step, w.takes(w.old), w.takes(w.new))
		}
	}
	for _, step := range some(crossingSteps[:15], "back/prove", "open") {
		w.failed(5, w.inject("CROSSFADE_PANIC="+step, "cutover", "--now", "--yes"))
		w.wantPhase("ready", "old")
	}
	w.equal()
	w.do(0, "status", "--exit-code")
	w.killed("close/kept", "cutover", "--now", "--yes")
	s := w.has(w.errs(6, "status", "--exit-code"), "status", "at", "upgrade", "phase", "writable", "fence", "step", "links", "standbys", "gates", "wal_kept_bytes", "next")[0]
	if s["writable"] != "none" || s["phase"] != "cutover" || s["next"] != "crossfade cutover" {
		t.Errorf("closed and not open: %v", s)
	}
	w.errs(4, "finish", "--yes")
	w.errs(4, "prepare")
}

// behind goes on from closed, and fails after open in every way: exit 6, new
// serves, and the next run finishes.
func (w *world) behind(t *testing.T) {
	w.failed(6, w.inject("CROSSFADE_PANIC=traffic/point", "cutover", "--now", "--yes"))
	w.wantPhase("open", "new")
	for _, step := range some(crossingSteps[15:], "disarm") {
		w.failed(6, w.inject("CROSSFADE_PANIC="+step, "cutover", "--now", "--yes"))
		w.wantPhase("open", "new")
	}
	w.do(0, "cutover", "--now", "--yes")
	w.do(0, "rollback", "--now", "--yes")
	// A signal is noted until clients are served, then heeded.
	w.failed(6, w.interrupted("traffic/point", "cutover", "--now", "--yes"))
	w.wantPhase("open", "new")
	w.do(0, "cutover", "--now", "--yes")
	w.do(0, "rollback", "--now", "--yes")
	r := w.do(0, "cutover", "--now", "--yes", "--json")
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if !strings.HasPrefix(lines[len(lines)-1], `{"type":"cutover"`) {
		t.Errorf("the last line is no cutover: %s", lines[len(lines)-1])
	}
	c := w.has(r, "cutover", "fence_lsn", "blocked_seconds", "steps", "refused_writes", "canaries")[0]
	if len(c["fence_lsn"].(map[string]any)) != 2 || c["blocked_seconds"].(float64) <= 0 || c["canaries"].(float64) < 3 || c["refused_writes"] == nil {
		t.Errorf("what was measured: %v", c)
	}
	w.has(r, "event", "at", "plan", "step", "kind", "error", "seconds")
	w.runbookLine("  window:", "  #window:")
}
