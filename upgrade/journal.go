package upgrade

import (
	"math"
	"slices"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/forecast"
	"crossfade/upgrade/report"
)

// journal is the file in which runs write down what they did: of one part of an
// upgrade. It is a memory; the servers know better.
type journal struct{ path, cluster string }

func (u *Upgrade) journal() journal { return journal{u.rb.Journal, string(u.c.Part)} }

func (j journal) open() (*flow.Journal, error) { return flow.Open(j.path, "") }

// closeQuietly closes a journal whose every record is on disk already.
func closeQuietly(j *flow.Journal) {
	if err := j.Close(); err != nil {
		return
	}
}

// work is the step that the journal has begun and not ended; nil where
// nothing is in work, or another machine has the journal.
func (j journal) work() (*report.Work, error) {
	records, err := flow.Peek(j.path)
	if err != nil {
		return nil, err
	}
	// Of steps side by side the one that is in work for longest is reported.
	var open []flow.Record
	for _, r := range records {
		if r.Cluster != j.cluster {
			continue
		}
		switch r.Kind {
		case flow.Begin:
			open = append(slices.DeleteFunc(open, func(o flow.Record) bool { return o.Beside == "" || o.Beside != r.Beside || o.Step == r.Step }), r)
		case flow.End, flow.Skip, flow.Fail, flow.Undone:
			open = slices.DeleteFunc(open, func(o flow.Record) bool { return r.Kind == flow.Undone || o.Step == r.Step || o.Beside == "" })
		}
	}
	if len(open) == 0 {
		return nil, nil
	}
	return &report.Work{Plan: open[0].Plan, ID: open[0].Step, Since: &open[0].At}, nil
}

// says reports whether the journal's last plan is name and ended.
func (j journal) says(name string) bool {
	records, err := flow.Peek(j.path)
	if err != nil {
		return false
	}
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; r.Plan != "" && r.Cluster == j.cluster {
			return r.Plan == name && (r.Kind == flow.End || r.Kind == flow.Skip)
		}
	}
	return false
}

// ran is what the journal says of every step, by its last attempt. A
// journal that cannot be read says nothing.
func (j journal) ran() map[forecast.StepKey]ran {
	all := map[forecast.StepKey]ran{}
	records, err := flow.Peek(j.path)
	if err != nil {
		return all
	}
	last := ""
	for _, r := range records {
		k := forecast.StepKey{Plan: r.Plan, ID: r.Step}
		if r.Plan == "" || r.Cluster != j.cluster {
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
