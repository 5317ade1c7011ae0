package cpptext

import "slices"

// DeclaredInline returns those of the named functions that a preprocessed text
// defines with the keyword inline, in their order.
func DeclaredInline(text []byte, names []string) []string {
	p := &pool{names: newNames(1 << 15)}
	t := p.split(text)
	inline := map[string]bool{}
	for _, it := range t.items {
		if it.name == noName || it.nested {
			continue
		}
		if name := string(p.names.text[it.name]); slices.Contains(names, name) && p.isInline(text[it.start:it.end]) {
			inline[name] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !inline[n] })
}

// isInline tells whether an item is the definition of an inline function.
func (p *pool) isInline(item []byte) bool {
	l := newLexer(item, p.names)
	inline := false
	for t := l.next(); t.kind != eof; t = l.next() {
		switch {
		case t.is('{'):
			return inline
		case t.kind == ident && wordOf(t.id) == kwInline:
			inline = true
		}
	}
	return false
}
