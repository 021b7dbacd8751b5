package lab_test

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab"
	"crossfade/scenarios/lab/labtest"
)

// TestPause writes through a pool that is paused and led to another server's port: waiting, but no errors.
func TestPause(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 15)
	l.Exec(wacken, "", "CREATE DATABASE shop")
	l.Ledger(wacken.Conninfo("shop"))
	pool := l.PgBouncer(lab.PoolOptions{Databases: map[string]lab.Backend{"shop": {Cluster: wacken}}})
	w := l.Write(pool.Conninfo("shop"), lab.WriterOptions{})
	l.Must(w.Flow(ctx, 100))

	admin := func(command string) {
		t.Helper()
		if _, err := pool.Admin(ctx, command); err != nil {
			t.Fatal(err)
		}
	}
	admin("PAUSE shop")
	at := time.Now()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := w.Flow(short, 10); err == nil {
		t.Error("rows came through a paused pool")
	}
	proxy := l.Proxy(wacken)
	b, err := os.ReadFile(pool.Config)
	l.Must(err)
	text := strings.Replace(string(b), "port="+word(wacken.Conninfo(""), "port"), strings.Fields(proxy.Words())[1], 1)
	l.Must(os.WriteFile(pool.Config, []byte(text), 0o644))
	admin("RELOAD")
	admin("RESUME shop")
	l.Must(w.Flow(ctx, 100))
	if gap := w.GapSince(at); gap.Length < 200*time.Millisecond || gap.Length > 2*time.Second {
		t.Errorf("paused for 200 ms, the gap is %v", gap)
	}
	proxy.Cut() // the way that the rows go now
	short, cancel = context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := w.Flow(short, 10); err == nil {
		t.Error("the pool does not go the new way")
	}
	proxy.Heal()
	l.Must(w.Flow(ctx, 100))
	report := w.Stop()
	if len(report.Failures) > 0 {
		t.Errorf("errors: %v", report.Failures)
	}
	l.Judge(wacken.Conninfo("shop"), "", report)

	l.Must(pool.Kill(ctx))
	if pool.Running() {
		t.Error("a killed pool runs")
	}
	l.Must(pool.Boot(ctx))
	l.Must(pool.Freeze(ctx))
	l.Must(pool.Thaw(ctx))
	l.Must(pool.Stop(ctx))
	l.Must(pool.Boot(ctx))
}

// word is the value of a word in a connection string.
func word(conninfo, name string) string {
	for w := range strings.FieldsSeq(conninfo) {
		if value, ok := strings.CutPrefix(w, name+"="); ok {
			return value
		}
	}
	return ""
}

// TestCrash kills a server under writers: what it acknowledged is there, and writing goes on by itself.
func TestCrash(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 17)
	l.Ledger(wacken.Conninfo(""))
	w := l.Write(wacken.Conninfo(""), lab.WriterOptions{})
	second := l.Write(wacken.Conninfo(""), lab.WriterOptions{Writers: 1, Pause: time.Millisecond})
	r := l.Read(wacken.Conninfo(""), lab.ReaderOptions{SQL: []string{"SELECT count(*) FROM ledger WHERE worker < 0", "SELECT 1"}})
	for range 2 {
		l.Must(w.Flow(ctx, 200))
		l.Must(wacken.Kill(ctx))
		l.Must(wacken.Boot(ctx))
	}
	l.Must(w.Flow(ctx, 200))
	l.Must(second.Flow(ctx, 5))
	reports := []lab.Report{w.Stop(), second.Stop()}
	if len(reports[0].Failures) == 0 {
		t.Error("no errors, though the server was killed twice")
	}
	v := l.Judge(wacken.Conninfo(""), "", reports...)
	t.Logf("%v; outage %v, errors %v", v, reports[0].Longest, reports[0].Failures)
	read := r.Stop()
	if read.Queries == 0 || len(read.Failures) == 0 || read.Longest.Length < 10*time.Millisecond {
		t.Errorf("reader: %+v", read)
	}
	if reports[0].Stall.Length < reports[0].Longest.Length {
		t.Errorf("no connection waited as long as all of them: %v, %v", reports[0].Stall, reports[0].Longest)
	}
}

// TestOracle breaks the ledger in each way that the judge must see.
func TestOracle(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 18)
	l.Exec(wacken, "", "CREATE DATABASE other")
	final, other := wacken.Conninfo(""), wacken.Conninfo("other")
	l.Ledger(final)
	l.Ledger(other)
	w := l.Write(final, lab.WriterOptions{Writers: 2})
	l.Must(w.Flow(ctx, 100))
	report := w.Stop()
	// The worker with most rows: the other may not have come to a third one.
	most := slices.MaxFunc(report.Workers, func(a, b lab.WorkerReport) int { return cmp.Compare(a.Last, b.Last) })
	k := most.Worker
	l.Exec(wacken, "other", "INSERT INTO ledger VALUES ("+itoa(k)+", 1)", "INSERT INTO ledger_log VALUES ("+itoa(k)+", 1)")
	judge := func(reports ...lab.Report) lab.Verdict {
		t.Helper()
		v, err := lab.Judge(ctx, reports, final, other)
		l.Must(err)
		return v
	}
	if v := judge(report); v.Err() != nil || v.Rows < v.Acked || v.Acked != report.Acked {
		t.Fatalf("nothing is wrong, but: %v (%d rows, %d acknowledged)", v, v.Rows, v.Acked)
	}
	where := " WHERE worker = " + itoa(k) + " AND n = 3"
	for _, c := range []struct {
		db, do, undo string
		want         string
	}{
		{"", "DELETE FROM ledger" + where, "INSERT INTO ledger VALUES (" + itoa(k) + ", 3)", "1 acknowledged rows lost: ledger("},
		{"", "DELETE FROM ledger_log" + where, "INSERT INTO ledger_log VALUES (" + itoa(k) + ", 3)", "1 acknowledged rows lost: ledger_log("},
		{"", "INSERT INTO ledger_log SELECT * FROM ledger" + where, "DELETE FROM ledger_log WHERE ctid = (SELECT max(ctid) FROM ledger_log)", "1 rows doubled: ledger_log("},
		{"", "INSERT INTO ledger VALUES (-7, 1)", "DELETE FROM ledger WHERE worker = -7", "1 rows nobody wrote: ledger(-7,1)"},
		{"other", "INSERT INTO ledger VALUES (" + itoa(k) + ", 1000000)", "DELETE FROM ledger WHERE n = 1000000", "1 rows only on the other side: ledger("},
	} {
		l.Exec(wacken, c.db, c.do)
		if v := judge(report); v.Err() == nil || !strings.HasPrefix(v.Err().Error(), c.want) {
			t.Errorf("%s: %v, not %s", c.do, v, c.want)
		}
		l.Exec(wacken, c.db, c.undo)
		if v := judge(report); v.Err() != nil {
			t.Errorf("%s: %v", c.undo, v)
		}
	}
	again := l.Write(final, lab.WriterOptions{Writers: 1})
	l.Must(again.Flow(ctx, 10))
	if v := judge(report, again.Stop()); v.Err() != nil {
		t.Errorf("a second writer: %v", v)
	}
	if _, err := lab.Judge(ctx, []lab.Report{report}, wacken.Conninfo("missing"), ""); err == nil {
		t.Error("a side that is not there was judged")
	}
}

func itoa(i int) string { b, _ := json.Marshal(i); return string(b) }

// TestProxy cuts, heals and resets the line under a writer.
func TestProxy(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 15)
	l.Ledger(wacken.Conninfo(""))
	proxy := l.Proxy(wacken)
	w := l.Write(wacken.Conninfo("", proxy.Words()), lab.WriterOptions{Timeout: time.Second, Writers: 2})
	l.Must(w.Flow(ctx, 100))
	proxy.Cut()
	at, acked := time.Now(), w.Acked()
	eventually(t, 5*time.Second, "time-outs", func() bool { return len(w.Errors()) > 0 })
	if now := w.Acked(); now > acked+2 { // one of each may have been on its way
		t.Errorf("%d rows came through a line that is cut", now-acked)
	}
	proxy.Heal()
	l.Must(w.Flow(ctx, 100))
	if gap := w.GapSince(at); gap.Length < 900*time.Millisecond {
		t.Errorf("cut for a second, the gap is %v", gap)
	}
	proxy.Reset()
	l.Must(w.Flow(ctx, 100))
	report := w.Stop()
	v := l.Judge(wacken.Conninfo(""), "", report)
	t.Logf("%v; errors %v", v, report.Failures)
}

func TestPgbench(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	wacken := l.Primary("wacken", 15)
	l.Exec(wacken, "", "CREATE DATABASE shop")
	l.Must(wacken.PgbenchInit(ctx, "shop", 1))
	bench, err := wacken.Pgbench(ctx, wacken.Conninfo("shop"), lab.PgbenchOptions{Clients: 2})
	l.Must(err)
	l.Until(wacken, "shop", "SELECT count(*) > 50 FROM pgbench_history")
	report, err := bench.Stop()
	l.Must(err)
	_, history, err := wacken.PgbenchSums(ctx, "shop")
	l.Must(err)
	if report.Transactions != history || report.Failed+int64(report.Aborted) != 0 {
		t.Errorf("pgbench counts %d (%d failed, %d aborted), its history %d", report.Transactions, report.Failed, report.Aborted, history)
	}
	l.Exec(wacken, "shop", "UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1")
	if _, _, err := wacken.PgbenchSums(ctx, "shop"); err == nil {
		t.Error("unequal sums were not seen")
	}
	bench, err = wacken.Pgbench(ctx, wacken.Conninfo("shop"), lab.PgbenchOptions{Clients: 2})
	l.Must(err)
	l.Until(wacken, "shop", "SELECT count(*) > "+itoa(int(history))+" FROM pgbench_history")
	l.Must(wacken.Kill(ctx))
	eventually(t, 10*time.Second, "pgbench ends", func() bool { return !bench.Running() })
	if report, err := bench.Stop(); report.Aborted != 2 {
		t.Errorf("the server was killed, pgbench says: %v, %+v", err, report)
	}
}

func TestWrap(t *testing.T) {
	l, ctx := labtest.T(t), limit(t, time.Minute)
	labtest.Need(t, 15)
	i, err := lab.Find(ctx, 15)
	l.Must(err)
	w, err := i.Wrap(filepath.Join(l.Dir, "wrapped"))
	l.Must(err)
	c := l.Start(lab.Options{Name: "wacken", Install: &w.Install}) // as the servers' user
	long := strings.Repeat("x", 70_000)
	args := []string{"-X", "-At", "-d", c.Conninfo(""), "-c", "SELECT 'a \"b\" \\ ü\t\n$HOME `x` %s' --" + long + "\n\n", "-v", "a=b", "-v", "e="}
	out, err := l.Run(ctx, w.Program("psql"), args...)
	l.Must(err)
	if want := "a \"b\" \\ ü\t\n$HOME `x` %s\n"; out != want {
		t.Errorf("psql says %q, not %q", out, want)
	}
	calls, err := w.Calls()
	l.Must(err)
	last := calls[len(calls)-1]
	if last.Program != "psql" || !reflect.DeepEqual(last.Args, args) || time.Since(last.At) > time.Minute {
		t.Errorf("the log has %+v", last)
	}
	if calls[0].Program != "initdb" && calls[0].Program != "pg_resetwal" {
		t.Errorf("first call: %+v", calls[0])
	}
}
