package pg

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// HBARule is one line of pg_hba.conf as pg_hba_file_rules tells it.
type HBARule struct {
	File      string // "" before 16
	Line      int
	Type      string // local, host, hostssl, hostnossl, hostgssenc, hostnogssenc
	Databases []string
	Users     []string
	Address   string // all, samehost, samenet, an address, a host name; "" for local
	Netmask   string // "" where there is none
	Method    string
	Options   []string
	// Error is what is wrong with the line. Where Type is empty, too, the server
	// does not understand it; else it is a rule that never matches, such as
	// hostssl without SSL.
	Error string
}

func (r HBARule) broken() bool { return r.Error != "" && r.Type == "" }

// String is the rule as a person finds it in the file.
func (r HBARule) String() string {
	where := fmt.Sprintf("line %d", r.Line)
	if r.File != "" {
		where = fmt.Sprintf("%s:%d", r.File, r.Line)
	}
	address := r.Address
	if r.Netmask != "" {
		address += " " + r.Netmask
	}
	return fmt.Sprintf("%s: %s", where, strings.Join(strings.Fields(strings.Join([]string{
		r.Type, strings.Join(r.Databases, ","), strings.Join(r.Users, ","), address, r.Method,
	}, " ")), " "))
}

// HBA is what one server lets in.
type HBA struct {
	Version int
	Rules   []HBARule
	// Members is, by role, every role that it is a member of, itself included.
	// Superusers are members of nothing by being superusers, as in pg_hba.conf.
	Members map[string]map[string]bool
}

// ReadHBA reads pg_hba.conf through pg_hba_file_rules. It shows the file as it
// is on disk, which a server that was not reloaded since does not follow yet.
// It needs the right to read that view: a superuser, or a grant.
func ReadHBA(ctx context.Context, conn *pgx.Conn) (*HBA, error) {
	h := &HBA{Members: map[string]map[string]bool{}}
	if err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int`).Scan(&h.Version); err != nil {
		return nil, fmt.Errorf("read pg_hba.conf: %w", err)
	}
	file, order := `''`, `line_number`
	if h.Version >= 160000 {
		file, order = `file_name`, `rule_number NULLS FIRST`
	}
	rows, err := conn.Query(ctx, `
		SELECT coalesce(`+file+`, ''), line_number, coalesce(type, ''), coalesce(database, '{}'), coalesce(user_name, '{}'),
		       coalesce(address, ''), coalesce(netmask, ''), coalesce(auth_method, ''), coalesce(options, '{}'), coalesce(error, '')
		FROM pg_hba_file_rules ORDER BY `+order)
	if err != nil {
		return nil, fmt.Errorf("read pg_hba.conf: %w", err)
	}
	if h.Rules, err = pgx.CollectRows(rows, pgx.RowToStructByPos[HBARule]); err != nil {
		return nil, fmt.Errorf("read pg_hba.conf: %w", err)
	}
	if rows, err = conn.Query(ctx, `
		WITH RECURSIVE m(member, role) AS (
			SELECT oid, oid FROM pg_roles
			UNION SELECT m.member, a.roleid FROM m JOIN pg_auth_members a ON a.member = m.role)
		SELECT u.rolname, r.rolname FROM m JOIN pg_roles u ON u.oid = m.member JOIN pg_roles r ON r.oid = m.role`); err != nil {
		return nil, fmt.Errorf("read who is a member of which role: %w", err)
	}
	var member, role string
	_, err = pgx.ForEachRow(rows, []any{&member, &role}, func() error {
		if h.Members[member] == nil {
			h.Members[member] = map[string]bool{}
		}
		h.Members[member][role] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read who is a member of which role: %w", err)
	}
	return h, nil
}

// Errors are the lines that PostgreSQL does not understand. A server that
// reads such a file keeps the one it had, and does not start with it.
func (h *HBA) Errors() error {
	var errs []error
	for _, r := range h.Rules {
		if r.broken() {
			errs = append(errs, fmt.Errorf("pg_hba.conf, %s%s", r, r.Error))
		}
	}
	return errors.Join(errs...)
}

// Groups is whether a rule asks what a user is a member of.
func (h *HBA) Groups() bool {
	return slices.ContainsFunc(h.Rules, func(r HBARule) bool {
		return slices.ContainsFunc(r.Users, func(u string) bool { return strings.HasPrefix(u, "+") }) ||
			slices.Contains(r.Databases, "samerole") || slices.Contains(r.Databases, "samegroup")
	})
}

// Caller is somebody who asks to be let in.
type Caller struct {
	Database, User string
	// Addr is the caller's address as the server sees it; the zero value is a
	// Unix socket.
	Addr netip.Addr
	// Names are the host names of Addr, for rules that name hosts; a rule with
	// a host name that is not among them does not match.
	Names []string
	SSL   bool
	// Replication is a physical replication connection.
	Replication bool
	// Server are the server's own addresses with their nets, for samehost and
	// samenet; without any, only loopback and the very caller count as both.
	Server []netip.Prefix
}

// Match returns the first rule that is for the caller, as the server does it,
// and whether there is one. A rule of method reject keeps him out, and so does
// no rule. Not distinguished from keywords are the quoted names "all",
// "sameuser", "samerole" and "replication", because the view shows them alike.
func (h *HBA) Match(c Caller) (HBARule, bool) {
	for _, r := range h.Rules {
		if !r.broken() && r.forType(c) && h.forAddress(r, c) && h.forDatabase(r, c) && h.forUser(r, c) {
			return r, true
		}
	}
	return HBARule{}, false
}

// Lets is whether the caller comes as far as showing who he is; says tells why
// not, with the rule.
func (h *HBA) Lets(c Caller) (rule HBARule, ok bool, says string) {
	from := "the Unix socket"
	if c.Addr.IsValid() {
		from = c.Addr.Unmap().String()
	}
	r, found := h.Match(c)
	switch {
	case !found:
		return r, false, fmt.Sprintf("no line of pg_hba.conf lets user %s into database %s from %s", c.User, c.Database, from)
	case r.Method == "reject":
		return r, false, fmt.Sprintf("pg_hba.conf refuses user %s for database %s from %s (%s)", c.User, c.Database, from, r)
	}
	return r, true, ""
}

// Widest is h with every rule that lets somebody in, and whose address cannot be
// judged from elsewhere (samehost, samenet, host names), taken to match: whom it
// does not let in is certainly refused.
func (h *HBA) Widest() *HBA {
	w := *h
	w.Rules = slices.Clone(h.Rules)
	for i := range w.Rules {
		r := &w.Rules[i]
		if _, err := netip.ParseAddr(r.Address); err != nil && r.Address != "" && r.Method != "reject" {
			r.Address = "all"
		}
	}
	return &w
}

func (r HBARule) forType(c Caller) bool {
	local := !c.Addr.IsValid()
	switch r.Type {
	case "local":
		return local
	case "hostssl":
		return !local && c.SSL
	case "hostnossl":
		return !local && !c.SSL
	case "hostgssenc":
		return false
	default: // host, hostnogssenc
		return !local
	}
}

func (h *HBA) forAddress(r HBARule, c Caller) bool {
	if r.Type == "local" {
		return true
	}
	addr := c.Addr.Unmap()
	switch r.Address {
	case "all":
		return true
	case "samehost", "samenet":
		if addr.IsLoopback() {
			return true
		}
		return slices.ContainsFunc(c.Server, func(p netip.Prefix) bool {
			return p.Addr().Unmap() == addr || r.Address == "samenet" && p.Masked().Contains(addr)
		})
	}
	base, err := netip.ParseAddr(r.Address)
	if err != nil {
		return slices.ContainsFunc(c.Names, func(name string) bool { return hostIs(r.Address, name) })
	}
	bits := base.BitLen()
	if mask, err := netip.ParseAddr(r.Netmask); err == nil {
		bits = ones(mask)
	}
	p, err := base.Prefix(bits)
	return err == nil && p.Contains(addr)
}

// hostIs compares as the server does: whole, or the end after a leading dot.
func hostIs(rule, name string) bool {
	rule, name = strings.ToLower(rule), strings.ToLower(strings.TrimSuffix(name, "."))
	if strings.HasPrefix(rule, ".") {
		return len(name) > len(rule) && strings.HasSuffix(name, rule)
	}
	return rule == name
}

func ones(mask netip.Addr) (n int) {
	for _, b := range mask.AsSlice() {
		for ; b&0x80 != 0; b <<= 1 {
			n++
		}
	}
	return n
}

func (h *HBA) forDatabase(r HBARule, c Caller) bool {
	for _, d := range r.Databases {
		switch {
		case c.Replication:
			if d == "replication" {
				return true
			}
		case d == "all", d == "sameuser" && c.Database == c.User, d == c.Database && d != "replication":
			return true
		case d == "samerole", d == "samegroup":
			if h.Members[c.User][c.Database] {
				return true
			}
		case h.regexp(d, c.Database):
			return true
		}
	}
	return false
}

func (h *HBA) forUser(r HBARule, c Caller) bool {
	for _, u := range r.Users {
		role, isGroup := strings.CutPrefix(u, "+")
		switch {
		case isGroup:
			if h.Members[c.User][role] {
				return true
			}
		case u == "all", u == c.User, h.regexp(u, c.User):
			return true
		}
	}
	return false
}

// regexp matches what starts with a slash, from 16 on. PostgreSQL's regular
// expressions and Go's agree on what people write there.
func (h *HBA) regexp(pattern, s string) bool {
	p, ok := strings.CutPrefix(pattern, "/")
	if !ok || h.Version < 160000 {
		return false
	}
	re, err := regexp.Compile(p)
	return err == nil && re.MatchString(s)
}
