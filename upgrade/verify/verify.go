// Package verify compares the rows of two databases while both move.
//
// The side that clients write to leads, the other follows. A look takes a
// snapshot of the leading side, then writes a canary through every set and
// waits until the following side shows it, then takes a snapshot there: it
// holds everything that the first one holds, and perhaps more. Whatever is
// equal in such a pair is proven equal; whatever differs may only have moved,
// and is looked at again.
//
// A row is called different only when three looks in a row find the same
// version of it on one side, by xmin and ctid, around a snapshot of the other
// side that does not have it: it did not move, so the other side is wrong.
package verify

import (
	"context"
	"fmt"
	"sync"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"golang.org/x/sync/errgroup"
)

// Mode says how much is compared.
type Mode string

// The modes.
const (
	Full   Mode = "full"   // every byte of every row
	Counts Mode = "counts" // how many rows there are
	Off    Mode = "off"    // nothing
)

// Options is one database to compare.
type Options struct {
	Old, New *pg.Server // seen through any database
	Database string
	// Back: clients write to new and old follows. False: the other way round.
	Back bool
	// Tables are compared if they are published (schema.Table.Published); for
	// the others the result says why they are not.
	Tables []schema.Table
	// Jobs is how many tables are read at once, each by one session on either
	// side; two more sessions keep the snapshots. 0 is 2.
	Jobs int
	// Mode "" is Full.
	Mode Mode
	// Reader is the role with whose rights a table is read, because planning a query
	// over it runs functions; "" is the tool's own. Nil: the tool's own for all.
	Reader func(schema.Table) string
	// As is both sides, seen through Database with the rights of a role that Reader
	// names.
	As func(ctx context.Context, role string) (old, new *pg.Server, err error)
	// Pass writes a canary through every set on the leading side and waits
	// until the following side shows all of them. The LSN is the leading
	// side's, after the canaries.
	Pass func(ctx context.Context) (pg.LSN, error)
	// Observe is given each result as soon as it stands, one at a time; nil is
	// silent. Progress is given bytes, as they lie on the leading side's disk,
	// and how many tables are looked at once more, because rows of them moved.
	Observe  func(Result)
	Progress func(done, total int64, again int)
}

// Result is what is known of one table.
type Result struct {
	Database, Table string
	// Rows are those of the leading side in the last look at the whole table;
	// -1 where it was not compared.
	Rows int64
	// Equal: no row differs, apart from those that Skipped reports.
	Equal bool
	// LSN is where the table was proven equal: both sides had passed it.
	LSN pg.LSN
	// Ranges is in how many parts the table was compared.
	Ranges int
	// Differing are the rows that differ, by key, and how; at most 100, the
	// last line then says how many more there are.
	Differing []string
	// Skipped says what was not compared, and why; "" where everything was.
	Skipped string
	// Moving are the rows that changed in every look and so were never seen
	// equal; Skipped names some.
	Moving int
}

// The limits of a comparison.
const (
	// patience is how many looks a moving row gets; a row that was missing on
	// the same side each time gets twice as many.
	patience = 10
	// batchBytes is about how much is read under one pair of snapshots, so that
	// no snapshot lives long and holds vacuum back.
	batchBytes = 8 << 30
	// batchTables likewise, for small tables.
	batchTables = 2000
	// named is how many rows a result names.
	named = 100
	// proofs is how many times in a row a difference must be proven.
	proofs = 2
)

// Run compares o.Tables. It returns a result for each, in their order, also
// when it fails: then those of tables that were not settled are not Equal and
// Skipped says so. An error is a server that cannot be asked, or ctx's end; a
// difference is none.
func Run(ctx context.Context, o Options) ([]Result, error) {
	if o.Mode == "" {
		o.Mode = Full
	}
	if o.Mode == Off {
		return nil, nil
	}
	if o.Mode != Full && o.Mode != Counts {
		return nil, fmt.Errorf("compare %s: unknown mode %q", o.Database, o.Mode)
	}
	if o.Jobs <= 0 {
		o.Jobs = 2
	}
	r := newRun(o)
	defer r.close()
	err := r.all(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		err = fmt.Errorf("compare database %s: %w", o.Database, err)
	}
	return r.results(), err
}

// run is one comparison.
type run struct {
	o            Options
	lead, follow *pg.Server
	subjects     []*subject
	sessions     []*sessions
	mu           sync.Mutex // guards what follows and the callbacks
	bytes, total int64
	stuckBefore  map[string]bool // transactions of the last look, see look.stuck
}

// subject is one table on its way to a result.
type subject struct {
	table   schema.Table
	q       queries
	result  Result
	settled bool
	looks   int
	counts  suspect // in mode counts: the number of rows as if it were a row
	rows    *rows   // nil until the table is compared row by row
}

func newRun(o Options) *run {
	r := &run{o: o, lead: o.Old.With(o.Database), follow: o.New.With(o.Database)}
	if o.Back {
		r.lead, r.follow = r.follow, r.lead
	}
	for _, t := range o.Tables {
		s := &subject{table: t, q: newQueries(t), result: Result{Database: o.Database, Table: t.String(), Rows: -1}}
		if why := notCompared(t); why != "" {
			s.settled, s.result.Skipped = true, why
			r.subjects = append(r.subjects, s)
			continue
		}
		r.total += t.Bytes
		r.subjects = append(r.subjects, s)
	}
	for range o.Jobs {
		r.sessions = append(r.sessions, &sessions{lead: r.lead, follow: r.follow})
	}
	return r
}

// notCompared says why a table is not compared; "" if it is.
func notCompared(t schema.Table) string {
	switch {
	case t.Published():
		return ""
	case t.Excluded:
		return "excluded"
	case t.Kind == 'p':
		return "partitioned: its partitions are compared"
	case t.Persistence != 'p':
		return "unlogged: its rows are not replicated"
	}
	return "filled by extension " + t.Extension
}

func (r *run) results() []Result {
	out := make([]Result, len(r.subjects))
	for i, s := range r.subjects {
		out[i] = s.result
		if !s.settled {
			out[i].Equal, out[i].Skipped = false, "not compared to the end"
		}
	}
	return out
}

func (r *run) close() {
	for _, s := range r.sessions {
		s.close()
	}
}

// all looks at everything until everything is settled.
func (r *run) all(ctx context.Context) error {
	for _, s := range r.subjects {
		if s.settled {
			r.observe(s)
		}
	}
	for {
		open := r.open()
		if len(open) == 0 {
			return nil
		}
		for len(open) > 0 {
			n, bytes := 0, int64(0)
			for n < len(open) && n < batchTables && (n == 0 || bytes+open[n].weight() <= batchBytes) {
				bytes += open[n].weight()
				n++
			}
			if open[0].looks > 0 {
				r.again(len(open))
			}
			if err := r.look(ctx, open[:n]); err != nil {
				return err
			}
			open = open[n:]
		}
	}
}

// open are the tables that are not settled, those that were looked at least
// often first.
func (r *run) open() []*subject {
	var open []*subject
	for _, s := range r.subjects {
		if !s.settled {
			open = append(open, s)
		}
	}
	return open
}

// weight is about how many bytes the next look at s reads.
func (s *subject) weight() int64 {
	if s.rows != nil && s.rows.few() {
		return 0
	}
	return s.table.Bytes
}

// look takes a pair of snapshots and compares tables under it.
func (r *run) look(ctx context.Context, tables []*subject) (err error) {
	l, err := r.snapshots(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	work := make(chan *subject, len(tables))
	for _, s := range tables {
		work <- s
	}
	close(work)
	g, gctx := errgroup.WithContext(ctx)
	for _, at := range r.sessions {
		g.Go(func() error {
			for s := range work {
				if gctx.Err() != nil {
					return gctx.Err()
				}
				at, err := r.reading(gctx, at, s)
				if err == nil {
					err = r.compare(gctx, l, at, s)
				}
				if err != nil {
					return fmt.Errorf("compare %s: %w", s.table, err)
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// reading are the sessions that read s: a worker's own, or those with the rights
// of another role, which the worker opens beside.
func (r *run) reading(ctx context.Context, own *sessions, s *subject) (*sessions, error) {
	if r.o.Reader == nil {
		return own, nil
	}
	role := r.o.Reader(s.table)
	if role == "" {
		return own, nil
	}
	if own.as[role] == nil {
		old, new, err := r.o.As(ctx, role)
		if err != nil {
			return nil, err
		}
		at := &sessions{lead: old, follow: new}
		if r.o.Back {
			at.lead, at.follow = new, old
		}
		if own.as == nil {
			own.as = map[string]*sessions{}
		}
		own.as[role] = at
	}
	return own.as[role], nil
}

// settle ends the comparison of s.
func (r *run) settle(s *subject) {
	s.settled = true
	r.observe(s)
}

func (r *run) observe(s *subject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.o.Observe != nil {
		r.o.Observe(s.result)
	}
}

func (r *run) advance(s *subject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bytes += s.table.Bytes
	if r.o.Progress != nil {
		r.o.Progress(min(r.bytes, r.total), r.total, 0)
	}
}

// again tells that n tables are looked at once more.
func (r *run) again(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.o.Progress != nil {
		r.o.Progress(min(r.bytes, r.total), r.total, n)
	}
}
