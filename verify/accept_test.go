package verify

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/target"
)

// livepatch is a module as klpc makes them. Names that begin with klp__ become
// livepatch symbols.
const livepatch = `
#define SECTION(s) __attribute__((section(s), used))
struct klp_func { const char *old_name; void *new_func; unsigned long old_sympos; char own[40]; };
struct klp_callbacks { void *pre_patch, *post_patch, *pre_unpatch, *post_unpatch; char own[8]; };
struct klp_object { const char *name; struct klp_func *funcs; struct klp_callbacks callbacks; char own[40]; };
struct klp_patch { void *mod; struct klp_object *objs; void *states; char replace; char own[64]; };
SECTION(".gnu.linkonce.this_module") struct { char pad[24]; char name[56]; void *init; char pad2[40]; void *exit; } __this_module;
int klp_enable_patch(void *), printed(int), klp__hidden(int), klp__twin(int);
int new_show(int x) { return printed(x) + klp__hidden(x) + klp__twin(x); }
static struct klp_func klpc_funcs_0[] = { { "show", new_show, 0 }, {} };
static struct klp_object klpc_objects[] = { { .funcs = klpc_funcs_0 }, {} };
struct klp_patch klpc_patch = { .mod = &__this_module, .objs = klpc_objects, .replace = 1 };
int init_module(void) { return klp_enable_patch(&klpc_patch); }
SECTION(".modinfo") static const char info[] __attribute__((aligned(1))) =
	"license=GPL\0livepatch=Y\0name=livepatch_a\0vermagic=6.1.0 SMP\0depends=\0import_ns=SPACE";
SECTION("__versions") static struct { unsigned long crc; char name[56]; } versions[] =
	{ { 1, "module_layout" }, { 2, "klp_enable_patch" }, { 3, "printed" } };
`

// symvers, symbols and the module are the kernel that it is for.
const symvers = `0x00000001	module_layout	vmlinux	EXPORT_SYMBOL
0x00000002	klp_enable_patch	vmlinux	EXPORT_SYMBOL_GPL
0x00000003	printed	vmlinux	EXPORT_SYMBOL	SPACE
0x00000004	elsewhere	drivers/net/dummy	EXPORT_SYMBOL
0x00000005	only	vmlinux	EXPORT_SYMBOL	module:kvm
`

const symbols = `ffffffff81000000 T _text
ffffffff81000010 T show
ffffffff81000020 t twin
ffffffff81000030 t twin
ffffffff81000040 T hidden
ffffffff81000050 t common
ffffffff81000060 T common
ffffffff82000000 B _end
`

const dummy = `
#define SECTION(s) __attribute__((section(s), used))
SECTION(".gnu.linkonce.this_module") struct { char pad[24]; char name[56]; void *init; char pad2[40]; void *exit; } __this_module;
void traced(void) { asm volatile("1: nopl 0(%rax,%rax,1)\n.pushsection __mcount_loc,\"a\"\n.quad 1b\n.popsection"); }
void untraced(void) { }
SECTION(".modinfo") static const char info[] __attribute__((aligned(1))) = "name=dummy\0vermagic=6.1.0 SMP";
`

// klpNames are what the placeholders in the source stand for.
var klpNames = map[string]string{"klp__hidden": "hidden,0", "klp__twin": "twin,2"}

func compile(t testing.TB, text string) *elfobj.Object {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc, which is not installed")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.c"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("gcc", strings.Fields("-O2 -mcmodel=kernel -fno-pic -fno-pie -ffunction-sections -fno-asynchronous-unwind-tables -fcf-protection=none -fno-zero-initialized-in-bss -Wno-missing-braces -Wa,--noexecstack -c -o a.o a.c")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "a.o"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := elfobj.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// finish moves the relocations of livepatch symbols into sections of their own.
func finish(t testing.TB, o *elfobj.Object, names map[string]string, edit func(*elfobj.Object)) []byte {
	t.Helper()
	for _, s := range append([]*elfobj.Section{}, o.Sections...) {
		if s.Type != elf.SHT_RELA || s.Target.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		var kept, moved []elfobj.Reloc
		for _, r := range s.Relocs {
			if r.Sym != nil && strings.HasPrefix(r.Sym.Name, "klp__") {
				moved = append(moved, r)
			} else {
				kept = append(kept, r)
			}
		}
		s.Relocs = kept
		if len(moved) > 0 {
			o.Sections = append(o.Sections, &elfobj.Section{Name: ".klp.rela.vmlinux." + s.Target.Name, Type: elf.SHT_RELA,
				Flags: elf.SHF_ALLOC | elf.SHF_INFO_LINK | elfobj.SHFRelaLivepatch, Align: 8, EntSize: 24, Target: s.Target, Relocs: moved})
		}
	}
	for _, s := range o.Symbols {
		if name := names[s.Name]; name != "" {
			s.Name, s.Shndx = ".klp.sym.vmlinux."+name, elfobj.SHNLivepatch
		}
	}
	if edit != nil {
		edit(o)
	}
	data, err := o.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func kernel(t testing.TB, m *target.Module, config map[string]string) Kernel {
	t.Helper()
	tab, err := target.ReadSystemMap(strings.NewReader(symbols))
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, l := range strings.Split(strings.TrimRight(symvers, "\n"), "\n") {
		text += l + strings.Repeat("\t", 4-strings.Count(l, "\t")) + "\n"
	}
	exports, err := target.ReadSymvers(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return Kernel{Release: "6.1.0", Symtab: tab, Exports: exports, Modules: map[string]*target.Module{"dummy": m},
		Config: func(name string) string {
			if v, ok := config[name]; ok {
				return v
			}
			return map[string]string{"CONFIG_LIVEPATCH": "y", "CONFIG_MODVERSIONS": "y"}[name]
		}}
}

// module is the dummy of that kernel.
func module(t testing.TB) *target.Module {
	t.Helper()
	data, err := compile(t, dummy).Encode()
	if err != nil {
		t.Fatal(err)
	}
	m, err := target.ReadModule(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestAccepted(t *testing.T) {
	m := module(t)
	for _, tt := range []struct {
		name     string
		old, new string // edit of the source
		klp      map[string]string
		edit     func(*elfobj.Object)
		config   map[string]string
		want     string // in a finding; empty: none
	}{
		{name: "the module as it is"},
		{name: "no such function", old: `"show", new_show`, new: `"shaw", new_show`, want: "shaw,0 of vmlinux: the kernel has no symbol shaw"},
		{name: "an ambiguous function", old: `"show", new_show`, new: `"twin", new_show`, want: "the kernel has 2 symbols twin, and the position that would tell them apart is not given"},
		{name: "a static function with the name of a global one", old: `"show", new_show`, new: `"common", new_show`, want: "the kernel has 2 symbols common"},
		{name: "a position beyond the last", old: `"show", new_show, 0`, new: `"twin", new_show, 3`, want: "position 3: the kernel has 2 symbols twin"},
		{name: "a position for a name that is unique", old: `"show", new_show, 0`, new: `"show", new_show, 1`, want: "position 1: the kernel has one symbol show"},
		{name: "the second of two", old: `"show", new_show, 0`, new: `"twin", new_show, 2`},
		{name: "a function twice", old: `{ "show", new_show, 0 },`, new: `{ "show", new_show, 0 }, { "show", new_show, 0 },`, want: "show,1 is listed twice for vmlinux"},
		{name: "an object twice", old: `{ .funcs = klpc_funcs_0 },`, new: `{ .funcs = klpc_funcs_0 }, { .funcs = klpc_funcs_0 },`, want: "object vmlinux is listed twice"},
		{name: "vmlinux by its name", old: `{ .funcs = klpc_funcs_0 },`, new: `{ "vmlinux", .funcs = klpc_funcs_0 },`, want: `"vmlinux" is no name of a module`},
		{name: "no such module", old: `{ .funcs = klpc_funcs_0 },`, new: `{ "brd", .funcs = klpc_funcs_0 },`, want: "this kernel has no module brd"},
		{name: "a name that is too long", old: `"show", new_show`, new: `"` + strings.Repeat("s", 512) + `", new_show`, want: "the function's name is empty or too long"},
		{name: "a function of a module", old: `"show", new_show, 0 }, {} };`,
			new: `"traced", new_show }, {} }; static struct klp_func more[] = { { "show", new_show }, {} };`, want: "the kernel has no symbol traced"},
		{name: "of a module, traced", old: `{ .funcs = klpc_funcs_0 },`, new: `{ "dummy", .funcs = (struct klp_func[]){ { "traced", new_show }, {} } },`},
		{name: "of a module, not traced", old: `{ .funcs = klpc_funcs_0 },`, new: `{ "dummy", .funcs = (struct klp_func[]){ { "untraced", new_show }, {} } },`,
			want: "untraced of dummy cannot be redirected: the module's list of ftrace locations has no place at its start"},
		{name: "the new function is none", old: `"show", new_show`, new: `"show", new_show + 1`, want: "no function with a size begins where new_func leads"},
		{name: "another module's struct klp_patch", old: ".mod = &__this_module", new: ".mod = &klpc_objects", want: "the struct klp_patch does not name the module itself"},
		{name: "no livepatch=", old: `livepatch=Y\0`, new: ``, want: "it has 0 entries livepatch="},
		{name: "licence", old: "license=GPL", new: "license=MIT", want: `licence "MIT"`},
		{name: "vermagic", old: "6.1.0 SMP", new: "6.1.1 SMP", want: `vermagic "6.1.1 SMP"; the kernel's is "6.1.0 SMP" (from its module dummy)`},
		{name: "dependence", old: "depends=", new: "depends=dummy", want: "it depends on module dummy, of which it imports nothing"},
		{name: "namespace", old: `\0import_ns=SPACE`, new: ``, want: "it is in the namespace SPACE, which the module does not import"},
		{name: "for other modules only", old: "return printed(x)", new: "extern int only(int); return only(x) + printed(x)", want: "the kernel offers it to the modules kvm only"},
		{name: "an export of a module", old: "return printed(x)", new: "extern int elsewhere(int); return elsewhere(x) + printed(x)", want: "module dummy exports it, which need not be loaded: the livepatch does not depend on it"},
		{name: "no export", old: "return printed(x)", new: "extern int nowhere(int); return nowhere(x) + printed(x)", want: "nowhere: the kernel does not export it"},
		{name: "a version", old: `{ 3, "printed" }`, new: `{ 4, "printed" }`, want: "printed has the version 0x4; the kernel's is 0x3"},
		{name: "a version is missing", old: `, { 3, "printed" }`, new: ``, want: "it lacks printed"},
		{name: "a version of nothing", old: `{ 3, "printed" }`, new: `{ 3, "printed" }, { 2, "show" }`, want: "it lists show, which the module does not import"},
		{name: "no versions where none are wanted", old: `{ 3, "printed" }`, new: `{ 4, "printed" }`, config: map[string]string{"CONFIG_MODVERSIONS": ""}},
		{name: "a signature is wanted", config: map[string]string{"CONFIG_MODULE_SIG_FORCE": "y"}, want: "it is not signed"},
		{name: "no livepatching", config: map[string]string{"CONFIG_LIVEPATCH": ""}, want: "CONFIG_LIVEPATCH is off"},
		{name: "a livepatch symbol that is not there", klp: map[string]string{"klp__hidden": "hiden,0", "klp__twin": "twin,2"}, want: "the kernel has no symbol hiden"},
		{name: "a livepatch symbol that is ambiguous", klp: map[string]string{"klp__hidden": "hidden,0", "klp__twin": "twin,0"}, want: ".klp.sym.vmlinux.twin,0: the kernel has 2 symbols twin"},
		{name: "a livepatch symbol without a position", klp: map[string]string{"klp__hidden": "hidden", "klp__twin": "twin,2"}, want: "is not of the form .klp.sym.OBJECT.NAME,POSITION"},
		{name: "a place that is not zero", edit: func(o *elfobj.Object) {
			for _, s := range o.Sections {
				if s.Flags&elfobj.SHFRelaLivepatch != 0 {
					s.Target.Data[s.Relocs[0].Off] = 1
				}
			}
		}, want: "the place is not zero, and the kernel would refuse to fill it"},
		{name: "a relocation of vmlinux in a module's section", edit: func(o *elfobj.Object) {
			for _, s := range o.Sections {
				s.Name = strings.Replace(s.Name, ".klp.rela.vmlinux.", ".klp.rela.dummy.", 1)
			}
		}, want: "a relocation that is applied with module dummy uses hidden of vmlinux, which the kernel refuses"},
		{name: "a section for another one than it names", edit: func(o *elfobj.Object) {
			for _, s := range o.Sections {
				if s.Flags&elfobj.SHFRelaLivepatch != 0 {
					s.Name = ".klp.rela.vmlinux..data"
				}
			}
		}, want: "has a name or flags that the kernel does not take, or is for another section than it names"},
		{name: "a relocation that the loader does not know", edit: func(o *elfobj.Object) {
			for _, s := range o.Sections {
				if s.Flags&elfobj.SHFRelaLivepatch != 0 {
					s.Relocs[0].Type = uint32(elf.R_X86_64_16)
				}
			}
		}, want: "the kernel's module loader does not know relocation type R_X86_64_16"},
		{name: "an ordinary relocation with a livepatch symbol", edit: func(o *elfobj.Object) {
			for _, s := range o.Sections {
				if s.Flags&elfobj.SHFRelaLivepatch != 0 {
					s.Name, s.Flags = ".rela"+s.Target.Name, elf.SHF_INFO_LINK
				}
			}
		}, want: "an ordinary relocation uses the livepatch symbol .klp.sym.vmlinux.hidden,0"},
		{name: "two relocations for one place", edit: func(o *elfobj.Object) {
			for _, s := range o.Sections {
				if s.Flags&elfobj.SHFRelaLivepatch != 0 {
					s.Relocs = append(s.Relocs, s.Relocs[0])
				}
			}
		}, want: "two relocations fill the same bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			names := tt.klp
			if names == nil {
				names = klpNames
			}
			if !strings.Contains(livepatch, tt.old) {
				t.Fatalf("no %q in the source", tt.old)
			}
			data := finish(t, compile(t, strings.Replace(livepatch, tt.old, tt.new, 1)), names, tt.edit)
			v, err := New(Inputs{Kernel: kernel(t, m, tt.config)})
			if err != nil {
				t.Fatal(err)
			}
			v.NoIntegrity = true
			r := v.Module(data)
			if tt.want == "" {
				if len(r.Findings) > 0 || r.Verdict != Incomplete || r.Proofs[2].Verdict != Verified {
					t.Errorf("%s: %+v", r.Verdict, r)
				}
				return
			}
			var all []string
			found := false
			for _, f := range r.Findings {
				all = append(all, f.Where+": "+f.Detail)
				found = found || f.Proof == Accepted && strings.Contains(f.Where+": "+f.Detail, tt.want)
			}
			if !found || r.Verdict != Failed {
				t.Errorf("%s lacks %q:\n%s", r.Verdict, tt.want, strings.Join(all, "\n"))
			}
		})
	}
}

// FuzzModule gives damaged modules. The contract: a report, whatever comes.
func FuzzModule(f *testing.F) {
	data := finish(f, compile(f, livepatch), klpNames, nil)
	f.Add(data)
	o := compile(f, livepatch)
	in := Inputs{Kernel: kernel(f, module(f), nil), Known: true, Init: o}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := New(in)
		if err != nil {
			t.Fatal(err)
		}
		r := v.Module(data)
		if r.Verdict != Failed && r.Verdict != Incomplete && r.Verdict != Verified {
			t.Errorf("verdict %q", r.Verdict)
		}
		if _, err := ReadRedirects(data); err != nil {
			return
		}
	})
}
