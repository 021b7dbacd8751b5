package clusters

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// runID tells the sessions of one process that changes an upgrade from those of
// every other one: 8 hexadecimal digits.
//
// The application_name of every session begins with "crossfade" and the
// upgrade's name (App), and says what the session may do:
//
//	crossfade up              reads: check, plan, verify, and a command that has no hold yet
//	crossfade up status       reads, for status
//	crossfade up lock 1a2b…   keeps the hold of run 1a2b…; "lock verify": a shared one
//	crossfade up #1a2b…       changes the upgrade under that hold
//
// A run whose hold is gone is gone itself, or frozen, or cut off: the sessions
// with its number are what the next run ends before it begins (evict). Sessions
// that read are never ended by another command.
type runID string

func newRun() runID {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails: see crypto/rand
	return runID(hex.EncodeToString(b[:]))
}

// call names the sessions that are opened from now on, and ends those that have
// another name.
func (c *Clusters) call(ctx context.Context, app string) error {
	c.Old, c.New = c.Old.As(app), c.New.As(app)
	c.OldFromNew, c.NewFromOld = c.OldFromNew.As(app), c.NewFromOld.As(app)
	for i, p := range c.Places {
		c.Places[i].Old = p.Old.As(app)
		if p.FromNew != nil {
			c.Places[i].FromNew = p.FromNew.As(app)
		}
	}
	return c.Sessions.Close(ctx)
}

// lockName is the application_name of the session that keeps a hold of this run;
// it names the one command that has a shared one.
func (c *Clusters) lockName(shared bool) string {
	name := App(c.Book) + " lock "
	if shared {
		name += "verify "
	}
	return name + string(c.run)
}

// Hold takes the right to change the upgrade; release gives it back. From here
// to there the sessions of this process carry its number.
func (c *Clusters) Hold(ctx context.Context, server *pg.Server) (context.Context, func(), error) {
	held, release, err := c.lock(ctx, server, false)
	if err != nil {
		return nil, nil, err
	}
	if err := c.call(held, c.App+" "+c.Mark()); err != nil {
		release()
		return nil, nil, err
	}
	return held, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// No session changes anything any more, and none may seem to.
		_ = c.call(ctx, c.App)
		release()
	}, nil
}

// Keep takes the right that nobody changes the upgrade meanwhile, for a command
// that reads for long. Others may have it, too.
func (c *Clusters) Keep(ctx context.Context, server *pg.Server) (context.Context, func(), error) {
	return c.lock(ctx, server, true)
}

// Mine reports whether this process may still change the upgrade, by asking; nil
// also where it holds nothing. A hold that was lost meanwhile is taken anew, for what
// has to be undone. The error wraps cutover.ErrTakenOver where another run has it.
func (c *Clusters) Mine(ctx context.Context) error {
	if c.holding == nil {
		return nil
	}
	err := c.holding.still(ctx)
	if errors.Is(err, flow.ErrHeld) {
		return fmt.Errorf("%w: %w", cutover.ErrTakenOver, err)
	}
	return err
}

// Holder is the pid of the backend that keeps the hold; 0: this process has none.
func (c *Clusters) Holder() int32 {
	if c.holding == nil {
		return 0
	}
	return c.holding.session()
}

// lock takes a hold on server, and then sees that no other run has one on
// another server of the upgrade: which one a command locks depends on which one
// serves. Two runs that come at the same time may refuse each other.
func (c *Clusters) lock(ctx context.Context, server *pg.Server, shared bool) (context.Context, func(), error) {
	onOld := server.Name == c.Old.Name
	if c.whole != nil && onOld {
		// One lock for all parts: locks are per database.
		server = server.With(c.whole.book.Databases[0].Name)
	}
	held, h, err := take(ctx, server, c.lockName(shared), shared)
	if err != nil {
		return nil, nil, err
	}
	release := func() {
		c.holding = nil
		// The server ends the session anyway when the process is gone.
		if err := h.release(); err != nil {
			return
		}
	}
	for _, s := range c.servers() {
		if s.Name == server.Name && (onOld || s.Address() == server.Address()) {
			continue
		}
		if err := c.aloneOn(ctx, s, shared); err != nil {
			release()
			return nil, nil, err
		}
	}
	if !shared {
		c.holding = h
	}
	return held, release, nil
}

// servers are all primaries of the upgrade, also those of other parts.
func (c *Clusters) servers() []*pg.Server {
	all := []*pg.Server{c.Old, c.New}
	for _, p := range c.Parts() {
		if p != c {
			all = append(all, p.New)
		}
	}
	return all
}

// Mark stands in the application_name of the sessions with which this run changes
// the upgrade.
func (c *Clusters) Mark() string { return "#" + string(c.run) }

// aloneOn wants no other run to have a hold on s that excludes this one's. A
// server that does not answer in time cannot say, and excludes nobody: after
// open the closed side may be gone for good.
func (c *Clusters) aloneOn(ctx context.Context, s *pg.Server, shared bool) error {
	asking, cancel := context.WithTimeout(ctx, holdWait)
	defer cancel()
	var who string
	err := c.Sessions.Do(asking, s, func(conn *pgx.Conn) error {
		return pg.Poll(asking, 100*time.Millisecond, "the lock of another run", func(ctx context.Context) (bool, error) {
			now, _, err := HeldBy(ctx, conn, App(c.Book)+" lock %", !shared)
			if err == nil {
				who = now
			}
			return err == nil && who == "", err
		})
	})
	if who != "" && ctx.Err() == nil {
		return fmt.Errorf("lock the upgrade: %w: held on %s by %s", flow.ErrHeld, s, who)
	}
	if err != nil && ctx.Err() != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	return nil
}
