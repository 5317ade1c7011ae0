package elfobj

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// editor changes fields of an encoded file.
type editor struct{ data []byte }

func (e *editor) head(f func(*elf.Header64)) {
	h := decodeEhdr((*[ehdrSize]byte)(e.data))
	f(&h)
	appendEhdr(e.data[:0], h)
}

func (e *editor) shdr(i int, f func(*elf.Section64)) {
	off := decodeEhdr((*[ehdrSize]byte)(e.data)).Shoff + uint64(i)*shdrSize
	h := decodeShdr((*[shdrSize]byte)(e.data[off:]))
	f(&h)
	appendShdr(e.data[off:off], h)
}

// contents returns the bytes of a section.
func (e *editor) contents(i int) []byte {
	var b []byte
	e.shdr(i, func(h *elf.Section64) { b = e.data[h.Off : h.Off+h.Size] })
	return b
}

func (e *editor) sym(i int, f func(*elf.Sym64)) {
	b := e.contents(sampleSymtab)[i*symSize:]
	s := decodeSym((*[symSize]byte)(b))
	f(&s)
	appendSym(b[:0], s)
}

func (e *editor) rela(section, i int, f func(*elf.Rela64)) {
	b := e.contents(section)[i*relaSize:]
	r := decodeRela((*[relaSize]byte)(b))
	f(&r)
	appendRela(b[:0], r)
}

// Section indices in the encoded sample.
const (
	sampleGroup = iota + 1
	sampleText
	sampleRela
	sampleKlpRela
	sampleRelaNone
	sampleShared
	sampleBss
	sampleOrder
	sampleStabstr
	sampleNote
	sampleEmpty
	sampleNull
	sampleText2
	sampleSymtab
	sampleStrtab
	sampleShstrtab
	sampleCount
)

func TestReadRefuses(t *testing.T) {
	type section = elf.Section64
	for _, tt := range []struct {
		name  string
		spoil func(*editor)
		want  string
	}{
		// Not ours at all.
		{"empty", func(e *editor) { e.data = nil }, "not an ELF file: it is empty"},
		{"text", func(e *editor) { e.data = []byte("hello, world") }, "not an ELF file"},
		{"three bytes of magic", func(e *editor) { e.data = []byte("\x7fEL") }, "not an ELF file"},
		{"xz", func(e *editor) { e.data = []byte("\xfd7zXZ\x00\x00") }, "not an ELF file: it is xz-compressed data"},
		{"gzip", func(e *editor) { e.data = []byte("\x1f\x8b\x08") }, "not an ELF file: it is gzip-compressed data"},
		{"zstd", func(e *editor) { e.data = []byte("\x28\xb5\x2f\xfd") }, "not an ELF file: it is zstd-compressed data"},
		{"bitcode", func(e *editor) { e.data = []byte("BC\xc0\xde") }, "not an ELF file: it is LLVM bitcode, as clang's LTO makes it"},
		{"archive", func(e *editor) { e.data = []byte("!<arch>\n/") }, "not an ELF file: it is an ar archive"},
		{"thin archive", func(e *editor) { e.data = []byte("!<thin>\n/") }, "not an ELF file: it is a thin ar archive"},
		{"boot image", func(e *editor) { e.data = []byte("MZ\xea\x07") }, "not an ELF file: it is a PE or kernel boot image"},

		// ELF, but not of this kind.
		{"32 bit", func(e *editor) { e.data[elf.EI_CLASS] = 1; e.data[18] = byte(elf.EM_386) }, "32-bit ELF for machine i386, klpc supports 64-bit only"},
		{"x32", func(e *editor) { e.data[elf.EI_CLASS] = 1 }, "32-bit ELF for machine x86-64, klpc supports 64-bit only"},
		{"class", func(e *editor) { e.data[elf.EI_CLASS] = 9 }, "unknown ELF class 9"},
		{"big endian", func(e *editor) { e.data[elf.EI_DATA] = 2 }, "big-endian ELF, klpc supports little-endian only"},
		{"byte order", func(e *editor) { e.data[elf.EI_DATA] = 3 }, "unknown ELF byte order 3"},
		{"ident version", func(e *editor) { e.data[elf.EI_VERSION] = 0 }, "unknown ELF version 0, 1"},
		{"version", func(e *editor) { e.head(func(h *elf.Header64) { h.Version = 2 }) }, "unknown ELF version 1, 2"},
		{"ABI version", func(e *editor) { e.data[elf.EI_ABIVERSION] = 4 }, "unknown ELF ABI version 4"},
		{"machine", func(e *editor) { e.head(func(h *elf.Header64) { h.Machine = uint16(elf.EM_SPARCV9) }) },
			"ELF for machine EM_SPARCV9, klpc supports x86-64"},
		{"core", func(e *editor) { e.head(func(h *elf.Header64) { h.Type = uint16(elf.ET_CORE) }) },
			"ELF file of type ET_CORE is neither relocatable nor a linked image"},
		{"program headers", func(e *editor) { e.head(func(h *elf.Header64) { h.Phnum = 1 }) }, "relocatable file has program headers"},

		// Headers.
		{"header cut", func(e *editor) { e.data = e.data[:63] }, "truncated: the ELF header ends at 0x40 beyond the file's 0x3f bytes"},
		{"header size", func(e *editor) { e.head(func(h *elf.Header64) { h.Ehsize = 52 }) }, "ELF header size is 52, not 64"},
		{"section header size", func(e *editor) { e.head(func(h *elf.Header64) { h.Shentsize = 40 }) }, "section header size is 40, not 64"},
		{"no sections", func(e *editor) { e.head(func(h *elf.Header64) { h.Shoff = 0 }) }, "no section headers"},
		{"no section count", func(e *editor) { e.head(func(h *elf.Header64) { h.Shnum = 0 }) }, "no section headers"},
		{"headers at the end of 64 bits", func(e *editor) { e.head(func(h *elf.Header64) { h.Shoff = 1<<64 - 32 }) },
			"truncated: 1 section headers at 0xffffffffffffffe0 do not fit into the file's SIZE bytes"},
		{"headers cut", func(e *editor) { e.data = e.data[:len(e.data)-1] },
			"truncated: 17 section headers at SHOFF do not fit into the file's SIZE bytes"},
		{"extended count too large", func(e *editor) {
			e.head(func(h *elf.Header64) { h.Shnum = 0 })
			e.shdr(0, func(h *section) { h.Size = 1 << 58 }) // times 64 is 0
		}, "truncated: 288230376151711744 section headers at SHOFF do not fit into the file's SIZE bytes"},
		{"section 0", func(e *editor) { e.shdr(0, func(h *section) { h.Type = 1 }) }, "section 0 has type SHT_PROGBITS instead of SHT_NULL"},
		{"no name table", func(e *editor) { e.head(func(h *elf.Header64) { h.Shstrndx = 0 }) }, "no section name table (e_shstrndx is 0)"},
		{"name table index", func(e *editor) { e.head(func(h *elf.Header64) { h.Shstrndx = sampleCount }) }, "section name table is section 17 of 17"},
		{"extended name table index", func(e *editor) {
			e.head(func(h *elf.Header64) { h.Shstrndx = 0xffff })
			e.shdr(0, func(h *section) { h.Link = 1 << 31 })
		}, "section name table is section 2147483648 of 17"},
		{"name table type", func(e *editor) { e.head(func(h *elf.Header64) { h.Shstrndx = sampleText }) },
			"section 2 is the section name table but has type SHT_PROGBITS"},

		// Where sections lie and what they are called.
		{"section beyond", func(e *editor) { e.shdr(sampleText, func(h *section) { h.Off = 0x1000000 }) },
			"truncated: section 2 (.text) ends at 0x1000010 beyond the file's SIZE bytes"},
		{"section wraps", func(e *editor) { e.shdr(sampleText, func(h *section) { h.Size = 1<<64 - 1 }) },
			"truncated: section 2 (.text): 0xffffffffffffffff bytes at 0x50 end beyond the file's SIZE bytes"},
		{"name table beyond", func(e *editor) { e.shdr(sampleShstrtab, func(h *section) { h.Off = 1 << 32 }) },
			"truncated: section 16 ends at 0x10000008b beyond the file's SIZE bytes"},
		{"overlap", func(e *editor) {
			size := uint64(len(e.data))
			e.shdr(sampleText, func(h *section) { h.Off, h.Size = 0, size })
		}, "section 2 (.text): sections overlap: up to here they hold 0x6b0 bytes, the file has SIZE"},
		{"name beyond", func(e *editor) { e.shdr(sampleText, func(h *section) { h.Name = 0x8b }) },
			"section 2: name offset 0x8b lies beyond the string table's 0x8b bytes"},
		{"name without end", func(e *editor) { b := e.contents(sampleShstrtab); b[len(b)-1] = 'x' },
			"section 16: name at offset 0x81 has no end in the string table"},
		{"alignment", func(e *editor) { e.shdr(sampleText, func(h *section) { h.Addralign = 24 }) },
			"section 2 (.text): alignment 0x18 is not a power of two"},

		// What sections are.
		{"rel", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Type = uint32(elf.SHT_REL) }) },
			"section 3 (.rela.text): relocations without addends (SHT_REL) are not used on supported machines"},
		{"crel", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Type = 0x40000014 }) },
			"section 3 (.rela.text): packed relocations (section type 0x40000014) are not supported"},
		{"dynsym", func(e *editor) { e.shdr(sampleText, func(h *section) { h.Type = uint32(elf.SHT_DYNSYM) }) },
			"section 2 (.text): SHT_DYNSYM belongs in a linked image, not in a relocatable file"},
		{"compressed", func(e *editor) { e.shdr(sampleNote, func(h *section) { h.Flags = uint64(elf.SHF_COMPRESSED) }) },
			"section 10 (.note): compressed, but its 0x4 bytes do not hold a compression header"},
		{"link beyond", func(e *editor) { e.shdr(sampleOrder, func(h *section) { h.Link = sampleCount }) },
			"section 8 (.order): sh_link is 17, but there are 17 sections"},
		{"link to table", func(e *editor) { e.shdr(sampleOrder, func(h *section) { h.Link = sampleSymtab }) },
			"section 8 (.order): section index is 14, which is the file's own table section 14 (.symtab)"},
		{"info link", func(e *editor) { e.shdr(sampleOrder, func(h *section) { h.Flags |= uint64(elf.SHF_INFO_LINK) }) },
			"section 8 (.order): sh_info names a section (SHF_INFO_LINK), which is known of relocations only"},
		{"second symtab", func(e *editor) { e.shdr(sampleNote, func(h *section) { h.Type = uint32(elf.SHT_SYMTAB) }) },
			"section 14 (.symtab): second symbol table, the first is section 10 (.note)"},
		{"symtab link", func(e *editor) { e.shdr(sampleSymtab, func(h *section) { h.Link = sampleText }) },
			"section 14 (.symtab): sh_link is 2, which is not a string table"},
		{"symtab link beyond", func(e *editor) { e.shdr(sampleSymtab, func(h *section) { h.Link = 1 << 31 }) },
			"section 14 (.symtab): sh_link is 2147483648, which is not a string table"},
		{"stray shndx table", func(e *editor) {
			e.shdr(sampleNote, func(h *section) { h.Type, h.Link = uint32(elf.SHT_SYMTAB_SHNDX), 2 })
		},
			"section 10 (.note): sh_link is 2, which is not the symbol table"},
		{"second shndx table", func(e *editor) {
			for _, i := range []int{sampleNote, sampleText2} {
				e.shdr(i, func(h *section) { h.Type, h.Link = uint32(elf.SHT_SYMTAB_SHNDX), sampleSymtab })
			}
		}, "section 13 (.text): second table of extended section indices, the first is section 10 (.note)"},

		// Symbols.
		{"symtab entry size", func(e *editor) { e.shdr(sampleSymtab, func(h *section) { h.Entsize = 16 }) },
			"section 14 (.symtab): entry size is 16, not 24"},
		{"symtab size", func(e *editor) { e.shdr(sampleSymtab, func(h *section) { h.Size-- }) },
			"section 14 (.symtab): size 0xd7 is not a multiple of the entry size 24"},
		{"shndx table too short", func(e *editor) {
			e.shdr(sampleNote, func(h *section) { h.Type, h.Link = uint32(elf.SHT_SYMTAB_SHNDX), sampleSymtab })
		}, "section 10 (.note): has 1 entries for 9 symbols"},
		{"null symbol", func(e *editor) { e.sym(0, func(s *elf.Sym64) { s.Value = 1 }) }, "symbol 0 is not null"},
		{"symbol name", func(e *editor) { e.sym(5, func(s *elf.Sym64) { s.Name = 0x1000 }) },
			"symbol 5: name offset 0x1000 lies beyond the string table's 0x29 bytes"},
		{"symbol section beyond", func(e *editor) { e.sym(3, func(s *elf.Sym64) { s.Shndx = sampleCount }) },
			"symbol 3 (end): section index is 17, but there are 17 sections"},
		{"symbol in table", func(e *editor) { e.sym(3, func(s *elf.Sym64) { s.Shndx = sampleStrtab }) },
			"symbol 3 (end): section index is 15, which is the file's own table section 15 (.strtab)"},
		{"symbol xindex", func(e *editor) { e.sym(3, func(s *elf.Sym64) { s.Shndx = 0xffff }) },
			"symbol 3 (end): section index is SHN_XINDEX, but there is no SHT_SYMTAB_SHNDX table"},
		{"symbol value", func(e *editor) { e.sym(3, func(s *elf.Sym64) { s.Value = 17 }) },
			"symbol 3 (end): value 0x11 lies beyond the end of section .text at 0x10"},
		{"global among locals", func(e *editor) { e.sym(3, func(s *elf.Sym64) { s.Info = elf.ST_INFO(elf.STB_GLOBAL, 0) }) },
			"symbol 3 (end): binding STB_GLOBAL does not fit sh_info of the symbol table, which says that local symbols end at 4"},
		{"local among globals", func(e *editor) { e.sym(4, func(s *elf.Sym64) { s.Info = 0 }) },
			"symbol 4 (f): binding STB_LOCAL does not fit sh_info of the symbol table, which says that local symbols end at 4"},

		// Relocations.
		{"rela entry size", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Entsize = 0 }) },
			"section 3 (.rela.text): entry size is 0, not 24"},
		{"rela size", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Size-- }) },
			"section 3 (.rela.text): size 0x47 is not a multiple of the entry size 24"},
		{"rela link", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Link = sampleStrtab }) },
			"section 3 (.rela.text): sh_link is 15, which is not the symbol table"},
		{"rela without target", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Info = 0 }) },
			"section 3 (.rela.text): section index is 0"},
		{"rela target beyond", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Info = 1<<32 - 1 }) },
			"section 3 (.rela.text): section index is 4294967295, but there are 17 sections"},
		{"rela target table", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Info = sampleSymtab }) },
			"section 3 (.rela.text): section index is 14, which is the file's own table section 14 (.symtab)"},
		{"rela of rela", func(e *editor) { e.shdr(sampleRela, func(h *section) { h.Info = sampleKlpRela }) },
			"section 3 (.rela.text): relocation 0: offset 0x0 lies outside section .klp.rela.vmlinux..text of 0x0 bytes"},
		{"reloc offset", func(e *editor) { e.rela(sampleRela, 1, func(r *elf.Rela64) { r.Off = 16 }) },
			"section 3 (.rela.text): relocation 1: offset 0x10 lies outside section .text of 0x10 bytes"},
		{"reloc symbol", func(e *editor) { e.rela(sampleKlpRela, 0, func(r *elf.Rela64) { r.Info = elf.R_INFO(9, 4) }) },
			"section 4 (.klp.rela.vmlinux..text): relocation 0: symbol index is 9, but there are 9 symbols"},

		// Groups.
		{"group entry size", func(e *editor) { e.shdr(sampleGroup, func(h *section) { h.Entsize = 8 }) },
			"section 1 (.group): entry size is 8, not 4"},
		{"group link", func(e *editor) { e.shdr(sampleGroup, func(h *section) { h.Link = 0 }) },
			"section 1 (.group): sh_link is 0, which is not the symbol table"},
		{"group empty", func(e *editor) { e.shdr(sampleGroup, func(h *section) { h.Size = 0 }) },
			"section 1 (.group): group has no flag word"},
		{"group signature null", func(e *editor) { e.shdr(sampleGroup, func(h *section) { h.Info = 0 }) },
			"section 1 (.group): group has no signature symbol (sh_info is 0)"},
		{"group signature beyond", func(e *editor) { e.shdr(sampleGroup, func(h *section) { h.Info = 9 }) },
			"section 1 (.group): symbol index is 9, but there are 9 symbols"},
		{"group member null", func(e *editor) { clear(e.contents(sampleGroup)[4:]) },
			"section 1 (.group): member 0: section index is 0"},
		{"group member beyond", func(e *editor) { e.contents(sampleGroup)[7] = 0x80 },
			"section 1 (.group): member 0: section index is 2147483654, but there are 17 sections"},
		{"group member itself", func(e *editor) { e.contents(sampleGroup)[4] = sampleGroup },
			"section 1 (.group): member 0: the group contains itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, err := sample().Encode()
			if err != nil {
				t.Fatal(err)
			}
			e := &editor{data}
			shoff := decodeEhdr((*[ehdrSize]byte)(data)).Shoff
			tt.spoil(e)
			// Sizes that are not what a case is about.
			want := strings.NewReplacer(
				"SIZE", fmt.Sprintf("%#x", len(e.data)), "SHOFF", fmt.Sprintf("%#x", shoff),
			).Replace(tt.want)
			_, err = Parse(e.data)
			wantError(t, err, want)
			if len(e.data) > 0 {
				_, err = Read(bytes.NewReader(e.data), int64(len(e.data)))
				if len(e.data) >= ehdrSize || !strings.HasPrefix(want, "truncated") {
					wantError(t, err, want)
				}
			}
		})
	}
}

func TestReadSizes(t *testing.T) {
	data, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("disk on fire")
	for _, tt := range []struct {
		name string
		r    io.ReaderAt
		size int64
		want string
	}{
		{"empty", bytes.NewReader(nil), 0, "not an ELF file: it is empty"},
		{"negative", bytes.NewReader(data), -1, "not an ELF file: it is empty"},
		{"size beyond the file", bytes.NewReader(data), int64(len(data)) + 1, fmt.Sprintf("truncated: the file ends before byte %#x", len(data)+1)},
		{"size beyond the file by far", bytes.NewReader(data), 1 << 31, "truncated: the file ends before byte 0x80000000"},
		{"size beyond the limit", bytes.NewReader(data), 1 << 40, "file of 0x10000000000 bytes is larger than the 0x100000000 bytes that klpc reads"},
		{"read error", failing{broken}, 100, "disk on fire"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(tt.r, tt.size)
			wantError(t, err, tt.want)
		})
	}
	o, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(sample(), o); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

type failing struct{ err error }

func (f failing) ReadAt([]byte, int64) (int, error) { return 0, f.err }

// Every prefix of a good file is refused, none panics.
func TestReadPrefixes(t *testing.T) {
	data, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if _, err := Parse(data[:n]); err == nil {
			t.Fatalf("the first %d of %d bytes were accepted", n, len(data))
		}
	}
}

// What a linked image shows: addresses, and tables for the dynamic linker as
// plain bytes.
func TestReadImage(t *testing.T) {
	o := sample()
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := &editor{data}
	e.head(func(h *elf.Header64) { h.Type, h.Phnum = uint16(elf.ET_EXEC), 3 })
	e.shdr(sampleText, func(h *elf.Section64) { h.Addr = 0xffffffff81000000 })
	e.shdr(sampleNote, func(h *elf.Section64) { h.Type = uint32(elf.SHT_DYNAMIC) })
	e.sym(4, func(s *elf.Sym64) { s.Value = 0xffffffff81000004 })
	got, err := Parse(e.data)
	if err != nil {
		t.Fatal(err)
	}
	text := got.Section(".text")
	if text.Addr != 0xffffffff81000000 || string(text.Data) != "0123456789abcdef" {
		t.Errorf(".text = %#x %q", text.Addr, text.Data)
	}
	if f := got.Symbols[3]; f.Name != "f" || f.Section != text || f.Value != 0xffffffff81000004 {
		t.Errorf("symbol = %+v", f)
	}
	rela := got.Section(".rela.text")
	if rela.Relocs != nil || rela.Target != nil || rela.Size != 72 || len(rela.Data) != 72 {
		t.Errorf("relocations of an image are decoded: %+v", rela)
	}
	_, err = got.Encode()
	wantError(t, err, "only relocatable files can be written, this is ET_EXEC")
}

// Only the producer knows what symbol numbers inside these sections mean; the
// link is dropped, so that a linker sees that they are stale.
func TestReadDropsAddrsigLink(t *testing.T) {
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64, Sections: []*Section{
		{Name: ".llvm_addrsig", Type: shtLLVMAddrsig, Flags: 0x80000000, Align: 1, Data: []byte{1}, Size: 1},
	}}
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := &editor{data}
	e.shdr(1, func(h *elf.Section64) { h.Link = 2 })
	got, err := Parse(e.data)
	if err != nil {
		t.Fatal(err)
	}
	if d := diff(o, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	e.shdr(1, func(h *elf.Section64) { h.Type = uint32(elf.SHT_PROGBITS) })
	_, err = Parse(e.data)
	wantError(t, err, "section 1 (.llvm_addrsig): section index is 2, which is the file's own table section 2 (.symtab)")
}

// Appending to a section's bytes does not reach into the next section.
func TestReadDataIsCut(t *testing.T) {
	_, o := roundTrip(t, sample())
	for _, s := range o.Sections {
		if cap(s.Data) != len(s.Data) {
			t.Errorf("%s: capacity %d, length %d", s.Name, cap(s.Data), len(s.Data))
		}
	}
}

// Names that share a long tail many times over would make Encode's output
// quadratic.
func TestReadNameBudget(t *testing.T) {
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64}
	const count = 4000
	o.Symbols = append(o.Symbols, &Symbol{Name: strings.Repeat("x", 100000)})
	for range count {
		o.Symbols = append(o.Symbols, &Symbol{Name: "y"})
	}
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	symtab := data[ehdrSize:]
	for i := 2; i < count+2; i++ {
		le.PutUint32(symtab[i*symSize:], uint32(i))
	}
	_, err = Parse(data)
	wantError(t, err, "symbol 32: names up to here are 16 times as long as the file")
}

// A header's numbers do not decide how much memory is taken.
func TestReadMemory(t *testing.T) {
	data, err := manySections(2000).Encode()
	if err != nil {
		t.Fatal(err)
	}
	e := &editor{data}
	e.shdr(7, func(h *elf.Section64) { h.Type, h.Size = uint32(elf.SHT_NOBITS), 1<<63 })
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Parse(e.data); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(8*len(data)); got > limit {
		t.Errorf("reading %d bytes took %d, more than %d", len(data), got, limit)
	}
}

func TestReadFixtures(t *testing.T) {
	type found struct {
		Sections, Symbols, Relocs, Members, Ordered, Compressed int
	}
	want := map[string]found{
		"gcc-12.2-x86_64-plain.o":    {Sections: 21, Symbols: 15, Relocs: 16, Ordered: 1},
		"gcc-12.2-x86_64-debug-gz.o": {Sections: 21, Symbols: 19, Relocs: 48, Compressed: 4},
		"gcc-12.2-x86_64-group.o":    {Sections: 11, Symbols: 3, Relocs: 3, Members: 2, Ordered: 1},
	}
	got := map[string]found{}
	for name, data := range fixtures(t) {
		o, err := Parse(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f := found{Sections: len(o.Sections), Symbols: len(o.Symbols)}
		for _, s := range o.Sections {
			f.Relocs += len(s.Relocs)
			f.Members += len(s.Members)
			if s.Link != nil {
				f.Ordered++
			}
			if s.Flags&elf.SHF_COMPRESSED != 0 {
				f.Compressed++
			}
		}
		got[name] = f
		if _, back := roundTrip(t, o); diff(o, back) != "" {
			t.Errorf("%s: read(write(x)) (-want +got):\n%s", name, diff(o, back))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func BenchmarkRead(b *testing.B) {
	benchmark(b, func(o *Object, data []byte) error { _, err := Parse(data); return err })
}
func BenchmarkEncode(b *testing.B) {
	benchmark(b, func(o *Object, data []byte) error { _, err := o.Encode(); return err })
}

// benchmark runs f on objects of several sizes; time should grow as they do.
func benchmark(b *testing.B, f func(*Object, []byte) error) {
	for _, count := range []int{300, 3000, 30000} {
		o := functions(count)
		data, err := o.Encode()
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("sections=%d/KiB=%d", count, len(data)>>10), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := f(o, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// functions is an object with count sections, half of them code, half of them
// relocations, about as large as gcc makes them.
func functions(count int) *Object {
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64}
	var last *Symbol
	for i := range count / 2 {
		name := fmt.Sprintf("some_function_%d", i)
		text := &Section{Name: ".text." + name, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Align: 16, Data: make([]byte, 200), Size: 200}
		sym := &Symbol{Name: name, Bind: elf.STB_GLOBAL, Type: elf.STT_FUNC, Section: text, Size: 200}
		rela := &Section{Name: ".rela" + text.Name, Type: elf.SHT_RELA, Flags: elf.SHF_INFO_LINK, Align: 8, EntSize: relaSize, Target: text}
		for off := range uint64(8) {
			rela.Relocs = append(rela.Relocs, Reloc{Off: off * 20, Type: 4, Sym: last, Addend: -4})
		}
		o.Sections = append(o.Sections, text, rela)
		o.Symbols = append(o.Symbols, sym)
		last = sym
	}
	return o
}
