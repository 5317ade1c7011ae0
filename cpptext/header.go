package cpptext

import (
	"bytes"
	"slices"
)

// What a change of a header can reach, judged before preprocessing.
//
// A header is cut into chunks: directives, and items as in items.go. The chunks
// that an edit touches declare or define names. Only text that mentions one of
// these names (or makes it by ##, see paste.go) can see the edit. Other chunks of
// the header that mention them count as touched too, and so on: what is left of
// the header, and every other file, has to be looked through.
//
// A changed condition, #include, #undef, #pragma or assertion, a definition that
// is emitted wherever the header is read, and a declaration that a macro makes
// give no names: then nothing can be said. A whole #if with its #endif may come or
// go.
//
// A chunk whose bytes change in any way is a changed one. Chunks that only move
// down are the same: the file must keep their line numbers (diff.Applied.Pin).
// A static variable with the attribute used inside an inline function, such as
// __ADDRESSABLE makes, is emitted wherever the header is read; here it counts as
// part of the function.

// Change is what an edit of a header changes.
type Change struct {
	// Names are what the touched chunks declare or define, sorted.
	Names []string
	// Rest is the new header without the touched chunks: what mentions Names
	// is found by Query.Look as in any other file.
	Rest []byte
}

// Changes finds the names that differ between two versions of a header. It is
// false if the edit may be seen by text that mentions none.
func Changes(oldHeader, newHeader []byte) (Change, bool) {
	h := &headers{names: newNames(1 << 10)}
	old, ok1 := h.cut(oldHeader)
	now, ok2 := h.cut(newHeader)
	if !ok1 || !ok2 || !h.align(old, now) || !h.close(old, now) {
		return Change{}, false
	}
	c := Change{Names: []string{}}
	for n := range h.changed {
		c.Names = append(c.Names, n)
	}
	slices.Sort(c.Names)
	for _, n := range c.Names {
		if slices.Contains(implicit, n) {
			return Change{}, false // the compiler uses it without a mention
		}
	}
	for _, k := range now {
		if !k.touched {
			c.Rest = append(append(c.Rest, k.text...), '\n')
		}
	}
	return c, true
}

// chunkKind is what a chunk is to the preprocessor.
type chunkKind uint8

const (
	code chunkKind = iota
	define
	opening // #if, #ifdef, #ifndef
	middle  // #elif, #else, ...
	closing // #endif
	otherDirective
)

type chunk struct {
	kind    chunkKind
	text    []byte
	toks    []token // of code; offsets are those of the header
	src     []byte  // the header
	touched bool
}

// headers is the state of one comparison.
type headers struct {
	names   *names
	changed map[string]bool
}

// cut splits a header into chunks.
func (h *headers) cut(src []byte) (chunks []chunk, ok bool) {
	l := newLexer(src, h.names)
	var toks []token
	var open []int
	assigned, body := false, false
	flush := func() {
		if len(toks) > 0 {
			chunks = append(chunks, chunk{text: src[toks[0].start:toks[len(toks)-1].end], toks: toks, src: src})
		}
		toks, assigned, body = nil, false, false
	}
	for {
		t := l.next()
		switch {
		case t.kind == eof:
			flush()
			return chunks, len(open) == 0
		case t.kind == invalid:
			return nil, false
		case t.kind == pragma && len(toks) == 0:
			chunks = append(chunks, chunk{kind: directiveKind(src[t.start:t.end]), text: src[t.start:t.end], src: src})
			continue
		}
		top := len(open) == 0
		if top && t.kind == pragma && toks[len(toks)-1].is(')') {
			flush()
			chunks = append(chunks, chunk{kind: directiveKind(src[t.start:t.end]), text: src[t.start:t.end], src: src})
			continue
		}
		if top && t.kind == ident && len(toks) > 0 && toks[len(toks)-1].is(')') && begins(wordOf(t.id)) {
			flush() // after a macro without ';'
		}
		toks = append(toks, t)
		switch {
		case t.is('=') && top:
			assigned = true
		case t.is(';') && top:
			flush()
		case t.is('(') || t.is('[') || t.is('{'):
			body = body || top && t.op == '{' && !assigned && len(toks) > 1 && !toks[0].is('{') && hasParameters(toks)
			open = append(open, len(toks)-1)
		case t.is(')') || t.is(']') || t.is('}'):
			if top || !pairs(toks[open[len(open)-1]].op, t.op) {
				return nil, false
			}
			toks[open[len(open)-1]].id = uint32(len(toks) - 1)
			open = open[:len(open)-1]
			if body && len(open) == 0 && t.op == '}' {
				flush()
			}
		}
	}
}

func pairs(open, close byte) bool {
	return open == '(' && close == ')' || open == '[' && close == ']' || open == '{' && close == '}'
}

// begins tells whether a keyword begins a declaration.
func begins(w word) bool { return w == kwStatic || w == kwExtern || w == kwTypedef }

// hasParameters tells whether the tokens up to a '{' can be those of a function:
// there are parentheses, and no struct, union or enum stands right before.
func hasParameters(toks []token) bool {
	n := len(toks) - 2
	if n > 0 && isName(toks[n]) {
		n--
	}
	if w := toks[n]; w.kind == ident && (wordOf(w.id) == kwStruct || wordOf(w.id) == kwEnum) {
		return false
	}
	return slices.ContainsFunc(toks, func(t token) bool { return t.is(')') })
}

// directive returns a directive's name and the rest of its line.
func directive(text []byte) (name, rest []byte) {
	text = bytes.TrimLeft(bytes.TrimPrefix(text, []byte("#")), " \t")
	n := wordLength(text)
	return text[:n], text[n:]
}

func directiveKind(text []byte) chunkKind {
	switch name, _ := directive(text); string(name) {
	case "define":
		return define
	case "if", "ifdef", "ifndef":
		return opening
	case "elif", "elifdef", "elifndef", "else":
		return middle
	case "endif":
		return closing
	}
	return otherDirective
}

// maxCells bounds the table that aligns two versions.
const maxCells = 1 << 24

// align marks the chunks that are not in both versions, and notes their names.
func (h *headers) align(old, now []chunk) bool {
	from := 0
	for from < len(old) && from < len(now) && bytes.Equal(old[from].text, now[from].text) {
		from++
	}
	to := 0
	for to < len(old)-from && to < len(now)-from && bytes.Equal(old[len(old)-1-to].text, now[len(now)-1-to].text) {
		to++
	}
	a, b := old[from:len(old)-to], now[from:len(now)-to]
	if len(a)*len(b) > maxCells {
		return false
	}
	runs := matchLongest(a, b)
	h.changed = map[string]bool{}
	for _, r := range runs {
		if !h.touch(r) {
			return false
		}
	}
	return true
}

// weight makes it most important that conditions match.
func (k chunk) weight() int32 {
	if k.kind == opening || k.kind == middle || k.kind == closing {
		return 1000
	}
	return 1
}

// matchLongest finds a heaviest common subsequence, and returns the runs of
// chunks between its elements: those of a and those of b.
func matchLongest(a, b []chunk) (runs [][]chunk) {
	width := len(b) + 1
	best := make([]int32, (len(a)+1)*width)
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if bytes.Equal(a[i].text, b[j].text) {
				best[i*width+j] = best[(i+1)*width+j+1] + a[i].weight()
			}
			best[i*width+j] = max(best[i*width+j], best[(i+1)*width+j], best[i*width+j+1])
		}
	}
	i, j := 0, 0
	fromA, fromB := 0, 0
	cut := func() {
		runs = append(runs, a[fromA:i], b[fromB:j])
	}
	for i < len(a) && j < len(b) {
		switch here := best[i*width+j]; {
		case bytes.Equal(a[i].text, b[j].text) && here == best[(i+1)*width+j+1]+a[i].weight():
			cut()
			i, j = i+1, j+1
			fromA, fromB = i, j
		case here == best[(i+1)*width+j]:
			i++
		default:
			j++
		}
	}
	i, j = len(a), len(b)
	cut()
	return runs
}

// touch notes the names of a run of changed chunks. Conditions in it must be
// whole, so that none of the chunks around changes its own.
func (h *headers) touch(run []chunk) bool {
	depth := 0
	for i := range run {
		switch k := &run[i]; k.kind {
		case opening:
			depth++
		case middle:
			if depth == 0 {
				return false
			}
		case closing:
			if depth--; depth < 0 {
				return false
			}
		default:
			if !h.mark(k) {
				return false
			}
		}
		run[i].touched = true
	}
	return depth == 0
}

// mark notes a chunk as touched, with the names that it declares.
func (h *headers) mark(k *chunk) bool {
	names, ok := h.declared(k)
	if !ok {
		return false
	}
	k.touched = true
	for _, n := range names {
		h.changed[n] = true
	}
	return true
}

// close touches the chunks that mention changed names, until there are no more.
func (h *headers) close(old, now []chunk) bool {
	for {
		before := len(h.changed)
		for _, chunks := range [][]chunk{old, now} {
			for i := range chunks {
				k := &chunks[i]
				if !k.touched && h.mentions(k.text) && !h.mark(k) {
					return false
				}
			}
		}
		if len(h.changed) == before {
			return true
		}
	}
}

func (h *headers) mentions(text []byte) (found bool) {
	eachWord(text, func(w []byte) { found = found || h.changed[string(w)] })
	return found
}

// declared returns the names that a chunk declares or defines. It is false if
// that is not certain, or not all that the chunk does.
func (h *headers) declared(k *chunk) (names []string, ok bool) {
	switch k.kind {
	case define:
		_, rest := directive(k.text)
		rest = bytes.TrimLeft(rest, " \t")
		n := wordLength(rest)
		return []string{string(rest[:n])}, n > 0
	case code:
		toks, ok := plainTokens(k)
		if !ok {
			return nil, false
		}
		d := &rawReader{src: k.src, toks: toks}
		return d.read()
	}
	return nil, false
}

// annotations are macros of the kernel that say something about a declaration
// and declare nothing themselves.
var annotations = map[string]bool{
	"__percpu": true, "__rcu": true, "__user": true, "__iomem": true, "__kernel": true, "__force": true, "__bitwise": true,
	"__nocast": true, "__private": true, "__safe": true, "__read_mostly": true, "__ro_after_init": true, "__must_check": true,
	"__always_inline": true, "__maybe_unused": true, "__always_unused": true, "__cold": true, "__hot": true, "__pure": true,
	"__attribute_const__": true, "__deprecated": true, "__malloc": true, "__noreturn": true, "__packed": true, "__aligned": true,
	"__printf": true, "__scanf": true, "__acquires": true, "__releases": true, "__must_hold": true, "__acquire": true,
	"__cond_acquires": true, "__counted_by": true, "__nonstring": true, "__alloc_size": true, "__realloc_size": true,
	"__flatten": true, "__no_kcsan": true, "__no_kasan_or_inline": true, "__no_sanitize_or_inline": true, "__noclone": true,
	"__randomize_layout": true, "__no_randomize_layout": true, "__sched": true, "__lockfunc": true, "__cpuidle": true,
	"__init": true, "__exit": true, "__initdata": true, "____cacheline_aligned": true, "____cacheline_aligned_in_smp": true,
	"__cacheline_aligned_in_smp": true, "__assume_aligned": true, "__returns_nonnull": true, "__latent_entropy": true,
	"asmlinkage": true, "notrace": true, "noinline": true, "noinline_for_stack": true, "nokprobe_inline": true, "__visible": true,
	"__nocfi": true, "__noscs": true, "__no_sanitize_address": true, "__no_profile": true,
}

// loud are macros that make the compiler emit what nothing refers to, or put it
// into a section of its own.
var loud = map[string]bool{
	"__used": true, "__section": true, "__weak": true, "__alias": true, "__retain": true, "__constructor": true, "__destructor": true,
}

// plainTokens are a chunk's tokens without annotations and attributes, which make
// no names. It is false if one of them makes code or data.
func plainTokens(k *chunk) (out []token, ok bool) {
	var open []int
	for i := 0; i < len(k.toks); i++ {
		t := k.toks[i]
		var name string
		if t.kind == ident {
			name = string(k.src[t.start:t.end])
		}
		if t.kind == ident && (wordOf(t.id) == kwExtension || wordOf(t.id) == kwAttribute || annotations[name]) {
			from := i
			if i+1 < len(k.toks) && k.toks[i+1].is('(') {
				i = int(k.toks[i+1].id)
			}
			if wordOf(t.id) == kwAttribute && emits(k, from, i) {
				return nil, false
			}
			continue
		} else if t.kind == ident && loud[name] {
			return nil, false
		}
		out = append(out, t)
		switch {
		case t.is('(') || t.is('[') || t.is('{'):
			open = append(open, len(out)-1)
		case (t.is(')') || t.is(']') || t.is('}')) && len(open) > 0:
			out[open[len(open)-1]].id = uint32(len(out) - 1)
			open = open[:len(open)-1]
		}
	}
	return out, true
}

// emits tells whether an attribute among a range of tokens is loud.
func emits(k *chunk, from, to int) bool {
	return slices.ContainsFunc(k.toks[from:to], func(t token) bool {
		name := attributeName(k.src[t.start:t.end])
		return t.kind == ident && (keeping[name] || name == "section" || name == "weak")
	})
}

// rawReader reads a declaration that has not been preprocessed.
type rawReader struct {
	src   []byte
	toks  []token
	names []string
}

func (d *rawReader) text(i int) string { return string(d.src[d.toks[i].start:d.toks[i].end]) }

func (d *rawReader) word(i int) word {
	if i >= 0 && i < len(d.toks) && d.toks[i].kind == ident {
		return wordOf(d.toks[i].id)
	}
	return notKeyword
}

// read returns the names that the declaration declares.
func (d *rawReader) read() ([]string, bool) {
	n := len(d.toks)
	if n == 0 {
		return nil, true
	}
	if n == 1 && d.toks[0].is(';') {
		return nil, true
	}
	for i, t := range d.toks {
		if t.kind == pragma && !d.inner(i) || d.word(i) == kwStaticAssert || d.word(i) == kwRegister {
			return nil, false
		}
	}
	ok := false
	switch w := d.word(0); {
	case d.toks[n-1].is('}'):
		ok = d.definition()
	case !d.toks[n-1].is(';'):
	case w == kwTypedef, (w == kwStruct || w == kwEnum) && (n == 3 || slices.ContainsFunc(d.toks, func(t token) bool { return t.is('{') })):
		ok = d.typeDefinition()
	default:
		ok = d.declaration()
	}
	if !ok {
		return nil, false
	}
	d.inside()
	slices.Sort(d.names)
	return slices.Compact(d.names), true
}

// inner takes a directive inside a declaration: a condition inside braces, or a
// macro.
func (d *rawReader) inner(i int) bool {
	text := d.src[d.toks[i].start:d.toks[i].end]
	switch directiveKind(text) {
	case define:
		_, rest := directive(text)
		rest = bytes.TrimLeft(rest, " \t")
		d.names = append(d.names, string(rest[:wordLength(rest)]))
		return true
	case opening, middle, closing:
		depth := 0
		for _, t := range d.toks[:i] {
			switch {
			case t.is('{'):
				depth++
			case t.is('}'):
				depth--
			}
		}
		return depth > 0
	}
	return false
}

// definition takes the definition of a function. It must be static: others are
// emitted.
func (d *rawReader) definition() bool {
	static := false
	for i := 0; i < len(d.toks) && !d.toks[i].is('{'); i++ {
		static = static || d.word(i) == kwStatic
	}
	return static && d.function('{')
}

// function notes the name before the parameters of a function whose declarator
// ends with the given token: the only name there that parentheses follow.
func (d *rawReader) function(end byte) bool {
	typed, found := false, false
	for i := 0; i < len(d.toks); i++ {
		t := d.toks[i]
		switch w := d.word(i); {
		case t.is(end):
			return found
		case t.is('('):
			return false // of something else than a name
		case t.kind == ident && i+1 < len(d.toks) && d.toks[i+1].is('('):
			if w == kwTypeof {
				typed = true
				i = int(d.toks[i+1].id)
				continue
			}
			if w != notKeyword || !typed || found {
				return false
			}
			d.names, found = append(d.names, d.text(i)), true
			i = int(d.toks[i+1].id)
		case w == kwType || w == kwStruct || w == kwEnum || t.kind == ident && w == notKeyword:
			if found {
				return false // a macro behind the parameters
			}
			typed = true
		case t.kind == ident || t.is('*'):
		default:
			return false
		}
	}
	return false
}

// typeDefinition takes typedefs and definitions of structs, unions and enums.
// The tags and enumerators are noted by inside.
func (d *rawReader) typeDefinition() bool {
	last := 0 // what follows the body, or the tag
	typedef := d.word(0) == kwTypedef
	for i := 0; i < len(d.toks); i++ {
		if t := d.toks[i]; t.is('{') {
			i = int(t.id)
			last = i + 1
		}
	}
	if !typedef {
		// struct TAG { … }; or struct TAG;
		if last == 0 {
			return len(d.toks) == 3
		}
		return last == len(d.toks)-1 && (d.toks[1].is('{') || d.toks[2].is('{'))
	}
	for i := last; i < len(d.toks); i++ {
		t := d.toks[i]
		switch {
		case t.is('('):
			// (*name)(…), (name)(…) or the parameters
			j := i + 1
			for j < len(d.toks) && d.toks[j].is('*') {
				j++
			}
			if j+1 < len(d.toks) && isName(d.toks[j]) && d.toks[j+1].is(')') {
				d.names = append(d.names, d.text(j))
			}
			i = int(t.id)
		case isName(t) && i+1 < len(d.toks) && d.toks[i+1].kind == punct && !d.toks[i+1].is('*'):
			d.names = append(d.names, d.text(i))
		}
	}
	return len(d.names) > 0
}

// declaration takes prototypes, extern variables and static variables.
func (d *rawReader) declaration() bool {
	stored := false // extern or static: anything else may be emitted
	parentheses, initialised := false, false
	for i := 0; i < len(d.toks) && !initialised; i++ {
		t := d.toks[i]
		stored = stored || d.word(i) == kwExtern || d.word(i) == kwStatic
		parentheses = parentheses || t.is('(') && d.word(i-1) != kwTypeof
		initialised = t.is('=')
		if t.is('[') {
			i = int(t.id)
		}
	}
	switch {
	case parentheses && !initialised:
		return d.function(';')
	case parentheses || !stored || initialised && d.word(0) != kwStatic:
		return false
	}
	typed := false
	for i := 0; i+1 < len(d.toks); i++ {
		t, next := d.toks[i], d.toks[i+1]
		switch {
		case d.word(i) == kwVolatile && d.word(0) == kwStatic, t.is('{'):
			return false
		case d.word(i) == kwStruct || d.word(i) == kwEnum:
			typed = true
			i++
		case isName(t) && (next.is(';') || next.is(',') || next.is('[') || next.is('=')):
			d.names = append(d.names, d.text(i))
			if next.is('=') {
				// More declarators are not looked for.
				return typed && !topComma(d.toks[i+1:])
			}
		case t.kind == ident:
			typed = true
		case t.is('['):
			i = int(t.id)
			if d.toks[i+1].is('=') {
				return typed && !topComma(d.toks[i+1:])
			}
		}
	}
	return typed && len(d.names) > 0
}

// topComma tells whether there is a comma outside brackets.
func topComma(toks []token) bool {
	depth := 0
	for _, t := range toks {
		switch {
		case t.is('(') || t.is('[') || t.is('{'):
			depth++
		case t.is(')') || t.is(']') || t.is('}'):
			depth--
		case t.is(',') && depth == 0:
			return true
		}
	}
	return false
}

// inside notes the tags and enumerators that are declared in braces. A macro
// among members may declare a tag by its first argument (struct_group_tagged).
func (d *rawReader) inside() {
	for i := range d.toks {
		w := d.word(i)
		if w != kwStruct && w != kwEnum {
			continue
		}
		open := i + 1
		if open < len(d.toks) && isName(d.toks[open]) {
			open++
		}
		if open >= len(d.toks) || !d.toks[open].is('{') {
			continue
		}
		if open == i+2 {
			d.names = append(d.names, d.text(i+1))
		}
		for k := open + 1; k < int(d.toks[open].id); k++ {
			if !isName(d.toks[k]) {
				continue
			}
			switch next := d.toks[k+1]; {
			case w == kwEnum && (next.is(',') || next.is('=') || next.is('}') || next.is('(') || next.kind == pragma):
				d.names = append(d.names, d.text(k))
			case w == kwStruct && next.is('(') && isName(d.toks[k+2]):
				d.names = append(d.names, d.text(k+2))
			}
		}
	}
}
