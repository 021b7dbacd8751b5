package pg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"crossfade/scenarios/lab/labtest"
)

func TestParseHost(t *testing.T) {
	for _, one := range []struct{ text, name, path, err string }{
		{"local:", "local", "", ""},
		{"/etc/pgbouncer/pgbouncer.ini", "local", "/etc/pgbouncer/pgbouncer.ini", ""},
		{"ssh://metal", "ssh://metal", "", ""},
		{"ssh://postgres@metal:2222", "ssh://postgres@metal:2222", "", ""},
		{"ssh://pool1/etc/pg bouncer.ini", "ssh://pool1", "/etc/pg bouncer.ini", ""},
		{"ssh://[::1]:22/x", "ssh://[::1]:22", "/x", ""},
		{"metal", "", "", "neither local: nor ssh://"},
		{"ssh://", "", "", "no ssh:// address"},
		{"ssh://-oProxyCommand=x/y", "", "", "no ssh:// address"},
		{"ssh://-oProxyCommand=x@metal", "", "", "no ssh:// address"},
		{"ssh://u:secret@metal", "", "", "no password"},
	} {
		host, path, err := ParseHost(one.text)
		if one.err != "" {
			if err == nil || !strings.Contains(err.Error(), one.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v", one.text, err)
			}
			continue
		}
		if err != nil || host.Name() != one.name || path != one.path {
			t.Errorf("%s: %v, %q, %v", one.text, host, path, err)
		}
	}
}

// TestSSH: a program on another machine is run as it was meant: its argv to the
// letter, its environment out of sight, its own exit code, and not a moment
// longer than the tool lives.
func TestSSH(t *testing.T) {
	l := labtest.T(t)
	d := l.SSHD("sshd", nil)
	t.Setenv("PATH", d.Bin+":"+os.Getenv("PATH"))
	host, dir, err := ParseHost(d.URL(l.Dir))
	l.Must(err)
	run := func(c Cmd) (string, error) {
		var out bytes.Buffer
		c.Stdout = &out
		err := host.Run(t.Context(), c)
		return out.String(), err
	}

	words := []string{"", "two words", `"double" and 'single'`, "$HOME `id` \\ *", "a;b|c&d", "tab\tline\nbreak", "-n", "€"}
	got, err := run(Cmd{Args: append([]string{"printf", "<%s>"}, words...)})
	if want := "<" + strings.Join(words, "><") + ">"; err != nil || got != want {
		t.Errorf("argv arrived as %q, wanted %q: %v", got, want, err)
	}

	secret := `p'ss "w$rd\`
	got, err = run(Cmd{Args: []string{"sh", "-c", `printf %s "$PGPASSWORD"; cat /proc/$$/cmdline /proc/$PPID/cmdline`}, Env: []string{"PGPASSWORD=" + secret}})
	if err != nil || !strings.HasPrefix(got, secret) || strings.Count(got, "w$rd") != 1 {
		t.Errorf("the environment arrived as %q: %v", got, err)
	}
	if _, err := run(Cmd{Args: []string{"true"}, Env: []string{"X=a\nb"}}); err == nil || strings.Contains(err.Error(), "a\nb") {
		t.Errorf("a line break in the environment: %v", err)
	}

	file := filepath.Join(dir, "sshd", "it's a file")
	text := strings.Repeat("content \x00\xff\n", 100_000)
	if _, err := run(Cmd{Args: []string{"tee", file}, Stdin: strings.NewReader(text)}); err != nil {
		t.Fatal(err)
	}
	if got, err := run(Cmd{Args: []string{"cat", filepath.Base(file)}, Dir: filepath.Dir(file)}); err != nil || got != text {
		t.Errorf("a file of %d bytes came back with %d: %v", len(text), len(got), err)
	}
	if got, err := run(Cmd{Args: []string{"cat"}}); err != nil || got != "" {
		t.Errorf("a program that reads what nobody writes: %q, %v", got, err)
	}

	for _, code := range []int{0, 3, 4, 126} {
		_, err := run(Cmd{Args: []string{"sh", "-c", fmt.Sprintf("echo no luck >&2; exit %d", code)}})
		exit := (*exec.ExitError)(nil)
		if code == 0 && err != nil || code != 0 && (!errors.As(err, &exit) || exit.ExitCode() != code || !strings.Contains(err.Error(), "no luck")) {
			t.Errorf("exit %d: %v", code, err)
		}
	}
	if _, err := run(Cmd{Args: []string{"no-such-program"}}); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("a program that is not there: %v", err)
	}

	ended := func(pid string) bool { return exec.Command("kill", "-0", pid).Run() != nil }
	pidFile := filepath.Join(dir, "sshd", "pid")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- host.Run(ctx, Cmd{Args: []string{"sh", "-c", `trap 'exit 7' INT TERM; echo $$ > "$0"; while :; do sleep 0.05; done`, pidFile}})
	}()
	var pid string
	wait(t, "the program to begin", func() bool {
		b, err := os.ReadFile(pidFile)
		pid = strings.TrimSpace(string(b))
		_, nerr := strconv.Atoi(pid)
		return err == nil && nerr == nil
	})
	cancel(errors.New("the person changed his mind"))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "changed his mind") {
		t.Errorf("a program that was cancelled: %v", err)
	}
	wait(t, "the program to end", func() bool { return ended(pid) })

	l.Must(d.Stop(t.Context()))
	if _, err := run(Cmd{Args: []string{"true"}}); err == nil || !strings.Contains(err.Error(), "must log in without asking") {
		t.Errorf("a machine that is not there: %v", err)
	}
}

func wait(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := Poll(ctx, 20*time.Millisecond, what, func(context.Context) (bool, error) { return f(), nil }); err != nil {
		t.Fatal(err)
	}
}
