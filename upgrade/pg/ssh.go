package pg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
)

// SSH is a machine that the system's ssh reaches. Keys, jump hosts and whatever
// else that needs come from ~/.ssh/config and the agent; nothing is ever asked
// at the terminal.
type SSH struct {
	User string // "": as ssh decides
	Host string
	Port string // "": as ssh decides
}

// Name is ssh:// and where it is.
func (h SSH) Name() string {
	u := url.URL{Scheme: "ssh", Host: h.Host}
	if h.User != "" {
		u.User = url.User(h.User)
	}
	if strings.Contains(h.Host, ":") {
		u.Host = "[" + h.Host + "]"
	}
	if h.Port != "" {
		u.Host = net.JoinHostPort(h.Host, h.Port)
	}
	return u.String()
}

// Run runs c on that machine: as the owner of c.Owner where ssh logs in as root,
// else as the user that it logs in as. Its environment goes over the
// connection's stdin, never into an argv. When ctx ends, or the connection is
// cut, the program there gets SIGINT, and SIGKILL 10 s later.
//
// An error with *exec.ExitError in it has the program's own exit code, but for
// 255, by which ssh says that it could not do it.
func (h SSH) Run(ctx context.Context, c Cmd) error {
	if len(c.Args) == 0 {
		return fmt.Errorf("run on %s: no program was given", h.Name())
	}
	for _, e := range c.Env {
		if strings.ContainsAny(e, "\n\x00") {
			name, _, _ := strings.Cut(e, "=")
			return fmt.Errorf("run %s on %s: the value of %s in its environment has a line break", c.Args[0], h.Name(), name)
		}
	}
	cmd := NewCommand(ctx, "ssh", h.args(c)...)
	cmd.Stdout = c.Stdout
	in, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("run %s on %s: %w", c.Args[0], h.Name(), err)
	}
	cmd.Stdin = in
	var fed sync.WaitGroup
	fed.Add(1)
	ended := make(chan struct{})
	go func() {
		defer fed.Done()
		defer func() { _ = w.Close() }()
		if !feed(w, c) {
			return
		}
		if c.Stdin == nil {
			// The program lives as long as this side does not close.
			select {
			case <-ctx.Done():
			case <-ended:
			}
		}
	}()
	err = Run(ctx, cmd)
	close(ended)
	_ = in.Close() // whoever feeds it gets an error, and ends
	fed.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 255 {
		return &Error{Doing: "run " + c.Args[0], On: h.Name(), Err: err, Hint: "ssh " + strings.Join(h.target(), " ") + " must log in without asking: a key, and the host's key known"}
	}
	if err != nil {
		return &Error{Doing: "run " + c.Args[0], On: h.Name(), Err: err}
	}
	return nil
}

// feed writes what the script reads first, the environment a line each and an
// empty line, and then the program's own stdin.
func feed(w io.Writer, c Cmd) bool {
	var b bytes.Buffer
	for _, e := range c.Env {
		b.WriteString(e + "\n")
	}
	b.WriteString("\n")
	if _, err := w.Write(b.Bytes()); err != nil {
		return false // ssh has ended; its error is the one that counts
	}
	if c.Stdin != nil {
		if _, err := io.Copy(w, c.Stdin); err != nil {
			return false
		}
	}
	return true
}

func (h SSH) target() []string {
	var t []string
	if h.Port != "" {
		t = append(t, "-p", h.Port)
	}
	if h.User != "" {
		t = append(t, "-l", h.User)
	}
	return append(t, "--", h.Host)
}

// args are those of ssh. Its limits make a connection that was cut an error.
func (h SSH) args(c Cmd) []string {
	opts := []string{
		"-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
		"-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes",
	}
	bound := ""
	if c.Stdin == nil {
		bound = "bound"
	}
	words := append([]string{"sh", "-c", remote, "sh", c.Owner, c.Dir, bound}, c.Args...)
	for i, w := range words {
		words[i] = shellQuote(w)
	}
	return append(append(opts, h.target()...), strings.Join(words, " "))
}

// remote is what runs there. ssh hands one line to the user's shell; this script
// takes the argv as it was: $1 is the path whose owner it runs as, $2 the
// folder, $3 says that nothing is read from stdin any more, so that its end
// means that the tool is gone. A job in the background ignores SIGINT unless it
// handles it, as pg_basebackup does.
const remote = `owner=$1 dir=$2 bound=$3; shift 3
while IFS= read -r line && [ -n "$line" ]; do export "$line"; done
if [ -n "$dir" ]; then cd -- "$dir" || exit 126; elif [ -n "$owner" ]; then cd /; fi
if [ -n "$owner" ] && [ "$(id -u)" = 0 ]; then
  name=$(stat -c %U -- "$owner") && group=$(stat -c %G -- "$owner") || exit 126
  if [ "$name" != root ]; then
    HOME=$(getent passwd "$name" | cut -d: -f6); export HOME
    set -- setpriv --reuid="$name" --regid="$group" --init-groups -- "$@"
  fi
fi
if [ -z "$bound" ]; then exec "$@"; fi
exec 3<&0
"$@" 0</dev/null 3<&- & pid=$!
(cat <&3; kill -INT "$pid"; sleep 2; kill -TERM "$pid"; sleep 8; kill -KILL "$pid") >/dev/null 2>&1 & watch=$!
wait "$pid"; rc=$?
kill "$watch" 2>/dev/null
exit "$rc"`

var shellSafe = regexp.MustCompile(`\A[A-Za-z0-9_@%+=:,./-]+\z`)

// shellQuote is the one place where a word is quoted for a POSIX shell.
func shellQuote(s string) string {
	if shellSafe.MatchString(s) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// ParseHost reads local: or ssh://[user@]host[:port], and what follows it as a
// path: local paths may also stand alone. "" is nil.
func ParseHost(text string) (host Host, path string, err error) {
	switch {
	case text == "":
		return nil, "", nil
	case text == "local:":
		return Local{}, "", nil
	case strings.HasPrefix(text, "/"):
		return Local{}, text, nil
	case !strings.HasPrefix(text, "ssh://"):
		return nil, "", fmt.Errorf("%q is neither local: nor ssh://[user@]host[:port]", text)
	}
	u, err := url.Parse(text)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, "", fmt.Errorf("%q is no ssh:// address: %w", text, err)
	}
	if _, secret := u.User.Password(); secret {
		return nil, "", errors.New("an ssh:// address takes no password: use a key")
	}
	if u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") || strings.HasPrefix(u.User.Username(), "-") || u.RawQuery != "" || u.Fragment != "" {
		return nil, "", fmt.Errorf("%q is no ssh:// address: it is ssh://[user@]host[:port]", text)
	}
	return SSH{User: u.User.Username(), Host: u.Hostname(), Port: u.Port()}, u.Path, nil
}
