package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Exec runs statements as the superuser, each sent by itself, so that CREATE DATABASE is possible and one string may
// hold several statements, which then are one transaction.
func (c *Cluster) Exec(ctx context.Context, db string, statements ...string) error {
	return c.with(ctx, db, func(conn *pgx.Conn) error {
		for _, sql := range statements {
			if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
				return fmt.Errorf("%s: %s: %w", c.Name, firstLine(sql), err)
			}
		}
		return nil
	})
}

// Query runs one query and returns its rows as text, NULL as "".
func (c *Cluster) Query(ctx context.Context, db, sql string) (rows [][]string, err error) {
	err = c.with(ctx, db, func(conn *pgx.Conn) error {
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", c.Name, firstLine(sql), err)
		}
		for _, r := range results {
			rows = append(rows, textRows(r.Rows)...)
		}
		return nil
	})
	return rows, err
}

func textRows(in [][][]byte) [][]string {
	var out [][]string
	for _, row := range in {
		var texts []string
		for _, v := range row {
			texts = append(texts, string(v))
		}
		out = append(out, texts)
	}
	return out
}

// Value runs a query and returns the first column of its first row as text; no row is an error.
func (c *Cluster) Value(ctx context.Context, db, sql string) (string, error) {
	rows, err := c.Query(ctx, db, sql)
	if err != nil {
		return "", err
	}
	if len(rows) == 0 || len(rows[0]) == 0 {
		return "", fmt.Errorf("%s: %s: no row", c.Name, firstLine(sql))
	}
	return rows[0][0], nil
}

// Until asks a query that answers true or false, every 20 ms, until it says true. Errors of the query end it.
func (c *Cluster) Until(ctx context.Context, db, sql string) error {
	err := c.with(ctx, db, func(conn *pgx.Conn) error {
		return Poll(ctx, 20*time.Millisecond, func() (bool, error) {
			var yes *bool
			err := conn.QueryRow(ctx, sql).Scan(&yes)
			return err == nil && yes != nil && *yes, err
		})
	})
	if err != nil {
		return fmt.Errorf("%s: wait until %s: %w", c.Name, firstLine(sql), err)
	}
	return nil
}

// CaughtUp waits until a standby, of whatever upstream, has replayed all that this primary has written until now. The
// standby must have a delay shorter than ctx allows.
func (c *Cluster) CaughtUp(ctx context.Context, standby *Cluster) error {
	lsn, err := c.Value(ctx, "", "SELECT pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	return standby.Until(ctx, "", "SELECT pg_last_wal_replay_lsn() >= '"+lsn+"'")
}

// Set changes settings with ALTER SYSTEM, in the order given as name, value, name, value …, and waits until new sessions
// have them. It fails, with the value in the file, for a setting that needs a restart.
func (c *Cluster) Set(ctx context.Context, pairs ...string) error {
	if len(pairs)%2 != 0 {
		return fmt.Errorf("%s: a setting without a value in %q", c.Name, pairs)
	}
	before, err := c.Value(ctx, "", "SELECT clock_timestamp()")
	if err != nil {
		return err
	}
	for i := 0; i < len(pairs); i += 2 {
		sql := "ALTER SYSTEM SET " + pairs[i] + " = '" + strings.ReplaceAll(pairs[i+1], "'", "''") + "'"
		if err := c.Exec(ctx, "", sql); err != nil {
			return err
		}
	}
	if err := c.Exec(ctx, "", "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return Poll(ctx, 10*time.Millisecond, func() (bool, error) {
		rows, err := c.Query(ctx, "", "SELECT pg_conf_load_time() > '"+before+"', (SELECT string_agg(name, ', ') FROM pg_settings WHERE pending_restart)")
		if err != nil || rows[0][0] != "t" {
			return false, err
		}
		if rows[0][1] != "" {
			return false, fmt.Errorf("%s: in need of a restart: %s", c.Name, rows[0][1])
		}
		return true, nil
	})
}

// Psql runs a script through psql, stopping at the first error, and returns what it printed.
func (c *Cluster) Psql(ctx context.Context, db, script string, args ...string) (string, error) {
	all := append([]string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", c.Conninfo(db)}, args...)
	cmd := c.Command(ctx, "psql", append(all, "-f", "-")...)
	cmd.Stdin = strings.NewReader(script)
	out, err := run(ctx, cmd)
	if err != nil {
		return out, fmt.Errorf("%s: %w", c.Name, err)
	}
	return out, nil
}

// PsqlFile runs a file of SQL through psql, stopping at the first error.
func (c *Cluster) PsqlFile(ctx context.Context, db, path string, args ...string) (string, error) {
	all := append([]string{"-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", c.Conninfo(db)}, args...)
	out, err := run(ctx, c.Command(ctx, "psql", append(all, "-f", path)...))
	if err != nil {
		return out, fmt.Errorf("%s: %w", c.Name, err)
	}
	return out, nil
}

func (c *Cluster) with(ctx context.Context, db string, f func(*pgx.Conn) error) error {
	conn, err := c.Connect(ctx, db)
	if err != nil {
		return err
	}
	return errors.Join(f(conn), conn.Close(context.WithoutCancel(ctx)))
}

func firstLine(sql string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(sql), "\n")
	if rest != "" || len(first) > 120 {
		return first[:min(len(first), 120)] + " …"
	}
	return first
}
