package target

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// symbols below make a kernel's table in the order of kallsyms: per-CPU data,
// then code, then the end.
const (
	testText   = 0xffffffff81000000 // where .text starts
	testRodata = 0xffffffff82000000
	testEnd    = 0xffffffff83000000
)

// order is the sequence in which scripts/kallsyms.c writes its tables.
type order int

const (
	order61 order = iota // offsets first, no table by name
	order62              // offsets first, table by name before the tokens
	order64              // offsets after the tokens
	order7x              // and no relative base, alignment 4
)

// encoder writes kallsyms tables as scripts/kallsyms.c does, but for its choice
// of tokens.
type encoder struct {
	order   order
	meaning offsetMeaning
	addr    uint64 // where the first table will be

	out    []byte
	labels map[string]int // kallsyms_* names to positions in out
}

func (e *encoder) label(name string) {
	align := uint64(8)
	if e.order == order7x {
		align = 4
	}
	for (e.addr+uint64(len(e.out)))%align != 0 {
		e.out = append(e.out, 0)
	}
	e.labels[name] = len(e.out)
}

// testTokens stands for each printable letter, and gives spare numbers to
// common pairs, one of them empty.
func testTokens() [tokens]string {
	var t [tokens]string
	for c := '!'; c <= '~'; c++ {
		t[c] = string(c)
	}
	for i, pair := range []string{"t_", "T_", "sys", "_x"} {
		t[200+i] = pair
	}
	return t
}

// compress writes a kind and name as token numbers.
func compress(text string) []byte {
	t := testTokens()
	var out []byte
	for len(text) > 0 {
		best := -1
		for i, token := range t {
			if token != "" && strings.HasPrefix(text, token) && (best < 0 || len(token) > len(t[best])) {
				best = i
			}
		}
		out = append(out, byte(best))
		text = text[len(t[best]):]
	}
	return out
}

// encode writes all tables for symbols, which must be in kallsyms' order.
func (e *encoder) encode(symbols []Symbol) {
	e.labels = map[string]int{}
	if e.order <= order62 {
		e.offsets(symbols)
	}
	e.label("kallsyms_num_syms")
	e.out = binary.LittleEndian.AppendUint32(e.out, uint32(len(symbols)))
	e.names(symbols)
	if e.order == order62 {
		e.seqs(symbols)
	}
	e.label("kallsyms_token_table")
	var starts []byte
	table := len(e.out)
	for _, token := range testTokens() {
		starts = binary.LittleEndian.AppendUint16(starts, uint16(len(e.out)-table))
		e.out = append(append(e.out, token...), 0)
	}
	e.label("kallsyms_token_index")
	e.out = append(e.out, starts...)
	if e.order >= order64 {
		e.offsets(symbols)
		e.seqs(symbols)
	}
}

func (e *encoder) names(symbols []Symbol) {
	e.label("kallsyms_names")
	start := len(e.out)
	var markers []byte
	for i, s := range symbols {
		if i%256 == 0 {
			markers = binary.LittleEndian.AppendUint32(markers, uint32(len(e.out)-start))
		}
		numbers := compress(string(s.Kind) + s.Name)
		if n := len(numbers); n < 0x80 {
			e.out = append(e.out, byte(n))
		} else {
			e.out = append(e.out, byte(n&0x7f|0x80), byte(n>>7))
		}
		e.out = append(e.out, numbers...)
	}
	e.label("kallsyms_markers")
	e.out = append(e.out, markers...)
}

func (e *encoder) offsets(symbols []Symbol) {
	e.label("kallsyms_offsets")
	i := slices.IndexFunc(symbols, func(s Symbol) bool { return e.meaning != offsetPercpu || s.Kind != 'A' })
	base := symbols[i].Addr
	for _, s := range symbols {
		var v uint64
		switch {
		case e.meaning == offsetPlace:
			v = s.Addr - (e.addr + uint64(len(e.out)))
		case e.meaning == offsetPlain:
			v = s.Addr - base
		case s.Kind == 'A':
			v = s.Addr
		default:
			v = base - s.Addr - 1
		}
		e.out = binary.LittleEndian.AppendUint32(e.out, uint32(v))
	}
	if e.order != order7x {
		e.label("kallsyms_relative_base")
		e.out = binary.LittleEndian.AppendUint64(e.out, base)
	}
}

func (e *encoder) seqs(symbols []Symbol) {
	e.label("kallsyms_seqs_of_names")
	byName := make([]int, len(symbols))
	for i := range byName {
		byName[i] = i
	}
	slices.SortStableFunc(byName, func(a, b int) int { return strings.Compare(symbols[a].Name, symbols[b].Name) })
	for _, i := range byName {
		e.out = append(e.out, byte(i>>16), byte(i>>8), byte(i))
	}
}

// kernelSymbols makes a table with n further functions. Every 50th is called
// twin; one name needs a length of two bytes.
func kernelSymbols(n int, percpu bool) []Symbol {
	var all []Symbol
	if percpu {
		all = append(all, Symbol{"__per_cpu_start", 0, 'A'}, Symbol{"twin", 0x1000, 'A'}, Symbol{"cpu_info", 0x1040, 'A'})
	}
	all = append(all, Symbol{"_text", testText, 'T'}, Symbol{"_stext", testText, 'T'})
	for i := range n {
		s := Symbol{Name: fmt.Sprintf("sys_x%d", i*7919%n), Addr: testText + 0x40*uint64(i+1), Kind: 'T'}
		if i%50 == 7 {
			s.Name, s.Kind = "twin", 't'
		}
		if i == n/2 {
			s.Name = "long_" + strings.Repeat("0123456789", 30)
		}
		all = append(all, s)
	}
	return append(all, Symbol{"_end", testEnd, 'B'})
}

// tablesImage puts tables into .rodata between bytes that look a little like
// them. Before are zeros, ascending numbers and noise.
func tablesImage(e *encoder, symbols []Symbol) *Image {
	var before []byte
	before = append(before, make([]byte, 0x100)...)
	for i := range 0x200 {
		before = binary.LittleEndian.AppendUint16(before, uint16(i*3))
	}
	for i := range 0x200 {
		before = binary.LittleEndian.AppendUint32(before, uint32(i*0x600))
	}
	before = append(before, noise(0x1004)...)
	e.addr = testRodata + uint64(len(before))
	e.encode(symbols)
	data := append(append(before, e.out...), noise(0x800)...)
	im := &Image{
		Machine: elf.EM_X86_64,
		Sections: []ImageSection{
			{Name: ".text", Addr: testText, Size: 0x10, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Data: make([]byte, 0x10)},
			{Name: ".rodata", Addr: testRodata, Size: uint64(len(data)), Flags: elf.SHF_ALLOC, Data: data},
			{Name: ".bss", Addr: testEnd - 0x1000, Size: 0x1000, Flags: elf.SHF_ALLOC | elf.SHF_WRITE},
		},
		byAddr: []int{0, 1},
		tables: map[string]uint64{},
	}
	for name, off := range e.labels {
		im.tables[name] = e.addr + uint64(off)
	}
	return im
}

// noise makes the same n bytes each time, which look like none of the tables.
func noise(n int) []byte {
	b := make([]byte, n)
	state := uint32(12345)
	for i := range b {
		state = state*1664525 + 1013904223
		b[i] = byte(state >> 24)
	}
	return b
}

// elfSection and elfSymbol describe a file for elfFile. Section indices are
// those of sections plus one.
type elfSection struct {
	name  string
	typ   elf.SectionType
	flags elf.SectionFlag
	addr  uint64
	data  []byte
	size  uint64 // SHT_NOBITS
}

type elfSymbol struct {
	name  string
	shndx elf.SectionIndex
	info  byte
	value uint64
}

// elfFile encodes a little-endian 64-bit file for x86-64, with a symbol table if
// symbols is not nil.
func elfFile(t testing.TB, typ elf.Type, sections []elfSection, symbols []elfSymbol) []byte {
	t.Helper()
	if symbols != nil {
		strtab, symtab := []byte{0}, make([]byte, elf.Sym64Size)
		for _, s := range symbols {
			symtab = binary.LittleEndian.AppendUint32(symtab, uint32(len(strtab)))
			symtab = append(symtab, s.info, 0)
			symtab = binary.LittleEndian.AppendUint16(symtab, uint16(s.shndx))
			symtab = binary.LittleEndian.AppendUint64(symtab, s.value)
			symtab = binary.LittleEndian.AppendUint64(symtab, 0)
			strtab = append(append(strtab, s.name...), 0)
		}
		sections = append(slices.Clone(sections),
			elfSection{name: ".strtab", typ: elf.SHT_STRTAB, data: strtab},
			elfSection{name: ".symtab", typ: elf.SHT_SYMTAB, data: symtab})
	}
	names := []byte{0}
	sections = append(slices.Clone(sections), elfSection{name: ".shstrtab", typ: elf.SHT_STRTAB})
	var starts []uint32
	for _, s := range sections {
		starts = append(starts, uint32(len(names)))
		names = append(append(names, s.name...), 0)
	}
	sections[len(sections)-1].data = names

	body := make([]byte, 64)
	headers := []elf.Section64{{}}
	for i, s := range sections {
		body = append(body, make([]byte, -len(body)&7)...)
		h := elf.Section64{Name: starts[i], Type: uint32(s.typ), Flags: uint64(s.flags), Addr: s.addr,
			Off: uint64(len(body)), Size: uint64(len(s.data)), Addralign: 1}
		switch s.typ {
		case elf.SHT_NOBITS:
			h.Size = s.size
		case elf.SHT_SYMTAB:
			h.Link, h.Entsize, h.Addralign = uint32(i), elf.Sym64Size, 8 // .strtab is the one before
			h.Info = 1
			for n, sym := range symbols {
				if sym.info>>4 == byte(elf.STB_LOCAL) {
					h.Info = uint32(n + 2)
				}
			}
		}
		headers = append(headers, h)
		body = append(body, s.data...)
	}
	body = append(body, make([]byte, -len(body)&7)...)
	head := elf.Header64{Type: uint16(typ), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: uint64(len(body)),
		Ehsize: 64, Shentsize: 64, Shnum: uint16(len(headers)), Shstrndx: uint16(len(headers) - 1)}
	copy(head.Ident[:], "\x7fELF\x02\x01\x01")
	var out bytes.Buffer
	for _, part := range []any{head, body[64:], headers} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

// vmlinuxFile encodes an image's sections.
func vmlinuxFile(t testing.TB, im *Image) []byte {
	t.Helper()
	var sections []elfSection
	for _, s := range im.Sections {
		e := elfSection{name: s.Name, typ: elf.SHT_PROGBITS, flags: s.Flags, addr: s.Addr, data: s.Data}
		if s.Data == nil {
			e.typ, e.size = elf.SHT_NOBITS, s.Size
		}
		sections = append(sections, e)
	}
	return elfFile(t, elf.ET_EXEC, sections, nil)
}

// bzImage wraps a payload in a setup header.
func bzImage(payload []byte) []byte {
	const sectors = 3
	data := make([]byte, (sectors+1)*bzSectorSize+0x40)
	data[bzSetupSects] = sectors
	copy(data[bzMagic:], "HdrS")
	binary.LittleEndian.PutUint16(data[bzVersion:], 0x020f)
	binary.LittleEndian.PutUint32(data[bzPayloadOffset:], 0x40)
	binary.LittleEndian.PutUint32(data[bzPayloadLength:], uint32(len(payload)))
	return append(append(data, payload...), "trailing reloc and signature bytes"...)
}

// sized appends the uncompressed size, as Kbuild does.
func sized(payload []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(slices.Clone(payload), uint32(n))
}
