package manager

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"crossfade/upgrade/pg"
)

func TestPreloads(t *testing.T) {
	for list, want := range map[string]bool{
		"": false, "repmgr": true, "pg_stat_statements, repmgr": true, `"repmgr"`: true, "$libdir/repmgr": true, `"/usr/lib/x/repmgr" ,other`: true,
		"repmgr2": false, "my_repmgr": false, "pg_repmgr,other": false,
	} {
		if preloads(list, "repmgr") != want {
			t.Errorf("shared_preload_libraries = %s has repmgr: %t", list, !want)
		}
	}
}

// TestAddress: where repmgr says that a node is, in both ways that libpq takes.
func TestAddress(t *testing.T) {
	for _, c := range []struct {
		conninfo, host string
		port           uint16
	}{
		{"host=n1 user=repmgr dbname=repmgr", "n1", 5432},
		{"host=n1 port=6000", "n1", 6000},
		{"hostaddr=192.0.2.7 port=5433", "192.0.2.7", 5433},
		{"host=n1 hostaddr=192.0.2.7", "n1", 5432},
		{"host='/var/run/my postgresql' port=5433", "/var/run/my postgresql", 5433},
		{"postgresql://repmgr@n1:6000/repmgr", "n1", 6000},
		{"postgres://n1/repmgr", "n1", 5432},
		{"postgresql://[2001:db8::1]:6000/repmgr", "2001:db8::1", 6000},
		{"host=n1 port=none", "n1", 5432},
		{"user=repmgr", "", 5432},
		{"", "", 5432},
	} {
		if host, port := address(c.conninfo); host != c.host || port != c.port {
			t.Errorf("%s leads to %s port %d, want %s port %d", c.conninfo, host, port, c.host, c.port)
		}
	}
	for s, want := range map[string]bool{
		"http://n1:8008": true, "https://n1:8008/": true, "http://n1": true, "n1:8008": false, "http://user:secret@n1:8008": false, "http://n1:8008/patroni": false,
		"http://n1:8008?x=1": false, "ftp://n1": false, "http://:8008": false, "": false,
	} {
		if Address(s) != want {
			t.Errorf("%q is an address of Patroni: %t", s, !want)
		}
	}
}

// TestState: a node that could not be asked may act; it is neither held nor acting.
func TestState(t *testing.T) {
	acts, held, idle, silent := Node{Name: "a", Role: "primary", Runs: true}, Node{Name: "b", Runs: true, Held: true}, Node{Name: "c"}, Node{Name: "d", Role: "witness", Err: errors.New("no answer")}
	for _, c := range []struct {
		name                 string
		nodes                []Node
		active, held, silent bool
	}{
		{"none", nil, false, true, false},
		{"one acts", []Node{acts, held}, true, false, false},
		{"all are held, or do not run", []Node{held, idle}, false, true, false},
		{"one is silent", []Node{held, silent}, false, false, true},
		{"one is silent, one acts", []Node{silent, acts}, true, false, true},
	} {
		s := State{Nodes: c.nodes}
		if s.Active() != c.active || s.Held() != c.held || len(s.Silent()) > 0 != c.silent || len(s.Acting()) > 0 != c.active {
			t.Errorf("%s: active %t, held %t, silent %v, acting %v", c.name, s.Active(), s.Held(), s.Silent(), s.Acting())
		}
	}
	if got := Names([]Node{acts, held, silent}); got != "primary a, b, witness d" {
		t.Error(got)
	}
}

func server(t *testing.T, name, conninfo string) *pg.Server {
	t.Helper()
	s, err := pg.Parse(name, conninfo, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRepmgrNodes: each node is told at the place where it is: the primary that the
// upgrade works with, a standby as the runbook says, any other as repmgr says. Where
// two are primaries in repmgr's table, the one that is not active is no other name for old.
func TestRepmgrNodes(t *testing.T) {
	r := &repmgr{home: "repmgr", o: Options{Primary: server(t, "old", "host=here port=5000 user=me dbname=postgres"), Standbys: []*pg.Server{server(t, "n2", "host=known port=5001")}}}
	var s State
	for _, c := range []struct {
		name, role, conninfo string
		active               bool
		on, at               string
	}{
		{"n1", "primary", "host=other", true, "old", "here:5000"},
		{"n0", "primary", "host=former port=5009", false, "node n0 of old", "former:5009"},
		{"n2", "standby", "host=ignored", true, "node n2 of old", "known:5001"},
		{"n3", "standby", "host=third port=5003", true, "node n3 of old", "third:5003"},
		{"w", "witness", "dbname=repmgr", true, "node w of old", ""},
	} {
		n := r.node(c.name, c.role, c.conninfo, c.active)
		s.Nodes = append(s.Nodes, n)
		if c.at == "" {
			if n.Err == nil {
				t.Errorf("%s has no host, and that is no error", c.name)
			}
			continue
		}
		if n.on != c.on || n.server.Address() != c.at || n.server.Database() != "repmgr" {
			t.Errorf("%s is %s at %s, database %s; want %s at %s", c.name, n.on, n.server.Address(), n.server.Database(), c.on, c.at)
		}
	}
	var on []string
	for _, e := range r.Hold(s) {
		if e.SQL != "SELECT repmgr.repmgrd_pause(true)" || e.Database != "repmgr" {
			t.Errorf("%+v", e)
		}
		on = append(on, e.On)
	}
	if got := strings.Join(on, ", "); got != "old, node n0 of old, node n2 of old, node n3 of old" {
		t.Errorf("told to hold: %s", got)
	}
	release := r.Release(s, []string{"n3"})
	if len(release) != 1 || release[0].On != "node n3 of old" || release[0].SQL != "SELECT repmgr.repmgrd_pause(false)" {
		t.Errorf("let go on: %+v", release)
	}
	if got := r.Release(s, []string{}); len(got) != 0 {
		t.Errorf("nobody was held by the upgrade, and %+v", got)
	}
}

// TestPatroniSettings: what Patroni shares is read as every release writes it, and
// slots that somebody else has it leave alone stay so.
func TestPatroniSettings(t *testing.T) {
	for text, want := range map[string]bool{`{}`: false, `{"synchronous_mode": false}`: false, `{"synchronous_mode": true}`: true, `{"synchronous_mode": "quorum"}`: true, `{"synchronous_mode": null}`: false} {
		var d dynamic
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if got := d.Sync != nil && d.Sync != false; got != want {
			t.Errorf("%s is synchronous: %t", text, got)
		}
	}
	var d dynamic
	if err := json.Unmarshal([]byte(`{"ignore_slots": [{"name": "cf_a", "type": "logical"}, {"database": "other"}, {"name": 7}]}`), &d); err != nil {
		t.Fatal(err)
	}
	if !d.spares([]string{"cf_a"}) || d.spares([]string{"cf_a", "cf_b"}) || !d.spares(nil) {
		t.Errorf("spared are %v", d.names())
	}
	p, err := newPatroni(Options{Primary: server(t, "old", "host=n1"), Standbys: []*pg.Server{server(t, "s", "host=n2"), server(t, "t", "host=/tmp"), server(t, "u", "host=n1")}}, "1")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(p.candidates, " "); got != "http://n1:8008 http://n2:8008 http://localhost:8008" {
		t.Errorf("asked are %s", got)
	}
	if e := p.Release(State{}, nil)[0]; e.Request != `PATCH /config {"pause":null}` {
		t.Errorf("let go on by %s", e.Request)
	}
	if e := p.change(map[string]any{"x": "<&>"}); e.Request != `PATCH /config {"x":"<&>"}` {
		t.Errorf("what is sent is not what is shown: %s", e.Request)
	}
}
