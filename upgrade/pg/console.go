package pg

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// consoleDatabase is what every PgBouncer calls its admin console.
const consoleDatabase = "pgbouncer"

// Console opens the admin console of the PgBouncer that s is. It sends nothing
// but application_name at startup, because PgBouncer refuses settings that it
// does not know, and speaks only the simple protocol: use PgConn.Exec.
func (s *Server) Console(ctx context.Context) (*pgconn.PgConn, error) {
	conf := s.conf.Config.Copy()
	conf.Database = consoleDatabase
	conf.RuntimeParams = map[string]string{"application_name": s.app()}
	conn, err := pgconn.ConnectConfig(ctx, conf)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, &Error{Doing: "connect to the admin console", On: "pgbouncer " + s.Address(), Err: err}
	}
	return conn, nil
}

// Address is where clients reach the server, host:port; for a socket it is the
// folder and the port.
func (s *Server) Address() string {
	return net.JoinHostPort(s.conf.Host, strconv.Itoa(int(s.conf.Port)))
}

// Login is how somebody else's program enters a server.
type Login struct {
	User     string
	Password string // "" gives none, also where pgpass has one
	SSLMode  string // as libpq's sslmode; "" is prefer
}

// ConnectAs opens a session as a pooler or an application would: with that
// login at the server's address, nothing pinned and no setting sent. What the
// server says to a refused login is in the error: 28000 is pg_hba.conf, 28P01
// the password.
func (s *Server) ConnectAs(ctx context.Context, l Login) (*pgx.Conn, error) {
	mode := l.SSLMode
	if mode == "" {
		mode = "prefer"
	}
	host, port := s.Host()
	conf, err := pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=%s sslmode=%s passfile=/dev/null",
		quoteValue(host), port, quoteValue(l.User), quoteValue(s.Database()), quoteValue(mode)))
	if err != nil {
		return nil, fmt.Errorf("log in to %s as %s: %w", s.Name, l.User, err)
	}
	// PGPASSWORD and PGOPTIONS are the tool's, not the application's.
	conf.Password = l.Password
	conf.RuntimeParams = map[string]string{"application_name": s.app()}
	conf.ConnectTimeout = connectTimeout
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		// No hint: what helps the tool in is not what helps somebody else in.
		return nil, &Error{Doing: "log in as " + l.User, On: fmt.Sprintf("%s, database %s", s, s.Database()), Err: err}
	}
	return conn, nil
}
