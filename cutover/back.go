package cutover

import (
	"context"
	"slices"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// backProve makes the way back and proves it with a canary while nothing else
// can travel over it: the opening side is closed. Whatever an earlier attempt
// left is taken away first, because its slot may have a gap.
func (x *crossing) backProve() flow.Step {
	var drop, does []flow.Effect
	for _, db := range x.Databases {
		does = append(does, slots(db.Way)...)
		for _, l := range db.Way {
			does = append(does, l.DropSlot(), l.Subscription(false))
			drop = append(drop, l.DropSubscription()...)
		}
		if len(db.Way) > 0 {
			does = append(does, link.EnableAll(db.Way), link.CanaryEffect(db.Way))
		}
	}
	undoes := slices.Clone(drop)
	for _, db := range x.Databases {
		for _, l := range db.Way {
			undoes = append(undoes, l.DropSlot())
		}
	}
	return x.blockedStep(flow.Step{
		ID: "back/prove", Title: "Make the way back and prove it", Does: append(append([]flow.Effect{}, drop...), does...), Undoes: undoes,
		Do: func(ctx context.Context, _ *flow.Turn) error {
			return x.each(ctx, func(ctx context.Context, db *Database) error { return x.proveDatabase(ctx, db) })
		},
		Undo: func(ctx context.Context, _ *flow.Turn) error {
			return x.each(ctx, func(ctx context.Context, db *Database) error { return x.dropWay(ctx, db) })
		},
	})
}

// dropWay takes the way back away, whatever of it is there.
func (x *crossing) dropWay(ctx context.Context, db *Database) error {
	sender, err := x.away(ctx, db.Name)
	if err != nil {
		return err
	}
	applier, err := x.near(ctx, db.Name)
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

func (x *crossing) proveDatabase(ctx context.Context, db *Database) error {
	if err := x.dropWay(ctx, db); err != nil {
		return err
	}
	sender, err := x.away(ctx, db.Name)
	if err != nil {
		return err
	}
	applier, err := x.near(ctx, db.Name)
	if err != nil {
		return err
	}
	for i, e := range slots(db.Way) {
		if err := pg.Exec(ctx, sender, e.SQL); err != nil {
			return &pg.Error{Doing: "create slot " + db.Way[i].Name, On: db.Way[i].From.Server.String(), Err: err}
		}
	}
	for _, l := range db.Way {
		if err := pg.Exec(ctx, applier, l.Subscription(false).Fill(l.Vars()).SQL); err != nil {
			return &pg.Error{
				Doing: "create subscription " + l.Name, On: l.To.Server.String() + ", database " + l.Database, Err: err,
				Hint: "the way back needs " + l.To.Side + " to reach " + l.From.Side + ": from_old and from_new in the runbook, and pg_hba.conf there",
			}
		}
	}
	if len(db.Way) == 0 {
		return nil
	}
	if err := pg.Exec(ctx, applier, link.EnableAll(db.Way).SQL); err != nil {
		return &pg.Error{Doing: "enable the way back", On: x.Closing.Server.String() + ", database " + db.Name, Err: err}
	}
	if _, err := link.Pass(ctx, sender, applier, db.Way); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.canaries += len(db.Way)
	return nil
}
