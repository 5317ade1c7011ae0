package locate

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/target"
)

// Module finds the pieces of a rebuilt object in the module file that the
// kernel loads. It works as Kernel does, with names and relocations in the place
// of addresses.
type Module struct {
	view   *elfdiff.View
	mod    *target.Module
	ko     *elfdiff.View
	byName map[string][]*elfdiff.Piece
	to     map[*elfdiff.Piece]*elfdiff.Piece
	done   bool
}

// NewModule begins with the names that occur once in the module.
func NewModule(v *elfdiff.View, m *target.Module) (*Module, error) {
	ko, err := elfdiff.NewView(m.Object)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", m.Name, err)
	}
	l := &Module{view: v, mod: m, ko: ko, byName: map[string][]*elfdiff.Piece{}, to: map[*elfdiff.Piece]*elfdiff.Piece{}}
	for _, p := range ko.Pieces {
		for _, s := range p.Names {
			l.byName[s.Name] = append(l.byName[s.Name], p)
		}
	}
	for _, p := range v.Pieces {
		if p.Sym != nil && len(l.byName[p.Sym.Name]) == 1 {
			l.to[p] = l.byName[p.Sym.Name][0]
		}
	}
	return l, nil
}

// Module returns the module file.
func (l *Module) Module() *target.Module { return l.mod }

// View returns the module file cut into pieces.
func (l *Module) View() *elfdiff.View { return l.ko }

func (l *Module) spread() {
	if l.done {
		return
	}
	l.done = true
	spread(l.view.Pieces, l.to, l.follow, l.search)
}

func (l *Module) follow(p *elfdiff.Piece) []*elfdiff.Piece {
	k := l.to[p]
	if p.Func && l.verify(p, k) != nil {
		return nil
	}
	byOff := map[uint64]*elfdiff.Ref{}
	for i := range k.Refs {
		byOff[k.Refs[i].Off-(k.Origin()-k.Lo)] = &k.Refs[i]
	}
	var found []*elfdiff.Piece
	for i := range p.Refs {
		r := &p.Refs[i]
		if r.To.Kind != elfdiff.InPiece || r.To.Piece.Sym == nil || l.to[r.To.Piece] != nil {
			continue
		}
		q := r.To.Piece
		kr := byOff[r.Off-(p.Origin()-p.Lo)]
		if kr == nil || kr.To.Kind != elfdiff.InPiece {
			continue
		}
		if c := l.sharing(kr.To.Piece, q.Sym.Name); c != nil {
			l.to[q] = c
			found = append(found, q)
		}
	}
	return found
}

// sharing returns the piece that has a name and begins where k does; nil if there
// is none. A variable without a size, such as a lock class key without lockdep,
// begins where the next one does, or the gap in front of it, and a reference by way
// of the section does not tell which of them it means.
func (l *Module) sharing(k *elfdiff.Piece, name string) *elfdiff.Piece {
	for _, c := range l.byName[name] {
		if c == k || !c.Func && samePlace(c, k) {
			return c
		}
	}
	return nil
}

func samePlace(a, b *elfdiff.Piece) bool { return a.Sec == b.Sec && a.Origin() == b.Origin() }

func (l *Module) search() *elfdiff.Piece {
	for _, p := range l.view.Pieces {
		if l.to[p] != nil || !p.Func || p.Sym == nil {
			continue
		}
		var hits []*elfdiff.Piece
		for _, c := range l.byName[p.Sym.Name] {
			if l.verify(p, c) == nil {
				hits = append(hits, c)
			}
		}
		if len(hits) == 1 {
			l.to[p] = hits[0]
			return p
		}
	}
	return nil
}

// Verify compares a function, with its cold parts and the unnamed constants that
// it uses, with the module's.
func (l *Module) Verify(p *elfdiff.Piece) error {
	s, err := l.Symbol(p)
	if err != nil {
		return err
	}
	return l.verify(p, l.ko.PieceOf(s))
}

func (l *Module) verify(p, k *elfdiff.Piece) error {
	c := &moduleCheck{Module: l, seen: map[*elfdiff.Piece]*elfdiff.Piece{}}
	return c.function(p, k)
}

// moduleCheck is one comparison with a module's function.
type moduleCheck struct {
	*Module
	seen map[*elfdiff.Piece]*elfdiff.Piece
}

func (c *moduleCheck) function(p, k *elfdiff.Piece) error {
	if !k.Func {
		return &Difference{Func: p.Name(), What: "code", Detail: "it is no function in module " + c.mod.Name}
	}
	c.seen[p] = k
	entry := k.Origin() - k.Lo
	byOff := map[uint64]*elfdiff.Ref{}
	for i := range k.Refs {
		if k.Refs[i].Off >= entry {
			byOff[k.Refs[i].Off-entry] = &k.Refs[i]
		}
	}
	used := map[uint64]bool{}
	err := lockstep{
		arch: c.view.Arch, piece: p, other: entryCode(k),
		check: func(r *elfdiff.Ref, off uint64, _ int) error {
			kr := byOff[off]
			if kr == nil {
				return &Difference{Func: p.Name(), Off: off, What: "reference", Detail: "the running code has none where the rebuilt code refers to " + refName(r)}
			}
			used[off] = true
			return c.ref(p.Name(), r, kr, off)
		},
		fentry: func(off uint64) bool {
			kr := byOff[off+1]
			return kr != nil && kr.To.Kind == elfdiff.Undef && kr.To.Sym.Name == "__fentry__"
		},
	}.run()
	if err != nil {
		return err
	}
	sites := rewrittenSites(k)
	for i := range k.Refs {
		off := k.Refs[i].Off - entry
		// A field of an instruction that the build may rewrite was compared
		// with it.
		if k.Refs[i].Off < entry || used[off] || off >= uint64(len(entryCode(k))) || off > 0 && sites[off-1] != 0 {
			continue
		}
		return &Difference{Func: p.Name(), Off: off, What: "reference", Detail: fmt.Sprintf("it refers to %s where the rebuilt code has no reference", refName(&k.Refs[i]))}
	}
	return nil
}

// ref checks that two references reach the same.
func (c *moduleCheck) ref(name string, r, kr *elfdiff.Ref, off uint64) error {
	bad := func(what, format string, args ...any) error {
		return &Difference{Func: name, Off: off, What: what, Detail: fmt.Sprintf(format, args...)}
	}
	other := func() error {
		return bad("reference", "it refers to %s where the rebuilt code refers to %s", refName(kr), refName(r))
	}
	x, y := distance(r), distance(kr)
	switch {
	case r.To.Kind == elfdiff.Lost || kr.To.Kind == elfdiff.Lost:
		return bad("reference", "it refers to something that cannot be resolved")
	case r.To.Kind == elfdiff.Literal:
		if kr.To.Kind != elfdiff.Literal || !bytes.Equal(r.To.Content, kr.To.Content) || x != y {
			return bad("constant", "it refers to another constant than %q", clip(r.To.Content))
		}
		return nil
	case r.To.Kind == elfdiff.InPiece && kr.To.Kind == elfdiff.InPiece:
		if c.behind(r, kr) {
			return nil
		}
		if x != y {
			return bad("reference", "it refers to %s%+d where the rebuilt code refers to %s%+d", refName(kr), y, refName(r), x)
		}
		return c.piece(r.To.Piece, kr.To.Piece, other, bad)
	case r.To.Kind == elfdiff.Undef && kr.To.Kind == elfdiff.InPiece:
		if x == y && c.sharing(kr.To.Piece, r.To.Sym.Name) != nil {
			return nil
		}
		return other()
	case r.To.Kind != kr.To.Kind, x != y, refName(r) != refName(kr):
		return other()
	}
	return nil
}

// behind tells whether a reference leads to the end of a variable, and that of the
// module there, too: where sections are joined, the next variable may begin there.
func (c *moduleCheck) behind(r, kr *elfdiff.Ref) bool {
	q, k := r.To.Piece, kr.To.Piece
	if q.Func || k.Func || q == k || distance(r) != int64(q.Size()) {
		return false
	}
	end := int64(k.Origin()) + distance(kr)
	return slices.ContainsFunc(q.Names, func(n *elfobj.Symbol) bool {
		return slices.ContainsFunc(c.byName[n.Name], func(p *elfdiff.Piece) bool {
			return p.Sec == k.Sec && !p.Func && p.Size() == q.Size() && int64(p.Hi) == end
		})
	})
}

// piece checks that a piece of the module is the rebuilt one.
func (c *moduleCheck) piece(q, k *elfdiff.Piece, other func() error, bad func(what, format string, args ...any) error) error {
	if known, ok := c.seen[q]; ok {
		if known != k && (k.Func || !samePlace(known, k)) {
			return other()
		}
		return nil
	}
	c.seen[q] = k
	switch {
	case q.Sym == nil && k.Sym == nil && !q.Func && !k.Func:
		return c.content(q, k, bad)
	case q.Sym == nil && k.Sym == nil && q.Func && k.Func: // an out-of-line part
		return c.function(q, k)
	case q.Sym == nil || k.Sym == nil && (q.Func || k.Func):
		return other()
	case !slices.ContainsFunc(q.Names, func(n *elfobj.Symbol) bool { return c.sharing(k, n.Name) != nil }):
		return other()
	case q.Parent != nil && q.Func:
		return c.function(q, k)
	}
	return nil
}

// content compares data without a name.
func (c *moduleCheck) content(q, k *elfdiff.Piece, bad func(what, format string, args ...any) error) error {
	want, got := q.Bytes(), k.Bytes()
	if len(want) != len(got) || len(q.Refs) != len(k.Refs) || !bytes.Equal(want, got) {
		return bad("constant", "%s has another content", q.Name())
	}
	for i := range q.Refs {
		if q.Refs[i].Off != k.Refs[i].Off || q.Refs[i].Type != k.Refs[i].Type {
			return bad("constant", "%s has another content", q.Name())
		}
		if err := c.ref(q.Name(), &q.Refs[i], &k.Refs[i], q.Refs[i].Off); err != nil {
			return err
		}
	}
	return nil
}

// distance is how far behind what it names a reference leads, in bytes.
func distance(r *elfdiff.Ref) int64 {
	if r.To.Kind == elfdiff.Literal {
		return r.Addend
	}
	return r.Addend + r.Adj
}

// refName names what a reference reaches, for messages and for symbols of other
// objects.
func refName(r *elfdiff.Ref) string {
	switch {
	case r.To.Kind == elfdiff.InPiece:
		return r.To.Piece.Name()
	case r.To.Sym != nil:
		return r.To.Sym.Name
	case r.To.Kind == elfdiff.Literal:
		return fmt.Sprintf("%q", clip(r.To.Content))
	}
	return "address 0"
}

// Symbol returns the module's own symbol for a piece.
func (l *Module) Symbol(p *elfdiff.Piece) (*elfobj.Symbol, error) {
	all := l.byName[p.Sym.Name]
	if len(all) == 0 {
		return nil, fmt.Errorf("module %s has no symbol %s", l.mod.Name, p.Sym.Name)
	}
	k := l.to[p]
	if k == nil {
		l.spread()
		k = l.to[p]
	}
	if k == nil {
		return nil, fmt.Errorf("module %s has %d symbols named %s, and its code does not tell which of them this is", l.mod.Name, len(all), p.Sym.Name)
	}
	for _, s := range k.Names {
		if s.Name == p.Sym.Name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("module %s has no symbol %s", l.mod.Name, p.Sym.Name)
}
