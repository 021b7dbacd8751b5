package scenarios

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// plain are words that nobody should have to read twice, each with what is
// written in its place. Those that have an ordinary meaning, too, are given with
// what makes them the other one.
var plain = []struct {
	word *regexp.Regexp
	use  string
}{
	{regexp.MustCompile(`(?i)\bbehind\b`), "after, for time and LSNs; following, for standbys; through, for poolers; only a lag is behind"},
	{regexp.MustCompile(`(?i)\bin vain\b`), "without success; timed out"},
	{regexp.MustCompile(`(?i)\bmend(s|ed|ing)?\b`), "fix"},
	{regexp.MustCompile(`(?i)\b(is|are|was|were|be) told\b|\btells? (of|for)\b`), "reported, reports, acknowledged"},
	{regexp.MustCompile(`(?i)\banswer(s|ed)? for (it|them|that)\b`), "accept"},
	{regexp.MustCompile(`(?i)\bin the way\b`), "blocks"},
	{regexp.MustCompile(`(?i)\bheld still\b`), "paused"},
	{regexp.MustCompile(`(?i)\b(let|lets) (\w+ )?go on\b`), "resumed, resumes"},
	{regexp.MustCompile(`(?i)\bheld against\b`), "compared with"},
	{regexp.MustCompile(`(?i)\b(was|were) not had\b`), "could not acquire"},
	{regexp.MustCompile(`(?i)\bowed\b`), "still to do"},
	{regexp.MustCompile(`(?i)\bits like\b`), "an equivalent"},
	{regexp.MustCompile(`(?i)\b(take|takes|taken|took) (\w+ )?back\b`), "undo, revert"},
	{regexp.MustCompile(`(?i)\bgives? the way back up\b`), "ends the possibility of rollback"},
	{regexp.MustCompile(`(?i)\bwho(m|ever)\b`), "a session that …, a user that …"},
	{regexp.MustCompile(`\b(he|him|his)\b`), "it, of sessions"},
	{regexp.MustCompile(`(?i)\b(not heeded|nobody was told)\b`), "ignored; never acknowledged"},
}

// allowed are places where such a word has its ordinary meaning.
var allowed = regexp.MustCompile(`(?i)\bbytes behind\b|^behind$|\btell-oncall\b|lets clients go on`)

// TestPlainWords: no message, help text, title or page has one of these words.
func TestPlainWords(t *testing.T) {
	check := func(where, text string) {
		text = allowed.ReplaceAllString(text, "")
		for _, p := range plain {
			if found := p.word.FindString(text); found != "" {
				t.Errorf("%s says %q; write: %s", where, found, p.use)
			}
		}
	}
	for _, pattern := range []string{"../README.md", "../docs/*.md"} {
		pages, err := filepath.Glob(pattern)
		if err != nil || len(pages) == 0 {
			t.Fatalf("%s: no pages (%v)", pattern, err)
		}
		for _, page := range pages {
			b, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for line := range strings.Lines(string(b)) {
				n++
				check(strings.TrimPrefix(page, "../")+":"+strconv.Itoa(n), line)
			}
		}
	}
	seen := 0
	for _, root := range []string{"../cmd", "../cutover", "../schema", "../upgrade", "."} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				literal, ok := n.(*ast.BasicLit)
				if !ok || literal.Kind != token.STRING {
					return true
				}
				seen++
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Errorf("%s: %v", set.Position(literal.Pos()), err)
				}
				check(strings.TrimPrefix(set.Position(literal.Pos()).String(), "../"), text)
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 1000 {
		t.Errorf("only %d strings were read: the test proves nothing", seen)
	}
}
