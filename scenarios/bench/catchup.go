package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/scenarios/lab"
)

// applied is one way to apply what old has written.
type applied struct {
	sets              int
	binary, streaming string
}

func (a applied) String() string {
	return fmt.Sprintf("%d sets, binary %s, streaming %s", a.sets, a.binary, a.streaming)
}

// catchupTables is how many tables there are to share among the sets.
const catchupTables = 4

// catchups measures how fast subscriptions apply: the same changes each time,
// from slots that were made before them. An old that streams in parallel to nobody
// is not all there is to know of that: majors which do are measured too.
func (b *bench) catchups(ctx context.Context) (*Report, error) {
	const parallelSince, from, to = 16, 17, 18
	r := &Report{Title: "Catching up"}
	majors := [][2]int{{b.Old, b.New}}
	if b.Old < parallelSince {
		majors = append(majors, [2]int{from, to})
	}
	for _, m := range majors {
		streams := "on"
		if min(m[0], m[1]) >= parallelSince {
			streams = "parallel"
		}
		pair := *b
		if m[0] != b.Old {
			pair.Old, pair.New, pair.old = m[0], m[1], nil
		}
		if err := pair.catchupTable(ctx, r, streams); err != nil {
			return nil, err
		}
		if m[0] == b.Old {
			b.old = pair.old
		} else if err := pair.old.Remove(ctx); err != nil {
			return nil, err
		}
		b.count = pair.count
	}
	return r, nil
}

// catchupTable measures every way between two majors.
func (b *bench) catchupTable(ctx context.Context, r *Report, streams string) error {
	var ways []applied
	for _, sets := range []int{1, 2, 4} {
		for _, binary := range []string{"false", "true"} {
			for _, streaming := range []string{"off", streams} {
				ways = append(ways, applied{sets, binary, streaming})
			}
		}
	}
	changes, took, err := b.catchup(ctx, b.MB, ways)
	if err != nil {
		return err
	}
	r.Says = []string{
		fmt.Sprintf("%d changes of small transactions and of four that are larger than logical_decoding_work_mem, over %d tables, written before the subscriptions are there; the time is from CREATE SUBSCRIPTION to the last row, processor what both servers took of all cores meanwhile, which other work on the machine disturbs less. Parallel streaming needs 16 on both sides; between others it streams into files (`on`).", changes, catchupTables),
		"crossfade makes one set a database unless the runbook has more. Its subscriptions take binary where each column of the set has a type whose binary form is the same on all majors (no enum, composite or reg…), else text, and stream: `on`, or `parallel` where old is 16 or later and new has the fix of 16.12, 17.8 and 18.2.",
	}
	t := Table{Title: fmt.Sprintf("From %d to %d:", b.Old, b.New), Header: []string{"sets", "format", "streaming", "median", "spread", "changes a second", "per link", "processor"}}
	for i, w := range ways {
		times, cpu := columns(took[i])
		m := median(times)
		rate := float64(changes) / m
		format := map[string]string{"true": "binary", "false": "text"}[w.binary]
		t.Rows = append(t.Rows, []string{
			fmt.Sprint(w.sets), format, w.streaming, seconds(m), spread(times), fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.0f", rate/float64(w.sets)), seconds(median(cpu)),
		})
	}
	r.Tables = append(r.Tables, t)
	return nil
}

// columns are the seconds of some laps, and their seconds of processor.
func columns(laps []cost) (times, cpu []float64) {
	for _, c := range laps {
		times, cpu = append(times, c.Seconds), append(cpu, c.CPU)
	}
	return times, cpu
}

// catchup lets each way apply the same changes, round by round, as many as go
// with so many megabytes.
func (b *bench) catchup(ctx context.Context, mb int, ways []applied) (changes int, took [][]cost, err error) {
	old, err := b.oldCluster(ctx)
	if err != nil {
		return 0, nil, err
	}
	fresh, err := b.newCluster(ctx)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, fresh.Remove(context.WithoutCancel(ctx))) }()
	const db = "catchup"
	var tables []string
	for i := range catchupTables {
		tables = append(tables, fmt.Sprintf("CREATE TABLE c_%d (id bigint PRIMARY KEY, a int NOT NULL, b text NOT NULL, c timestamptz NOT NULL, d double precision NOT NULL)", i))
	}
	tables = append(tables, "CREATE TABLE marks (id int PRIMARY KEY)")
	for _, c := range []*lab.Cluster{old, fresh} {
		if err := c.Exec(ctx, "", "CREATE DATABASE "+db); err != nil {
			return 0, nil, err
		}
		if err := c.Exec(ctx, db, tables...); err != nil {
			return 0, nil, err
		}
	}
	if err := slotsFor(ctx, old, db, ways, b.Rounds); err != nil {
		return 0, nil, err
	}
	if changes, err = b.changes(ctx, old, db, mb); err != nil {
		return 0, nil, err
	}
	took = make([][]cost, len(ways))
	for round := range b.Rounds {
		for i := range ways {
			i := (i + round) % len(ways)
			d, err := apply(ctx, old, fresh, db, ways[i], round)
			if err != nil {
				return 0, nil, fmt.Errorf("%s: %w", ways[i], err)
			}
			b.Say(fmt.Sprintf("%d changes, round %d: %s: %.2f s, %.2f s of processor", changes, round+1, ways[i], d.Seconds, d.CPU))
			took[i] = append(took[i], d)
		}
	}
	return changes, took, old.Exec(ctx, "", "DROP DATABASE "+db)
}

func (a applied) link(set, round int) string {
	return fmt.Sprintf("c_%d_%s_%s_%d_%d", a.sets, a.binary[:1], a.streaming, set, round)
}

// slotsFor makes a publication of each set, and for each round a slot of each
// way's every set.
func slotsFor(ctx context.Context, old *lab.Cluster, db string, ways []applied, rounds int) error {
	published := map[string]bool{}
	for _, w := range ways {
		for set := range w.sets {
			publication := fmt.Sprintf("p_%d_%d", w.sets, set)
			if !published[publication] {
				published[publication] = true
				list := ""
				for i := set; i < catchupTables; i += w.sets {
					list += fmt.Sprintf("c_%d, ", i)
				}
				if err := old.Exec(ctx, db, "CREATE PUBLICATION "+publication+" FOR TABLE "+list+"marks WITH (publish = 'insert, update, delete')"); err != nil {
					return err
				}
			}
			for round := range rounds {
				if err := old.Exec(ctx, db, "SELECT pg_create_logical_replication_slot('"+w.link(set, round)+"', 'pgoutput')"); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// changes writes them and says how many there are.
func (b *bench) changes(ctx context.Context, old *lab.Cluster, db string, mb int) (int, error) {
	small, large := mb*50, mb*250
	n := 0
	for i := range catchupTables {
		sql := fmt.Sprintf(`DO $do$ BEGIN FOR i IN 1..%d LOOP
			INSERT INTO c_%d VALUES (i, i %% 100, md5(i::text), now(), sqrt(i));
			UPDATE c_%d SET a = a + 1, b = b || 'x' WHERE id = i;
			COMMIT;
		END LOOP; END $do$`, small, i, i)
		// In the middle of the small ones a large one.
		big := fmt.Sprintf("INSERT INTO c_%d SELECT g, g %% 100, md5(g::text), now(), sqrt(g) FROM generate_series(%d, %d) g", i, small+1, small+large)
		if err := old.Exec(ctx, db, "SET synchronous_commit = off; "+big); err != nil {
			return 0, err
		}
		if err := old.Exec(ctx, db, sql); err != nil {
			return 0, err
		}
		n += 2*small + large
	}
	return n, old.Exec(ctx, db, "INSERT INTO marks VALUES (1)")
}

// apply subscribes and waits for the mark of every set.
func apply(ctx context.Context, old, fresh *lab.Cluster, db string, w applied, round int) (took cost, err error) {
	// One mark a set: the sets' subscriptions would collide on its key.
	if err := fresh.Exec(ctx, db, "TRUNCATE marks, c_0, c_1, c_2, c_3", "ALTER TABLE marks DROP CONSTRAINT IF EXISTS marks_pkey", "CHECKPOINT"); err != nil {
		return took, err
	}
	both := &place{old: old, new: fresh}
	began, cpu := time.Now(), both.cpu()
	for set := range w.sets {
		err := fresh.Exec(ctx, db, fmt.Sprintf("CREATE SUBSCRIPTION %s CONNECTION '%s' PUBLICATION p_%d_%d WITH (create_slot = false, copy_data = false, binary = %s, streaming = %s, synchronous_commit = off)",
			w.link(set, round), old.Conninfo(db), w.sets, set, w.binary, w.streaming))
		if err != nil {
			return took, err
		}
	}
	if err := fresh.Until(ctx, db, fmt.Sprintf("SELECT count(*) = %d FROM marks", w.sets)); err != nil {
		return took, err
	}
	took.Seconds, took.CPU = time.Since(began).Seconds(), both.cpu()-cpu
	for set := range w.sets {
		if err := fresh.Exec(ctx, db, "DROP SUBSCRIPTION "+w.link(set, round)); err != nil {
			return took, err
		}
	}
	for i := range catchupTables {
		sql := fmt.Sprintf("SELECT count(*) || ' ' || sum(a) FROM c_%d", i)
		want, werr := old.Value(ctx, db, sql)
		got, gerr := fresh.Value(ctx, db, sql)
		if err := errors.Join(werr, gerr); err != nil {
			return took, err
		}
		if want != got {
			return took, fmt.Errorf("c_%d on new is not what it is on old: %s, and %s", i, got, want)
		}
	}
	return took, nil
}
