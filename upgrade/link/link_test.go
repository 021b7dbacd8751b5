package link

import (
	"strings"
	"testing"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// end is a side of a link; nothing is asked of it.
func end(t *testing.T, side string, version int) End {
	t.Helper()
	s, err := pg.Parse(side, "host="+side+" dbname=shop user=crossfade", "")
	if err != nil {
		t.Fatal(err)
	}
	return End{Side: side, Server: s, Version: version}
}

func some(t *testing.T, from, to int, sets ...string) []Link {
	t.Helper()
	links := make([]Link, len(sets))
	for i, set := range sets {
		links[i] = Link{Name: Name(true, "up", "shop", set), Database: "shop", Set: set, Forward: true, From: end(t, "old", from), To: end(t, "new", to), Conninfo: "host=old user=crossfade"}
	}
	return links
}

func sql(effects ...flow.Effect) string {
	all := make([]string, len(effects))
	for i, e := range effects {
		all[i] = e.On + ": " + e.SQL
	}
	return strings.Join(all, "\n")
}

// TestName: what a link is called is what is looked for on servers, from any machine:
// a database whose name may not stand in a slot's is called by its oid.
func TestName(t *testing.T) {
	for _, c := range []struct{ database, forward, back string }{
		{"shop", "cf_up_shop_main", "cb_up_shop_main"},
		{"a2345678901234567890", "cf_up_a2345678901234567890_main", "cb_up_a2345678901234567890_main"},
		{"a23456789012345678901", "cf_up_d16384_main", "cb_up_d16384_main"},
		{"Shop", "cf_up_d16384_main", "cb_up_d16384_main"},
		{"my-shop", "cf_up_d16384_main", "cb_up_d16384_main"},
		{"1shop", "cf_up_d16384_main", "cb_up_d16384_main"},
		{"", "cf_up_d16384_main", "cb_up_d16384_main"},
	} {
		tag := DatabaseTag(c.database, 16384)
		if f, b := Name(true, "up", tag, "main"), Name(false, "up", tag, "main"); f != c.forward || b != c.back {
			t.Errorf("links of %q are called %s and %s", c.database, f, b)
		}
	}
	// The longest that the runbook takes still fits into a slot's name.
	longest := Name(true, "a23456789012345", "a2345678901234567890", "a23456789012345")
	if len(longest) > 63 {
		t.Errorf("%s has %d bytes, and slots have at most 63", longest, len(longest))
	}
}

// TestState: one word of a position, the worst first.
func TestState(t *testing.T) {
	pid := int32(1)
	streams := Position{Slot: true, Active: true, Subscription: true, Enabled: true, Worker: &pid}
	with := func(change func(*Position)) Position {
		p := streams
		change(&p)
		return p
	}
	for want, p := range map[string]Position{
		"streaming":    streams,
		"missing":      {},
		"lost":         with(func(p *Position) { p.Lost = true }),
		"slot missing": with(func(p *Position) { p.Slot = false }),
		"copying":      with(func(p *Position) { p.Subscription = false }),
		"stopped":      with(func(p *Position) { p.Enabled, p.Worker = false, nil }),
		"waiting":      with(func(p *Position) { p.Worker = nil }),
	} {
		if got := p.State(); got != want {
			t.Errorf("%+v is %s, want %s", p, got, want)
		}
	}
	// A worker whose walsender is gone applies nothing.
	if got := with(func(p *Position) { p.Active = false }).State(); got != "waiting" {
		t.Errorf("without a walsender it is %s", got)
	}
}

// TestLagBytes: what was written and not confirmed; a slot that is ahead of its server,
// which followed another one, has less than none, and nobody takes it for caught up.
func TestLagBytes(t *testing.T) {
	confirmed := pg.LSN(0x1_0000_0000)
	p := Position{Insert: 0x1_0000_0040, Confirmed: &confirmed}
	if lag := p.LagBytes(); lag == nil || *lag != 0x40 {
		t.Errorf("lag %v over the end of a log file", lag)
	}
	p.Insert = 0xFFFF_FFFF
	if lag := p.LagBytes(); lag == nil || *lag != -1 {
		t.Errorf("a slot ahead of its server has lag %v", lag)
	}
	if (Position{Insert: 5}).LagBytes() != nil {
		t.Error("the lag of a slot that has confirmed nothing is known")
	}
}

// TestSlotsAtOnePoint: the first slot exports its snapshot, the others are copies of
// it: all sets of a database begin at the same transaction.
func TestSlotsAtOnePoint(t *testing.T) {
	want := `old: CREATE_REPLICATION_SLOT "cf_up_shop_a" LOGICAL pgoutput EXPORT_SNAPSHOT
old: SELECT pg_copy_logical_replication_slot('cf_up_shop_a', 'cf_up_shop_b')
old: SELECT pg_copy_logical_replication_slot('cf_up_shop_a', 'cf_up_shop_c')`
	if got := sql(SlotEffects(some(t, 150000, 180000, "a", "b", "c"))...); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if SlotEffects(nil) != nil {
		t.Error("slots of no set")
	}
}

// TestDrop: a subscription lets its slot go before it is dropped: DROP SUBSCRIPTION
// would else need the other server, which may be gone.
func TestDrop(t *testing.T) {
	l := some(t, 150000, 180000, "main")[0]
	want := `new: ALTER SUBSCRIPTION "cf_up_shop_main" DISABLE
new: ALTER SUBSCRIPTION "cf_up_shop_main" SET (slot_name = NONE)
new: DROP SUBSCRIPTION IF EXISTS "cf_up_shop_main"`
	if got := sql(l.DropSubscription()...); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := sql(l.DropSlot()); !strings.HasPrefix(got, "old: ") || !strings.Contains(got, "FROM pg_replication_slots WHERE slot_name = 'cf_up_shop_main'") {
		t.Errorf("the slot that is gone is an error: %s", got)
	}
}

// TestSubscription: every option whose default differs between majors is explicit, and
// none that a major does not know. parallel loses transactions before its fix.
func TestSubscription(t *testing.T) {
	for _, c := range []struct {
		from, to int
		has      []string
		hasNot   []string
	}{
		{130000, 140000, []string{"copy_data = false", "create_slot = false", "binary = false", "streaming = on"}, []string{"two_phase", "origin"}},
		{140000, 150000, []string{"binary = true", "streaming = on", "two_phase = false", "disable_on_error = false"}, []string{"origin"}},
		{150000, 180004, []string{"origin = any", "streaming = on"}, nil},
		{160000, 180002, []string{"streaming = parallel"}, nil},
		{160000, 180001, []string{"streaming = on"}, nil},
		{160000, 170007, []string{"streaming = on"}, nil},
		{160000, 170008, []string{"streaming = parallel"}, nil},
		{160000, 190000, []string{"streaming = parallel"}, nil},
		{180000, 130000, []string{"enabled = false"}, []string{"binary", "streaming", "two_phase", "origin"}},
	} {
		got := some(t, c.from, c.to, "main")[0].Subscription(false).SQL
		_, with, _ := strings.Cut(got, " WITH (")
		for _, s := range c.has {
			if !strings.Contains(with, s) {
				t.Errorf("from %d to %d without %s: %s", c.from, c.to, s, with)
			}
		}
		for _, s := range c.hasNot {
			if strings.Contains(with, s) {
				t.Errorf("from %d to %d with %s: %s", c.from, c.to, s, with)
			}
		}
	}
	if _, ok := some(t, 160000, 180000, "main")[0].Failover(); ok {
		t.Error("a sender that knows no failover slots")
	}
	if _, ok := some(t, 170000, 180000, "main")[0].Failover(); !ok {
		t.Error("both ends know failover slots")
	}
}

// TestSecret: a password that must stand in a subscription is never shown, and comes
// out as it was however many quotes it has.
func TestSecret(t *testing.T) {
	l := some(t, 150000, 180000, "main")[0]
	for _, password := range []string{"plain", `it's`, `back\slash`, `both\'`} {
		l.Secret = password
		e := l.Subscription(false)
		if strings.Contains(e.SQL, password) || !strings.Contains(e.SQL, "password=$secret") {
			t.Errorf("%q stands in what is shown: %s", password, e.SQL)
		}
		filled := e.Fill(e.Secrets).SQL
		_, rest, _ := strings.Cut(filled, " CONNECTION ")
		literal, _, _ := strings.Cut(rest, " PUBLICATION ")
		// Undone twice, as PostgreSQL does: the literal, then libpq's value.
		if !strings.HasPrefix(literal, "E'") || !strings.HasSuffix(literal, "'") {
			t.Fatalf("%q: no literal: %s", password, literal)
		}
		conninfo := strings.NewReplacer(`\\`, `\`, `''`, `'`).Replace(literal[2 : len(literal)-1])
		if got := pg.Keyword(conninfo, "password"); got != password {
			t.Errorf("%q arrives as %q: %s", password, got, conninfo)
		}
	}
}

// TestReaches: a subscription leads where the link does, or it must be corrected.
func TestReaches(t *testing.T) {
	l := some(t, 150000, 180000, "main")[0]
	if !l.Reaches(Conninfo("host=old user=crossfade", 150000, l.Name)) {
		t.Error("it leads where it was made to")
	}
	for _, other := range []string{"host=elsewhere user=crossfade", "host=old user=other", "no conninfo", ""} {
		if l.Reaches(other) {
			t.Errorf("%q leads to the sender", other)
		}
	}
}

// TestTogether: links of one database are started in one round trip, and the canary
// goes through every one of them in one transaction.
func TestTogether(t *testing.T) {
	links := some(t, 150000, 180000, "a", "b")
	if got := sql(EnableAll(links)); got != `new: ALTER SUBSCRIPTION "cf_up_shop_a" ENABLE; ALTER SUBSCRIPTION "cf_up_shop_b" ENABLE` {
		t.Error(got)
	}
	got := CanaryEffect(links).Fill(map[string]string{"canary": "42"})
	if got.On != "old" || strings.Count(got.SQL, "SET n = 42") != 2 || strings.Contains(got.SQL, "INSERT") {
		t.Errorf("the canary is %s", sql(got))
	}
	if a, b := Token(), Token(); b < a {
		t.Errorf("token %d after %d", b, a)
	}
	l := links[0]
	l.Tables = []schema.Table{{Schema: "public", Name: "orders"}}
	if got := l.Publication().SQL; !strings.Contains(got, `FOR TABLE ONLY "public"."orders", ONLY "crossfade"."canary_a" `) {
		t.Errorf("the publication is %s", got)
	}
}

// TestFollow: slots are let follow by a function where there is one, else by a slot
// that is dropped at once, with a limit.
func TestFollow(t *testing.T) {
	if got := end(t, "old", 160000).FollowEffects(); len(got) != 1 {
		t.Errorf("16: %s", sql(got...))
	}
	got := end(t, "old", 150000).FollowEffects()
	if len(got) != 3 || !strings.HasPrefix(got[0].SQL, "SET statement_timeout") || got[2].SQL != "RESET statement_timeout" {
		t.Errorf("15: %s", sql(got...))
	}
}

// TestConninfo: what the operator gave stays, and the link's own settings win over it.
func TestConninfo(t *testing.T) {
	got := Conninfo("host=old options='-c statement_timeout=5s -c work_mem=1MB' keepalives_idle=9", 170000, "cf_up_shop_main")
	if pg.Keyword(got, "application_name") != "cf_up_shop_main" || pg.Keyword(got, "keepalives_idle") != "9" || pg.Keyword(got, "keepalives_count") != "3" {
		t.Error(got)
	}
	options := pg.Keyword(got, "options")
	if !strings.Contains(options, "work_mem=1MB") || strings.LastIndex(options, "statement_timeout=0") < strings.Index(options, "statement_timeout=5s") {
		t.Errorf("a timeout of the operator's may end the walsender: %s", options)
	}
	for _, name := range []string{"DateStyle=ISO", "extra_float_digits=3", "transaction_timeout=0", "wal_sender_timeout=60s"} {
		if !strings.Contains(options, name) {
			t.Errorf("%s is missing: %s", name, options)
		}
	}
	if strings.Contains(pg.Keyword(Conninfo("host=old", 110000, "x"), "options"), "wal_sender_timeout") {
		t.Error("11 cannot have wal_sender_timeout in a session")
	}
}

// TestPinned: what is pinned is what is restored and what is looked for, of settings
// that the server knows.
func TestPinned(t *testing.T) {
	before := map[string]string{"lc_monetary": "de_DE.UTF-8"}
	for _, c := range []struct {
		version int
		knows   bool
	}{{160000, false}, {170000, true}} {
		pin, restore, pinned := PinSettings("cross fade", "shop", c.version), RestoreSettings("cross fade", "shop", c.version, before), PinnedSettings(c.version)
		n := strings.Count(pin, `ALTER ROLE "cross fade" IN DATABASE "shop" SET `)
		if n == 0 || n != strings.Count(restore, "ALTER ROLE") || n != strings.Count(pinned, "=") {
			t.Errorf("%d: pinned, restored and looked for are not the same:\n%s\n%s\n%s", c.version, pin, restore, pinned)
		}
		for _, s := range []string{pin, restore, pinned} {
			if strings.Contains(s, "transaction_timeout") != c.knows {
				t.Errorf("%d: %s", c.version, s)
			}
		}
		if strings.Count(restore, " RESET ") != n-1 || !strings.Contains(restore, "SET lc_monetary = 'de_DE.UTF-8'") {
			t.Errorf("%d: what stood there before is not put back: %s", c.version, restore)
		}
	}
	if len(AppliedSettings()) != strings.Count(PinSettings("r", "d", 170000), "ALTER ROLE") {
		t.Errorf("%v are not what is pinned", AppliedSettings())
	}
	for version, drops := range map[int]bool{140000: false, 150000: true, 150015: true, 150016: false, 160011: true, 160012: false, 170007: true, 170008: false, 180001: true, 180002: false, 190000: false} {
		if DropsOptions(version) != drops {
			t.Errorf("%d drops options: %t", version, !drops)
		}
	}
	for name := range SentSettings() {
		if !strings.Contains(pg.Keyword(Conninfo("host=old", 170000, "x"), "options"), name+"=") {
			t.Errorf("%s reaches a walsender whose subscriber drops options, and is not pinned elsewhere", name)
		}
	}
}
