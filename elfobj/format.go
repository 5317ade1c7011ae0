package elfobj

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"strconv"
)

// The fixed-size records of the 64-bit little-endian format, to bytes and back.
// debug/elf has the record types; its decoder is not used because it panics or
// hides parts on bad input, and encoding/binary's is too slow for relocations.

// Record sizes in bytes. Source: gABI chapters 4 (headers, symbols,
// relocations) and 5; they are what e_shentsize and sh_entsize must say.
const (
	ehdrSize = 64
	shdrSize = 64
	symSize  = 24
	relaSize = 24
	wordSize = 4 // SHT_GROUP and SHT_SYMTAB_SHNDX entries
	chdrSize = 24
)

// Section types that debug/elf does not name. Source: gABI 4.3 draft (CREL),
// LLVM's include/llvm/BinaryFormat/ELF.h.
const (
	shtRelr             elf.SectionType = 19
	shtCrel             elf.SectionType = 20
	shtCrelLLVM         elf.SectionType = 0x40000014
	shtAndroidRel       elf.SectionType = 0x60000001
	shtAndroidRela      elf.SectionType = 0x60000002
	shtLLVMAddrsig      elf.SectionType = 0x6fff4c03
	shtLLVMCallGraphOld elf.SectionType = 0x6fff4c02
	shtLLVMCallGraph    elf.SectionType = 0x6fff4c09
)

// The format's fields are little-endian here, always.
var le = binary.LittleEndian

func decodeEhdr(b *[ehdrSize]byte) elf.Header64 {
	return elf.Header64{
		Ident:     [16]byte(b[:16]),
		Type:      le.Uint16(b[16:]),
		Machine:   le.Uint16(b[18:]),
		Version:   le.Uint32(b[20:]),
		Entry:     le.Uint64(b[24:]),
		Phoff:     le.Uint64(b[32:]),
		Shoff:     le.Uint64(b[40:]),
		Flags:     le.Uint32(b[48:]),
		Ehsize:    le.Uint16(b[52:]),
		Phentsize: le.Uint16(b[54:]),
		Phnum:     le.Uint16(b[56:]),
		Shentsize: le.Uint16(b[58:]),
		Shnum:     le.Uint16(b[60:]),
		Shstrndx:  le.Uint16(b[62:]),
	}
}

func appendEhdr(b []byte, h elf.Header64) []byte {
	b = append(b, h.Ident[:]...)
	b = le.AppendUint16(b, h.Type)
	b = le.AppendUint16(b, h.Machine)
	b = le.AppendUint32(b, h.Version)
	b = le.AppendUint64(b, h.Entry)
	b = le.AppendUint64(b, h.Phoff)
	b = le.AppendUint64(b, h.Shoff)
	b = le.AppendUint32(b, h.Flags)
	b = le.AppendUint16(b, h.Ehsize)
	b = le.AppendUint16(b, h.Phentsize)
	b = le.AppendUint16(b, h.Phnum)
	b = le.AppendUint16(b, h.Shentsize)
	b = le.AppendUint16(b, h.Shnum)
	return le.AppendUint16(b, h.Shstrndx)
}

func decodeShdr(b *[shdrSize]byte) elf.Section64 {
	return elf.Section64{
		Name:      le.Uint32(b[0:]),
		Type:      le.Uint32(b[4:]),
		Flags:     le.Uint64(b[8:]),
		Addr:      le.Uint64(b[16:]),
		Off:       le.Uint64(b[24:]),
		Size:      le.Uint64(b[32:]),
		Link:      le.Uint32(b[40:]),
		Info:      le.Uint32(b[44:]),
		Addralign: le.Uint64(b[48:]),
		Entsize:   le.Uint64(b[56:]),
	}
}

func appendShdr(b []byte, h elf.Section64) []byte {
	b = le.AppendUint32(b, h.Name)
	b = le.AppendUint32(b, h.Type)
	b = le.AppendUint64(b, h.Flags)
	b = le.AppendUint64(b, h.Addr)
	b = le.AppendUint64(b, h.Off)
	b = le.AppendUint64(b, h.Size)
	b = le.AppendUint32(b, h.Link)
	b = le.AppendUint32(b, h.Info)
	b = le.AppendUint64(b, h.Addralign)
	return le.AppendUint64(b, h.Entsize)
}

func decodeSym(b *[symSize]byte) elf.Sym64 {
	return elf.Sym64{
		Name:  le.Uint32(b[0:]),
		Info:  b[4],
		Other: b[5],
		Shndx: le.Uint16(b[6:]),
		Value: le.Uint64(b[8:]),
		Size:  le.Uint64(b[16:]),
	}
}

func appendSym(b []byte, s elf.Sym64) []byte {
	b = le.AppendUint32(b, s.Name)
	b = append(b, s.Info, s.Other)
	b = le.AppendUint16(b, s.Shndx)
	b = le.AppendUint64(b, s.Value)
	return le.AppendUint64(b, s.Size)
}

func decodeRela(b *[relaSize]byte) elf.Rela64 {
	return elf.Rela64{
		Off:    le.Uint64(b[0:]),
		Info:   le.Uint64(b[8:]),
		Addend: int64(le.Uint64(b[16:])),
	}
}

func appendRela(b []byte, r elf.Rela64) []byte {
	b = le.AppendUint64(b, r.Off)
	b = le.AppendUint64(b, r.Info)
	return le.AppendUint64(b, uint64(r.Addend))
}

// span is the only way by which untrusted bytes are cut: size bytes from off,
// or false if data does not have them. The capacity ends there too, so that an
// append to the result never writes into what follows.
func span(data []byte, off, size uint64) ([]byte, bool) {
	n := uint64(len(data))
	if off > n || size > n-off {
		return nil, false
	}
	return data[off : off+size : off+size], true
}

// label names an entry in a message: "section 3 (.text)". Index counts from 0
// with the null entry, as readelf does.
func label(kind string, index int, name string) string {
	const most = 100 // bytes of a name in a message
	if len(name) > most {
		name = name[:most] + "..."
	}
	switch quoted := strconv.Quote(name); {
	case name == "":
		return fmt.Sprintf("%s %d", kind, index)
	case quoted[1:len(quoted)-1] != name:
		return fmt.Sprintf("%s %d (%s)", kind, index, quoted)
	default:
		return fmt.Sprintf("%s %d (%s)", kind, index, name)
	}
}
