package forecast

import "time"

// What nobody can measure without writing, as it was measured on two cores
// with PostgreSQL 15 to 18, in proportion to what can be measured: to reading
// a row through the tool, or to the probe. The tests print how near they come.
const (
	// usualProbe is the probe of the machine that these were measured on. A
	// server whose probe takes twice as long is taken for half as fast.
	usualProbe = 22 * time.Millisecond

	// loadPerRead: loading a row takes this many times what reading it takes
	// (1.1 for wide documents to 2.4 for many small rows).
	loadPerRead = 2.0
	// pipePerRead is the tool's own work between the two.
	pipePerRead = 0.3
	// comparePerRead: hashing a row for the comparison, on each side.
	comparePerRead = 1.0
	// movingLooks is how often a table is looked at whose rows change meanwhile.
	movingLooks = 3
	// backupPerRead: a byte of a base backup, read, sent, written, flushed and
	// verified, against a byte read through COPY.
	backupPerRead = 1.0

	// buildRate is how fast the pages of an index are written once its keys are
	// sorted; unsampledBuildRate how fast an index is built that was not sampled.
	buildRate          = 300e6
	unsampledBuildRate = 60e6

	// applyChange is one row that an apply worker inserts, updates or deletes by
	// its key; applyScan is one row that it looks at where it has none.
	applyChange = 50 * time.Microsecond
	applyScan   = 80 * time.Nanosecond
)

// What one effect of a step takes at the usual probe, by the first part of the
// step's ID, where the step has no formula of its own.
var perEffect = map[string]time.Duration{
	"ground":      2 * time.Millisecond,
	"globals":     2 * time.Millisecond,
	"settings":    3 * time.Millisecond,
	"schema":      600 * time.Microsecond,
	"constraints": 900 * time.Microsecond,
	"fence":       150 * time.Microsecond,
	"identity":    1 * time.Millisecond,
}

// What a table costs beyond its bytes, at the usual probe.
const (
	createDatabase = 100 * time.Millisecond // one of a few megabytes, from template0
	copyTable      = 3 * time.Millisecond   // emptied, marked, committed
	compareTable   = 300 * time.Microsecond // its catalogs on both sides
	publishTable   = 20 * time.Microsecond
	subscribeTable = 100 * time.Microsecond
	analyzeTable   = 2 * time.Millisecond // in three stages
	analyzeValue   = 2500 * time.Nanosecond
	verifyTable    = 2 * time.Millisecond
)
