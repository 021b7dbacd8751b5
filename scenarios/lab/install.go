package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// An Install is one PostgreSQL installation.
type Install struct {
	Major      int
	Version    string // as the server prints it, for example "17.12"
	Bin        string // the folder with postgres, initdb, pg_dump …
	ServerOnly bool   // no client programs: a server of the npm packages, good for logical replication only
}

// Program is the path of one of the installation's programs.
func (i *Install) Program(name string) string { return filepath.Join(i.Bin, name) }

func (i *Install) String() string { return "PostgreSQL " + i.Version + " in " + i.Bin }

// serverPrograms is what a server needs, clientPrograms what an upgrade needs beside it.
var (
	serverPrograms = []string{"postgres", "initdb", "pg_ctl"}
	clientPrograms = []string{
		"pg_dump", "pg_restore", "pg_dumpall", "psql", "pg_basebackup", "pg_verifybackup", "pgbench", "pg_resetwal",
		"pg_controldata", "pg_waldump",
	}
)

// A Store finds installations and programs, and fetches what is missing. The zero Store is ready for use.
type Store struct {
	// Dir is the folder that fetched programs are kept in. Empty: $CROSSFADE_CACHE, or else the user's cache folder, or
	// for root, whose own folders the servers' user may not enter, /var/cache/crossfade.
	Dir string
	// Say is given what takes long, one line each ("fetching PostgreSQL 18 of forky"). nil: silence.
	Say func(line string)
}

// Find is Store.Find of the zero Store.
func Find(ctx context.Context, major int) (*Install, error) { return (&Store{}).Find(ctx, major) }

// Program is Store.Program of the zero Store.
func Program(ctx context.Context, name string) (string, error) {
	return (&Store{}).Program(ctx, name)
}

// Installed is Store.Installed of the zero Store.
func Installed(ctx context.Context) []*Install { return (&Store{}).Installed(ctx) }

// Find returns a complete installation of a major version: the one that $CROSSFADE_PG_<major> names (its bin folder; one
// that is not what it should be is an error), one of the machine's own, one that was fetched before, or one that it
// fetches now, which takes some ten seconds and the machine's package mirror. It works without root. Any number of
// processes may ask at once; one of them fetches. Where only a server can be had, ServerOnly is set.
func (s *Store) Find(ctx context.Context, major int) (*Install, error) {
	if dir := os.Getenv(pgVariable(major)); dir != "" {
		i, err := inspect(ctx, dir)
		if err == nil && i.Major != major {
			err = fmt.Errorf("is PostgreSQL %s", i.Version)
		}
		if err == nil && i.ServerOnly {
			err = fmt.Errorf("has no client programs (%s)", strings.Join(missing(dir, clientPrograms), ", "))
		}
		if err != nil {
			return nil, fmt.Errorf("%s=%s: %w", pgVariable(major), dir, err)
		}
		return i, nil
	}
	if i := s.find(ctx, major); i != nil {
		return i, nil
	}
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, fmt.Sprintf("postgresql-%d.lock", major)))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if i := s.find(ctx, major); i != nil { // another process was quicker
		return i, nil
	}
	return s.fetchServer(ctx, dir, major, "")
}

// With returns an installation of a major version that has the extension of that name, as packages of the distribution
// have it, beside its own. It is always one of the lab's own: nothing is added to the machine's.
func (s *Store) With(ctx context.Context, major int, extension string) (*Install, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("postgresql-%d-%s", major, extension)
	bin := filepath.Join(dir, name, "usr/lib/postgresql", strconv.Itoa(major), "bin")
	unlock, err := lockFile(ctx, filepath.Join(dir, name+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if executable(filepath.Join(bin, "postgres")) == nil && s.finished(bin) {
		return inspect(ctx, bin)
	}
	return s.fetchServer(ctx, dir, major, extension)
}

func pgVariable(major int) string { return "CROSSFADE_PG_" + strconv.Itoa(major) }

// find looks without fetching; complete installations come before server-only ones.
func (s *Store) find(ctx context.Context, major int) *Install {
	for _, i := range s.Installed(ctx) {
		if i.Major == major {
			return i
		}
	}
	return nil
}

// Installed lists what is there without fetching: by major, complete ones first, those of the machine before those that
// were fetched. Folders that are not a whole server are left out.
func (s *Store) Installed(ctx context.Context) []*Install {
	var patterns []string
	for major := 10; major < 40; major++ {
		if dir := os.Getenv(pgVariable(major)); dir != "" {
			patterns = append(patterns, dir)
		}
	}
	patterns = append(
		patterns, "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin",
		"/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
	)
	for _, dir := range s.roots() {
		patterns = append(
			patterns, filepath.Join(dir, "*", "usr/lib/postgresql/*/bin"), filepath.Join(dir, "npm-*", "bin"),
		)
	}
	var found []*Install
	for _, p := range patterns {
		dirs, err := filepath.Glob(p)
		if err != nil {
			continue // a bad pattern, from a folder with brackets in its name
		}
		for _, dir := range dirs {
			if !s.finished(dir) {
				continue
			}
			if i, err := inspect(ctx, dir); err == nil {
				found = append(found, i)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b *Install) int {
		return cmp.Or(cmp.Compare(a.Major, b.Major), compareBool(a.ServerOnly, b.ServerOnly))
	})
	return found
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// finished says whether dir is outside the cache, or in a part of it that was fetched to the end.
func (s *Store) finished(dir string) bool {
	for _, root := range s.roots() {
		rel, err := filepath.Rel(root, dir)
		if err != nil || strings.HasPrefix(rel, "..") {
			continue
		}
		first, _, _ := strings.Cut(rel, string(filepath.Separator))
		_, err = os.Stat(filepath.Join(root, first, completeMark))
		return err == nil
	}
	return true
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) (\d+)((?:\.\d+)*)\S*`)

// inspect looks at a bin folder.
func inspect(ctx context.Context, dir string) (*Install, error) {
	if lacks := missing(dir, serverPrograms); len(lacks) > 0 {
		return nil, fmt.Errorf("no %s in %s", strings.Join(lacks, ", "), dir)
	}
	o, err := serverOwner() // the postgres of some builds refuses even --version to root
	if err != nil {
		return nil, err
	}
	out, err := run(ctx, o.command(ctx, filepath.Join(dir, "postgres"), "--version"))
	if err != nil {
		return nil, err
	}
	m := versionPattern.FindStringSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("%s/postgres --version: %q", dir, out)
	}
	major, err := strconv.Atoi(m[1])
	if err != nil {
		return nil, err
	}
	return &Install{Major: major, Version: m[1] + m[2], Bin: dir, ServerOnly: len(missing(dir, clientPrograms)) > 0}, nil
}

// missing is which of the programs are not in dir.
func missing(dir string, programs []string) []string {
	return slices.DeleteFunc(slices.Clone(programs), func(name string) bool {
		st, err := os.Stat(filepath.Join(dir, name))
		return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
	})
}

// A program is one that is neither PostgreSQL nor certain to be there.
type program struct {
	pkg, path string   // its package, and where it is in that
	with      []string // packages that it does not demand, and is no use without
	calls     []string // other programs of its package that it runs
	names     []string // what else it is called where it is installed
	own       bool     // the machine's is no use: it needs what comes with it in its place
	// suites are where it is new enough, by distribution; nil: any will do.
	suites map[string][]string
}

// programs is where the lab gets them.
var programs = map[string]program{
	"pgbouncer": {pkg: "pgbouncer", path: "usr/sbin/pgbouncer"},
	"haproxy":   {pkg: "haproxy", path: "usr/sbin/haproxy"},
	"sshd":      {pkg: "openssh-server", path: "usr/sbin/sshd", calls: []string{"usr/lib/openssh", "usr/lib/sftp-server"}},
	"ssh":       {pkg: "openssh-client", path: "usr/bin/ssh", calls: []string{"usr/lib/openssh"}},
	"patchelf":  {pkg: "patchelf", path: "usr/bin/patchelf"},
	// A Python that has Patroni and its raft beside it.
	"patroni": {pkg: "patroni", path: "usr/bin/python3", with: []string{"python3-pysyncobj"}, calls: []string{"usr/bin"}, own: true},
	// 0.18 is what benchmarks compare with; suites of older releases have older ones.
	"pgcopydb": {
		pkg: "pgcopydb", path: "usr/bin/pgcopydb",
		suites: map[string][]string{"debian": {"forky", "sid"}, "ubuntu": {"resolute"}},
	},
	"chromium": {
		pkg: "chromium", path: "usr/lib/chromium/chromium", with: []string{"fonts-dejavu-core"},
		calls: []string{"usr/lib/chromium/chrome_crashpad_handler"}, names: []string{"chromium-browser", "google-chrome", "google-chrome-stable"},
	},
}

// Program returns the path of a program that servers, tests and benchmarks need beside PostgreSQL: pgbouncer, haproxy,
// ssh, sshd, patchelf, chromium, pgcopydb or patroni, which is the Python to run it with. $CROSSFADE_<NAME> names it; else it is looked for on the machine, in the cache, and then fetched
// like a server.
func (s *Store) Program(ctx context.Context, name string) (string, error) {
	p, ok := programs[name]
	if !ok {
		return "", fmt.Errorf("the lab knows no program %q", name)
	}
	if path, err := p.installed(name); path != "" || err != nil {
		return path, err
	}
	find := func() string {
		for _, root := range s.roots() {
			path := filepath.Join(root, name, p.path)
			if executable(path) == nil && s.finished(path) {
				return path
			}
		}
		return ""
	}
	if path := find(); path != "" {
		return path, nil
	}
	dir, err := s.dir()
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(dir, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if path := find(); path != "" {
		return path, nil
	}
	return s.fetchProgram(ctx, dir, name)
}

// installed is the machine's own program, or the one that the environment names; "" where there is none.
func (p program) installed(name string) (string, error) {
	variable := "CROSSFADE_" + strings.ToUpper(name)
	if path := os.Getenv(variable); path != "" {
		if err := executable(path); err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
		return path, nil
	}
	if p.own {
		return "", nil
	}
	dirs := append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
	for _, called := range append([]string{name}, p.names...) {
		for _, dir := range dirs {
			if path := filepath.Join(dir, called); dir != "" && executable(path) == nil {
				return path, nil
			}
		}
	}
	return "", nil
}

func executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("%s is not a program", path)
	}
	return nil
}

func (s *Store) say(format string, args ...any) {
	if s.Say != nil {
		s.Say(fmt.Sprintf(format, args...))
	}
}

const systemCache = "/var/cache/crossfade"

// roots is every folder that may hold fetched programs, the one to fetch into first.
func (s *Store) roots() []string {
	dir, err := s.place()
	if err != nil {
		return nil
	}
	if s.Dir == "" && os.Getenv("CROSSFADE_CACHE") == "" && dir != systemCache {
		return []string{dir, systemCache}
	}
	return []string{dir}
}

// place decides where to keep what is fetched; it makes nothing.
func (s *Store) place() (string, error) {
	if s.Dir != "" {
		return filepath.Abs(s.Dir)
	}
	if dir := os.Getenv("CROSSFADE_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil { // no HOME, as in a bare container
		u, err := user.Current()
		if err != nil || u.HomeDir == "" {
			return "", errors.New("no cache folder: set HOME or CROSSFADE_CACHE")
		}
		dir = filepath.Join(u.HomeDir, ".cache")
	}
	if os.Geteuid() == 0 && runtime.GOOS == "linux" && !open(dir) {
		return systemCache, nil
	}
	return filepath.Join(dir, "crossfade"), nil
}

// open says whether everybody may enter a folder and all above it, as far as they exist.
func open(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// dir makes the place.
func (s *Store) dir() (string, error) {
	dir, err := s.place()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cache folder: %w (CROSSFADE_CACHE names another)", err)
	}
	if os.Geteuid() == 0 && !open(dir) {
		return "", fmt.Errorf("cache folder %s cannot be entered by the user that servers run as; CROSSFADE_CACHE names another", dir)
	}
	return dir, nil
}
