package codegen_test

import (
	"debug/elf"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kmodtmpl"
	"github.com/klpc/klpc/target"
)

// source is one unit of a case: its module or vmlinux, and what is edited.
type source struct {
	object string // "" means vmlinux
	orig   string
	edits  []string // pairs of old and new text
	flags  []string
}

// units compiles the units of a case.
func units(t testing.TB, sources []source) []codegen.Unit {
	t.Helper()
	var out []codegen.Unit
	for i, s := range sources {
		object := s.object
		if object == "" {
			object = codegen.VMLinux
		}
		out = append(out, codegen.Unit{Source: fmt.Sprintf("unit%d.c", i), Object: object,
			Diff: difference(t, s.orig, replaced(t, s.orig, s.edits...), s.flags...)})
	}
	return out
}

// module makes the module that the kernel loads: its units joined, with an
// init function and .modinfo.
func module(t testing.TB, name, depends string, sources ...string) *target.Module {
	t.Helper()
	objects := [][]byte{compile(t, fmt.Sprintf("MODULE_INFO(license, \"GPL\");\nMODULE_INFO(depends, %q);\nMODULE_INFO(name, %q);\n"+
		"int __init init_module(void) { return 0; }\n", depends, name))}
	for _, s := range sources {
		objects = append(objects, compile(t, s))
	}
	m, err := target.ReadModule(relink(t, objects...))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// describe is the canonical text of a plan: what it patches and what its
// objects leave to others. Temporary names of livepatch symbols say which
// relocation section and symbol they become.
func describe(p *codegen.Plan) string {
	var b strings.Builder
	for _, o := range p.Objects {
		fmt.Fprintf(&b, "object %s\n", o.Name)
		for _, f := range o.Funcs {
			fmt.Fprintf(&b, "  func %d %s,%d of %s\n", f.ID, f.Name, f.Sympos, f.Source)
		}
		for _, f := range o.New {
			fmt.Fprintf(&b, "  new %s of %s\n", f.Name, f.Source)
		}
		for _, c := range o.Callbacks {
			fmt.Fprintf(&b, "  callback %d %s %s\n", c.ID, c.Kind, c.Name)
		}
	}
	for _, n := range p.Namespaces {
		fmt.Fprintf(&b, "namespace %s\n", n)
	}
	for _, n := range p.Mismatches {
		fmt.Fprintf(&b, "mismatch %s\n", n)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "note %s\n", n)
	}
	for _, x := range p.Problems {
		fmt.Fprintf(&b, "problem %s in %s: %s\n", x.Kind, x.At.Object, x.Detail)
	}
	if len(p.Problems) > 0 {
		return unnumbered(b.String())
	}
	for i, o := range p.Emit() {
		if o == nil {
			fmt.Fprintf(&b, "unit%d contributes nothing\n", i)
			continue
		}
		for _, s := range leftOpen(o) {
			fmt.Fprintf(&b, "unit%d needs %s\n", i, s)
		}
	}
	return unnumbered(b.String())
}

// leftOpen lists the undefined symbols of an object that it refers to.
func leftOpen(o *elfobj.Object) []string {
	var out []string
	for _, s := range o.Sections {
		for _, r := range s.Relocs {
			if r.Sym == nil || !r.Sym.Undefined() || r.Sym.Name == "__fentry__" {
				continue
			}
			if line := bind(r.Sym) + " " + r.Sym.Name; !slices.Contains(out, line) {
				out = append(out, line)
			}
		}
	}
	slices.Sort(out)
	return out
}

// stock is what most cases run on.
var stock = []string{"T f", "T work", "T other", "T printk", "T use", "T hidden", "t lonely", "d counter",
	"t twice", "t twice", "t mixed", "T mixed", "T exported", "T spaced", "T restricted", "T gone_init"}

// stockExports: work, other, printk and use are exported, too.
var stockExports = []string{"work vmlinux", "other vmlinux", "printk vmlinux", "use vmlinux", "__fentry__ vmlinux",
	"exported vmlinux", "spaced vmlinux SPACE", "restricted vmlinux module:kvm", "offered drivers/other-mod"}

const callbackMacro = `
#define KLP_CALLBACK(kind, fn) \
	static void (*__klp_##kind##_callback_##fn)(void *) __used __section(".discard.klp_callback_ptrs") = fn
`

func TestDecide(t *testing.T) {
	for _, tt := range []struct {
		name    string
		sources []source
		symtab  []string // beside stock
		modules []*target.Module
		want    string
	}{
		{"nothing", []source{{orig: "int f(int x) { return work(x); }"}}, nil, nil,
			"unit0 contributes nothing\n"},
		{"an exported function is linked the ordinary way",
			[]source{{orig: "extern int exported(int); int f(int x) { return exported(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs global exported\n"},
		{"one in a namespace as well, which must be imported",
			[]source{{orig: "extern int spaced(int); int f(int x) { return spaced(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nnamespace SPACE\nunit0 needs global spaced\n"},
		{"one that is only for some modules is not exported to a livepatch",
			[]source{{orig: "extern int restricted(int); int f(int x) { return restricted(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs weak restricted\n"},
		{"an unexported global keeps its name until the end",
			[]source{{orig: "extern int hidden(int); int f(int x) { return hidden(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs weak hidden\n"},
		{"statics of unique names",
			[]source{{orig: "static int counter; static noinline int lonely(int x) { return work(x) + counter++; } int f(int x) { return lonely(x) + counter + 1; }",
				edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs weak .klp.vmlinux.klp.sym.vmlinux.counter,0\nunit0 needs weak .klp.vmlinux.klp.sym.vmlinux.lonely,0\n"},
		{"a reference to a static whose name exists twice needs the image",
			[]source{{orig: "static noinline int twice(int x) { return work(x) + 9; } int f(int x) { return twice(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nproblem unresolved-symbol in unit0.c: f refers to twice: the running kernel has 2 symbols named twice, and a list of symbols alone does not tell which of them this is; give vmlinux or vmlinuz with --image\n"},
		{"so does a changed function of such a name",
			[]source{{orig: "static noinline int twice(int x) { return work(x) + 9; } int f(int x) { return twice(x) + 1; }", edits: []string{"+ 9", "+ 8"}}}, nil, nil,
			"object vmlinux\n  func 0 twice,0 of unit0.c\nproblem ambiguous-symbol in unit0.c: the running kernel has 2 symbols named twice, and a list of symbols alone does not tell which of them this is; give vmlinux or vmlinuz with --image\n"},
		{"a global that shares its name with a static has a position, too",
			[]source{{orig: "extern int mixed(int); int f(int x) { return mixed(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs weak .klp.vmlinux.klp.sym.vmlinux.mixed,2\n"},
		{"a bookkeeping variable that cannot be told apart travels",
			[]source{{orig: "int f(int x) { use(__func__); return work(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, []string{"r __func__.0", "r __func__.0"}, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs global use\nunit0 needs global work\n"},
		{"a symbol that the kernel does not have",
			[]source{{orig: "extern int missing(int); int f(int x) { return work(x); }", edits: []string{"return work(x)", "return missing(x)"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nproblem unresolved-symbol in unit0.c: f refers to missing: the running kernel has no such symbol\n"},
		{"a weak one may be missing",
			[]source{{orig: "extern __weak int missing(int); int f(int x) { return work(x); }", edits: []string{"return work(x)", "return missing ? missing(x) : 0"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs weak missing\n"},
		{"a static call goes through its trampoline under another name",
			[]source{{orig: "extern int __SCT__call(int); int f(int x) { return __SCT__call(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, []string{"T __SCT__call"}, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs weak .klp.vmlinux.klp.sym.vmlinux.__SCT__call,0\n"},
		{"a static per-CPU variable",
			[]source{{orig: "static __percpu_data int pcpu; int f(void) { return this_cpu_read(pcpu) + 1; }", edits: []string{"+ 1", "+ 2"}}}, []string{"d pcpu"}, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs weak .klp.vmlinux.klp.sym.vmlinux.pcpu,0\n"},
		{"patched code that begins to refer to init data",
			[]source{{orig: "extern int table[]; int table[2] __initdata = { 1, 2 }; int f(int x) { return work(x); }", edits: []string{"return work(x)", "return table[x & 1]"}}}, []string{"D table"}, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nproblem init-reference in unit0.c: f refers to table, which lies in .init.data and is gone once the kernel has booted or the module has loaded\n"},
		{"a function that is no longer __init is the module's own",
			[]source{{orig: "int __init noinline gone_init(int x) { return work(x) + 1; } int f(int x) { return work(x); }",
				edits: []string{"__init", "", "return work(x);", "return gone_init(x);"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\n  new gone_init of unit0.c\nunit0 needs global work\n"},
		{"a new function of a name that the kernel has",
			[]source{{orig: "int f(int x) { return work(x); }", edits: []string{"int f(int x) { return work(x)", "int hidden(int x) { return other(x); } int f(int x) { return hidden(x)"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\n  new hidden of unit0.c\nproblem already-defined in unit0.c: hidden is added here, but vmlinux has it already: it moves from another file, or overrides a weak definition, and callers outside of the patch would go on with the old one\n"},
		{"what one unit adds, another uses",
			[]source{
				{orig: "int f(int x) { return work(x); }", edits: []string{"int f(int x) { return work(x)", "extern int fresh(int); int f(int x) { return fresh(x)"}},
				{orig: "int hidden(int x) { return work(x); }", edits: []string{"int hidden(int x) { return work(x)", "int fresh_data = 4; int fresh(int x) { return fresh_data++; } int hidden(int x) { return fresh(x)"}},
			}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\n  func 1 hidden,0 of unit1.c\n  new fresh of unit1.c\nunit0 needs global fresh\n"},
		{"a change that cannot be patched is a problem of its unit",
			[]source{{orig: "int f(int x) { return work(x); }"}, {orig: "notrace int hidden(int x) { return work(x) + 1; }", edits: []string{"+ 1", "+ 2"}}}, nil, nil,
			"problem no-ftrace-entry in unit1.c: hidden has no ftrace entry (notrace, noinstr or built without -pg), so the kernel cannot redirect it\n"},
		{"a new export is not made",
			[]source{{orig: "int f(int x) { return work(x) + 1; }", edits: []string{"+ 1; }", "+ 2; } EXPORT_SYMBOL(f);"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nnote unit0.c: the export of f is not added to the running kernel\nunit0 needs global work\n"},
		{"new data that nothing uses is left out",
			[]source{{orig: "int f(int x) { return work(x) + 1; }", edits: []string{"+ 1; }", "+ 2; } static int __used unused = 3;"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nnote unit0.c: unused (.data.unused) is left out: nothing that the livepatch carries refers to it\nunit0 needs global work\n"},
		{"a weak function that another file overrides",
			[]source{{orig: "int f(int x) { return work(x) + 1; } __weak int hidden(int x) { return work(x) - 1; }", edits: []string{"x) + 1", "x) + 2", "- 1", "- 2"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nnote unit0.c: the weak function hidden is left out: another file of this kernel overrides it\nunit0 needs global work\n"},
		{"a weak function that nothing overrides",
			[]source{{orig: "__weak int feeble(int x) { return work(x) - 1; }", edits: []string{"- 1", "- 2"}}}, []string{"W feeble"}, nil,
			"object vmlinux\n  func 0 feeble,0 of unit0.c\nunit0 needs global work\n"},
		{"callbacks",
			[]source{{orig: callbackMacro + "int f(int x) { return work(x) + 1; }",
				edits: []string{"+ 1; }", "+ 2; } static void before(void *o) { use(o); } static void after(void *o) { use(f); } KLP_CALLBACK(pre_patch, before); KLP_CALLBACK(post_unpatch, after);"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\n  new after of unit0.c\n  new before of unit0.c\n  callback 0 post_unpatch after\n  callback 1 pre_patch before\nunit0 needs global use\nunit0 needs global work\nunit0 needs weak f\n"},
		{"two callbacks of one kind",
			[]source{{orig: callbackMacro + "int f(int x) { return work(x) + 1; }",
				edits: []string{"+ 1; }", "+ 2; } static void before(void *o) { use(o); } static void again(void *o) { use(f); } KLP_CALLBACK(pre_patch, before); KLP_CALLBACK(pre_patch, again);"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\n  new again of unit0.c\n  new before of unit0.c\n  callback 0 pre_patch again\n  callback 1 pre_patch before\nproblem extra-callback in unit0.c: vmlinux has more than one pre_patch callback\n"},
		{"a callback, but nothing to patch",
			[]source{{orig: callbackMacro + "int f(int x) { return work(x) + 1; }", edits: []string{"+ 1; }", "+ 1; } static void before(void *o) { use(o); } KLP_CALLBACK(pre_patch, before);"}}}, nil, nil,
			"object vmlinux\n  new before of unit0.c\n  callback 0 pre_patch before\nproblem no-patched-function in unit0.c: callback for vmlinux, but no function of vmlinux is patched\n"},
		{"a constant that the kernel sets at boot is read from its variable",
			[]source{{orig: runtimeConst + "int f(int x) { RUNTIME_PTR(hidden); return work(x) + 1; }", edits: []string{"+ 1;", "+ 2;"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs global work\nunit0 needs weak hidden\n"},
		{"a shift count that the kernel sets at boot",
			[]source{{orig: runtimeConst + "int f(int x) { RUNTIME_SHIFT(hidden); return work(x) + 1; }", edits: []string{"+ 1;", "+ 2;"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nproblem runtime-constant in unit0.c: f uses the constant of section runtime_shift_hidden, which the kernel sets while it boots and not for modules\n"},
		{"an end of an array where a new variable begins",
			[]source{{orig: readMostly + "int f(long x) { for (long *p = table; p < table + 40; p++) *p += x; use(after); return work(x) + 1; }",
				edits: []string{"/* new */", `static __section(".data..read_mostly") long fresh[8] = { 3 };`, "use(after)", "use(fresh)", "+ 1;", "+ 2;"},
				flags: []string{"-fno-toplevel-reorder"}}}, []string{"d table", "d after"}, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nproblem ambiguous-symbol in unit0.c: f refers to an address that is the end of table as well as the start of fresh, of which the running kernel has only one\n"},
		{"a special section that is not known",
			[]source{{orig: "int f(int x) { asm volatile(\"1: nop\\n.pushsection .mystery, \\\"a\\\"\\n.long 1b - .\\n.popsection\"); return work(x) + 1; }", edits: []string{"+ 1;", "+ 2;"}}}, nil, nil,
			"object vmlinux\n  func 0 f,0 of unit0.c\nproblem unknown-construct in unit0.c: section .mystery describes f in a way that is not known\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p, err := codegen.Decide(units(t, tt.sources), kernel(t, tt.symtab, tt.modules...))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, describe(p)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

const readMostly = `
static __section(".data..read_mostly") long table[40] = { 1 };
/* new */
static __section(".data..read_mostly") long after[40] = { 2 };
`

const runtimeConst = `
#define RUNTIME_PTR(sym) asm volatile("mov $0x0123456789abcdef, %%rax\n1:\n.pushsection runtime_ptr_" #sym ", \"a\"\n.long 1b - 8 - .\n.popsection" : : : "rax")
#define RUNTIME_SHIFT(sym) asm volatile("shr $12, %%eax\n1:\n.pushsection runtime_shift_" #sym ", \"a\"\n.long 1b - 1 - .\n.popsection" : : : "rax")
`

func kernel(t testing.TB, more []string, modules ...*target.Module) codegen.Target {
	t.Helper()
	k := codegen.Target{Symtab: symtab(t, append(slices.Clone(stock), more...)...), Exports: exports(t, stockExports...), Modules: map[string]*target.Module{}}
	for _, m := range modules {
		k.Modules[m.Name] = m
	}
	return k
}

// driver is the unit of a module, mymod, that the cases below edit.
const driver = `
extern int offered(int), hidden(int), exported(int), sibling(int);
extern struct static_key key, __tracepoint_event;
static int state = 4;
static noinline int helper(int x) { return work(x) + state++; }
int probe(int x) { return helper(x) + state + 1; }
int uses_kernel(int x) { return hidden(x) + exported(x) + 2; }
int uses_module(int x) { return offered(x) + 3; }
int uses_sibling(int x) { return sibling(x) + 4; }
int tests_key(int x) { return static_branch(&key, 0) ? work(x) : 5; }
int traces(int x) { if (static_branch(&__tracepoint_event, 0)) use(&state); return work(x) + 6; }
int ambiguous(int x) { return work(x) + 7; }
`

// siblings is the other unit of that module. Its helper has the same name as
// that of the driver, and its init code a function named ambiguous.
const siblings = `
struct static_key key, __tracepoint_event;
static noinline int helper(int x) { return other(x) - 1; }
int sibling(int x) { return helper(x); }
`

const initNamesake = `
static int __init __used ambiguous(int x) { return work(x) * 2; }
`

func TestDecideModule(t *testing.T) {
	for _, tt := range []struct {
		name, depends string
		edits         []string
		want          string
	}{
		{"its own statics, one of a name that exists twice", "", []string{"+ 1;", "+ 10;"},
			"object mymod\n  func 0 probe,0 of unit0.c\nunit0 needs weak .klp.mymod.klp.sym.mymod.helper,2\nunit0 needs weak .klp.mymod.klp.sym.mymod.state,0\n"},
		{"a changed function of that name", "", []string{"+ state++", "- state++"},
			"object mymod\n  func 0 helper,2 of unit0.c\nunit0 needs global work\nunit0 needs weak .klp.mymod.klp.sym.mymod.state,0\n"},
		{"what the kernel has, exported or not", "", []string{"+ 2;", "+ 20;"},
			"object mymod\n  func 0 uses_kernel,0 of unit0.c\nunit0 needs global exported\nunit0 needs weak hidden\n"},
		{"what a module that it depends on exports", "other_mod", []string{"+ 3;", "+ 30;"},
			"object mymod\n  func 0 uses_module,0 of unit0.c\nunit0 needs weak .klp.mymod.klp.sym.other_mod.offered,0\n"},
		{"what a module that it does not depend on exports", "", []string{"+ 3;", "+ 30;"},
			"object mymod\n  func 0 uses_module,0 of unit0.c\nnote unit0.c: the livepatch depends on module other_mod, which exports offered; mymod itself does not, so load other_mod before the livepatch\nunit0 needs global offered\n"},
		{"a function of its other unit", "", []string{"+ 4;", "+ 40;"},
			"object mymod\n  func 0 uses_sibling,0 of unit0.c\nunit0 needs weak .klp.mymod.klp.sym.mymod.sibling,0\n"},
		{"a static branch whose key the module has", "", []string{": 5;", ": 50;"},
			"object mymod\n  func 0 tests_key,0 of unit0.c\nproblem module-key in unit0.c: tests_key needs mymod.key,0 of module mymod in __jump_table, which the kernel reads before that module's symbols are known\n"},
		{"a tracepoint of the module stays silent", "", []string{"+ 6;", "+ 60;"},
			"object mymod\n  func 0 traces,0 of unit0.c\nnote unit0.c: the tracepoint event of module mymod stays silent in the patched traces\nunit0 needs global use\nunit0 needs global work\nunit0 needs weak .klp.mymod.klp.sym.mymod.state,0\n"},
		{"a function that shares its name with one of the init code", "", []string{"+ 7;", "+ 70;"},
			"object mymod\n  func 0 ambiguous,0 of unit0.c\nproblem ambiguous-symbol in unit0.c: module mymod also has a symbol named ambiguous in its init code, so that its position depends on when the livepatch is loaded\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := module(t, "mymod", tt.depends, initNamesake, siblings, driver)
			p, err := codegen.Decide(units(t, []source{{object: "mymod", orig: driver, edits: tt.edits}}), kernel(t, nil, m))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, describe(p)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestDecideNotTheModule: the file of the module is not what was rebuilt.
func TestDecideNotTheModule(t *testing.T) {
	t.Parallel()
	m := module(t, "mymod", "", siblings, replaced(t, driver, "+ 1;", "+ 11;"))
	p, err := codegen.Decide(units(t, []source{{object: "mymod", orig: driver, edits: []string{"+ 1;", "+ 10;"}}}), kernel(t, nil, m))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Mismatches) != 1 || !strings.HasPrefix(p.Mismatches[0], "unit0.c: probe differs from the rebuilt code at +0x") {
		t.Errorf("mismatches %q", p.Mismatches)
	}
}

func TestDecideWithoutTheModule(t *testing.T) {
	t.Parallel()
	_, err := codegen.Decide(units(t, []source{{object: "mymod", orig: driver, edits: []string{"+ 1;", "+ 10;"}}}), kernel(t, nil))
	if d := cmp.Diff("unit0.c belongs to module mymod, whose file was not found", fmt.Sprint(err)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// TestDecideOrder: vmlinux comes first, then modules by name, functions by
// name; IDs count through. Both modules get a new global of one name.
func TestDecideOrder(t *testing.T) {
	t.Parallel()
	unit := func(name string) string {
		return fmt.Sprintf("int %s_b(int x) { return work(x) + 1; }\nint %s_a(int x) { return work(x) + 1; }\n", name, name)
	}
	edit := func(name string) []string {
		return []string{"+ 1", "+ fresh(x)", fmt.Sprintf("int %s_b", name), fmt.Sprintf("int fresh(int x) { return other(x) + sizeof(%q); }\nint %s_b", name, name)}
	}
	m1, m2 := module(t, "zmod", "", unit("z")), module(t, "amod", "", unit("a"))
	p, err := codegen.Decide(units(t, []source{
		{object: "zmod", orig: unit("z"), edits: edit("z")},
		{object: "amod", orig: unit("a"), edits: edit("a")},
		{orig: unit("v"), edits: []string{"+ 1", "+ 2"}},
	}), kernel(t, []string{"T v_a", "T v_b"}, m1, m2))
	if err != nil {
		t.Fatal(err)
	}
	want := `object vmlinux
  func 0 v_a,0 of unit2.c
  func 1 v_b,0 of unit2.c
object amod
  func 2 a_a,0 of unit1.c
  func 3 a_b,0 of unit1.c
  new fresh of unit1.c
object zmod
  func 4 z_a,0 of unit0.c
  func 5 z_b,0 of unit0.c
  new fresh of unit0.c
unit0 needs global other
unit0 needs global work
unit1 needs global other
unit1 needs global work
unit2 needs global work
`
	if d := cmp.Diff(want, describe(p)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	var global []string
	for _, o := range p.Emit() {
		for _, s := range o.Symbols {
			if s.Section != nil && s.Bind == elf.STB_GLOBAL {
				global = append(global, s.Name)
			}
		}
	}
	if d := cmp.Diff([]string{"fresh.zmod", "fresh.amod"}, global); d != "" {
		t.Errorf("global names, -want +got:\n%s", d)
	}
}

// TestDecideIBT: on a kernel with indirect branch tracking a pointer needs an
// ENDBR64 behind it, which only the image can tell.
func TestDecideIBT(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, orig, edit, want string }{
		{"a pointer to a function of the kernel", "extern int hidden(int); int f(int x) { return work(x) + 1; }", "+ 2 + (hidden != 0 ? (use(hidden), 1) : 0)",
			"object vmlinux\n  func 0 f,0 of unit0.c\nproblem no-endbr in unit0.c: f takes the address of hidden, which cannot be looked at without the kernel's image (--image vmlinuz), so that calling it through a pointer would fault on processors with IBT\n"},
		{"a call is no pointer", "extern int hidden(int); int f(int x) { return work(x) + 1; }", "+ hidden(x)",
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs global work\nunit0 needs weak hidden\n"},
		{"an exported function keeps its ENDBR64", "int f(int x) { return work(x) + 1; }", "+ (use(other), 2)",
			"object vmlinux\n  func 0 f,0 of unit0.c\nunit0 needs global other\nunit0 needs global use\nunit0 needs global work\n"},
	} {
		k := kernel(t, nil)
		k.IBT = true
		p, err := codegen.Decide(units(t, []source{{orig: tt.orig, edits: []string{"+ 1", tt.edit}}}), k)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tt.want, describe(p)); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, d)
		}
	}
}

// TestTemplate: what the module's init file is made from. An object that only
// gets new functions has no entry, for the kernel refuses an empty one.
func TestTemplate(t *testing.T) {
	t.Parallel()
	m := module(t, "mymod", "", siblings, driver)
	p, err := codegen.Decide(units(t, []source{
		{object: "mymod", orig: driver, edits: []string{"+ state++", "- state++", "int uses_kernel", callbackMacro + "static void after(void *o) { use(o); } KLP_CALLBACK(post_patch, after);\nint uses_kernel"}},
		{orig: "int f(int x) { return work(x); }", edits: []string{"int f", "int fresh(int x) { return other(x); } int f"}},
		{orig: "extern int spaced(int); int hidden(int x) { return spaced(x) + 1; }", edits: []string{"+ 1", "+ 2"}},
	}), kernel(t, nil, m))
	if err != nil {
		t.Fatal(err)
	}
	want := kmodtmpl.Data{
		Name: "livepatch-x", Replace: true, Namespaces: []string{"SPACE"}, Prebuilt: []string{"a", "b"},
		Objects: []kmodtmpl.Object{
			{Name: "", Funcs: []kmodtmpl.Func{{OldName: "hidden", Pointer: "klpc_func_0", Source: "unit2.c"}}},
			{Name: "mymod", Funcs: []kmodtmpl.Func{{OldName: "helper", Sympos: 2, Pointer: "klpc_func_1", Source: "unit0.c"}},
				Callbacks: []kmodtmpl.Callback{{Field: "post_patch", Pointer: "klpc_callback_0", Name: "after"}}},
		},
	}
	if d := cmp.Diff(want, p.Template("livepatch-x", true, []string{"a", "b"})); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if p.Empty() {
		t.Error("the plan counts as empty")
	}
}
