package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options says what cluster to make.
type Options struct {
	// Name is the cluster's name in the lab and its cluster_name. Required.
	Name string
	// Major is the major version. Required, unless Install is given.
	Major int
	// Install is the installation to take. nil: what the lab's Store finds for Major.
	Install *Install
	// Dir is the folder to make it in, and to remove in the end: the data directory is Dir/data, the log Dir/log. It may
	// exist if there is nothing in it. Empty: <lab>/<Name>.
	Dir string
	// Port to listen on, on 127.0.0.1 and on a socket. 0: a free one.
	Port int
	// Settings go into postgresql.conf over the lab's own: wal_level logical, 20 senders, slots and workers, fsync off,
	// everything in UTC. Values as in postgresql.conf, without quotes.
	Settings map[string]string
	// HBA is lines that come first in pg_hba.conf. Behind them everybody is trusted on this machine.
	HBA []string
	// InitdbArgs come after the lab's own: trust, UTF8, locale C.
	InitdbArgs []string
	// Superuser is the bootstrap role. Empty: postgres.
	Superuser string
	// Host is where it runs. nil: this machine, on 127.0.0.1.
	Host *Host
	// Fsync leaves fsync on. Without it a server survives Kill, but not the machine's crash, and everything is quicker.
	Fsync bool
}

// A Cluster is one PostgreSQL server of the lab, a primary or a standby. It stays the same when the server is stopped,
// killed, rebuilt or restarted, by whomever.
type Cluster struct {
	Name      string
	Major     int
	Bin       string // folder of its programs
	Home      string // its own folder, owned by the servers' user
	DataDir   string
	Socket    string // folder of its socket
	Port      int
	Superuser string

	lab   *Lab
	thing thing
}

// Start makes a new cluster and starts it. It returns when the server takes connections.
func (l *Lab) Start(ctx context.Context, o Options) (c *Cluster, err error) {
	i := o.Install
	if i == nil {
		if i, err = l.Store.Find(ctx, o.Major); err != nil {
			return nil, err
		}
	}
	if o.Superuser == "" {
		o.Superuser = "postgres"
	}
	c, err = l.newCluster(ctx, o.Name, i, o.Dir, o.Port, o.Superuser, o.Host)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	if err := l.makeData(ctx, i, o.Superuser, o.InitdbArgs, c.DataDir); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	settings := ordinary(o.Fsync)
	maps.Copy(settings, c.Settings())
	maps.Copy(settings, o.Settings)
	if err := c.configure(settings); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	hba := append(slices.Clone(o.HBA), hbaOfLab)
	if err := l.owner.write(filepath.Join(c.DataDir, "pg_hba.conf"), strings.Join(hba, "\n")+"\n", 0o600); err != nil {
		return nil, err
	}
	return c, c.Boot(ctx)
}

// ordinary is what every server of the lab is set to, primaries and standbys alike.
func ordinary(fsync bool) map[string]string {
	return map[string]string{
		"wal_level": "logical", "max_wal_senders": "20", "max_replication_slots": "20", "max_worker_processes": "20",
		"max_logical_replication_workers": "16", "max_sync_workers_per_subscription": "4", "shared_buffers": "64MB",
		"fsync": onOff(fsync), "timezone": zone(), "log_timezone": zone(),
	}
}

// zone is UTC, by the one name that a server knows where there is no time zone database.
func zone() string {
	if _, err := os.Stat("/usr/share/zoneinfo/UTC"); err != nil {
		return "GMT"
	}
	return "UTC"
}

const hbaOfLab = `local all all trust
host all all samehost trust
host all all samenet trust
local replication all trust
host replication all samehost trust
host replication all samenet trust`

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

// newCluster finds a place for a cluster and writes it down; there is nothing in it yet.
func (l *Lab) newCluster(ctx context.Context, name string, i *Install, home string, port int, superuser string, h *Host) (*Cluster, error) {
	if home == "" {
		home = filepath.Join(l.Dir, name)
	}
	home, err := filepath.Abs(home)
	if err != nil {
		return nil, err
	}
	if err := empty(home); err != nil {
		return nil, err
	}
	if port, err = takePort(ctx, l.Dir, port); err != nil {
		return nil, err
	}
	data := filepath.Join(home, "data")
	t := thing{
		Kind: "cluster", Name: name, Major: i.Major, Bin: i.Bin, Home: home, Works: data,
		PidFile: filepath.Join(data, "postmaster.pid"), Port: port, Superuser: superuser,
		Lock: filepath.Join(l.sockets, fmt.Sprintf(".s.PGSQL.%d.lock", port)),
	}
	if h != nil {
		t.Namespace, t.Address = h.namespace, h.Address
	}
	if err := l.add(t); err != nil {
		return nil, err
	}
	return l.cluster(t), l.owner.mkdir(home, 0o755)
}

func (l *Lab) cluster(t thing) *Cluster {
	return &Cluster{
		Name: t.Name, Major: t.Major, Bin: t.Bin, Home: t.Home, DataDir: t.Works, Socket: l.sockets, Port: t.Port,
		Superuser: t.Superuser, lab: l, thing: t,
	}
}

// Settings is what a server must have set to live in this place beside the others of the lab: port, sockets, cluster_name
// and the log, which goes to Home/log whoever starts it.
func (c *Cluster) Settings() map[string]string {
	return map[string]string{
		"port":                    strconv.Itoa(c.Port),
		"listen_addresses":        c.thing.listens(),
		"unix_socket_directories": c.Socket,
		"cluster_name":            c.Name,
		"logging_collector":       "on",
		"log_destination":         "stderr",
		"log_directory":           "../log", // of the data directory: a base backup's copy logs beside itself
		"log_filename":            "server.log",
		"log_rotation_age":        "0",
		"log_rotation_size":       "0",
		"log_file_mode":           "0644",
		"log_line_prefix":         "%m [%p] %q%u@%d %a ",
	}
}

// configure adds settings to the end of postgresql.conf, where they win over what stands before.
func (c *Cluster) configure(settings map[string]string) error {
	path := filepath.Join(c.DataDir, "postgresql.conf")
	if c.thing.Config != "" {
		path = filepath.Join(c.thing.Config, "postgresql.conf")
	}
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return c.lab.owner.write(path, string(b)+settingLines(settings), 0o600)
}

func settingLines(settings map[string]string) string {
	var s strings.Builder
	s.WriteString("\n# the lab's\n")
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&s, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return s.String()
}

// Boot starts a server that does not run, killed or stopped before, and waits until it takes connections. The server
// outlives ctx. One that runs already is left alone.
func (c *Cluster) Boot(ctx context.Context) error {
	if c.Running() {
		return c.Wait(ctx)
	}
	if err := c.thing.bury(ctx); err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	logfile, err := os.OpenFile(filepath.Join(c.Home, "start.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = logfile.Close() }() // the server has its own descriptor
	args := []string{"-D", c.DataDir}
	if c.thing.Config != "" {
		args = append(args, "-c", "config_file="+filepath.Join(c.thing.Config, "postgresql.conf"))
	}
	cmd := c.lab.owner.command(context.WithoutCancel(ctx), filepath.Join(c.Bin, "postgres"), args...)
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid = false, true // a terminal's Ctrl-C is not for servers
	cmd.Dir = c.DataDir
	cmd.Stdout, cmd.Stderr = logfile, logfile
	if err := hostOf(c.thing).start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps the server, whenever it ends
	err = Poll(ctx, 10*time.Millisecond, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("the server ended at once: %w: %s", err, tail(c.Log(), 2000))
		default:
			return c.ready(), nil
		}
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	return nil
}

// ready reads the server's own word on line 8 of postmaster.pid, as pg_ctl does.
func (c *Cluster) ready() bool {
	b, err := os.ReadFile(c.thing.PidFile)
	if err != nil {
		return false
	}
	// The file may still be that of a server that was killed, and the next moment
	// that of its successor.
	lines := strings.Split(string(b), "\n")
	if len(lines) < 8 || lines[0] != strconv.Itoa(c.Pid()) {
		return false
	}
	word := strings.TrimSpace(lines[7])
	return word == "ready" || word == "standby"
}

// Wait waits until the server takes connections.
func (c *Cluster) Wait(ctx context.Context) error {
	err := Poll(ctx, 10*time.Millisecond, func() (bool, error) { return c.ready(), nil })
	if err != nil {
		return fmt.Errorf("wait for %s: %w", c.Name, err)
	}
	return nil
}

// Pid is the postmaster's process, 0 if it does not run. It also finds a server that others started in DataDir.
func (c *Cluster) Pid() int { return c.thing.pid(context.Background()) }

// Running says whether the server runs, frozen or not.
func (c *Cluster) Running() bool { return c.Pid() != 0 }

// Mode is how to stop a server.
type Mode syscall.Signal

// Smart waits for clients to leave, Fast ends them, Immediate does not even write a checkpoint.
const (
	Smart     = Mode(syscall.SIGTERM)
	Fast      = Mode(syscall.SIGINT)
	Immediate = Mode(syscall.SIGQUIT)
)

// Stop stops the server and waits until it is gone. One that does not run is stopped already.
func (c *Cluster) Stop(ctx context.Context, m Mode) error {
	pid := c.Pid()
	if pid == 0 {
		return nil
	}
	if err := signal(pid, syscall.Signal(m)); err != nil {
		return err
	}
	if err := gone(ctx, pid); err != nil {
		return fmt.Errorf("stop %s: %w", c.Name, err)
	}
	return nil
}

// Restart stops the server fast and boots it.
func (c *Cluster) Restart(ctx context.Context) error {
	if err := c.Stop(ctx, Fast); err != nil {
		return err
	}
	return c.Boot(ctx)
}

// Kill ends the server and all its processes at once, as when the power fails, and waits until they are gone.
func (c *Cluster) Kill(ctx context.Context) error {
	pid := c.Pid()
	if pid == 0 {
		return nil
	}
	if err := kill(ctx, pid); err != nil {
		return fmt.Errorf("kill %s: %w", c.Name, err)
	}
	return c.thing.bury(ctx)
}

// Freeze stops every process of the server where it stands, as a hanging machine would; its connections stay open.
func (c *Cluster) Freeze(ctx context.Context) error {
	pid := c.Pid()
	if pid == 0 {
		return fmt.Errorf("freeze %s: it does not run", c.Name)
	}
	if _, err := freeze(ctx, pid); err != nil {
		return fmt.Errorf("freeze %s: %w", c.Name, err)
	}
	return nil
}

// Thaw lets a frozen server go on.
func (c *Cluster) Thaw(ctx context.Context) error {
	pid := c.Pid()
	if pid == 0 {
		return fmt.Errorf("thaw %s: it does not run", c.Name)
	}
	return thaw(ctx, pid)
}

// Promote makes a standby a primary and waits until it takes writes.
func (c *Cluster) Promote(ctx context.Context) error {
	if _, err := c.lab.Run(ctx, filepath.Join(c.Bin, "pg_ctl"), "promote", "-w", "-D", c.DataDir); err != nil {
		return fmt.Errorf("promote %s: %w", c.Name, err)
	}
	return nil
}

// Remove kills the server, removes its folder and strikes it out of the lab. Its slot on its upstream stays.
func (c *Cluster) Remove(ctx context.Context) error {
	if err := c.thing.end(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(c.Home); err != nil {
		return err
	}
	return c.lab.forget(c.Name)
}

// Log is everything the server has said, by whomever it was started.
func (c *Cluster) Log() string {
	var s strings.Builder
	for _, name := range []string{"start.log", "log/server.log"} {
		if b, err := os.ReadFile(filepath.Join(c.Home, name)); err == nil {
			s.Write(b)
		}
	}
	return s.String()
}

// Conninfo is a connection string of libpq's, which pgx takes too, for the superuser over TCP. Empty db: postgres. Extra
// words come last and win, as in Conninfo("shop", "user=app", "port=6432").
func (c *Cluster) Conninfo(db string, extra ...string) string {
	return conninfo(c.Address(), c.Port, c.Superuser, db, extra)
}

// Address is where the server listens and Conninfo leads: 127.0.0.1, or its Host's.
func (c *Cluster) Address() string { return hostOf(c.thing).address() }

func (t thing) listens() string {
	if t.Address == "" {
		return loopback
	}
	return t.Address + "," + loopback
}

func conninfo(host string, port int, user, db string, extra []string) string {
	if db == "" {
		db = "postgres"
	}
	words := []string{
		"host=" + quoteValue(host), "port=" + strconv.Itoa(port), "user=" + quoteValue(user), "dbname=" + quoteValue(db),
		"sslmode=disable",
	}
	return strings.Join(append(words, extra...), " ")
}

// quoteValue quotes a value of a connection string where it must be.
func quoteValue(v string) string {
	if v != "" && !strings.ContainsAny(v, ` '\`+"\t\n") {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// Connect opens a connection as the superuser. The caller closes it.
func (c *Cluster) Connect(ctx context.Context, db string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, c.Conninfo(db))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	return conn, nil
}

// Command prepares one of the cluster's own programs, as the owner of its data.
func (c *Cluster) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return c.lab.Command(ctx, filepath.Join(c.Bin, program), args...)
}
