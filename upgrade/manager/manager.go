// Package manager talks to the programs that decide which node of a cluster is
// its primary, so that none of them promotes a standby while the upgrade stands
// on what the primary has: it finds them, asks each of their nodes whether it
// would act, and tells them to hold still and to go on.
//
// repmgr is asked by SQL on every node that its own table names, a witness
// included; Patroni by its REST API.
package manager

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Manager is one that was found on a cluster.
type Manager interface {
	// Name is how people call it.
	Name() string
	// Look asks every node. The error is that of asking which nodes there are; a
	// node that does not answer says so itself.
	Look(ctx context.Context) (State, error)
	// Hold tells the nodes of a State not to act. Release tells those named to
	// act again; nil is all of them.
	Hold(s State) []flow.Effect
	Release(s State, nodes []string) []flow.Effect
	// Do executes one of these effects.
	Do(ctx context.Context, e flow.Effect) error
}

// State is what a manager's nodes say.
type State struct {
	Nodes []Node
	// Home is the database of the manager's own tables; "" where it has none.
	Home string
	// Synchronous: it decides synchronous_standby_names by itself.
	Synchronous bool
}

// Node is one place where a manager runs.
type Node struct {
	Name string // as the manager calls it
	Role string // primary, standby, witness
	// Runs: it would act. Held: it has been told not to.
	Runs, Held bool
	Err        error // why it could not be asked

	on     string // as effects name it
	server *pg.Server
}

// Active says whether any node would act.
func (s State) Active() bool {
	return slices.ContainsFunc(s.Nodes, func(n Node) bool { return n.Runs && !n.Held })
}

// Held says whether every node has been asked, and none of them would act.
func (s State) Held() bool { return len(s.Silent()) == 0 && !s.Active() }

// Silent are the nodes that could not be asked.
func (s State) Silent() []Node { return s.where(func(n Node) bool { return n.Err != nil }) }

// Acting are the nodes that would act.
func (s State) Acting() []Node { return s.where(func(n Node) bool { return n.Runs && !n.Held }) }

func (s State) where(is func(Node) bool) []Node {
	var out []Node
	for _, n := range s.Nodes {
		if is(n) {
			out = append(out, n)
		}
	}
	return out
}

// Names are the names of nodes, with what they are.
func Names(nodes []Node) string {
	words := make([]string, len(nodes))
	for i, n := range nodes {
		words[i] = n.Name
		if n.Role != "" && n.Role != n.Name {
			words[i] = n.Role + " " + n.Name
		}
	}
	return strings.Join(words, ", ")
}

// askTimeout limits asking one node.
const askTimeout = 3 * time.Second

// Options say which cluster is looked at, and how.
type Options struct {
	// Primary is the cluster's; Standbys are those that the runbook knows, by name.
	Primary  *pg.Server
	Standbys []*pg.Server
	Sessions *pg.Sessions
	// Patroni are addresses of its REST API; nil: port 8008 of the servers' hosts.
	Patroni []string
}

// Find looks for managers. One that has left traces but does not run on the
// primary is none.
func Find(ctx context.Context, o Options) ([]Manager, error) {
	var libraries, system string
	var patroni bool
	err := o.Sessions.Do(ctx, o.Primary, func(conn *pgx.Conn) error {
		const settings = `
			SELECT current_setting('shared_preload_libraries'), (SELECT system_identifier::text FROM pg_control_system()),
			       has_function_privilege('pg_stat_file(text, boolean)', 'EXECUTE')`
		// A query of its own: the right to execute a function is asked for before
		// any CASE around it is looked at.
		const traces = `SELECT (pg_stat_file($1, true)).size IS NOT NULL`
		var may bool
		if err := conn.QueryRow(ctx, settings).Scan(&libraries, &system, &may); err != nil || !may {
			return err
		}
		return conn.QueryRow(ctx, traces, dynamicFile).Scan(&patroni)
	})
	if err != nil {
		return nil, &pg.Error{Doing: "look for a failover manager", On: o.Primary.String(), Err: err}
	}
	var found []Manager
	if patroni || len(o.Patroni) > 0 {
		p, err := newPatroni(o, system)
		if err != nil {
			return nil, err
		}
		found = append(found, p)
	}
	if preloads(libraries, "repmgr") {
		r, err := findRepmgr(ctx, o)
		if err != nil {
			return nil, err
		}
		if r != nil {
			found = append(found, r)
		}
	}
	return found, nil
}

// preloads says whether shared_preload_libraries has a library.
func preloads(list, library string) bool {
	for name := range strings.SplitSeq(list, ",") {
		name = strings.Trim(strings.TrimSpace(name), `"`)
		if name[strings.LastIndex(name, "/")+1:] == library {
			return true
		}
	}
	return false
}

// AwaitHeld waits until every node that runs says that it is paused: a
// manager hears of it when it looks the next time.
func AwaitHeld(ctx context.Context, m Manager) error {
	var last State
	err := pg.Poll(ctx, 300*time.Millisecond, m.Name()+" to hold still on every node", func(ctx context.Context) (bool, error) {
		var err error
		last, err = m.Look(ctx)
		return err == nil && !last.Active(), err
	})
	if err != nil && last.Active() {
		return fmt.Errorf("%w (still at work: %s)", err, Names(last.Acting()))
	}
	return err
}
