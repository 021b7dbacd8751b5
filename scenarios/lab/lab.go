package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// stateFile is the file in a lab's folder that says what was started.
const stateFile = "lab.json"

// Config says how to set up a Lab. The zero Config is a lab in a new folder that ends with this process.
type Config struct {
	// Dir is the lab's folder; it may exist if it is empty. Empty: a new one in the system's folder for temporary files.
	Dir string
	// Keep lets the servers live on when this process ends, until somebody calls Down. Otherwise they are stopped and the
	// folder is removed even if the process is killed.
	Keep bool
	// Store is where installations come from. nil: the zero Store.
	Store *Store
}

// A Lab is a folder with servers in it. Everything started through it is written down in a file there, so that this
// process or another can stop it all. Its methods may be called at the same time.
type Lab struct {
	// Dir is the lab's folder, an absolute path.
	Dir string
	// Store is where installations come from.
	Store *Store

	owner    owner
	sockets  string // short enough for PostgreSQL
	keep     bool
	mu       sync.Mutex
	things   []thing
	guardian *guardian
}

// thing is a server as the state file knows it. Which process it is stands in its own pid file, together with the
// folder that this process works in: servers are also restarted by others than the lab.
type thing struct {
	Kind      string `json:"kind"` // cluster, pool, sshd, daemon; bridge, netns: a network and its hosts, which have names only
	Name      string `json:"name"`
	Major     int    `json:"major,omitempty"`
	Bin       string `json:"bin,omitempty"`
	Home      string `json:"home"`
	Works     string `json:"works"`          // the folder it works in
	PidFile   string `json:"pid_file"`       // its first line
	Lock      string `json:"lock,omitempty"` // its socket's lock file, which has its process too
	Port      int    `json:"port"`
	Superuser string `json:"superuser,omitempty"`
	Config    string `json:"config,omitempty"`    // folder of a configuration outside the data directory
	Namespace string `json:"namespace,omitempty"` // of the host that it is on, if not this one
	Address   string `json:"address,omitempty"`   // there
}

type state struct {
	Version int     `json:"version"`
	Keep    bool    `json:"keep"`
	Pid     int     `json:"pid"` // who made it
	Sockets string  `json:"sockets"`
	Things  []thing `json:"things"`
}

// New sets up an empty lab.
func New(ctx context.Context, c Config) (*Lab, error) {
	o, err := serverOwner()
	if err != nil {
		return nil, err
	}
	l := &Lab{Store: c.Store, owner: o, keep: c.Keep}
	if l.Store == nil {
		l.Store = &Store{}
	}
	temporary := c.Dir == ""
	if temporary {
		l.Dir, err = os.MkdirTemp("", "crossfade-lab-")
	} else {
		l.Dir, err = filepath.Abs(c.Dir)
	}
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(l.Dir, stateFile)); err == nil {
		return nil, fmt.Errorf("there is a lab in %s already; take it down first", l.Dir)
	}
	if err := empty(l.Dir); err != nil {
		return nil, err
	}
	if err := o.mkdir(l.Dir, 0o755); err != nil {
		return nil, err
	}
	if o.drop && !open(l.Dir) {
		return nil, fmt.Errorf("the user %s, who runs the servers, may not enter %s", o.Name, l.Dir)
	}
	l.sockets = filepath.Join(l.Dir, "s")
	if len(l.sockets)+len("/.s.PGSQL.65535.lock") > 107 { // the limit of a socket's address
		if l.sockets, err = os.MkdirTemp("/tmp", "crossfade-s-"); err != nil {
			return nil, err
		}
	}
	if err := o.mkdir(l.sockets, 0o755); err != nil {
		return nil, err
	}
	if !c.Keep {
		if l.guardian, err = startGuardian(ctx, l.Dir, l.sockets); err != nil {
			return nil, err
		}
	}
	return l, l.save()
}

// Open looks at a lab that another process made.
func Open(dir string) (*Lab, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("no lab in %s: %w", dir, err)
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stateFile), err)
	}
	o, err := serverOwner()
	if err != nil {
		return nil, err
	}
	return &Lab{Dir: dir, Store: &Store{}, owner: o, sockets: st.Sockets, keep: st.Keep, things: st.Things}, nil
}

// Down stops everything of the lab in a folder, whoever started it, and removes the folder.
func Down(ctx context.Context, dir string) error {
	l, err := Open(dir)
	if err != nil {
		return err
	}
	return l.Down(ctx)
}

// Down stops everything, also what is frozen and what others started in places that were reserved, and removes the lab's
// folder and those of clusters elsewhere. Calling it again does nothing.
func (l *Lab) Down(ctx context.Context) error {
	l.mu.Lock()
	things := slices.Clone(l.things)
	l.mu.Unlock()
	for _, daemons := range []bool{true, false} {
		var group errgroup.Group
		for _, t := range things {
			if (t.Kind == kindDaemon) == daemons {
				group.Go(func() error { return t.end(ctx) })
			}
		}
		if err := group.Wait(); err != nil {
			return fmt.Errorf("take down %s: %w", l.Dir, err)
		}
	}
	var errs []error
	for _, t := range things {
		if t.network() {
			errs = append(errs, t.removeNetwork(ctx))
		} else {
			errs = append(errs, os.RemoveAll(t.Home))
		}
	}
	errs = append(errs, returnPorts(ctx, l.Dir), l.guardian.dismiss(), os.RemoveAll(l.sockets), os.RemoveAll(l.Dir))
	return errors.Join(errs...)
}

// Clusters lists the lab's clusters, standbys and reserved places in the order they were made.
func (l *Lab) Clusters() []*Cluster {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*Cluster
	for _, t := range l.things {
		if t.Kind == "cluster" {
			all = append(all, l.cluster(t))
		}
	}
	return all
}

// Owner is the name of the user that servers run as and whose the folders are.
func (l *Lab) Owner() string { return l.owner.Name }

// Command prepares a program to be run as the servers' owner, in a process group of its own. For programs that refuse
// root, and for what must be able to read a data directory.
func (l *Lab) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return l.owner.command(ctx, program, args...)
}

// Run runs such a program and returns its standard output; the error has the end of what it printed.
func (l *Lab) Run(ctx context.Context, program string, args ...string) (string, error) {
	return run(ctx, l.owner.command(ctx, program, args...))
}

// empty refuses a folder with something in it: what the lab makes it will also remove.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is not empty", dir)
	}
	return err
}

var goodName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]*$`)

// add writes a new thing down before it is started.
func (l *Lab) add(t thing) error {
	if !goodName.MatchString(t.Name) || t.Name == "s" {
		return fmt.Errorf("%q is no name for a server", t.Name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, other := range l.things {
		if other.Name == t.Name {
			return fmt.Errorf("the lab has a %s named %s already", other.Kind, t.Name)
		}
	}
	l.things = append(l.things, t)
	if err := l.guardian.watch(t); err != nil {
		return err
	}
	return l.saveLocked()
}

// forget strikes a thing out.
func (l *Lab) forget(name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.things = slices.DeleteFunc(l.things, func(t thing) bool { return t.Name == name })
	return l.saveLocked()
}

func (l *Lab) save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.saveLocked()
}

func (l *Lab) saveLocked() error {
	b, err := json.MarshalIndent(state{Version: 1, Keep: l.keep, Pid: os.Getpid(), Sockets: l.sockets, Things: l.things}, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(l.Dir, stateFile)
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// pid is the process that the thing's pid file names, 0 if that does not run or is another one's by now.
func (t thing) pid(ctx context.Context) int {
	b, err := os.ReadFile(t.PidFile)
	if err != nil {
		return 0
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil || !works(ctx, pid, t.Works) {
		return 0
	}
	return pid
}

// bury takes the pid file of a process that is dead but that its parent has not asked after: PostgreSQL would take it for a
// server that runs. The parent is this process, or the system's first, and some of those take their time.
func (t thing) bury(ctx context.Context) error {
	b, err := os.ReadFile(t.PidFile)
	if err != nil {
		return nil // none, or none that is readable: no server either
	}
	var pid int
	if _, err := fmt.Sscan(string(b), &pid); err != nil || alive(pid) {
		return nil
	}
	patience, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	err = Poll(patience, 5*time.Millisecond, func() (bool, error) {
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH), nil
	})
	if err == nil {
		return nil
	}
	t.dropSharedMemory() // its number goes with the file
	for _, path := range []string{t.PidFile, t.Lock} {
		if err := os.Remove(path); err != nil && path != "" && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// end stops a thing for good: at once, but so that it can take its shared memory along.
func (t thing) end(ctx context.Context) error {
	if t.network() {
		return nil // when the servers are gone
	}
	pid := t.pid(ctx)
	if pid == 0 {
		t.dropSharedMemory()
		return nil
	}
	if err := thaw(ctx, pid); err != nil {
		return err
	}
	if err := signal(pid, syscall.SIGQUIT); err != nil {
		return err
	}
	all, err := family(ctx, pid)
	if err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := gone(patience, all...); err == nil {
		return nil
	}
	if err := kill(ctx, pid); err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	t.dropSharedMemory()
	return nil
}

// thaw lets pid and everything below it go on.
func thaw(ctx context.Context, pid int) error {
	all, err := family(ctx, pid)
	if err != nil {
		return err
	}
	slices.Reverse(all)
	for _, p := range all {
		if err := signal(p, syscall.SIGCONT); err != nil {
			return err
		}
	}
	return nil
}

// A guardian is a small process that outlives this one and clears up after it if it was killed: it reads from a pipe
// what there is, and the pipe's end without "done" means that nobody did.
type guardian struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// $1 is the lab's folder, $2 the sockets'. Each line: pid file, tab, the folder that the server works in; or netns or
// bridge, tab, name.
const guardianScript = `
list= # newest first: what was started later may start the earlier ones again
tab='	'
while IFS= read -r line; do
	[ "$line" = done ] && exit 0
	list="$line
$list"
done
each() { # runs what it is given with $pid and $dir of every server that still runs; fails if there was none
	printf '%s' "$list" | {
		left=1
		while IFS="$tab" read -r file dir; do
			pid=$(head -n 1 "$file") && dir=$(readlink -f "$dir") || continue
			[ -r "/proc/$pid/exe" ] && [ "$(readlink "/proc/$pid/cwd")" = "$dir" ] || continue
			left=0
			"$@"
		done 2>/dev/null
		return $left
	}
}
quit() {
	kill -QUIT "$pid"
	for p in /proc/[0-9]*; do # frozen ones
		[ "$(readlink "$p/cwd")" = "$dir" ] && kill -CONT "${p#/proc/}"
	done
}
each quit
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	each true || break
	sleep 0.1
done
each eval 'kill -KILL "$pid"'
printf '%s' "$list" | while IFS="$tab" read -r kind name; do
	case $kind in
	netns) ip netns del "$name" ;;
	bridge) ip link del "$name" ;;
	esac
done 2>/dev/null
[ -f "$1/lab.json" ] && rm -rf -- "$1" "$2"
`

func startGuardian(ctx context.Context, dir, sockets string) (*guardian, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", "-c", guardianScript, "crossfade-lab", dir, sockets)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Dir = "/"
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &guardian{cmd, pipe}, nil
}

func (g *guardian) watch(t thing) error {
	if g == nil {
		return nil
	}
	if strings.ContainsAny(t.PidFile+t.Works, "\t\n") {
		return fmt.Errorf("a tab or a line's end in the path %q", t.Works)
	}
	first, second := t.PidFile, t.Works
	if t.network() {
		first, second = t.Kind, t.Name
	}
	_, err := fmt.Fprintf(g.pipe, "%s\t%s\n", first, second)
	return err
}

// dismiss sends the guardian away with nothing left to do.
func (g *guardian) dismiss() error {
	if g == nil || g.cmd.ProcessState != nil {
		return nil
	}
	_, err := io.WriteString(g.pipe, "done\n")
	return errors.Join(err, g.cmd.Wait())
}

// replace writes down what changed of a thing.
func (l *Lab) replace(t thing) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.things {
		if l.things[i].Name == t.Name {
			l.things[i] = t
		}
	}
	return l.saveLocked()
}
