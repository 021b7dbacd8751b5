package schema

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/flow"

	"github.com/jackc/pgx/v5"
)

// Global is one thing that new lacks, or has differently, outside of databases.
type Global struct {
	// Key names the thing: "role app", "membership a in b", "database shop",
	// "setting shop app lock_timeout" …
	Key string
	// Creates: a role or database that was not there. abort drops only those.
	Creates bool
	// Late: it can be done only when what was made in the databases of that role
	// is gone.
	Late   bool
	Effect flow.Effect
	// Undo takes the effect back; without SQL there is nothing to be undone,
	// because Undo of what Creates takes this along.
	Undo flow.Effect
}

// Problem is something about globals that a person should know of.
type Problem struct {
	ID     string // md5-password, no-passwords, unknown-setting, tablespace, database-locale, tool-role, unknown-role
	Object string
	Says   string
	Fix    string // a statement or a sentence; "" where there is none
	Blocks bool
}

// Shared is what the databases of a cluster have in common, and the
// properties of those databases that their own schema does not hold.
type Shared struct {
	Version     int
	User        string // whom the session logged in as
	Passwords   bool   // pg_authid could be read
	Roles       []Role
	Memberships []Membership
	Settings    []Setting
	Databases   []Database
	Tablespaces []string // but those that initdb makes
	Parameters  []Parameter
	Labels      []Label
	// Known are the settings that this server knows.
	Known map[string]bool
	// Predefined are the roles that initdb made (pg_monitor …).
	Predefined map[string]bool
}

// Role is a role that is not one of initdb's pg_ roles.
type Role struct {
	OID                                                                     uint32
	Name                                                                    string
	Bootstrap                                                               bool // made by initdb
	Superuser, Inherit, CreateRole, CreateDB, Login, Replication, BypassRLS bool
	Limit                                                                   int
	ValidUntil                                                              string // "" is for ever
	Comment                                                                 string

	password string // the stored hash
}

// HasPassword says whether a password is stored, MD5 whether it is md5, which
// 18 warns of.
func (r Role) HasPassword() bool { return r.password != "" }

// MD5 says whether the stored password is an md5 hash.
func (r Role) MD5() bool { return strings.HasPrefix(r.password, "md5") }

// Membership is one grant of a role to another.
type Membership struct {
	Role, Member        string
	Grantor             string // "" is the bootstrap superuser, or unknown (below 16)
	Admin, Inherit, Set bool
}

// Setting is a value that sessions of a role, in a database, begin with.
type Setting struct {
	Database, Role string // "" is all
	Name, Value    string
}

// Database is one database as its cluster sees it.
type Database struct {
	OID            uint32
	Name, Owner    string
	Encoding       string
	Collate, CType string
	Provider       string // c libc, i ICU, b builtin
	Locale, Rules  string // of ICU and builtin
	Limit          int
	Template       bool
	Tablespace     string // "" is pg_default
	Comment        string
	Privileges     []DatabasePrivilege
}

// DatabasePrivilege is a privilege on a database; Grantee "" is PUBLIC.
type DatabasePrivilege struct {
	Grantee, Privilege string
	Grantable          bool
}

// Parameter is a privilege on a configuration parameter (15 and later).
type Parameter struct {
	Name, Grantee, Privilege string
	Grantable                bool
}

// Label is a security label. Type is role or database.
type Label struct{ Type, Name, Provider, Label string }

// ReadShared reads what the cluster of conn has in common, and the properties
// of databases (those that exist).
func ReadShared(ctx context.Context, conn *pgx.Conn, databases []string) (*Shared, error) {
	s := &Shared{Known: map[string]bool{}, Predefined: map[string]bool{}}
	const who = `SELECT current_setting('server_version_num')::int, session_user, has_table_privilege('pg_authid', 'SELECT')`
	if err := conn.QueryRow(ctx, who).Scan(&s.Version, &s.User, &s.Passwords); err != nil {
		return nil, fmt.Errorf("read the session's role: %w", err)
	}
	for _, part := range []struct {
		what string
		read func() error
	}{
		{"roles", func() error { return s.readRoles(ctx, conn) }},
		{"memberships", func() error { return s.readMemberships(ctx, conn) }},
		{"settings of roles and databases", func() error { return s.readSettings(ctx, conn, databases) }},
		{"databases", func() error { return s.readDatabases(ctx, conn, databases) }},
		{"rest", func() error { return s.readRest(ctx, conn, databases) }},
	} {
		if err := part.read(); err != nil {
			return nil, fmt.Errorf("read the %s of the cluster: %w", part.what, err)
		}
	}
	return s, nil
}

func (s *Shared) readRoles(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, queryWith("shared_roles", s.Version, s.Passwords))
	if err != nil {
		return err
	}
	s.Roles, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Role, err error) {
		err = row.Scan(&r.OID, &r.Name, &r.Bootstrap, &r.Superuser, &r.Inherit, &r.CreateRole, &r.CreateDB, &r.Login, &r.Replication,
			&r.BypassRLS, &r.Limit, &r.ValidUntil, &r.password, &r.Comment)
		return r, err
	})
	return err
}

func (s *Shared) readMemberships(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, query("shared_members", s.Version))
	if err != nil {
		return err
	}
	s.Memberships, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (m Membership, err error) {
		err = row.Scan(&m.Role, &m.Member, &m.Grantor, &m.Admin, &m.Inherit, &m.Set)
		return m, err
	})
	return err
}

func (s *Shared) readSettings(ctx context.Context, conn *pgx.Conn, databases []string) error {
	rows, err := conn.Query(ctx, query("shared_settings", s.Version), databases)
	if err != nil {
		return err
	}
	s.Settings, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (v Setting, err error) {
		err = row.Scan(&v.Database, &v.Role, &v.Name, &v.Value)
		if slices.Contains(listSettings, v.Name) {
			v.Value = unquoted(v.Value) // servers quote its names by their own key words
		}
		return v, err
	})
	return err
}

func (s *Shared) readDatabases(ctx context.Context, conn *pgx.Conn, databases []string) error {
	rows, err := conn.Query(ctx, query("shared_databases", s.Version), databases)
	if err != nil {
		return err
	}
	s.Databases, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Database, err error) {
		var inDefault bool
		var privileges []string
		err = row.Scan(&d.OID, &d.Name, &d.Owner, &d.Encoding, &d.Collate, &d.CType, &d.Provider, &d.Locale, &d.Rules, &d.Limit, &d.Template,
			&d.Tablespace, &inDefault, &d.Comment, &privileges)
		if inDefault {
			d.Tablespace = ""
		}
		for _, p := range privileges {
			f := strings.Split(p, "\x01")
			d.Privileges = append(d.Privileges, DatabasePrivilege{f[0], f[1], f[2] == "t"})
		}
		return d, err
	})
	return err
}

// readRest reads names and rare things.
func (s *Shared) readRest(ctx context.Context, conn *pgx.Conn, databases []string) error {
	collect := func(sql string, scan []any, each func(), args ...any) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, scan, func() error { each(); return nil })
		return err
	}
	var kind, name string
	const names = `
		SELECT 'tablespace', spcname::text FROM pg_tablespace WHERE spcname NOT LIKE 'pg\_%'
		UNION ALL SELECT 'role', rolname::text FROM pg_roles WHERE rolname LIKE 'pg\_%'
		UNION ALL SELECT 'setting', name FROM pg_settings ORDER BY 1, 2`
	err := collect(names, []any{&kind, &name}, func() {
		switch kind {
		case "tablespace":
			s.Tablespaces = append(s.Tablespaces, name)
		case "role":
			s.Predefined[name] = true
		default:
			s.Known[strings.ToLower(name)] = true
		}
	})
	if err != nil {
		return err
	}
	var l Label
	// The view pg_seclabels has names as quote_ident writes them, and takes long to plan.
	const labels = `
		SELECT 'role', rolname::text, provider, label FROM pg_shseclabel JOIN pg_roles r ON r.oid = objoid WHERE classoid = 'pg_authid'::regclass
		UNION ALL
		SELECT 'database', datname::text, provider, label FROM pg_shseclabel JOIN pg_database d ON d.oid = objoid WHERE classoid = 'pg_database'::regclass AND datname = ANY ($1)
		ORDER BY 1, 2, 3`
	if err := collect(labels, []any{&l.Type, &l.Name, &l.Provider, &l.Label}, func() { s.Labels = append(s.Labels, l) }, databases); err != nil {
		return err
	}
	if s.Version < 150000 {
		return nil
	}
	var p Parameter
	const parameters = `
		SELECT parname, CASE a.grantee WHEN 0 THEN '' ELSE pg_get_userbyid(a.grantee)::text END, a.privilege_type, bool_or(a.is_grantable)
		FROM pg_parameter_acl, LATERAL aclexplode(paracl) a WHERE a.grantee <> 10 GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`
	return collect(parameters, []any{&p.Name, &p.Grantee, &p.Privilege, &p.Grantable}, func() { s.Parameters = append(s.Parameters, p) })
}

// Globals compares what the clusters of old and new have outside of databases,
// and the properties of databases, and returns what must be done on new, in
// order; nothing where nothing is to be done. Roles that are on new already
// lose no attribute, and the role that the tool itself uses there keeps its
// password. Tablespaces, and what new does not know, are problems.
func Globals(ctx context.Context, old, new *pgx.Conn, databases []string) ([]Global, []Problem, error) {
	from, err := ReadShared(ctx, old, databases)
	if err != nil {
		return nil, nil, fmt.Errorf("on old: %w", err)
	}
	to, err := ReadShared(ctx, new, databases)
	if err != nil {
		return nil, nil, fmt.Errorf("on new: %w", err)
	}
	for i := range from.Databases {
		d := &from.Databases[i]
		have := find(to.Databases, func(o Database) bool { return o.Name == d.Name })
		if d.Provider != "i" || have == nil || have.Locale == d.Locale {
			continue
		}
		// 16 and later keep it in another spelling than CREATE DATABASE was given.
		if d.Locale, err = Locale(ctx, new, d.Locale); err != nil {
			return nil, nil, fmt.Errorf("on new: %w", err)
		}
	}
	globals, problems := Carry(from, to)
	return globals, problems, nil
}

// Carry is Globals over facts that were read. Pure.
func Carry(from, to *Shared) ([]Global, []Problem) {
	c := &carrier{from: from, to: to}
	c.carryRoles()
	c.carryMemberships()
	c.carryParameters()
	c.carryDatabases()
	c.carrySettings()
	c.carryLabels()
	for _, t := range from.Tablespaces {
		if !slices.Contains(to.Tablespaces, t) {
			c.problem(Problem{
				ID: "tablespace", Object: t, Says: fmt.Sprintf("tablespace %s is not on new", Name(t)),
				Fix: "create it there, at a place of its own, before the schema is restored", Blocks: true,
			})
		}
	}
	return c.globals, c.problems
}

type carrier struct {
	from, to *Shared
	globals  []Global
	problems []Problem
}

func (c *carrier) problem(p Problem) { c.problems = append(c.problems, p) }

// do adds an effect; undo "" takes nothing back.
func (c *carrier) do(key, sql, undo string) *Global {
	g := Global{Key: key, Effect: flow.Effect{On: "new", SQL: sql}}
	if undo != "" {
		g.Undo = flow.Effect{On: "new", SQL: undo}
	}
	c.globals = append(c.globals, g)
	return &c.globals[len(c.globals)-1]
}

// find returns the element that is says yes to, or nil.
func find[T any](all []T, is func(T) bool) *T {
	if i := slices.IndexFunc(all, is); i >= 0 {
		return &all[i]
	}
	return nil
}

// DiffShared compares the shared things of two clusters: want is old, got is
// new. What is on new alone is expected. Pure.
func DiffShared(want, got *Shared) []Difference {
	all := Diff(&Inventory{Version: want.Version, Objects: want.objects()}, &Inventory{Version: got.Version, Objects: got.objects()})
	for i := range all {
		d := &all[i]
		switch {
		case d.Property == "password":
			d.Want, d.Got = passwordWord(d.Want), passwordWord(d.Got)
			d.Says = fmt.Sprintf("role %s: the password is %s on old and %s on new", d.Object, d.Want, d.Got)
			if d.Want == d.Got {
				d.Says = fmt.Sprintf("role %s: the password is another one on new", d.Object)
			}
			if d.Object == Name(got.User) {
				d.Expected = "the tool logs in as this role on new"
			}
		case d.Property == "" && strings.HasSuffix(d.Says, "is on new only"):
			d.Expected = "new has it from before"
		case d.Property != "" && d.Kind == "role" && d.Want == "" && d.Got == "true":
			d.Expected = "no attribute is taken from a role that was on new before"
		}
	}
	return all
}

func passwordWord(v string) string {
	if v == "" {
		return "none"
	}
	return "set"
}

// objects are the shared things in the form that Diff takes. A password is a
// digest of its hash.
func (s *Shared) objects() []Object {
	var out []Object
	add := func(kind, name string, pairs ...string) {
		o := Object{Kind: kind, Name: name}
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i+1] != "" && pairs[i+1] != "false" {
				o.Properties = append(o.Properties, Property{pairs[i], pairs[i+1]})
			}
		}
		slices.SortFunc(o.Properties, func(a, b Property) int { return strings.Compare(a.Name, b.Name) })
		out = append(out, o)
	}
	for _, r := range s.Roles {
		password := ""
		if r.password != "" {
			h := sha256.Sum256([]byte(r.password))
			password = hex.EncodeToString(h[:8])
		}
		add("role", Name(r.Name), "superuser", fmt.Sprint(r.Superuser), "inherit", fmt.Sprint(r.Inherit), "createrole", fmt.Sprint(r.CreateRole),
			"createdb", fmt.Sprint(r.CreateDB), "login", fmt.Sprint(r.Login), "replication", fmt.Sprint(r.Replication),
			"bypassrls", fmt.Sprint(r.BypassRLS), "connection limit", fmt.Sprint(r.Limit), "valid until", r.ValidUntil, "password", password, "comment", r.Comment)
	}
	for _, m := range s.merged() {
		add("membership", Name(m.Member)+" in "+Name(m.Role), "admin", fmt.Sprint(m.Admin), "inherit", fmt.Sprint(m.Inherit), "set", fmt.Sprint(m.Set))
	}
	for _, v := range s.Settings {
		add("setting", v.String(), "value", v.Value)
	}
	for _, d := range s.Databases {
		add("database", Name(d.Name), "owner", d.Owner, "encoding", d.Encoding, "collate", d.Collate, "character type", d.CType, "provider", d.Provider,
			"locale", d.Locale, "rules", d.Rules, "connection limit", fmt.Sprint(d.Limit), "template", fmt.Sprint(d.Template), "tablespace", d.Tablespace,
			"comment", d.Comment, "privileges", fmt.Sprint(d.Privileges))
	}
	for _, p := range s.Parameters {
		add("parameter privilege", p.Privilege+" on "+p.Name+" for "+granteeName(p.Grantee), "grantable", fmt.Sprint(p.Grantable))
	}
	for _, l := range s.Labels {
		add("security label", l.Provider+" on "+l.Type+" "+Name(l.Name), "label", l.Label)
	}
	slices.SortFunc(out, compareObjects)
	return out
}

func granteeName(role string) string {
	if role == "" {
		return "PUBLIC"
	}
	return Name(role)
}
