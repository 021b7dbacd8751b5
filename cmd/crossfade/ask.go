package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"crossfade/upgrade"
	"crossfade/upgrade/exit"
	"crossfade/upgrade/report"

	"golang.org/x/term"
)

// consent is what a command needs before it changes who takes writes, or takes
// anything away: somebody who has read what it will do and types the upgrade's
// name, or --yes.
type consent struct {
	plan string // as upgrade.Preview knows it
	yes  bool   // --yes
	// window is what the command was given of the window: --now, --wait.
	window upgrade.CutoverOptions
}

// possible refuses at once where nobody can be asked, before any server is touched.
func (c consent) possible(out *output) error {
	if c.yes || term.IsTerminal(int(out.stdin.Fd())) {
		return nil
	}
	return &exit.Error{
		Code: exit.Gate, Says: c.plan + ": not approved: there is no terminal to ask on; nothing was changed",
		Hint: "--yes answers for you",
	}
}

// given shows what the plan will do and asks for the upgrade's name. Where the
// preview is empty the work is done, and nobody is asked.
func (c consent) given(ctx context.Context, u *upgrade.Upgrade, name string, out *output) error {
	lines, err := u.Preview(ctx, c.plan, c.window)
	if err != nil || len(lines) == 0 {
		return err
	}
	if c.yes {
		for _, l := range lines {
			out.sayf("%s", l)
		}
		return nil
	}
	answer, err := ask(ctx, out, strings.Join(lines, "\n")+fmt.Sprintf("\n\nTo do this, type the name of the upgrade (%s): ", name))
	if err != nil {
		return err
	}
	if answer != name {
		return &exit.Error{
			Code: exit.Gate, Says: fmt.Sprintf("%s: not approved: %q was typed, and the upgrade is %s; nothing was changed", c.plan, answer, name),
			Hint: "run the same command again, and type " + name,
		}
	}
	return nil
}

// ask puts a question to the person at the terminal and reads one line. It
// ends with ctx, and with an empty answer where the terminal is closed.
func ask(ctx context.Context, out *output, question string) (answer string, err error) {
	out.flush()
	to := out.stderr
	if !out.terminal {
		tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
		if err != nil {
			return "", &exit.Error{
				Code: exit.Gate, Says: "not approved: stderr is no terminal, and there is no other to ask on; nothing was changed", Hint: "--yes answers for you", Err: err,
			}
		}
		defer func() { err = errors.Join(err, tty.Close()) }()
		to = tty
	}
	if _, err := io.WriteString(to, report.VisibleText(question)); err != nil {
		return "", fmt.Errorf("ask for the name of the upgrade: %w", err)
	}
	type line struct {
		text string
		err  error
	}
	got := make(chan line, 1)
	// Reading a terminal cannot be cancelled: after an interrupt this goroutine
	// ends with the process.
	go func() {
		text, err := bufio.NewReader(out.stdin).ReadString('\n')
		got <- line{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case l := <-got:
		if l.err != nil && !errors.Is(l.err, io.EOF) {
			return "", fmt.Errorf("read the name of the upgrade: %w", l.err)
		}
		return strings.TrimSpace(l.text), nil
	}
}
