package proof

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// shut wants a crossing to end at a gate that no waiting opens: at once, which is
// before it has said for a second time what it waits for, with what opens it as
// hint, and with the same as next of status.
func (w *world) shut(t *testing.T, command, gate, do string) {
	t.Helper()
	if next := w.status()["next"]; next != do {
		t.Errorf("next is %v, want %s", next, do)
	}
	r := w.errs(4, command, "--yes")
	last := r.lines("error")[0]
	if says := fmt.Sprint(last["says"]); !strings.Contains(says, " gate "+gate+": ") || strings.Contains(says, "patience") {
		t.Errorf("%s: it says %s", command, says)
	}
	if hint := fmt.Sprint(last["hint"]); !strings.HasPrefix(hint, do+"; ") || !strings.Contains(hint, "reverted") {
		t.Errorf("%s: its hint is %s, want %s", command, hint, do)
	}
	for _, e := range r.lines("event") {
		if e["kind"] == "fail" && e["step"] == "gate" && e["seconds"].(float64) > 30 {
			t.Errorf("%s waited for the gate %v s", command, e["seconds"])
		}
	}
}

// lose lets a slot of from lose WAL: its subscription on to is stopped, and more
// is written than may be kept.
func (w *world) lose(t *testing.T, sub string, forward bool) {
	t.Helper()
	from, to := w.old, w.new
	if !forward {
		from, to = w.new, w.old
	}
	w.Exec(to, "shop", "SET session_replication_role = replica; BEGIN READ WRITE; ALTER SUBSCRIPTION "+sub+" DISABLE; COMMIT")
	w.Until(from, "shop", "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '"+sub+"'")
	w.Exec(from, "", "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
	w.wait("the slot to be lost", func() bool {
		w.Exec(from, "shop", "SELECT pg_logical_emit_message(false, 'x', 'x')", "SELECT pg_switch_wal()", "CHECKPOINT")
		return w.Value(from, "", "SELECT wal_status FROM pg_replication_slots WHERE slot_name = '"+sub+"'") == "lost"
	})
	w.Exec(from, "", "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
}

// TestShutGates: a gate that no waiting opens ends a crossing at once, and status
// says what does open it; one that may open is waited for. What is around it: a
// preview comes after the window, finish is never what to type next, and verify
// sees what a superuser in the replica role has written on closed old.
func TestShutGates(t *testing.T) {
	w := newWorld(t, setting{})
	w.runbookLine("patience: 60s", "patience: 4m") // a worker that starts again on a busy machine takes its time
	t.Run("swapped", func(t *testing.T) {
		r := w.errs(2, "init", "--old", w.new.Conninfo("postgres"), "--new", w.old.Conninfo("postgres"))
		if !strings.Contains(r.stdout, "--old is PostgreSQL 18 and --new is PostgreSQL 15: are they swapped?") || strings.Contains(r.stdout, "upgrade:") {
			t.Errorf("%s", r)
		}
		book, err := os.ReadFile(w.book())
		w.Must(err)
		swap := strings.NewReplacer(fmt.Sprintf("primary: %q", w.old.Conninfo("postgres")), fmt.Sprintf("primary: %q", w.new.Conninfo("postgres")),
			fmt.Sprintf("primary: %q", w.new.Conninfo("postgres")), fmt.Sprintf("primary: %q", w.old.Conninfo("postgres")), "databases:", "#", "  - {name: side}", "#", "  - name: shop", "#", "    sets:", "#", "      - {name:", "#")
		w.Must(os.WriteFile(w.book(), []byte(swap.Replace(string(book))), 0o600))
		r = w.errs(3, "check")
		if !strings.Contains(r.stdout, "are they swapped in the runbook?") || strings.Contains(r.stdout, "PostgreSQL 19") {
			t.Errorf("%s", r)
		}
		w.Must(os.WriteFile(w.book(), book, 0o600))
	})
	w.do(0, "prepare")

	t.Run("outside the window", func(t *testing.T) {
		w.runbookLine("cutover:\n", "cutover:\n"+far())
		for _, command := range []string{"cutover", "rehearse"} {
			r := w.do(4, command, "--yes")
			if strings.Contains(r.stderr, "this will") || !strings.Contains(r.stderr, "; nothing was changed\nhint: --wait waits for it") {
				t.Errorf("%s", r)
			}
		}
		w.runbookLine(far(), "")
	})
	t.Run("made since prepare", func(t *testing.T) {
		w.Exec(w.old, "shop", "CREATE TABLE later (k int PRIMARY KEY)")
		w.shut(t, "cutover", "links", "crossfade prepare")
		w.do(0, "prepare")
	})
	t.Run("a lost slot", func(t *testing.T) {
		w.lose(t, "cf_up_shop_rest", true)
		w.shut(t, "cutover", "links", "crossfade prepare")
		w.do(0, "prepare")
	})
	t.Run("other catalogs", func(t *testing.T) {
		w.Exec(w.old, "shop", "ALTER TABLE later ADD v text")
		w.shut(t, "cutover", "schema", "crossfade prepare")
		w.Exec(w.new, "shop", "BEGIN READ WRITE; ALTER TABLE later ADD v text; COMMIT")
	})
	t.Run("a gate that opens", func(t *testing.T) {
		w.Exec(w.new, "shop", "BEGIN READ WRITE; ALTER SUBSCRIPTION cf_up_shop_orders DISABLE; COMMIT")
		w.Until(w.old, "shop", "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'cf_up_shop_orders'")
		if next := w.status()["next"]; next != "crossfade cutover" {
			t.Errorf("a stopped link: next is %v", next)
		}
		waits := make(chan struct{})
		l := w.follow(w.exe, "", func(_ *os.Process, e event) {
			if e.Step == "gate" && e.Kind == "begin" {
				close(waits)
			}
		}, "cutover", "--yes")
		<-waits
		w.status() // looks at every gate: takes longer than one look of the cutover
		select {
		case <-l.done:
			t.Errorf("it has not waited\n%s", l.ran)
		default:
		}
		w.Exec(w.new, "shop", "BEGIN READ WRITE; ALTER SUBSCRIPTION cf_up_shop_orders ENABLE; COMMIT")
		r := l.end()
		wantExit(t, r, 0)
	})
	t.Run("what to type next", func(t *testing.T) {
		w.wantPhase("open", "new")
		if next := w.status()["next"]; next != "crossfade status --watch" {
			t.Errorf("next is %v", next)
		}
		text := w.do(0, "status").stdout
		if !strings.Contains(text, "next: crossfade status --watch\n  crossfade rollback ") || !strings.Contains(text, "ends the possibility of a rollback") {
			t.Errorf("status says\n%s", text)
		}
	})
	t.Run("written on closed old", func(t *testing.T) {
		w.do(0, "verify")
		past := w.session(w.old, "shop")
		w.Must(run(t.Context(), past, "SET session_replication_role = replica; BEGIN READ WRITE; INSERT INTO orders (id, what) OVERRIDING SYSTEM VALUE VALUES (777777, 'past the fence'); COMMIT"))
		r := w.errs(7, "verify")
		if last := r.lines("error")[0]; !strings.Contains(fmt.Sprint(last["hint"]), "on old alone was written there by a superuser with session_replication_role = replica") {
			t.Errorf("its hint is %v", last["hint"])
		}
		for _, l := range r.lines("table") {
			if (l["table"] == "public.orders") == (l["equal"] == true) {
				t.Errorf("%v", l)
			}
			if l["table"] == "public.orders" && !strings.Contains(fmt.Sprint(l["differing"]), "777777") {
				t.Errorf("it does not name the row: %v", l)
			}
		}
		w.Must(run(t.Context(), past, "SET session_replication_role = replica; BEGIN READ WRITE; DELETE FROM orders WHERE id = 777777; COMMIT"))
		w.Must(past.Close(context.Background()))
		w.do(0, "verify")
	})
	t.Run("a lost way back", func(t *testing.T) {
		w.lose(t, "cb_up_shop_rest", false)
		w.shut(t, "rollback", "links", "crossfade verify")
	})
}
