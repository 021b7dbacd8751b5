package check

import (
	"context"
	"embed"
	"fmt"
	"slices"
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
	return pg.Spelled(b.String(), version)
}

// rows reads a query whose columns are the fields of T in their order.
func rows[T any](ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]T, error) {
	r, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowToStructByPos[T])
}

// part is one thing that is read of a server.
type part struct {
	what    string
	serious bool // checks that may block are blind without it
	read    func() error
	grants  []string // Incomplete.Grants, where an ordinary role may not read it
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
	// Hardly a check can judge without them.
	if facts.Settings, err = readSettings(ctx, conn, facts.Version); err != nil {
		facts.Err = fmt.Errorf("read its settings: %w", err)
		return facts
	}
	for _, p := range slices.Concat(facts.isParts(ctx, conn), facts.hasParts(ctx, conn), facts.usedParts(ctx, conn)) {
		if err := p.read(); err != nil {
			if ctx.Err() != nil || conn.IsClosed() {
				facts.Err = err
				return facts
			}
			g.lacks(Incomplete{On: side, What: p.what, Err: err, Serious: p.serious, Grants: p.grants})
		}
	}
	return facts
}

var grantFileSettings = []string{"GRANT SELECT ON pg_catalog.pg_file_settings TO $role;", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_all_file_settings() TO $role;"}

// isParts are how the server is set up.
func (s *Server) isParts(ctx context.Context, conn *pgx.Conn) []part {
	return []part{
		{"the session's process", false, func() error { return s.readPooled(ctx, conn) }, nil},
		{"where the session comes from", false, func() error { return s.readSelf(ctx, conn) }, nil},
		{"the clock", false, func() error { return s.readClock(ctx, conn) }, nil},
		{"errors of the configuration files", false, func() (err error) { s.ConfigErrors, err = readConfigErrors(ctx, conn); return err }, grantFileSettings},
		{"roles", true, func() error { return s.readRoles(ctx, conn) }, nil},
		{"the next transaction id", false, func() error {
			var next int64
			err := conn.QueryRow(ctx, `SELECT txid_snapshot_xmax(txid_current_snapshot())`).Scan(&next)
			s.NextXID = uint64(next)
			return err
		}, nil},
		{"passwords of roles", false, func() error { return s.readPasswords(ctx, conn) }, []string{"GRANT SELECT ON pg_catalog.pg_authid TO $role;"}},
		{"what it logs", false, func() (err error) { s.Overheard, err = pg.Overheard(ctx, conn); return err }, nil},
		{"pg_hba.conf", false, func() (err error) { s.HBA, err = pg.ReadHBA(ctx, conn); return err }, []string{
			"GRANT SELECT ON pg_catalog.pg_hba_file_rules TO $role;", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_hba_file_rules() TO $role;",
		}},
		{"settings of roles and databases", true, func() error { return s.readRoleSettings(ctx, conn) }, nil},
		{"privileges on settings", false, func() error { return s.readSetRole(ctx, conn) }, nil},
		{"the files of its configuration", false, func() (err error) {
			s.ConfigFiles, err = column[string](ctx, conn, `SELECT DISTINCT sourcefile FROM pg_file_settings WHERE sourcefile IS NOT NULL ORDER BY 1`)
			return err
		}, grantFileSettings},
		{"the files in its data directory", false, func() (err error) {
			s.DataFiles, err = column[string](ctx, conn, `SELECT f FROM pg_ls_dir('.') f ORDER BY 1`)
			return err
		}, []string{"GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text) TO $role;"}},
	}
}

// hasParts are what the server brings and holds.
func (s *Server) hasParts(ctx context.Context, conn *pgx.Conn) []part {
	parts := []part{
		{"databases", true, func() (err error) {
			s.Databases, err = rows[Catalog](ctx, conn, query("databases", s.Version))
			return err
		}, nil},
		{"tablespaces", false, func() (err error) {
			s.Tablespaces, err = rows[Tablespace](ctx, conn, `SELECT spcname::text, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1`)
			return err
		}, nil},
		{"functions and operators of its own", false, func() error { return s.readBuiltins(ctx, conn) }, nil},
		{"collations", false, func() (err error) {
			s.Collations, err = rows[Collation](ctx, conn, `SELECT collname::text, collprovider::text, coalesce(collcollate::text, '') FROM pg_collation WHERE collnamespace = 'pg_catalog'::regnamespace`)
			return err
		}, nil},
	}
	if s.Side != OnNew {
		return parts
	}
	return append(parts, []part{
		{"available extensions", true, func() error { return s.readExtensions(ctx, conn) }, []string{
			"GRANT EXECUTE ON FUNCTION pg_catalog.pg_available_extensions(), pg_catalog.pg_available_extension_versions() TO $role;",
		}},
		{"the columns of its own relations", false, func() error {
			names, err := column[string](ctx, conn, query("columns", s.Version))
			if err == nil {
				s.Columns = set(names)
			}
			return err
		}, nil},
		{"its libraries", false, func() (err error) {
			s.Libraries, err = column[string](ctx, conn, `SELECT regexp_replace(f, '\.(so|dylib|dll)$', '') FROM pg_ls_dir((SELECT setting FROM pg_config WHERE name = 'PKGLIBDIR')) f ORDER BY 1`)
			return err
		}, []string{
			"GRANT SELECT ON pg_catalog.pg_config TO $role;", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_config(), pg_catalog.pg_ls_dir(text) TO $role;", "GRANT pg_read_server_files TO $role;",
		}},
	}...)
}

// usedParts are who uses the server now.
func (s *Server) usedParts(ctx context.Context, conn *pgx.Conn) []part {
	return []part{
		{"replication slots", true, func() (err error) { s.Slots, err = rows[Slot](ctx, conn, query("slots", s.Version)); return err }, nil},
		{"walsenders", true, func() (err error) { s.Senders, err = rows[Sender](ctx, conn, query("senders", s.Version)); return err }, nil},
		{"subscriptions", true, func() (err error) {
			s.Subscriptions, err = rows[Subscription](ctx, conn, query("subscriptions", s.Version))
			return err
		}, nil},
		{"replication origins", false, func() (err error) { s.Origins, err = rows[Origin](ctx, conn, readOrigins); return err }, []string{
			"GRANT SELECT ON pg_catalog.pg_replication_origin_status TO $role;", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_show_replication_origin_status() TO $role;",
		}},
		{"sessions", false, func() error { return s.readBackends(ctx, conn) }, nil},
		{"prepared transactions", true, func() error { return s.readPrepared(ctx, conn) }, nil},
		{"open transactions", false, func() error { return s.readTransactions(ctx, conn) }, nil},
		{"locks", false, func() error { return s.readLocks(ctx, conn) }, nil},
		{"advisory locks", false, func() (err error) {
			s.Advisory, err = rows[Advisory](ctx, conn, query("advisory", s.Version))
			return err
		}, nil},
	}
}

// column reads a query of one column.
func column[T any](ctx context.Context, conn *pgx.Conn, sql string, args ...any) ([]T, error) {
	r, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(r, pgx.RowTo[T])
}

func set(names []string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// readPooled compares the process that answers with the one that the
// connection was given: a pooler gives one of its own.
func (s *Server) readPooled(ctx context.Context, conn *pgx.Conn) error {
	var pid uint32
	err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&pid)
	s.Pooled = err == nil && pid != conn.PgConn().PID()
	return err
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
	_, err = pgx.ForEachRow(r, []any{&name, &s.Value, &s.Unit, &s.Source, &s.Boot, &s.Context, &s.Type, &s.Min, &s.Max, &s.Enum}, func() error {
		settings[name] = s
		s.Enum = nil
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

// readConfigErrors reads the lines of the configuration files that the server could
// not apply. What only waits for a restart is none: the server says the same of a
// line that its command line overrides, and marks the setting once it was asked.
func readConfigErrors(ctx context.Context, conn *pgx.Conn) ([]ConfigError, error) {
	all, err := rows[ConfigError](ctx, conn, `SELECT coalesce(sourcefile, ''), coalesce(sourceline, 0), coalesce(name, ''), error FROM pg_file_settings WHERE error IS NOT NULL ORDER BY 1, 2`)
	if err != nil || len(all) == 0 {
		return all, err
	}
	waiting, err := column[string](ctx, conn, `SELECT lower(name) FROM pg_settings WHERE pending_restart`)
	return slices.DeleteFunc(all, func(e ConfigError) bool { return slices.Contains(waiting, strings.ToLower(e.Name)) }), err
}

func (s *Server) readRoles(ctx context.Context, conn *pgx.Conn) error {
	if err := conn.QueryRow(ctx, "SELECT current_user::text").Scan(&s.Acts); err != nil {
		return err
	}
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
	const may = `
		SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END
		FROM pg_parameter_acl p, aclexplode(p.paracl) a
		WHERE p.parname = 'session_replication_role' AND a.privilege_type = 'SET' AND a.grantee <> 10 ORDER BY 1`
	var err error
	s.SetRole, err = column[string](ctx, conn, may)
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
	r, err := conn.Query(ctx, `SELECT gid, owner::text, database::text, extract(epoch FROM clock_timestamp() - prepared)::float8, age(transaction)::bigint FROM pg_prepared_xacts ORDER BY prepared LIMIT 200`)
	if err != nil {
		return err
	}
	s.Prepared, err = pgx.CollectRows(r, func(row pgx.CollectableRow) (p Prepared, err error) {
		var age float64
		err = row.Scan(&p.GID, &p.Owner, &p.Database, &age, &p.XminAge)
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
		err = row.Scan(&t.PID, &t.Role, &t.Database, &t.Application, &t.State, &t.Query, &age, &t.Writes, &t.XminAge)
		t.Age = time.Duration(age * float64(time.Second))
		return t, err
	})
	return err
}

func (s *Server) readLocks(ctx context.Context, conn *pgx.Conn) error {
	r, err := conn.Query(ctx, query("locks", s.Version))
	if err != nil {
		return err
	}
	s.Locks, err = pgx.CollectRows(r, func(row pgx.CollectableRow) (l Lock, err error) {
		var age float64
		err = row.Scan(&l.PID, &l.Database, &l.Relation, &l.Mode, &l.Role, &l.Application, &l.Backend, &l.Query, &age)
		l.Age = time.Duration(age * float64(time.Second))
		return l, err
	})
	return err
}

// readBuiltins reads the functions and operators of pg_catalog.
func (s *Server) readBuiltins(ctx context.Context, conn *pgx.Conn) error {
	r, err := conn.Query(ctx, query("builtins", s.Version))
	if err != nil {
		return err
	}
	functions, operators := map[uint32]Function{}, map[uint32]string{}
	var kind string
	var oid uint32
	var f Function
	_, err = pgx.ForEachRow(r, []any{&kind, &oid, &f.Name, &f.Args, &f.Volatility}, func() error {
		if kind == "function" {
			functions[oid] = f
		} else {
			operators[oid] = f.Name + " " + f.Args
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.Functions, s.Operators = functions, operators
	return nil
}

// readExtensions reads what can be created on the server.
func (s *Server) readExtensions(ctx context.Context, conn *pgx.Conn) error {
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
