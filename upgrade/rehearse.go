package upgrade

import (
	"context"
	"fmt"
	"time"

	"crossfade/cutover"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"
)

// RehearseOptions are what the person at the terminal decides.
type RehearseOptions struct {
	CutoverOptions
	WithTraffic bool // hold clients back in the poolers, too
}

// Rehearse takes the cutover's reversible steps with the real plan under the
// real load, times them and undoes them. It asks the window and the approval as
// the cutover does.
func (u *Upgrade) Rehearse(ctx context.Context, o RehearseOptions, observe func(flow.Event)) (*report.Rehearsal, error) {
	s, err := u.look(ctx, false)
	if err != nil {
		return nil, err
	}
	if s.phase != report.PhaseReady {
		return nil, wrongPhase(s.phase, "rehearse")
	}
	if err := s.bothAnswer(); err != nil {
		return nil, err
	}
	if err := u.mayCross(ctx, o.CutoverOptions); err != nil {
		return nil, err
	}
	held, release, err := u.hold(ctx, u.old.With(s.home))
	if err != nil {
		return nil, err
	}
	defer release()
	return u.rehearseHeld(held, o.WithTraffic, observe)
}

// rehearseHeld rehearses while nobody else can change the upgrade.
func (u *Upgrade) rehearseHeld(ctx context.Context, traffic bool, observe func(flow.Event)) (*report.Rehearsal, error) {
	j, err := u.openJournal()
	if err != nil {
		return nil, err
	}
	defer closeQuietly(j)
	s, err := u.look(ctx, true)
	if err != nil {
		return nil, err
	}
	if s.phase != report.PhaseReady {
		return nil, wrongPhase(s.phase, "rehearse") // another run was quicker
	}
	watch := func(e flow.Event) {
		u.watch(e)
		observe(e)
	}
	if err := u.endRehearsal(ctx, s, j, watch); err != nil {
		return nil, err
	}
	c, err := u.config(ctx, s, cutover.Forward)
	if err != nil {
		return nil, err
	}
	x := cutover.Rehearse(c, traffic)
	defer x.Close()
	x.Plan.Cluster = string(u.part)
	err = flow.Run(ctx, x.Plan, j, watch)
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	out := rehearsalOf(asking, x)
	if err != nil {
		return out, u.judge(context.WithoutCancel(ctx), cutover.Forward, err)
	}
	return out, nil
}

// rehearsalOf is the rehearsal object of the contract.
func rehearsalOf(ctx context.Context, x *cutover.Crossing) *report.Rehearsal {
	m, refused, tries, left := x.Rehearsal(ctx)
	out := &report.Rehearsal{
		WithTraffic: m.WithTraffic, BlockedSeconds: m.Blocked, LongestWaitSeconds: m.Wait, RefusedWrites: refused, Tries: tries, Left: left,
		Canaries: x.Result().Canaries,
	}
	for _, st := range x.Plan.Steps {
		if s, ok := m.Steps[st.ID]; ok {
			out.Steps = append(out.Steps, stepTook(st, time.Duration(s*float64(time.Second))))
		}
	}
	return out
}

// stepTook is what a step took, beside its forecast.
func stepTook(st flow.Step, took time.Duration) report.CutoverStep {
	s := report.CutoverStep{ID: st.ID, Seconds: took.Seconds()}
	if st.Forecast > 0 {
		s.ForecastSeconds = new(st.Forecast.Seconds())
	}
	return s
}

// endRehearsal undoes a rehearsal that was cut off; there may be none.
func (u *Upgrade) endRehearsal(ctx context.Context, s *survey, j *flow.Journal, observe func(flow.Event)) error {
	d := s.rehearsing()
	if d == nil {
		return nil
	}
	if err := u.evict(ctx, s); err != nil {
		return err
	}
	c, err := u.config(ctx, s, cutover.Forward)
	if err != nil {
		return err
	}
	x := cutover.Rehearsed(c, *d)
	defer x.Close()
	x.Plan.Cluster = string(u.part)
	return flow.Undo(ctx, x.Plan, j, observe)
}

// rehearsalPlan is a rehearsal as it would run from here. What only
// --with-traffic does is in it, and says so.
func (u *Upgrade) rehearsalPlan(ctx context.Context, s *survey) (flow.Plan, error) {
	c, err := u.config(ctx, s, cutover.Forward)
	if err != nil {
		return flow.Plan{}, err
	}
	x := cutover.Rehearse(c, len(c.Traffic) > 0)
	defer x.Close()
	for i, st := range x.Plan.Steps {
		if st.Option != "" {
			x.Plan.Steps[i].Title += " (" + st.Option + ")"
		}
	}
	return x.Plan, nil
}

func (u *Upgrade) previewRehearsal(dbs string, traffic bool) []string {
	cut := u.rb.Cutover
	lines := []string{
		fmt.Sprintf("this will rehearse the cutover from %s to %s in: %s", u.old, u.new, dbs),
		fmt.Sprintf("writers will wait for the locks at most %s per attempt; nothing will be closed or opened, and everything will be undone", cut.MaxBlocked),
	}
	switch {
	case len(cut.Traffic) == 0:
	case traffic:
		lines = append(lines, fmt.Sprintf("%d poolers or hooks will hold clients back as long", len(cut.Traffic)))
	default:
		lines = append(lines, "clients will not be held back in poolers or hooks: --with-traffic does that")
	}
	return lines
}

// rehearsalNote says what status has to report of rehearsals: one that left
// something, or what the last one measured. running: somebody holds the upgrade.
func rehearsalNote(s *survey, running bool) string {
	if d := s.rehearsing(); d != nil {
		if running {
			return fmt.Sprintf("a rehearsal is under way since %s (%s)", d.At.UTC().Format(time.RFC3339), d.Host)
		}
		return fmt.Sprintf("a rehearsal of %s (%s) was cut off: new may not follow old until it is undone, which rehearse, cutover, prepare and abort do first",
			d.At.UTC().Format(time.RFC3339), d.Host)
	}
	if rs := s.rehearsed(); len(rs) > 0 {
		last := rs[len(rs)-1]
		says := fmt.Sprintf("rehearsed last at %s: writers were blocked for %s", last.At.UTC().Format(time.RFC3339), report.Took(time.Duration(last.Blocked*float64(time.Second))))
		if last.Wait != nil {
			says += ", and waited at most " + report.Took(time.Duration(*last.Wait*float64(time.Second)))
		}
		return says
	}
	return ""
}
