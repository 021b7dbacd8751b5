package lab

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFetch fetches everything into an empty cache and starts each server; nothing of the machine's own is used. It takes a
// minute and the network, so it runs only where CROSSFADE_TEST_FETCH is set.
func TestFetch(t *testing.T) {
	if os.Getenv("CROSSFADE_TEST_FETCH") == "" {
		t.Skip("CROSSFADE_TEST_FETCH is not set")
	}
	cache, err := os.MkdirTemp("/tmp", "crossfade-cache-") // not below t.TempDir, which only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(cache) })
	if err := os.Chmod(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	s := &Store{Dir: cache, Say: func(line string) { t.Log(line) }}
	l, err := New(ctx, Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	boot := func(i *Install, name string) {
		t.Helper()
		begin := time.Now()
		c, err := l.Start(ctx, Options{Name: name, Install: i})
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.Value(ctx, "", "SELECT version()")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("started in %v: %s", time.Since(begin).Round(time.Millisecond), v)
	}
	for _, name := range []string{"patchelf", "pgbouncer", "sshd"} {
		begin := time.Now()
		path, err := s.fetchProgram(ctx, cache, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s in %v", path, time.Since(begin).Round(time.Millisecond))
	}
	for _, major := range []int{13, 15, 17, 18} {
		begin := time.Now()
		i, err := s.fetchServer(ctx, cache, major, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v in %v", i, time.Since(begin).Round(time.Millisecond))
		if i.ServerOnly || !strings.HasPrefix(i.Bin, cache) {
			t.Errorf("fetched %+v", i)
		}
		boot(i, "apt"+i.Version)
	}
	for _, major := range []int{14, 16} {
		begin := time.Now()
		i, err := s.fetchServer(ctx, cache, major, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v in %v", i, time.Since(begin).Round(time.Millisecond))
		if !i.ServerOnly {
			t.Errorf("npm's has client programs: %+v", i)
		}
		boot(i, "npm"+i.Version)
	}
	if _, err := s.fetchServer(ctx, cache, 9, ""); err == nil || !strings.Contains(err.Error(), "CROSSFADE_PG_9") {
		t.Errorf("PostgreSQL 9: %v", err)
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ file, text, want string }{
		{"a.list", "deb http://mirror.test/debian bookworm main\n", "deb http://mirror.test/debian trixie main\n"},
		{
			"b.list", "# old\ndeb-src http://no.test/ bookworm main\ndeb http://no.test/ bookworm-updates main\n" +
				"deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian/ bookworm contrib main\n",
			"deb [arch=amd64 signed-by=/k.gpg] http://mirror.test/debian/ trixie main\n",
		},
		{
			"c.sources", "# from the image\nTypes: deb\nURIs: http://security.test\nSuites: bookworm-security\nComponents: main\n\n" +
				"Types: deb\n# the snapshot\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By:\n -----BEGIN\n .\n -----END\n",
			"Types: deb\nSuites: trixie\nComponents: main\nURIs: http://mirror.test/debian\nSigned-By:\n -----BEGIN\n .\n -----END\n",
		},
		{"d.sources", "Types: deb\nURIs: http://mirror.test/\nSuites: bookworm\nComponents: main\nEnabled: no\n", ""},
		{"e.list", "deb http://other.test/ jammy main\n", ""},
	} {
		path := filepath.Join(dir, c.file)
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		s, ok := readSources(path, "bookworm")
		if ok != (c.want != "") {
			t.Errorf("%s: found is %v", c.file, ok)
		} else if ok {
			if _, got := s.lines("trixie", "main", "deb"); got != c.want {
				t.Errorf("%s gives\n%s, not\n%s", c.file, got, c.want)
			}
		}
	}
}

func TestNeeded(t *testing.T) {
	out := "Inst libc6 (2.41 Debian) []\nInst perl-base (5.4)\nInst libllvm19 (19)\nConf libc6 (2.41)\nInst postgresql-17 (17.12)\nInst openssl (3)\n"
	if got := needed(out, []string{"postgresql-17", "openssl"}); !slices.Equal(got, []string{"libc6", "postgresql-17", "openssl"}) {
		t.Errorf("needed: %v", got)
	}
	versions := []string{"17.10.0-beta.9", "17.9.0-beta.16", "17.10.0-beta.17", "18.1.0-beta.1", "1.0.0"}
	for major, want := range map[int]string{17: "17.10.0-beta.17", 18: "18.1.0-beta.1", 16: ""} {
		if got := newest(versions, major); got != want {
			t.Errorf("newest %d: %q, not %q", major, got, want)
		}
	}
}

// TestFindNamed gives CROSSFADE_PG_<major> what it is not.
func TestFindNamed(t *testing.T) {
	ctx := t.Context()
	fifteen, err := Find(ctx, 15)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ major, dir, want string }{
		{"17", t.TempDir(), "no postgres, initdb, pg_ctl"},
		{"17", fifteen.Bin, "is PostgreSQL 15."},
		{"15", fifteen.Bin, ""},
	} {
		t.Setenv("CROSSFADE_PG_"+c.major, c.dir)
		major := map[string]int{"15": 15, "17": 17}[c.major]
		_, err := Find(ctx, major)
		if c.want == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("CROSSFADE_PG_%s=%s: %v, not %q", c.major, c.dir, err, c.want)
		}
	}
	if _, err := Program(ctx, "emacs"); err == nil {
		t.Error("the lab knows emacs")
	}
}

// TestPorts takes ports side by side; all differ, and none comes back before its lab is gone.
func TestPorts(t *testing.T) {
	ctx := t.Context()
	dirs := []string{t.TempDir(), t.TempDir()}
	var mu sync.Mutex
	var taken []int
	var group sync.WaitGroup
	for _, dir := range dirs {
		for range 20 {
			group.Go(func() {
				port, err := takePort(ctx, dir, 0)
				mu.Lock()
				defer mu.Unlock()
				if err != nil || slices.Contains(taken, port) {
					t.Errorf("port %d: %v", port, err)
				}
				taken = append(taken, port)
			})
		}
	}
	group.Wait()
	if err := returnPorts(ctx, dirs[0]); err != nil {
		t.Fatal(err)
	}
	held := 0
	for _, port := range taken {
		if leased(port) {
			held++
		}
	}
	if held != 20 {
		t.Errorf("%d ports are held after one of two labs of 20 is gone", held)
	}
	if err := returnPorts(ctx, dirs[1]); err != nil {
		t.Fatal(err)
	}
}

func TestGaps(t *testing.T) {
	g := newGaps()
	at := func(ms int) time.Time { return g.begin.Add(time.Duration(ms) * time.Millisecond) }
	for _, ms := range []int{1, 2, 50, 51, 53, 152, 153} {
		g.acknowledge(at(ms))
	}
	for _, c := range []struct{ from, to, start, length int }{
		{0, 153, 53, 99},   // all
		{0, 53, 2, 48},     // before the longest
		{100, 153, 53, 99}, // begins in it
		{152, 200, 153, 47},
		{152, 153, 152, 1},
	} {
		got := g.longest(at(c.from), at(c.to))
		if got.Start != at(c.start) || got.Length != time.Duration(c.length)*time.Millisecond {
			t.Errorf("between %d and %d: %v after %v", c.from, c.to, got.Length, got.Start.Sub(g.begin))
		}
	}
	g.stop(at(160))
	if got := g.longest(at(153), at(1000)); got.Length != 7*time.Millisecond {
		t.Errorf("the last gap ends with the writer: %v", got)
	}
}
