package typediff

// How two units are compared.
//
// A type is looked for in the other unit by its tag and, for types that are local
// to a function, that function. Records are compared field by field, where the
// members of unnamed structs and unions count as fields of the record around
// them. If the fields of a record move or grow only because a record that it holds
// by value has another size, then that other record is named and not this one.

import (
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
)

// Kind is what has happened to a type.
type Kind string

// The kinds of changes. Those of the second group leave every existing object as
// valid as it was.
const (
	Added       Kind = "field-added"
	Removed     Kind = "field-removed"
	Moved       Kind = "field-moved"
	FieldSize   Kind = "field-resized"
	Retyped     Kind = "field-retyped"
	Prototype   Kind = "callback-prototype-changed"
	Size        Kind = "resized"
	ValueChange Kind = "enum-value-changed"

	Renamed      Kind = "field-renamed"
	SameBits     Kind = "field-retyped-same-bits"
	ValueAdded   Kind = "enum-value-added"
	ValueRemoved Kind = "enum-value-removed"
	CountChange  Kind = "enum-count-changed"
)

// Harmless tells whether existing objects stay valid under a change.
func (k Kind) Harmless() bool {
	switch k {
	case Renamed, SameBits, ValueAdded, ValueRemoved, CountChange:
		return true
	}
	return false
}

// Place is where a field lies, in bits from the start of its type.
type Place struct{ Off, Bits int64 }

// Change is one thing that happened to a type.
type Change struct {
	Kind  Kind
	Field string // a path through unnamed types, or an enumerator; empty for the whole type
	// Line is that of the field in the type's file, from 1: in the patched
	// text, or for removed fields in the original; 0 if it is not known.
	Line     int
	Old, New Place  // fields
	From, To string // the types or names of the field
	// Fits: an added field lies where no field was before, in a type of
	// unchanged size. After and Before are its neighbours; "" for the ends.
	Fits          bool
	After, Before string
	// Shares is a field that an added one shares its bits with (a union).
	Shares             string
	OldValue, NewValue int64 // enumerators
}

// TypeChange is a type that is another one after the patch.
type TypeChange struct {
	Name             string // "struct foo", "enum bar", a typedef's name, or "enum {FIRST, ...}"
	Local            string // the function that the type is local to
	File             string // as the debug information has it, patched side
	Line             int    // from 1
	OldSize, NewSize int64  // bytes
	Changes          []Change
	// Within are the types that hold this one by value, directly or not.
	Within []string
	// Functions have a parameter, variable or result that is or holds the
	// type, or points to it; in the original. What a function reaches through
	// other types is not listed.
	Functions []string
	// Variables are the global and static ones that are or hold the type.
	Variables []string
	// Linked says that another type or a variable points to the type.
	Linked bool
}

// Harmless tells whether existing objects stay valid.
func (t TypeChange) Harmless() bool {
	return !slices.ContainsFunc(t.Changes, func(c Change) bool { return !c.Kind.Harmless() })
}

// Compare lists the types that both units have and that differ, sorted by name.
func Compare(orig, patched *Unit) []TypeChange {
	s := &sides{orig: orig, patched: patched, busy: map[[2]*node]bool{}}
	found := map[*node]*TypeChange{}
	var order []*node
	for _, n := range orig.order {
		now := patched.tags[n.tag()]
		if orig.tags[n.tag()] != n || now == nil || n.kind != now.kind || n.kind == enumeration {
			continue
		}
		if c := s.record(n, now); len(c) > 0 {
			found[n] = newTypeChange(n, now, c)
			order = append(order, n)
		}
	}
	s.dropConsequences(found)
	out := s.enums()
	for _, n := range order {
		if t := found[n]; t != nil {
			out = append(out, use{t, n})
		}
	}
	return orig.users(out)
}

func newTypeChange(n, now *node, c []Change) *TypeChange {
	t := n.tag()
	return &TypeChange{Name: t.name, Local: t.scope, File: now.file, Line: now.line, OldSize: n.size, NewSize: now.size, Changes: c}
}

// field is a member by its path through unnamed types.
type field struct {
	path   string
	member       // off is from the start of the named member around it
	at     int64 // bits from the start of the record
	holder *node // the record that has it as a direct member
}

func (f field) end() int64 { return f.at + f.width() }

// fields lists the members of a record; those of unnamed ones in their place.
func fields(out []field, n *node, prefix string, rel, at int64, depth int) []field {
	for _, m := range n.members {
		inner := unnamed(m.typ)
		f := field{path: prefix + m.name, member: m, at: at + m.off, holder: n}
		f.off = rel + m.off
		switch {
		case depth > 16:
		case m.name == "" && inner != nil:
			out = fields(out, inner, prefix, rel+m.off, at+m.off, depth+1)
			continue
		case m.name == "" || m.width() == 0 && m.bits > 0:
			continue // an unnamed bit-field
		case inner != nil:
			out = append(out, f)
			suffix := "."
			if plain(m.typ).kind == array {
				suffix = "[]."
			}
			out = fields(out, inner, prefix+m.name+suffix, 0, at+m.off, depth+1)
			continue
		}
		out = append(out, f)
	}
	return out
}

// unnamed is the record without a name that a type is, or is an array of.
func unnamed(n *node) *node {
	n = plain(n)
	for n != nil && n.kind == array {
		n = plain(n.elem)
	}
	if n != nil && (n.kind == structure || n.kind == union) && n.name == "" && n.known == "" {
		return n
	}
	return nil
}

// record compares two records.
func (s *sides) record(a, b *node) []Change {
	before, after := fields(nil, a, "", 0, 0, 0), fields(nil, b, "", 0, 0, 0)
	old := map[string]field{}
	for _, f := range before {
		old[f.path] = f
	}
	now := map[string]field{}
	var out []Change
	var added []field
	for _, f := range after {
		now[f.path] = f
		if o, ok := old[f.path]; ok {
			out = append(out, s.field(o, f)...)
		} else {
			added = append(added, f)
		}
	}
	for _, f := range before {
		if _, ok := now[f.path]; ok {
			continue
		}
		i := slices.IndexFunc(added, func(g field) bool {
			return g.off == f.off && g.at == f.at && g.width() == f.width() && (s.same(f.typ, g.typ) || sameScalar(f.typ, g.typ))
		})
		if i >= 0 {
			g := added[i]
			added = slices.Delete(added, i, i+1)
			out = append(out, Change{Kind: Renamed, Field: g.path, Line: g.line, Old: place(f), New: place(g), From: f.path, To: g.path})
			continue
		}
		out = append(out, Change{Kind: Removed, Field: f.path, Line: f.line, Old: place(f), From: write(f.typ)})
	}
	for _, f := range added {
		out = append(out, addition(f, before, after, old, a.size, b.size))
	}
	if a.size != b.size && len(out) == 0 {
		out = append(out, Change{Kind: Size, Old: Place{Bits: 8 * a.size}, New: Place{Bits: 8 * b.size}})
	}
	return out
}

func place(f field) Place { return Place{f.at, f.width()} }

// field compares one field.
func (s *sides) field(o, f field) []Change {
	c := Change{Field: f.path, Line: f.line, Old: place(o), New: place(f), From: write(o.typ), To: write(f.typ)}
	var out []Change
	if o.off != f.off {
		c.Kind = Moved
		out = append(out, c)
	}
	same := s.same(o.typ, f.typ) || unnamed(o.typ) != nil && unnamed(f.typ) != nil && sameShape(o.typ, f.typ)
	switch {
	case o.width() != f.width():
		c.Kind = FieldSize
	case same:
		return out
	case isCallback(o.typ) && isCallback(f.typ):
		c.Kind = Prototype
	case sameScalar(o.typ, f.typ):
		c.Kind = SameBits
	default:
		c.Kind = Retyped
	}
	return append(out, c)
}

// sameShape: the members of unnamed records are fields by themselves; what is
// left are the dimensions of arrays around them.
func sameShape(a, b *node) bool {
	a, b = plain(a), plain(b)
	if a.kind != b.kind {
		return false
	}
	return a.kind != array || slices.Equal(extents(a), extents(b)) && sameShape(a.elem, b.elem)
}

func isCallback(n *node) bool {
	n = plain(n)
	if n == nil || n.kind != pointer {
		return false
	}
	f := plain(n.elem)
	return f != nil && f.kind == function
}

// addition tells where an added field lies among the ones of before.
func addition(f field, before, after []field, old map[string]field, oldSize, newSize int64) Change {
	c := Change{Kind: Added, Field: f.path, Line: f.line, New: place(f), To: write(f.typ)}
	free := f.end() <= 8*oldSize && f.width() > 0
	var low, high int64 = -1, -1
	for _, o := range before {
		inner := unnamed(o.typ) != nil && plain(o.typ).kind != array
		switch {
		case inner: // its fields count
		case o.width() == 0 || o.at+o.width() <= f.at:
			if o.width() > 0 && o.end() > low {
				low, c.After = o.end(), o.path
			}
		case o.at >= f.end():
			if high < 0 || o.at < high {
				high, c.Before = o.at, o.path
			}
		default:
			free = false
		}
	}
	for _, g := range after {
		if _, kept := old[g.path]; kept && g.at < f.end() && f.at < g.end() && c.Shares == "" && !strings.HasPrefix(f.path, g.path) {
			c.Shares = g.path
		}
	}
	c.Fits = free && oldSize == newSize
	if !c.Fits {
		c.After, c.Before = "", ""
	}
	return c
}

// dropConsequences removes the records that differ only because one that they
// hold by value has another size.
func (s *sides) dropConsequences(found map[*node]*TypeChange) {
	grown := map[string]bool{}
	for n, t := range found {
		if n.size != t.NewSize {
			grown[t.Name] = true
		}
	}
	own := func(n *node, t *TypeChange) bool {
		holds := false
		for _, f := range fields(nil, n, "", 0, 0, 0) {
			holds = holds || grown[heldName(f.typ)]
		}
		if !holds {
			return true
		}
		return slices.ContainsFunc(t.Changes, func(c Change) bool {
			switch c.Kind {
			case Moved, Size:
				return false
			case FieldSize:
				return !s.grows(n, c.Field, grown)
			}
			return true
		})
	}
	var drop []*node
	for n, t := range found {
		if !own(n, t) {
			drop = append(drop, n)
		}
	}
	for _, n := range drop {
		delete(found, n)
	}
}

// grows tells whether a field has the type that it had, and that type grows.
func (s *sides) grows(n *node, path string, grown map[string]bool) bool {
	now := s.patched.tags[n.tag()]
	var a, b *node
	for _, f := range fields(nil, n, "", 0, 0, 0) {
		if f.path == path {
			a = f.typ
		}
	}
	for _, f := range fields(nil, now, "", 0, 0, 0) {
		if f.path == path {
			b = f.typ
		}
	}
	if unnamed(a) != nil && unnamed(b) != nil {
		return sameShape(a, b)
	}
	return grown[heldName(a)] && s.same(a, b)
}

// heldName is the tag of the record that a type is, or is an array of.
func heldName(n *node) string {
	n = held(n)
	if n == nil {
		return ""
	}
	return n.tag().name
}

// held looks through arrays and names.
func held(n *node) *node {
	n = plain(n)
	for n != nil && n.kind == array {
		n = plain(n.elem)
	}
	return n
}

// sentinel tells whether an enumerator's name says that it counts the others.
func sentinel(name string) bool {
	for _, w := range strings.Split(strings.ToUpper(name), "_") {
		switch w {
		case "MAX", "NR", "NUM", "NUMBER", "COUNT", "CNT", "LAST", "END", "TOTAL":
			return true
		}
	}
	return false
}

// enums compares the enumerators at file scope by name: C has one space for all.
func (s *sides) enums() []use {
	changes := map[*node][]Change{}
	note := func(n *node, c Change) { changes[n] = append(changes[n], c) }
	values := map[*node]map[int64]string{} // of new enumerators, by patched enum
	for _, name := range slices.Sorted(maps.Keys(s.patched.enumers)) {
		v := s.patched.enumers[name]
		if _, known := s.orig.enumers[name]; !known {
			if values[v.enum] == nil {
				values[v.enum] = map[int64]string{}
			}
			values[v.enum][v.value] = name
		}
	}
	for _, n := range s.orig.order {
		if n.kind != enumeration || n.in != nil {
			continue
		}
		now := s.counterpart(n)
		if now == nil {
			continue
		}
		for i, v := range n.values {
			w, ok := s.patched.enumers[v.name]
			switch {
			case ok && w.value == v.value:
			case ok && counts(n, now, i):
				note(n, Change{Kind: CountChange, Field: v.name, OldValue: v.value, NewValue: w.value})
			case ok:
				note(n, Change{Kind: ValueChange, Field: v.name, OldValue: v.value, NewValue: w.value})
			case values[now][v.value] != "":
				note(n, Change{Kind: Renamed, Field: values[now][v.value], From: v.name, To: values[now][v.value], OldValue: v.value, NewValue: v.value})
				delete(values[now], v.value)
			default:
				note(n, Change{Kind: ValueRemoved, Field: v.name, OldValue: v.value})
			}
		}
		for _, value := range slices.Sorted(maps.Keys(values[now])) {
			note(n, Change{Kind: ValueAdded, Field: values[now][value], NewValue: value})
		}
	}
	var out []use
	for _, n := range s.orig.order {
		if c := changes[n]; len(c) > 0 {
			now := s.counterpart(n)
			t := newTypeChange(n, now, c)
			if t.Name == "" {
				t.Name = fmt.Sprintf("enum {%s, ...}", n.values[0].name)
			}
			out = append(out, use{t, n})
		}
	}
	return out
}

// counterpart finds an enum in the patched unit: by its tag, or without one by
// the first enumerator that is still there.
func (s *sides) counterpart(n *node) *node {
	if t := n.tag(); t.name != "" {
		if s.orig.tags[t] != n {
			return nil
		}
		if now := s.patched.tags[t]; now != nil && now.kind == enumeration {
			return now
		}
	}
	for _, v := range n.values {
		if w, ok := s.patched.enumers[v.name]; ok {
			return w.enum
		}
	}
	return nil
}

// counts tells whether the enumerator at i stands at the end to count those
// before it: it and all after it have names of that kind, and so has the last
// one of the patched enum.
func counts(n, now *node, i int) bool {
	for _, v := range n.values[i:] {
		if !sentinel(v.name) {
			return false
		}
	}
	last := now.values[len(now.values)-1]
	return sentinel(last.name)
}

// use is a changed type and its node in the original.
type use struct {
	*TypeChange
	node *node
}

// users fills in who holds and who uses the changed types.
func (u *Unit) users(changes []use) []TypeChange {
	if len(changes) == 0 {
		return nil
	}
	holders := map[*node][]*node{}
	linked := map[*node]bool{}
	for _, n := range u.order {
		u.link(n, n, holders, linked, 0)
	}
	for _, v := range u.vars {
		if n := pointee(v.typ); n != nil {
			linked[u.named(n)] = true
		}
	}
	out := make([]TypeChange, 0, len(changes))
	for _, c := range changes {
		inside := map[*node]bool{c.node: true}
		todo := []*node{c.node}
		for len(todo) > 0 {
			n := todo[0]
			todo = todo[1:]
			for _, h := range holders[n] {
				if !inside[h] {
					inside[h] = true
					todo = append(todo, h)
				}
			}
		}
		for n := range inside {
			if n != c.node && n.tag().name != "" {
				c.Within = append(c.Within, n.tag().name)
			}
			c.Linked = c.Linked || linked[n]
		}
		slices.Sort(c.Within)
		c.Variables = u.variablesOf(inside)
		c.Functions = u.functionsOf(inside)
		out = append(out, *c.TypeChange)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// named is the node that a tag stands for: a declaration and a definition are one.
func (u *Unit) named(n *node) *node {
	if t := n.tag(); t.name != "" && u.tags[t] != nil {
		return u.tags[t]
	}
	return n
}

// link notes what a record holds by value and what it points to. Unnamed records
// count as parts of the one around them.
func (u *Unit) link(n, outer *node, holders map[*node][]*node, linked map[*node]bool, depth int) {
	for _, m := range n.members {
		h := held(m.typ)
		switch {
		case h == nil:
		case h.isTagged() && h.tag().name == "" && depth < 16:
			u.link(h, outer, holders, linked, depth+1)
			holders[h] = append(holders[h], outer)
		case h.isTagged():
			holders[u.named(h)] = append(holders[u.named(h)], outer)
		default:
			if p := pointee(m.typ); p != nil {
				linked[u.named(p)] = true
			}
		}
	}
}

// pointee is the record that a pointer, or an array of pointers, leads to.
func pointee(n *node) *node {
	n = held(n)
	if n == nil || n.kind != pointer {
		return nil
	}
	for n != nil && (n.kind == pointer || n.kind == array) {
		n = plain(n.elem)
	}
	if n != nil && n.isTagged() {
		return n
	}
	return nil
}

func (u *Unit) variablesOf(inside map[*node]bool) []string {
	var out []string
	for _, v := range u.vars {
		if h := held(v.typ); h != nil && inside[u.named(h)] && v.name != "" {
			out = append(out, v.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// functionsOf lists the functions with variables of the types, also through
// functions that were inlined into them.
func (u *Unit) functionsOf(inside map[*node]bool) []string {
	memo := map[*code]bool{}
	uses := func(c *code) bool {
		if known, ok := memo[c]; ok {
			return known
		}
		memo[c] = slices.ContainsFunc(c.types, func(n *node) bool {
			h := held(n)
			if h != nil && h.kind == pointer {
				h = pointee(n)
			}
			return h != nil && inside[u.named(h)]
		})
		return memo[c]
	}
	var out []string
	for _, c := range u.listed {
		if !c.here || c.name == "" {
			continue
		}
		found := uses(c)
		for _, off := range c.origins {
			if o := u.codes[off]; o != nil {
				found = found || uses(o)
			}
		}
		if found {
			out = append(out, c.name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// SamePrototype tells whether a function or global variable of both units has the
// same type in both, apart from the content of what has a tag.
func SamePrototype(orig, patched *Unit, name string) bool {
	s := &sides{orig: orig, patched: patched, busy: map[[2]*node]bool{}}
	f, g := orig.codeNamed(name), patched.codeNamed(name)
	if f != nil && g != nil {
		return s.samePrototype(f, g)
	}
	for _, v := range orig.vars {
		for _, w := range patched.vars {
			if v.name == name && w.name == name {
				return s.same(v.typ, w.typ)
			}
		}
	}
	return false
}

// codeNamed returns a function's type; nil if the unit does not define it.
func (u *Unit) codeNamed(name string) *node {
	for _, c := range u.listed {
		if c.name != name || !c.here {
			continue
		}
		if o := u.codes[c.copyOf]; o != nil {
			c = o
		}
		return &node{kind: function, elem: c.result, params: c.params}
	}
	return nil
}
