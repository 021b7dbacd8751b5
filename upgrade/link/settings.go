package link

import (
	"fmt"
	"strings"

	"crossfade/upgrade/pg"
)

// Settings that reach a link. Tried on 13, 15, 17 and 18: an apply worker begins
// with the settings of its server, its database, the subscription's owner, and
// that role in that database, as a client's session does, and overrides only
// search_path and session_replication_role. A walsender begins with those of the
// role that the conninfo names, and options= of the conninfo win over all of them
// (from 15.0 to 15.15, 16.11, 17.7 and 18.1 the subscriber does not pass options=
// on: DropsOptions).
//
// A value travels as text unless the link is binary, so that what the sender
// writes must be what the applier reads. DateStyle, IntervalStyle, TimeZone and
// extra_float_digits of the applier do not matter: what the sender is made to
// write is read alike under all of them. They are left as the application has
// them, because CHECK constraints may be evaluated under them.

// setting is a setting and the value that a link needs.
type setting struct {
	name, value string
	since       int // the major that knows it first; 0: all
}

// applied are the settings of an apply worker: by the first three text is read;
// the others end a worker, or make it somebody else.
var applied = []setting{
	{name: "array_nulls", value: "on"},
	{name: "xmloption", value: "content"},
	{name: "lc_monetary", value: "C"},
	{name: "lock_timeout", value: "0"},
	{name: "transaction_timeout", value: "0", since: 17},
	{name: "default_transaction_isolation", value: "read committed"},
	{name: "role", value: "none"},
}

// sent are the settings of a walsender beside the timeouts: how values are
// written as text.
var sent = []setting{
	{name: "DateStyle", value: "ISO"},
	{name: "IntervalStyle", value: "postgres"},
	{name: "extra_float_digits", value: "3"},
	{name: "bytea_output", value: "hex"},
	{name: "lc_monetary", value: "C"},
	{name: "quote_all_identifiers", value: "off"},
	{name: "role", value: "none"},
	{name: "wal_sender_timeout", value: "60s", since: 12},
}

// AppliedSettings are the names of the settings that the applying side gives the
// role that owns the subscriptions, for as long as it follows: of all majors.
func AppliedSettings() []string {
	names := make([]string, len(applied))
	for i, s := range applied {
		names[i] = s.name
	}
	return names
}

// SentSettings are the settings of a walsender that a subscriber which drops
// options= leaves to its role, database and server, with the value that a link
// needs. Other output formats it pins by itself.
func SentSettings() map[string]string {
	return map[string]string{
		"statement_timeout": "0", "idle_in_transaction_session_timeout": "0", "lock_timeout": "0", "transaction_timeout": "0",
		"lc_monetary": "C", "role": "none",
	}
}

// PinSettings is the statement, or several, that gives role, in database, what an apply worker
// needs on a server of version (server_version_num). Nothing that the server,
// the database or the role has set wins over them.
func PinSettings(role, database string, version int) string {
	return inDatabase(role, database, version, func(s setting) string { return " SET " + s.name + " = " + pg.Literal(s.value) })
}

// RestoreSettings is the statement, or several, that puts back what role had in database
// before PinSettings, by name; what is not in before is reset.
func RestoreSettings(role, database string, version int, before map[string]string) string {
	return inDatabase(role, database, version, func(s setting) string {
		if v, ok := before[s.name]; ok {
			return " SET " + s.name + " = " + pg.Literal(v)
		}
		return " RESET " + s.name
	})
}

func inDatabase(role, database string, version int, what func(setting) string) string {
	var sql []string
	for _, s := range applied {
		if version/10000 >= s.since {
			sql = append(sql, "ALTER ROLE "+pg.Ident(role)+" IN DATABASE "+pg.Ident(database)+what(s))
		}
	}
	return strings.Join(sql, ";\n")
}

// PinnedSettings is a condition on pg_db_role_setting r, without its role and
// database: all that PinSettings sets is set.
func PinnedSettings(version int) string {
	var all []string
	for _, s := range applied {
		if version/10000 >= s.since {
			all = append(all, pg.Literal(s.name+"="+s.value))
		}
	}
	return "r.setconfig @> ARRAY[" + strings.Join(all, ", ") + "]"
}

// DropsOptions reports whether a subscriber of version does not pass on options=
// of a subscription's conninfo, so that settings of the sender reach its
// walsender.
func DropsOptions(version int) bool {
	honours := map[int]int{15: 150016, 16: 160012, 17: 170008, 18: 180002}
	since, ok := honours[version/10000]
	return ok && version < since
}

// Conninfo is what stands in a subscription to the server that conninfo leads to,
// a server of version: the walsender waits as long as a big transaction may take, no timeout that a role or database has set can end it, and values
// are written as the other side reads them. application is how it calls itself.
func Conninfo(conninfo string, version int, application string) string {
	opts := pg.TimeoutsOff(version)
	for _, s := range sent {
		if version/10000 >= s.since {
			opts += fmt.Sprintf(" -c %s=%s", s.name, s.value)
		}
	}
	if own := pg.Keyword(conninfo, "options"); own != "" {
		opts = own + " " + opts // the last one wins
	}
	c := pg.WithKeyword(conninfo, "application_name", application)
	c = pg.WithKeyword(c, "options", opts)
	for _, k := range []string{"keepalives_idle", "keepalives_interval", "keepalives_count"} {
		if pg.Keyword(c, k) == "" {
			value := "5"
			if k == "keepalives_count" {
				value = "3"
			}
			c = pg.WithKeyword(c, k, value)
		}
	}
	return c
}
