package upgrade

import (
	"crossfade/cutover"
	"crossfade/cutover/traffic"
	"crossfade/upgrade/check"
	"crossfade/upgrade/report"
)

// kind is a kind of finding: those of package check, and those that only the
// runbook's traffic and standbys can make.
type kind struct {
	id, title  string
	level      check.Level
	acceptable bool
}

// otherKinds are the findings that no check of package check makes.
func otherKinds() []kind {
	var kinds []kind
	for _, k := range traffic.Kinds() {
		for _, f := range k.Findings {
			kinds = append(kinds, kind{f.ID, f.Title, check.Block, f.Acceptable})
		}
	}
	return append(kinds, []kind{
		{schemaRejected, "New takes every statement of old's schema (`check --restore`, and the first of `prepare`)", check.Block, false},
		{schemaDiffers, "What new makes of old's schema is the same (`check --restore`, and the first of `prepare`)", check.Block, false},
		{clusterForeignKey, "No foreign key leads from one new cluster to another", check.Block, false},
		{clusterCrossing, "Nothing of a table needs a table that goes to another new cluster", check.Block, false},
		{clusterLeftOut, "No view or function needs tables of several new clusters", check.Warn, true},
		{report.ForecastExceeds, "No forecast is beyond what the runbook allows (`plan`)", check.Warn, true},
		{cutover.StandbyMissing, "Every standby of new streams when the cutover begins (a gate, not a finding of check)", check.Block, true},
	}...)
}
