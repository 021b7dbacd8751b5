package members

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"crossfade/upgrade/clusters"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// Standbys reports of every physical receiver what its upstream's
// pg_stat_replication says, from both primaries down to the last cascade: a
// standby of the runbook that is connected is asked who follows it.
func (ms *Members) Standbys(ctx context.Context, s *survey.Survey, st *report.Status) {
	cluster := ms.c.Book.New[0]
	old, fresh := map[string]string{}, map[string]string{} // conninfos by name
	for _, sb := range ms.c.Book.Old.Standbys {
		old[sb.Name] = sb.Conninfo
	}
	for _, sb := range cluster.Standbys {
		fresh[sb.Name] = sb.Conninfo
	}
	seenOld := ms.tree(ctx, st, "old", "old", ms.c.Old, s.OldErr, old)
	seenNew := ms.tree(ctx, st, cluster.Cluster, "new", ms.c.New, s.NewErr, fresh)
	for _, sb := range ms.c.Book.Old.Standbys {
		replaced := seenNew[sb.Name] && slices.Contains(ms.c.Book.New[0].Successors(), sb.Name)
		if !seenOld[sb.Name] && !replaced {
			st.Standbys = append(st.Standbys, report.Standby{Cluster: "old", Name: sb.Name})
		}
	}
	for _, sb := range cluster.Standbys {
		if !seenNew[sb.Name] {
			st.Standbys = append(st.Standbys, report.Standby{Cluster: cluster.Cluster, Name: sb.Name, Upstream: cmp.Or(sb.Upstream, runbook.UpstreamPrimary)})
		}
	}
}

// tree asks a primary and what is following it; it returns who was seen.
func (ms *Members) tree(ctx context.Context, st *report.Status, cluster, side string, primary *pg.Server, silent error, conninfos map[string]string) map[string]bool {
	seen := map[string]bool{}
	if silent != nil {
		return seen // the status says so already
	}
	states, err := ms.states(ctx, primary, runbook.UpstreamPrimary)
	if err != nil {
		st.Silent = append(st.Silent, report.Silence{On: side, Says: err.Error()})
	}
	for len(states) > 0 {
		r := states[0]
		states = states[1:]
		if r.Logical {
			continue
		}
		again := seen[r.ApplicationName]
		seen[r.ApplicationName] = true
		st.Standbys = append(st.Standbys, report.Standby{
			Cluster: cluster, Name: r.ApplicationName, Upstream: r.Upstream, State: r.State, SyncState: r.SyncState, SyncPriority: &r.SyncPriority,
			Received: report.Received{
				Sent: r.Sent, Write: r.Write, Flush: r.Flush, Replay: r.Replay,
				WriteLag: report.Seconds(r.WriteLag), FlushLag: report.Seconds(r.FlushLag), ReplayLag: report.Seconds(r.ReplayLag),
			},
		})
		if conninfos[r.ApplicationName] == "" || again {
			continue
		}
		server, err := pg.Parse("standby "+r.ApplicationName+" of "+side, conninfos[r.ApplicationName], "")
		if err == nil {
			var following []standby.State
			if following, err = ms.states(ctx, server.As(ms.c.App), r.ApplicationName); err == nil {
				states = append(states, following...)
				continue
			}
		}
		st.Notes = append(st.Notes, fmt.Sprintf("who follows standby %s of %s is not known: %v", r.ApplicationName, side, err))
	}
	return seen
}

// states asks one server who receives from it; one that is gone is not
// waited for.
func (ms *Members) states(ctx context.Context, server *pg.Server, name string) (states []standby.State, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, clusters.AnswerTimeout, fmt.Errorf("no answer within %s", clusters.AnswerTimeout))
	defer cancel()
	err = ms.c.Sessions.Do(ctx, server, func(conn *pgx.Conn) (err error) {
		states, err = standby.States(ctx, conn, name)
		return err
	})
	return states, err
}
