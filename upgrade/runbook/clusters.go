package runbook

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"crossfade/upgrade/manager"

	"go.yaml.in/yaml/v4"
)

var clusterKeys = []keysUnder{
	{"the runbook", []string{"upgrade", "old", "new", "databases", "copy", "catchup", "verify", "cutover", "hooks", "accept", "journal"}},
	{"old", []string{"primary", "bin", "host", "standbys", "manager"}},
	{"manager", []string{"patroni"}},
	{"a standby of old", []string{"name", "conninfo", "host", "data", "stop"}},
	{"a cluster of new", []string{"cluster", "primary", "from_new", "from_old", "host", "bin", "synchronous_standby_names", "standbys", "window"}},
	{"a standby of new", []string{
		"name", "conninfo", "host", "bin", "data", "config", "start", "stop", "restart",
		"build", "upstream", "slot", "apply_delay", "settings",
	}},
}

// runbook reads the whole. What concerns one key is said where the key is
// read, what concerns several when all of them are known.
func (r *reader) runbook(rb *Runbook, root *yaml.Node) {
	m := r.mapping(r.follow(root), "the runbook", "the runbook")
	rb.Upgrade, _ = m.word("upgrade", nameForm, nameRight)
	m.require("upgrade", "the upgrade's name, like wacken17")
	m.require("old", "the cluster that serves now, like old: {primary: host=wacken dbname=postgres user=crossfade}")
	m.require("new", "the cluster that takes over, like new: [{cluster: wacken17, primary: host=wacken17 …}]")
	if n := m.value("old"); n != nil {
		rb.Old = r.old(n)
	}
	rb.New = r.clusters(m, rb.Old.Standbys)
	rb.Databases = r.databases(m)
	r.copying(m, rb)
	r.cutover(m, &rb.Cutover)
	r.hooks(m, &rb.Hooks)
	rb.Accept = r.accept(m)
	r.journal(m, rb)
	r.split(m, rb)
}

// journal fills in the journal's path, and keeps the files of one run apart:
// the journal is overwritten, and the file of approve is renamed.
func (r *reader) journal(m *yamlMap, rb *Runbook) {
	rb.Journal = filepath.Join(r.dir, rb.Upgrade+".journal")
	n, itself := m.value("journal"), filepath.Join(r.dir, filepath.Base(r.source.file))
	if s, ok := m.text("journal", "wacken17.journal"); ok {
		rb.Journal = r.beside(n, "journal", s)
	}
	if n != nil && rb.Journal == itself {
		r.mistake(n, "journal: this is the runbook itself; it is a file of its own, like wacken17.journal")
	}
	if file := rb.Cutover.ApproveFile; file != "" && (file == itself || file == rb.Journal) {
		r.mistake(r.approval, "approve: this is the runbook or the journal; it is a file of its own, like file:approved")
	}
}

func (r *reader) old(n *yaml.Node) Old {
	m := r.mapping(n, "old", "old")
	m.require("primary", "how crossfade reaches it, like primary: host=wacken dbname=postgres user=crossfade")
	old := Old{
		Primary: m.conninfo("primary"),
		Bin:     m.absolute("bin", "/usr/lib/postgresql/15/bin"),
		Host:    m.host("host"),
	}
	names := map[string]int{}
	for _, item := range m.items("standbys", "[{name: metal, conninfo: host=metal user=crossfade}]") {
		s := r.mapping(item, "standbys", "a standby of old")
		s.require("name", "its application_name, like name: metal")
		s.require("conninfo", "how crossfade reaches it, like conninfo: host=metal user=crossfade")
		st := OldStandby{
			At: r.at(item), Conninfo: s.conninfo("conninfo"), Host: s.host("host"),
			Data: s.absolute("data", "/var/lib/postgresql/15/main"), Stop: s.argv("stop", "[systemctl, stop, postgresql@15-main]"),
		}
		st.Name = s.nodeName(names)
		old.Standbys = append(old.Standbys, st)
	}
	if n := m.value("manager"); n != nil {
		old.Manager = r.manager(n)
	}
	return old
}

// manager reads how the manager of old is reached.
func (r *reader) manager(n *yaml.Node) OldManager {
	const right = "[http://wacken:8008]"
	m := r.mapping(n, "manager", "manager")
	m.require("patroni", "addresses of its REST API, like patroni: "+right)
	var out OldManager
	for _, n := range m.some("patroni", right) {
		s, ok := r.scalar(n, "patroni", right)
		if !ok {
			continue
		}
		if !manager.Address(s) {
			// Not repeated: one with a user in it may hold a password.
			r.mistake(n, "patroni: not an address of Patroni's REST API; it is http:// or https://, a host and a port, like %s; its user and password belong into PATRONI_RESTAPI_USERNAME and PATRONI_RESTAPI_PASSWORD", right)
			continue
		}
		out.Patroni = append(out.Patroni, s)
	}
	return out
}

// nodeName is a standby's name, each once in its cluster. names is those seen,
// by line.
func (m *yamlMap) nodeName(names map[string]int) string {
	name, ok := m.word("name", nodeForm, nodeRight)
	if !ok {
		return ""
	}
	n := m.value("name")
	if line, twice := names[name]; twice {
		m.r.mistake(n, "name: %s is the standby in line %d already; each has a name of its own", show(name), line)
	} else {
		names[name] = n.Line
	}
	if name == UpstreamPrimary || name == "*" {
		m.r.mistake(n, "name: %s means something else in upstream or synchronous_standby_names; give the standby another name", show(name))
	}
	return name
}

func (r *reader) clusters(m *yamlMap, old []OldStandby) []NewCluster {
	const right = "[{cluster: wacken17, primary: host=wacken17 dbname=postgres user=crossfade}]"
	var clusters []NewCluster
	names := map[string]int{}
	for _, item := range m.some("new", right) {
		clusters = append(clusters, r.cluster(item, names, old))
	}
	for _, c := range clusters {
		r.clusterNames = append(r.clusterNames, c.Cluster)
	}
	return clusters
}

func (r *reader) cluster(item *yaml.Node, names map[string]int, old []OldStandby) NewCluster {
	c := r.mapping(item, "new", "a cluster of new")
	c.require("cluster", "its name, like cluster: wacken17")
	c.require("primary", "how crossfade reaches it, like primary: host=wacken17 dbname=postgres user=crossfade")
	nc := NewCluster{
		At: r.at(item), Primary: c.conninfo("primary"), FromNew: c.conninfo("from_new"), FromOld: c.conninfo("from_old"),
		Host: c.host("host"), Bin: c.absolute("bin", "/usr/lib/postgresql/17/bin"),
	}
	if name, ok := c.word("cluster", nameForm, nameRight); ok {
		if line, twice := names[name]; twice {
			r.mistake(c.value("cluster"), "cluster: %s is the cluster in line %d already; each has a name of its own", name, line)
		}
		nc.Cluster, names[name] = name, c.value("cluster").Line
	}
	nc.SynchronousStandbyNames = c.syncNames()
	if w := c.value("window"); w != nil {
		nc.Window = new(r.window(w))
	}
	nodes := map[string]int{}
	var maps []*yamlMap
	for _, s := range c.items("standbys", "[{name: metal, conninfo: …, host: local:, data: /var/lib/postgresql/17/main}]") {
		sm := r.mapping(s, "standbys", "a standby of new")
		if sm == nil {
			continue
		}
		st := r.standby(sm, nodes)
		st.At = r.at(s)
		nc.Standbys, maps = append(nc.Standbys, st), append(maps, sm)
	}
	r.tree(nc.Standbys, maps)
	for i, s := range nc.Standbys {
		if s.After {
			r.after(s, maps[i], old)
		}
	}
	return nc
}

// after checks what a standby needs that is built in the place of one of old.
func (r *reader) after(s Standby, m *yamlMap, old []OldStandby) {
	n := m.value("build")
	i := slices.IndexFunc(old, func(o OldStandby) bool { return o.Name == s.Name })
	switch {
	case s.Name == "":
	case i < 0:
		r.mistake(n, "build: after takes the place of old's standby %s, and there is none under old.standbys; name it there with host and data, or build: before", show(s.Name))
	case old[i].Host == HostNone || old[i].Data == "":
		r.mistake(n, "build: after stops old's standby %s, in line %d, which has no %s; give it both, and stop where it is not pg_ctl", show(s.Name), old[i].At.Line,
			map[bool]string{true: "host", false: "data"}[old[i].Host == HostNone])
	case s.Host != HostNone && machine(s.Host) != machine(old[i].Host):
		r.mistake(n, "build: after is on the host of old's standby %s, and that is %s, not %s; give the same, or build: before", show(s.Name), old[i].Host, s.Host)
	}
}

// machine is a host without the user who logs in there.
func machine(h Host) string {
	rest, ssh := strings.CutPrefix(string(h), "ssh://")
	if _, at, ok := strings.Cut(rest, "@"); ssh && ok {
		rest = at
	}
	return rest
}

// syncNames is PostgreSQL's grammar of synchronous_standby_names: a list, or
// how many of a list. A wrong one would else be found when it is set.
func (m *yamlMap) syncNames() *string {
	const key, right = "synchronous_standby_names", "ANY 1 (metal, rock)"
	n := m.value(key)
	if n == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && strings.TrimSpace(n.Value) == "" {
		return new(string)
	}
	s, ok := m.r.scalar(n, key, right)
	if ok && !syncForm.MatchString(s) {
		m.r.mistake(n, `%s: %s is not what PostgreSQL takes; it is FIRST or ANY, a number and a list, like %s, with names that are no plain words in double quotes, or "" for none`,
			key, show(s), right)
		return nil
	}
	return &s
}

var syncForm = func() *regexp.Regexp {
	const (
		name = `(?:[A-Za-z_\x{80}-\x{10FFFF}][\w$\x{80}-\x{10FFFF}]*|[0-9]+|"(?:[^"]|"")+"|\*)`
		list = name + `(?:\s*,\s*` + name + `)*`
	)
	return regexp.MustCompile(`^\s*(?:(?:(?i:any|first)\s+)?[1-9][0-9]*\s*\(\s*` + list + `\s*\)|` + list + `)\s*$`)
}()

// otherwise are the settings of a standby that come from other keys.
var otherwise = map[string]string{
	"primary_conninfo":         "upstream and conninfo say it",
	"primary_slot_name":        "slot says it",
	"recovery_min_apply_delay": "apply_delay says it",
	"cluster_name":             "name says it",
	"data_directory":           "data says it",
}

func (r *reader) standby(m *yamlMap, names map[string]int) Standby {
	m.require("name", "its application_name and cluster_name, like name: metal")
	m.require("conninfo", "how crossfade reaches it, like conninfo: host=metal port=5433 user=crossfade")
	m.require("host", "where it is built and its commands run, like host: local:")
	m.require("data", "where it is built, like data: /var/lib/postgresql/17/main")
	s := Standby{
		Name:       m.nodeName(names),
		Conninfo:   m.conninfo("conninfo"),
		Host:       m.host("host"),
		Bin:        m.absolute("bin", "/usr/lib/postgresql/17/bin"),
		Data:       m.absolute("data", "/var/lib/postgresql/17/main"),
		Config:     m.absolute("config", "/etc/postgresql/17/main"),
		Start:      m.argv("start", "[systemctl, start, postgresql@17-main]"),
		Stop:       m.argv("stop", "[systemctl, stop, postgresql@17-main]"),
		Restart:    m.argv("restart", "[systemctl, restart, postgresql@17-main]"),
		Upstream:   UpstreamPrimary,
		ApplyDelay: m.duration("apply_delay", 0, 0, "1h"),
		Settings:   r.settings(m),
	}
	s.After = m.choice("build", "before", "before", "after") == "after"
	if up, ok := m.text("upstream", "primary"); ok {
		s.Upstream = up
	}
	if slot, ok := m.word("slot", slotForm, slotRight); ok {
		s.Slot = slot
	} else if s.Name != "" && m.value("slot") == nil {
		if s.Slot = s.Name; !slotForm.MatchString(s.Name) {
			r.mistake(m.value("name"), "name: %s cannot name the slot, too; give slot: %s", show(s.Name), slotRight)
		}
	}
	return s
}

func (r *reader) settings(m *yamlMap) []Setting {
	n := m.value("settings")
	if n == nil {
		return nil
	}
	var settings []Setting
	seen := map[string]int{} // by lower case: PostgreSQL does not tell them apart
	pairs, _ := r.pairs(n, "settings", `hot_standby_feedback: "on"`)
	for _, p := range pairs {
		low := strings.ToLower(p.name)
		line, twice := seen[low]
		seen[low] = p.key.Line
		switch {
		case !settingForm.MatchString(p.name):
			r.mistake(p.key, "settings: %s is no name of a setting, like hot_standby_feedback", show(p.name))
		case twice:
			r.mistake(p.key, "settings: %s is given in line %d already; PostgreSQL does not distinguish upper from lower case", p.name, line)
		case otherwise[low] != "":
			r.mistake(p.key, "settings: %s is not for settings: %s", p.name, otherwise[low])
		case p.value.Kind != yaml.ScalarNode:
			r.mistake(p.value, `settings: %s where a value belongs, like hot_standby_feedback: "on"`, yamlKind(p.value))
		case strings.ContainsAny(p.value.Value, "\n\t\x00"):
			r.mistake(p.value, "settings: the value of %s has a line break or tab in it; PostgreSQL reads a line", p.name)
		default:
			settings = append(settings, Setting{p.name, p.value.Value})
		}
	}
	return settings
}

var settingForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

// tree checks what the standbys of one cluster are to each other: upstreams
// that exist and lead to the primary, slots and directories that are one's own.
func (r *reader) tree(standbys []Standby, maps []*yamlMap) {
	byName := map[string]int{}
	var names []string
	for i, s := range standbys {
		if _, twice := byName[s.Name]; !twice && s.Name != "" {
			byName[s.Name] = i
			names = append(names, s.Name)
		}
	}
	inCircle := map[int]bool{}
	own := map[string]int{} // what only one standby can have, by line
	for i, s := range standbys {
		m := maps[i]
		if _, known := byName[s.Upstream]; s.Upstream != UpstreamPrimary && !known {
			hint := "it is primary or a standby of this cluster"
			if near := nearest(s.Upstream, append([]string{UpstreamPrimary}, names...)); near != "" {
				hint += fmt.Sprintf("; did you mean %s?", near)
			}
			r.mistake(m.value("upstream"), "upstream: %s does not exist; %s", show(s.Upstream), hint)
		}
		if up, known := byName[s.Upstream]; known && !s.After && standbys[up].After {
			r.mistake(m.value("upstream"), "upstream: %s is built after the cutover, and %s before; give build: after here, too", show(s.Upstream), show(s.Name))
		}
		if circle := circleOf(standbys, byName, i); circle != nil && !inCircle[i] {
			says := make([]string, len(circle))
			for j, at := range circle {
				inCircle[at] = true
				says[j] = show(standbys[at].Name)
			}
			r.mistake(m.value("upstream"), "upstream: %s follows %s: a circle; one of them follows primary",
				says[0], strings.Join(append(says[1:], says[0]), ", which follows "))
		}
		// Every host of this version is the same machine.
		m.own(own, "slot", s.Slot, " on "+show(s.Upstream))
		m.own(own, "data", s.Data, "")
		m.own(own, "config", s.Config, "")
	}
}

// own reports a value that another standby has already.
func (m *yamlMap) own(seen map[string]int, key, value, on string) {
	if value == "" {
		return
	}
	n := m.value(key)
	if n == nil {
		n = m.node // a default
	}
	id := key + "\x00" + value + on
	if line, twice := seen[id]; twice {
		m.r.mistake(n, "%s: %s%s belongs to the standby in line %d already; each has its own", key, show(value), on, line)
		return
	}
	seen[id] = m.node.Line
}

// circleOf is the circle of upstreams that begins and ends at standby i,
// or nil.
func circleOf(standbys []Standby, byName map[string]int, i int) []int {
	var circle []int
	for at := i; !slices.Contains(circle, at); {
		circle = append(circle, at)
		next, ok := byName[standbys[at].Upstream]
		if !ok {
			return nil
		}
		if at = next; at == i {
			return circle
		}
	}
	return nil // it leads into a circle that i is no part of
}

var settingKeys = []keysUnder{
	{"copy", []string{"jobs", "index_jobs", "chunk", "limit"}},
	{"catchup", []string{"max_lag", "stable", "max_wal"}},
	{"verify", []string{"mode"}},
}

// copying reads how rows are copied, caught up with and compared.
func (r *reader) copying(m *yamlMap, rb *Runbook) {
	if n := m.value("copy"); n != nil {
		c := r.mapping(n, "copy", "copy")
		rb.Copy.Jobs = int(c.integer("jobs", 4, 1))
		rb.Copy.IndexJobs = int(c.integer("index_jobs", 2, 1))
		rb.Copy.Chunk = c.size("chunk", rb.Copy.Chunk, 8<<10, "1GB") // a page
		rb.Copy.Limit = c.size("limit", 0, 64<<10, "200MB")          // what is handed on at once
	}
	if n := m.value("catchup"); n != nil {
		before := len(r.mistakes)
		c := r.mapping(n, "catchup", "catchup")
		up := &rb.Catchup
		up.MaxLag = c.size("max_lag", up.MaxLag, 1, "16MB")
		up.Stable = c.duration("stable", up.Stable, 0, "10s")
		up.MaxWAL = c.size("max_wal", up.MaxWAL, 1<<20, "50GB") // max_slot_wal_keep_size counts in megabytes
		written := c.value("max_lag") != nil && c.value("max_wal") != nil
		if written && len(r.mistakes) == before && up.MaxWAL < up.MaxLag {
			r.mistake(c.value("max_wal"), "max_wal: %s is below max_lag, %s: the slots would be given up before the lag is too long; give max_wal more",
				sizeText(up.MaxWAL), sizeText(up.MaxLag))
		}
	}
	if n := m.value("verify"); n != nil {
		v := r.mapping(n, "verify", "verify")
		mode := v.choice("mode", string(VerifyFull), "full", "sample", "counts", "off")
		if mode == "sample" {
			r.later(v.value("mode"), "mode", "full, counts and off are")
		}
		rb.Verify.Mode = VerifyMode(mode)
	}
}

// accept reads the findings that the operator accepts. Which ids there
// are, and which may be accepted, check knows.
func (r *reader) accept(m *yamlMap) []Accept {
	const right = `[large-objects, "unlogged:public.cache"]`
	var all []Accept
	seen := map[string]int{}
	for _, n := range m.items("accept", right) {
		s, ok := r.scalar(n, "accept", "large-objects")
		if !ok {
			continue
		}
		id, object, of := strings.Cut(s, ":")
		line, twice := seen[s]
		switch {
		case !findingForm.MatchString(id) || of && strings.TrimSpace(object) == "":
			r.mistake(n, "accept: %s is no finding; it is an id, or id:object, like %s", show(s), right)
		case twice:
			r.mistake(n, "accept: %s stands in line %d already; once is right", show(s), line)
		default:
			all = append(all, Accept{At: r.at(n), ID: id, Object: object})
		}
		seen[s] = n.Line
	}
	return all
}

var findingForm = regexp.MustCompile(`^[a-z][a-z0-9_./-]*$`)
