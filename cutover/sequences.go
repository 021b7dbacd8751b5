package cutover

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// SetSequences is what schema.SetSequences writes; the values are known only
// when they are read on the closing side.
const SetSequences = "SELECT count(setval(v.name::regclass, v.value, v.called)) FROM (VALUES $sequences) v(name, value, called)"

// sequences are those of the closing side, whose values the opening side gets.
type sequences struct {
	*attempt
	clients *clients
}

func (q *sequences) aheadEffects() []flow.Effect {
	if q.rehearsal != nil {
		return nil // they are read, and not set
	}
	var does []flow.Effect
	for _, db := range q.databases {
		if db.Sequences > 0 {
			does = append(does, q.on(q.Opening, db.Name, SetSequences))
		}
	}
	return does
}

// aheadOfTheWindow sets the sequences once before anybody is blocked, so that
// only those that move meanwhile are written inside, and of those that do not
// nothing but the values is read.
func (q *sequences) aheadOfTheWindow(ctx context.Context) error {
	return q.each(ctx, func(ctx context.Context, db *database) error {
		q.mu.Lock()
		before := db.seqs
		q.mu.Unlock()
		now, err := q.know(ctx, db)
		if err != nil {
			return err
		}
		if before != nil { // the gate has read them, a while ago
			q.mu.Lock()
			for _, s := range moved(before, now) {
				db.moving[s.SQL()] = true
			}
			q.mu.Unlock()
		}
		_, err = q.set(ctx, db, before, now)
		return err
	})
}

// busy are the sequences of a database that moved between the gate and the
// barrier: those that may be expected to have moved since. All are read when the
// last client is gone.
func (q *sequences) busy(db *database) []schema.Sequence {
	q.mu.Lock()
	defer q.mu.Unlock()
	var some []schema.Sequence
	for _, s := range db.seqs {
		if db.moving[s.SQL()] {
			some = append(some, s)
		}
	}
	return some
}

// know reads all of the sequences of a database, on both sides.
func (q *sequences) know(ctx context.Context, db *database) ([]schema.Sequence, error) {
	from, to, err := q.ends(ctx, db)
	if err != nil {
		return nil, err
	}
	now, err := schema.ReadSequences(ctx, from)
	if err != nil {
		return nil, err
	}
	theirs, err := schema.ReadSequences(ctx, to)
	if err != nil {
		return nil, err
	}
	at := make(map[string]schema.Sequence, len(theirs))
	for _, s := range theirs {
		at[s.SQL()] = s
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	db.theirs = at
	return db.ours(now), nil
}

// copyAll is copySome for every sequence. There are no others than
// those that are known: from arm on nobody makes any, and the fingerprint would
// tell.
func (q *sequences) copyAll(ctx context.Context, db *database) (int, error) {
	q.mu.Lock()
	known := db.seqs
	q.mu.Unlock()
	if known != nil {
		return q.copySome(ctx, db, known)
	}
	now, err := q.know(ctx, db) // this run has not begun the attempt
	if err != nil {
		return 0, err
	}
	return q.set(ctx, db, nil, now)
}

// copySome writes those of some sequences that moved since the last time,
// reads them back, and returns how many it wrote.
func (q *sequences) copySome(ctx context.Context, db *database, some []schema.Sequence) (int, error) {
	if len(some) == 0 {
		return 0, nil
	}
	from, err := q.onClosing(ctx, db.Name)
	if err != nil {
		return 0, err
	}
	now, err := schema.ReadValues(ctx, from, q.Closing.Version, some)
	if err != nil {
		return 0, err
	}
	return q.set(ctx, db, some, now)
}

// set sets those of now that stood elsewhere before, sees that they
// stand there, and remembers where.
func (q *sequences) set(ctx context.Context, db *database, before, now []schema.Sequence) (int, error) {
	moved := moved(before, now)
	sql, n := schema.SetSequences(moved, q.Margin)
	if n > 0 {
		to, err := q.onOpening(ctx, db.Name)
		if err != nil {
			return 0, err
		}
		if q.rehearsal == nil {
			if err := pg.Exec(ctx, to, sql); err != nil {
				return 0, &pg.Error{Doing: "set the sequences", On: q.Opening.Server.String() + ", database " + db.Name, Err: err}
			}
		}
		q.mu.Lock()
		theirs := db.theirs
		q.mu.Unlock()
		var there []schema.Sequence
		for _, s := range moved {
			if t, ok := theirs[s.SQL()]; ok {
				there = append(there, t)
			}
		}
		back, err := schema.ReadValues(ctx, to, q.Opening.Version, there)
		if err != nil {
			return 0, err
		}
		if behind := schema.Stale(moved, back, q.Margin); q.rehearsal == nil && len(behind) > 0 {
			return 0, fmt.Errorf("sequences of %s on %s do not stand where they were set: %v", db.Name, q.Opening.Name, behind)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(now) >= len(db.seqs) {
		db.seqs = now
		return n, nil
	}
	at := make(map[uint32]schema.Sequence, len(now))
	for _, s := range now {
		at[s.OID] = s
	}
	all := slices.Clone(db.seqs)
	for i, s := range all {
		if t, ok := at[s.OID]; ok {
			all[i] = t
		}
	}
	db.seqs = all
	return n, nil
}

// ours are the sequences that move with the database's tables.
func (db *Database) ours(all []schema.Sequence) []schema.Sequence {
	if db.Apart == nil {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(s schema.Sequence) bool { return db.Apart(s.SQL()) })
}

// moved are the sequences of now that stood elsewhere before.
func moved(before, now []schema.Sequence) []schema.Sequence {
	type at struct {
		last   int64
		called bool
	}
	stood := make(map[string]at, len(before))
	for _, s := range before {
		if s.Last != nil {
			stood[s.SQL()] = at{*s.Last, s.Called}
		}
	}
	var m []schema.Sequence
	for _, s := range now {
		if b, ok := stood[s.SQL()]; s.Last != nil && (!ok || b != (at{*s.Last, s.Called})) {
			m = append(m, s)
		}
	}
	return m
}

func (q *sequences) step() flow.Step {
	return q.blockedStep(flow.Step{
		ID: "sequences", Title: "Set the sequences that move", Does: q.aheadEffects(),
		Cost: flow.Cost{Base: 2 * time.Millisecond, Sequence: 5 * time.Microsecond, Trips: 4},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			return q.each(ctx, func(ctx context.Context, db *database) error {
				_, err := q.copySome(ctx, db, q.busy(db))
				return err
			})
		},
	})
}

// sequencesTime is how long a run that goes on after open may take to look at the
// closed side's sequences; that side may be gone for good.
const sequencesTime = 10 * time.Second

// again raises, after open, the sequences of the opening side that the
// closed side has passed: a client with a transaction that is READ WRITE by its own
// word could use them while no run of ours was there. It comes before everything
// else of a run that goes on, so that a database which is still to be opened hands
// out nothing twice. What clients have used meanwhile only moves further.
func (q *sequences) again() flow.Step {
	does := []flow.Effect{q.clients.endEffect(q.Closing, q.Home)}
	for _, db := range q.databases {
		if db.Sequences > 0 {
			does = append(does, q.on(q.Opening, db.Name, SetSequences))
		}
	}
	return flow.Step{
		ID: "sequences/again", Title: "Raise the sequences of " + q.Opening.Name + " that " + q.Closing.Name + " has passed", Does: does, Done: never,
		Timeout: sequencesTime,
		Do: func(ctx context.Context, t *flow.Turn) error {
			return q.ifThere(ctx, t, "its sequences were not compared", func(ctx context.Context) error {
				conn, err := q.onClosing(ctx, q.Home)
				if err == nil {
					err = q.clients.end(ctx, conn, q.Closing)
				}
				if err != nil {
					return err
				}
				return q.each(ctx, func(ctx context.Context, db *database) error {
					n, err := q.raisePassed(ctx, db)
					if n > 0 {
						t.Note("%d sequences of %s were used on %s after it was closed; %s goes on after them", n, db.Name, q.Closing.Name, q.Opening.Name)
					}
					return err
				})
			})
		},
	}
}

// raisePassed raises the sequences of one database that the closed side has passed,
// and returns how many.
func (q *sequences) raisePassed(ctx context.Context, db *database) (int, error) {
	from, err := q.know(ctx, db)
	if err != nil {
		return 0, err
	}
	q.mu.Lock()
	theirs := slices.Collect(maps.Values(db.theirs))
	q.mu.Unlock()
	passed := schema.Passed(from, theirs)
	sql, n := schema.SetSequences(passed, q.Margin)
	if n == 0 {
		return 0, nil
	}
	to, err := q.onOpening(ctx, db.Name)
	if err != nil {
		return 0, err
	}
	if err := pg.Exec(ctx, to, sql); err != nil {
		return 0, &pg.Error{Doing: "raise the sequences", On: q.Opening.Server.String() + ", database " + db.Name, Err: err}
	}
	return n, nil
}
