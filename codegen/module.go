package codegen

import (
	"bytes"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/target"
)

// moduleLocator finds the pieces of a rebuilt object in the module file that
// the kernel loads. It works as locator does, with names and relocations in
// the place of addresses.
type moduleLocator struct {
	view   *elfdiff.View
	mod    *target.Module
	ko     *elfdiff.View
	byName map[string][]*elfdiff.Piece
	to     map[*elfdiff.Piece]*elfdiff.Piece
	done   bool
}

func newModuleLocator(v *elfdiff.View, m *target.Module) (*moduleLocator, error) {
	ko, err := elfdiff.NewView(m.Object)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", m.Name, err)
	}
	l := &moduleLocator{view: v, mod: m, ko: ko, byName: map[string][]*elfdiff.Piece{}, to: map[*elfdiff.Piece]*elfdiff.Piece{}}
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

func (l *moduleLocator) spread() {
	if l.done {
		return
	}
	l.done = true
	var queue []*elfdiff.Piece
	for _, p := range l.view.Pieces {
		if _, ok := l.to[p]; ok {
			queue = append(queue, p)
		}
	}
	for {
		for len(queue) > 0 {
			p := queue[0]
			queue = append(queue[1:], l.follow(p)...)
		}
		if p := l.search(); p != nil {
			queue = append(queue, p)
			continue
		}
		return
	}
}

func (l *moduleLocator) follow(p *elfdiff.Piece) []*elfdiff.Piece {
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
		if kr == nil || kr.To.Kind != elfdiff.InPiece || kr.To.Piece.Sym == nil {
			continue
		}
		for _, c := range l.byName[q.Sym.Name] {
			if c == kr.To.Piece {
				l.to[q] = c
				found = append(found, q)
			}
		}
	}
	return found
}

func (l *moduleLocator) search() *elfdiff.Piece {
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

// verify compares a rebuilt function with the module's.
func (l *moduleLocator) verify(p, k *elfdiff.Piece) error {
	if !k.Func {
		return fmt.Errorf("%s is no function in module %s", p.Name(), l.mod.Name)
	}
	byOff := map[uint64]*elfdiff.Ref{}
	masked := map[uint64]bool{}
	for i := range k.Refs {
		off := k.Refs[i].Off - (k.Origin() - k.Lo)
		byOff[off] = &k.Refs[i]
		for j := range uint64(k.Refs[i].Size) {
			masked[off+j] = true
		}
	}
	return lockstep{
		arch: l.view.Arch, piece: p, other: entryCode(k), masked: masked,
		check: func(r *elfdiff.Ref, off uint64, _ int) error {
			if kr := byOff[off]; kr != nil {
				return l.verifyRef(p, r, kr, off)
			}
			return nil
		},
	}.run()
}

// verifyRef checks that two references reach the same name or literal.
func (l *moduleLocator) verifyRef(p *elfdiff.Piece, r, kr *elfdiff.Ref, off uint64) error {
	x, y := refName(r), refName(kr)
	if x != "" && y != "" && x != y && !sharesName(r, kr) {
		return fmt.Errorf("%s in module %s refers to %s where the rebuilt code refers to %s", p.Name(), l.mod.Name, y, x)
	}
	if r.To.Kind == elfdiff.Literal && kr.To.Kind == elfdiff.Literal && !bytes.Equal(r.To.Content, kr.To.Content) {
		return fmt.Errorf("%s in module %s refers to another constant at +%#x", p.Name(), l.mod.Name, off)
	}
	return nil
}

func refName(r *elfdiff.Ref) string {
	switch {
	case r.To.Kind == elfdiff.Undef:
		return r.To.Sym.Name
	case r.To.Kind == elfdiff.InPiece && r.To.Piece.Sym != nil:
		return r.To.Piece.Sym.Name
	}
	return ""
}

// sharesName tells whether two references reach one place under two names.
func sharesName(a, b *elfdiff.Ref) bool {
	has := func(r *elfdiff.Ref, name string) bool {
		if r.To.Kind == elfdiff.InPiece {
			for _, s := range r.To.Piece.Names {
				if s.Name == name {
					return true
				}
			}
		}
		return false
	}
	return has(a, refName(b)) || has(b, refName(a))
}

// symbol returns the module's own symbol for a piece.
func (l *moduleLocator) symbol(p *elfdiff.Piece) (*elfobj.Symbol, error) {
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
