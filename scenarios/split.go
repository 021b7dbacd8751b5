package scenarios

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"crossfade/scenarios/lab"
)

// Cluster is one of several new clusters: the tables of one schema go to it.
type Cluster struct {
	Name     string `yaml:"name"`
	Database string `yaml:"database"`
	Schema   string `yaml:"schema"`
}

// key is what a load, a pooler and a client's connection string are known by:
// the database, and the schema where it has one.
func key(database, schema string) string {
	if schema == "" {
		return database
	}
	return database + "_" + schema
}

// checkSplit finds what is wrong with several new clusters.
func (s *Scenario) checkSplit(wrong func(string, ...any), databases map[string]bool) {
	var names []string
	for _, c := range s.Clusters {
		if !plainName.MatchString(c.Name) || slices.Contains(names, c.Name) || !databases[c.Database] || !plainName.MatchString(c.Schema) {
			wrong("clusters: %q needs a name of its own, a database and a schema", c.Name)
		}
		names = append(names, c.Name)
		databases[key(c.Database, c.Schema)] = true
	}
	if len(names) > 0 && (len(s.New.Standbys) > 0 || len(s.New.SQL) > 0) {
		wrong("clusters: the new ones are empty, and have no standbys here")
	}
	for i, a := range s.Acts {
		for _, c := range a.Split {
			if !slices.Contains(names, c) {
				wrong("acts: number %d: there is no cluster %q", i+1, c)
			}
		}
		if len(names) > 0 && a.Prove+a.Left != "" {
			wrong("acts: number %d: with several clusters split says which of them serve", i+1)
		}
	}
}

// extend boots the new clusters beyond the first.
func (st *Stage) extend(ctx context.Context, fresh *lab.Install) error {
	for i, c := range st.Scenario.Clusters {
		if i == 0 {
			st.Split = append(st.Split, st.New)
			continue
		}
		n, err := st.Lab.Start(ctx, lab.Options{Name: clusterName(c, fresh.Major), Install: fresh, Settings: st.Scenario.New.Settings, HBA: st.Scenario.New.HBA})
		if err != nil {
			return err
		}
		st.Split = append(st.Split, n)
	}
	return nil
}

func clusterName(c Cluster, major int) string { return fmt.Sprintf("%s%d", c.Name, major) }

// ledgers makes a ledger for every load that has a schema of its own, and lets
// the application in.
func (st *Stage) ledgers(ctx context.Context, database string) error {
	for _, l := range st.Scenario.Load {
		if l.Database != database || l.Schema == "" {
			continue
		}
		if err := lab.LedgerIn(ctx, st.Old.Conninfo(database), l.Schema); err != nil {
			return err
		}
		err := st.Old.Exec(ctx, database, "GRANT USAGE ON SCHEMA "+l.Schema+" TO "+appRole,
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "+l.Schema+" TO "+appRole)
		if err != nil {
			return err
		}
	}
	return nil
}

// proveSplit stops the load and looks at every new cluster's tables: on the
// cluster itself where it is open, else on old.
func (p *play) proveSplit(ctx context.Context, open []string) error {
	p.printf("\nproof, with the load stopped: %s\n", whoServes(p.stage.Scenario.Clusters, open))
	last, err := p.users.Stop()
	if err != nil {
		return err
	}
	p.measure(last)
	for i, c := range p.stage.Scenario.Clusters {
		s := &splitProver{stage: p.stage, users: p.users, of: c, serves: p.stage.Old, other: p.stage.Split[i], want: p.want[sideOld]}
		side := sideOld
		if slices.Contains(open, c.Name) {
			side, s.serves, s.other, s.want = sideNew, s.other, s.serves, p.want[sideNew]
		}
		p.result.Proofs = append(p.result.Proofs, Proof{Serves: side, Cluster: c.Name, Major: s.serves.Major})
		proof := &p.result.Proofs[len(p.result.Proofs)-1]
		claim := func(c Claim) {
			proof.Claims = append(proof.Claims, c)
			p.printf("  %-*s %-6s %s\n", claimColumns, s.of.Name+": "+c.What, verdict(c.True), c.Says)
		}
		if i == 0 {
			p.outages(claim)
		}
		s.prove(ctx, claim)
		if !proof.Passed() {
			return fmt.Errorf("not everything is true of cluster %s", c.Name)
		}
	}
	return nil
}

// outages claims what the crossings since the last proof have cost the clients.
func (p *play) outages(claim func(Claim)) {
	for _, i := range p.open {
		c := p.result.Crossings[i]
		limit := p.stage.Scenario.Expect.Outage
		says := fmt.Sprintf("%s, and at most %s is right", took(inSeconds(c.Outage)), limit)
		claim(Claim{"outage at the client", says, inSeconds(c.Outage) <= limit})
	}
	p.open = nil
}

// title heads a column of proofs.
func (p Proof) title() string {
	if p.Cluster != "" {
		return fmt.Sprintf("%s on %s, PostgreSQL %d", p.Cluster, p.Serves, p.Major)
	}
	return fmt.Sprintf("PostgreSQL %d serves", p.Major)
}

func whoServes(all []Cluster, open []string) string {
	var says []string
	for _, c := range all {
		where := "old"
		if slices.Contains(open, c.Name) {
			where = "its own cluster"
		}
		says = append(says, fmt.Sprintf("%s is served by %s", c.Name, where))
	}
	return strings.Join(says, ", ")
}

// splitProver judges the tables of one of several new clusters.
type splitProver struct {
	stage         *Stage
	users         *Users
	of            Cluster
	serves, other *lab.Cluster
	want          string // pg_dumpall's text of a cluster that looks as it must
}

func (s *splitProver) prove(ctx context.Context, claim func(Claim)) {
	for _, look := range []struct {
		what string
		see  func(context.Context) (string, error)
	}{
		{"clients are led to it", s.clients},
		{"acknowledged rows, each once", s.rows},
		{"errors seen by clients", s.errors},
		{"rows equal on both sides", s.contents},
		{"sequences go on", s.sequences},
		{"schema", s.schema},
		{"tables of others on it", s.strangers},
		{"the other side refuses writes", s.refuses},
	} {
		says, err := look.see(ctx)
		if err != nil {
			claim(Claim{look.what, err.Error(), false})
		} else if says != "" {
			claim(Claim{look.what, says, true})
		}
	}
}

func (s *splitProver) clients(ctx context.Context) (string, error) {
	rows, err := query(ctx, s.stage.Client(key(s.of.Database, s.of.Schema)), "SELECT inet_server_port()")
	if err != nil {
		return "", err
	}
	if rows[0][0] != strconv.Itoa(s.serves.Port) {
		return "", fmt.Errorf("clients are at port %s, and %s is at port %d", rows[0][0], s.serves.Name, s.serves.Port)
	}
	return fmt.Sprintf("%s, PostgreSQL %d", s.serves.Name, s.serves.Major), nil
}

func (s *splitProver) acknowledged() *acknowledged {
	return s.users.acknowledged[key(s.of.Database, s.of.Schema)]
}

func (s *splitProver) rows(ctx context.Context) (string, error) {
	t := s.acknowledged()
	if t == nil {
		return "", errors.New("nobody has written: nothing is proven")
	}
	v, err := lab.Judge(ctx, t.reports, s.serves.Conninfo(s.of.Database), s.other.Conninfo(s.of.Database))
	if err == nil {
		err = v.Err()
	}
	if err == nil && v.Acked == 0 {
		err = errors.New("no row was acknowledged: nothing is proven")
	}
	return fmt.Sprintf("%s on %s, none on %s alone", plural(v.Acked, "row"), s.serves.Name, s.other.Name), err
}

func (s *splitProver) errors(context.Context) (string, error) {
	if bad := unexpected(s.acknowledged().failures, s.stage.Scenario.Expect.Errors); len(bad) > 0 {
		return "", errors.New(someFailures(bad))
	}
	return "none", nil
}

// contents compares the rows of the schema's tables, once the side that follows
// has the last of them.
func (s *splitProver) contents(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("the two sides do not become equal"))
	defer cancel()
	var want map[string]content
	differ := ""
	mine := func(of *lab.Cluster) (map[string]content, error) {
		all, err := contents(ctx, of, s.of.Database)
		maps.DeleteFunc(all, func(table string, _ content) bool { return !strings.HasPrefix(table, s.of.Schema+".") })
		return all, err
	}
	err := lab.Poll(ctx, 200*time.Millisecond, func() (bool, error) {
		var err error
		if want, err = mine(s.serves); err != nil {
			return false, err
		}
		have, err := mine(s.other)
		differ = differing(want, have)
		return err == nil && differ == "", err
	})
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, differ)
	}
	var rows int64
	for _, c := range want {
		rows += c.rows
	}
	if rows == 0 {
		return "", errors.New("there are no rows: nothing is proven")
	}
	return fmt.Sprintf("%s in %s", plural(rows, "row"), plural(int64(len(want)), "table")), nil
}

func (s *splitProver) sequences(ctx context.Context) (string, error) {
	have, err := nextValues(ctx, s.serves, s.of.Database)
	if err != nil {
		return "", err
	}
	floor, err := nextValues(ctx, s.other, s.of.Database)
	if err != nil {
		return "", err
	}
	n := int64(0)
	for name, f := range floor {
		if !strings.HasPrefix(name, s.of.Schema+".") {
			continue
		}
		n++
		if h, ok := have[name]; !ok || h.next < f.next {
			return "", fmt.Errorf("%s gives %d next, on the other side %d", name, h.next, f.next)
		}
	}
	if n == 0 {
		return "", errors.New("the schema has no sequence: nothing is proven")
	}
	return plural(n, "sequence"), nil
}

// schema compares everything of the schema, as pg_dump prints it, with old as it
// was, and so what is in no schema of a cluster: types, functions, sequences.
func (s *splitProver) schema(ctx context.Context) (string, error) {
	text, err := s.stage.dumpText(ctx, s.serves)
	if err != nil {
		return "", err
	}
	mine := func(d dump) dump {
		maps.DeleteFunc(d, func(about string, _ []string) bool {
			return !strings.HasPrefix(about, s.of.Database+" ") ||
				!strings.Contains(about, "; Schema: "+s.of.Schema+";") && !strings.Contains(about, "; Schema: public;")
		})
		return d
	}
	have, want := mine(s.stage.readDump(text)), mine(s.stage.readDump(s.want))
	if some, n := have.differences(want); n > 0 {
		return "", fmt.Errorf("%s differ from old as it was: %s", plural(int64(n), "object"), strings.Join(some, "; "))
	}
	return fmt.Sprintf("%s, as pg_dump prints them, equal to old's before", plural(int64(len(have)), "object")), nil
}

// strangers looks for what a new cluster must not have.
func (s *splitProver) strangers(ctx context.Context) (string, error) {
	if s.serves == s.stage.Old {
		return "", nil
	}
	const all = "SELECT coalesce(string_agg(oid::regclass::text, ', '), '') FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S') AND relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN (%s))"
	var others []string
	for _, c := range s.stage.Scenario.Clusters {
		if c.Name != s.of.Name {
			others = append(others, "'"+c.Schema+"'")
		}
	}
	found, err := s.serves.Value(ctx, s.of.Database, fmt.Sprintf(all, strings.Join(others, ", ")))
	if err == nil && found != "" {
		err = fmt.Errorf("%s has %s", s.serves.Name, found)
	}
	return "none", err
}

// refuses tries to write on the other side, as a superuser who insists.
func (s *splitProver) refuses(ctx context.Context) (string, error) {
	insists := "BEGIN READ WRITE; INSERT INTO " + s.of.Schema + ".ledger (worker, n) VALUES (-1, -1); ROLLBACK"
	err := s.other.Exec(ctx, s.of.Database, insists)
	if state := sqlState(err); state != "25006" {
		return "", fmt.Errorf("an INSERT on %s ended with %w, and must end with SQLSTATE 25006", s.other.Name, errors.Join(err, errNotRefused(err)))
	}
	return s.other.Name + ", a superuser's too", nil
}
