// Package standby builds the physical standbys of the new cluster: slot, base
// backup, configuration, start, and the proof that each streams from where it
// should before anything is built following it. It names them in
// synchronous_standby_names last, and only what streams.
//
// A node is looked at before anything is done to it. What runs at its address
// or in its data directory and is not that very standby is refused by name; a
// data directory that is not empty is moved aside and never deleted. What
// is ours stands in a small file beside the data directory, its mark.
package standby

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Setting is one line of a node's configuration.
type Setting struct{ Name, Value string }

// Node is one standby of the new cluster.
type Node struct {
	// Name is its application_name and cluster_name.
	Name string
	// Host is where it is built and its commands run, as the owner of DataDir
	// where the tool is root there; nil is this machine.
	Host pg.Host
	// Server is how the tool and the nodes following it reach it.
	Server *pg.Server
	// Bin is the folder of its programs; "" looks for them by version.
	Bin string
	// DataDir is where it is built; it may exist.
	DataDir string
	// Config is the folder of its postgresql.conf and pg_hba.conf; "" is
	// DataDir, and they come with the base backup.
	Config string
	// Slot is its physical slot on the upstream; "" is Name.
	Slot string
	// Start, Stop and Restart are argv; nil is pg_ctl.
	Start, Stop, Restart []string
	// Upstream is what it receives from; nil is the primary.
	Upstream *Node
	// Delay is recovery_min_apply_delay.
	Delay time.Duration
	// Settings win over what the base backup brought.
	Settings []Setting
	// Old is the standby of the old cluster that is stopped to make place for it:
	// After builds it, and not Steps. Nil: there is none.
	Old *Predecessor
}

// Options is what shapes the standbys of one cluster.
type Options struct {
	Upgrade string
	// Primary is the new primary; Side is how plans call it, "" is new.
	Primary *pg.Server
	Side    string
	// Version is its server_version_num.
	Version int
	Nodes   []Node
	// OldCluster is asked for by nodes with a Predecessor alone.
	OldCluster OldCluster
	// SynchronousStandbyNames is set once enough of them stream; nil leaves
	// the setting alone. Until After has built its nodes it is set to what the
	// others can give.
	SynchronousStandbyNames *string
	// SynchronousBefore is what Remove sets it to (Synchronous tells it before
	// Steps ran); nil resets it.
	SynchronousBefore *string
	// Temporary are settings that ALTER SYSTEM has on the primary for the time
	// of the upgrade: a base backup must not hand them on.
	Temporary []string
	// Patience is how long a node may make no progress; 0 is 60 s.
	Patience time.Duration
	// Jobs is how many nodes of one level are built at a time; 0 is 4.
	Jobs int
	// Limit is how many bytes a second the base backups that run at a time may
	// take together; 0 is none.
	Limit int64
}

func (o Options) side() string {
	if o.Side == "" {
		return "new"
	}
	return o.Side
}

func (o Options) patience() time.Duration {
	if o.Patience == 0 {
		return time.Minute
	}
	return o.Patience
}

func (n *Node) host() pg.Host {
	if n.Host == nil {
		return pg.Local{}
	}
	return n.Host
}

func (n *Node) slot() string {
	if n.Slot == "" {
		return n.Name
	}
	return n.Slot
}

// builder is one node and what the steps of all nodes share.
type builder struct {
	*Node
	o      Options
	new    *cluster
	goodAt time.Time // when the node was last seen as it should be
	beside []string  // nodes that are built at the same time
}

// goodFor is how long one look at a node serves the steps that follow each
// other; the last of them always looks itself.
const goodFor = time.Second

// cluster is the identity of the new primary, asked once.
type cluster struct {
	mu sync.Mutex
	id pg.Identity
}

// identity is the new cluster's; the primary must be one.
func (b *builder) identity(ctx context.Context) (pg.Identity, error) {
	b.new.mu.Lock()
	defer b.new.mu.Unlock()
	if b.new.id.SystemID != "" {
		return b.new.id, nil
	}
	err := with(ctx, b.o.Primary, func(conn *pgx.Conn) (err error) {
		b.new.id, err = pg.Identify(ctx, conn)
		return err
	})
	if err == nil && b.new.id.InRecovery {
		b.new.id.SystemID = ""
		err = fmt.Errorf("%s is a standby; standbys are built from the primary", b.o.Primary)
	}
	return b.new.id, err
}

// with gives f a session of its own on s.
func with(ctx context.Context, s *pg.Server, f func(*pgx.Conn) error) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // nothing hangs on how it ends
	return f(conn)
}

// upstream is the server that the node receives from, and how plans call it.
func (b *builder) upstream() (*pg.Server, string) {
	if b.Upstream == nil {
		return b.o.Primary, b.o.side()
	}
	return b.Upstream.Server, b.Upstream.Name
}

// depth is how many nodes are between n and the primary.
func (o Options) depth(n *Node) (d int) {
	for ; n.Upstream != nil && d <= len(o.Nodes); n = n.Upstream {
		d++
	}
	return d
}

// builders are the nodes, each following its upstream.
func (o Options) builders() []*builder {
	shared := &cluster{}
	var all []*builder
	for i := range o.Nodes {
		all = append(all, &builder{Node: &o.Nodes[i], o: o, new: shared})
	}
	slices.SortStableFunc(all, func(a, b *builder) int { return o.depth(a.Node) - o.depth(b.Node) })
	return all
}

// The rates that pg_basebackup takes.
const minRate, maxRate = 32 << 10, 1 << 30

// siblings are the nodes that are built at a time: those of one level, as many
// as Jobs allows and as Limit leaves a rate for each.
func (o Options) siblings(which func(*Node) bool) [][]*builder {
	jobs := o.Jobs
	if jobs <= 0 {
		jobs = 4
	}
	if o.Limit > 0 {
		jobs = int(min(int64(jobs), max(o.Limit/minRate, 1)))
	}
	var all [][]*builder
	for _, b := range o.builders() {
		if !which(b.Node) {
			continue
		}
		last := len(all) - 1
		if last < 0 || len(all[last]) == jobs || o.depth(all[last][0].Node) != o.depth(b.Node) {
			all, last = append(all, nil), last+1
		}
		all[last] = append(all[last], b)
	}
	return all
}

// Steps builds the nodes, upstream first and those of one level side by side,
// and sets synchronous_standby_names. Each step looks before it acts: run again
// on nodes that stream as they should they do nothing, and after a crash they
// go on.
func Steps(o Options) []flow.Step {
	steps := o.build(func(n *Node) bool { return !n.takes() })
	if o.SynchronousStandbyNames != nil {
		steps = append(steps, o.synchronous(o.meanwhile()))
	}
	return steps
}

// build builds some of the nodes.
func (o Options) build(which func(*Node) bool) []flow.Step {
	var steps []flow.Step
	for n, some := range o.siblings(which) {
		for _, b := range some {
			for _, other := range some {
				if other != b {
					b.beside = append(b.beside, other.Name)
				}
			}
			lane := []flow.Step{b.aside(), b.clear(), b.reserve(), b.copy(), b.configure(), b.restart(), b.start(), b.streaming()}
			if b.Delay > 0 {
				lane = append(lane, b.delay())
			}
			if b.takes() {
				lane = append([]flow.Step{b.retire()}, lane...)
			}
			for i := range lane {
				if len(some) > 1 {
					lane[i].Beside, lane[i].Lane = fmt.Sprintf("standby/%d", n+1), b.Name
				}
			}
			steps = append(steps, lane...)
		}
	}
	return steps
}

// Remove undoes what Steps did, for abort: the earlier
// synchronous_standby_names, then per node, the last of a cascade first: stop
// it, drop its slot, and forget its mark. Only nodes with a mark of this
// upgrade are touched, and no data directory is: what stays is reported.
func Remove(o Options) []flow.Step {
	var steps []flow.Step
	if o.SynchronousStandbyNames != nil {
		steps = append(steps, o.synchronousBack())
	}
	for _, b := range slices.Backward(o.builders()) {
		steps = append(steps, b.stop(), b.drop(), b.forget())
	}
	return steps
}

// Forget removes the marks, for finish: the nodes are the operator's from then
// on, and Remove no longer touches them.
func Forget(o Options) []flow.Step {
	var steps []flow.Step
	for _, b := range o.builders() {
		steps = append(steps, b.forget())
	}
	return steps
}

// Refusals tells what blocks each node, without touching it: a
// server at its address or in its data directory that is not that standby, a
// missing program or folder. They are what Steps would fail with.
func Refusals(ctx context.Context, o Options) []error {
	var errs []error
	for _, b := range o.builders() {
		if ok, _, err := b.good(ctx); ok && err == nil {
			continue
		}
		makesRoom := false
		if b.takes() {
			gone, _, _, err := b.gone(ctx, b.predecessor())
			if err != nil {
				errs = append(errs, err)
			}
			makesRoom = !gone // it may run in this very place
		}
		if err := b.refuse(ctx); err != nil && !makesRoom {
			errs = append(errs, err)
		}
		if _, err := b.owner(ctx); err != nil {
			errs = append(errs, err)
		}
		for _, p := range []string{"pg_basebackup", "pg_verifybackup", "pg_ctl"} {
			if !b.test(ctx, "-x", b.program(p)) {
				errs = append(errs, b.errorf("program %s is missing: install that major's client and server packages, or give bin:", b.program(p)))
			}
		}
		if b.Config != "" && !b.test(ctx, "-f", b.configFile()) {
			errs = append(errs, b.errorf("there is no %s", b.configFile()))
		}
	}
	return errs
}

// program is the path of one of the node's own programs.
func (b *builder) program(name string) string {
	if b.Bin != "" {
		return filepath.Join(b.Bin, name)
	}
	if p, err := pg.Program("", name, b.o.Version/10000); err == nil {
		return p
	}
	return name
}

func (b *builder) configFile() string { return filepath.Join(b.Config, "postgresql.conf") }

// errorf is an error that names the node.
func (b *builder) errorf(format string, args ...any) error {
	return fmt.Errorf("standby "+b.Name+": "+format, args...)
}

func (b *builder) step(act, title string) flow.Step {
	return flow.Step{ID: "standby/" + b.Name + "/" + act, Title: title}
}

// unless makes a Done of a step: the node streams as it should, or done says so.
func (b *builder) unless(done func(ctx context.Context) (bool, error)) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		if time.Since(b.goodAt) < goodFor {
			return true, nil
		}
		ok, _, err := b.good(ctx)
		if err != nil {
			return false, err
		}
		if ok {
			b.goodAt = time.Now()
			return true, nil
		}
		return done(ctx)
	}
}

// execute runs one SQL effect.
func execute(ctx context.Context, s *pg.Server, e flow.Effect) error {
	return with(ctx, s, func(conn *pgx.Conn) error {
		if err := pg.Exec(ctx, conn, e.SQL); err != nil {
			return &pg.Error{Doing: pg.Brief(e.SQL), On: s.String(), Err: err}
		}
		return nil
	})
}

// tail is the end of the node's log where pg_ctl writes it, for an error.
func (b *builder) tail(ctx context.Context, err error) error {
	text, rerr := b.read(ctx, b.logFile())
	if rerr != nil || len(text) == 0 {
		return err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return errors.Join(err, errors.New("the end of "+b.logFile()+":\n"+strings.Join(lines[max(0, len(lines)-8):], "\n")))
}

func (b *builder) logFile() string {
	return filepath.Join(filepath.Dir(b.DataDir), strings.ReplaceAll(b.Name, "/", "_")+".log")
}
