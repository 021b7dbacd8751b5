package standby

import (
	"bytes"
	"context"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

const autoConf = "/postgresql.auto.conf"

// settings are the lines of the node's postgresql.auto.conf, conninfo being
// what primary_conninfo is, and delay what it applies later.
func (b *builder) settings(conninfo string, delay time.Duration) []Setting {
	all := []Setting{
		{"primary_conninfo", conninfo},
		{"primary_slot_name", b.slot()},
		{"recovery_min_apply_delay", strconv.FormatInt(delay.Milliseconds(), 10) + "ms"},
		{"cluster_name", b.Name},
		{"hot_standby", "on"},
	}
	if b.Config == "" {
		// postgresql.conf came from the primary, and says where that is.
		host, port := b.Server.Host()
		all = append(all, Setting{"port", strconv.Itoa(int(port))})
		switch {
		case strings.HasPrefix(host, "/"):
			all = append(all, Setting{"unix_socket_directories", host})
		case host == "localhost" || net.ParseIP(host).IsLoopback():
			all = append(all, Setting{"listen_addresses", host})
		default:
			all = append(all, Setting{"listen_addresses", host + ",localhost"})
		}
	}
	for _, s := range b.Settings {
		at := -1
		for i := range all {
			if strings.EqualFold(all[i].Name, s.Name) {
				at = i
			}
		}
		if at >= 0 {
			all[at] = s
		} else {
			all = append(all, s)
		}
	}
	return all
}

// elsewhere are settings of the place where a server lives: those that ALTER
// SYSTEM made on the primary must not come along.
var elsewhere = []string{
	"port", "listen_addresses", "unix_socket_directories", "synchronous_standby_names", "external_pid_file", "data_directory", "hba_file", "ident_file",
}

var settingName = regexp.MustCompile(`^\s*([A-Za-z_][A-Za-z0-9_$.]*)`)

// autoConf is the node's postgresql.auto.conf as it is, and as it must be with
// that delay.
func (b *builder) autoConf(ctx context.Context, delay time.Duration) (has, want []byte, err error) {
	if has, err = b.read(ctx, b.DataDir+autoConf); err != nil {
		return nil, nil, err
	}
	up, _ := b.upstream()
	over := []string{"application_name=" + b.Name}
	if strings.Contains(up.Conninfo(), "target_session_attrs=") {
		// It would keep a cascade from following a standby.
		over = append(over, "target_session_attrs=any")
	}
	if up.Secret() != "" {
		over = append(over, "password="+up.Secret())
	}
	needs, err := b.unfiled(ctx)
	if err != nil {
		return nil, nil, err
	}
	return has, rewrite(has, append(needs, b.settings(up.Conninfo(over...), delay)...), append(elsewhere, b.o.Temporary...)), nil
}

// atLeast are the settings of which a standby needs as much as what it follows has,
// or does not start, and what its own followers need of it.
var atLeast = []string{
	"max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction", "max_replication_slots", "wal_level",
}

// unfiled are those of atLeast that the upstream has from no file that a base
// backup brings: from its command line, as Patroni and containers give them, or
// from a file outside of its data directory.
func (b *builder) unfiled(ctx context.Context) (all []Setting, err error) {
	up, side := b.upstream()
	err = with(ctx, up, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, `
			SELECT name, setting FROM pg_settings
			WHERE name = ANY ($1) AND (source = 'command line' OR NOT starts_with(sourcefile, current_setting('data_directory') || '/')) ORDER BY name`, atLeast)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Setting])
		return err
	})
	if err != nil {
		return nil, b.errorf("ask %s for what a standby of it needs: %w", side, err)
	}
	return slices.DeleteFunc(all, func(s Setting) bool {
		return slices.ContainsFunc(b.Settings, func(own Setting) bool { return strings.EqualFold(own.Name, s.Name) })
	}), nil
}

// rewrite returns the file with our settings at its end and every other line
// as it was, but for those named in without.
func rewrite(has []byte, settings []Setting, without []string) []byte {
	ours := map[string]bool{}
	for _, name := range without {
		ours[strings.ToLower(name)] = true
	}
	for _, s := range settings {
		ours[strings.ToLower(s.Name)] = true
	}
	var out bytes.Buffer
	for line := range bytes.Lines(has) {
		if m := settingName.FindSubmatch(line); m != nil && ours[strings.ToLower(string(m[1]))] {
			continue
		}
		out.Write(bytes.TrimRight(line, "\r\n"))
		out.WriteByte('\n')
	}
	for _, s := range settings {
		out.WriteString(s.Name + " = " + quoteSetting(s.Value) + "\n")
	}
	return out.Bytes()
}

// inForce is a setting as pg_settings shows it: value counts units.
type inForce struct {
	value, kind, unit string
	pending           bool // its file has another value, which waits for a restart
}

var amount = regexp.MustCompile(`^\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-z]*)\s*$`)

// units are what PostgreSQL takes after a number, in bytes and in microseconds.
var units = map[string]float64{
	"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40,
	"us": 1, "ms": 1e3, "s": 1e6, "min": 60e6, "h": 3600e6, "d": 86400e6,
}

// is whether the setting is what want writes, in whatever unit and words.
func (f inForce) is(want string) bool {
	switch f.kind {
	case "bool":
		return f.value == truth(want)
	case "enum":
		return strings.EqualFold(f.value, want) || f.value == truth(want)
	case "integer", "real":
		m := amount.FindStringSubmatch(want)
		if m == nil {
			return false
		}
		n, err := strconv.ParseFloat(m[1], 64)
		has, herr := strconv.ParseFloat(f.value, 64)
		if err != nil || herr != nil {
			return false
		}
		if m[2] != "" {
			n = n * units[m[2]] / baseUnit(f.unit)
		}
		if f.kind == "integer" {
			n = math.RoundToEven(n)
		}
		return n == has
	}
	return f.value == want
}

// baseUnit is what the numbers of a setting count, such as 8kB.
func baseUnit(unit string) float64 {
	m := regexp.MustCompile(`^([0-9]*)([A-Za-z]+)$`).FindStringSubmatch(unit)
	if m == nil {
		return math.NaN() // equal to nothing
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		n = 1
	}
	return n * units[m[2]]
}

// truth is on or off for whatever PostgreSQL takes for them.
func truth(s string) string {
	switch low := strings.ToLower(strings.TrimSpace(s)); {
	case low == "1" || low == "on" || low != "" && (strings.HasPrefix("true", low) || strings.HasPrefix("yes", low)):
		return "on"
	case low == "0" || low == "off" || low == "of" || low != "" && (strings.HasPrefix("false", low) || strings.HasPrefix("no", low)):
		return "off"
	}
	return s
}

// quoteSetting quotes as ALTER SYSTEM does.
func quoteSetting(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(s) + "'"
}
