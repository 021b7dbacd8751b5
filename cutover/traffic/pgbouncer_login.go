package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// guest is a user that the pooler would log in to new with.
type guest struct {
	user     string
	secret   string // what the pooler knows of his password: plain, md5… or SCRAM…
	database string // on the server
	name     string // of the pooler
	lookup   string // auth_query, where he is the one that asks it
	seen     bool   // known only because the pooler has a pool for him
	idle     bool   // and no client of his is there now
}

// guests are the logins that the pooler needs on the server for its databases.
func (b *PgBouncer) guests(v view, secrets map[string]string) []guest {
	var all []guest
	for _, db := range b.named() {
		e, _, ok := v.file.find(db)
		if !ok {
			continue
		}
		dbname := e.database(db)
		if user, forced := e.get("user"); forced {
			password, ok := e.get("password")
			if !ok {
				password = secrets[user]
			}
			all = append(all, guest{user: user, secret: password, database: dbname, name: db})
			continue
		}
		for _, user := range b.AppUsers {
			all = append(all, guest{user: user, secret: secrets[user], database: dbname, name: db})
		}
		for _, p := range v.pools {
			if p["database"] == db && !slices.Contains(b.AppUsers, p["user"]) {
				idle := p["cl_active"] == "0" && p["cl_waiting"] == "0"
				all = append(all, guest{user: p["user"], secret: secrets[p["user"]], database: dbname, name: db, seen: true, idle: idle})
			}
		}
		asker, ok := e.get("auth_user")
		if !ok {
			asker = v.set["auth_user"]
		}
		if asker == "" {
			continue
		}
		place := dbname
		for _, p := range []string{v.set["auth_dbname"], first(e.get("auth_dbname"))} {
			if p != "" {
				place = p
			}
		}
		query := v.set["auth_query"]
		if q := first(e.get("auth_query")); q != "" {
			query = q
		}
		all = slices.DeleteFunc(all, func(g guest) bool { return g.seen && g.name == db && g.user == asker })
		all = append(all, guest{user: asker, secret: secrets[asker], database: place, name: db, lookup: query})
	}
	return all
}

func first(s string, _ bool) string { return s }

// logins proves that the server is reached from the pooler's host and lets the
// pooler's users in.
func (b *PgBouncer) logins(ctx context.Context, v view, to *pg.Server) ([]Problem, error) {
	if _, local := v.host().(pg.Local); !local {
		return nil, nil
	}
	secrets := map[string]string{}
	if f := v.set["auth_file"]; f != "" {
		// Without it the passwords are not known, and rules alone are judged.
		if text, err := (file{v.host(), v.Config}).read(ctx, f); err == nil {
			secrets = readUsers(text)
		}
	}
	var problems []Problem
	doors := map[string]*door{}
	for _, g := range b.guests(v, secrets) {
		d := doors[g.database]
		if d == nil {
			d = b.door(ctx, to, g.database, v.set["server_tls_sslmode"])
			doors[g.database] = d
			if d.err != nil {
				problems = append(problems, Problem{
					ID: PoolReach, On: v.on(), Object: g.name,
					Says: fmt.Sprintf("%s is not reached from its host: %v", to, d.err), State: pg.SQLState(d.err),
				})
			}
		}
		if d.err == nil || d.hba != nil {
			problems = append(problems, b.login(ctx, v, d, g)...)
		}
	}
	for _, db := range b.named() {
		// Where no user is known, at least the server answers.
		e, _, ok := v.file.find(db)
		if dbname := e.database(db); ok && doors[dbname] == nil {
			doors[dbname] = b.door(ctx, to, dbname, v.set["server_tls_sslmode"])
			if err := doors[dbname].err; err != nil {
				problems = append(problems, Problem{ID: PoolReach, On: v.on(), Object: db, State: pg.SQLState(err), Says: fmt.Sprintf("%s is not reached from its host: %v", to, err)})
			}
		}
	}
	return problems, nil
}

// door is one database of new as somebody on the pooler's host meets it.
type door struct {
	server  *pg.Server // seen through the database
	sslmode string
	addr    netip.Addr // of the pooler's host as the server sees it
	ssl     bool
	hba     *pg.HBA // nil: may not be read
	roles   map[string]role
	err     error
}

// role is what the catalogs say of a user.
type role struct {
	Name     string
	Login    bool // may log in, and may connect to the database
	Password string
}

// door looks at a database of the server. One that does not exist yet has
// rules all the same: they are read through the server's own database, and
// err says that it is missing.
func (b *PgBouncer) door(ctx context.Context, to *pg.Server, database, sslmode string) *door {
	d := &door{server: to.With(database), sslmode: sslmode, roles: map[string]role{}}
	d.err = d.look(ctx, d.server)
	if pg.SQLState(d.err) == noDatabase && d.look(ctx, to) != nil {
		d.hba = nil
	}
	return d
}

func (d *door) look(ctx context.Context, through *pg.Server) error {
	conn, err := through.ConnectAsClient(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var addr *netip.Addr
	var serverSSL bool
	if err := conn.QueryRow(ctx, `SELECT host(inet_client_addr())::inet, current_setting('ssl')::bool`).Scan(&addr, &serverSSL); err != nil {
		return err
	}
	if addr != nil {
		d.addr = *addr
		switch d.sslmode {
		case "", "disable", "allow":
		case "prefer":
			d.ssl = serverSSL
		default:
			d.ssl = true
		}
	}
	if d.hba, err = pg.ReadHBA(ctx, conn); err != nil {
		if pg.SQLState(err) != insufficientPrivilege {
			return err
		}
		d.hba = nil
	}
	// pg_authid is for superusers; without it passwords are not compared.
	for _, from := range []string{"pg_authid", "pg_roles"} {
		rows, err := conn.Query(ctx, `
			SELECT rolname, rolcanlogin AND coalesce(rolvaliduntil > now(), true)
			       AND pg_catalog.has_database_privilege(oid, current_database(), 'CONNECT'), coalesce(rolpassword, '')
			FROM pg_catalog.`+from)
		if err != nil {
			return err
		}
		roles, err := pgx.CollectRows(rows, pgx.RowToStructByPos[role])
		if pg.SQLState(err) == insufficientPrivilege && from == "pg_authid" {
			continue
		}
		if err != nil {
			return err
		}
		for _, r := range roles {
			d.roles[r.Name] = r
		}
		return nil
	}
	return nil
}

const (
	insufficientPrivilege = "42501"
	noDatabase            = "3D000"
	noObject              = "42704"
)

// login judges one login by the rules, the catalogs, and where the password is
// known by doing it.
func (b *PgBouncer) login(ctx context.Context, v view, d *door, g guest) []Problem {
	p := Problem{ID: PoolLogin, On: v.on(), Object: g.user}
	refuse := func(format string, args ...any) []Problem {
		p.Says = fmt.Sprintf("%s for database %s of %s: ", d.server.Name, g.database, g.name) + fmt.Sprintf(format, args...)
		return []Problem{p}
	}
	method := ""
	r, known := d.roles[g.user]
	// A role that is to be made yet is a member of nothing so far.
	if d.hba != nil && (known || !d.hba.Groups()) {
		caller := pg.Caller{Database: g.database, User: g.user, Addr: d.addr, SSL: d.ssl}
		rule, ok, says := d.hba.Lets(caller)
		if !ok {
			// Only that server knows its own addresses: the login tells, where it can be tried.
			rule, ok, _ = d.hba.Widest().Lets(caller)
		}
		if !ok {
			p.ID, p.Fix, p.Acceptable = PoolHBA, "let that user in there, and reload it", g.idle
			return refuse("%s", says)
		}
		method = rule.Method
	}
	switch {
	case d.err != nil, !known && g.seen:
		return nil // the database is to be made yet; a user that was once seen may be gone
	case !known:
		p.State = noObject
		return refuse("there is no role %s", g.user)
	case !r.Login:
		p.Acceptable = g.idle
		return refuse("role %s may not log in, or not connect to that database", g.user)
	}
	hashed := strings.HasPrefix(g.secret, "SCRAM-SHA-256$") || strings.HasPrefix(g.secret, "md5") && len(g.secret) == 35
	if method == "trust" || g.secret != "" && !hashed {
		if err := b.enter(ctx, d, g); err != nil {
			return refuse("%v", err)
		}
		return nil
	}
	if hashed && !strings.HasPrefix(r.Password, g.secret) && r.Password != "" {
		p.Acceptable = true
		p.Fix = "let both have the same password hash"
		return refuse("the password of %s that the pooler has is not the one of that server", g.user)
	}
	return nil
}

// enter logs in as the pooler would, and asks auth_query where that is his part.
func (b *PgBouncer) enter(ctx context.Context, d *door, g guest) error {
	conn, err := d.server.ConnectAs(ctx, pg.Login{User: g.user, Password: g.secret, SSLMode: d.sslmode})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if g.lookup == "" {
		return nil
	}
	for _, user := range b.AppUsers {
		rows, err := conn.Query(ctx, g.lookup, user)
		if err != nil {
			return fmt.Errorf("auth_query: %w", err)
		}
		n := 0
		for rows.Next() {
			n++
		}
		if rows.Close(); rows.Err() != nil {
			return fmt.Errorf("auth_query: %w", rows.Err())
		}
		if n == 0 {
			return errors.New("auth_query knows no user " + user)
		}
	}
	return nil
}

// readUsers reads an auth_file: lines of "user" "secret".
func readUsers(text []byte) map[string]string {
	users := map[string]string{}
	for line := range strings.Lines(string(text)) {
		var words []string
		for rest := strings.TrimSpace(line); strings.HasPrefix(rest, `"`) && len(words) < 2; {
			var b strings.Builder
			at := 1
			for ; at < len(rest); at++ {
				if rest[at] == '"' {
					if at+1 >= len(rest) || rest[at+1] != '"' {
						break
					}
					at++
				}
				b.WriteByte(rest[at])
			}
			words = append(words, b.String())
			rest = strings.TrimSpace(rest[min(at+1, len(rest)):])
		}
		if len(words) == 2 {
			users[words[0]] = words[1]
		}
	}
	return users
}
