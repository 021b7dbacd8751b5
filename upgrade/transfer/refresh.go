package transfer

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// againLimit is how long a crossing brings materialized views up to date after
// open: what the operator runs then, such as background jobs, waits for it.
const againLimit = 30 * time.Second

// refreshStep fills the materialized views of a database on new, those that old
// has filled. ok: there are some.
func (tf *Transfer) refreshStep(db *survey.Database) (step flow.Step, ok bool) {
	var refresh []flow.Effect
	for _, v := range filled(db.Inventory) {
		refresh = append(refresh, flow.SQL("new", db.Name, v.Refresh()))
	}
	return flow.Step{
		ID: "refresh/" + db.Name, Title: "Fill the materialized views of " + db.Name + " on new", Does: refresh,
		Done: func(ctx context.Context) (bool, error) {
			empty, err := tf.unfilled(ctx, "new", db)
			return len(empty) == 0, err
		},
		Do: tf.c.Exec(refresh, nil),
	}, len(refresh) > 0
}

// unfilled are the materialized views of a side that hold nothing, of those
// that the side which serves has filled.
func (tf *Transfer) unfilled(ctx context.Context, side string, db *survey.Database) (map[string]bool, error) {
	var names []string
	for _, v := range filled(db.Inventory) {
		names = append(names, v.SQL())
	}
	empty := map[string]bool{}
	if len(names) == 0 {
		return empty, nil
	}
	err := tf.c.In(ctx, side, db.Name, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, "SELECT n FROM unnest($1::text[]) n JOIN pg_class c ON c.oid = to_regclass(n) WHERE NOT c.relispopulated", names)
		if err != nil {
			return err
		}
		var name string
		_, err = pgx.ForEachRow(rows, []any{&name}, func() error { empty[name] = true; return nil })
		return err
	})
	if pg.SQLState(err) == "3D000" {
		return empty, nil // a plan drawn before the database is there
	}
	if err != nil {
		return nil, &pg.Error{Doing: "look at the materialized views of " + db.Name, On: tf.c.Side(side).String(), Err: err}
	}
	return empty, nil
}

// filled are the materialized views with something in them.
func filled(inv *schema.Inventory) []schema.MaterializedView {
	var some []schema.MaterializedView
	for _, v := range inv.MaterializedViews {
		if v.Populated {
			some = append(some, v)
		}
	}
	return some
}

// RefreshSteps bring the materialized views of the side that will be opened up
// to date. Nothing replicates them, so that those of new show what was there
// when prepare filled them, and those of old what was there at the cutover.
// Ahead of the crossing, where nobody works on that side, all of them are
// refreshed; after open once more those whose readers need not wait for it.
func (tf *Transfer) RefreshSteps(ctx context.Context, s *survey.Survey, side string) (ahead, again []flow.Step, err error) {
	var first, second []flow.Effect
	var stay []string
	for _, db := range s.Databases {
		var empty map[string]bool
		if s.Silent(side) == nil {
			if empty, err = tf.unfilled(ctx, side, db); err != nil {
				return nil, nil, err
			}
		}
		for _, v := range filled(db.Inventory) {
			e := flow.SQL(side, db.Name, v.RefreshAgain())
			if v.Unique {
				second = append(second, e)
			} else {
				stay = append(stay, v.String()+" of "+db.Name)
			}
			if empty[v.SQL()] {
				e.SQL = v.Refresh() // CONCURRENTLY needs something in it
			}
			first = append(first, e)
		}
	}
	if len(first) == 0 {
		return nil, nil, nil
	}
	ahead = []flow.Step{{
		ID: "refresh/ahead", Title: "Bring the materialized views of " + side + " up to date", Does: first, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			return tf.refresh(ctx, t, first, tf.c.Book.Cutover.Patience)
		},
	}}
	again = []flow.Step{{
		ID: "refresh/again", Title: "Bring those up to date again whose readers need not wait", Does: second, Late: true, Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			if len(stay) > 0 {
				t.Note("materialized views that have no unique index show what was there just before the cutover, because their readers would wait: REFRESH them when they may: %s", strings.Join(stay, ", "))
			}
			return tf.refresh(ctx, t, second, againLimit)
		},
	}}
	return ahead, again, nil
}

// refresh executes statements that refresh materialized views, in their order,
// for at most limit. One that fails is reported and left: it shows what it showed
// before, as where the application's own REFRESH fails.
func (tf *Transfer) refresh(ctx context.Context, t *flow.Turn, does []flow.Effect, limit time.Duration) error {
	until := time.Now().Add(limit)
	for i, e := range does {
		t.Progress(int64(i), int64(len(does)), "materialized views", e.Database)
		err := tf.refreshOne(ctx, e, until)
		switch state := pg.SQLState(err); {
		case err == nil:
		case ctx.Err() != nil, state == "", strings.HasPrefix(state, "57P"):
			return err // the server is gone, or nobody wants it any more
		default:
			t.Note("not up to date: %v; run it again by hand: %s", err, e.SQL)
		}
	}
	return nil
}

// refreshOne waits 50 ms at a time for its lock, so that readers after it wait
// no longer.
func (tf *Transfer) refreshOne(ctx context.Context, e flow.Effect, until time.Time) error {
	var last error
	err := pg.Poll(ctx, clusters.LockPause, "a lock for "+pg.Brief(e.SQL), func(ctx context.Context) (bool, error) {
		left := max(time.Until(until).Milliseconds(), 1)
		last = tf.c.In(ctx, e.On, e.Database, func(conn *pgx.Conn) error {
			return pg.Exec(ctx, conn, fmt.Sprintf("SET LOCAL lock_timeout = '50ms'; SET LOCAL statement_timeout = %d; %s", left, e.SQL))
		})
		if pg.SQLState(last) == "55P03" && time.Now().Before(until) {
			return false, nil
		}
		return last == nil, last
	})
	if err != nil {
		return &pg.Error{Doing: pg.Brief(e.SQL), On: tf.c.Side(e.On).String() + ", database " + e.Database, Err: err}
	}
	return nil
}
