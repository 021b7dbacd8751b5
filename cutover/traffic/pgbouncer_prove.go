package traffic

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5/pgconn"
)

// view is what was read of one instance.
type view struct {
	Instance
	shown map[string]database
	set   map[string]string // SHOW CONFIG
	users []map[string]string
	pools []map[string]string // one for each user and database that a client came for
	file  *ini
}

// Problems tells everything that blocks Point to that server,
// having read poolers, files and the server and written nothing. The error
// says what could not be asked.
func (b *PgBouncer) Problems(ctx context.Context, to *pg.Server) ([]Problem, error) {
	views := make([]view, len(b.Instances))
	found := make([][]Problem, len(b.Instances))
	var places []int
	for n := range b.Instances {
		places = append(places, n)
	}
	err := all(places, func(n int) error {
		var err error
		views[n], found[n], err = b.look(ctx, b.Instances[n])
		return err
	})
	if err != nil {
		return nil, err
	}
	problems := slices.Concat(found...)
	problems = append(problems, b.shared(views)...)
	for _, v := range views {
		if v.file == nil {
			continue
		}
		problems = append(problems, b.databases(v, to)...)
		refused, err := b.logins(ctx, v, to)
		if err != nil {
			return nil, err
		}
		problems = append(problems, refused...)
	}
	return unique(problems), nil
}

func unique(problems []Problem) []Problem {
	var out []Problem
	for _, p := range problems {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

// look reads one instance and its file.
func (b *PgBouncer) look(ctx context.Context, i Instance) (view, []Problem, error) {
	v := view{Instance: i}
	err := i.talk(ctx, func(conn *pgconn.PgConn) (err error) {
		if v.shown, err = i.databases(ctx, conn); err != nil {
			return err
		}
		if v.set, err = i.settings(ctx, conn); err != nil {
			return err
		}
		if v.users, err = i.show(ctx, conn, "USERS"); err != nil {
			return err
		}
		v.pools, err = i.show(ctx, conn, "POOLS")
		return err
	})
	if err != nil {
		return v, nil, err
	}
	f := file{i.host(), i.Config}
	unusable := func(err error) (view, []Problem, error) {
		return v, []Problem{{ID: PoolConfig, On: i.on(), Object: i.Config, Says: err.Error()}}, nil
	}
	text, err := f.read(ctx, f.path)
	if err != nil {
		return unusable(err)
	}
	if v.file, err = parseINI(text); err != nil {
		return unusable(fmt.Errorf("%s: %w", f, err))
	}
	if p, bad := b.place(ctx, v, f); bad {
		return v, []Problem{p}, nil
	}
	return v, nil, nil
}

// place looks whether the file is the one in use, and a file.
func (b *PgBouncer) place(ctx context.Context, v view, f file) (Problem, bool) {
	p := Problem{ID: PoolConfig, On: v.on(), Object: v.Config}
	for _, key := range []string{"conffile", "config_file"} {
		if used := v.set[key]; strings.HasPrefix(used, "/") && used != v.Config {
			p.Says, p.Fix = fmt.Sprintf("it reads %s, not %s", used, v.Config), "config: "+used
			return p, true
		}
	}
	if f.host.Run(ctx, pg.Cmd{Args: []string{"test", "-L", f.path}}) == nil {
		p.Says, p.Fix = f.String()+" is a symbolic link, which a rename would replace", "give the path of the file itself in config:"
		return p, true
	}
	return p, false
}

// databases judges the named databases and whatever else leads to their server.
func (b *PgBouncer) databases(v view, to *pg.Server) []Problem {
	var problems []Problem
	say := func(p Problem) {
		p.On = v.on()
		problems = append(problems, p)
	}
	homes := map[string]bool{} // where the named databases are now
	for _, db := range b.Databases {
		if db == anyDatabase {
			say(b.wildcard(v))
			continue
		}
		e, own, ok := v.file.find(db)
		if !ok || !own && (len(v.file.includes) > 0 || !writable(db)) {
			say(Problem{ID: PoolDatabase, Object: db, Says: v.Config + ": " + v.file.missing(db).Error()})
			continue
		}
		host, port := e.address()
		homes[net.JoinHostPort(host, port)] = true
		d, known := v.shown[db]
		if known && (d.host != host || d.port != port) {
			say(Problem{
				ID: PoolConfig, Object: db,
				Says: fmt.Sprintf("%s leads %s to %s, and the pooler sends it to %s", v.Config, db, net.JoinHostPort(host, port), net.JoinHostPort(d.host, d.port)),
				Fix:  "make the file say what is wanted, and RELOAD",
			})
		}
		if d.paused {
			say(Problem{ID: PoolPaused, Object: db, Says: db + " is paused already, and not by this run", Fix: resumeCommand(db)})
		}
		problems = append(problems, b.sessions(v, db, d)...)
	}
	if host, port := address(to); b.moved(v, host, port) {
		delete(homes, net.JoinHostPort(host, port)) // others may well be at to
	}
	problems = append(problems, b.aliases(v, homes)...)
	if wait, err := strconv.ParseFloat(v.set["query_wait_timeout"], 64); err == nil && wait > 0 && b.Blocked > 0 && wait <= b.Blocked.Seconds() {
		say(Problem{
			ID: PoolWait, Acceptable: true,
			Says: fmt.Sprintf("query_wait_timeout is %gs: PgBouncer disconnects clients that wait longer, and they may have to wait %s", wait, b.Blocked),
			Fix:  fmt.Sprintf("SET query_wait_timeout = %d", int(b.Blocked/time.Second)*4+1),
		})
	}
	return problems
}

// moved is whether every named database is at that address already.
func (b *PgBouncer) moved(v view, host, port string) bool {
	return !slices.ContainsFunc(b.Databases, func(db string) bool {
		e, _, ok := v.file.find(db)
		if !ok || db == anyDatabase {
			return false
		}
		h, p := e.address()
		return h != host || p != port
	})
}

// sessions judges how clients of db share connections.
func (b *PgBouncer) sessions(v view, db string, d database) []Problem {
	p := Problem{ID: PoolSession, On: v.on(), Object: db, Acceptable: true, Fix: "pool_mode = transaction, or end the sessions before the cutover"}
	mode := d.mode
	if e, _, ok := v.file.find(db); mode == "" && ok {
		mode, _ = e.get("pool_mode")
	}
	if mode == "" {
		mode = v.set["pool_mode"]
	}
	var problems []Problem
	if mode == "session" {
		p.Says = db + " is pooled by session: PAUSE waits until every client has left"
		problems = append(problems, p)
	}
	for _, u := range v.users {
		if u["pool_mode"] == "session" && mode != "session" {
			p.Says = fmt.Sprintf("user %s of %s is pooled by session: PAUSE waits until its clients have left", u["name"], db)
			problems = append(problems, p)
		}
	}
	return problems
}

// wildcard refuses the entry for every other database among the named ones:
// PgBouncer pauses databases by their names, and has none called *.
func (b *PgBouncer) wildcard(v view) Problem {
	p := Problem{
		ID: PoolDatabase, Object: anyDatabase,
		Says: "databases: names *, the entry for every database without one of its own: PgBouncer pauses and resumes databases by name, and knows none of that name",
		Fix:  "name the databases that clients ask for; each gets an entry of its own beside *",
	}
	var names []string
	for _, db := range b.Moved {
		if _, own, ok := v.file.find(db); ok && !own && !slices.Contains(b.Databases, db) {
			names = append(names, db)
		}
	}
	if len(names) > 0 {
		p.Fix = fmt.Sprintf("in the place of *, name the databases that clients ask for: databases: [%s]; each gets an entry of its own beside *", strings.Join(names, ", "))
	}
	return p
}

// named are the databases but for *, which is none.
func (b *PgBouncer) named() []string {
	return slices.DeleteFunc(slices.Clone(b.Databases), func(db string) bool { return db == anyDatabase })
}

func (b *PgBouncer) moves(dbname string) bool {
	return b.Moved == nil || slices.Contains(b.Moved, dbname)
}

// aliases are the other names that lead to the databases that are moved, where
// the named ones are.
func (b *PgBouncer) aliases(v view, homes map[string]bool) []Problem {
	var problems []Problem
	seen := map[string]bool{}
	say := func(name, says, fix string) {
		if !seen[name] && !slices.Contains(b.Databases, name) && !slices.Contains(b.Apart, name) {
			seen[name] = true
			problems = append(problems, Problem{ID: PoolAlias, On: v.on(), Object: name, Acceptable: true, Says: says, Fix: fix})
		}
	}
	alias := func(name, at, dbname string) {
		if homes[at] && b.moves(dbname) {
			say(name, fmt.Sprintf("%s leads to %s, too (database %s), and would stay there, where writes are refused", name, at, dbname), "add it to databases:, or accept it")
		}
	}
	for _, d := range v.shown {
		alias(d.name, net.JoinHostPort(d.host, d.port), d.dbname)
	}
	for _, e := range v.file.entries {
		host, port := e.address()
		at := net.JoinHostPort(host, port)
		if e.name != anyDatabase {
			alias(e.name, at, e.database(e.name))
			continue
		}
		if !homes[at] {
			continue
		}
		if dbname, fixed := e.get("dbname"); fixed {
			if b.moves(dbname) {
				say(anyDatabase, fmt.Sprintf("every name without an entry of its own leads to %s, too (database %s, by the entry *), and would stay there, where writes are refused", at, dbname),
					"give every name that clients use an entry of its own and add it to databases:, or accept it")
			}
			continue
		}
		for _, db := range b.Moved {
			if _, own, _ := v.file.find(db); !own {
				say(db, fmt.Sprintf("the entry * leads clients of %s to %s, too, and would leave them there, where writes are refused", db, at), "add it to databases:, or accept it")
			}
		}
	}
	slices.SortFunc(problems, func(a, c Problem) int { return strings.Compare(a.Object, c.Object) })
	return problems
}

// shared finds several processes behind one address, of which a console
// reaches any.
func (b *PgBouncer) shared(views []view) []Problem {
	var problems []Problem
	for _, v := range views {
		if v.set["so_reuseport"] != "1" {
			continue
		}
		p := Problem{ID: PoolShared, On: v.on()}
		host, port := v.Admin.Host()
		siblings := 0
		for _, o := range views {
			if o.host().Name() == v.host().Name() && o.set["listen_port"] == v.set["listen_port"] {
				siblings++
			}
		}
		switch {
		case !strings.HasPrefix(host, "/") && v.set["listen_port"] == strconv.Itoa(int(port)):
			p.Says = fmt.Sprintf("so_reuseport is on: any of several processes may answer at %s, and PAUSE would reach one of them", v.Admin.Address())
			p.Fix = "give every process an instance with its own Unix socket folder as host"
		case siblings < 2:
			p.Says = fmt.Sprintf("so_reuseport is on, and only one instance is given for port %s: the processes that are not named would not be paused", v.set["listen_port"])
			p.Fix = "give every process as an instance"
		default:
			continue
		}
		problems = append(problems, p)
	}
	return problems
}
