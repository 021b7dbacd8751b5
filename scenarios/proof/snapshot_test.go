package proof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// transferTables are accounts in two tables, and a third that tells what went
// from the first to the second. Each is in a set of its own.
const transferTables = `
CREATE TABLE giver (id int PRIMARY KEY, v bigint, pad text);
CREATE TABLE taker (id int PRIMARY KEY, v bigint, pad text);
CREATE TABLE moved (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v bigint);
INSERT INTO giver SELECT g, 1000, repeat('x', 300) FROM generate_series(1, 30000) g;
INSERT INTO taker SELECT g, 1000, repeat('y', 300) FROM generate_series(1, 30000) g;
CREATE TABLE log (line text);
ALTER TABLE log REPLICA IDENTITY FULL;
`

// agree is what every consistent state has: the sum of all accounts, and how
// much more the takers have than was reported.
const agree = "SELECT (SELECT sum(v) FROM giver) + (SELECT sum(v) FROM taker) || ' ' || (SELECT sum(v) - 30000000 FROM taker) - (SELECT coalesce(sum(v), 0) FROM moved)"

// agreed is agree's answer for a consistent state.
const agreed = "60000000 0"

// transfers moves amounts in transactions that reach into every set, until old
// is closed or the test ends; made counts them.
func (w *world) transfers(n int) (made *atomic.Int64) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var group sync.WaitGroup
	made = new(atomic.Int64)
	for range n {
		conn, err := w.old.Connect(ctx, "shop")
		w.Must(err)
		group.Go(func() {
			defer func() { _ = conn.Close(context.Background()) }() // at the end it may be ended already
			for ctx.Err() == nil {
				v := rand.IntN(50)
				if run(ctx, conn, fmt.Sprintf(`BEGIN; UPDATE public.giver SET v = v - %[1]d WHERE id = %[2]d;
					UPDATE public.taker SET v = v + %[1]d WHERE id = %[3]d; INSERT INTO public.moved (v) VALUES (%[1]d); COMMIT`, v, 1+rand.IntN(30000), 1+rand.IntN(30000))) != nil {
					return
				}
				made.Add(1)
			}
		})
	}
	w.t.Cleanup(func() {
		cancel()
		group.Wait()
	})
	return made
}

func transferWorld(t *testing.T) *world {
	return newWorld(t, setting{
		sql: transferTables,
		dbs: "  - name: shop\n    sets:\n      - {name: giver, tables: [public.giver]}\n      - {name: taker, tables: [public.taker]}\n      - {name: rest, tables: [\"*\"]}\n  - {name: side}\n",
	})
}

// copied runs prepare until every row of shop is on new, while transfers go on,
// and nothing is applied; it returns what new then says.
func (w *world) copied(exe string) string {
	w.t.Helper()
	made := w.transfers(3)
	w.wait("transfers", func() bool { return made.Load() > 100 })
	before := made.Load()
	var during atomic.Int64
	r := w.follow(exe, "", func(_ *os.Process, e event) {
		if e.Step == "copy/shop" {
			during.Store(made.Load() - during.Load())
		}
	}, "prepare", "--until", "copy/shop").end()
	wantExit(w.t, r, 0)
	w.t.Logf("%d transfers before, %d while rows were copied, %d in all", before, during.Load(), made.Load())
	if during.Load() < 20 {
		w.t.Errorf("only %d transfers while rows were copied", during.Load())
	}
	if got := w.Value(w.new, "shop", "SELECT count(*) FROM pg_subscription"); got != "0" {
		w.t.Errorf("%s subscriptions: something may have been applied", got)
	}
	got := w.Value(w.new, "shop", agree)
	if old := w.Value(w.old, "shop", agree); old != agreed {
		w.t.Fatalf("old itself does not agree: %s", old)
	}
	return got
}

// TestSetsShareOneSnapshot: rows that agree across sets agree in what was copied,
// although they changed all the time, and in what new has in the end.
func TestSetsShareOneSnapshot(t *testing.T) {
	w := transferWorld(t)
	if got := w.copied(w.exe); got != agreed {
		t.Errorf("what was copied does not agree: %s, not %s", got, agreed)
	}
	if got := w.query(w.old, "", "SELECT DISTINCT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name LIKE 'cf_up_shop_%'"); len(got) != 1 {
		t.Errorf("the slots of the sets begin at different points: %v", got)
	}
	w.do(0, "prepare")
	w.do(0, "cutover", "--yes")
	if got := w.Value(w.new, "shop", agree); got != agreed {
		t.Errorf("after open new does not agree: %s, not %s", got, agreed)
	}
	w.equal()
}

// TestSetsWithoutOneSnapshot: each table read in a snapshot of its own is found.
func TestSetsWithoutOneSnapshot(t *testing.T) {
	long(t)
	w := transferWorld(t)
	exe := mutant(t, "upgrade/load/session.go", `READ ONLY; SET TRANSACTION SNAPSHOT " + pg.Literal(snapshot)`, `READ ONLY; SELECT " + pg.Literal(snapshot)`)
	if got := w.copied(exe); got == agreed {
		t.Error("rows that were read at different moments agree")
	}
}
