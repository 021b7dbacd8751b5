package check

import (
	"fmt"
	"strings"
	"time"

	"crossfade/schema"
	"crossfade/upgrade/pg"
)

// The majors that this version moves from and to.
const (
	oldestOld, newestOld = 11, 17
	oldestNew, newestNew = 14, 18
)

var serverChecks = []Check{
	{ID: "server-unreachable", Title: "Both primaries answer", Levels: onlyBlock, Judge: judgeUnreachable},
	{ID: "server-is-standby", Title: "Both primaries are primaries", Levels: onlyBlock, Judge: judgeInRecovery},
	{ID: "server-through-pooler", Title: "Both primaries are reached directly, not through a pooler", Levels: onlyBlock, Judge: judgePooled},
	{ID: "same-server", Title: "Old and new are two clusters", Levels: onlyBlock, Judge: judgeSameServer},
	{ID: "server-version", Title: "New is a later major than old, and both are supported", Levels: onlyBlock, Judge: judgeVersions},
	{ID: "privileges", Title: "The tool's roles may do what the upgrade needs", Levels: onlyBlock, Judge: judgePrivileges},
	{ID: "alter-system-off", Title: "Settings may be changed for the time of the upgrade", Levels: onlyBlock, Judge: judgeAlterSystem},
	{ID: "known-bad-minor", Title: "No minor version is known to lose or damage rows", Levels: onlyWarn, Acceptable: true, Judge: judgeMinors},
	{ID: "clock-skew", Title: "The clocks agree", Levels: onlyNote, Acceptable: true, Judge: judgeClock},
	{ID: "config-file", Title: "The configuration files have no errors", Levels: onlyWarn, Acceptable: true, Judge: judgeConfigErrors},
}

func judgeUnreachable(f *Facts) []Finding {
	var out []Finding
	for _, s := range []*Server{f.Old, f.New} {
		if s != nil && s.Err != nil {
			fix := "let the tool in there, or correct the conninfo in the runbook; psql with the same conninfo must work from this machine"
			if pg.SQLState(s.Err) == "08P01" { // protocol_violation: what PgBouncer says of a startup parameter that it does not pass on
				fix = "this looks like a pooler: give the address of the server itself in the runbook"
			}
			out = append(out, Finding{Level: Block, On: s.Side, Object: s.Name, Says: fmt.Sprintf("the server could not be asked: %v", s.Err), Fix: fix})
		}
	}
	return out
}

func judgeInRecovery(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.InRecovery {
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: s.Name,
				Says: s.Name + " is a standby (pg_is_in_recovery() is true): nothing can be made on it",
				Fix:  "name the primary of that cluster in the runbook",
			})
		}
	}
	return out
}

// judgePooled: behind a pooler a session is whatever server session is free.
func judgePooled(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.Pooled {
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: s.Name,
				Says: s.Name + " is reached through a pooler: locks, settings and snapshots belong to sessions, which a pooler exchanges, and neither slots nor subscriptions go through it",
				Fix:  "give the address of the server itself in the runbook",
			})
		}
	}
	return out
}

// judgeAlterSystem: prepare changes a few settings for the time of the upgrade
// (max_slot_wal_keep_size, wal_retrieve_retry_interval), finish and abort put
// them back.
func judgeAlterSystem(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.setting("allow_alter_system") == "off" {
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: "allow_alter_system",
				Says: "allow_alter_system is off: prepare could not limit the WAL that slots keep, nor finish put back what was changed",
				Fix:  lines("put allow_alter_system = on into postgresql.conf of "+s.Side+" for the time of the upgrade (where a manager writes that file, there)", "SELECT pg_reload_conf();"),
			})
		}
	}
	return out
}

func (f *Facts) sameServer() bool {
	return f.both() && f.Old.SystemID != "" && f.Old.SystemID == f.New.SystemID
}

func judgeSameServer(f *Facts) []Finding {
	if !f.sameServer() {
		return nil
	}
	what := "are the same server"
	if f.Old.InRecovery != f.New.InRecovery || f.Old.Started != f.New.Started {
		what = "are of the same cluster"
	}
	return []Finding{{
		Level: Block, On: OnNew, Object: f.New.Name,
		Says: fmt.Sprintf("%s and %s %s: both have system identifier %s, so that the upgrade would copy it onto itself", f.Old.Name, f.New.Name, what, f.Old.SystemID),
		Fix:  "name a cluster of its own as new: one that initdb of the new major has made",
	}}
}

func judgeVersions(f *Facts) []Finding {
	var out []Finding
	if f.both() && f.New.Major() < f.Old.Major() && !f.sameServer() {
		return []Finding{{
			Level: Block, On: OnNew, Object: f.New.release(),
			Says: fmt.Sprintf("old is PostgreSQL %s and new is PostgreSQL %s, an earlier major: are they swapped in the runbook?", f.Old.release(), f.New.release()),
			Fix:  "if they are swapped, exchange old.primary and the primary under new; otherwise name a cluster of a later major as new",
		}}
	}
	if f.Old.ok() && (f.Old.Major() < oldestOld || f.Old.Major() > newestOld) {
		out = append(out, Finding{
			Level: Block, On: OnOld, Object: f.Old.release(),
			Says: fmt.Sprintf("old is PostgreSQL %s; this version of crossfade moves from %d to %d", f.Old.release(), oldestOld, newestOld),
		})
	}
	if f.New.ok() && (f.New.Major() < oldestNew || f.New.Major() > newestNew) {
		out = append(out, Finding{
			Level: Block, On: OnNew, Object: f.New.release(),
			Says: fmt.Sprintf("new is PostgreSQL %s; this version of crossfade moves to %d to %d", f.New.release(), oldestNew, newestNew),
		})
	}
	if f.both() && f.New.Major() == f.Old.Major() && !f.sameServer() {
		out = append(out, Finding{
			Level: Block, On: OnNew, Object: f.New.release(),
			Says: fmt.Sprintf("new is PostgreSQL %s and old is %s: new must be a later major", f.New.release(), f.Old.release()),
			Fix:  laterMajor(f.Old.Major()),
		})
	}
	return out
}

// laterMajor says which clusters may be new.
func laterMajor(old int) string {
	if old >= newestNew {
		return fmt.Sprintf("there is no later major that this version of crossfade moves to (%d is the latest)", newestNew)
	}
	return fmt.Sprintf("name a cluster of PostgreSQL %d or later as new", max(old+1, oldestNew))
}

func judgePrivileges(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.Superuser {
			continue
		}
		if s.Acts != s.Role.Name {
			out = append(out, s.actsAsAnother())
			continue
		}
		lacks := "terminate and fence every session, install event triggers, set session_replication_role"
		if s.Side == OnNew {
			lacks = "make roles with their passwords, subscriptions and event triggers, set session_replication_role"
		}
		if !s.Role.Replication {
			lacks += ", replicate"
		}
		out = append(out, Finding{
			Level: Block, On: s.Side, Object: s.Role.Name,
			Says: fmt.Sprintf("role %s is no superuser, which this version of crossfade needs on both sides: it could not %s", s.Role.Name, lacks),
			Fix:  lines("ALTER ROLE "+pg.Ident(s.Role.Name)+" SUPERUSER;", "as a superuser there; REVOKE it once the upgrade is finished"),
		})
	}
	return out
}

// actsAsAnother: a role that takes another one when it logs in has the rights of
// that one alone.
func (s *Server) actsAsAnother() Finding {
	says := fmt.Sprintf("the tool logs in as %s, and its sessions act as %s", schema.Name(s.Role.Name), schema.Name(s.Acts))
	var fix []string
	for _, r := range s.RoleSettings {
		if (r.Name == "role" || r.Name == "session_authorization") && (r.Role == s.Role.Name || r.Role == "") {
			says += fmt.Sprintf(" (setting %s of %s)", r.Name, r)
			fix = append(fix, r.alter()+" RESET "+r.Name+";")
		}
	}
	if !s.Role.Super {
		fix = append(fix, "ALTER ROLE "+pg.Ident(s.Role.Name)+" SUPERUSER;")
	}
	return Finding{
		Level: Block, On: s.Side, Object: s.Role.Name,
		Says: says + ", which is no superuser: it could not do what the upgrade needs",
		Fix:  lines(append(fix, "or log in as a superuser whose sessions stay that role")...),
	}
}

// advisory is a bug that is fixed from these minors on; majors that are not
// named never got the fix, or never had the bug where since is later.
type advisory struct {
	fixed map[int]int // major → minor
	since int         // first major that has the bug
	last  int         // last major that was released with it
	sends bool        // it is of the sending side, else of the applying one
	says  string
}

// The releases of November 2024, May and August 2025, February and November 2026.
var advisories = []advisory{
	{
		map[int]int{13: 18, 14: 15, 15: 10, 16: 6, 17: 2},
		10, 17, true,
		"a slot's restart position could go backwards, which makes the slot unusable",
	},
	{
		map[int]int{13: 21, 14: 18, 15: 13, 16: 9, 17: 5},
		10, 17, true,
		"changes to a table that was added to a publication while a transaction on it was open could be left out",
	},
	{
		map[int]int{13: 22, 14: 19, 15: 14, 16: 10, 17: 6},
		10, 17, true,
		"a slot's confirmed position could go backwards, so that rows arrive twice",
	},
	{
		map[int]int{14: 21, 15: 16, 16: 12, 17: 8, 18: 2},
		13, 18, true,
		"a checkpoint at the wrong moment could invalidate a slot that was just made",
	},
	{
		map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 7},
		10, 18, true,
		"a transaction with DDL in a subtransaction that was rolled back could be decoded wrongly: run none during the upgrade",
	},
	{
		map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 7},
		10, 18, true,
		"the snapshot that a new slot exports could miss a transaction, so that the copy lacks its rows: keep verify: on full",
	},
	{
		map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 7},
		10, 18, false,
		"an update could miss its row once while the index of a table's identity was changed, and an index that a failed CREATE INDEX CONCURRENTLY left was used: make no indexes on new by hand before the cutover",
	},
}

func (a advisory) holds(major, minor int) bool {
	if major < a.since || major > a.last {
		return false
	}
	fixed, ok := a.fixed[major]
	return !ok || minor < fixed
}

func judgeMinors(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		sends, applies := s.Side == OnOld || f.Want.Back, s.Side == OnNew || f.Want.Back
		var says []string
		to, never := 0, false
		for _, a := range advisories {
			if (a.sends && sends || !a.sends && applies) && a.holds(s.Major(), s.Version%10000) {
				says = append(says, a.says)
				to = max(to, a.fixed[s.Major()])
				never = never || a.fixed[s.Major()] == 0
			}
		}
		if len(says) == 0 {
			continue
		}
		var fix []string
		if to > 0 {
			fix = append(fix, fmt.Sprintf("install %d.%d or later on %s and restart the server", s.Major(), to, s.Side))
		}
		if never {
			fix = append(fix, fmt.Sprintf("%d itself is no longer maintained: what was fixed after its end is fixed in later majors only", s.Major()))
		}
		out = append(out, Finding{
			Level: Warn, On: s.Side, Object: s.release(),
			Says: fmt.Sprintf("PostgreSQL %s has bugs that can hurt an upgrade: %s", s.release(), strings.Join(says, "; ")),
			Fix:  lines(fix...),
		})
	}
	return out
}

const mostSkew = 2 * time.Second

func judgeClock(f *Facts) []Finding {
	servers := f.sides()
	for _, sb := range f.Standbys {
		if sb.Facts.ok() {
			servers = append(servers, sb.Facts)
		}
	}
	var out []Finding
	for _, s := range servers {
		if s.Skew.Abs() > mostSkew {
			out = append(out, Finding{
				Level: Note, On: s.Side, Object: s.Name,
				Says: fmt.Sprintf("its clock is %s off this machine's: lag in seconds and now() in rows will show it, and a time that rows hold may go backwards at the cutover", s.Skew.Round(100*time.Millisecond)),
				Fix:  "synchronise the clocks (chrony, systemd-timesyncd)",
			})
		}
	}
	return out
}

func judgeConfigErrors(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		for _, e := range s.ConfigErrors {
			where := e.Name
			if e.File != "" {
				where = fmt.Sprintf("%s:%d", e.File, e.Line)
			}
			out = append(out, Finding{
				Level: Warn, On: s.Side, Object: e.Name,
				Says: fmt.Sprintf("%s: %s. A reload ignores it, and a restart may fail with it", where, e.Error),
				Fix:  "correct that line, then SELECT pg_reload_conf()",
			})
		}
		if s.HBA == nil {
			continue
		}
		if err := s.HBA.Errors(); err != nil {
			out = append(out, Finding{
				Level: Warn, On: s.Side, Object: "pg_hba.conf",
				Says: fmt.Sprintf("the server keeps the rules it had until it is restarted, and does not start with these: %v", err),
				Fix:  lines("correct that file", "SELECT pg_reload_conf();"),
			})
		}
	}
	return out
}
