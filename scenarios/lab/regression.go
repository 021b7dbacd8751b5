package lab

import (
	"archive/tar"
	"cmp"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// A Regression is PostgreSQL's own regression tests of one major, from the
// distribution's source package. What they leave in database regression is the widest
// schema that there is.
type Regression struct {
	Major int
	// Dir has sql, expected, data and parallel_schedule as in src/test/regress, but
	// that the tests call their library by its bare name.
	Dir string
	// Library is the folder of that library, built for servers of this major. A server
	// finds it with Library in dynamic_library_path, before $libdir, where two more are.
	Library string
}

// Regression returns the regression tests of a major: what was fetched and built before, or
// what it fetches and builds now, which takes a minute, the machine's package mirror and
// a C compiler ($CC, or cc, or gcc). Any number of processes may ask at once; one of them
// fetches.
func (s *Store) Regression(ctx context.Context, major int) (*Regression, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	r := &Regression{Major: major, Dir: filepath.Join(dir, "regression-"+strconv.Itoa(major))}
	r.Library = filepath.Join(r.Dir, "lib")
	unlock, err := lockFile(ctx, r.Dir+".lock")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s.finished(r.Dir) {
		return r, nil
	}
	d, err := readDistribution(ctx)
	if err != nil {
		return nil, err
	}
	errs := []error{fmt.Errorf("PostgreSQL %d's regression tests could not be fetched and built", major)}
	for _, suite := range suites[d.id][major] {
		s.say("fetching PostgreSQL %d's regression tests of %s, and building their library", major, suite)
		err := r.fetch(ctx, d, suite)
		if err == nil {
			return r, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", suite, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		errs = append(errs, fmt.Errorf("%s has its source in no suite that the lab knows", d.id))
	}
	return nil, errors.Join(errs...)
}

// fetch makes r.Dir of a suite, beside its place first.
func (r *Regression) fetch(ctx context.Context, d *distribution, suite string) (err error) {
	m, ok := machines[runtime.GOARCH]
	if !ok || runtime.GOOS != "linux" {
		return fmt.Errorf("nothing to fetch for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	work, err := os.MkdirTemp(filepath.Dir(r.Dir), ".fetch-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	a, err := d.open(ctx, work, m.arch, suite, "deb", "deb-src")
	if err != nil {
		return err
	}
	name := "postgresql-" + strconv.Itoa(r.Major)
	headers := "postgresql-server-dev-" + strconv.Itoa(r.Major)
	if _, err := a.get(ctx, "source", "--download-only", name); err != nil {
		return err
	}
	if _, err := a.get(ctx, "download", headers); err != nil {
		return err
	}
	sources, debs := glob(a.debs, name+"_*.orig.tar.*"), glob(a.debs, headers+"_*.deb")
	if len(sources) != 1 || len(debs) != 1 {
		return fmt.Errorf("apt-get left %d archives of the source and %d packages of headers", len(sources), len(debs))
	}
	tree, include := filepath.Join(work, "tree"), filepath.Join(work, "headers")
	if err := unpackRegression(sources[0], tree); err != nil {
		return fmt.Errorf("unpack %s: %w", filepath.Base(sources[0]), err)
	}
	if _, err := run(ctx, plain(ctx, "dpkg", "-x", debs[0], include)); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(tree, "lib"), 0o755); err != nil {
		return err
	}
	cc, err := compiler()
	if err != nil {
		return err
	}
	if _, err := run(ctx, plain(ctx, cc, "-O1", "-fPIC", "-shared", "-D_GNU_SOURCE",
		"-I", filepath.Join(include, "usr/include/postgresql", strconv.Itoa(r.Major), "server"),
		"-o", filepath.Join(tree, "lib", "regress.so"), filepath.Join(tree, "regress.c"))); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, completeMark), []byte(suite+"\n"), 0o644); err != nil {
		return err
	}
	if _, err := run(ctx, plain(ctx, "chmod", "-R", "a+rX,u+w", tree)); err != nil {
		return err
	}
	if err := os.RemoveAll(r.Dir); err != nil {
		return err
	}
	return os.Rename(tree, r.Dir)
}

func compiler() (string, error) {
	for _, name := range []string{os.Getenv("CC"), "cc", "gcc"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no C compiler on this machine: install gcc, or name one in CC")
}

// libraryPath is how the tests of a major name a library: the folder that pg_regress tells them. Two majors of one
// upgrade cannot have theirs in one folder under one name; a bare name each server finds on its own path.
var libraryPath = regexp.MustCompile(`:libdir '/(\w+)' :dlsuffix`)

// unpackRegression writes src/test/regress of PostgreSQL's source into dir.
func unpackRegression(source, dir string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	var plain io.Reader
	switch filepath.Ext(source) {
	case ".bz2":
		plain = bzip2.NewReader(f)
	case ".gz":
		if plain, err = gzip.NewReader(f); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%s is packed in a way that the lab does not know", source)
	}
	files := 0
	for archive := tar.NewReader(plain); ; {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		_, name, ok := strings.Cut(path.Clean(h.Name), "/src/test/regress/")
		if !ok || h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) {
			continue
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if ext := filepath.Ext(name); ext == ".sql" || ext == ".out" {
			b = libraryPath.ReplaceAll(b, []byte("'$1'"))
		}
		if err := os.WriteFile(to, b, 0o644); err != nil {
			return err
		}
		files++
	}
	if files == 0 {
		return errors.New("it has no src/test/regress")
	}
	return nil
}

// failedTest is how pg_regress names a failed test, before 16 and since.
var failedTest = regexp.MustCompile(`(?m)^(?:test\s+|\s+)(\S+)\s+\.\.\. FAILED|^not ok \d+\s+[-+] (\S+)`)

// Run runs the tests on a server of their major, with its own pg_regress, into a new
// database regression, which stays as they leave it. out is a folder for what they write; it must not
// exist. It returns the tests whose output is not as expected; what they were to make may be there all the same.
func (r *Regression) Run(ctx context.Context, c *Cluster, out string) (failed []string, err error) {
	program := filepath.Join(c.Bin, "../lib/pgxs/src/test/regress/pg_regress")
	if err := executable(program); err != nil {
		return nil, fmt.Errorf("%s: its PostgreSQL %d came without pg_regress: %w", c.Name, c.Major, err)
	}
	if err := c.lab.owner.mkdir(out, 0o755); err != nil {
		return nil, err
	}
	cmd := c.lab.Command(ctx, program, "--bindir="+c.Bin, "--dlpath="+r.Library, "--inputdir="+r.Dir, "--outputdir="+out,
		"--schedule="+filepath.Join(r.Dir, "parallel_schedule"), "--max-concurrent-tests=20",
		"--host="+c.Socket, "--port="+strconv.Itoa(c.Port), "--user="+c.Superuser)
	cmd.Dir = out
	text, err := run(ctx, cmd)
	for _, m := range failedTest.FindAllStringSubmatch(text, -1) {
		failed = append(failed, m[1]+m[2])
	}
	exit := (*exec.ExitError)(nil)
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1 && len(failed) > 0) {
		return failed, fmt.Errorf("pg_regress on %s: %w", c.Name, cmp.Or(context.Cause(ctx), err))
	}
	return failed, nil
}
