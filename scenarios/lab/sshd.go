package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// SSHD is an sshd of the lab that lets one key in, as the servers' owner, and
// an ssh that has that key.
type SSHD struct {
	User, Address string
	Port          int
	// Bin is a folder with a program ssh that trusts this sshd and has the key:
	// what stands first in PATH is the system's ssh to a tool that is tested.
	Bin string

	lab   *Lab
	thing thing
	home  string
}

// URL is the sshd as a runbook names it, with a path after it.
func (s *SSHD) URL(path string) string {
	return fmt.Sprintf("ssh://%s@%s%s", s.User, net.JoinHostPort(s.Address, strconv.Itoa(s.Port)), path)
}

// SSHD starts an sshd, on this machine or on a host of the lab's, and returns
// when it lets the key in.
func (l *Lab) SSHD(ctx context.Context, name string, host *Host) (*SSHD, error) {
	s, err := l.newSSHD(ctx, name, host)
	if err == nil {
		err = s.boot(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("start sshd %s: %w", name, err)
	}
	return s, nil
}

func (l *Lab) newSSHD(ctx context.Context, name string, host *Host) (*SSHD, error) {
	daemon, err := l.Store.Program(ctx, "sshd")
	if err != nil {
		return nil, err
	}
	client, err := l.Store.Program(ctx, "ssh")
	if err != nil {
		return nil, err
	}
	port, err := takePort(ctx, l.Dir, 0)
	if err != nil {
		return nil, err
	}
	home := filepath.Join(l.Dir, name)
	s := &SSHD{User: l.owner.Name, Address: hostAddress(host), Port: port, Bin: filepath.Join(home, "bin"), lab: l, home: home}
	s.thing = thing{Kind: "sshd", Name: name, Bin: daemon, Home: home, Works: "/", PidFile: filepath.Join(home, "sshd.pid"), Port: port}
	if host != nil {
		s.thing.Namespace, s.thing.Address = host.namespace, host.Address
	}
	if err := l.add(s.thing); err != nil {
		return nil, err
	}
	for _, dir := range []string{home, s.Bin} {
		if err := l.owner.mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := s.keys(ctx, filepath.Join(filepath.Dir(client), "ssh-keygen")); err != nil {
		return nil, err
	}
	return s, s.configure(daemon, client)
}

func hostAddress(h *Host) string {
	if h == nil {
		return "127.0.0.1"
	}
	return h.Address
}

// keys makes the host's key, which belongs to who runs sshd, and the client's,
// which belongs to who runs the tests: ssh refuses a key that others may read.
func (s *SSHD) keys(ctx context.Context, keygen string) error {
	for _, one := range []struct {
		name string
		cmd  *exec.Cmd
	}{
		{"host_key", s.lab.owner.command(ctx, keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(s.home, "host_key"))},
		{"key", exec.CommandContext(ctx, keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(s.Bin, "key"))},
	} {
		if out, err := one.cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make %s: %w: %s", one.name, err, out)
		}
	}
	public, err := os.ReadFile(filepath.Join(s.Bin, "key.pub"))
	if err != nil {
		return err
	}
	if err := s.lab.owner.write(filepath.Join(s.home, "authorized_keys"), string(public), 0o644); err != nil {
		return err
	}
	host, err := os.ReadFile(filepath.Join(s.home, "host_key.pub"))
	if err != nil {
		return err
	}
	known := fmt.Sprintf("[%s]:%d %s", s.Address, s.Port, host)
	return os.WriteFile(filepath.Join(s.Bin, "known_hosts"), []byte(known), 0o644)
}

func (s *SSHD) configure(daemon, client string) error {
	lines := []string{
		"ListenAddress " + s.Address, "Port " + strconv.Itoa(s.Port), "PidFile " + s.thing.PidFile,
		"HostKey " + filepath.Join(s.home, "host_key"), "AuthorizedKeysFile " + filepath.Join(s.home, "authorized_keys"),
		"StrictModes no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no",
	}
	// From 9.8 on a session is a program of its own.
	if session := filepath.Join(filepath.Dir(daemon), "../lib/openssh/sshd-session"); executable(session) == nil {
		lines = append(lines, "SshdSessionPath "+session)
	}
	if err := s.lab.owner.write(filepath.Join(s.home, "sshd_config"), strings.Join(lines, "\n")+"\n", 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf("Host *\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  StrictHostKeyChecking yes\n",
		filepath.Join(s.Bin, "key"), filepath.Join(s.Bin, "known_hosts"))
	if err := os.WriteFile(filepath.Join(s.Bin, "config"), []byte(config), 0o644); err != nil {
		return err
	}
	wrapper := fmt.Sprintf("#!/bin/sh\nexec '%s' -F '%s' \"$@\"\n", client, filepath.Join(s.Bin, "config"))
	return os.WriteFile(filepath.Join(s.Bin, "ssh"), []byte(wrapper), 0o755)
}

// boot starts sshd and returns when it lets the key in.
func (s *SSHD) boot(ctx context.Context) error {
	logfile, err := os.OpenFile(filepath.Join(s.home, "sshd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = logfile.Close() }()
	cmd, err := s.command(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid = false, true
	cmd.Dir, cmd.Stderr = "/", logfile
	if err := hostOf(s.thing).start(cmd); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // reaps it, whenever it ends
	return Poll(ctx, 50*time.Millisecond, func() (bool, error) {
		select {
		case err := <-ended:
			return false, fmt.Errorf("it ended at once: %w: %s", err, tail(s.Log(), 2000))
		default:
		}
		try := exec.CommandContext(ctx, filepath.Join(s.Bin, "ssh"), "-o", "BatchMode=yes", "-p", strconv.Itoa(s.Port), "-l", s.User, "--", s.Address, "true")
		return try.Run() == nil, nil
	})
}

// command is sshd, run by the owner. Where root drops to a user whose shell lets
// nobody in, as nobody's, sshd sees another /etc/passwd.
func (s *SSHD) command(ctx context.Context) (*exec.Cmd, error) {
	args := []string{s.thing.Bin, "-D", "-e", "-f", filepath.Join(s.home, "sshd_config")}
	line, users := passwdLine(s.User)
	if !s.lab.owner.drop || !strings.HasSuffix(line, "/nologin") && !strings.HasSuffix(line, "/false") {
		return s.lab.owner.command(ctx, args[0], args[1:]...), nil
	}
	passwd := filepath.Join(s.home, "passwd")
	open := line[:strings.LastIndexByte(line, ':')+1] + "/bin/sh"
	if err := os.WriteFile(passwd, []byte(strings.Replace(users, line, open, 1)), 0o644); err != nil {
		return nil, err
	}
	const script = `mount --bind "$1" /etc/passwd && shift && exec setpriv --reuid="$1" --regid="$2" --clear-groups -- "$3" "$4" "$5" "$6" "$7"`
	o := s.lab.owner
	cmd := exec.CommandContext(ctx, "unshare", append([]string{"-m", "sh", "-c", script, "sh", passwd, strconv.Itoa(o.uid), strconv.Itoa(o.gid)}, args...)...)
	cmd.SysProcAttr, cmd.Env = &syscall.SysProcAttr{}, environment()
	return cmd, nil
}

// passwdLine is a user's line of /etc/passwd, and all of it.
func passwdLine(name string) (line, all string) {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return "", ""
	}
	for l := range strings.Lines(string(b)) {
		if strings.HasPrefix(l, name+":") {
			return strings.TrimSuffix(l, "\n"), string(b)
		}
	}
	return "", string(b)
}

// Pid is its process, 0 if it does not run.
func (s *SSHD) Pid() int { return s.thing.pid(context.Background()) }

// Stop ends it; connections that are open go on.
func (s *SSHD) Stop(ctx context.Context) error {
	pid := s.Pid()
	if pid == 0 {
		return nil
	}
	return errors.Join(signal(pid, syscall.SIGTERM), gone(ctx, pid))
}

// Log is what it has written.
func (s *SSHD) Log() string {
	b, err := os.ReadFile(filepath.Join(s.home, "sshd.log"))
	if err != nil {
		return ""
	}
	return string(b)
}
