package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"

	"github.com/dustin/go-humanize"
)

var replicationChecks = []Check{
	{ID: "wal-level", Title: "wal_level is logical where sets are sent from", Judge: judgeWALLevel},
	{ID: "name-too-long", Title: "The names of slots and subscriptions fit", Judge: judgeNameLength},
	{ID: "name-collision", Title: "Nothing has the names of this upgrade's objects", Judge: judgeCollisions},
	{ID: "other-upgrade", Title: "No other upgrade is under way", Judge: judgeOtherUpgrade},
	{ID: "subscriptions-on-old", Title: "Old applies nothing from elsewhere", Acceptable: true, Judge: judgeOldSubscriptions},
	{ID: "subscriptions-on-new", Title: "New applies nothing from elsewhere", Acceptable: true, Judge: judgeNewSubscriptions},
	{ID: "logical-slots", Title: "No consumer of changes (CDC) is attached to old", Acceptable: true, Judge: judgeLogicalSlots},
	{ID: "publications", Title: "Old publishes nothing to others", Acceptable: true, Judge: judgePublications},
	{ID: "slot-wal-limit", Title: "WAL is kept long enough for the slots, and not for ever", Acceptable: true, Judge: judgeSlotWAL},
	{ID: "idle-slot-timeout", Title: "Slots are not given up for being idle", Judge: judgeIdleSlots},
	{ID: "synchronized-standby-slots", Title: "Nobody waits for a standby's slot that is idle", Acceptable: true, Judge: judgeSynchronizedSlots},
	{ID: "failover-loses-slots", Title: "A failover of old would not lose the slots", Acceptable: true, Judge: judgeFailover},
	{ID: "session-replication-role", Title: "Nobody writes past the fence", Judge: judgeSessionRole},
	{ID: "event-triggers-off", Title: "Event triggers can refuse DDL at the cutover", Acceptable: true, Judge: judgeEventTriggersOff},
}

// senders are the servers that sets are sent from.
func (f *Facts) sending() []*Server {
	var out []*Server
	if f.Old.ok() {
		out = append(out, f.Old)
	}
	if f.New.ok() && f.Want.Back {
		out = append(out, f.New)
	}
	return out
}

func judgeWALLevel(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sending() {
		if have := s.setting("wal_level"); have != "logical" {
			why := "no slot can be made"
			if s.Side == OnNew {
				why = "no slot can be made for the way back (cutover: back)"
			}
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: "wal_level", Says: fmt.Sprintf("wal_level is %s and must be logical: %s", have, why),
				Fix: lines("ALTER SYSTEM SET wal_level = 'logical';", "restart the "+s.Side+" server"),
			})
		}
	}
	return out
}

const longestName = 63

func judgeNameLength(f *Facts) []Finding {
	var out []Finding
	for _, n := range f.links(true) {
		if len(n) > longestName {
			out = append(out, Finding{
				Level: Block, On: OnOld, Object: n, Says: fmt.Sprintf("%s has %d bytes; names of slots have at most %d", n, len(n), longestName),
				Fix: "shorten the names of the upgrade and the set in the runbook",
			})
		}
	}
	return out
}

// judgeCollisions looks for objects of our names that this upgrade has not
// made, which is so for all of them as long as it has not begun.
func judgeCollisions(f *Facts) []Finding {
	if f.begun() {
		return nil
	}
	var out []Finding
	found := func(on, database, what, name, fix string) {
		out = append(out, Finding{
			Level: Block, On: on, Database: database, Object: name,
			Says: fmt.Sprintf("%s %s exists, and no upgrade %s has begun there: it would be taken for this upgrade's own", what, name, f.Want.Upgrade), Fix: fix,
		})
	}
	for _, s := range f.sides() {
		for _, slot := range s.Slots {
			if f.ours(slot.Name) {
				found(s.Side, slot.Database, "slot", slot.Name, fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", pg.Literal(slot.Name)))
			}
		}
		for _, sub := range s.Subscriptions {
			if f.ours(sub.Name) {
				found(s.Side, sub.Database, "subscription", sub.Name, dropSubscription(sub.Name))
			}
		}
	}
	for _, d := range f.Databases {
		for _, side := range []struct {
			on       string
			things   []Thing
			upgrades []string
		}{{OnOld, d.Things, d.Upgrades}, {OnNew, d.NewThings, d.NewUpgrades}} {
			for _, p := range pick(side.things, "publication") {
				if f.ours(p.Name) {
					found(side.on, d.Name, "publication", p.Name, "DROP PUBLICATION "+pg.Ident(p.Name)+";")
				}
			}
			for range pick(side.things, "schema") {
				if len(side.upgrades) == 0 { // else judgeOtherUpgrade names it
					found(side.on, d.Name, "schema", schema.Own, "run abort or finish of the upgrade that left it; if it is not a crossfade's, rename it: ALTER SCHEMA crossfade RENAME TO …")
				}
			}
			for _, t := range pick(side.things, "own-trigger") {
				found(side.on, d.Name, "trigger", t.Detail+" on "+t.Name, "rename that trigger")
			}
		}
	}
	return out
}

func dropSubscription(name string) string {
	n := pg.Ident(name)
	return lines("ALTER SUBSCRIPTION "+n+" DISABLE;", "ALTER SUBSCRIPTION "+n+" SET (slot_name = NONE);", "DROP SUBSCRIPTION "+n+";")
}

// judgeOtherUpgrade: one upgrade at a time for each old cluster.
func judgeOtherUpgrade(f *Facts) []Finding {
	var out []Finding
	found := func(on, database, name, where string) {
		out = append(out, Finding{
			Level: Block, On: on, Database: database, Object: name,
			Says: fmt.Sprintf("upgrade %s has begun on this cluster (%s); there is one at a time, because each closes and opens the whole cluster", name, where),
			Fix:  "run crossfade finish or crossfade abort with that upgrade's runbook first",
		})
	}
	for _, d := range f.Databases {
		for _, u := range d.Upgrades {
			if u != f.Want.Upgrade {
				found(OnOld, d.Name, u, "crossfade.upgrade says so")
			}
		}
		for _, u := range d.NewUpgrades {
			if u != f.Want.Upgrade {
				found(OnNew, d.Name, u, "crossfade.upgrade says so")
			}
		}
	}
	for _, s := range f.sides() {
		for _, slot := range s.Slots {
			rest, ours := strings.CutPrefix(slot.Name, link.ForwardPrefix)
			if !ours {
				rest, ours = strings.CutPrefix(slot.Name, link.BackPrefix)
			}
			name, _, named := strings.Cut(rest, "_")
			if ours && named && name != f.Want.Upgrade && slot.Plugin == "pgoutput" {
				found(s.Side, slot.Database, name, "slot "+slot.Name)
			}
		}
	}
	return dedupe(out)
}

func judgeOldSubscriptions(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, sub := range f.Old.Subscriptions {
		if f.ours(sub.Name) {
			continue
		}
		level, says := Note, "it is disabled and is not carried over: make it anew on new after the cutover"
		if sub.Enabled {
			level, says = Block, "what it applies passes the fence, so that the cutover waits at its gate until it is disabled; subscriptions are not carried over"
		}
		out = append(out, Finding{
			Level: level, On: OnOld, Database: sub.Database, Object: sub.Name,
			Says: fmt.Sprintf("old is itself a subscriber, by subscription %s: %s", schema.Name(sub.Name), says),
			Fix:  "accept it, and before the cutover: ALTER SUBSCRIPTION " + pg.Ident(sub.Name) + " DISABLE, then make it on new on the same slot once new is open",
		})
	}
	return out
}

func judgeNewSubscriptions(f *Facts) []Finding {
	if !f.New.ok() {
		return nil
	}
	var out []Finding
	for _, sub := range f.New.Subscriptions {
		if f.ours(sub.Name) || !f.moved(sub.Database) {
			continue
		}
		out = append(out, Finding{
			Level: Warn, On: OnNew, Database: sub.Database, Object: sub.Name,
			Says: fmt.Sprintf("new applies subscription %s of somebody else into a database that is moved: what it writes collides with what arrives from old", schema.Name(sub.Name)),
			Fix:  dropSubscription(sub.Name),
		})
	}
	return out
}

func judgeLogicalSlots(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, s := range f.Old.Slots {
		if s.Type != "logical" || f.ours(s.Name) || s.Temporary {
			continue
		}
		says := fmt.Sprintf("slot %s (plugin %s) of somebody else is on old: slots do not move, and positions on new are others. Its consumer must be pointed at a new slot on new, made inside the cutover, or it loses or repeats changes",
			s.Name, s.Plugin)
		if !s.Active {
			says += "; nobody is connected to it now"
		}
		fix := fmt.Sprintf("stop its consumer in hooks: before_cutover; in after_open make the slot on new: SELECT pg_create_logical_replication_slot(%s, %s)", pg.Literal(s.Name), pg.Literal(s.Plugin))
		if s.Plugin != "pgoutput" && s.Plugin != "test_decoding" && f.New.ok() && f.New.has("output_plugin_libraries") &&
			!slices.Contains(splitList(f.New.setting("output_plugin_libraries")), s.Plugin) {
			says += fmt.Sprintf("; new does not load plugin %s", s.Plugin)
			fix = lines(fmt.Sprintf("ALTER SYSTEM SET output_plugin_libraries = %s; on new, and reload it", pg.Literal(f.New.setting("output_plugin_libraries")+", "+s.Plugin)), fix)
		}
		out = append(out, Finding{Level: Warn, On: OnOld, Database: s.Database, Object: s.Name, Says: says, Fix: fix})
	}
	return out
}

func splitList(s string) []string {
	var out []string
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.Trim(strings.TrimSpace(p), `"'`); p != "" {
			out = append(out, p)
		}
	}
	return out
}

func judgePublications(f *Facts) []Finding {
	var out []Finding
	for _, d := range f.Databases {
		for _, p := range d.things("publication") {
			if !f.ours(p.Name) {
				out = append(out, Finding{
					Level: Note, On: OnOld, Database: d.Name, Object: p.Name,
					Says: fmt.Sprintf("publication %s is not carried over: subscribers of old find it on new only if it is made there", schema.Name(p.Name)),
					Fix:  "make it on new in hooks: after_open, with its subscribers' slots",
				})
			}
		}
	}
	return out
}

// judgeSlotWAL: prepare sets max_slot_wal_keep_size to catchup.max_wal on both
// sides where it is unlimited, which limits everybody's slots.
func judgeSlotWAL(f *Facts) []Finding {
	if f.Want.MaxWAL <= 0 {
		return nil
	}
	max := humanize.IBytes(uint64(f.Want.MaxWAL))
	var out []Finding
	for _, s := range f.sending() {
		limit, known := s.Settings["max_slot_wal_keep_size"]
		if !known {
			continue // before 13 there is no limit
		}
		switch mb := s.number("max_slot_wal_keep_size"); {
		case mb >= 0 && mb<<20 < f.Want.MaxWAL:
			out = append(out, Finding{
				Level: Warn, On: s.Side, Object: "max_slot_wal_keep_size",
				Says: fmt.Sprintf("max_slot_wal_keep_size is %s%s, less than catchup.max_wal (%s): a slot that falls behind by that much is lost, and its sets are copied again", limit.Value, limit.Unit, max),
				Fix:  lines(fmt.Sprintf("ALTER SYSTEM SET max_slot_wal_keep_size = '%dMB';", (f.Want.MaxWAL+1<<20-1)>>20), "SELECT pg_reload_conf();", "or lower catchup.max_wal in the runbook"),
			})
		case mb < 0:
			out = append(out, f.otherSlots(s, max)...)
		}
	}
	return out
}

// otherSlots are those that the limit that prepare sets would touch.
func (f *Facts) otherSlots(s *Server, max string) []Finding {
	var out []Finding
	for _, slot := range s.Slots {
		if f.ours(slot.Name) || f.standbyOfNew(s, slot.Name) || slot.Temporary || slot.Synced {
			continue
		}
		level, says := Note, "it may fall behind by that much from then on"
		if slot.Kept > f.Want.MaxWAL {
			level, says = Block, "it would be lost at once"
		}
		out = append(out, Finding{
			Level: level, On: s.Side, Object: slot.Name,
			Says: fmt.Sprintf("prepare limits the WAL that slots keep to catchup.max_wal (%s), for slot %s of somebody else too, which keeps %s now: %s",
				max, slot.Name, humanize.IBytes(uint64(slot.Kept)), says),
			Fix: "raise catchup.max_wal in the runbook, let the slot's consumer catch up, or set max_slot_wal_keep_size yourself",
		})
	}
	return out
}

func judgeIdleSlots(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sending() {
		if v := s.number("idle_replication_slot_timeout"); v > 0 {
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: "idle_replication_slot_timeout",
				Says: fmt.Sprintf("idle_replication_slot_timeout is %d%s: the slots wait without a consumer during the copy and would be invalidated, which loses the copy", v, s.Settings["idle_replication_slot_timeout"].Unit),
				Fix:  lines("ALTER SYSTEM SET idle_replication_slot_timeout = 0;", "SELECT pg_reload_conf();"),
			})
		}
	}
	return out
}

// judgeSynchronizedSlots: from 17 on, failover slots send nothing that the
// slots named there have not confirmed.
func judgeSynchronizedSlots(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var idle []string
	for _, name := range splitList(f.Old.setting("synchronized_standby_slots")) {
		if !slices.ContainsFunc(f.Old.Slots, func(s Slot) bool { return s.Name == name && s.Active }) {
			idle = append(idle, name)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	return []Finding{{
		Level: Warn, On: OnOld, Object: "synchronized_standby_slots",
		Says: fmt.Sprintf("synchronized_standby_slots names %s, which no standby uses now: failover slots send nothing until one does, and the cutover's gate waits", some(idle, "slot", "slots")),
		Fix:  lines("bring that standby back, or take its slot out:", "ALTER SYSTEM SET synchronized_standby_slots = '…' with those in use, then SELECT pg_reload_conf()"),
	}}
}

// judgeFailover: before 17 a promoted standby has no logical slots.
func judgeFailover(f *Facts) []Finding {
	if !f.Old.ok() || f.Old.InRecovery || f.Old.Major() >= 17 || len(f.Old.standbys()) == 0 {
		return nil
	}
	return []Finding{{
		Level: Note, On: OnOld,
		Says: fmt.Sprintf("PostgreSQL %d keeps logical slots on the primary alone: if a standby of old is promoted before the cutover, every set is copied again", f.Old.Major()),
	}}
}

// judgeSessionRole: the fence is made of ordinary triggers, which sessions with
// session_replication_role = replica do not fire.
func judgeSessionRole(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	const would = "its writes pass the fence: those behind the fence LSN would be lost"
	var out []Finding
	if v := f.Old.setting("session_replication_role"); v != "" && v != "origin" {
		out = append(out, Finding{
			Level: Block, On: OnOld, Object: "session_replication_role",
			Says: fmt.Sprintf("session_replication_role is %s for the whole server; %s", v, would),
			Fix:  lines("ALTER SYSTEM SET session_replication_role = 'origin';", "SELECT pg_reload_conf();"),
		})
	}
	for _, s := range f.Old.RoleSettings {
		if s.Name == "session_replication_role" && s.Value != "origin" {
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: s.Database, Object: s.String(),
				Says: fmt.Sprintf("session_replication_role is %s for %s; %s", s.Value, s, would),
				Fix:  lines(s.alter()+" RESET session_replication_role;", "end that role's sessions"),
			})
		}
	}
	for _, role := range f.Old.SetRole {
		to := pg.Ident(role)
		if role == "PUBLIC" {
			to = role
		}
		out = append(out, Finding{
			Level: Warn, On: OnOld, Object: role,
			Says: fmt.Sprintf("role %s may set session_replication_role; if it does, %s", role, would),
			Fix:  "REVOKE SET ON PARAMETER session_replication_role FROM " + to + ";",
		})
	}
	return out
}

// judgeEventTriggersOff: event_triggers (17+) off for a role or the server
// keeps the tool's event trigger from refusing DDL.
func judgeEventTriggersOff(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	const would = "the cutover's event trigger refuses no DDL there, so that only the fingerprint under the locks sees it"
	var out []Finding
	if f.Old.setting("event_triggers") == "off" {
		out = append(out, Finding{
			Level: Warn, On: OnOld, Object: "event_triggers", Says: "event_triggers is off for the whole server: " + would,
			Fix: lines("ALTER SYSTEM RESET event_triggers;", "SELECT pg_reload_conf();"),
		})
	}
	for _, s := range f.Old.RoleSettings {
		if s.Name == "event_triggers" && (s.Value == "off" || s.Value == "false") {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: s.Database, Object: s.String(), Says: fmt.Sprintf("event_triggers is off for %s: %s", s, would),
				Fix: s.alter() + " RESET event_triggers;",
			})
		}
	}
	return out
}
