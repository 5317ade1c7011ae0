package cpptext

import (
	"bytes"
	"math/bits"
	"slices"
	"strings"
)

// Where names occur in text that is not preprocessed.
//
// A name that stands in no file can still be made by ##. Each #define with ##
// gives patterns: a sequence of literal words and operands. A name can be made if
// it fits a pattern with words that stand in the unit's files for the operands.
// Depending on the pattern's literals, an operand may also be made itself:
//
//	none            no: words only
//	any             by patterns with literals, however deep
//	three letters   by a pattern of two operands as well
//
// What can be given for an operand is narrowed further in calls.go.
//
// A call of a macro that does nothing but paste (by its name: __PASTE, CONCATENATE)
// counts as ## where it stands in another #define. Its arguments are expanded, so
// a literal in capitals may stand for the one word it is defined as.
//
// That covers all names that ## makes in the sources of Linux 6.1 and 6.12
// (TestStockPasted); it is not proof for a patch that pastes more deeply.

// Query looks for a set of names in files.
type Query struct {
	names   []string
	longest int
	// base is, for each name, the number of its first place. The place of the
	// substring from i to j of a name of n bytes is base + i*(n+1) + j.
	base   []int
	places int
	parts  map[string][]int // of each substring, its places
	macros map[string]int   // those that are followed, numbered
}

// Hits is what one file has to do with a query's names.
type Hits struct {
	named    bool
	places   []int    // of its words that are parts of a name; sorted
	patterns []string // that may make a name, or a part of one; sorted
	aliases  []string // macros in capitals that stand for a part of a name: "X" separator "part"
	opened   []int    // parameters of followed macros; see Query.parameter
	given    []given
}

// NewQuery prepares to look for names.
func NewQuery(names []string) *Query {
	q := &Query{names: names, parts: map[string][]int{}}
	for _, n := range names {
		q.base = append(q.base, q.places)
		q.longest = max(q.longest, len(n))
		for i := range len(n) {
			for j := i + 1; j <= len(n); j++ {
				q.parts[n[i:j]] = append(q.parts[n[i:j]], q.places+i*(len(n)+1)+j)
			}
		}
		q.places += (len(n) + 1) * (len(n) + 1)
	}
	return q
}

// Mentions tells whether a text mentions any of the names.
func (q *Query) Mentions(text []byte) bool { return q.Look(text).named }

// Look reads a file. The result can be kept: it is about the file alone.
func (q *Query) Look(text []byte) Hits {
	s := &search{Query: q, places: map[int]bool{}, patterns: map[string]bool{}, opened: map[int]bool{}, given: map[given]bool{}}
	n := newNames(1 << 10)
	l := newLexer(text, n)
	for t := l.next(); t.kind != eof; t = l.next() {
		switch t.kind {
		case ident:
			if len(s.macros) > 0 {
				s.call(l, t, nil)
			}
		case number:
			s.word(text[t.start:t.end])
		case str, char, invalid:
			eachWord(text[t.start:t.end], s.word)
		case pragma:
			s.directive(text[t.start:t.end])
		}
	}
	for _, w := range n.text[len(keywords):] {
		s.word(w)
	}
	h := Hits{named: s.named}
	for p := range s.places {
		h.places = append(h.places, p)
	}
	for p := range s.patterns {
		h.patterns = append(h.patterns, p)
	}
	for p := range s.opened {
		h.opened = append(h.opened, p)
	}
	for g := range s.given {
		h.given = append(h.given, g)
	}
	slices.Sort(h.places)
	slices.Sort(h.patterns)
	h.aliases = s.aliases
	return h
}

// search is the state of reading one file.
type search struct {
	*Query
	scratch  *names // of macro bodies
	named    bool
	places   map[int]bool
	patterns map[string]bool
	aliases  []string
	opened   map[int]bool
	given    map[given]bool
}

func (s *search) word(w []byte) {
	if len(w) > s.longest {
		return
	}
	for _, p := range s.parts[string(w)] {
		s.places[p] = true
		s.named = s.named || s.whole(p)
	}
}

// whole tells whether a place is that of a name and not of a part.
func (q *Query) whole(p int) bool {
	k, _ := slices.BinarySearch(q.base, p+1)
	n := len(q.names[k-1])
	return p-q.base[k-1] == n
}

// directive reads a directive's words and, of a #define, the patterns.
func (s *search) directive(text []byte) {
	name, rest := directive(text)
	if string(name) != "define" {
		eachRun(text, s.word)
		return
	}
	if !bytes.Contains(text, []byte("##")) && !pastes(text) {
		eachRun(text, s.word)
		if f := bytes.Fields(rest); len(f) > 1 && capitals(f[0]) && s.parts[string(f[1])] != nil {
			s.aliases = append(s.aliases, string(f[0])+separator+string(f[1]))
		}
		if len(s.macros) > 0 {
			_, parameters, body := parseDefine(rest)
			s.calls(body, parameters)
		}
		return
	}
	macro, parameters := s.define(rest)
	s.word([]byte(macro))
	_, _, body := parseDefine(rest)
	s.calls(body, parameters)
}

// define finds the patterns of a #define. It returns its name and its parameters,
// with what stands for each in a pattern.
func (s *search) define(rest []byte) (macro string, parameters map[string]string) {
	macro, parameters, body := parseDefine(rest)
	s.body(body, parameters)
	return macro, parameters
}

// parseDefine takes what follows "#define" apart. Operands are open where they may
// have been expanded, or are several arguments.
func parseDefine(rest []byte) (macro string, parameters map[string]string, body []byte) {
	rest = bytes.TrimLeft(rest, " \t")
	n := wordLength(rest)
	macro, rest = string(rest[:n]), rest[n:]
	parameters = map[string]string{"__VA_ARGS__": operand}
	if len(rest) == 0 || rest[0] != '(' {
		return macro, parameters, rest
	}
	end := max(bytes.IndexByte(rest, ')'), 0)
	body = rest[end:]
	indirect := pastes(body)
	for i, p := range bytes.Split(rest[1:max(end, 1)], []byte(",")) {
		number := i
		if indirect || i >= maxParameters || bytes.Contains(p, []byte("...")) {
			number = -1
		}
		eachWord(p, func(w []byte) {
			parameters[string(w)] = operand
			if number >= 0 {
				parameters[string(w)] = closedOperand(macro, number)
			}
		})
	}
	return macro, parameters, body
}

// eachRun calls f with the runs of letters, digits and underscores in b.
func eachRun(b []byte, f func([]byte)) {
	for i := 0; i < len(b); {
		if n := wordLength(b[i:]); n > 0 {
			f(b[i : i+n])
			i += n
		} else {
			i++
		}
	}
}

// Patterns are written with a byte for an operand and one between the parts.
const (
	operand   = "\x00"
	separator = "\x01"
)

// pastes tells whether a text holds the name of a macro that only pastes.
func pastes(text []byte) bool {
	return bytes.Contains(text, []byte("PASTE")) || bytes.Contains(text, []byte("CONCAT"))
}

// body finds the patterns in a macro's body, and the other words. A word beside
// ## is part of a pattern, and no operand of another.
func (s *search) body(src []byte, operands map[string]string) {
	if s.scratch == nil {
		s.scratch = newNames(1 << 10)
	}
	l := glued{lexer: lexer{src: src, names: s.scratch}}
	var parts []string
	pasting := false
	flush := func(called bool) {
		if len(parts) == 1 {
			s.word([]byte(parts[0]))
		}
		if len(parts) > 1 {
			s.pattern(parts)
			s.byName(parts, called, l.lexer, operands)
		}
		parts = nil
	}
	for {
		t := l.next()
		text := src[t.start:t.end]
		if t.kind == punct && t.op == '#' && t.long {
			pasting = true
			continue
		}
		if !pasting || t.kind == eof {
			flush(t.is('('))
		}
		pasting = false
		switch {
		case t.kind == eof:
			return
		case operands[string(text)] != "":
			parts = append(parts, operands[string(text)])
		case t.kind == ident || t.kind == number:
			parts = append(parts, string(text))
		default:
			flush(false)
			eachRun(text, s.word)
		}
	}
}

// glued reads tokens, with ## for the commas between the arguments of macros that
// only paste, and without their names and parentheses.
type glued struct {
	lexer
	open []bool // for each parenthesis: it is that of such a macro
}

func (g *glued) next() token {
	for {
		t := g.lexer.next()
		top := len(g.open) > 0 && g.open[len(g.open)-1]
		switch {
		case t.kind == ident && pastes(g.src[t.start:t.end]):
			after := g.lexer
			if after.next().is('(') {
				g.lexer = after
				g.open = append(g.open, true)
				continue
			}
		case t.is('('):
			g.open = append(g.open, false)
		case t.is(')') && len(g.open) > 0:
			g.open = g.open[:len(g.open)-1]
			if top {
				continue
			}
		case t.is(',') && top:
			t.op, t.long = '#', true
		}
		return t
	}
}

// pattern notes the parts of a paste if it can make a name or a part of one.
func (s *search) pattern(parts []string) {
	for _, p := range parts {
		if !isOperand(p) && s.parts[p] == nil && !capitals([]byte(p)) {
			return
		}
	}
	s.patterns[strings.Join(parts, separator)] = true
}

// capitals tells whether a word is in capitals, as the names of constants are.
func capitals(w []byte) bool {
	return wordLength(w) == len(w) && bytes.Equal(w, bytes.ToUpper(w)) && len(bytes.Trim(w, "_0123456789")) > 0
}

// Sees tells whether a unit that reads the given files, and no others, mentions
// any of the names or can make one. What the compiler's command line defines
// (-D) counts as a file.
func (q *Query) Sees(files []Hits) bool {
	for _, f := range files {
		if f.named {
			return true
		}
	}
	u := q.unite(files)
	for k := range q.names {
		if u.makes(k) {
			return true
		}
	}
	return false
}

// union is what the files of one unit hold together.
type union struct {
	*Query
	have     placeSet
	opened   []bool // by parameter
	given    []given
	patterns [][]part
}

func (q *Query) unite(files []Hits) union {
	u := union{Query: q, have: newPlaceSet(q.places), opened: make([]bool, q.parameter(len(q.macros), 0))}
	aliases := map[string][]string{}
	for _, f := range files {
		for _, p := range f.places {
			u.have.add(p)
		}
		for _, p := range f.opened {
			u.opened[p] = true
		}
		u.given = append(u.given, f.given...)
		for _, a := range f.aliases {
			name, stands, _ := strings.Cut(a, separator)
			if !slices.Contains(aliases[name], stands) {
				aliases[name] = append(aliases[name], stands)
			}
		}
	}
	patterns := map[string]bool{}
	for _, f := range files {
		for _, p := range f.patterns {
			if !patterns[p] {
				patterns[p] = true
				u.expand(strings.Split(p, separator), 0, aliases)
			}
		}
	}
	return u
}

// expand adds a pattern, and what it is with aliases for the literals from an
// index on.
func (u *union) expand(p []string, from int, aliases map[string][]string) {
	u.patterns = append(u.patterns, u.parts(p))
	for i := from; i < len(p); i++ {
		for _, stands := range aliases[p[i]] {
			q := slices.Clone(p)
			q[i] = stands
			u.expand(q, i+1, aliases)
		}
	}
}

// makes tells whether the name with a number can be made.
func (u *union) makes(k int) bool {
	a := &assembly{name: u.names[k], base: u.base[k], have: u.have, simple: newPlaceSet(u.places), double: newPlaceSet(u.places)}
	for _, p := range u.patterns {
		a.two(p)
	}
	for more := true; more; {
		more = false
		for _, p := range u.patterns {
			more = a.inner(p) || more
		}
	}
	for _, p := range u.patterns {
		a.letters = letters(p)
		if a.fits(p, 0, len(a.name)) {
			return true
		}
	}
	return false
}

// letters counts those in a pattern's literals; a literal without any counts as one.
func letters(p []part) (n int) {
	for _, part := range p {
		if !part.operand {
			n += max(1, len(strings.Trim(part.literal, "_")))
		}
	}
	return n
}

// placeSet is a set of places.
type placeSet []uint64

func newPlaceSet(n int) placeSet { return make(placeSet, (n+bits.UintSize-1)/bits.UintSize) }

func (s placeSet) add(p int) { s[p/bits.UintSize] |= 1 << (p % bits.UintSize) }

func (s placeSet) has(p int) bool { return s[p/bits.UintSize]&(1<<(p%bits.UintSize)) != 0 }

// assembly tries to make one name.
type assembly struct {
	name string
	base int
	have placeSet // words that stand in a file
	// simple are words made of literals with letters and operands that are words
	// or simple themselves; double are made by two operands that are words.
	simple, double placeSet
	letters        int // in the literals of the pattern in question
}

func (a *assembly) place(from, to int) int { return a.base + from*(len(a.name)+1) + to }

// two notes what a pattern of two operands makes of words.
func (a *assembly) two(p []part) {
	if len(p) != 2 || !p[0].operand || !p[1].operand {
		return
	}
	for from := range len(a.name) {
		for mid := from + 1; mid < len(a.name); mid++ {
			if !a.isWord(p[0], from, mid) {
				continue
			}
			for to := mid + 1; to <= len(a.name); to++ {
				if a.isWord(p[1], mid, to) {
					a.double.add(a.place(from, to))
				}
			}
		}
	}
}

func (a *assembly) isWord(p part, from, to int) bool {
	set := p.words
	if set == nil {
		set = a.have
	}
	return set.has(a.place(from, to))
}

// inner notes what a pattern with literals makes as an operand of another one. It
// tells whether that is anything new.
func (a *assembly) inner(p []part) (more bool) {
	if a.letters = min(letters(p), 2); a.letters == 0 { // nothing double as an operand
		return false
	}
	for from := range len(a.name) {
		if !p[0].operand && !strings.HasPrefix(a.name[from:], p[0].literal) {
			continue
		}
		for to := from + 1; to <= len(a.name); to++ {
			if at := a.place(from, to); !a.simple.has(at) && a.fits(p, from, to) {
				a.simple.add(at)
				more = true
			}
		}
	}
	return more
}

// isOperand tells whether a part of the name can stand for an operand.
func (a *assembly) isOperand(p part, from, to int) bool {
	at := a.place(from, to)
	if p.words != nil {
		return p.words.has(at)
	}
	return a.have.has(at) || a.letters > 0 && a.simple.has(at) || a.letters >= 3 && a.double.has(at)
}

// fits tells whether a pattern makes the part of the name between two offsets.
func (a *assembly) fits(p []part, from, end int) bool {
	switch {
	case len(p) == 0:
		return from == end
	case !p[0].operand:
		return strings.HasPrefix(a.name[from:end], p[0].literal) && a.fits(p[1:], from+len(p[0].literal), end)
	case a.fits(p[1:], from, end): // nothing is given for the operand
		return true
	}
	for to := from + 1; to <= end; to++ {
		if a.isOperand(p[0], from, to) && a.fits(p[1:], to, end) {
			return true
		}
	}
	return false
}
