package pg

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/upgrade/flow"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pinned are settings that every major from 11 on knows. They go into the
// startup packet, where they win over ALTER ROLE and ALTER DATABASE … SET.
//
// synchronous_commit is local: flushed here, waiting for no standby. off loses
// a close in a crash, on hangs on a lost standby and leaves a zombie COMMIT.
// The output formats make text equal on both sides of a comparison.
var pinned = map[string]string{
	"search_path":                         "pg_catalog",
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0",
	"synchronous_commit":                  "local",
	"default_transaction_read_only":       "off",
	"default_transaction_isolation":       "read committed",
	"default_transaction_deferrable":      "off",
	"row_security":                        "off",
	"client_encoding":                     "UTF8",
	"standard_conforming_strings":         "on",
	"quote_all_identifiers":               "off",
	"extra_float_digits":                  "3",
	"DateStyle":                           "ISO, MDY",
	"IntervalStyle":                       "postgres",
	"bytea_output":                        "hex",
	"TimeZone":                            "UTC",
	"xmloption":                           "content",
	"array_nulls":                         "on",
	"lc_monetary":                         "C",
	"backslash_quote":                     "safe_encoding",
	// Catalog queries look costly to the planner; compiling them takes longer
	// than running them.
	"jit": "off",
}

// pinLater is what pins the settings that some majors or roles may not send at
// startup: those that the server does not know, or that need a superuser, are left out.
// session_replication_role=replica keeps a DDL-logging event trigger or a
// row trigger from writing after the fence; event_triggers=off (17+) too.
func pinLater(conn *pgx.Conn) string {
	if conn.PgConn().ParameterStatus("is_superuser") != "on" {
		return pinPermitted + maySet(conn)
	}
	// To ask pg_settings takes longer than all else that opens a session.
	settings := "set_config('session_replication_role', 'replica', false)"
	if Major(conn) >= 14 {
		settings += ", set_config('idle_session_timeout', '0', false)"
	}
	if Major(conn) >= 17 {
		settings += ", set_config('transaction_timeout', '0', false), set_config('event_triggers', 'off', false)"
	}
	return "SELECT " + settings
}

// pinPermitted pins what the role may set, where maySet follows: from 15 on that can
// be granted.
const pinPermitted = `
	SELECT set_config(v.name, v.value, false)
	FROM (VALUES ('transaction_timeout', '0'), ('idle_session_timeout', '0'),
	             ('session_replication_role', 'replica'), ('event_triggers', 'off')) v(name, value)
	JOIN pg_settings s ON s.name = v.name
	WHERE `

// Connect opens a pinned session: search_path pg_catalog, every timeout off,
// synchronous_commit local, session_replication_role replica where permitted.
func (s *Server) Connect(ctx context.Context) (*pgx.Conn, error) {
	return s.connect(ctx, nil, false)
}

// ConnectWith opens a pinned session with some settings of its own, sent at
// startup (statement_timeout of a barrier, maintenance_work_mem of a load).
func (s *Server) ConnectWith(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	return s.connect(ctx, settings, false)
}

// ConnectCopying is ConnectWith for COPY … TO STDOUT: however long a row is, it
// takes no more memory than 64 kB at a time. With channel_binding=require, which
// needs the connection as it is, a row is held in memory as a whole.
func (s *Server) ConnectCopying(ctx context.Context, settings map[string]string) (*pgx.Conn, error) {
	return s.connect(ctx, settings, true)
}

func (s *Server) connect(ctx context.Context, settings map[string]string, copying bool) (*pgx.Conn, error) {
	conf := s.conf.Copy()
	if copying && conf.ChannelBinding != "require" {
		conf.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) { return framed(conn), nil }
	}
	maps.Copy(conf.RuntimeParams, pinned)
	conf.RuntimeParams["application_name"] = s.app()
	maps.Copy(conf.RuntimeParams, settings)
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, s.failed(ctx, "connect", err)
	}
	later := pinLater(conn)
	if conn.PgConn().ParameterStatus("server_encoding") == "SQL_ASCII" {
		// Such a database is not converted: its bytes need not be UTF-8, in names
		// and comments neither. From here on this session may not be asked with
		// pgx.QueryExecModeSimpleProtocol, but with Simple.
		later = "SET client_encoding = SQL_ASCII; " + later
	}
	if err := Exec(ctx, conn, later); err != nil {
		return nil, s.failed(ctx, "pin the session's settings", joinClose(err, conn.Close(ctx)))
	}
	return conn, nil
}

// ConnectAsClient opens a session as a program of somebody else would: nothing is
// pinned but application_name and, once it is let in, search_path (pg_catalog): the
// owner of the database can give it another one, in which functions of their own
// stand before those of pg_catalog. It is for proving that a client is let in, or
// that its write is refused.
func (s *Server) ConnectAsClient(ctx context.Context) (*pgx.Conn, error) {
	conf := s.conf.Copy()
	conf.RuntimeParams["application_name"] = s.app()
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, s.failed(ctx, "connect", err)
	}
	if err := Exec(ctx, conn, "SET search_path = pg_catalog"); err != nil {
		return nil, s.failed(ctx, "pin the session's search_path", joinClose(err, conn.Close(ctx)))
	}
	return conn, nil
}

// Replication opens a replication connection to the server's database, with
// every timeout off: an exporting walsender is "idle in transaction" and dies
// of idle_in_transaction_session_timeout or, from 17 on, transaction_timeout.
func (s *Server) Replication(ctx context.Context, version int) (*pgconn.PgConn, error) {
	conf := s.conf.Config.Copy()
	conf.RuntimeParams["replication"] = "database"
	conf.RuntimeParams["application_name"] = s.app()
	conf.RuntimeParams["options"] = strings.TrimSpace(conf.RuntimeParams["options"] + " " + TimeoutsOff(version))
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, s.failed(ctx, "open a replication connection", err)
	}
	return conn, nil
}

// TimeoutsOff is the options= text that turns every timeout of a session off
// on a server of the given server_version_num.
func TimeoutsOff(version int) string {
	names := []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"}
	if version >= 140000 {
		names = append(names, "idle_session_timeout")
	}
	if version >= 170000 {
		names = append(names, "transaction_timeout")
	}
	var b strings.Builder
	for _, n := range names {
		b.WriteString("-c " + n + "=0 ")
	}
	return strings.TrimSpace(b.String())
}

// failed wraps an error of reaching or talking to the server.
func (s *Server) failed(ctx context.Context, doing string, err error) error {
	e := &Error{Doing: doing, On: fmt.Sprintf("%s, database %s", s, s.Database()), Err: err}
	if ctx.Err() != nil {
		e.Err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	switch SQLState(err) {
	case "28P01":
		e.Hint = "put the password into pgpass, a service file or PGPASSWORD"
	case "28000":
		e.Hint = "allow this user, database and address in that server's pg_hba.conf"
	case "53300":
		e.Hint = "raise max_connections there, or end some sessions"
	}
	return e
}

func joinClose(err, closing error) error {
	if closing == nil {
		return err
	}
	return fmt.Errorf("%w (and closing the connection: %w)", err, closing)
}

// Exec sends sql in the simple protocol, where several statements are one
// transaction unless they say otherwise.
func Exec(ctx context.Context, conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// Simple sends sql in the simple protocol, as Exec, and calls each for every row,
// which is scanned into scan. It is for what may be several statements, and for
// sessions that should not hold a snapshot between messages.
func Simple(ctx context.Context, conn *pgx.Conn, sql string, scan []any, each func() error) error {
	results := conn.PgConn().Exec(ctx, sql)
	var err error
	for results.NextResult() {
		if _, rerr := pgx.ForEachRow(pgx.RowsFromResultReader(conn.TypeMap(), results.ResultReader()), scan, each); err == nil {
			err = rerr
		}
	}
	if cerr := results.Close(); err == nil {
		err = cerr
	}
	return err
}

// leaveTime limits saying goodbye to a server that may be gone.
const leaveTime = 5 * time.Second

// Leave ends a session in which nothing is open that matters, so that there is no
// error to hand on. It waits until the server was told, also where a cancelled
// context cut a statement off, whose end pgx sees to behind the caller's back. Nil is
// no session.
func Leave(conn *pgx.Conn) {
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	_ = conn.Close(ctx)
	select {
	case <-conn.PgConn().CleanupDone():
	case <-ctx.Done():
	}
}

// Sessions keeps pinned sessions open, one for each server and database, so
// that a step does not pay for connecting. Safe for concurrent use; a session
// is used by one caller at a time.
type Sessions struct {
	mu   sync.Mutex
	open map[string]*slot
}

type slot struct {
	mu   sync.Mutex
	conn *pgx.Conn
}

// Do runs f in the kept session of server s, opening it where there is none or
// where the last one died.
func (k *Sessions) Do(ctx context.Context, s *Server, f func(*pgx.Conn) error) error {
	key := s.String() + "\x00" + s.Database()
	k.mu.Lock()
	if k.open == nil {
		k.open = map[string]*slot{}
	}
	c, ok := k.open[key]
	if !ok {
		c = &slot{}
		k.open[key] = c
	}
	k.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil || c.conn.IsClosed() {
		conn, err := s.Connect(ctx)
		if err != nil {
			return err
		}
		c.conn = conn
	}
	return f(c.conn)
}

// Close closes every kept session. Sessions in use are waited for.
func (k *Sessions) Close(ctx context.Context) error {
	k.mu.Lock()
	slots := slices.Collect(maps.Values(k.open))
	k.open = nil
	k.mu.Unlock()
	var first error
	for _, c := range slots {
		c.mu.Lock()
		if c.conn != nil {
			if err := c.conn.Close(ctx); err != nil && first == nil {
				first = err
			}
		}
		c.mu.Unlock()
	}
	return first
}

// Fleet executes effects: SQL on the server that Effect.On names, programs on
// this machine. It is the ordinary executor of flow.Exec.
type Fleet struct {
	Servers  map[string]*Server // by Effect.On
	Sessions *Sessions
}

// Do executes one effect.
func (f Fleet) Do(ctx context.Context, e flow.Effect) error {
	s, ok := f.Servers[e.On]
	if !ok {
		return fmt.Errorf("no server is called %q", e.On)
	}
	if e.Database != "" {
		s = s.With(e.Database)
	}
	return f.Sessions.Do(ctx, s, func(conn *pgx.Conn) error {
		if err := ExecEffect(ctx, conn, e); err != nil {
			return &Error{Doing: Brief(e.SQL), On: fmt.Sprintf("%s, database %s", s, s.Database()), Err: err}
		}
		return nil
	})
}

// Brief is the beginning of a statement, for a message.
func Brief(sql string) string {
	sql = strings.Join(strings.Fields(sql), " ")
	if r := []rune(sql); len(r) > 120 {
		return string(r[:117]) + "…"
	}
	return sql
}
