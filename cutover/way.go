package cutover

import (
	"context"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// way is the way back: links from the opening to the closing side.
type way struct{ *attempt }

// drops is what takes the way back away, whatever of it is there.
func (w *way) drops() []flow.Effect {
	var drop []flow.Effect
	for _, db := range w.databases {
		for _, l := range db.Way {
			drop = append(drop, l.DropSubscription()...)
			drop = append(drop, l.DropSlot())
		}
	}
	return drop
}

// makeStep makes the subscriptions of the way back while nobody is blocked:
// disabled, and without the slots that only the fence may make. Whatever an
// earlier attempt left is taken away first, because its slot may have a gap.
func (w *way) makeStep() flow.Step {
	does, undoes := w.drops(), w.drops()
	for _, db := range w.databases {
		does = append(does, w.pins(db)...)
		undoes = append(undoes, w.unpins(db)...)
		for _, l := range db.Way {
			does = append(does, l.Subscription(false))
		}
	}
	return flow.Step{
		ID: "back/make", Title: "Make the subscriptions of the way back, disabled", Does: does, Undoes: undoes, Done: never,
		Cost: flow.Cost{Base: 20 * time.Millisecond, Set: 15 * time.Millisecond, Trips: 4},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			return w.each(ctx, func(ctx context.Context, db *database) error { return w.makeLinks(ctx, db) })
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			return w.each(ctx, func(ctx context.Context, db *database) error {
				if err := w.drop(ctx, db); err != nil {
					return err
				}
				return w.run(ctx, w.unpins(db), nil)
			})
		},
	}
}

// pins are the settings with which the way back applies, unpins undo them.
func (w *way) pins(db *database) []flow.Effect {
	if len(db.Way) == 0 {
		return nil
	}
	return []flow.Effect{w.on(w.Closing, db.Name, db.Pin)}
}

func (w *way) unpins(db *database) []flow.Effect {
	if db.Unpin == "" {
		return nil
	}
	return []flow.Effect{w.on(w.Closing, db.Name, db.Unpin)}
}

func (w *way) makeLinks(ctx context.Context, db *database) error {
	if err := w.drop(ctx, db); err != nil {
		return err
	}
	if err := w.run(ctx, w.pins(db), nil); err != nil {
		return err
	}
	applier, err := w.onClosing(ctx, db.Name)
	if err != nil {
		return err
	}
	for _, l := range db.Way {
		if err := pg.ExecEffect(ctx, applier, l.Subscription(false)); err != nil {
			return &pg.Error{
				Doing: "create subscription " + l.Name, On: l.To.Server.String() + ", database " + l.Database, Err: err,
				Hint: "the way back needs " + l.To.Side + " to reach " + l.From.Side + ": from_old and from_new in the runbook, and pg_hba.conf there",
			}
		}
	}
	return nil
}

// proveStep makes the slots of the way back, lets it run, and proves it with a
// canary while nothing else can travel over it: the opening side is closed.
func (w *way) proveStep() flow.Step {
	var does []flow.Effect
	for _, db := range w.databases {
		does = append(does, slots(db.Way)...)
		if len(db.Way) > 0 {
			does = append(does, link.EnableAll(db.Way), link.CanaryEffect(db.Way))
		}
	}
	return w.blockedStep(flow.Step{
		ID: "back/prove", Title: "Make the slots of the way back and prove it", Does: does, Undoes: w.drops(),
		Cost: flow.Cost{Base: 35 * time.Millisecond, Set: 10 * time.Millisecond, Table: 5 * time.Microsecond, Trips: 10},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			for _, part := range []func(context.Context, *database) error{w.makeSlots, w.letRun, w.proveDatabase} {
				if err := w.each(ctx, part); err != nil {
					return err
				}
			}
			return nil
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			return w.each(ctx, func(ctx context.Context, db *database) error { return w.drop(ctx, db) })
		},
	})
}

// drop takes the way back away, whatever of it is there.
func (w *way) drop(ctx context.Context, db *database) error {
	applier, sender, err := w.ends(ctx, db)
	if err != nil {
		return err
	}
	return DropLinks(ctx, sender, applier, db.Way)
}

// DropLinks drops subscriptions and slots of links of one database, those that
// are there. A nil session leaves its side alone. Subscriptions are parted
// from their slots first, so that neither side needs the other.
func DropLinks(ctx context.Context, from, to *pgx.Conn, links []link.Link) error {
	at, err := link.Positions(ctx, from, to, links)
	if err != nil {
		return err
	}
	for _, l := range links {
		if to != nil && at[l.Name].Subscription {
			for _, e := range l.DropSubscription() {
				if err := pg.Exec(ctx, to, e.SQL); err != nil {
					return &pg.Error{Doing: pg.Brief(e.SQL), On: l.To.Server.String() + ", database " + l.Database, Err: err}
				}
			}
		}
	}
	if from == nil {
		return nil
	}
	if err := link.WaitStopped(ctx, from, nil, links); err != nil {
		return err
	}
	for _, l := range links {
		if at[l.Name].Slot {
			if err := pg.Exec(ctx, from, l.DropSlot().SQL); err != nil {
				return &pg.Error{Doing: "drop slot " + l.Name, On: l.From.Server.String(), Err: err}
			}
		}
	}
	return nil
}

// slots makes one slot for each link of a database: the first waits for the
// running transactions of the cluster, the others are copies of it.
func slots(links []link.Link) []flow.Effect {
	var does []flow.Effect
	for i, l := range links {
		if i == 0 {
			does = append(does, l.CreateSlot())
			continue
		}
		does = append(does, l.CopySlot(links[0]))
	}
	return does
}

// makeSlots makes the slots of the way back. One that exists was made outside
// this fence and may have a gap: it is an error here, and nothing is opened.
func (w *way) makeSlots(ctx context.Context, db *database) error {
	sender, err := w.onOpening(ctx, db.Name)
	if err != nil {
		return err
	}
	for i, e := range slots(db.Way) {
		if err := pg.Exec(ctx, sender, e.SQL); err != nil {
			return &pg.Error{Doing: "create slot " + db.Way[i].Name, On: db.Way[i].From.Server.String(), Err: err}
		}
	}
	return nil
}

// letRun enables the way back. It is a part of its own, begun in all databases
// at once, because a launcher before 16 that has started the workers it saw
// waits for wal_retrieve_retry_interval before it starts others.
func (w *way) letRun(ctx context.Context, db *database) error {
	if len(db.Way) == 0 {
		return nil
	}
	applier, err := w.onClosing(ctx, db.Name)
	if err != nil {
		return err
	}
	if err := pg.Exec(ctx, applier, link.EnableAll(db.Way).SQL); err != nil {
		return &pg.Error{Doing: "enable the way back", On: w.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	return nil
}

// proveDatabase sees a canary at the other end of each link of the way back.
func (w *way) proveDatabase(ctx context.Context, db *database) error {
	if len(db.Way) == 0 {
		return nil
	}
	applier, sender, err := w.ends(ctx, db)
	if err != nil {
		return err
	}
	if _, err := link.Pass(ctx, sender, applier, db.Way); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.canaries += len(db.Way)
	return nil
}
