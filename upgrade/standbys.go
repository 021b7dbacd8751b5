package upgrade

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"
	"crossfade/upgrade/survey"

	"github.com/jackc/pgx/v5"
)

// standbyOptions are the standbys of new as the runbook has them.
func (u *Upgrade) standbyOptions(ctx context.Context, s *survey.Survey) (standby.Options, error) {
	o := standby.Options{
		Upgrade: u.rb.Upgrade, Primary: u.c.New, Version: s.New.Version, Temporary: ground.SystemSettings, Jobs: u.rb.Copy.Jobs, Limit: u.rb.Copy.Limit,
		OldCluster: standby.OldCluster{Primary: u.c.Old, SystemID: s.OldSystem()},
	}
	cluster := u.rb.New[0]
	o.Nodes = make([]standby.Node, len(cluster.Standbys))
	byName := map[string]*standby.Node{}
	for i, sb := range cluster.Standbys {
		byName[sb.Name] = &o.Nodes[i]
	}
	for i, sb := range cluster.Standbys {
		server, err := pg.Parse(sb.Name, sb.Conninfo, sb.Bin)
		if err != nil {
			return o, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
		}
		host, _, err := pg.ParseHost(string(sb.Host))
		if err != nil {
			return o, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
		}
		n := &o.Nodes[i]
		*n = standby.Node{
			Name: sb.Name, Host: host, Server: server.As(u.c.App), Bin: sb.Bin, DataDir: sb.Data, Config: sb.Config, Slot: sb.Slot,
			Start: sb.Start, Stop: sb.Stop, Restart: sb.Restart, Delay: sb.ApplyDelay, Upstream: byName[sb.Upstream],
		}
		for _, set := range sb.Settings {
			n.Settings = append(n.Settings, standby.Setting{Name: set.Name, Value: set.Value})
		}
		if sb.After {
			if n.Old, err = u.predecessor(sb.Name); err != nil {
				return o, err
			}
		}
	}
	var err error
	if o.OldCluster.SynchronousStandbyNames, err = s.OldSynchronous(ctx); err != nil {
		return o, err
	}
	o.SynchronousStandbyNames = u.synchronousNames(s, o.OldCluster.SynchronousStandbyNames)
	if v, ok := s.Before("new/system/synchronous_standby_names"); ok {
		o.SynchronousBefore = &v
	}
	return o, nil
}

// predecessor is old's standby of that name, whose host new's gets.
func (u *Upgrade) predecessor(name string) (*standby.Predecessor, error) {
	i := slices.IndexFunc(u.rb.Old.Standbys, func(sb runbook.OldStandby) bool { return sb.Name == name })
	if i < 0 {
		return nil, exit.Errorf(exit.Usage, "name it under old.standbys, with host and data", "there is no old standby %s to replace (build: after)", name)
	}
	sb := u.rb.Old.Standbys[i]
	// Not by the name of new's: kept sessions go by name.
	server, err := pg.Parse("standby "+name+" of old", sb.Conninfo, "")
	if err != nil {
		return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
	}
	host, _, err := pg.ParseHost(string(sb.Host))
	if err != nil {
		return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
	}
	return &standby.Predecessor{Server: server.As(u.c.App), Host: host, DataDir: sb.Data, Stop: sb.Stop}, nil
}

// synchronousNames is what the runbook says, or else what old had when the
// upgrade began; nil where old had none or new gets no standbys.
func (u *Upgrade) synchronousNames(s *survey.Survey, old string) *string {
	cluster := u.rb.New[0]
	if cluster.SynchronousStandbyNames != nil {
		return cluster.SynchronousStandbyNames
	}
	if v, ok := s.Before(ground.OldSynchronousNames); ok && len(cluster.Standbys) > 0 {
		// What was taken away after open stands in it no more.
		old = v
	}
	if old == "" {
		return nil
	}
	return &old
}

func (u *Upgrade) standbySteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	o, err := u.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Steps(o), nil
}

// standbysAfter builds the standbys that take a place of old's, after open.
func (u *Upgrade) standbysAfter(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if len(u.rb.New[0].Successors()) == 0 {
		return nil, nil
	}
	o, err := u.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.After(o), nil
}

// taken tells whose place of old's has been taken, and which of those that took
// it have been copied. Before new has ever been opened nobody is asked; a host
// that cannot be asked says nothing has been taken, and all may be built.
func (u *Upgrade) taken(ctx context.Context, s *survey.Survey) (taken, built map[string]bool) {
	names := u.rb.New[0].Successors()
	if len(names) == 0 || !s.WasOpen() {
		return nil, nil
	}
	o, err := u.standbyOptions(ctx, s)
	if err == nil {
		taken, built, err = standby.Taken(ctx, o)
	}
	if err != nil {
		if built == nil {
			built = map[string]bool{}
		}
		for _, name := range names {
			if !taken[name] {
				built[name] = true
			}
		}
	}
	return taken, built
}

// placesTaken tells what old is without for good, for who retires it or goes on
// with it: nothing puts that back.
func (u *Upgrade) placesTaken(ctx context.Context, s *survey.Survey) []string {
	if !s.WasOpen() {
		return nil
	}
	var lines []string
	for _, name := range u.rb.New[0].Successors() {
		p, err := u.predecessor(name)
		if err != nil {
			continue // the runbook has changed since
		}
		conn, err := p.Server.Connect(ctx)
		if err == nil {
			id, ierr := pg.Identify(ctx, conn)
			_ = conn.Close(context.WithoutCancel(ctx))
			if ierr == nil && id.SystemID == s.OldSystem() {
				continue // it runs
			}
		}
		lines = append(lines, fmt.Sprintf("old: its standby %s does not run, because new's took its place; what it had is in %s on %s, or beside that, and its slot on its upstream keeps WAL until it is dropped", name, p.DataDir, p.Host.Name()))
	}
	was, known := s.Before(ground.OldSynchronousNames)
	now, err := s.OldSynchronous(ctx)
	if len(lines) > 0 && known && err == nil && s.OldErr == nil && now != was {
		lines = append(lines, fmt.Sprintf("old: synchronous_standby_names is %q now, and was %q when the upgrade began", now, was))
	}
	return lines
}

// removeStandbys stops the standbys that this upgrade built, and takes their
// slots and synchronous names away.
func (u *Upgrade) removeStandbys(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.NewErr != nil {
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
func (u *Upgrade) forgetStandbys(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.NewErr != nil {
		return nil, nil
	}
	o, err := u.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Forget(o), nil
}

// statusStandbys reports of every physical receiver what its upstream's
// pg_stat_replication says, from both primaries down to the last cascade: a
// standby of the runbook that is connected is asked who follows it.
func (u *Upgrade) statusStandbys(ctx context.Context, s *survey.Survey, st *report.Status) {
	cluster := u.rb.New[0]
	old, fresh := map[string]string{}, map[string]string{} // conninfos by name
	for _, sb := range u.rb.Old.Standbys {
		old[sb.Name] = sb.Conninfo
	}
	for _, sb := range cluster.Standbys {
		fresh[sb.Name] = sb.Conninfo
	}
	seenOld := u.statusTree(ctx, st, "old", "old", u.c.Old, s.OldErr, old)
	seenNew := u.statusTree(ctx, st, cluster.Cluster, "new", u.c.New, s.NewErr, fresh)
	for _, sb := range u.rb.Old.Standbys {
		replaced := seenNew[sb.Name] && slices.Contains(u.rb.New[0].Successors(), sb.Name)
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

// statusTree asks a primary and what is following it; it returns who was seen.
func (u *Upgrade) statusTree(ctx context.Context, st *report.Status, cluster, side string, primary *pg.Server, silent error, conninfos map[string]string) map[string]bool {
	seen := map[string]bool{}
	if silent != nil {
		return seen // the status says so already
	}
	states, err := u.statesOf(ctx, primary, runbook.UpstreamPrimary)
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
				WriteLag: seconds(r.WriteLag), FlushLag: seconds(r.FlushLag), ReplayLag: seconds(r.ReplayLag),
			},
		})
		if conninfos[r.ApplicationName] == "" || again {
			continue
		}
		server, err := pg.Parse("standby "+r.ApplicationName+" of "+side, conninfos[r.ApplicationName], "")
		if err == nil {
			var behind []standby.State
			if behind, err = u.statesOf(ctx, server.As(u.c.App), r.ApplicationName); err == nil {
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
	ctx, cancel := context.WithTimeoutCause(ctx, clusters.AnswerTimeout, fmt.Errorf("no answer within %s", clusters.AnswerTimeout))
	defer cancel()
	err = u.c.Sessions.Do(ctx, server, func(conn *pgx.Conn) (err error) {
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
