package upgrade

import (
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
	var w *report.Work
	for _, r := range records {
		if r.Cluster != string(u.part) {
			continue
		}
		switch r.Kind {
		case flow.Begin:
			w = &report.Work{Plan: r.Plan, ID: r.Step, Since: &r.At}
		case flow.End, flow.Skip, flow.Fail, flow.Undone:
			w = nil
		}
	}
	return w, nil
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
