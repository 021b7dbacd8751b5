package check

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

var managerChecks = []Check{
	{ID: "replication-manager", Title: "No failover manager would fight the upgrade", Levels: onlyWarn, Acceptable: true, Judge: judgeManagers},
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
	fix          []string
}

var managers = []manager{
	{
		name: "Patroni", applications: []string{"patroni"}, files: []string{"patroni.dynamic.json"}, commands: []string{"patroni_"},
		fix: []string{
			"patronictl pause, from prepare until the cutover is done: no failover, and no setting is put back",
			"or let it leave the slots alone: patronictl edit-config, with ignore_slots: [{type: logical, plugin: pgoutput}] (it drops slots that it does not know)",
			"settings that it manages are changed by patronictl edit-config, not by ALTER SYSTEM",
		},
	},
	{
		name: "repmgr", applications: []string{"repmgr"}, slots: []string{"repmgr_slot_"}, libraries: []string{"repmgr"}, extension: "repmgr",
		fix: []string{"repmgr service pause, from prepare until the cutover is done", "register the nodes of new afterwards: repmgr primary register, repmgr standby register"},
	},
	{
		name: "pg_auto_failover", applications: []string{"pgautofailover", "pg_auto_failover", "pg_autoctl"}, slots: []string{"pgautofailover_standby_"},
		roles: []string{"pgautofailover_replicator", "pgautofailover_monitor"}, files: []string{"postgresql-auto-failover.conf", "postgresql-auto-failover-standby.conf"},
		libraries: []string{"pgautofailover"}, settings: []string{"pgautofailover."}, extension: "pgautofailover",
		fix: []string{"pg_autoctl enable maintenance on the standbys, from prepare until the cutover is done", "new needs a monitor, or a formation, of its own"},
	},
	{
		name: "Stolon", applications: []string{"stolon"}, slots: []string{"stolon_"}, files: []string{"stolon-temp-postgresql.conf"},
		fix: []string{"pause its sentinels from prepare until the cutover is done; stolonctl update with additionalMasterReplicationSlots keeps the upgrade's slots"},
	},
	{
		name: "CloudNativePG", applications: []string{"cnpg_"}, slots: []string{"_cnpg_"}, roles: []string{"streaming_replica"}, settings: []string{"cnpg."},
		fix: []string{"fence nothing and plan no switchover from prepare until the cutover is done (cnpg.io/reconciliationLoop: disabled); settings belong into the Cluster resource"},
	},
}

func judgeManagers(f *Facts) []Finding {
	var out []Finding
	for _, s := range f.sides() {
		for _, m := range managers {
			traces := f.traces(s, m)
			if len(traces) == 0 {
				continue
			}
			out = append(out, Finding{
				Level: Warn, On: s.Side, Object: m.name,
				Says: fmt.Sprintf("%s seems to manage this cluster (%s): a failover in the middle starts over what it cuts off, it may drop slots that it does not know (ours), and put back settings", m.name, strings.Join(traces, ", ")),
				Fix:  lines(m.fix...),
			})
		}
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
