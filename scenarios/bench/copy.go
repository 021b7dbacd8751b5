package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// competitor is one way to bring a database over: schema, rows, indexes and
// constraints, into an empty database.
type competitor struct {
	name   string
	script string
	// creates: it makes the database itself.
	creates bool
	// after undoes what it left on old; it is not timed.
	after string
	// needs pgcopydb.
	pgcopydb bool
}

const (
	ours  = "crossfade"
	floor = "floor: a COPY pipe per core"
	pgcdb = "pgcopydb clone"
)

const schemaOnly = `pg_dump -Fc -s -f "$DIR/schema" "$OLD"
`

// waitForSync waits until tablesync has every table.
const waitForSync = `psql -XAqtd "$OLD" -c 'CREATE PUBLICATION bench FOR ALL TABLES'
psql -XAqtd "$NEW" -c "CREATE SUBSCRIPTION bench CONNECTION '$OLD' PUBLICATION bench WITH (binary, streaming)"
until [ "$(psql -XAtd "$NEW" -c "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")" = t ]; do sleep 0.05; done
`

const unsubscribe = `psql -XAqtd "$NEW" -c 'DROP SUBSCRIPTION bench'
psql -XAqtd "$OLD" -c 'DROP PUBLICATION bench'
`

// competitors in the order of the table.
var competitors = []competitor{
	{
		name: ours, creates: true,
		script: `exec crossfade prepare --until "constraints/$DB" --json > "$DIR/events"`,
		after:  `crossfade abort --yes -q > /dev/null`,
	},
	{
		name: pgcdb, pgcopydb: true,
		script: `pgcopydb clone --source "$OLD" --target "$NEW" --dir "$DIR/pgcopydb" --table-jobs $JOBS --index-jobs $JOBS $SPLIT`,
	},
	{
		name: pgcdb + " --skip-vacuum", pgcopydb: true,
		script: `pgcopydb clone --skip-vacuum --source "$OLD" --target "$NEW" --dir "$DIR/pgcopydb" --table-jobs $JOBS --index-jobs $JOBS $SPLIT`,
	},
	{
		name: "pg_dump, pg_restore",
		script: `pg_dump -Fd -Z none -j $JOBS -f "$DIR/dump" "$OLD"
pg_restore -j $JOBS -d "$NEW" "$DIR/dump"`,
	},
	{
		name: "tablesync, indexes in place",
		script: schemaOnly + `pg_restore -d "$NEW" "$DIR/schema"
` + waitForSync, after: unsubscribe,
	},
	{
		name: "tablesync, indexes afterwards",
		script: schemaOnly + `pg_restore --section=pre-data -d "$NEW" "$DIR/schema"
` + waitForSync + `pg_restore -j $JOBS --section=post-data -d "$NEW" "$DIR/schema"`, after: unsubscribe,
	},
	{
		name: floor,
		script: schemaOnly + `pg_restore --section=pre-data -d "$NEW" "$DIR/schema"
export PGOPTIONS='-c synchronous_commit=off'
one() {
	psql -Xqd "$OLD" -c "COPY $1 TO STDOUT (FORMAT binary)" |
	psql -Xqd "$NEW" -c BEGIN -c "TRUNCATE ONLY $1" -c "COPY $1 FROM STDIN (FORMAT binary, FREEZE)" -c COMMIT
}
export -f one
psql -XAtd "$OLD" -c "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_total_relation_size(oid) DESC" |
	xargs -P $JOBS -I {} bash -c 'one {}'
pg_restore -j $JOBS --section=post-data -d "$NEW" "$DIR/schema"`,
	},
}

// field are the competitors that can run.
func (b *bench) field(only ...string) []competitor {
	var field []competitor
	for _, c := range competitors {
		wanted := len(only) == 0
		for _, name := range only {
			wanted = wanted || c.name == name
		}
		if wanted && (!c.pgcopydb || b.noPgcopydb == nil) {
			field = append(field, c)
		}
	}
	return field
}

// times are what each competitor took, by name, round by round.
type times struct {
	seconds map[string][]float64
	memory  map[string]int64 // the most
	cpu     map[string][]float64
	steps   []float64 // of crossfade's commands, those of their steps
	bytes   int64     // of the data set
}

func (t *times) add(name string, c cost) {
	if t.seconds == nil {
		t.seconds, t.cpu, t.memory = map[string][]float64{}, map[string][]float64{}, map[string]int64{}
	}
	t.seconds[name] = append(t.seconds[name], c.Seconds)
	t.cpu[name] = append(t.cpu[name], c.CPU)
	t.memory[name] = max(t.memory[name], c.Memory)
	if c.Steps > 0 {
		t.steps = append(t.steps, c.Steps)
	}
}

func (t *times) median(name string) float64 { return median(t.seconds[name]) }

// race lets competitors copy one data set, taking turns: the order moves on by
// one in each round.
func (b *bench) race(ctx context.Context, sh shape, mb int, field []competitor) (*times, error) {
	old, err := b.oldCluster(ctx)
	if err != nil {
		return nil, err
	}
	db := "bench"
	t := &times{}
	if t.bytes, err = fill(ctx, old, db, sh, mb); err != nil {
		return nil, err
	}
	for round := range b.Rounds {
		for i := range field {
			c := field[(i+round)%len(field)]
			got, err := b.bounded(ctx, func(ctx context.Context) (cost, error) { return b.lap(ctx, old, db, sh, mb, c) })
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", sh.name, c.name, err)
			}
			b.Say(fmt.Sprintf("%s %d MB, round %d: %.2f s, %s", sh.name, mb, round+1, got.Seconds, c.name))
			t.add(c.name, got)
		}
	}
	return t, old.Exec(ctx, "", "DROP DATABASE "+db)
}

// lapLimit is how long one run may take: a competitor that hangs is reported, and the
// others are measured.
const lapLimit = 2 * time.Minute

// bounded is a lap that may take no longer than lapLimit: its time is not a number
// then.
func (b *bench) bounded(ctx context.Context, lap func(context.Context) (cost, error)) (cost, error) {
	limited, cancel := context.WithTimeout(ctx, lapLimit)
	defer cancel()
	got, err := lap(limited)
	if limited.Err() != nil && ctx.Err() == nil {
		return cost{Seconds: math.NaN(), CPU: math.NaN()}, nil
	}
	return got, err
}

// lap is one run of one competitor into a cluster of its own.
func (b *bench) lap(ctx context.Context, old *lab.Cluster, db string, sh shape, mb int, c competitor) (got cost, err error) {
	fresh, err := b.newCluster(ctx)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, fresh.Remove(context.WithoutCancel(ctx))) }()
	p, err := b.place(ctx, db, old, fresh)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, p.remove(ctx)) }()
	if !c.creates {
		if err := fresh.Exec(ctx, "", "CREATE DATABASE "+db); err != nil {
			return got, err
		}
	}
	split := ""
	p.options = fmt.Sprintf("copy: {jobs: %d, index_jobs: %d}\n", b.Jobs, b.Jobs)
	if sh.chunk != nil {
		p.options = fmt.Sprintf("copy: {jobs: %d, index_jobs: %d, chunk: %dMB}\n", b.Jobs, b.Jobs, sh.chunk(mb))
		split = fmt.Sprintf("--split-tables-larger-than %dMB", sh.chunk(mb))
	}
	p.env = append(p.env, "SPLIT="+split)
	if err := p.runbook(ctx); err != nil {
		return got, err
	}
	// What the one before left to be written is not this one's.
	if err := old.Exec(ctx, "", "CHECKPOINT"); err != nil {
		return got, err
	}
	if _, err := b.lab.Run(ctx, "sync"); err != nil {
		return got, err
	}
	if got, err = p.run(ctx, c.script); err != nil {
		return got, err
	}
	for _, took := range p.steps() {
		got.Steps += took
	}
	if err := p.whole(ctx); err != nil {
		return got, err
	}
	if c.after != "" {
		if _, err := p.run(ctx, c.after); err != nil {
			return got, fmt.Errorf("undo it: %w", err)
		}
	}
	return got, nil
}

// steps are the seconds of crossfade's steps that have ended.
func (p *place) steps() map[string]float64 {
	seconds := map[string]float64{}
	events, err := os.ReadFile(filepath.Join(p.dir, "events"))
	if err != nil {
		return seconds
	}
	for line := range strings.Lines(string(events)) {
		var e struct {
			Kind, Step string
			Seconds    *float64
		}
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind == "end" && e.Seconds != nil {
			seconds[e.Step] = *e.Seconds
		}
	}
	return seconds
}

// mostMemory is what the tool may take, whatever the data.
const mostMemory = 150 << 20

func commands(field []competitor) []Command {
	var all []Command
	for _, c := range field {
		all = append(all, Command{c.name, c.script})
	}
	return all
}

// copies is the copy of the plain data set by everybody.
func (b *bench) copies(ctx context.Context) (*Report, error) {
	field := b.field()
	t, err := b.race(ctx, plain, b.MB, field)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Title: "The copy",
		Says: []string{
			fmt.Sprintf("Data: %s; %s with TOAST, without indexes. The time is that of the whole command, schema, rows, indexes and constraints. crossfade's has its checks, the slots and the publications in it, and a look at both servers for the forecast, which takes at most 5 s whatever the data; `its steps` is the time without these looks. `pgcopydb clone` has its VACUUM in it. Processor is the time that both servers and the programs took of all cores, which other work on the machine disturbs less.", plain.says, megabytes(t.bytes)),
			b.targets(t),
		},
		Tables: []Table{{Header: []string{"competitor", "median", "spread", "to pgcopydb", "to the floor", "processor"}}}, Commands: commands(field),
	}
	for _, c := range field {
		m := t.median(c.name)
		r.Tables[0].Rows = append(r.Tables[0].Rows, []string{c.name, seconds(m), spread(t.seconds[c.name]), ratio(m, t.median(pgcdb)), ratio(m, t.median(floor)), seconds(median(t.cpu[c.name]))})
	}
	m := median(t.steps)
	r.Tables[0].Rows = slices.Insert(r.Tables[0].Rows, 1, []string{"crossfade, its steps", seconds(m), spread(t.steps), ratio(m, t.median(pgcdb)), ratio(m, t.median(floor)), ""})
	return r, nil
}

// targets says how far the aims were met.
func (b *bench) targets(t *times) string {
	m, s := t.median(ours), median(t.steps)
	return fmt.Sprintf("Aims: at most 0.80 of pgcopydb's time, it is %s (%s its steps); at most 1.10 of the floor, it is %s (%s its steps); the tool in less than %s, it took %s.",
		ratio(m, t.median(pgcdb)), ratio(s, t.median(pgcdb)), ratio(m, t.median(floor)), ratio(s, t.median(floor)), megabytes(mostMemory), megabytes(t.memory[ours]))
}

// shapes is the copy of the skewed data sets by those who matter.
func (b *bench) shapes(ctx context.Context) (*Report, error) {
	field := b.field(ours, pgcdb, floor)
	r := &Report{
		Title:    "The copy of skewed shapes",
		Tables:   []Table{{Header: []string{"shape", "size", ours, "its steps", "memory", pgcdb, "floor", "to pgcopydb", "to the floor", "processor: " + ours, pgcdb, "floor"}}},
		Commands: commands(field),
	}
	for _, sh := range skewed {
		if !slices.Contains(b.Shapes, sh.name) {
			continue
		}
		t, err := b.race(ctx, sh, b.MB, field)
		if err != nil {
			return nil, err
		}
		m, p, f := t.median(ours), t.median(pgcdb), t.median(floor)
		r.Says = append(r.Says, "`"+sh.name+"`: "+sh.says+".")
		for _, c := range field {
			if math.IsNaN(t.median(c.name)) {
				r.Says = append(r.Says, fmt.Sprintf("%s did not end within %s on `%s`.", c.name, lapLimit, sh.name))
			}
		}
		r.Tables[0].Rows = append(r.Tables[0].Rows, []string{
			sh.name, megabytes(t.bytes), seconds(m), seconds(median(t.steps)), megabytes(t.memory[ours]), seconds(p), seconds(f), ratio(m, p), ratio(m, f),
			seconds(median(t.cpu[ours])), seconds(median(t.cpu[pgcdb])), seconds(median(t.cpu[floor])),
		})
	}
	return r, nil
}
