package pg

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// param is one keyword of a conninfo.
type param struct{ key, value string }

// libpqOnly are keys that libpq knows and pgx would send to the server as
// settings (dependencies: "every key it does not know becomes a server setting").
var libpqOnly = map[string]bool{
	"keepalives": true, "keepalives_idle": true, "keepalives_interval": true, "keepalives_count": true,
	"tcp_user_timeout": true, "gssencmode": true, "gsslib": true, "gssdelegation": true, "sslcompression": true,
	"sslcrl": true, "sslcrldir": true, "ssl_min_protocol_version": true, "ssl_max_protocol_version": true,
	"requirepeer": true, "replication": true, "fallback_application_name": true, "client_encoding": true,
	"load_balance_hosts": true, "hostaddr": true, "sslcertmode": true, "scram_client_key": true,
	"scram_server_key": true, "sslkeylogfile": true, "min_protocol_version": true, "max_protocol_version": true,
}

// pgxToo are keys that both libpq and pgx understand.
var pgxToo = map[string]bool{
	"host": true, "port": true, "dbname": true, "user": true, "password": true, "passfile": true,
	"connect_timeout": true, "options": true, "application_name": true, "service": true, "servicefile": true,
	"sslmode": true, "sslcert": true, "sslkey": true, "sslrootcert": true, "sslpassword": true, "sslsni": true,
	"sslnegotiation": true, "krbsrvname": true, "krbspn": true, "target_session_attrs": true,
	"channel_binding": true, "require_auth": true,
}

// parseConninfo reads what libpq takes: keyword/value pairs, or a URI.
// https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
func parseConninfo(s string) ([]param, error) {
	s = strings.TrimSpace(s)
	var params []param
	var err error
	if strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") {
		params, err = parseURI(s)
	} else {
		params, err = parsePairs(s)
	}
	if err != nil {
		return nil, err
	}
	for _, p := range params {
		if !pgxToo[p.key] && !libpqOnly[p.key] {
			return nil, fmt.Errorf("invalid connection option %q", p.key)
		}
	}
	return params, nil
}

func parseURI(s string) ([]param, error) {
	u, err := url.Parse(s)
	if err != nil {
		// url.Error repeats the whole URI, password included.
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("not a connection URI: %w", err)
	}
	var params []param
	add := func(k, v string) {
		if v != "" {
			params = append(params, param{k, v})
		}
	}
	var hosts, ports []string
	for h := range strings.SplitSeq(u.Host, ",") {
		host, port := h, ""
		if i := strings.LastIndex(h, ":"); i >= 0 && !strings.HasSuffix(h, "]") {
			host, port = h[:i], h[i+1:]
		}
		host = strings.Trim(host, "[]")
		if unescaped, err := url.PathUnescape(host); err == nil {
			host = unescaped
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	add("host", strings.Join(hosts, ","))
	if strings.Trim(strings.Join(ports, ""), " ") != "" {
		add("port", strings.Join(ports, ","))
	}
	add("dbname", strings.TrimPrefix(u.Path, "/"))
	if u.User != nil {
		add("user", u.User.Username())
		if pw, ok := u.User.Password(); ok {
			add("password", pw)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, errors.New("the query part of the connection URI is not valid")
	}
	keys := make([]string, 0, len(query))
	for k := range query {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		params = setParam(params, k, query[k][len(query[k])-1])
	}
	return params, nil
}

func parsePairs(s string) ([]param, error) {
	var params []param
	for {
		s = strings.TrimLeft(s, " \t\n\r")
		if s == "" {
			return params, nil
		}
		key, rest, ok := strings.Cut(s, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t\n'\\") {
			// The rest may hold a password: it is not repeated.
			return nil, fmt.Errorf("missing \"=\" after %q", strings.Fields(s)[0])
		}
		value, rest, err := pairValue(strings.TrimLeft(rest, " \t\n\r"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		params, s = setParam(params, key, value), rest
	}
}

// pairValue reads one value, quoted or not, and returns what follows.
func pairValue(s string) (value, rest string, err error) {
	quoted := strings.HasPrefix(s, "'")
	if quoted {
		s = s[1:]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case quoted && c == '\'':
			return b.String(), s[i+1:], nil
		case !quoted && strings.IndexByte(" \t\n\r", c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", errors.New("unterminated quoted string")
	}
	return b.String(), "", nil
}

// Keyword is the value of one keyword of a conninfo as another server has it,
// such as primary_conninfo; "" where it is not there or cannot be read.
func Keyword(conninfo, key string) string {
	params, err := parsePairs(conninfo)
	if err != nil {
		return ""
	}
	for _, p := range params {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

// WithKeyword is conninfo, as keyword/value pairs, with one keyword set to value.
// Where it cannot be read it is returned as it is.
func WithKeyword(conninfo, key, value string) string {
	params, err := parsePairs(conninfo)
	if err != nil {
		return conninfo
	}
	s := Server{params: setParam(params, key, value)}
	return s.dialect(nil)
}

// setParam returns params with key set to value, in its place or at the end.
func setParam(params []param, key, value string) []param {
	out := slices.Clone(params)
	for i := range out {
		if out[i].key == key {
			out[i].value = value
			return out
		}
	}
	return append(out, param{key, value})
}

func quoteValue(v string) string {
	if v != "" && !strings.ContainsAny(v, " \t\n\r'\\") {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

// dialect writes the parameters that keep wants, as keyword/value pairs.
func (s *Server) dialect(keep func(param) bool) string {
	var parts []string
	for _, p := range s.params {
		if keep == nil || keep(p) {
			parts = append(parts, p.key+"="+quoteValue(p.value))
		}
	}
	return strings.Join(parts, " ")
}

// Conninfo is the libpq conninfo for another program or another server's
// libpq, with connect_timeout where none was given and without a password.
// over sets or replaces keywords, "key=value" each, as given.
func (s *Server) Conninfo(over ...string) string {
	params := s.params
	if !slices.ContainsFunc(params, func(p param) bool { return p.key == "connect_timeout" }) {
		params = setParam(params, "connect_timeout", fmt.Sprint(int(connectTimeout.Seconds())))
	}
	for _, o := range over {
		k, v, _ := strings.Cut(o, "=")
		params = setParam(params, k, v)
	}
	c := *s
	c.params = params
	return c.dialect(nil)
}

// Secret is the password that stood in the conninfo itself, or "". A
// subscription needs it where the servers have no better way; it never goes
// into argv, logs or plans.
func (s *Server) Secret() string { return s.secret }
