package manager

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// repmgr is a repmgrd on every node. What a node is set to stays until it is set to
// otherwise: in its server's shared memory, and over a restart in a file there.
type repmgr struct {
	o    Options
	home string // database of its extension
}

// findRepmgr looks for the database that has its extension: without one there
// is no repmgrd, whatever is preloaded.
func findRepmgr(ctx context.Context, o Options) (*repmgr, error) {
	var names []string
	err := o.Sessions.Do(ctx, o.Primary, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT datname::text FROM pg_database WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 ORDER BY datname <> 'repmgr', datname`)
		if err != nil {
			return err
		}
		names, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	if err != nil {
		return nil, &pg.Error{Doing: "list the databases", On: o.Primary.String(), Err: err}
	}
	for _, name := range names {
		there := false
		err := o.Sessions.Do(ctx, o.Primary.With(name), func(conn *pgx.Conn) error {
			return conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'repmgr')`).Scan(&there)
		})
		if err == nil && there {
			return &repmgr{o: o, home: name}, nil
		}
	}
	return nil, nil
}

func (r *repmgr) Name() string { return "repmgr" }

const nodesOfRepmgr = `SELECT node_name::text, type::text, conninfo::text, active FROM repmgr.nodes ORDER BY node_id`

// Look asks every node of repmgr's own table. One that is not active there and
// does not answer is not waited for.
func (r *repmgr) Look(ctx context.Context) (State, error) {
	s := State{Home: r.home}
	type entry struct {
		Name, Role, Conninfo string
		Active               bool
	}
	var entries []entry
	err := r.o.Sessions.Do(ctx, r.o.Primary.With(r.home), func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, nodesOfRepmgr)
		if err != nil {
			return err
		}
		entries, err = pgx.CollectRows(rows, pgx.RowToStructByPos[entry])
		return err
	})
	if err != nil {
		return s, &pg.Error{Doing: "read the nodes of repmgr", On: r.o.Primary.String() + ", database " + r.home, Err: err}
	}
	nodes := make([]Node, len(entries))
	var g errgroup.Group
	for i, e := range entries {
		g.Go(func() error {
			nodes[i] = r.node(e.Name, e.Role, e.Conninfo, e.Active)
			r.ask(ctx, &nodes[i])
			return nil
		})
	}
	_ = g.Wait() // the functions return no error
	for i, n := range nodes {
		if n.Err == nil || entries[i].Active {
			s.Nodes = append(s.Nodes, n)
		}
	}
	return s, ctx.Err()
}

// node finds out how a node is reached: as the runbook says where it knows it,
// else at repmgr's own address for it with the user of old's primary. The
// primary is the one that the upgrade works with.
func (r *repmgr) node(name, role, conninfo string, active bool) Node {
	n := Node{Name: name, Role: role, on: "node " + name + " of old"}
	if role == "primary" && active {
		n.on, n.server = "old", r.o.Primary.With(r.home)
		return n
	}
	if i := slices.IndexFunc(r.o.Standbys, func(s *pg.Server) bool { return s.Name == name }); i >= 0 {
		server := *r.o.Standbys[i]
		server.Name = n.on
		n.server = server.With(r.home)
		return n
	}
	host, port := address(conninfo)
	if host == "" {
		n.Err = fmt.Errorf("repmgr's conninfo of it names no host")
		return n
	}
	server, err := r.o.Primary.At(host, port)
	if err != nil {
		n.Err = err
		return n
	}
	server.Name = n.on
	n.server = server.With(r.home)
	return n
}

// address is where a conninfo of libpq's leads: keywords, or a URI.
func address(conninfo string) (host string, port uint16) {
	host, given := pg.Keyword(conninfo, "host"), pg.Keyword(conninfo, "port")
	if host == "" {
		host = pg.Keyword(conninfo, "hostaddr")
	}
	if u, err := url.Parse(conninfo); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		host, given = u.Hostname(), u.Port()
	}
	p, err := strconv.ParseUint(given, 10, 16)
	if err != nil {
		p = 5432
	}
	return host, uint16(p)
}

func (r *repmgr) ask(ctx context.Context, n *Node) {
	if n.Err != nil {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %s", askTimeout))
	defer cancel()
	n.Err = r.o.Sessions.Do(ctx, n.server, func(conn *pgx.Conn) error {
		return conn.QueryRow(ctx, `SELECT coalesce(repmgr.repmgrd_is_running(), false), coalesce(repmgr.repmgrd_is_paused(), false)`).Scan(&n.Runs, &n.Held)
	})
}

func (r *repmgr) Hold(s State) []flow.Effect { return r.tell(s, nil, true) }

func (r *repmgr) Release(s State, nodes []string) []flow.Effect { return r.tell(s, nodes, false) }

func (r *repmgr) tell(s State, nodes []string, hold bool) []flow.Effect {
	var effects []flow.Effect
	for _, n := range s.Nodes {
		if n.server != nil && (nodes == nil || slices.Contains(nodes, n.Name)) {
			effects = append(effects, flow.Effect{On: n.on, Database: r.home, SQL: fmt.Sprintf("SELECT repmgr.repmgrd_pause(%t)", hold)})
		}
	}
	return effects
}

func (r *repmgr) Do(ctx context.Context, e flow.Effect) error {
	s, err := r.Look(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.on == e.On && n.server != nil })
	if i < 0 {
		return fmt.Errorf("repmgr has no %s any more", e.On)
	}
	server := s.Nodes[i].server
	ctx, cancel := context.WithTimeoutCause(ctx, askTimeout, fmt.Errorf("no answer within %s", askTimeout))
	defer cancel()
	err = r.o.Sessions.Do(ctx, server, func(conn *pgx.Conn) error { return pg.Exec(ctx, conn, e.SQL) })
	if err != nil {
		return &pg.Error{Doing: pg.Brief(e.SQL), On: server.String() + ", database " + r.home, Err: err}
	}
	return nil
}
