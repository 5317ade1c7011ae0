package cpptext

import "bytes"

// How an item is understood.
//
// An item is read as a declaration: specifiers, then declarators. That gives the
// names it declares and those it mentions. What the grammar here does not cover
// becomes a root that mentions all its identifiers.
//
// Three kinds of names that stand in an item are no mentions:
//
//   - the names of members and of a prototype's parameters: they are declared
//     there, and hide whatever else has that name;
//   - the type that a prototype's parameter points to: passing a pointer on needs
//     nothing of the type. (A function's body may look through its parameters, so
//     a definition mentions all that stands in it.)
//   - the type that a struct's member points to, until the member's name is
//     mentioned anywhere: without that name nothing gets at the pointer's value,
//     and the struct's layout does not depend on it. This is a deferral.

// attributes are what __attribute__ says, as far as it matters here.
type attributes struct {
	any       bool
	keep      bool // emitted although nothing refers to it
	section   bool
	gnuInline bool
}

// keeping are the attributes that make the compiler emit what nothing in the
// text refers to, or that make another symbol of it.
var keeping = map[string]bool{
	"used": true, "retain": true, "constructor": true, "destructor": true, "alias": true, "ifunc": true,
	"weakref": true, "symver": true, "no_reorder": true,
}

// specifiers are the part of a declaration before its declarators.
type specifiers struct {
	static, extern, typedef, inline, register, volatile bool

	typed   bool   // a type has been given
	ref     uint32 // the tag or the name of the type, if that is declared elsewhere; noName
	defined bool   // a struct, union or enum with its body
	tag     uint32 // of a struct, union or enum; noName
	other   bool   // there is more than a tag
}

// declarator is one declared thing.
type declarator struct {
	name uint32 // noName
	// pointer: the specified type is only pointed to, or the result of a
	// function pointer.
	pointer  bool
	function bool // name(parameters)
}

// reader reads one item's tokens.
type reader struct {
	*pool
	src    []byte
	i      int // next token
	failed bool
	attrs  attributes // of all the item, but not those in a body or an initialiser
	within int        // structs and parameter lists around the next token
	// enumEnd is the token that ends the enum which pool.enums are of; 0: none.
	enumEnd int
	// keeps are the token ranges of statements that are emitted on their own.
	keeps []span
	// loose: such a statement could not be told from its surroundings.
	loose bool
}

// parse appends the item that p.toks are.
func (p *pool) parse(t *text) {
	if p.toks[0].is(';') {
		return
	}
	it := item{start: p.toks[0].start, end: p.toks[len(p.toks)-1].end, name: noName}
	it.declared.from, it.mentions.from, it.deferred.from = p.marks()
	it.enums = span{uint32(len(p.enums)), uint32(len(p.enums))}
	r := &reader{pool: p, src: t.src}
	forward := false
	if p.toks[0].kind == pragma {
		r.mentionDirective(p.toks[0])
	} else {
		forward = r.item(&it)
	}
	if r.failed || r.loose || p.odd {
		p.reset(it)
		it.kind, forward, r.failed = root, false, false
		r.mentionAll(0, len(p.toks))
	}
	it.declared.to, it.mentions.to, it.deferred.to = p.marks()
	it.enums.to = uint32(len(p.enums))
	if it.kind == inert && r.enumEnd != 0 && !r.attrs.any {
		it.enumEnd = r.toks[r.enumEnd].start - it.start
	}
	if forward {
		// struct TAG; says nothing but which scope the tag belongs to, which
		// matters to warnings about pointer types only.
		return
	}
	if it.kind == inert {
		r.keepStatements(t, it)
	}
	t.items = append(t.items, it)
}

func (p *pool) marks() (declared, mentions, deferred uint32) {
	return uint32(len(p.declared)), uint32(len(p.mentions)), uint32(len(p.deferred))
}

// reset forgets what has been noted of an item.
func (p *pool) reset(it item) {
	p.declared, p.mentions, p.deferred = p.declared[:it.declared.from], p.mentions[:it.mentions.from], p.deferred[:it.deferred.from]
}

// keepStatements appends the statements in an inert function that are emitted
// even if the function is not, such as a static variable with the attribute used.
func (r *reader) keepStatements(t *text, it item) {
	for _, s := range r.keeps {
		k := item{start: r.toks[s.from].start, end: r.toks[s.to-1].end, name: it.name, kind: root, nested: true}
		k.declared.from, k.mentions.from, k.deferred.from = r.marks()
		r.mentionAll(int(s.from), int(s.to))
		r.pool.declared = r.pool.declared[:k.declared.from]
		k.declared.to, k.mentions.to, k.deferred.to = r.marks()
		t.items = append(t.items, k)
	}
}

func (r *reader) peek() token {
	if r.i < len(r.toks) {
		return r.toks[r.i]
	}
	return token{kind: eof}
}

// word is the meaning of the next token.
func (r *reader) word() word {
	if t := r.peek(); t.kind == ident {
		return wordOf(t.id)
	}
	return notKeyword
}

// isName tells whether a token is an identifier without meaning of its own.
func isName(t token) bool { return t.kind == ident && wordOf(t.id) == notKeyword }

// item reads the item; it tells whether that is "struct TAG;" and no more.
func (r *reader) item(it *item) (forward bool) {
	for r.word() == kwExtension {
		r.i++
	}
	switch r.word() {
	case kwAsm:
		r.mentionAll(0, len(r.toks))
		it.kind = root
		return false
	case kwStaticAssert:
		it.kind = assertion
		return false
	}
	s := r.specifiers()
	if r.peek().is(';') {
		it.kind, it.name = inert, s.tag
		if !s.defined {
			r.failed = r.failed || s.other || s.tag == noName
			return !r.failed
		}
		if r.attrs.keep {
			it.kind = root
		}
		return false
	}
	if s.ref != noName {
		r.mention(s.ref)
	}
	r.declarators(it, s)
	return false
}

// declarators reads the rest of a declaration or function definition.
func (r *reader) declarators(it *item, s specifiers) {
	functions, initialised := true, false
	for !r.failed {
		d := r.declarator(named)
		r.suffixes()
		if d.name == noName {
			r.failed = true
			return
		}
		if it.name == noName {
			it.name = d.name
		}
		functions = functions && d.function
		r.pool.declared = append(r.pool.declared, d.name)
		switch t := r.peek(); {
		case t.is('{'):
			r.definition(it, s)
			return
		case t.is('='):
			initialised = true
			from := r.i + 1
			r.skipTo(',', ';')
			r.mentionAll(from, r.i)
		}
		switch t := r.peek(); {
		case t.is(','):
			r.i++
		case t.is(';'):
			it.kind = s.kindOf(r.attrs, functions, initialised)
			return
		default:
			r.failed = true
		}
	}
}

// kindOf classifies a declaration that is not a function's definition.
func (s specifiers) kindOf(attrs attributes, functions, initialised bool) itemKind {
	switch {
	case s.typedef:
		return inert
	case attrs.keep || s.register:
		return root
	case s.extern && !initialised, functions && !initialised:
		return inert
	case s.static && !attrs.section && !s.volatile:
		return inert // variables that nothing uses are dropped
	}
	return root
}

// definition reads a function's body.
func (r *reader) definition(it *item, s specifiers) {
	open := r.peek()
	if !s.typed || int(open.id) != len(r.toks)-1 {
		r.failed = true
		return
	}
	it.kind = root
	switch {
	case r.attrs.keep:
	case s.static && (s.inline || !r.attrs.section):
		it.kind = inert
	case s.extern && s.inline && r.attrs.gnuInline:
		it.kind = inert // a function of that kind is never emitted
	}
	// The parameters' types matter to the body.
	r.pool.mentions, r.pool.deferred = r.pool.mentions[:it.mentions.from], r.pool.deferred[:it.deferred.from]
	r.mentionAll(0, len(r.toks))
}

// suffixes reads the asm label and the attributes after a declarator.
func (r *reader) suffixes() {
	for {
		switch r.word() {
		case kwAsm:
			from := r.i
			r.i++
			if !r.skipGroup('(') {
				return
			}
			r.mentionAll(from, r.i)
		case kwAttribute:
			r.attribute()
		default:
			return
		}
	}
}

// skipGroup skips a pair of brackets with all that is in it.
func (r *reader) skipGroup(op byte) bool {
	t := r.peek()
	if !t.is(op) {
		r.failed = true
		return false
	}
	r.i = int(t.id) + 1
	return true
}

// skipTo goes to the next of the given tokens outside brackets, or to the end.
func (r *reader) skipTo(stops ...byte) {
	for r.i < len(r.toks) {
		t := r.toks[r.i]
		if t.kind == punct && !t.long {
			if bytes.IndexByte(stops, t.op) >= 0 || t.op == ')' || t.op == ']' || t.op == '}' {
				return
			}
			if t.op == '(' || t.op == '[' || t.op == '{' {
				r.i = int(t.id)
			}
		}
		r.i++
	}
}

// specifiers reads the part of a declaration before the declarators.
func (r *reader) specifiers() specifiers {
	s := specifiers{ref: noName, tag: noName}
	for !r.failed {
		t := r.peek()
		if t.kind != ident {
			return s
		}
		w := wordOf(t.id)
		if w != kwStruct && w != kwEnum && w != kwAttribute && w != kwExtension {
			s.other = true
		}
		switch w {
		case kwStatic:
			s.static = true
		case kwExtern:
			s.extern = true
		case kwTypedef:
			s.typedef = true
		case kwInline:
			s.inline = true
		case kwRegister:
			s.register = true
		case kwVolatile:
			s.volatile = true
		case kwQualifier, kwExtension:
		case kwType:
			s.typed = true
		case kwTypeof, kwAlignas:
			r.typeof(&s)
			continue
		case kwAttribute:
			r.attribute()
			continue
		case kwStruct, kwEnum:
			r.tagged(&s, w)
			continue
		case notKeyword:
			if s.typed {
				return s
			}
			s.typed, s.ref = true, t.id
		default:
			return s
		}
		r.i++
	}
	return s
}

// typeof reads typeof(…), _Atomic(…) or _Alignas(…), or a qualifier _Atomic.
func (r *reader) typeof(s *specifiers) {
	alignment := r.word() == kwAlignas
	r.i++
	if !r.peek().is('(') {
		return
	}
	from := r.i
	r.skipGroup('(')
	r.mentionAll(from, r.i)
	s.typed = s.typed || !alignment
}

// tagged reads struct, union or enum with all that belongs to it.
func (r *reader) tagged(s *specifiers, w word) {
	s.typed = true
	r.i++
	for r.word() == kwAttribute {
		r.attribute()
	}
	if t := r.peek(); isName(t) {
		s.tag = t.id
		r.i++
	}
	open := r.peek()
	if !open.is('{') {
		s.ref = s.tag
		r.failed = r.failed || s.tag == noName
		return
	}
	s.defined = true
	if s.tag != noName {
		r.pool.declared = append(r.pool.declared, s.tag)
	}
	r.i++
	if w == kwEnum {
		r.enumerators(int(open.id))
	} else {
		r.within++
		r.members(int(open.id))
		r.within--
	}
	r.i = int(open.id) + 1
}

// enumerators reads the body of an enum. If each value is the one before plus
// one, or a small decimal number, then what follows an enumerator changes neither
// its value nor the enum's type (unsigned int, as no value is negative and no
// attribute says otherwise): such an enum is noted, so that only its part up to the
// last one in use is compared.
func (r *reader) enumerators(end int) {
	plain := r.within == 0 && r.enumEnd == 0
	from := len(r.pool.enums)
	for r.i < end && !r.failed {
		t := r.peek()
		if !isName(t) {
			r.failed = true
			return
		}
		r.pool.declared = append(r.pool.declared, t.id)
		r.i++
		for r.word() == kwAttribute {
			r.attribute()
		}
		if r.peek().is('=') {
			value := r.i + 1
			r.skipTo(',')
			r.mentionAll(value, r.i)
			plain = plain && r.i == value+1 && r.isSmall(r.toks[value])
		}
		r.pool.enums = append(r.pool.enums, enumerator{name: t.id, end: r.toks[r.i-1].end - r.toks[0].start})
		if r.peek().is(',') {
			r.i++
		} else if r.i != end {
			r.failed = true
		}
	}
	if plain && !r.failed {
		r.enumEnd = end
	} else {
		r.pool.enums = r.pool.enums[:from]
	}
}

// isSmall tells whether a token is a decimal number below 10^9.
func (r *reader) isSmall(t token) bool {
	text := r.src[t.start:t.end]
	return t.kind == number && len(text) <= 9 && len(bytes.Trim(text, "0123456789")) == 0 && (text[0] != '0' || len(text) == 1)
}

func (r *reader) members(end int) {
	for r.i < end && !r.failed {
		switch {
		case r.peek().is(';'):
			r.i++
			continue
		case r.word() == kwStaticAssert:
			r.skipTo(';')
			continue
		}
		s := r.specifiers()
		if s.ref != noName && r.peek().is(';') {
			r.mention(s.ref) // unnamed (-fms-extensions)
		}
		for !r.failed && !r.peek().is(';') {
			r.member(s)
			if !r.peek().is(',') {
				break
			}
			r.i++
		}
		if !r.peek().is(';') {
			r.failed = true
		}
	}
}

// member reads one declarator of a member.
func (r *reader) member(s specifiers) {
	d := r.declarator(unnamed)
	if r.peek().is(':') {
		from := r.i
		r.skipTo(',', ';')
		r.mentionAll(from, r.i)
	}
	r.suffixes()
	switch {
	case s.ref == noName:
	case d.pointer && d.name != noName:
		r.pool.deferred = append(r.pool.deferred, deferral{name: d.name, to: s.ref})
	default:
		r.mention(s.ref)
	}
}

// naming tells whether a declarator needs a name.
type naming uint8

const (
	named    naming = iota
	unnamed         // may lack a name, as a bit field
	abstract        // a parameter
)

func (r *reader) declarator(n naming) declarator {
	d := declarator{name: noName}
	for {
		switch w := r.word(); {
		case r.peek().is('*'):
			d.pointer = true
			r.i++
			continue
		case w == kwQualifier || w == kwVolatile:
			r.i++
			continue
		case w == kwAttribute:
			r.attribute()
			continue
		}
		break
	}
	direct := false
	switch t := r.peek(); {
	case isName(t):
		d.name, direct = t.id, true
		r.i++
	case t.is('(') && r.opensDeclarator(n):
		r.i++
		inner := r.declarator(n)
		d.name, d.pointer = inner.name, d.pointer || inner.pointer
		if !r.peek().is(')') {
			r.failed = true
			return d
		}
		r.i++
	}
	for first := true; !r.failed; first = false {
		switch t := r.peek(); {
		case t.is('['):
			r.mentionAll(r.i, int(t.id))
			r.i = int(t.id) + 1
		case t.is('('):
			r.parameters()
			d.function = d.function || direct && first
		default:
			return d
		}
	}
	return d
}

// opensDeclarator tells whether the parenthesis here holds a declarator rather
// than parameters.
func (r *reader) opensDeclarator(n naming) bool {
	if r.i+1 >= len(r.toks) {
		return false
	}
	t := r.toks[r.i+1]
	return t.is('*') || t.is('(') || t.kind == ident && wordOf(t.id) == kwAttribute || isName(t) && n != abstract
}

// parameters reads a parameter list. One that is not understood mentions all
// that stands in it.
func (r *reader) parameters() {
	open, end := r.i, int(r.peek().id)
	r.i++
	r.within++
	defer func() { r.within-- }()
	for r.i < end && !r.failed {
		if t := r.peek(); t.kind == punct && t.long && t.op == '.' { // "..."
			r.i++
		} else {
			s := r.specifiers()
			d := r.declarator(abstract)
			r.suffixes()
			if s.ref != noName && !d.pointer {
				r.mention(s.ref)
			}
			r.failed = r.failed || !s.typed
		}
		if r.peek().is(',') {
			r.i++
		} else if r.i != end {
			r.failed = true
		}
	}
	if r.failed {
		r.failed = false
		r.mentionAll(open, end)
	}
	r.i = end + 1
}
