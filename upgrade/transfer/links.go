package transfer

import (
	"context"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// PublicationsStep makes the publications of one direction, before any slot.
// CREATE PUBLICATION waits for locks on its tables no longer than 50 ms at a
// time.
func (tf *Transfer) PublicationsStep(db *survey.Database, links []link.Link) flow.Step {
	id, title := "publications/"+db.Name, "Publish the sets of "+db.Name+" on old"
	var does []flow.Effect
	for _, l := range links {
		does = append(does, l.Publication())
		if !l.Forward {
			id, title = "publications-back/"+db.Name, "Publish the sets of "+db.Name+" on new, for the way back"
		}
	}
	there := func(ctx context.Context) (map[string]bool, error) {
		have := map[string]bool{}
		if len(links) == 0 {
			return have, nil
		}
		err := tf.c.Sessions.Do(ctx, links[0].From.Server, func(conn *pgx.Conn) error {
			rows, err := conn.Query(ctx, "SELECT pubname::text FROM pg_publication")
			if err != nil {
				return err
			}
			var name string
			_, err = pgx.ForEachRow(rows, []any{&name}, func() error { have[name] = true; return nil })
			return err
		})
		return have, err
	}
	return flow.Step{
		ID: id, Title: title, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			have, err := there(ctx)
			for _, l := range links {
				if !have[l.Name] {
					return false, err
				}
			}
			return err == nil, err
		},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			have, err := there(ctx)
			if err != nil {
				return err
			}
			for i, l := range links {
				if have[l.Name] {
					continue
				}
				if err := tf.c.UnderLock(ctx, does[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// SubscribeStep makes the subscriptions on the slots that the copy began with,
// and starts applying: primary keys and identity indexes exist by now.
func (tf *Transfer) SubscribeStep(s *survey.Survey, db *survey.Database) flow.Step {
	var does []flow.Effect
	each := make([][]flow.Effect, len(db.Links))
	for i, l := range db.Links {
		each[i] = []flow.Effect{l.Subscription(false)}
		if e, ok := l.Failover(); ok {
			each[i] = append(each[i], e)
		}
		each[i] = append(each[i], l.Enable())
		does = append(does, each[i]...)
	}
	return flow.Step{
		ID: "subscriptions/" + db.Name, Title: "Subscribe to the sets of " + db.Name, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			at, err := s.Positions(ctx, db.Name, db.Links)
			for _, p := range at {
				if !p.Subscription || !p.Enabled {
					return false, err
				}
			}
			return err == nil, err
		},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			at, err := s.Positions(ctx, db.Name, db.Links)
			if err != nil {
				return err
			}
			for i, l := range db.Links {
				for j, e := range each[i] {
					if at[l.Name].Subscription && (j == 0 || at[l.Name].Enabled) {
						continue
					}
					if err := tf.c.Do(ctx, e); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// pass writes a canary through links and waits until the other side shows it.
func (tf *Transfer) pass(ctx context.Context, db *survey.Database, links []link.Link) (pg.LSN, error) {
	var at pg.LSN
	if len(links) == 0 {
		return 0, nil
	}
	err := tf.c.Pair(ctx, links[0].From.Server, links[0].To.Server, func(from, to *pgx.Conn) (err error) {
		at, err = link.Pass(ctx, from, to, links)
		return err
	})
	return at, err
}
