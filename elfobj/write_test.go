package elfobj

import (
	"bytes"
	"debug/elf"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEncodeRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    *Object
	}{
		{"sample", sample()},
		{"nothing", &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64}},
		{"last section before extended numbering", manySections(0xff00 - 5)},
		{"extended header numbering only", manySections(0xff00 - 4)},
		{"every extended form", manySections(0xff00 + 100)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, got := roundTrip(t, tt.o)
			if d := diff(tt.o, got); d != "" {
				t.Errorf("read(write(x)) (-want +got):\n%s", d)
			}
		})
	}
}

// Where numbers stop fitting 16 bits, each of three fields changes its form on
// its own.
func TestEncodeExtendedNumbering(t *testing.T) {
	type header struct {
		Shnum, Shstrndx uint16
		Size            uint64
		Link            uint32
		Shndx           bool // has .symtab_shndx
	}
	for _, tt := range []struct {
		name     string
		sections int // of the object; with null, .symtab, .strtab and .shstrtab 4 more
		want     header
	}{
		{"all fit", 0xff00 - 5, header{Shnum: 0xfeff, Shstrndx: 0xfefe}},
		{"count does not fit", 0xff00 - 4, header{Size: 0xff00, Shstrndx: 0xfeff}},
		{"last index does not fit", 0xff00 - 3, header{Size: 0xff01, Shstrndx: 0xffff, Link: 0xff00}},
		{"last symbol's section fits", 0xfeff, header{Size: 0xff03, Shstrndx: 0xffff, Link: 0xff02}},
		{"last symbol's section does not fit", 0xff00, header{Size: 0xff05, Shstrndx: 0xffff, Link: 0xff04, Shndx: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, err := manySections(tt.sections).Encode()
			if err != nil {
				t.Fatal(err)
			}
			h := decodeEhdr((*[ehdrSize]byte)(data))
			null := decodeShdr((*[shdrSize]byte)(data[h.Shoff:]))
			got := header{h.Shnum, h.Shstrndx, null.Size, null.Link, bytes.Contains(data, []byte(".symtab_shndx\x00"))}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestEncodeOrdersLocalsFirst(t *testing.T) {
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64}
	for _, s := range []struct {
		name string
		bind elf.SymBind
	}{{"g1", elf.STB_GLOBAL}, {"l1", elf.STB_LOCAL}, {"w1", elf.STB_WEAK}, {"l2", elf.STB_LOCAL}, {"g2", elf.STB_GLOBAL}} {
		o.Symbols = append(o.Symbols, &Symbol{Name: s.name, Bind: s.bind})
	}
	data, got := roundTrip(t, o)
	var names []string
	for _, s := range got.Symbols {
		names = append(names, s.Name)
	}
	if d := cmp.Diff([]string{"l1", "l2", "g1", "w1", "g2"}, names); d != "" {
		t.Errorf("order (-want +got):\n%s", d)
	}
	// debug/elf as a second opinion on what sh_info says.
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if info := f.Section(".symtab").Info; info != 3 {
		t.Errorf("sh_info of .symtab = %d, want 3", info)
	}
	if o.Symbols[0].Name != "g1" {
		t.Error("Encode changed the order in the object")
	}
}

func TestEncodeSameBytes(t *testing.T) {
	one, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	two, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, two) {
		t.Error("two runs gave different bytes")
	}
	_, back := roundTrip(t, sample())
	three, err := back.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one, three) {
		t.Error("writing what was read gave different bytes")
	}
}

// Sections of the file start where sh_addralign asks, and equal names are
// stored once.
func TestEncodeLayout(t *testing.T) {
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64}
	for _, align := range []uint64{1, 64, 0, 4096, 2, 1 << 30, 8} {
		o.Sections = append(o.Sections, &Section{Name: ".same", Type: elf.SHT_PROGBITS, Align: align, Data: []byte{1}, Size: 1})
		o.Symbols = append(o.Symbols, &Symbol{Name: "same"})
	}
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for _, s := range f.Sections[1:8] {
		got = append(got, s.Offset)
	}
	if d := cmp.Diff([]uint64{0x40, 0x80, 0x81, 0x1000, 0x1002, 0x2000, 0x2008}, got); d != "" {
		t.Errorf("offsets (-want +got):\n%s", d)
	}
	if n := bytes.Count(data, []byte("same\x00")); n != 2 {
		t.Errorf("the name is stored %d times, want once in each string table", n)
	}
	if len(data) > 0x2800 {
		t.Errorf("file has %#x bytes: a large alignment must not blow it up", len(data))
	}
}

func TestEncodeRefuses(t *testing.T) {
	const text, rela, group = 1, 2, 0 // in sample().Sections
	foreignSec := &Section{Name: ".foreign"}
	foreignSym := &Symbol{Name: "foreign"}
	for _, tt := range []struct {
		name  string
		spoil func(*Object)
		want  string
	}{
		{"type", func(o *Object) { o.Type = elf.ET_DYN }, "only relocatable files can be written, this is ET_DYN"},
		{"machine", func(o *Object) { o.Machine = elf.EM_S390 }, "ELF for machine EM_S390, klpc supports x86-64"},
		{"size", func(o *Object) { o.Sections[text].Size = 0x11 }, "section 2 (.text): field Size is 0x11 but Data has 0x10 bytes"},
		{"nobits with data", func(o *Object) { o.Sections[6].Data = []byte{1} }, "section 7 (.bss): SHT_NOBITS has Data"},
		{"null with data", func(o *Object) { o.Sections[11].Size = 1 }, "section 12 (.gone): is of type SHT_NULL but not empty"},
		{"rela with data", func(o *Object) { o.Sections[rela].Data = []byte{1} }, "section 3 (.rela.text): SHT_RELA has Data, Size, Link or Info of its own"},
		{"rela entry size", func(o *Object) { o.Sections[rela].EntSize = 12 }, "section 3 (.rela.text): entry size is 12, not 24"},
		{"rel", func(o *Object) { o.Sections[text].Type = elf.SHT_REL },
			"section 2 (.text): relocations without addends (SHT_REL) are not used on supported machines"},
		{"given symtab", func(o *Object) { o.Sections[12].Type = elf.SHT_SYMTAB }, "section 13 (.text): SHT_SYMTAB is made anew and cannot be given"},
		{"alignment", func(o *Object) { o.Sections[text].Align = 12 }, "section 2 (.text): alignment 0xc is not a power of two"},
		{"section name", func(o *Object) { o.Sections[text].Name = "a\x00b" }, `section 2 ("a\x00b"): name has a zero byte at 1`},
		{"info link", func(o *Object) { o.Sections[text].Flags |= elf.SHF_INFO_LINK },
			"section 2 (.text): sh_info names a section (SHF_INFO_LINK), which is known of relocations only"},
		{"compressed", func(o *Object) { o.Sections[9].Flags |= elf.SHF_COMPRESSED },
			"section 10 (.note): compressed, but its 0x4 bytes do not hold a compression header"},
		{"relocs elsewhere", func(o *Object) { o.Sections[12].Target = o.Sections[text] }, "section 13 (.text): SHT_PROGBITS has a Target or Relocs"},
		{"members elsewhere", func(o *Object) { o.Sections[12].GroupFlag = 1 }, "section 13 (.text): SHT_PROGBITS has a Signature, GroupFlag or Members"},
		{"nil section", func(o *Object) { o.Sections[12] = nil }, "section 13: is nil"},
		{"section twice", func(o *Object) { o.Sections[12] = o.Sections[9] }, "section 13 (.note): is in the object twice, also as section 10"},
		{"foreign link", func(o *Object) { o.Sections[7].Link = foreignSec }, "section 8 (.order): its linked section .foreign is not in the object"},
		{"no target", func(o *Object) { o.Sections[rela].Target = nil }, "section 3 (.rela.text): relocation section has no Target"},
		{"foreign target", func(o *Object) { o.Sections[rela].Target = foreignSec }, "section 3 (.rela.text): its target .foreign is not in the object"},
		{"foreign relocation symbol", func(o *Object) { o.Sections[rela].Relocs[2].Sym = foreignSym },
			"section 3 (.rela.text): relocation 2: its symbol foreign is not in the object"},
		{"relocation at the end", func(o *Object) { o.Sections[rela].Relocs[1].Off = 16 },
			"section 3 (.rela.text): relocation 1: offset 0x10 lies outside section .text of 0x10 bytes"},
		{"no signature", func(o *Object) { o.Sections[group].Signature = nil }, "section 1 (.group): group has no Signature"},
		{"foreign signature", func(o *Object) { o.Sections[group].Signature = foreignSym }, "section 1 (.group): its signature foreign is not in the object"},
		{"nil member", func(o *Object) { o.Sections[group].Members[0] = nil }, "section 1 (.group): member 0: is nil"},
		{"own member", func(o *Object) { o.Sections[group].Members[0] = o.Sections[group] }, "section 1 (.group): member 0: the group contains itself"},
		{"foreign member", func(o *Object) { o.Sections[group].Members[0] = foreignSec }, "section 1 (.group): member 0: section .foreign is not in the object"},
		{"nil symbol", func(o *Object) { o.Symbols[0] = nil }, "symbol 1: is nil"},
		{"symbol twice", func(o *Object) { o.Symbols[0] = o.Symbols[1] }, "a symbol is in the object twice"},
		{"foreign symbol section", func(o *Object) { o.Symbols[3].Section = foreignSec }, "symbol 4 (f): its section .foreign is not in the object"},
		{"symbol value", func(o *Object) { o.Symbols[2].Value = 17 }, "symbol 3 (end): value 0x11 lies beyond the end of section .text at 0x10"},
		{"symbol name", func(o *Object) { o.Symbols[2].Name = "\x00" }, `symbol 3 ("\x00"): name has a zero byte at 0`},
		{"symbol bind", func(o *Object) { o.Symbols[3].Bind = 16 }, "symbol 4 (f): binding 16 or type 2 does not fit 4 bits"},
		{"symbol index without section", func(o *Object) { o.Symbols[4].Shndx = 7 }, "symbol 5 (printk): field Shndx 0x7 is not a reserved section index"},
		{"symbol xindex", func(o *Object) { o.Symbols[4].Shndx = elf.SHN_XINDEX }, "symbol 5 (printk): field Shndx 0xffff is not a reserved section index"},
		{"symbol section and index", func(o *Object) { o.Symbols[3].Shndx = elf.SHN_ABS }, "symbol 4 (f): has both a Section (.text) and Shndx 0xfff1"},
		{"all at once", func(o *Object) { o.Sections[text].Align = 3; o.Symbols[2].Value = 17 },
			"section 2 (.text): alignment 0x3 is not a power of two\nsymbol 3 (end): value 0x11 lies beyond the end of section .text at 0x10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := sample()
			tt.spoil(o)
			_, err := o.Encode()
			wantError(t, err, tt.want)
		})
	}
}

// In a compressed section, relocations count bytes of the uncompressed
// contents: beyond the bytes in the file is right, beyond ch_size is not.
func TestCompressedExtent(t *testing.T) {
	chdr := make([]byte, chdrSize+1)
	chdr[8] = 100 // ch_size
	debug := &Section{Name: ".debug_info", Type: elf.SHT_PROGBITS, Flags: elf.SHF_COMPRESSED, Data: chdr, Size: chdrSize + 1}
	rela := &Section{Name: ".rela.debug_info", Type: elf.SHT_RELA, EntSize: 24, Target: debug, Relocs: []Reloc{{Off: 99, Type: 1}}}
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64, Sections: []*Section{debug, rela}}
	if _, got := roundTrip(t, o); diff(o, got) != "" {
		t.Errorf("(-want +got):\n%s", diff(o, got))
	}
	rela.Relocs[0].Off = 100
	_, err := o.Encode()
	wantError(t, err, "section 2 (.rela.debug_info): relocation 0: offset 0x64 lies outside section .debug_info of 0x64 bytes")
}
