package members

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"crossfade/cutover"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// StandbysGate wants every standby of new that the runbook demands to stream.
func (ms *Members) StandbysGate(ctx context.Context, s *survey.Survey) (bool, string, error) {
	_, built := ms.Taken(ctx, s)
	for _, sb := range ms.c.Book.New[0].Standbys {
		if sb.After && !built[sb.Name] {
			continue // it follows after open
		}
		up, err := ms.upstream(sb)
		if err != nil {
			return false, "", err
		}
		streams := false
		err = ms.c.Sessions.Do(ctx, up, func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming')", sb.Name).Scan(&streams)
		})
		if err != nil {
			return false, "", &pg.Error{Doing: "ask whether " + sb.Name + " streams", On: up.String(), Err: err}
		}
		if !streams && !ms.c.Book.Accepts(cutover.StandbyMissing, sb.Name) {
			return false, "standby " + sb.Name + " of new does not stream: run crossfade prepare, which rebuilds it", nil
		}
	}
	return true, "the standbys stream", nil
}

// WithoutTaken wants commits on old to wait for nobody who is not there: new's
// standbys may have taken the place of some that they waited for.
func (ms *Members) WithoutTaken(ctx context.Context, names []string) (ok bool, says string, err error) {
	gone := strings.Join(names, ", ")
	err = ms.c.On(ctx, "old", func(conn *pgx.Conn) error {
		value, _, err := standby.Synchronous(ctx, conn)
		if err != nil {
			return err
		}
		quorum, err := standby.ParseQuorum(value)
		if err != nil {
			return err
		}
		states, err := standby.States(ctx, conn, "old")
		if err != nil {
			return err
		}
		states = slices.DeleteFunc(states, func(s standby.State) bool { return s.Logical })
		if n := quorum.Lacks(states); n > 0 {
			says = fmt.Sprintf("commits on old would wait: synchronous_standby_names is %s there, and %d more of them would have to stream. new's standbys take the places of %s; change the setting on old, or start more of its standbys", value, n, gone)
			return nil
		}
		ok, says = true, "old opens without the standbys whose places new's take: "+gone
		return nil
	})
	if err != nil {
		return false, "", &pg.Error{Doing: "ask what commits wait for", On: ms.c.Old.String(), Err: err}
	}
	return ok, says, nil
}

// upstream is the server that a standby of new receives from.
func (ms *Members) upstream(sb runbook.Standby) (*pg.Server, error) {
	for _, other := range ms.c.Book.New[0].Standbys {
		if other.Name == sb.Upstream {
			server, err := pg.Parse(other.Name, other.Conninfo, other.Bin)
			if err != nil {
				return nil, err
			}
			return server.As(ms.c.App), nil
		}
	}
	return ms.c.New, nil
}
