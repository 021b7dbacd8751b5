package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
)

// clean are the facts of an upgrade in whose way nothing stands.
func clean() *Facts {
	settings := func(more map[string]string) map[string]Setting {
		all := map[string]Setting{}
		for name, v := range map[string]string{
			"wal_level": "logical", "max_replication_slots": "10", "max_wal_senders": "10", "max_logical_replication_workers": "4",
			"max_worker_processes": "8", "max_connections": "100", "superuser_reserved_connections": "3", "max_locks_per_transaction": "64",
			"max_prepared_transactions": "0", "autovacuum_max_workers": "3", "ssl": "off", "synchronous_standby_names": "",
			"session_replication_role": "origin", "archive_mode": "off", "shared_preload_libraries": "", "max_slot_wal_keep_size": "-1",
			"max_wal_size": "1024", "work_mem": "4096", "statement_timeout": "0", "default_transaction_read_only": "off",
		} {
			all[name] = Setting{Value: v, Source: "default", Boot: v, Context: "postmaster"}
		}
		for name, v := range more {
			all[name] = Setting{Value: v, Source: "default", Boot: v}
		}
		return all
	}
	hba := func() *pg.HBA {
		return &pg.HBA{Version: 180000, Rules: []pg.HBARule{
			{Line: 1, Type: "local", Databases: []string{"all"}, Users: []string{"all"}, Method: "peer"},
			{Line: 2, Type: "host", Databases: []string{"all"}, Users: []string{"all"}, Address: "10.0.0.0", Netmask: "255.0.0.0", Method: "scram-sha-256"},
		}, Members: map[string]map[string]bool{}}
	}
	catalog := func(name string, oid uint32) Catalog {
		return Catalog{
			OID: oid, Name: name, AllowsConnections: true, ConnLimit: -1, Encoding: "UTF8", Provider: "c", Collate: "en_US.UTF-8", Ctype: "en_US.UTF-8",
			CollationVersion: "2.36", ActualVersion: "2.36", Tablespace: "pg_default",
		}
	}
	server := func(side string, version int) *Server {
		super := Role{Name: "crossfade", Super: true, Replication: true, BypassRLS: true, Login: true, ConnLimit: -1}
		return &Server{
			Side: side, Name: side + " (db." + side + " port 5432)",
			Identity:  pg.Identity{Version: version, SystemID: "75" + side, Timeline: 1, Superuser: true},
			Role:      super,
			Roles:     []Role{{Name: "app", Login: true, ConnLimit: -1}, super},
			Passwords: map[string]Password{"app": SCRAMPassword, "crossfade": SCRAMPassword},
			Databases: []Catalog{catalog("postgres", 5), catalog("template1", 1)},
			HBA:       hba(),
			Backends:  map[string]int64{"client backend": 10, "logical replication launcher": 1},
		}
	}
	old, nw := server(OnOld, 150020), server(OnNew, 180007)
	old.Settings = settings(nil)
	nw.Settings = settings(map[string]string{
		"max_active_replication_origins": "10", "autovacuum_worker_slots": "16", "reserved_connections": "0", "idle_replication_slot_timeout": "0",
		"event_triggers": "on", "output_plugin_libraries": "pgoutput, test_decoding", "dynamic_library_path": "$libdir",
	})
	nw.Roles = nw.Roles[1:]
	old.Databases[1].Template, nw.Databases[1].Template = true, true
	old.Databases = append(old.Databases, catalog("shop", 16400))
	old.Clients = []Client{{Role: "app", Database: "shop", Address: "10.1.2.3", Application: "web", Count: 9}}
	nw.Extensions = map[string]Extension{"hstore": {Default: "1.8", Versions: []string{"1.7", "1.8"}}}
	nw.Collations = []Collation{{Name: "en_US", Provider: "c", Collate: "en_US.utf8"}, {Name: "und-x-icu", Provider: "i"}}
	orders := table(1, "orders")
	return &Facts{
		Want: Options{Upgrade: "up", Databases: []Database{{Name: "shop"}}, Back: true, MaxWAL: 50 << 30},
		At:   time.Now(), Old: old, New: nw,
		Databases: []DatabaseFacts{{
			Name: "shop", Want: Database{Name: "shop"}, Old: &old.Databases[2],
			Inventory: &schema.Inventory{Database: "shop", Version: 150020, Tables: []schema.Table{orders}},
			Sets:      []schema.Set{{Name: "main", Tables: []schema.Table{orders}}},
		}},
		OldMachine: Machine{Asked: true, WAL: &Disk{"/pg/15/pg_wal", 900 << 30}, Data: &Disk{"/pg/15", 900 << 30}, Cores: 16},
		NewMachine: Machine{Asked: true, WAL: &Disk{"/pg/18/pg_wal", 900 << 30}, Data: &Disk{"/pg/18", 900 << 30}, Cores: 16},
		Reach:      []Reach{{From: OnNew, To: OnOld, Database: "shop"}, {From: OnOld, To: OnNew, Database: "postgres"}},
		Programs:   []Program{{Name: "pg_dump", Path: "/bin/pg_dump", Version: 180007}, {Name: "pg_restore", Path: "/bin/pg_restore", Version: 180007}},
	}
}

func table(oid uint32, name string) schema.Table {
	return schema.Table{
		OID: oid, Schema: "public", Name: name, Kind: 'r', Persistence: 'p', Rows: 1000,
		Columns:  []schema.Column{{Name: "id", Num: 1, Type: "bigint", NotNull: true, Equality: true}},
		Identity: schema.Identity{Kind: 'd', Index: name + "_pkey", Columns: []string{"id"}, Usable: true},
	}
}

// short is what a test compares of a finding.
func short(f Finding) string {
	parts := []string{string(f.Level), f.ID, f.On}
	if f.Database != "" {
		parts = append(parts, f.Database)
	}
	if f.Object != "" {
		parts = append(parts, f.Object)
	}
	return strings.Join(parts, " ")
}

// set changes settings of a server.
func (s *Server) set(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		x := s.Settings[pairs[i]]
		x.Value = pairs[i+1]
		s.Settings[pairs[i]] = x
	}
}

// configure sets settings as a configuration file does.
func (s *Server) configure(pairs ...string) {
	for i := 0; i < len(pairs); i += 2 {
		s.Settings[pairs[i]] = Setting{Value: pairs[i+1], Source: "configuration file"}
	}
}

func (f *Facts) thing(t ...Thing) { f.Databases[0].Things = append(f.Databases[0].Things, t...) }

// indexes are those of a table.
func (f *Facts) indexes(table string, all ...Index) {
	f.Databases[0].Indexes = map[string][]Index{table: all}
}

func (f *Facts) table(t schema.Table) {
	inv := f.Databases[0].Inventory
	inv.Tables = append(inv.Tables, t)
}

// into makes shop a database of new.
func (f *Facts) into() *Catalog {
	c := *f.Databases[0].Old
	f.New.Databases = append(f.New.Databases, c)
	f.Databases[0].New = &c
	return &c
}

func standby(name, system string, recovery bool) StandbyFacts {
	return StandbyFacts{
		Standby: Standby{Name: name}, Side: OnOld, AppName: name,
		Facts: &Server{Side: name, Name: name + " (db port 5433)", Identity: pg.Identity{Version: 150020, SystemID: system, InRecovery: recovery}},
	}
}

type judged struct {
	id     string // the check that the case is for
	name   string
	change func(*Facts)
	want   []string // as short writes them; nil is silence
}

func denied() error {
	return &pgconn.PgError{Code: insufficientPrivilege, Message: "permission denied"}
}

func TestJudge(t *testing.T) {
	covered := map[string][2]bool{} // ID → fires, stays quiet
	levels := map[string][]Level{}
	for _, c := range slices.Concat(serverCases, budgetCases, diskCases, accessCases, roleCases, replicationCases, slotCases, standbyCases, managerCases, archiveCases,
		identityCases, setCases, contentCases, applyCases, partitionCases, extensionCases, removedCases, databaseCases, settingCases, activityCases, ddlCases) {
		t.Run(c.id+"/"+c.name, func(t *testing.T) {
			f := clean()
			c.change(f)
			got := slices.DeleteFunc(Judge(f), func(x Finding) bool { return x.ID == "budget" && c.id != "budget" }) // it always speaks
			var says []string
			fires := false
			for _, x := range got {
				levels[x.ID] = append(levels[x.ID], x.Level)
				says = append(says, short(x))
				fires = fires || x.ID == c.id
				if x.Says == "" || strings.Contains(x.Says, "%!") || strings.Contains(x.Fix, "%!") || x.Level != Note && x.Fix == "" && x.ID != "server-version" && x.ID != "database-missing" {
					t.Errorf("%+v", x)
				}
				if x.Table != nil {
					for _, row := range x.Table.Rows {
						if len(row) != len(x.Table.Columns) {
							t.Errorf("%s: a row of %d cells under a head of %d: %q", x.ID, len(row), len(x.Table.Columns), row)
						}
					}
				}
				for line := range strings.Lines(x.Fix) {
					if strings.TrimSpace(line) == "" {
						t.Errorf("an empty line in the fix of %s: %q", x.ID, x.Fix)
					}
				}
			}
			if diff := cmp.Diff(c.want, says); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
				for _, x := range got {
					t.Logf("%s\n\t%s\n\t%s", short(x), x.Says, x.Fix)
				}
			}
			seen := covered[c.id]
			covered[c.id] = [2]bool{seen[0] || fires, seen[1] || !fires}
		})
	}
	if t.Failed() {
		return
	}
	ids := map[string]bool{}
	for _, c := range Checks() {
		if ids[c.ID] {
			t.Errorf("two checks are called %s", c.ID)
		}
		ids[c.ID] = true
		if !covered[c.ID][0] {
			t.Errorf("no case makes %s fire", c.ID)
		}
		seen := levels[c.ID]
		slices.SortFunc(seen, func(a, b Level) int { return a.rank() - b.rank() })
		if diff := cmp.Diff(c.Levels, slices.Compact(seen)); diff != "" {
			t.Errorf("levels of %s (-said +seen in the cases):\n%s", c.ID, diff)
		}
		if !covered[c.ID][1] {
			t.Errorf("no case of its own keeps %s quiet", c.ID)
		}
	}
	for id := range covered {
		if !ids[id] {
			t.Errorf("cases for %s, which is no check", id)
		}
	}
}

func TestClean(t *testing.T) {
	for _, x := range Judge(clean()) {
		if x.ID != "budget" {
			t.Errorf("%s: %s", short(x), x.Says)
		}
	}
	// A server that does not answer silences what needs it, and nothing panics.
	for _, side := range []string{OnOld, OnNew} {
		f := clean()
		broken := &Server{Side: side, Name: side, Err: errors.New("refused")}
		if side == OnOld {
			f.Old, f.Databases[0].Old = broken, nil
		} else {
			f.New = broken
		}
		for _, x := range Judge(f) {
			if x.ID != "server-unreachable" && x.ID != "budget" {
				t.Errorf("%s does not answer: %s: %s", side, short(x), x.Says)
			}
		}
	}
}

func TestAccept(t *testing.T) {
	f := clean()
	unlogged := table(2, "cache")
	unlogged.Persistence = 'u'
	other := table(3, "other")
	other.Persistence = 'u'
	f.table(unlogged)
	f.table(other)
	f.Databases[0].Inventory.LargeObjects = 3
	f.Old.set("wal_level", "replica")
	f.Want.Accepts = func(id, object string) bool {
		return id == "unlogged" && object == "public.cache" || id == "large-objects" || id == "wal-level"
	}
	got := map[string]bool{}
	for _, x := range Judge(f) {
		if x.ID != "budget" {
			got[short(x)] = x.Accepted
		}
	}
	want := map[string]bool{
		"block wal-level old wal_level": false, // may not be accepted
		"block large-objects old shop":  true, "block unlogged old shop public.cache": true, "block unlogged old shop public.other": false,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("accepted (-want +got):\n%s", diff)
	}
	var blocking []string
	for _, x := range Blocking(Judge(f)) {
		blocking = append(blocking, short(x))
	}
	if diff := cmp.Diff([]string{"block unlogged old shop public.other", "block wal-level old wal_level"}, blocking); diff != "" {
		t.Errorf("blocking (-want +got):\n%s", diff)
	}
}

func TestOrder(t *testing.T) {
	f := clean()
	f.Old.set("wal_level", "minimal")
	f.thing(Thing{Kind: "publication", Name: "b"}, Thing{Kind: "publication", Name: "a"}, Thing{Kind: "invalid-index", Name: "public.i", More: "public.t"})
	var got []string
	for _, x := range Judge(f) {
		got = append(got, short(x))
	}
	want := []string{
		"block wal-level old wal_level", "warn invalid-index old shop public.i", "note budget new", "note budget old", "note publications old shop a", "note publications old shop b",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(Finding{ID: "wal-level", Level: Block, On: OnOld, Object: "wal_level", Says: "no", Acceptable: false})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"finding","id":"wal-level","level":"block","on":"old","database":null,"object":"wal_level","objects":[],"says":"no","fix":null,"table":null,"accepted":false,"acceptable":false}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

func TestParseSync(t *testing.T) {
	for in, want := range map[string]syncNames{
		"":                            {},
		"  ":                          {},
		"metal":                       {Count: 1, Names: []string{"metal"}},
		"metal, rock":                 {Count: 1, Names: []string{"metal", "rock"}},
		"2 (metal, rock)":             {Count: 2, Names: []string{"metal", "rock"}},
		"FIRST 1 (metal, rock)":       {Count: 1, Names: []string{"metal", "rock"}},
		"any 2 (metal,rock , blues)":  {Count: 2, Any: true, Names: []string{"metal", "rock", "blues"}},
		`ANY 1 ("node-2", "a""b", *)`: {Count: 1, Any: true, Names: []string{"node-2", `a"b`, "*"}},
		"*":                           {Count: 1, Names: []string{"*"}},
		`"first", any`:                {Count: 1, Names: []string{"first", "any"}},
		"first":                       {Count: 1, Names: []string{"first"}},
	} {
		if diff := cmp.Diff(want, parseSync(in)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}

func TestReceiverName(t *testing.T) {
	for _, c := range [][3]string{
		{"user=repl passfile=/x host=wacken fallback_application_name=walreceiver", "", "walreceiver"},
		{"user=repl host=wacken fallback_application_name=power", "power", "power"},
		{`user=repl application_name='my rock' host=wacken fallback_application_name=power`, "power", "my rock"},
		{`application_name='it\'s' host=x`, "", "it's"},
		{"user=repl", "power", "power"},
		{"user=repl", "", "walreceiver"},
	} {
		if got := receiverName(c[0], c[1]); got != c[2] {
			t.Errorf("%s, cluster_name %q: %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func TestSample(t *testing.T) {
	for _, c := range []struct {
		address, mask, want string
	}{
		{"10.0.0.0", "255.0.0.0", "10.0.0.1"},
		{"10.1.2.3", "255.255.255.255", "10.1.2.3"},
		{"0.0.0.0", "0.0.0.0", "203.0.113.1"},
		{"::", "::", "2001:db8::1"},
		{"2001:db8::5", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::5"},
		{"2001:db8:7::", "ffff:ffff:ffff::", "2001:db8:7::1"},
		{"all", "", "203.0.113.1"},
		{"samenet", "", ""},
		{".example.com", "", ""},
	} {
		got, ok := sample(pg.HBARule{Type: "host", Address: c.address, Netmask: c.mask})
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%s %s: %q, want %q", c.address, c.mask, got, c.want)
		}
		if _, err := netip.ParseAddr(got); ok && err != nil {
			t.Error(err)
		}
	}
}

// TestFixesFit: what one fix sets, another one must not lower.
func TestFixesFit(t *testing.T) {
	f := clean()
	for i := range 9 {
		f.Old.Slots = append(f.Old.Slots, Slot{Name: fmt.Sprint("s", i), Type: "physical", Active: true})
	}
	f.Old.set("max_replication_slots", "9")
	for range 9 {
		f.Old.Origins = append(f.Old.Origins, Origin{Name: "x"})
	}
	f.Want.MaxWAL = 0
	fixes := map[string]bool{}
	for _, x := range Judge(f) {
		if x.Object == "max_replication_slots" {
			fixes[x.Fix] = true
		}
	}
	if len(fixes) != 1 || !strings.Contains(slices.Collect(maps.Keys(fixes))[0], "ALTER SYSTEM SET max_replication_slots = 12;") {
		t.Errorf("fixes: %v", fixes)
	}
}

// TestCommandLine: ALTER SYSTEM does nothing about what the server's command
// line says, as Patroni writes it; no fix is such a statement.
func TestCommandLine(t *testing.T) {
	for _, source := range []string{"configuration file", "command line"} {
		f := clean()
		f.Old.set("wal_level", "replica")
		s := f.Old.Settings["wal_level"]
		s.Source = source
		f.Old.Settings["wal_level"] = s
		var fix string
		for _, x := range Judge(f) {
			if x.ID == "wal-level" {
				fix = x.Fix
			}
		}
		if is, want := strings.Contains(fix, "ALTER SYSTEM SET wal_level"), source != "command line"; is != want {
			t.Errorf("wal_level from the %s: the fix is\n%s", source, fix)
		}
		if source == "command line" && !strings.Contains(fix, "patronictl edit-config") {
			t.Errorf("the fix does not say where it is changed:\n%s", fix)
		}
	}
}

// BenchmarkRules: 100 lines of pg_hba.conf, 500 roles, 10 databases.
func BenchmarkRules(b *testing.B) {
	f := clean()
	for i := range 100 {
		f.Old.HBA.Rules = append(f.Old.HBA.Rules, pg.HBARule{Line: 10 + i, Type: "host", Databases: []string{"all"}, Users: []string{"all"}, Address: fmt.Sprintf("192.168.%d.0", i), Netmask: "255.255.255.0", Method: "md5"})
	}
	for i := range 500 {
		f.Old.Roles = append(f.Old.Roles, Role{Name: fmt.Sprint("role", i), Login: true})
	}
	for i := range 10 {
		f.Databases = append(f.Databases, DatabaseFacts{Name: fmt.Sprint("db", i)})
	}
	for b.Loop() {
		judgeRules(f)
	}
}
