package cpptext

import (
	"bytes"
	"slices"
)

// Why an equal list of reached items means an equal object.
//
// What the compiler emits for a unit is decided by the items that are emitted
// whether anything uses them or not (roots) and by the declarations that these
// use, directly or through others. In C every use goes by a name: a call, a type,
// a member (whose type's declaration was found by a name). So if the items that
// the roots reach are the same on both sides, and in the same order, the rest may
// differ.
//
// This assumes
//   - that the compiler drops static functions and variables that nothing uses:
//     gcc from -O1 on, without -fno-toplevel-reorder or -fkeep-*;
//   - that enums are not shortened (-fshort-enums);
//   - that its code does not depend on how many declarations came before. gcc
//     numbers declarations, and the numbers show in the names of local symbols
//     such as "once.12";
//   - that both texts compile. An error in a function that this unit does not use
//     is not seen, nor are warnings.
//
// Debug information is no part of the object here.
//
// Names that are made with __COUNTER__ (__UNIQUE_ID_x7) get other numbers when
// a header uses the counter more often than before. Two items that differ in
// such numbers only are the same if the renaming is one to one over the whole
// text.

// Outcome says whether the object can change.
type Outcome string

// The outcomes, from nothing to worst.
const (
	// Same: the texts are equal apart from line markers and white space.
	Same Outcome = "same"
	// Unreachable: they differ in declarations that no emitted code uses.
	Unreachable Outcome = "unreachable"
	// Differs: the object may change; only compiling it can tell.
	Differs Outcome = "differs"
)

// Verdict is the outcome of a comparison.
type Verdict struct {
	Outcome Outcome
	// Names are the items that differ and that emitted code uses, sorted:
	// functions, variables, types and tags. Only with Differs; empty if a
	// text is not understood at all.
	Names []string
}

// Compare tells whether the object of a unit can change if its preprocessed
// text, with or without line markers, changes from orig to patched. It keeps
// neither text.
func Compare(orig, patched []byte) Verdict {
	if bytes.Equal(orig, patched) {
		return Verdict{Outcome: Same}
	}
	p := &pool{names: newNames(1 << 15)}
	a := p.split(orig)
	b, differ := p.splitLike(patched, a)
	if p.sameTokens(orig[:len(orig)-differ.after], patched[:len(patched)-differ.after], differ.before) {
		return Verdict{Outcome: Same}
	}
	if !a.sound || !b.sound {
		return Verdict{Outcome: Differs}
	}
	c := &comparison{pool: p, orig: p.side(a), patched: p.side(b)}
	if c.sameItems() {
		return Verdict{Outcome: Unreachable}
	}
	return Verdict{Outcome: Differs, Names: c.difference()}
}

// side is what counts of one text: the contents of the items that are reached.
type side struct {
	items    []item
	contents [][]byte // by item
}

func (p *pool) side(t *text) (s side) {
	g := p.reach(t)
	for i, it := range t.items {
		if g.reached[i] {
			s.items = append(s.items, it)
			s.contents = append(s.contents, g.content(t, it))
		}
	}
	return s
}

// content is the text of a reached item, without the enumerators behind the last
// one that is mentioned.
func (g *graph) content(t *text, it item) []byte {
	all := t.src[it.start:it.end]
	if it.enumEnd == 0 {
		return all
	}
	enums := g.enums[it.enums.from:it.enums.to]
	n := len(enums)
	for n > 0 && g.seen[enums[n-1].name] == 0 {
		n--
	}
	head := all[:bytes.IndexByte(all, '{')+1]
	if n > 0 {
		head = all[:enums[n-1].end]
	}
	return slices.Concat(head, all[it.enumEnd:])
}

// sameTokens compares texts from an offset on, counters included.
func (p *pool) sameTokens(a, b []byte, from int) bool {
	la, lb := newLexer(a, p.names), newLexer(b, p.names)
	la.off, lb.off = from, from
	la.bol, lb.bol = from == 0, from == 0
	for {
		x, y := la.next(), lb.next()
		if x.kind != y.kind || !bytes.Equal(a[x.start:x.end], b[y.start:y.end]) {
			return false
		}
		if x.kind == eof {
			return true
		}
	}
}

// comparison compares the reached items of two texts.
type comparison struct {
	*pool
	orig, patched side
	counted       renaming
}

// sameItems compares all items. Most are the same byte for byte; only if any
// counted name has changed do all have to be read for it.
func (c *comparison) sameItems() bool {
	a, b := c.orig.contents, c.patched.contents
	if len(a) != len(b) {
		return false
	}
	c.counted = newRenaming()
	for i := range a {
		if !bytes.Equal(a[i], b[i]) && !c.sameItem(a[i], b[i]) {
			return false
		}
	}
	if !c.counted.changed {
		return true
	}
	c.counted = newRenaming()
	for i := range a {
		if !c.sameItem(a[i], b[i]) {
			return false
		}
	}
	return true
}

// sameItem compares two items token by token.
func (c *comparison) sameItem(x, y []byte) bool {
	la, lb := newLexer(x, c.names), newLexer(y, c.names)
	asm := asmPair{}
	for {
		s, t := la.next(), lb.next()
		if s.kind != t.kind {
			return false
		}
		if s.kind == eof {
			return true
		}
		u, v := x[s.start:s.end], y[t.start:t.end]
		var same bool
		switch {
		case s.kind == ident:
			same = c.counted.same(u, v)
			asm.word(wordOf(s.id))
		case asm.depth > 0:
			same = asm.token(s, u, v, &c.counted)
		default:
			same = bytes.Equal(u, v)
			asm.outside(s)
		}
		if !same {
			return false
		}
	}
}

// difference returns the names of the items that are on one side only.
func (c *comparison) difference() []string {
	count := map[uint64]int{}
	for _, x := range c.patched.contents {
		count[c.fingerprint(x)]++
	}
	var out []string
	for i, x := range c.orig.contents {
		f := c.fingerprint(x)
		if count[f]--; count[f] < 0 {
			out = append(out, c.nameOf(c.orig, i))
		}
	}
	// What is left over stands at the end of its kind, as anything added does.
	for i, x := range slices.Backward(c.patched.contents) {
		f := c.fingerprint(x)
		if count[f]--; count[f] >= 0 {
			out = append(out, c.nameOf(c.patched, i))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// fingerprint is a hash of an item's tokens without counters.
func (c *comparison) fingerprint(src []byte) uint64 {
	const start, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(start)
	l := newLexer(src, c.names)
	for {
		tok := l.next()
		if tok.kind == eof || tok.kind == invalid {
			return h
		}
		head, tail := src[tok.start:tok.end], []byte(nil)
		if tok.kind == ident {
			head, tail = uncounted(head)
		}
		for _, part := range [][]byte{head, tail, {0}} {
			for _, b := range part {
				h = (h ^ uint64(b)) * prime
			}
		}
	}
}

func (c *comparison) nameOf(s side, i int) string {
	it := s.items[i]
	if it.name == noName && it.declared.from < it.declared.to {
		it.name = c.declared[it.declared.from]
	}
	if it.name != noName {
		return string(c.names.text[it.name])
	}
	l := newLexer(s.contents[i], c.names)
	first := l.next()
	return string(s.contents[i][first.start:first.end])
}
