package rights

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"

	"crossfade/upgrade/pg"

	"github.com/jackc/pgx/v5"
)

// LoginPrefix begins the names of the roles that Logins makes.
const LoginPrefix = "crossfade_as_"

// Logins lets the tool into a server with the rights of other roles. For each of
// them it makes a role that may log in with a random password, is a member of
// that role, and has no right of its own. Its sessions have set the other role,
// and session_replication_role to replica, which they could not do by themselves.
// The roles are there until Close. Safe for concurrent use.
type Logins struct {
	server *pg.Server
	tag    string // of their names, beside other runs'
	mu     sync.Mutex
	made   map[string]login // by the other role
}

type login struct{ name, password string }

// NewLogins is for the server that s is seen as by a superuser. What tells one
// upgrade's roles from another's is the tag.
func NewLogins(s *pg.Server, tag string) *Logins {
	h := sha256.Sum256([]byte(tag))
	return &Logins{server: s, tag: LoginPrefix + hex.EncodeToString(h[:4]) + "_", made: map[string]login{}}
}

// Login is the name of the role by which pg_hba.conf sees the tool as another
// role; what follows it differs from run to run.
func (l *Logins) Login() string { return l.tag }

// As is database of the server, seen with the rights of role.
func (l *Logins) As(ctx context.Context, role, database string) (*pg.Server, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of, ok := l.made[role]
	if !ok {
		var err error
		if of, err = l.create(ctx, role); err != nil {
			return nil, err
		}
		l.made[role] = of
	}
	// The owner itself may lack CONNECT; what it may do inside is not changed by it.
	err := l.do(ctx, database, "let the tool in as "+role, "GRANT CONNECT ON DATABASE "+pg.Ident(database)+" TO "+pg.Ident(of.name))
	if err != nil {
		return nil, err
	}
	return l.server.With(database).Login(of.name, of.password), nil
}

func (l *Logins) create(ctx context.Context, role string) (login, error) {
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	of := login{l.tag + hex.EncodeToString(random), rand.Text()}
	var super bool
	conn, err := l.server.Connect(ctx)
	if err != nil {
		return of, err
	}
	defer pg.Leave(conn)
	if err := conn.QueryRow(ctx, "SELECT coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = $1), false)", role).Scan(&super); err != nil {
		return of, fmt.Errorf("look at role %s: %w", role, err)
	}
	if super { // a member of it could set its role
		return of, &pg.Error{Doing: "make a role with the rights of " + role, On: l.server.String(), Err: errors.New("it is a superuser there")}
	}
	verifier, err := scram(of.password)
	if err != nil {
		return of, err
	}
	name := pg.Ident(of.name)
	return of, l.do(ctx, l.server.Database(), "make a role with the rights of "+role, "CREATE ROLE "+name+" LOGIN INHERIT PASSWORD "+pg.Literal(verifier)+
		"; GRANT "+pg.Ident(role)+" TO "+name+
		"; ALTER ROLE "+name+" SET role = "+pg.Literal(role)+
		"; ALTER ROLE "+name+" SET session_replication_role = replica")
}

func (l *Logins) do(ctx context.Context, database, doing, sql string) error {
	conn, err := l.server.With(database).Connect(ctx)
	if err != nil {
		return err
	}
	defer pg.Leave(conn)
	if err := pg.Exec(ctx, conn, sql); err != nil {
		return &pg.Error{Doing: doing, On: l.server.String(), Err: err}
	}
	return nil
}

// Close takes the roles away. Their sessions must have ended.
func (l *Logins) Close(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.made) == 0 {
		return nil
	}
	var names []string
	for _, of := range l.made {
		names = append(names, of.name)
	}
	clear(l.made)
	return l.Drop(ctx, names)
}

// Left are the roles of the same tag that nobody uses: those of runs that were killed.
func (l *Logins) Left(ctx context.Context) ([]string, error) {
	conn, err := l.server.Connect(ctx)
	if err != nil {
		return nil, err
	}
	defer pg.Leave(conn)
	var left []string
	rows, err := conn.Query(ctx, `SELECT rolname::text FROM pg_roles r WHERE starts_with(rolname::text, $1) AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid) ORDER BY 1`, l.tag)
	if err == nil {
		left, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, &pg.Error{Doing: "look for roles that a run has left", On: l.server.String(), Err: err}
	}
	return left, nil
}

// Drop takes roles of the tag away. What functions made as one of them becomes the role's
// whose rights it had.
func (l *Logins) Drop(ctx context.Context, names []string) error {
	type left struct{ name, role, database string }
	s := l.server
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	defer pg.Leave(conn)
	rows, err := conn.Query(ctx, `
		SELECT l.rolname, coalesce((SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid WHERE m.member = l.oid LIMIT 1), ''), coalesce(d.datname, '')
		FROM pg_roles l LEFT JOIN LATERAL (SELECT DISTINCT b.datname FROM pg_shdepend h JOIN pg_database b ON b.oid = h.dbid WHERE h.refclassid = 'pg_authid'::regclass AND h.refobjid = l.oid) d ON true
		WHERE l.rolname = ANY ($1) ORDER BY 1`, names)
	if err != nil {
		return fmt.Errorf("look for roles of the tool: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (x left, err error) {
		err = row.Scan(&x.name, &x.role, &x.database)
		return x, err
	})
	if err != nil {
		return fmt.Errorf("look for roles of the tool: %w", err)
	}
	var failed []error
	for i, x := range all {
		name := pg.Ident(x.name)
		sql := "DROP OWNED BY " + name
		if x.role != "" {
			sql = "REASSIGN OWNED BY " + name + " TO " + pg.Ident(x.role) + "; " + sql
		}
		database := x.database
		if database == "" {
			database = s.Database()
		}
		if i+1 == len(all) || all[i+1].name != x.name {
			sql += "; DROP ROLE " + name
		}
		failed = append(failed, l.do(ctx, database, "take role "+x.name+" away", sql))
	}
	return errors.Join(failed...)
}

// scram is the verifier of a password: the server, and its log, never see more.
func scram(password string) (string, error) {
	const iterations = 4096
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("make a password: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		_, _ = h.Write([]byte(text)) // never fails
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}
