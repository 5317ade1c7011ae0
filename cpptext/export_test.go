package cpptext

// Item is an item at file scope, for tests.
type Item struct {
	Text    string
	At      int // byte offset in the text
	Name    string
	Inert   bool // as opposed to a root or an assertion
	Asserts bool
	Reached bool
	// PlainEnum is where the brace stands that ends an enum whose tail does
	// not matter; 0: none.
	PlainEnum int
}

// Items returns the items of a text, without statements inside functions.
func Items(src []byte) (items []Item, ok bool) {
	p := &pool{names: newNames(1 << 15)}
	t := p.split(src)
	g := p.reach(t)
	for i, it := range t.items {
		if it.nested {
			continue
		}
		x := Item{Text: string(src[it.start:it.end]), At: int(it.start), Inert: it.kind == inert, Asserts: it.kind == assertion, Reached: g.reached[i], PlainEnum: int(it.enumEnd)}
		if it.name != noName {
			x.Name = string(p.names.text[it.name])
		}
		items = append(items, x)
	}
	return items, t.sound
}

// Unmade returns those of a query's names that the files neither mention nor can
// make.
func (q *Query) Unmade(files []Hits) (out []string) {
	u := q.unite(files)
	for k, n := range q.names {
		if !u.have.has(q.base[k]+len(n)) && !u.makes(k) {
			out = append(out, n)
		}
	}
	return out
}

// Identifiers returns all identifiers of a text, without repetition.
func Identifiers(src []byte) (out []string) {
	n := newNames(1 << 15)
	l := newLexer(src, n)
	for l.next().kind != eof {
	}
	for _, w := range n.text[len(keywords):] {
		out = append(out, string(w))
	}
	return out
}
