package transfer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/survey"
)

// CatchupStep waits until new has everything but the last max_lag bytes, and
// gives the slots up before they fill old's disk.
func (tf *Transfer) CatchupStep(s *survey.Survey, db *survey.Database) flow.Step {
	canary := []flow.Effect{}
	if len(db.Links) > 0 {
		canary = append(canary, link.CanaryEffect(db.Links))
	}
	return flow.Step{
		ID: "catchup/" + db.Name, Title: "Catch up with " + db.Name, Does: canary,
		Done: func(ctx context.Context) (bool, error) {
			worst, err := tf.lag(ctx, s, db)
			return err == nil && worst <= tf.c.Book.Catchup.MaxLag, nil
		},
		Do: func(ctx context.Context, t *flow.Turn) error {
			c := &catchup{tf: tf, s: s, db: db, began: time.Now()}
			if err := pg.Poll(ctx, 200*time.Millisecond, "new to catch up with "+db.Name, func(ctx context.Context) (bool, error) { return c.look(ctx, t) }); err != nil {
				return err
			}
			_, err := tf.pass(ctx, db, db.Links)
			return err
		},
	}
}

// catchup watches links close in.
type catchup struct {
	tf    *Transfer
	s     *survey.Survey
	db    *survey.Database
	began time.Time
	first int64
	noted time.Time
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
	if kept > c.tf.c.Book.Catchup.MaxWAL {
		for _, l := range c.db.Links {
			if err := c.tf.c.Do(ctx, l.Disable()); err != nil {
				return false, err
			}
		}
		return false, fmt.Errorf("old keeps %d bytes of WAL for the slots of %s, more than catchup.max_wal (%d): applying was stopped; abort gives the slots up", kept, c.db.Name, c.tf.c.Book.Catchup.MaxWAL)
	}
	if c.first == 0 {
		c.first = worst
	}
	c.report(t, worst)
	return worst <= c.tf.c.Book.Catchup.MaxLag && !shaky, nil
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

// report says how fast it goes, and "will never catch up" when the rate says so.
func (c *catchup) report(t *flow.Turn, lag int64) {
	spent := time.Since(c.began)
	says := c.db.Name
	if rate := float64(c.first-lag) / spent.Seconds(); spent > 10*time.Second {
		if rate <= 0 {
			says = "the lag does not shrink: at this rate it will never catch up; more sets apply side by side"
			if time.Since(c.noted) > 30*time.Second {
				c.noted = time.Now()
				t.Note("%s", says)
			}
		} else {
			says += fmt.Sprintf(", about %s more", time.Duration(float64(lag)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	t.Progress(max(c.first-lag, 0), max(c.first, lag), "bytes", says)
}

func (tf *Transfer) lag(ctx context.Context, s *survey.Survey, db *survey.Database) (int64, error) {
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
