package check

import (
	"errors"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

var serverCases = []judged{
	{
		"server-unreachable", "new refuses", func(f *Facts) { f.New = &Server{Side: OnNew, Name: "new (x port 1)", Err: errors.New("refused")} },
		[]string{"block server-unreachable new new (x port 1)"},
	},
	{"server-unreachable", "both answer", func(f *Facts) {}, nil},
	{"server-is-standby", "old", func(f *Facts) { f.Old.InRecovery = true }, []string{"block server-is-standby old old (db.old port 5432)"}},
	{"server-is-standby", "neither", func(f *Facts) {}, nil},
	{"server-through-pooler", "old", func(f *Facts) { f.Old.Pooled = true }, []string{"block server-through-pooler old old (db.old port 5432)"}},
	{"server-through-pooler", "neither", func(f *Facts) {}, nil},
	{"alter-system-off", "new", func(f *Facts) { f.New.set("allow_alter_system", "off") }, []string{"block alter-system-off new allow_alter_system"}},
	{"alter-system-off", "on", func(f *Facts) { f.New.set("allow_alter_system", "on") }, nil},
	{"same-server", "twice the same", func(f *Facts) { f.New.SystemID = f.Old.SystemID }, []string{"block same-server new new (db.new port 5432)"}},
	{"same-server", "not known", func(f *Facts) { f.New.SystemID, f.Old.SystemID = "", "" }, nil},
	{"server-version", "old too old", func(f *Facts) { f.Old.Version = 100023 }, []string{"block server-version old 10.23", "warn known-bad-minor old 10.23"}},
	{"server-version", "downgrade", func(f *Facts) { f.New.Version, f.Programs = 140025, nil }, []string{"block server-version new 14.25"}},
	{"server-version", "same major", func(f *Facts) { f.New.Version, f.Programs = 150020, nil }, []string{"block server-version new 15.20"}},
	{"server-version", "new too new", func(f *Facts) { f.New.Version, f.Programs = 190001, nil }, []string{"block server-version new 19.1"}},
	{"server-version", "11 to 14", func(f *Facts) { f.Old.Version, f.New.Version, f.Programs = 170012, 180007, nil }, nil},
	{"privileges", "old", func(f *Facts) { f.Old.Superuser, f.Old.Role.Super = false, false }, []string{"block privileges old crossfade"}},
	{"privileges", "superusers", func(f *Facts) {}, nil},
	{
		"known-bad-minor", "both", func(f *Facts) { f.Old.Version, f.New.Version = 150018, 180006 },
		[]string{"warn known-bad-minor new 18.6", "warn known-bad-minor old 15.18"},
	},
	{"known-bad-minor", "new applies", func(f *Facts) { f.New.Version, f.Want.Back = 180006, false }, []string{"warn known-bad-minor new 18.6"}},
	{"known-bad-minor", "13 has no fix", func(f *Facts) { f.Old.Version = 130023 }, []string{"warn known-bad-minor old 13.23"}},
	{"known-bad-minor", "new does not send", func(f *Facts) { f.Want.Back = false }, nil},
	{
		"client-programs", "missing", func(f *Facts) { f.Programs[0] = Program{Name: "pg_dump", Err: errors.New("not found")} },
		[]string{"block client-programs new pg_dump"},
	},
	{"client-programs", "other major", func(f *Facts) { f.Programs[1].Version = 170012 }, []string{"block client-programs new pg_restore"}},
	{"client-programs", "older minor", func(f *Facts) { f.Programs[1].Version = 180006 }, []string{"note client-programs new pg_restore"}},
	{"client-programs", "as they should be", func(f *Facts) {}, nil},
	{
		"attribute-version", "older pg_dump", func(f *Facts) { f.Programs[0].Version = 180006; f.thing(Thing{Kind: "attver", N: 12}) },
		[]string{"note attribute-version old shop", "note client-programs new pg_dump"},
	},
	{"attribute-version", "pg_dump knows it", func(f *Facts) { f.thing(Thing{Kind: "attver", N: 12}) }, nil},
	{"clock-skew", "an hour", func(f *Facts) { f.New.Skew = -time.Hour }, []string{"note clock-skew new new (db.new port 5432)"}},
	{"clock-skew", "a standby", func(f *Facts) {
		f.Standbys = []StandbyFacts{standby("metal", "75old", true)}
		f.Standbys[0].Facts.Skew = time.Minute
	}, []string{"note clock-skew metal metal (db port 5433)"}},
	{"clock-skew", "a second", func(f *Facts) { f.New.Skew = time.Second }, nil},
	{"config-file", "a bad line", func(f *Facts) {
		f.Old.ConfigErrors = []ConfigError{{"/etc/postgresql.conf", 7, "wrong", "unrecognized configuration parameter"}}
	}, []string{"warn config-file old wrong"}},
	{
		"config-file", "a bad rule", func(f *Facts) { f.New.HBA.Rules = append(f.New.HBA.Rules, pg.HBARule{Line: 9, Error: "invalid"}) },
		[]string{"warn config-file new pg_hba.conf"},
	},
	{"config-file", "fine", func(f *Facts) {}, nil},
}

var budgetCases = []judged{
	{"budget", "always", func(f *Facts) {}, []string{"note budget new", "note budget old"}},
	{"budget", "one that is short", func(f *Facts) { f.New.set("max_wal_senders", "0") }, []string{"block wal-senders new max_wal_senders", "note budget new", "note budget old"}},
	{
		"budget", "nothing is known", func(f *Facts) { f.Old.Err, f.New.Err, f.Databases = errors.New("refused"), errors.New("refused"), nil },
		[]string{"block server-unreachable new new (db.new port 5432)", "block server-unreachable old old (db.old port 5432)"},
	},
	{
		"replication-slots", "old is full", func(f *Facts) { f.Old.set("max_replication_slots", "0") },
		[]string{"block replication-origins old max_replication_slots", "block replication-slots old max_replication_slots"},
	},
	{"replication-slots", "standbys of new", func(f *Facts) {
		f.New.set("max_replication_slots", "2")
		f.Want.NewStandbys = []Standby{{Name: "a"}, {Name: "b", Upstream: "primary"}, {Name: "c", Upstream: "a"}}
	}, []string{"block replication-slots new max_replication_slots"}},
	{"replication-slots", "used by others", func(f *Facts) {
		f.Old.set("max_replication_slots", "2")
		f.Old.Slots = []Slot{{Name: "metal", Type: "physical", Active: true}, {Name: "rock", Type: "physical", Active: true}}
		f.Want.MaxWAL = 0
	}, []string{"block replication-slots old max_replication_slots"}},
	{"replication-slots", "nor those of standbys that are built", func(f *Facts) {
		f.New.set("max_replication_slots", "2")
		f.Want.NewStandbys = []Standby{{Name: "node-1", Slot: "node_1"}}
		f.New.Slots = []Slot{{Name: "node_1", Type: "physical", Active: true}}
		f.New.Senders = []Sender{{Application: "node-1", State: "streaming", Slot: "node_1"}}
		f.Want.Ours = true
	}, nil},
	{"replication-slots", "our own do not count twice", func(f *Facts) {
		f.Old.set("max_replication_slots", "1")
		f.Old.Slots = []Slot{{Name: "cf_up_shop_main", Type: "logical", Plugin: "pgoutput"}}
		f.Want.Ours = true
	}, nil},
	{"wal-senders", "old", func(f *Facts) { f.Old.set("max_wal_senders", "1") }, []string{"block wal-senders old max_wal_senders"}},
	{"wal-senders", "standbys of new", func(f *Facts) {
		f.New.set("max_wal_senders", "2")
		f.Want.NewStandbys = []Standby{{Name: "a"}}
	}, []string{"block wal-senders new max_wal_senders"}},
	{"wal-senders", "no way back", func(f *Facts) { f.New.set("max_wal_senders", "0"); f.Want.Back = false }, nil},
	{
		"logical-workers", "new", func(f *Facts) { f.New.set("max_logical_replication_workers", "0") },
		[]string{"block logical-workers new max_logical_replication_workers"},
	},
	{"logical-workers", "subscriptions of others", func(f *Facts) {
		f.Old.set("max_logical_replication_workers", "1")
		f.Old.Subscriptions = []Subscription{{Database: "other", Name: "s", Enabled: true}}
	}, []string{"block logical-workers old max_logical_replication_workers", "block subscriptions-on-old old other s"}},
	{"logical-workers", "old without a way back", func(f *Facts) { f.Old.set("max_logical_replication_workers", "0"); f.Want.Back = false }, nil},
	{"worker-processes", "others have them", func(f *Facts) { f.New.Backends["pg_cron launcher"] = 7 }, []string{"block worker-processes new max_worker_processes"}},
	{"worker-processes", "parallel workers come and go", func(f *Facts) { f.New.Backends["parallel worker"] = 7 }, nil},
	{
		"replication-origins", "18", func(f *Facts) { f.New.set("max_active_replication_origins", "0") },
		[]string{"block replication-origins new max_active_replication_origins"},
	},
	{"replication-origins", "forgotten ones", func(f *Facts) {
		f.Old.set("max_replication_slots", "2")
		f.Old.Origins = []Origin{{Name: "bdr_1"}, {Name: "bdr_2"}}
	}, []string{"block replication-origins old max_replication_slots"}},
	{"replication-origins", "ours", func(f *Facts) {
		f.New.set("max_active_replication_origins", "1")
		f.New.Origins = []Origin{{Name: "pg_1", Subscription: "cf_up_shop_main"}}
	}, nil},
	{"connections", "old is full", func(f *Facts) { f.Old.Backends["client backend"] = 95 }, []string{"block connections old max_connections"}},
	{"connections", "walsenders have places of their own", func(f *Facts) { f.Old.Backends["walsender"] = 95 }, nil},
	{
		"lock-table", "twice the room", func(f *Facts) { many(f, 20_000) },
		[]string{"block lock-table new max_locks_per_transaction", "block lock-table old max_locks_per_transaction"},
	},
	{
		"lock-table", "a little over", func(f *Facts) { many(f, 9_000) },
		[]string{"warn lock-table new max_locks_per_transaction", "warn lock-table old max_locks_per_transaction"},
	},
	{"lock-table", "fits", func(f *Facts) { many(f, 5_000) }, nil},
}

func many(f *Facts, n int) {
	for i := range n {
		t := table(uint32(100+i), "t")
		t.Kind, t.Identity = 'p', schema.Identity{}
		f.table(t)
	}
}

var accessCases = []judged{
	{"new-cannot-reach-old", "refused", func(f *Facts) { f.Reach[0].Err = errors.New("refused") }, []string{"block new-cannot-reach-old new shop"}},
	{"new-cannot-reach-old", "reaches", func(f *Facts) {}, nil},
	{"old-cannot-reach-new", "refused", func(f *Facts) { f.Reach[1].Err = errors.New("refused") }, []string{"block old-cannot-reach-new old postgres"}},
	{"old-cannot-reach-new", "reaches", func(f *Facts) {}, nil},
	{"client-refused", "reject", func(f *Facts) {
		f.New.HBA.Rules[1].Method = "reject"
	}, []string{"block client-refused new shop app", "warn hba-narrower new shop line 2: host all all 10.0.0.0 255.0.0.0 scram-sha-256"}},
	{"client-refused", "no rule", func(f *Facts) { f.New.HBA.Rules[1].Address = "192.168.0.0"; f.Old.HBA = nil }, []string{"block client-refused new shop app"}},
	{"client-refused", "only with TLS", func(f *Facts) { f.New.HBA.Rules[1].Type = "hostssl"; f.Old.HBA = nil }, []string{"block client-refused new shop app"}},
	{"client-refused", "TLS is offered on new only", func(f *Facts) { f.New.HBA.Rules[1].Type = "hostssl"; f.New.set("ssl", "on"); f.Old.HBA = nil }, nil},
	{
		"client-refused", "no password", func(f *Facts) { f.Old.Passwords["app"] = NoPassword; f.Old.HBA.Rules[1].Method = "trust" },
		[]string{"block client-refused new shop app", "warn hba-narrower new shop line 2: host all all 10.0.0.0 255.0.0.0 trust"},
	},
	{"client-refused", "samenet cannot be told", func(f *Facts) {
		f.New.HBA.Rules[1].Address, f.New.HBA.Rules[1].Netmask = "samenet", ""
	}, []string{"warn client-refused new shop app"}},
	{"client-refused", "given by the runbook", func(f *Facts) {
		f.Old.Clients, f.Old.HBA = nil, nil
		f.Want.Clients = []Client{{Role: "app", Database: "shop", Address: "192.0.2.1"}}
	}, []string{"block client-refused new shop app"}},
	{"client-refused", "by membership on old", func(f *Facts) {
		f.New.HBA.Rules[1].Users = []string{"+staff"}
		f.Old.HBA.Members["app"] = map[string]bool{"app": true, "staff": true}
	}, nil},
	{"client-refused", "another database", func(f *Facts) {
		f.New.HBA.Rules[1].Databases = []string{"shop"}
		f.Old.Clients = append(f.Old.Clients, Client{Role: "app", Database: "left", Address: "10.1.2.3"})
	}, nil},
	{"hba-narrower", "another net", func(f *Facts) {
		f.Old.HBA.Rules = append(f.Old.HBA.Rules, pg.HBARule{Line: 3, Type: "host", Databases: []string{"shop"}, Users: []string{"app"}, Address: "192.168.7.0", Netmask: "255.255.255.0", Method: "md5"})
	}, []string{"warn hba-narrower new shop line 3: host shop app 192.168.7.0 255.255.255.0 md5"}},
	{"hba-narrower", "shadowed by a reject", func(f *Facts) {
		f.Old.HBA.Rules = append([]pg.HBARule{{Line: 1, Type: "host", Databases: []string{"all"}, Users: []string{"app"}, Address: "192.168.7.0", Netmask: "255.255.255.0", Method: "reject"}},
			append(f.Old.HBA.Rules, pg.HBARule{Line: 4, Type: "host", Databases: []string{"shop"}, Users: []string{"app"}, Address: "192.168.7.0", Netmask: "255.255.255.0", Method: "md5"})...)
	}, nil},
	{"ssl-off", "in use", func(f *Facts) { f.Old.set("ssl", "on"); f.Old.Clients[0].TLS = true }, []string{"block ssl-off new ssl"}},
	{"ssl-off", "not in use", func(f *Facts) { f.Old.set("ssl", "on") }, []string{"warn ssl-off new ssl"}},
	{"ssl-off", "both", func(f *Facts) { f.Old.set("ssl", "on"); f.New.set("ssl", "on"); f.Old.Clients[0].TLS = true }, nil},
	{"max-connections", "fewer", func(f *Facts) { f.New.set("max_connections", "50") }, []string{"warn max-connections new max_connections"}},
	{
		"max-connections", "fewer than are open", func(f *Facts) { f.New.set("max_connections", "30"); f.Old.Backends["client backend"] = 60 },
		[]string{"block max-connections new max_connections"},
	},
	{"max-connections", "more", func(f *Facts) { f.New.set("max_connections", "500") }, nil},
	{"listen-addresses", "its own machine", func(f *Facts) { f.Old.set("listen_addresses", "*"); f.New.set("listen_addresses", "localhost") }, []string{"warn listen-addresses new listen_addresses"}},
	{"listen-addresses", "nothing", func(f *Facts) { f.Old.set("listen_addresses", "0.0.0.0"); f.New.set("listen_addresses", "") }, []string{"warn listen-addresses new listen_addresses"}},
	{"listen-addresses", "old too", func(f *Facts) {
		f.Old.set("listen_addresses", "127.0.0.1, ::1")
		f.New.set("listen_addresses", "localhost")
	}, nil},
	{"clients-direct", "one from elsewhere", func(f *Facts) { f.PoolerAddresses = []string{"10.9.9.9"} }, []string{"warn clients-direct old shop shop"}},
	{"clients-direct", "all come from there", func(f *Facts) { f.PoolerAddresses = []string{"10.1.2.3"} }, nil},
}

var roleCases = []judged{
	{"md5-passwords", "scram asked", func(f *Facts) { f.Old.Passwords["old_timer"] = MD5Password }, []string{"warn md5-passwords old"}},
	{"md5-passwords", "md5 asked", func(f *Facts) { f.Old.Passwords["old_timer"] = MD5Password; f.New.HBA.Rules[1].Method = "md5" }, []string{"note md5-passwords old"}},
	{"md5-passwords", "scram", func(f *Facts) {}, nil},
	{
		"createrole-changed", "before 16", func(f *Facts) { f.Old.Roles = append(f.Old.Roles, Role{Name: "boss", CreateRole: true}) },
		[]string{"warn createrole-changed old boss"},
	},
	{"createrole-changed", "from 16 on", func(f *Facts) {
		f.Old.Version = 160016
		f.Old.Roles = append(f.Old.Roles, Role{Name: "boss", CreateRole: true})
	}, nil},
	{"role-has-more", "superuser on new", func(f *Facts) {
		f.New.Roles = append(f.New.Roles, Role{Name: "app", Login: true, Super: true, BypassRLS: true})
	}, []string{"warn role-has-more new app"}},
	{"role-has-more", "the same, and the tool's own", func(f *Facts) {
		f.New.Roles = append(f.New.Roles, Role{Name: "app", Login: true})
		f.Old.Roles[1].CreateDB, f.New.Roles[0].CreateDB = false, true
	}, nil},
	{"password-in-subscription", "in from_new", func(f *Facts) { f.Want.FromNew = parsed("host=old user=repl password=x") }, []string{"note password-in-subscription new repl"}},
	{"password-in-subscription", "on old", func(f *Facts) { f.Want.New = parsed("host=new user=repl password=x") }, []string{"note password-in-subscription old repl"}},
	{"password-in-subscription", "a passfile", func(f *Facts) { f.Want.FromNew = parsed("host=old user=repl passfile=/x"); f.Want.New = f.Want.FromNew }, nil},
	{"password-in-subscription", "no way back", func(f *Facts) { f.Want.FromOld, f.Want.Back = parsed("host=new password=x user=repl"), false }, nil},
	{"password-logged", "a subscription's", func(f *Facts) {
		f.Want.FromNew = parsed("host=old user=repl password=x")
		f.New.Overheard = []string{"log_min_error_statement = error", "log_statement = ddl"}
		f.Old.Overheard = f.New.Overheard
	}, []string{"warn password-logged new crossfade", "note password-in-subscription new repl"}},
	{"password-logged", "hashes, where a statement fails", func(f *Facts) {
		f.Old.Passwords = map[string]Password{"app": SCRAMPassword}
		f.New.Overheard = []string{"log_min_error_statement = error"}
	}, []string{"note password-logged new crossfade"}},
	{"password-logged", "none to log", func(f *Facts) {
		f.Old.Passwords = nil // roles are made without
		f.New.Overheard = []string{"log_statement = all"}
		f.Old.Overheard = f.New.Overheard
	}, nil},
}

func parsed(conninfo string) *pg.Server {
	s, err := pg.Parse("x", conninfo, "")
	if err != nil {
		panic(err)
	}
	return s
}

var diskCases = []judged{
	{"old-disk", "less than max_wal", func(f *Facts) { f.OldMachine.WAL.Free = 20 << 30 }, []string{"warn old-disk old /pg/15/pg_wal"}},
	{"old-disk", "full", func(f *Facts) { f.OldMachine.WAL.Free = 1 << 30; f.Old.set("max_wal_size", "1024") }, []string{"block old-disk old /pg/15/pg_wal"}},
	{"old-disk", "the server's own limit is lower", func(f *Facts) {
		f.OldMachine.WAL.Free, f.Want.MaxWAL = 20<<30, 5<<30
		f.Old.set("max_slot_wal_keep_size", "10240")
	}, nil},
	{"old-disk", "not known", func(f *Facts) { f.OldMachine.WAL = nil }, nil},
	{"new-disk", "too small", func(f *Facts) {
		f.Databases[0].Bytes, f.NewMachine.Data.Free = 100<<30, 50<<30
	}, []string{"block new-disk new /pg/18"}},
	{"new-disk", "just enough", func(f *Facts) {
		f.Databases[0].Bytes, f.NewMachine.Data.Free = 100<<30, 110<<30
	}, []string{"warn new-disk new /pg/18"}},
	{"new-disk", "this upgrade filled it", func(f *Facts) {
		f.Databases[0].Bytes, f.NewMachine.Data.Free = 100<<30, 50<<30
		f.Want.Ours = true
	}, nil},
	{"disk-unknown", "no hosts", func(f *Facts) { f.OldMachine, f.NewMachine = Machine{}, Machine{} }, []string{"note disk-unknown new host", "note disk-unknown old host"}},
	{"disk-unknown", "asked", func(f *Facts) {}, nil},
}

var replicationCases = []judged{
	{"wal-level", "old", func(f *Facts) { f.Old.set("wal_level", "replica") }, []string{"block wal-level old wal_level"}},
	{"wal-level", "new, for the way back", func(f *Facts) { f.New.set("wal_level", "replica") }, []string{"block wal-level new wal_level"}},
	{"wal-level", "new without a way back", func(f *Facts) { f.New.set("wal_level", "replica"); f.Want.Back = false }, nil},
	{"name-too-long", "too long", func(f *Facts) {
		f.Databases[0].Sets[0].Name = "a123456789012345678901234567890123456789012345678901234567890"
	}, []string{"block name-too-long old cf_up_shop_a123456789012345678901234567890123456789012345678901234567890"}},
	{"name-too-long", "the longest that the runbook takes", func(f *Facts) {
		f.Want.Upgrade, f.Databases[0].Sets[0].Name, f.Databases[0].Name = "a12345678901234", "b12345678901234", "c1234567890123456789"
	}, []string{"note database-left old shop shop"}},
	{"name-collision", "slot, subscription, publication, schema", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "cf_up_shop_main", Type: "logical", Plugin: "pgoutput", Database: "shop"}}
		f.New.Subscriptions = []Subscription{{Database: "shop", Name: "cf_up_shop_main"}}
		f.thing(Thing{Kind: "publication", Name: "cf_up_shop_x"}, Thing{Kind: "schema", Name: "crossfade"}, Thing{Kind: "own-trigger", Name: "public.t", Detail: "crossfade_fence"})
	}, []string{
		"block name-collision new shop cf_up_shop_main", "block name-collision old shop cf_up_shop_main", "block name-collision old shop cf_up_shop_x",
		"block name-collision old shop crossfade", "block name-collision old shop crossfade_fence on public.t",
	}},
	{"name-collision", "ours", func(f *Facts) {
		f.Databases[0].Upgrades = []string{"up"}
		f.Old.Slots = []Slot{{Name: "cf_up_shop_main", Type: "logical", Plugin: "pgoutput", Database: "shop"}}
		f.thing(Thing{Kind: "schema", Name: "crossfade", Detail: "true"}, Thing{Kind: "publication", Name: "cf_up_shop_main"})
	}, nil},
	{"other-upgrade", "its record", func(f *Facts) {
		f.Databases[0].Upgrades = []string{"other"}
		f.thing(Thing{Kind: "schema", Name: "crossfade", Detail: "true"})
	}, []string{"block other-upgrade old shop other"}},
	{"other-upgrade", "its slot", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "cb_other_shop_main", Type: "logical", Plugin: "pgoutput", Database: "shop"}}
		f.Want.MaxWAL = 0
	}, []string{"block other-upgrade old shop other", "warn logical-slots old shop cb_other_shop_main"}},
	{"other-upgrade", "this one", func(f *Facts) { f.Databases[0].Upgrades = []string{"up"} }, nil},
	{
		"subscriptions-on-old", "enabled", func(f *Facts) { f.Old.Subscriptions = []Subscription{{Database: "shop", Name: "in", Enabled: true}} },
		[]string{"block subscriptions-on-old old shop in"},
	},
	{
		"subscriptions-on-old", "disabled", func(f *Facts) { f.Old.Subscriptions = []Subscription{{Database: "shop", Name: "in"}} },
		[]string{"note subscriptions-on-old old shop in"},
	},
	{"subscriptions-on-old", "ours, back", func(f *Facts) {
		f.Want.Ours = true
		f.Old.Subscriptions = []Subscription{{Database: "shop", Name: "cb_up_shop_main", Enabled: true}}
	}, nil},
	{
		"subscriptions-on-new", "into shop", func(f *Facts) { f.New.Subscriptions = []Subscription{{Database: "shop", Name: "in", Enabled: true}} },
		[]string{"warn subscriptions-on-new new shop in"},
	},
	{"subscriptions-on-new", "elsewhere", func(f *Facts) { f.New.Subscriptions = []Subscription{{Database: "x", Name: "in", Enabled: true}} }, nil},
	{"logical-slots", "one in use", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "debezium", Type: "logical", Plugin: "pgoutput", Database: "shop", Active: true}}
		f.Want.MaxWAL = 0
	}, []string{"warn logical-slots old shop debezium"}},
	{"logical-slots", "physical", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "metal", Type: "physical", Active: true}}
		f.Want.MaxWAL = 0
	}, nil},
	{"output-plugin", "not allowed, nor there", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "debezium", Type: "logical", Plugin: "wal2json", Database: "shop", Active: true}, {Name: "other", Type: "logical", Plugin: "wal2json", Active: true}}
		f.New.Libraries = []string{"pgoutput"}
		f.Want.MaxWAL = 0
	}, []string{"warn logical-slots old other", "warn logical-slots old shop debezium", "warn output-plugin new wal2json"}},
	{"output-plugin", "allowed", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "audit", Type: "logical", Plugin: "test_decoding", Database: "shop", Active: true}}
		f.New.Libraries = []string{"pgoutput", "test_decoding"}
		f.Want.MaxWAL = 0
	}, []string{"warn logical-slots old shop audit"}},
	{"publications", "of others", func(f *Facts) { f.thing(Thing{Kind: "publication", Name: "dbz"}) }, []string{"note publications old shop dbz"}},
	{"publications", "none", func(f *Facts) {}, nil},
	{"session-replication-role", "server, role, grant", func(f *Facts) {
		f.Old.set("session_replication_role", "replica")
		f.Old.RoleSettings = []RoleSetting{{Role: "etl", Name: "session_replication_role", Value: "replica"}}
		f.Old.SetRole = []string{"loader"}
	}, []string{
		"block session-replication-role old role etl", "block session-replication-role old session_replication_role", "warn session-replication-role old loader",
	}},
	{"session-replication-role", "origin", func(f *Facts) {
		f.Old.RoleSettings = []RoleSetting{{Role: "etl", Name: "session_replication_role", Value: "origin"}}
	}, nil},
	{
		"event-triggers-off", "a role", func(f *Facts) {
			f.Old.RoleSettings = []RoleSetting{{Role: "dba", Name: "event_triggers", Value: "off"}}
		},
		[]string{"warn event-triggers-off old role dba"},
	},
	{"event-triggers-off", "on", func(f *Facts) { f.Old.RoleSettings = []RoleSetting{{Role: "dba", Name: "event_triggers", Value: "on"}} }, nil},
}

var slotCases = []judged{
	{
		"slot-wal-limit", "lower than max_wal", func(f *Facts) { f.Old.set("max_slot_wal_keep_size", "1024") },
		[]string{"warn slot-wal-limit old max_slot_wal_keep_size"},
	},
	{"slot-wal-limit", "others would be lost", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "dead", Type: "physical", Kept: 60 << 30, Active: true}, {Name: "metal", Type: "physical", Kept: 1 << 20, Active: true}}
	}, []string{"block slot-wal-limit old dead", "note slot-wal-limit old metal"}},
	{"slot-wal-limit", "higher", func(f *Facts) { f.Old.set("max_slot_wal_keep_size", "102400") }, nil},
	{
		"idle-slot-timeout", "new", func(f *Facts) { f.New.set("idle_replication_slot_timeout", "3600") },
		[]string{"block idle-slot-timeout new idle_replication_slot_timeout"},
	},
	{"idle-slot-timeout", "off", func(f *Facts) {}, nil},
	{"synchronized-standby-slots", "an idle slot", func(f *Facts) {
		f.Old.set("synchronized_standby_slots", "metal, rock")
		f.Old.Slots = []Slot{{Name: "metal", Type: "physical", Active: true}, {Name: "rock", Type: "physical"}}
		f.Want.MaxWAL = 0
	}, []string{"warn slot-unused old rock", "warn synchronized-standby-slots old synchronized_standby_slots"}},
	{"synchronized-standby-slots", "in use", func(f *Facts) {
		f.Old.set("synchronized_standby_slots", "metal")
		f.Old.Slots = []Slot{{Name: "metal", Type: "physical", Active: true}}
		f.Want.MaxWAL = 0
	}, nil},
	{"failover-loses-slots", "15 with a standby", func(f *Facts) {
		f.Old.Senders = []Sender{{Application: "metal", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}}
	}, []string{"note failover-loses-slots old failover"}},
	{"failover-loses-slots", "17 with a standby", func(f *Facts) {
		f.Old.Version, f.Old.Senders = 170012, []Sender{{Application: "metal", State: "streaming"}}
		f.Want.OldStandbys = []Standby{{Name: "metal"}}
	}, []string{"note failover-loses-slots old failover"}},
	{"failover-loses-slots", "no standby", func(f *Facts) {}, nil},
	{"slot-unused", "of nobody, lost, on new", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "gone", Type: "physical", Kept: 1 << 30}, {Name: "cdc", Type: "logical", Plugin: "pgoutput", Database: "shop", Status: "lost"}}
		f.New.Slots = []Slot{{Name: "rock", Type: "physical"}}
		f.Want.MaxWAL = 0
	}, []string{"warn logical-slots old shop cdc", "warn slot-unused new rock", "warn slot-unused old gone", "warn slot-unused old shop cdc"}},
	{"slot-unused", "in use, ours, synced", func(f *Facts) {
		f.Old.Slots = []Slot{{Name: "metal", Type: "physical", Active: true}, {Name: "cf_up_shop_main", Type: "logical", Plugin: "pgoutput"}, {Name: "s", Type: "physical", Synced: true}}
		f.Want.Ours, f.Want.MaxWAL = true, 0
	}, nil},
	{"origins-orphaned", "of a subscription that is gone", func(f *Facts) {
		f.New.Origins = []Origin{{Name: "pg_16400"}, {Name: "pg_16400_16500"}}
	}, []string{"note origins-orphaned new pg_16400", "note origins-orphaned new pg_16400_16500"}},
	{"origins-orphaned", "of somebody", func(f *Facts) {
		f.New.Origins = []Origin{{Name: "pg_16400", Subscription: "sub"}, {Name: "bdr_1"}, {Name: "pg_logical"}}
	}, nil},
	{"status-interval", "0", func(f *Facts) { f.New.set("wal_receiver_status_interval", "0") }, []string{"block status-interval new wal_receiver_status_interval"}},
	{"status-interval", "old applies nothing", func(f *Facts) { f.Old.set("wal_receiver_status_interval", "0"); f.Want.Back = false }, nil},
	{"status-interval", "10 s", func(f *Facts) { f.New.set("wal_receiver_status_interval", "10") }, nil},
}
