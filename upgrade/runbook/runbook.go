// Package runbook is what the operator wants, as one YAML file says it: clusters,
// databases and their table sets, limits, the cutover's window and traffic, hooks,
// and the findings that are accepted. Read reads and checks it, and reports every
// mistake at once with its place; Assign gives each table of a live database its
// set.
//
// It knows nothing of servers and asks none. Begin at Runbook; yaml.go has every
// key, docs/runbook.md what each means, and a test compares the two.
package runbook

import (
	"os"
	"path/filepath"
	"time"
	_ "time/tzdata" // a window's zone is known on machines and in containers without zone files

	"go.yaml.in/yaml/v4"
)

// Runbook is what the operator wrote, checked, with every default filled in.
// It says nothing about what the servers hold; Assign does, once their tables
// are known.
type Runbook struct {
	Upgrade   string       // name of the upgrade, [a-z][a-z0-9]{0,14}; it is in every object made
	File      string       // path as given to Read; problems are printed with it
	Old       Old          // the cluster that serves at the start
	New       []NewCluster // one, or several, each named by a set: then the tables are split
	Databases []Database   // in the order written; nil: every database that allows connections, each as DefaultDatabase
	Copy      Copy
	Catchup   Catchup
	Verify    Verify
	Cutover   Cutover
	Hooks     Hooks
	Accept    []Accept // findings the operator accepts
	Journal   string   // absolute path; default: <upgrade>.journal beside the runbook
}

// Host is where the commands for a server run: HostNone, HostLocal, or an
// ssh:// address as pg.ParseHost reads it.
type Host string

// The hosts that are no address.
const (
	HostNone  Host = ""       // not given: nothing can be asked of or run on that machine
	HostLocal Host = "local:" // the machine that crossfade runs on
)

// Old is the old cluster.
type Old struct {
	Primary  string // conninfo or URI as libpq takes it
	Bin      string // absolute path of its client programs; "": found by version
	Host     Host
	Standbys []OldStandby
	Manager  OldManager
}

// OldManager is how the program is reached that fails old over, where that
// cannot be found out.
type OldManager struct {
	Patroni []string // addresses of its REST API; nil: port 8008 of old's hosts
}

// OldStandby is a standby of the old cluster, known to check, status and the
// failover watch.
type OldStandby struct {
	At       Position
	Name     string
	Conninfo string
	// For a standby of new of the same name that is built after, in its place:
	Host Host
	Data string   // absolute path of its data directory; "": not given
	Stop []string // argv; nil: pg_ctl
}

// NewCluster is a cluster that serves at the end.
type NewCluster struct {
	At       Position
	Cluster  string // its name, [a-z][a-z0-9]{0,14}
	Primary  string // conninfo or URI
	FromNew  string // conninfo by which this server reaches the old one; "": old.primary
	FromOld  string // conninfo by which the old server reaches this one; "": Primary
	Host     Host
	Bin      string    // absolute path of its client programs; "": found by version
	Standbys []Standby // in the order written; an upstream may stand after those that follow it

	// Window is when this cluster's cutover may begin, where there are several;
	// nil: Cutover.Window.
	Window *Window

	// SynchronousStandbyNames is set once those standbys stream; nil: as on
	// old, "": none is synchronous.
	SynchronousStandbyNames *string
}

// Standby is a standby of a new cluster.
type Standby struct {
	At         Position
	Name       string // its application_name and cluster_name: 1 to 63 printable ASCII characters
	Conninfo   string
	Host       Host          // never HostNone: its commands run there, as the owner of Data
	Bin        string        // absolute path; "": found by version
	Data       string        // absolute path of the data directory
	Config     string        // absolute path of the configuration's folder; "": inside Data
	Start      []string      // argv; nil: pg_ctl
	Stop       []string      // argv; nil: pg_ctl
	Restart    []string      // argv; nil: Stop, then Start
	After      bool          // built after open, where old's standby of the same name ran; else before the cutover
	Upstream   string        // UpstreamPrimary or another standby's name; never a circle
	Slot       string        // physical slot on the upstream, [a-z0-9_]{1,63}; default: Name
	ApplyDelay time.Duration // recovery_min_apply_delay, whole milliseconds; 0: none
	Settings   []Setting     // further settings, in the order written
}

// UpstreamPrimary is the Upstream of a standby that follows the primary.
const UpstreamPrimary = "primary"

// Setting is one PostgreSQL setting with its value as postgresql.conf would
// have it, without quotes.
type Setting struct{ Name, Value string }

// Copy is how the rows are copied.
type Copy struct {
	Jobs      int   // tables or chunks copied at a time, from 1; default 4
	IndexJobs int   // indexes built at a time, from 1; default 2
	Chunk     int64 // bytes; bigger tables are copied in pieces of about this; default 1 GB
	Limit     int64 // bytes a second off the old primary, all jobs together, from 64 kB; 0: none, the default
}

// Catchup says when a link counts as caught up, and when it is given up.
type Catchup struct {
	MaxLag int64         // bytes of WAL, from 1; default 16 MB
	Stable time.Duration // how long the lag must stay below MaxLag; 0: one look is enough; default 10 s
	MaxWAL int64         // bytes of WAL kept on old before the slots are given up, at least MaxLag; default 50 GB
}

// Verify is how old and new are compared.
type Verify struct{ Mode VerifyMode }

// VerifyMode is what is compared.
type VerifyMode string

// The modes of this version.
const (
	VerifyFull   VerifyMode = "full"   // every row; the default
	VerifyCounts VerifyMode = "counts" // the number of rows
	VerifyOff    VerifyMode = "off"
)

// Cutover is when and how the new cluster takes over.
type Cutover struct {
	Window         Window
	MaxBlocked     time.Duration // of one attempt, from the first PAUSE or lock to open; from 1 ms; default 5 s
	LockTimeout    time.Duration // of one barrier attempt, all tables together; from 1 ms to MaxBlocked; default 400 ms
	Patience       time.Duration // for gates and all attempts together; 0: one look, one attempt; default 10 m
	KillAfter      time.Duration // end transactions older than this that hold the barrier up; 0, the default: never
	Approve        Approve
	ApproveFile    string    // absolute path, with ApproveByFile only
	Back           bool      // keep old in step for a rollback; default true
	SequenceMargin int64     // values that a sequence is set ahead, from 0; default 1000
	Traffic        []Traffic // in the order they are paused; empty: clients find the new cluster by themselves
}

// Approve is who says that the cutover may begin.
type Approve string

// The ways to approve.
const (
	ApprovePrompt Approve = "prompt" // asks on the terminal; the default
	ApproveAuto   Approve = "auto"   // asks nobody
	ApproveByFile Approve = "file"   // waits for Cutover.ApproveFile, newer than the command's start
)

// Window is when a cutover may begin. The zero Window is any time. From and To
// are wall-clock times in Zone: on the two nights of a year when the clocks
// change, the window's real length differs from To-From.
type Window struct {
	At   Position
	Zone *time.Location // nil: any time; its String is the IANA name
	Days []time.Weekday // as written, each once; empty: every day
	From time.Duration  // since midnight; default 0
	To   time.Duration  // since midnight, after From, at most 24 h, which is the default
}

// Hook is a program of the operator.
type Hook struct {
	At      Position
	Run     []string      // argv
	Timeout time.Duration // from 1 ms; default 30 s
}

// Hooks are called around a cutover; nil: none.
type Hooks struct {
	BeforeCutover *Hook // failing stops the plan
	AfterOpen     *Hook // failing is exit 6 with all else finished
}

// Matches says whether the entry stands for an object: * and ? outside of double
// quotes stand for any characters and any one, as in patterns of tables.
func (a Accept) Matches(object string) bool {
	if a.Object == "" || a.Object == object {
		return true
	}
	var glob nameGlob
	quoted := false
	for _, c := range a.Object {
		switch {
		case c == '"':
			quoted = !quoted
			glob = append(glob, c)
		case c == '*' && !quoted:
			glob = append(glob, globAny)
		case c == '?' && !quoted:
			glob = append(glob, globOne)
		default:
			glob = append(glob, c)
		}
	}
	return glob.match(object)
}

// Accept is a finding that the operator accepts.
type Accept struct {
	At     Position
	ID     string // the finding's id
	Object string // only for this object; "": for every object
}

// defaults is a runbook in which nothing optional was written.
func defaults(file string) *Runbook {
	return &Runbook{
		File:    file,
		Copy:    Copy{Jobs: 4, IndexJobs: 2, Chunk: 1 << 30},
		Catchup: Catchup{MaxLag: 16 << 20, Stable: 10 * time.Second, MaxWAL: 50 << 30},
		Verify:  Verify{Mode: VerifyFull},
		Cutover: Cutover{
			MaxBlocked: 5 * time.Second, LockTimeout: 400 * time.Millisecond, Patience: 10 * time.Minute,
			Approve: ApprovePrompt, Back: true, SequenceMargin: 1000,
		},
	}
}

// Read reads the runbook at path. It touches no server and, but for path
// itself, no file. The warnings come with and without an error; the error is a
// *Error with every mistake at once, and the runbook is nil then.
func Read(path string) (*Runbook, []Problem, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	return parse(path, text)
}

// parse is Read for a text that stood at path.
func parse(path string, text []byte) (*Runbook, []Problem, error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, nil, unreadable(path, err)
	}
	r := &reader{
		source: newRunbookSource(path, text), dir: dir, once: map[string]int{},
		warned: map[*yaml.Node]bool{}, covered: map[*yaml.Node]bool{},
	}
	rb := defaults(path)
	if root := r.load(text); root != nil {
		r.runbook(rb, root)
		r.secrets(root)
	}
	// Which lines are hidden is known only now.
	for _, problems := range [][]Problem{r.warnings, r.mistakes} {
		for i := range problems {
			problems[i].Source = r.source.line(problems[i].Line)
		}
	}
	warnings, mistakes := sorted(r.warnings), sorted(r.mistakes)
	if len(mistakes) > 0 {
		return nil, warnings, &Error{Problems: mistakes}
	}
	return rb, warnings, nil
}
