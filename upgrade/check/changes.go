package check

import (
	"fmt"
	"math"
	"strconv"
)

// change is what a major did to a setting.
type change struct {
	at   int    // the first major with it
	says string // what became of it, short
	// line is the line for postgresql.conf in its place; nil where none is needed.
	line func(Setting) string
	// when limits it to some values; nil is all.
	when func(s Setting, new *Server) bool
}

// changes are the settings that are gone, are called otherwise, or mean
// something else: found by comparing pg_settings of one server of each major.
var changes = map[string]change{
	"replacement_sort_tuples": {at: 11, says: "removed"},
	"default_with_oids":       {at: 12, says: "removed"},
	"wal_keep_segments": {at: 13, says: "wal_keep_size", line: func(s Setting) string {
		n, _ := strconv.Atoi(s.Value)
		return line("wal_keep_size", fmt.Sprintf("%dMB", 16*n))
	}},
	"effective_io_concurrency": {at: 13, says: "counts requests, no longer drives", line: func(s Setting) string {
		// The release notes of 13: the old value becomes the sum of itself over 1, 2, 3 …
		n, _ := strconv.Atoi(s.Value)
		sum := 0.0
		for i := 1; i <= n; i++ {
			sum += float64(n) / float64(i)
		}
		return line("effective_io_concurrency", fmt.Sprint(math.Round(sum)))
	}, when: func(s Setting, _ *Server) bool { return s.Value != "0" && s.Value != "1" }},
	"operator_precedence_warning":       {at: 14, says: "removed"},
	"vacuum_cleanup_index_scale_factor": {at: 14, says: "removed"},
	"password_encryption": {
		at: 18, says: "md5 is deprecated", line: func(Setting) string { return line("password_encryption", "scram-sha-256") },
		when: func(s Setting, _ *Server) bool { return s.Value == "md5" },
	},
	"stats_temp_directory":     {at: 15, says: "removed: statistics are in shared memory"},
	"force_parallel_mode":      {at: 16, says: "debug_parallel_query", line: func(s Setting) string { return line("debug_parallel_query", s.Value) }},
	"promote_trigger_file":     {at: 16, says: "removed: pg_ctl promote, pg_promote()"},
	"vacuum_defer_cleanup_age": {at: 16, says: "removed: hot_standby_feedback with a slot"},
	"db_user_namespace":        {at: 17, says: "removed"},
	"old_snapshot_threshold":   {at: 17, says: "removed"},
	"trace_recovery_messages":  {at: 17, says: "removed"},
	"ssl_ecdh_curve":           {at: 18, says: "ssl_groups", line: func(s Setting) string { return line("ssl_groups", s.Value) }},
	"log_connections": {
		at: 18, says: "a list of what is logged", line: func(Setting) string { return line("log_connections", "receipt,authentication,authorization") },
		when: func(s Setting, _ *Server) bool { return s.Value == "on" },
	},
	"autovacuum_max_workers": {
		at: 18, says: "limited by autovacuum_worker_slots", line: func(s Setting) string { return line("autovacuum_worker_slots", s.Value) },
		when: func(s Setting, new *Server) bool {
			n, _ := strconv.ParseInt(s.Value, 10, 64)
			return n > new.number("autovacuum_worker_slots")
		},
	},
	"escape_string_warning": {at: 19, says: "removed"},
	"max_locks_per_transaction": {at: 19, says: "counts locks twice as tightly", line: func(s Setting) string {
		n, _ := strconv.Atoi(s.Value)
		return line("max_locks_per_transaction", fmt.Sprint(2*n))
	}},
}

// instead tells what takes the place of a setting.
func instead(name string) string {
	if c, ok := changes[name]; ok && c.says != "removed" {
		return "; since " + fmt.Sprint(c.at) + ": " + c.says
	}
	return ""
}

// defaults are the settings whose default a major changed, and by which a
// server behaves otherwise.
var defaults = []string{
	"jit", "extra_float_digits", "autovacuum_vacuum_cost_delay", "ssl_min_protocol_version", "password_encryption", "checkpoint_completion_target",
	"vacuum_cost_page_miss", "hash_mem_multiplier", "log_checkpoints", "log_autovacuum_min_duration", "vacuum_buffer_usage_limit",
	"effective_io_concurrency", "maintenance_io_concurrency", "log_lock_waits", "max_locks_per_transaction", "wal_compression", "default_toast_compression",
}
