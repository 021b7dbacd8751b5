package members

import (
	"context"
	"fmt"
	"slices"

	"crossfade/cutover"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"
	"crossfade/upgrade/survey"
)

// standbyOptions are the standbys of new as the runbook has them.
func (ms *Members) standbyOptions(ctx context.Context, s *survey.Survey) (standby.Options, error) {
	o := standby.Options{
		Upgrade: ms.c.Book.Upgrade, Primary: ms.c.New, Version: s.New.Version, Temporary: ground.SystemSettings, Jobs: ms.c.Book.Copy.Jobs, Limit: ms.c.Book.Copy.Limit,
		OldCluster: standby.OldCluster{Primary: ms.c.Old, SystemID: s.OldSystem()},
	}
	cluster := ms.c.Book.New[0]
	o.Nodes = make([]standby.Node, len(cluster.Standbys))
	byName := map[string]*standby.Node{}
	for i, sb := range cluster.Standbys {
		byName[sb.Name] = &o.Nodes[i]
	}
	for i, sb := range cluster.Standbys {
		server, err := ms.c.Server(sb.Name, sb.Conninfo, sb.Bin)
		if err != nil {
			return o, err
		}
		host, _, err := pg.ParseHost(string(sb.Host))
		if err != nil {
			return o, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
		}
		n := &o.Nodes[i]
		*n = standby.Node{
			Name: sb.Name, Host: host, Server: server, Bin: sb.Bin, DataDir: sb.Data, Config: sb.Config, Slot: sb.Slot,
			Start: sb.Start, Stop: sb.Stop, Restart: sb.Restart, Delay: sb.ApplyDelay, Upstream: byName[sb.Upstream],
		}
		for _, set := range sb.Settings {
			n.Settings = append(n.Settings, standby.Setting{Name: set.Name, Value: set.Value})
		}
		if sb.After {
			if n.Old, err = ms.predecessor(sb.Name); err != nil {
				return o, err
			}
		}
	}
	var err error
	if o.OldCluster.SynchronousStandbyNames, err = s.OldSynchronous(ctx); err != nil {
		return o, err
	}
	o.SynchronousStandbyNames = ms.synchronousNames(s, o.OldCluster.SynchronousStandbyNames)
	if v, ok := s.Before("new/system/synchronous_standby_names"); ok {
		o.SynchronousBefore = &v
	}
	return o, nil
}

// predecessor is old's standby of that name, whose host new's gets.
func (ms *Members) predecessor(name string) (*standby.Predecessor, error) {
	i := slices.IndexFunc(ms.c.Book.Old.Standbys, func(sb runbook.OldStandby) bool { return sb.Name == name })
	if i < 0 {
		return nil, exit.Errorf(exit.Usage, "name it under old.standbys, with host and data", "there is no old standby %s to replace (build: after)", name)
	}
	sb := ms.c.Book.Old.Standbys[i]
	// Not by the name of new's: kept sessions go by name.
	server, err := ms.c.Server("standby "+name+" of old", sb.Conninfo, "")
	if err != nil {
		return nil, err
	}
	host, _, err := pg.ParseHost(string(sb.Host))
	if err != nil {
		return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
	}
	return &standby.Predecessor{Server: server, Host: host, DataDir: sb.Data, Stop: sb.Stop}, nil
}

// synchronousNames is what the runbook says, or else what old had when the
// upgrade began; nil where old had none or new gets no standbys.
func (ms *Members) synchronousNames(s *survey.Survey, old string) *string {
	cluster := ms.c.Book.New[0]
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

// StandbySteps build the standbys of new that are built before the cutover.
func (ms *Members) StandbySteps(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	o, err := ms.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Steps(o), nil
}

// StandbysAfter builds the standbys that take a place of old's, after open.
func (ms *Members) StandbysAfter(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if len(ms.c.Book.New[0].Successors()) == 0 {
		return nil, nil
	}
	o, err := ms.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.After(o), nil
}

// Taken tells whose place of old's has been taken, and which of those that took
// it have been copied. Before new has ever been opened nobody is asked; a host
// that cannot be asked says nothing has been taken, and all may be built.
func (ms *Members) Taken(ctx context.Context, s *survey.Survey) (taken, built map[string]bool) {
	names := ms.c.Book.New[0].Successors()
	if len(names) == 0 || !s.WasOpen() {
		return nil, nil
	}
	o, err := ms.standbyOptions(ctx, s)
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

// PlacesTaken tells what old is without for good, for who retires it or goes on
// with it: nothing puts that back.
func (ms *Members) PlacesTaken(ctx context.Context, s *survey.Survey) []string {
	if !s.WasOpen() {
		return nil
	}
	var lines []string
	for _, name := range ms.c.Book.New[0].Successors() {
		p, err := ms.predecessor(name)
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

// RemoveStandbys stops the standbys that this upgrade built, and takes their
// slots and synchronous names away.
func (ms *Members) RemoveStandbys(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.NewErr != nil {
		return nil, nil
	}
	o, err := ms.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Remove(o), nil
}

// ForgetStandbys leaves the standbys running and takes away what is the
// tool's beside them.
func (ms *Members) ForgetStandbys(ctx context.Context, s *survey.Survey) ([]flow.Step, error) {
	if s.NewErr != nil {
		return nil, nil
	}
	o, err := ms.standbyOptions(ctx, s)
	if err != nil {
		return nil, err
	}
	return standby.Forget(o), nil
}

// Expected are a side's standbys in the runbook. Those whose absence the
// operator has accepted do not count, nor do those of old that new's have taken
// the place of, nor those of new that are still to do so.
func (ms *Members) Expected(ctx context.Context, s *survey.Survey, side string) ([]cutover.Standby, error) {
	taken, built := ms.Taken(ctx, s)
	var standbys []cutover.Standby
	add := func(name, conninfo string) error {
		if ms.c.Book.Accepts(cutover.StandbyMissing, name) {
			return nil
		}
		server, err := ms.c.Server(name, conninfo, "")
		if err != nil {
			return err
		}
		standbys = append(standbys, cutover.Standby{Name: name, Server: server})
		return nil
	}
	if side == "old" {
		for _, sb := range ms.c.Book.Old.Standbys {
			if taken[sb.Name] {
				continue
			}
			if err := add(sb.Name, sb.Conninfo); err != nil {
				return nil, err
			}
		}
		return standbys, nil
	}
	for _, sb := range ms.c.Book.New[0].Standbys {
		if sb.After && !built[sb.Name] {
			continue
		}
		if err := add(sb.Name, sb.Conninfo); err != nil {
			return nil, err
		}
	}
	return standbys, nil
}
