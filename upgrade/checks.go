package upgrade

import (
	"context"
	"slices"

	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/verify"
)

// Check looks for what blocks the upgrade, on every server of the runbook. A
// server that does not answer is a finding, not an error.
func (u *Upgrade) Check(ctx context.Context) ([]check.Finding, error) {
	if u.parts != nil {
		return u.checkParts(ctx, func(p *Upgrade) ([]check.Finding, error) { return p.Check(ctx) })
	}
	o, s, err := u.checkOptions(ctx, false)
	if err != nil {
		return nil, err
	}
	return u.judged(ctx, o, s)
}

// judged are the findings of both clusters and of the traffic.
func (u *Upgrade) judged(ctx context.Context, o check.Options, s *survey) ([]check.Finding, error) {
	found, err := check.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	traffic, err := u.trafficFindings(ctx)
	if err != nil {
		return nil, err
	}
	return u.named(append(append(u.splitFindings(s), found...), traffic...)), nil
}

// checkOptions are check's, and the survey that they were made from; nil where
// the servers or their tables could not be read. How big each table is takes
// longer to ask than everything else, and is asked with sizes only.
func (u *Upgrade) checkOptions(ctx context.Context, sizes bool) (check.Options, *survey, error) {
	// Where none of old's hosts is its primary, check asks the first, and says so.
	if err := u.locate(ctx); err != nil && ctx.Err() != nil {
		return check.Options{}, nil, err
	}
	o := check.Options{
		Upgrade: u.rb.Upgrade, Old: u.old, New: u.new, FromNew: u.oldFromNew, FromOld: u.newFromOld,
		AllDatabases: u.rb.Databases == nil, Back: u.rb.Cutover.Back, MaxWAL: u.rb.Catchup.MaxWAL,
		Jobs: u.rb.Copy.Jobs, IndexJobs: u.rb.Copy.IndexJobs,
		OldHost: host(u.rb.Old.Host), NewHost: host(u.rb.New[0].Host),
	}
	for _, p := range u.siblings() {
		o.Siblings = append(o.Siblings, string(p.part))
		for _, db := range p.rb.Databases {
			for _, set := range db.Sets {
				if set.To == string(p.part) {
					o.OtherLinks++
				}
			}
		}
	}
	for _, t := range u.rb.Cutover.Traffic {
		o.Poolers = append(o.Poolers, t.Entry.Hosts()...)
	}
	for _, b := range u.rb.Databases {
		o.Databases = append(o.Databases, checkDatabase(b, string(u.part)))
	}
	for _, a := range u.rb.Accept {
		o.Accept = append(o.Accept, check.Accept{ID: a.ID, Object: a.Object, Match: a.Matches})
	}
	for _, sb := range u.rb.Old.Standbys {
		server, err := pg.Parse(sb.Name, sb.Conninfo, "")
		if err != nil {
			return o, nil, &ExitError{Code: ExitUsage, Says: err.Error(), Err: err}
		}
		if u.isPrimary(ctx, server.As(u.app), "standby "+sb.Name+" of old") {
			continue // promoted: it is old.primary now
		}
		o.OldStandbys = append(o.OldStandbys, check.Standby{Name: sb.Name, Server: server.As(u.app), Data: sb.Data})
	}
	for _, sb := range u.rb.New[0].Standbys {
		server, err := pg.Parse(sb.Name, sb.Conninfo, "")
		if err != nil {
			return o, nil, &ExitError{Code: ExitUsage, Says: err.Error(), Err: err}
		}
		up := sb.Upstream
		if up == runbook.UpstreamPrimary {
			up = ""
		}
		o.NewStandbys = append(o.NewStandbys, check.Standby{Name: sb.Name, Server: server.As(u.app), Upstream: up, Slot: sb.Slot, After: sb.After})
	}
	s, err := u.look(ctx, false)
	if err == nil && s.oldErr == nil {
		if o.Managers, err = u.checkManagers(ctx); pg.SQLState(err) != "" {
			o.Incomplete = append(o.Incomplete, check.Incomplete{On: check.OnOld, What: "failover managers", Err: err, Serious: true, Grants: []string{"GRANT pg_read_all_settings TO $role;"}})
			err = nil
		}
		if err != nil {
			return o, nil, err
		}
	}
	if err == nil {
		o.Ours = s.phase != report.PhaseNew
		if s.wasOpen() {
			// Those whose places new's have taken are not missed.
			taken, _ := u.taken(ctx, s)
			o.OldStandbys = slices.DeleteFunc(o.OldStandbys, func(sb check.Standby) bool { return taken[sb.Name] })
		}
	} else if _, ok := err.(*ExitError); ok {
		return o, nil, err
	}
	if err != nil || s.oldErr != nil {
		return o, nil, nil
	}
	// Mistakes of the runbook that only the tables show come before findings.
	err = u.lookAtTables(ctx, s, schema.Filter{NoObjects: true, NoSizes: !sizes, NoUncalled: true})
	if pg.SQLState(err) != "" {
		return o, nil, nil // a database that cannot be read is a finding: check reads it, too
	}
	if err != nil {
		return o, nil, err
	}
	if s.serving().Name == "old" {
		o.Inventories = map[string]*schema.Inventory{}
		for _, db := range s.databases {
			o.Inventories[db.name] = db.inventory
		}
	}
	return o, s, nil
}

// host is where a server's machine is asked; nil where the runbook gives none.
func host(h runbook.Host) pg.Host {
	if h == runbook.HostLocal {
		return pg.Local{}
	}
	return nil
}

func checkDatabase(b runbook.Database, cluster string) check.Database {
	d := check.Database{Name: b.Name, Identity: map[string]string{}}
	if len(b.Exclude) > 0 {
		d.Exclude = func(schema, table string) bool {
			for _, p := range b.Exclude {
				if p.Match(schema, table) {
					return true
				}
			}
			return false
		}
	}
	d.Ordered = func(t schema.Table) string {
		switch index, ok := b.Patterned(t); {
		case !ok:
			return ""
		case index != "":
			return "index:" + index
		}
		return "full"
	}
	for _, id := range b.Identity {
		if id.Of != nil {
			continue
		}
		want := "full"
		if id.Index != "" {
			want = "index:" + id.Index
		}
		d.Identity[schema.Name(id.Table.Schema, id.Table.Name)] = want
	}
	d.Sets = func(inv *schema.Inventory) []schema.Set {
		db := &database{name: b.Name, book: b, inventory: inv}
		db.assign()
		if cluster != "" {
			db.sets = slices.DeleteFunc(db.sets, func(set schema.Set) bool { to, _ := b.To(set.Name); return to != cluster })
		}
		return db.sets
	}
	return d
}

// Verify compares every database's rows while both sides move.
func (u *Upgrade) Verify(ctx context.Context, each func(verify.Result), observe func(flow.Event)) error {
	s, err := u.look(ctx, false)
	if err == nil {
		err = s.mayVerify()
	}
	if err != nil {
		return err
	}
	ctx, release, err := u.keep(ctx, s.serving().Server.With(s.home))
	if err != nil {
		return err
	}
	defer release()
	if s, err = u.look(ctx, true); err == nil {
		err = s.mayVerify() // another command may have been quicker
	}
	if err != nil {
		return err
	}
	var all []verify.Result
	for _, db := range s.databases {
		t := flow.NewTurn("verify", "verify/"+db.name, nil, observe)
		carried, made, err := u.split(ctx, s, db)
		if err != nil {
			return err
		}
		for _, table := range made {
			each(verify.Result{
				Database: db.name, Table: table.String(), Rows: -1, Equal: true,
				Skipped: "made on " + s.serving().Name + " since prepare last ran: crossfade prepare takes it along",
			})
		}
		results, err := u.compareTables(ctx, s, carried, carried.links, each, t)
		if err != nil {
			return err
		}
		all = append(all, results...)
	}
	return differing(s, all)
}

// mayVerify wants both sides to answer, and rows on both that follow each other.
func (s *survey) mayVerify() error {
	switch s.phase {
	case report.PhaseReady, report.PhaseOpen, report.PhaseRolledBack:
		return s.bothAnswer()
	}
	return wrongPhase(s.phase, "verify")
}
