package upgrade

import (
	"context"
	"slices"

	"crossfade/schema"
	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"
	"crossfade/upgrade/transfer"
	"crossfade/upgrade/verify"
)

// Check looks for what blocks the upgrade, on every server of the runbook. A
// server that does not answer is a finding, not an error.
func (u *Upgrade) Check(ctx context.Context) ([]check.Finding, error) {
	if u.parts != nil {
		return u.parts.check(ctx, func(p *Upgrade) ([]check.Finding, error) { return p.Check(ctx) })
	}
	o, s, err := u.checkOptions(ctx, false)
	if err != nil {
		return nil, err
	}
	return u.judged(ctx, o, s)
}

// judged are the findings of both clusters and of the traffic.
func (u *Upgrade) judged(ctx context.Context, o check.Options, s *survey.Survey) ([]check.Finding, error) {
	found, err := check.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	traffic, err := u.trafficFindings(ctx)
	if err != nil {
		return nil, err
	}
	return u.named(append(append(splitFindings(u.c, s), found...), traffic...)), nil
}

// checkOptions are check's, and the survey that they were made from; nil where
// the servers or their tables could not be read. How big each table is takes
// longer to ask than everything else, and is asked with sizes only.
func (u *Upgrade) checkOptions(ctx context.Context, sizes bool) (check.Options, *survey.Survey, error) {
	// Where none of old's hosts is its primary, check asks the first, and says so.
	if err := u.c.Locate(ctx); err != nil && ctx.Err() != nil {
		return check.Options{}, nil, err
	}
	o := check.Options{
		Upgrade: u.rb.Upgrade, Old: u.c.Old, New: u.c.New, FromNew: u.c.OldFromNew, FromOld: u.c.NewFromOld,
		AllDatabases: u.rb.Databases == nil, Back: u.rb.Cutover.Back, MaxWAL: u.rb.Catchup.MaxWAL,
		Jobs: u.rb.Copy.Jobs, IndexJobs: u.rb.Copy.IndexJobs, Accepts: u.rb.Accepts,
		OldHost: host(u.rb.Old.Host), NewHost: host(u.rb.New[0].Host),
	}
	for _, p := range u.c.Siblings() {
		o.Siblings = append(o.Siblings, string(p.Part))
		for _, db := range p.Book.Databases {
			for _, set := range db.Sets {
				if set.To == string(p.Part) {
					o.OtherLinks++
				}
			}
		}
	}
	for _, t := range u.rb.Cutover.Traffic {
		o.Poolers = append(o.Poolers, t.Entry.Hosts()...)
	}
	for _, b := range u.rb.Databases {
		o.Databases = append(o.Databases, checkDatabase(b, string(u.c.Part)))
	}
	var err error
	if o.OldStandbys, o.NewStandbys, err = u.members.CheckStandbys(ctx); err != nil {
		return o, nil, err
	}
	s, err := survey.Take(ctx, u.c, false)
	if err == nil && s.OldErr == nil {
		if o.Managers, err = u.members.CheckManagers(ctx); pg.SQLState(err) != "" {
			o.Incomplete = append(o.Incomplete, check.Incomplete{On: check.OnOld, What: "failover managers", Err: err, Serious: true, Grants: []string{"GRANT pg_read_all_settings TO $role;"}})
			err = nil
		}
		if err != nil {
			return o, nil, err
		}
	}
	if err == nil {
		o.Ours = s.Phase != report.PhaseNew
		if s.WasOpen() {
			// Those whose places new's have taken are not missed.
			taken, _ := u.members.Taken(ctx, s)
			o.OldStandbys = slices.DeleteFunc(o.OldStandbys, func(sb check.Standby) bool { return taken[sb.Name] })
		}
	} else if _, ok := err.(*exit.Error); ok {
		return o, nil, err
	}
	if err != nil || s.OldErr != nil {
		return o, nil, nil
	}
	// Mistakes of the runbook that only the tables show come before findings.
	err = s.ReadTablesWith(ctx, schema.Filter{NoObjects: true, NoSizes: !sizes, NoUncalled: true})
	if pg.SQLState(err) != "" {
		return o, nil, nil // a database that cannot be read is a finding: check reads it, too
	}
	if err != nil {
		return o, nil, err
	}
	if s.Serving().Name == "old" {
		o.Inventories = map[string]*schema.Inventory{}
		for _, db := range s.Databases {
			o.Inventories[db.Name] = db.Inventory
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
		db := &survey.Database{Name: b.Name, Book: b, Inventory: inv}
		db.Assign()
		if cluster != "" {
			db.Sets = slices.DeleteFunc(db.Sets, func(set schema.Set) bool { to, _ := b.To(set.Name); return to != cluster })
		}
		return db.Sets
	}
	return d
}

// mustPass runs check and returns its blocking findings as an error.
func (u *Upgrade) mustPass(ctx context.Context) error {
	found, err := u.Check(ctx)
	if err != nil {
		return err
	}
	if blocking := check.Blocking(found); len(blocking) > 0 {
		return exit.Blocks(blocking)
	}
	u.passed = true
	return nil
}

// findings tells as findings why a server cannot be worked with, or returns
// err where check finds nothing.
func (u *Upgrade) findings(ctx context.Context, err error) error {
	if cerr := u.mustPass(ctx); cerr != nil {
		return cerr
	}
	return err
}

func (u *Upgrade) checkStep() flow.Step {
	return flow.Step{
		ID: "check", Title: "Look for what blocks the upgrade",
		Done: func(context.Context) (bool, error) { return u.passed, nil },
		Do:   func(ctx context.Context, _ *flow.Turn) error { return u.mustPass(ctx) },
	}
}

// Verify compares every database's rows while both sides move.
func (u *Upgrade) Verify(ctx context.Context, each func(verify.Result), observe func(flow.Event)) error {
	s, err := survey.Take(ctx, u.c, false)
	if err == nil {
		err = s.MayVerify()
	}
	if err != nil {
		return err
	}
	ctx, release, err := u.c.Keep(ctx, s.Serving().Server.With(s.Home))
	if err != nil {
		return err
	}
	defer release()
	if s, err = survey.Take(ctx, u.c, true); err == nil {
		err = s.MayVerify() // another command may have been quicker
	}
	if err != nil {
		return err
	}
	var all []verify.Result
	for _, db := range s.Databases {
		t := flow.NewTurn("verify", "verify/"+db.Name, nil, observe)
		carried, made, err := u.transfer.Carried(ctx, s, db)
		if err != nil {
			return err
		}
		for _, table := range made {
			each(verify.Result{
				Database: db.Name, Table: table.String(), Rows: -1, Equal: true,
				Skipped: "made on " + s.Serving().Name + " since prepare last ran: crossfade prepare takes it along",
			})
		}
		results, err := u.transfer.CompareTables(ctx, s, carried, carried.Links, each, t)
		if err != nil {
			return err
		}
		all = append(all, results...)
	}
	return transfer.Differing(s, all)
}
