package verify

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// compare has one look at one table.
func (r *run) compare(ctx context.Context, l *look, at *sessions, s *subject) error {
	var err error
	switch {
	case r.o.Mode == Counts:
		err = r.compareCounts(ctx, l, at, s)
	case s.looks < wholeLooks:
		err = r.compareSums(ctx, l, at, s)
	case s.rows != nil && s.rows.few():
		err = r.compareSuspects(ctx, l, at, s)
	default:
		err = r.compareBuckets(ctx, l, at, s)
	}
	if side := (*sideError)(nil); errors.As(err, &side) && missing(side.err) {
		s.result.Equal = false
		s.result.Differing = []string{fmt.Sprintf("cannot be read on %s: %v", side.on.Name, side.err)}
		err = nil
		r.settle(s)
	}
	if s.looks++; s.looks == 1 {
		r.advance(s)
	}
	return err
}

// wholeLooks is how often a table is looked at as a whole before its rows are.
const wholeLooks = 2

// missing says whether err tells that a table or a column is not there, or is
// another one.
func missing(err error) bool {
	switch pg.SQLState(err) {
	case "42P01", "42703", "3F000", "42883", "42804", "42704":
		return true
	}
	return false
}

// counted is what count and sum say of one side.
type counted struct {
	rows int64
	sum  string
}

// pairs asks both sides for one row of two columns.
func pairs(ctx context.Context, l *look, at *sessions, sql string) (lead, follow counted, err error) {
	err = l.both(ctx, at, func(ctx context.Context, conn *pgx.Conn, leads bool) error {
		to := &follow
		if leads {
			to = &lead
		}
		return conn.QueryRow(ctx, sql).Scan(&to.rows, &to.sum)
	})
	return lead, follow, err
}

func (r *run) compareSums(ctx context.Context, l *look, at *sessions, s *subject) error {
	lead, follow, err := pairs(ctx, l, at, s.q.sum())
	if err != nil {
		return err
	}
	s.result.Rows, s.result.Ranges = lead.rows, 1
	if lead == follow {
		s.result.Equal, s.result.LSN = true, l.lsn
		r.settle(s)
	}
	return nil
}

// compareCounts compares numbers of rows. Where they differ, it takes three
// looks in which one side did not move at all to call that a difference.
func (r *run) compareCounts(ctx context.Context, l *look, at *sessions, s *subject) error {
	lead, follow, err := pairs(ctx, l, at, s.q.count(s.looks > 0))
	if err != nil {
		return err
	}
	s.result.Rows, s.result.Ranges = lead.rows, 1
	if lead.rows == follow.rows {
		s.result.Equal, s.result.LSN = true, l.lsn
		r.settle(s)
		return nil
	}
	now := state{asVersion(lead), asVersion(follow)}
	if s.looks > 0 { // the first look was without versions
		switch s.counts.see(now, l.stuck, patience) {
		case different:
			s.result.Differing = []string{fmt.Sprintf("%d rows on %s, %d on %s", lead.rows, r.lead.Name, follow.rows, r.follow.Name)}
			r.settle(s)
		case moving:
			s.result.Equal, s.result.LSN = true, l.lsn
			s.result.Skipped = fmt.Sprintf("moving: the number of rows changed in every look (%d on %s, %d on %s in the last)",
				lead.rows, r.lead.Name, follow.rows, r.follow.Name)
			r.settle(s)
		}
	}
	return nil
}

func asVersion(c counted) *version {
	return &version{holds: fmt.Sprint(c.rows), lies: c.sum}
}

// compareBuckets looks at the whole table by buckets of rows, and then at the
// rows of those that differ, in the same pair of snapshots.
func (r *run) compareBuckets(ctx context.Context, l *look, at *sessions, s *subject) error {
	if s.rows == nil {
		s.rows = newRows(s)
	}
	mask := buckets(s.result.Rows) - 1
	var lead, follow map[int64]counted
	err := l.both(ctx, at, func(ctx context.Context, conn *pgx.Conn, leads bool) (err error) {
		to := &follow
		if leads {
			to = &lead
		}
		rows, err := conn.Query(ctx, s.q.buckets(), mask)
		if err != nil {
			return err
		}
		*to = map[int64]counted{}
		var b int64
		var c counted
		_, err = pgx.ForEachRow(rows, []any{&b, &c.rows, &c.sum}, func() error { (*to)[b] = c; return nil })
		return err
	})
	if err != nil {
		return err
	}
	s.result.Ranges = int(mask + 1)
	s.result.Rows = 0
	for _, c := range lead {
		s.result.Rows += c.rows
	}
	differing, partial := differ(lead, follow)
	s.rows.partial = partial
	var a, b []found
	if len(differing) > 0 {
		if a, b, err = fetch(ctx, l, at, s.q.inBuckets(), mask, differing); err != nil {
			return err
		}
	}
	r.seeRows(l, s, a, b)
	return nil
}

// buckets is into how many buckets so many rows are put: a power of two, so
// that a bucket has about 64 rows, but no more than a million.
func buckets(rows int64) int64 {
	n := uint64(max(rows, 0)) / 64
	return int64(1) << min(max(bits.Len64(n), 4), 20)
}

// fetchLimit is about how many rows of both sides are fetched in one look.
const fetchLimit = 1_000_000

// differ are the buckets that differ, and whether some were left out because
// they hold too many rows.
func differ(lead, follow map[int64]counted) (differing []int64, partial bool) {
	rows := map[int64]int64{}
	for b, c := range lead {
		if follow[b] != c {
			rows[b] = c.rows + follow[b].rows
		}
	}
	for b, c := range follow {
		if _, ok := lead[b]; !ok {
			rows[b] = c.rows
		}
	}
	for b := range rows {
		differing = append(differing, b)
	}
	slices.Sort(differing)
	var sum int64
	for i, b := range differing {
		if sum += rows[b]; sum > fetchLimit && i > 0 {
			return differing[:i], true
		}
	}
	return differing, false
}

// compareSuspects looks at the rows that are still in question, and no others.
func (r *run) compareSuspects(ctx context.Context, l *look, at *sessions, s *subject) error {
	open := s.rows.open()
	var args []any
	if s.q.byIndex() {
		for i := range s.q.keyColumns {
			values := make([]string, len(open))
			for n, x := range open {
				values[n] = x.key[i]
			}
			args = append(args, values)
		}
	} else {
		hashes := make([]int64, len(open))
		for n, x := range open {
			hashes[n] = x.hash
		}
		args = append(args, hashes)
	}
	a, b, err := fetch(ctx, l, at, s.q.these(), args...)
	if err != nil {
		return err
	}
	r.seeRows(l, s, a, b)
	return nil
}

// fetch reads rows of both sides.
func fetch(ctx context.Context, l *look, at *sessions, sql string, args ...any) (lead, follow []found, err error) {
	err = l.both(ctx, at, func(ctx context.Context, conn *pgx.Conn, leads bool) error {
		to := &follow
		if leads {
			to = &lead
		}
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		*to, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (f found, err error) {
			err = row.Scan(&f.key, &f.hash, &f.holds, &f.lies, &f.columns)
			return f, err
		})
		return err
	})
	return lead, follow, err
}

func (r *run) seeRows(l *look, s *subject, lead, follow []found) {
	s.rows.see(lead, follow, l.stuck)
	if s.rows.conclude(s, l.lsn, r.lead.Name, r.follow.Name) {
		r.settle(s)
	}
}
