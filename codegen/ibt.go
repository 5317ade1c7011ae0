package codegen

// Indirect branch tracking: on a kernel with CONFIG_X86_KERNEL_IBT an indirect
// call may only reach an ENDBR64. Compilers leave it out of static functions
// whose address is not taken, and the kernel removes it at boot from functions
// whose address nothing takes (it "seals" them). So a patch that takes the
// address of a function of the running kernel for the first time would make a
// pointer that faults.

import (
	"bytes"
	"debug/elf"
	"fmt"

	"github.com/klpc/klpc/elfdiff"
)

// NoEndbr is a pointer to a function that must not be called indirectly.
const NoEndbr elfdiff.ProblemKind = "no-endbr"

var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

// checkPointer refuses a reference by address, from travelling code, to a
// function of the running kernel that cannot be called indirectly there.
func (u *unitPlan) checkPointer(p *elfdiff.Piece, r *elfdiff.Ref) {
	if r.Branch || u.sealed == nil || r.Type == uint32(elf.R_X86_64_PLT32) {
		return
	}
	name := ""
	switch {
	case r.To.Kind == elfdiff.Undef:
		name = r.To.Sym.Name
	case r.To.Kind == elfdiff.InPiece && r.To.Piece.Func && r.To.Piece.Sym != nil && r.Addend+r.Adj == 0:
		name = r.To.Piece.Sym.Name
	}
	if name == "" || name == "__fentry__" {
		return
	}
	if why := u.cannotPointTo(r, name); why != "" {
		u.problem(NoEndbr, p, r.Off, fmt.Sprintf("%s takes the address of %s, %s, so that calling it through a pointer would fault on processors with IBT", p.Name(), name, why),
			"add a new function that calls it, and take the address of that")
	}
}

// cannotPointTo says why a function of the running kernel cannot be called
// indirectly; "" if it can, or is no function.
func (u *unitPlan) cannotPointTo(r *elfdiff.Ref, name string) string {
	if u.module != nil && (r.To.Kind == elfdiff.InPiece || u.defined[name] != nil) {
		return u.moduleFunction(r, name)
	}
	if x, ok := u.target.Exports.Lookup(name); ok && x.Name != "" {
		return "" // objtool never seals exports
	}
	var i int
	var err error
	if r.To.Kind == elfdiff.InPiece {
		i, err = u.kernel.Symbol(r.To.Piece.Twin)
	} else {
		i, err = u.global(name)
	}
	if err != nil {
		return "" // reported where the reference is resolved
	}
	s := u.target.Symtab.At(i)
	if s.Kind != 't' && s.Kind != 'T' && s.Kind != 'w' && s.Kind != 'W' {
		return ""
	}
	if u.target.Image == nil {
		return "which cannot be looked at without the kernel's image (--image vmlinuz)"
	}
	code, ok := u.target.Image.Bytes(s.Addr, len(endbr64))
	switch {
	case !ok:
		return ""
	case !bytes.Equal(code, endbr64):
		return "which has no ENDBR64 in the running kernel"
	case u.sealed[s.Addr]:
		return "whose ENDBR64 the running kernel has removed at boot"
	}
	return ""
}

// moduleFunction is cannotPointTo for functions of the patched module, whose
// file lists the sealed ones as relocations.
func (u *unitPlan) moduleFunction(r *elfdiff.Ref, name string) string {
	var k *elfdiff.Piece
	if r.To.Kind == elfdiff.InPiece {
		s, err := u.module.Symbol(r.To.Piece.Twin)
		if err != nil {
			return ""
		}
		k = u.module.View().PieceOf(s)
	} else {
		k = u.module.View().PieceOf(u.defined[name])
	}
	if k == nil || !k.Func {
		return ""
	}
	if code := k.Bytes(); uint64(len(code)) < k.Origin()-k.Lo || !bytes.HasPrefix(code[k.Origin()-k.Lo:], endbr64) {
		return "which has no ENDBR64 in the running module"
	}
	ko := u.module.Module().Object
	for _, sec := range ko.Sections {
		if sec.Name != ".ibt_endbr_seal" {
			continue
		}
		for _, s := range ko.Relocs(sec) {
			if s.Sym != nil && u.module.View().FuncAt(s.Sym, s.Addend) == k {
				return "whose ENDBR64 the kernel has removed when the module was loaded"
			}
		}
	}
	return ""
}
