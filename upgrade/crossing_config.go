package upgrade

import (
	"context"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// config is what shapes a crossing in one direction.
func (u *Upgrade) config(ctx context.Context, s *survey.Survey, dir cutover.Direction) (cutover.Config, error) {
	cut := u.rb.Cutover
	c := cutover.Config{
		Upgrade: u.rb.Upgrade, Part: u.c.Part, App: clusters.App(u.rb), Direction: dir, Attempt: s.Attempt() + 1, Home: s.Home,
		Closing: s.Old, Opening: s.New, Back: cut.Back || dir == cutover.Back,
		MaxBlocked: cut.MaxBlocked, LockTimeout: cut.LockTimeout, Patience: cut.Patience, KillAfter: cut.KillAfter,
		MaxLag: u.rb.Catchup.MaxLag, Stable: u.rb.Catchup.Stable, Margin: cut.SequenceMargin, Mine: u.c.Mine,
	}
	c.Until, c.RolledBack = u.until, s.Phase == report.PhaseRolledBack
	if dir == cutover.Back {
		c.Closing, c.Opening = s.New, s.Old
	}
	var err error
	if c.Closing.Standbys, err = u.members.Expected(ctx, s, c.Closing.Name); err != nil {
		return c, err
	}
	for _, db := range s.Databases {
		d, err := u.crossingDatabase(ctx, s, db, c)
		if err != nil {
			return c, err
		}
		c.Databases = append(c.Databases, d)
	}
	c.Gates = append(u.gates(s, dir), u.members.ManagerGates(ctx, s)...)
	switches, err := u.switches(c.Opening.Name)
	if err != nil {
		return c, err
	}
	c.Traffic, c.Point = switches, u.c.Side(c.Opening.Name)
	if len(switches) > 0 {
		c.Guard = guardOf(switches)
	}
	if c.Ahead, c.After, err = u.transfer.RefreshSteps(ctx, s, c.Opening.Name); err != nil {
		return c, err
	}
	if err := u.aroundSteps(ctx, s, &c); err != nil {
		return c, err
	}
	c.Rehearsed, c.Stopped = s.Rehearsed(), s.Stopped(dir)
	if dir == cutover.Forward {
		c.Forecast = cutover.Forecast(c.Rehearsed)
	}
	return c, nil
}

// aroundSteps are what happens before the gate and after open beside what the
// crossing itself needs: managers of old are paused before anything is
// asked, and let go when old serves again.
func (u *Upgrade) aroundSteps(ctx context.Context, s *survey.Survey, c *cutover.Config) error {
	hold, err := u.members.HoldSteps(ctx, s)
	if err != nil {
		return err
	}
	before, after := u.running.steps(u.c)
	c.Before = append(hold, before...)
	if c.Direction == cutover.Back {
		let, err := u.members.LetGoSteps(ctx, s, false)
		if err != nil {
			return err
		}
		c.After = append(c.After, let...)
	} else {
		standbys, err := u.members.StandbysAfter(ctx, s)
		if err != nil {
			return err
		}
		c.After = append(c.After, standbys...)
	}
	c.After = append(c.After, after...)
	return nil
}

func (u *Upgrade) crossingDatabase(ctx context.Context, s *survey.Survey, db *survey.Database, c cutover.Config) (cutover.Database, error) {
	d := cutover.Database{
		Name: db.Name, Tables: db.Inventory.Tables, Sequences: len(db.Inventory.Sequences), Links: db.Links, Way: db.Way,
		Lift: u.ground.Opened(s, c.Opening.Name, db.Name), Reopen: u.ground.Lift(s, c.Closing.Name, db.Name),
		Pin: u.ground.PinSettings(s, c.Closing.Name, db.Name),
	}
	if u.c.Part == "" || c.Closing.Name == "new" {
		d.Unpin = u.ground.RestoreSettings(s, c.Closing.Name, db.Name)
	}
	if c.Direction == cutover.Back {
		d.Links, d.Way = db.Way, db.Links
	}
	// Both sides hold the same triggers; those that fire on apply are awake
	// where clients are, and disabled where rows arrive.
	if err := u.apartFrom(ctx, s, db, &d); err != nil {
		return d, err
	}
	d.Shared = d.Shared && c.Closing.Name == "old"
	if s.Silent(c.Closing.Name) != nil {
		return d, nil // after open: the decision remembers them
	}
	firing := db.Inventory.Triggers
	if c.Closing.Name == s.Serving().Name {
		err := u.c.Sessions.Do(ctx, c.Closing.Server.With(db.Name), func(conn *pgx.Conn) (err error) {
			firing, err = schema.FiringTriggers(ctx, conn)
			firing = db.Apart.Fire(firing)
			return err
		})
		if err != nil {
			return d, &pg.Error{Doing: "read the triggers that fire on apply", On: c.Closing.Server.String(), Err: err}
		}
	} // else a plan drawn ahead: that side may not even have the database yet
	var events []string
	for _, t := range firing {
		if t.Table == "" {
			d.DisableEvents, events = append(d.DisableEvents, t.Disable()), append(events, t.Restore())
			continue
		}
		d.DisableTriggers, d.RestoreTriggers = append(d.DisableTriggers, t.Disable()), append(d.RestoreTriggers, t.Restore())
	}
	// Event triggers come last: before 17 they fire for what the tool does after.
	d.RestoreTriggers = append(d.RestoreTriggers, events...)
	d.RestoreOpening = d.RestoreTriggers
	return d, nil
}
