package lab

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// makeData makes a new cluster's data directory. initdb runs once per version and arguments; what it made is kept in
// the cache and copied, and the copy gets a system identifier of its own, because clusters are distinguished by it.
func (l *Lab) makeData(ctx context.Context, i *Install, superuser string, initdbArgs []string, data string) error {
	args := append([]string{"-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"}, initdbArgs...)
	if i.ServerOnly { // no pg_resetwal
		_, err := l.Run(ctx, i.Program("initdb"), append(args, "-D", data)...)
		return err
	}
	template, err := l.template(ctx, i, args)
	if err != nil {
		return err
	}
	if _, err := run(ctx, plain(ctx, "cp", "-Rp", template, data)); err != nil {
		return err
	}
	if err := newIdentifier(filepath.Join(data, "global/pg_control")); err != nil {
		return err
	}
	// The control file's checksum is wrong now, and there is no WAL: with -f it takes the values as they are.
	_, err = l.Run(ctx, i.Program("pg_resetwal"), "-f", "-D", data)
	return err
}

// template returns the folder of a data directory without WAL, made by initdb with these arguments.
func (l *Lab) template(ctx context.Context, i *Install, args []string) (string, error) {
	cache, err := l.Store.dir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{l.owner.Name}, args...), "\x00")))
	dir := filepath.Join(cache, "initdb-"+i.Version+"-"+hex.EncodeToString(sum[:6]))
	done := filepath.Join(dir, completeMark)
	if _, err := os.Stat(done); err == nil {
		return filepath.Join(dir, "data"), nil
	}
	unlock, err := lockFile(ctx, dir+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(done); err == nil {
		return filepath.Join(dir, "data"), nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := l.owner.mkdir(dir, 0o755); err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	if _, err := l.Run(ctx, i.Program("initdb"), append(args, "-D", data)...); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	wal := glob(data, "pg_wal/0*")
	for _, segment := range wal {
		if err := os.Remove(segment); err != nil {
			return "", err
		}
	}
	return data, os.WriteFile(done, nil, 0o644)
}

// newIdentifier writes a new system identifier, made as initdb does, into the first eight bytes of a control file.
func newIdentifier(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	now := time.Now()
	id := uint64(now.Unix())<<32 | uint64(now.Nanosecond()/1000)<<12 | uint64(rand.IntN(1<<12))
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], id)
	_, err = f.WriteAt(b[:], 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("new system identifier: %w", err)
	}
	return nil
}
