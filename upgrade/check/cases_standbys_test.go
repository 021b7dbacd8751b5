package check

import "errors"

var standbyCases = []judged{
	{"standby-unreachable", "old's", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].Facts.Err = errors.New("refused")
	}, []string{"warn standby-unreachable metal metal"}},
	{"standby-unreachable", "one that is to be built", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].Side, f.Standbys[0].Facts.Err = OnNew, errors.New("refused")
	}, nil},
	{"standby-role", "a primary", func(f *Facts) { f.Standbys = []StandbyFacts{standby("metal", "75old", false)} }, []string{"block standby-role metal metal"}},
	{"standby-role", "a standby", func(f *Facts) { f.Standbys = []StandbyFacts{standby("metal", "75old", true)} }, nil},
	{"standby-other-cluster", "a stranger", func(f *Facts) { f.Standbys = []StandbyFacts{standby("metal", "76x", true)} }, []string{"block standby-other-cluster metal metal"}},
	{"standby-other-cluster", "new's place is taken by old's", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].Side = OnNew
	}, nil},
	{"standby-misnamed", "calls itself rock", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("power", "75old", true)}
		f.Standbys[0].AppName = "rock"
	}, []string{"warn standby-misnamed power rock"}},
	{"standby-misnamed", "upper case", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("power", "75old", true)}
		f.Standbys[0].AppName = "POWER"
	}, nil},
	{"standby-unknown", "not in the runbook", func(f *Facts) {
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "blues", State: "streaming"}}
	}, []string{"note failover-loses-slots old failover", "note standby-unknown old blues"}},
	{"standby-unknown", "in the runbook by its other name", func(f *Facts) {
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "walreceiver", State: "streaming"}, {Application: "sub", Logical: true}, {Application: "pg_basebackup", State: "backup"}}
		f.Standbys = []StandbyFacts{standby("blues", "75old", true)}
		f.Standbys[0].AppName = "walreceiver"
	}, []string{"warn standby-misnamed blues walreceiver", "note failover-loses-slots old failover"}},
	{"standby-taken", "its place is taken", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Want.NewStandbys = []Standby{{Name: "metal", After: true}}
	}, []string{"note standby-taken old metal"}},
	{"standby-taken", "commits and a cascade wait for it", func(f *Facts) {
		f.Old.set("synchronous_standby_names", "FIRST 1 (metal)")
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "metal", State: "streaming"}, {Application: "rock", State: "streaming"}}
		f.Standbys = []StandbyFacts{standby("metal", "75old", true), standby("rock", "75old", true), standby("power", "75old", true)}
		f.Standbys[0].Facts.Senders = []Sender{{Application: "power", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}, {Name: "rock"}, {Name: "power"}}
		f.Want.NewStandbys = []Standby{{Name: "metal", After: true}}
	}, []string{"warn standby-taken old metal", "note failover-loses-slots old failover", "note sync-fragile old synchronous_standby_names"}},
	{"standby-taken", "built before", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Want.NewStandbys = []Standby{{Name: "metal"}}
	}, nil},
	{"standby-taken-place", "elsewhere, and waited for", func(f *Facts) {
		f.Old.set("synchronized_standby_slots", "other, metal_slot")
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].Data = "/d15"
		f.Standbys[0].Facts.Settings = map[string]Setting{}
		f.Standbys[0].Facts.set("data_directory", "/other")
		f.Standbys[0].Facts.set("primary_slot_name", "metal_slot")
		f.Want.NewStandbys = []Standby{{Name: "metal", After: true}}
	}, []string{
		"block standby-taken-place metal metal", "block standby-taken-place old synchronized_standby_slots",
		"warn synchronized-standby-slots old synchronized_standby_slots", "note standby-taken old metal",
	}},
	{"standby-taken-place", "there, and not waited for", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].Data = "/d15/"
		f.Standbys[0].Facts.Settings = map[string]Setting{}
		f.Standbys[0].Facts.set("data_directory", "/d15")
		f.Want.NewStandbys = []Standby{{Name: "metal", After: true}}
	}, []string{"note standby-taken old metal"}},
	{"sync-names-any", "*", func(f *Facts) {
		f.Old.set("synchronous_standby_names", "*")
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "metal", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}}
	}, []string{"block sync-names-any old synchronous_standby_names", "note failover-loses-slots old failover"}},
	{"sync-names-any", "names", func(f *Facts) {
		f.Old.set("synchronous_standby_names", "ANY 1 (metal, rock)")
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "metal", State: "streaming"}, {Application: "rock", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}, {Name: "rock"}}
	}, []string{"note failover-loses-slots old failover"}},
	{"sync-names-nobody", "one of two", func(f *Facts) {
		f.Old.set("synchronous_standby_names", "FIRST 1 (metal, gone)")
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "METAL", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}}
	}, []string{"warn sync-names-nobody old synchronous_standby_names", "note failover-loses-slots old failover", "note sync-fragile old synchronous_standby_names"}},
	{"sync-names-nobody", "on new", func(f *Facts) { f.New.set("synchronous_standby_names", "metal") }, []string{"warn sync-names-nobody new synchronous_standby_names"}},
	{"sync-names-nobody", "off", func(f *Facts) {}, nil},
	{"sync-fragile", "one of one", func(f *Facts) {
		f.Old.set("synchronous_standby_names", "metal")
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "metal", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}}
	}, []string{"note failover-loses-slots old failover", "note sync-fragile old synchronous_standby_names"}},
	{"sync-fragile", "asynchronous", func(f *Facts) {
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "metal", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}}
	}, []string{"note failover-loses-slots old failover"}},
	{"standby-unnamed", "nobody's", func(f *Facts) {
		f.Old.Senders = []Sender{{Application: "walreceiver", Address: "10.0.0.7", State: "streaming"}}
	}, []string{"warn standby-unnamed old 10.0.0.7", "note failover-loses-slots old failover", "note standby-unknown old walreceiver"}},
	{"standby-unnamed", "named", func(f *Facts) {
		f.Old.Senders = []Sender{{Application: "metal", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}}
	}, []string{"note failover-loses-slots old failover"}},
	{"standby-duplicate", "rock, and power as rock following metal", func(f *Facts) {
		f.Old.Senders = []Sender{{Application: "metal", State: "streaming"}, {Application: "rock", Address: "10.0.0.8", State: "streaming"}}
		f.Standbys = []StandbyFacts{standby("metal", "75old", true), standby("rock", "75old", true), standby("power", "75old", true)}
		f.Standbys[0].Facts.Senders = []Sender{{Application: "rock", Address: "10.0.0.9", State: "streaming"}}
		f.Standbys[2].AppName = "rock"
	}, []string{"warn standby-duplicate old rock", "warn standby-misnamed power rock", "note failover-loses-slots old failover"}},
	{"standby-duplicate", "each its own", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true), standby("power", "75old", true)}
		f.Standbys[0].Facts.Senders = []Sender{{Application: "power", State: "streaming"}}
	}, nil},
	{"standby-unknown", "following a standby", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].Facts.Senders = []Sender{{Application: "power", State: "streaming"}}
	}, []string{"note standby-unknown metal power"}},
}

var managerCases = []judged{
	{"replication-manager", "Patroni's session", func(f *Facts) {
		f.Old.Clients = append(f.Old.Clients, Client{Role: "postgres", Database: "postgres", Application: "Patroni heartbeat"})
	}, []string{"block replication-manager old Patroni"}},
	{"replication-manager", "one that can be held still", func(f *Facts) {
		f.Old.Clients = append(f.Old.Clients, Client{Role: "postgres", Database: "postgres", Application: "Patroni"})
		f.Want.Managers = []Manager{{Name: "Patroni", Nodes: []ManagerNode{{Name: "wacken", Role: "primary", Runs: true}, {Name: "metal", Role: "standby", Runs: true}}}}
	}, []string{"warn replication-manager old Patroni"}},
	{"replication-manager", "one that holds still", func(f *Facts) {
		f.Want.Managers = []Manager{{Name: "repmgr", Home: "repmgr", Nodes: []ManagerNode{{Name: "wacken", Role: "primary", Runs: true, Held: true}, {Name: "witness", Role: "witness"}}}}
	}, []string{"note replication-manager old repmgr"}},
	{"replication-manager", "one with a node that does not answer", func(f *Facts) {
		f.Want.Managers = []Manager{{Name: "repmgr", Nodes: []ManagerNode{{Name: "wacken", Role: "primary", Runs: true}, {Name: "witness", Role: "witness", Err: errors.New("no route")}}}}
	}, []string{"block replication-manager old repmgr"}},
	{"replication-manager", "one that nobody can talk to", func(f *Facts) {
		f.Want.Managers = []Manager{{Name: "Patroni", Err: errors.New("no REST API of Patroni answers")}}
	}, []string{"block replication-manager old Patroni"}},
	{"manager-database", "repmgr's own", func(f *Facts) {
		f.Want.Managers = []Manager{{Name: "repmgr", Home: "shop", Nodes: []ManagerNode{{Name: "wacken", Role: "primary", Runs: true}}}}
	}, []string{"block manager-database old shop repmgr", "warn replication-manager old repmgr"}},
	{"manager-sync", "Patroni's", func(f *Facts) {
		f.Want.Managers = []Manager{{Name: "Patroni", Synchronous: true, Nodes: []ManagerNode{{Name: "wacken", Role: "primary", Runs: true, Held: true}}}}
	}, []string{"warn manager-sync old Patroni", "note replication-manager old Patroni"}},
	{"manager-sync", "the operator's own", func(f *Facts) {
		f.Want.Managers = []Manager{{Name: "Patroni", Nodes: []ManagerNode{{Name: "wacken", Role: "primary", Runs: true, Held: true}}}}
	}, []string{"note replication-manager old Patroni"}},
	{"manager-database", "it is not moved", func(f *Facts) {
		f.Want.Managers = []Manager{{Name: "repmgr", Home: "repmgr", Nodes: []ManagerNode{{Name: "wacken", Role: "primary", Runs: true}}}}
	}, []string{"warn replication-manager old repmgr"}},
	{"replication-manager", "repmgr's library", func(f *Facts) {
		f.Old.set("shared_preload_libraries", "repmgr")
		f.New.set("shared_preload_libraries", "repmgr")
	}, []string{"warn replication-manager new repmgr", "warn replication-manager old repmgr"}},
	{"replication-manager", "nobody", func(f *Facts) {}, nil},
	{"replication-manager", "what others leave", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "pgautofailover_standby_2", Type: "physical", Active: true}, {Name: "stolon_ab12", Type: "physical", Active: true}}
		f.Old.set("restore_command", "patroni_wale_restore %p")
		f.Old.Roles = append(f.Old.Roles, Role{Name: "streaming_replica"})
		f.thing(Thing{Kind: "extension", Name: "repmgr", Detail: "5.4"})
		f.New.Extensions["repmgr"] = Extension{Default: "5.4"}
		f.New.DataFiles = []string{"PG_VERSION", "patroni.dynamic.json"}
		f.Want.MaxWAL = 0
	}, []string{
		"warn replication-manager new Patroni", "warn replication-manager old CloudNativePG", "warn replication-manager old Patroni", "warn replication-manager old Stolon",
		"warn replication-manager old pg_auto_failover", "warn replication-manager old repmgr",
	}},
	{"replication-manager", "a standby calls itself so", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].AppName = "pgautofailover_standby_1"
	}, []string{"warn replication-manager old pg_auto_failover", "warn standby-misnamed metal pgautofailover_standby_1"}},
	{"replication-manager", "a file of the configuration", func(f *Facts) { f.Old.ConfigFiles = []string{"/pg/15/postgresql-auto-failover.conf"} }, []string{"warn replication-manager old pg_auto_failover"}},
}

var archiveCases = []judged{
	{"archive-path", "the same", func(f *Facts) { archive(f, "cp %p /wal/%f", "cp %p /wal/%f") }, []string{"block archive-path new archive_command"}},
	{
		"archive-path", "a program with its own configuration", func(f *Facts) { archive(f, "pgbackrest archive-push %p", "pgbackrest archive-push %p") },
		[]string{"warn archive-path new archive_command"},
	},
	{"archive-path", "one folder by two commands", func(f *Facts) { archive(f, "cp %p /wal/%f", "test ! -f /wal/%f && cp %p '/wal/%f'") }, []string{"block archive-path new archive_command"}},
	{"archive-path", "nothing is archived", func(f *Facts) { archive(f, "/bin/true", "/bin/true") }, nil},
	{"archive-off", "old alone", func(f *Facts) { archive(f, "cp %p /wal/%f", ""); f.New.set("archive_mode", "off") }, []string{"warn archive-off new archive_mode"}},
	{"archive-off", "on, with no command", func(f *Facts) { archive(f, "cp %p /wal/%f", "") }, []string{"warn archive-off new archive_mode"}},
	{"archive-off", "neither", func(f *Facts) {}, nil},
	{"restore-command", "old's", func(f *Facts) {
		f.Old.set("restore_command", "cp /wal/%f %p")
		f.New.set("restore_command", "cp /wal/%f %p")
	}, []string{"warn restore-command new restore_command"}},
	{"restore-command", "from old's archive", func(f *Facts) {
		archive(f, "cp %p /wal/%f", "cp %p /wal18/%f")
		f.New.set("restore_command", "cp /wal/%f %p")
	}, []string{"warn restore-command new restore_command"}},
	{"restore-command", "new's own", func(f *Facts) {
		archive(f, "cp %p /wal/%f", "cp %p /wal18/%f")
		f.New.set("restore_command", "cp /wal18/%f %p")
	}, nil},
	{"archive-path", "two", func(f *Facts) { archive(f, "cp %p /wal15/%f", "cp %p /wal18/%f") }, nil},
}

func archive(f *Facts, old, nw string) {
	f.Old.set("archive_mode", "on", "archive_command", old)
	f.New.set("archive_mode", "on", "archive_command", nw)
}
