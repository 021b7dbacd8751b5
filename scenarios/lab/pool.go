package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// PoolAdmin is the user that may use a pool's admin console.
const PoolAdmin = "pgbouncer"

// PoolOptions says what PgBouncer to start.
type PoolOptions struct {
	// Name is its name in the lab. Empty: pgbouncer.
	Name string
	// Databases are the pool's database names and where they lead.
	Databases map[string]Backend
	// Mode is the pool mode: transaction, session or statement. Empty: transaction.
	Mode string
	// Port to listen on. 0: a free one.
	Port int
	// AuthType is PgBouncer's auth_type. Empty: trust.
	AuthType string
	// Users are the users in its userlist beside PoolAdmin and the superusers of the clusters: name → password, which may be
	// empty with trust.
	Users map[string]string
	// Host is where it runs. nil: this machine, on 127.0.0.1.
	Host *Host
	// Settings go into its [pgbouncer] section over the lab's own, for example auth_query.
	Settings map[string]string
}

// Backend is where a pool's database leads.
type Backend struct {
	// Cluster it leads to.
	Cluster *Cluster
	// DB is the database there. Empty: that of the same name.
	DB string
	// Extra words of the connection string, such as "pool_size=5".
	Extra string
	// Through is a proxy in front of the cluster that it goes through. nil: none.
	Through *Proxy
}

// A Pool is one PgBouncer of the lab.
type Pool struct {
	Name   string
	Port   int
	Home   string // its own folder, which the servers' user may write
	Config string // its configuration; [databases] has one line a database, as in "shop = host=… port=… dbname=shop"

	lab     *Lab
	thing   thing
	program string
}

// PgBouncer starts a PgBouncer and returns when it answers.
func (l *Lab) PgBouncer(ctx context.Context, o PoolOptions) (*Pool, error) {
	if o.Name == "" {
		o.Name = "pgbouncer"
	}
	p, err := l.newPool(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	return p, p.Boot(ctx)
}

func (l *Lab) newPool(ctx context.Context, o PoolOptions) (*Pool, error) {
	program, err := l.Store.Program(ctx, "pgbouncer")
	if err != nil {
		return nil, err
	}
	port, err := takePort(ctx, l.Dir, o.Port)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(l.Dir, o.Name)
	p := &Pool{
		Name: o.Name, Port: port, Home: home, Config: filepath.Join(home, "pgbouncer.ini"), lab: l, program: program,
		thing: thing{
			Kind: "pool", Name: o.Name, Bin: program, Home: home, Works: home, PidFile: filepath.Join(home, "pgbouncer.pid"), Port: port,
		},
	}
	if o.Host != nil {
		p.thing.Namespace, p.thing.Address = o.Host.namespace, o.Host.Address
	}
	if err := l.add(p.thing); err != nil {
		return nil, err
	}
	if err := l.owner.mkdir(home, 0o755); err != nil {
		return nil, err
	}
	users := map[string]string{PoolAdmin: ""}
	for _, b := range o.Databases {
		users[b.Cluster.Superuser] = ""
	}
	maps.Copy(users, o.Users)
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(users)) {
		fmt.Fprintf(&list, "%q %q\n", name, users[name])
	}
	if err := l.owner.write(filepath.Join(home, "userlist.txt"), list.String(), 0o644); err != nil {
		return nil, err
	}
	return p, l.owner.write(p.Config, p.ini(o), 0o644)
}

// ini writes the configuration.
func (p *Pool) ini(o PoolOptions) string {
	settings := map[string]string{
		"listen_addr":     p.thing.listens(),
		"listen_port":     strconv.Itoa(p.Port),
		"unix_socket_dir": p.lab.sockets,
		"auth_type":       "trust",
		"auth_file":       filepath.Join(p.Home, "userlist.txt"),
		"admin_users":     PoolAdmin,
		"pool_mode":       "transaction",
		"max_client_conn": "500", "default_pool_size": "20", "server_login_retry": "1",
		"logfile":                   filepath.Join(p.Home, "pgbouncer.log"),
		"pidfile":                   p.thing.PidFile,
		"ignore_startup_parameters": "extra_float_digits",
	}
	if o.Mode != "" {
		settings["pool_mode"] = o.Mode
	}
	if o.AuthType != "" {
		settings["auth_type"] = o.AuthType
	}
	maps.Copy(settings, o.Settings)
	var s strings.Builder
	s.WriteString("[databases]\n")
	for _, name := range slices.Sorted(maps.Keys(o.Databases)) {
		b := o.Databases[name]
		db := b.DB
		if db == "" {
			db = name
		}
		words := fmt.Sprintf("host=%s port=%d", b.Cluster.Address(), b.Cluster.Port)
		if b.Through != nil {
			words = b.Through.Words()
		}
		line := fmt.Sprintf("%s = %s dbname=%s %s", name, words, db, b.Extra)
		s.WriteString(strings.TrimSpace(line) + "\n")
	}
	s.WriteString("\n[pgbouncer]\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&s, "%s = %s\n", name, settings[name])
	}
	return s.String()
}

// Boot starts a pool that does not run and returns when it answers.
func (p *Pool) Boot(ctx context.Context) error {
	if p.Running() {
		return nil
	}
	logfile, err := os.OpenFile(filepath.Join(p.Home, "start.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = logfile.Close() }()
	if err := os.Remove(p.thing.PidFile); err != nil && !errors.Is(err, os.ErrNotExist) { // of one that was killed
		return err
	}
	cmd := p.lab.owner.command(context.WithoutCancel(ctx), p.program, "-q", p.Config)
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid = false, true
	cmd.Dir = p.Home
	cmd.Stderr = logfile
	if err := hostOf(p.thing).start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps it, whenever it ends
	err = Poll(ctx, 10*time.Millisecond, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("it ended at once: %w: %s", err, tail(p.Log(), 2000))
		default:
		}
		_, err := p.Admin(ctx, "SHOW VERSION")
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	return nil
}

// Conninfo is the connection string of one of the pool's databases, for the superuser postgres. Extra words come last and
// win.
func (p *Pool) Conninfo(db string, extra ...string) string {
	return conninfo(hostOf(p.thing).address(), p.Port, "postgres", db, extra)
}

// AdminConninfo is the connection string of the admin console.
func (p *Pool) AdminConninfo() string {
	return conninfo(hostOf(p.thing).address(), p.Port, PoolAdmin, "pgbouncer", nil)
}

// Admin gives one command to the admin console, on a connection of its own, and returns the rows of its answer.
func (p *Pool) Admin(ctx context.Context, command string) (rows [][]string, err error) {
	conn, err := pgconn.Connect(ctx, p.AdminConninfo())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	results, err := conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", p.Name, command, err)
	}
	for _, r := range results {
		rows = append(rows, textRows(r.Rows)...)
	}
	return rows, nil
}

// Pid is the pool's process, 0 if it does not run.
func (p *Pool) Pid() int { return p.thing.pid(context.Background()) }

// Running says whether it runs, frozen or not.
func (p *Pool) Running() bool { return p.Pid() != 0 }

// Stop ends it through the console, at once, with its clients' connections.
func (p *Pool) Stop(ctx context.Context) error {
	pid := p.Pid()
	if pid == 0 {
		return nil
	}
	_, err := p.Admin(ctx, "SHUTDOWN") // which it answers by closing the connection
	patience, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if gone(patience, pid) == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("stop %s: it still runs", p.Name), err)
}

// Kill ends it at once.
func (p *Pool) Kill(ctx context.Context) error {
	if pid := p.Pid(); pid != 0 {
		return kill(ctx, pid)
	}
	return nil
}

// Freeze stops its process where it stands; its connections stay open. Thaw resumes it.
func (p *Pool) Freeze(context.Context) error {
	pid := p.Pid()
	if pid == 0 {
		return fmt.Errorf("freeze %s: it does not run", p.Name)
	}
	return signal(pid, syscall.SIGSTOP)
}

// Thaw lets a frozen pool go on.
func (p *Pool) Thaw(context.Context) error {
	pid := p.Pid()
	if pid == 0 {
		return fmt.Errorf("thaw %s: it does not run", p.Name)
	}
	return signal(pid, syscall.SIGCONT)
}

// Log is what it has written.
func (p *Pool) Log() string {
	var s strings.Builder
	for _, name := range []string{"start.log", "pgbouncer.log"} {
		if b, err := os.ReadFile(filepath.Join(p.Home, name)); err == nil {
			s.Write(b)
		}
	}
	return s.String()
}
