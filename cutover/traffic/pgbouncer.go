package traffic

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/pg"
)

// pgbouncer is the kind. What its Switch does is in pgbouncer_switch.go, what may
// block it in pgbouncer_prove.go and pgbouncer_login.go.
func pgbouncer() Kind {
	return Kind{
		Key: "pgbouncer",
		Keys: []Keys{
			{"pgbouncer", []string{"databases", "instances"}},
			{"an instance of pgbouncer", []string{"admin", "config"}},
		},
		Read: func(m Mapping) Entry { return readPgBouncer(m) },
		Findings: []Finding{
			{PoolUnreachable, "Every pooler of the runbook answers", false},
			{PoolConfig, "The pooler's file can be read, is the one in use, and can be replaced", false},
			{PoolDatabase, "The pooler has the databases that the runbook names", false},
			{PoolPaused, "Nothing is paused in the pooler already", false},
			{PoolShared, "Each admin address is one process", false},
			{PoolReach, "The pooler's host reaches new", false},
			{PoolHBA, "New's pg_hba.conf lets the pooler's users in", false},
			{PoolLogin, "Logins through the pooler succeed on new", true},
			{PoolAlias, "No other name of the pooler leads to the same database", true},
			{PoolSession, "The pooler does not wait for clients to leave before it pauses", true},
			{PoolWait, "Clients may wait in the pooler as long as a cutover may take", true},
		},
		Example: func(database string) string {
			return fmt.Sprintf("pgbouncer: {databases: [%s], instances: [{admin: \"host=… port=6432 user=pgbouncer dbname=pgbouncer\", config: /etc/pgbouncer/pgbouncer.ini}]}", database)
		},
		Revive: revivePgBouncer,
	}
}

// The problems of a pooler.
const (
	PoolUnreachable = "pool-unreachable" // its console does not answer
	PoolConfig      = "pool-config"      // its file cannot be read, is not the one in use, or cannot be rewritten
	PoolDatabase    = "pool-database"    // a named database is not there
	PoolAlias       = "pool-alias"       // another of its names leads to the same server; acceptable
	PoolSession     = "pool-session"     // session pooling: PAUSE waits until clients leave; acceptable
	PoolPaused      = "pool-paused"      // a database is paused already
	PoolShared      = "pool-reuseport"   // several processes behind one address
	PoolWait        = "pool-wait"        // it sends waiting clients away too soon; acceptable
	PoolReach       = "pool-reach"       // new is not reached from its host
	PoolHBA         = "pool-hba"         // new's pg_hba.conf refuses a user
	PoolLogin       = "pool-login"       // new refuses a login; acceptable where only a password is in doubt
)

// PgBouncerEntry is one or more instances that pool the same databases.
type PgBouncerEntry struct {
	Databases []string // names in the instances' configuration, not on the server
	Instances []PgBouncerInstance
}

// PgBouncerInstance is one process of PgBouncer.
type PgBouncerInstance struct {
	Admin  string // conninfo of its console
	Config string // absolute path of its configuration on this machine
}

func readPgBouncer(m Mapping) *PgBouncerEntry {
	const instances = "[{admin: host=pool1 port=6432 user=pgbouncer, config: /etc/pgbouncer/pgbouncer.ini}]"
	m.Require("databases", "the names in its configuration that send to old, like databases: [shop]")
	m.Require("instances", "its processes, like instances: "+instances)
	e := &PgBouncerEntry{Databases: m.Names("databases", "shop")}
	for _, im := range m.Mappings("instances", "an instance of pgbouncer", instances) {
		im.Require("admin", "its console, like admin: host=pool1 port=6432 user=pgbouncer")
		im.Require("config", "its configuration, like config: /etc/pgbouncer/pgbouncer.ini")
		i := PgBouncerInstance{Admin: im.Conninfo("admin")}
		// A second PAUSE would wait for the first to end. Clusters of their own are cut
		// over one after the other.
		im.Once("admin", i.Admin, "instance")
		i.Config = im.File("config", "/etc/pgbouncer/pgbouncer.ini")
		e.Instances = append(e.Instances, i)
	}
	return e
}

// Switch is the PgBouncer of the entry.
func (e *PgBouncerEntry) Switch(a Around) (Switch, error) {
	b := &PgBouncer{
		Databases: e.Databases, Apart: a.Apart, Moved: a.Moved, PauseTimeout: min(2*time.Second, a.MaxBlocked/2), Blocked: a.MaxBlocked, Accepted: a.Accepted,
	}
	for _, i := range e.Instances {
		admin, err := pg.Parse("pgbouncer", i.Admin, "")
		if err != nil {
			return nil, err
		}
		b.Instances = append(b.Instances, Instance{Admin: admin.As(a.App), Config: i.Config})
	}
	return b, nil
}

// Says has a sentence for each instance.
func (e *PgBouncerEntry) Says() []string {
	var says []string
	for _, i := range e.Instances {
		says = append(says, fmt.Sprintf("Clients of %s come through PgBouncer at %s.", strings.Join(e.Databases, ", "), shown(i.Admin)))
	}
	return says
}

// Hosts are those of the consoles: the pooler listens there for clients, too.
func (e *PgBouncerEntry) Hosts() []string {
	var hosts []string
	for _, i := range e.Instances {
		if admin, err := pg.Parse("pgbouncer", i.Admin, ""); err == nil { // Switch says what is wrong with it
			host, _ := admin.Host()
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// Names are the databases.
func (e *PgBouncerEntry) Names() []string { return e.Databases }

// Unreachable is the problem of an instance that could not be asked for others.
func (b *PgBouncer) Unreachable(err error) Problem {
	return Problem{ID: PoolUnreachable, On: b.Name(), Says: err.Error(), Fix: "start the pooler, or correct its admin address in the runbook"}
}

// pgbouncerGuarded is what a guard gets of a PgBouncer.
type pgbouncerGuarded struct {
	Consoles  []guardedConsole `json:"consoles"`
	Databases []string         `json:"databases"`
}

type guardedConsole struct {
	Conninfo string `json:"conninfo"`
	Password string `json:"password,omitempty"`
	App      string `json:"app,omitempty"`
}

// Guarded has the consoles, with their passwords.
func (b *PgBouncer) Guarded() (GuardUnit, error) {
	g := pgbouncerGuarded{Databases: b.Databases}
	for _, i := range b.Instances {
		g.Consoles = append(g.Consoles, guardedConsole{Conninfo: i.Admin.Conninfo(), Password: i.Admin.Secret(), App: i.Admin.App})
	}
	spec, err := json.Marshal(g)
	return GuardUnit{Kind: "pgbouncer", Name: b.Name(), Spec: spec}, err
}

func revivePgBouncer(u GuardUnit) (Switch, error) {
	var g pgbouncerGuarded
	if err := json.Unmarshal(u.Spec, &g); err != nil {
		return nil, err
	}
	b := &PgBouncer{Label: u.Name, Databases: g.Databases}
	for _, c := range g.Consoles {
		conninfo := c.Conninfo
		if c.Password != "" {
			conninfo += " password='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(c.Password) + "'"
		}
		admin, err := pg.Parse("pgbouncer", conninfo, "")
		if err != nil {
			return nil, err
		}
		b.Instances = append(b.Instances, Instance{Admin: admin.As(c.App)})
	}
	return b, nil
}
