package check

import (
	"crossfade/schema"
	"crossfade/upgrade/pg"
)

// Options is the upgrade that is to be checked.
type Options struct {
	// Upgrade is the upgrade's name; it stands in the names of slots,
	// publications and subscriptions.
	Upgrade string
	// Old and New are the primaries, seen through any database that exists.
	// New.Bin is where pg_dump and pg_restore are; "" looks for them.
	Old, New *pg.Server
	// FromNew is how the new server reaches the old one, FromOld the other way.
	// Nil is as the tool reaches them.
	FromNew, FromOld *pg.Server
	// Databases are moved; with AllDatabases every database that allows
	// connections is (templates are not), and those of Databases are as they say.
	Databases    []Database
	AllDatabases bool
	// Back: the old cluster is kept in step after the cutover.
	Back bool
	// OldHost and NewHost are the machines of the primaries, for how much disk
	// is free there; nil is not known.
	OldHost, NewHost pg.Host
	// Poolers are the names or addresses of the machines that send the
	// application's sessions to old; nil where it connects by itself.
	Poolers []string
	// OldStandbys exist; NewStandbys are to be built.
	OldStandbys, NewStandbys []Standby
	// MaxWAL is how many bytes of WAL old keeps before the slots are given up;
	// 0 is not judged.
	MaxWAL int64
	// Jobs and IndexJobs are how many sessions copy and build indexes at a
	// time; 0 is 4 and 2, as in the runbook.
	Jobs, IndexJobs int
	// Clients are sessions that the new server must let in, beside those seen
	// on old while the facts are read.
	Clients []Client
	// Managers are the failover managers of old that can be talked to.
	Managers []Manager
	// Accepts says whether the operator accepts a finding about an object; nil:
	// none.
	Accepts func(id, object string) bool
	// Inventories are what was read of old's databases already, by name: objects,
	// sizes and the sequences that are not called are not needed. What is not in
	// it is read.
	Inventories map[string]*schema.Inventory
	// Incomplete is what the caller could not read for these options.
	Incomplete []Incomplete
	// Ours: this upgrade has begun, and what carries its name is its own. It is
	// also found by its record in crossfade.upgrade.
	Ours bool
	// Siblings are the other new clusters, where the tables of old are split, and
	// OtherLinks how many links there will be to them.
	Siblings   []string
	OtherLinks int
}

// Database is a database that is moved.
type Database struct {
	Name string
	// Exclude says which tables are not moved; nil is none.
	Exclude func(schema, table string) bool
	// Identity is what the runbook orders: full or index:<name>, by table as
	// schema.Table.String writes it.
	Identity map[string]string
	// Ordered is what patterns of the runbook order for a table that Identity does
	// not name; nil, and "", is nothing.
	Ordered func(t schema.Table) string
	// Sets puts the tables of the database into sets; nil is one set, main, of
	// all that are published. It must be a pure function.
	Sets func(inv *schema.Inventory) []schema.Set
}

// order is what the runbook orders for a table; "" is nothing.
func (d Database) order(t schema.Table) string {
	if order := d.Identity[t.String()]; order != "" || d.Ordered == nil {
		return order
	}
	return d.Ordered(t)
}

// Standby is a standby that exists or is to be built.
type Standby struct {
	Name   string
	Server *pg.Server
	// Upstream is another standby's name; "" and primary are the primary.
	Upstream string
	Slot     string // its physical slot on the upstream; "" is its name
	// After: of new, it takes the place of old's standby of the same name.
	After bool
	// Data is where the runbook says that a standby of old runs; "" where it
	// does not say.
	Data string
}

// Manager is a failover manager that the upgrade knows how to talk to.
type Manager struct {
	Name  string
	Nodes []ManagerNode
	Home  string // the database of its own tables; "" where it has none
	Err   error  // why it could not be asked which nodes there are
	// Synchronous: it decides synchronous_standby_names by itself.
	Synchronous bool
}

// ManagerNode is one place where a manager runs.
type ManagerNode struct {
	Name, Role string // as the manager calls them
	Runs, Held bool   // it would act; it has been told not to
	Err        error  // why it could not be asked
}

func (o Options) jobs() (int, int) {
	jobs, index := o.Jobs, o.IndexJobs
	if jobs <= 0 {
		jobs = 4
	}
	if index <= 0 {
		index = 2
	}
	return jobs, index
}
