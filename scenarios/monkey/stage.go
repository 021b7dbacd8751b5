package monkey

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"crossfade/scenarios/lab"

	"golang.org/x/sync/errgroup"
)

// stage is what the monkey plays with: an old cluster with a standby, a new
// one, two poolers, lines that can be cut, and two machines to type on.
type stage struct {
	lab             *lab.Lab
	old, new, metal *lab.Cluster
	pools           []*lab.Pool
	lines           map[string][]*lab.Proxy
	exe             string
	dirs            map[string]string // of the machines
	blocked         time.Duration     // max_blocked
	patience        time.Duration
	small           map[string]bool // machines whose folder is a file system of its own, which can be full
}

const (
	oldMajor, newMajor = 15, 18
	database           = "shop"
)

// schema is what the clients write.
const schema = `
CREATE SEQUENCE numbers;
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
INSERT INTO accounts SELECT g, 1000 FROM generate_series(1, 20) g;
CREATE TABLE transfers (worker int, n bigint, debit int REFERENCES accounts, credit int REFERENCES accounts, amount bigint, PRIMARY KEY (worker, n));
CREATE TABLE pad (id bigint PRIMARY KEY, v text);
INSERT INTO pad SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g;
CREATE INDEX ON pad (v);
`

// boot starts it all; l is empty, and dir is for the machines. How long clients
// may wait after a command sets the runbook's limits.
func boot(ctx context.Context, l *lab.Lab, exe, dir string, served time.Duration) (*stage, error) {
	s := &stage{lab: l, exe: exe, blocked: served / 2, patience: served * 3 / 2, lines: map[string][]*lab.Proxy{}, dirs: map[string]string{}, small: map[string]bool{}}
	var group errgroup.Group
	settings := map[string]string{"wal_retrieve_retry_interval": "100ms"}
	group.Go(func() (err error) {
		s.old, err = l.Start(ctx, lab.Options{Name: "wacken", Major: oldMajor, Settings: settings})
		return err
	})
	group.Go(func() (err error) {
		s.new, err = l.Start(ctx, lab.Options{Name: "wacken18", Major: newMajor, Settings: settings})
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var err error
	if err = s.old.Exec(ctx, "", "CREATE DATABASE "+database); err != nil {
		return nil, err
	}
	if err = lab.Ledger(ctx, s.old.Conninfo(database)); err != nil {
		return nil, err
	}
	if err = s.old.Exec(ctx, database, schema); err != nil {
		return nil, err
	}
	if s.metal, err = s.old.Standby(ctx, "metal", lab.StandbyOptions{}); err != nil {
		return nil, err
	}
	proxies := map[string]*lab.Proxy{}
	for name, c := range map[string]*lab.Cluster{"tool-old": s.old, "tool-new": s.new, "from-new": s.old, "from-old": s.new} {
		if proxies[name], err = c.Proxy(ctx); err != nil {
			return nil, err
		}
	}
	s.lines["tool-old"] = []*lab.Proxy{proxies["tool-old"]}
	s.lines["tool-new"] = []*lab.Proxy{proxies["tool-new"]}
	s.lines["old-new"] = []*lab.Proxy{proxies["from-new"], proxies["from-old"]}
	for _, name := range []string{"pool1", "pool2"} {
		p, err := l.PgBouncer(ctx, lab.PoolOptions{
			Name: name, Databases: map[string]lab.Backend{database: {Cluster: s.old, Through: proxies["tool-old"]}},
		})
		if err != nil {
			return nil, err
		}
		s.pools = append(s.pools, p)
	}
	for _, m := range machines {
		if err := s.machine(ctx, m, filepath.Join(dir, m), proxies); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// machine makes a folder with the runbook. As root it is a small file system,
// so that the journal's disk can be full.
func (s *stage) machine(ctx context.Context, name, dir string, proxies map[string]*lab.Proxy) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if mountSmall(dir) == nil {
		s.small[name] = true
	}
	s.dirs[name] = dir
	text := fmt.Sprintf(`upgrade: up
old:
  primary: %q
  bin: %q
  standbys:
    - {name: metal, conninfo: %q}
new:
  - cluster: fresh
    primary: %q
    bin: %q
    from_new: %q
    from_old: %q
databases:
  - name: %s
    sets:
      - {name: bank, tables: [public.accounts, public.transfers]}
      - {name: rest, tables: ["*"]}
copy: {jobs: 2, index_jobs: 1}
catchup: {stable: 200ms}
cutover:
  approve: auto
  patience: %s
  max_blocked: %s
  traffic:
    - pgbouncer:
        databases: [%s]
        instances:
          - {admin: %q, config: %q}
          - {admin: %q, config: %q}
`, s.old.Conninfo("", proxies["tool-old"].Words()), s.old.Bin, s.metal.Conninfo(""),
		s.new.Conninfo("", proxies["tool-new"].Words()), s.new.Bin,
		s.old.Conninfo("", proxies["from-new"].Words()), s.new.Conninfo("", proxies["from-old"].Words()),
		database, s.patience, s.blocked, database,
		s.pools[0].AdminConninfo(), s.pools[0].Config, s.pools[1].AdminConninfo(), s.pools[1].Config)
	return os.WriteFile(s.runbook(name), []byte(text), 0o600)
}

func (s *stage) runbook(machine string) string {
	return filepath.Join(s.dirs[machine], "crossfade.yaml")
}

// both is what a client names that has no pooler: whichever side takes writes.
func (s *stage) both() string {
	return fmt.Sprintf("host=%s,%s port=%d,%d user=postgres dbname=%s sslmode=disable target_session_attrs=read-write",
		s.old.Address(), s.new.Address(), s.old.Port, s.new.Port, database)
}

func (s *stage) pool(name string) *lab.Pool {
	for _, p := range s.pools {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (s *stage) cluster(name string) *lab.Cluster {
	return map[string]*lab.Cluster{"old": s.old, "new": s.new, "metal": s.metal}[name]
}

// close puts away what the lab does not know of.
func (s *stage) close() error {
	var errs []error
	for _, proxies := range s.lines {
		for _, p := range proxies {
			p.Heal()
			p.Close()
		}
	}
	for m := range s.small {
		errs = append(errs, unmountSmall(s.dirs[m]))
	}
	return errors.Join(errs...)
}

// keep copies the logs of servers and poolers into a folder.
func (s *stage) keep(dir string) error {
	logs := map[string]string{}
	for _, c := range s.lab.Clusters() {
		logs[c.Name] = c.Log()
	}
	for _, p := range s.pools {
		logs[p.Name] = p.Log()
		b, err := os.ReadFile(p.Config)
		if err != nil {
			return err
		}
		logs[p.Name+".ini"] = string(b)
	}
	for name, text := range logs {
		if err := os.WriteFile(filepath.Join(dir, name+".log"), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for m, from := range s.dirs {
		if err := os.CopyFS(filepath.Join(dir, "machine-"+m), os.DirFS(from)); err != nil {
			return err
		}
	}
	return nil
}
