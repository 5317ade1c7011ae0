package codegen_test

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/target"
)

// initFile stands for the module's init file: tables of pointers that Finalize
// fills in.
func initFile(funcs, callbacks int) string {
	var decls, table strings.Builder
	add := func(prefix string, n int) {
		for i := range n {
			fmt.Fprintf(&decls, "extern char %s%d[] __attribute__((weak));\n", prefix, i)
			fmt.Fprintf(&table, "%s%d, ", prefix, i)
		}
	}
	add(codegen.FuncPointer, funcs)
	add(codegen.CallbackPointer, callbacks)
	return decls.String() + "void *table[] = { " + table.String() + "};\nint init_module(void) { return printk(\"patch\"); }\n"
}

// finalize emits a plan, links it with an init file, and finalizes.
func finalize(t testing.TB, p *codegen.Plan) []byte {
	t.Helper()
	if len(p.Problems) > 0 {
		t.Fatalf("problems: %v", p.Problems)
	}
	var objects [][]byte
	for _, o := range p.Emit() {
		if o != nil {
			objects = append(objects, encode(t, o))
		}
	}
	funcs, callbacks := 0, 0
	for _, o := range p.Objects {
		funcs += len(o.Funcs)
		callbacks += len(o.Callbacks)
	}
	objects = append(objects, compile(t, initFile(funcs, callbacks), "-g"))
	data, err := p.Finalize(parse(t, relink(t, objects...)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// livepatch is the canonical text of what makes a module a livepatch: its
// livepatch relocation sections with what they refer to, and where the table
// points.
func livepatch(o *elfobj.Object) string {
	var b strings.Builder
	for _, s := range o.Sections {
		if s.Flags&elfobj.SHFRelaLivepatch == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s for %s, flags %v\n", s.Name, s.Target.Name, s.Flags)
		var lines []string
		for _, r := range s.Relocs {
			line := fmt.Sprintf("  %s %s %v", bind(r.Sym), r.Sym.Name, r.Sym.Shndx)
			if r.Sym.Shndx == elfobj.SHNLivepatch {
				line = "  " + r.Sym.Name
			}
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
		slices.Sort(lines)
		fmt.Fprintln(&b, strings.Join(lines, "\n"))
	}
	for _, s := range o.Sections {
		if s.Type == elf.SHT_RELA && s.Flags&elfobj.SHFRelaLivepatch == 0 && s.Target.Name == ".data.table" {
			for _, r := range s.Relocs {
				fmt.Fprintf(&b, "table -> %s\n", functionAt(o, r))
			}
		}
	}
	return unnumbered(b.String())
}

// functionAt names the function that a pointer reaches.
func functionAt(o *elfobj.Object, r elfobj.Reloc) string {
	for _, s := range o.Symbols {
		if r.Sym != nil && s.Section == r.Sym.Section && s.Section != nil && s.Type == elf.STT_FUNC && s.Value == r.Sym.Value+uint64(r.Addend) {
			return s.Name
		}
	}
	return "nothing"
}

// checkContract holds what the kernel demands of every livepatch module.
func checkContract(t *testing.T, o *elfobj.Object) {
	t.Helper()
	used := map[*elfobj.Symbol]string{}
	for _, s := range o.Sections {
		switch {
		case strings.HasPrefix(s.Name, ".debug") || strings.HasPrefix(s.Name, ".rela.debug") || s.Name == ".comment":
			t.Errorf("section %s is left", s.Name)
		case strings.Contains(s.Name, "klpc_func") || strings.Contains(s.Name, "klpc_cb"):
			t.Errorf("marker %s is left", s.Name)
		case s.Type == elf.SHT_RELA && len(s.Relocs) == 0:
			t.Errorf("%s is empty", s.Name)
		}
		for _, r := range s.Relocs {
			if r.Sym == nil {
				continue
			}
			if before, ok := used[r.Sym]; ok && r.Sym.Shndx == elfobj.SHNLivepatch && (before == "") != (s.Flags&elfobj.SHFRelaLivepatch == 0) {
				t.Errorf("%s is used by livepatch and by ordinary relocations", r.Sym.Name)
			}
			used[r.Sym] = ""
			if s.Flags&elfobj.SHFRelaLivepatch == 0 {
				if r.Sym.Shndx == elfobj.SHNLivepatch {
					t.Errorf("%s: ordinary relocation to %s", s.Name, r.Sym.Name)
				}
				continue
			}
			used[r.Sym] = s.Name
			checkKlpReloc(t, s, r)
		}
	}
	for _, s := range o.Symbols {
		switch _, ok := used[s]; {
		case s.Undefined() && !ok:
			t.Errorf("undefined symbol %s is left over", s.Name)
		case s.Undefined() && (strings.HasPrefix(s.Name, ".klp.") || strings.HasPrefix(s.Name, "klpc_")):
			t.Errorf("temporary symbol %s is left", s.Name)
		case s.Shndx == elfobj.SHNLivepatch && !ok:
			t.Errorf("livepatch symbol %s is not used", s.Name)
		}
	}
}

// checkKlpReloc: the formats that kernel/livepatch/core.c scans, zeros at the
// place, and for relocation sections of a module no symbol of vmlinux.
func checkKlpReloc(t *testing.T, s *elfobj.Section, r elfobj.Reloc) {
	t.Helper()
	if want := elf.SHF_ALLOC | elf.SHF_INFO_LINK | elfobj.SHFRelaLivepatch; s.Flags != want {
		t.Errorf("%s has flags %v instead of %v", s.Name, s.Flags, want)
	}
	rest, ok := strings.CutPrefix(s.Name, ".klp.rela.")
	object, section, _ := strings.Cut(rest, ".")
	if !ok || object == "" || section != s.Target.Name {
		t.Errorf("%s is not the name of a livepatch relocation section for %s", s.Name, s.Target.Name)
	}
	var symObject, name string
	var pos int
	if rest, ok = strings.CutPrefix(r.Sym.Name, ".klp.sym."); ok {
		symObject, name, _ = strings.Cut(rest, ".")
		name, rest, ok = strings.Cut(name, ",")
		_, err := fmt.Sscanf(rest, "%d", &pos)
		ok = ok && err == nil
	}
	if !ok || symObject == "" || name == "" || r.Sym.Shndx != elfobj.SHNLivepatch {
		t.Errorf("%s refers to %s, index %v", s.Name, r.Sym.Name, r.Sym.Shndx)
	}
	if object != codegen.VMLinux && symObject == codegen.VMLinux {
		t.Errorf("%s refers to %s, which the kernel refuses", s.Name, r.Sym.Name)
	}
	n := map[elf.R_X86_64]uint64{elf.R_X86_64_64: 8, elf.R_X86_64_PC64: 8}[elf.R_X86_64(r.Type)]
	n = max(n, 4)
	if place := s.Target.Data[r.Off : r.Off+n]; len(bytes.Trim(place, "\x00")) > 0 {
		t.Errorf("%s+%#x holds %x instead of zeros", s.Target.Name, r.Off, place)
	}
}

func TestFinalize(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources []source
		module  bool
		want    string
	}{
		{"code, data, static branches and alternatives that refer to the kernel",
			[]source{{orig: `
extern int hidden(int), exported(int);
static struct static_key counter;
static noinline int lonely(int x) { return work(x) + 3; }
static const int *pointer(void);
int f(int x)
{
	if (static_branch(&counter, 1))
		use(pointer());
	ALT14("call hidden", 5, 0, "call exported");
	return hidden(x) + exported(x) + lonely(x) + 1;
}
static const int *pointer(void) { return (const int *)lonely; }
`, edits: []string{"+ 1;", "+ 2;", "static const int *pointer(void);", "static const void *const fresh[] = { lonely, hidden, exported, use, \"text\" };\nstatic const int *pointer(void);", "use(pointer());", "use(pointer()), use(fresh);"}}}, false,
			`.klp.rela.vmlinux..text.f for .text.f, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.vmlinux.hidden,0
  .klp.sym.vmlinux.lonely,0
.klp.rela.vmlinux..rodata.fresh for .rodata.fresh, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.vmlinux.hidden,0
  .klp.sym.vmlinux.lonely,0
.klp.rela.vmlinux.__jump_table for __jump_table, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.vmlinux.counter,0
table -> f
`},
		{"nothing but exports, and a pointer of a patched function to itself",
			[]source{{orig: "int f(int x) { return work(x) + 1; }", edits: []string{"+ 1;", "+ 2;", "return", "use(f); return"}}}, false,
			`.klp.rela.vmlinux..text.f for .text.f, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.vmlinux.f,0
table -> f
`},
		{"only ordinary relocations",
			[]source{{orig: "int f(int x) { return work(x) + 1; }", edits: []string{"+ 1;", "+ 2;"}}}, false,
			"table -> f\n"},
		{"several functions, with callbacks",
			[]source{{orig: callbackMacro + "int f(int x) { return work(x) + 1; } int hidden(int x) { return other(x) + 1; }",
				edits: []string{"+ 1; }", "+ 2; }", "int hidden", "static void before(void *o) { use(o); } KLP_CALLBACK(pre_patch, before); int hidden"}}}, false,
			"table -> f\ntable -> hidden\ntable -> before\n"},
		{"a module and the kernel",
			[]source{{object: "mymod", orig: driver, edits: []string{"+ 1;", "+ 10;", "+ 2;", "+ 20;", "+ 3;", "+ 30;", "+ 4;", "+ 40;"}},
				{orig: "int f(int x) { return work(x) + 1; }", edits: []string{"+ 1;", "+ 2;"}}}, true,
			`.klp.rela.mymod..text.probe for .text.probe, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.mymod.helper,2
  .klp.sym.mymod.state,0
.klp.rela.vmlinux..text.uses_kernel for .text.uses_kernel, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.vmlinux.hidden,0
.klp.rela.mymod..text.uses_module for .text.uses_module, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.other_mod.offered,0
.klp.rela.mymod..text.uses_sibling for .text.uses_sibling, flags SHF_ALLOC+SHF_INFO_LINK+0x100000
  .klp.sym.mymod.sibling,0
table -> f
table -> probe
table -> uses_kernel
table -> uses_module
table -> uses_sibling
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var modules []*target.Module
			if tt.module {
				modules = append(modules, module(t, "mymod", "other-mod", siblings, driver))
			}
			compiled := units(t, tt.sources)
			build := func() []byte {
				p, err := codegen.Decide(compiled, kernel(t, nil, modules...))
				if err != nil {
					t.Fatal(err)
				}
				return finalize(t, p)
			}
			data := build()
			o := parse(t, data)
			checkContract(t, o)
			if d := cmp.Diff(tt.want, livepatch(o)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			if !bytes.Equal(data, build()) {
				t.Error("the second time it is another file")
			}
			again, err := parse(t, data).Encode()
			if err != nil || !bytes.Equal(data, again) {
				t.Errorf("it is not written as it was read (%v)", err)
			}
		})
	}
}

// TestFinalizeRefuses: what only a defect of ours could cause must not become
// a module that the kernel rejects, or worse.
func TestFinalizeRefuses(t *testing.T) {
	t.Parallel()
	p, err := codegen.Decide(units(t, []source{{orig: "extern int hidden(int); int f(int x) { return hidden(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}), kernel(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	linked := relink(t, encode(t, p.Emit()[0]), compile(t, initFile(1, 0)))
	text := func(o *elfobj.Object) (code *elfobj.Section, r *elfobj.Reloc) {
		for _, s := range o.Sections {
			for i := range s.Relocs {
				if s.Relocs[i].Sym != nil && s.Relocs[i].Sym.Name == "hidden" {
					return s.Target, &s.Relocs[i]
				}
			}
		}
		t.Fatal("no relocation to hidden")
		return nil, nil
	}
	for _, tt := range []struct {
		name   string
		damage func(o *elfobj.Object)
		want   string
	}{
		{"nothing", func(*elfobj.Object) {}, "<nil>"},
		{"a place that is not zero", func(o *elfobj.Object) {
			s, r := text(o)
			s.Data = slices.Clone(s.Data)
			s.Data[r.Off] = 1
		}, "the place of a livepatch relocation is not zero"},
		{"a place outside of its section", func(o *elfobj.Object) {
			s, r := text(o)
			r.Off = s.Size - 1
		}, "the place of a livepatch relocation is not zero"},
		{"a type that the kernel does not know", func(o *elfobj.Object) {
			_, r := text(o)
			r.Type = uint32(elf.R_X86_64_GOTPCREL)
		}, "relocation type R_X86_64_GOTPCREL cannot be applied by the livepatch core"},
		{"a function without a marker", func(o *elfobj.Object) {
			o.Sections = slices.DeleteFunc(o.Sections, func(s *elfobj.Section) bool {
				return strings.HasPrefix(s.Name, ".rela.debug_klpc") || strings.HasPrefix(s.Name, ".debug_klpc")
			})
		}, "internal error: klpc_func_0 has no function"},
	} {
		o := parse(t, slices.Clone(linked))
		tt.damage(o)
		_, err := p.Finalize(o)
		if got := fmt.Sprint(err); !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
