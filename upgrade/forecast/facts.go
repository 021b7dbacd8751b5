package forecast

import (
	"time"

	"crossfade/upgrade/flow"
)

// Facts is everything that a forecast is made from. It can be built by hand:
// Of asks no server.
type Facts struct {
	At    time.Time
	Limit time.Duration // of the sampling, as it was asked for
	// Window is how long old was watched; in it were written WAL bytes of WAL.
	Window time.Duration
	WAL    int64
	// TripOld and TripNew are a question to a server and its answer; 0 is not known.
	TripOld, TripNew time.Duration
	// Connect is the time to open a session on new.
	Connect time.Duration
	// ProbeOld and ProbeNew are the time that sorting the same 100,000 numbers
	// takes on each server; 0 is not known.
	ProbeOld, ProbeNew time.Duration
	// Writers is how many write transactions were seen open at once at most,
	// Oldest the greatest age of one.
	Writers int
	Oldest  time.Duration
	// Cores is how many processors both servers and the tool share; 0 where
	// they do not share a machine, or it is not known.
	Cores     int
	Databases []DatabaseFacts
	// Missing says what could not be measured, and why.
	Missing []string

	// What the runbook has.
	Jobs, IndexJobs int
	Chunk, MaxWAL   int64
	CopyLimit       int64         // bytes a second; 0: none
	Stable          time.Duration // catchup.stable
	MaxBlocked      time.Duration
	LockTimeout     time.Duration
	Poolers         int
	Back            bool
	Verify          bool // rows are compared
	Standbys        []string
	// Steps are the steps of the plans, in their order.
	Steps []StepFacts
}

// StepFacts is one step of a plan, as the plan has it.
type StepFacts struct {
	StepKey
	Effects int
	Blocks  bool // clients that write wait while it runs
	Cost    flow.Cost
}

// DatabaseFacts is one database that is moved.
type DatabaseFacts struct {
	Name              string
	Sets              []SetFacts
	Tables, Sequences int // all that it has
	Columns           int // of the tables that are analyzed
	// Changed is how many rows were inserted, updated or deleted in the window.
	Changed int64
}

// SetFacts is one set.
type SetFacts struct {
	Name   string
	Tables []TableFacts
}

// TableFacts is one table that is copied.
type TableFacts struct {
	Name                      string // schema.table
	Bytes, Pages, IndexBytes  int64
	Rows                      int64 // -1: not known
	Inserts, Updates, Deletes int64 // since statistics began
	Scanned                   bool  // each UPDATE and DELETE reads the whole table on new: no index serves
	Read                      *Reading
	Sorts                     []Sorting
}

// Reading is a sample of a table that was read as the copy reads it.
type Reading struct {
	Bytes int64 // on old's disk, with its share of toast
	Took  time.Duration
}

// Sorting is a sample of an index's keys that was sorted.
type Sorting struct {
	Index string
	Bytes int64 // of the whole index
	Rows  int64 // sorted
	Took  time.Duration
}

func (t TableFacts) changes() int64 { return t.Inserts + t.Updates + t.Deletes }
