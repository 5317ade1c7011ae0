// Package elfobj turns relocatable ELF bytes into an Object and back; it is the
// only package that knows the file format.
//
// It does not judge what an object means: comparison is elfdiff's, generation
// codegen's. Source: System V ABI, "Object Files" (gABI 4.1 chapters 4 and 5),
// x86-64 psABI 1.0 section 4.4.
package elfobj

import (
	"debug/elf"
	"fmt"
)

// SHN_LIVEPATCH marks a symbol that the livepatch core resolves.
// Source: include/uapi/linux/elf.h, Linux 4.6 and later.
const SHNLivepatch elf.SectionIndex = 0xff20

// SHFRelaLivepatch marks a relocation section that the livepatch core applies.
// Source: include/uapi/linux/elf.h, Linux 4.6 and later.
const SHFRelaLivepatch elf.SectionFlag = 0x00100000

// Object is one relocatable file (ET_REL), or a linked image whose sections and
// symbols are to be looked at. Pointers join its parts; indices exist only in
// the encoded file. Readers treat it as immutable.
type Object struct {
	Type    elf.Type
	Machine elf.Machine
	OSABI   elf.OSABI
	Flags   uint32 // e_flags

	// Sections in file order, without the null section and without the
	// tables that Encode makes anew: .symtab, .strtab, .shstrtab,
	// .symtab_shndx.
	Sections []*Section
	// Symbols in file order, without the null symbol. Encode writes the
	// local ones first, as the gABI demands, keeping the order otherwise.
	Symbols []*Symbol
}

// Section is one section. Relocation sections are sections of their own,
// because a livepatch module has several for one target.
type Section struct {
	Name    string
	Type    elf.SectionType
	Flags   elf.SectionFlag
	Addr    uint64 // bytes; 0 in relocatable files
	Align   uint64 // bytes; 0 and 1 both mean none
	EntSize uint64 // bytes
	Data    []byte // nil for SHT_NOBITS
	Size    uint64 // bytes; len(Data) except for SHT_NOBITS

	Link *Section // sh_link where it names a section (SHF_LINK_ORDER), else nil
	Info uint32   // sh_info where it is a plain number

	Target *Section // SHT_RELA: what the relocations apply to
	Relocs []Reloc  // SHT_RELA: in file order

	Signature *Symbol    // SHT_GROUP: the symbol that names the group
	GroupFlag uint32     // SHT_GROUP: GRP_COMDAT or 0
	Members   []*Section // SHT_GROUP
}

// Symbol is one symbol table entry.
type Symbol struct {
	Name    string
	Value   uint64 // ET_REL: bytes from the start of Section; SHN_COMMON: alignment
	Size    uint64 // bytes
	Bind    elf.SymBind
	Type    elf.SymType
	Other   byte             // st_other: visibility in the low two bits
	Section *Section         // nil when Shndx is a reserved index
	Shndx   elf.SectionIndex // SHN_UNDEF, SHN_ABS, SHN_COMMON, SHNLivepatch; 0 if Section is set
}

// Undefined tells whether the symbol is a reference to another object.
func (s *Symbol) Undefined() bool { return s.Section == nil && s.Shndx == elf.SHN_UNDEF }

// Reloc is one relocation with an explicit addend.
type Reloc struct {
	Off    uint64  // bytes from the start of the target section
	Type   uint32  // R_X86_64_* and the like
	Sym    *Symbol // nil for symbol index 0
	Addend int64
}

// Pos is a place in an object, for messages.
type Pos struct {
	Object  string // file or unit name
	Section string
	Symbol  string // containing function or object, may be empty
	Off     uint64 // bytes from Symbol if there is one, else from Section
}

// String renders a place as "kernel/fork.o: copy_process+0x1c4 (.text.copy_process)".
func (p Pos) String() string {
	var s string
	if p.Object != "" {
		s = p.Object + ": "
	}
	switch {
	case p.Symbol == "" && p.Section == "":
		return p.Object
	case p.Symbol != "" && p.Section != "" && p.Off == 0:
		return s + fmt.Sprintf("%s (%s)", p.Symbol, p.Section)
	case p.Symbol != "" && p.Off == 0:
		return s + p.Symbol
	case p.Symbol != "" && p.Section != "":
		return s + fmt.Sprintf("%s+%#x (%s)", p.Symbol, p.Off, p.Section)
	case p.Symbol != "":
		return s + fmt.Sprintf("%s+%#x", p.Symbol, p.Off)
	default:
		return s + fmt.Sprintf("%s+%#x", p.Section, p.Off)
	}
}

// Relocs returns the relocations that apply to a section, in file order,
// leaving out the ones that the livepatch core applies.
func (o *Object) Relocs(target *Section) []Reloc {
	var all []Reloc
	for _, s := range o.Sections {
		if s.Type == elf.SHT_RELA && s.Target == target && s.Flags&SHFRelaLivepatch == 0 {
			all = append(all, s.Relocs...)
		}
	}
	return all
}

// Section returns the first section of that name, or nil.
func (o *Object) Section(name string) *Section {
	for _, s := range o.Sections {
		if s.Name == name {
			return s
		}
	}
	return nil
}
