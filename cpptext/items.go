package cpptext

import (
	"bytes"
	"slices"
)

// How a text is cut into items.
//
// An item at file scope ends with the first ';' outside all brackets, or with
// the '}' that closes a function's body. A '{' opens a body if it follows the
// parentheses of a declarator, with attributes in between or not, and no '=' came
// before it. A directive that is left in a preprocessed text (#pragma) is an item
// of its own, or part of the item it stands in.

// itemKind is what an item does by itself.
type itemKind uint8

const (
	// root: code or data is emitted, or the item is not understood.
	root itemKind = iota
	// inert: nothing is emitted unless a name that the item declares is used.
	inert
	// assertion: nothing is emitted, but it can fail.
	assertion
)

// item is a piece of a text at file scope. Ranges are half open.
type item struct {
	start, end uint32 // bytes
	// Ranges of the pool's lists.
	declared, mentions, deferred, enums span
	// enumEnd is the offset from start of the brace that closes the enum which
	// enums are about.
	enumEnd uint32
	name    uint32 // for messages; noName
	kind    itemKind
	// nested marks a statement of the function after it in the list.
	nested bool
}

type span struct{ from, to uint32 }

const noName = ^uint32(0)

// deferral is a mention that only counts once a name is mentioned: that of a
// struct member which is a pointer to a type.
type deferral struct{ name, to uint32 }

// enumerator is one of an enum whose later members can be told from their text
// not to matter to earlier ones.
type enumerator struct {
	name uint32
	end  uint32 // bytes from the start of the item
}

// text is a preprocessed text and its items, in order.
type text struct {
	src   []byte
	items []item
	// sound is false if the text's brackets or literals do not match.
	sound bool
}

// pool is what the texts of one comparison share.
type pool struct {
	names    *names
	declared []uint32
	mentions []uint32 // see mention
	deferred []deferral
	enums    []enumerator

	toks []token // of the current item
	// odd: the current item holds a directive that is not about warnings.
	odd  bool
	open []uint32 // indices of brackets that are open
}

// A mention is an identifier's number times two, plus one if it can only be the
// name of a member (it follows "." or "->").
func (p *pool) mention(id uint32) { p.mentions = append(p.mentions, id<<1) }

func (p *pool) mentionMember(id uint32) { p.mentions = append(p.mentions, id<<1|1) }

// split cuts a whole text.
func (p *pool) split(src []byte) *text {
	t := &text{src: src, sound: true}
	l := newLexer(src, p.names)
	for p.nextItem(t, &l) {
	}
	return t
}

// frame is what two texts have in common, in bytes before and after whole items.
type frame struct{ before, after int }

// splitLike cuts a text that has long parts in common with one that is cut
// already: an item's bytes alone decide what it is.
func (p *pool) splitLike(src []byte, model *text) (t *text, common frame) {
	if !model.sound {
		return p.split(src), frame{}
	}
	t = &text{src: src, sound: true}
	prefix, suffix := commonPrefix(src, model.src), commonSuffix(src, model.src)
	l := newLexer(src, p.names)
	shared := 0
	for i, it := range model.items {
		if int(it.end) >= prefix {
			break
		}
		if !it.nested {
			shared, l.off, l.bol = i+1, int(it.end), false
		}
	}
	t.items = append(t.items, model.items[:shared]...)
	common.before = l.off
	for p.nextItem(t, &l) {
		rest := len(src) - l.off
		if rest > suffix {
			continue
		}
		at := uint32(len(model.src) - rest)
		first, found := slices.BinarySearchFunc(model.items, at, func(it item, at uint32) int { return int(it.end) - int(at) })
		if !found || model.items[first].nested {
			continue
		}
		for _, it := range model.items[first+1:] {
			it.start += uint32(l.off) - at
			it.end += uint32(l.off) - at
			t.items = append(t.items, it)
		}
		common.after = rest
		break
	}
	return t, common
}

// nextItem appends the next item, and is false at the end.
func (p *pool) nextItem(t *text, l *lexer) bool {
	if !p.collect(l) {
		t.sound = t.sound && len(p.toks) == 0
		return false
	}
	p.parse(t)
	return true
}

// collect reads the tokens of one item. It is false at the end of the text,
// with tokens left if the text does not end with an item.
func (p *pool) collect(l *lexer) bool {
	p.toks, p.open, p.odd = p.toks[:0], p.open[:0], false
	assigned, body := false, false
	for {
		t := l.next()
		switch t.kind {
		case eof:
			return false
		case invalid:
			p.toks = append(p.toks, t)
			return false
		case pragma:
			if len(p.toks) == 0 {
				p.toks = append(p.toks, t)
				return true
			}
			p.odd = p.odd || !aboutWarnings(l.src[t.start:t.end])
			continue
		}
		p.toks = append(p.toks, t)
		if t.kind != punct || t.long {
			continue
		}
		top := len(p.open) == 0
		switch t.op {
		case '=':
			assigned = assigned || top
		case ';':
			if top {
				return true
			}
		case '(', '[', '{':
			if top && t.op == '{' {
				body = !assigned && p.afterDeclarator(len(p.toks)-2)
			}
			p.open = append(p.open, uint32(len(p.toks)-1))
		case ')', ']', '}':
			if !p.closeBracket(t.op) {
				return false
			}
			if len(p.open) == 0 && t.op == '}' && body {
				return true
			}
		}
	}
}

// closeBracket links the last token to the bracket that it closes.
func (p *pool) closeBracket(op byte) bool {
	if len(p.open) == 0 {
		return false
	}
	closing := uint32(len(p.toks) - 1)
	opening := p.open[len(p.open)-1]
	want := map[byte]byte{'(': ')', '[': ']', '{': '}'}
	if want[p.toks[opening].op] != op {
		return false
	}
	p.open = p.open[:len(p.open)-1]
	p.toks[opening].id, p.toks[closing].id = closing, opening
	return true
}

// afterDeclarator tells whether the tokens up to the index i end with the
// parameters of a function, perhaps with attributes after them.
func (p *pool) afterDeclarator(i int) bool {
	for i > 0 && p.toks[i].is(')') {
		before := int(p.toks[i].id) - 1
		if before < 0 {
			return false
		}
		if b := p.toks[before]; b.kind != ident || wordOf(b.id) != kwAttribute {
			return true
		}
		i = before - 1
	}
	return false
}

// aboutWarnings tells whether a directive can change nothing but warnings.
func aboutWarnings(line []byte) bool {
	return bytes.HasPrefix(bytes.TrimSpace(line), []byte("#pragma GCC diagnostic"))
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for i+block <= n && bytes.Equal(a[i:i+block], b[i:i+block]) {
		i += block
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

func commonSuffix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for i+block <= n && bytes.Equal(a[len(a)-i-block:len(a)-i], b[len(b)-i-block:len(b)-i]) {
		i += block
	}
	for i < n && a[len(a)-1-i] == b[len(b)-1-i] {
		i++
	}
	return i
}

// block is how many bytes are compared at once.
const block = 256
