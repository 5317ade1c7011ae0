package verify

// References that leave the module for the running kernel: an import, which the
// module loader resolves by the kernel's table of exports, or a livepatch symbol,
// which the livepatch core resolves by kallsyms. Either must be the very function
// or variable that the patched object means.

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/modname"
)

// reachesKernel judges a relocation that leads out of the module.
func (c *check) reachesKernel(id pieceID, r *elfdiff.Ref, m *reloc, where string) {
	got, err := c.meaning(id.u, m)
	if err != nil {
		c.find(Patched, where, fmt.Sprintf("the relocation to %s: %v; it is %s in the patched object", symbolName(m.Sym), err, targetName(r)), reportHint)
		return
	}
	want, err := c.intended(id.u, r)
	if err != nil {
		c.find(Patched, where, fmt.Sprintf("%s: %v", targetName(r), err), reportHint)
		return
	}
	if got == nil || want == nil {
		if got != want {
			c.find(Patched, where, fmt.Sprintf("it leads to %s; it is %s in the patched object", symbolName(m.Sym), targetName(r)), reportHint)
		} else if m.Addend != r.Addend {
			c.find(Patched, where, fmt.Sprintf("the addend is %d; it is %d in the patched object", m.Addend, r.Addend), reportHint)
		}
		return
	}
	switch to := got.plus(m.Addend); {
	case to == want.plus(r.Addend):
	case *got == *want:
		c.find(Patched, where, fmt.Sprintf("the addend to %s is %d; it is %d in the patched object", symbolName(m.Sym), m.Addend, r.Addend), reportHint)
	default:
		c.find(Patched, where, fmt.Sprintf("it leads to %s%+d, which is another place than %s of the patched object", symbolName(m.Sym), m.Addend, targetName(r)), reportHint)
	}
}

// meaning is what a relocation's symbol will be in the running kernel, without
// the addend; nil for address 0.
func (c *check) meaning(u *unit, m *reloc) (*kernelPlace, error) {
	s := m.Sym
	switch {
	case s == nil:
		return nil, nil
	case m.klp != "" && s.Shndx != elfobj.SHNLivepatch:
		return nil, fmt.Errorf("it is no livepatch symbol, but the relocation is left to the livepatch core")
	case m.klp == "" && s.Shndx == elfobj.SHNLivepatch:
		return nil, fmt.Errorf("it is a livepatch symbol, but the relocation is not left to the livepatch core")
	case s.Shndx == elfobj.SHNLivepatch:
		return c.livepatchSymbol(u, m)
	case s.Undefined():
		return c.imported(s)
	case s.Shndx == elf.SHN_ABS:
		return &kernelPlace{object: "absolute", off: s.Value}, nil
	}
	return nil, fmt.Errorf("the symbol is of an unknown kind")
}

// livepatchSymbol resolves a livepatch symbol, and checks that the section which
// the relocation is in is applied when that symbol can be known.
func (c *check) livepatchSymbol(u *unit, m *reloc) (*kernelPlace, error) {
	object, name, pos, ok := klpSymbol(m.Sym.Name)
	if !ok {
		return nil, fmt.Errorf("it has not the form .klp.sym.OBJECT.NAME,POSITION")
	}
	if u != nil {
		// Code of a module may reach modules that it depends on.
		want := VMLinux
		if object != VMLinux {
			want = u.Object
		}
		if m.klp != want {
			return nil, fmt.Errorf("it is resolved when %s is there, and must be when %s is", m.klp, want)
		}
	}
	at, known := c.klp[m.Sym]
	if !known {
		var err error
		if at, err = c.v.resolve(object, name, pos); err != nil {
			return nil, err
		}
		c.klp[m.Sym] = at
	}
	return &at, nil
}

// imported resolves an undefined symbol as the module loader does.
func (c *check) imported(s *elfobj.Symbol) (*kernelPlace, error) {
	x, ok := c.v.kernel.Exports.Lookup(s.Name)
	switch {
	case ok && x.Module != VMLinux:
		return exportOf(x.Module, s.Name), nil
	case ok:
		if e, have := c.v.exports[s.Name]; have {
			return &kernelPlace{object: VMLinux, off: e.Addr}, nil
		}
		if c.v.exports != nil {
			return nil, fmt.Errorf("the kernel's image does not export it")
		}
		return c.v.exportedAt(s.Name)
	case s.Bind == elf.STB_WEAK:
		return nil, nil // stays 0
	}
	return nil, fmt.Errorf("the kernel does not export it")
}

// exportedAt finds an export by its name alone, where the image is not known.
func (v *Verifier) exportedAt(name string) (*kernelPlace, error) {
	at, err := v.global(name)
	return &at, err
}

// global finds the kernel's global symbol of a name. nm's letters tell it from
// static ones.
func (v *Verifier) global(name string) (kernelPlace, error) {
	var found []int
	all := v.kernel.Symtab.Named(name)
	for _, i := range all {
		if k := v.kernel.Symtab.At(i).Kind; k >= 'A' && k <= 'Z' {
			found = append(found, i)
		}
	}
	if len(found) == 0 && len(all) == 1 {
		found = all
	}
	switch len(found) {
	case 1:
		return kernelPlace{object: VMLinux, off: v.kernel.Symtab.At(found[0]).Addr}, nil
	case 0:
		return kernelPlace{}, fmt.Errorf("the running kernel has no such global symbol")
	}
	return kernelPlace{}, fmt.Errorf("the running kernel has %d global symbols of that name", len(found))
}

// intended is what a reference of the patched object means in the running
// kernel, without the addend; nil for address 0.
func (c *check) intended(u *unit, r *elfdiff.Ref) (*kernelPlace, error) {
	switch r.To.Kind {
	case elfdiff.Nothing:
		return nil, nil
	case elfdiff.Absolute:
		return &kernelPlace{object: "absolute", off: r.To.Sym.Value}, nil
	case elfdiff.InPiece:
		return c.intendedPiece(u, r)
	case elfdiff.Undef:
		return c.intendedSymbol(u, r.To.Sym)
	}
	return nil, fmt.Errorf("it must be in the module")
}

// intendedPiece is where the original of a piece is.
func (c *check) intendedPiece(u *unit, r *elfdiff.Ref) (*kernelPlace, error) {
	q := r.To.Piece
	twin := u.twin(q)
	if twin == nil {
		return nil, fmt.Errorf("it is new, or has no name, and must be in the module")
	}
	if _, changed := u.changed[u.plain[q]]; changed {
		switch {
		case !q.Func:
			return nil, fmt.Errorf("its content changes, and the relocation leads to the old one")
		case r.Addend+r.Adj != 0:
			return nil, fmt.Errorf("its code changes, and the relocation leads into the middle of the old one")
		case !twin.Traceable():
			return nil, fmt.Errorf("its code changes, and nothing redirects the old one")
		}
	}
	o, ok := u.origin[twin]
	if !ok {
		o.at, o.err = c.v.origin(u, twin)
		u.origin[twin] = o
	}
	if o.err != nil {
		return nil, o.err
	}
	return &o.at, nil
}

// origin locates an original piece in the running kernel.
func (v *Verifier) origin(u *unit, twin *elfdiff.Piece) (kernelPlace, error) {
	if u.module != nil {
		s, err := u.module.Symbol(twin)
		if err != nil {
			return kernelPlace{}, err
		}
		return kernelPlace{object: u.Object, sec: s.Section, off: s.Value}, nil
	}
	i, err := u.kernel.Symbol(twin)
	if err != nil {
		return kernelPlace{}, err
	}
	return kernelPlace{object: VMLinux, off: v.kernel.Symtab.At(i).Addr}, nil
}

// intendedSymbol is what the linker of the kernel makes of an undefined symbol of
// a unit.
func (c *check) intendedSymbol(u *unit, s *elfobj.Symbol) (*kernelPlace, error) {
	if own := u.defined[s.Name]; own != nil {
		return &kernelPlace{object: u.Object, sec: own.Section, off: own.Value}, nil
	}
	for _, x := range c.v.units {
		if (x.Object == u.Object || x.Object == VMLinux) && u != c.v.init && x.added(s.Name) != nil {
			return nil, fmt.Errorf("the patch adds it, and it must be in the module")
		}
	}
	if x, ok := c.v.kernel.Exports.Lookup(s.Name); ok && x.Module != VMLinux && u.module != nil {
		return c.otherModule(u, x.Module, s.Name)
	}
	if e, ok := c.v.exports[s.Name]; ok {
		return &kernelPlace{object: VMLinux, off: e.Addr}, nil
	}
	at, err := c.v.global(s.Name)
	if err != nil && s.Bind == elf.STB_WEAK && len(c.v.kernel.Symtab.Named(s.Name)) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &at, nil
}

// exportOf is what the module loader makes of an import from a module.
func exportOf(module, name string) *kernelPlace {
	return &kernelPlace{object: "the export " + name + " of " + modname.OfPath(module)}
}

// otherModule is a symbol that another module exports. If the unit's module
// depends on that, it is there when the unit's module is; else the livepatch has
// to depend on it.
func (c *check) otherModule(u *unit, path, name string) (*kernelPlace, error) {
	object := modname.OfPath(path)
	depends := false
	for _, list := range u.module.Module().Modinfo("depends") {
		depends = depends || slices.Contains(strings.Split(modname.Canonical(list), ","), object)
	}
	if !depends {
		return exportOf(object, name), nil
	}
	at, err := c.v.resolve(object, name, 0)
	return &at, err
}
