package check

import (
	"fmt"
	"slices"
	"strings"

	"crossfade/schema"
)

// Budget is one thing of which a server has only so many.
type Budget struct {
	What string // "replication slots"
	On   string // old, new
	// Setting is what limits it. Raising it needs a restart, on every standby first.
	Setting string
	Have    int64 // the limit
	Used    int64 // by others than this upgrade
	Needed  int64 // by this upgrade, whatever of it exists already
	id      string
}

// Short is how many are missing, 0 where there is room.
func (b Budget) Short() int64 { return max(0, b.Used+b.Needed-b.Have) }

// Budgets are what both servers have, use and need, for a table. Servers that
// could not be read have none.
func (f *Facts) Budgets() []Budget {
	var all []Budget
	for _, s := range f.sides() {
		all = append(all, f.budgets(s)...)
	}
	return all
}

// budgets counts both directions: on old the forward slots live beside the
// subscriptions of the way back, on new the other way round and with the
// standbys that are built.
func (f *Facts) budgets(s *Server) []Budget {
	n := int64(len(f.links(true)))
	if s.Side == OnOld {
		n += int64(f.Want.OtherLinks)
	}
	sends, applies := s.Side == OnOld || f.Want.Back, s.Side == OnNew || f.Want.Back
	var standbys int64
	if s.Side == OnNew {
		standbys = f.directStandbys()
	}
	b := func(id, what, setting string, have, used, needed int64) Budget {
		return Budget{What: what, On: s.Side, Setting: setting, Have: have, Used: used, Needed: needed, id: id}
	}
	var all []Budget
	if sends || standbys > 0 {
		slots, senders := standbys, standbys
		if standbys > 0 {
			jobs, _ := f.Want.jobs()
			senders += min(standbys, int64(jobs)) // a base backup has a sender for the files and one for the WAL
		}
		if sends {
			slots, senders = slots+n, senders+n
			if s.Side == OnOld {
				senders++ // the session that exports the snapshot
			}
		}
		all = append(all,
			b("replication-slots", "replication slots", "max_replication_slots", s.number("max_replication_slots"), f.slotsUsed(s), slots),
			b("wal-senders", "WAL senders", "max_wal_senders", s.number("max_wal_senders"), f.sendersUsed(s), senders))
	}
	if applies {
		used := f.applyingUsed(s)
		all = append(all,
			b("logical-workers", "logical replication workers", "max_logical_replication_workers", s.number("max_logical_replication_workers"), used, n),
			b("worker-processes", "worker processes", "max_worker_processes", s.number("max_worker_processes"), used+otherWorkers(s), n),
			b("replication-origins", "replication origins", originSetting(s), s.number(originSetting(s)), f.originsUsed(s), n))
	}
	jobs, index := f.Want.jobs()
	sessions := int64(jobs) + int64(len(f.Databases)) + 4 // reading, fence, lock, and one to look
	if s.Side == OnNew {
		sessions += int64(index)
	}
	return append(all,
		b("connections", "connections", "max_connections", s.number("max_connections"), s.Backends["client backend"], sessions),
		b("lock-table", "locks", "max_locks_per_transaction", s.lockTable(), 0, f.tablesLocked()))
}

func originSetting(s *Server) string {
	if s.Version >= 180000 {
		return "max_active_replication_origins"
	}
	return "max_replication_slots"
}

// directStandbys are those of the new cluster that its primary sends to.
func (f *Facts) directStandbys() (n int64) {
	for _, s := range f.Want.NewStandbys {
		if s.Upstream == "" || s.Upstream == "primary" {
			n++
		}
	}
	return n
}

// standbyOfNew says whether a slot or a walsender of new is that of a standby
// which this upgrade has built.
func (f *Facts) standbyOfNew(s *Server, name string) bool {
	return s.Side == OnNew && f.begun() && slices.ContainsFunc(f.Want.NewStandbys, func(s Standby) bool {
		return strings.EqualFold(s.Name, name) || s.Slot == name && name != ""
	})
}

func (f *Facts) slotsUsed(s *Server) (n int64) {
	for _, slot := range s.Slots {
		if !f.ours(slot.Name) && !f.standbyOfNew(s, slot.Name) {
			n++
		}
	}
	return n
}

func (f *Facts) sendersUsed(s *Server) (n int64) {
	for _, w := range s.Senders {
		if !f.ours(w.Application) && !f.ours(w.Slot) && !f.standbyOfNew(s, w.Application) {
			n++
		}
	}
	return n
}

func (f *Facts) applyingUsed(s *Server) (n int64) {
	for _, sub := range s.Subscriptions {
		if sub.Enabled && !f.ours(sub.Name) {
			n++
		}
	}
	return n
}

func (f *Facts) originsUsed(s *Server) (n int64) {
	for _, o := range s.Origins {
		if !f.ours(o.Subscription) {
			n++
		}
	}
	return n
}

// ownProcesses are backend types that are not taken from max_worker_processes.
// Workers that apply are counted by their subscription, and parallel workers
// come and go.
var ownProcesses = []string{
	"", "client backend", "autovacuum launcher", "autovacuum worker", "background writer", "checkpointer", "walwriter", "walsender",
	"walreceiver", "startup", "archiver", "logger", "stats collector", "slotsync worker", "walsummarizer", "io worker", "standalone backend",
	"logical replication worker", "logical replication apply worker", "logical replication tablesync worker", "logical replication parallel worker",
	"parallel worker",
}

func otherWorkers(s *Server) (n int64) {
	for kind, count := range s.Backends {
		if !slices.Contains(ownProcesses, kind) {
			n += count
		}
	}
	return n
}

// lockTable is how many locks PostgreSQL reserves room for: NLOCKENTS of lock.c.
// Its documentation counts connections and prepared transactions only.
func (s *Server) lockTable() int64 {
	backends := s.number("max_connections") + s.number("max_worker_processes") + 1
	if s.has("autovacuum_worker_slots") {
		backends += s.number("autovacuum_worker_slots")
	} else {
		backends += s.number("autovacuum_max_workers")
	}
	if s.Version >= 120000 {
		backends += s.number("max_wal_senders")
	}
	return s.number("max_locks_per_transaction") * (backends + s.number("max_prepared_transactions"))
}

// tablesLocked is how many tables the barrier locks at once: all of every
// database that is moved, whatever is excluded; and beside them as many sequences
// as are read at a time.
func (f *Facts) tablesLocked() (n int64) {
	for _, d := range f.Databases {
		if d.Inventory != nil {
			n += int64(len(d.Inventory.Tables) + min(len(d.Inventory.Sequences), schema.ValuesBatch))
		}
	}
	return n
}

var budgetChecks = []Check{
	{ID: "budget", Title: "What both servers have, use and need", Levels: onlyNote, Acceptable: true, Judge: judgeBudget},
	budgetCheck("replication-slots", "Replication slots are left on both sides", false, "%s cannot be made"),
	budgetCheck("wal-senders", "WAL senders are left on both sides", false, "%s would be refused: the subscriptions could not connect"),
	budgetCheck("logical-workers", "Logical replication workers are left where sets are applied", false,
		"%s would never start: their sets would not be applied"),
	budgetCheck("worker-processes", "Worker processes are left where sets are applied", false,
		"%s would not start: sets would wait to be applied without an error"),
	budgetCheck("replication-origins", "Replication origins are left where sets are applied", false,
		"%s would be missing: subscriptions could be made, and nothing would be applied"),
	budgetCheck("connections", "Connections are left for the tool's own sessions", true, "%s could not be opened"),
	{ID: "lock-table", Title: "The lock table has room for every table at once", Levels: blockWarn, Acceptable: true, Judge: judgeLockTable},
}

// judgeBudget is the table that the others are judged by, whatever it says: who
// signs for an upgrade wants to see what is left.
func judgeBudget(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		t := &Table{Columns: []string{"on " + s.Side, "have", "used", "needed", "left", "limited by"}}
		short := 0
		for _, b := range f.budgets(s) {
			left := fmt.Sprint(b.Have - b.Used - b.Needed)
			if b.Short() > 0 {
				short++
				left = fmt.Sprintf("%d short", b.Short())
			}
			t.Rows = append(t.Rows, []string{b.What, fmt.Sprint(b.Have), fmt.Sprint(b.Used), fmt.Sprint(b.Needed), left, b.Setting})
		}
		says := "there is room for what the upgrade needs, both ways"
		if !f.Want.Back {
			says = "there is room for what the upgrade needs"
		}
		if short > 0 {
			says = "there is not room for everything that the upgrade needs; see the findings for each limit"
		}
		out = append(out, Finding{Level: Note, On: s.Side, Says: says, Table: t})
	}
	return out
}

func budgetCheck(id, title string, acceptable bool, would string) Check {
	return Check{ID: id, Title: title, Levels: onlyBlock, Acceptable: acceptable, Judge: func(f *Facts) []Finding {
		var out []Finding
		for _, b := range f.Budgets() {
			if b.id != id || b.Short() == 0 {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: b.On, Object: b.Setting,
				Says: fmt.Sprintf("%s allows %d %s, of which %d are in use by others and %d are needed; ", b.Setting, b.Have, b.What, b.Used, b.Needed) +
					fmt.Sprintf(would, fmt.Sprintf("%d of them", b.Short())),
				Fix: f.raise(b.On, b.Setting, b.Used+b.Needed+2),
			})
		}
		return out
	}}
}

// judgeLockTable: PostgreSQL reserves room for so many locks and can go on into
// spare shared memory. With the defaults of 15, 7,808 are reserved, 12,000 were
// had and 14,000 were not.
func judgeLockTable(f *Facts) []Finding {
	var out []Finding
	for _, b := range f.Budgets() {
		if b.id != "lock-table" || b.Short() == 0 {
			continue
		}
		level, would := Warn, "the barrier may not get all locks at once; then the fence is closed first, and open transactions are waited out after that"
		if 2*b.Needed > 3*b.Have {
			level, would = Block, "pg_dump and the barrier would fail with: out of shared memory"
		}
		per := f.side(b.On).number("max_locks_per_transaction")
		want := per * (b.Needed/max(b.Have, 1) + 1)
		out = append(out, Finding{
			Level: level, On: b.On, Object: b.Setting,
			Says: fmt.Sprintf("the lock table has room for %d locks (max_locks_per_transaction is %d), and a cutover takes %d at once, one for each table and each sequence that it reads at a time; %s", b.Have, per, b.Needed, would),
			Fix:  f.raise(b.On, b.Setting, want),
		})
	}
	return out
}

func (f *Facts) side(on string) *Server {
	if on == OnNew {
		return f.New
	}
	return f.Old
}

// onStandbysFirst are settings that a standby must have at least as high as
// its primary, or it stops replaying.
var onStandbysFirst = []string{"max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction"}

// raise is how a setting that needs a restart is raised: to what every budget
// that it limits asks for, so that one fix does not undo another.
func (f *Facts) raise(on, setting string, to int64) string {
	s := f.side(on)
	for _, b := range f.budgets(s) {
		if b.Setting == setting && b.id != "lock-table" {
			to = max(to, b.Used+b.Needed+2, b.Have)
		}
	}
	first := ""
	if standbys := s.standbys(); len(standbys) > 0 && slices.Contains(onStandbysFirst, setting) {
		first = fmt.Sprintf("set %s = %d on its %d standbys first and restart each: a standby with less stops replaying", setting, to, len(standbys))
	}
	return lines(first, fmt.Sprintf("ALTER SYSTEM SET %s = %d;", setting, to), "restart the "+on+" server")
}
