package check

import (
	"context"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// probeName is how a probe's session calls itself.
const probeName = "crossfade_check"

// reachTimeout is how long one try to reach the other server may take.
const reachTimeout = 10 * time.Second

// tryReach proves that the new server reaches the old one and, for the way
// back, the other way round, for every database.
func (g *gathering) tryReach(ctx context.Context) {
	if !g.both() || g.Old.InRecovery || g.New.InRecovery || g.sameServer() {
		return
	}
	fromNew, fromOld := g.Want.FromNew, g.Want.FromOld
	if fromNew == nil {
		fromNew = g.Want.Old
	}
	if fromOld == nil {
		fromOld = g.Want.New
	}
	g.reach(ctx, g.New, g.Want.New, g.Old, fromNew)
	if g.Want.Back {
		g.reach(ctx, g.Old, g.Want.Old, g.New, fromOld)
	}
}

// reach tries, in one session on a server, to reach every database of the
// other. Databases that new does not have yet are tried as the one that the
// runbook's conninfo names: there the address, the role and its password are
// proven, and pg_hba.conf for that database alone.
func (g *gathering) reach(ctx context.Context, on *Server, server *pg.Server, to *Server, by *pg.Server) {
	conn, err := server.Connect(ctx)
	if err != nil {
		g.missing(on.Side, "", "whether it reaches "+to.Side, err, true)
		return
	}
	defer func() { closing(conn) }()
	tried := map[string]bool{}
	for i := range g.Facts.Databases { // their contents are being read meanwhile
		name := g.Facts.Databases[i].Name
		if c := to.catalog(name); c == nil || !c.connects() {
			if to.Side == OnOld {
				continue // a finding of its own
			}
			name = by.Database()
		}
		if tried[name] {
			continue
		}
		tried[name] = true
		other := by.With(name)
		r := Reach{From: on.Side, To: to.Side, Database: name, Conninfo: other.Conninfo()}
		began := time.Now()
		r.Err = probe(ctx, conn, other, to.Version)
		switch pg.SQLState(r.Err) {
		case insufficientPrivilege, "25006", "57014": // this session was refused or cancelled, not the one that it opens
			g.missing(on.Side, name, "whether it reaches "+to.Side, r.Err, true)
			return
		}
		g.Reach = append(g.Reach, r)
		if conn.IsClosed() || r.Err != nil && time.Since(began) > 2*time.Second {
			return // it times out: so would the others
		}
	}
}

// probe makes the server of conn connect to another one as its apply worker
// will, and leaves nothing: the subscription is made in a transaction that is
// rolled back. Its conninfo is that of the subscriptions to come, options
// included. It has no slot, so that nothing is made on the other side
// either; the publication need not exist (14 and later warn, nobody refuses).
// What is proven is the address, the password, pg_hba.conf for that database
// and the right to replicate.
func probe(ctx context.Context, conn *pgx.Conn, to *pg.Server, version int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, reachTimeout, fmt.Errorf("no answer within %s", reachTimeout))
	defer cancel()
	conninfo := link.Conninfo(to.Conninfo(), version, probeName)
	try := func() error {
		err := pg.Exec(ctx, conn, "BEGIN")
		if err == nil {
			err = pg.Exec(ctx, conn, "CREATE SUBSCRIPTION crossfade_check CONNECTION "+strings.TrimSpace(pg.Literal(conninfo))+
				" PUBLICATION crossfade_check WITH (connect = true, create_slot = false, slot_name = NONE, enabled = false, copy_data = false)")
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		// Also where the statement failed: the transaction is open.
		if back := pg.Exec(ctx, conn, "ROLLBACK"); err == nil {
			err = back
		}
		return err
	}
	secret := to.Secret()
	if secret == "" {
		return try()
	}
	conninfo = pg.WithKeyword(conninfo, "password", secret)
	return pg.Silently(ctx, conn, try)
}
