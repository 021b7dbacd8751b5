package runbook

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// keysUnder are the keys of one mapping, and what messages call it.
type keysUnder struct {
	under string
	keys  []string
}

// knownKeys is every key of the runbook by the mapping that holds it, those of later
// versions included: they are refused where they are read. The keys of a mapping stand
// beside its reader.
var knownKeys = slices.Concat(clusterKeys, databaseKeys, setKeys, settingKeys, cutoverKeys, trafficKeys, ofKinds, hooksKeys)

// reader collects what is wrong while a runbook is read. No method of
// it stops at a mistake: what cannot be read is reported and left out.
type reader struct {
	source             *sourceText
	dir                string // absolute; relative paths of the runbook begin here
	mistakes, warnings []Problem
	approval           *yaml.Node          // the value of approve, or nil
	clusterNames       []string            // of new, as written
	aliases            int                 // followed so far
	tangled            bool                // too many of them: that is the only mistake then
	once               map[string]int      // by line, what may be given only once (traffic.Mapping)
	warned             map[*yaml.Node]bool // scalars whose password was warned of
	covered            map[*yaml.Node]bool // scalars whose lines are not shown
}

func (r *reader) at(n *yaml.Node) Position {
	return Position{Line: n.Line, Column: n.Column, source: r.source}
}

// mistake reports what is wrong at n, and what would be right.
func (r *reader) mistake(n *yaml.Node, format string, args ...any) {
	if r.tangled && len(r.mistakes) > 0 {
		return // what follows is not what was written
	}
	r.mistakes = append(r.mistakes, r.at(n).Problem(fmt.Sprintf(format, args...)))
}

func (r *reader) mistakeAt(line, column int, says string) {
	at := Position{Line: line, Column: column, source: r.source}
	r.mistakes = append(r.mistakes, at.Problem(says))
}

// yamlBareLocal is `host: local:` as the contract writes it. YAML takes the
// last colon for the start of another mapping.
var yamlBareLocal = regexp.MustCompile(`(?m)(\bhost:[ \t]+local):([ \t\r,}]|$)`)

// load is the mapping of the whole runbook, or nil where there is none.
func (r *reader) load(text []byte) *yaml.Node {
	if !r.readable(text) {
		return nil
	}
	root, next, err := yamlDocument(text)
	if err != nil {
		// A blank in the place of the colon leaves every column where it is.
		root, next, err = yamlDocument(yamlBareLocal.ReplaceAll(text, []byte("$1 $2")))
	}
	if err != nil {
		r.syntax(err)
		return nil
	}
	if root == nil || root.ShortTag() == "!!null" {
		r.mistakeAt(1, 1, "the runbook is empty: it needs at least upgrade, old and new")
		return nil
	}
	if next != nil {
		r.mistake(next, "a second document begins here: a runbook is one")
	}
	return root
}

// readable refuses what YAML may not hold, with the position that the YAML
// library does not tell.
func (r *reader) readable(text []byte) bool {
	line, column := 1, 1
	for i, size := 0, 0; i < len(text); i += size {
		c, n := utf8.DecodeRune(text[i:])
		size = n
		switch {
		case c == utf8.RuneError && n == 1:
			r.mistakeAt(line, column, "not UTF-8: a runbook is UTF-8 text")
			return false
		case c == '\n':
			line, column = line+1, 1
			continue
		case c == '\ufeff' && i == 0:
			continue
		case c == '\r' && i+1 < len(text) && text[i+1] == '\n', c == '\t':
		case unicode.IsControl(c), c == '\u2028', c == '\u2029': // YAML ends lines at some of them, editors do not
			r.mistakeAt(line, column, fmt.Sprintf("a control character (U+%04X): a runbook is plain text", c))
			return false
		}
		column++
	}
	return true
}

// yamlDocument is the first document of text without its wrapping, nil where
// it has none, and the second, if there is one.
func yamlDocument(text []byte) (root, next *yaml.Node, err error) {
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return nil, nil, err
	}
	var docs [2]*yaml.Node
	for i := range docs {
		var n yaml.Node
		if err := loader.Load(&n); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, nil, err
		}
		if len(n.Content) == 1 { // the document's one value
			docs[i] = n.Content[0]
		}
	}
	return docs[0], docs[1], nil
}

// syntax reports a text that is no YAML. The library's message may repeat the
// text, so that only its own words are used.
func (r *reader) syntax(err error) {
	line, column, says := 1, 1, "this is not YAML"
	var le *yaml.LoadError
	if errors.As(err, &le) {
		if le.Mark.Line > 0 {
			line, column = le.Mark.Line, max(1, le.Mark.Column)
		}
		switch {
		case strings.Contains(le.Message, "anchor") || strings.Contains(le.ContextMsg, "alias"):
			says = `a name with * in front is a YAML alias, and this one stands for nothing; quote a pattern: "*"`
		case le.ContextMsg != "":
			says = "not YAML: " + le.ContextMsg + ": " + le.Message
		case strings.Contains(le.Message, "mapping values are not allowed"):
			says = "not YAML: a second colon; quote a value that holds one"
		default:
			says = "not YAML: " + le.Message
		}
	}
	if n := len(r.source.lines); line > n { // the end of the text: show its last line
		line = max(1, n)
		column = utf8.RuneCountInString(strings.Join(r.source.lines[max(0, n-1):], "")) + 1
	}
	r.mistakeAt(line, column, says)
}

// follow is the value that n stands for.
func (r *reader) follow(n *yaml.Node) *yaml.Node {
	// Far more than a person writes; aliases of aliases grow without bounds.
	const most = 1000
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		if r.aliases++; r.aliases > most {
			if !r.tangled {
				r.tangled, r.mistakes = true, nil
				r.mistake(n, "more than %d aliases: write the values out", most)
			}
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Line: n.Line, Column: n.Column}
		}
		n = n.Alias
	}
	return n
}

// yamlPair is one key of a mapping with its value.
type yamlPair struct {
	name       string
	key, value *yaml.Node
}

// pairs is what the mapping n holds, each key once, empty values left out.
// what names n's value in a message.
func (r *reader) pairs(n *yaml.Node, what, right string) (pairs []yamlPair, empty map[string]bool) {
	if n.Kind != yaml.MappingNode {
		r.mistake(n, "%s: %s where keys belong, like %s", what, yamlKind(n), right)
		return nil, nil
	}
	first, empty := map[string]int{}, map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := r.follow(n.Content[i]), r.follow(n.Content[i+1])
		switch line, twice := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			r.mistake(key, "%s for a key: a key is a word", yamlKind(key))
		case key.ShortTag() == "!!merge":
			r.mistake(key, "<<: merge keys are not read: write the keys out")
		case twice:
			r.mistake(key, "%s: given twice, first in line %d; once is right", yamlWord(key.Value), line)
		case value.ShortTag() == "!!null":
			r.mistake(key, "%s: nothing is given; leave the key out, or give it a value", yamlWord(key.Value))
			first[key.Value], empty[key.Value] = key.Line, true
		default:
			first[key.Value] = key.Line
			pairs = append(pairs, yamlPair{key.Value, key, value})
		}
	}
	return pairs, empty
}

// yamlMap is one mapping with known keys. The methods of a nil *yamlMap find
// no key and report nothing: its mistake was reported when it was read.
type yamlMap struct {
	r     *reader
	node  *yaml.Node
	under string
	has   map[string]yamlPair
	empty map[string]bool
}

// mapping reads n as the mapping that knownKeys calls under, and reports the
// keys that do not belong there.
func (r *reader) mapping(n *yaml.Node, what, under string) *yamlMap {
	var known []string
	for _, k := range knownKeys {
		if k.under == under {
			known = k.keys
		}
	}
	pairs, empty := r.pairs(n, what, known[0]+": …")
	if n.Kind != yaml.MappingNode {
		return nil
	}
	m := &yamlMap{r: r, node: n, under: under, has: map[string]yamlPair{}, empty: empty}
	for _, p := range pairs {
		if slices.Contains(known, p.name) {
			m.has[p.name] = p
		} else {
			r.mistake(p.key, "%s: unknown key in %s; %s", yamlWord(p.name), under, yamlHint(p.name, under, known))
		}
	}
	return m
}

// yamlHint is what an unknown key was probably meant to be.
func yamlHint(name, under string, known []string) string {
	if secretForm.MatchString(name + ":") {
		return "no password belongs in a runbook: " + better
	}
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	var places []string
	for _, k := range knownKeys {
		if k.under != under && slices.Contains(k.keys, name) {
			places = append(places, k.under)
		}
	}
	if len(places) > 0 {
		return "it belongs in " + strings.Join(places, " or ")
	}
	return "known are " + strings.Join(known, ", ")
}

// value is the value of key, or nil.
func (m *yamlMap) value(key string) *yaml.Node {
	if m == nil {
		return nil
	}
	return m.has[key].value
}

// require reports key as missing, where it is. right is what it would be.
func (m *yamlMap) require(key, right string) {
	if m != nil && m.value(key) == nil && !m.empty[key] {
		m.r.mistake(m.node, "%s: missing in %s; %s", key, m.under, right)
	}
}

// later refuses key, if it is there, for this version. instead is what this
// version takes.
func (m *yamlMap) later(key, instead string) {
	if m.value(key) != nil {
		m.r.later(m.has[key].key, key, instead)
	}
}

func (r *reader) later(n *yaml.Node, key, instead string) {
	r.mistake(n, "%s: not in this version; %s", key, instead)
}

// items are the entries of the list that key holds; it may be empty.
func (m *yamlMap) items(key, right string) []*yaml.Node {
	n := m.value(key)
	if n == nil {
		return nil
	}
	return m.r.items(n, key, right)
}

// some are the entries of the list that key holds; an empty one is a mistake.
func (m *yamlMap) some(key, right string) []*yaml.Node {
	n := m.value(key)
	if n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		m.r.mistake(n, "%s: an empty list; it holds at least one entry, like %s", key, right)
	}
	return m.items(key, right)
}

func (r *reader) items(n *yaml.Node, key, right string) []*yaml.Node {
	if n.Kind != yaml.SequenceNode {
		r.mistake(n, "%s: %s where a list belongs, like %s", key, yamlKind(n), right)
		return nil
	}
	var items []*yaml.Node
	for _, item := range n.Content {
		if item = r.follow(item); item.ShortTag() == "!!null" {
			r.mistake(item, "%s: an empty entry; take the dash or the comma out", key)
			continue
		}
		items = append(items, item)
	}
	return items
}

// yamlKind names what a value is, for a message about what it should be.
func yamlKind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!str":
		return "text"
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return "a value of another type"
}

// yamlWord is a key as it is printed: as it stands, if it is a plain word.
func yamlWord(key string) string {
	if yamlPlain.MatchString(key) {
		return key
	}
	return show(key)
}

var yamlPlain = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,59}$`)
