package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"crossfade/upgrade/flow"
)

func TestProgressSentence(t *testing.T) {
	var p progress
	began := time.Now()
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	want := func(now int, says string) {
		t.Helper()
		if got := p.sentence(at(now)); got != says {
			t.Errorf("got %q, want %q", got, says)
		}
	}
	want(0, "")
	p.observe(flow.Event{At: at(0), Step: "copy/shop", Kind: flow.Begin})
	want(3, "at      copy/shop  since 3s")
	// What an earlier run had copied is no speed of this one.
	p.observe(flow.Event{At: at(4), Step: "copy/shop", Kind: flow.Progress, Done: 100 << 20, Total: 300 << 20, Unit: "bytes", Says: "orders"})
	want(4, "at      copy/shop  33 % (100 MB of 300 MB)  orders")
	p.observe(flow.Event{At: at(14), Step: "copy/shop", Kind: flow.Progress, Done: 200 << 20, Total: 300 << 20, Unit: "bytes"})
	want(14, "at      copy/shop  66 % (200 MB of 300 MB), 10 MB/s, about 10 s")
	// A total is an estimate, and what follows the last byte has no rate.
	p.observe(flow.Event{At: at(24), Step: "copy/shop", Kind: flow.Progress, Done: 310 << 20, Total: 300 << 20, Unit: "bytes"})
	want(24, "at      copy/shop  100 % (300 MB of 300 MB)")
	p.observe(flow.Event{At: at(25), Step: "copy/shop", Kind: flow.End})
	want(25, "")
}

func TestLiveLine(t *testing.T) {
	var p progress
	var b bytes.Buffer
	p.draw(&b, 80)
	if b.Len() > 0 {
		t.Errorf("drawn without a step: %q", b.String())
	}
	p.observe(flow.Event{At: time.Now(), Step: "catch-up", Title: "Catch up", Kind: flow.Begin})
	p.draw(&b, 80)
	p.observe(flow.Event{At: time.Now(), Step: "catch-up", Kind: flow.Progress, Done: 7, Total: 5, Unit: "links", Says: strings.Repeat("long ", 40)})
	for range 3 {
		b.Reset()
		p.draw(&b, 80)
	}
	got := b.String()
	if !strings.HasPrefix(got, "\r") || strings.Contains(got, "\n") || !strings.Contains(got, "catch-up  100 % (5 of 5 links)") {
		t.Errorf("the live line is %q", got)
	}
	if n := len([]rune(strings.Trim(strings.TrimSuffix(got, "\x1b[0K"), "\r"))); n > 80 {
		t.Errorf("the live line has %d columns of 80: %q", n, got)
	}
	b.Reset()
	p.clear(&b)
	p.clear(&b)
	if b.String() != "\r\x1b[2K" {
		t.Errorf("cleared with %q", b.String())
	}
}

// TestNobodyWaitsForAReader: what is reported while a fence is up must not stop
// because nobody reads.
func TestNobodyWaitsForAReader(t *testing.T) {
	stuck := make(stuckWriter)
	o := &output{stdout: stuck, stderr: stuck, json: true, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go o.loop()
	began := time.Now()
	for range 1000 {
		o.observe(flow.Event{At: began, Step: "lock", Kind: flow.Begin})
		o.observe(flow.Event{At: began, Step: "lock", Kind: flow.Fail, Err: errors.New("x")})
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	close(stuck)
	if code := o.end(t.Context(), nil); code != 0 {
		t.Errorf("exit %d", code)
	}
}

// stuckWriter blocks until it is closed.
type stuckWriter chan struct{}

func (s stuckWriter) Write(b []byte) (int, error) {
	<-s
	return len(b), nil
}

func TestResultsThatCannotBeWritten(t *testing.T) {
	var said bytes.Buffer
	o := &output{stdout: fullDisk{}, stderr: &said, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	go o.loop()
	printText(o, "a result")
	if code := o.end(t.Context(), nil); code != 1 || !strings.Contains(said.String(), "no space left") {
		t.Errorf("exit %d, and it said %q", code, said.String())
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
