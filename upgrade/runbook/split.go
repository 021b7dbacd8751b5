package runbook

import (
	"fmt"
	"slices"
	"strings"
)

// nowhere is where something goes whose to: is a mistake.
const nowhere = "?"

// to reads which of the new clusters something goes to.
func (r *reader) to(m *yamlMap) string {
	name, ok := m.word("to", nameForm, nameRight)
	if !ok && m.value("to") != nil {
		return nowhere
	}
	if !ok {
		return ""
	}
	if !slices.Contains(r.clusterNames, name) {
		known := "known are " + strings.Join(r.clusterNames, ", ")
		if near := nearest(name, r.clusterNames); near != "" {
			known = "did you mean " + near + "?"
		}
		r.mistake(m.value("to"), "to: %s is no cluster of new; %s", name, known)
	}
	return name
}

// split wants to know of everything where it goes, where there are several
// clusters to go to.
func (r *reader) split(m *yamlMap, rb *Runbook) {
	at := func(p Position, format string, args ...any) {
		r.mistakes = append(r.mistakes, p.Problem(fmt.Sprintf(format, args...)))
	}
	if len(rb.New) < 2 {
		for _, c := range rb.New {
			if c.Window != nil {
				at(c.At, "window: there is one new cluster; give it under cutover")
			}
		}
		for i := range rb.Databases {
			for j := range rb.Databases[i].Sets {
				rb.Databases[i].Sets[j].To = ""
			}
		}
		for i := range rb.Cutover.Traffic {
			rb.Cutover.Traffic[i].To = ""
		}
		return
	}
	for i, name := range r.clusterNames {
		if name == "" || slices.Contains(r.clusterNames[:i], name) {
			return // a mistake already, and others would follow from it
		}
	}
	names := strings.Join(r.clusterNames, " or ")
	if rb.Databases == nil && m.value("databases") == nil {
		r.mistake(m.node, "databases: missing; with several clusters of new each set says where it goes, like [{name: shop, sets: [{name: main, tables: [\"*\"], to: %s}]}]", rb.New[0].Cluster)
	}
	gets, primaries := map[string]bool{}, map[string]bool{}
	for _, db := range rb.Databases {
		if db.Split > 0 {
			at(db.At, "sets: a number; with several clusters of new list the sets of %s, each with to: %s", db.Name, names)
			continue
		}
		for _, s := range db.Sets {
			p := s.At
			if p == (Position{}) {
				p = db.At // the default set
			}
			if gets[s.To] = true; s.To == "" {
				at(p, "to: missing for set %s of %s; with several clusters of new each set goes to %s", s.Name, db.Name, names)
			}
		}
	}
	for _, c := range rb.New {
		for _, sb := range c.Standbys {
			if sb.After { // it would take a standby from old, which others still write to
				at(sb.At, "build: not in this version with several clusters of new; only before is")
			}
		}
		if len(rb.Databases) > 0 && !gets[c.Cluster] {
			at(c.At, "cluster: no set goes to %s; give it one, or leave it out", c.Cluster)
		}
		if primaries[c.Primary] && c.Primary != "" {
			at(c.At, "primary: two clusters of new have the same; each has its own")
		}
		primaries[c.Primary] = true
	}
	for _, t := range rb.Cutover.Traffic {
		if t.To == "" {
			at(t.At, "to: missing for this entry of traffic; with several clusters of new each sends its clients to %s", names)
		}
	}
}

// For is the runbook of one of several new clusters: as if there were no other,
// but that the sets of its databases are all sets of theirs.
func (rb *Runbook) For(cluster string) *Runbook {
	one := *rb
	one.New, one.Databases, one.Cutover.Traffic = nil, nil, nil
	for _, c := range rb.New {
		if c.Cluster != cluster {
			continue
		}
		one.New = []NewCluster{c}
		if c.Window != nil {
			one.Cutover.Window = *c.Window
		}
	}
	for _, db := range rb.Databases {
		if !db.Goes(cluster) {
			continue
		}
		db.Identity = slices.DeleteFunc(slices.Clone(db.Identity), func(i Identity) bool {
			if i.Of != nil {
				return false // it is for the tables that the part has
			}
			for n, tables := range db.distribute([]TableName{i.Table}).sets {
				if len(tables) > 0 {
					return db.Sets[n].To != cluster
				}
			}
			return false
		})
		one.Databases = append(one.Databases, db)
	}
	for _, t := range rb.Cutover.Traffic {
		if t.To == cluster {
			one.Cutover.Traffic = append(one.Cutover.Traffic, t)
		}
	}
	return &one
}

// Goes says whether a set of the database goes to a cluster.
func (db Database) Goes(cluster string) bool {
	return slices.ContainsFunc(db.Sets, func(s Set) bool { return s.To == cluster })
}

// To is the cluster that a set goes to, and whether the runbook has that set.
func (db Database) To(set string) (cluster string, known bool) {
	for _, s := range db.Sets {
		if s.Name == set {
			return s.To, true
		}
	}
	return "", false
}
