// Package cutover takes the right to be written from one cluster and gives it
// to another, so that there is never a moment with two writable sides and no
// acknowledged write is lost.
//
// The plan is one list of steps, all-or-nothing up to open; plan.go has their
// order, with the reason for each place. A rollback is the same plan with the
// ends swapped: the code speaks of the side that closes and the side that opens,
// never of old and new. Links run from the closing to the opening side while the
// plan begins; the way back, in the other direction, is made and proven inside it.
//
// What decides is one row in one database of the closing side (Decision): close
// writes it in its own transaction, open changes it before anything else, and
// an undo changes it in the transaction that lowers the fence. So exactly
// one of the two can ever happen, from any machine, with any journal.
package cutover

import (
	"context"
	"errors"
	"time"

	"crossfade/cutover/traffic"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

// Direction of an attempt.
type Direction string

// A cutover goes forward, a rollback back.
const (
	Forward Direction = "forward"
	Back    Direction = "back"
)

// Side is one of the two clusters.
type Side struct {
	Name     string // as plans call it: old, new
	Server   *pg.Server
	Version  int
	Identity pg.Identity
	// Standbys are those that must have the close before the other side opens,
	// at any depth of a cascade; those that pg_stat_replication shows beyond
	// them, on the primary or on one of these, count too.
	Standbys []Standby
}

// Standby is a physical standby of a side, at any depth.
type Standby struct {
	Name   string // what its upstream should know it by
	Server *pg.Server
}

// Database is one database that changes sides.
type Database struct {
	Name string
	// Tables are all user tables of the closing side, roots and leaves,
	// published or not.
	Tables []schema.Table
	// Sequences is how many there are.
	Sequences int
	// Links run from the closing to the opening side; Way are the links back.
	Links, Way []link.Link
	// DisableTriggers disables, on the closing side, the triggers that fire on
	// apply; RestoreTriggers puts them back (undo); RestoreOpening puts back those
	// of the opening side.
	DisableTriggers, RestoreTriggers, RestoreOpening []string
	// DisableEvents disables event triggers that fire on apply, as DisableTriggers
	// does triggers, but from arm on: before 17 they would fire for the tool's own
	// statements, and write under the barrier, where their table is locked.
	DisableEvents []string
	// Elsewhere are tables of this database, quoted, that are no part of this
	// crossing, because they go to another new cluster; so do the sequences that
	// Apart says it of (nil: none does). Others are the subscriptions of those,
	// which are the tool's own, too.
	Elsewhere, Others []string
	Apart             func(sequence string) bool
	// Shared: tables of Elsewhere are written on the closing side and go on being
	// written, so that the database does not become read-only there.
	Shared bool
	// Pin gives the links back the settings that their apply workers need on the
	// closing side (link.PinSettings), before they are made; Unpin undoes it, ""
	// where others need them.
	Pin, Unpin string
	// Lift is what ends the read-only default of the opening side's database, and
	// Reopen what ends that of the closing side where close is undone: each puts back
	// what stood there before. Lift does so with the settings of the links to the
	// opening side, too.
	Lift, Reopen string
}

// Config is everything that shapes one cutover or rollback.
type Config struct {
	Upgrade string
	// Part is the new cluster that this is about, where there are several; App
	// is then what the application_names of all of the tool's sessions begin with.
	Part      Part
	App       string
	Direction Direction
	Attempt   int
	// Home is the database whose crossfade.upgrade holds the decision.
	Home             string
	Closing, Opening Side
	Databases        []Database
	// Back: the way back is made, proven and left running.
	Back bool

	MaxBlocked  time.Duration // from the first PAUSE or lock to open, one attempt
	LockTimeout time.Duration // of one barrier attempt, all tables together
	Patience    time.Duration // of all attempts, and of the gates
	Until       time.Time     // no attempt begins after it, whatever is left of Patience; zero: no limit
	KillAfter   time.Duration // 0: never
	MaxLag      int64         // bytes
	Stable      time.Duration // how long the lag must have been below MaxLag
	Margin      int64         // sequences

	Gates   []Gate // beside the built-in ones
	Traffic traffic.Group
	// Guard makes the child that sends RESUME when this process is gone; nil
	// where there is no traffic.
	Guard func(ctx context.Context, deadline time.Duration) (Guard, error)
	// Point is the server that traffic is sent to after open.
	Point *pg.Server
	// Ahead runs before anything is armed, Before before the gate, and After
	// after everything else. A step of After that cannot be done without an earlier
	// one says so (flow.Step.Needs).
	Ahead, Before, After []flow.Step
	// Stopped: the newest attempt of this direction is void, and has left links
	// stopped; this one resumes them before it asks the gates.
	Stopped bool
	// RolledBack: the links go on from a rollback; prepare does not make them anew.
	RolledBack bool
	// Forecast is how long steps are expected to take, by id.
	Forecast map[string]time.Duration
	// Rehearsed are the rehearsals that are remembered, oldest first.
	Rehearsed []Rehearsal
	// Mine is asked before anything is undone, whether this run may still change
	// the upgrade; its error wraps ErrTakenOver where another one may. Nil: it may.
	Mine func(ctx context.Context) error
}

// ErrTakenOver says that another run has taken an attempt over while this one
// was frozen or cut off: what it left has been seen to, and must not be touched.
var ErrTakenOver = errors.New("another run has taken this upgrade over")

// Guard is the child process that gives traffic back when the tool is gone.
type Guard interface {
	// Decided tells it that the decision has been taken: it ends without RESUME.
	Decided() error
	// Pointed tells it that a unit of the traffic (traffic.Group.Units, by its name)
	// sends clients to the open side: from here it resumes that unit when the tool
	// is gone.
	Pointed(unit string) error
	// Stop ends it because traffic has been resumed.
	Stop() error
}

// app is what the application_names of the tool's own sessions begin with.
func (c *Config) app() string {
	if c.App != "" {
		return c.App
	}
	return c.Closing.Server.App
}

// Result is what a finished crossing has to say.
type Result struct {
	Fence    map[string]pg.LSN
	Blocked  time.Duration
	Canaries int
}

// Crossing is a plan together with what it learns while it runs.
type Crossing struct {
	Plan flow.Plan
	// Anew: it begins an attempt, and goes on with none.
	Anew bool
	x    *crossing
}

// Result tells what the crossing has measured so far.
func (c *Crossing) Result() Result {
	c.x.mu.Lock()
	defer c.x.mu.Unlock()
	return Result{Fence: c.x.fences(), Blocked: c.x.took, Canaries: c.x.canaries}
}

// Close ends the sessions of the crossing. Locks that are still held go with them.
func (c *Crossing) Close() {
	c.x.hangUp()
	// The guard's process ends by itself when its pipe closes; a RESUME too many is harmless.
	c.x.hold.guard = nil
}

// served is what the steps run beside each other that give clients their service
// after open: none of them waits for another that is held up.
const served = "served"
