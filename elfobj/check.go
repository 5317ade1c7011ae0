package elfobj

import (
	"debug/elf"
	"fmt"

	"github.com/klpc/klpc/internal/arch"
)

// The rules that hold for a relocatable file on both ways, so that what Read
// accepts Encode writes, and what Encode writes Read accepts.

// checkMachine refuses machines that klpc cannot work for at all.
func checkMachine(m elf.Machine) error {
	if _, ok := arch.ByMachine(m); !ok {
		return fmt.Errorf("ELF for machine %s, klpc supports x86-64", machineName(m))
	}
	return nil
}

func machineName(m elf.Machine) string {
	switch m {
	case elf.EM_X86_64:
		return "x86-64"
	case elf.EM_386:
		return "i386"
	case elf.EM_AARCH64:
		return "aarch64"
	default:
		return m.String()
	}
}

// checkType refuses section types that hold relocations, section indices or
// symbol indices in a form that Object cannot express: they would be lost or
// go stale without a word.
func checkType(t elf.SectionType) error {
	switch t {
	case elf.SHT_REL:
		return fmt.Errorf("relocations without addends (SHT_REL) are not used on supported machines")
	case shtRelr, shtCrel, shtCrelLLVM, shtAndroidRel, shtAndroidRela:
		return fmt.Errorf("packed relocations (section type %#x) are not supported", uint32(t))
	case elf.SHT_DYNSYM, elf.SHT_DYNAMIC, elf.SHT_HASH, elf.SHT_GNU_HASH,
		elf.SHT_GNU_VERSYM, elf.SHT_GNU_VERDEF, elf.SHT_GNU_VERNEED:
		return fmt.Errorf("%s belongs in a linked image, not in a relocatable file", t)
	}
	return nil
}

// checkAlign refuses an alignment (in bytes) that is not a power of two; 0 and
// 1 both mean none.
func checkAlign(align uint64) error {
	if align&(align-1) != 0 {
		return fmt.Errorf("alignment %#x is not a power of two", align)
	}
	return nil
}

// decoded tells whether the contents of a section of this type are held as
// pointers in a relocatable file's Object, with Data nil and Size 0.
func decoded(t elf.SectionType) bool {
	return t == elf.SHT_RELA || t == elf.SHT_GROUP
}

// extent returns how many bytes symbols and relocations can address in a
// section: for a compressed one (gcc -gz) those of the uncompressed contents,
// ch_size. Source: gABI chapter 4, "Section Compression".
func extent(s *Section) (uint64, error) {
	if s.Flags&elf.SHF_COMPRESSED == 0 || s.Type == elf.SHT_NOBITS || decoded(s.Type) {
		return s.Size, nil
	}
	chdr, ok := span(s.Data, 0, chdrSize)
	if !ok {
		return 0, fmt.Errorf("compressed, but its %#x bytes do not hold a compression header", len(s.Data))
	}
	return le.Uint64(chdr[8:]), nil
}

// checkSymbolValue refuses a symbol that is defined outside its section. Its
// end is allowed: that is where end markers stand.
func checkSymbolValue(sym *Symbol, size uint64) error {
	if sym.Value > size {
		return fmt.Errorf("value %#x lies beyond the end of section %s at %#x", sym.Value, sym.Section.Name, size)
	}
	return nil
}

// checkRelocOff refuses a relocation that starts outside its target.
func checkRelocOff(off uint64, target *Section, size uint64) error {
	if off >= size {
		return fmt.Errorf("offset %#x lies outside section %s of %#x bytes", off, target.Name, size)
	}
	return nil
}
