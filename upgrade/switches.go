package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"crossfade/cutover"
	"crossfade/cutover/traffic"
	"crossfade/upgrade/check"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/survey"
)

// gates are those that follow from the runbook, beside the built-in ones.
func (u *Upgrade) gates(s *survey.Survey, dir cutover.Direction) []cutover.Gate {
	gates := []cutover.Gate{{ID: "trust", Look: func(ctx context.Context) (bool, string, error) { return u.trust.Gate(ctx, s) }}}
	if dir == cutover.Forward {
		gates = append(gates, cutover.Gate{ID: "standbys-opening", Look: func(ctx context.Context) (bool, string, error) { return u.members.StandbysGate(ctx, s) }})
	}
	if names := u.rb.New[0].Successors(); dir == cutover.Back && len(names) > 0 {
		gates = append(gates, cutover.Gate{ID: "standbys-opening", Look: func(ctx context.Context) (bool, string, error) { return u.members.WithoutTaken(ctx, names) }})
	}
	gates = append(gates, cutover.Gate{ID: "contents", Look: func(ctx context.Context) (bool, string, error) { return u.transfer.ContentsGate(ctx, s) }})
	return append(gates, cutover.Gate{ID: "schema", Costly: true, Look: func(ctx context.Context) (bool, string, error) { return u.transfer.SchemaGate(ctx, s) }})
}

// crossingPlan is a cutover or rollback as it would run from here.
func (u *Upgrade) crossingPlan(ctx context.Context, s *survey.Survey, name string) (flow.Plan, error) {
	dir := cutover.Forward
	if name == "rollback" {
		dir = cutover.Back
	}
	c, err := u.config(ctx, s, dir)
	if err != nil {
		return flow.Plan{}, err
	}
	x := cutover.New(c)
	defer x.Close()
	return x.Plan, nil
}

// switches are what sends clients, as the runbook has it; to is the side that
// they will be sent to.
func (u *Upgrade) switches(to string) (traffic.Group, error) {
	around := traffic.Around{
		App: u.c.App, MaxBlocked: u.rb.Cutover.MaxBlocked, Apart: pooledApart(u.c), Moved: u.c.Moves(), Env: u.hookEnv,
		Accepted: func(p traffic.Problem) bool { return u.rb.Accepts(p.ID, p.Object) },
	}
	var g traffic.Group
	for _, t := range u.rb.Cutover.Traffic {
		s, err := t.Entry.Switch(around)
		if err != nil {
			return nil, &exit.Error{Code: exit.Usage, Says: err.Error(), Err: err}
		}
		g = append(g, s)
	}
	return g, nil
}

// trafficFindings are what blocks sending clients to new.
func (u *Upgrade) trafficFindings(ctx context.Context) ([]check.Finding, error) {
	switches, err := u.switches("new")
	if err != nil {
		return nil, err
	}
	var found []check.Finding
	for _, sw := range switches {
		j, ok := sw.(traffic.Judge)
		if !ok {
			continue
		}
		problems, err := j.Problems(ctx, u.c.New)
		if err != nil {
			problems = []traffic.Problem{j.Unreachable(err)}
		}
		for _, p := range problems {
			if p.State == "3D000" || p.State == "42704" {
				continue // prepare makes databases and roles; the server itself answered
			}
			f := check.Finding{ID: p.ID, Level: check.Block, On: p.On, Object: p.Object, Says: p.Says, Fix: p.Fix, Acceptable: p.Acceptable}
			f.Accepted = p.Acceptable && u.rb.Accepts(p.ID, p.Object)
			found = append(found, f)
		}
	}
	return found, nil
}

var errNoExecutable = errors.New("the program's own file was not found")

// guardOf makes the child that resumes traffic when this process is gone.
func guardOf(switches traffic.Group) func(context.Context, time.Duration) (cutover.Guard, error) {
	return func(ctx context.Context, deadline time.Duration) (cutover.Guard, error) {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoExecutable, err)
		}
		spec, err := switches.Spec(deadline)
		if err != nil {
			return nil, err
		}
		return traffic.StartGuard(ctx, exe, spec)
	}
}

// trafficSays tells how clients come to the cluster that serves.
func trafficSays(rb *runbook.Runbook) []string {
	var says []string
	for _, t := range rb.Cutover.Traffic {
		says = append(says, t.Entry.Says()...)
	}
	if says == nil {
		says = []string{traffic.Direct}
	}
	return says
}
