package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Ports lie below the range that systems take outgoing connections from, so that no client sits on one.
const firstPort, lastPort = 20100, 31900

// leases is the folder where this user's test processes write down who took which port: a file a port, holding the
// lab's folder. A lease whose lab is gone is free again.
func leases() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("crossfade-ports-%d", os.Getuid()))
}

// takePort leases a free port to the lab in dir; want 0 means any. Leases keep labs of one user apart even while a
// server is down; the bind test keeps off everybody else.
func takePort(ctx context.Context, dir string, want int) (int, error) {
	if err := os.MkdirAll(leases(), 0o700); err != nil {
		return 0, err
	}
	unlock, err := lockFile(ctx, filepath.Join(leases(), "lock"))
	if err != nil {
		return 0, err
	}
	defer unlock()
	if want != 0 {
		if b, err := os.ReadFile(leaseFile(want)); err == nil && string(b) != dir && leased(want) {
			return 0, fmt.Errorf("port %d belongs to the lab in %s", want, b)
		}
		return want, os.WriteFile(leaseFile(want), []byte(dir), 0o600)
	}
	port := firstPort + rand.IntN(lastPort-firstPort)
	for range lastPort - firstPort {
		port++
		if port >= lastPort {
			port = firstPort
		}
		if leased(port) || !free(port) {
			continue
		}
		return port, os.WriteFile(leaseFile(port), []byte(dir), 0o600)
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, lastPort)
}

// returnPorts ends every lease of the lab in dir.
func returnPorts(ctx context.Context, dir string) error {
	unlock, err := lockFile(ctx, filepath.Join(leases(), "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(leases())
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		path := filepath.Join(leases(), e.Name())
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == dir {
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

func leaseFile(port int) string { return filepath.Join(leases(), strconv.Itoa(port)) }

// leased says whether a living lab holds the port.
func leased(port int) bool {
	b, err := os.ReadFile(leaseFile(port))
	if err != nil {
		return false
	}
	_, err = os.Stat(string(b))
	return err == nil
}

// free says whether nothing listens on the port, on any address of this machine.
func free(port int) bool {
	for _, host := range []string{"127.0.0.1", ""} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return false
		}
		if err := l.Close(); err != nil {
			return false
		}
	}
	return true
}

// lockFile takes an exclusive lock that other processes honour, waiting for it as long as the context lives.
// The returned function gives it back.
func lockFile(ctx context.Context, path string) (func(), error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = Poll(ctx, 20*time.Millisecond, func() (bool, error) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing the file ends the lock; there is nothing to lose in it
}
