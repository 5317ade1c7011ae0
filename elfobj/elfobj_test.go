package elfobj

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// flat is an Object with indices instead of pointers, so that two can be
// compared and a difference can be read.
type flat struct {
	Type     elf.Type
	Machine  elf.Machine
	OSABI    elf.OSABI
	Flags    uint32
	Sections []flatSection
	Symbols  []flatSymbol
}

type flatSection struct {
	Name      string
	Type      elf.SectionType
	Flags     elf.SectionFlag
	Addr      uint64
	Align     uint64
	EntSize   uint64
	Data      string
	Size      uint64
	Link      int
	Info      uint32
	Target    int
	Relocs    []flatReloc
	Signature int
	GroupFlag uint32
	Members   []int
	DataNil   bool
}

type flatSymbol struct {
	Symbol
	Section int
}

type flatReloc struct {
	Off    uint64
	Type   uint32
	Sym    int
	Addend int64
}

// flatten counts sections and symbols from 1; 0 is nil, -1 foreign.
func flatten(o *Object) flat {
	secs, syms := map[*Section]int{nil: 0}, map[*Symbol]int{nil: 0}
	for i, s := range o.Sections {
		secs[s] = i + 1
	}
	for i, s := range o.Symbols {
		syms[s] = i + 1
	}
	sec := func(s *Section) int {
		if i, ok := secs[s]; ok {
			return i
		}
		return -1
	}
	sym := func(s *Symbol) int {
		if i, ok := syms[s]; ok {
			return i
		}
		return -1
	}
	f := flat{Type: o.Type, Machine: o.Machine, OSABI: o.OSABI, Flags: o.Flags}
	for _, s := range o.Sections {
		fs := flatSection{
			Name: s.Name, Type: s.Type, Flags: s.Flags, Addr: s.Addr, Align: s.Align, EntSize: s.EntSize,
			Data: string(s.Data), Size: s.Size, Link: sec(s.Link), Info: s.Info, Target: sec(s.Target),
			Signature: sym(s.Signature), GroupFlag: s.GroupFlag,
			DataNil: s.Data == nil,
		}
		for _, r := range s.Relocs {
			fs.Relocs = append(fs.Relocs, flatReloc{r.Off, r.Type, sym(r.Sym), r.Addend})
		}
		for _, m := range s.Members {
			fs.Members = append(fs.Members, sec(m))
		}
		f.Sections = append(f.Sections, fs)
	}
	for _, s := range o.Symbols {
		fs := flatSymbol{*s, sec(s.Section)}
		fs.Symbol.Section = nil
		f.Symbols = append(f.Symbols, fs)
	}
	return f
}

// roundTrip encodes and reads back.
func roundTrip(t testing.TB, o *Object) ([]byte, *Object) {
	t.Helper()
	data, err := o.Encode()
	if err != nil {
		t.Fatalf("Encode: %v", err)
	}
	back, err := Parse(data)
	if err != nil {
		t.Fatalf("Parse of what Encode wrote: %v", err)
	}
	return data, back
}

// sample is an object with one of everything.
func sample() *Object {
	text := &Section{Name: ".text", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR, Align: 16, Data: []byte("0123456789abcdef"), Size: 16}
	shared := &Section{Name: ".text.shared", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_EXECINSTR | elf.SHF_GROUP, Align: 1, Data: []byte("xyz"), Size: 3}
	bss := &Section{Name: ".bss", Type: elf.SHT_NOBITS, Flags: elf.SHF_ALLOC | elf.SHF_WRITE, Align: 64, Size: 1 << 40}
	order := &Section{Name: ".order", Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC | elf.SHF_LINK_ORDER, Align: 8, Data: make([]byte, 8), Size: 8, Link: text}
	stab := &Section{Name: ".stabstr", Type: elf.SHT_STRTAB, Align: 1, Data: []byte("\x00a\x00"), Size: 3}
	note := &Section{Name: ".note", Type: elf.SHT_NOTE, Addr: 0x40, Data: []byte("note"), Size: 4, Link: stab, Info: 99, EntSize: 4}
	empty := &Section{Name: ".empty", Type: elf.SHT_PROGBITS}
	inactive := &Section{Name: ".gone", Type: elf.SHT_NULL}

	file := &Symbol{Name: "a.c", Type: elf.STT_FILE, Shndx: elf.SHN_ABS}
	secSym := &Symbol{Type: elf.STT_SECTION, Section: text}
	end := &Symbol{Name: "end", Section: text, Value: 16, Other: byte(elf.STV_HIDDEN)}
	global := &Symbol{Name: "f", Bind: elf.STB_GLOBAL, Type: elf.STT_FUNC, Section: text, Value: 4, Size: 12}
	undef := &Symbol{Name: "printk", Bind: elf.STB_GLOBAL}
	common := &Symbol{Name: "c", Bind: elf.STB_GLOBAL, Type: elf.STT_OBJECT, Shndx: elf.SHN_COMMON, Value: 8, Size: 8}
	klp := &Symbol{Name: ".klp.sym.vmlinux.f,2", Bind: elf.STB_GLOBAL, Shndx: SHNLivepatch}
	weak := &Symbol{Name: "f", Bind: elf.STB_WEAK, Section: shared, Type: elf.STT_FUNC}

	return &Object{
		Type: elf.ET_REL, Machine: elf.EM_X86_64, OSABI: elf.ELFOSABI_LINUX, Flags: 5,
		Sections: []*Section{
			{Name: ".group", Type: elf.SHT_GROUP, Align: 4, EntSize: 4, Signature: weak, GroupFlag: 1, Members: []*Section{shared}},
			text,
			{Name: ".rela.text", Type: elf.SHT_RELA, Flags: elf.SHF_INFO_LINK, Align: 8, EntSize: 24, Target: text, Relocs: []Reloc{
				{Off: 0, Type: 2, Sym: undef, Addend: -4}, {Off: 15, Type: 0}, {Off: 8, Type: 11, Sym: secSym, Addend: 1 << 62},
			}},
			{Name: ".klp.rela.vmlinux..text", Type: elf.SHT_RELA, Flags: SHFRelaLivepatch | elf.SHF_INFO_LINK | elf.SHF_ALLOC, Align: 8, EntSize: 24, Target: text, Relocs: []Reloc{
				{Off: 4, Type: 4, Sym: klp, Addend: -4},
			}},
			{Name: ".rela.none", Type: elf.SHT_RELA, Align: 8, EntSize: 24, Target: empty},
			shared, bss, order, stab, note, empty, inactive,
			{Name: ".text", Type: elf.SHT_PROGBITS, Align: 1, Data: []byte{0x90}, Size: 1},
		},
		Symbols: []*Symbol{file, secSym, end, global, undef, common, klp, weak},
	}
}

// fixtures returns the committed objects.
func fixtures(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/gcc-12.2-x86_64-*.o")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) == 0 {
		t.Fatal("no fixtures in testdata")
	}
	all := map[string][]byte{}
	for _, p := range paths {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(p)] = data
	}
	return all
}

// manySections is an object in which every symbol has a section of its own.
func manySections(count int) *Object {
	o := &Object{Type: elf.ET_REL, Machine: elf.EM_X86_64}
	for i := range count {
		s := &Section{Name: fmt.Sprintf(".data.v%d", i), Type: elf.SHT_PROGBITS, Flags: elf.SHF_ALLOC, Align: 1, Data: []byte{byte(i)}, Size: 1}
		o.Sections = append(o.Sections, s)
		o.Symbols = append(o.Symbols, &Symbol{Name: fmt.Sprintf("v%d", i), Type: elf.STT_OBJECT, Section: s})
	}
	return o
}

// diff is empty if the objects are equal.
func diff(want, got *Object) string {
	w, g := flatten(want), flatten(got)
	if reflect.DeepEqual(w, g) { // much faster than cmp
		return ""
	}
	return cmp.Diff(w, g)
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := "<nil>"
	if err != nil {
		got = err.Error()
	}
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("error (-want +got):\n%s", d)
	}
}
