package runbook

import (
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"crossfade/upgrade/pg"

	"go.yaml.in/yaml/v4"
)

// scalar is the text of n, which may be nothing but text. right is an example.
func (r *reader) scalar(n *yaml.Node, key, right string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode:
		r.mistake(n, "%s: %s where text belongs, like %s", key, yamlKind(n), right)
	case n.ShortTag() != "!!str":
		r.mistake(n, "%s: %s where text belongs, like %s; if it is meant, quote it", key, yamlKind(n), right)
	case strings.TrimSpace(n.Value) == "":
		r.mistake(n, "%s: empty; write it like %s", key, right)
	case strings.ContainsFunc(n.Value, unicode.IsControl):
		r.mistake(n, "%s: a line break or control character in it; write it in one line, like %s", key, right)
	default:
		return n.Value, true
	}
	return "", false
}

// text is the text that key holds; "" and false where it holds none.
func (m *yamlMap) text(key, right string) (string, bool) {
	n := m.value(key)
	if n == nil {
		return "", false
	}
	return m.r.scalar(n, key, right)
}

// word is a text of which pattern must match all. right says what it is and
// ends with an example.
func (m *yamlMap) word(key string, pattern *regexp.Regexp, right string) (string, bool) {
	_, example, _ := strings.Cut(right, ", like ")
	s, ok := m.text(key, example)
	if ok && !pattern.MatchString(s) {
		m.r.mistake(m.value(key), "%s: %s is not valid; it is %s", key, show(s), right)
		return "", false
	}
	return s, ok
}

// Names that objects carry, and what to say of them.
var (
	nameForm = regexp.MustCompile(`^[a-z][a-z0-9]{0,14}$`)
	slotForm = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)
	nodeForm = regexp.MustCompile(`^[!-~]([ -~]{0,61}[!-~])?$`)
)

const (
	nameRight = "a lower-case letter and at most 14 letters or digits, like wacken17"
	slotRight = "1 to 63 lower-case letters, digits or underscores, like metal"
	nodeRight = "1 to 63 printable ASCII characters, like metal"
)

// choice is one of the words of allowed, otherwise.
func (m *yamlMap) choice(key, otherwise string, allowed ...string) string {
	right := strings.Join(allowed[:len(allowed)-1], ", ") + " or " + allowed[len(allowed)-1]
	s, ok := m.text(key, allowed[0])
	switch {
	case !ok:
		return otherwise
	case !slices.Contains(allowed, s):
		m.r.mistake(m.value(key), "%s: %s is none of its values; it is %s", key, show(s), right)
		return otherwise
	}
	return s
}

// integer is a whole number from least, otherwise.
func (m *yamlMap) integer(key string, otherwise, least int64) int64 {
	n := m.value(key)
	if n == nil {
		return otherwise
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	switch {
	case n.ShortTag() == "!!str" && err == nil:
		m.r.mistake(n, "%s: %s is text; write the number without quotes", key, yamlShown(n))
	case n.ShortTag() != "!!int" || err != nil:
		m.r.mistake(n, "%s: %s is no whole number; write it in digits, like %d", key, yamlShown(n), otherwise)
	case i < least:
		m.r.mistake(n, "%s: %d is too small; it is at least %d", key, i, least)
	case i > math.MaxInt32: // what PostgreSQL and its client programs count with
		m.r.mistake(n, "%s: %d is too large; it is at most %d", key, i, math.MaxInt32)
	default:
		return i
	}
	return otherwise
}

// truth is true or false, otherwise.
func (m *yamlMap) truth(key string, otherwise bool) bool {
	n := m.value(key)
	if n == nil {
		return otherwise
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
		m.r.mistake(n, "%s: %s is neither; write true or false, without quotes", key, yamlShown(n))
		return otherwise
	}
	return n.Value == "true"
}

// yamlShown is a value for a message: a scalar as it stands, else its kind.
func yamlShown(n *yaml.Node) string {
	switch {
	case n.Kind != yaml.ScalarNode:
		return yamlKind(n)
	case n.ShortTag() == "!!str":
		return show(n.Value)
	}
	return strings.Trim(show(n.Value), `"`)
}

var (
	sizeForm  = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)$`)
	spanUnits = []struct {
		name  string
		bytes int64
	}{{"B", 1}, {"kB", 1 << 10}, {"MB", 1 << 20}, {"GB", 1 << 30}, {"TB", 1 << 40}}
)

// size is a number of bytes as PostgreSQL writes it, from least, otherwise. A
// number without a unit is refused: PostgreSQL reads it in a unit that differs
// from setting to setting.
func (m *yamlMap) size(key string, otherwise, least int64, right string) int64 {
	n := m.value(key)
	if n == nil {
		return otherwise
	}
	const units = "a number with kB, MB, GB or TB (1024-based), or B"
	part := sizeForm.FindStringSubmatch(n.Value)
	if n.Kind != yaml.ScalarNode || part == nil {
		m.r.mistake(n, "%s: %s is no size; it is %s, like %s", key, yamlShown(n), units, right)
		return otherwise
	}
	for _, u := range spanUnits {
		if part[2] != u.name {
			continue
		}
		number, err := strconv.ParseFloat(part[1], 64)
		bytes := number * float64(u.bytes) // exact up to 8 PB, and rounded above
		switch {
		case err != nil || bytes >= 1<<62:
			m.r.mistake(n, "%s: %s is more than there is; write a size like %s", key, yamlShown(n), right)
		case bytes < float64(least):
			m.r.mistake(n, "%s: %s is too small; it is at least %s", key, yamlShown(n), sizeText(least))
		default:
			return int64(math.Round(bytes))
		}
		return otherwise
	}
	hint := "the unit is missing"
	for _, u := range spanUnits {
		if strings.EqualFold(part[2], u.name) {
			hint = "upper and lower case count: " + part[1] + u.name
		} else if part[2] != "" && hint == "the unit is missing" {
			hint = part[2] + " is no unit"
		}
	}
	m.r.mistake(n, "%s: %s is no size, %s; it is %s, like %s", key, yamlShown(n), hint, units, right)
	return otherwise
}

// sizeText is a size as PostgreSQL writes it, in its largest whole unit.
func sizeText(bytes int64) string {
	unit := spanUnits[0]
	for _, u := range spanUnits {
		if bytes%u.bytes == 0 {
			unit = u
		}
	}
	return strconv.FormatInt(bytes/unit.bytes, 10) + unit.name
}

// duration is a time span from least, otherwise. Most end up in settings that
// PostgreSQL counts in milliseconds, where 0 often means for ever, in 31 bits.
func (m *yamlMap) duration(key string, otherwise, least time.Duration, right string) time.Duration {
	n := m.value(key)
	if n == nil {
		return otherwise
	}
	const most = math.MaxInt32 * time.Millisecond
	d, err := time.ParseDuration(n.Value)
	switch {
	case n.Kind != yaml.ScalarNode || err != nil:
		m.r.mistake(n, "%s: %s is no duration; it is a number with ms, s, m or h, like %s", key, yamlShown(n), right)
	case d < 0:
		m.r.mistake(n, "%s: %s is negative; a duration is written like %s", key, yamlShown(n), right)
	case d < least:
		m.r.mistake(n, "%s: %s is too short; it is at least %s", key, yamlShown(n), span(least))
	case d > most:
		m.r.mistake(n, "%s: %s is too long; it is at most %s", key, yamlShown(n), span(most.Truncate(time.Hour)))
	case d%time.Millisecond != 0:
		m.r.mistake(n, "%s: %s is too fine; it is whole milliseconds, like %s", key, yamlShown(n), right)
	default:
		return d
	}
	return otherwise
}

// span is a duration without the zeros that Go adds: 10m, not 10m0s.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// argv is a program with its arguments. Every scalar is taken as it stands:
// `true` is a program, 010 an argument.
func (m *yamlMap) argv(key, right string) []string {
	var argv []string
	for i, n := range m.some(key, right) {
		switch {
		case n.Kind != yaml.ScalarNode:
			m.r.mistake(n, "%s: %s where a word of a command belongs, like %s", key, yamlKind(n), right)
			return nil
		case i == 0 && n.Value == "":
			m.r.mistake(n, "%s: no program; the first word is one, like %s", key, right)
		case i == 0 && strings.Contains(n.Value, "/") && !filepath.IsAbs(n.Value):
			m.r.mistake(n, "%s: %s is relative; give the program's absolute path, or a bare name that PATH has", key, show(n.Value))
		}
		argv = append(argv, n.Value)
	}
	return argv
}

// absolute is a path on a server's host.
func (m *yamlMap) absolute(key, right string) string {
	s, ok := m.text(key, right)
	if !ok {
		return ""
	}
	if !filepath.IsAbs(s) || filepath.Clean(s) == "/" {
		m.r.mistake(m.value(key), "%s: %s is not valid; it is an absolute path, like %s", key, show(s), right)
		return ""
	}
	if strings.ContainsAny(s, "\"$`\\") {
		// Seen with pg_verifybackup, which hands the path on to pg_waldump so.
		m.r.mistake(m.value(key), "%s: PostgreSQL's own programs put this path between double quotes in a shell's line, where \" $ ` and \\ mean something else; take a path without them", key)
		return ""
	}
	return filepath.Clean(s)
}

// beside is a path on this machine; a relative one begins in the runbook's
// folder, so that it means the same wherever a command is typed.
func (r *reader) beside(n *yaml.Node, key, path string) string {
	switch {
	case strings.HasPrefix(path, "~"):
		r.mistake(n, "%s: ~ is not read; write the path out, absolute or beginning in the runbook's folder", key)
		return ""
	case path == "" || strings.HasSuffix(path, "/"):
		r.mistake(n, "%s: no file is named; it is a path, absolute or beginning in the runbook's folder", key)
		return ""
	case filepath.IsAbs(path):
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}

var sshForm = regexp.MustCompile(`^ssh://([^/@\s]+@)?[^/@\s]+(/.*)?$`)

// host is where commands run.
func (m *yamlMap) host(key string) Host {
	s, ok := m.text(key, "local:")
	if !ok {
		return HostNone
	}
	if s == "local" {
		s = string(HostLocal)
	}
	host, path, err := pg.ParseHost(s)
	if err != nil || host == nil || path != "" {
		// Not repeated: a URI that went astray may hold a password.
		m.r.mistake(m.value(key), "%s: neither local: nor ssh://[user@]host[:port]; it is local:, the machine that crossfade runs on, or where ssh logs in with a key", key)
		return HostLocal
	}
	return Host(s)
}
