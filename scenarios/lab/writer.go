package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Ledger makes the two tables that writers fill, in the database of a connection string: public.ledger, whose primary key
// refuses a row that comes twice, and public.ledger_log without any key, REPLICA IDENTITY FULL, where it would stay and be
// seen. Tables that exist are left alone.
func Ledger(ctx context.Context, conninfo string) error { return LedgerIn(ctx, conninfo, publicSchema) }

const publicSchema = "public"

// LedgerIn is Ledger for a schema of its own, which is made where it is not there: for tables that part ways.
func LedgerIn(ctx context.Context, conninfo, schema string) error {
	conn, err := pgconn.Connect(ctx, conninfo)
	if err != nil {
		return err
	}
	first := ""
	if schema != publicSchema {
		first = "CREATE SCHEMA IF NOT EXISTS " + schema + ";"
	}
	_, err = conn.Exec(ctx, first+strings.ReplaceAll(`
		CREATE TABLE IF NOT EXISTS public.ledger (
			worker int, n bigint, at timestamptz DEFAULT clock_timestamp(), PRIMARY KEY (worker, n));
		CREATE TABLE IF NOT EXISTS public.ledger_log (worker int, n bigint, at timestamptz DEFAULT clock_timestamp());
		ALTER TABLE public.ledger_log REPLICA IDENTITY FULL`, "public", schema)).ReadAll()
	return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
}

// WriterOptions says how to write.
type WriterOptions struct {
	// Writers is how many connections write side by side. 0: 4.
	Writers int
	// Timeout is how long one insert or one attempt to connect may take before the connection is given up. 0: 10 s.
	Timeout time.Duration
	// Pause lies between two inserts of one connection. 0: none, which is some 20,000 rows a second and all of the machine.
	Pause time.Duration
	// Retry lies between a failure and the next attempt. 0: 1 ms.
	Retry time.Duration
	// Schema is where the ledger is. "": public.
	Schema string
	// FirstWorker is the number of the first worker; with it, numbers are the caller's care. 0: higher than any in the
	// table and than any that this process has given out.
	FirstWorker int
}

// A Writer fills the ledger over several connections, each inserting its own numbered rows, one row in each of the two
// tables in one transaction, reconnecting after every error. No number is ever used again, whatever became of it: a row
// whose insert failed may be there or not, a row that was acknowledged must be.
type Writer struct {
	options  WriterOptions
	config   *pgconn.Config
	cancel   context.CancelFunc
	done     sync.WaitGroup
	workers  []*worker
	gaps     *gaps
	failures tally
}

// worker is one connection's bookkeeping: numbers 1 to last were tried, all but those in failed were acknowledged.
type worker struct {
	id     int
	mu     sync.Mutex
	last   int64
	failed []int64 // ascending
	worst  Gap     // the longest that one row took, from its worker's last acknowledgement on
}

// workerNumbers is the highest worker number given out by this process.
var workerNumbers atomic.Int64

// Write starts a writer. The tables must be there (see Ledger), at the other end of a pooler too: only the simple protocol
// is used and no state of the session. It ends with Stop, or when ctx ends.
func Write(ctx context.Context, conninfo string, o WriterOptions) (*Writer, error) {
	o.Writers = cmp.Or(o.Writers, 4)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	o.Retry = cmp.Or(o.Retry, time.Millisecond)
	o.Schema = cmp.Or(o.Schema, publicSchema)
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = o.Timeout
	w := &Writer{options: o, config: config, gaps: newGaps()}
	first, err := w.firstWorker(ctx)
	if err != nil {
		return nil, fmt.Errorf("start writer: %w", err)
	}
	ctx, w.cancel = context.WithCancel(ctx)
	for i := range o.Writers {
		k := &worker{id: first + i}
		w.workers = append(w.workers, k)
		w.done.Go(func() { w.work(ctx, k) })
	}
	return w, nil
}

// firstWorker finds numbers that no row has yet.
func (w *Writer) firstWorker(ctx context.Context) (int, error) {
	if w.options.FirstWorker != 0 {
		return w.options.FirstWorker, nil
	}
	conn, err := pgconn.ConnectConfig(ctx, w.config)
	if err != nil {
		return 0, err
	}
	results, err := conn.Exec(ctx, "SELECT coalesce(max(worker), 0) FROM "+w.options.Schema+".ledger").ReadAll()
	if err := errors.Join(err, conn.Close(context.WithoutCancel(ctx))); err != nil {
		return 0, err
	}
	highest, err := strconv.ParseInt(string(results[0].Rows[0][0]), 10, 32)
	if err != nil {
		return 0, err
	}
	for {
		given := workerNumbers.Load()
		from := max(given, highest)
		if workerNumbers.CompareAndSwap(given, from+int64(w.options.Writers)) {
			return int(from) + 1, nil
		}
	}
}

// work is one connection's life.
func (w *Writer) work(ctx context.Context, k *worker) {
	var conn *pgconn.PgConn
	defer func() { hangUp(ctx, conn) }()
	wait := time.NewTimer(0)
	defer wait.Stop()
	rest := func(d time.Duration) {
		if d > 0 {
			wait.Reset(d)
			select {
			case <-ctx.Done():
			case <-wait.C:
			}
		}
	}
	<-wait.C
	before := time.Now()
	for ctx.Err() == nil {
		if conn == nil {
			c, err := pgconn.ConnectConfig(ctx, w.config)
			if err != nil {
				w.fail(ctx, err)
				rest(w.options.Retry)
				continue
			}
			conn = c
		}
		n := k.begin()
		err := w.insert(ctx, conn, k.id, n)
		if err != nil {
			w.fail(ctx, err)
			hangUp(ctx, conn)
			conn = nil
			rest(w.options.Retry)
			continue
		}
		now := time.Now()
		w.gaps.acknowledge(now)
		k.done(before, now)
		before = now
		if w.options.Pause > 0 {
			rest(w.options.Pause)
			before = time.Now() // a wanted pause is nobody's wait
		}
	}
}

// insert writes one row, as one transaction and one message. What it returns nil for is committed.
func (w *Writer) insert(ctx context.Context, conn *pgconn.PgConn, id int, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, w.options.Timeout)
	defer cancel()
	values := fmt.Sprintf("(worker, n) VALUES (%d, %d)", id, n)
	_, err := conn.Exec(ctx, "INSERT INTO "+w.options.Schema+".ledger "+values+"; INSERT INTO "+w.options.Schema+".ledger_log "+values).ReadAll()
	return err
}

func (w *Writer) fail(ctx context.Context, err error) {
	if ctx.Err() == nil { // being stopped is no failure
		w.failures.add(err)
	}
}

func hangUp(ctx context.Context, conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // it failed already, or is of no use any more
}

func (k *worker) begin() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last++
	k.failed = append(k.failed, k.last) // until it is acknowledged
	return k.last
}

func (k *worker) done(before, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed = k.failed[:len(k.failed)-1]
	if d := now.Sub(before); d > k.worst.Length {
		k.worst = Gap{Start: before, Length: d}
	}
}

// Acked is how many rows were acknowledged until now.
func (w *Writer) Acked() int64 {
	var sum int64
	for _, k := range w.workers {
		k.mu.Lock()
		sum += k.last - int64(len(k.failed))
		k.mu.Unlock()
	}
	return sum
}

// Errors is the failures until now, by SQLSTATE and text.
func (w *Writer) Errors() []Failure { return w.failures.list() }

// GapSince is the longest time between two acknowledged rows, whoever's, that was not over at t; the time from the last
// one till now counts as well. Gaps below a millisecond are not distinguished.
func (w *Writer) GapSince(t time.Time) Gap { return w.gaps.longest(t, time.Now()) }

// Flow waits until n more rows than now were acknowledged: the sign that writes get through.
func (w *Writer) Flow(ctx context.Context, n int64) error {
	want := w.Acked() + n
	err := Poll(ctx, time.Millisecond, func() (bool, error) { return w.Acked() >= want, nil })
	if err != nil {
		return fmt.Errorf("writer stands still at %d rows: %w; errors: %v", w.Acked(), err, w.Errors())
	}
	return nil
}

// Report is what a writer knows in the end.
type Report struct {
	Schema   string // of the ledger
	Acked    int64
	Workers  []WorkerReport
	Failures []Failure
	// Longest is the longest time between two acknowledged rows, whoever's: the outage.
	Longest Gap
	// Stall is the longest that one connection waited for its next acknowledged row.
	Stall      Gap
	Start, End time.Time

	gaps *gaps
}

// WorkerReport is one connection's rows: those from 1 to Last without the Failed ones were acknowledged. A failed one may
// be in the tables or not.
type WorkerReport struct {
	Worker int
	Last   int64
	Failed []int64 // ascending
}

// GapBetween is the longest time between two acknowledged rows that lies in part between two moments.
func (r Report) GapBetween(from, to time.Time) Gap { return r.gaps.longest(from, to) }

// Stop ends the writing and waits for it. A second call gives the same report.
func (w *Writer) Stop() Report {
	w.cancel()
	w.done.Wait()
	r := Report{Schema: w.options.Schema, Acked: w.Acked(), Failures: w.Errors(), gaps: w.gaps}
	for _, k := range w.workers {
		r.Workers = append(r.Workers, WorkerReport{Worker: k.id, Last: k.last, Failed: slices.Clone(k.failed)})
		if k.worst.Length > r.Stall.Length {
			r.Stall = k.worst
		}
	}
	w.gaps.stop(time.Now())
	r.Start, r.End = w.gaps.span()
	r.Longest = w.gaps.longest(r.Start, r.End)
	return r
}

// Gap is a time in which nothing was acknowledged.
type Gap struct {
	Start  time.Time
	Length time.Duration
}

// End is when it was over.
func (g Gap) End() time.Time { return g.Start.Add(g.Length) }

func (g Gap) String() string {
	return fmt.Sprintf("%v from %s", g.Length.Round(100*time.Microsecond), g.Start.Format("15:04:05.000"))
}

// shortGap is what is too short to be remembered one by one.
const shortGap = time.Millisecond

// gaps remembers every time longer than shortGap in which nobody had an acknowledgement.
type gaps struct {
	mu                sync.Mutex
	begin, last, over time.Time
	list              []Gap
}

func newGaps() *gaps {
	now := time.Now()
	return &gaps{begin: now, last: now}
}

func (g *gaps) acknowledge(at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := at.Sub(g.last)
	if d <= 0 { // another connection was quicker to the lock
		return
	}
	if d >= shortGap {
		g.list = append(g.list, Gap{Start: g.last, Length: d})
	}
	g.last = at
}

// stop ends the time that counts.
func (g *gaps) stop(at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.over.IsZero() {
		g.over = at
	}
}

func (g *gaps) span() (from, to time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.begin, g.over
}

// longest is the longest gap that lies, in part, between two moments. The one that is still open ends at the second.
func (g *gaps) longest(from, to time.Time) Gap {
	g.mu.Lock()
	defer g.mu.Unlock()
	var worst Gap
	look := func(gap Gap) {
		if gap.End().After(from) && gap.Start.Before(to) && gap.Length > worst.Length {
			worst = gap
		}
	}
	for _, gap := range g.list {
		look(gap)
	}
	end := to
	if !g.over.IsZero() && g.over.Before(end) {
		end = g.over
	}
	if d := end.Sub(g.last); d >= shortGap {
		look(Gap{Start: g.last, Length: d})
	}
	return worst
}

// Failure is one kind of error and how often it was seen.
type Failure struct {
	SQLState string // empty: not the server's word, for example a connection refused
	Says     string
	Count    int64
	First    time.Time
	Last     time.Time
}

func (f Failure) String() string {
	if f.SQLState == "" {
		return fmt.Sprintf("%d × %s", f.Count, f.Says)
	}
	return fmt.Sprintf("%d × %s (%s)", f.Count, f.Says, f.SQLState)
}

// tally counts errors.
type tally struct {
	mu   sync.Mutex
	seen map[string]*Failure
}

// clientPort is a part of Go's network errors that differs each time.
var clientPort = regexp.MustCompile(`:\d+->`)

func (t *tally) add(err error) {
	f := Failure{Says: clientPort.ReplaceAllString(err.Error(), "->")}
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		f.SQLState, f.Says = pg.Code, pg.Message
	} else if errors.Is(err, pgconn.ErrConnClosed) { // pgconn's word for one that broke while it waited
		f.Says = "connection lost"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = map[string]*Failure{}
	}
	key := f.SQLState + f.Says
	if t.seen[key] == nil {
		f.First = time.Now()
		t.seen[key] = &f
	}
	t.seen[key].Count++
	t.seen[key].Last = time.Now()
}

// list is the failures, the most frequent first.
func (t *tally) list() []Failure {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Failure
	for _, f := range t.seen {
		all = append(all, *f)
	}
	slices.SortFunc(all, func(a, b Failure) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Says, b.Says)) })
	return all
}
