package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The counts come from a real go test run over a module with everything in it.
func TestTally(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		last  string
		ok    bool
		says  []string
	}{
		"all well": {
			map[string]string{"a/a_test.go": passing}, "3 passed, 0 failed, 1 skipped", true, []string{"because of the moon", "ok   tallied/a"},
		},
		"one fails": {
			map[string]string{"a/a_test.go": passing, "b/b_test.go": failing}, "4 passed, 2 failed, 1 skipped", false, []string{"first of all", "inner words", "FAIL tallied/b"},
		},
		"one is not built": {
			map[string]string{"a/a_test.go": passing, "c/c_test.go": "package c\n\nvar x int = \"no\"\n"}, "3 passed, 1 failed, 1 skipped", false, []string{"c_test.go:3"},
		},
		"one dies": {
			map[string]string{"d/d_test.go": dying}, "0 passed, 1 failed, 0 skipped", false, []string{"last words", "FAIL tallied/d"},
		},
		"nothing to test": {map[string]string{"e/e.go": "package e\n"}, "0 passed, 0 failed, 0 skipped", true, []string{"no tests"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.files["go.mod"] = "module tallied\n\ngo 1.26\n"
			for path, text := range c.files {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-json", "./...")
			cmd.Dir = dir
			events, _ := cmd.Output() // it fails where its tests do
			var out strings.Builder
			ok, err := tally(strings.NewReader(string(events)), &out)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			if last := lines[len(lines)-1]; last != c.last || ok != c.ok {
				t.Errorf("got %q and %v, want %q and %v in\n%s", last, ok, c.last, c.ok, out.String())
			}
			for _, s := range c.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("it does not say %q:\n%s", s, out.String())
				}
			}
		})
	}
	if ok, err := tally(strings.NewReader(""), &strings.Builder{}); ok || err != nil {
		t.Errorf("no test at all is no success: %v, %v", ok, err)
	}
}

const passing = `package a

import "testing"

func TestOne(t *testing.T) {}

func TestParent(t *testing.T) {
	t.Run("first", func(t *testing.T) {})
	t.Run("second", func(t *testing.T) {})
}

func TestNot(t *testing.T) { t.Skip("because of the moon") }
`

const failing = `package b

import "testing"

func TestOne(t *testing.T) { t.Fatal("first of all") }

func TestParent(t *testing.T) {
	t.Run("good", func(t *testing.T) {})
	t.Run("bad", func(t *testing.T) { t.Error("inner words") })
}
`

const dying = `package d

import (
	"os"
	"testing"
)

func TestOne(t *testing.T) {
	t.Log("last words")
	println("last words")
	os.Exit(3)
}
`

func TestScenarioLast(t *testing.T) {
	for in, want := range map[string]string{
		"lab play upgrade --keep": "lab play --keep upgrade", "lab play --keep upgrade": "lab play --keep upgrade",
		"lab list": "lab list", "lab --help": "lab --help", "lab play upgrade --crossfade x": "lab play --crossfade x upgrade",
	} {
		if got := strings.Join(scenarioLast(strings.Fields(in)), " "); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

// The tests that took longest are named before the counts, longest first.
func TestTallySlowest(t *testing.T) {
	const events = `{"Action":"pass","Package":"a","Test":"TestShort","Elapsed":9.9}
{"Action":"pass","Package":"a","Test":"TestLong/part","Elapsed":11}
{"Action":"pass","Package":"a","Test":"TestLong","Elapsed":12.4}
{"Action":"pass","Package":"b","Test":"TestLonger","Elapsed":100}
{"Action":"pass","Package":"b","Elapsed":130}
`
	var out strings.Builder
	if _, err := tally(strings.NewReader(events), &out); err != nil {
		t.Fatal(err)
	}
	if want := "slowest:\n     100 s  b TestLonger\n      12 s  a TestLong\n"; !strings.Contains(out.String(), want) || strings.Contains(out.String(), "TestShort") {
		t.Errorf("wanted\n%sin\n%s", want, out.String())
	}
}
