package standby

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Tree is a live cluster: its primary, and the physical standbys that were
// found by asking every node.
type Tree struct {
	// Members begin with the primary; an upstream stands before those that
	// follow it, siblings in the order of their names.
	Members []*Member
	// SynchronousNames is synchronous_standby_names of the primary.
	SynchronousNames string
}

// Member is one node of a live cluster.
type Member struct {
	// Name is the application_name by which its upstream knows it; the primary's
	// is its cluster_name, "" where it has none.
	Name string
	// Server is how it was reached; nil where only its upstream reports it, and
	// Why then says why it could not be asked.
	Server *pg.Server
	Why    string
	// Upstream is who it receives from; nil for the primary.
	Upstream *Member
	// State is what the upstream shows of it; the zero State for the primary.
	State State

	// What it says itself; zero where Server is nil.
	pg.Identity
	ClusterName string
	Data        string // data_directory; "" where it may not be read
	Config      string // the folder of its configuration, where that is not Data
	Bin         string // the folder of its programs; "" where it may not be read
	Slot        string // primary_slot_name
	Delay       time.Duration
	Feedback    bool // hot_standby_feedback
	sender      string
}

// ErrNoPrimary says that none of the servers that answered is a primary.
var ErrNoPrimary = errors.New("none of these servers is a primary")

// Discover finds a cluster from some of its nodes, the primary among them: each
// is asked who receives from it, and receivers that are none of them are looked
// for at the address that they come from, at their upstream's port.
//
// A node that does not answer is an error where it was given; one that was only
// heard of stays in the tree without a Server.
func Discover(ctx context.Context, given []*pg.Server) (*Tree, error) {
	d := &discovery{known: map[string]bool{}}
	for _, s := range given {
		m, err := d.ask(ctx, s)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue // the same node by another address
		}
		if !m.InRecovery {
			if d.primary != nil {
				return nil, fmt.Errorf("%s and %s are both primaries: give the nodes of one cluster", d.primary.Server, m.Server)
			}
			d.primary = m
			continue
		}
		d.standbys = append(d.standbys, m)
	}
	if d.primary == nil {
		return nil, ErrNoPrimary
	}
	for _, m := range d.standbys {
		if m.SystemID != d.primary.SystemID {
			return nil, fmt.Errorf("%s is a standby of another cluster than %s (system identifier %s, not %s)", m.Server, d.primary.Server, m.SystemID, d.primary.SystemID)
		}
	}
	if err := d.grow(ctx); err != nil {
		return nil, err
	}
	return d.tree(), nil
}

// discovery is a tree on its way.
type discovery struct {
	primary  *Member
	standbys []*Member       // that answer
	known    map[string]bool // data directories with their start, so that no node is taken twice
	heard    []heard         // receivers, as upstreams report them
	names    string
}

// heard is a receiver of which an upstream tells.
type heard struct {
	State
	from *Member
	who  *Member // nil: nobody that answers
}

const memberSQL = `
	SELECT current_setting('cluster_name'), current_setting('synchronous_standby_names'),
	       coalesce((SELECT setting FROM pg_settings WHERE name = 'data_directory'), ''),
	       coalesce((SELECT setting FROM pg_settings WHERE name = 'config_file'), ''),
	       coalesce((SELECT setting FROM pg_settings WHERE name = 'primary_slot_name'), ''),
	       coalesce((SELECT setting::bigint FROM pg_settings WHERE name = 'recovery_min_apply_delay'), 0),
	       current_setting('hot_standby_feedback') = 'on',
	       coalesce((SELECT setting FROM pg_settings WHERE name = 'primary_conninfo'), ''),
	       coalesce((SELECT conninfo FROM pg_stat_wal_receiver), ''),
	       has_function_privilege('pg_catalog.pg_config()', 'EXECUTE')`

// ask asks one server what it is; nil where it has been asked before.
func (d *discovery) ask(ctx context.Context, s *pg.Server) (*Member, error) {
	m := &Member{Server: s}
	var names, config, conninfo, receiver string
	var delay int64
	err := with(ctx, s, func(conn *pgx.Conn) error {
		var err error
		if m.Identity, err = pg.Identify(ctx, conn); err != nil {
			return err
		}
		var programs bool
		err = conn.QueryRow(ctx, memberSQL).Scan(&m.ClusterName, &names, &m.Data, &config, &m.Slot, &delay, &m.Feedback, &conninfo, &receiver, &programs)
		if err != nil || !programs {
			return err
		}
		return conn.QueryRow(ctx, "SELECT setting FROM pg_config WHERE name = 'BINDIR'").Scan(&m.Bin)
	})
	if err != nil {
		return nil, &pg.Error{Doing: "ask what it is", On: s.String(), Err: err}
	}
	key := fmt.Sprint(m.SystemID, m.Data, m.Started)
	if d.known[key] {
		return nil, nil
	}
	d.known[key] = true
	m.Delay = time.Duration(delay) * time.Millisecond
	if folder, _, ok := cutLast(config, "/"); ok && folder != m.Data {
		m.Config = folder
	}
	if !m.InRecovery {
		m.Name, d.names = m.ClusterName, names
		return m, nil
	}
	m.Name = callsItself(conninfo, receiver, m.ClusterName)
	m.sender = senderOf(receiver, conninfo)
	return m, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// callsItself is the application_name that a standby's receiver connects with:
// that of its primary_conninfo, else its cluster_name, else walreceiver.
// https://www.postgresql.org/docs/current/runtime-config-replication.html#GUC-PRIMARY-CONNINFO
func callsItself(conninfo, receiver, clusterName string) string {
	for _, text := range []string{conninfo, receiver} {
		if name := pg.Keyword(text, "application_name"); name != "" {
			return name
		}
	}
	if clusterName != "" {
		return clusterName
	}
	return "walreceiver"
}

// senderOf is where a standby receives from, as host:port.
func senderOf(texts ...string) string {
	for _, text := range texts {
		if host := pg.Keyword(text, "host"); host != "" {
			port := pg.Keyword(text, "port")
			if port == "" {
				port = "5432"
			}
			return host + ":" + port
		}
	}
	return ""
}

// grow asks every node who receives from it, until nobody new is found.
func (d *discovery) grow(ctx context.Context) error {
	asked := map[*Member]bool{}
	for {
		var next *Member
		for _, m := range append([]*Member{d.primary}, d.standbys...) {
			if !asked[m] {
				next = m
				break
			}
		}
		if next == nil {
			return nil
		}
		asked[next] = true
		var states []State
		err := with(ctx, next.Server, func(conn *pgx.Conn) (err error) {
			states, err = States(ctx, conn, next.Name)
			return err
		})
		if err != nil {
			return &pg.Error{Doing: "ask who receives from it", On: next.Server.String(), Err: err}
		}
		for _, s := range states {
			if !s.Logical && s.State != "backup" {
				d.heard = append(d.heard, heard{State: s, from: next})
			}
		}
		for i := range d.heard {
			d.find(ctx, &d.heard[i])
		}
	}
}

// find looks for the node of a receiver: one that is known and calls itself
// so, or one that answers where the receiver comes from.
func (d *discovery) find(ctx context.Context, h *heard) {
	if h.who != nil {
		return
	}
	var may []*Member
	for _, m := range d.standbys {
		if m.Name == h.ApplicationName && !d.taken(m) {
			may = append(may, m)
		}
	}
	if len(may) > 1 {
		// The same name twice: who says that it receives from this upstream.
		host, port := h.from.Server.Host()
		may = slices.DeleteFunc(may, func(m *Member) bool { return m.sender != fmt.Sprintf("%s:%d", host, port) })
	}
	if len(may) == 1 {
		h.who = may[0]
		return
	}
	if h.Client == "" || len(may) > 1 {
		return
	}
	s, err := d.primary.Server.At(h.Client, 0)
	if err != nil {
		return
	}
	m, err := d.ask(ctx, s)
	if err != nil || m == nil || !m.InRecovery || m.SystemID != d.primary.SystemID || m.Name != h.ApplicationName {
		return
	}
	d.standbys = append(d.standbys, m)
	h.who = m
}

func (d *discovery) taken(m *Member) bool {
	return slices.ContainsFunc(d.heard, func(h heard) bool { return h.who == m })
}

// tree puts what was found into its order.
func (d *discovery) tree() *Tree {
	t := &Tree{Members: []*Member{d.primary}, SynchronousNames: d.names}
	slices.SortStableFunc(d.heard, func(a, b heard) int { return strings.Compare(a.ApplicationName, b.ApplicationName) })
	for i := 0; i < len(t.Members); i++ {
		up := t.Members[i]
		for _, h := range d.heard {
			if h.from != up {
				continue
			}
			m := h.who
			if m == nil {
				m = &Member{Name: h.ApplicationName, Why: "only " + up.title() + " reports it, which it reaches from " + orSocket(h.Client)}
			}
			m.Upstream, m.State = up, h.State
			t.Members = append(t.Members, m)
		}
	}
	for _, m := range d.standbys {
		if !slices.Contains(t.Members, m) {
			m.Why = "nobody shows it as a receiver"
			t.Members = append(t.Members, m)
		}
	}
	return t
}

func orSocket(address string) string {
	if address == "" {
		return "a Unix socket"
	}
	return address
}

func (m *Member) title() string {
	if m.Upstream == nil && m.Name == "" {
		return "the primary"
	}
	return m.Name
}

// Draw is the tree as text, a line a node.
func (t *Tree) Draw() string {
	var b strings.Builder
	var draw func(m *Member, depth int)
	draw = func(m *Member, depth int) {
		fmt.Fprintf(&b, "%s%s", strings.Repeat("   ", max(depth-1, 0)), map[bool]string{true: "└─ ", false: ""}[depth > 0])
		b.WriteString(m.title())
		if m.Server != nil {
			host, port := m.Server.Host()
			fmt.Fprintf(&b, "  %s:%d", host, port)
		}
		if m.Upstream != nil {
			b.WriteString("  " + m.State.State + ", " + m.State.SyncState)
		}
		if m.Delay > 0 {
			b.WriteString(", applies " + m.Delay.String() + " later")
		}
		if m.Why != "" {
			b.WriteString("  (" + m.Why + ")")
		}
		b.WriteString("\n")
		for _, f := range t.Members {
			if f.Upstream == m {
				draw(f, depth+1)
			}
		}
	}
	for _, m := range t.Members {
		if m.Upstream == nil {
			draw(m, 0)
		}
	}
	return b.String()
}
