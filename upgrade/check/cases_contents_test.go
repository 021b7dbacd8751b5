package check

import (
	"math"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/rights"
)

// doubled is a table with a generated column, found by that or by everything.
func doubled(oid uint32, kind byte) schema.Table {
	t := table(oid, "doubled")
	t.Columns = append(t.Columns, schema.Column{Name: "b", Num: 2, Type: "bigint", Generated: 's', Equality: true})
	t.Identity = schema.Identity{Kind: kind, Index: "doubled_pkey", Columns: []string{"b"}, Usable: true}
	if kind == 'f' {
		t.Identity = schema.Identity{Kind: kind, Usable: true}
	}
	return t
}

// without is a table with no usable identity.
func without(oid uint32, name, candidate string) schema.Table {
	t := table(oid, name)
	t.Identity = schema.Identity{Kind: 'd', Why: "it has no primary key", Candidate: candidate}
	return t
}

func full(oid uint32, name string, rows, changes int64) schema.Table {
	t := table(oid, name)
	t.Identity, t.Rows, t.Updates = schema.Identity{Kind: 'f', Usable: true}, rows, changes
	return t
}

// order is what the runbook orders for a table.
func order(f *Facts, table, what string) {
	f.Databases[0].Want.Identity = map[string]string{table: what}
}

// publishedBy are publications of public.orders.
func publishedBy(f *Facts, all ...Narrowed) {
	f.Databases[0].Narrowed = map[string][]Narrowed{"public.orders": all}
}

var identityCases = []judged{
	{"identity-generated", "as the key", func(f *Facts) { f.table(doubled(9, 'd')) }, []string{"block identity-generated old shop public.doubled"}},
	{
		"identity-generated", "in FULL, published by 18 for the way back", func(f *Facts) { f.table(doubled(9, 'f')) },
		[]string{"block identity-generated old shop public.doubled", "note replica-identity-full old shop public.doubled"},
	},
	{
		"identity-generated", "in FULL, without a way back", func(f *Facts) { f.Want.Back = false; f.table(doubled(9, 'f')) },
		[]string{"note replica-identity-full old shop public.doubled"},
	},
	{"identity-generated", "beside a key", func(f *Facts) {
		t := doubled(9, 'd')
		t.Identity.Columns = []string{"id"}
		f.table(t)
	}, nil},
	{"replica-identity", "none", func(f *Facts) { f.table(without(2, "log", "")) }, []string{"block replica-identity old shop public.log"}},
	{"replica-identity", "a candidate", func(f *Facts) { f.table(without(2, "log", "log_key")) }, []string{"block replica-identity old shop public.log"}},
	{
		"replica-identity", "full is ordered", func(f *Facts) { f.table(without(2, "log", "")); order(f, "public.log", "full") },
		[]string{"note replica-identity-full old shop public.log"},
	},
	{"replica-identity", "an index is ordered", func(f *Facts) {
		f.table(without(2, "log", "log_key"))
		order(f, "public.log", "index:log_key")
		f.indexes("public.log", Index{Name: "log_key", Unique: true})
	}, nil},
	{"replica-identity", "not published", func(f *Facts) {
		a, b, c := without(2, "root", ""), without(3, "ext", ""), without(4, "out", "")
		a.Kind, b.Extension, c.Excluded = 'p', "x", true
		f.table(a)
		f.table(b)
		f.table(c)
	}, []string{"note excluded-tables old shop public.out"}},
	{"replica-identity-equality", "json under FULL", func(f *Facts) {
		t := full(2, "log", 10, 0)
		t.Identity.Usable, t.Identity.Why = false, "its replica identity is FULL, and column j has type json, which has no equality"
		f.table(t)
	}, []string{"block replica-identity-equality old shop public.log"}},
	{"replica-identity-equality", "FULL is ordered over json", func(f *Facts) {
		t := without(2, "log", "")
		t.Columns = append(t.Columns, schema.Column{Name: "j", Type: "json"})
		f.table(t)
		order(f, "public.log", "full")
	}, []string{"block replica-identity-equality old shop public.log"}},
	{"replica-identity-equality", "json beside a key", func(f *Facts) {
		t := table(2, "log")
		t.Columns = append(t.Columns, schema.Column{Name: "j", Type: "json"})
		f.table(t)
	}, nil},
	{"replica-identity-full", "big and updated", func(f *Facts) { f.table(full(2, "log", 200_000, 500)) }, []string{"warn replica-identity-full old shop public.log"}},
	{"replica-identity-full", "measured: a little", func(f *Facts) {
		f.table(full(2, "log", 200_000, 500))
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "measured: noticeable", func(f *Facts) {
		f.table(full(2, "log", 200_000, 3_000_000)) // 6 ms each, 34.7 a second
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"warn replica-identity-full old shop public.log"}},
	{"replica-identity-full", "measured: never catches up", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000)) // 60 ms each
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"block replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index tells rows apart", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000))
		f.indexes("public.log", Index{Name: "log_at", Method: "btree", Distinct: -0.9})
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index does not tell rows apart", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000))
		f.indexes("public.log", Index{Name: "log_kind", Method: "btree", Distinct: 3}, Index{Name: "log_at", Method: "btree", Distinct: -0.9})
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
	}, []string{"warn replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index that 15 does not use", func(f *Facts) {
		f.table(full(2, "log", 2_000_000, 3_000_000))
		f.indexes("public.log", Index{Name: "log_at", Method: "btree", Distinct: -0.9})
		f.Databases[0].StatsSince = f.At.Add(-24 * time.Hour)
		f.Old.Version, f.New.Version, f.Programs = 140025, 150020, nil
	}, []string{"block replica-identity-full old shop public.log"}},
	{"identity-lost", "old's index", func(f *Facts) {
		lost(f, LostIdentity{Schema: "public", Name: "parcels", Have: "d", Indexed: true})
	}, []string{"warn identity-lost new shop public.parcels"}},
	{"identity-lost", "its index is to come", func(f *Facts) {
		lost(f, LostIdentity{Schema: "public", Name: "parcels", Have: "d"})
	}, nil},
	{"replica-identity-full", "insert only", func(f *Facts) { f.table(full(2, "log", 200_000, 0)) }, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "an index could serve", func(f *Facts) {
		t := full(2, "log", 200_000, 500)
		t.Identity.Candidate = "log_key"
		f.table(t)
	}, []string{"note replica-identity-full old shop public.log"}},
	{"replica-identity-full", "a key", func(f *Facts) {}, nil},
	{
		"identity-order", "no such index", func(f *Facts) { f.table(without(2, "log", "log_key")); order(f, "public.log", "index:nope") },
		[]string{"block identity-order old shop public.log"},
	},
	{"identity-order", "an index that cannot", func(f *Facts) {
		f.table(without(2, "log", ""))
		order(f, "public.log", "index:log_x")
		f.indexes("public.log", Index{Name: "log_x", Unique: true, Why: "it is deferrable"})
	}, []string{"block identity-order old shop public.log"}},
	{"identity-order", "full", func(f *Facts) { order(f, "public.orders", "full") }, []string{"note replica-identity-full old shop public.orders"}},
	{"identity-generated", "in the index that is ordered", func(f *Facts) {
		t := doubled(9, 'd')
		t.Identity.Columns = []string{"id"}
		f.table(t)
		order(f, "public.doubled", "index:doubled_b")
		f.indexes("public.doubled", Index{Name: "doubled_b", Unique: true, Columns: []string{"b"}})
	}, []string{"block identity-generated old shop public.doubled"}},
	{"identity-order", "a publication has not all columns", func(f *Facts) {
		order(f, "public.orders", "full")
		publishedBy(f, Narrowed{Publication: "theirs", Columns: []string{"id"}})
	}, []string{"block identity-order old shop public.orders", "note replica-identity-full old shop public.orders"}},
	{"identity-order", "a publication has the columns of the index", func(f *Facts) {
		order(f, "public.orders", "index:other")
		f.indexes("public.orders", Index{Name: "other", Unique: true, Columns: []string{"n"}})
		publishedBy(f, Narrowed{Publication: "theirs", Columns: []string{"id", "n"}})
	}, nil},
	{"identity-order", "a publication lacks a column of the index", func(f *Facts) {
		order(f, "public.orders", "index:other")
		f.indexes("public.orders", Index{Name: "other", Unique: true, Columns: []string{"n"}})
		publishedBy(f, Narrowed{Publication: "theirs", Columns: []string{"id"}})
	}, []string{"block identity-order old shop public.orders"}},
	{"identity-order", "a row filter reads what the index lacks", func(f *Facts) {
		order(f, "public.orders", "index:other")
		f.indexes("public.orders", Index{Name: "other", Unique: true, Columns: []string{"n"}})
		publishedBy(f, Narrowed{Publication: "theirs", Filter: []string{"id"}})
	}, []string{"block identity-order old shop public.orders"}},
	{"identity-order", "a row filter, under full", func(f *Facts) {
		order(f, "public.orders", "full")
		publishedBy(f, Narrowed{Publication: "theirs", Filter: []string{"id"}})
	}, []string{"note replica-identity-full old shop public.orders"}},
	{"identity-order", "what a publication has refused before", func(f *Facts) {
		f.table(without(2, "log", ""))
		order(f, "public.log", "full")
		f.Databases[0].Narrowed = map[string][]Narrowed{"public.log": {{Publication: "theirs", Columns: []string{"id"}}}}
	}, []string{"note replica-identity-full old shop public.log"}},
	{"excluded-tables", "one", func(f *Facts) {
		t := table(2, "audit")
		t.Excluded = true
		f.table(t)
	}, []string{"note excluded-tables old shop public.audit"}},
	{"excluded-tables", "none", func(f *Facts) {}, nil},
	{
		"foreign-key-excluded", "parent left behind", func(f *Facts) { related(f, 1, 2, true) },
		[]string{"block foreign-key-excluded old shop public.orders", "note excluded-tables old shop public.parent"},
	},
	{"foreign-key-excluded", "child left behind", func(f *Facts) { related(f, 2, 1, true) }, []string{"warn truncate-cascade old shop public.orders", "note excluded-tables old shop public.parent"}},
}

func lost(f *Facts, x LostIdentity) {
	t := table(2, "parcels") // the inventory is sorted
	t.Identity = schema.Identity{Kind: 'i', Index: "log_key", Usable: true}
	f.table(t)
	f.Databases[0].Lost = []LostIdentity{x}
}

var setCases = []judged{
	{"foreign-key-sets", "crossing", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest", Tables: f.Databases[0].Inventory.Tables[1:]})
	}, []string{"warn foreign-key-sets old shop main, rest", "warn truncate-cascade old shop public.parent"}},
	{"foreign-key-sets", "within one", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets[0].Tables = f.Databases[0].Inventory.Tables
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest"})
	}, nil},
	{"truncate-cascade", "across sets", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest", Tables: f.Databases[0].Inventory.Tables[1:]})
	}, []string{"warn foreign-key-sets old shop main, rest", "warn truncate-cascade old shop public.parent"}},
	{"truncate-cascade", "TRUNCATE was seen", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: "rest", Tables: f.Databases[0].Inventory.Tables[1:]})
		f.Databases[0].DDL = DDL{Counted: true, Truncates: 3, TruncateOne: "TRUNCATE parent CASCADE"}
	}, []string{"block truncate-cascade old shop public.parent", "warn foreign-key-sets old shop main, rest"}},
	{"truncate-cascade", "from a table that is left behind", func(f *Facts) { related(f, 2, 1, true) }, []string{"warn truncate-cascade old shop public.orders", "note excluded-tables old shop public.parent"}},
	{"truncate-cascade", "within one", func(f *Facts) {
		related(f, 1, 2, false)
		f.Databases[0].Sets[0].Tables = f.Databases[0].Inventory.Tables
	}, nil},
	{"many-sets", "more than half of the cores", func(f *Facts) { f.OldMachine.Cores = 2; split(f, 4) }, []string{"warn many-sets old sets"}},
	{"many-sets", "cores are not known", func(f *Facts) { f.OldMachine.Cores = 0; split(f, 9) }, []string{
		"block logical-workers new max_logical_replication_workers", "block logical-workers old max_logical_replication_workers", "block worker-processes new max_worker_processes",
		"block worker-processes old max_worker_processes", "note many-sets old sets",
	}},
	{"many-sets", "one each", func(f *Facts) { f.OldMachine.Cores = 1 }, nil},
	{"many-sets", "enough cores", func(f *Facts) { split(f, 4) }, nil},
	{"slot-copy", "two sets on 11", func(f *Facts) { f.Old.Version = 110022; split(f, 2) }, []string{"block slot-copy old shop sets", "warn known-bad-minor old 11.22"}},
	{"slot-copy", "one set on 11", func(f *Facts) { f.Old.Version = 110022 }, []string{"warn known-bad-minor old 11.22"}},
	{"slot-copy", "two sets on 12", func(f *Facts) { f.Old.Version = 120022; split(f, 2) }, []string{"warn known-bad-minor old 12.22"}},
}

// split makes n sets.
func split(f *Facts, n int) {
	f.Databases[0].Sets = nil
	for i := range n {
		f.Databases[0].Sets = append(f.Databases[0].Sets, schema.Set{Name: string(rune('a' + i))})
	}
}

func related(f *Facts, from, to uint32, excluded bool) {
	t := table(2, "parent")
	t.Excluded = excluded
	f.table(t)
	f.Databases[0].Inventory.ForeignKeys = []schema.Edge{{From: from, To: to}}
}

var applyCases = []judged{
	{"owner-rights", "a right is missing", func(f *Facts) {
		f.thing(Thing{Kind: "owner-lacks", Name: f.Databases[0].Inventory.Tables[0].SQL(), Detail: "INSERT", More: "app"})
	}, []string{"block owner-rights old shop public.orders"}},
	{"owner-rights", "row-level security is forced", func(f *Facts) {
		t := table(9, "hidden")
		t.Owner, t.RowSecurity, t.ForceRLS = "app", true, true
		f.table(t)
	}, []string{"block owner-rights old shop public.hidden"}},
	{"owner-rights", "15 applies as the subscription's owner", func(f *Facts) {
		f.New.Version, f.Old.Version, f.Programs = 150020, 140023, nil
		f.thing(Thing{Kind: "owner-lacks", Name: f.Databases[0].Inventory.Tables[0].SQL(), Detail: "INSERT", More: "app"})
	}, []string{"warn known-bad-minor old 14.23"}},
	{"owner-rights", "the owner is a superuser", func(f *Facts) {
		t := table(9, "hidden")
		t.Owner, t.RowSecurity, t.ForceRLS = "crossfade", true, true
		f.table(t)
	}, nil},
	{"triggers-on-apply", "always", func(f *Facts) {
		f.Databases[0].Inventory.Triggers = []schema.FiringTrigger{{Schema: "public", Table: "orders", Name: "audit", Mode: 'A'}}
		f.thing(Thing{Kind: "rule", Name: "r", Detail: "R", More: "public.orders"})
	}, []string{"note triggers-on-apply old shop public.orders.audit", "note triggers-on-apply old shop public.orders.r"}},
	{"triggers-on-apply", "ordinary ones", func(f *Facts) { f.Databases[0].Inventory.Tables[0].Triggers = 3 }, nil},
	{"event-triggers", "old's, new's", func(f *Facts) {
		f.thing(Thing{Kind: "event-trigger", Name: "log_ddl", Detail: "O", More: "log_ddl"}, Thing{Kind: "event-trigger", Name: "off", Detail: "D"})
		f.Databases[0].NewThings = []Thing{{Kind: "event-trigger", Name: "guard", Detail: "A", More: "guard"}}
	}, []string{"warn event-triggers new shop guard", "note event-triggers old shop log_ddl"}},
	{"event-triggers", "disabled", func(f *Facts) { f.thing(Thing{Kind: "event-trigger", Name: "off", Detail: "D"}) }, nil},
	{"row-security", "no superuser", func(f *Facts) {
		f.Databases[0].Inventory.Tables[0].RowSecurity = true
		f.Old.Superuser, f.Old.Role.BypassRLS = false, false
	}, []string{"block privileges old crossfade", "block row-security old shop crossfade"}},
	{"row-security", "superuser", func(f *Facts) { f.Databases[0].Inventory.Tables[0].RowSecurity = true }, nil},
	{"unqualified-names", "in a CHECK", func(f *Facts) {
		f.thing(Thing{Kind: "unqualified", Name: "public.known(text)", Detail: "constraint c on table orders\x01rates", More: "public", N: 2})
	}, []string{"warn unqualified-names old shop public.known(text)"}},
	{"unqualified-names", "none", func(f *Facts) {}, nil},
	{"foreign-key-disabled", "one", func(f *Facts) {
		f.thing(Thing{Kind: "disabled-fk", Name: "public.lines", Detail: "lines_order_fkey", More: "FOREIGN KEY (a) REFERENCES public.orders(id)"})
	}, []string{"warn foreign-key-disabled old shop public.lines.lines_order_fkey"}},
	{"foreign-key-disabled", "none", func(f *Facts) {}, nil},
	{"function-rights", "applied by 15", func(f *Facts) { runs(f, rights.Code{Kind: rights.Index}) }, []string{"block function-rights old shop shop"}},
	{"function-rights", "no way back", func(f *Facts) {
		runs(f, rights.Code{Kind: rights.Index})
		f.Want.Back = false
	}, nil},
	{"function-rights", "a superuser's table", func(f *Facts) {
		runs(f, rights.Code{Kind: rights.Statistics, OwnerSuper: true})
	}, []string{"block function-rights old shop shop"}},
	{"function-rights", "a superuser's domain", func(f *Facts) {
		f.Databases[0].Rights = &rights.Map{Domains: []rights.Domain{{Schema: "public", Name: "amount", OwnerSuper: true, Constraint: "c", Function: "public.f(integer)"}}}
	}, []string{"block function-rights old shop shop"}},
	{"function-rights", "a partitioned table's foreign key on 18", func(f *Facts) {
		runs(f, rights.Code{Kind: rights.ForeignKey, Partitioned: true})
		f.Want.Back = false
		f.New.Self.Address = "10.1.1.1"
	}, nil},
	{"function-rights", "an index that is no table's identity, on 18", func(f *Facts) {
		runs(f, rights.Code{Kind: rights.Index, Folds: true, Unidentified: true})
		f.Want.Back = false
		f.Old.Self.Address, f.New.Self.Address = "10.1.1.1", "10.1.1.1"
	}, nil},
	{"owner-login", "peer on a socket", func(f *Facts) {
		runs(f, rights.Code{Kind: rights.Check})
		f.Want.Back = false
	}, []string{"block owner-login new shop app"}},
	{"owner-schema", "a table with a function", func(f *Facts) {
		runs(f, rights.Code{Kind: rights.Check})
		f.New.Self.Address, f.Want.Back = "10.1.1.1", false
		outside(f)
	}, []string{"block owner-schema old shop app"}},
	{"owner-schema", "a table without one", outside, nil},
	{"owner-login", "a password", func(f *Facts) {
		runs(f, rights.Code{Kind: rights.Check})
		f.Want.Back = false
		f.New.Self.Address = "10.1.1.1"
	}, nil},
}

// outside lets app not use the schema of table orders, which is its own.
func outside(f *Facts) {
	f.thing(Thing{Kind: "owner-outside", Name: f.Databases[0].Inventory.Tables[0].SQL(), Detail: "public", More: "app"})
}

// runs makes table orders, which is app's, run a function of app.
func runs(f *Facts, c rights.Code) {
	c.Schema, c.Table, c.Owner, c.What, c.Function, c.FunctionOwner = "public", "orders", "app", "index i", "public.f(integer)", "app"
	f.Databases[0].Rights = &rights.Map{Code: []rights.Code{c}}
}

var partitionCases = []judged{
	{"partition-horizon", "ends in three days", func(f *Facts) { horizon(f, -27, 3) }, []string{"warn partition-horizon old shop public.events"}},
	{"partition-horizon", "far ahead", func(f *Facts) { horizon(f, 60, 90) }, nil},
	{"partition-horizon", "nobody makes any more", func(f *Facts) { horizon(f, -900, -870) }, nil},
	{"enum-hash-partitions", "one", func(f *Facts) {
		f.thing(Thing{Kind: "enum-hash", Name: "public.moods", Detail: "mood", More: "public.mood"})
	}, []string{"block enum-hash-partitions old shop public.moods"}},
	{"enum-hash-partitions", "none", func(f *Facts) {}, nil},
	{"unlogged-partitioned", "to 18", func(f *Facts) { unloggedRoot(f) }, []string{"block unlogged-partitioned old shop public.root"}},
	{"unlogged-partitioned", "to 17", func(f *Facts) { unloggedRoot(f); f.New.Version, f.Programs = 170012, nil }, nil},
}

func horizon(f *Facts, from, to int) {
	at := func(days int) string {
		return f.At.UTC().Truncate(24*time.Hour).AddDate(0, 0, days).Format(time.RFC3339)
	}
	f.thing(Thing{Kind: "horizon", Name: "public.events", Detail: "date", More: at(from) + " " + at(to), N: 7})
}

func unloggedRoot(f *Facts) {
	t := table(2, "root")
	t.Kind, t.Persistence = 'p', 'u'
	f.table(t)
}

var extensionCases = []judged{
	{
		"extension-missing", "postgis", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "postgis", Detail: "3.3"}) },
		[]string{"block extension-missing new shop postgis"},
	},
	{"extension-missing", "not known", func(f *Facts) {
		f.thing(Thing{Kind: "extension", Name: "postgis", Detail: "3.3"})
		f.New.Extensions = nil
	}, nil},
	{"extension-version", "older", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.4"}) }, []string{"note extension-version new shop hstore"}},
	{"extension-version", "the same", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"}) }, nil},
	{
		"extension-preload", "missing", func(f *Facts) {
			f.Old.set("shared_preload_libraries", "pg_stat_statements, auto_explain")
			f.New.set("shared_preload_libraries", "auto_explain")
		},
		[]string{"warn extension-preload new shared_preload_libraries"},
	},
	{"extension-preload", "an extension needs it", func(f *Facts) {
		f.Old.set("shared_preload_libraries", "pg_cron")
		f.New.Extensions["pg_cron"], f.New.Libraries = Extension{Default: "1.6"}, []string{"auto_explain"}
		f.thing(Thing{Kind: "extension", Name: "pg_cron", Detail: "1.6"})
	}, []string{"block extension-needs-preload new shop pg_cron", "warn extension-preload new shared_preload_libraries", "warn extension-workers old shop pg_cron"}},
	{"extension-needs-preload", "pg_cron", func(f *Facts) {
		f.New.Extensions["pg_cron"] = Extension{Default: "1.6"}
		f.thing(Thing{Kind: "extension", Name: "pg_cron", Detail: "1.6"})
	}, []string{"block extension-needs-preload new shop pg_cron", "warn extension-workers old shop pg_cron"}},
	{"extension-needs-preload", "loaded", func(f *Facts) {
		f.New.set("shared_preload_libraries", "pg_cron")
		f.New.Extensions["pg_cron"] = Extension{Default: "1.6"}
		f.thing(Thing{Kind: "extension", Name: "pg_cron", Detail: "1.6"})
	}, []string{"warn extension-workers old shop pg_cron"}},
	{"extension-preload", "there", func(f *Facts) {
		f.Old.set("shared_preload_libraries", "auto_explain")
		f.New.set("shared_preload_libraries", "auto_explain,x")
	}, nil},
	{"extension-workers", "pg_partman", func(f *Facts) {
		f.New.Extensions["pg_partman"] = Extension{Default: "4.7"}
		f.thing(Thing{Kind: "extension", Name: "pg_partman", Detail: "4.7"})
	}, []string{"warn extension-workers old shop pg_partman"}},
	{"extension-workers", "hstore", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"}) }, nil},
	{"extension-tables", "configuration and other", func(f *Facts) {
		a, b := table(2, "conf"), table(3, "data")
		a.Extension, a.ExtConfig, b.Extension = "hstore", true, "hstore"
		f.table(a)
		f.table(b)
		f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"})
	}, []string{"note extension-tables old shop hstore", "note extension-tables old shop hstore"}},
	{"extension-tables", "none", func(f *Facts) { f.thing(Thing{Kind: "extension", Name: "hstore", Detail: "1.8"}) }, nil},
	{
		"c-functions", "a library", func(f *Facts) { f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine", N: 2}) },
		[]string{"warn c-functions old shop $libdir/mine"},
	},
	{"library-missing", "new has none", func(f *Facts) {
		f.New.Libraries = []string{"plpgsql"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine", N: 2})
	}, []string{"block library-missing new shop $libdir/mine"}},
	{"library-missing", "not known", func(f *Facts) { f.thing(Thing{Kind: "c-function", Name: "public.f", More: "/opt/mine", N: 1}) }, []string{"warn c-functions old shop /opt/mine"}},
	{"c-functions", "new has one", func(f *Facts) {
		f.New.Libraries = []string{"mine"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine", N: 2})
	}, []string{"note c-functions old shop $libdir/mine"}},
	{"c-functions", "none", func(f *Facts) {}, nil},
	{"c-functions", "with the ending of a library", func(f *Facts) {
		f.New.Libraries = []string{"mine"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine.so", N: 1})
	}, []string{"note c-functions old shop $libdir/mine.so"}},
	{"c-functions", "by its bare name", func(f *Facts) {
		f.New.Libraries = []string{"mine"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "mine", N: 1})
	}, []string{"note c-functions old shop mine"}},
	{"library-missing", "by its bare name", func(f *Facts) {
		f.New.Libraries = []string{"plpgsql"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "mine", N: 1})
	}, []string{"block library-missing new shop mine"}},
	{"c-functions", "in a folder below", func(f *Facts) {
		f.New.Libraries = []string{"plpgsql"}
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/plugins/mine", N: 1})
	}, []string{"warn c-functions old shop $libdir/plugins/mine"}},
	{"c-functions", "18 looks elsewhere for it", func(f *Facts) {
		f.New.Libraries = []string{"plpgsql"}
		f.New.set("dynamic_library_path", "/opt/lib:$libdir")
		f.thing(Thing{Kind: "c-function", Name: "public.f", More: "$libdir/mine", N: 1}, Thing{Kind: "c-function", Name: "public.g", More: "bare", N: 1})
	}, []string{"warn c-functions old shop $libdir/mine", "warn c-functions old shop bare"}},
}

var removedCases = []judged{
	{"removed-types", "abstime, postfix", func(f *Facts) {
		f.thing(Thing{Kind: "removed-type", Name: "public.t", Detail: "at", More: "abstime"}, Thing{Kind: "postfix", Name: "public.!", Detail: "integer"}, Thing{Kind: "opaque", Name: "public.f(opaque)"})
	}, []string{"block removed-types old shop public.!", "block removed-types old shop public.f(opaque)", "block removed-types old shop public.t"}},
	{"removed-types", "none", func(f *Facts) {}, nil},
	{"table-oids", "one", func(f *Facts) { f.thing(Thing{Kind: "oids", Name: "public.t"}) }, []string{"warn table-oids old shop public.t"}},
	{"table-oids", "none", func(f *Facts) {}, nil},
	{"removed-functions", "in views and an aggregate", func(f *Facts) {
		builtins(f)
		f.thing(Thing{Kind: "gone", Name: "view public.v", Detail: "388"}, Thing{Kind: "gone", Name: "view public.w", More: "3813"},
			Thing{Kind: "over-builtin", Name: "aggregate public.agg(anyelement)", Detail: "378"}, Thing{Kind: "over-builtin", Name: "aggregate public.fine(anyelement)", Detail: "1"})
	}, []string{
		"block removed-functions old shop aggregate public.agg(anyelement)", "block removed-functions old shop view public.v", "block removed-functions old shop view public.w",
	}},
	{"removed-in-bodies", "one", func(f *Facts) { f.thing(Thing{Kind: "body", Name: "public.backup()", Detail: "pg_is_in_backup"}) }, []string{"warn removed-in-bodies old shop public.backup()"}},
	{"removed-in-bodies", "none", func(f *Facts) {}, nil},
	{"removed-functions", "not known", func(f *Facts) { f.thing(Thing{Kind: "gone", Name: "view public.v", Detail: "388"}) }, nil},
	{"removed-columns", "of a view of the server", func(f *Facts) {
		f.New.Columns = set([]string{"pg_catalog.pg_stat_bgwriter.buffers_clean"})
		f.thing(Thing{Kind: "view-column", Name: "public.bg", Detail: "pg_catalog.pg_stat_bgwriter", More: "buffers_backend"},
			Thing{Kind: "view-column", Name: "public.gone", Detail: "pg_catalog.pg_shadow", More: "usename"},
			Thing{Kind: "view-column", Name: "public.fine", Detail: "pg_catalog.pg_stat_bgwriter", More: "buffers_clean"})
	}, []string{"block removed-columns old shop public.bg", "block removed-columns old shop public.gone"}},
	{"removed-columns", "not known", func(f *Facts) {
		f.thing(Thing{Kind: "view-column", Name: "public.bg", Detail: "pg_catalog.pg_stat_bgwriter", More: "buffers_backend"})
	}, nil},
	{"not-immutable", "an interval as text", func(f *Facts) { f.thing(Thing{Kind: "mutable", Name: "index public.i", Detail: "COERCEVIAIO"}) }, []string{"block not-immutable old shop index public.i"}},
	{"not-immutable", "none", func(f *Facts) {}, nil},
}

// builtins are a few functions and operators of both servers.
func builtins(f *Facts) {
	f.Old.Functions = map[uint32]Function{
		1: {"same", "23", "i"}, 378: {"array_append", "2277 2283", "i"}, 3813: {"pg_is_in_backup", "", "v"}, 1161: {"interval_out", "1186", "i"},
	}
	f.New.Functions = map[uint32]Function{
		1: {"same", "23", "i"}, 378: {"array_append", "5078 5077", "i"}, 3813: {"xmltext", "25", "i"}, 1161: {"interval_out", "1186", "s"},
	}
	f.Old.Operators, f.New.Operators = map[uint32]string{388: "! 20 0", 96: "= 23 23"}, map[uint32]string{96: "= 23 23"}
}

var contentCases = []judged{
	{"transaction-ids", "old counts higher", func(f *Facts) {
		f.Old.NextXID, f.New.NextXID = 5<<32, 800
		f.thing(Thing{Kind: "id-column", Name: "public.ev.tx", Detail: "xid8"}, Thing{Kind: "id-default", Name: "public.ev.at", Detail: "txid_current()"})
	}, []string{"warn transaction-ids new epoch"}},
	{"transaction-ids", "new counts higher", func(f *Facts) {
		f.Old.NextXID, f.New.NextXID = 5<<32, 6<<32
		f.thing(Thing{Kind: "id-column", Name: "public.ev.tx", Detail: "xid8"})
	}, nil},
	{"stored-ids", "an oid", func(f *Facts) {
		f.thing(Thing{Kind: "id-column", Name: "public.ev.o", Detail: "oid"}, Thing{Kind: "id-column", Name: "public.ev.r", Detail: "regclass"})
	}, []string{"note stored-ids old shop columns"}},
	{"stored-ids", "wide ids are another check's", func(f *Facts) {
		f.thing(Thing{Kind: "id-column", Name: "public.ev.tx", Detail: "xid8"})
	}, nil},
	{"large-objects", "some", func(f *Facts) { f.Databases[0].Inventory.LargeObjects = 3 }, []string{"block large-objects old shop"}},
	{"large-objects", "none", func(f *Facts) {}, nil},
	{"unlogged", "one", func(f *Facts) {
		t := table(2, "cache")
		t.Persistence = 'u'
		f.table(t)
	}, []string{"block unlogged old shop public.cache"}},
	{"unlogged", "excluded", func(f *Facts) {
		t := table(2, "cache")
		t.Persistence, t.Excluded = 'u', true
		f.table(t)
	}, []string{"note excluded-tables old shop public.cache"}},
	{"foreign-tables", "two servers", func(f *Facts) {
		f.thing(Thing{Kind: "foreign-server", Name: "far", Detail: "postgres_fdw", More: "dbname=x host=db7", N: 2}, Thing{Kind: "foreign-server", Name: "near", Detail: "postgres_fdw", More: "dbname=x"})
	}, []string{"warn foreign-tables old shop near", "note foreign-tables old shop far"}},
	{"foreign-tables", "none", func(f *Facts) {}, nil},
	{"materialized-views", "filled", func(f *Facts) {
		f.Databases[0].Inventory.MaterializedViews = []schema.MaterializedView{{Schema: "public", Name: "mv", Populated: true}}
	}, []string{"note materialized-views old shop"}},
	{"materialized-views", "never filled", func(f *Facts) {
		f.Databases[0].Inventory.MaterializedViews = []schema.MaterializedView{{Schema: "public", Name: "mv"}}
	}, nil},
	{"temporary-tables", "some", func(f *Facts) { f.thing(Thing{Kind: "temporary", N: 2}) }, []string{"note temporary-tables old shop"}},
	{"temporary-tables", "none", func(f *Facts) {}, nil},
	{"invalid-index", "one", func(f *Facts) { f.thing(Thing{Kind: "invalid-index", Name: "public.i", More: "public.t"}) }, []string{"warn invalid-index old shop public.i"}},
	{"invalid-index", "none", func(f *Facts) {}, nil},
	{"template-changed", "an extension and functions", func(f *Facts) {
		f.Template = []Thing{{Kind: "extension", Name: "hstore", N: 1}, {Kind: "user-function", Name: "public.f", N: 3}, {Kind: "publication", Name: "p", N: 1}}
	}, []string{"note template-changed old template1 template1"}},
	{"template-changed", "nothing", func(f *Facts) {}, nil},
	{"security-labels", "selinux", func(f *Facts) { f.thing(Thing{Kind: "label", Name: "selinux", N: 4}) }, []string{"block security-labels new shop selinux"}},
	{"security-labels", "loaded", func(f *Facts) {
		f.thing(Thing{Kind: "label", Name: "selinux", N: 4})
		f.New.set("shared_preload_libraries", "sepgsql")
	}, nil},
	{"compression-missing", "lz4", func(f *Facts) {
		f.thing(Thing{Kind: "lz4", N: 2})
		f.New.Settings["default_toast_compression"] = Setting{Value: "pglz", Enum: []string{"pglz"}}
	}, []string{"block compression-missing new shop lz4"}},
	{"compression-missing", "can", func(f *Facts) {
		f.thing(Thing{Kind: "lz4", N: 2})
		f.New.Settings["default_toast_compression"] = Setting{Value: "pglz", Enum: []string{"pglz", "lz4"}}
	}, nil},
	{"sequence-exhausted", "its column is narrower", func(f *Facts) {
		s := sequence(math.MaxInt32 - 5)
		s.Type, s.Max, s.Table, s.Column = "bigint", math.MaxInt64, 1, 1
		f.Databases[0].Inventory.Tables[0].Columns[0].Type = "integer"
		f.Databases[0].Inventory.Sequences = []schema.Sequence{s}
	}, []string{"warn sequence-exhausted old shop public.s"}},
	{
		"sequence-exhausted", "int4 at its end", func(f *Facts) { f.Databases[0].Inventory.Sequences = []schema.Sequence{sequence(math.MaxInt32 - 5)} },
		[]string{"warn sequence-exhausted old shop public.s"},
	},
	{"sequence-exhausted", "half way", func(f *Facts) { f.Databases[0].Inventory.Sequences = []schema.Sequence{sequence(math.MaxInt32 / 2)} }, nil},
}

func sequence(last int64) schema.Sequence {
	return schema.Sequence{Schema: "public", Name: "s", Type: "integer", Increment: 1, Min: 1, Max: math.MaxInt32, Start: 1, Last: &last, Called: true}
}
