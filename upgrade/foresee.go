package upgrade

import (
	"context"
	"math"
	"time"

	"crossfade/cutover"
	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/forecast"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"

	"github.com/jackc/pgx/v5"
)

// watchOld reads old's counters, so that what a forecast says of WAL is about
// all the time since; nil where they cannot be had.
func (u *Upgrade) watchOld(ctx context.Context) *forecast.Mark {
	var m *forecast.Mark
	err := u.sessions.Do(ctx, u.old, func(conn *pgx.Conn) (err error) {
		m, err = forecast.Watch(ctx, conn)
		return err
	})
	if err != nil {
		return nil // the forecast's own look will say why
	}
	return m
}

// foresee measures both servers and forecasts plans: it sets what each step is
// expected to take. The error is that of a ctx that ended.
func (u *Upgrade) foresee(ctx context.Context, s *survey, plans []flow.Plan, o forecast.Options) (forecast.Forecast, forecast.Facts, error) {
	o.Old, o.New, o.Version = u.old, u.new, s.old.Version
	for _, db := range s.databases {
		runs, err := u.runs(ctx, s, db)
		if err != nil {
			return forecast.Forecast{}, forecast.Facts{}, err
		}
		d := forecast.Database{Name: db.name, Skip: func(t schema.Table) bool { return runs.Folds(t.SQL()) }, Encoding: db.encoding, Inventory: db.inventory, Sets: db.sets, Full: map[uint32]bool{}}
		for _, id := range db.book.Identity {
			if t := db.inventory.Find(id.Table.Schema, id.Table.Name); t != nil && id.Index == "" {
				d.Full[t.OID] = true
			}
		}
		o.Databases = append(o.Databases, d)
	}
	facts, err := forecast.Take(ctx, o)
	if err != nil {
		return forecast.Forecast{}, facts, err
	}
	u.asked(&facts, plans)
	f := forecast.Of(facts)
	for _, p := range plans {
		for i := range p.Steps {
			if p.Steps[i].Forecast > 0 {
				continue // a rehearsal has measured it
			}
			p.Steps[i].Forecast = f.Steps[forecast.StepKey{Plan: p.Name, ID: p.Steps[i].ID}]
		}
	}
	return f, facts, nil
}

// foreseeCrossing forecasts a crossing that begins anew. One that goes on has
// no time for it, and perhaps nobody to ask.
func (u *Upgrade) foreseeCrossing(ctx context.Context, s *survey, x *cutover.Crossing) error {
	if !x.Anew || s.oldErr != nil || s.newErr != nil {
		return nil
	}
	_, _, err := u.foresee(ctx, s, []flow.Plan{x.Plan}, forecast.Options{Brief: true})
	return err
}

// asked fills in what the runbook asks for, and the steps of the plans.
func (u *Upgrade) asked(facts *forecast.Facts, plans []flow.Plan) {
	rb := u.rb
	facts.Jobs, facts.IndexJobs, facts.Chunk = rb.Copy.Jobs, rb.Copy.IndexJobs, rb.Copy.Chunk
	facts.CopyLimit = rb.Copy.Limit
	facts.MaxWAL, facts.Stable = rb.Catchup.MaxWAL, rb.Catchup.Stable
	facts.MaxBlocked, facts.LockTimeout = rb.Cutover.MaxBlocked, rb.Cutover.LockTimeout
	facts.Poolers, facts.Back = len(rb.Cutover.Traffic), rb.Cutover.Back
	facts.Verify = rb.Verify.Mode == runbook.VerifyFull
	for _, sb := range rb.New[0].Standbys {
		if sb.After {
			continue // prepare does not build it
		}
		facts.Standbys = append(facts.Standbys, sb.Name)
	}
	for _, p := range plans {
		for _, st := range p.Steps {
			facts.Steps = append(facts.Steps, forecast.StepFacts{
				StepKey: forecast.StepKey{Plan: p.Name, ID: st.ID}, Effects: len(st.Does), Blocks: st.Blocks, Cost: st.Cost,
			})
		}
	}
}

// figures are a forecast as report has it, with what was measured since beside.
func figures(f forecast.Forecast, facts forecast.Facts, ran map[forecast.StepKey]ran) []report.Figure {
	out := make([]report.Figure, len(f.Figures))
	for i, g := range f.Figures {
		r := report.Figure{
			At: facts.At, ID: g.ID, Object: g.Object, Title: g.Title, Unit: string(g.Unit), Never: g.Never, Formula: g.Formula, Says: g.Says, Exceeds: g.Exceeds,
		}
		if g.Known && !g.Never {
			r.Value = &g.Value
		}
		for _, t := range g.Terms {
			r.Terms = append(r.Terms, report.Term{Name: t.Name, Value: t.Value, Unit: string(t.Unit), How: string(t.How), Says: t.Says})
		}
		r.Actual = actual(g.Steps, ran)
		out[i] = r
	}
	return out
}

// actual is what steps took together; nil unless all of those that ran have
// ended, and one of them ran.
func actual(steps []forecast.StepKey, all map[forecast.StepKey]ran) *float64 {
	var sum time.Duration
	any := false
	for _, k := range steps {
		r, ok := all[k]
		if !ok {
			continue
		}
		if !r.ended {
			return nil
		}
		any = true
		sum += r.took
	}
	if !any {
		return nil
	}
	return new(sum.Seconds())
}

// ran is what the journal says of a step that has run.
type ran struct {
	ended    bool
	took     time.Duration
	forecast time.Duration // as it was when the step began; 0: there was none
}

// journalRan is what the journal says of every step, by its last attempt. A
// journal that cannot be read says nothing.
func (u *Upgrade) journalRan() map[forecast.StepKey]ran {
	all := map[forecast.StepKey]ran{}
	records, err := flow.Peek(u.rb.Journal)
	if err != nil {
		return all
	}
	last := ""
	for _, r := range records {
		k := forecast.StepKey{Plan: r.Plan, ID: r.Step}
		if r.Plan == "" || r.Cluster != string(u.part) {
			continue
		}
		// What was done before everything was undone is of an earlier life.
		if r.Plan != last && (r.Plan == "abort" || last == "abort" || last == "finish") {
			clear(all)
		}
		last = r.Plan
		switch r.Kind {
		case flow.Begin:
			all[k] = ran{forecast: time.Duration(math.Round(r.Forecast * float64(time.Second)))}
		case flow.End:
			all[k] = ran{true, time.Duration(math.Round(r.Seconds * float64(time.Second))), all[k].forecast}
		case flow.Fail, flow.Undone:
			delete(all, k)
		}
	}
	return all
}
