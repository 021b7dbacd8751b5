package pg

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// withService is params with the service that they name, or PGSERVICE names,
// replaced by what it stands for, and the password that stands there. A service
// is known to the programs of this machine alone: another server, which takes a
// subscription's conninfo, has no such file. What is in params wins.
// https://www.postgresql.org/docs/current/libpq-pgservice.html
func withService(params []param) (out []param, password string, err error) {
	name, file := os.Getenv("PGSERVICE"), ""
	for _, p := range params {
		switch p.key {
		case "service":
			name = p.value
		case "servicefile":
			file = p.value
			continue
		}
		if p.key != "service" {
			out = append(out, p)
		}
	}
	if name == "" {
		return out, "", nil
	}
	service, err := readService(name, file)
	if err != nil {
		return nil, "", err
	}
	for _, p := range service {
		switch {
		case slices.ContainsFunc(params, func(o param) bool { return o.key == p.key }):
		case p.key == "password":
			password = p.value
		default:
			out = append(out, p)
		}
	}
	return out, password, nil
}

// readService looks for a service where libpq does: in file, PGSERVICEFILE or
// ~/.pg_service.conf, then in pg_service.conf of PGSYSCONFDIR.
func readService(name, file string) ([]param, error) {
	named := true
	if file == "" {
		file = os.Getenv("PGSERVICEFILE")
	}
	if file == "" {
		named = false
		if home, err := os.UserHomeDir(); err == nil {
			file = filepath.Join(home, ".pg_service.conf")
		}
	}
	files := []string{file}
	if dir := os.Getenv("PGSYSCONFDIR"); dir != "" {
		files = append(files, filepath.Join(dir, "pg_service.conf"))
	}
	for i, f := range files {
		params, found, err := serviceOf(name, f)
		switch {
		case errors.Is(err, fs.ErrNotExist) && (i > 0 || !named):
		case err != nil:
			return nil, fmt.Errorf("service %s: %w", name, err)
		case found:
			return params, nil
		}
	}
	return nil, fmt.Errorf("service %s is not defined in %s", name, strings.Join(files, " or "))
}

// serviceOf reads one service of a file. No line of it is repeated in an error: it
// may hold a password.
func serviceOf(name, file string) (params []param, found bool, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "["):
			if found {
				return params, true, nil // libpq takes the first of that name
			}
			found = line == "["+name+"]"
		case found:
			key, value, ok := strings.Cut(line, "=")
			if strings.HasPrefix(line, "ldap") {
				return nil, false, fmt.Errorf("line %d of %s asks LDAP, which is unsupported", n, file)
			}
			key = strings.TrimSpace(key)
			if !ok || key == "service" || key == "servicefile" || key != "password" && !pgxToo[key] && !libpqOnly[key] {
				return nil, false, fmt.Errorf("line %d of %s is not an option of a connection", n, file)
			}
			params = setParam(params, key, strings.TrimSpace(value))
		}
	}
	return params, found, lines.Err()
}
