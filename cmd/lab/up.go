package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"crossfade/scenarios"
	"crossfade/scenarios/lab"

	"github.com/urfave/cli/v2"
)

func upCommand() *cli.Command {
	return &cli.Command{
		Name: "up", Usage: "boot a scenario and leave it running, to drive crossfade by hand", ArgsUsage: "SCENARIO",
		Flags: []cli.Flag{
			crossfadeFlag,
			&cli.BoolFlag{Name: "load", Usage: "let its users work, too, until lab down"},
		},
		Action: func(c *cli.Context) error {
			args, err := words(c, 1, 1)
			if err != nil {
				return err
			}
			return up(c, args[0])
		},
	}
}

func up(c *cli.Context, name string) error {
	s, err := known(name)
	if err != nil {
		return err
	}
	dir := place(name)
	if err := vacant(dir, name); err != nil {
		return err
	}
	st, err := scenarios.Boot(c.Context, s, dir, true, sayer(c.App.Writer))
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	binary := c.String("crossfade")
	if binary == "" {
		binary, err = scenarios.Build(c.Context, dir)
	} else {
		binary, err = filepath.Abs(binary)
	}
	if err != nil {
		return fmt.Errorf("%w\n%s is up in %s; lab down %s ends it", err, name, dir, name)
	}
	if c.Bool("load") {
		if err := startLoad(name, dir); err != nil {
			return err
		}
	}
	return write(c.App.Writer, "\n%s", st.Guide(binary, os.Args[0], c.Bool("load")))
}

const (
	loadPid = "load.pid"
	loadLog = "load.log"
)

// startLoad runs lab load as a process of its own, which lab down ends.
func startLoad(name, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, loadLog))
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "load", name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, loadPid), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
	}
	return errors.Join(err, log.Close())
}

func loadCommand() *cli.Command {
	return &cli.Command{
		Name: "load", Usage: "let the users of a scenario that is up work, until Ctrl-C; then judge what became of their rows", ArgsUsage: "SCENARIO",
		Action: func(c *cli.Context) error {
			args, err := words(c, 1, 1)
			if err != nil {
				return err
			}
			return load(c, args[0])
		},
	}
}

// loadEvery is how often lab load tells what it sees.
const loadEvery = 2 * time.Second

func load(c *cli.Context, name string) error {
	st, err := stage(name)
	if err != nil {
		return err
	}
	u := scenarios.NewUsers(st)
	// Not the command's context: the writers are stopped in order, and judged.
	ctx := context.WithoutCancel(c.Context)
	if err := u.Start(ctx); err != nil {
		return err
	}
	if err := write(c.App.Writer, "%s\n", u.Describe()); err != nil {
		return err
	}
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	last, acked := time.Now(), int64(0)
	for c.Context.Err() == nil {
		select {
		case <-c.Context.Done():
		case <-tick.C:
			gap, database := u.Gap(last)
			now := u.Acked()
			line := fmt.Sprintf("%s  %6d rows a second", time.Now().Format("15:04:05"), int64(float64(now-acked)/time.Since(last).Seconds()))
			if database != "" {
				line += fmt.Sprintf(", longest wait for one %d ms (%s)", gap.Length.Milliseconds(), database)
			}
			if err := write(c.App.Writer, "%s\n", line); err != nil {
				return err
			}
			last, acked = time.Now(), now
		}
	}
	if _, err := u.Stop(); err != nil {
		return err
	}
	says, err := u.Judge(ctx)
	return errors.Join(write(c.App.Writer, "%s\n", says), err)
}

func stage(name string) (*scenarios.Stage, error) {
	if _, err := known(name); err != nil {
		return nil, err
	}
	st, err := scenarios.Open(place(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not up; lab up %s boots it", name, name)
	}
	return st, err
}

func downCommand() *cli.Command {
	return &cli.Command{
		Name: "down", Usage: "end a scenario that is up, and remove all of it; without a name, all of them", ArgsUsage: "[SCENARIO]",
		Action: func(c *cli.Context) error {
			args, err := words(c, 0, 1)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				if args, err = upNames(); err != nil {
					return err
				}
			} else if _, err := known(args[0]); err != nil {
				return err
			}
			var errs []error
			for _, name := range args {
				if err := down(c.Context, name); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", name, err))
				} else if err := write(c.App.Writer, "%s is down\n", name); err != nil {
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
	}
}

func upNames() ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(place("any")))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// down works on what there is, also after a boot or a take-down that was cut off.
func down(ctx context.Context, name string) error {
	dir := place(name)
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("it is not up")
	}
	if err := stopLoad(dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "lab", "lab.json")); err == nil {
		if err := lab.Down(ctx, filepath.Join(dir, "lab")); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// stopLoad ends the load that lab up has started, if it runs.
func stopLoad(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, loadPid))
	if err != nil {
		return nil // none was started
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return nil
	}
	// The number may be another process's by now.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err == nil && !strings.Contains(string(cmdline), "load\x00"+filepath.Base(dir)) {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end the load: %w", err)
	}
	return nil
}
