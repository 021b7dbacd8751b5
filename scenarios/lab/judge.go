package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// Verdict is what became of the rows that writers wrote.
type Verdict struct {
	Acked   int64 // acknowledged rows
	Rows    int64 // of them and of those that failed, how many the final side's ledger has
	Unacked int64 // rows on the final side that were never acknowledged: allowed

	Lost    []Row // acknowledged, but not on the final side, once for each table
	Doubled []Row // on the final side more than once
	Strange []Row // on the final side, but never written by any of the writers
	Aside   []Row // on the other side, but not on the final one
}

// Row names one row of one of the ledger's tables.
type Row struct {
	Table  string
	Worker int
	N      int64
}

func (r Row) String() string { return fmt.Sprintf("%s(%d,%d)", r.Table, r.Worker, r.N) }

// Err is nil when every acknowledged row is on the final side exactly once and no row is only on the other.
func (v Verdict) Err() error {
	var says []string
	for _, fault := range []struct {
		what string
		rows []Row
	}{
		{"acknowledged rows lost", v.Lost},
		{"rows doubled", v.Doubled},
		{"rows nobody wrote", v.Strange},
		{"rows only on the other side", v.Aside},
	} {
		if len(fault.rows) > 0 {
			says = append(says, fmt.Sprintf("%d %s: %s", len(fault.rows), fault.what, someRows(fault.rows)))
		}
	}
	if says == nil {
		return nil
	}
	return errors.New(strings.Join(says, "; "))
}

func (v Verdict) String() string {
	if err := v.Err(); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d acknowledged rows, each on the final side exactly once (%d more were written but not acknowledged)", v.Acked, v.Unacked)
}

func someRows(rows []Row) string {
	var s []string
	for _, r := range rows[:min(len(rows), 5)] {
		s = append(s, r.String())
	}
	if len(rows) > 5 {
		s = append(s, "…")
	}
	return strings.Join(s, " ")
}

// Judge compares what was acknowledged to writers with what there is: on the final side, the one that serves in the end, and on
// the other side, whose connection string may be empty when there is none. The writers must have been stopped, and nobody
// else may have written to the ledger; the reports must be those of all writers that did. An error means that it could
// not look; what it found is in the Verdict.
func Judge(ctx context.Context, reports []Report, finalConninfo, otherConninfo string) (Verdict, error) {
	var v Verdict
	for _, r := range reports {
		v.Acked += r.Acked
	}
	schema := publicSchema
	if len(reports) > 0 {
		schema = reports[0].Schema
	}
	for _, table := range []string{"ledger", "ledger_log"} {
		if err := v.judge(ctx, schema, table, reports, finalConninfo, otherConninfo); err != nil {
			return v, fmt.Errorf("judge %s: %w", table, err)
		}
	}
	return v, nil
}

func (v *Verdict) judge(ctx context.Context, schema, table string, reports []Report, final, other string) error {
	written := map[int]*seen{}
	for _, r := range reports {
		for _, w := range r.Workers {
			written[w.Worker] = newSeen(w)
		}
	}
	// The other side first: a row whose writer was stopped while it was on its way may become visible on the final side
	// at any moment, and on the other side right after.
	if other != "" {
		err := eachRow(ctx, other, schema+"."+table, func(worker int, n int64) {
			if w := written[worker]; w != nil && n >= 1 && n <= w.last {
				w.aside.set(n)
				return
			}
			v.Aside = append(v.Aside, Row{table, worker, n})
		})
		if err != nil {
			return fmt.Errorf("other side: %w", err)
		}
	}
	err := eachRow(ctx, final, schema+"."+table, func(worker int, n int64) {
		w := written[worker]
		switch {
		case w == nil || n < 1 || n > w.last:
			v.Strange = append(v.Strange, Row{table, worker, n})
		case w.there.has(n):
			v.Doubled = append(v.Doubled, Row{table, worker, n})
		default:
			w.there.set(n)
			if table == "ledger" {
				v.Rows++
				if w.failed.has(n) {
					v.Unacked++
				}
			}
		}
	})
	if err != nil {
		return fmt.Errorf("final side: %w", err)
	}
	for id, w := range written {
		for n := int64(1); n <= w.last; n++ {
			if w.there.has(n) {
				continue
			}
			if !w.failed.has(n) {
				v.Lost = append(v.Lost, Row{table, id, n})
			}
			if w.aside.has(n) {
				v.Aside = append(v.Aside, Row{table, id, n})
			}
		}
	}
	return nil
}

// seen is one worker's rows, a bit each.
type seen struct {
	last                 int64
	failed, there, aside bits
}

func newSeen(w WorkerReport) *seen {
	s := &seen{last: w.Last, failed: make(bits, w.Last/64+1), there: make(bits, w.Last/64+1), aside: make(bits, w.Last/64+1)}
	for _, n := range w.Failed {
		s.failed.set(n)
	}
	return s
}

type bits []uint64

func (b bits) has(n int64) bool { return n >= 0 && n/64 < int64(len(b)) && b[n/64]&(1<<(n%64)) != 0 }

func (b bits) set(n int64) { b[n/64] |= 1 << (n % 64) }

// eachRow reads a table of the ledger, with its schema, every row in it, without holding them.
func eachRow(ctx context.Context, conninfo, table string, f func(worker int, n int64)) error {
	conn, err := pgconn.Connect(ctx, conninfo)
	if err != nil {
		return err
	}
	read, write := io.Pipe()
	var group errgroup.Group
	group.Go(func() error {
		_, err := conn.CopyTo(ctx, write, "COPY (SELECT worker, n FROM "+table+") TO STDOUT")
		return errors.Join(err, write.CloseWithError(err))
	})
	group.Go(func() error {
		scan := bufio.NewScanner(read)
		for scan.Scan() {
			first, second, _ := strings.Cut(scan.Text(), "\t")
			worker, err := strconv.Atoi(first)
			if err == nil {
				var n int64
				if n, err = strconv.ParseInt(second, 10, 64); err == nil {
					f(worker, n)
				}
			}
			if err != nil {
				return errors.Join(fmt.Errorf("row %q: %w", scan.Text(), err), read.CloseWithError(err))
			}
		}
		return scan.Err()
	})
	return errors.Join(group.Wait(), conn.Close(context.WithoutCancel(ctx)))
}
