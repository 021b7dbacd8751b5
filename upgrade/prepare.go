package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// ErrFindings is a check that found what blocks the upgrade.
type ErrFindings struct{ Blocking []check.Finding }

func (e *ErrFindings) Error() string {
	says := make([]string, len(e.Blocking))
	for i, f := range e.Blocking {
		says[i] = f.ID + " on " + f.On + ": " + f.Says
	}
	return "blocking findings: " + strings.Join(says, "; ")
}

// mustPass runs check and returns its blocking findings as an error.
func (u *Upgrade) mustPass(ctx context.Context) error {
	found, err := u.Check(ctx)
	if err != nil {
		return err
	}
	if blocking := check.Blocking(found); len(blocking) > 0 {
		return blocks(blocking)
	}
	u.passed = true
	return nil
}

// blocks is the error of findings that block the upgrade.
func blocks(blocking []check.Finding) error {
	blocking = check.Group(blocking)
	e := &ErrFindings{blocking}
	return &ExitError{Code: ExitFindings, Says: e.Error(), On: blocking[0].On, Object: blocking[0].Object, Hint: "crossfade check says what to do about each", Err: e}
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
func (u *Upgrade) publicationsStep(db *database, links []link.Link) flow.Step {
	id, title := "publications/"+db.name, "Publish the sets of "+db.name+" on old"
	var does []flow.Effect
	for _, l := range links {
		does = append(does, l.Publication())
		if !l.Forward {
			id, title = "publications-back/"+db.name, "Publish the sets of "+db.name+" on new, for the way back"
		}
	}
	there := func(ctx context.Context) (map[string]bool, error) {
		have := map[string]bool{}
		if len(links) == 0 {
			return have, nil
		}
		err := u.sessions.Do(ctx, links[0].From.Server, func(conn *pgx.Conn) error {
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
				if err := u.underLock(ctx, does[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// fenceStep puts the closed fence on every table of the side that applies, and
// keeps triggers that fire on apply from firing until that side takes clients. guard:
// DDL there is refused as well.
func (u *Upgrade) fenceStep(s *survey, side string, db *database, guard bool) flow.Step {
	var does []flow.Effect
	for _, t := range db.inventory.Tables {
		does = append(does, effect(side, db.name, u.part.TriggerOn(t.SQL())))
	}
	for _, t := range db.inventory.Triggers {
		does = append(does, effect(side, db.name, t.Disable()))
	}
	if guard {
		for _, sql := range append(u.part.Unguard(), u.part.Guards(u.rb.Upgrade, s.side(side).Version)...) {
			does = append(does, effect(side, db.name, sql))
		}
	}
	return flow.Step{
		ID: "fence/" + db.name, Title: "Close every table of " + db.name + " on " + side, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			done := false
			err := u.sessions.Do(ctx, u.side(side).With(db.name), func(conn *pgx.Conn) error {
				open, err := cutover.Unarmed(ctx, conn, db.elsewhere())
				if err != nil {
					return err
				}
				firing, err := schema.FiringTriggers(ctx, conn)
				done = err == nil && len(open) == 0 && len(firing) == 0
				if done && guard {
					done, err = u.part.Guarded(ctx, conn)
				}
				return err
			})
			return done, err
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			return u.sessions.Do(ctx, u.side(side).With(db.name), func(conn *pgx.Conn) error {
				for i, e := range does {
					err := pg.Exec(ctx, conn, e.SQL)
					if pg.SQLState(err) == "42710" && i < len(db.inventory.Tables) { // it is there, and may have been disabled
						err = pg.Exec(ctx, conn, "ALTER TABLE "+db.inventory.Tables[i].SQL()+" ENABLE TRIGGER "+cutover.Trigger)
					}
					if err != nil {
						return &pg.Error{Doing: pg.Brief(e.SQL), On: u.side(side).String() + ", database " + db.name, Err: err}
					}
					if len(does) > 100 && i%100 == 0 {
						t.Progress(int64(i), int64(len(does)), "tables", db.name)
					}
				}
				return nil
			})
		},
	}
}

// compareStep compares the catalogs of both sides object by object.
func (u *Upgrade) compareStep(s *survey, db *database) flow.Step {
	return flow.Step{
		ID: "compare/" + db.name, Title: "Compare the catalogs of " + db.name + " object by object", Done: never,
		Do: func(ctx context.Context, t *flow.Turn) error {
			diff, err := u.differences(ctx, db)
			if err != nil {
				return err
			}
			var bad []string
			hand := u.byHand(s)
			for _, d := range diff {
				if d.Expected != "" {
					t.Note("%s: %s", d.Says, d.Expected)
					continue
				}
				bad = append(bad, d.Says)
			}
			if len(bad) > 0 {
				return &ExitError{
					Code: ExitFailed, Says: fmt.Sprintf("the catalogs of %s differ between old and new:\n  %s", db.name, strings.Join(bad, "\n  ")),
					Hint: "make the same change on both sides (" + hand + "), then run crossfade prepare again",
				}
			}
			return nil
		},
	}
}

// guarded: new refuses DDL from its first day, because its apply workers run what the
// owner of a table puts on it there with all rights.
func (s *survey) guarded() bool { return s.new.Version/10000 <= rights.LastAsOwner }

// byHand says how a person changes the schema of the side that is closed.
func (u *Upgrade) byHand(s *survey) string {
	if to := s.applying(); to.Name == "old" || s.guarded() {
		return "on " + to.Name + ", SET session_replication_role = replica and BEGIN READ WRITE come before it"
	}
	return "on new, BEGIN READ WRITE comes before it"
}

func (u *Upgrade) differences(ctx context.Context, db *database) ([]schema.Difference, error) {
	var want, got *schema.Inventory
	g, both := errgroup.WithContext(ctx)
	for side, inv := range map[string]**schema.Inventory{"old": &want, "new": &got} {
		g.Go(func() error {
			return u.catalogs(both, side, db, func(conn *pgx.Conn) (err error) {
				*inv, err = schema.Read(both, conn, schema.Filter{NoSizes: true, NoUncalled: true})
				return err
			})
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var diff []schema.Difference
	err := u.catalogs(ctx, "new", db, func(conn *pgx.Conn) (err error) {
		diff, err = schema.Compare(ctx, conn, want.Without(db.apart), got)
		return err
	})
	return diff, err
}

// catalogs runs f, which has to do with the catalogs of a database on one side.
func (u *Upgrade) catalogs(ctx context.Context, side string, db *database, f func(*pgx.Conn) error) error {
	if err := u.sessions.Do(ctx, u.side(side).With(db.name), f); err != nil {
		return &pg.Error{Doing: "compare the catalogs of " + db.name, On: u.side(side).String(), Err: err}
	}
	return nil
}

// subscribeStep makes the subscriptions on the slots that the copy began with,
// and starts applying: primary keys and identity indexes exist by now.
func (u *Upgrade) subscribeStep(s *survey, db *database) flow.Step {
	var does []flow.Effect
	each := make([][]flow.Effect, len(db.links))
	for i, l := range db.links {
		each[i] = []flow.Effect{l.Subscription(false)}
		if e, ok := l.Failover(); ok {
			each[i] = append(each[i], e)
		}
		each[i] = append(each[i], l.Enable())
		does = append(does, each[i]...)
	}
	return flow.Step{
		ID: "subscriptions/" + db.name, Title: "Subscribe to the sets of " + db.name, Does: does,
		Done: func(ctx context.Context) (bool, error) {
			at, err := u.positions(ctx, s, db.name, db.links)
			for _, p := range at {
				if !p.Subscription || !p.Enabled {
					return false, err
				}
			}
			return err == nil, err
		},
		Do: func(ctx context.Context, _ *flow.Turn) error {
			at, err := u.positions(ctx, s, db.name, db.links)
			if err != nil {
				return err
			}
			for i, l := range db.links {
				for j, e := range each[i] {
					if at[l.Name].Subscription && (j == 0 || at[l.Name].Enabled) {
						continue
					}
					if err := u.fleet().Do(ctx, e); err != nil {
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
func (u *Upgrade) catchupStep(s *survey, db *database) flow.Step {
	canary := []flow.Effect{}
	if len(db.links) > 0 {
		canary = append(canary, link.CanaryEffect(db.links))
	}
	return flow.Step{
		ID: "catchup/" + db.name, Title: "Catch up with " + db.name, Does: canary,
		Done: func(ctx context.Context) (bool, error) {
			worst, err := u.lag(ctx, s, db)
			return err == nil && worst <= u.rb.Catchup.MaxLag, nil
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			c := &catchup{u: u, s: s, db: db, began: time.Now()}
			if err := pg.Poll(ctx, 200*time.Millisecond, "new to catch up with "+db.name, func(ctx context.Context) (bool, error) { return c.look(ctx, t) }); err != nil {
				return err
			}
			_, err := u.pass(ctx, db, db.links)
			return err
		},
	}
}

// catchup watches links close in.
type catchup struct {
	u     *Upgrade
	s     *survey
	db    *database
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
	at, err := c.u.positions(ctx, c.s, c.db.name, c.db.links)
	if err != nil {
		return false, err
	}
	var worst, kept int64
	shaky := false
	for _, l := range c.db.links {
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
		for _, l := range c.db.links {
			if err := c.u.fleet().Do(ctx, l.Disable()); err != nil {
				return false, err
			}
		}
		return false, fmt.Errorf("old keeps %d bytes of WAL for the slots of %s, more than catchup.max_wal (%d): applying was stopped; abort gives the slots up", kept, c.db.name, c.u.rb.Catchup.MaxWAL)
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
	says := c.db.name
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

func (u *Upgrade) lag(ctx context.Context, s *survey, db *database) (int64, error) {
	at, err := u.positions(ctx, s, db.name, db.links)
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
func (u *Upgrade) pass(ctx context.Context, db *database, links []link.Link) (pg.LSN, error) {
	var at pg.LSN
	if len(links) == 0 {
		return 0, nil
	}
	err := u.sessions.Do(ctx, links[0].From.Server, func(from *pgx.Conn) error {
		return u.sessions.Do(ctx, links[0].To.Server, func(to *pgx.Conn) error {
			var err error
			at, err = link.Pass(ctx, from, to, links)
			return err
		})
	})
	return at, err
}

// readyStep says on both sides that a cutover may begin.
func (u *Upgrade) readyStep(s *survey) flow.Step {
	const ready = "UPDATE crossfade.upgrade SET state = 'ready', at = clock_timestamp() WHERE attempt = 0"
	does := []flow.Effect{effect("new", s.home, u.part.Own(ready)), effect("old", s.home, u.part.Own(ready))}
	return flow.Step{
		ID: "ready", Title: "Ready for the cutover", Does: does,
		Done: func(context.Context) (bool, error) { return s.ready(), nil },
		Do:   u.exec(does, nil),
	}
}

// remember changes what row 0 remembers, on old and, where it is, on new.
func (u *Upgrade) remember(ctx context.Context, s *survey, f func(*cutover.Memory)) error {
	m, err := u.memory(ctx, s)
	if err != nil {
		return err
	}
	f(&m)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	vars := map[string]string{"memory": pg.Literal(string(b))}
	return u.fleet().Do(ctx, effect("old", s.home, u.part.Own(keepMemory)).Fill(vars))
}
