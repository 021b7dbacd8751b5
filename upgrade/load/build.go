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
	index index // what old says of it; the zero index where nothing is known
	cost  int64 // in bytes, to compare with
	chain *chain
	// of is the other chain of a foreign key: that of the table it points to.
	// Nil for what is built on one table.
	of *chain
}

// chain is what is to be built on one table. What takes an exclusive lock
// (constraints, replica identity) goes alone and first, indexes go side by
// side, what only talks about them (comments, attachments) comes last.
type chain struct {
	first, indexes, after []unit
	running               int
	behind                int64 // the cost of the longest foreign key that waits for it
	alone                 bool  // what runs lets nothing else at the table
	ready                 bool  // its rows are there
	queued                bool  // it is in the yard's heap
}

// path is how long c takes if every index gets a builder at once: the cost of
// what goes alone, the largest of the indexes, and what waits for them all.
func (c *chain) path() int64 {
	p := c.behind
	for _, u := range c.first {
		p += u.cost
	}
	if len(c.indexes) > 0 {
		p += c.indexes[0].cost // the largest comes first
	}
	return p
}

// built says that nothing is left to build on a table whose rows are there.
func (c *chain) built() bool {
	return c.ready && c.running == 0 && len(c.first)+len(c.indexes)+len(c.after) == 0
}

// chains is a heap: the chain with the longest path comes first, so that what
// takes longest is not begun last.
type chains []*chain

func (h chains) Len() int           { return len(h) }
func (h chains) Less(i, j int) bool { return h[i].path() > h[j].path() }
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
		x := o.known.of(t.Table, e)
		u := unit{entry: e, index: x, chain: c, cost: costOf(t.Table, e, x, heavy)}
		switch {
		case e.Type == "INDEX" && e.Stage == schema.Index:
			c.indexes = append(c.indexes, u)
		case e.Stage == schema.Index && !builds(e):
			c.after = append(c.after, u)
		default:
			c.first = append(c.first, u)
		}
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
	case c.alone:
		return nil
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
	foreign []unit            // foreign keys, which wait for both their tables
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

// addForeign brings a foreign key whose tables were brought before. To look up
// the rows of one of so many bytes takes somewhat less than to copy them.
func (y *yard) addForeign(e schema.Entry, on, of *chain, bytes int64) {
	y.entries++
	u := unit{entry: e, chain: on, of: of, cost: bytes * 3 / 4}
	on.behind, of.behind = max(on.behind, u.cost), max(of.behind, u.cost)
	y.foreign = append(y.foreign, u)
}

// open begins when everything was brought.
func (y *yard) open() {
	slices.SortStableFunc(y.foreign, func(a, b unit) int { return cmp.Compare(b.cost, a.cost) })
	heap.Init(&y.heap) // foreign keys have made paths longer
}

// takeForeign begins a foreign key whose tables nobody builds on any more, its
// lock on both lets nobody else at them, if it takes longer than what is left
// of every table.
func (y *yard) takeForeign() (unit, bool) {
	i := slices.IndexFunc(y.foreign, func(u unit) bool { return u.chain.built() && u.of.built() })
	if i < 0 || len(y.heap) > 0 && y.heap[0].path() >= y.foreign[i].cost {
		return unit{}, false
	}
	u := y.foreign[i]
	y.foreign = slices.Delete(y.foreign, i, i+1)
	u.chain.running++
	u.of.running++
	y.running++
	return u, true
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

// take waits for the unit to build next: a foreign key, or of the table with the
// longest path, whichever takes longer. It reports false when there will be none, or when ctx ends.
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
		if u, ok := y.takeForeign(); ok {
			return u, true
		}
		if len(y.heap) > 0 {
			c := heap.Pop(&y.heap).(*chain)
			c.queued = false
			from := c.next()
			u := (*from)[0]
			*from = (*from)[1:]
			c.alone = from != &c.indexes
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
	u.chain.alone = false
	if u.of != nil {
		u.of.running--
	}
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
	var b bench
	defer func() { pg.Leave(b.conn) }()
	for {
		u, ok := y.take(ctx)
		if !ok {
			return ctx.Err()
		}
		if err := l.build(ctx, &b, u, y.builds()); err != nil {
			return err
		}
		y.built(u)
	}
}

// tail builds what had to wait for all tables.
func (l *loader) tail(ctx context.Context, m marks) error {
	var b bench
	defer func() { pg.Leave(b.conn) }()
	for _, e := range l.o.Tail {
		if m.has(e) {
			l.built.Add(1)
			continue
		}
		if err := l.build(ctx, &b, unit{entry: e}, 1); err != nil {
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

// bench is where a builder works: his session, and how it was tuned last.
type bench struct {
	conn  *pgx.Conn
	tuned string
}

// build restores the entry of u in the session of b, opening it where needed. running
// is how many builds there are now.
func (l *loader) build(ctx context.Context, b *bench, u unit, running int) error {
	e := u.entry
	err := l.again(ctx, "build "+e.Object(), func(bool) (err error) {
		c := b.conn
		if c == nil || c.IsClosed() {
			pg.Leave(c)
			if c, err = l.reopen(ctx, l.o.openBuilder); err != nil {
				return err
			}
			*b = bench{conn: c}
		}
		if c.PgConn().TxStatus() != 'I' {
			if err := pg.Exec(ctx, c, "ROLLBACK"); err != nil {
				return err
			}
		}
		if builds(e) {
			if err := l.tune(ctx, b, u.index, l.workers(running)); err != nil {
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

// tune fits the session of b to a build of x.
func (l *loader) tune(ctx context.Context, b *bench, x index, workers int64) error {
	e := l.o.tuned().Fill(map[string]string{"workers": fmt.Sprint(workers), "memory": pg.Literal(fmt.Sprintf("%dMB", x.memory(workers)>>20))})
	if e.SQL == b.tuned || e.SQL == "" {
		return nil
	}
	err := l.sql(ctx, b.conn, l.o.New, e.SQL)
	if err == nil {
		b.tuned = e.SQL
	}
	return err
}
