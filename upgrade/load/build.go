package load

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"slices"
	"sync"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// unit is one entry to build.
type unit struct {
	entry schema.Entry
	cost  int64 // in bytes, to compare with
	chain *chain
}

// chain is what is to be built on one table. What takes an exclusive lock
// (constraints, replica identity) goes alone and first, indexes go side by
// side, what only talks about them (comments, attachments) comes last.
type chain struct {
	first, indexes, after []unit
	running               int
	cost                  int64 // of what is not begun
	ready                 bool  // its rows are there
	queued                bool  // it is in the yard's heap
}

// chains is a heap: the chain with the most left to build comes first.
type chains []*chain

func (h chains) Len() int           { return len(h) }
func (h chains) Less(i, j int) bool { return h[i].cost > h[j].cost }
func (h chains) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *chains) Push(c any)        { *h = append(*h, c.(*chain)) }
func (h *chains) Pop() any {
	c := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return c
}

// chain sorts the entries of t that m does not have.
func (o Options) chain(t *table, m marks) *chain {
	c := &chain{}
	entries := o.Indexes(t.Table)
	heavy := 0
	for _, e := range entries {
		if builds(e) {
			heavy++
		}
	}
	for _, e := range entries {
		if m.has(e) {
			continue
		}
		u := unit{entry: e, chain: c, cost: 1}
		if builds(e) { // each reads the heap and writes its part of the indexes
			u.cost = t.Bytes/4 + t.IndexBytes/int64(heavy) + 1
		}
		switch {
		case e.Type == "INDEX" && e.Stage == schema.Index:
			c.indexes = append(c.indexes, u)
		case e.Stage == schema.Index && !builds(e):
			c.after = append(c.after, u)
		default:
			c.first = append(c.first, u)
		}
		c.cost += u.cost
	}
	slices.SortStableFunc(c.indexes, func(a, b unit) int { return cmp.Compare(b.cost, a.cost) })
	return c
}

// builds says whether any entry makes an index.
func (o Options) builds() bool {
	if slices.ContainsFunc(o.Tail, builds) {
		return true
	}
	for _, s := range o.Sets {
		for _, t := range s.Tables {
			if slices.ContainsFunc(o.Indexes(t), builds) {
				return true
			}
		}
	}
	return false
}

// builds says whether an entry makes an index.
func builds(e schema.Entry) bool { return e.Type == "INDEX" || e.Type == "CONSTRAINT" }

// next is where the units of c that may begin now are; nil where none may.
func (c *chain) next() *[]unit {
	switch {
	case len(c.first) > 0 && c.running == 0:
		return &c.first
	case len(c.first) == 0 && len(c.indexes) > 0:
		return &c.indexes
	case len(c.first)+len(c.indexes) == 0 && len(c.after) > 0 && c.running == 0:
		return &c.after
	}
	return nil
}

// yard holds the chains of the tables, and knows when there will be no more.
type yard struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting map[*table]*chain // for their rows
	heap    chains            // those with something that may begin now
	running int
	entries int
}

func newYard() *yard {
	y := &yard{waiting: map[*table]*chain{}}
	y.changed = sync.NewCond(&y.mu)
	return y
}

// add brings the chain of a table whose rows are still to be loaded.
func (y *yard) add(t *table, c *chain) {
	y.entries += len(c.first) + len(c.indexes) + len(c.after)
	y.waiting[t] = c
}

// loaded says that a table's rows are there; whole is false where they were
// lost again, so that there is nothing to build on.
func (y *yard) loaded(t *table, whole bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if c := y.waiting[t]; whole {
		c.ready = true
		y.queue(c)
	}
	delete(y.waiting, t)
	y.changed.Broadcast()
}

func (y *yard) queue(c *chain) {
	if c.ready && !c.queued && c.next() != nil {
		c.queued = true
		heap.Push(&y.heap, c)
	}
}

// take waits for the unit to build next: of the table with the most left to
// build. It reports false when there will be none, or when ctx ends.
func (y *yard) take(ctx context.Context) (unit, bool) {
	stop := context.AfterFunc(ctx, func() {
		y.mu.Lock()
		defer y.mu.Unlock()
		y.changed.Broadcast()
	})
	defer stop()
	y.mu.Lock()
	defer y.mu.Unlock()
	for ctx.Err() == nil {
		if len(y.heap) > 0 {
			c := heap.Pop(&y.heap).(*chain)
			c.queued = false
			from := c.next()
			u := (*from)[0]
			*from = (*from)[1:]
			c.cost -= u.cost
			c.running++
			y.running++
			y.queue(c)
			return u, true
		}
		if len(y.waiting) == 0 && y.running == 0 {
			y.changed.Broadcast()
			return unit{}, false
		}
		y.changed.Wait()
	}
	return unit{}, false
}

// built says that a unit is done.
func (y *yard) built(u unit) {
	y.mu.Lock()
	defer y.mu.Unlock()
	u.chain.running--
	y.running--
	y.queue(u.chain)
	y.changed.Broadcast()
}

// builds is how many units are being built.
func (y *yard) builds() int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.running
}

// builder builds indexes until there are no more.
func (l *loader) builder(ctx context.Context, y *yard) error {
	var conn *pgx.Conn
	defer func() { closeQuietly(conn) }()
	for {
		u, ok := y.take(ctx)
		if !ok {
			return ctx.Err()
		}
		if err := l.build(ctx, &conn, u.entry, y.builds()); err != nil {
			return err
		}
		y.built(u)
	}
}

// tail builds what had to wait for all tables.
func (l *loader) tail(ctx context.Context, m marks) error {
	var conn *pgx.Conn
	defer func() { closeQuietly(conn) }()
	for _, e := range l.o.Tail {
		if m.has(e) {
			l.built.Add(1)
			continue
		}
		if err := l.build(ctx, &conn, e, 1); err != nil {
			return err
		}
	}
	return nil
}

// workers are those of a build beside others: what the copiers that have ended
// do not use any more, shared among the builds that run.
func (l *loader) workers(running int) int64 {
	return (int64(l.o.Jobs) - l.copying.Load()) / int64(max(running, 1))
}

// build restores one entry in the session of *conn, opening it where needed.
// running is how many builds there are now.
func (l *loader) build(ctx context.Context, conn **pgx.Conn, e schema.Entry, running int) error {
	err := l.again(ctx, "build "+e.Object(), func(bool) (err error) {
		c := *conn
		if c == nil || c.IsClosed() {
			closeQuietly(c)
			if c, err = l.reopen(ctx, l.o.openBuilder); err != nil {
				return err
			}
			*conn = c
		}
		if c.PgConn().TxStatus() != 'I' {
			if err := pg.Exec(ctx, c, "ROLLBACK"); err != nil {
				return err
			}
		}
		if builds(e) && l.o.Settings[parallelWorkers] == "" {
			set := l.o.parallel().Fill(map[string]string{"workers": fmt.Sprint(l.workers(running))})
			if err := l.sql(ctx, c, l.o.New, set.SQL); err != nil {
				return err
			}
		}
		return l.o.restore(ctx, c, e)
	})
	if err == nil {
		l.built.Add(1)
	}
	return err
}
