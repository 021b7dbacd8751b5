package standby

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// Predecessor is the standby of the old cluster whose host a node gets.
type Predecessor struct {
	// Server is how the tool reaches it.
	Server *pg.Server
	// Host is where it runs, nil is this machine, and DataDir in what.
	Host    pg.Host
	DataDir string
	// Stop is argv; nil is pg_ctl.
	Stop []string
}

// OldCluster is what the nodes with a Predecessor need to know of the old cluster.
type OldCluster struct {
	Primary *pg.Server
	// SystemID is its system identifier; "" is not known, and nothing of it is
	// stopped then.
	SystemID string
	// SynchronousStandbyNames is the setting in force there; "" names nobody,
	// or is not known because it does not answer.
	SynchronousStandbyNames string
}

// takes reports whether the node takes the place of a standby of old.
func (n *Node) takes() bool { return n.Old != nil }

// successors are the names of the nodes that take a place of old's.
func (o Options) successors() []string {
	var names []string
	for i := range o.Nodes {
		if o.Nodes[i].takes() {
			names = append(names, o.Nodes[i].Name)
		}
	}
	return names
}

// After builds the nodes that have a Predecessor, each when that is stopped,
// and sets synchronous_standby_names, where Steps could not set all of it. It
// belongs after the opening of the new cluster: nobody needs old's standbys
// for anything but a way back then.
func After(o Options) []flow.Step {
	names := o.successors()
	if len(names) == 0 {
		return nil
	}
	var steps []flow.Step
	if left := Without(o.OldCluster.SynchronousStandbyNames, names); left != o.OldCluster.SynchronousStandbyNames {
		steps = append(steps, o.loosen(left))
	}
	steps = append(steps, o.build((*Node).takes)...)
	if want := o.SynchronousStandbyNames; want != nil && *want != o.meanwhile() {
		steps = append(steps, o.synchronous(*want))
	}
	for i := range steps {
		steps[i].Late, steps[i].Stops = true, true
	}
	return steps
}

// predecessor is the old standby as something to run commands for.
func (b *builder) predecessor() *builder {
	return &builder{o: b.o, new: b.new, Node: &Node{
		Name: b.Name, Host: b.Old.Host, Server: b.Old.Server, Bin: b.Bin, DataDir: b.Old.DataDir, Stop: b.Old.Stop,
	}}
}

// retire stops the old standby whose host the node gets.
func (b *builder) retire() flow.Step {
	old := b.predecessor()
	s := b.step("retire", fmt.Sprintf("Stop old's standby %s on %s: from here old, and a rollback, are without it", b.Name, old.host().Name()))
	s.Does = append([]flow.Effect{b.writes(b.markFile())}, old.stops()...)
	s.Done = b.unless(func(ctx context.Context) (bool, error) {
		gone, _, _, err := b.gone(ctx, old)
		return gone, err
	})
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		// The new primary must be one: what of old is stopped is stopped for it.
		if _, err := b.identity(ctx); err != nil {
			return err
		}
		// While it starts or ends it does not say who it is: nothing is stopped
		// that has not been seen to be that standby.
		var gone, known bool
		var left string
		err := b.wait(ctx, t, "what runs in the place of old's standby to say who it is", func(ctx context.Context) (bool, string, error) {
			var err error
			gone, known, left, err = b.gone(ctx, old)
			return gone || known, "it takes no connections", err
		})
		if gone || err != nil {
			return err
		}
		m, err := b.marked(ctx)
		if err != nil {
			return err
		}
		m.Retired = true
		if err := b.marks(ctx, m); err != nil {
			return err
		}
		if err := old.run(ctx, s.Does[1], pg.Cmd{}); err != nil {
			return err
		}
		err = b.wait(ctx, t, "old's standby "+b.Name+" to end", func(ctx context.Context) (bool, string, error) {
			gone, _, _, err := b.gone(ctx, old)
			if err != nil {
				return false, err.Error(), ctx.Err() // what ends may answer no more, or half
			}
			return gone, "it still runs", nil
		})
		if err == nil {
			t.Note("old's standby %s is stopped%s", b.Name, left)
		}
		return err
	}
	return s
}

// gone reports whether the old standby runs no more; known, that it runs and is
// that very standby: neither, where it takes no connections now. What runs at
// its address or in its data directory and is anything else is an error: nothing
// is done to it. left is what it leaves behind, for the person who watches.
func (b *builder) gone(ctx context.Context, old *builder) (gone, known bool, left string, err error) {
	at, err := b.ask(ctx, old)
	switch {
	case pg.SQLState(err) == cannotConnectNow:
		return false, false, "", nil
	case err != nil:
		return false, false, "", err
	case !at.answers:
		gone, err = b.silent(ctx, old)
		return gone, false, "", err
	}
	id, err := b.identity(ctx)
	if err != nil {
		return false, false, "", err
	}
	where := old.Server.Address()
	switch {
	case at.SystemID == id.SystemID:
		return true, false, "", nil // the node itself, or what its own steps refuse
	case b.o.OldCluster.SystemID == "":
		return false, false, "", b.errorf("old does not say who it is, and what runs at %s is not stopped without knowing that it is a standby of old", where)
	case at.SystemID != b.o.OldCluster.SystemID:
		return false, false, "", b.errorf("at %s runs a server of another cluster (system identifier %s, that of old is %s): nothing was done to it; correct conninfo of old's standby", where, at.SystemID, b.o.OldCluster.SystemID)
	case !at.InRecovery:
		return false, false, "", b.errorf("at %s runs a primary of the old cluster, not a standby: nothing was done to it", where)
	case at.data == "":
		return false, false, "", b.errorf("the server at %s does not show its data directory: nothing was done to it; GRANT pg_monitor to %s", where, old.Server.User())
	case filepath.Clean(at.data) != filepath.Clean(old.DataDir):
		return false, false, "", b.errorf("at %s runs another standby of old, in %s, not in %s: nothing was done to it; correct data: of old's standby", where, at.data, old.DataDir)
	}
	return false, true, at.leaves, nil
}

// retiring is what answers at the old standby's address.
type retiring struct {
	seen
	leaves string // what is left of it on old, and who loses it
}

func (b *builder) ask(ctx context.Context, old *builder) (retiring, error) {
	var r retiring
	conn, err := old.Server.Connect(ctx)
	if err != nil {
		if absent(err) {
			return r, nil
		}
		return r, b.errorf("somebody is where old's standby was, but does not say who: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	r.answers = true
	if r.Identity, err = pg.Identify(ctx, conn); err != nil {
		return r, b.errorf("%w", err)
	}
	var slot string
	var followers []string
	err = conn.QueryRow(ctx, `
		SELECT coalesce((SELECT setting FROM pg_settings WHERE name = 'data_directory'), ''),
		       coalesce((SELECT setting FROM pg_settings WHERE name = 'primary_slot_name'), ''),
		       ARRAY(SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1)`).Scan(&r.data, &slot, &followers)
	if err != nil {
		return r, b.errorf("ask old's standby what it is: %w", err)
	}
	if slot != "" {
		r.leaves = fmt.Sprintf("; its slot %s on its upstream keeps WAL for it, as far as max_slot_wal_keep_size lets it: SELECT pg_drop_replication_slot(%s) there when it will not come back", slot, strings.TrimSpace(pg.Literal(slot)))
	}
	if len(followers) > 0 {
		r.leaves += "; the standbys that followed it were not changed: " + strings.Join(followers, ", ")
	}
	return r, nil
}

// silent is gone where nobody answers at the old standby's address.
func (b *builder) silent(ctx context.Context, old *builder) (bool, error) {
	running, err := old.runs(ctx)
	if err != nil || !running {
		return !running, err
	}
	if filepath.Clean(old.DataDir) == filepath.Clean(b.DataDir) {
		m, err := b.marked(ctx)
		if err != nil || m.Phase != "" {
			return true, err // the node itself runs there
		}
	}
	return false, b.errorf("a server runs in %s on %s, and does not answer at %s: nothing was done to it; let it answer, or stop it if it is old's standby, and run again",
		old.DataDir, old.host().Name(), old.Server.Address())
}

// loosen takes the standbys that are stopped out of what commits on old wait
// for: a rollback would open old, and every commit there would hang.
func (o Options) loosen(left string) flow.Step {
	was := o.OldCluster.SynchronousStandbyNames
	shown := left
	if left == "" {
		shown = "no standby"
	}
	s := flow.Step{ID: "standby/old/synchronous", Title: fmt.Sprintf("Let commits on old wait for %s, no longer for %s: after a rollback they would hang", shown, was)}
	s.Does = alter("old", &left)
	now := func(ctx context.Context) (value string, err error) {
		err = with(ctx, o.OldCluster.Primary, func(conn *pgx.Conn) (err error) {
			value, _, err = Synchronous(ctx, conn)
			return err
		})
		return value, err
	}
	s.Done = func(ctx context.Context) (bool, error) {
		value, err := now(ctx)
		if err != nil && pg.SQLState(err) == "" {
			return false, nil // Do tells it
		}
		return value != was, err
	}
	s.Do = func(ctx context.Context, t *flow.Turn) error {
		if _, err := now(ctx); err != nil && pg.SQLState(err) == "" {
			t.Note("old does not answer (%v): its synchronous_standby_names is still %q, and names a standby that is gone", err, was)
			return nil
		}
		for _, e := range s.Does {
			if err := execute(ctx, o.OldCluster.Primary, e); err != nil {
				return err
			}
		}
		t.Note("synchronous_standby_names of old was %q", was)
		return pg.Poll(ctx, pollSetting, "synchronous_standby_names of old to be in force", func(ctx context.Context) (bool, error) {
			value, err := now(ctx)
			return value == left, err
		})
	}
	return s
}

// Taken tells, of the nodes that have a Predecessor, whose place has been taken
// or is being taken, and which of them have been copied: those could be started,
// and promoted. A host that cannot be asked is an error, with what the others say.
func Taken(ctx context.Context, o Options) (taken, built map[string]bool, err error) {
	taken, built = map[string]bool{}, map[string]bool{}
	var errs []error
	for _, b := range o.builders() {
		if !b.takes() {
			continue
		}
		m, err := b.marked(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		taken[b.Name], built[b.Name] = m.Retired || m.Slot || m.Phase != "", m.Phase == copied
	}
	return taken, built, errors.Join(errs...)
}
