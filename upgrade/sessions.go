package upgrade

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
// upgrade's name (appOf), and says what the session may do:
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

func newRunID() runID {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails: see crypto/rand
	return runID(hex.EncodeToString(b[:]))
}

// call names the sessions that are opened from now on, and ends those that have
// another name.
func (u *Upgrade) call(ctx context.Context, app string) error {
	u.old, u.new = u.old.As(app), u.new.As(app)
	u.oldFromNew, u.newFromOld = u.oldFromNew.As(app), u.newFromOld.As(app)
	for i, p := range u.places {
		u.places[i].old = p.old.As(app)
		if p.fromNew != nil {
			u.places[i].fromNew = p.fromNew.As(app)
		}
	}
	return u.sessions.Close(ctx)
}

// lockName is the application_name of the session that keeps a hold of this run;
// it names the one command that has a shared one.
func (u *Upgrade) lockName(shared bool) string {
	name := appOf(u.rb) + " lock "
	if shared {
		name += "verify "
	}
	return name + string(u.run)
}

// hold takes the right to change the upgrade; release gives it back. From here
// to there the sessions of this process carry its number.
func (u *Upgrade) hold(ctx context.Context, server *pg.Server) (context.Context, func(), error) {
	held, release, err := u.lock(ctx, server, false)
	if err != nil {
		return nil, nil, err
	}
	if err := u.call(held, u.app+" #"+string(u.run)); err != nil {
		release()
		return nil, nil, err
	}
	return held, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// No session changes anything any more, and none may seem to.
		_ = u.call(ctx, u.app)
		release()
	}, nil
}

// keep takes the right that nobody changes the upgrade meanwhile, for a command
// that reads for long. Others may have it, too.
func (u *Upgrade) keep(ctx context.Context, server *pg.Server) (context.Context, func(), error) {
	return u.lock(ctx, server, true)
}

// stillHeld reports that the hold is had, now, by asking; nil also where there is
// none. One that was lost meanwhile is taken anew, for what has to be undone.
func (u *Upgrade) stillHeld(ctx context.Context) error {
	if u.holding == nil {
		return nil
	}
	return u.holding.still(ctx)
}

// holder is the pid of the backend that keeps the hold; 0: this process has none.
func (u *Upgrade) holder() int32 {
	if u.holding == nil {
		return 0
	}
	return u.holding.session()
}

// lock takes a hold on server, and then sees that no other run has one on
// another server of the upgrade: which one a command locks depends on which one
// serves. Two runs that come at the same time may refuse each other.
func (u *Upgrade) lock(ctx context.Context, server *pg.Server, shared bool) (context.Context, func(), error) {
	onOld := server.Name == u.old.Name
	if u.whole != nil && onOld {
		// One lock for all parts: locks are per database.
		server = server.With(u.whole.rb.Databases[0].Name)
	}
	held, h, err := take(ctx, server, u.lockName(shared), shared)
	if err != nil {
		return nil, nil, err
	}
	release := func() {
		u.holding = nil
		// The server ends the session anyway when the process is gone.
		if err := h.release(); err != nil {
			return
		}
	}
	for _, s := range u.servers() {
		if s.Name == server.Name && (onOld || s.Address() == server.Address()) {
			continue
		}
		if err := u.aloneOn(ctx, s, shared); err != nil {
			release()
			return nil, nil, err
		}
	}
	if !shared {
		u.holding = h
	}
	return held, release, nil
}

// servers are all primaries of the upgrade, also those of other parts.
func (u *Upgrade) servers() []*pg.Server {
	all := []*pg.Server{u.old, u.new}
	if u.whole == nil {
		return all
	}
	for _, p := range u.whole.parts {
		if p != u {
			all = append(all, p.new)
		}
	}
	return all
}

// aloneOn wants no other run to have a hold on s that excludes this one's. A
// server that does not answer in time cannot say, and excludes nobody: after
// open the closed side may be gone for good.
func (u *Upgrade) aloneOn(ctx context.Context, s *pg.Server, shared bool) error {
	asking, cancel := context.WithTimeout(ctx, holdWait)
	defer cancel()
	var who string
	err := u.sessions.Do(asking, s, func(conn *pgx.Conn) error {
		return pg.Poll(asking, 100*time.Millisecond, "the lock of another run", func(ctx context.Context) (bool, error) {
			now, _, err := heldBy(ctx, conn, appOf(u.rb)+" lock %", !shared)
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

// evict ends what is left of earlier runs on both sides. This run has the hold,
// so that each of them is gone, frozen or cut off.
func (u *Upgrade) evict(ctx context.Context, s *survey) error {
	for _, side := range []cutover.Side{s.old, s.new} {
		if s.silent(side.Name) != nil {
			continue
		}
		err := u.sessions.Do(ctx, side.Server, func(conn *pgx.Conn) error {
			return cutover.Evict(ctx, conn, side.Name, appOf(u.rb), "#"+string(u.run), s.decisions)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
