package upgrade

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// mustPass runs check and returns its blocking findings as an error.
func (u *Upgrade) mustPass(ctx context.Context) error {
	found, err := u.Check(ctx)
	if err != nil {
		return err
	}
	if blocking := check.Blocking(found); len(blocking) > 0 {
		return exit.Blocks(blocking)
	}
	u.passed = true
	return nil
}

// findings tells as findings why a server cannot be worked with, or returns
// err where check finds nothing.
func (u *Upgrade) findings(ctx context.Context, err error) error {
	if cerr := u.mustPass(ctx); cerr != nil {
		return cerr
	}
	return err
}

func (u *Upgrade) checkStep() flow.Step {
	return flow.Step{
		ID: "check", Title: "Look for what blocks the upgrade",
		Done: func(context.Context) (bool, error) { return u.passed, nil },
		Do:   func(ctx context.Context, _ *flow.Turn) error { return u.mustPass(ctx) },
	}
}

// publicationsStep makes the publications of one direction, before any slot.
// CREATE PUBLICATION waits for locks on its tables no longer than 50 ms at a
// time.
func (u *Upgrade) publicationsStep(db *survey.Database, links []link.Link) flow.Step {
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
		err := u.c.Sessions.Do(ctx, links[0].From.Server, func(conn *pgx.Conn) error {
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
				if err := u.c.UnderLock(ctx, does[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// compareStep compares the catalogs of both sides object by object.
func (u *Upgrade) compareStep(s *survey.Survey, db *survey.Database) flow.Step {
	return flow.Step{
		ID: "compare/" + db.Name, Title: "Compare the catalogs of " + db.Name + " object by object", Done: flow.Never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			diff, err := survey.Differences(ctx, u.c, db)
			if err != nil {
				return err
			}
			var bad []string
			hand := s.ByHand()
			for _, d := range diff {
				if d.Expected != "" {
					t.Note("%s: %s", d.Says, d.Expected)
					continue
				}
				bad = append(bad, d.Says)
			}
			if len(bad) > 0 {
				return &exit.Error{
					Code: exit.Failed, Says: fmt.Sprintf("the catalogs of %s differ between old and new:\n  %s", db.Name, strings.Join(bad, "\n  ")),
					Hint: "make the same change on both sides (" + hand + "), then run crossfade prepare again",
				}
			}
			return nil
		},
	}
}

// subscribeStep makes the subscriptions on the slots that the copy began with,
// and starts applying: primary keys and identity indexes exist by now.
func (u *Upgrade) subscribeStep(s *survey.Survey, db *survey.Database) flow.Step {
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
					if err := u.c.Do(ctx, e); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

// catchupStep waits until new has everything but the last max_lag bytes, and
// gives the slots up before they fill old's disk.
func (u *Upgrade) catchupStep(s *survey.Survey, db *survey.Database) flow.Step {
	canary := []flow.Effect{}
	if len(db.Links) > 0 {
		canary = append(canary, link.CanaryEffect(db.Links))
	}
	return flow.Step{
		ID: "catchup/" + db.Name, Title: "Catch up with " + db.Name, Does: canary,
		Done: func(ctx context.Context) (bool, error) {
			worst, err := u.lag(ctx, s, db)
			return err == nil && worst <= u.rb.Catchup.MaxLag, nil
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			c := &catchup{u: u, s: s, db: db, began: time.Now()}
			if err := pg.Poll(ctx, 200*time.Millisecond, "new to catch up with "+db.Name, func(ctx context.Context) (bool, error) { return c.look(ctx, t) }); err != nil {
				return err
			}
			_, err := u.pass(ctx, db, db.Links)
			return err
		},
	}
}

// catchup watches links close in.
type catchup struct {
	u     *Upgrade
	s     *survey.Survey
	db    *survey.Database
	began time.Time
	first int64
	told  time.Time
	// By link, since it was last seen to apply something: errors counted then,
	// what it had applied, and when that was.
	errors map[string]int64
	moved  map[string]pg.LSN
	since  map[string]time.Time
}

func (c *catchup) look(ctx context.Context, t *flow.Turn) (bool, error) {
	at, err := c.s.Positions(ctx, c.db.Name, c.db.Links)
	if err != nil {
		return false, err
	}
	var worst, kept int64
	shaky := false
	for _, l := range c.db.Links {
		p := at[l.Name]
		lag := p.LagBytes()
		if !p.Slot || p.Lost || lag == nil {
			return false, fmt.Errorf("slot %s on %s is %s: what it had to send is lost; run crossfade abort, give catchup.max_wal more room, and prepare again", l.Name, l.From.Side, p.State())
		}
		worst, kept = max(worst, *lag), max(kept, p.KeptBytes)
		if err := c.fails(l, p); err != nil {
			return false, err
		}
		// Its canary would be waited for without success.
		shaky = shaky || p.Errors != c.errors[l.Name] || p.Errors > 0 && time.Since(c.since[l.Name]) < time.Second
	}
	if kept > c.u.rb.Catchup.MaxWAL {
		for _, l := range c.db.Links {
			if err := c.u.c.Do(ctx, l.Disable()); err != nil {
				return false, err
			}
		}
		return false, fmt.Errorf("old keeps %d bytes of WAL for the slots of %s, more than catchup.max_wal (%d): applying was stopped; abort gives the slots up", kept, c.db.Name, c.u.rb.Catchup.MaxWAL)
	}
	if c.first == 0 {
		c.first = worst
	}
	c.tell(t, worst)
	return worst <= c.u.rb.Catchup.MaxLag && !shaky, nil
}

// failing is how long a link's worker may fail, without applying anything,
// before nobody waits for it any more.
const failing = 10 * time.Second

// fails is an error where a link's worker has only failed for a while.
func (c *catchup) fails(l link.Link, p *link.Position) error {
	if c.errors == nil {
		c.errors, c.moved = map[string]int64{}, map[string]pg.LSN{}
		c.since = map[string]time.Time{}
	}
	var origin pg.LSN
	if p.Origin != nil {
		origin = *p.Origin
	}
	if _, seen := c.errors[l.Name]; !seen || c.moved[l.Name] != origin {
		c.errors[l.Name], c.moved[l.Name], c.since[l.Name] = p.Errors, origin, time.Now()
		return nil
	}
	if p.Errors == c.errors[l.Name] || time.Since(c.since[l.Name]) < failing {
		return nil
	}
	return &pg.Error{
		Doing: "apply " + l.Name, On: l.To.Server.String(), Hint: l.Again(),
		Err: fmt.Errorf("its worker has failed %d times in %s and applied nothing; the server's log says why", p.Errors-c.errors[l.Name], failing),
	}
}

// tell says how fast it goes, and "will never catch up" when the rate says so.
func (c *catchup) tell(t *flow.Turn, lag int64) {
	spent := time.Since(c.began)
	says := c.db.Name
	if rate := float64(c.first-lag) / spent.Seconds(); spent > 10*time.Second {
		if rate <= 0 {
			says = "the lag does not shrink: at this rate it will never catch up; more sets apply side by side"
			if time.Since(c.told) > 30*time.Second {
				c.told = time.Now()
				t.Note("%s", says)
			}
		} else {
			says += fmt.Sprintf(", about %s more", time.Duration(float64(lag)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	t.Progress(max(c.first-lag, 0), max(c.first, lag), "bytes", says)
}

func (u *Upgrade) lag(ctx context.Context, s *survey.Survey, db *survey.Database) (int64, error) {
	at, err := s.Positions(ctx, db.Name, db.Links)
	if err != nil {
		return 0, err
	}
	var worst int64
	for _, p := range at {
		lag := p.LagBytes()
		if lag == nil || p.State() != "streaming" {
			return 0, errors.New(p.Name + " is " + p.State())
		}
		worst = max(worst, *lag)
	}
	return worst, nil
}

// pass writes a canary through links and waits until the other side shows it.
func (u *Upgrade) pass(ctx context.Context, db *survey.Database, links []link.Link) (pg.LSN, error) {
	var at pg.LSN
	if len(links) == 0 {
		return 0, nil
	}
	err := u.c.Pair(ctx, links[0].From.Server, links[0].To.Server, func(from, to *pgx.Conn) (err error) {
		at, err = link.Pass(ctx, from, to, links)
		return err
	})
	return at, err
}
