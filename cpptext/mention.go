package cpptext

import "strings"

// mentionAll notes every identifier of a range of tokens as a mention. Words in
// the strings of asm count as well, for assembler code refers to symbols by text.
func (r *reader) mentionAll(from, to int) {
	asm := 0 // tokens before this index belong to asm
	for i := from; i < to; i++ {
		t := r.toks[i]
		switch {
		case t.kind == str && i < asm:
			r.mentionWords(t)
		case t.kind == pragma:
			r.mentionDirective(t)
		case t.kind != ident:
		case t.id >= uint32(len(keywords)):
			if i > 0 && r.selects(r.toks[i-1]) {
				r.mentionMember(t.id)
			} else {
				r.mention(t.id)
			}
		case wordOf(t.id) == kwAsm:
			asm = max(asm, r.groupEnd(i+1))
		case wordOf(t.id) == kwAttribute:
			i = r.attributeWithin(i) - 1
		case wordOf(t.id) == kwExtern && i > 0:
			r.blockExtern(i)
		}
	}
}

// selects tells whether a token is "." or "->", after which the name of a member
// stands.
func (r *reader) selects(t token) bool {
	return t.is('.') || t.kind == punct && t.long && t.op == '-' && r.src[t.start+1] == '>'
}

// groupEnd is the index of the parenthesis that closes the next group at or
// shortly after i: asm volatile goto (…).
func (r *reader) groupEnd(i int) int {
	for ; i < len(r.toks); i++ {
		t := r.toks[i]
		if t.is('(') {
			return int(t.id)
		}
		if t.kind != ident {
			break
		}
	}
	return i
}

// attributeWithin reads an attribute inside a range that is mentioned as a whole
// and returns the index after it. An attribute that makes the compiler keep a
// static variable of a function makes its statement a root.
func (r *reader) attributeWithin(at int) int {
	i, attrs := r.i, r.attrs
	defer func() { r.i, r.attrs = i, attrs }()
	r.i, r.attrs = at, attributes{}
	r.attribute()
	if r.failed {
		r.failed = false
		return at + 1
	}
	end := r.i
	if r.attrs.keep {
		r.keepStatement(at)
	}
	return end
}

// keepStatement notes the statement around the token with an index.
func (r *reader) keepStatement(at int) {
	from := at
	for ; from > 0; from-- {
		t := r.toks[from-1]
		if t.is(')') || t.is(']') {
			from = int(t.id) + 1
			continue
		}
		if t.is(';') || t.is('{') {
			break
		}
		if t.is('}') || t.is('(') {
			r.loose = true
			return
		}
	}
	if from == 0 {
		return // the function's own attribute
	}
	r.i = at
	r.skipTo(';')
	r.keeps = append(r.keeps, span{uint32(from), uint32(min(r.i+1, len(r.toks)))})
}

// attribute reads __attribute__((…)). The names of attributes are no mentions;
// what stands in their parentheses is.
func (r *reader) attribute() {
	r.attrs.any = true
	r.i++
	outer := r.peek()
	if !outer.is('(') || r.i+1 >= len(r.toks) || !r.toks[r.i+1].is('(') {
		r.failed = true
		return
	}
	end := int(r.toks[r.i+1].id)
	for i := r.i + 2; i < end; i++ {
		t := r.toks[i]
		if t.kind != ident {
			continue
		}
		name := attributeName(r.src[t.start:t.end])
		r.attrs.keep = r.attrs.keep || keeping[name]
		r.attrs.section = r.attrs.section || name == "section"
		r.attrs.gnuInline = r.attrs.gnuInline || name == "gnu_inline"
		if open := r.toks[i+1]; open.is('(') {
			if keeping[name] {
				r.mentionStrings(i+2, int(open.id))
			}
			r.mentionAll(i+2, int(open.id))
			i = int(open.id)
		}
	}
	r.i = int(outer.id) + 1
}

// attributeName is an attribute's name without the underscores that it may have
// around it.
func attributeName(spelling []byte) string {
	return strings.TrimSuffix(strings.TrimPrefix(string(spelling), "__"), "__")
}

func (r *reader) mentionStrings(from, to int) {
	for i := from; i < to; i++ {
		if r.toks[i].kind == str {
			r.mentionWords(r.toks[i])
		}
	}
}

// mentionWords notes the words in a string.
func (r *reader) mentionWords(t token) {
	eachWord(r.src[t.start:t.end], func(w []byte) { r.mention(r.names.intern(w, hashOf(w))) })
}

// mentionDirective notes the words of a directive.
func (r *reader) mentionDirective(t token) { r.mentionWords(t) }

// eachWord calls f with the identifiers in b. Escape sequences are no part of
// them.
func eachWord(b []byte, f func([]byte)) {
	for i := 0; i < len(b); {
		switch c := classes[b[i]]; {
		case b[i] == '\\':
			i += 2
		case c == cIdent:
			start := i
			for i < len(b) && classes[b[i]] >= cIdent {
				i++
			}
			f(b[start:i])
		case c == cDigit: // 1b is no word
			for i < len(b) && classes[b[i]] >= cIdent {
				i++
			}
		default:
			i++
		}
	}
}

func hashOf(b []byte) uint32 {
	h := uint32(hashStart)
	for _, c := range b {
		h = (h ^ uint32(c)) * hashPrime
	}
	return h
}

// blockExtern notes the names that an extern declaration inside a function
// declares: its attributes hold for later declarations of that name as well.
func (r *reader) blockExtern(at int) {
	saved := *r
	_, mentions, deferred := r.marks()
	r.i, r.keeps, r.loose = at, nil, false
	s := r.specifiers()
	for !r.failed && s.typed {
		d := r.declarator(named)
		r.suffixes()
		if d.name == noName {
			r.failed = true
			break
		}
		r.pool.declared = append(r.pool.declared, d.name)
		if !r.peek().is(',') {
			r.failed = r.failed || !r.peek().is(';')
			break
		}
		r.i++
	}
	if r.failed {
		for i := at; i < len(r.toks) && !r.toks[i].is(';'); i++ {
			if isName(r.toks[i]) {
				r.pool.declared = append(r.pool.declared, r.toks[i].id)
			}
		}
	}
	r.pool.mentions, r.pool.deferred = r.pool.mentions[:mentions], r.pool.deferred[:deferred]
	*r = saved
}
