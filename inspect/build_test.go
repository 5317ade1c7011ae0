package inspect

import (
	"debug/elf"
	"encoding/binary"
	"testing"

	"github.com/klpc/klpc/elfobj"
)

// spec is what a test module contains.
type spec struct {
	funcSize, objectSize uint64 // sizeof, in bytes
	replace              byte
	states               []State
	objects              []specObject
}

type specObject struct {
	name      string // empty: vmlinux
	callbacks [4]string
	funcs     []specFunc
}

type specFunc struct {
	old    string
	sympos uint64
	new    string
}

// Sizes that gcc 12.2 gives for Linux 6.1 and 6.12 as Debian configures them.
func debianSpec(objects ...specObject) spec {
	return spec{funcSize: 152, objectSize: 168, objects: objects}
}

// builder makes a livepatch module by hand.
type builder struct {
	o                                *elfobj.Object
	text, init, data, bss, str, info *elfobj.Section
	relaText, relaInit, relaData     *elfobj.Section
	thisModule, enable, dataSym      *elfobj.Symbol
	strSym, textSym, initFunc        *elfobj.Symbol
}

func rela(target *elfobj.Section) *elfobj.Section {
	return &elfobj.Section{Name: ".rela" + target.Name, Type: elf.SHT_RELA, Flags: elf.SHF_INFO_LINK, Align: 8, EntSize: 24, Target: target}
}

func newBuilder() *builder {
	section := func(name string, flags elf.SectionFlag) *elfobj.Section {
		return &elfobj.Section{Name: name, Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | flags, Align: 8, Data: []byte{}}
	}
	sectionSymbol := func(s *elfobj.Section) *elfobj.Symbol {
		return &elfobj.Symbol{Type: elf.STT_SECTION, Section: s}
	}
	b := &builder{
		text: section(".text", elf.SHF_EXECINSTR), init: section(".init.text", elf.SHF_EXECINSTR),
		data: section(".data", elf.SHF_WRITE), str: section(".rodata.str1.1", elf.SHF_MERGE|elf.SHF_STRINGS),
		info: section(".modinfo", 0),
		bss:  &elfobj.Section{Name: ".bss", Type: elf.SHT_NOBITS, Flags: elf.SHF_ALLOC | elf.SHF_WRITE, Align: 8},
	}
	this := section(".gnu.linkonce.this_module", elf.SHF_WRITE)
	this.Data, this.Size = make([]byte, 64), 64
	b.relaText, b.relaInit, b.relaData = rela(b.text), rela(b.init), rela(b.data)
	b.thisModule = &elfobj.Symbol{Name: "__this_module", Bind: elf.STB_GLOBAL, Type: elf.STT_OBJECT, Section: this, Size: 64}
	b.enable = &elfobj.Symbol{Name: "klp_enable_patch", Bind: elf.STB_GLOBAL}
	b.dataSym, b.strSym, b.textSym = sectionSymbol(b.data), sectionSymbol(b.str), sectionSymbol(b.text)
	b.initFunc = &elfobj.Symbol{Name: "init_module", Bind: elf.STB_GLOBAL, Type: elf.STT_FUNC, Section: b.init, Size: 21}
	grow(b.init, 21)
	b.o = &elfobj.Object{
		Type: elf.ET_REL, Machine: elf.EM_X86_64,
		Sections: []*elfobj.Section{b.text, b.relaText, b.init, b.relaInit, b.data, b.relaData, b.str, b.info, b.bss, this},
		Symbols:  []*elfobj.Symbol{b.dataSym, b.strSym, b.textSym, b.thisModule, b.enable, b.initFunc},
	}
	b.modinfo("license=GPL", "livepatch=Y", "name=livepatch_test", "vermagic=6.12.0 SMP ")
	return b
}

// grow adds zeros to a section and returns where they start.
func grow(s *elfobj.Section, n uint64) uint64 {
	off := s.Size
	s.Size += n
	if s.Type != elf.SHT_NOBITS {
		s.Data = append(s.Data, make([]byte, n)...)
	}
	return off
}

func (b *builder) modinfo(entries ...string) {
	b.info.Data = nil
	for _, e := range entries {
		b.info.Data = append(b.info.Data, e+"\x00"...)
	}
	b.info.Size = uint64(len(b.info.Data))
}

func (b *builder) string(s string) (addend int64) {
	off := grow(b.str, uint64(len(s)+1))
	copy(b.str.Data[off:], s)
	return int64(off)
}

// function returns the function of that name, making it in .text if need be.
func (b *builder) function(name string) *elfobj.Symbol {
	for _, s := range b.o.Symbols {
		if s.Name == name {
			return s
		}
	}
	s := &elfobj.Symbol{Name: name, Type: elf.STT_FUNC, Section: b.text, Value: grow(b.text, 32), Size: 32}
	b.o.Symbols = append(b.o.Symbols, s)
	return s
}

func (b *builder) variable(s *elfobj.Section, name string, size uint64) *elfobj.Symbol {
	sym := &elfobj.Symbol{Name: name, Type: elf.STT_OBJECT, Section: s, Value: grow(s, size), Size: size}
	b.o.Symbols = append(b.o.Symbols, sym)
	return sym
}

func (b *builder) symbol(name string) *elfobj.Symbol {
	for _, s := range b.o.Symbols {
		if s.Name == name {
			return s
		}
	}
	return nil
}

func (b *builder) pointer(off uint64, to *elfobj.Symbol, addend int64) {
	b.relaData.Relocs = append(b.relaData.Relocs, elfobj.Reloc{Off: off, Type: uint32(elf.R_X86_64_64), Sym: to, Addend: addend})
}

// tables makes the static tables and an init function that enables them.
func (b *builder) tables(s spec) {
	patch := b.variable(b.data, "patch", 200)
	objs := b.variable(b.data, "objs", uint64(len(s.objects)+1)*s.objectSize)
	b.pointer(patch.Value, b.thisModule, 0)
	b.pointer(patch.Value+patchObjs, b.dataSym, int64(objs.Value))
	b.data.Data[patch.Value+patchReplace] = s.replace
	if s.states != nil {
		states := b.variable(b.data, "states", uint64(len(s.states)+1)*stateSize)
		for i, st := range s.states {
			binary.LittleEndian.PutUint64(b.data.Data[states.Value+uint64(i)*stateSize:], st.ID)
			binary.LittleEndian.PutUint32(b.data.Data[states.Value+uint64(i)*stateSize+stateVersion:], st.Version)
		}
		b.pointer(patch.Value+patchStates, states, 0)
	}
	for i, o := range s.objects {
		b.objectEntry(objs.Value+uint64(i)*s.objectSize, s.funcSize, o, "funcs_"+string(rune('0'+i)))
	}
	b.enables(elfobj.Reloc{Off: 8, Type: uint32(elf.R_X86_64_32S), Sym: b.dataSym, Addend: int64(patch.Value)})
}

func (b *builder) objectEntry(at, funcSize uint64, o specObject, table string) {
	if o.name != "" {
		b.pointer(at+objectName, b.strSym, b.string(o.name))
	}
	for i, name := range o.callbacks {
		if name != "" {
			b.pointer(at+objectCallbacks+uint64(i)*pointerSize, b.function(name), 0)
		}
	}
	if o.funcs == nil { // as compilers do with a table of zeros
		b.pointer(at+objectFuncs, b.variable(b.bss, table, funcSize), 0)
		return
	}
	funcs := b.variable(b.data, table, uint64(len(o.funcs)+1)*funcSize)
	b.pointer(at+objectFuncs, b.dataSym, int64(funcs.Value))
	for i, f := range o.funcs {
		entry := funcs.Value + uint64(i)*funcSize
		b.pointer(entry+funcOldName, b.strSym, b.string(f.old))
		if f.new != "" {
			b.pointer(entry+funcNewFunc, b.textSym, int64(b.function(f.new).Value))
		}
		binary.LittleEndian.PutUint64(b.data.Data[entry+funcOldSympos:], f.sympos)
	}
}

// enables makes init_module call klp_enable_patch with what r refers to.
func (b *builder) enables(r elfobj.Reloc) {
	b.relaInit.Relocs = []elfobj.Reloc{r, {Off: 13, Type: uint32(elf.R_X86_64_PLT32), Sym: b.enable, Addend: -4}}
}

// klpSection makes a section of livepatch relocations for .text.
func (b *builder) klpSection(name string, relocs ...elfobj.Reloc) *elfobj.Section {
	s := &elfobj.Section{Name: name, Type: elf.SHT_RELA, Flags: elf.SHF_ALLOC | elf.SHF_INFO_LINK | elfobj.SHFRelaLivepatch,
		Align: 8, EntSize: 24, Target: b.text, Relocs: relocs}
	b.o.Sections = append(b.o.Sections, s)
	return s
}

func (b *builder) klpSymbol(name string) *elfobj.Symbol {
	if s := b.symbol(name); s != nil {
		return s
	}
	s := &elfobj.Symbol{Name: name, Bind: elf.STB_GLOBAL, Shndx: elfobj.SHNLivepatch}
	b.o.Symbols = append(b.o.Symbols, s)
	return s
}

// reloc makes a livepatch relocation in .text.
func (b *builder) reloc(off uint64, t elf.R_X86_64, symbol string) elfobj.Reloc {
	return elfobj.Reloc{Off: off, Type: uint32(t), Sym: b.klpSymbol(symbol), Addend: -4}
}

func (b *builder) encode(t testing.TB) []byte {
	t.Helper()
	data, err := b.o.Encode()
	if err != nil {
		t.Fatalf("Encode: %v", err)
	}
	return data
}

// full is a module with one of everything.
func full() *builder {
	b := newBuilder()
	s := debianSpec(
		specObject{name: "nf_tables", funcs: []specFunc{{"nft_b", 0, "new_nft_b"}, {"nft_a", 0, "new_nft_a"}}},
		specObject{callbacks: [4]string{"pre", "", "", "post"}, funcs: []specFunc{{"show", 2, "new_show_2"}, {"show", 1, "new_show_1"}, {"a_open", 0, "new_open"}}},
		specObject{name: "ext4", callbacks: [4]string{"pre", "post_p", "pre_un", "post"}},
	)
	s.replace, s.states = 1, []State{{7, 1}, {3, 2}}
	b.tables(s)
	b.klpSection(".klp.rela.nf_tables..text", b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.nf_tables.nft_lock,0"))
	b.klpSection(".klp.rela.ext4..text", b.reloc(12, elf.R_X86_64_PC32, ".klp.sym.ext4.ext4_x,3"))
	b.klpSection(".klp.rela.vmlinux..text",
		b.reloc(40, elf.R_X86_64_PLT32, ".klp.sym.vmlinux.zap,0"), b.reloc(48, elf.R_X86_64_PC32, ".klp.sym.vmlinux.zap,0"),
		b.reloc(56, elf.R_X86_64_PLT32, ".klp.sym.vmlinux.zap,0"), b.reloc(64, elf.R_X86_64_64, ".klp.sym.vmlinux.aaa,10"),
		b.reloc(72, elf.R_X86_64_32S, ".klp.sym.vmlinux.aaa,9"), b.reloc(80, elf.R_X86_64_PC32, ".klp.sym.nf_tables.late,0"))
	data := b.klpSection(".klp.rela.vmlinux..data", elfobj.Reloc{Off: grow(b.data, 8), Type: uint32(elf.R_X86_64_64), Sym: b.klpSymbol(".klp.sym.vmlinux.aaa,9")})
	data.Target = b.data
	b.modinfo("vermagic=6.12.0 SMP ", "import_ns=NS_B", "license=GPL", "import_ns=NS_A", "livepatch=Y", "name=livepatch_full", "depends=", "parm=a\tb")
	return b
}

// small has one function, in a kernel with larger structures, and takes the
// address of its struct klp_patch relative to the program counter.
func small() *builder {
	b := newBuilder()
	b.tables(spec{funcSize: 192, objectSize: 208, objects: []specObject{{name: "ext4", funcs: []specFunc{{"old_f", 0, "new_f"}}}}})
	b.enables(elfobj.Reloc{Off: 8, Type: uint32(elf.R_X86_64_PC32), Sym: b.symbol("patch"), Addend: -4})
	return b
}

// runTime has no static tables: it passes a pointer to klp_enable_patch.
func runTime() *builder {
	b := newBuilder()
	p := b.variable(b.bss, "lpatch", 8)
	b.enables(elfobj.Reloc{Off: 8, Type: uint32(elf.R_X86_64_PC32), Sym: p, Addend: -4})
	b.function("new_f")
	b.klpSection(".klp.rela.ext4..text", b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.ext4.ext4_x,0"))
	return b
}
