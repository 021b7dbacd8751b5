package check

import (
	"fmt"
	"strings"
	"time"

	"crossfade/upgrade/pg"
)

// The majors that this version moves from and to.
const (
	oldestOld, newestOld = 11, 17
	oldestNew, newestNew = 14, 18
)

var serverChecks = []Check{
	{ID: "server-unreachable", Title: "Both primaries answer", Judge: judgeUnreachable},
	{ID: "server-is-standby", Title: "Both primaries are primaries", Judge: judgeInRecovery},
	{ID: "same-server", Title: "Old and new are two clusters", Judge: judgeSameServer},
	{ID: "server-version", Title: "New is a later major than old, and both are supported", Judge: judgeVersions},
	{ID: "privileges", Title: "The tool's roles may do what the upgrade needs", Judge: judgePrivileges},
	{ID: "known-bad-minor", Title: "No minor version is known to lose or damage rows", Acceptable: true, Judge: judgeMinors},
	{ID: "client-programs", Title: "pg_dump and pg_restore of new's major are at hand", Judge: judgePrograms},
	{ID: "attribute-version", Title: "pg_dump knows the column options of old", Acceptable: true, Judge: judgeAttver},
	{ID: "clock-skew", Title: "The clocks agree", Acceptable: true, Judge: judgeClock},
	{ID: "config-file", Title: "The configuration files have no errors", Acceptable: true, Judge: judgeConfigErrors},
}

func judgeUnreachable(f *Facts) []Finding {
	var out []Finding
	for _, s := range []*Server{f.Old, f.New} {
		if s != nil && s.Err != nil {
			out = append(out, Finding{
				Level: Block, On: s.Side, Object: s.Name, Says: fmt.Sprintf("the server could not be asked: %v", s.Err),
				Fix: "let the tool in there, or correct the conninfo in the runbook; psql with the same conninfo must work from this machine",
			})
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
	if f.both() && f.New.Major() <= f.Old.Major() && !f.sameServer() {
		out = append(out, Finding{
			Level: Block, On: OnNew, Object: f.New.release(),
			Says: fmt.Sprintf("new is PostgreSQL %s and old is %s: new must be a later major", f.New.release(), f.Old.release()),
			Fix:  fmt.Sprintf("name a cluster of PostgreSQL %d or later as new", max(f.Old.Major()+1, oldestNew)),
		})
	}
	return out
}

func judgePrivileges(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.Superuser {
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
			Fix:  lines("ALTER ROLE "+pg.Ident(s.Role.Name)+" SUPERUSER;", "as a superuser there; once the upgrade is finished it may be taken away again"),
		})
	}
	return out
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

// The releases of 2024-11-21, 2025-05, 2025-08, 2026-02 and 2026-11.
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
		map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 7},
		10, 18, true,
		"the snapshot that a new slot exports could miss a transaction, so that the copy lacks its rows: keep verify: on full",
	},
	{
		map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 7},
		10, 18, false,
		"an update could miss its row once while the index of a table's identity was changed: make no indexes on new by hand before the cutover",
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

func judgePrograms(f *Facts) []Finding {
	if !f.New.ok() {
		return nil
	}
	var out []Finding
	for _, p := range f.Programs {
		switch {
		case p.Err != nil:
			out = append(out, Finding{Level: Block, On: OnNew, Object: p.Name, Says: fmt.Sprintf("the schema cannot be carried over: %v", p.Err), Fix: f.installClient(p.Name)})
		case p.Version/10000 != f.New.Major():
			out = append(out, Finding{
				Level: Block, On: OnNew, Object: p.Name,
				Says: fmt.Sprintf("%s is of PostgreSQL %s, and new is %s: the schema is dumped with new's major, which knows both", p.Path, release(p.Version), f.New.release()),
				Fix:  f.installClient(p.Name),
			})
		case p.Version < f.New.Version:
			out = append(out, Finding{
				Level: Note, On: OnNew, Object: p.Name,
				Says: fmt.Sprintf("%s is %s, older than the new server (%s)", p.Path, release(p.Version), f.New.release()),
				Fix:  fmt.Sprintf("install the client programs of PostgreSQL %s on this machine", f.New.release()),
			})
		}
	}
	return out
}

func (f *Facts) installClient(program string) string {
	return fmt.Sprintf("install %s of PostgreSQL %d on this machine (Debian: postgresql-client-%d), or give its folder as new's bin: in the runbook",
		program, f.New.Major(), f.New.Major())
}

// attverMinors are the first minors that hide pg_attver in a dump.
var attverMinors = map[int]int{14: 25, 15: 20, 16: 16, 17: 12, 18: 7}

func judgeAttver(f *Facts) []Finding {
	if !f.New.ok() {
		return nil
	}
	var dump Program
	for _, p := range f.Programs {
		if p.Name == "pg_dump" && p.Err == nil {
			dump = p
		}
	}
	fixed, known := attverMinors[dump.Version/10000]
	if dump.Version == 0 || !known || dump.Version%10000 >= fixed {
		return nil
	}
	var out []Finding
	for _, d := range f.Databases {
		for _, t := range d.things("attver") {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: d.Name,
				Says: fmt.Sprintf("%d columns carry pg_attver, which old's minor stores and pg_dump %s does not know: it writes statements that no server accepts. prepare takes exactly these out",
					t.N, release(dump.Version)),
			})
		}
	}
	return out
}

const mostSkew = 2 * time.Second

func judgeClock(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		if s.Skew.Abs() > mostSkew {
			out = append(out, Finding{
				Level: Note, On: s.Side, Object: s.Name,
				Says: fmt.Sprintf("its clock is %s off this machine's: lag in seconds, windows and now() in rows will show it", s.Skew.Round(100*time.Millisecond)),
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
