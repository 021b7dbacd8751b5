package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// comparer is one way to prove that two databases hold the same rows.
type comparer struct {
	name, script string
	pgcopydb     bool
}

const bothHash = "floor: both servers hash every row once"

var comparers = []comparer{
	{name: "crossfade verify", script: `exec crossfade verify -q > "$DIR/verified"`},
	{name: "pgcopydb compare data", pgcopydb: true, script: `rm -rf "$DIR/compare"
pgcopydb compare data --source "$OLD" --target "$NEW" --dir "$DIR/compare"`},
	{name: bothHash, script: `one() {
	sql="SELECT count(*), sum(hashtextextended(t::text, 0)) FROM ONLY $1 t"
	psql -XAtd "$OLD" -c "$sql" > "$DIR/old.$2" &
	psql -XAtd "$NEW" -c "$sql" > "$DIR/new.$2"
	wait
	cmp "$DIR/old.$2" "$DIR/new.$2"
}
export -f one
psql -XAtF' ' -d "$OLD" -c "SELECT oid::regclass, oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_table_size(oid) DESC" |
	xargs -P $JOBS -L 1 bash -c 'one $0 $1'`},
}

// comparing are those who can run.
func (b *bench) comparing() []comparer {
	var field []comparer
	for _, c := range comparers {
		if !c.pgcopydb || b.noPgcopydb == nil {
			field = append(field, c)
		}
	}
	return field
}

// compares measures the comparison of a quiet database that is kept in step.
func (b *bench) compares(ctx context.Context) (*Report, error) {
	t, err := b.compare(ctx, b.MB)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Title: "The comparison",
		Says: []string{
			fmt.Sprintf("The data set of the copy, %s, quiet. Aims: at least as fast as `pgcopydb compare data`, and within 1.5 of what both servers need to read and hash every row once.", megabytes(t.bytes)),
			"crossfade's command looks at both clusters, and takes its two snapshots around a canary through every set, before it reads.",
		},
		Tables: []Table{{Header: []string{"comparison", "median", "spread", "to the floor", "processor"}}},
	}
	for _, c := range b.comparing() {
		m := t.median(c.name)
		r.Tables[0].Rows = append(r.Tables[0].Rows, []string{c.name, seconds(m), spread(t.seconds[c.name]), ratio(m, t.median(bothHash)), seconds(median(t.cpu[c.name]))})
		r.Commands = append(r.Commands, Command{c.name, c.script})
	}
	return r, nil
}

// compare lets everybody compare a data set of so many megabytes.
func (b *bench) compare(ctx context.Context, mb int) (t *times, err error) {
	old, err := b.oldCluster(ctx)
	if err != nil {
		return nil, err
	}
	const db = "bench"
	bytes, err := fill(ctx, old, db, plain, mb)
	if err != nil {
		return nil, err
	}
	fresh, err := b.newCluster(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, fresh.Remove(context.WithoutCancel(ctx))) }()
	p, err := b.place(ctx, db, old, fresh)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.remove(ctx)) }()
	speeds := fmt.Sprintf("copy: {jobs: %d, index_jobs: %d}\ncatchup: {stable: 100ms}\n", b.Jobs, b.Jobs)
	p.options = speeds + "verify: {mode: off}\n"
	if err := p.runbook(ctx); err != nil {
		return nil, err
	}
	if _, err := p.run(ctx, "exec crossfade prepare -q > /dev/null"); err != nil {
		return nil, err
	}
	p.options = speeds
	if err := p.runbook(ctx); err != nil {
		return nil, err
	}
	t = &times{bytes: bytes}
	field := b.comparing()
	for round := range b.Rounds {
		for i := range field {
			c := field[(i+round)%len(field)]
			got, err := p.run(ctx, c.script)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			b.Say(fmt.Sprintf("%d MB, round %d: %.2f s, %s", mb, round+1, got.Seconds, c.name))
			t.add(c.name, got)
		}
	}
	if _, err := p.run(ctx, "crossfade abort --yes -q > /dev/null"); err != nil {
		return nil, err
	}
	return t, old.Exec(ctx, "", "DROP DATABASE "+db)
}

// limits measures whether copy.limit holds.
func (b *bench) limits(ctx context.Context) (*Report, error) {
	old, err := b.oldCluster(ctx)
	if err != nil {
		return nil, err
	}
	const db, tables = "bench", limitedTables
	sh := shape{name: "limited", sql: func(mb int) []string { return manyTables(tables, rows(mb, 72)/tables) }}
	if _, err := fill(ctx, old, db, sh, b.MB); err != nil {
		return nil, err
	}
	ours := b.field(ours)[0]
	r := &Report{
		Title: "The limit of the copy", Once: true,
		Says:   []string{fmt.Sprintf("`copy.limit` beside what was taken off old, as COPY counts it in binary: from the moment when the first of %d equal tables were there to the last one. Aim: within 10 %%.", tables)},
		Tables: []Table{{Header: []string{"copy.limit", "taken", "of the limit"}}}, Commands: []Command{{ours.name, ours.script}},
	}
	for _, limit := range []int{b.MB / 8, b.MB / 16} {
		rate, err := b.limited(ctx, db, max(limit, 1), ours)
		if err != nil {
			return nil, err
		}
		r.Tables[0].Rows = append(r.Tables[0].Rows, []string{
			fmt.Sprintf("%d MB/s", max(limit, 1)), fmt.Sprintf("%.2f MB/s", rate/(1<<20)), fmt.Sprintf("%.1f %%", 100*rate/float64(max(limit, 1)<<20)),
		})
	}
	return r, old.Exec(ctx, "", "DROP DATABASE "+db)
}

// limitedTables is how many tables of the same size are copied under a limit.
const limitedTables = 16

// limited is the rate, in bytes a second, of one copy that is held to so many
// megabytes.
func (b *bench) limited(ctx context.Context, db string, limit int, c competitor) (rate float64, err error) {
	fresh, err := b.newCluster(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, fresh.Remove(context.WithoutCancel(ctx))) }()
	p, err := b.place(ctx, db, b.old, fresh)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.remove(ctx)) }()
	p.options = fmt.Sprintf("copy: {jobs: %d, index_jobs: %d, limit: %dMB}\n", b.Jobs, b.Jobs, limit)
	if err := p.runbook(ctx); err != nil {
		return 0, err
	}
	count, err := p.run(ctx, `psql -XAtd "$OLD" -c "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace" |
	while read -r t; do psql -XAtd "$OLD" -c "COPY $t TO STDOUT (FORMAT binary)" < /dev/null; done | wc -c`)
	if err != nil {
		return 0, err
	}
	var wire float64
	if _, err := fmt.Sscan(strings.TrimSpace(count.Stdout), &wire); err != nil {
		return 0, err
	}
	watching, stop := context.WithCancel(ctx)
	share := make(chan float64, 1)
	go func() { share <- loadedPerSecond(watching, fresh, db, b.Jobs) }()
	_, err = p.run(ctx, c.script)
	stop()
	tables := <-share
	if err == nil {
		err = p.whole(ctx)
	}
	if err == nil {
		_, err = p.run(ctx, c.after)
	}
	return wire / limitedTables * tables, err
}

// loadedPerSecond watches the marks of loaded tables until the last one is
// there or ctx ends: tables a second, from when each job has ended its first one.
func loadedPerSecond(ctx context.Context, fresh *lab.Cluster, db string, jobs int) float64 {
	first, at, began := 0, 0, time.Now()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for at < limitedTables {
		select {
		case <-ctx.Done():
			return 0
		case <-tick.C:
		}
		// Until prepare has made it there is no ledger to be read.
		says, err := fresh.Value(ctx, db, "SELECT count(*) FROM crossfade.ledger WHERE starts_with(key, 'loaded/')")
		if err != nil {
			continue
		}
		if n, err := strconv.Atoi(says); err == nil && n > at {
			if at = n; first == 0 && n >= jobs {
				first, began = n, time.Now()
			}
		}
	}
	return float64(at-first) / time.Since(began).Seconds()
}
