package lab

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// completeMark is the file that says that a fetched folder is whole.
const completeMark = ".crossfade-complete"

// suites says where complete servers are: distribution → major → suites, tried in this order. Suites move on, so it is
// the major that is looked for, and a suite that no longer has it is passed over.
var suites = map[string]map[int][]string{
	"debian": {
		13: {"bullseye"}, 15: {"bookworm"}, 17: {"trixie"}, 18: {"forky", "sid"}, 19: {"forky", "sid"},
	},
	"ubuntu": {
		12: {"focal"}, 14: {"jammy"}, 16: {"noble"}, 17: {"questing", "plucky"}, 18: {"resolute"},
	},
}

// programSuites is where other programs are, after the machine's own suite.
var programSuites = map[string][]string{"debian": {"bookworm", "trixie", "sid"}, "ubuntu": {"noble", "jammy"}}

// ballast is packages that no server or client program of ours needs, most of them big.
var ballast = []string{
	"perl", "perl-base", "perl-modules-", "libperl", "libllvm", "libz3-", "locales", "libc-l10n", "libc-bin", "debconf",
	"adduser", "passwd", "login", "libjson-perl", "libipc-run-perl", "libio-pty-perl", "postgresql-common", "libcommon-sense",
	"libtypes-serialiser", "libjson-xs-perl", "tzdata", "procps", "ucf", "sensible-utils", "netbase", "openssl-provider", "base-passwd",
	"init-system-helpers", "sysvinit-utils", "ssl-cert", "gcc-", "libdebconf", "lsb-base", "openssl",
}

// machines is what Debian calls this machine's architecture, its library folder and its loader.
var machines = map[string]struct{ arch, lib, loader string }{
	"amd64": {"amd64", "x86_64-linux-gnu", "ld-linux-x86-64.so.2"},
	"arm64": {"arm64", "aarch64-linux-gnu", "ld-linux-aarch64.so.1"},
}

// fetchServer fetches a complete PostgreSQL of the distribution's other suites, or else a server of npm's. With an
// extension there is no such else.
func (s *Store) fetchServer(ctx context.Context, dir string, major int, extension string) (*Install, error) {
	name := "postgresql-" + strconv.Itoa(major)
	packages := []string{name, "postgresql-client-" + strconv.Itoa(major)}
	what := fmt.Sprintf("PostgreSQL %d", major)
	if extension != "" {
		name += "-" + extension
		packages = append(packages, name)
		what += " with " + extension
	}
	var errs []error
	d, err := readDistribution(ctx)
	if err != nil {
		errs = append(errs, err)
	} else {
		tries := suites[d.id][major]
		if len(tries) == 0 {
			errs = append(errs, fmt.Errorf("%s has it in no suite that the lab knows", d.id))
		}
		for _, suite := range tries {
			s.say("fetching %s of %s", what, suite)
			err := s.fetch(ctx, d, parcel{
				dir: filepath.Join(dir, name), suite: suite,
				packages: packages,
				programs: []string{fmt.Sprintf("usr/lib/postgresql/%d/bin", major)},
				proof:    fmt.Sprintf("usr/lib/postgresql/%d/bin/postgres", major),
			})
			if err == nil {
				return inspect(ctx, filepath.Join(dir, name, "usr/lib/postgresql", strconv.Itoa(major), "bin"))
			}
			errs = append(errs, fmt.Errorf("%s: %w", suite, err))
			if ctx.Err() != nil {
				return nil, errors.Join(errs...)
			}
		}
	}
	if extension != "" {
		return nil, fmt.Errorf("%s could not be fetched: %w", what, errors.Join(errs...))
	}
	i, err := s.fetchNpm(ctx, dir, major)
	if err == nil {
		return i, nil
	}
	errs = append(errs, fmt.Errorf("npm: %w", err))
	return nil, fmt.Errorf("PostgreSQL %d is not installed and could not be fetched; install postgresql-%d or set %s to its bin folder: %w",
		major, major, pgVariable(major), errors.Join(errs...))
}

// fetchProgram fetches a program that is not PostgreSQL's.
func (s *Store) fetchProgram(ctx context.Context, dir, name string) (string, error) {
	p := programs[name]
	d, err := readDistribution(ctx)
	if err != nil {
		return "", fmt.Errorf("%s is not installed, install %s: %w", name, p.pkg, err)
	}
	tries := slices.Clone(p.suites[d.id])
	if p.suites == nil {
		tries = append(tries, d.codename)
		for _, suite := range programSuites[d.id] {
			if !slices.Contains(tries, suite) {
				tries = append(tries, suite)
			}
		}
	}
	var errs []error
	for _, suite := range tries {
		s.say("fetching %s of %s", name, suite)
		err := s.fetch(ctx, d, parcel{
			dir: filepath.Join(dir, name), suite: suite, packages: append([]string{p.pkg}, p.with...),
			programs: append([]string{p.path}, p.calls...),
		})
		if err == nil {
			return filepath.Join(dir, name, p.path), nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", suite, err))
		if ctx.Err() != nil {
			break
		}
	}
	return "", fmt.Errorf("%s is not installed and could not be fetched; install %s: %w", name, p.pkg, errors.Join(errs...))
}

// A parcel is one set of packages to be unpacked into a folder of their own, with their own C library.
type parcel struct {
	dir      string   // where it ends up
	suite    string   // of the distribution
	packages []string // what is asked for; what they need comes along
	programs []string // files, or folders of files, to be made runnable from dir
	proof    string   // the program whose --version must work in the end; empty: none
}

// fetch downloads and unpacks a parcel beside its place and moves it there when it is whole, so that nobody ever sees
// half of one.
func (s *Store) fetch(ctx context.Context, d *distribution, p parcel) (err error) {
	m, ok := machines[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return fmt.Errorf("nothing to fetch for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	work, err := os.MkdirTemp(filepath.Dir(p.dir), ".fetch-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	debs, err := d.download(ctx, work, m.arch, p)
	if err != nil {
		return err
	}
	tree := filepath.Join(work, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := run(ctx, plain(ctx, "dpkg", "-x", deb, tree)); err != nil {
			return err
		}
	}
	// Without LLVM's library the server would fail at the first query that it wants to compile; without this file it
	// does not try.
	for _, jit := range glob(tree, "usr/lib/postgresql/*/lib/llvmjit.so") {
		if err := os.Remove(jit); err != nil {
			return err
		}
	}
	if err := s.patch(ctx, tree, p, m.lib, m.loader); err != nil {
		return err
	}
	if _, err := run(ctx, plain(ctx, "chmod", "-R", "a+rX,u+w", tree)); err != nil {
		return err
	}
	if err := os.RemoveAll(p.dir); err != nil { // what an earlier, broken fetch left
		return err
	}
	if err := os.Rename(tree, p.dir); err != nil {
		return err
	}
	if p.proof != "" {
		o, err := serverOwner()
		if err != nil {
			return err
		}
		if _, err := run(ctx, o.command(ctx, filepath.Join(p.dir, p.proof), "--version")); err != nil {
			return errors.Join(fmt.Errorf("fetched, but does not run: %w", err), os.RemoveAll(p.dir))
		}
	}
	return os.WriteFile(filepath.Join(p.dir, completeMark), []byte(p.suite+"\n"), 0o644)
}

// patch makes the programs use the C library and the libraries that came with them: this machine's may be older.
func (s *Store) patch(ctx context.Context, tree string, p parcel, lib, loader string) error {
	paths := []string{"usr/lib/" + lib, "lib/" + lib}
	var ld string
	for _, dir := range paths {
		if _, err := os.Stat(filepath.Join(tree, dir, loader)); err == nil {
			ld = filepath.Join(dir, loader)
			break
		}
	}
	if ld == "" {
		return fmt.Errorf("no %s among the packages", loader)
	}
	var search, searchNow []string
	for _, dir := range append(paths, "usr/lib/"+lib+"/systemd", "usr/lib/"+lib+"/pulseaudio") {
		search = append(search, filepath.Join(p.dir, dir))
		searchNow = append(searchNow, filepath.Join(tree, dir))
	}
	// patchelf itself, just unpacked, runs through its own loader by hand.
	patchelf := []string{filepath.Join(tree, ld), "--library-path", strings.Join(searchNow, ":"), filepath.Join(tree, "usr/bin/patchelf")}
	if _, err := os.Stat(patchelf[3]); err != nil {
		path, err := s.Program(ctx, "patchelf")
		if err != nil {
			return err
		}
		patchelf = []string{path}
	}
	files := elves(tree, p.programs)
	for _, dir := range paths {
		// What a library needs is not looked for on the program's RPATH where it
		// has a RUNPATH of its own, which names this machine's folders.
		for _, file := range elves(tree, []string{dir}) {
			if runpath(file) != "" {
				files = append(files, file)
			}
		}
	}
	for _, file := range files {
		target := file
		if len(patchelf) > 1 && file == patchelf[3] { // not the running program itself
			target = file + ".new"
			if _, err := run(ctx, plain(ctx, "cp", "-p", file, target)); err != nil {
				return err
			}
		}
		args := append(slices.Clone(patchelf[1:]), "--force-rpath", "--set-rpath", strings.Join(search, ":"), target)
		if hasInterpreter(file) {
			args = slices.Insert(args, len(patchelf)-1, "--set-interpreter", filepath.Join(p.dir, ld))
		}
		if _, err := run(ctx, plain(ctx, patchelf[0], args...)); err != nil {
			return fmt.Errorf("patchelf %s: %w", filepath.Base(file), err)
		}
		if target != file {
			if err := os.Rename(target, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// elves lists the ELF programs among files and folders below tree.
func elves(tree string, names []string) []string {
	var found []string
	for _, name := range names {
		path := filepath.Join(tree, name)
		files := []string{path}
		if st, err := os.Stat(path); err == nil && st.IsDir() {
			files = glob(path, "*")
		}
		for _, file := range files {
			if st, err := os.Lstat(file); err == nil && st.Mode().IsRegular() && isELF(file) {
				found = append(found, file)
			}
		}
	}
	return found
}

// runpath is the RUNPATH of an ELF file, "" where it has none.
func runpath(path string) string {
	f, err := elf.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	all, err := f.DynString(elf.DT_RUNPATH)
	if err != nil {
		return ""
	}
	return strings.Join(all, ":")
}

// hasInterpreter tells a program from a library.
func hasInterpreter(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

func isELF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == "\x7fELF"
}

// glob is filepath.Glob below a folder whose own name is not a pattern.
func glob(dir, pattern string) []string {
	found, err := filepath.Glob(filepath.Join(escapeGlob.Replace(dir), pattern))
	if err != nil {
		return nil
	}
	return found
}

var escapeGlob = strings.NewReplacer(`*`, `\*`, `?`, `\?`, `[`, `\[`, `\`, `\\`)

// plain is a program of the machine's, run as whoever runs the lab.
func plain(ctx context.Context, program string, args ...string) *exec.Cmd {
	return owner{}.command(ctx, program, args...)
}
