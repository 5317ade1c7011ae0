package elfdiff

// Correlation finds for each piece of the original the same function or
// variable in the patched object. Names that the source gives are compared as
// they are. Names that carry compiler-chosen numbers (static locals, clones)
// fall into groups without the number; within a group the twins are those that
// the same functions use and that look alike, and where several remain, those
// that stand in the same order, provided both sides have equally many. What
// is left over is new or removed if only one side has it; if both have, the
// variable cannot be identified, which is a problem when it has a state to
// keep.

import (
	"cmp"
	"debug/elf"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

type group struct{ orig, patched []*Piece }

// correlate sets Piece.Twin on both sides.
func (c *comparison) correlate() {
	c.pairByAnyName()
	groups := map[string]*group{}
	var order []string
	collect := func(v *View, side func(*group) *[]*Piece) {
		for _, p := range v.Pieces {
			if p.Sym == nil || p.Twin != nil {
				continue
			}
			// What only lives while the kernel boots is not what lives on.
			k := fmt.Sprint(p.key.base, "\x00", p.key.numbered, p.Func, p.Init)
			g := groups[k]
			if g == nil {
				g = &group{}
				groups[k] = g
				order = append(order, k)
			}
			s := side(g)
			*s = append(*s, p)
		}
	}
	collect(c.orig, func(g *group) *[]*Piece { return &g.orig })
	collect(c.patched, func(g *group) *[]*Piece { return &g.patched })
	// Functions first: whether two variables look alike depends on them.
	for _, funcs := range []bool{true, false} {
		for _, k := range order {
			g := groups[k]
			if first := append(slices.Clone(g.orig), g.patched...)[0]; first.Func == funcs {
				c.pair(g)
			}
		}
	}
	c.splitChangedConstants()
}

// pairByAnyName joins pieces that share a name of the source beside the one
// they are known by, which changes when a function gains or loses an alias.
// Names that meant one place and now mean two are a problem: the running kernel
// cannot tell them apart.
func (c *comparison) pairByAnyName() {
	o, p := uniqueNames(c.orig), uniqueNames(c.patched)
	for _, x := range c.orig.Pieces {
		ys := namesakes(x, p)
		if len(ys) > 1 {
			c.problems = append(c.problems, Problem{Kind: UnknownConstruct, At: x.Pos(x.entry()),
				Detail: fmt.Sprintf("%s and %s are one place in the running kernel and two in the patched object",
					min(ys[0].Name(), ys[1].Name()), max(ys[0].Name(), ys[1].Name())),
				Hint: "give the new function a name of its own and change the callers"})
		}
		if len(ys) == 1 && ys[0].key != x.key && len(namesakes(ys[0], o)) == 1 && ys[0].Func == x.Func && ys[0].Init == x.Init {
			join(x, ys[0])
		}
	}
}

// uniqueNames maps the names of the source that occur once.
func uniqueNames(v *View) map[string]*Piece {
	m := map[string]*Piece{}
	for _, p := range v.Pieces {
		for _, s := range p.Names {
			if _, twice := m[s.Name]; twice || keyOf(s.Name).numbered {
				m[s.Name] = nil
				continue
			}
			m[s.Name] = p
		}
	}
	return m
}

// namesakes returns the pieces that share a name with p, without repetition.
func namesakes(p *Piece, other map[string]*Piece) []*Piece {
	var out []*Piece
	for _, s := range p.Names {
		if q := other[s.Name]; q != nil && !slices.Contains(out, q) {
			out = append(out, q)
		}
	}
	return out
}

func join(p, q *Piece) { p.Twin, q.Twin = q, p }

func (c *comparison) pair(g *group) {
	if len(g.orig) == 0 || len(g.patched) == 0 {
		return
	}
	first := g.orig[0]
	if len(g.orig) == 1 && len(g.patched) == 1 {
		q := g.patched[0]
		switch {
		case !first.key.numbered || first.Func || sharesUser(first, q) || first.key.bookkeeping() || fingerprint(first) == fingerprint(q) && first.Kind == ReadOnly:
			join(first, q)
		case first.Kind == ReadOnly && q.Kind == ReadOnly:
			// Constants of different functions and of different content:
			// one is gone, the other is new.
		default:
			c.ambiguous(first, q)
		}
		return
	}
	// Same users and same looks, then same users, then same looks.
	for _, looks := range []func(*Piece) string{
		func(p *Piece) string { return strings.Join(p.users, ",") + "\x00" + fingerprint(p) },
		func(p *Piece) string { return strings.Join(p.users, ",") + "\x00" + shape(p) },
	} {
		c.pairAlike(g, looks)
	}
	if first.Func || !first.key.numbered { // or one name in several joined units
		c.pairAlike(g, fingerprint)
		c.pairByPosition(g)
	}
	if first.Func {
		return
	}
	o, p := untwinned(g.orig), untwinned(g.patched)
	if len(o) == 0 || len(p) == 0 || first.key.bookkeeping() || first.Kind == ReadOnly {
		return
	}
	for _, x := range o {
		for _, y := range p {
			if sharesUser(x, y) || !hasFunctions(c.patched, x.users) || !hasFunctions(c.orig, y.users) {
				c.ambiguous(x, y)
			}
		}
	}
}

// pairAlike joins pieces that look alike and are equally many on both sides.
func (c *comparison) pairAlike(g *group, look func(*Piece) string) {
	byLook := map[string]*group{}
	var order []string
	put := func(p *Piece, side func(*group) *[]*Piece) {
		l := look(p)
		if byLook[l] == nil {
			byLook[l] = &group{}
			order = append(order, l)
		}
		s := side(byLook[l])
		*s = append(*s, p)
	}
	for _, p := range untwinned(g.orig) {
		put(p, func(g *group) *[]*Piece { return &g.orig })
	}
	for _, p := range untwinned(g.patched) {
		put(p, func(g *group) *[]*Piece { return &g.patched })
	}
	for _, l := range order {
		c.pairByPosition(byLook[l])
	}
}

// pairByPosition joins what is left of a group in the order of the compiler's
// numbers, if both sides have equally many.
func (c *comparison) pairByPosition(g *group) {
	o, p := untwinned(g.orig), untwinned(g.patched)
	if len(o) != len(p) {
		return
	}
	byNumber := func(a, b *Piece) int { return cmp.Compare(number(a.Sym.Name), number(b.Sym.Name)) }
	slices.SortStableFunc(o, byNumber)
	slices.SortStableFunc(p, byNumber)
	for i := range o {
		join(o[i], p[i])
	}
}

func untwinned(ps []*Piece) []*Piece {
	var out []*Piece
	for _, p := range ps {
		if p.Twin == nil {
			out = append(out, p)
		}
	}
	return out
}

// number is the last compiler-chosen number in a name, or -1.
func number(name string) int {
	parts := strings.FieldsFunc(name, func(r rune) bool { return r == '.' || r == '_' })
	for i := len(parts) - 1; i >= 0; i-- {
		digits := parts[i][len(strings.TrimRight(parts[i], "0123456789")):]
		if n, err := strconv.Atoi(digits); err == nil {
			return n
		}
	}
	return -1
}

func sharesUser(p, q *Piece) bool {
	if len(p.users) == 0 && len(q.users) == 0 {
		return true
	}
	for _, u := range p.users {
		if _, ok := slices.BinarySearch(q.users, u); ok {
			return true
		}
	}
	return false
}

// hasFunctions tells whether an object has all the named functions. One that is
// missing may have been inlined, and its static locals with it.
func hasFunctions(v *View, names []string) bool {
	for _, n := range names {
		if !v.functions[n] {
			return false
		}
	}
	return true
}

// shape is what two versions of one variable have in common.
func shape(p *Piece) string { return fmt.Sprint(p.Kind, p.Size()) }

// fingerprint describes a piece's content without the compiler's numbers.
func fingerprint(p *Piece) string {
	var b strings.Builder
	fmt.Fprint(&b, shape(p), "\x00")
	b.Write(maskedBytes(p.Bytes(), p.Refs))
	for _, r := range p.Refs {
		fmt.Fprint(&b, "\x00", r.Off, r.Type)
		switch r.To.Kind {
		case InPiece:
			if r.To.Piece.Sym != nil {
				b.WriteString(r.To.Piece.key.base)
			}
		case Literal:
			b.Write(r.To.Content)
		case Undef:
			b.WriteString(r.To.Sym.Name)
		}
	}
	return b.String()
}

func (c *comparison) ambiguous(p, q *Piece) {
	c.problems = append(c.problems, Problem{
		Kind: AmbiguousStatic, At: q.Pos(q.entry()),
		Detail: fmt.Sprintf("static local variable %s (used by %s) cannot be told apart from %s (used by %s) of the running kernel",
			q.Name(), orNone(q.users), p.Name(), orNone(p.users)),
		Hint: "give the new variable another name, or keep the old one in the function that it was in",
	})
}

func orNone(users []string) string {
	if len(users) == 0 {
		return "nothing"
	}
	return strings.Join(users, ", ")
}

// splitChangedConstants undoes twins among copies that may travel: when such a
// constant or bookkeeping variable differs, the function that uses it has
// changed and takes its own copy along, while the old one stays as it is.
// Copies refer to copies (a dynamic debug descriptor to __func__), so it is
// repeated until nothing changes.
func (c *comparison) splitChangedConstants() {
	for again := true; again; {
		again = false
		for _, p := range c.orig.Pieces {
			q := p.Twin
			if q == nil || p.Func || c.sameContent(p, q, 0, 0) {
				continue
			}
			if MayTravel(p) && MayTravel(q) || c.provablyConst(q) && p.Kind == ReadOnly {
				p.Twin, q.Twin = nil, nil
				c.travels[q] = true
				again = true
			}
		}
	}
}

// MayTravel tells whether a copy of the piece serves as well as the original.
func MayTravel(p *Piece) bool {
	if p.Sym == nil {
		return true
	}
	return p.key.bookkeeping() || p.Kind == ReadOnly && compilerConst(p.Sym.Name)
}

// provablyConst tells whether a read-only object of the patched side is local,
// and only ever read by instructions that name it as a memory operand: then
// nobody can hold or compare its address.
func (c *comparison) provablyConst(q *Piece) bool {
	if q.Kind != ReadOnly || q.Sym == nil {
		return false
	}
	for _, s := range q.Names {
		if s.Bind != elf.STB_LOCAL {
			return false
		}
	}
	if c.addressTaken == nil {
		c.addressTaken = addressTaken(c.patched)
	}
	return !c.addressTaken[q]
}

// addressTaken finds the pieces that something reaches otherwise than by
// reading the place that an instruction names.
func addressTaken(v *View) map[*Piece]bool {
	m := map[*Piece]bool{}
	for _, p := range v.Pieces {
		v.EachRef(p, func(r *Ref) {
			if r.To.Kind == InPiece && !(p.Func && r.Memory) {
				m[r.To.Piece] = true
			}
		})
	}
	return m
}
