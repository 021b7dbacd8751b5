package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/upgrade/link"
	"crossfade/upgrade/pg"
)

var slotChecks = []Check{
	{ID: "slot-wal-limit", Title: "WAL is kept long enough for the slots, and not for ever", Levels: blockWarnNote, Acceptable: true, Judge: judgeSlotWAL},
	{ID: "idle-slot-timeout", Title: "Slots are not given up for being idle", Levels: onlyBlock, Judge: judgeIdleSlots},
	{ID: "slot-unused", Title: "No slot keeps WAL and rows for nobody", Levels: onlyWarn, Acceptable: true, Judge: judgeUnusedSlots},
	{ID: "origins-orphaned", Title: "No replication origin takes room for nobody", Levels: onlyNote, Acceptable: true, Judge: judgeOrphans},
	{ID: "status-interval", Title: "Apply workers report how far they are", Levels: onlyBlock, Judge: judgeStatusInterval},
	{ID: "synchronized-standby-slots", Title: "Nobody waits for a standby's slot that is idle", Levels: onlyWarn, Acceptable: true, Judge: judgeSynchronizedSlots},
	{ID: "failover-loses-slots", Title: "A failover of old would not lose the slots", Levels: onlyNote, Acceptable: true, Judge: judgeFailover},
}

// judgeSlotWAL: prepare sets max_slot_wal_keep_size to catchup.max_wal on both
// sides where it is unlimited, which limits everybody's slots.
func judgeSlotWAL(f *Facts) []Finding {
	if f.Want.MaxWAL <= 0 {
		return nil
	}
	max := size(f.Want.MaxWAL)
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
				Says: fmt.Sprintf("max_slot_wal_keep_size is %s%s, less than catchup.max_wal (%s): a slot that lags by that much is lost, and its sets are copied again", limit.Value, limit.Unit, max),
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
		level, says := Note, "it may lag by that much from then on"
		if slot.Kept > f.Want.MaxWAL {
			level, says = Block, "it would be lost at once"
		}
		out = append(out, Finding{
			Level: level, On: s.Side, Object: slot.Name,
			Says: fmt.Sprintf("prepare limits the WAL that slots keep to catchup.max_wal (%s), for slot %s of somebody else too, which keeps %s now: %s",
				max, slot.Name, size(slot.Kept), says),
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
	var idle, used []string
	for _, name := range splitList(f.Old.setting("synchronized_standby_slots")) {
		if slices.ContainsFunc(f.Old.Slots, func(s Slot) bool { return s.Name == name && s.Active }) {
			used = append(used, name)
		} else {
			idle = append(idle, name)
		}
	}
	left := "''"
	if len(used) > 0 {
		left = literals(used)
	}
	if len(idle) == 0 {
		return nil
	}
	return []Finding{{
		Level: Warn, On: OnOld, Object: "synchronized_standby_slots",
		Says: fmt.Sprintf("synchronized_standby_slots names %s, which no standby uses now: failover slots send nothing until one does, and the cutover's gate waits", some(idle, "slot", "slots")),
		Fix:  lines("bring that standby back; or, if it is gone for good, take its slot out:", "ALTER SYSTEM SET synchronized_standby_slots = "+left+";", "SELECT pg_reload_conf();"),
	}}
}

// judgeFailover: a promoted standby has no logical slots, but for those that
// fail over from 17 on, which this upgrade's do where both sides know of it.
func judgeFailover(f *Facts) []Finding {
	if !f.Old.ok() || f.Old.InRecovery || len(f.Old.standbys()) == 0 {
		return nil
	}
	if f.Old.Major() < 17 {
		return []Finding{{
			Level: Note, On: OnOld, Object: "failover",
			Says: fmt.Sprintf("PostgreSQL %d keeps logical slots on the primary alone: if a standby of old is promoted before the cutover, every set is copied again", f.Old.Major()),
			Fix:  "plan no switchover between prepare and the cutover",
		}}
	}
	return []Finding{{
		Level: Note, On: OnOld, Object: "failover",
		Says: "a standby of old that is promoted before the cutover has the slots of the upgrade only where it synchronizes them, and new may be ahead of it unless they wait for it: otherwise every set is copied again",
		Fix: lines("on the standby, whose primary_conninfo needs a dbname and which needs a slot:", "ALTER SYSTEM SET sync_replication_slots = on;", "ALTER SYSTEM SET hot_standby_feedback = on;", "SELECT pg_reload_conf();",
			"on old, with the slot of that standby (new then waits while it is down):", "ALTER SYSTEM SET synchronized_standby_slots = 'metal';", "SELECT pg_reload_conf();"),
	}}
}

// judgeUnusedSlots: a slot that nobody reads from keeps WAL for ever, or is lost
// already.
func judgeUnusedSlots(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		for _, slot := range s.Slots {
			if slot.Active || slot.Temporary || slot.Synced || ofUpgrade(slot) || f.standbyOfNew(s, slot.Name) {
				continue
			}
			says := fmt.Sprintf("nobody reads from slot %s (%s), which keeps %s of WAL and goes on keeping it while the upgrade's own slots do", slot.Name, slot.Type, size(slot.Kept))
			if slot.Status == "lost" {
				says = fmt.Sprintf("slot %s (%s) is lost: its WAL is gone, and what read from it cannot go on", slot.Name, slot.Type)
			}
			out = append(out, Finding{
				Level: Warn, On: s.Side, Database: slot.Database, Object: slot.Name, Says: says,
				Fix: lines("start again what reads from it; if that is gone for good:", fmt.Sprintf("SELECT pg_drop_replication_slot(%s);", strings.TrimSpace(pg.Literal(slot.Name)))),
			})
		}
	}
	return out
}

// ofUpgrade says whether a slot is one of this upgrade or of another one, which
// other-upgrade tells.
func ofUpgrade(s Slot) bool {
	return s.Plugin == "pgoutput" && (strings.HasPrefix(s.Name, link.ForwardPrefix) || strings.HasPrefix(s.Name, link.BackPrefix))
}

// judgeOrphans: an origin that a subscription has left behind takes one of the
// places that the upgrade's subscriptions need.
func judgeOrphans(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		for _, o := range s.Origins {
			if o.Subscription != "" || !subscriptionOrigin(o.Name) {
				continue
			}
			out = append(out, Finding{
				Level: Note, On: s.Side, Object: o.Name,
				Says: fmt.Sprintf("replication origin %s belongs to no subscription any more and takes a place", o.Name),
				Fix:  fmt.Sprintf("SELECT pg_replication_origin_drop(%s);", strings.TrimSpace(pg.Literal(o.Name))),
			})
		}
	}
	return out
}

// subscriptionOrigin says whether an origin has a name as subscriptions and
// their copying workers give: pg_16400, pg_16400_16384.
func subscriptionOrigin(name string) bool {
	rest, ok := strings.CutPrefix(name, "pg_")
	return ok && rest != "" && strings.Trim(rest, "0123456789_") == ""
}

// judgeStatusInterval: with 0 the applying side tells its position only when it
// is asked, half a wal_sender_timeout later: no drain ends within its budget.
func judgeStatusInterval(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.applying() {
		if v, known := s.Settings["wal_receiver_status_interval"]; known && v.Value == "0" {
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: "wal_receiver_status_interval",
				Says: "wal_receiver_status_interval is 0: the apply position is reported only every half wal_sender_timeout, so that no drain would end within cutover.max_blocked",
				Fix:  lines("ALTER SYSTEM SET wal_receiver_status_interval = '10s';", "SELECT pg_reload_conf();"),
			})
		}
	}
	return out
}

// applying are the servers that sets are applied on.
func (f *Facts) applying() []*Server {
	var out []*Server
	if f.New.ok() {
		out = append(out, f.New)
	}
	if f.Old.ok() && f.Want.Back {
		out = append(out, f.Old)
	}
	return out
}
