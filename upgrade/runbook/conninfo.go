package runbook

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v4"
)

// libpqWords are the keywords that libpq takes, up to PostgreSQL 19. pgx cannot
// be asked: it takes an unknown word for a server setting, and it would read
// this machine's service files and certificates, which are none of the
// servers' that from_new and from_old are for.
var libpqWords = []string{
	"host", "hostaddr", "port", "dbname", "user", "password", "passfile", "service", "servicefile",
	"application_name", "fallback_application_name", "client_encoding", "options", "connect_timeout",
	"target_session_attrs", "load_balance_hosts", "require_auth", "channel_binding", "requirepeer", "replication",
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
	"sslmode", "sslnegotiation", "sslcompression", "sslcert", "sslkey", "sslpassword", "sslcertmode", "sslrootcert",
	"sslcrl", "sslcrldir", "sslsni", "sslkeylogfile", "ssl_min_protocol_version", "ssl_max_protocol_version",
	"min_protocol_version", "max_protocol_version", "gssencmode", "gsslib", "gssdelegation", "krbsrvname",
	"scram_client_key", "scram_server_key", "oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
}

// libpqSecrets are those whose value nobody else may read.
var libpqSecrets = []string{"password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"}

// better is where a password belongs.
const better = "pgpass, a service file, PGPASSWORD or a certificate work as with psql"

// conninfo is a conninfo or URI as libpq takes it, checked by its form.
// Nothing of its text goes into a message, and where it is wrong its lines are
// not shown either: what went wrong may be a password with a blank in it.
func (m *yamlMap) conninfo(key string) string {
	const right = "host=wacken dbname=postgres user=crossfade"
	n := m.value(key)
	if n == nil {
		return ""
	}
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" || strings.TrimSpace(n.Value) == "" {
		m.r.scalar(n, key, right)
		return ""
	}
	s := strings.TrimSpace(n.Value)
	words, err := conninfoWords(s)
	if err == nil {
		err = conninfoCheck(words)
	}
	if err != nil {
		m.r.covered[n] = true
		m.r.mistake(n, "%s: %s; write it as libpq takes it, like %s, or as a URI", key, err, right)
	}
	for _, w := range words {
		if slices.Contains(libpqSecrets, w.key) && w.value != "" {
			m.r.password(n, key)
		}
	}
	return s
}

// conninfoCheck looks at the keywords, and at what libpq would refuse only
// when it connects.
func conninfoCheck(words []conninfoWord) error {
	secret := false
	for _, w := range words {
		if !slices.Contains(libpqWords, w.key) {
			near := nearest(w.key, libpqWords)
			switch {
			case near != "":
				return fmt.Errorf("a keyword that libpq does not know (did you mean %s?)", near)
			case secret || !yamlPlain.MatchString(w.key):
				return errors.New("a keyword that libpq does not know")
			}
			return fmt.Errorf("libpq knows no keyword %s", w.key)
		}
		secret = secret || slices.Contains(libpqSecrets, w.key)
		if w.key != "port" {
			continue
		}
		for port := range strings.SplitSeq(w.value, ",") {
			if p, err := strconv.Atoi(port); port != "" && (err != nil || p < 1 || p > 65535) {
				return errors.New("the port is not a number from 1 to 65535")
			}
		}
	}
	return nil
}

type conninfoWord struct{ key, value string }

// conninfoWords splits a conninfo as libpq does. The words before a mistake
// come with it.
func conninfoWords(s string) ([]conninfoWord, error) {
	for _, prefix := range []string{"postgresql://", "postgres://"} {
		if rest, ok := strings.CutPrefix(s, prefix); ok {
			return conninfoURI(rest)
		}
	}
	var words []conninfoWord
	for s = conninfoTrim(s); s != ""; s = conninfoTrim(s) {
		end := strings.IndexFunc(s, func(c rune) bool { return c == '=' || unicode.IsSpace(c) })
		if end <= 0 || !strings.HasPrefix(conninfoTrim(s[end:]), "=") {
			return words, errors.New("a word that is not keyword=value (a value with blanks stands in single quotes)")
		}
		w := conninfoWord{key: s[:end]}
		s = conninfoTrim(conninfoTrim(s[end:])[1:])
		var ok bool
		w.value, s, ok = conninfoValue(s)
		words = append(words, w)
		if !ok {
			return words, errors.New("a single quote that is not closed")
		}
	}
	return words, nil
}

func conninfoTrim(s string) string { return strings.TrimLeftFunc(s, unicode.IsSpace) }

// conninfoValue cuts the value that s begins with. A backslash takes the next
// character as it is, within quotes and without.
func conninfoValue(s string) (value, rest string, ok bool) {
	var b strings.Builder
	quoted := strings.HasPrefix(s, "'")
	i := 0
	if quoted {
		i = 1
	}
	for ; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case quoted && c == '\'':
			return b.String(), s[i+1:], true
		case !quoted && strings.IndexByte(" \t\n\r\v\f", c) >= 0:
			return b.String(), s[i:], true
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), "", !quoted
}

// conninfoURI reads what follows postgresql://: user:password@host:port,host:port/dbname?keyword=value&…
// net/url cannot: several hosts with ports are no URL to it.
func conninfoURI(s string) ([]conninfoWord, error) {
	var words []conninfoWord
	var wrong error
	add := func(key, text string) {
		if value, err := url.PathUnescape(text); err != nil || strings.Contains(value, "\x00") {
			wrong = errors.New("a % in the URI without two hexadecimal digits after it (%25 is a % itself)")
			words = append(words, conninfoWord{key, text})
		} else if value != "" {
			words = append(words, conninfoWord{key, value})
		}
	}
	if i := strings.IndexAny(s, "@/"); i >= 0 && s[i] == '@' {
		user, password, _ := strings.Cut(s[:i], ":")
		add("user", user)
		add("password", password)
		s = s[i+1:]
	}
	s, query, _ := strings.Cut(s, "?")
	hosts, dbname, _ := strings.Cut(s, "/")
	for host := range strings.SplitSeq(hosts, ",") {
		port := ""
		if strings.HasPrefix(host, "[") {
			var ok bool
			if host, port, ok = strings.Cut(host[1:], "]"); !ok || port != "" && port[0] != ':' {
				return words, errors.New("an IPv6 address in the URI that does not stand in [ and ]")
			}
			port = strings.TrimPrefix(port, ":")
		} else {
			host, port, _ = strings.Cut(host, ":")
		}
		add("host", host)
		add("port", port)
	}
	add("dbname", dbname)
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || strings.Contains(value, "=") {
			return words, errors.New("a part after the ? of the URI that is not keyword=value")
		}
		if key == "ssl" && value == "true" { // what JDBC calls sslmode=require
			key, value = "sslmode", "require"
		}
		add(key, value)
	}
	return words, wrong
}

// password warns of a secret in n, once.
func (r *reader) password(n *yaml.Node, key string) {
	if r.warned[n] {
		return
	}
	r.warned[n] = true
	r.covered[n] = true
	p := r.at(n).Problem(key + ": holds a password; keep it out of the runbook: " + better)
	p.Warning = true
	r.warnings = append(r.warnings, p)
}

// secrets warns of what looks like a password anywhere in the runbook, hooks'
// arguments included, and hides every line that a covered value stands on: a
// value of several lines ends, at the latest, before the next one begins.
func (r *reader) secrets(root *yaml.Node) {
	var order []*yaml.Node
	var walk func(n *yaml.Node, key string)
	walk = func(n *yaml.Node, key string) {
		order = append(order, n)
		if n.Kind == yaml.ScalarNode && secretHere.MatchString(n.Value) {
			r.password(n, key)
		}
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 1 {
				key = yamlWord(n.Content[i-1].Value)
			}
			walk(c, key)
		}
	}
	walk(root, "")
	for i, n := range order {
		if !r.covered[n] {
			continue
		}
		end := len(r.source.lines)
		if i+1 < len(order) {
			end = max(n.Line, order[i+1].Line-1)
		}
		for line := n.Line; line <= end; line++ {
			r.source.hidden[line] = true
		}
	}
}
