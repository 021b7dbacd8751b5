package check

import (
	"fmt"
	"slices"
	"strings"
)

var settingChecks = []Check{
	{ID: "setting-removed", Title: "New knows every setting of old's roles and databases", Judge: judgeRoleSettingsRemoved},
	{ID: "settings-renamed", Title: "New knows every setting of old's configuration", Acceptable: true, Judge: judgeConfigRemoved},
	{ID: "settings-differ", Title: "New is configured as old", Acceptable: true, Judge: judgeConfigDiffers},
	{ID: "read-only-override", Title: "Nobody overrides default_transaction_read_only", Acceptable: true, Judge: judgeReadOnly},
	{ID: "timeouts", Title: "Timeouts of roles and databases are known", Acceptable: true, Judge: judgeTimeouts},
	{ID: "max-prepared-transactions", Title: "New takes as many prepared transactions as old", Acceptable: true, Judge: judgeMaxPrepared},
}

// removed are settings that are gone or have another name, and the line that
// takes their place; "" where nothing does.
var removed = map[string]string{
	"default_with_oids":                 "",
	"wal_keep_segments":                 "wal_keep_size = '<segments × 16>MB'",
	"operator_precedence_warning":       "",
	"vacuum_cleanup_index_scale_factor": "",
	"stats_temp_directory":              "",
	"force_parallel_mode":               "debug_parallel_query",
	"promote_trigger_file":              "pg_ctl promote, or SELECT pg_promote()",
	"vacuum_defer_cleanup_age":          "hot_standby_feedback = on with a slot on the standby",
	"db_user_namespace":                 "",
	"old_snapshot_threshold":            "",
	"trace_recovery_messages":           "",
	"ssl_ecdh_curve":                    "ssl_groups",
	"replacement_sort_tuples":           "",
	"escape_string_warning":             "",
	"autovacuum_worker_slots":           "",
	"lc_collate":                        "",
	"lc_ctype":                          "",
}

func instead(name string) string {
	if r := removed[name]; r != "" {
		return "; instead of it: " + r
	}
	return ""
}

// custom says whether a setting belongs to an extension or the application:
// such a name may be set before anybody knows it.
func custom(name string) bool { return strings.Contains(name, ".") }

func judgeRoleSettingsRemoved(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	var out []Finding
	for _, s := range f.Old.RoleSettings {
		if custom(s.Name) || known(f.New, s.Name) || s.Database != "" && !f.moved(s.Database) {
			continue
		}
		out = append(out, Finding{
			Level: Block, On: OnOld, Database: s.Database, Object: s.Name,
			Says: fmt.Sprintf("%s has %s = %s, which PostgreSQL %s does not know: it cannot be set on new%s", s, s.Name, s.Value, f.New.release(), instead(s.Name)),
			Fix:  s.alter() + " RESET " + s.Name + ";",
		})
	}
	return out
}

// known: names of settings are compared without case, as PostgreSQL does.
func known(s *Server, name string) bool {
	if s.has(name) || s.has(strings.ToLower(name)) {
		return true
	}
	for n := range s.Settings {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// configured says whether somebody set it, rather than the program or initdb.
func (s Setting) configured() bool {
	return s.Source == "configuration file" || s.Source == "command line" || s.Source == "environment variable"
}

func judgeConfigRemoved(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	var out []Finding
	for name, s := range f.Old.Settings {
		if !s.configured() || custom(name) || f.New.has(name) || s.Context == "internal" {
			continue
		}
		out = append(out, Finding{
			Level: Note, On: OnOld, Object: name,
			Says: fmt.Sprintf("old is configured with %s = %s%s, which PostgreSQL %s does not know: a server with that line does not start%s", name, s.Value, s.Unit, f.New.release(), instead(name)),
			Fix:  "leave the line out of new's configuration" + instead(name),
		})
	}
	return out
}

// placed are settings that are to differ: they say where a server is.
var placed = []string{
	"port", "listen_addresses", "data_directory", "hba_file", "ident_file", "config_file", "external_pid_file", "unix_socket_directories",
	"cluster_name", "log_directory", "log_filename", "ssl_cert_file", "ssl_key_file", "ssl_ca_file", "stats_temp_directory",
	"primary_conninfo", "primary_slot_name", "archive_command", "archive_library", "restore_command", "synchronous_standby_names",
	"recovery_target_timeline", "shared_preload_libraries", "session_preload_libraries", "local_preload_libraries",
	"max_connections", "wal_level", "ssl", "max_prepared_transactions", "max_slot_wal_keep_size", "default_transaction_read_only",
	"session_replication_role", "event_triggers", "lc_messages", "dynamic_library_path", "krb_server_keyfile", "archive_mode",
}

func judgeConfigDiffers(f *Facts) []Finding {
	if !f.both() || len(f.New.Settings) == 0 {
		return nil
	}
	var names []string
	for name, s := range f.Old.Settings {
		n, ok := f.New.Settings[name]
		if s.configured() && ok && n.Value != s.Value && n.Unit == s.Unit && !n.configured() && !slices.Contains(placed, name) {
			names = append(names, fmt.Sprintf("%s (%s%s, new %s%s)", name, s.Value, s.Unit, n.Value, n.Unit))
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return []Finding{{
		Level: Note, On: OnNew,
		Says: fmt.Sprintf("%d settings are configured on old and at their default on new: %s", len(names), strings.Join(names, ", ")),
		Fix:  "configure new as it is to serve; crossfade carries over the settings of roles and databases, not those of the server",
	}}
}

// judgeReadOnly: a role's own setting wins over the database's, by which the
// closed side turns clients away.
func judgeReadOnly(f *Facts) []Finding {
	if !f.Old.ok() {
		return nil
	}
	var out []Finding
	for _, s := range f.Old.RoleSettings {
		if s.Name != "default_transaction_read_only" || s.Role == "" {
			continue
		}
		if s.Value == "off" || s.Value == "false" || s.Value == "0" || s.Value == "no" {
			out = append(out, Finding{
				Level: Warn, On: OnOld, Database: s.Database, Object: s.String(),
				Says: fmt.Sprintf("%s has default_transaction_read_only = %s, which wins over the database's setting that closes a cluster: its tables are fenced all the same, but sequences, large objects and DDL are not, and target_session_attrs takes a closed cluster for writable", s, s.Value),
				Fix:  s.alter() + " RESET default_transaction_read_only;",
			})
		}
	}
	return out
}

// timeoutNames end a session's work; the tool and its subscriptions turn them off for themselves.
var timeoutNames = []string{"statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout", "idle_session_timeout", "lock_timeout"}

func judgeTimeouts(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	roles := []string{"", f.Old.Role.Name}
	if f.Want.FromNew != nil {
		roles = append(roles, f.Want.FromNew.User())
	}
	var out []Finding
	for _, s := range f.Old.RoleSettings {
		if slices.Contains(timeoutNames, s.Name) && s.Value != "0" && slices.Contains(roles, s.Role) && (s.Database == "" || f.moved(s.Database)) {
			out = append(out, Finding{
				Level: Note, On: OnOld, Database: s.Database, Object: s.Name,
				Says: fmt.Sprintf("%s has %s = %s, which would end the copy; the tool's sessions and subscriptions turn it off for themselves, client programs started by hand do not", s, s.Name, s.Value),
			})
		}
	}
	if f.Want.FromNew != nil && strings.Contains(f.Want.FromNew.Conninfo(), "options=") {
		out = append(out, Finding{
			Level: Warn, On: OnNew, Object: "from_new",
			Says: "from_new has options= of its own, so that the subscriptions do not turn timeouts off: a statement_timeout or transaction_timeout of that role on old would end what they receive",
			Fix:  "add -c statement_timeout=0 -c idle_in_transaction_session_timeout=0 to these options, and -c transaction_timeout=0 from 17 on",
		})
	}
	return out
}

func judgeMaxPrepared(f *Facts) []Finding {
	if !f.both() {
		return nil
	}
	have, want := f.New.number("max_prepared_transactions"), f.Old.number("max_prepared_transactions")
	if have >= want {
		return nil
	}
	return []Finding{{
		Level: Warn, On: OnNew, Object: "max_prepared_transactions",
		Says: fmt.Sprintf("max_prepared_transactions is %d on old and %d on new: two-phase commits of the application would fail after the cutover", want, have),
		Fix:  f.raise(OnNew, "max_prepared_transactions", want),
	}}
}
