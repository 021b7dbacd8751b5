package traffic

import (
	"strings"
	"time"

	"crossfade/upgrade/pg"
)

// Kinds are the kinds of traffic that a runbook may have, in the order in which they
// are listed to people. A kind is one file: it makes its Kind, its Entry and its
// Switch there, and stands here. docs/runbook.md has its keys.
func Kinds() []Kind { return []Kind{pgbouncer(), haproxy(), hook()} }

// Kind is all that the product asks of a kind of traffic.
type Kind struct {
	// Key is what it is called in an entry of cutover.traffic.
	Key string
	// Keys are the mappings that it reads, that of Key first.
	Keys []Keys
	// Later refuses it for this version and says what is taken in its place: "pgbouncer
	// is". "" for a kind that is there; the others need nothing but Keys and Read.
	Later string
	// Read reads an entry, of which all mistakes are reported together. Whatever is
	// missing, what it returns can be asked for Says, Hosts and Names.
	Read func(Mapping) Entry
	// Findings are those that Judge can make of it.
	Findings []Finding
	// Example is an entry for a database, for the runbook that init writes; nil: none.
	Example func(database string) string
	// Revive makes a Switch of what Switch.Guarded has said, in the guard's process. It
	// can resume and, where it can be asked, be reached; nothing else is called.
	Revive func(GuardUnit) (Switch, error)
}

// Keys are the keys of one mapping.
type Keys struct {
	Under string // as messages call the mapping: "an instance of pgbouncer"
	Keys  []string
}

// Finding is a kind of Problem, as docs/checks.md lists it.
type Finding struct {
	ID         string
	Title      string // what must hold
	Acceptable bool
}

// Mapping is one mapping of the runbook, as a kind reads it. Each method reports what
// is wrong with the place in the file, and returns the zero value then, so that all
// mistakes come at once. right is how a value is written, for the message.
type Mapping interface {
	// Require reports key as missing where it is; right says what it would be.
	Require(key, right string)
	Text(key, right string) string
	// Texts is a list of at least one text; Names is one in which each is given once.
	Texts(key, right string) []string
	Names(key, right string) []string
	// Argv is a program with its arguments, each as it stands.
	Argv(key, right string) []string
	// Conninfo is a conninfo or URI as libpq takes it.
	Conninfo(key string) string
	// File is the absolute path of a file on this machine.
	File(key, right string) string
	// Duration is otherwise where it is not given, and at least least.
	Duration(key string, otherwise, least time.Duration) time.Duration
	// Mappings are the entries of a list of at least one mapping; under is one of Keys.
	Mappings(key, under, right string) []Mapping
	// Once reports key where another mapping of an entry for the same cluster has this
	// value, too; what is the thing that would be there twice.
	Once(key, value, what string)
}

// Entry is one entry of cutover.traffic.
type Entry interface {
	// Switch makes what sends its clients.
	Switch(Around) (Switch, error)
	// Says tells how clients come to the cluster that serves, a sentence each.
	Says() []string
	// Hosts are the machines from which its sessions come to the cluster, by name or
	// address: clients there are not direct ones. Nil: none are known.
	Hosts() []string
	// Names are its own names for databases: no entry of another cluster takes one of
	// them for a way around itself.
	Names() []string
}

// Around is what an entry cannot know of the upgrade.
type Around struct {
	App        string             // what the application_names of the tool's sessions are
	MaxBlocked time.Duration      // cutover.max_blocked
	Moved      []string           // databases whose clients go to the other side
	Apart      []string           // Names of entries of other clusters
	Env        func() []string    // what programs of the operator get in their environment
	Accepted   func(Problem) bool // which acceptable problems the operator accepts
}

// Direct says how clients come where the runbook has no traffic.
const Direct = "Clients find the cluster that serves by themselves: both servers in their connection string, with target_session_attrs."

// Known are the kinds' keys in a sentence: "pgbouncer, haproxy and hook".
func Known() string {
	kinds := Kinds()
	keys := make([]string, len(kinds))
	for i, k := range kinds {
		keys[i] = k.Key
	}
	last := len(keys) - 1
	return strings.Join(keys[:last], ", ") + " and " + keys[last]
}

// shown is how a conninfo of the runbook is shown.
func shown(conninfo string) string {
	if s, err := pg.Parse("", conninfo, ""); err == nil {
		return s.Address()
	}
	return "an address that cannot be read"
}
