package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// task is what a copy worker does at a time: a table, or a chunk of one.
type task struct {
	*table
	chunk chunk
}

// queue hands out tasks in their order.
type queue struct {
	tasks []task
	next  atomic.Int64
}

func (q *queue) take() (task, bool) {
	n := q.next.Add(1) - 1
	if n >= int64(len(q.tasks)) {
		return task{}, false
	}
	return q.tasks[n], true
}

// plan says what is to do where m is done.
func (l *loader) plan(m marks) (*queue, *yard) {
	q, y := &queue{}, newYard()
	on := map[string]*chain{}
	l.bytes.Store(0)
	l.tables.Store(0)
	for _, t := range l.work {
		t.left = 0
		loaded := false
		// Marks of a set that starts again were taken away; what stands was
		// copied from this very snapshot, or belongs to a set that stays.
		if _, loaded = m.at(loadedKey(t.set, t.Table)); !loaded {
			for _, c := range t.chunks {
				if _, ok := m.at(chunkPrefix(t.set, t.Table) + tid(c.from)); !ok || len(t.chunks) == 1 {
					q.tasks = append(q.tasks, task{t, c})
					t.left++
				} else {
					l.bytes.Add(t.share())
				}
			}
			if t.left == 0 { // only the last mark was lost
				q.tasks = append(q.tasks, task{t, t.chunks[0]})
				t.left++
			}
		}
		c := l.o.chain(t, m)
		y.add(t, c)
		on[t.SQL()] = c
		if loaded {
			y.loaded(t, true)
			l.bytes.Add(t.Bytes)
			l.tables.Add(1)
		}
	}
	for _, e := range l.o.Foreign {
		if c, of := on[e.Table], on[e.References]; c != nil && of != nil && !m.has(e) {
			y.addForeign(e, c, of, l.sizes[e.Table])
		}
	}
	y.open()
	l.entries = int64(y.entries) + int64(len(l.o.Tail))
	return q, y
}

// share is what one chunk of t counts for.
func (t *table) share() int64 { return t.Bytes / int64(len(t.chunks)) }

// copier copies tables and chunks until there are no more.
func (l *loader) copier(ctx context.Context, q *queue, y *yard) error {
	var p pair
	defer p.close()
	for {
		t, ok := q.take()
		if !ok {
			return nil
		}
		l.current.Store(t.table)
		what := "copy " + l.o.Database + "." + t.String()
		err := l.again(ctx, what, func(bool) error {
			if err := l.open(ctx, &p); err != nil {
				return err
			}
			if t.filler != "" {
				return l.copyAs(ctx, &p, t)
			}
			if len(t.chunks) == 1 {
				return l.copyWhole(ctx, &p, t)
			}
			return l.copyChunk(ctx, &p, t)
		})
		if err != nil {
			return l.copyFailed(what, &p, err)
		}
		if !t.finished() {
			continue
		}
		whole := true
		if len(t.chunks) > 1 {
			err = l.again(ctx, what, func(bool) (err error) {
				if err := l.open(ctx, &p); err != nil {
					return err
				}
				whole, err = l.closeTable(ctx, &p, t.table)
				return err
			})
			if err != nil {
				return l.copyFailed(what, &p, err)
			}
		}
		if whole {
			l.tables.Add(1)
		}
		y.loaded(t.table, whole)
	}
}

// finished counts one task of t and says whether it was the last.
func (t *table) finished() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left--
	return t.left == 0
}

// copyFailed says which table failed and on which side.
func (l *loader) copyFailed(what string, p *pair, err error) error {
	var e *pg.Error
	if errors.As(err, &e) && e.Doing == what {
		return err
	}
	var end *endError
	if errors.As(err, &end) {
		on := l.o.New
		if p.old != nil && end.end == p.old.PgConn() {
			on = l.o.Old
		}
		return fail(what, on, "", err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// copyWhole copies a table that is one chunk: emptied, filled with rows that
// need no freezing any more, and marked, all in one transaction.
func (l *loader) copyWhole(ctx context.Context, p *pair, t task) error {
	if err := l.see(ctx, p); err != nil {
		return err
	}
	if err := l.sql(ctx, p.new, l.o.New, "BEGIN"); err != nil {
		return err
	}
	done, err := l.markFirst(ctx, p.new, t, t.copying().mark, loadedKey(t.set, t.Table))
	if err != nil {
		return err
	}
	if !done {
		if err := l.sql(ctx, p.new, l.o.New, l.fill(t, t.copying().empty).SQL); err != nil {
			return err
		}
		if err := l.stream(ctx, p, t); err != nil {
			return err
		}
	}
	return l.commit(ctx, p)
}

// copyAs is copyWhole with the rights of the table's filler, who may not write the
// mark. The session of the mark encloses that of the rows: where either is lost the
// mark is too, or was not committed before the rows were, and the table is emptied
// and filled again.
func (l *loader) copyAs(ctx context.Context, p *pair, t task) error {
	if err := l.openAs(ctx, p, t.filler); err != nil {
		return err
	}
	if err := l.see(ctx, p); err != nil {
		return err
	}
	if err := l.sql(ctx, p.new, l.o.New, "BEGIN"); err != nil {
		return err
	}
	done, err := l.markFirst(ctx, p.new, t, t.copying().mark, loadedKey(t.set, t.Table))
	if err != nil {
		return err
	}
	if !done {
		for _, sql := range []string{"BEGIN", l.fill(t, t.copying().empty).SQL} {
			if err := l.sql(ctx, p.as, l.o.New, sql); err != nil {
				return err
			}
		}
		if err := l.streamTo(ctx, p, p.as, t); err != nil {
			return err
		}
		// Another run would have had to end the mark's session to get here.
		if err := p.new.Ping(ctx); err != nil {
			return fail("keep the mark of "+t.String(), l.o.New, "", err)
		}
		if err := l.sql(ctx, p.as, l.o.New, "COMMIT"); err != nil {
			return err
		}
	}
	return l.commit(ctx, p)
}

// see begins a transaction on old that sees the snapshot.
func (l *loader) see(ctx context.Context, p *pair) error {
	err := l.sql(ctx, p.old, l.o.Old, begin(l.keeper.snapshot))
	if err != nil && ctx.Err() == nil && !lost(err) {
		if kerr := l.keeper.alive(ctx); kerr != nil {
			return fmt.Errorf("%w; %w", err, kerr)
		}
	}
	return err
}

// copyChunk copies one chunk and marks it, in one transaction.
func (l *loader) copyChunk(ctx context.Context, p *pair, t task) error {
	if err := l.makeRoom(ctx, p, t); err != nil {
		return err
	}
	if err := l.see(ctx, p); err != nil {
		return err
	}
	moved, err := l.movedOn(ctx, p, t.table)
	if err != nil {
		return err
	}
	if moved {
		return l.sql(ctx, p.old, l.o.Old, "COMMIT")
	}
	if err := l.oneChunk(ctx, p, t); err != nil {
		return err
	}
	return l.sql(ctx, p.old, l.o.Old, "COMMIT")
}

func (l *loader) oneChunk(ctx context.Context, p *pair, t task) error {
	if err := l.sql(ctx, p.new, l.o.New, "BEGIN"); err != nil {
		return err
	}
	done, err := l.markFirst(ctx, p.new, t, t.copying().part, chunkPrefix(t.set, t.Table)+tid(t.chunk.from))
	if err != nil {
		return err
	}
	if !done {
		if err := l.stream(ctx, p, t); err != nil {
			return err
		}
	}
	return l.sql(ctx, p.new, l.o.New, "COMMIT")
}

// makeRoom empties the table, once for this snapshot. That it was done is a
// mark too, not a variable: new may crash and lose a commit that did not wait
// for its flush, but never an earlier one and not the later.
func (l *loader) makeRoom(ctx context.Context, p *pair, t task) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, err := l.value(ctx, p.new, chunkPrefix(t.set, t.Table)+emptiedKey)
	if err != nil || was == l.points[t.set] {
		return err
	}
	return l.emptyAll(ctx, p, t)
}

func (l *loader) emptyAll(ctx context.Context, p *pair, t task) error {
	s := t.copying()
	for _, sql := range []string{"BEGIN", s.unpart.SQL, s.empty.SQL, l.fill(t, s.emptied).SQL, "COMMIT"} {
		if err := l.sql(ctx, p.new, l.o.New, sql); err != nil {
			return err
		}
	}
	return nil
}

// movedOn locks the table on old against being rewritten until the transaction
// ends, and says whether it was since its first chunk: after VACUUM FULL or
// CLUSTER the snapshot sees the same rows on other pages.
func (l *loader) movedOn(ctx context.Context, p *pair, t *table) (bool, error) {
	sql := fmt.Sprintf("SELECT 1 FROM ONLY %s LIMIT 0; SELECT pg_relation_filenode(%d)", t.SQL(), t.OID)
	results, err := p.old.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil {
		return false, fail("lock "+t.String(), l.o.Old, "", err)
	}
	node := string(results[1].Rows[0][0])
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.node == "" {
		t.node = node
	}
	t.spoiled = t.spoiled || t.node != node
	return t.spoiled, nil
}

// closeTable marks a table whose chunks are all done, and reports false where
// some of them were lost in a crash of new. One that was rewritten on old in
// between is copied again first, in a single transaction there.
func (l *loader) closeTable(ctx context.Context, p *pair, t *table) (bool, error) {
	if t.spoiled {
		l.note("%s was rewritten on old while its chunks were copied; copying it again as a whole", t.String())
		if err := l.see(ctx, p); err != nil {
			return false, err
		}
		if err := l.sql(ctx, p.old, l.o.Old, "SELECT 1 FROM ONLY "+t.SQL()+" LIMIT 0"); err != nil {
			return false, err
		}
		if err := l.emptyAll(ctx, p, task{table: t}); err != nil {
			return false, err
		}
		for _, c := range t.chunks {
			if err := l.oneChunk(ctx, p, task{t, c}); err != nil {
				return false, err
			}
		}
		if err := l.sql(ctx, p.old, l.o.Old, "COMMIT"); err != nil {
			return false, err
		}
		t.spoiled = false
	}
	var parts int
	const count = "SELECT count(*) FROM crossfade.ledger WHERE starts_with(key, $1)"
	if err := p.new.QueryRow(ctx, count, chunkPrefix(t.set, t.Table)).Scan(&parts); err != nil {
		return false, fail("count the chunks of "+t.String(), l.o.New, "", err)
	}
	if parts != len(t.chunks)+1 { // and the mark of having been emptied
		return false, nil
	}
	_, err := l.markFirst(ctx, p.new, task{table: t}, t.copying().mark, loadedKey(t.set, t.Table))
	return err == nil, err
}

// markFirst puts down a mark before the work that it is about, in the same
// transaction: where a session that was lost is still at it, this waits for its
// end and learns how it went. done says that there is nothing left to do.
func (l *loader) markFirst(ctx context.Context, conn *pgx.Conn, t task, mark flow.Effect, key string) (done bool, err error) {
	results, err := conn.PgConn().Exec(ctx, l.fill(t, mark).SQL).ReadAll()
	if err != nil {
		return false, fail("mark "+key, l.o.New, "", err)
	}
	if results[0].CommandTag.RowsAffected() == 1 {
		return false, nil
	}
	at, err := l.value(ctx, conn, key)
	if err == nil && at != l.points[t.set] {
		err = fail("mark "+key, l.o.New, "end the sessions of an earlier run there, and run again",
			fmt.Errorf("somebody else marked it for %s while this run copies at %s", at, l.points[t.set]))
	}
	return true, err
}

// value reads the point of one mark; 0 where there is none.
func (l *loader) value(ctx context.Context, conn *pgx.Conn, key string) (pg.LSN, error) {
	var value string
	err := conn.QueryRow(ctx, "SELECT value::text FROM crossfade.ledger WHERE key = $1", key).Scan(&value)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fail("read the mark "+key, l.o.New, "", err)
	}
	return pointOf(json.RawMessage(value)), nil
}

// commit ends the transactions of both sessions, new's first.
func (l *loader) commit(ctx context.Context, p *pair) error {
	if err := l.sql(ctx, p.new, l.o.New, "COMMIT"); err != nil {
		return err
	}
	return l.sql(ctx, p.old, l.o.Old, "COMMIT")
}

// stream pipes the rows of a task and counts its bytes.
func (l *loader) stream(ctx context.Context, p *pair, t task) error {
	return l.streamTo(ctx, p, p.new, t)
}

// streamTo is stream into one of the sessions on new.
func (l *loader) streamTo(ctx context.Context, p *pair, to *pgx.Conn, t task) error {
	share, told := t.share(), int64(0)
	if len(t.chunks) == 1 {
		share = t.Bytes
	}
	s := t.copying()
	_, err := pipe(ctx, p.old.PgConn(), to.PgConn(), l.fill(t, s.out).SQL, l.fill(t, s.in).SQL, func(n int64) error {
		counts := min(n, share-told) // on disk and on the wire, sizes differ
		told += counts
		l.bytes.Add(counts)
		return l.o.Pace.wait(ctx, n)
	})
	if err != nil {
		l.bytes.Add(-told)
		return err
	}
	l.bytes.Add(share - told)
	return nil
}

func (l *loader) fill(t task, e flow.Effect) flow.Effect {
	holes := t.copying().holes
	return e.Fill(map[string]string{
		holes.point: l.points[t.set].String(), holes.from: tid(t.chunk.from), holes.to: tid(t.chunk.to),
	})
}

// sql runs one statement of ours.
func (l *loader) sql(ctx context.Context, conn *pgx.Conn, on *pg.Server, sql string) error {
	if err := pg.Exec(ctx, conn, sql); err != nil {
		return fail(pg.Brief(sql), on, "", err)
	}
	return nil
}
