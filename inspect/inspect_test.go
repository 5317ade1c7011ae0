package inspect

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfobj"
)

var update = flag.Bool("update", false, "write the golden files")

func read(t testing.TB, b *builder) *Module {
	t.Helper()
	m, err := Read(b.encode(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func asJSON(t testing.TB, m *Module) string {
	t.Helper()
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data) + "\n"
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s (-want +got), -update writes it:\n%s", path, d)
	}
}

// modules are the ones with golden files.
func modules() map[string]func() *builder {
	return map[string]func() *builder{"full": full, "small": small, "runtime": runTime}
}

func TestGolden(t *testing.T) {
	want := map[string]bool{}
	for name, build := range modules() {
		t.Run(name, func(t *testing.T) {
			m := read(t, build())
			golden(t, name+".txt", m.Text())
			golden(t, name+".json", asJSON(t, m))
		})
		want[name+".txt"], want[name+".json"] = true, true
	}
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !e.IsDir() && !want[e.Name()] {
			t.Errorf("testdata/%s belongs to no module", e.Name())
		}
	}
}

// TestCanonical holds that the order of the file does not show.
func TestCanonical(t *testing.T) {
	want := read(t, full())
	for seed := range uint64(8) {
		b := full()
		rng := rand.New(rand.NewPCG(seed, 0))
		shuffle(rng, b.o.Sections)
		shuffle(rng, b.o.Symbols)
		for _, s := range b.o.Sections {
			shuffle(rng, s.Relocs)
		}
		got := read(t, b)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("seed %d (-want +got):\n%s", seed, d)
		}
		if d := cmp.Diff(want.Text(), got.Text()); d != "" {
			t.Errorf("seed %d, text (-want +got):\n%s", seed, d)
		}
	}
}

func shuffle[T any](rng *rand.Rand, s []T) {
	rng.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

func TestReadCompressed(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(full().encode(t)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := Read(packed.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(read(t, full()), got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestStrides reads tables of structures of several sizes.
func TestStrides(t *testing.T) {
	objects := []specObject{
		{name: "m1", funcs: []specFunc{{"a", 0, "new_a"}}},
		{funcs: []specFunc{{"b", 1, "new_b"}, {"c", 0, "new_c"}}},
		{funcs: nil, name: "m2"},
		{name: "m3", callbacks: [4]string{"", "cb", "", ""}, funcs: []specFunc{{"d", 4, "new_d"}}},
	}
	code := func(name string) Code { return Code{name, ".text", 32} }
	want := []Object{
		{"vmlinux", []Callback{}, []Function{{"b", 1, code("new_b")}, {"c", 0, code("new_c")}}},
		{"m1", []Callback{}, []Function{{"a", 0, code("new_a")}}},
		{"m2", []Callback{}, []Function{}},
		{"m3", []Callback{{"post_patch", code("cb")}}, []Function{{"d", 4, code("new_d")}}},
	}
	for _, size := range []struct{ function, object uint64 }{{24, 56}, {120, 136}, {152, 168}, {160, 64}, {256, 512}} {
		b := newBuilder()
		b.tables(spec{funcSize: size.function, objectSize: size.object, objects: objects})
		m := read(t, b)
		if d := cmp.Diff(want, m.Objects); d != "" {
			t.Errorf("%d, %d bytes (-want +got):\n%s", size.function, size.object, d)
		}
		if d := cmp.Diff([]string{}, m.Problems); d != "" {
			t.Errorf("%d, %d bytes: problems (-want +got):\n%s", size.function, size.object, d)
		}
	}
}

// TestPatchAmongOthers has structures whose first fields are like those of
// struct klp_patch.
func TestPatchAmongOthers(t *testing.T) {
	b := small()
	fops := b.variable(b.data, "fops", 64) // owner, llseek
	b.pointer(fops.Value, b.thisModule, 0)
	b.pointer(fops.Value+8, b.function("llseek"), 0)
	b.relaInit.Relocs = append(b.relaInit.Relocs, elfobj.Reloc{Off: 1, Type: uint32(elf.R_X86_64_32S), Sym: fops})
	if d := cmp.Diff(read(t, small()), read(t, b)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestProblems(t *testing.T) {
	const sec = ".klp.rela.ext4..text"
	good := func(b *builder) elfobj.Reloc { return b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.ext4.f,0") }
	tests := map[string]struct {
		edit func(b *builder)
		want string
	}{
		"none": {func(b *builder) { b.klpSection(sec, good(b)) }, ""},
		"no flag": {func(b *builder) { b.klpSection(sec, good(b)).Flags &^= elfobj.SHFRelaLivepatch },
			"section .klp.rela.ext4..text: no flag SHF_RELA_LIVEPATCH"},
		"not kept": {func(b *builder) { b.klpSection(sec, good(b)).Flags &^= elf.SHF_ALLOC },
			"section .klp.rela.ext4..text: no flag SHF_ALLOC, the kernel would not keep it"},
		"section name": {func(b *builder) { b.klpSection(".rela.klp", good(b)) },
			"section .rela.klp: the name is not .klp.rela.OBJECT.SECTION"},
		"section name without section": {func(b *builder) { b.klpSection(".klp.rela.ext4", good(b)) },
			"section .klp.rela.ext4: the name is not .klp.rela.OBJECT.SECTION"},
		"long object name": {func(b *builder) { b.klpSection(".klp.rela."+strings.Repeat("x", 56)+"..text", good(b)) },
			"section .klp.rela." + strings.Repeat("x", 56) + "..text: the name is not .klp.rela.OBJECT.SECTION"},
		"other target": {func(b *builder) { b.klpSection(".klp.rela.ext4..data", good(b)) },
			"section .klp.rela.ext4..data: it applies to section .text"},
		"target not loaded": {func(b *builder) {
			note := &elfobj.Section{Name: ".note", Type: elf.SHT_PROGBITS, Data: make([]byte, 32), Size: 32}
			b.o.Sections = append(b.o.Sections, note)
			b.klpSection(".klp.rela.ext4..note", good(b)).Target = note
		}, "section .klp.rela.ext4..note: section .note is not loaded"},
		"unprintable name": {func(b *builder) { b.text.Data[4] = 1; b.function("new_f").Name = "a\n"; b.klpSection(sec, good(b)) },
			`section .klp.rela.ext4..text: "a\n+0x4 (.text)": the place is not zero`},
		"no relocations": {func(b *builder) {
			s := b.klpSection(sec)
			s.Type, s.Target, s.EntSize, s.Data, s.Flags = elf.SHT_PROGBITS, nil, 0, []byte{}, elf.SHF_ALLOC
		}, "section .klp.rela.ext4..text: it holds no relocations"},
		"unlisted object": {func(b *builder) {
			b.klpSection(".klp.rela.xfs..text", b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.xfs.f,0"))
		}, "section .klp.rela.xfs..text: xfs is not among the patched objects, so that it is never applied"},
		"unlisted vmlinux": {func(b *builder) {
			b.klpSection(".klp.rela.vmlinux..text", b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.vmlinux.f,0"))
		}, ""},
		"vmlinux symbol in a module's section": {func(b *builder) { b.klpSection(sec, b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.vmlinux.f,0")) },
			"section .klp.rela.ext4..text: symbol .klp.sym.vmlinux.f,0 is of vmlinux, relocations for a module must not use it"},
		"symbol name without sympos": {func(b *builder) { b.klpSection(sec, b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.ext4.f")) },
			"section .klp.rela.ext4..text: the name of symbol .klp.sym.ext4.f is not .klp.sym.OBJECT.NAME,SYMPOS"},
		"symbol name with a sign": {func(b *builder) { b.klpSection(sec, b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.ext4.f,+1")) },
			"section .klp.rela.ext4..text: the name of symbol .klp.sym.ext4.f,+1 is not .klp.sym.OBJECT.NAME,SYMPOS"},
		"symbol name without object": {func(b *builder) { b.klpSection(sec, b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.f,0")) },
			"section .klp.rela.ext4..text: the name of symbol .klp.sym.f,0 is not .klp.sym.OBJECT.NAME,SYMPOS"},
		"symbol without prefix": {func(b *builder) { b.klpSection(sec, b.reloc(4, elf.R_X86_64_PC32, "ext4.f,0")) },
			"section .klp.rela.ext4..text: the name of symbol ext4.f,0 is not .klp.sym.OBJECT.NAME,SYMPOS"},
		"long symbol name": {func(b *builder) {
			b.klpSection(sec, b.reloc(4, elf.R_X86_64_PC32, ".klp.sym.ext4."+strings.Repeat("f", 512)+",0"))
		}, "section .klp.rela.ext4..text: the name of symbol .klp.sym.ext4." + strings.Repeat("f", 512) + ",0 is not .klp.sym.OBJECT.NAME,SYMPOS"},
		"no symbol": {func(b *builder) { r := good(b); r.Sym = nil; b.klpSection(sec, r) },
			"section .klp.rela.ext4..text: a relocation has no symbol"},
		"symbol not marked": {func(b *builder) { r := good(b); r.Sym.Shndx = elf.SHN_UNDEF; b.klpSection(sec, r) },
			"section .klp.rela.ext4..text: symbol .klp.sym.ext4.f,0 is not a livepatch symbol (SHN_LIVEPATCH)\n" +
				"symbol .klp.sym.ext4.f,0 is not marked as a livepatch symbol (SHN_LIVEPATCH)"},
		"symbol not marked and not used": {func(b *builder) { good(b).Sym.Shndx = elf.SHN_UNDEF },
			"symbol .klp.sym.ext4.f,0 is not marked as a livepatch symbol (SHN_LIVEPATCH)"},
		"ordinary relocation": {func(b *builder) { b.relaText.Relocs = append(b.relaText.Relocs, good(b)) },
			"new_f+0x4 (.text): an ordinary relocation uses the livepatch symbol .klp.sym.ext4.f,0"},
		"ordinary relocation that does nothing": {func(b *builder) {
			r := good(b)
			r.Type = uint32(elf.R_X86_64_NONE)
			b.relaText.Relocs = append(b.relaText.Relocs, r)
		}, ""},
		"place not zero": {func(b *builder) { b.text.Data[7] = 1; b.klpSection(sec, good(b)) },
			"section .klp.rela.ext4..text: new_f+0x4 (.text): the place is not zero"},
		"bytes around the place": {func(b *builder) { b.text.Data[3], b.text.Data[8] = 1, 1; b.klpSection(sec, good(b)) }, ""},
		"place at the end": {func(b *builder) { b.klpSection(sec, b.reloc(29, elf.R_X86_64_PC32, ".klp.sym.ext4.f,0")) },
			"section .klp.rela.ext4..text: new_f+0x1d (.text): the place ends outside its section"},
		"type": {func(b *builder) { b.klpSection(sec, b.reloc(4, elf.R_X86_64_GOTPCREL, ".klp.sym.ext4.f,0")) },
			"section .klp.rela.ext4..text: new_f+0x4 (.text): the livepatch core cannot apply R_X86_64_GOTPCREL"},
		"unknown type": {func(b *builder) { b.klpSection(sec, b.reloc(4, 200, ".klp.sym.ext4.f,0")) },
			"section .klp.rela.ext4..text: new_f+0x4 (.text): the livepatch core cannot apply type 200"},
		"written twice": {func(b *builder) {
			b.relaText.Relocs = append(b.relaText.Relocs, elfobj.Reloc{Off: 6, Type: uint32(elf.R_X86_64_PC32), Sym: b.enable})
			b.klpSection(sec, good(b))
		}, "new_f+0x6 (.text): two relocations write the same place"},
		"never enabled": {func(b *builder) { b.relaInit.Relocs = b.relaInit.Relocs[:1] }, "the module does not call klp_enable_patch"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := small()
			tt.edit(b)
			m, err := Read(b.encode(t))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, strings.Join(m.Problems, "\n")); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestTableProblems(t *testing.T) {
	one := specFunc{"f", 0, "new_f"}
	tests := map[string]struct {
		objects []specObject
		edit    func(b *builder)
		want    string
	}{
		"function twice": {[]specObject{{funcs: []specFunc{one, {"f", 1, "new_f"}}}}, nil, "vmlinux: function f,1 is listed twice"},
		"not twice":      {[]specObject{{funcs: []specFunc{one, {"f", 2, "new_f"}}}}, nil, ""},
		"object twice": {[]specObject{{name: "m", funcs: []specFunc{one}}, {name: "m", funcs: []specFunc{one}}}, nil,
			"object m is listed twice"},
		"object called vmlinux": {[]specObject{{name: "vmlinux", funcs: []specFunc{one}}}, nil,
			`object "vmlinux" is taken for a module: vmlinux is the object without a name`},
		"no new function": {[]specObject{{funcs: []specFunc{{old: "f"}}}}, nil, "vmlinux: function f: it has no new_func"},
		"new function undefined": {[]specObject{{funcs: []specFunc{one}}}, func(b *builder) {
			for i, r := range b.relaData.Relocs {
				if r.Sym == b.textSym {
					b.relaData.Relocs[i].Sym, b.relaData.Relocs[i].Addend = b.enable, 0
				}
			}
		}, "vmlinux: function f: it points to klp_enable_patch, which the module does not define"},
		"new function elsewhere": {[]specObject{{funcs: []specFunc{one}}}, func(b *builder) { b.symbol("new_f").Value++; b.symbol("new_f").Size-- },
			"vmlinux: function f: it points to .text+0x0, where no function starts"},
		"callback elsewhere": {[]specObject{{callbacks: [4]string{"cb"}, funcs: []specFunc{one}}}, func(b *builder) {
			for i, r := range b.relaData.Relocs {
				if r.Sym.Name == "cb" {
					b.relaData.Relocs[i].Addend = 2
				}
			}
		}, "vmlinux: callback pre_patch: it points to cb+0x2 (.text), where no function starts"},
		"no end, one entry": {[]specObject{{funcs: []specFunc{one}}}, func(b *builder) { b.symbol("funcs_0").Size = 40 },
			"funcs_0: the array of struct klp_func does not end with an entry of zeros"},
		"no end, two entries": {[]specObject{{funcs: []specFunc{one, {"g", 0, "new_g"}}}}, func(b *builder) { b.symbol("funcs_0").Size = 2 * 152 },
			"funcs_0: the array of struct klp_func does not end with an entry of zeros"},
		"no end, by another table": {[]specObject{{funcs: []specFunc{one, {"g", 0, "new_g"}}}, {name: "m", funcs: []specFunc{one}}},
			func(b *builder) { b.symbol("funcs_1").Size = 152 },
			"funcs_1: the array of struct klp_func does not end with an entry of zeros"},
		"no end of objects": {[]specObject{{funcs: []specFunc{one}}, {name: "m", funcs: []specFunc{one}}}, func(b *builder) { b.symbol("objs").Size = 2 * 168 },
			"objs: the array of struct klp_object does not end with an entry of zeros"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := newBuilder()
			b.tables(debianSpec(tt.objects...))
			if tt.edit != nil {
				tt.edit(b)
			}
			if d := cmp.Diff(tt.want, strings.Join(read(t, b).Problems, "\n")); d != "" {
				t.Errorf("problems (-want +got):\n%s", d)
			}
		})
	}
}

func TestStatesWithoutEnd(t *testing.T) {
	b := full()
	b.symbol("states").Size = 2 * stateSize
	want := []string{"states: the array of struct klp_state does not end with an entry of zeros"}
	if d := cmp.Diff(want, read(t, b).Problems); d != "" {
		t.Errorf("problems (-want +got):\n%s", d)
	}
}

func TestReadRefusals(t *testing.T) {
	rename := func(name string) func(b *builder) { // so that no variable is there
		return func(b *builder) { b.symbol(name).Type = elf.STT_NOTYPE }
	}
	at := func(b *builder, variable string, off uint64) *byte { return &b.data.Data[b.symbol(variable).Value+off] }
	tests := map[string]struct {
		edit func(b *builder)
		want string
	}{
		"no module":     {func(b *builder) { b.info.Name = ".info" }, "read module: no .modinfo section: not a kernel module"},
		"no livepatch":  {func(b *builder) { b.modinfo("name=m") }, "m is a module, but not a livepatch module: it has no livepatch= in .modinfo"},
		"no patch size": {rename("objs"), ".data+0xc8: no symbol tells the size of the array of struct klp_object"},
		"no func size":  {rename("funcs_0"), "no symbol tells the size of the array of struct klp_func"},
		"replace":       {func(b *builder) { *at(b, "patch", patchReplace) = 2 }, "patch (.data): struct klp_patch has no flag replace that is 0 or 1"},
		"pointer nowhere in an object": {func(b *builder) { b.pointer(b.symbol("objs").Value+64, b.strSym, 0) },
			"objs: the pointers in it are not those of an array of struct klp_object"},
		"pointer between fields": {func(b *builder) { b.pointer(b.symbol("funcs_1").Value+20, b.strSym, 0) },
			"funcs_1: the pointers in it are not those of an array of struct klp_func"},
		"name in code": {func(b *builder) {
			for i, r := range b.relaData.Relocs {
				if r.Off == b.symbol("funcs_0").Value {
					b.relaData.Relocs[i].Sym = b.textSym
				}
			}
		}, "funcs_0: the pointers in it are not those of an array of struct klp_func"},
		"entry without a name": {func(b *builder) {
			b.relaData.Relocs = without(b.relaData.Relocs, b.symbol("funcs_1").Value+152)
		}, "funcs_1: the pointers in it are not those of an array of struct klp_func"},
		"numbers behind the fields": {func(b *builder) { *at(b, "funcs_1", 30) = 1 },
			"funcs_1: unknown contents at offset 0x1e in an array of struct klp_func"},
		"address without relocation": {func(b *builder) {
			b.relaData.Relocs = without(b.relaData.Relocs, b.symbol("funcs_1").Value+152+funcNewFunc)
			*at(b, "funcs_1", 152+funcNewFunc) = 9
		}, "funcs_1: unknown contents at offset 0xa0 in an array of struct klp_func"},
		"name without end": {func(b *builder) { b.str.Data = bytes.ReplaceAll(b.str.Data, []byte{0}, []byte{'x'}) }, "no string at"},
		"entries of two sizes": {func(b *builder) {
			f := b.variable(b.data, "odd", 3*160)
			for i, r := range b.relaData.Relocs {
				if r.Off == b.symbol("objs").Value+objectFuncs {
					b.relaData.Relocs[i] = elfobj.Reloc{Off: r.Off, Type: r.Type, Sym: f}
				}
			}
			b.pointer(f.Value, b.strSym, 0)
			b.pointer(f.Value+160, b.strSym, 0)
		}, "funcs_1: entries have 152 bytes, those of other tables 160"},
		"cut off": {func(b *builder) { b.symbol("funcs_0").Size = 20 }, "funcs_0: an entry of the array of struct klp_func is cut off"},
		"outside": {func(b *builder) { b.symbol("funcs_0").Size = 1 << 40 }, "funcs_0: "},
		"two patches": {func(b *builder) {
			p := b.variable(b.data, "second", 200)
			b.pointer(p.Value, b.thisModule, 0)
			b.pointer(p.Value+8, b.symbol("objs"), 0)
			b.relaInit.Relocs = append(b.relaInit.Relocs, elfobj.Reloc{Off: 1, Type: uint32(elf.R_X86_64_32S), Sym: p})
		}, "2 structures look like the struct klp_patch: second (.data) and patch (.data)"},
		"states without symbol": {rename("states"), "no symbol tells the size of the array of struct klp_state"},
		"pointer between states": {func(b *builder) { b.pointer(b.symbol("states").Value+8, b.strSym, 0) },
			"states: the pointers in it are not those of an array of struct klp_state"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := full()
			tt.edit(b)
			_, err := Read(b.encode(t))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %s", err, tt.want)
			}
		})
	}
	if _, err := Read([]byte("#!/bin/sh\n")); err == nil || err.Error() != "read module: not an ELF file" {
		t.Errorf("a script: error %v", err)
	}
}

func without(relocs []elfobj.Reloc, off uint64) []elfobj.Reloc {
	var kept []elfobj.Reloc
	for _, r := range relocs {
		if r.Off != off {
			kept = append(kept, r)
		}
	}
	return kept
}

func TestShown(t *testing.T) {
	for in, want := range map[string]string{
		"a b": "a b", "": `""`, "a\n": `"a\n"`, "a ": `"a "`, `"a"`: `"\"a\""`, "\xff": `"\xff"`, "é": "é", "a\x1b[0m": `"a\x1b[0m"`,
	} {
		if got := shown(in); got != want {
			t.Errorf("shown(%q) = %s, want %s", in, got, want)
		}
	}
}

// FuzzRead holds that reading and rendering never panic, that a text has no
// control characters but line ends, and that no list is nil.
func FuzzRead(f *testing.F) {
	for _, build := range modules() {
		f.Add(build().encode(f))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(data)
		if err != nil {
			return
		}
		if i := strings.IndexFunc(m.Text(), func(c rune) bool { return c != '\n' && c < ' ' }); i >= 0 {
			t.Errorf("control character at byte %d of the text", i)
		}
		if m.nilList() {
			t.Error("a list is nil")
		}
	})
}

func (m *Module) nilList() bool {
	for _, o := range m.Objects {
		if o.Functions == nil || o.Callbacks == nil {
			return true
		}
	}
	for _, r := range m.Relocations {
		if r.Symbols == nil {
			return true
		}
	}
	return m.States == nil || m.Objects == nil || m.Relocations == nil || m.Modinfo == nil || m.Problems == nil
}
