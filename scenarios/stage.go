package scenarios

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"

	"crossfade/scenarios/lab"

	"golang.org/x/sync/errgroup"
)

// Stage is a scenario's servers, and where to find them.
type Stage struct {
	Scenario *Scenario
	Dir      string // the run's folder: runbook, journal, logs of crossfade; the lab is in it
	Runbook  string // path
	Lab      *lab.Lab
	Old, New *lab.Cluster
	Split    []*lab.Cluster    // the new clusters, in the scenario's order, where there are several; New is the first
	Manager  *lab.Manager      // of old; nil: none, or another process's
	Standbys map[string][]Node // by side
	// synchronous is what each standby of old was in its list.
	synchronous string
	Poolers     []Place
	// proxies stand in the lines between the tool, old and new, by line, where
	// an act cuts one.
	proxies map[string][]*lab.Proxy

	fresh    *lab.Install      // that new runs; nil in a stage that another process booted
	clients  map[string]string // by database
	finished bool              // nothing may be left of what the runbook sets for the time of the upgrade
}

// Node is a standby with its server. That of new is an empty place until
// crossfade has built it.
type Node struct {
	Standby
	Cluster *lab.Cluster
}

// Place is a pooler as the runbook needs it.
type Place struct {
	Name, Admin, Config string
	Databases           []string
}

// appRole is the application's role.
const appRole = "app"

// Say is given what is done, one line each.
type Say func(what, says string)

// Boot starts everything of a scenario but the load in folder dir, which must
// be empty or missing, and writes the runbook. With keep the servers outlive
// the process. What was started before an error is ended.
func Boot(ctx context.Context, s *Scenario, dir string, keep bool, say Say) (*Stage, error) {
	st := &Stage{Scenario: s, Dir: dir, Runbook: filepath.Join(dir, "runbook.yaml"), Standbys: map[string][]Node{}, clients: map[string]string{}}
	// Not 0700: programs that run as the servers' user read what is in it.
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	store := &lab.Store{Say: func(line string) { say("lab", line) }}
	old, err := s.install(ctx, store)
	if err != nil {
		return nil, err
	}
	fresh, err := pick(ctx, store, s.New.Majors, say)
	if err != nil {
		return nil, err
	}
	st.fresh = fresh
	say("lab", fmt.Sprintf("old: %s", old))
	say("lab", fmt.Sprintf("new: %s", fresh))
	if st.Lab, err = lab.New(ctx, lab.Config{Dir: filepath.Join(dir, "lab"), Keep: keep, Store: store}); err != nil {
		return nil, err
	}
	if err := st.boot(ctx, old, fresh, say); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTime)
		defer cancel()
		return nil, errors.Join(err, st.Lab.Down(end))
	}
	return st, nil
}

// downTime is how long taking a stage down may take.
const downTime = time.Minute

// pick is the first major that is complete.
func pick(ctx context.Context, store *lab.Store, majors []int, say Say) (*lab.Install, error) {
	var errs []error
	for _, m := range majors {
		i, err := store.Find(ctx, m)
		if err == nil && i.ServerOnly {
			err = fmt.Errorf("only a server of PostgreSQL %d without client programs could be had", m)
		}
		if err == nil {
			return i, nil
		}
		say("lab", err.Error())
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (st *Stage) boot(ctx context.Context, old, fresh *lab.Install, say Say) error {
	began := time.Now()
	s := st.Scenario
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		st.Old, err = st.Lab.Start(gctx, lab.Options{Name: Primary, Install: old, Settings: s.settings(), HBA: s.Old.HBA})
		return err
	})
	group.Go(func() (err error) {
		name := fmt.Sprintf("%s%d", Primary, fresh.Major)
		if len(s.Clusters) > 0 {
			name = clusterName(s.Clusters[0], fresh.Major)
		}
		st.New, err = st.Lab.Start(gctx, lab.Options{Name: name, Install: fresh, Settings: s.New.Settings, HBA: s.New.HBA})
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	if err := st.extend(ctx, fresh); err != nil {
		return err
	}
	if err := st.fill(ctx, say); err != nil {
		return err
	}
	for _, name := range s.New.SQL {
		if err := psql(ctx, st.New, "postgres", name); err != nil {
			return err
		}
	}
	for _, sb := range s.Old.Standbys {
		o := lab.StandbyOptions{Delay: sb.Delay, Settings: maps.Clone(sb.Settings), ApplicationName: sb.As, NoApplicationName: sb.Unnamed}
		if sb.Unnamed {
			o.Settings = map[string]string{"cluster_name": ""}
			maps.Copy(o.Settings, sb.Settings)
		}
		c, err := st.upstream(sideOld, sb).Standby(ctx, sb.Name, o)
		if err != nil {
			return err
		}
		st.Standbys[sideOld] = append(st.Standbys[sideOld], Node{sb, c})
	}
	if err := st.synchronize(ctx); err != nil {
		return err
	}
	if err := st.manage(ctx, old); err != nil {
		return err
	}
	for _, sb := range s.New.Standbys {
		c, err := st.Lab.Reserve(ctx, fmt.Sprintf("%s%d", sb.Name, fresh.Major), fresh.Major, fresh)
		if err != nil {
			return err
		}
		st.Standbys[sideNew] = append(st.Standbys[sideNew], Node{sb, c})
	}
	if err := st.pools(ctx); err != nil {
		return err
	}
	if err := st.wire(ctx); err != nil {
		return err
	}
	say("boot", st.describe()+", "+took(time.Since(began)))
	text, err := st.book()
	if err != nil {
		return err
	}
	if err := os.WriteFile(st.Runbook, []byte(text), 0o644); err != nil {
		return err
	}
	return st.save()
}

// wire puts proxies into the lines that are cut. They live as long as ctx.
func (st *Stage) wire(ctx context.Context) error {
	if !st.Scenario.cuts() {
		return nil
	}
	st.proxies = map[string][]*lab.Proxy{}
	for _, l := range []struct {
		line string
		to   *lab.Cluster
	}{{"tool-old", st.Old}, {"tool-new", st.New}, {"old-new", st.Old}, {"old-new", st.New}} {
		p, err := l.to.Proxy(ctx)
		if err != nil {
			return err
		}
		st.proxies[l.line] = append(st.proxies[l.line], p)
	}
	return nil
}

// synchronize makes standbys of old synchronous, once they stream: until then
// every commit would wait for them.
func (st *Stage) synchronize(ctx context.Context) error {
	names := st.Scenario.Old.Synchronous
	if names == "" {
		return nil
	}
	if err := st.Old.Exec(ctx, "", "ALTER SYSTEM SET synchronous_standby_names = '"+strings.ReplaceAll(names, "'", "''")+"'", "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	named := 0
	for _, n := range st.Standbys[sideOld] {
		if n.Upstream == "" && slices.Contains(words.FindAllString(names, -1), n.Name) {
			named++
		}
	}
	// Each walsender reads the list when it gets to it.
	if err := st.Old.Until(ctx, "", fmt.Sprintf("SELECT count(*) = %d FROM pg_stat_replication WHERE sync_priority > 0 AND state = 'streaming'", named)); err != nil {
		return err
	}
	var err error
	st.synchronous, err = synchronousOf(ctx, st.Old)
	return err
}

var words = regexp.MustCompile(`\w+`)

// synchronousOf is what every standby is that a server's list names.
func synchronousOf(ctx context.Context, c *lab.Cluster) (string, error) {
	return c.Value(ctx, "", `SELECT coalesce(string_agg(format('%s %s %s', application_name, sync_state, sync_priority), ', ' ORDER BY sync_priority, application_name), 'nobody')
		FROM pg_stat_replication WHERE sync_priority > 0 AND state = 'streaming'`)
}

// upstream is the server that a standby follows.
func (st *Stage) upstream(side string, sb Standby) *lab.Cluster {
	for _, n := range st.Standbys[side] {
		if n.Name == sb.Upstream {
			return n.Cluster
		}
	}
	return st.side(side)
}

// side is the primary of a side, other that of the other.
func (st *Stage) side(side string) *lab.Cluster {
	if side == sideNew {
		return st.New
	}
	return st.Old
}

func (st *Stage) other(side string) *lab.Cluster {
	if side == sideNew {
		return st.Old
	}
	return st.New
}

// node is the server that a scenario calls old, new, old/metal.
func (st *Stage) node(name string) *lab.Cluster {
	side, standby, _ := strings.Cut(name, "/")
	for _, n := range st.Standbys[side] {
		if n.Name == standby {
			return n.Cluster
		}
	}
	return st.side(side)
}

// fill makes the databases and what is in them.
func (st *Stage) fill(ctx context.Context, say Say) error {
	if err := st.Old.Exec(ctx, "", "CREATE ROLE "+appRole+" LOGIN"); err != nil {
		return err
	}
	for _, d := range st.Scenario.Databases {
		began := time.Now()
		if err := st.Old.Exec(ctx, "", "CREATE DATABASE "+d.Name); err != nil {
			return err
		}
		if len(st.Scenario.Clusters) == 0 {
			if err := lab.Ledger(ctx, st.Old.Conninfo(d.Name)); err != nil {
				return err
			}
		}
		if d.Pgbench > 0 {
			if err := st.Old.PgbenchInit(ctx, d.Name, d.Pgbench); err != nil {
				return err
			}
		}
		for _, name := range d.SQL {
			if err := psql(ctx, st.Old, d.Name, name); err != nil {
				return err
			}
		}
		if err := st.ledgers(ctx, d.Name); err != nil {
			return err
		}
		err := st.Old.Exec(ctx, d.Name,
			"GRANT USAGE ON SCHEMA public TO "+appRole,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "+appRole,
			"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO "+appRole,
			"ANALYZE",
		)
		if err != nil {
			return err
		}
		size, err := st.Old.Value(ctx, d.Name, "SELECT pg_size_pretty(pg_database_size(current_database())) || ', ' || count(*) || ' tables' FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384")
		if err != nil {
			return err
		}
		say("fill", fmt.Sprintf("%s: %s, %s", d.Name, size, took(time.Since(began))))
	}
	return st.Old.Exec(ctx, "", "CHECKPOINT")
}

// psql runs a file of the scenario.
func psql(ctx context.Context, c *lab.Cluster, database, name string) error {
	text, err := files.ReadFile(name)
	if err != nil {
		return err
	}
	if _, err := c.Psql(ctx, database, string(text)); err != nil {
		return fmt.Errorf("%s in %s: %w", name, database, err)
	}
	return nil
}

// pools starts the poolers and finds out how clients connect.
func (st *Stage) pools(ctx context.Context) error {
	for _, p := range st.Scenario.Poolers {
		o := lab.PoolOptions{Name: p.Name, Mode: p.Mode, Databases: map[string]lab.Backend{}, Users: map[string]string{appRole: ""}}
		for _, d := range p.Databases {
			o.Databases[d] = lab.Backend{Cluster: st.Old}
			for _, c := range st.Scenario.Clusters {
				if d == key(c.Database, c.Schema) {
					o.Databases[d] = lab.Backend{Cluster: st.Old, DB: c.Database}
				}
			}
		}
		pool, err := st.Lab.PgBouncer(ctx, o)
		if err != nil {
			return err
		}
		st.Poolers = append(st.Poolers, Place{p.Name, pool.AdminConninfo(), pool.Config, p.Databases})
		for _, d := range p.Databases {
			st.clients[d] = pool.Conninfo(d, "user="+appRole)
		}
	}
	for _, d := range st.Scenario.Databases {
		if st.clients[d.Name] != "" {
			continue
		}
		all := []*lab.Cluster{st.Old, st.New}
		if st.Scenario.promotes() {
			all = append(st.hosts(), st.New)
		}
		st.clients[d.Name] = anyOf(all, appRole, d.Name)
	}
	return nil
}

// hosts are the servers of old that may be its primary.
func (st *Stage) hosts() []*lab.Cluster {
	all := []*lab.Cluster{st.Old}
	for _, n := range st.Standbys[sideOld] {
		all = append(all, n.Cluster)
	}
	return all
}

// anyOf is the connection string that finds the server which takes writes.
func anyOf(all []*lab.Cluster, user, database string) string {
	var hosts, ports []string
	for _, c := range all {
		hosts, ports = append(hosts, c.Address()), append(ports, fmt.Sprint(c.Port))
	}
	return fmt.Sprintf("host=%s port=%s user=%s dbname=%s sslmode=disable target_session_attrs=read-write", strings.Join(hosts, ","), strings.Join(ports, ","), user, database)
}

// Client is the connection string that the application uses.
func (st *Stage) Client(database string) string { return st.clients[database] }

func (st *Stage) describe() string {
	words := []string{fmt.Sprintf("%s (PostgreSQL %d) on port %d", Primary, st.Old.Major, st.Old.Port)}
	for _, n := range st.Standbys[sideOld] {
		follows := n.Upstream
		if follows == "" {
			follows = Primary
		}
		says := fmt.Sprintf("standby %s of %s", n.Name, follows)
		if n.Delay > 0 {
			says += fmt.Sprintf(" with a delay of %s", n.Delay)
		}
		words = append(words, says)
	}
	if st.Manager != nil {
		words = append(words, fmt.Sprintf("all of it under %s, with %s as a third vote", st.Manager.Kind, st.Scenario.Old.Witness))
	}
	for _, p := range st.Poolers {
		words = append(words, p.Name+" in front")
	}
	fresh := st.Split
	if fresh == nil {
		fresh = []*lab.Cluster{st.New}
	}
	for _, n := range fresh {
		words = append(words, fmt.Sprintf("%s (PostgreSQL %d) empty on port %d", n.Name, n.Major, n.Port))
	}
	return strings.Join(words, ", ")
}

// Book is what a runbook's template is given.
type Book struct {
	Name      string // of the upgrade and of the new cluster, as in wacken18
	Old, New  BookNode
	Clusters  []BookNode // the new ones by the scenario's names, where there are several
	Poolers   []Place
	Databases []Database
	Accept    []string
	Patroni   []string // addresses of its REST API
}

// BookNode is a server in a runbook.
type BookNode struct {
	Name, Conninfo, Bin, Data string
	Hosts                     string // of old: the conninfo of its primary, whichever of its servers that is
	From                      string // how the server of the other side reaches it, where lines are cut
	Upstream                  string // primary, or a standby's name
	Delay                     time.Duration
	After                     bool              // of new: it takes the place of old's of its name; of old: it is taken
	Settings                  map[string]string // that the server needs in its place
	Standbys                  []BookNode
	Synchronous               string // synchronous_standby_names, where it is said
}

// book writes the runbook.
func (st *Stage) book() (string, error) {
	t, err := template.New(st.Scenario.Name + ".yaml").Option("missingkey=error").Funcs(template.FuncMap{"q": quoted}).Parse(st.Scenario.Runbook)
	if err != nil {
		return "", err
	}
	node := func(name string, c *lab.Cluster) BookNode {
		return BookNode{Name: name, Conninfo: c.Conninfo(""), Bin: c.Bin, Data: c.DataDir, Settings: c.Settings()}
	}
	b := Book{Name: st.New.Name, Old: node(Primary, st.Old), New: node(st.New.Name, st.New), Poolers: st.Poolers, Databases: st.Scenario.Databases, Accept: st.Scenario.Accept}
	if st.Manager != nil {
		b.Patroni = st.Manager.API
	}
	b.New.Synchronous = st.Scenario.New.Synchronous
	for side, into := range map[string]*BookNode{sideOld: &b.Old, sideNew: &b.New} {
		for _, sb := range st.Standbys[side] {
			n := node(sb.Name, sb.Cluster)
			n.Upstream, n.Delay, n.After = sb.Upstream, sb.Delay, st.Scenario.takes(sb.Name)
			if n.Upstream == "" {
				n.Upstream = "primary"
			}
			delete(n.Settings, "cluster_name") // its name says it
			maps.Copy(n.Settings, sb.Settings)
			into.Standbys = append(into.Standbys, n)
		}
	}
	b.Old.Hosts = anyOf(st.hosts(), st.Old.Superuser, "postgres")
	if p := st.proxies; p != nil {
		b.Old.Conninfo, b.New.Conninfo = st.Old.Conninfo("", p["tool-old"][0].Words()), st.New.Conninfo("", p["tool-new"][0].Words())
		b.Old.From, b.New.From = st.Old.Conninfo("", p["old-new"][0].Words()), st.New.Conninfo("", p["old-new"][1].Words())
	}
	for i, c := range st.Split {
		b.Clusters = append(b.Clusters, node(st.Scenario.Clusters[i].Name, c))
	}
	var text strings.Builder
	if err := t.Execute(&text, b); err != nil {
		return "", err
	}
	return text.String(), nil
}

// quoted is a value as YAML takes it, whatever is in it.
func quoted(v any) (string, error) {
	b, err := json.Marshal(v) // YAML takes JSON
	return string(b), err
}

// stageFile is what another process needs to find the stage again.
const stageFile = "stage.json"

type stageState struct {
	Scenario string            `json:"scenario"`
	Clients  map[string]string `json:"clients"`
	Poolers  []Place           `json:"poolers"`
	New      string            `json:"new"`
}

func (st *Stage) save() error {
	b, err := json.MarshalIndent(stageState{st.Scenario.Name, st.clients, st.Poolers, st.New.Name}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(st.Dir, stageFile), append(b, '\n'), 0o644)
}

// Open finds a stage that another process booted with keep.
func Open(dir string) (*Stage, error) {
	b, err := os.ReadFile(filepath.Join(dir, stageFile))
	if err != nil {
		return nil, err
	}
	var state stageState
	if err := json.Unmarshal(b, &state); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, stageFile), err)
	}
	s, err := Read(state.Scenario)
	if err != nil {
		return nil, err
	}
	st := &Stage{Scenario: s, Dir: dir, Runbook: filepath.Join(dir, "runbook.yaml"), Standbys: map[string][]Node{}, Poolers: state.Poolers, clients: state.Clients}
	if st.Lab, err = lab.Open(filepath.Join(dir, "lab")); err != nil {
		return nil, err
	}
	byName := map[string]*lab.Cluster{}
	for _, c := range st.Lab.Clusters() {
		byName[c.Name] = c
	}
	st.Old, st.New = byName[Primary], byName[state.New]
	if st.Old == nil || st.New == nil {
		return nil, fmt.Errorf("the lab in %s has lost its servers; take it down", dir)
	}
	for _, c := range s.Clusters {
		if n := byName[clusterName(c, st.New.Major)]; n != nil {
			st.Split = append(st.Split, n)
		}
	}
	for side, standbys := range map[string][]Standby{sideOld: s.Old.Standbys, sideNew: s.New.Standbys} {
		for _, sb := range standbys {
			name := sb.Name
			if side == sideNew {
				name = fmt.Sprintf("%s%d", sb.Name, st.New.Major)
			}
			if c := byName[name]; c != nil {
				st.Standbys[side] = append(st.Standbys[side], Node{sb, c})
			}
		}
	}
	return st, nil
}

// Down ends all servers and removes the run's folder.
func (st *Stage) Down(ctx context.Context) error {
	return errors.Join(st.Lab.Down(ctx), os.RemoveAll(st.Dir))
}
