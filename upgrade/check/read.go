package check

import (
	"context"
	"embed"
	"strings"
	"text/template"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

//go:embed sql/*.sql
var sqlFiles embed.FS

var queries = template.Must(template.New("").Funcs(template.FuncMap{
	"since": func(int) bool { return false }, // replaced for each version
}).ParseFS(sqlFiles, "sql/*.sql"))

// query is the catalog query of sql/<name>.sql for a server of version
// (server_version_num). In the files {{if since 14}} is what 14 and later know.
func query(name string, version int) string {
	t := template.Must(queries.Clone()).Funcs(template.FuncMap{
		"since": func(major int) bool { return version >= major*10000 },
	})
	var b strings.Builder
	if err := t.ExecuteTemplate(&b, name+".sql", nil); err != nil {
		panic("check: " + err.Error()) // the files are part of the program
	}
	return b.String()
}

// rows reads a query whose columns are the fields of T in their order.
func rows[T any](ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]T, error) {
	r, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowToStructByPos[T])
}

// readServer reads what a primary is and has, apart from its databases' contents.
func (g *gathering) readServer(ctx context.Context, side string, s *pg.Server) *Server {
	facts := &Server{Side: side, Name: s.String()}
	conn, err := session(ctx, s)
	if err != nil {
		facts.Err = err
		return facts
	}
	defer closing(conn)
	if facts.Identity, err = pg.Identify(ctx, conn); err != nil {
		facts.Err = err
		return facts
	}
	parts := []struct {
		what    string
		serious bool
		read    func() error
	}{
		{"the clock", false, func() error { return facts.readClock(ctx, conn) }},
		{"settings", true, func() (err error) { facts.Settings, err = readSettings(ctx, conn, facts.Version); return err }},
		{"errors of the configuration files", false, func() (err error) { facts.ConfigErrors, err = readConfigErrors(ctx, conn); return err }},
		{"roles", true, func() error { return facts.readRoles(ctx, conn) }},
		{"passwords of roles", false, func() error { return facts.readPasswords(ctx, conn) }},
		{"pg_hba.conf", false, func() (err error) { facts.HBA, err = pg.ReadHBA(ctx, conn); return err }},
		{"settings of roles and databases", true, func() error { return facts.readRoleSettings(ctx, conn) }},
		{"privileges on settings", false, func() error { return facts.readSetRole(ctx, conn) }},
		{"databases", true, func() (err error) {
			facts.Databases, err = rows[Catalog](ctx, conn, query("databases", facts.Version))
			return err
		}},
		{"tablespaces", false, func() (err error) {
			facts.Tablespaces, err = rows[Tablespace](ctx, conn, `SELECT spcname::text, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1`)
			return err
		}},
		{"replication slots", true, func() (err error) {
			facts.Slots, err = rows[Slot](ctx, conn, query("slots", facts.Version))
			return err
		}},
		{"walsenders", true, func() (err error) {
			facts.Senders, err = rows[Sender](ctx, conn, query("senders", facts.Version))
			return err
		}},
		{"subscriptions", true, func() (err error) {
			facts.Subscriptions, err = rows[Subscription](ctx, conn, query("subscriptions", facts.Version))
			return err
		}},
		{"replication origins", false, func() (err error) { facts.Origins, err = rows[Origin](ctx, conn, readOrigins); return err }},
		{"sessions", false, func() error { return facts.readBackends(ctx, conn) }},
		{"prepared transactions", true, func() error { return facts.readPrepared(ctx, conn) }},
		{"open transactions", false, func() error { return facts.readTransactions(ctx, conn) }},
		{"available extensions", true, func() error { return facts.readExtensions(ctx, conn) }},
		{"collations", false, func() (err error) {
			facts.Collations, err = rows[Collation](ctx, conn, `SELECT collname::text, collprovider::text, coalesce(collcollate::text, '') FROM pg_collation WHERE collnamespace = 'pg_catalog'::regnamespace`)
			return err
		}},
	}
	for _, p := range parts {
		if err := p.read(); err != nil {
			if ctx.Err() != nil || conn.IsClosed() {
				facts.Err = err
				return facts
			}
			g.missing(side, "", p.what, err, p.serious)
		}
	}
	return facts
}

func (s *Server) readClock(ctx context.Context, conn *pgx.Conn) error {
	var at time.Time
	before := time.Now()
	if err := conn.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&at); err != nil {
		return err
	}
	after := time.Now()
	s.Skew = at.Sub(before.Add(after.Sub(before) / 2))
	return nil
}

// readSettings reads pg_settings as a client's session has them: what this
// session has pinned is replaced by what the files or the program say.
func readSettings(ctx context.Context, conn *pgx.Conn, version int) (map[string]Setting, error) {
	r, err := conn.Query(ctx, query("settings", version))
	if err != nil {
		return nil, err
	}
	settings := map[string]Setting{}
	var name string
	var s Setting
	_, err = pgx.ForEachRow(r, []any{&name, &s.Value, &s.Unit, &s.Source, &s.Boot, &s.Context}, func() error {
		settings[name] = s
		return nil
	})
	if err != nil {
		return nil, err
	}
	files, err := readFileSettings(ctx, conn)
	if err != nil {
		return settings, err
	}
	for name, s := range settings {
		if s.Source != "client" && s.Source != "session" {
			continue
		}
		s.Value, s.Source = s.Boot, "default"
		if v, ok := files[name]; ok {
			s.Value, s.Source = v, "configuration file"
		}
		settings[name] = s
	}
	return settings, nil
}

// readFileSettings reads what the configuration files set; superusers may.
func readFileSettings(ctx context.Context, conn *pgx.Conn) (map[string]string, error) {
	r, err := conn.Query(ctx, `SELECT name, setting FROM pg_file_settings WHERE applied AND name IS NOT NULL`)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	var name, value string
	_, err = pgx.ForEachRow(r, []any{&name, &value}, func() error {
		files[name] = value
		return nil
	})
	if pg.SQLState(err) == insufficientPrivilege {
		return nil, nil // a superuser is asked for anyway
	}
	return files, err
}

const insufficientPrivilege = "42501"

func readConfigErrors(ctx context.Context, conn *pgx.Conn) ([]ConfigError, error) {
	return rows[ConfigError](ctx, conn, `SELECT coalesce(sourcefile, ''), coalesce(sourceline, 0), coalesce(name, ''), error FROM pg_file_settings WHERE error IS NOT NULL ORDER BY 1, 2`)
}

func (s *Server) readRoles(ctx context.Context, conn *pgx.Conn) error {
	r, err := conn.Query(ctx, query("roles", s.Version))
	if err != nil {
		return err
	}
	s.Roles, err = pgx.CollectRows(r, func(row pgx.CollectableRow) (x Role, err error) {
		var me bool
		err = row.Scan(&x.Name, &x.Super, &x.Replication, &x.BypassRLS, &x.CreateDB, &x.CreateRole, &x.Login, &x.ConnLimit, &x.MemberOf, &me)
		if me {
			s.Role = x
		}
		return x, err
	})
	return err
}

// readPasswords reads which kind of password each role has; superusers may.
func (s *Server) readPasswords(ctx context.Context, conn *pgx.Conn) error {
	r, err := conn.Query(ctx, `SELECT rolname::text, CASE WHEN rolpassword IS NULL THEN 'none' WHEN rolpassword LIKE 'md5%' THEN 'md5' ELSE 'scram' END FROM pg_authid`)
	if err != nil {
		return err
	}
	passwords := map[string]Password{}
	var name string
	var kind Password
	if _, err := pgx.ForEachRow(r, []any{&name, &kind}, func() error { passwords[name] = kind; return nil }); err != nil {
		return err
	}
	s.Passwords = passwords
	return nil
}

func (s *Server) readRoleSettings(ctx context.Context, conn *pgx.Conn) error {
	const settings = `
		SELECT coalesce(r.rolname::text, ''), coalesce(d.datname::text, ''), split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)
		FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) c
		ORDER BY 1, 2, 3`
	var err error
	s.RoleSettings, err = rows[RoleSetting](ctx, conn, settings)
	return err
}

// readSetRole reads who may set session_replication_role without being a
// superuser: from 15 on that can be granted.
func (s *Server) readSetRole(ctx context.Context, conn *pgx.Conn) error {
	if s.Version < 150000 {
		return nil
	}
	r, err := conn.Query(ctx, `
		SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
		FROM pg_parameter_acl p, aclexplode(p.paracl) a
		WHERE p.parname = 'session_replication_role' AND a.privilege_type = 'SET' AND a.grantee <> 10 ORDER BY 1`)
	if err != nil {
		return err
	}
	s.SetRole, err = pgx.CollectRows(r, pgx.RowTo[string])
	return err
}

// readOrigins reads what takes one of the places for origins, and the
// subscription that it belongs to.
const readOrigins = `
	SELECT coalesce(o.external_id, ''), coalesce(s.subname::text, '')
	FROM pg_replication_origin_status o LEFT JOIN pg_subscription s ON o.external_id = 'pg_' || s.oid ORDER BY 1`

func (s *Server) readBackends(ctx context.Context, conn *pgx.Conn) error {
	r, err := conn.Query(ctx, `SELECT coalesce(backend_type, ''), count(*) FROM pg_stat_activity WHERE application_name !~ '^crossfade( |$)' GROUP BY 1`)
	if err != nil {
		return err
	}
	s.Backends = map[string]int64{}
	var kind string
	var n int64
	if _, err := pgx.ForEachRow(r, []any{&kind, &n}, func() error { s.Backends[kind] = n; return nil }); err != nil {
		return err
	}
	s.Clients, err = rows[Client](ctx, conn, query("clients", s.Version))
	return err
}

func (s *Server) readPrepared(ctx context.Context, conn *pgx.Conn) error {
	r, err := conn.Query(ctx, `SELECT gid, owner::text, database::text, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts ORDER BY prepared LIMIT 200`)
	if err != nil {
		return err
	}
	s.Prepared, err = pgx.CollectRows(r, func(row pgx.CollectableRow) (p Prepared, err error) {
		var age float64
		err = row.Scan(&p.GID, &p.Owner, &p.Database, &age)
		p.Age = time.Duration(age * float64(time.Second))
		return p, err
	})
	return err
}

func (s *Server) readTransactions(ctx context.Context, conn *pgx.Conn) error {
	r, err := conn.Query(ctx, query("transactions", s.Version))
	if err != nil {
		return err
	}
	s.Transactions, err = pgx.CollectRows(r, func(row pgx.CollectableRow) (t Transaction, err error) {
		var age float64
		err = row.Scan(&t.PID, &t.Role, &t.Database, &t.Application, &t.State, &t.Query, &age, &t.Writes)
		t.Age = time.Duration(age * float64(time.Second))
		return t, err
	})
	return err
}

// readExtensions reads what can be created on the new server.
func (s *Server) readExtensions(ctx context.Context, conn *pgx.Conn) error {
	if s.Side != OnNew {
		return nil
	}
	r, err := conn.Query(ctx, `
		SELECT v.name::text, coalesce(e.default_version, ''), array_agg(v.version ORDER BY v.version)
		FROM pg_available_extension_versions v JOIN pg_available_extensions e USING (name) GROUP BY 1, 2`)
	if err != nil {
		return err
	}
	s.Extensions = map[string]Extension{}
	var name string
	var x Extension
	_, err = pgx.ForEachRow(r, []any{&name, &x.Default, &x.Versions}, func() error {
		s.Extensions[name] = x
		x.Versions = nil
		return nil
	})
	return err
}
