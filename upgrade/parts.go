package upgrade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"
)

// parts are those of an upgrade to several new clusters, in the order of the
// runbook.
type parts []*Upgrade

// Parts are what is cut over by itself: one for each new cluster, in the order
// of the runbook.
func (u *Upgrade) Parts() []*Upgrade {
	if u.parts == nil {
		return []*Upgrade{u}
	}
	return u.parts
}

// Cluster is the new cluster that a part is for; "" where there is one.
func (u *Upgrade) Cluster() string { return string(u.c.Part) }

// Select is the part of one cluster; "": all of it.
func (u *Upgrade) Select(cluster string) (*Upgrade, error) {
	if cluster == "" {
		return u, nil
	}
	var names []string
	for _, p := range u.Parts() {
		name := p.rb.New[0].Cluster
		if name == cluster {
			return p, nil
		}
		names = append(names, name)
	}
	return nil, exit.Errorf(exit.Usage, "the runbook has "+strings.Join(names, ", "), "--cluster %s: there is no such cluster under new", cluster)
}

// Telling is observe with the part's cluster in every event.
func (u *Upgrade) Telling(observe func(flow.Event)) func(flow.Event) {
	if u.c.Part == "" {
		return observe
	}
	return func(e flow.Event) {
		e.Cluster = string(u.c.Part)
		observe(e)
	}
}

// Each runs do for every part, in the order of the runbook, up to the first that
// fails.
func (u *Upgrade) Each(do func(*Upgrade) error) error {
	for _, p := range u.Parts() {
		if err := do(p); err != nil {
			return p.about(err)
		}
	}
	return nil
}

// Calls is how a side is called: new by the name of its cluster, where there are
// several.
func (u *Upgrade) Calls(side string) string {
	switch {
	case u.c.Part == "":
		return side
	case side == "new":
		return "cluster " + string(u.c.Part)
	}
	return "old, in place of cluster " + string(u.c.Part) + ","
}

// about is an error of a part, which says of which.
func (u *Upgrade) about(err error) error {
	if err == nil || u.c.Part == "" {
		return err
	}
	if _, ok := errors.AsType[*exit.ErrFindings](err); ok {
		return err
	}
	if _, ok := errors.AsType[*runbook.Error](err); ok {
		return err
	}
	e := *exit.Of(err)
	e.Says = "cluster " + string(u.c.Part) + ": " + e.Says
	if e.On == "new" {
		e.On = string(u.c.Part)
	}
	e.Err = err
	return &e
}

// named are findings with the cluster's name for new, without those that a
// sibling answers.
func (u *Upgrade) named(found []check.Finding) []check.Finding {
	if u.whole != nil {
		found = slices.DeleteFunc(found, func(f check.Finding) bool {
			return f.ID == "database-left" && slices.ContainsFunc(u.whole.rb.Databases, func(db runbook.Database) bool { return db.Name == f.Object })
		})
	}
	for i := range found {
		if u.c.Part != "" && found[i].On == check.OnNew {
			found[i].On = string(u.c.Part)
		}
	}
	return found
}

// merged are the findings of all parts; what several say is said once.
func merged(all, more []check.Finding) []check.Finding {
	for _, f := range more {
		if !slices.ContainsFunc(all, func(g check.Finding) bool {
			return g.ID == f.ID && g.On == f.On && g.Database == f.Database && g.Object == f.Object && g.Says == f.Says
		}) {
			all = append(all, f)
		}
	}
	return all
}

func (ps parts) check(ctx context.Context, look func(*Upgrade) ([]check.Finding, error)) ([]check.Finding, error) {
	var all []check.Finding
	for _, p := range ps {
		found, err := look(p)
		if err != nil {
			return all, p.about(err)
		}
		all = merged(all, found)
	}
	return all, nil
}

// prepare prepares one part after the other, when nothing stands in the
// way of any.
func (ps parts) prepare(ctx context.Context, o PrepareOptions, observe func(flow.Event)) error {
	var blocking []check.Finding
	for _, p := range ps {
		s, err := survey.Take(ctx, p.c, false)
		if err == nil && s.Phase != report.PhaseNew {
			continue
		}
		err = p.mustPass(ctx)
		stop, ok := errors.AsType[*exit.ErrFindings](err)
		if !ok && err != nil {
			return p.about(err)
		}
		if ok {
			blocking = merged(blocking, stop.Blocking)
		}
	}
	if len(blocking) > 0 {
		return exit.Blocks(blocking)
	}
	var late error
	some := false
	for _, p := range ps {
		err := p.Prepare(ctx, o, p.Telling(observe))
		if e, ok := errors.AsType[*exit.Error](err); ok && e.Code == exit.Gate {
			// It is past that, and keeps no other from it.
			late = errors.Join(late, p.about(err))
			continue
		}
		if err != nil {
			return p.about(err)
		}
		some = true
	}
	if some {
		return nil
	}
	return late
}

// preview is Preview of all parts that have something to do.
func (ps parts) preview(ctx context.Context, plan string, o CutoverOptions) ([]string, error) {
	var lines []string
	for _, p := range ps {
		some, err := p.Preview(ctx, plan, o)
		if err != nil {
			return nil, p.about(err)
		}
		for _, l := range some {
			lines = append(lines, fmt.Sprintf("cluster %s: %s", p.c.Part, l))
		}
	}
	return lines, nil
}

// clean runs finish or abort of all parts, when it is the time for all.
func (ps parts) clean(ctx context.Context, plan string, do func(*Upgrade) (Leftovers, error)) (Leftovers, error) {
	for _, p := range ps {
		s, err := survey.Take(ctx, p.c, false)
		if err != nil && (s == nil || s.OldErr != nil && s.NewErr != nil) {
			return Leftovers{}, p.about(err)
		}
		if _, err := p.timely(ctx, s, plan); err != nil {
			return Leftovers{}, p.about(err)
		}
	}
	var out Leftovers
	for _, p := range ps {
		left, err := do(p)
		if err != nil {
			return out, p.about(err)
		}
		for _, l := range left.Lines {
			if rest, ok := strings.CutPrefix(l, "new"); ok {
				l = string(p.c.Part) + rest
			} else if plan == "abort" {
				continue // what is left on old is looked at when all are gone
			} else {
				l = "cluster " + string(p.c.Part) + ": " + l
			}
			out.Lines = append(out.Lines, l)
		}
		known := false
		for _, l := range left.Lift {
			if strings.HasPrefix(l, "\\c ") {
				known = slices.Contains(out.Lift, l)
			}
			if !known {
				out.Lift = append(out.Lift, l)
			}
		}
	}
	if plan == "abort" {
		return ps.nothingLeft(ctx, out)
	}
	return out, nil
}

// nothingLeft looks for what is the tool's on old, of whatever part.
func (ps parts) nothingLeft(ctx context.Context, out Leftovers) (Leftovers, error) {
	var found []string
	for _, p := range ps {
		s, err := survey.Take(ctx, p.c, false)
		if err != nil {
			return out, p.about(err)
		}
		if s.OldErr != nil {
			out.Lines = append([]string{"old does not answer: what is there is not known"}, out.Lines...)
			return out, nil
		}
		some, err := p.ground.LeftOn(ctx, s, "old")
		if err != nil {
			return out, p.about(err)
		}
		found = append(found, some...)
	}
	if len(found) > 0 {
		slices.Sort(found)
		return out, errors.New("something is left: old: " + strings.Join(slices.Compact(found), ", "))
	}
	out.Lines = append([]string{"old: nothing of this upgrade is left"}, out.Lines...)
	return out, nil
}

// RunParts is Run of every part: all are prepared before the first is cut over,
// and then each is, one after the other, at its own next window. done is given
// what each has measured; nil where it takes writes already.
func (u *Upgrade) RunParts(ctx context.Context, started time.Time, observe func(flow.Event), done func(*Upgrade, *report.Cutover, error) error) error {
	if u.rb.Cutover.Approve == runbook.ApprovePrompt {
		return exit.Errorf(exit.Usage, "set cutover.approve to auto, or to file:<path>", "run is unattended, and cutover.approve is prompt")
	}
	ready := true
	for _, p := range u.parts {
		s, err := survey.Take(ctx, p.c, false)
		ready = ready && (err != nil || s.Phase != report.PhaseCutover && s.Phase != report.PhaseRolledBack)
	}
	if u.parts != nil && ready {
		if err := u.parts.prepare(ctx, PrepareOptions{}, observe); err != nil {
			return err
		}
	}
	for _, p := range u.Parts() {
		out, err := p.Run(ctx, started, p.Telling(observe))
		if terr := done(p, out, err); terr != nil {
			return terr
		}
		if err != nil {
			return p.about(err)
		}
	}
	return nil
}

// status is the status of all parts as one.
func (ps parts) status(ctx context.Context) (report.Status, error) {
	all := report.Status{At: time.Now(), Upgrade: ps[0].rb.Upgrade, Writable: report.WritableUnknown}
	var failed []error
	for _, p := range ps {
		st, err := p.Status(ctx)
		if err != nil {
			failed = append(failed, p.about(err))
		}
		all.Clusters = append(all.Clusters, report.ClusterStatus{
			Cluster: string(p.c.Part), Phase: st.Phase, Writable: st.Writable, Fence: st.Fence, Step: st.Step, Next: st.Next,
		})
		all.Links = append(all.Links, st.Links...)
		for _, b := range st.Standbys {
			if !slices.ContainsFunc(all.Standbys, func(o report.Standby) bool { return o.Cluster == b.Cluster && o.Name == b.Name }) {
				all.Standbys = append(all.Standbys, b)
			}
		}
		for _, g := range st.Gates {
			g.Cluster = string(p.c.Part)
			all.Gates = append(all.Gates, g)
		}
		for _, q := range st.Silent {
			if q.On == "new" {
				q.On = string(p.c.Part)
			}
			if !slices.Contains(all.Silent, q) {
				all.Silent = append(all.Silent, q)
			}
		}
		for _, n := range st.Notes {
			all.Notes = append(all.Notes, string(p.c.Part)+": "+n)
		}
		if st.WALKeptBytes != nil {
			kept := *st.WALKeptBytes
			if all.WALKeptBytes != nil {
				kept = max(kept, *all.WALKeptBytes)
			}
			all.WALKeptBytes = &kept
		}
		if all.Step == nil {
			all.Step = st.Step
		}
	}
	all.Summarize()
	all.Next = nextOf(all)
	return all, errors.Join(failed...)
}

// nextOf is the command to type next, where parts stand differently.
func nextOf(all report.Status) string {
	for _, c := range all.Clusters {
		if c.Phase == report.PhaseCutover && c.Next != "" {
			return c.Next + " --cluster " + c.Cluster
		}
	}
	for _, c := range all.Clusters {
		if c.Phase == all.Phase {
			return c.Next
		}
	}
	return ""
}

// plan is Plan of all parts in one.
func (ps parts) plan(ctx context.Context, o PlanOptions) (Planned, error) {
	all := Planned{DryRun: report.DryRun{Upgrade: ps[0].rb.Upgrade, Runbook: ps[0].rb.File, At: time.Now()}}
	var phases report.Status
	for i, p := range ps {
		name := string(p.c.Part)
		one, err := p.Plan(ctx, o)
		all.Findings = merged(all.Findings, one.Findings)
		if err != nil {
			return all, p.about(err)
		}
		if one.Undrawn != "" {
			all.Undrawn = "cluster " + name + ": " + one.Undrawn
		}
		phases.Clusters = append(phases.Clusters, report.ClusterStatus{Cluster: name, Phase: one.Phase})
		for _, d := range one.Databases {
			d.Name += " to " + name
			all.Databases = append(all.Databases, d)
		}
		for _, plan := range one.Plans {
			plan.Cluster = name
			for j := range plan.Steps {
				plan.Steps[j].Cluster = name
			}
			all.Plans = append(all.Plans, plan)
		}
		for _, g := range one.Figures {
			g.Object = strings.TrimSpace(name + " " + g.Object)
			all.Figures = append(all.Figures, g)
		}
		for _, says := range one.Traffic {
			all.Traffic = append(all.Traffic, "cluster "+name+": "+says)
		}
		all.Sampled = one.Sampled
		if i == 0 {
			all.Old, all.New = one.Old, one.New
			continue
		}
		all.Others = append(all.Others, one.New)
	}
	if all.Undrawn != "" { // of some is of none
		all.Plans, all.Figures = nil, nil
	}
	phases.Summarize()
	all.Phase = phases.Phase
	return all, nil
}
