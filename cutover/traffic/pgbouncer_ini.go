package traffic

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// anyDatabase is the entry for databases that have none of their own.
const anyDatabase = "*"

// ini is PgBouncer's configuration as far as a switch needs it: the entries of
// the section databases, each with its place in the text, so that replacing
// an address leaves every other byte as it was.
// https://www.pgbouncer.org/config.html
type ini struct {
	text     []byte
	entries  []entry
	includes []string // of the sections databases and of those that may begin one
	end      int      // after the last entry of the section databases; 0: no such section
}

// entry is one line of the section databases.
type entry struct {
	name       string
	line       int
	start, end int // of the connection string in the text
	words      []word
}

// word is one key=value of a connection string.
type word struct {
	key, value string
	start, end int // of the value with its quotes; from start of key in from
	from       int
}

// get is the value of the last word of that key, as PgBouncer takes it.
func (e entry) get(key string) (string, bool) {
	for _, w := range slices.Backward(e.words) {
		if w.key == key {
			return w.value, true
		}
	}
	return "", false
}

// address is where the entry leads; "" is PgBouncer's own Unix socket folder.
func (e entry) address() (host, port string) {
	host, _ = e.get("host")
	if port, _ = e.get("port"); port == "" {
		port = "5432"
	}
	return host, port
}

// database is what the entry calls the database on the server, for a client
// that asked for name.
func (e entry) database(name string) string {
	if db, ok := e.get("dbname"); ok {
		return db
	}
	return name
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' }

// parseINI reads a configuration. Errors name the line.
func parseINI(text []byte) (*ini, error) {
	f := &ini{text: text}
	section := ""
	for at, n := 0, 1; at < len(text); n++ {
		stop := len(text)
		if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
			stop = at + i
		}
		start, end := trim(text, at, stop)
		line := string(text[start:end])
		switch {
		case line == "" || line[0] == ';' || line[0] == '#':
		case line[0] == '[':
			name, _, ok := strings.Cut(line[1:], "]")
			if !ok {
				return nil, fmt.Errorf("line %d: a section without its ]", n)
			}
			if section = name; section == "databases" {
				f.end = stop
			}
		case strings.HasPrefix(line, "%include") && len(line) > 8 && blank(line[8]):
			f.includes = append(f.includes, strings.TrimSpace(line[8:]))
		case section == "databases":
			e, err := f.entry(start, end)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
			e.line = n
			f.entries = append(f.entries, e)
			f.end = stop
		}
		at = stop + 1
	}
	return f, nil
}

// trim leaves blanks at both ends out.
func trim(text []byte, start, end int) (int, int) {
	for start < end && blank(text[start]) {
		start++
	}
	for end > start && blank(text[end-1]) {
		end--
	}
	return start, end
}

// entry reads name = connection string.
func (f *ini) entry(start, end int) (entry, error) {
	var e entry
	at := start
	if f.text[at] == '"' {
		var b strings.Builder
		for at++; ; at++ {
			if at >= end {
				return e, errors.New(`a name without its closing "`)
			}
			if f.text[at] == '"' {
				if at+1 >= end || f.text[at+1] != '"' {
					break
				}
				at++
			}
			b.WriteByte(f.text[at])
		}
		at++
		e.name = b.String()
	} else {
		for at < end && f.text[at] != '=' && !blank(f.text[at]) {
			at++
		}
		e.name = string(f.text[start:at])
	}
	for at < end && blank(f.text[at]) {
		at++
	}
	if at >= end || f.text[at] != '=' || e.name == "" {
		return e, errors.New("no name = connection string")
	}
	at++
	for at < end && blank(f.text[at]) {
		at++
	}
	e.start, e.end = at, end
	var err error
	e.words, err = f.words(at, end)
	return e, err
}

// words reads key=value pairs; a value in single quotes may hold blanks, and
// quotes written twice.
func (f *ini) words(at, end int) ([]word, error) {
	var words []word
	for {
		for at < end && blank(f.text[at]) {
			at++
		}
		if at >= end {
			return words, nil
		}
		w := word{from: at}
		for at < end && f.text[at] != '=' && !blank(f.text[at]) {
			at++
		}
		w.key = string(f.text[w.from:at])
		for at < end && blank(f.text[at]) {
			at++
		}
		if at >= end || f.text[at] != '=' || w.key == "" {
			return nil, fmt.Errorf("no value after %q in the connection string", w.key)
		}
		for at++; at < end && blank(f.text[at]); at++ {
		}
		w.start = at
		if at < end && f.text[at] == '\'' {
			var b strings.Builder
			for at++; ; at++ {
				if at >= end {
					return nil, fmt.Errorf("the value of %s has no closing quote", w.key)
				}
				if f.text[at] == '\'' {
					if at+1 >= end || f.text[at+1] != '\'' {
						break
					}
					at++
				}
				b.WriteByte(f.text[at])
			}
			at++
			w.value = b.String()
		} else {
			for at < end && !blank(f.text[at]) {
				at++
			}
			w.value = string(f.text[w.start:at])
		}
		w.end = at
		words = append(words, w)
	}
}

// find is the entry that serves name: the last of that name, else the one for
// any database. own is whether it is its own.
func (f *ini) find(name string) (e entry, own, ok bool) {
	for _, e := range slices.Backward(f.entries) {
		if e.name == name {
			return e, true, true
		}
	}
	for _, e := range slices.Backward(f.entries) {
		if e.name == anyDatabase {
			return e, false, true
		}
	}
	return entry{}, false, false
}

// splice is a piece of text that takes the place of another.
type splice struct {
	start, end int
	with       string
}

// point returns the configuration with the named databases at host and port,
// every other byte as it was. A database that only the entry * serves gets an
// entry of its own, equal to that but for the address.
func (f *ini) point(names []string, host, port string) ([]byte, error) {
	var cuts []splice
	var added strings.Builder
	for _, name := range names {
		e, own, ok := f.find(name)
		if !ok || !own && (len(f.includes) > 0 || !writable(name)) {
			return nil, f.missing(name)
		}
		if !own {
			// A space more or less in the copied string means nothing.
			copied := apply(f.text[e.start:e.end], f.address(e, host, port), -e.start)
			fmt.Fprintf(&added, "\n%s = %s", name, copied)
			continue
		}
		for _, e := range f.entries {
			if e.name == name {
				cuts = append(cuts, f.address(e, host, port)...)
			}
		}
	}
	if added.Len() > 0 {
		cuts = append(cuts, splice{f.end, f.end, added.String()})
	}
	out := apply(f.text, cuts, 0)
	return out, f.proves(out, names, host, port)
}

func (f *ini) missing(name string) error {
	if len(f.includes) > 0 {
		return fmt.Errorf("database %s is not in it but may be in a file that it includes (%s), which is not rewritten: move the section databases into this file",
			name, list(f.includes))
	}
	if !writable(name) {
		return fmt.Errorf("database %s is served by the entry * alone, and PgBouncer reads no entry of such a name: give its clients a name of letters, digits, _, - and ., with dbname= in its entry", name)
	}
	return fmt.Errorf("database %s is not in its section databases", name)
}

// address are the changes that lead entry e to host and port.
func (f *ini) address(e entry, host, port string) []splice {
	var cuts []splice
	has := map[string]bool{}
	for _, w := range e.words {
		switch w.key {
		case "host":
			cuts = append(cuts, splice{w.start, w.end, quoteWord(host)})
		case "port":
			cuts = append(cuts, splice{w.start, w.end, quoteWord(port)})
		case "hostaddr":
			// It would win over host. Its blank goes with it.
			cuts = append(cuts, splice{w.from, f.skip(w.end, e.end), ""})
		}
		has[w.key] = true
	}
	tail := ""
	if !has["host"] {
		tail += " host=" + quoteWord(host)
	}
	if !has["port"] {
		tail += " port=" + quoteWord(port)
	}
	if tail != "" {
		cuts = append(cuts, splice{e.end, e.end, tail})
	}
	return cuts
}

func (f *ini) skip(at, end int) int {
	for at < end && blank(f.text[at]) {
		at++
	}
	return at
}

// apply cuts text; the places are those of the text shifted by shift.
func apply(text []byte, cuts []splice, shift int) []byte {
	cuts = slices.Clone(cuts)
	slices.SortStableFunc(cuts, func(a, b splice) int { return a.start - b.start })
	var out []byte
	at := 0
	for _, c := range cuts {
		out = append(out, text[at:c.start+shift]...)
		out = append(out, c.with...)
		at = c.end + shift
	}
	return append(out, text[at:]...)
}

// proves reads the new text back: the named databases lead to host and port,
// and nothing else changed.
func (f *ini) proves(out []byte, names []string, host, port string) error {
	g, err := parseINI(out)
	if err != nil {
		return fmt.Errorf("read back what would be written: %w", err)
	}
	for _, name := range names {
		e, own, ok := g.find(name)
		h, p := e.address()
		if !ok || !own || h != host || p != port {
			return fmt.Errorf("read back what would be written: %s does not lead to %s port %s", name, host, port)
		}
		was, _, _ := f.find(name)
		if !maps.Equal(was.rest(), e.rest()) {
			return fmt.Errorf("read back what would be written: more than the address of %s would change", name)
		}
	}
	for _, was := range f.entries {
		if slices.Contains(names, was.name) {
			continue
		}
		if e, _, ok := g.find(was.name); !ok || !slices.EqualFunc(e.words, was.words, func(a, b word) bool { return a.key == b.key && a.value == b.value }) {
			last, _, _ := f.find(was.name)
			if last.start == was.start {
				return fmt.Errorf("read back what would be written: the entry %s would change, too", was.name)
			}
		}
	}
	return nil
}

// rest is the entry but for its address.
func (e entry) rest() map[string]string {
	m := map[string]string{}
	for _, w := range e.words {
		if w.key != "host" && w.key != "port" && w.key != "hostaddr" {
			m[w.key] = w.value
		}
	}
	return m
}

func quoteWord(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t'") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'"
}

// writable says whether an entry of that name can be made: PgBouncer reads these
// characters in a name, and up to 1.18 at least no quoted one, whatever its manual
// says of them.
func writable(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(c rune) bool {
		return c != '_' && c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
}
