package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// A Network is a small network inside this machine: hosts with addresses of their own on one segment, whose lines can be
// cut so that packets vanish without an error. It needs root and the program ip; where those are lacking a [Proxy] is
// what there is.
type Network struct {
	lab    *Lab
	bridge string
	prefix string // the first three numbers of its addresses; this machine is 1

	mu    sync.Mutex
	hosts int
}

// A Host is one machine of a network. The host of this process, nil in the methods of Network, is one of them.
type Host struct {
	Name    string
	Address string

	network   *Network
	namespace string
	mac       string
}

// Network makes a network. Down removes it.
func (l *Lab) Network(ctx context.Context) (*Network, error) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		return nil, errors.New("a network with hosts of its own needs root on Linux; a Proxy needs neither")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return nil, fmt.Errorf("%w; install iproute2", err)
	}
	id := rand.IntN(1 << 16)
	n := &Network{
		lab: l, bridge: fmt.Sprintf("cfb%04x", id), prefix: fmt.Sprintf("10.%d.%d.", 128+id>>8&127, id&255), hosts: 1,
	}
	if err := l.add(thing{Kind: "bridge", Name: n.bridge}); err != nil {
		return nil, err
	}
	return n, ip(ctx,
		"link add "+n.bridge+" type bridge",
		"addr add "+n.prefix+"1/24 dev "+n.bridge,
		"link set "+n.bridge+" up")
}

// Host adds a host to the network.
func (n *Network) Host(ctx context.Context, name string) (*Host, error) {
	n.mu.Lock()
	n.hosts++
	number := n.hosts
	n.mu.Unlock()
	h := &Host{
		Name: name, Address: fmt.Sprint(n.prefix, number), network: n,
		namespace: fmt.Sprintf("%s-%d", n.bridge, number), mac: fmt.Sprintf("02:cf:00:00:00:%02x", number),
	}
	if number > 250 {
		return nil, errors.New("the network is full")
	}
	if err := n.lab.add(thing{Kind: "netns", Name: h.namespace}); err != nil {
		return nil, err
	}
	port := fmt.Sprintf("%s%02x", n.bridge, number)
	in := "-n " + h.namespace + " "
	return h, ip(ctx,
		"netns add "+h.namespace,
		"link add "+port+" type veth peer name eth0 address "+h.mac+" netns "+h.namespace,
		"link set "+port+" master "+n.bridge+" up",
		in+"addr add "+h.Address+"/24 dev eth0",
		in+"link set eth0 up",
		in+"link set lo up",
		in+"route add default via "+n.prefix+"1")
}

// Cut makes every packet between two hosts vanish, in both directions, from now on; nil is the host of this process.
// Connections that are open hear nothing any more, and new ones neither.
func (n *Network) Cut(ctx context.Context, a, b *Host) error {
	// Each believes the other at an address of hardware that nobody has.
	return n.line(ctx, a, b, "neigh replace %s lladdr 02:cf:ff:ff:ff:ff nud permanent dev %s")
}

// Heal lets packets between two hosts through again.
func (n *Network) Heal(ctx context.Context, a, b *Host) error {
	return n.line(ctx, a, b, "neigh del %s dev %s")
}

func (n *Network) line(ctx context.Context, a, b *Host, command string) error {
	if a == b {
		return errors.New("a line from a host to itself")
	}
	one := func(at, to *Host) string {
		address := n.prefix + "1"
		if to != nil {
			address = to.Address
		}
		if at == nil {
			return fmt.Sprintf(command, address, n.bridge)
		}
		return "-n " + at.namespace + " " + fmt.Sprintf(command, address, "eth0")
	}
	return ip(ctx, one(a, b), one(b, a))
}

// Command prepares a program to be run on the host, as root.
func (h *Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return plain(ctx, "ip", append([]string{"netns", "exec", h.namespace, program}, args...)...)
}

// start starts a command on the host, without changing anything of it: the child inherits the network of the thread that
// makes it. A nil host is this machine.
func (h *Host) start(cmd *exec.Cmd) error {
	if h == nil {
		return cmd.Start()
	}
	result := make(chan error, 1)
	go func() {
		// The thread is not given back: it ends with this goroutine, and nobody else gets one of another network.
		runtime.LockOSThread()
		f, err := os.Open(filepath.Join("/var/run/netns", h.namespace))
		if err == nil {
			err = errors.Join(unix.Setns(int(f.Fd()), unix.CLONE_NEWNET), f.Close())
		}
		if err == nil {
			err = cmd.Start()
		}
		result <- err
	}()
	return <-result
}

// address is where a server on the host listens.
func (h *Host) address() string {
	if h == nil {
		return loopback
	}
	return h.Address
}

const loopback = "127.0.0.1"

// hostOf finds the host that a state file speaks of.
func hostOf(t thing) *Host {
	if t.Namespace == "" {
		return nil
	}
	return &Host{Name: t.Name, Address: t.Address, namespace: t.Namespace}
}

// ip runs commands of the program ip.
func ip(ctx context.Context, commands ...string) error {
	for _, c := range commands {
		if _, err := run(ctx, plain(ctx, "ip", strings.Fields(c)...)); err != nil {
			return fmt.Errorf("ip %s: %w", c, err)
		}
	}
	return nil
}

// network says whether the thing is a part of a network and not a server.
func (t thing) network() bool { return t.Kind == "bridge" || t.Kind == "netns" }

// removeNetwork takes a bridge or a host away, if it is still there.
func (t thing) removeNetwork(ctx context.Context) error {
	if t.Kind == "netns" {
		if _, err := os.Stat(filepath.Join("/var/run/netns", t.Name)); err != nil {
			return nil
		}
		return ip(ctx, "netns del "+t.Name)
	}
	if _, err := net.InterfaceByName(t.Name); err != nil {
		return nil
	}
	return ip(ctx, "link del "+t.Name)
}
