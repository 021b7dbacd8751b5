package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

var replicationChecks = []Check{
	{ID: "wal-level", Title: "wal_level is logical where sets are sent from", Levels: onlyBlock, Judge: judgeWALLevel},
	{ID: "name-too-long", Title: "The names of slots and subscriptions fit", Levels: onlyBlock, Judge: judgeNameLength},
	{ID: "name-collision", Title: "Nothing has the names of this upgrade's objects", Levels: onlyBlock, Judge: judgeCollisions},
	{ID: "other-upgrade", Title: "No other upgrade is under way", Levels: onlyBlock, Judge: judgeOtherUpgrade},
	{ID: "subscriptions-on-old", Title: "Old applies nothing from elsewhere", Levels: blockNote, Acceptable: true, Judge: judgeOldSubscriptions},
	{ID: "subscriptions-on-new", Title: "New applies nothing from elsewhere", Levels: onlyWarn, Acceptable: true, Judge: judgeNewSubscriptions},
	{ID: "logical-slots", Title: "No consumer of changes (CDC) is attached to old", Levels: onlyWarn, Acceptable: true, Judge: judgeLogicalSlots},
	{ID: "output-plugin", Title: "New loads the plugins that consumers of changes use", Levels: onlyWarn, Acceptable: true, Judge: judgePlugins},
	{ID: "publications", Title: "Old publishes nothing to others", Levels: onlyNote, Acceptable: true, Judge: judgePublications},
	{ID: "session-replication-role", Title: "Nobody writes past the fence", Levels: blockWarn, Judge: judgeSessionRole},
	{ID: "event-triggers-off", Title: "Event triggers can refuse DDL at the cutover", Levels: onlyWarn, Acceptable: true, Judge: judgeEventTriggersOff},
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
	names := append(f.links(true), f.links(false)...)
	taken := func(name string) bool {
		return f.ours(name) && (len(f.Want.Siblings) == 0 || slices.Contains(names, name))
	}
	for _, s := range f.sides() {
		for _, slot := range s.Slots {
			if taken(slot.Name) {
				found(s.Side, slot.Database, "slot", slot.Name, fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", pg.Literal(slot.Name)))
			}
		}
		for _, sub := range s.Subscriptions {
			if taken(sub.Name) {
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
				if taken(p.Name) {
					found(side.on, d.Name, "publication", p.Name, "DROP PUBLICATION "+pg.Ident(p.Name)+";")
				}
			}
			for range pick(side.things, "schema") {
				// Else judgeOtherUpgrade names it, or it is a sibling's.
				if len(side.upgrades) == 0 && (len(f.Want.Siblings) == 0 || side.on == OnNew) {
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
	var out []Finding
	for _, s := range f.consumers() {
		says := fmt.Sprintf("slot %s (plugin %s) of somebody else is on old: slots do not move, and positions on new are others. Its consumer must be pointed at a new slot on new, made inside the cutover, or it loses or repeats changes",
			s.Name, s.Plugin)
		if !s.Active {
			says += "; nobody is connected to it now"
		}
		out = append(out, Finding{
			Level: Warn, On: OnOld, Database: s.Database, Object: s.Name, Says: says,
			Fix: fmt.Sprintf("stop its consumer in hooks: before_cutover; in after_open make the slot on new: SELECT pg_create_logical_replication_slot(%s, %s)", pg.Literal(s.Name), pg.Literal(s.Plugin)),
		})
	}
	return out
}

// consumers are the logical slots of others on old.
func (f *Facts) consumers() []Slot {
	if !f.Old.ok() {
		return nil
	}
	var out []Slot
	for _, s := range f.Old.Slots {
		if s.Type == "logical" && !f.ours(s.Name) && !s.Temporary {
			out = append(out, s)
		}
	}
	return out
}

// judgePlugins: from the minors of August 2026 on only the plugins that
// output_plugin_libraries names are loaded, and it names those that PostgreSQL
// brings along.
func judgePlugins(f *Facts) []Finding {
	const name = "output_plugin_libraries"
	if !f.New.ok() {
		return nil
	}
	var missing []string
	allowed := splitList(f.New.setting(name))
	for _, s := range f.consumers() {
		if s.Plugin == "pgoutput" {
			continue
		}
		absent := f.New.Libraries != nil && !slices.Contains(f.New.Libraries, s.Plugin)
		refused := f.New.has(name) && !slices.Contains(allowed, s.Plugin)
		if (absent || refused) && !slices.Contains(missing, s.Plugin) {
			missing = append(missing, s.Plugin)
		}
	}
	var out []Finding
	for _, plugin := range missing {
		var says, fix []string
		if f.New.Libraries != nil && !slices.Contains(f.New.Libraries, plugin) {
			says, fix = append(says, "is not installed on new"), append(fix, fmt.Sprintf("install it on the new server's host for PostgreSQL %d", f.New.Major()))
		}
		if f.New.has(name) && !slices.Contains(allowed, plugin) {
			all := make([]string, 0, len(allowed)+len(missing))
			for _, l := range append(slices.Clone(allowed), missing...) {
				if !slices.Contains(all, l) {
					all = append(all, l)
				}
			}
			says = append(says, name+" of new does not name it")
			fix = append(fix, fmt.Sprintf("ALTER SYSTEM SET %s = %s;", name, literals(all)), "SELECT pg_reload_conf();")
		}
		out = append(out, Finding{
			Level: Warn, On: OnNew, Object: plugin,
			Says: fmt.Sprintf("plugin %s is used by slots of old: %s, so that their consumers could not go on there", plugin, strings.Join(says, ", and ")),
			Fix:  lines(fix...),
		})
	}
	return out
}

// literals is a list of names as ALTER SYSTEM takes it.
func literals(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.TrimSpace(pg.Literal(n))
	}
	return strings.Join(out, ", ")
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
				}.among("%s not carried over: subscribers of old find them on new only if they are made there", "publication", nil))
			}
		}
	}
	return out
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
