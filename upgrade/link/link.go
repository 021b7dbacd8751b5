// Package link is one table set in one direction: its publication and slot on
// the side that sends, its subscription on the side that applies, the canary
// that is written through it, and its position by LSN.
//
// Forward (old → new) and back (new → old) are the same type with the ends
// swapped. The two are never enabled together, so that both use origin=any.
package link

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/pg"
)

// End is one side of a link: one database of one server.
type End struct {
	Side   string     // how plans call the server: old, new
	Server *pg.Server // seen through the database
	// Version is server_version_num.
	Version int
}

func (e End) effect(sql string) flow.Effect {
	return flow.Effect{On: e.Side, Database: e.Server.Database(), SQL: sql}
}

// Link is one set in one direction.
type Link struct {
	Name     string // of its publication, slot and subscription alike
	Database string
	Set      string
	Forward  bool
	From, To End
	// Conninfo is how To's server reaches From, for libpq, without password.
	Conninfo string
	// Secret is the password that must stand in the subscription because the
	// runbook gives no better way; "" is none.
	Secret string
	// Tables are what the set publishes; the canary comes on top.
	Tables []schema.Table
}

// Prefixes of the names of forward and back links.
const (
	ForwardPrefix = "cf_"
	BackPrefix    = "cb_"
)

var plainName = regexp.MustCompile(`^[a-z][a-z0-9]{0,19}$`)

// DatabaseTag is how a database stands in the names of links: its name where
// that is plain, else d and its oid on old.
func DatabaseTag(name string, oid uint32) string {
	if plainName.MatchString(name) {
		return name
	}
	return fmt.Sprintf("d%d", oid)
}

// Name is the name of a link's publication, slot and subscription. Slots are
// per cluster, so that the database stands in it.
func Name(forward bool, upgrade, databaseTag, set string) string {
	prefix := BackPrefix
	if forward {
		prefix = ForwardPrefix
	}
	return prefix + upgrade + "_" + databaseTag + "_" + set
}

// Canary is the quoted name of the canary table of a set.
func Canary(set string) string { return pg.Ident("crossfade", "canary_"+set) }

// CanaryTable is the statement that makes the canary of a set and its only
// row. The row is made once, by prepare, on both sides: from then on it is
// only updated, because an insert would come back over the back link as a
// duplicate key.
func CanaryTable(set string) string {
	t := Canary(set)
	return "CREATE TABLE IF NOT EXISTS " + t + " (id int PRIMARY KEY DEFAULT 1, n bigint NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());\n" +
		"INSERT INTO " + t + " (id, n) VALUES (1, 0) ON CONFLICT DO NOTHING"
}

// Publication is the effect that makes the publication on the sending side.
// Leaves are named one by one and roots not at all, so that a set's tables are
// the same on every major and on both sides.
func (l Link) Publication() flow.Effect {
	tables := make([]string, 0, len(l.Tables)+1)
	for _, t := range l.Tables {
		tables = append(tables, "ONLY "+t.SQL())
	}
	tables = append(tables, "ONLY "+Canary(l.Set))
	return l.From.effect(fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish = 'insert, update, delete, truncate')",
		pg.Ident(l.Name), strings.Join(tables, ", ")))
}

// DropPublication is the effect that takes the publication away.
func (l Link) DropPublication() flow.Effect {
	return l.From.effect("DROP PUBLICATION IF EXISTS " + pg.Ident(l.Name))
}

// conninfo is what stands in the subscription, without password.
func (l Link) conninfo() string { return Conninfo(l.Conninfo, l.From.Version, l.Name) }

// secrets fill the holes of the link's effects.
func (l Link) secrets() map[string]string {
	if l.Secret == "" {
		return nil
	}
	value := "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(l.Secret) + "'"
	lit := pg.Literal(value)
	// The hole stands inside a literal: only its inner part is put in.
	lit = strings.TrimPrefix(lit, " E")
	return map[string]string{"secret": lit[1 : len(lit)-1]}
}

// secret is an effect on the applying side in which the conninfo stands.
func (l Link) secret(sql string) flow.Effect {
	e := l.To.effect(sql)
	e.Secrets = l.secrets()
	return e
}

// Subscription is the effect that makes the subscription on the applying side,
// on a slot that exists. The table list is read from the publication; nothing
// is copied. Every option whose default changed between majors is explicit.
func (l Link) Subscription(enabled bool) flow.Effect {
	opts := []string{
		"create_slot = false", "copy_data = false", fmt.Sprintf("enabled = %t", enabled),
		"slot_name = " + l.Name, "synchronous_commit = 'off'",
	}
	v := l.To.Version
	if v >= 140000 {
		opts = append(opts, fmt.Sprintf("binary = %t", l.binary()), "streaming = "+l.streaming())
	}
	if v >= 150000 {
		opts = append(opts, "two_phase = false", "disable_on_error = false")
	}
	if v >= 160000 {
		opts = append(opts, "origin = any")
	}
	return l.secret(fmt.Sprintf("CREATE SUBSCRIPTION %s CONNECTION %s PUBLICATION %s WITH (%s)",
		pg.Ident(l.Name), l.literal(), pg.Ident(l.Name), strings.Join(opts, ", ")))
}

// binary is where every column travels in a form that is the same on all majors
// and holds no OID: what COPY takes in binary, too. Applying over one link takes less
// of the processors then (docs/benchmarks.md). A sender below 14 sends text all the
// same.
func (l Link) binary() bool {
	return l.From.Version >= 140000 && !slices.ContainsFunc(l.Tables, func(t schema.Table) bool { return !t.Binary() })
}

// streaming is parallel only where the subscriber has the fix of 16.12, 17.8
// and 18.2: "Don't advance logical replication progress after a parallel
// worker apply failure"; before, transactions were lost.
func (l Link) streaming() string {
	fixed := map[int]int{16: 160012, 17: 170008, 18: 180002}
	major := l.To.Version / 10000
	if l.From.Version >= 160000 && (major > 18 || fixed[major] > 0 && l.To.Version >= fixed[major]) {
		return "parallel"
	}
	return "on"
}

// Failover is the effect that lets standbys of the sender that synchronize slots
// have this one when they are promoted; ok: both ends know of it. CREATE
// SUBSCRIPTION leaves a slot that exists as it is. It wants a disabled
// subscription.
func (l Link) Failover() (e flow.Effect, ok bool) {
	return l.To.effect("ALTER SUBSCRIPTION " + pg.Ident(l.Name) + " SET (failover = true)"), l.To.Version >= 170000 && l.From.Version >= 170000
}

// literal is the conninfo as a literal, with a hole for the secret.
func (l Link) literal() string {
	conninfo := l.conninfo()
	lit := pg.Literal(conninfo)
	if l.Secret != "" {
		lit = pg.Literal(conninfo + " password=SECRET")
		lit = strings.Replace(lit, "password=SECRET", "password=$secret", 1)
		if !strings.HasPrefix(lit, " E") {
			lit = " E" + lit
		}
	}
	return strings.TrimSpace(lit)
}

// Reaches reports whether conninfo, of the link's subscription as it stands,
// leads where the link's own does. The password is not looked at.
func (l Link) Reaches(conninfo string) bool {
	was, err := pg.Parse("", conninfo, "")
	if err != nil {
		return false
	}
	is, err := pg.Parse("", l.conninfo(), "")
	return err == nil && was.Given() == is.Given()
}

// Reconnect is the effect that lets the subscription ask the sender where it is
// now. Its worker starts anew, from what it has applied.
func (l Link) Reconnect() flow.Effect {
	return l.secret("ALTER SUBSCRIPTION " + pg.Ident(l.Name) + " CONNECTION " + l.literal())
}

// Again says how a person has the link's tables copied again.
func (l Link) Again() string {
	return fmt.Sprintf("where it does not reach old, crossfade prepare corrects its connection string; where rows of new block it, fix them there, or have its tables copied again: %s on new (BEGIN READ WRITE before it), %s on old, then crossfade prepare", l.Disable().SQL, l.DropSlot().SQL)
}

// Refresh is the effect that subscribes to the tables that are published now,
// and to no others. It wants an enabled subscription.
func (l Link) Refresh() flow.Effect {
	return l.To.effect("ALTER SUBSCRIPTION " + pg.Ident(l.Name) + " REFRESH PUBLICATION WITH (copy_data = false)")
}

// Enable and Disable are the effects that start and stop applying.
func (l Link) Enable() flow.Effect {
	return l.To.effect("ALTER SUBSCRIPTION " + pg.Ident(l.Name) + " ENABLE")
}

// Disable stops applying; the slot keeps what has not been applied.
func (l Link) Disable() flow.Effect {
	return l.To.effect("ALTER SUBSCRIPTION " + pg.Ident(l.Name) + " DISABLE")
}

// EnableAll is the effect that starts applying links of one database at once: a
// launcher before 16 starts workers no more often than once in
// wal_retrieve_retry_interval, those that it sees together.
func EnableAll(links []Link) flow.Effect {
	sql := make([]string, len(links))
	for i, l := range links {
		sql[i] = l.Enable().SQL
	}
	return links[0].To.effect(strings.Join(sql, "; "))
}

// EndWorkers is the effect that ends the apply workers of links that have been
// disabled: before 16 a worker that has nothing to do looks only once a second.
func EndWorkers(links []Link) flow.Effect {
	names := make([]string, len(links))
	for i, l := range links {
		names[i] = pg.Literal(l.Name)
	}
	return links[0].To.effect("SELECT pg_terminate_backend(pid) FROM pg_stat_subscription WHERE pid IS NOT NULL AND subname IN (" + strings.Join(names, ", ") + ")")
}

// DropSubscription are the effects that take the subscription away without
// touching the slot, which may be on a server that is gone: DISABLE, SET
// (slot_name = NONE), DROP.
func (l Link) DropSubscription() []flow.Effect {
	s := pg.Ident(l.Name)
	return []flow.Effect{
		l.Disable(),
		l.To.effect("ALTER SUBSCRIPTION " + s + " SET (slot_name = NONE)"),
		l.To.effect("DROP SUBSCRIPTION IF EXISTS " + s),
	}
}

// DropSlot is the effect that takes the slot away on the sending side.
func (l Link) DropSlot() flow.Effect {
	return l.From.effect("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = " + pg.Literal(l.Name))
}

// CreateSlot is the effect that makes the slot without a snapshot, where both
// sides are known to be equal: inside a fence.
func (l Link) CreateSlot() flow.Effect {
	return l.From.effect("SELECT pg_create_logical_replication_slot(" + pg.Literal(l.Name) + ", 'pgoutput')")
}
