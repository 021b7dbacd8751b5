// Package upgrade composes an upgrade from its runbook: plans in their order,
// crossings, status, and the parts of an upgrade to several new clusters. It is the
// only package that knows all the others; what each of them may know is in
// docs/architecture.md and kept by a test.
package upgrade

import (
	"context"
	"errors"
	"fmt"
	"time"

	"crossfade/upgrade/check"
	"crossfade/upgrade/clusters"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/ground"
	"crossfade/upgrade/members"
	"crossfade/upgrade/owners"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/scratch"
	"crossfade/upgrade/transfer"
	"crossfade/upgrade/trial"
	"crossfade/upgrade/trust"
)

// Upgrade is one upgrade: a runbook and the servers that it names. Where the
// tables of old are split over several new clusters it is made of parts, one for
// each of them, and a part is as an upgrade to that cluster alone.
type Upgrade struct {
	parts parts    // nil: there is one new cluster
	whole *Upgrade // that this is a part of, or nil

	rb      *runbook.Runbook
	c       *clusters.Clusters
	passed  bool      // this process has run check, and nothing blocks
	until   time.Time // no attempt of a crossing begins after it; zero: no limit
	running running

	members  *members.Members
	transfer *transfer.Transfer
	trial    *trial.Trial
	owners   *owners.Owners
	scratch  *scratch.Scratch
	ground   *ground.Ground
	trust    *trust.Trust
}

// Open reads the servers' addresses from the runbook. Nothing is connected.
func Open(_ context.Context, rb *runbook.Runbook) (*Upgrade, error) {
	if err := acceptable(rb); err != nil {
		return nil, err
	}
	all, err := clusters.Open(rb)
	if err != nil {
		return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
	}
	if len(rb.New) == 1 {
		return over(all[0]), nil
	}
	u := &Upgrade{rb: rb, c: &clusters.Clusters{Book: rb, App: clusters.App(rb)}}
	for _, c := range all {
		p := over(c)
		p.whole = u
		u.parts = append(u.parts, p)
	}
	return u, nil
}

// over is the upgrade of old to the one new cluster of c.
func over(c *clusters.Clusters) *Upgrade {
	u := &Upgrade{rb: c.Book, c: c}
	u.scratch = scratch.New(c)
	u.ground = ground.New(c, u.scratch)
	u.trust = trust.New(c, u.ground)
	u.owners = owners.New(c)
	u.trial = trial.New(c, u.ground, u.scratch)
	u.transfer = transfer.New(c, u.ground, u.trust, u.trial, u.owners)
	u.members = members.New(c, u.ground)
	return u
}

// acceptable refuses accept: entries that name no finding, or one that nobody
// can answer for.
func acceptable(rb *runbook.Runbook) error {
	may := map[string]bool{}
	for _, c := range check.Checks() {
		may[c.ID] = c.Acceptable
	}
	for _, k := range otherKinds() {
		may[k.id] = k.acceptable
	}
	var problems []runbook.Problem
	for _, a := range rb.Accept {
		ok, known := may[a.ID]
		switch {
		case !known:
			problems = append(problems, rb.Problem(a.At, fmt.Sprintf("accept: there is no finding %q; crossfade check prints their ids", a.ID)))
		case !ok:
			problems = append(problems, rb.Problem(a.At, fmt.Sprintf("accept: %s cannot be accepted: going on would break the running application, lose rows, or get nowhere", a.ID)))
		}
	}
	if len(problems) > 0 {
		return &runbook.Error{Problems: problems}
	}
	return nil
}

// Watching is the same upgrade for one that only looks: its sessions carry a
// name of their own, by which a person knows them in pg_stat_activity.
func (u *Upgrade) Watching() *Upgrade {
	w := over(u.c.Watching())
	w.whole = u.whole
	return w
}

// Close ends every session.
func (u *Upgrade) Close() error {
	err := u.c.Close()
	for _, p := range u.parts {
		err = errors.Join(err, p.Close())
	}
	return err
}

// Runbook is what the upgrade was opened with.
func (u *Upgrade) Runbook() *runbook.Runbook { return u.rb }
