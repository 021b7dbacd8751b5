package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"crossfade/upgrade/exit"
	"crossfade/upgrade/flow"
	"crossfade/upgrade/report"

	"golang.org/x/term"
)

// output is where one command speaks. Its methods are safe for concurrent use
// and never wait for who reads.
type output struct {
	stdin                *os.File
	stdout, stderr       io.Writer
	terminal             bool // stderr is one: progress is a live line
	json, quiet, verbose bool

	progress progress
	wake     chan struct{} // there is something in the queue
	quit     chan struct{}
	done     chan struct{}
	failed   error // the first error of writing results; the loop's own until done

	mu     sync.Mutex
	queue  []printed
	broken context.CancelCauseFunc // ends a command that only reads; nil: none is running
}

// unwrittenError is that stdout took no more of the results: it was closed (a
// pipe into head), or what it is written to is full.
type unwrittenError struct{ err error }

func (e *unwrittenError) Error() string { return "write the results: " + e.err.Error() }

func (e *unwrittenError) Unwrap() error { return e.err }

// reading notes that the command only reads: end ends it when its results
// cannot be written.
func (o *output) reading(end context.CancelCauseFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.broken = end
}

// onlyReads reports whether a command is running that only reads.
func (o *output) onlyReads() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken != nil
}

// unwritten notes that results could not be written.
func (o *output) unwritten(err error) {
	if o.failed != nil {
		return
	}
	o.failed = err
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.broken != nil {
		o.broken(&unwrittenError{err})
	}
}

// printed is one thing to write; then, if given, is closed once it and all
// before it are written.
type printed struct {
	to   io.Writer
	text []byte
	then chan struct{}
	// exact text is written as it is: JSON, and what this program has made
	// itself. All other text is made visible.
	exact bool
}

const (
	liveEvery = 200 * time.Millisecond
	lineEvery = 10 * time.Second
)

func newOutput(stdin, stdout, stderr *os.File) *output {
	o := &output{
		stdin: stdin, stdout: stdout, stderr: stderr, terminal: term.IsTerminal(int(stderr.Fd())),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	go o.loop()
	return o
}

// loop is the only one that writes to stdout and stderr.
func (o *output) loop() {
	defer close(o.done)
	every := lineEvery
	if o.terminal {
		every = liveEvery
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-o.wake:
			o.drain()
		case <-t.C:
			o.show()
		case <-o.quit:
			o.drain()
			return
		}
	}
}

func (o *output) drain() {
	for {
		o.mu.Lock()
		queue := o.queue
		o.queue = nil
		o.mu.Unlock()
		if len(queue) == 0 {
			return
		}
		o.progress.clear(o.stderr)
		for _, p := range queue {
			if _, err := p.to.Write(p.text); err != nil && p.to == o.stdout {
				o.unwritten(err)
			}
			if p.then != nil {
				close(p.then)
			}
		}
	}
}

// show draws how far the step in work is. What goes wrong with it (nobody
// reads, a bug in the drawing) is no reason to fail.
func (o *output) show() {
	if o.quiet {
		return
	}
	err := protect(func() error {
		if o.terminal {
			o.progress.draw(o.stderr, o.width())
			return nil
		}
		s := o.progress.sentence(time.Now())
		if s == "" {
			return nil
		}
		_, err := fmt.Fprintln(o.stderr, clock(time.Now())+"  "+report.VisibleText(s))
		return err
	})
	if err != nil {
		o.terminal = false
	}
}

// width is how many columns the terminal has.
func (o *output) width() int {
	if f, ok := o.stderr.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

func (o *output) put(p printed) {
	if !p.exact {
		p.text = report.Visible(p.text)
	}
	o.mu.Lock()
	o.queue = append(o.queue, p)
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// flush waits until everything said so far is written: before a question.
func (o *output) flush() {
	then := make(chan struct{})
	o.put(printed{to: o.stderr, then: then})
	<-then
}

// result prints a result: l with --json, otherwise what text writes. A nil
// text or l prints nothing in that form.
func (o *output) result(l report.Line, text func(io.Writer) error) error {
	var b bytes.Buffer
	var err error
	switch {
	case o.json && l != nil:
		err = report.Encode(&b, l)
	case !o.json && text != nil:
		err = text(&b)
	}
	if err != nil {
		return err
	}
	o.put(printed{to: o.stdout, text: b.Bytes(), exact: o.json})
	return nil
}

// sayf tells the person who watches, unless -q.
func (o *output) sayf(format string, args ...any) {
	if !o.quiet {
		o.put(printed{to: o.stderr, text: fmt.Appendf(nil, format+"\n", args...)})
	}
}

// end prints what became of the command, writes everything out and returns
// the exit code.
func (o *output) end(ctx context.Context, err error) int {
	code := o.fail(ctx, err)
	close(o.quit)
	<-o.done
	if _, told := errors.AsType[*unwrittenError](err); o.failed != nil && !told {
		if code == exit.Done {
			code = exit.Failed
		}
		unwritten := &unwrittenError{o.failed}
		if _, err := io.WriteString(o.stderr, failureText(unwritten, failure(ctx, unwritten))); err != nil {
			return code
		}
	}
	return code
}

func (o *output) fail(ctx context.Context, err error) int {
	e := failure(ctx, err)
	if e == nil {
		return exit.Done
	}
	o.put(printed{to: o.stderr, text: []byte(failureText(err, e))})
	if o.json {
		// Behind what a person reads, so that it is the last line of both.
		var b bytes.Buffer
		if err := report.Encode(&b, *e); err != nil {
			b.WriteString(err.Error() + "\n")
		}
		o.put(printed{to: o.stdout, text: b.Bytes(), exact: true})
	}
	return e.Exit
}

// observe shows what happens in a run. It never waits.
func (o *output) observe(e flow.Event) {
	o.progress.observe(e)
	if line, ok := report.EventOf(e); ok && o.json {
		var b bytes.Buffer
		if err := report.Encode(&b, line); err == nil {
			o.put(printed{to: o.stdout, text: b.Bytes(), exact: true})
		}
		return
	}
	if s := o.sentence(e); s != "" {
		o.sayf("%s  %s", clock(e.At), s)
	}
}

// sentence is an event for a person; "" where there is nothing to tell: a
// skipped step without -v, and a beginning where the live line shows it.
func (o *output) sentence(e flow.Event) string {
	if e.Cluster != "" {
		e.Step = e.Cluster + " " + e.Step
	}
	switch e.Kind {
	case flow.Begin:
		if o.terminal && !o.verbose {
			return ""
		}
		return fmt.Sprintf("begin   %-22s %s", e.Step, e.Title)
	case flow.End:
		return fmt.Sprintf("end     %-22s %s", e.Step, report.Took(e.Took))
	case flow.Skip:
		if !o.verbose {
			return ""
		}
		return fmt.Sprintf("skip    %-22s done already", e.Step)
	case flow.Fail:
		// Told here too: a step that is tried again fails without ending the run.
		return fmt.Sprintf("fail    %-22s %s: %s", e.Step, report.Took(e.Took), oneLine(fmt.Sprint(e.Err)))
	case flow.Undone:
		return fmt.Sprintf("undone  %-22s %s", e.Step, report.Took(e.Took))
	case flow.Note:
		return fmt.Sprintf("note    %-22s %s", e.Step, oneLine(e.Says))
	}
	return ""
}

// oneLine keeps what others have written inside its line: a line break in a name
// does not begin a line that looks like this program's own.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// clock is a time of day as it stands in a line, in the zone of who reads.
func clock(t time.Time) string {
	if t.IsZero() {
		t = time.Now()
	}
	return t.Format("15:04:05.000")
}

// wantsJSON looks for --json in a command line that may turn out to be wrong:
// the error is a line of JSON then, too.
func wantsJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.ContainsFunc(args, func(a string) bool {
		return slices.Contains([]string{"--json", "-json", "--json=true", "-json=true"}, a)
	})
}

// hint is what to do about results that were not written.
func (e *unwrittenError) hint() string {
	if errors.Is(e.err, syscall.EPIPE) {
		return "whatever reads the results has closed the pipe: read all of them, or write them to a file"
	}
	return "make room where stdout is written to, or write it elsewhere, and run the same command again"
}
