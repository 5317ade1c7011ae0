package cpptext

// Item is an item at file scope, for tests.
type Item struct {
	Text    string
	At      int // byte offset in the text
	Name    string
	Inert   bool // as opposed to a root or an assertion
	Asserts bool
	Reached bool
}

// Items returns the items of a text, without statements inside functions.
func Items(src []byte) (items []Item, ok bool) {
	p := &pool{names: newNames()}
	t := p.split(src)
	g := p.reach(t)
	for i, it := range t.items {
		if it.nested {
			continue
		}
		x := Item{Text: string(src[it.start:it.end]), At: int(it.start), Inert: it.kind == inert, Asserts: it.kind == assertion, Reached: g.reached[i]}
		if it.name != noName {
			x.Name = string(p.names.text[it.name])
		}
		items = append(items, x)
	}
	return items, t.sound
}
