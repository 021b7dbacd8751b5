package check

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// ReplicationManager is the finding of a failover manager.
const ReplicationManager = "replication-manager"

var managerChecks = []Check{
	{ID: ReplicationManager, Title: "No failover manager would fight the upgrade", Levels: blockWarnNote, Acceptable: true, Judge: judgeManagers},
	{ID: "manager-sync", Title: "No failover manager decides which standbys of old are synchronous", Levels: onlyWarn, Acceptable: true, Judge: judgeManagerSync},
	{ID: "manager-database", Title: "The database of a failover manager stays with old", Levels: onlyBlock, Acceptable: true, Judge: judgeManagerDatabase},
}

// manager is a program that decides who is primary, and what it leaves: names
// of its sessions, standbys, slots and roles, its files, its libraries and
// settings, an extension.
type manager struct {
	name         string
	applications []string // beginnings, lower case
	slots        []string // beginnings
	roles        []string
	files        []string // in the data directory or among those of the configuration
	libraries    []string // in shared_preload_libraries
	settings     []string // beginnings
	commands     []string // in restore_command or archive_command
	extension    string
	// pause is how a person keeps it from acting, fix what else there is to do.
	pause string
	fix   []string
}

var managers = []manager{
	{
		name: "Patroni", applications: []string{"patroni"}, files: []string{"patroni.dynamic.json"}, commands: []string{"patroni_"},
		pause: "patronictl pause --wait, until the cutover is done: no failover, no slot is dropped, and no setting is put back",
		fix: []string{
			"or let it leave the slots alone: patronictl edit-config, with ignore_slots: [{type: logical, plugin: pgoutput}] (it drops slots that it does not know, ours when nobody receives from them)",
			"settings that it manages are changed by patronictl edit-config, not by ALTER SYSTEM",
		},
	},
	{
		name: "repmgr", applications: []string{"repmgr"}, slots: []string{"repmgr_slot_"}, libraries: []string{"repmgr"}, extension: "repmgr",
		pause: "repmgr service pause, until the cutover is done",
		fix:   []string{"register the nodes of new afterwards: repmgr primary register, repmgr standby register"},
	},
	{
		name: "pg_auto_failover", applications: []string{"pgautofailover", "pg_auto_failover", "pg_autoctl"}, slots: []string{"pgautofailover_standby_"},
		roles: []string{"pgautofailover_replicator", "pgautofailover_monitor"}, files: []string{"postgresql-auto-failover.conf", "postgresql-auto-failover-standby.conf"},
		libraries: []string{"pgautofailover"}, settings: []string{"pgautofailover."}, extension: "pgautofailover",
		pause: "pg_autoctl enable maintenance on the standbys, from prepare until the cutover is done",
		fix:   []string{"new needs a monitor, or a formation, of its own"},
	},
	{
		name: "Stolon", applications: []string{"stolon"}, slots: []string{"stolon_"}, files: []string{"stolon-temp-postgresql.conf"},
		pause: "pause its sentinels from prepare until the cutover is done",
		fix:   []string{"stolonctl update with additionalMasterReplicationSlots keeps the upgrade's slots"},
	},
	{
		name: "CloudNativePG", applications: []string{"cnpg_"}, slots: []string{"_cnpg_"}, roles: []string{"streaming_replica"}, settings: []string{"cnpg."},
		pause: "fence nothing and plan no switchover from prepare until the cutover is done (cnpg.io/reconciliationLoop: disabled)",
		fix:   []string{"settings belong into the Cluster resource"},
	},
}

// judgeManagers blocks on a manager that is at work and that the upgrade cannot
// hold still: nobody knows whom it promotes, and what it drops.
func judgeManagers(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		for _, m := range managers {
			i := slices.IndexFunc(f.Want.Managers, func(x Manager) bool { return x.Name == m.name })
			if s.Side == OnOld && i >= 0 {
				out = append(out, f.Want.Managers[i].judge(m))
				continue
			}
			traces := f.traces(s, m)
			if len(traces) == 0 {
				continue
			}
			found := Finding{
				Level: Warn, On: s.Side, Object: m.name,
				Says: fmt.Sprintf("%s seems to manage this cluster (%s): a failover in the middle starts over what it cuts off, it may drop slots that it does not know (ours), and put back settings", m.name, strings.Join(traces, ", ")),
				Fix:  lines(append([]string{m.pause}, m.fix...)...),
			}
			if who := m.session(s); who != "" {
				found.Level = Block
				found.Says += "; it is at work (session " + who + ")"
				found.Fix = lines(append([]string{m.pause}, append(m.fix, "then accept it in the runbook: accept: ["+ReplicationManager+":"+m.name+"]")...)...)
			}
			out = append(out, found)
		}
	}
	return out
}

// session is a session of the manager's own on a server; "" is none.
func (m manager) session(s *Server) string {
	for _, c := range s.Clients {
		if slices.ContainsFunc(m.applications, func(p string) bool { return strings.HasPrefix(strings.ToLower(c.Application), p) }) {
			return c.Application
		}
	}
	return ""
}

// judge tells what the upgrade does about a manager that it can talk to, and
// blocks on one that it cannot hold still everywhere.
func (x Manager) judge(m manager) Finding {
	out := Finding{On: OnOld, Object: m.name}
	var all, acting, silent []string
	var why error
	for _, n := range x.Nodes {
		who := strings.TrimSpace(n.Role + " " + n.Name)
		all = append(all, who)
		if n.Err != nil {
			silent, why = append(silent, who), n.Err
		} else if n.Runs && !n.Held {
			acting = append(acting, who)
		}
	}
	accept := "or, when it is paused by hand or does not run: accept: [" + ReplicationManager + ":" + m.name + "]"
	switch {
	case x.Err != nil && m.name == "Patroni":
		out.Level = Block
		out.Says = fmt.Sprintf("Patroni manages this cluster, and could not be asked: %v. A failover while old is closed would promote a standby unnoticed, and Patroni drops slots that it does not know (ours)", x.Err)
		out.Fix = lines("say in the runbook where its REST API is: old: {manager: {patroni: [http://…:8008]}}", accept, "it is paused so: "+m.pause)
	case x.Err != nil:
		out.Level = Block
		out.Says = fmt.Sprintf("%s manages this cluster, and could not be asked: %v", m.name, x.Err)
		out.Fix = lines(m.pause, accept)
	case len(silent) > 0:
		out.Level = Block
		out.Says = fmt.Sprintf("%s manages this cluster, and could not be kept from failing it over on %s: %v", m.name, strings.Join(silent, ", "), why)
		out.Fix = lines("make it reachable, or take it out of "+m.name, "a node that is a standby may stand among old.standbys, with the conninfo by which it is reached", accept)
	case len(acting) > 0:
		out.Level = Warn
		out.Says = fmt.Sprintf("%s fails this cluster over by itself (%s): the cutover keeps it from that, until old serves again or the upgrade is finished; a failover before the cutover costs the copy", m.name, strings.Join(all, ", "))
		fix := m.fix
		if m.name == "Patroni" {
			out.Says += ". prepare puts the slots of the upgrade into its ignore_slots, finish and abort take them out"
			fix = fix[1:] // which says to do so
		}
		out.Fix = lines(append([]string{"nothing needs to be done; to have no failover before the cutover either: " + m.pause}, fix...)...)
	default:
		out.Level = Note
		out.Says = fmt.Sprintf("%s manages this cluster and holds still on every node (%s): it stays so until somebody resumes it", m.name, strings.Join(all, ", "))
	}
	return out
}

// judgeManagerDatabase: what a manager knows of the nodes of old would be wrong
// on new from the first day, and old still needs it.
func judgeManagerDatabase(f *Facts) []Finding {
	var out []Finding
	for _, x := range f.Want.Managers {
		for _, d := range f.Databases {
			if x.Home == "" || d.Name != x.Home {
				continue
			}
			out = append(out, Finding{
				Level: Block, On: OnOld, Database: d.Name, Object: x.Name,
				Says: fmt.Sprintf("database %s is where %s keeps what it knows of the nodes of old: new would get an empty copy of it, and %s of old could not write there once old is closed", d.Name, x.Name, x.Name),
				Fix:  "list the databases that are to be moved under databases:, without " + d.Name + "; or, where the application's tables are in it, too: accept: [manager-database]",
			})
		}
	}
	return out
}

// judgeManagerSync: such a manager takes a standby out of the list when it is
// lost. New has the list and nobody who does.
func judgeManagerSync(f *Facts) []Finding {
	var out []Finding
	for _, x := range f.Want.Managers {
		if !x.Synchronous {
			continue
		}
		out = append(out, Finding{
			Level: Warn, On: OnOld, Object: x.Name,
			Says: fmt.Sprintf("%s decides synchronous_standby_names of old by itself (%q now), and takes a standby that is lost out of it; new gets the list as it stands, and its commits wait for the standbys that it names", x.Name, f.Old.setting("synchronous_standby_names")),
			Fix:  "say in the runbook what new is to wait for (synchronous_standby_names, with one standby more than it demands), or bring new under a manager of its own",
		})
	}
	return out
}

// traces are what a manager has left on a server and its standbys, each kind
// once.
func (f *Facts) traces(s *Server, m manager) []string {
	var out []string
	begins := func(name string, with []string) bool {
		return slices.ContainsFunc(with, func(p string) bool { return strings.HasPrefix(strings.ToLower(name), p) })
	}
	first := func(format string, names []string, is func(string) bool) {
		if i := slices.IndexFunc(names, is); i >= 0 {
			out = append(out, fmt.Sprintf(format, names[i]))
		}
	}
	var applications, slots, roles, settings []string
	for _, c := range s.Clients {
		applications = append(applications, c.Application)
	}
	for _, w := range s.Senders {
		applications = append(applications, w.Application)
	}
	for _, x := range f.Standbys {
		if x.Side == s.Side && x.AppName != "" {
			applications = append(applications, x.AppName)
		}
	}
	for _, x := range s.Slots {
		slots = append(slots, x.Name)
	}
	for _, r := range s.Roles {
		roles = append(roles, r.Name)
	}
	for name := range s.Settings {
		settings = append(settings, name)
	}
	slices.Sort(settings)
	first("a session or standby called %s", applications, func(n string) bool { return begins(n, m.applications) })
	first("slot %s", slots, func(n string) bool { return begins(n, m.slots) })
	first("role %s", roles, func(n string) bool { return slices.Contains(m.roles, n) })
	first("file %s", slices.Concat(s.DataFiles, s.ConfigFiles), func(n string) bool { return slices.Contains(m.files, path.Base(n)) })
	first("shared_preload_libraries has %s", splitList(s.setting("shared_preload_libraries")), func(n string) bool { return slices.Contains(m.libraries, n) })
	first("setting %s", settings, func(n string) bool { return begins(n, m.settings) })
	for _, name := range []string{"restore_command", "archive_command"} {
		if v := s.setting(name); slices.ContainsFunc(m.commands, func(c string) bool { return strings.Contains(v, c) }) {
			out = append(out, name+" is "+v)
		}
	}
	for _, d := range f.Databases {
		if s.Side == OnOld && m.extension != "" && slices.ContainsFunc(d.things("extension"), func(t Thing) bool { return t.Name == m.extension }) {
			out = append(out, fmt.Sprintf("extension %s in database %s", m.extension, d.Name))
		}
	}
	return out
}
