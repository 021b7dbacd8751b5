package lab

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
)

// A Proxy stands between a client and a server, on a port of 127.0.0.1, and can cut the line as networks do.
type Proxy struct {
	// Port to connect to, on 127.0.0.1; Words puts it into a connection string.
	Port int

	target   string
	listener net.Listener
	work     sync.WaitGroup
	ctx      context.Context // the life of the proxy, not of a call
	cancel   context.CancelFunc

	mu    sync.Mutex
	conns map[net.Conn]bool
	wall  chan struct{} // closed: open to traffic
}

// NewProxy starts a proxy to an address such as 127.0.0.1:5432. It ends with Close, or when ctx ends.
func NewProxy(ctx context.Context, target string) (*Proxy, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", loopback+":0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		Port: l.Addr().(*net.TCPAddr).Port, target: target, listener: l, conns: map[net.Conn]bool{}, wall: make(chan struct{}),
	}
	close(p.wall)
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.work.Go(p.accept)
	context.AfterFunc(p.ctx, func() {
		_ = l.Close() // ends accept
		p.Reset()
	})
	return p, nil
}

// Proxy starts a proxy in front of the cluster.
func (c *Cluster) Proxy(ctx context.Context) (*Proxy, error) {
	return NewProxy(ctx, net.JoinHostPort(c.Address(), strconv.Itoa(c.Port)))
}

// Words is the part of a connection string that leads through the proxy, to be added to the cluster's.
func (p *Proxy) Words() string { return "host=" + loopback + " port=" + strconv.Itoa(p.Port) }

// Cut drops every byte from now on, in both directions, and says nothing to anybody: what a pulled cable does. New
// connections are taken and hear nothing either.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.wall:
		p.wall = make(chan struct{})
	default: // cut already
	}
}

// Heal lets bytes through again. What was sent meanwhile arrives late, as TCP's retransmissions do.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.wall:
	default:
		close(p.wall)
	}
}

// Reset ends all connections with a reset. New ones are taken.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // a reset, not an end; a connection that is gone already needs neither
		}
		_ = c.Close()
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.cancel()
	p.work.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.work.Go(func() { p.serve(client) })
	}
}

// serve carries one connection until either side ends it.
func (p *Proxy) serve(client net.Conn) {
	if !p.keep(client) {
		return
	}
	defer p.drop(client)
	if p.passage() != nil {
		return
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		return
	}
	if !p.keep(server) {
		return
	}
	defer p.drop(server)
	var both sync.WaitGroup
	both.Go(func() { p.carry(server, client) })
	both.Go(func() { p.carry(client, server) })
	both.Wait()
}

// carry copies one direction. An end that comes while the line is cut is not passed on before it is healed.
func (p *Proxy) carry(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if p.passage() != nil {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
		if err != nil {
			_ = to.Close() // ends the other direction as well
			return
		}
	}
}

// passage waits until the line is whole.
func (p *Proxy) passage() error {
	p.mu.Lock()
	wall := p.wall
	p.mu.Unlock()
	select {
	case <-wall:
		return nil
	case <-p.ctx.Done():
		return errors.New("closed")
	}
}

func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}
