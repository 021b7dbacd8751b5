package traffic

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5/pgconn"
)

// PgBouncer sends clients by rewriting the address of databases in the
// configuration of PgBouncer and reloading it, while they are paused.
//
// Only host and port (and hostaddr) of those databases are changed; every other
// byte of the file stays. The new file is written beside the old one and takes
// its place by a rename.
type PgBouncer struct {
	// Label replaces the name that is made of instances and databases.
	Label string
	// Databases are the names in the pooler's configuration.
	Databases []string
	// Instances are all processes that serve them.
	Instances []Instance
	// PauseTimeout is how long a PAUSE waits for transactions; 0 is 2 s.
	PauseTimeout time.Duration
	// Blocked is how long clients may be held back in all (max_blocked);
	// PgBouncer must not send them away sooner. 0 asks nothing.
	Blocked time.Duration
	// AppUsers are the roles that the application logs in as where the pooler
	// passes on the user of the client. They must be let in by new, and so
	// must those that the pooler has pools for, named here or not.
	AppUsers []string
	// Apart are names that lead to the same server and go elsewhere, at a time of
	// their own.
	Apart []string
	// Moved are the databases of the server whose clients go to the other side;
	// nil is every one. Names of the pooler that lead to another database may
	// stay where they are.
	Moved []string
	// Accepted says which acceptable problems the operator accepts; nil: none.
	Accepted func(Problem) bool
	// writing is held while a configuration is written that other units may share;
	// nil: there are none.
	writing *sync.Mutex
}

const defaultPauseTimeout = 2 * time.Second

// prepared is the file that Prepare writes beside a configuration.
func prepared(config string) string { return config + ".crossfade" }

// Name is "pgbouncer" with the instances and the databases.
func (b *PgBouncer) Name() string {
	if b.Label != "" {
		return b.Label
	}
	var at []string
	for _, i := range b.Instances {
		at = append(at, i.Admin.Address())
	}
	return "pgbouncer " + strings.Join(at, ",") + "/" + strings.Join(b.Databases, ",")
}

// Does is what a call does.
func (b *PgBouncer) Does(call Call, _ *pg.Server) []flow.Effect {
	var does []flow.Effect
	sql := func(i Instance, sql string) { does = append(does, flow.Effect{On: i.on(), SQL: sql}) }
	switch call {
	case Prepare:
		for _, f := range b.files() {
			does = append(does, f.copies(), f.writes())
		}
	case Withdraw:
		for _, f := range b.files() {
			does = append(does, f.removes())
		}
	case Pause:
		for _, i := range b.Instances {
			for _, db := range b.Databases {
				sql(i, pauseCommand(db))
			}
		}
	case Point:
		for _, f := range b.files() {
			does = append(does, f.moves())
		}
		for _, i := range b.Instances {
			sql(i, reloadCommand)
		}
	case Resume:
		for _, i := range b.Instances {
			for _, db := range b.Databases {
				sql(i, resumeCommand(db))
			}
		}
	}
	return does
}

// file is one configuration; several instances may share it.
type file struct {
	host pg.Host
	path string
}

func (b *PgBouncer) files() []file {
	var files []file
	for _, i := range b.Instances {
		if !slices.ContainsFunc(files, func(f file) bool { return f.path == i.Config && f.host.Name() == i.host().Name() }) {
			files = append(files, file{i.host(), i.Config})
		}
	}
	return files
}

func (f file) String() string { return f.path + " on " + f.host.Name() }

func (f file) copies() flow.Effect  { return f.effect("cp", "-p", f.path, prepared(f.path)) }
func (f file) writes() flow.Effect  { return f.effect("tee", prepared(f.path)) }
func (f file) moves() flow.Effect   { return f.effect("mv", "-f", prepared(f.path), f.path) }
func (f file) removes() flow.Effect { return f.effect("rm", "-f", prepared(f.path)) }

func (f file) effect(argv ...string) flow.Effect {
	return flow.Effect{On: f.host.Name(), Run: argv}
}

// run runs an effect's program as the owner of the file's folder: the right to
// rename is the folder's.
func (f file) run(ctx context.Context, e flow.Effect, stdin []byte) error {
	c := pg.Cmd{Args: e.Run, Owner: path.Dir(f.path)}
	if stdin != nil {
		c.Stdin = bytes.NewReader(stdin)
	}
	if err := f.host.Run(ctx, c); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(e.Run, " "), err)
	}
	return nil
}

// read is the content of a file on the same host.
func (f file) read(ctx context.Context, name string) ([]byte, error) {
	var out bytes.Buffer
	// As the tool itself: the folder's owner need not be allowed to read it.
	if err := f.host.Run(ctx, pg.Cmd{Args: []string{"cat", name}, Stdout: &out}); err != nil {
		return nil, fmt.Errorf("read %s on %s: %w", name, f.host.Name(), err)
	}
	return out.Bytes(), nil
}

// wanted is the configuration as it is, and as it must be for the databases to
// be at to.
func (b *PgBouncer) wanted(ctx context.Context, f file, to *pg.Server) (is, want []byte, err error) {
	if is, err = f.read(ctx, f.path); err != nil {
		return nil, nil, err
	}
	parsed, err := parseINI(is)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f, err)
	}
	host, port := address(to)
	if want, err = parsed.point(b.Databases, host, port); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f, err)
	}
	return is, want, nil
}

// address is host and port as PgBouncer takes and shows them.
func address(s *pg.Server) (host, port string) {
	h, p := s.Host()
	return h, strconv.Itoa(int(p))
}

// Prepare proves that Point will work, and writes the new configuration beside
// the one in use.
func (b *PgBouncer) Prepare(ctx context.Context, to *pg.Server) error {
	problems, err := b.Problems(ctx, to)
	if err != nil {
		return err
	}
	if err := refuse(problems, b.Accepted); err != nil {
		return err
	}
	err = all(b.files(), func(f file) error {
		_, want, err := b.wanted(ctx, f, to)
		if err != nil {
			return err
		}
		return f.prepare(ctx, want)
	})
	if err != nil {
		again, cancel := afterwards(ctx)
		defer cancel()
		return errors.Join(err, b.Withdraw(again))
	}
	return nil
}

// prepare writes want beside the configuration, with its owner and mode, and
// proves that it could take its place.
func (f file) prepare(ctx context.Context, want []byte) error {
	if err := f.run(ctx, f.copies(), nil); err != nil {
		return fmt.Errorf("write beside %s (a user that may write into that folder must run this): %w", f, err)
	}
	if err := f.run(ctx, f.writes(), want); err != nil {
		return err
	}
	got, err := f.read(ctx, prepared(f.path))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%s on %s does not hold what was written to it; is the disk full?", prepared(f.path), f.host.Name())
	}
	was, err := f.rights(ctx, f.path)
	if err != nil {
		return err
	}
	is, err := f.rights(ctx, prepared(f.path))
	if err != nil {
		return err
	}
	if was != is {
		return fmt.Errorf("%s has mode, owner and group %s, and what would take its place %s: PgBouncer might not be able to read it; run as its owner or as root", f, was, is)
	}
	return nil
}

// rights are mode, owner and group as ls prints them.
func (f file) rights(ctx context.Context, name string) (string, error) {
	var out bytes.Buffer
	if err := f.host.Run(ctx, pg.Cmd{Args: []string{"ls", "-ldn", name}, Stdout: &out}); err != nil {
		return "", fmt.Errorf("look at %s on %s: %w", name, f.host.Name(), err)
	}
	fields := strings.Fields(out.String())
	if len(fields) < 4 {
		return "", fmt.Errorf("look at %s on %s: ls answered %q", name, f.host.Name(), out.String())
	}
	// The mark of an ACL or a security context is not the mode's.
	return strings.TrimRight(fields[0], "+.@") + " " + fields[2] + " " + fields[3], nil
}

// Units are the instances: one that is dead or frozen holds up none of the others.
func (b *PgBouncer) Units() []Switch {
	var units []Switch
	writing := &sync.Mutex{}
	for _, i := range b.Instances {
		unit := *b
		unit.Label, unit.Instances, unit.writing = "", []Instance{i}, writing
		units = append(units, &unit)
	}
	return units
}

// Reach asks every console.
func (b *PgBouncer) Reach(ctx context.Context) error {
	_, err := b.Where(ctx)
	return err
}

// Withdraw removes what Prepare wrote.
func (b *PgBouncer) Withdraw(ctx context.Context) error {
	return all(b.files(), func(f file) error { return f.run(ctx, f.removes(), nil) })
}

// Busy are the backends of each instance.
func (b *PgBouncer) Busy(ctx context.Context) ([]Busy, error) {
	busy := make([]Busy, len(b.Instances))
	var places []int
	for n := range b.Instances {
		places = append(places, n)
	}
	err := all(places, func(n int) error {
		pids, err := b.Instances[n].backends(ctx, b.Databases)
		on, patience := b.Instances[n].on(), b.patience()
		busy[n] = Busy{On: on, Backends: pids, Patience: patience, Says: fmt.Sprintf("PAUSE of %s would time out after %s", on, patience)}
		return err
	})
	return busy, err
}

func (b *PgBouncer) patience() time.Duration {
	if b.PauseTimeout == 0 {
		return defaultPauseTimeout
	}
	return b.PauseTimeout
}

// Pause pauses every database on every instance. When one cannot be paused in
// time, all are resumed and the error says whom it waited for.
func (b *PgBouncer) Pause(ctx context.Context) error {
	limit := b.patience()
	type one struct {
		Instance
		db string
	}
	var ones []one
	for _, i := range b.Instances {
		for _, db := range b.Databases {
			ones = append(ones, one{i, db})
		}
	}
	err := all(ones, func(o one) error {
		ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("clients did not pause within %s", limit))
		defer cancel()
		return o.pause(ctx, o.db)
	})
	if err == nil {
		return nil
	}
	return b.resumeAfter(ctx, err)
}

// holdersLimit is how long clients stay held back to learn who held them up.
const holdersLimit = 300 * time.Millisecond

// resumeAfter gives service back after a pause that failed with err.
func (b *PgBouncer) resumeAfter(ctx context.Context, err error) error {
	asking, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), holdersLimit, errors.New("no answer in time"))
	defer cancel()
	held := make([][]string, len(b.Instances))
	var places []int
	for n := range b.Instances {
		places = append(places, n)
	}
	err = errors.Join(err, all(places, func(n int) error {
		held[n] = b.Instances[n].holders(asking, b.Databases)
		return nil
	}))
	if who := slices.Concat(held...); len(who) > 0 {
		err = fmt.Errorf("%w; it waited for %s", err, strings.Join(who, "; "))
	}
	again, cancel := afterwards(ctx)
	defer cancel()
	return errors.Join(err, b.Resume(again))
}

// Resume lets the clients of every database on every instance go on.
func (b *PgBouncer) Resume(ctx context.Context) error {
	return all(b.Instances, func(i Instance) error { return i.resume(ctx, b.Databases) })
}

// Point renames the prepared configuration over the one in use, reloads and
// looks that the databases are at to. What was not prepared for to, or not from
// the configuration as it is now, is written first.
func (b *PgBouncer) Point(ctx context.Context, to *pg.Server) error {
	// The files first: an instance that is down comes back with the new one.
	err := b.configure(ctx, to)
	return errors.Join(err, all(b.Instances, func(i Instance) error { return b.reload(ctx, i, to) }))
}

// configure makes the configuration in use lead to a server.
func (b *PgBouncer) configure(ctx context.Context, to *pg.Server) error {
	if b.writing != nil {
		b.writing.Lock()
		defer b.writing.Unlock()
	}
	return all(b.files(), func(f file) error {
		is, want, err := b.wanted(ctx, f, to)
		if err != nil || bytes.Equal(is, want) {
			return err
		}
		if got, err := f.read(ctx, prepared(f.path)); err != nil || !bytes.Equal(got, want) {
			if err := f.prepare(ctx, want); err != nil {
				return err
			}
		}
		return f.run(ctx, f.moves(), nil)
	})
}

func (b *PgBouncer) reload(ctx context.Context, i Instance, to *pg.Server) error {
	host, port := address(to)
	return i.talk(ctx, func(conn *pgconn.PgConn) error {
		if err := i.tell(ctx, conn, reloadCommand); err != nil {
			return err
		}
		shown, err := i.databases(ctx, conn)
		if err != nil {
			return err
		}
		for _, db := range b.Databases {
			// One that only the entry * serves is not known before its first client.
			if d, ok := shown[db]; ok && (d.host != host || d.port != port) {
				return &pg.Error{
					Doing: "point " + db + " at " + to.Address(), On: i.on(), Object: db,
					Err:  fmt.Errorf("after RELOAD it is still at %s", net.JoinHostPort(d.host, d.port)),
					Hint: "its log says why it did not take " + i.Config,
				}
			}
		}
		return nil
	})
}

// Where is the address that the databases are at, or every one of them where
// they differ.
func (b *PgBouncer) Where(ctx context.Context) (string, error) {
	at := make([]map[string]bool, len(b.Instances))
	var places []int
	for n := range b.Instances {
		at[n] = map[string]bool{}
		places = append(places, n)
	}
	err := all(places, func(n int) error {
		i := b.Instances[n]
		return i.talk(ctx, func(conn *pgconn.PgConn) error {
			shown, err := i.databases(ctx, conn)
			for _, db := range b.Databases {
				if d, ok := shown[db]; ok {
					at[n][net.JoinHostPort(d.host, d.port)] = true
				}
			}
			return err
		})
	})
	var all []string
	for _, one := range at {
		for a := range one {
			all = append(all, a)
		}
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", "), err
}
