package codegen

// Finalizing comes last, because linkers and modpost mangle what it makes: a
// second relocation section for one target, and symbols with the index
// SHN_LIVEPATCH. Each relocation against a temporary symbol moves into the
// section .klp.rela.OBJECT.SECTION; the symbol becomes
// .klp.sym.OBJECT.NAME,SYMPOS. The function and callback pointers of the
// klp_func tables get their targets, debug information goes, and the build ID
// is computed from what is left, so that equal input gives equal bytes.

import (
	"bytes"
	"crypto/sha1"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/elfobj"
)

// Names of the pointers in the klp_func and klp_callbacks tables of the init
// file, followed by Func.ID or Callback.ID. They are weak and undefined until
// Finalize.
const (
	FuncPointer     = "klpc_func_"
	CallbackPointer = "klpc_callback_"
)

// Finalize turns the linked module into a livepatch module. obj is consumed.
func (p *Plan) Finalize(obj *elfobj.Object) ([]byte, error) {
	f := &finalizer{plan: p, obj: obj, klp: map[string]*elfobj.Section{}, pointers: map[string]elfobj.Reloc{}}
	f.readMarkers()
	if err := f.relocations(); err != nil {
		return nil, err
	}
	f.dropDebug()
	if err := f.symbols(); err != nil {
		return nil, err
	}
	return f.encode()
}

type finalizer struct {
	plan     *Plan
	obj      *elfobj.Object
	klp      map[string]*elfobj.Section
	pointers map[string]elfobj.Reloc // by FuncPointer or CallbackPointer name
}

// readMarkers learns where the functions of the plan have ended up.
func (f *finalizer) readMarkers() {
	for _, s := range f.obj.Sections {
		if s.Type != elf.SHT_RELA || len(s.Relocs) != 1 {
			continue
		}
		for marker, pointer := range map[string]string{funcMarker: FuncPointer, callbackMarker: CallbackPointer} {
			if id, ok := strings.CutPrefix(s.Target.Name, marker); ok {
				f.pointers[pointer+id] = s.Relocs[0]
			}
		}
	}
}

// split takes a temporary symbol apart: whose relocation section, and the
// final name.
func (f *finalizer) split(s *elfobj.Symbol) (object, name string, ok bool) {
	if !s.Undefined() {
		return "", "", false
	}
	if rest, found := strings.CutPrefix(s.Name, tempPrefix); found {
		object, name, ok = strings.Cut(rest, ".")
		return object, "." + name, ok
	}
	if f.plan.plain[s.Name] {
		return VMLinux, ".klp.sym." + VMLinux + "." + s.Name + ",0", true
	}
	return "", "", false
}

// relocations sorts every relocation of the module to where it belongs.
func (f *finalizer) relocations() error {
	var errs []error
	for _, s := range slices.Clone(f.obj.Sections) {
		if s.Type != elf.SHT_RELA || s.Target.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		var kept []elfobj.Reloc
		for _, r := range s.Relocs {
			if r.Sym == nil {
				kept = append(kept, r)
				continue
			}
			if to, ok := f.pointers[r.Sym.Name]; ok && r.Sym.Undefined() {
				r.Sym, r.Addend = to.Sym, r.Addend+to.Addend
				kept = append(kept, r)
				continue
			}
			object, _, ok := f.split(r.Sym)
			if !ok {
				kept = append(kept, r)
				continue
			}
			if err := checkZero(s.Target, r); err != nil {
				errs = append(errs, err)
			}
			k := f.section(object, s.Target)
			k.Relocs = append(k.Relocs, r)
		}
		s.Relocs = kept
	}
	f.obj.Sections = slices.DeleteFunc(f.obj.Sections, func(s *elfobj.Section) bool {
		return s.Type == elf.SHT_RELA && len(s.Relocs) == 0
	})
	return errors.Join(errs...)
}

// klpTypes are the relocations that the kernel applies late, with the bytes
// that each fills. Source: arch/x86/kernel/module.c, __write_relocate_add.
var klpTypes = map[elf.R_X86_64]int{
	elf.R_X86_64_NONE: 0, elf.R_X86_64_64: 8, elf.R_X86_64_32: 4, elf.R_X86_64_32S: 4,
	elf.R_X86_64_PC32: 4, elf.R_X86_64_PLT32: 4, elf.R_X86_64_PC64: 8,
}

// checkZero makes sure that the kernel will accept a livepatch relocation: it
// refuses unknown types and places that are not zero.
func checkZero(target *elfobj.Section, r elfobj.Reloc) error {
	n, ok := klpTypes[elf.R_X86_64(r.Type)]
	at := elfobj.Pos{Section: target.Name, Off: r.Off}
	if !ok {
		return fmt.Errorf("internal error: %v: relocation type %v cannot be applied by the livepatch core", at, elf.R_X86_64(r.Type))
	}
	if r.Off+uint64(n) > uint64(len(target.Data)) || len(bytes.Trim(target.Data[r.Off:r.Off+uint64(n)], "\x00")) > 0 {
		return fmt.Errorf("internal error: %v: the place of a livepatch relocation is not zero", at)
	}
	return nil
}

func (f *finalizer) section(object string, target *elfobj.Section) *elfobj.Section {
	name := ".klp.rela." + object + "." + target.Name
	for _, s := range f.obj.Sections {
		if s.Name == name && s.Target == target {
			return s
		}
	}
	s := &elfobj.Section{Name: name, Type: elf.SHT_RELA,
		Flags: elf.SHF_ALLOC | elf.SHF_INFO_LINK | elfobj.SHFRelaLivepatch, Align: 8, EntSize: 24, Target: target}
	f.obj.Sections = append(f.obj.Sections, s)
	return s
}

// dropDebug removes what the running kernel has no use for: debug
// information, marker sections and comments.
func (f *finalizer) dropDebug() {
	drop := func(s *elfobj.Section) bool {
		return s.Flags&elf.SHF_ALLOC == 0 && (strings.HasPrefix(s.Name, ".debug") || s.Name == ".comment")
	}
	gone := map[*elfobj.Section]bool{}
	for _, s := range f.obj.Sections {
		if drop(s) || s.Type == elf.SHT_RELA && drop(s.Target) {
			gone[s] = true
		}
	}
	f.obj.Sections = slices.DeleteFunc(f.obj.Sections, func(s *elfobj.Section) bool { return gone[s] })
	f.obj.Symbols = slices.DeleteFunc(f.obj.Symbols, func(s *elfobj.Symbol) bool { return gone[s.Section] })
}

// symbols turns the temporary symbols that are left into livepatch symbols and
// removes undefined ones that nothing refers to any more.
func (f *finalizer) symbols() error {
	used := map[*elfobj.Symbol]bool{}
	for _, s := range f.obj.Sections {
		for _, r := range s.Relocs {
			used[r.Sym] = true
		}
		if s.Signature != nil {
			used[s.Signature] = true
		}
	}
	f.obj.Symbols = slices.DeleteFunc(f.obj.Symbols, func(s *elfobj.Symbol) bool { return s.Undefined() && !used[s] })
	var errs []error
	for _, s := range f.obj.Symbols {
		if !s.Undefined() {
			continue
		}
		if strings.HasPrefix(s.Name, FuncPointer) || strings.HasPrefix(s.Name, CallbackPointer) {
			errs = append(errs, fmt.Errorf("internal error: %s has no function", s.Name))
		}
		if _, name, ok := f.split(s); ok {
			s.Name, s.Shndx, s.Bind = name, elfobj.SHNLivepatch, elf.STB_GLOBAL
		}
	}
	return errors.Join(errs...)
}

// encode writes the module with a build ID that depends on its content alone.
func (f *finalizer) encode() ([]byte, error) {
	id := f.obj.Section(".note.gnu.build-id")
	if id != nil && len(id.Data) >= 16+sha1.Size {
		id.Data = bytes.Clone(id.Data)
		clear(id.Data[16:])
	}
	data, err := f.obj.Encode()
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	if id != nil && len(id.Data) >= 16+sha1.Size {
		sum := sha1.Sum(data)
		copy(id.Data[16:], sum[:])
		if data, err = f.obj.Encode(); err != nil {
			return nil, fmt.Errorf("internal error: %w", err)
		}
	}
	return data, nil
}
