package traffic

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5/pgconn"
)

// Instance is one process of PgBouncer.
type Instance struct {
	// Admin is its console; the database of the conninfo does not matter.
	Admin *pg.Server
	// Config is the path of its configuration on Host.
	Config string
	// Host is where it runs; nil is this machine.
	Host pg.Host
}

// on is how effects and errors call the instance.
func (i Instance) on() string { return "pgbouncer " + i.Admin.Address() }

func (i Instance) host() pg.Host {
	if i.Host == nil {
		return pg.Local{}
	}
	return i.Host
}

// consoleLimit is how long a console may take for what its caller sets no limit:
// a PgBouncer that is frozen takes connections and never answers.
const consoleLimit = 5 * time.Second

// talk gives f a new connection to the console. Old ones are never used again:
// one whose PAUSE was given up is dead, while the pool stays paused.
func (i Instance) talk(ctx context.Context, f func(*pgconn.PgConn) error) error {
	if _, limited := ctx.Deadline(); !limited {
		bounded, cancel := context.WithTimeoutCause(ctx, consoleLimit, fmt.Errorf("the console did not answer within %s", consoleLimit))
		defer cancel()
		ctx = bounded
	}
	conn, err := i.Admin.Console(ctx)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		// What became of the command is known; how the console takes leave
		// changes nothing.
		_ = conn.Close(closing)
	}()
	return f(conn)
}

// tell gives one command to the console.
func (i Instance) tell(ctx context.Context, conn *pgconn.PgConn, command string) error {
	if _, err := conn.Exec(ctx, command).ReadAll(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return &pg.Error{Doing: command, On: i.on(), Err: err}
	}
	return nil
}

// show is the answer of a SHOW: a row a map, NULL left out.
func (i Instance) show(ctx context.Context, conn *pgconn.PgConn, what string) ([]map[string]string, error) {
	command := "SHOW " + what
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, &pg.Error{Doing: command, On: i.on(), Err: err}
	}
	var rows []map[string]string
	for _, r := range results {
		for _, values := range r.Rows {
			row := map[string]string{}
			for n, v := range values {
				if v != nil {
					row[r.FieldDescriptions[n].Name] = string(v)
				}
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// database is one row of SHOW DATABASES.
type database struct {
	name, host, port, dbname, mode string
	paused                         bool
}

func (i Instance) databases(ctx context.Context, conn *pgconn.PgConn) (map[string]database, error) {
	rows, err := i.show(ctx, conn, "DATABASES")
	if err != nil {
		return nil, err
	}
	dbs := map[string]database{}
	for _, r := range rows {
		dbs[r["name"]] = database{r["name"], r["host"], r["port"], r["database"], r["pool_mode"], r["paused"] == "1"}
	}
	return dbs, nil
}

// settings is SHOW CONFIG.
func (i Instance) settings(ctx context.Context, conn *pgconn.PgConn) (map[string]string, error) {
	rows, err := i.show(ctx, conn, "CONFIG")
	if err != nil {
		return nil, err
	}
	set := map[string]string{}
	for _, r := range rows {
		set[r["key"]] = r["value"]
	}
	return set, nil
}

// pause holds the clients of one database back and waits until their
// transactions have ended.
func (i Instance) pause(ctx context.Context, db string) error {
	return i.talk(ctx, func(conn *pgconn.PgConn) error { return i.tell(ctx, conn, pauseCommand(db)) })
}

func pauseCommand(db string) string  { return "PAUSE " + pg.Ident(db) }
func resumeCommand(db string) string { return "RESUME " + pg.Ident(db) }

const reloadCommand = "RELOAD"

// resume lets the clients of the databases go on. PgBouncer calls it an error
// when a database is not paused; so it is looked at.
func (i Instance) resume(ctx context.Context, dbs []string) error {
	err := i.talk(ctx, func(conn *pgconn.PgConn) error {
		var refused []error
		for _, db := range dbs {
			if err := i.tell(ctx, conn, resumeCommand(db)); err != nil {
				if conn.IsClosed() {
					return err
				}
				refused = append(refused, err)
			}
		}
		if len(refused) == 0 {
			return nil
		}
		shown, err := i.databases(ctx, conn)
		if err != nil {
			return errors.Join(append(refused, err)...)
		}
		for _, db := range dbs {
			if shown[db].paused {
				return errors.Join(refused...)
			}
		}
		return nil
	})
	if err != nil {
		var e *pg.Error
		if errors.As(err, &e) && e.Hint == "" {
			e.Hint = "a PgBouncer that was restarted is not paused; one that hangs holds its clients until " +
				strings.Join(commands(dbs, resumeCommand), "; ") + " on its console"
		}
		return err
	}
	return nil
}

func commands(dbs []string, command func(string) string) []string {
	var all []string
	for _, db := range dbs {
		all = append(all, command(db))
	}
	return all
}

// backends are the server processes whose connections clients of the databases
// have now: these a PAUSE waits for.
func (i Instance) backends(ctx context.Context, dbs []string) ([]int32, error) {
	var pids []int32
	err := i.talk(ctx, func(conn *pgconn.PgConn) error {
		servers, err := i.show(ctx, conn, "SERVERS")
		for _, s := range servers {
			pid, perr := strconv.ParseInt(s["remote_pid"], 10, 32)
			if perr == nil && pid > 0 && s["link"] != "" && slices.Contains(dbs, s["database"]) {
				pids = append(pids, int32(pid))
			}
		}
		return err
	})
	return pids, err
}

// holders says which clients keep a server connection of the databases, and
// with which backend: these a PAUSE waits for.
func (i Instance) holders(ctx context.Context, dbs []string) []string {
	ours := map[string]bool{}
	for _, db := range dbs {
		ours[db] = true
	}
	var who []string
	err := i.talk(ctx, func(conn *pgconn.PgConn) error {
		clients, err := i.show(ctx, conn, "CLIENTS")
		if err != nil {
			return err
		}
		client := map[string]map[string]string{} // by the server it is linked to
		for _, c := range clients {
			if c["link"] != "" {
				client[c["link"]] = c
			}
		}
		servers, err := i.show(ctx, conn, "SERVERS")
		if err != nil {
			return err
		}
		for _, s := range servers {
			c := client[s["ptr"]]
			if !ours[s["database"]] || c == nil {
				continue
			}
			says := fmt.Sprintf("client %s:%s (user %s, database %s", c["addr"], c["port"], c["user"], c["database"])
			if app := c["application_name"]; app != "" {
				says += ", " + app
			}
			if at := c["request_time"]; at != "" {
				says += ", since " + at
			}
			who = append(who, says+"), backend pid "+s["remote_pid"])
		}
		return nil
	})
	if err != nil {
		return append(who, "who it is could not be asked: "+err.Error())
	}
	return who
}
