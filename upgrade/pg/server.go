// Package pg is one PostgreSQL server seen by the tool: the only holder of a
// password, of the two dialects of conninfo (pgx's and libpq's), of the
// settings that every session pins, of client programs and of hosts.
//
// It knows nothing of upgrades. Identifiers and literals are quoted here
// (Ident, Literal) and nowhere else.
package pg

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// LSN is a position in the WAL. It scans pg_lsn columns; *LSN takes NULL.
type LSN = pglogrepl.LSN

// Server is one PostgreSQL server, reached through one database of it.
// It is a value: With and As make others of it.
type Server struct {
	// Name is how people call it: old, a cluster's name, a standby's name.
	Name string
	// Bin is the folder of client programs for this server's major; "" looks
	// for it by the server's version (Program).
	Bin string
	// App is the application_name of every session; "" is "crossfade".
	App string

	params []param // libpq's, in the order given, without password
	secret string  // password given in the conninfo itself
	own    string  // password of the service file: of the tool's own sessions and programs
	conf   *pgx.ConnConfig
}

// Parse reads conninfo, a libpq keyword/value string or URI. Nothing is
// connected. Keys that only libpq knows are kept for other servers' libpq and
// for client programs; keys that nobody knows are an error. A service is replaced
// by what it stands for on this machine.
func Parse(name, conninfo, bin string) (*Server, error) {
	params, err := parseConninfo(conninfo)
	if err != nil {
		return nil, fmt.Errorf("conninfo of %s: %w", name, err)
	}
	s := &Server{Name: name, Bin: bin}
	if params, s.own, err = withService(params); err != nil {
		return nil, fmt.Errorf("conninfo of %s: %w", name, err)
	}
	for _, p := range params {
		if p.key == "password" {
			s.secret = p.value
			continue
		}
		s.params = append(s.params, p)
	}
	if err := s.configure(); err != nil {
		return nil, err
	}
	return s, nil
}

// configure makes pgx's form of the conninfo.
func (s *Server) configure() error {
	conf, err := pgx.ParseConfig(s.dialect(func(p param) bool { return !libpqOnly[p.key] }))
	if err != nil {
		return fmt.Errorf("conninfo of %s: %w", s.Name, err)
	}
	if secret := s.secret + s.own; secret != "" { // never both
		conf.Password = secret
	}
	if conf.ConnectTimeout == 0 {
		conf.ConnectTimeout = connectTimeout
	}
	conf.DialFunc = beat.dialer()
	s.conf = conf
	return nil
}

// connectTimeout limits reaching a server where its conninfo gives no limit.
const connectTimeout = 5 * time.Second

// With returns the same server seen through another database.
func (s *Server) With(database string) *Server {
	c := *s
	c.params = setParam(s.params, "dbname", database)
	c.conf = s.conf.Copy()
	c.conf.Database = database
	return &c
}

// As returns the same server with another application_name.
func (s *Server) As(app string) *Server {
	c := *s
	c.App = app
	return &c
}

// Login returns the same server seen by another role, which shows a password.
func (s *Server) Login(user, password string) *Server {
	c := *s
	c.params = setParam(s.params, "user", user)
	c.secret, c.own = password, ""
	c.conf = s.conf.Copy()
	c.conf.User, c.conf.Password = user, password
	return &c
}

// At returns the server at another address, reached in the same way; port 0
// keeps the port.
func (s *Server) At(host string, port uint16) (*Server, error) {
	c := *s
	c.params = setParam(s.params, "host", host)
	if port != 0 {
		c.params = setParam(c.params, "port", strconv.Itoa(int(port)))
	}
	// What names one of several hosts, or chooses among them, means nothing here.
	c.params = slices.DeleteFunc(c.params, func(p param) bool { return p.key == "hostaddr" || p.key == "target_session_attrs" })
	if err := c.configure(); err != nil {
		return nil, err
	}
	return &c, nil
}

// Each is one server for each host that the conninfo names.
func (s *Server) Each() ([]*Server, error) {
	type place struct {
		host string
		port uint16
	}
	places := []place{{s.conf.Host, s.conf.Port}}
	for _, f := range s.conf.Fallbacks {
		// sslmode=prefer tries each host twice.
		if p := (place{f.Host, f.Port}); !slices.Contains(places, p) {
			places = append(places, p)
		}
	}
	var all []*Server
	for _, p := range places {
		one, err := s.At(p.host, p.port)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// Given is the conninfo without a password, as keyword/value pairs: what a
// person would write, without the tool's own additions.
func (s *Server) Given() string { return s.dialect(nil) }

// Database is the database that the server is seen through.
func (s *Server) Database() string {
	if s.conf.Database != "" {
		return s.conf.Database
	}
	return s.conf.User
}

// User is the role that sessions log in as.
func (s *Server) User() string { return s.conf.User }

// Host is the first host (or socket folder) and the port of the server.
func (s *Server) Host() (string, uint16) { return s.conf.Host, s.conf.Port }

// String names the server and where it is, never its password.
func (s *Server) String() string {
	return fmt.Sprintf("%s (%s port %d)", s.Name, s.conf.Host, s.conf.Port)
}

func (s *Server) app() string {
	if s.App != "" {
		return s.App
	}
	return "crossfade"
}

// Identity is what tells one server from another, and its state now.
type Identity struct {
	Version    int    // server_version_num
	SystemID   string // of the data directory: equal on a primary and its standbys
	Timeline   int32
	InRecovery bool
	Superuser  bool // the tool's own role
	Started    time.Time
}

// Major is the major version: 15 of 150018.
func (id Identity) Major() int { return id.Version / 10000 }

// Identify reads the identity of the server that conn is connected to.
// SystemID and Timeline are zero where pg_control_* is not permitted.
func Identify(ctx context.Context, conn *pgx.Conn) (Identity, error) {
	var id Identity
	err := conn.QueryRow(ctx, `
		SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), pg_postmaster_start_time(),
		       current_setting('is_superuser') = 'on',
		       s.system_identifier::text, c.timeline_id
		FROM pg_control_system() s, pg_control_checkpoint() c`).
		Scan(&id.Version, &id.InRecovery, &id.Started, &id.Superuser, &id.SystemID, &id.Timeline)
	if err != nil {
		return id, fmt.Errorf("read the server's identity: %w", err)
	}
	if !id.InRecovery {
		// pg_control_checkpoint() tells the last checkpoint's timeline; a
		// primary just promoted is ahead of it.
		var wal string
		if err := conn.QueryRow(ctx, `SELECT pg_walfile_name(pg_current_wal_insert_lsn())`).Scan(&wal); err != nil {
			return id, fmt.Errorf("read the server's timeline: %w", err)
		}
		t, err := strconv.ParseUint(wal[:8], 16, 32)
		if err != nil {
			return id, fmt.Errorf("read the server's timeline from %q: %w", wal, err)
		}
		id.Timeline = int32(t)
	}
	return id, nil
}

// SQLState returns the SQLSTATE of err, or "" where PostgreSQL did not answer.
func SQLState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// Missing reports whether a statement failed because the table that it names, the
// table's schema, or the database is not there.
func Missing(err error) bool {
	switch SQLState(err) {
	case "42P01", "3F000", "3D000":
		return true
	}
	return false
}

// Said is what PostgreSQL said, with its SQLSTATE; where it did not answer, err
// as it is.
func Said(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Sprintf("%s: %s (SQLSTATE %s)", e.Severity, e.Message, e.Code)
	}
	return err.Error()
}

// Error is what a person reads of a failed act on a server: what was being
// done, where, what PostgreSQL said, and what to do next.
type Error struct {
	Doing  string // "create subscription cf_x_shop_main"
	On     string // server
	Object string // "" where there is none
	Hint   string // what to do next; "" where there is nothing to add
	Err    error
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Doing)
	if e.On != "" {
		b.WriteString(" on " + e.On)
	}
	b.WriteString(": " + e.Err.Error())
	if e.Hint != "" {
		b.WriteString(" (" + e.Hint + ")")
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Poll calls f at once and then every interval until it reports true or fails,
// or ctx ends: then the error says what was waited for and why it ended.
func Poll(ctx context.Context, every time.Duration, what string, f func(context.Context) (bool, error)) error {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		ok, err := f(ctx)
		if ok && err == nil {
			return nil
		}
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("waiting for %s: %w (%w)", what, context.Cause(ctx), err)
			}
			return err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		}
	}
}
