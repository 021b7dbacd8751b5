package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/rights"
)

// Facts is everything that the checks judge, read once. It can be built by
// hand: no check asks a server.
type Facts struct {
	Want Options // servers in it are names only: no check connects
	At   time.Time
	// Old and New are the primaries, Standbys those of the runbook that answer.
	Old, New *Server
	Standbys []StandbyFacts
	// Databases are those that are moved, sorted by name.
	Databases []DatabaseFacts
	// OldMachine and NewMachine are what the primaries run on.
	OldMachine, NewMachine Machine
	// PoolerAddresses are where the sessions of poolers come from; nil is not known.
	PoolerAddresses []string
	// Template is what the user has put into template1 of old.
	Template []Thing
	// Reach are the proofs that one server reaches the other.
	Reach []Reach
	// Programs are the client programs that prepare runs.
	Programs []Program
	// Incomplete is what could not be read.
	Incomplete []Incomplete
}

// Server is what was read of one server.
type Server struct {
	Side string // old, new, or a standby's name
	Name string // as pg.Server.String writes it
	// Err is why it could not be reached or read at all; then nothing else holds.
	Err error
	pg.Identity
	Pooled        bool          // the session goes through a pooler
	Skew          time.Duration // its clock minus ours
	Role          Role          // the tool's own, as it logs in
	Acts          string        // the role that its sessions act as: Role, unless a setting changes it
	Settings      map[string]Setting
	RoleSettings  []RoleSetting
	Roles         []Role
	SetRole       []string // roles other than superusers that may SET session_replication_role (15+)
	Databases     []Catalog
	Tablespaces   []Tablespace
	ConfigErrors  []ConfigError       // of the configuration files as they stand now
	Passwords     map[string]Password // by role; nil where they may not be looked at
	Overheard     []string            // settings by which it would log a password, which the tool's role may not change
	HBA           *pg.HBA
	Slots         []Slot
	Senders       []Sender
	Subscriptions []Subscription
	Origins       []Origin
	Backends      map[string]int64 // backend_type → how many, this tool's sessions left out
	Clients       []Client
	Self          Client // the tool's own session
	Prepared      []Prepared
	Transactions  []Transaction
	Locks         []Lock
	Advisory      []Advisory
	Extensions    map[string]Extension // available ones
	Collations    []Collation          // in pg_catalog
	// Functions and Operators are those of pg_catalog, by OID; nil is not known.
	Functions map[uint32]Function
	Operators map[uint32]string
	// Columns are those of new's own relations, pg_catalog.pg_class.relname;
	// nil is not known.
	Columns map[string]bool
	// NextXID is the next transaction id, with its epoch; 0 is not known.
	NextXID uint64
	// Libraries are the files in the folder that $libdir is, without their
	// ending; nil is not known.
	Libraries []string
	// ConfigFiles are those that settings are read from, DataFiles those that
	// lie in the data directory; nil is not known.
	ConfigFiles, DataFiles []string
}

// Role is a role.
type Role struct {
	Name                          string
	Super, Replication, BypassRLS bool
	CreateDB, CreateRole, Login   bool
	ConnLimit                     int32
	MemberOf                      []string // direct and indirect
}

// Setting is a row of pg_settings. Value, Min and Max are in Unit.
type Setting struct {
	Value, Unit, Source, Boot, Context string
	Type                               string // bool, integer, real, enum, string
	Min, Max                           string // of numbers
	Enum                               []string
}

// RoleSetting is one setting of pg_db_role_setting.
type RoleSetting struct {
	Role, Database string // "" is every
	Name, Value    string
}

// String says whose setting it is.
func (s RoleSetting) String() string {
	switch {
	case s.Role == "":
		return "database " + schema.Name(s.Database)
	case s.Database == "":
		return "role " + schema.Name(s.Role)
	}
	return "role " + schema.Name(s.Role) + " in database " + schema.Name(s.Database)
}

// alter is the beginning of the statement that changes it.
func (s RoleSetting) alter() string {
	switch {
	case s.Role == "" && s.Database == "":
		return "ALTER ROLE ALL"
	case s.Role == "":
		return "ALTER DATABASE " + pg.Ident(s.Database)
	case s.Database == "":
		return "ALTER ROLE " + pg.Ident(s.Role)
	}
	return "ALTER ROLE " + pg.Ident(s.Role) + " IN DATABASE " + pg.Ident(s.Database)
}

// Catalog is a row of pg_database.
type Catalog struct {
	OID                             uint32
	Name                            string
	AllowsConnections, Template     bool
	ConnLimit                       int32
	Encoding                        string
	Provider                        string // c, i, b
	Collate, Ctype                  string
	Locale, Rules                   string // of ICU or builtin
	CollationVersion, ActualVersion string // 15+
	Tablespace                      string
	Age, MultiAge                   int64 // of its oldest transaction ids
}

// halfDropped is a database whose DROP DATABASE was cut off.
func (c Catalog) halfDropped() bool { return c.ConnLimit == -2 }

// initdb says whether initdb made it to copy databases from.
func (c Catalog) initdb() bool { return c.Name == "template0" || c.Name == "template1" }

// connects says whether sessions can be opened in it at all.
func (c Catalog) connects() bool { return c.AllowsConnections && !c.halfDropped() }

// Password is what kind of password a role has.
type Password string

// The kinds of passwords.
const (
	NoPassword    Password = "none"
	MD5Password   Password = "md5"
	SCRAMPassword Password = "scram"
)

// ConfigError is a line of a configuration file that the next start will refuse.
type ConfigError struct {
	File        string
	Line        int32
	Name, Error string
}

// Tablespace is a tablespace that is not one of the two that always exist.
type Tablespace struct{ Name, Location string }

// Slot is a replication slot.
type Slot struct {
	Name, Type, Plugin, Database string
	Active, Temporary            bool
	Kept                         int64  // bytes of WAL kept for it
	Status                       string // wal_status, 13+
	Failover, Synced             bool   // 17+
	XminAge                      int64  // of the oldest rows that it keeps
}

// Sender is a walsender.
type Sender struct {
	Application, Role, Address, State, SyncState string
	Slot                                         string // the slot that it serves; "" is none
	Logical                                      bool
	XminAge                                      int64
}

// Subscription is a subscription of any database of a server.
type Subscription struct {
	Database, Name string
	Enabled        bool
	Slot           string
	Running        bool
}

// Origin is a replication origin that takes room; Subscription is whose it is, "" is nobody's.
type Origin struct{ Name, Subscription string }

// Client are sessions of somebody else with the same role, database and address.
type Client struct {
	Role, Database string
	Address        string // "" is a local socket
	TLS            bool
	Application    string // one of theirs
	Count          int64
}

// String names the client as pg_hba.conf would see it.
func (c Client) String() string {
	from := c.Address
	if from == "" {
		from = "a local socket"
	}
	return fmt.Sprintf("role %s to database %s from %s", schema.Name(c.Role), schema.Name(c.Database), from)
}

// Prepared is a prepared transaction.
type Prepared struct {
	GID, Owner, Database string
	Age                  time.Duration
	XminAge              int64
}

// Transaction is an open transaction of somebody else.
type Transaction struct {
	PID                                       int32
	Role, Database, Application, State, Query string
	Age                                       time.Duration
	Writes                                    bool // has an xid
	XminAge                                   int64
}

// Extension is one that a server can create.
type Extension struct {
	Default  string
	Versions []string
}

// Collation is a collation of pg_catalog.
type Collation struct{ Name, Provider, Collate string }

// DatabaseFacts is one database that is moved.
type DatabaseFacts struct {
	Name string
	Want Database
	// Old is nil where it does not exist there; New where it is to be created.
	Old, New *Catalog
	// oldLocale is old's locale of ICU as new writes it; "" where that is the same.
	oldLocale string
	// Err is why its contents on old could not be read.
	Err       error
	Inventory *schema.Inventory // of old, with Excluded set; nil where Err is
	Sets      []schema.Set
	// Things are other objects of old; NewThings the user's objects that new has.
	Things, NewThings []Thing
	// Rights is what of old runs functions of roles that are no superusers; nil is
	// not known.
	Rights *rights.Map
	// Upgrades are the names in crossfade.upgrade on old, NewUpgrades on new.
	Upgrades, NewUpgrades []string
	// Bytes is what is moved of old's database; 0 where new's disk is not known.
	Bytes int64
	// Indexes are, by table, those of the tables whose identity the runbook
	// orders, that have none, or that have FULL.
	Indexes map[string][]Index
	// Narrowed are, by table, publications of old that publish less than the whole of
	// tables whose identity the runbook orders.
	Narrowed map[string][]Narrowed
	// Telling is, of tables that have FULL, the column with the most values.
	Telling map[string]string
	// StatsSince is since when updates and deletes are counted; zero is not known.
	StatsSince time.Time
	DDL        DDL
	// Added are members of extensions of old that the extension does not have on new.
	Added []Member
	// Lost are tables of new that have another replica identity than they are to have.
	Lost []LostIdentity
}

// Thing is an object that is neither table nor sequence. What Detail, More and
// N mean depends on Kind; see sql/things.sql.
type Thing struct {
	Kind, Name, Detail, More string
	N                        int64
}

// Reach is one try of one server to reach another.
type Reach struct {
	From, To string // old, new
	Database string
	Conninfo string // without password
	Err      error  // nil: it connected and was let in
}

// Program is a client program.
type Program struct {
	Name, Path string
	Version    int // as server_version_num
	Err        error
}

// Incomplete is something that could not be read.
type Incomplete struct {
	On, Database string
	What         string
	Err          error
	Serious      bool // checks that may block are blind
	// Grants are the statements that give the role $role the right to read it,
	// in the order in which they are run; nil is not known.
	Grants []string
}

// StandbyFacts is what was read of a standby of the runbook.
type StandbyFacts struct {
	Standby         // its name, and how it is reached
	Side    string  // of which cluster: old, new
	Facts   *Server // its Err where it does not answer
	// AppName is what its walreceiver calls itself; "" where it has none.
	AppName string
	// From is the port of the server that it receives WAL from; 0 is not known.
	From int
}

// things are the database's things of a kind.
func (d DatabaseFacts) things(kind string) []Thing { return pick(d.Things, kind) }

func pick(things []Thing, kind string) []Thing {
	var out []Thing
	for _, t := range things {
		if t.Kind == kind {
			out = append(out, t)
		}
	}
	return out
}

// tag is how the database stands in the names of links.
func (d DatabaseFacts) tag() string {
	var oid uint32
	if d.Old != nil {
		oid = d.Old.OID
	}
	return link.DatabaseTag(d.Name, oid)
}

// links are the names of all links of one direction.
func (f *Facts) links(forward bool) []string {
	var names []string
	for _, d := range f.Databases {
		for _, s := range d.Sets {
			names = append(names, link.Name(forward, f.Want.Upgrade, d.tag(), s.Name))
		}
	}
	return names
}

// ours says whether name is that of a link of this upgrade, begun or not.
func (f *Facts) ours(name string) bool {
	return strings.HasPrefix(name, link.ForwardPrefix+f.Want.Upgrade+"_") || strings.HasPrefix(name, link.BackPrefix+f.Want.Upgrade+"_")
}

// begun says whether this upgrade has made objects already.
func (f *Facts) begun() bool {
	return f.Want.Ours || slices.ContainsFunc(f.Databases, func(d DatabaseFacts) bool {
		return slices.Contains(d.Upgrades, f.Want.Upgrade)
	})
}

// sides are the primaries that could be read.
func (f *Facts) sides() []*Server {
	var out []*Server
	for _, s := range []*Server{f.Old, f.New} {
		if s.ok() {
			out = append(out, s)
		}
	}
	return out
}

// both says whether both primaries could be read.
func (f *Facts) both() bool { return f.Old.ok() && f.New.ok() }

func (s *Server) ok() bool { return s != nil && s.Err == nil }

// number is a setting as a number in its unit; 0 where there is none.
func (s *Server) number(name string) int64 {
	n, err := strconv.ParseInt(s.Settings[name].Value, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (s *Server) setting(name string) string { return s.Settings[name].Value }

func (s *Server) has(setting string) bool {
	_, ok := s.Settings[setting]
	return ok
}

// release is the version as people write it: 15.18.
func release(version int) string { return fmt.Sprintf("%d.%d", version/10000, version%10000) }

func (s *Server) release() string { return release(s.Version) }

// standbysOf are the walsenders of physical standbys.
func (s *Server) standbys() []Sender {
	var out []Sender
	for _, w := range s.Senders {
		if !w.Logical && w.State != "backup" {
			out = append(out, w)
		}
	}
	return out
}
