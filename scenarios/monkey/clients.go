package monkey

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"crossfade/scenarios/lab"

	"github.com/jackc/pgx/v5/pgconn"
)

// An ack is one answer that a client got: something was done at a moment
// between start and end, on the side that answered.
type ack struct {
	client     string
	side       string // old or new
	start, end time.Duration
	values     []int64 // of the sequence, where it asked for those
}

// client is one that connects, does the same thing again and again, and notes
// what was acknowledged.
type client struct {
	name    string
	worker  int // its number in the ledger
	config  *pgconn.Config
	pause   time.Duration
	afresh  bool   // a new connection each time
	keeps   bool   // its connection stays after an error that the server answered with
	side    string // that it is of alone
	once    func(ctx context.Context, c *client, conn *pgconn.PgConn, n int64) ([]*pgconn.Result, error)
	numbers bool // the acknowledged thing is a block of values

	mu     sync.Mutex
	acks   []ack
	last   int64
	failed []int64
	errs   map[string]int64
}

// load is all clients. They may be held for a while.
type load struct {
	began   time.Time
	limit   time.Duration // that a client waits for a connection or an answer before it gives the connection up
	clients []*client
	// prepared is whether prepare has ended. Until then new is no side yet: clients
	// of new alone wait.
	prepared atomic.Bool
	names    map[string]string // cluster_name → side
	gate     sync.RWMutex
	cancel   context.CancelFunc
	work     sync.WaitGroup
}

// The statements each are one message, and what they answer first is the side.
const (
	insertSQL   = `INSERT INTO ledger (worker, n) VALUES (%[1]d, %[2]d) RETURNING current_setting('cluster_name'); INSERT INTO ledger_log (worker, n) VALUES (%[1]d, %[2]d)`
	probeSQL    = `BEGIN READ WRITE; ` + insertSQL + `; COMMIT`
	transferSQL = `BEGIN; UPDATE accounts SET balance = balance - %[5]d WHERE id = %[3]d; UPDATE accounts SET balance = balance + %[5]d WHERE id = %[4]d;
		INSERT INTO transfers (worker, n, debit, credit, amount) VALUES (%[1]d, %[2]d, %[3]d, %[4]d, %[5]d); ` + insertSQL + `; COMMIT`
	numbersSQL = `SELECT current_setting('cluster_name'), nextval('numbers') FROM generate_series(1, 20)`
)

func row(sql string) func(context.Context, *client, *pgconn.PgConn, int64) ([]*pgconn.Result, error) {
	return func(ctx context.Context, c *client, conn *pgconn.PgConn, n int64) ([]*pgconn.Result, error) {
		return conn.Exec(ctx, fmt.Sprintf(sql, c.worker, n)).ReadAll()
	}
}

func transfer(ctx context.Context, c *client, conn *pgconn.PgConn, n int64) ([]*pgconn.Result, error) {
	// Always from the lower number to the higher: no deadlocks. The amount may
	// be negative.
	a := 1 + rand.IntN(19)
	b := a + 1 + rand.IntN(20-a)
	return conn.Exec(ctx, fmt.Sprintf(transferSQL, c.worker, n, a, b, rand.IntN(199)-99)).ReadAll()
}

func nextval(ctx context.Context, _ *client, conn *pgconn.PgConn, _ int64) ([]*pgconn.Result, error) {
	return conn.Exec(ctx, numbersSQL).ReadAll()
}

// newLoad makes the clients of a stage.
func newLoad(s *stage) (*load, error) {
	l := &load{began: time.Now(), limit: s.blocked * 3 / 5, names: map[string]string{s.old.Name: "old", s.new.Name: "new"}}
	probe := " statement_timeout=400"
	direct := map[string]string{
		"both": s.both(), "pool1": s.pools[0].Conninfo(database), "pool2": s.pools[1].Conninfo(database),
		"old": s.old.Conninfo(database), "new": s.new.Conninfo(database),
	}
	add := func(c *client, to string) error {
		config, err := pgconn.ParseConfig(to)
		if err != nil {
			return err
		}
		config.ConnectTimeout = l.limit
		c.config, c.worker, c.errs = config, len(l.clients)+1, map[string]int64{}
		l.clients = append(l.clients, c)
		return nil
	}
	var errs []error
	for _, way := range []string{"both", "pool1", "pool2"} {
		errs = append(errs,
			add(&client{name: "rows " + way, pause: 50 * time.Millisecond, once: row(insertSQL)}, direct[way]),
			add(&client{name: "bank " + way, pause: 70 * time.Millisecond, once: transfer}, direct[way]))
	}
	for _, way := range []string{"both", "old", "new", "pool1", "pool2"} {
		side := way
		if way != "old" && way != "new" {
			side = ""
		}
		errs = append(errs, add(&client{name: "numbers " + way, side: side, pause: 12 * time.Millisecond, once: nextval, numbers: true, keeps: true}, direct[way]))
	}
	for _, side := range []string{"old", "new"} {
		errs = append(errs,
			add(&client{name: "probe " + side, side: side, pause: 20 * time.Millisecond, keeps: true, once: row(probeSQL)}, direct[side]+probe),
			add(&client{name: "probe afresh " + side, side: side, pause: 200 * time.Millisecond, afresh: true, once: row(insertSQL)}, direct[side]+probe))
	}
	return l, errors.Join(errs...)
}

func (l *load) start(ctx context.Context) {
	ctx, l.cancel = context.WithCancel(ctx)
	for _, c := range l.clients {
		l.work.Go(func() { l.live(ctx, c) })
	}
}

// stop ends all clients and waits for them.
func (l *load) stop() {
	if l.cancel != nil {
		l.cancel()
	}
	l.work.Wait()
}

// live is a client's life.
func (l *load) live(ctx context.Context, c *client) {
	var conn *pgconn.PgConn
	for ctx.Err() == nil {
		l.gate.RLock()
		if c.side == "new" && !l.prepared.Load() {
			hangUp(conn)
			conn = nil
		} else {
			conn = l.turn(ctx, c, conn)
		}
		l.gate.RUnlock()
		select {
		case <-ctx.Done():
		case <-time.After(c.pause):
		}
	}
	hangUp(conn)
}

// turn is one attempt of a client; it returns the connection for the next one.
func (l *load) turn(ctx context.Context, c *client, conn *pgconn.PgConn) *pgconn.PgConn {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	if conn == nil {
		var err error
		if conn, err = pgconn.ConnectConfig(ctx, c.config); err != nil {
			c.fail(err)
			return nil
		}
	}
	start := time.Since(l.began)
	n := c.begin()
	results, err := c.once(ctx, c, conn, n)
	end := time.Since(l.began)
	if err == nil {
		err = c.acknowledge(l, results, start, end)
	}
	if err != nil {
		c.fail(err)
		if c.keeps && !conn.IsClosed() {
			if _, rerr := conn.Exec(ctx, "ROLLBACK").ReadAll(); rerr == nil {
				return conn
			}
		}
	}
	if err != nil || c.afresh {
		hangUp(conn)
		return nil
	}
	return conn
}

// begin takes the next number. Until it is acknowledged it counts as failed.
func (c *client) begin() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.failed = append(c.failed, c.last)
	return c.last
}

func (c *client) acknowledge(l *load, results []*pgconn.Result, start, end time.Duration) error {
	a := ack{client: c.name, start: start, end: end}
	for _, r := range results {
		for _, row := range r.Rows {
			a.side = l.names[string(row[0])]
			if len(row) > 1 {
				v, err := strconv.ParseInt(string(row[1]), 10, 64)
				if err != nil {
					return err
				}
				a.values = append(a.values, v)
			}
		}
	}
	if a.side == "" || c.side != "" && a.side != c.side {
		return fmt.Errorf("it was answered by %q", a.side)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = c.failed[:len(c.failed)-1]
	c.acks = append(c.acks, a)
	return nil
}

func (c *client) fail(err error) {
	says := err.Error()
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		says = pg.Code + " " + pg.Message
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.errs) < 100 {
		c.errs[says]++
	}
}

func hangUp(conn *pgconn.PgConn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx) // it failed already, or is of no use any more
}

// count is how many answers a client has got.
func (c *client) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks)
}

func (c *client) first(after int) (ack, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if after >= len(c.acks) {
		return ack{}, false
	}
	return c.acks[after], true
}

func (l *load) client(name string) *client {
	i := slices.IndexFunc(l.clients, func(c *client) bool { return c.name == name })
	return l.clients[i]
}

// served waits until each of some clients has had an answer to what it sent from
// now on, and returns those that had none within the limit, and how long the
// last of the others took.
func (l *load) served(ctx context.Context, limit time.Duration, names ...string) (without []string, longest time.Duration) {
	from := time.Since(l.began)
	seen := map[string]int{}
	for _, n := range names {
		seen[n] = l.client(n).count()
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	left := slices.Clone(names)
	_ = lab.Poll(ctx, 5*time.Millisecond, func() (bool, error) { // what is left says what was not reached
		left = slices.DeleteFunc(left, func(n string) bool {
			for i := seen[n]; ; i++ {
				a, ok := l.client(n).first(i)
				if !ok {
					seen[n] = i
					return false
				}
				if a.start >= from {
					longest = max(longest, a.end-from)
					return true
				}
			}
		})
		return len(left) == 0, nil
	})
	return left, longest
}

// acks are all answers of clients that write rows, or of those that take values.
func (l *load) acks(numbers bool) []ack {
	var all []ack
	for _, c := range l.clients {
		if c.numbers == numbers {
			c.mu.Lock()
			all = append(all, c.acks...)
			c.mu.Unlock()
		}
	}
	return all
}

// reports is what the lab's judge of the ledger wants to know.
func (l *load) reports() []lab.Report {
	r := lab.Report{Schema: "public"}
	for _, c := range l.clients {
		if c.numbers {
			continue
		}
		c.mu.Lock()
		r.Acked += int64(len(c.acks))
		r.Workers = append(r.Workers, lab.WorkerReport{Worker: c.worker, Last: c.last, Failed: slices.Clone(c.failed)})
		c.mu.Unlock()
	}
	return []lab.Report{r}
}
