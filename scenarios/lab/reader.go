package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ReaderOptions says how to read.
type ReaderOptions struct {
	// SQL is the queries, each run in turn. Required.
	SQL []string
	// Readers is how many connections read side by side. 0: 1.
	Readers int
	// Timeout is how long a query, or an attempt to connect, may take before the connection is given up. 0: 60 s.
	Timeout time.Duration
	// Pause lies between two queries of one connection. 0: none.
	Pause time.Duration
	// Rising: the first column of every answer is a number that never falls, as a count of rows that nobody deletes is.
	// One that is smaller than the one before is a read that went back in time.
	Rising bool
}

// A Reader runs queries without end over several connections, reconnecting after every error.
type Reader struct {
	options  ReaderOptions
	config   *pgconn.Config
	cancel   context.CancelFunc
	done     sync.WaitGroup
	failures tally
	count    atomic.Int64
	back     atomic.Int64
	mu       sync.Mutex
	longest  Wait
}

// Wait is how long one query took.
type Wait struct {
	SQL string
	Gap
}

// ReadReport is what a reader knows in the end.
type ReadReport struct {
	Queries  int64 // answered
	Longest  Wait  // the longest that a query took, also one that failed; the attempts to reconnect count to the query that waits for them
	Failures []Failure
	Back     int64 // answers that were older than the one before, of a Rising reader
}

// Read starts a reader; it ends with Stop, or when ctx ends. Only the simple protocol is used.
func Read(ctx context.Context, conninfo string, o ReaderOptions) (*Reader, error) {
	o.Readers = cmp.Or(o.Readers, 1)
	o.Timeout = cmp.Or(o.Timeout, time.Minute)
	if len(o.SQL) == 0 {
		return nil, errors.New("a reader without a query")
	}
	config, err := pgconn.ParseConfig(conninfo)
	if err != nil {
		return nil, err
	}
	config.ConnectTimeout = o.Timeout
	first, err := pgconn.ConnectConfig(ctx, config) // a mistake shows at once
	if err != nil {
		return nil, fmt.Errorf("start reader: %w", err)
	}
	hangUp(ctx, first)
	r := &Reader{options: o, config: config}
	ctx, r.cancel = context.WithCancel(ctx)
	for i := range o.Readers {
		r.done.Go(func() { r.read(ctx, i) })
	}
	return r, nil
}

func (r *Reader) read(ctx context.Context, turn int) {
	var conn *pgconn.PgConn
	defer func() { hangUp(ctx, conn) }()
	wait := time.NewTimer(0)
	defer wait.Stop()
	<-wait.C
	rest := func(d time.Duration) {
		if d > 0 {
			wait.Reset(d)
			select {
			case <-ctx.Done():
			case <-wait.C:
			}
		}
	}
	begin, high := time.Now(), int64(-1)
	for ctx.Err() == nil {
		sql := r.options.SQL[turn%len(r.options.SQL)]
		err := func() (err error) {
			if conn == nil {
				if conn, err = pgconn.ConnectConfig(ctx, r.config); err != nil {
					conn = nil
					return err
				}
			}
			limited, cancel := context.WithTimeout(ctx, r.options.Timeout)
			defer cancel()
			results, err := conn.Exec(limited, sql).ReadAll()
			if err == nil && r.options.Rising {
				high, err = r.rising(results, high)
			}
			return err
		}()
		if ctx.Err() != nil {
			return
		}
		r.took(sql, begin, time.Now())
		if err != nil {
			r.failures.add(err)
			hangUp(ctx, conn)
			conn = nil
			rest(time.Millisecond)
			continue // begin stays: the application still waits for its answer
		}
		r.count.Add(1)
		turn++
		rest(r.options.Pause)
		begin = time.Now()
	}
}

// rising counts an answer that is older than the highest until now, and returns the highest.
func (r *Reader) rising(results []*pgconn.Result, high int64) (int64, error) {
	if len(results) == 0 || len(results[0].Rows) == 0 || len(results[0].Rows[0]) == 0 {
		return high, errors.New("a rising reader needs a number in the first column")
	}
	n, err := strconv.ParseInt(string(results[0].Rows[0][0]), 10, 64)
	if err != nil {
		return high, err
	}
	if n < high {
		r.back.Add(1)
	}
	return max(n, high), nil
}

func (r *Reader) took(sql string, begin, end time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := end.Sub(begin); d > r.longest.Length {
		r.longest = Wait{SQL: sql, Gap: Gap{Start: begin, Length: d}}
	}
}

// Report is what the reader knows until now.
func (r *Reader) Report() ReadReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	return ReadReport{Queries: r.count.Load(), Longest: r.longest, Failures: r.failures.list(), Back: r.back.Load()}
}

// Stop ends the reading and waits for it. A query in progress is cut off and not counted.
func (r *Reader) Stop() ReadReport {
	r.cancel()
	r.done.Wait()
	return r.Report()
}
