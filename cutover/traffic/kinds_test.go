package traffic

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestKinds: every kind is whole, and no two share a key, a mapping or a finding.
func TestKinds(t *testing.T) {
	seen := map[string]string{}
	once := func(what, name, kind string) {
		if other, twice := seen[what+name]; twice {
			t.Errorf("%s %q is that of %s and of %s", what, name, other, kind)
		}
		seen[what+name] = kind
	}
	for _, k := range Kinds() {
		once("key", k.Key, k.Key)
		for _, keys := range k.Keys {
			once("mapping", keys.Under, k.Key)
			if len(keys.Keys) == 0 {
				t.Errorf("%s of %s has no keys", keys.Under, k.Key)
			}
		}
		for _, f := range k.Findings {
			once("finding", f.ID, k.Key)
		}
		if len(k.Keys) == 0 || k.Read == nil || k.Later == "" && k.Revive == nil {
			t.Errorf("%s lacks keys, Read or Revive", k.Key)
		}
	}
	if got := Known(); got != "pgbouncer, haproxy and hook" {
		t.Errorf("people read of %s", got)
	}
}

// TestGuarded: what a guard is given through its pipe resumes what the tool has paused,
// unit by unit, with the names that the tool uses for them, and as who the tool is.
func TestGuarded(t *testing.T) {
	around := Around{App: "crossfade up", MaxBlocked: 5 * time.Second, Env: func() []string { return []string{"CROSSFADE_UPGRADE=up"} }}
	var g Group
	for _, e := range []Entry{
		&PgBouncerEntry{Databases: []string{"shop", `o"dd`}, Instances: []PgBouncerInstance{
			{Admin: `host=pool1 port=6432 user=pgbouncer password='it\'s \\ $x'`, Config: "/etc/a.ini"}, {Admin: "host=/tmp port=6433", Config: "/etc/b.ini"},
		}},
		&HookEntry{Run: []string{"./move-dns", "zone"}, Timeout: 3 * time.Second},
	} {
		s, err := e.Switch(around)
		if err != nil {
			t.Fatal(err)
		}
		g = append(g, s)
	}
	spec, err := g.Spec(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var read GuardSpec
	if err := json.Unmarshal(b, &read); err != nil {
		t.Fatal(err)
	}
	revived, err := read.switches()
	if err != nil {
		t.Fatal(err)
	}
	units := g.Units()
	if read.Deadline != time.Second || len(revived) != 3 || len(units) != 3 {
		t.Fatalf("%d units of %d, deadline %s", len(revived), len(units), read.Deadline)
	}
	for i, u := range units {
		if revived[i].Name() != u.Name() {
			t.Errorf("unit %q is %q to the guard", u.Name(), revived[i].Name())
		}
		if diff := cmp.Diff(u.Does(Resume, nil), revived[i].Does(Resume, nil)); diff != "" {
			t.Errorf("%s is resumed otherwise (-tool +guard):\n%s", u.Name(), diff)
		}
	}
	for i, instance := range g[0].(*PgBouncer).Instances {
		admin := revived[i].(*PgBouncer).Instances[0].Admin
		if admin.Secret() != instance.Admin.Secret() || admin.App != "crossfade up" || admin.Address() != instance.Admin.Address() {
			t.Errorf("the guard reaches %s as %s with the password %q", admin.Address(), admin.App, admin.Secret())
		}
	}
	hook := revived[2].(*Hook)
	if hook.Timeout != 3*time.Second || cmp.Diff([]string{"CROSSFADE_STEP=traffic/resume", "CROSSFADE_UPGRADE=up"}, hook.Env()) != "" {
		t.Errorf("the guard's hook: %s %v", hook.Timeout, hook.Env())
	}
	if read.Units[0].Here || !read.Units[2].Here {
		t.Error("a hook by a relative path is run where the tool was started, a console from anywhere")
	}
	if _, err := (GuardSpec{Units: []GuardUnit{{Kind: "haproxy", Name: "haproxy x"}}}).switches(); err == nil || !strings.Contains(err.Error(), "haproxy x") {
		t.Errorf("a kind that no guard can resume: %v", err)
	}
}

// TestSays: what people and checks read of an entry.
func TestSays(t *testing.T) {
	pool := &PgBouncerEntry{Databases: []string{"shop", "blog"}, Instances: []PgBouncerInstance{{Admin: "host=pool1 port=6432"}, {Admin: "no conninfo"}}}
	for _, c := range []struct {
		entry              Entry
		says, hosts, names []string
	}{
		{
			pool,
			[]string{"Clients of shop, blog come through PgBouncer at pool1:6432.", "Clients of shop, blog come through PgBouncer at an address that cannot be read."},
			[]string{"pool1"},
			[]string{"shop", "blog"},
		},
		{&HookEntry{Run: []string{"/bin/move-dns", "x"}}, []string{"Clients are sent by /bin/move-dns."}, nil, nil},
	} {
		if diff := cmp.Diff([][]string{c.says, c.hosts, c.names}, [][]string{c.entry.Says(), c.entry.Hosts(), c.entry.Names()}); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if _, err := pool.Switch(Around{}); err == nil {
		t.Error("a console that cannot be read makes a switch")
	}
}
