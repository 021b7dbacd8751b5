// Package scenarios plays upgrades of real clusters. A scenario is data: what
// the old cluster is made of, who uses it, the runbook, what is done to it and
// what must be true in the end. Play runs one through the shipped crossfade
// binary and judges by what is not crossfade's own: the application's list of
// acknowledged rows, pg_dump of both sides, and pg_stat_replication.
//
// It serves cmd/lab and the tests; the product does not import it.
package scenarios

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

//go:embed *.yaml *.sql *.tmpl
var files embed.FS

// Scenario is one topology, its load, what is done to it and what must be true
// in the end.
type Scenario struct {
	Name      string     `yaml:"-"`         // that of the file
	Title     string     `yaml:"title"`     // one line
	About     string     `yaml:"about"`     // for who asks what it shows
	Old       Old        `yaml:"old"`       // the cluster that serves at the start
	New       New        `yaml:"new"`       // the place of the one that serves at the end
	Clusters  []Cluster  `yaml:"clusters"`  // several new ones, each for a schema; none: one, for everything
	Databases []Database `yaml:"databases"` // in the old cluster; at least one
	Poolers   []Pooler   `yaml:"poolers"`   // none: clients find the primary with target_session_attrs
	Load      []Load     `yaml:"load"`      // who uses it, without pause
	Runbook   string     `yaml:"runbook"`   // a text/template over Book; "": standard.tmpl
	Accept    []string   `yaml:"accept"`    // findings that the standard runbook accepts
	Acts      []Act      `yaml:"acts"`      // in order
	Expect    Expect     `yaml:"expect"`
}

// Old is the old cluster. Its primary is called wacken.
type Old struct {
	Major    int               `yaml:"major"`
	Settings map[string]string `yaml:"settings"` // over the lab's own
	HBA      []string          `yaml:"hba"`      // first lines of pg_hba.conf
	Standbys []Standby         `yaml:"standbys"` // an upstream stands before those that follow it
	// Synchronous is synchronous_standby_names, set once the standbys stream: the
	// list, and what each of its names is then, must be the same on new.
	Synchronous string `yaml:"synchronous"`
	// Manager decides which node of old is its primary: repmgr or patroni; "":
	// nobody. Witness is its third vote, beside the primary and the standbys.
	Manager string `yaml:"manager"`
	Witness string `yaml:"witness"`
	// Switched: somebody else's script, which knows nothing of the upgrade, empties
	// Synchronous on each primary while none of its standbys streams there, and
	// puts it back when one does.
	Switched bool `yaml:"switched"`
}

// Primary is the name of the old primary.
const Primary = "wacken"

// Standby is a standby of old, or one that crossfade builds on new.
type Standby struct {
	Name     string            `yaml:"name"`     // its application_name
	Upstream string            `yaml:"upstream"` // another standby's name; "": the primary
	Delay    time.Duration     `yaml:"delay"`    // recovery_min_apply_delay
	Settings map[string]string `yaml:"settings"`
	As       string            `yaml:"application_name"` // what one of old calls itself; "": its name
	After    bool              `yaml:"after"`            // one of new takes the place of old's of that name, after open
	Unnamed  bool              `yaml:"unnamed"`          // one of old calls itself nothing, as after a plain pg_basebackup -R
}

// New is the new cluster. It is called after its major, as in wacken18.
type New struct {
	Majors   []int             `yaml:"majors"` // the first that can be had, with client programs, is taken
	Settings map[string]string `yaml:"settings"`
	HBA      []string          `yaml:"hba"`      // first lines of pg_hba.conf
	SQL      []string          `yaml:"sql"`      // files beside the scenario, run by psql in database postgres
	Standbys []Standby         `yaml:"standbys"` // places are kept for them; the runbook says how they are built
	// Synchronous is synchronous_standby_names in the standard runbook; "": not
	// there, which is as on old.
	Synchronous string `yaml:"synchronous"`
}

// Database is one database of the old cluster.
type Database struct {
	Name     string            `yaml:"name"`
	SQL      []string          `yaml:"sql"`      // files beside the scenario, run by psql as the superuser
	Pgbench  int               `yaml:"pgbench"`  // scale of pgbench's tables, about 15 MB each; 0: none
	Identity map[string]string `yaml:"identity"` // as in the runbook, where the template puts it
}

// Pooler is a PgBouncer.
type Pooler struct {
	Name      string   `yaml:"name"`
	Mode      string   `yaml:"mode"` // "": transaction
	Databases []string `yaml:"databases"`
}

// Load is who uses one database. Everybody is the role app.
type Load struct {
	Database string        `yaml:"database"`
	Schema   string        `yaml:"schema"`  // where the writers' ledger is; "": public
	Writers  int           `yaml:"writers"` // of numbered rows; each is one connection
	Pause    time.Duration `yaml:"pause"`   // between two rows of one writer
	Pgbench  *Bench        `yaml:"pgbench"`
	Read     []string      `yaml:"read"`       // queries of one more connection, one after the other
	ReadWait time.Duration `yaml:"read_pause"` // between two of them; 0: 10 ms
	// Replicas: every standby of old, and of new while new serves, is read from,
	// without pause, by one more connection; it may not fail, and no answer may
	// be older than the one before.
	Replicas bool `yaml:"replicas"`
	// Settings are SET in every session of the writers, which are then direct.
	Settings map[string]string `yaml:"settings"`
}

// Bench is a pgbench that runs beside the writers.
type Bench struct {
	Clients int      `yaml:"clients"`
	Rate    int      `yaml:"rate"`   // transactions a second, all clients together; 0: as many as go
	Script  string   `yaml:"script"` // run as often as pgbench's own transaction; "": not at all
	Counts  []string `yaml:"counts"` // the tables that get one row by every transaction, together; empty: public.pgbench_history
}

// Act is one thing that is done. Exactly one of Run, Prove, Left, Stop, Start,
// SQL, Promote, Status, Split, Manager and Failover is set.
type Act struct {
	Run     string   `yaml:"run"`     // crossfade's command and flags, split at blanks; -f and --json come with it
	Exit    int      `yaml:"exit"`    // the exit code it must have
	Says    []string `yaml:"says"`    // regular expressions that what it prints must match
	Cut     *Cut     `yaml:"cut"`     // while Run runs
	Prove   string   `yaml:"prove"`   // the side that serves now: old or new. The load is stopped, judged, and goes on
	Left    string   `yaml:"left"`    // what there may be of crossfade: nothing, or the fence of the side that was given up
	Split   []string `yaml:"split"`   // prove, where there are several new clusters: those that serve now
	Stop    string   `yaml:"stop"`    // a server, as old, new, old/metal: pg_ctl stop -m fast
	Start   string   `yaml:"start"`   // a server that was stopped
	SQL     string   `yaml:"sql"`     // done by hand, by the superuser
	On      string   `yaml:"on"`      // with SQL: old (the default) or new
	In      string   `yaml:"in"`      // with SQL: the database; empty: the first
	Promote string   `yaml:"promote"` // old's primary dies, and this standby of it takes its place
	Status  string   `yaml:"status"`  // what crossfade status must say within 10 s: of a closed gate, a link, a silent server, or as a note
	// Manager is what old's manager must say of itself: active or paused.
	Manager string `yaml:"manager"`
	// Failover is the standby that the manager must promote when old's primary
	// dies, closed as it was. Nothing can be proven of old after it.
	Failover string `yaml:"failover"`
}

// Cut is the network between two of tool, old and new that lets nothing through
// any more, from the beginning of a step on, and is then whole again.
type Cut struct {
	Between []string      `yaml:"between"`
	At      string        `yaml:"at"` // a step
	For     time.Duration `yaml:"for"`
}

// Expect is what must be true beside what Prove always proves.
type Expect struct {
	Errors []string      `yaml:"errors"` // SQLSTATEs that clients may see, "" for a refused connection; none: no error at all
	Outage time.Duration `yaml:"outage"` // the longest a client may wait for a commit, in a crossing or outside; 0: 5 s
	See    []See         `yaml:"see"`
}

// See is one look at a server while a side serves: a query that must answer t.
type See struct {
	Serves   string `yaml:"serves"` // old or new; "": both
	On       string `yaml:"on"`     // a server, as old, new, new/rock
	Database string `yaml:"database"`
	SQL      string `yaml:"sql"`
	What     string `yaml:"what"` // what it proves, as a claim
}

// Names lists the scenarios by name.
func Names() []string {
	paths, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil // the pattern is constant
	}
	for i, p := range paths {
		paths[i] = strings.TrimSuffix(p, path.Ext(p))
	}
	return paths
}

// ErrUnknown is the error of Read for a name that no scenario has.
var ErrUnknown = errors.New("there is no scenario")

// Read reads the scenario of that name.
func Read(name string) (*Scenario, error) {
	text, err := files.ReadFile(name + ".yaml")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w %q; there are %s", ErrUnknown, name, strings.Join(Names(), ", "))
	}
	if err != nil {
		return nil, err
	}
	s, err := Parse(name, text)
	if err != nil {
		return nil, fmt.Errorf("scenarios/%s.yaml: %w", name, err)
	}
	return s, nil
}

// Parse reads a scenario from its text. Unknown keys are errors.
func Parse(name string, text []byte) (*Scenario, error) {
	s := &Scenario{Name: name}
	if err := yaml.Load(text, s, yaml.WithKnownFields()); err != nil {
		return nil, err
	}
	if s.Expect.Outage == 0 {
		s.Expect.Outage = 5 * time.Second
	}
	return s, s.check()
}

var (
	plainName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	actsLeft  = []string{"nothing", "fence"}
)

// check finds what would only show when half of the servers run.
func (s *Scenario) check() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Title == "" || s.Old.Major == 0 || len(s.New.Majors) == 0 || len(s.Databases) == 0 {
		wrong("title, old.major, new.majors and databases are required")
	}
	if s.Runbook == "" {
		text, err := files.ReadFile("standard.tmpl")
		if err != nil {
			wrong("the standard runbook: %w", err)
		}
		s.Runbook = string(text)
	}
	databases := map[string]bool{}
	for _, d := range s.Databases {
		if !plainName.MatchString(d.Name) || databases[d.Name] {
			wrong("databases: %q is no name, or there twice", d.Name)
		}
		databases[d.Name] = true
		for _, f := range d.SQL {
			if _, err := fs.Stat(files, f); err != nil {
				wrong("databases: %s: %w", d.Name, err)
			}
		}
	}
	for _, f := range s.New.SQL {
		if _, err := fs.Stat(files, f); err != nil {
			wrong("new: %w", err)
		}
	}
	s.checkSplit(wrong, databases)
	pooled := map[string]bool{}
	for _, p := range s.Poolers {
		for _, d := range p.Databases {
			if !databases[d] {
				wrong("poolers: %s has no database %q", p.Name, d)
			}
			pooled[d] = true
		}
	}
	for _, l := range s.Load {
		if !databases[l.Database] {
			wrong("load: there is no database %q", l.Database)
		}
		if len(l.Settings) > 0 && pooled[l.Database] {
			wrong("load: a pooler shares sessions among clients, so settings of %s would reach other clients", l.Database)
		}
		if l.Pgbench != nil && !pooled[l.Database] {
			wrong("load: pgbench does not connect again, so %s must be reached through a pooler", l.Database)
		}
	}
	nodes := map[string]bool{sideOld: true, sideNew: true}
	for side, standbys := range map[string][]Standby{"old": s.Old.Standbys, "new": s.New.Standbys} {
		var seen []string
		for _, sb := range standbys {
			if !plainName.MatchString(sb.Name) || slices.Contains(seen, sb.Name) {
				wrong("%s.standbys: %q is no name, or there twice", side, sb.Name)
			}
			if sb.Upstream != "" && !slices.Contains(seen, sb.Upstream) {
				wrong("%s.standbys: %s follows %s, which does not stand before it", side, sb.Name, sb.Upstream)
			}
			seen = append(seen, sb.Name)
			nodes[side+"/"+sb.Name] = true
		}
	}
	for _, v := range s.Expect.See {
		if !nodes[v.On] || v.SQL == "" || v.What == "" || v.Serves != "" && v.Serves != sideOld && v.Serves != sideNew {
			wrong("expect.see: %+v needs a server, a query and what it proves", v)
		}
	}
	for i, a := range s.Acts {
		if n := count(a.Run != "", a.Prove != "", a.Left != "", a.Stop != "", a.Start != "", a.SQL != "", a.Promote != "", a.Status != "", a.Split != nil, a.Manager != "", a.Failover != ""); n != 1 {
			wrong("acts: number %d must have one of run, prove, left, stop, start, sql, promote, status, split, manager and failover", i+1)
		}
		if at := a.Stop + a.Start; at != "" && !nodes[at] {
			wrong("acts: number %d: there is no server %s", i+1, at)
		}
		for _, re := range a.Says {
			if _, err := regexp.Compile(re); err != nil {
				wrong("acts: number %d: %w", i+1, err)
			}
		}
		if a.On != "" && a.On != sideOld && a.On != sideNew || a.In != "" && !databases[a.In] {
			wrong("acts: number %d: sql is done on old or new, in a database of the scenario", i+1)
		}
		if a.Promote != "" && !slices.ContainsFunc(s.Old.Standbys, func(sb Standby) bool { return sb.Name == a.Promote }) {
			wrong("acts: promote: old has no standby %s", a.Promote)
		}
		if c := a.Cut; c != nil && (a.Run == "" || lineOf(c.Between) == "" || c.At == "" || c.For <= 0) {
			wrong("acts: number %d: cut goes with run, and has between: two of tool, old and new; at: a step; for: how long", i+1)
		}
		if a.Prove != "" && a.Prove != sideOld && a.Prove != sideNew {
			wrong("acts: prove: %s; it is old or new", a.Prove)
		}
		if a.Left != "" && !slices.Contains(actsLeft, a.Left) {
			wrong("acts: left: %s; it is %s", a.Left, strings.Join(actsLeft, " or "))
		}
	}
	return errors.Join(append(errs, s.checkManager())...)
}

// takes reports whether new's standby of that name takes the place of old's.
func (s *Scenario) takes(name string) bool {
	return slices.ContainsFunc(s.New.Standbys, func(sb Standby) bool { return sb.After && sb.Name == name })
}

// The two sides of an upgrade.
const (
	sideOld = "old"
	sideNew = "new"
)

func count(all ...bool) int {
	n := 0
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

// lines are what can be cut, as lineOf names them.
var lines = []string{"tool-old", "tool-new", "old-new"}

// lineOf is the name of the line between two; "" is none.
func lineOf(two []string) string {
	if len(two) == 2 {
		for _, l := range lines {
			if a, b, _ := strings.Cut(l, "-"); a == two[0] && b == two[1] || a == two[1] && b == two[0] {
				return l
			}
		}
	}
	return ""
}

// cuts reports whether some act cuts a line.
func (s *Scenario) cuts() bool {
	return slices.ContainsFunc(s.Acts, func(a Act) bool { return a.Cut != nil })
}

// promotes reports whether some act promotes a standby of old.
func (s *Scenario) promotes() bool {
	return slices.ContainsFunc(s.Acts, func(a Act) bool { return a.Promote != "" })
}
