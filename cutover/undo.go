package cutover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5/pgconn"
)

// undoPatience is how long an undo that gives service back is tried again while
// a server does not answer: one that crashed is back by then.
const undoPatience = 10 * time.Second

// undoShort is how long an undo may take once a server has not answered for
// undoPatience: the rest is reported and left, for whoever runs the command again.
const undoShort = 2 * time.Second

var errGaveUp = fmt.Errorf("a server has not answered for %s, and is not waited for any more", undoPatience)

// reviving is a step whose undo does not rely on sessions that may have died
// with a server since, nor on a right that may have been lost with them.
func (a *attempt) reviving(s flow.Step) flow.Step {
	if s.Undo == nil {
		return s
	}
	rightful := s.Undo
	undo := func(ctx context.Context, t *flow.Turn) error {
		err := a.ours(ctx)
		if err != nil && (errors.Is(err, ErrTakenOver) || !s.Apart) {
			return err
		}
		return rightful(ctx, t)
	}
	s.Undo = func(ctx context.Context, t *flow.Turn) error {
		if a.gaveUp {
			// A server that did not answer for so long is asked once more by each
			// step, and no longer waited for.
			short, cancel := context.WithTimeoutCause(ctx, undoShort, errGaveUp)
			defer cancel()
			err := undo(short, t)
			a.gaveUp = err != nil
			return err
		}
		a.revive(ctx)
		err := undo(ctx, t)
		if !s.Serves || !unreachable(err) {
			return err
		}
		waiting, cancel := context.WithTimeout(ctx, undoPatience)
		defer cancel()
		last := err
		err = pg.Poll(waiting, 200*time.Millisecond, "the server to answer again", func(ctx context.Context) (bool, error) {
			a.revive(ctx)
			last = undo(ctx, t)
			if unreachable(last) {
				return false, nil
			}
			return true, last
		})
		if err != nil {
			a.gaveUp = true
			return last
		}
		return nil
	}
	return s
}

// ours wants the attempt to be this run's to undo. One that was frozen or cut
// off may have lost it: another has undone it by then, may have begun one of its
// own or ended the upgrade, and would see its fence lowered by an undo.
func (a *attempt) ours(ctx context.Context) error {
	if a.Mine != nil {
		if err := a.Mine(ctx); err != nil {
			return err
		}
	}
	conn, err := a.onClosing(ctx, a.Home)
	if err != nil {
		return err
	}
	var there, newer bool
	err = conn.QueryRow(ctx, a.Part.Own("SELECT coalesce(bool_or(attempt = $1), false), coalesce(bool_or(attempt > $1), false) FROM crossfade.upgrade"), a.Attempt).Scan(&there, &newer)
	if err != nil && !pg.Missing(err) { // missing: the upgrade was ended
		return &pg.Error{Doing: "read the attempt's row", On: a.Closing.Server.String(), Err: err}
	}
	if newer || !there && a.announced {
		return ErrTakenOver
	}
	return nil
}

// unreachable reports whether err says that a server was not there to answer.
func unreachable(err error) bool {
	if err == nil {
		return false
	}
	state := pg.SQLState(err)
	return strings.HasPrefix(state, "57P") || strings.HasPrefix(state, "08") || state == "" && isConnection(err)
}

func isConnection(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}
