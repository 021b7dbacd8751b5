package runbook

import (
	"slices"
	"time"

	"crossfade/cutover/traffic"

	"go.yaml.in/yaml/v4"
)

// Traffic is one thing that sends clients to a cluster.
type Traffic struct {
	At    Position
	To    string        // the cluster whose clients it sends; "" where there is one
	Entry traffic.Entry // as its kind reads it; never nil
}

var trafficKeys = []keysUnder{
	{"an entry of traffic", append(kindKeys(func(k traffic.Kind) []string { return []string{k.Key} }), "to")},
}

// ofKinds are the keys below those of an entry: each kind of traffic has its own.
var ofKinds = kindKeys(func(k traffic.Kind) []keysUnder {
	var all []keysUnder
	for _, keys := range k.Keys {
		all = append(all, keysUnder{keys.Under, keys.Keys})
	}
	return all
})

func kindKeys[T any](of func(traffic.Kind) []T) []T {
	var all []T
	for _, k := range traffic.Kinds() {
		all = append(all, of(k)...)
	}
	return all
}

// traffic reads one entry. Of one that has several kinds all are read, for their
// mistakes.
func (r *reader) traffic(n *yaml.Node) Traffic {
	m := r.mapping(n, "traffic", "an entry of traffic")
	if m == nil {
		return Traffic{}
	}
	t := Traffic{At: r.at(n), To: r.to(m)}
	kinds := len(m.has) + len(m.empty)
	if _, ok := m.has["to"]; ok || m.empty["to"] {
		kinds--
	}
	if kinds > 1 {
		r.mistake(n, "traffic: %d kinds in one entry; each entry is one of %s", kinds, traffic.Known())
	} else if kinds == 0 && len(n.Content) == 0 {
		r.mistake(n, "traffic: an empty entry; it is one of %s", traffic.Known())
	}
	for _, k := range traffic.Kinds() {
		v := m.value(k.Key)
		if v == nil {
			continue
		}
		entry := k.Read(kindMapping{r, r.mapping(v, k.Key, k.Keys[0].Under), t.To})
		if k.Later != "" {
			m.later(k.Key, k.Later)
			continue
		}
		t.Entry = entry
	}
	return t
}

// hook reads a program of the operator, as the kind of traffic of that name does.
func (r *reader) hook(n *yaml.Node, what string, timeout time.Duration) *Hook {
	h := traffic.ReadHook(kindMapping{r, r.mapping(n, what, "a hook"), ""}, timeout)
	return &Hook{At: r.at(n), Run: h.Run, Timeout: h.Timeout}
}

// kindMapping is a mapping as a kind of traffic reads it: traffic.Mapping. A nil
// yamlMap has no keys, and its mistake is reported.
type kindMapping struct {
	r  *reader
	m  *yamlMap
	to string // the cluster whose clients the entry sends
}

func (k kindMapping) Require(key, right string) { k.m.require(key, right) }

func (k kindMapping) Text(key, right string) string {
	s, _ := k.m.text(key, right)
	return s
}

func (k kindMapping) Texts(key, right string) []string { return k.texts(key, right, false) }

func (k kindMapping) Names(key, right string) []string { return k.texts(key, right, true) }

func (k kindMapping) texts(key, right string, once bool) []string {
	var texts []string
	for _, n := range k.m.some(key, "["+right+"]") {
		s, ok := k.r.scalar(n, key, right)
		switch {
		case ok && once && slices.Contains(texts, s):
			k.r.mistake(n, "%s: %s is given twice; once is right", key, show(s))
		case ok:
			texts = append(texts, s)
		}
	}
	return texts
}

func (k kindMapping) Argv(key, right string) []string { return k.m.argv(key, right) }

func (k kindMapping) Conninfo(key string) string { return k.m.conninfo(key) }

func (k kindMapping) File(key, right string) string {
	s, ok := k.m.text(key, right)
	switch {
	case !ok:
		return ""
	case sshForm.MatchString(s):
		k.r.later(k.m.value(key), key, "a path on this machine is")
		return ""
	}
	return k.r.beside(k.m.value(key), key, s)
}

func (k kindMapping) Duration(key string, otherwise, least time.Duration) time.Duration {
	return k.m.duration(key, otherwise, least, otherwise.String())
}

func (k kindMapping) Mappings(key, under, right string) []traffic.Mapping {
	var all []traffic.Mapping
	for _, n := range k.m.some(key, right) {
		all = append(all, kindMapping{k.r, k.r.mapping(n, key, under), k.to})
	}
	return all
}

func (k kindMapping) Once(key, value, what string) {
	n := k.m.value(key)
	if n == nil || value == "" {
		return
	}
	id := k.m.under + "\x00" + key + "\x00" + value + "\x00" + k.to
	if line, twice := k.r.once[id]; twice {
		k.r.mistake(n, "%s: this %s stands in line %d already; once is right", key, what, line)
		return
	}
	k.r.once[id] = n.Line
}
