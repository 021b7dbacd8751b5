package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"crossfade/cutover/traffic"
	"crossfade/schema"
	"crossfade/upgrade/manager"
	"crossfade/upgrade/pg"
	"crossfade/upgrade/report"
	"crossfade/upgrade/runbook"
	"crossfade/upgrade/standby"

	"github.com/jackc/pgx/v5"
)

// Draft looks at two live clusters and writes the runbook of an upgrade from
// one to the other, with comments: every standby of old that can be found and
// the same tree for new, every database with what must be decided about it. It
// changes nothing. A conninfo may name several hosts: all of them are asked.
//
// What cannot be known is written as a comment to be filled in. An error wraps
// pg.Error where a server does not answer.
func Draft(ctx context.Context, oldConninfo, newConninfo string) (string, error) {
	d := &draft{}
	for _, side := range []struct {
		name, conninfo string
		into           **standby.Tree
	}{{"old", oldConninfo, &d.old}, {"new", newConninfo, &d.new}} {
		server, err := pg.Parse(side.name, side.conninfo, "")
		if err != nil {
			return "", &ExitError{Code: ExitUsage, Says: err.Error(), Hint: "--" + side.name + " takes what psql takes: host=… dbname=… user=…, or a URI", Err: err}
		}
		if server.Secret() != "" {
			return "", exitf(ExitUsage, "put it into pgpass, a service file or PGPASSWORD", "--%s has a password in it, which would be seen in the list of processes", side.name)
		}
		each, err := server.As("crossfade init").Each()
		if err != nil {
			return "", &ExitError{Code: ExitUsage, Says: err.Error(), Err: err}
		}
		if *side.into, err = standby.Discover(ctx, each); err != nil {
			return "", fmt.Errorf("look at %s: %w", side.name, err)
		}
	}
	if was, is := d.old.Members[0].Major(), d.new.Members[0].Major(); was > is {
		return "", exitf(ExitUsage, "if they are swapped, exchange what is given with --old and --new; crossfade moves to a later major only",
			"--old is PostgreSQL %d and --new is PostgreSQL %d: are they swapped?", was, is)
	}
	if err := d.readManagers(ctx); err != nil {
		return "", err
	}
	if err := d.readDatabases(ctx); err != nil {
		return "", err
	}
	return d.write(), nil
}

// draft is a runbook on its way.
type draft struct {
	old, new  *standby.Tree
	managers  []string          // what fails old over
	homes     map[string]string // databases that are a manager's own, with its name
	databases []draftDatabase
	b         strings.Builder
}

type draftDatabase struct {
	name  string
	bytes int64
	inv   *schema.Inventory
}

// readManagers looks for what fails old over, and for the databases that are
// its own.
func (d *draft) readManagers(ctx context.Context) (err error) {
	var sessions pg.Sessions
	defer func() { err = errors.Join(err, sessions.Close(ctx)) }()
	found, err := manager.Find(ctx, manager.Options{Primary: d.old.Members[0].Server, Sessions: &sessions})
	if err != nil {
		return err
	}
	d.homes = map[string]string{}
	for _, m := range found {
		d.managers = append(d.managers, m.Name())
		if st, err := m.Look(ctx); err == nil && st.Home != "" {
			d.homes[st.Home] = m.Name()
		}
	}
	return nil
}

func (d *draft) readDatabases(ctx context.Context) error {
	server := d.old.Members[0].Server
	read := func(db string, f func(*pgx.Conn) error) error {
		conn, err := server.With(db).Connect(ctx)
		if err != nil {
			return err
		}
		err = f(conn)
		if cerr := conn.Close(ctx); err == nil {
			err = cerr
		}
		if err != nil {
			return &pg.Error{Doing: "look at database " + db, On: server.String(), Err: err}
		}
		return nil
	}
	err := read(server.Database(), func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `SELECT datname::text, pg_database_size(oid) FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1`)
		if err != nil {
			return err
		}
		d.databases, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (db draftDatabase, err error) {
			err = row.Scan(&db.name, &db.bytes)
			return db, err
		})
		return err
	})
	if err != nil {
		return err
	}
	d.databases = slices.DeleteFunc(d.databases, func(db draftDatabase) bool { return d.homes[db.name] == db.name })
	for i := range d.databases {
		db := &d.databases[i]
		err := read(db.name, func(conn *pgx.Conn) (err error) {
			db.inv, err = schema.Read(ctx, conn, schema.Filter{NoObjects: true})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// line adds one line, whatever the names in it hold: a line break in one would
// begin a key of its own.
func (d *draft) line(format string, args ...any) {
	text := strings.Join(strings.Split(fmt.Sprintf(format, args...), "\n"), " ")
	d.b.WriteString(report.VisibleText(text) + "\n")
}

// scalar is a value that YAML reads back as it was: a JSON string is one.
func scalar(s string) string {
	if plainScalar.MatchString(s) {
		return s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return "''" // a string always encodes
	}
	// Visible escapes, but for bytes that are no UTF-8 (of which the encoder has
	// left none) and for what is above U+FFFF, are those of YAML.
	return report.VisibleText(strings.TrimSpace(b.String()))
}

// plainScalar needs no quotes, also between braces.
var plainScalar = regexp.MustCompile(`\A[A-Za-z/][A-Za-z0-9_./-]*( [A-Za-z][A-Za-z0-9_./=-]*)*\z`)

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// clusterName is what the new cluster and the upgrade are called: old's name
// with new's major, as far as that may be a name.
func (d *draft) clusterName() string {
	major := fmt.Sprint(d.new.Members[0].Major())
	name := notInName.ReplaceAllString(strings.ToLower(d.old.Members[0].Name), "")
	name = strings.TrimLeft(strings.TrimSuffix(name, fmt.Sprint(d.old.Members[0].Major())), "0123456789")
	if name == "" {
		name = "to"
	}
	return name[:min(len(name), 15-len(major))] + major
}

func (d *draft) write() string {
	old, fresh := d.old.Members[0], d.new.Members[0]
	name := d.clusterName()
	d.line("# From PostgreSQL %d to %d. crossfade init wrote what it saw; what it could not see is a comment.", old.Major(), fresh.Major())
	d.line("# crossfade check says what blocks the upgrade. docs/runbook.md has every key with its default.")
	d.line("upgrade: %s", name)
	d.line("")
	d.line("# The old cluster as it runs:")
	for l := range strings.Lines(d.old.Draw()) {
		d.line("#   %s", strings.TrimRight(l, "\n"))
	}
	if d.old.SynchronousNames != "" {
		d.line("#   synchronous_standby_names = %s", d.old.SynchronousNames)
	}
	d.line("old:")
	d.line("  primary: %s", scalar(old.Server.Given()))
	d.oldStandbys()
	for _, name := range d.managers {
		d.line("  # %s fails it over: the cutover holds that still, until old serves again or the upgrade is finished.", name)
		if name == "Patroni" {
			d.line("  # manager: {patroni: [\"http://…:8008\"]}   # where its REST API is not at port 8008 of these hosts")
		}
	}
	d.line("")
	d.line("new:")
	d.line("  - cluster: %s", name)
	d.line("    primary: %s", scalar(fresh.Server.Given()))
	if bin := d.bin(); bin != "" {
		d.line("    bin: %s", scalar(bin))
	}
	if d.old.SynchronousNames != "" {
		d.line("    # synchronous_standby_names is set as on old once its standbys stream; another value:")
		d.line("    # synchronous_standby_names: %s", scalar(d.old.SynchronousNames))
	}
	d.newStandbys()
	d.line("")
	d.writeDatabases()
	d.line("")
	d.line("# The defaults of copy, catchup, verify and cutover are in docs/runbook.md. What most people set:")
	d.line("# cutover:")
	d.line("#   window: {zone: UTC, days: [sat, sun], from: \"02:00\", to: \"04:00\"}")
	d.line("#   traffic:   # without it clients find new by themselves, with target_session_attrs=read-write")
	biggest := slices.MaxFunc(d.databases, func(a, b draftDatabase) int { return cmp.Compare(a.bytes, b.bytes) })
	for _, k := range traffic.Kinds() {
		if k.Example != nil {
			d.line("#     - %s", k.Example(scalar(biggest.name)))
		}
	}
	return d.b.String()
}

// standbys are the members of old following its primary that have a name of their
// own: two that call themselves the same cannot be distinguished in a runbook.
func (d *draft) standbys() []*standby.Member {
	seen := map[string]bool{}
	var all []*standby.Member
	for _, m := range d.old.Members[1:] {
		if !seen[m.Name] {
			all = append(all, m)
		}
		seen[m.Name] = true
	}
	return all
}

func (d *draft) oldStandbys() {
	all := d.standbys()
	if len(all) == 0 {
		return
	}
	if n := len(d.old.Members) - 1 - len(all); n > 0 {
		d.line("  # %d more standbys call themselves by a name that another one has; give each an application_name of its own in primary_conninfo.", n)
	}
	if slices.ContainsFunc(all, func(m *standby.Member) bool { return m.Server != nil }) {
		d.line("  standbys:")
	} else {
		d.line("  # standbys:")
	}
	for _, m := range all {
		if m.Server == nil {
			d.line("    # %s could not be asked (%s): fill in how it is reached", m.Name, m.Why)
			d.line("    # - {name: %s, conninfo: …}", scalar(m.Name))
			continue
		}
		if m.Why != "" {
			d.line("    # %s: %s", m.Name, m.Why)
		}
		d.line("    - {name: %s, conninfo: %s}", scalar(m.Name), scalar(m.Server.Given()))
	}
}

// newStandbys writes old's tree for new. Where a standby's place is on another
// machine, or not known, its lines are a comment.
func (d *draft) newStandbys() {
	all := d.standbys()
	if len(all) == 0 {
		return
	}
	d.line("    # The same tree for new. Each is built before the cutover, in a data directory and on a port of")
	d.line("    # its own beside the old one: look at both before you go on.")
	active := map[*standby.Member]bool{}
	for _, m := range all {
		active[m] = m.Server != nil && local(m) && (m.Upstream == nil || m.Upstream.Upstream == nil || active[m.Upstream])
	}
	if !slices.ContainsFunc(all, func(m *standby.Member) bool { return active[m] }) {
		d.line("    # standbys:")
	} else {
		d.line("    standbys:")
	}
	for _, m := range all {
		hide := ""
		if !active[m] {
			hide = "# "
			d.line("    # %s runs on another machine, or follows one that does: ssh must log in there with a key, as a user that may run PostgreSQL.", m.Name)
		}
		for _, l := range d.newStandby(m) {
			d.line("    %s  %s", hide, l)
		}
	}
}

func (d *draft) newStandby(m *standby.Member) []string {
	conninfo, data, config, where := "…", "…", "", "ssh://…"
	if m.Server != nil {
		if where = "local:"; !local(m) {
			host, _ := m.Server.Host()
			where = pg.SSH{User: "postgres", Host: host}.Name()
		}
		host, port := m.Server.Host()
		if at, err := m.Server.At(host, port+1); err == nil {
			conninfo = at.Given()
		}
		if m.Data != "" {
			data = d.beside(m.Data)
		}
		if m.Config != "" {
			config = d.beside(m.Config)
		}
	}
	lines := []string{"- name: " + scalar(m.Name), "  conninfo: " + scalar(conninfo), "  host: " + scalar(where), "  data: " + scalar(data)}
	if bin := d.bin(); bin != "" {
		lines = append(lines, "  bin: "+scalar(bin))
	}
	add := func(format string, args ...any) { lines = append(lines, "  "+fmt.Sprintf(format, args...)) }
	if config != "" {
		add("config: %s", scalar(config))
	}
	if m.Upstream != nil && m.Upstream.Upstream != nil {
		add("upstream: %s", scalar(m.Upstream.Name))
	}
	if m.Delay > 0 {
		add("apply_delay: %s", m.Delay)
	}
	switch {
	case m.Feedback:
		add(`settings: {hot_standby_feedback: "on"}`)
	case m.Upstream != nil && m.Upstream.Feedback:
		add(`settings: {hot_standby_feedback: "off"}`) // a copy begins with its upstream's settings
	}
	return lines
}

// bin is the folder of new's client programs where they are not found by
// version alone; "" where they are, or are not on this machine.
func (d *draft) bin() string {
	m := d.new.Members[0]
	if _, err := pg.Program("", "pg_dump", m.Major()); err == nil || !local(m) || m.Bin == "" {
		return ""
	}
	if _, err := pg.Program(m.Bin, "pg_dump", m.Major()); err != nil {
		return ""
	}
	return m.Bin
}

// beside is the path of the new major beside one of the old: its major
// replaced where a folder is called so, else added at the end.
func (d *draft) beside(old string) string {
	from, to := fmt.Sprint(d.old.Members[0].Major()), fmt.Sprint(d.new.Members[0].Major())
	parts := strings.Split(path.Clean(old), "/")
	for i, p := range parts {
		if p == from {
			parts[i] = to
			return strings.Join(parts, "/")
		}
	}
	return path.Clean(old) + "-" + to
}

// local reports whether a member runs on this machine, as its address tells.
func local(m *standby.Member) bool {
	host, _ := m.Server.Host()
	return strings.HasPrefix(host, "/") || host == "localhost" || host == "::1" || strings.HasPrefix(host, "127.")
}

func (d *draft) writeDatabases() {
	d.line("databases:")
	for _, home := range slices.Sorted(maps.Keys(d.homes)) {
		if d.homes[home] == home {
			d.line("  # %s stays with old: it is what %s knows of its nodes.", home, d.homes[home])
		}
	}
	for _, db := range d.databases {
		var rows, tables int64
		for _, t := range db.inv.Tables {
			if t.Published() {
				tables++
				rows += max(t.Rows, 0)
			}
		}
		identity := draftIdentity(db.inv.Tables)
		d.line("  - name: %s   # %s, %d tables, about %d rows", scalar(db.name), report.Size(db.bytes), tables, rows)
		if len(identity) > 0 {
			d.line("    # Without a key UPDATE and DELETE would fail on old once these are published: set for the time of the upgrade.")
			d.line("    identity:")
			for _, i := range identity {
				d.line("      %s", i)
			}
		}
		if db.inv.LargeObjects > 0 {
			d.line("    # %d large objects are not carried over: crossfade check says what can be done.", db.inv.LargeObjects)
		}
		for _, a := range draftUnlogged(db.inv.Tables) {
			d.line("    # to go on without these rows: accept: [%s] at the top level", scalar(a))
		}
	}
}

// fewTables are as many tables of a schema as are named one by one; more of them
// are a pattern.
const fewTables = 5

// bySchema are tables by their schema, in the order of their schemas.
func bySchema(tables []schema.Table, want func(schema.Table) bool) [][]schema.Table {
	var all [][]schema.Table
	at := map[string]int{}
	for _, t := range tables {
		if !want(t) {
			continue
		}
		i, seen := at[t.Schema]
		if !seen {
			i, at[t.Schema] = len(all), len(all)
			all = append(all, nil)
		}
		all[i] = append(all[i], t)
	}
	return all
}

// draftIdentity are the lines under identity: for the tables without a key.
func draftIdentity(tables []schema.Table) []string {
	var lines []string
	for _, some := range bySchema(tables, func(t schema.Table) bool { return t.Published() && !t.Identity.Usable }) {
		pattern := "full"
		for _, t := range some {
			how := "full"
			if t.Identity.Candidate != "" {
				how, pattern = "index:"+t.Identity.Candidate, "index"
			}
			if len(some) <= fewTables {
				lines = append(lines, scalar(t.String())+": "+scalar(how))
			}
		}
		if len(some) > fewTables {
			lines = append(lines, fmt.Sprintf("%s: %s   # %d tables", scalar(runbook.Ident(some[0].Schema)+".*"), pattern, len(some)))
		}
	}
	return lines
}

// draftUnlogged are what accept: would say of unlogged tables.
func draftUnlogged(tables []schema.Table) []string {
	var accept []string
	for _, some := range bySchema(tables, func(t schema.Table) bool { return !t.Published() && t.Persistence == 'u' }) {
		if len(some) > fewTables {
			accept = append(accept, "unlogged:"+runbook.Ident(some[0].Schema)+".*")
			continue
		}
		for _, t := range some {
			accept = append(accept, "unlogged:"+t.String())
		}
	}
	return accept
}
