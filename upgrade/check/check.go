// Package check tells, before anything is touched, what blocks an
// upgrade: everything that can be seen in the catalogs, the settings and the
// reachability of both servers.
//
// Gather reads facts, a constant number of queries for each server and each
// database; every Check is a pure function over these facts and has a stable
// ID. What could not be read is a finding too (check-incomplete). Nothing is
// changed anywhere: the one statement that is no SELECT is a CREATE
// SUBSCRIPTION that proves that one server reaches the other, in a transaction
// that is rolled back.
package check

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Level says how much a finding weighs.
type Level string

// The levels. A block that is not accepted stops the upgrade.
const (
	Block Level = "block"
	Warn  Level = "warn"
	Note  Level = "note"
)

func (l Level) rank() int { return slices.Index([]Level{Block, Warn, Note}, l) }

// What the findings of a check can weigh, gravest first.
var (
	onlyBlock     = []Level{Block}
	onlyWarn      = []Level{Warn}
	onlyNote      = []Level{Note}
	blockWarn     = []Level{Block, Warn}
	blockNote     = []Level{Block, Note}
	warnNote      = []Level{Warn, Note}
	blockWarnNote = []Level{Block, Warn, Note}
)

// The sides that Finding.On names, beside the names of standbys.
const (
	OnOld = "old"
	OnNew = "new"
)

// Finding is one thing that a check found.
type Finding struct {
	ID       string
	Level    Level
	On       string // old, new, or a standby's name
	Database string // "" where the whole server is meant
	Object   string // what accept: names after the colon; "" where there is no object
	// Says what is wrong and what would happen in the upgrade: a sentence.
	Says string
	// Fix is what to do, in order, a line each: lines that end in a semicolon
	// are SQL for the server (and the database) of the finding, the others are
	// for people. "" where nothing needs to be done.
	Fix string
	// Table is what the finding shows as rows; nil where it is reported in words.
	Table *Table
	// Objects are what accept: names after the colon, one or, of what Group has
	// put together, several; filled in by Group.
	Objects []string
	// group is what is said where there are others of its kind; nil: it stands alone.
	group *group
	// Accepted: the runbook's accept: names it, and it may be accepted.
	Accepted bool
	// Acceptable is false where going on would break the running application,
	// lose rows, or get nowhere. It is the same for all findings of an ID.
	Acceptable bool
}

// Table is rows of text under a head, all of one width.
type Table struct {
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
}

// MarshalJSON is the contract's form: what is not known is null, never absent.
func (f Finding) MarshalJSON() ([]byte, error) {
	orNull := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	return json.Marshal(struct {
		Type       string   `json:"type"`
		ID         string   `json:"id"`
		Level      Level    `json:"level"`
		On         string   `json:"on"`
		Database   *string  `json:"database"`
		Object     *string  `json:"object"`
		Objects    []string `json:"objects"`
		Says       string   `json:"says"`
		Fix        *string  `json:"fix"`
		Table      *Table   `json:"table"`
		Accepted   bool     `json:"accepted"`
		Acceptable bool     `json:"acceptable"`
	}{"finding", f.ID, f.Level, f.On, orNull(f.Database), orNull(f.Object), append([]string{}, f.Objects...), f.Says, orNull(f.Fix), f.Table, f.Accepted, f.Acceptable})
}

// Check is one thing that is looked at.
type Check struct {
	// ID is stable from release to release; runbooks name it in accept:.
	ID string
	// Title is what is asked, for a list of what was looked at.
	Title string
	// Levels are those that its findings can have, gravest first.
	Levels []Level
	// Acceptable says whether the operator may accept its findings.
	Acceptable bool
	// Judge is a pure function: ID and Acceptable of its findings are filled in
	// by Judge of the package.
	Judge func(*Facts) []Finding
}

// Family is checks that look at the same thing.
type Family struct {
	Title  string
	Checks []Check
}

// Families are all checks of this version.
func Families() []Family {
	return []Family{
		{"The servers", slices.Concat(serverChecks, programChecks)},
		{"Room", slices.Concat(budgetChecks, diskChecks)},
		{"Who connects", slices.Concat(accessChecks, roleChecks)},
		{"Replication of others", slices.Concat(replicationChecks, slotChecks)},
		{"Standbys, managers, archives", slices.Concat(standbyChecks, managerChecks, archiveChecks)},
		{"Tables and sets", slices.Concat(identityChecks, setChecks, partitionChecks)},
		{"What is not rows of tables", slices.Concat(contentChecks, applyChecks, functionChecks, extensionChecks, memberChecks)},
		{"What the new major no longer has", removedChecks},
		{"Databases", databaseChecks},
		{"Settings", settingChecks},
		{"What happens now", slices.Concat(activityChecks, ddlChecks, incompleteChecks)},
	}
}

// Checks are all checks of this version, in the order of their families.
func Checks() []Check {
	var all []Check
	for _, f := range Families() {
		all = append(all, f.Checks...)
	}
	return all
}

// Lookup returns the check of that ID. The runbook's accept: may name only
// what exists and is Acceptable.
func Lookup(id string) (Check, bool) {
	for _, c := range Checks() {
		if c.ID == id {
			return c, true
		}
	}
	return Check{}, false
}

// Run gathers the facts and judges them. The findings are sorted: block, warn,
// note, then by ID and object; accepted ones are among them. The error is that
// of a context that ended; servers that do not answer are findings.
func Run(ctx context.Context, o Options) ([]Finding, error) {
	f, err := Gather(ctx, o)
	if err != nil {
		return nil, err
	}
	return Judge(f), nil
}

// Judge runs every check over facts, and applies the accept list.
func Judge(f *Facts) []Finding {
	var all []Finding
	for _, c := range Checks() {
		for _, found := range c.Judge(f) {
			found.ID, found.Acceptable = c.ID, c.Acceptable
			found.Fix = f.reachable(found)
			found.Accepted = c.Acceptable && f.Want.Accepts != nil && f.Want.Accepts(c.ID, found.Object)
			all = append(all, found)
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(a.Level.rank()-b.Level.rank(), cmp.Compare(a.ID, b.ID), cmp.Compare(a.On, b.On),
			cmp.Compare(a.Database, b.Database), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Says, b.Says))
	})
	return all
}

var alterSystem = regexp.MustCompile(`^ALTER SYSTEM SET "?(\w+)"? = (.*);$`)

// reachable is the fix of a finding without what would do nothing: a setting of
// the server's command line wins over ALTER SYSTEM. Patroni writes some of them
// there, those that a standby must have, too.
func (f *Facts) reachable(found Finding) string {
	s := f.Old
	if found.On == OnNew {
		s = f.New
	}
	if !s.ok() || found.On != OnOld && found.On != OnNew {
		return found.Fix
	}
	all := strings.Split(found.Fix, "\n")
	for i, line := range all {
		m := alterSystem.FindStringSubmatch(line)
		if m != nil && s.Settings[m[1]].Source == "command line" {
			all[i] = fmt.Sprintf("set %s = %s where the server's command line is written, which wins over ALTER SYSTEM (Patroni: patronictl edit-config, under postgresql: parameters:, then patronictl restart)", m[1], m[2])
		}
	}
	return strings.Join(all, "\n")
}

// Blocking are the findings that stop an upgrade: blocks that are not accepted.
func Blocking(all []Finding) []Finding {
	var out []Finding
	for _, f := range all {
		if f.Level == Block && !f.Accepted {
			out = append(out, f)
		}
	}
	return out
}

// lines is a Fix of several lines.
func lines(l ...string) string {
	return strings.Join(slices.DeleteFunc(l, func(s string) bool { return s == "" }), "\n")
}
