package pg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// pulse is how it is found out that a server is frozen or cut off while something is
// waited for. What the server works at may take hours; that it is there to answer a
// new connection must not. The kernel of a machine answers for a server that is
// frozen, so that no option of TCP notices it.
type pulse struct {
	silence time.Duration // after so long without a byte the server is asked, and then again and again
	answer  time.Duration // how long it may take to answer
}

// beat is the pulse of every connection. A machine that is as busy as can be still
// answers in time.
var beat = pulse{silence: 10 * time.Second, answer: 20 * time.Second}

// ErrSilent says that a server has not answered: it is frozen, or every byte on the
// way to it is lost. It is a timeout (net.Error).
type ErrSilent struct {
	Addr  string
	After time.Duration
}

func (e *ErrSilent) Error() string {
	return fmt.Sprintf("%s has answered nothing for %s, and no new connection either: it is frozen, or the network loses what is sent", e.Addr, e.After)
}

// Timeout is true: what was waited for did not come.
func (e *ErrSilent) Timeout() bool { return true }

// Temporary is true: a server that is frozen may go on.
func (e *ErrSilent) Temporary() bool { return true }

// sslRequest asks a server whether it speaks TLS. Every server answers, a pooler
// too, before it looks at anything else, and its log says nothing of it.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
var sslRequest = []byte{0, 0, 0, 8, 4, 210, 22, 47}

// ask wants an answer from whoever listens at an address. That nobody listens there
// is one: the machine is there, and ends the connections of a process that is gone.
func (p pulse) ask(ctx context.Context, network, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, p.answer)
	defer cancel()
	err := exchange(ctx, network, addr)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return &ErrSilent{Addr: addr, After: p.silence + p.answer}
	}
	if errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) {
		return err
	}
	return nil
}

func exchange(ctx context.Context, network, addr string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	err = conn.SetDeadline(deadline)
	if err == nil {
		_, err = conn.Write(sslRequest)
	}
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
	}
	return errors.Join(err, conn.Close())
}

// watch asks, and again after each silence, until stop is closed, and calls gone
// once, with why, when there is no answer.
func (p pulse) watch(network, addr string, stop <-chan struct{}, gone func(error)) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	for {
		if err := p.ask(ctx, network, addr); err != nil && ctx.Err() == nil {
			gone(err)
			return
		}
		if pause(ctx, p.silence) != nil {
			return
		}
	}
}

// pause lets d pass, or ctx end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dialer makes connections that end when their server is silent (*ErrSilent).
func (p pulse) dialer() pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &heard{Conn: conn, pulse: p, network: network, addr: addr}, nil
	}
}

// heard is a connection on which no Read and no Write waits for a silent server.
type heard struct {
	net.Conn
	pulse         pulse
	network, addr string

	mu     sync.Mutex
	silent error // why the connection was closed from here; nil: it was not
}

func (h *heard) Read(b []byte) (int, error) {
	return h.attended(func() (int, error) { return h.Conn.Read(b) })
}

func (h *heard) Write(b []byte) (int, error) {
	return h.attended(func() (int, error) { return h.Conn.Write(b) })
}

// attended does f, which ends when the connection is closed, as it is where the
// server is silent.
func (h *heard) attended(f func() (int, error)) (int, error) {
	stop := make(chan struct{})
	timer := time.AfterFunc(h.pulse.silence, func() { h.pulse.watch(h.network, h.addr, stop, h.giveUp) })
	n, err := f()
	timer.Stop()
	close(stop)
	if err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.silent != nil {
			return n, h.silent
		}
	}
	return n, err
}

func (h *heard) giveUp(why error) {
	h.mu.Lock()
	h.silent = why
	h.mu.Unlock()
	// What waits on it ends. The connection is given up, whatever its end says.
	_ = h.Conn.Close()
}

// Attended returns a context that ends with *ErrSilent as its cause when the server
// does not answer any more, for what waits for a program that talks to it: the first
// of the hosts of its conninfo. stop, called once, ends the watching.
func (s *Server) Attended(ctx context.Context) (attended context.Context, stop func()) {
	attended, cancel := context.WithCancelCause(ctx)
	network, addr := pgconn.NetworkAddress(s.conf.Host, s.conf.Port)
	done := make(chan struct{})
	timer := time.AfterFunc(beat.silence, func() { beat.watch(network, addr, done, cancel) })
	return attended, func() {
		timer.Stop()
		close(done)
		cancel(nil)
	}
}
