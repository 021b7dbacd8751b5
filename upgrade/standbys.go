package upgrade

import (
	"context"
	"fmt"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/standby"

	"github.com/jackc/pgx/v5"
)

// standbyOptions are the standbys of new as the runbook has them.
func (u *Upgrade) standbyOptions(ctx context.Context, s *survey) (standby.Options, error) {
	o := standby.Options{Upgrade: u.rb.Upgrade, Primary: u.new, Version: s.new.Version, Temporary: systemSettings}
	cluster := u.rb.New[0]
	o.Nodes = make([]standby.Node, len(cluster.Standbys))
	byName := map[string]*standby.Node{}
	for i, sb := range cluster.Standbys {
		byName[sb.Name] = &o.Nodes[i]
	}
	for i, sb := range cluster.Standbys {
		server, err := pg.Parse(sb.Name, sb.Conninfo, sb.Bin)
		if err != nil {
			return o, &ExitError{Code: ExitUsage, Says: err.Error(), Err: err}
		}
		host, _, err := pg.ParseHost(string(sb.Host))
		if err != nil {
			return o, &ExitError{Code: ExitUsage, Says: err.Error(), Err: err}
		}
		n := &o.Nodes[i]
		*n = standby.Node{
			Name: sb.Name, Host: host, Server: server.As(u.app), Bin: sb.Bin, DataDir: sb.Data, Config: sb.Config, Slot: sb.Slot,
			Start: sb.Start, Stop: sb.Stop, Restart: sb.Restart, Delay: sb.ApplyDelay, Upstream: byName[sb.Upstream],
		}
		for _, set := range sb.Settings {
			n.Settings = append(n.Settings, standby.Setting{Name: set.Name, Value: set.Value})
		}
	}
	names, err := u.synchronousNames(ctx, s)
	if err != nil {
		return o, err
	}
	o.SynchronousStandbyNames = names
	if v, ok := s.before("new/system/synchronous_standby_names"); ok {
		o.SynchronousBefore = &v
	}
	return o, nil
}

// synchronousNames is what the runbook says, or else what old has; nil where
// old has none or new gets no standbys.
func (u *Upgrade) synchronousNames(ctx context.Context, s *survey) (*string, error) {
	cluster := u.rb.New[0]
	if cluster.SynchronousStandbyNames != nil {
		return cluster.SynchronousStandbyNames, nil
	}
	if len(cluster.Standbys) == 0 || s.oldErr != nil {
		return nil, nil
	}
	var now string
	err := u.sessions.Do(ctx, u.old, func(conn *pgx.Conn) error {
		var err error
		now, _, err = standby.Synchronous(ctx, conn)
		return err
	})
	if err != nil {
		return nil, &pg.Error{Doing: "read synchronous_standby_names", On: u.old.String(), Err: err}
	}
	if now == "" {
		return nil, nil
	}
	return &now, nil
}

func (u *Upgrade) standbySteps(ctx context.Context, s *survey) ([]flow.Step, error) {
	o, err := u.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Steps(o), nil
}

// removeStandbys stops the standbys that this upgrade built, and takes their
// slots and synchronous names away.
func (u *Upgrade) removeStandbys(ctx context.Context, s *survey) ([]flow.Step, error) {
	if s.newErr != nil {
		return nil, nil
	}
	o, err := u.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Remove(o), nil
}

// forgetStandbys leaves the standbys running and takes away what is the
// tool's beside them.
func (u *Upgrade) forgetStandbys(ctx context.Context, s *survey) ([]flow.Step, error) {
	if s.newErr != nil {
		return nil, nil
	}
	o, err := u.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Forget(o), nil
}

// statusStandbys tells of every physical receiver what its upstream's
// pg_stat_replication says, from both primaries down to the last cascade: a
// standby of the runbook that is connected is asked who follows it.
func (u *Upgrade) statusStandbys(ctx context.Context, s *survey, st *report.Status) {
	cluster := u.rb.New[0]
	old, fresh := map[string]string{}, map[string]string{} // conninfos by name
	for _, sb := range u.rb.Old.Standbys {
		old[sb.Name] = sb.Conninfo
	}
	for _, sb := range cluster.Standbys {
		fresh[sb.Name] = sb.Conninfo
	}
	seenOld := u.statusTree(ctx, st, "old", "old", u.old, s.oldErr, old)
	seenNew := u.statusTree(ctx, st, cluster.Cluster, "new", u.new, s.newErr, fresh)
	for _, sb := range u.rb.Old.Standbys {
		if !seenOld[sb.Name] {
			st.Standbys = append(st.Standbys, report.Standby{Cluster: "old", Name: sb.Name})
		}
	}
	for _, sb := range cluster.Standbys {
		if !seenNew[sb.Name] {
			st.Standbys = append(st.Standbys, report.Standby{Cluster: cluster.Cluster, Name: sb.Name, Upstream: first(sb.Upstream, UpstreamPrimary)})
		}
	}
}

// statusTree asks a primary and what is behind it; it returns who was seen.
func (u *Upgrade) statusTree(ctx context.Context, st *report.Status, cluster, side string, primary *pg.Server, silent error, conninfos map[string]string) map[string]bool {
	seen := map[string]bool{}
	if silent != nil {
		return seen // the status says so already
	}
	states, err := u.statesOf(ctx, primary, UpstreamPrimary)
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
			Sent: r.Sent, Write: r.Write, Flush: r.Flush, Replay: r.Replay,
			WriteLag: seconds(r.WriteLag), FlushLag: seconds(r.FlushLag), ReplayLag: seconds(r.ReplayLag),
		})
		if conninfos[r.ApplicationName] == "" || again {
			continue
		}
		server, err := pg.Parse("standby "+r.ApplicationName+" of "+side, conninfos[r.ApplicationName], "")
		if err == nil {
			var behind []standby.State
			if behind, err = u.statesOf(ctx, server.As(u.app), r.ApplicationName); err == nil {
				states = append(states, behind...)
				continue
			}
		}
		st.Notes = append(st.Notes, fmt.Sprintf("who follows standby %s of %s is not known: %v", r.ApplicationName, side, err))
	}
	return seen
}

// statesOf asks one server who receives from it; one that is gone is not
// waited for.
func (u *Upgrade) statesOf(ctx context.Context, server *pg.Server, name string) (states []standby.State, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, relayTimeout, fmt.Errorf("no answer within %s", relayTimeout))
	defer cancel()
	err = u.sessions.Do(ctx, server, func(conn *pgx.Conn) (err error) {
		states, err = standby.States(ctx, conn, name)
		return err
	})
	return states, err
}

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	f := d.Seconds()
	return &f
}
