package cutover

import (
	"context"
	"sync"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// waitsEvery is how often is looked who waits: what is reported is at most two looks
// too long, and never too short.
const waitsEvery = 10 * time.Millisecond

// waitsSQL is who waits for the lock of a table. Whoever waits for a row of one
// who does waits no longer than him for what the tool does.
const waitsSQL = `
	SELECT a.pid, coalesce(a.query_start, a.backend_start) FROM pg_stat_activity a
	WHERE a.wait_event_type = 'Lock' AND a.wait_event = 'relation' AND a.datname = ANY ($1)
	  AND a.backend_type = 'client backend' AND a.application_name <> $2 AND a.application_name NOT LIKE $2 || ' %'`

// waits watches, in a session of its own, how long clients wait for locks of
// tables.
type waits struct {
	conn   *pgx.Conn
	cancel context.CancelFunc
	done   chan struct{}

	mu   sync.Mutex
	most time.Duration
	lost bool // it could not look any more
}

// waiter is one statement that waits.
type waiter struct {
	pid   int32
	since time.Time // of the statement, by the server
}

// watchWaits begins to watch the clients of the closing side.
func watchWaits(ctx context.Context, a *attempt) (*waits, error) {
	conn, err := a.Closing.Server.With(a.Home).Connect(ctx)
	if err != nil {
		return nil, err
	}
	w := &waits{conn: conn, done: make(chan struct{})}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w.cancel = cancel
	dbs := make([]string, len(a.databases))
	for i, db := range a.databases {
		dbs[i] = db.Name
	}
	go w.watch(watching, dbs, a.app())
	return w, nil
}

func (w *waits) watch(ctx context.Context, dbs []string, app string) {
	defer close(w.done)
	defer hangUp(w.conn)
	t := time.NewTicker(waitsEvery)
	defer t.Stop()
	waiting := map[waiter]time.Time{} // no look before this moment saw him wait
	before := time.Now()
	for ctx.Err() == nil {
		asked := time.Now()
		now, err := w.look(ctx, dbs, app)
		if err != nil {
			w.mu.Lock()
			w.lost = w.lost || ctx.Err() == nil
			w.mu.Unlock()
			return
		}
		answered := time.Now()
		w.mu.Lock()
		for k, since := range waiting {
			w.most = max(w.most, answered.Sub(since))
			if !now[k] {
				delete(waiting, k)
			}
		}
		w.mu.Unlock()
		for k := range now {
			if _, ok := waiting[k]; !ok {
				waiting[k] = before
			}
		}
		before = asked
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

func (w *waits) look(ctx context.Context, dbs []string, app string) (map[waiter]bool, error) {
	rows, err := w.conn.Query(ctx, waitsSQL, dbs, app)
	if err != nil {
		return nil, &pg.Error{Doing: "look who waits", Err: err}
	}
	now := map[waiter]bool{}
	var k waiter
	_, err = pgx.ForEachRow(rows, []any{&k.pid, &k.since}, func() error { now[k] = true; return nil })
	return now, err
}

// longest is the longest wait that was seen, and whether all was seen.
func (w *waits) longest() (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.most, !w.lost
}

// end ends the watching.
func (w *waits) end() {
	w.cancel()
	<-w.done
}
