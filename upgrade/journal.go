package upgrade

import (
	"slices"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"
)

// journalStep is the step that the journal has begun and not ended; nil where
// nothing is in work, or another machine has the journal.
func (u *Upgrade) journalStep() (*report.Work, error) {
	records, err := flow.Peek(u.rb.Journal)
	if err != nil {
		return nil, err
	}
	// Of steps side by side the one that is in work for longest is reported.
	var open []flow.Record
	for _, r := range records {
		if r.Cluster != string(u.part) {
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

// journalSays reports whether the journal's last plan is name and ended.
func (u *Upgrade) journalSays(name string) bool {
	records, err := flow.Peek(u.rb.Journal)
	if err != nil {
		return false
	}
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; r.Plan != "" && r.Cluster == string(u.part) {
			return r.Plan == name && (r.Kind == flow.End || r.Kind == flow.Skip)
		}
	}
	return false
}

func (u *Upgrade) wasAborted() bool { return u.journalSays("abort") }
