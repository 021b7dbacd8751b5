package pg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestService: a service becomes what it stands for, as libpq would read it;
// nothing of the file but the name is left in what other servers get.
func TestService(t *testing.T) {
	dir := t.TempDir()
	own, system := filepath.Join(dir, "mine.conf"), filepath.Join(dir, "pg_service.conf")
	write := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(own, "# ours\n[wacken]\nhost=10.0.0.1\nport = 5433\nuser=xf\npassword=s3cret\n\n[broken]\nhots=x\n[ldap]\nldap://x\n[wacken]\nhost=no\n")
	write(system, "[everywhere]\nhost=10.0.0.2\n")
	t.Setenv("HOME", dir)
	t.Setenv("PGSERVICE", "")
	t.Setenv("PGSERVICEFILE", own)
	t.Setenv("PGSYSCONFDIR", dir)
	for _, c := range []struct{ conninfo, given, password, fails string }{
		{conninfo: "service=wacken dbname=shop", given: "dbname=shop host=10.0.0.1 port=5433 user=xf", password: "s3cret"},
		{conninfo: "service=wacken user=app port=1", given: "user=app port=1 host=10.0.0.1", password: "s3cret"},
		{conninfo: "service=wacken password=mine", given: "host=10.0.0.1 port=5433 user=xf", password: "mine"},
		{conninfo: "postgresql:///shop?service=wacken", given: "dbname=shop host=10.0.0.1 port=5433 user=xf", password: "s3cret"},
		{conninfo: "service=everywhere user=a", given: "user=a host=10.0.0.2"},
		{conninfo: "service=everywhere user=a servicefile=" + own, given: "user=a host=10.0.0.2"},
		{conninfo: "service=nowhere", fails: "service nowhere is not defined in " + own},
		{conninfo: "service=broken", fails: "line 9 of " + own + " is not an option of a connection"},
		{conninfo: "service=ldap", fails: "asks LDAP"},
	} {
		s, err := Parse("old", c.conninfo, "")
		if c.fails != "" {
			if err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v", c.conninfo, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.conninfo, err)
			continue
		}
		if s.Given() != c.given || s.conf.Password != c.password {
			t.Errorf("%s is %s, password %q", c.conninfo, s.Given(), s.conf.Password)
		}
		if strings.Contains(s.Conninfo(), "s3cret") || s.Secret() == "s3cret" {
			t.Errorf("the password of %s goes to another server: %s, %s", c.conninfo, s.Conninfo(), s.Secret())
		}
		if other := s.With("side"); other.conf.Password != c.password {
			t.Errorf("%s: another database has password %q", c.conninfo, other.conf.Password)
		}
	}
	// pgx reads the whole file for PGSERVICE.
	write(own, "[wacken]\nhost=10.0.0.1\nport=5433\nuser=xf\n")
	t.Setenv("PGSERVICE", "wacken")
	if s, err := Parse("old", "dbname=shop", ""); err != nil || s.Given() != "dbname=shop host=10.0.0.1 port=5433 user=xf" {
		t.Errorf("PGSERVICE: %v, %v", s, err)
	}
}
