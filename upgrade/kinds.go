package upgrade

import (
	"crossfade/cutover"
	"crossfade/cutover/traffic"
	"crossfade/upgrade/check"
	"crossfade/upgrade/report"
	"crossfade/upgrade/trial"
)

// kind is a kind of finding: those of package check, and those that only the
// runbook's traffic and standbys can make.
type kind struct {
	id, title  string
	level      check.Level
	acceptable bool
}

// poolUnreachable is the finding of a pooler that does not answer.
const poolUnreachable = "pool-unreachable"

// otherKinds are the findings that no check of package check makes.
func otherKinds() []kind {
	return []kind{
		{poolUnreachable, "Every pooler of the runbook answers", check.Block, false},
		{traffic.PoolConfig, "The pooler's file can be read, is the one in use, and can be replaced", check.Block, false},
		{traffic.PoolDatabase, "The pooler has the databases that the runbook names", check.Block, false},
		{traffic.PoolPaused, "Nothing is paused in the pooler already", check.Block, false},
		{traffic.PoolShared, "Each admin address is one process", check.Block, false},
		{traffic.PoolReach, "The pooler's host reaches new", check.Block, false},
		{traffic.PoolHBA, "New's pg_hba.conf lets the pooler's users in", check.Block, false},
		{traffic.PoolLogin, "Logins through the pooler succeed on new", check.Block, true},
		{traffic.PoolAlias, "No other name of the pooler leads to the same database", check.Block, true},
		{traffic.PoolSession, "The pooler does not wait for clients to leave before it pauses", check.Block, true},
		{traffic.PoolWait, "Clients may wait in the pooler as long as a cutover may take", check.Block, true},
		{trial.SchemaRejected, "New takes every statement of old's schema (`check --restore`, and the first of `prepare`)", check.Block, false},
		{trial.SchemaDiffers, "What new makes of old's schema is the same (`check --restore`, and the first of `prepare`)", check.Block, false},
		{clusterForeignKey, "No foreign key leads from one new cluster to another", check.Block, false},
		{clusterCrossing, "Nothing of a table needs a table that goes to another new cluster", check.Block, false},
		{clusterLeftOut, "No view or function needs tables of several new clusters", check.Warn, true},
		{report.ForecastExceeds, "No forecast is beyond what the runbook allows (`plan`)", check.Warn, true},
		{cutover.StandbyMissing, "Every standby of new streams when the cutover begins (a gate, not a finding of check)", check.Block, true},
	}
}
