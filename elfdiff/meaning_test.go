package elfdiff

// What a change of C means, written down before any object was looked at: each
// case says in terms of the source what a comparison must answer. The fixtures
// in testdata/objs go into detail; this table holds klpc to the meaning, with
// every compiler that KLPC_TEST_COMPILERS names (make test: gcc 11 and 12, clang
// 14 and 16), with and without sections of their own. Otherwise it is a quick
// round with gcc and clang.

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// round is one compiler and one way in which kernels lay out their objects.
type round struct{ cc, shape, flags string }

// rounds are those of this run, and whether it is a thorough one.
func rounds() (all []round, thorough bool) {
	named := strings.Fields(os.Getenv("KLPC_TEST_COMPILERS"))
	if len(named) == 0 {
		return []round{{"gcc", "sections", ""}, {"clang", "sections", ""}}, false
	}
	for i, cc := range named {
		all = append(all, round{cc, "sections", ""})
		if i%2 == 1 { // the newer one of a kind
			all = append(all, round{cc, "shared", "-fno-function-sections -fno-data-sections"})
		}
	}
	return all, true
}

// meaning is one change and what it means.
type meaning struct {
	name  string
	orig  string
	edits []string // pairs of old and new text
	flags string
	// want is a line for the verdict and one for each function, variable and
	// problem that matters: "f", "+new", "-gone", "data-changed v".
	want string
	gcc  string // instead, where compilers keep other things apart
	only string // gcc or clang: what the other does not know
	// shape is the one that the case is about; empty: all.
	shape string
}

const (
	unchanged   = "unchanged"
	changed     = "changed"
	unpatchable = "unpatchable"
)

// wanted joins the lines of a result.
func wanted(lines ...string) string { return strings.Join(lines, "\n") }

// meaningOf says of a result what the table says.
func meaningOf(r *Result) string {
	out := []string{string(r.Verdict)}
	sign := map[ChangeKind]string{IsChanged: "", IsNew: "+", IsRemoved: "-"}
	for _, f := range r.Functions {
		out = append(out, sign[f.Kind]+sourceName(f.Name()))
	}
	for _, p := range r.Problems {
		out = append(out, strings.TrimSpace(string(p.Kind)+" "+variable(p.At.Symbol)))
	}
	slices.Sort(out[1:])
	return wanted(slices.Compact(out)...)
}

// variable is the name of a static local as the source has it: gcc calls it
// count.1, clang f.count.
func variable(name string) string {
	parts := strings.Split(keyOf(name).base, ".")
	return parts[len(parts)-1]
}

func replaceAll(t testing.TB, text string, edits []string) string {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		if strings.Count(text, edits[i]) != 1 {
			t.Fatalf("%q stands %d times in %q", edits[i], strings.Count(text, edits[i]), text)
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	return text
}

func TestMeaning(t *testing.T) {
	all, thorough := rounds()
	for _, x := range all {
		t.Run(x.cc+"/"+x.shape, func(t *testing.T) {
			if _, err := exec.LookPath(x.cc); err != nil {
				t.Skipf("%s is not installed: nothing is compared with its objects (make test installs it)", x.cc)
			}
			kind, _, _ := strings.Cut(x.cc, "-")
			for _, m := range meanings(thorough) {
				if m.only != "" && m.only != kind && m.only != x.cc || m.shape != "" && m.shape != x.shape {
					continue
				}
				t.Run(m.name, func(t *testing.T) {
					t.Parallel()
					m.check(t, x.cc, kind, x.flags+" "+m.flags)
				})
			}
		})
	}
}

func (m meaning) check(t *testing.T, cc, kind, flags string) {
	orig := buildSource(t, cc, m.orig, flags)
	patched := buildSource(t, cc, replaceAll(t, m.orig, m.edits), flags)
	want := m.want
	if m.gcc != "" && kind == "gcc" {
		want = m.gcc
	}
	r := compare(t, parse(t, orig), parse(t, patched))
	if d := cmp.Diff(want, meaningOf(r)); d != "" {
		t.Errorf("-want +got:\n%s\n%s", d, render(r))
	}
	if dir := os.Getenv("KLPC_TEST_KEEP"); dir != "" && t.Failed() {
		keep(t, filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "~")), orig, patched)
	}
}

// keep stores the objects of a case that fails, to look at.
func keep(t *testing.T, prefix string, orig, patched []byte) {
	t.Helper()
	for suffix, data := range map[string][]byte{".orig.o": orig, ".patched.o": patched} {
		if err := os.WriteFile(prefix+suffix, data, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// Two functions of which only f is edited in most cases; g stays.
const g = " int g(int x) { return other(x) + 7; }"

func meanings(thorough bool) []meaning {
	all := [][]meaning{codeMeanings(), mustDiffer(), metadata(), dataMeanings(), bootMeanings()}
	if thorough {
		all = append(all, instrumented())
	}
	return slices.Concat(all...)
}

// codeMeanings: functions.
func codeMeanings() []meaning {
	return []meaning{
		{name: "nothing", orig: "int f(int x) { return work(x); }" + g, want: unchanged},
		{name: "a body", orig: "int f(int x) { return work(x) + 1; }" + g, edits: []string{"+ 1", "+ 2"}, want: wanted(changed, "f")},
		{name: "a local name", orig: "int f(int x) { int y = work(x); return y; }" + g, edits: []string{"int y = work(x); return y", "int z = work(x); return z"}, want: unchanged},
		{name: "a callee", orig: "int f(int x) { return work(x); }" + g, edits: []string{"work", "other"}, want: wanted(changed, "f")},
		{name: "a static callee", orig: "static noinline int a(int x) { return work(x) + 1; } static noinline int b(int x) { return work(x) + 2; } int f(int x) { return a(x) * b(x) - a(2); }",
			edits: []string{"- a(2)", "- b(2)"}, want: wanted(changed, "f")},
		{name: "a new helper", orig: "int f(int x) { return work(x); }" + g,
			edits: []string{"int f(int x) { return work(x)", "static noinline int h(int x) { return other(x) * 3; } int f(int x) { return h(x)"}, want: wanted(changed, "+h", "f")},
		{name: "a helper that goes", orig: "static noinline int h(int x) { return other(x) * 3; } int f(int x) { return h(x); }" + g,
			edits: []string{"static noinline int h(int x) { return other(x) * 3; } ", "", "return h(x)", "return work(x)"}, want: wanted(changed, "-h", "f")},
		{name: "a helper that is edited", orig: "static noinline int h(int x) { return other(x) * 3; } int f(int x) { return h(x); }" + g,
			edits: []string{"* 3", "* 5"}, want: wanted(changed, "h")},
		{name: "an inlined helper", orig: "static __always_inline int h(int x) { return other(x) * 3; } int f(int x) { return h(x); } int e(int x) { return work(x); }" + g,
			edits: []string{"* 3", "* 5"}, want: wanted(changed, "f")},
		{name: "a function that becomes static", orig: "int h(int x) { return other(x) * 3; } int f(int x) { use(h); return work(x); }" + g,
			edits: []string{"int h(int x) {", "static noinline __used int h(int x) {"}, want: unchanged},
		{name: "a function that loses its static", orig: "static noinline __used int h(int x) { return other(x) * 3; } int f(int x) { use(h); return work(x); }" + g,
			edits: []string{"static noinline __used int h", "int h"}, want: unchanged},
		{name: "one that loses its static and changes", orig: "static noinline __used int h(int x) { return other(x) * 3; } int f(int x) { use(h); return work(x); }" + g,
			edits: []string{"static noinline __used int h", "int h", "* 3", "* 5"}, want: wanted(changed, "h")},
		{name: "functions that trade places", orig: "int f(int x) { return work(x); }" + g,
			edits: []string{"int f(int x) { return work(x); }", "/* moved */", "return other(x) + 7; }", "return other(x) + 7; } int f(int x) { return work(x); }"}, want: unchanged},
		{name: "a weak function", orig: "__weak int f(int x) { return work(x) + 1; }" + g, edits: []string{"+ 1", "+ 2"}, want: wanted(changed, "f")},
		{name: "a weak function that becomes strong", orig: "__weak int f(int x) { return work(x); }" + g, edits: []string{"__weak ", ""}, want: unchanged},
		{name: "a function with an alias", orig: "int f(int x) { return work(x) + 1; } int also(int x) __alias(f);" + g, edits: []string{"+ 1", "+ 2"}, want: wanted(changed, "also")},
		{name: "a caller through an alias", orig: "int f(int x) { return work(x) + 1; } int also(int x) __alias(f); int h(int x) { return also(x) + 5; }",
			edits: []string{"+ 5", "+ 6"}, want: wanted(changed, "h")},
		{name: "a function that moves to another section", orig: "int f(int x) { return work(x); } __section(\".text.unlikely\") int h(int x) { return other(x); }" + g, edits: []string{"__section(\".text.unlikely\") ", ""}, want: unchanged},
		{name: "a cold function that changes", orig: "__cold int h(int x) { return other(x) + 1; }" + g, edits: []string{"+ 1", "+ 2"}, want: wanted(changed, "h")},
		{name: "an unlikely part", orig: "__cold extern void bad(int x); int f(int x) { if (x < 0) { bad(x); printk(\"bad %d\", x); bad(3); } return work(x); }" + g,
			edits: []string{"bad(3)", "bad(4)"}, want: wanted(changed, "f")},
		{name: "an unlikely part that appears", orig: "__cold extern void bad(int x); int f(int x) { return work(x); }" + g,
			edits: []string{"int f(int x) { return", "int f(int x) { if (x < 0) { bad(x); printk(\"bad %d\", x); bad(3); } return"}, want: wanted(changed, "f")},
		{name: "an unlikely part that goes", orig: "__cold extern void bad(int x); int f(int x) { if (x < 0) { bad(x); printk(\"bad %d\", x); bad(3); } return work(x); }" + g,
			edits: []string{"if (x < 0) { bad(x); printk(\"bad %d\", x); bad(3); } ", ""}, want: wanted(changed, "f")},
		{name: "a notrace function", orig: "notrace int f(int x) { return work(x) + 1; } int h(int x) { return f(x) * 2; }", edits: []string{"+ 1", "+ 2"}, want: wanted(unpatchable, "f", "no-ftrace-entry f"),
			gcc: wanted(unpatchable, "f", "no-ftrace-entry f"), flags: "-fno-inline"},
		{name: "a system call's body", orig: "static noinline notrace long __do_sys_x(int x) { return work(x) + 1; } static noinline long __se_sys_x(int x) { return __do_sys_x(x) * 2; } long __x64_sys_x(int x) { return __se_sys_x(x) + 5; }" + g,
			edits: []string{"+ 1", "+ 2"}, want: wanted(changed, "__do_sys_x", "__se_sys_x")},
		{name: "a system call's body that somebody may hold", orig: "static noinline notrace long __do_sys_x(int x) { return work(x) + 1; } long __se_sys_x(int x) { use(__do_sys_x); return __do_sys_x(x) * 2; }" + g,
			edits: []string{"+ 1", "+ 2"}, want: wanted(unpatchable, "__do_sys_x", "no-ftrace-entry __do_sys_x")},
		{name: "a prototype", orig: "int f(int x) { return work(x); }" + g, edits: []string{"int f(int x) { return work(x)", "int f(long x) { return work(x >> 40)"}, want: wanted(changed, "f")},
		{name: "a jump table", orig: "int f(int x) { switch (x) { case 0: return work(3); case 1: return other(5); case 2: return work(9); case 3: return other(1); case 4: return work(77); case 5: return other(78); } return 0; }" + g,
			edits: []string{"case 4: return work(77); case 5: return other(78)", "case 5: return work(77); case 4: return other(78)"}, flags: "-fjump-tables", want: wanted(changed, "f")},
		{name: "labels as values", orig: "int f(int x) { static const void *const to[] = { &&one, &&two }; goto *to[x & 1]; one: return work(1); two: return other(2); }" + g,
			edits: []string{"&&one, &&two", "&&two, &&one"}, want: wanted(changed, "f")},
	}
}

// mustDiffer: what must never pass as the same, each the only change.
func mustDiffer() []meaning {
	const (
		big   = "struct big { int v[41]; }; int f(void) { struct big b = { { 301, 302, 303, 304, 305, 306, 307, 308, 309, 310, 311, 312, 313, 314, 315, 316, 317, 318, 319, 320, 321, 322, 323 } }; use(&b); return b.v[3]; }"
		value = "int f(unsigned int x) { switch (x) { case 0: return 11; case 1: return 7; case 2: return 23; case 3: return 5; case 4: return 99; case 5: return 1; case 6: return 64; } return 0; }"
		keys  = "static struct static_key a, b; int e(void) { return static_branch(&b, 0) + static_branch(&a, 0); } int f(int x) { if (static_branch(&a, 1)) work(2); return x; }"
		fault = "int f(int *p) { int v; READ_OR_ZERO(v, p, 3); return v; }"
		twice = "int f(int x) { { static int n; n += x; work(n); } { static int n; n -= x; other(n); } return 0; }"
		ahead = "int e(int x) { const int t[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 }; return t[x]; } int f(int x) { const int t[] = { 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31 }; return t[x + 1]; }"
	)
	return []meaning{
		{name: "an unnamed initial value", orig: big + g, edits: []string{"312", "999"}, want: wanted(changed, "f")},
		{name: "an element in front of where code points", orig: ahead + g, edits: []string{"21,", "99,"}, shape: "sections", want: wanted(changed, "f")},
		{name: "an element in front of where code points, shared", orig: ahead + g, edits: []string{"21,", "99,"}, shape: "shared", only: "gcc", want: wanted(changed, "f")},
		// clang lets f point behind that element, so that nothing parts it from the array of e.
		{name: "an element that either array may hold", orig: ahead + g, edits: []string{"21,", "99,"}, shape: "shared", only: "clang", want: wanted(changed, "e", "f")},
		{name: "a value of a switch", orig: value + g, edits: []string{"return 23", "return 24"}, want: wanted(changed, "f")},
		{name: "a string", orig: "int f(int x) { return printk(\"one\"); }" + g, edits: []string{"one", "two"}, want: wanted(changed, "f")},
		{name: "which static key", orig: keys, edits: []string{"if (static_branch(&a, 1))", "if (static_branch(&b, 1))"}, want: wanted(changed, "f")},
		{name: "a static key's polarity", orig: keys, edits: []string{"if (static_branch(&a, 1))", "if (static_branch(&a, 0))"}, want: wanted(changed, "f")},
		{name: "flags of a warning", orig: "int f(int x) { if (x) WARN_AT(\"a.c\", 1, 0x901); return work(x); }" + g, edits: []string{"0x901", "0x903"}, want: wanted(changed, "f")},
		{name: "the format of a warning", orig: "int f(int x) { if (x) WARN_FORMAT(\"bad\", \"a.c\", 1, 0x901); return work(x); }" + g, edits: []string{"bad", "odd"}, want: wanted(changed, "f")},
		{name: "the type of a fault handler", orig: fault + g, edits: []string{"p, 3", "p, 4"}, want: wanted(changed, "f")},
		{name: "the burst of a ratelimit", orig: "int f(int x) { printk_ratelimited(5000, 10, \"now\"); return work(x); }" + g, edits: []string{"10", "20"}, want: wanted(changed, "f")},
		{name: "the interval of a ratelimit", orig: "int f(int x) { printk_ratelimited(5000, 10, \"now\"); return work(x); }" + g, edits: []string{"5000", "6000"}, want: wanted(changed, "f")},
		{name: "a kCFI type", orig: "int f(int x) { return x; }" + g, edits: []string{"int f(int x)", "unsigned int f(int x)"}, flags: "-fsanitize=kcfi", only: "clang-16", want: wanted(changed, "f")},
		{name: "which static local", orig: twice + g, edits: []string{"n += x; work(n)", "n -= x; other(n)", "n -= x; other(n); } return 0", "n += x; work(n); } return 0"},
			// Two variables that trade everything but their order cannot be told from two that stay.
			want: wanted(changed, "f")},
		{name: "which clone is called", orig: "static noinline int pick(int a, int x) { return work(a) + x; } int f(int x) { return pick(1, x); } int e(int x) { return pick(2, x); }",
			edits: []string{"pick(1, x)", "pick(3, x)"}, want: wanted(changed, "f")},
		{name: "the CPU feature of an alternative", orig: "int f(int x) { ALT12(\"nop\", 5, \"ud2\"); return work(x); }" + g, edits: []string{"5", "6"}, want: wanted(changed, "f")},
		{name: "the new code of an alternative", orig: "int f(int x) { ALT12(\"nop\", 5, \"ud2\"); return work(x); }" + g, edits: []string{"ud2", "hlt"}, want: wanted(changed, "f")},
		{name: "which per-CPU variable", orig: "static __percpu_data int a = 1, b = 2; int e(void) { return this_cpu_read(a) + this_cpu_read(b); } int f(void) { return this_cpu_read(a); }",
			edits: []string{"{ return this_cpu_read(a); }", "{ return this_cpu_read(b); }"}, want: wanted(changed, "f")},
		{name: "which variable", orig: "static int a, b; int e(int x) { a += x; b -= x; return a * b; } int f(void) { return a; }", edits: []string{"{ return a; }", "{ return b; }"}, want: wanted(changed, "f")},
		{name: "which element", orig: "static int a[9]; int e(int x) { a[x] += x; return 0; } int f(void) { return a[3]; }", edits: []string{"a[3]", "a[4]"}, want: wanted(changed, "f")},
		{name: "which function a pointer means", orig: "static int a(int x) { return work(x) + 1; } static int b(int x) { return work(x) + 2; } int e(void) { use(a); use(b); return 0; } int f(void) { use(a); return 1; }",
			edits: []string{"use(a); return 1", "use(b); return 1"}, want: wanted(changed, "f")},
	}
}

// metadata: what moves when code moves, and is no obstacle.
func metadata() []meaning {
	lines := func(text string) string { return "\n\n" + text }
	move := []string{"/* here */", "\n\n\n"}
	return []meaning{
		{name: "the line of a warning", orig: "/* here */" + lines("int f(int x) { if (x) WARN(); return work(x); }") + g, edits: move, want: unchanged},
		{name: "the line of a pr_debug", orig: "/* here */" + lines("int f(int x) { pr_debug(\"x\"); return work(x); }") + g, edits: move, want: wanted(changed, "f")},
		{name: "a new pr_debug in front", orig: "int e(int x) { return work(x); } int f(int x) { pr_debug(\"x\"); return work(x); }" + g,
			edits: []string{"int e(int x) { return", "int e(int x) { pr_debug(\"y\"); return"}, want: wanted(changed, "e")},
		{name: "a new warning in front", orig: "int e(int x) { return work(x); } int f(int x) { if (x) WARN(); WARN_ONCE(x == 4, \"once\"); return work(x); }" + g,
			edits: []string{"int e(int x) { return", "int e(int x) { if (x == 3) WARN(); WARN_ONCE(x == 5, \"more\"); return"}, want: wanted(changed, "e")},
		{name: "a once flag that goes", orig: "int e(int x) { WARN_ONCE(x == 5, \"more\"); return work(x); } int f(int x) { WARN_ONCE(x == 4, \"once\"); return work(x); }" + g,
			edits: []string{"WARN_ONCE(x == 5, \"more\"); ", ""}, want: wanted(changed, "e")},
		{name: "a new ratelimit in front", orig: "int e(int x) { return work(x); } int f(int x) { printk_ratelimited(5000, 10, \"now\"); return work(x); }" + g,
			edits: []string{"int e(int x) { return", "int e(int x) { printk_ratelimited(5000, 10, \"then\"); return"}, want: wanted(changed, "e")},
		{name: "a lockdep key", orig: "extern void lock_init(void *l, void *key); int e(int x) { return work(x); } int f(int x) { static char __key[8]; lock_init(NULL, __key); return work(x); }" + g,
			edits: []string{"int e(int x) { return", "int e(int x) { static char __key[8]; lock_init(NULL, __key); return"}, want: wanted(changed, "e")},
		{name: "the name of the function", orig: "int e(int x) { return work(x); } int f(int x) { use(__func__); return work(x); }" + g,
			edits: []string{"int e(int x) { return", "int e(int x) { use(__func__); return"}, want: wanted(changed, "e")},
		{name: "a record that only the build reads", orig: "#define ADDRESSABLE(n) static void *__used __section(\".discard.addressable\") PASTE(__UNIQUE_ID___addressable_f, n) = (void *)&f;\nint f(int x) { return work(x); } ADDRESSABLE(17)" + g,
			edits: []string{"ADDRESSABLE(17)", "ADDRESSABLE(23)"}, want: unchanged},
		{name: "module information", orig: "MODULE_INFO(author, \"me\"); int f(int x) { return work(x); }" + g, edits: []string{"me", "you"}, want: unchanged},
		{name: "an initcall's record", orig: "/* here */\nstatic int __init setup(void) { return work(1); } initcall(setup); int f(int x) { return work(x); }" + g, edits: []string{"/* here */\n", "\n\n\n"}, want: unchanged},
		{name: "a tracepoint's record", orig: "struct point { const char *name; struct static_key key; }; struct point one = { \"one\" };\n#define REGISTER(p) asm(\".pushsection __tracepoints_ptrs, \\\"a\\\"\\n.balign 4\\n.long \" #p \" - .\\n.popsection\\n\")\nREGISTER(one); int f(int x) { return work(x) + 1; }" + g,
			edits: []string{"REGISTER(one); int", "struct point two = { \"two\" }; REGISTER(one); REGISTER(two); int", "+ 1", "+ 2"}, want: wanted(changed, "f")},
		{name: "a tracepoint's record alone", orig: "struct point { const char *name; }; struct point one = { \"one\" }, two = { \"two\" };\n#define REGISTER(p) asm(\".pushsection __tracepoints_ptrs, \\\"a\\\"\\n.balign 4\\n.long \" #p \" - .\\n.popsection\\n\")\nREGISTER(one); int f(int x) { return work(x) + 1; }" + g,
			edits: []string{"REGISTER(one); int", "REGISTER(two); int"}, want: wanted(unpatchable, "unknown-construct")},
		{name: "how a trace event is printed", orig: "static char print_fmt_ev[] = \"a\"; void *ev = print_fmt_ev; static __used noinline notrace int trace_raw_output_ev(int x) { return work(x) + 3; } int f(int x) { return work(x) + 1; }" + g,
			edits: []string{"\"a\"", "\"abc\"", "+ 3", "+ 4", "+ 1", "+ 2"}, want: wanted(changed, "f")},
		{name: "only how a trace event is printed", orig: "static char print_fmt_ev[] = \"a\"; void *ev = print_fmt_ev; static __used noinline notrace int trace_raw_output_ev(int x) { return work(x) + 3; }" + g,
			edits: []string{"\"a\"", "\"b\"", "+ 3", "+ 4"}, want: wanted(unpatchable, "data-changed print_fmt_ev", "no-ftrace-entry trace_raw_output_ev", "trace_raw_output_ev")},
		{name: "what a trace event records", orig: "static __used noinline notrace int trace_event_raw_event_ev(int x) { return work(x) + 3; } int f(int x) { return work(x) + 1; }" + g,
			edits: []string{"+ 3", "+ 4", "+ 1", "+ 2"}, want: wanted(unpatchable, "f", "no-ftrace-entry trace_event_raw_event_ev", "trace_event_raw_event_ev")},
	}
}

// dataMeanings: variables.
func dataMeanings() []meaning {
	const table = "static const int table[] = { 4, 8, 15, 16, 23, 42, 7, 9, 11 }; int f(unsigned long x) { return table[x]; }"
	return []meaning{
		{name: "an initial value", orig: "int v = 3; int f(int x) { return work(x) + v; }" + g, edits: []string{"v = 3", "v = 4"}, want: wanted(unpatchable, "data-changed v")},
		{name: "one that was zero", orig: "int v; int f(int x) { return work(x) + v; }" + g, edits: []string{"int v;", "int v = 4;"}, want: wanted(unpatchable, "data-changed v")},
		{name: "a size", orig: "int v[4]; int f(int x) { return work(x) + v[x]; }" + g, edits: []string{"v[4]", "v[6]"}, want: wanted(unpatchable, "data-resized v")},
		{name: "a table of operations", orig: "static int a(int x) { return work(x); } static int b(int x) { return other(x); } struct { int (*op)(int); int (*also)(int); } const ops = { a, b };" + g,
			edits: []string{"{ a, b }", "{ b, a }"}, want: wanted(unpatchable, "data-changed ops")},
		{name: "a new variable", orig: "int f(int x) { return work(x); }" + g, edits: []string{"int f(int x) { return work(x)", "static int v = 5; int f(int x) { v += x; return work(v)"}, want: wanted(changed, "f")},
		{name: "a variable that goes", orig: "static int v = 5; int f(int x) { v += x; return work(v); }" + g, edits: []string{"static int v = 5; ", "", "v += x; return work(v)", "return work(x)"}, want: wanted(changed, "f")},
		{name: "a new static local", orig: "int f(int x) { return work(x); }" + g, edits: []string{"{ return work(x)", "{ static int v = 5; v += x; return work(v)"}, want: wanted(changed, "f")},
		{name: "a static local that goes", orig: "int f(int x) { static int v = 5; v += x; return work(v); }" + g, edits: []string{"static int v = 5; v += x; return work(v)", "return work(x)"}, want: wanted(changed, "f")},
		{name: "a static local of a changed function", orig: "int f(int x) { static int v = 5; v += x; return work(v) + 1; }" + g, edits: []string{"+ 1", "+ 2"}, want: wanted(changed, "f")},
		{name: "a static local's initial value", orig: "int f(int x) { static int v = 5; v += x; return work(v); }" + g, edits: []string{"v = 5", "v = 6"}, want: wanted(unpatchable, "data-changed v")},
		{name: "a constant table that code reads", orig: table + g, edits: []string{"23", "24"}, want: wanted(changed, "f")},
		{name: "one that grows", orig: table + g, edits: []string{"9, 11", "9, 11, 12"}, want: wanted(changed, "f")},
		{name: "one whose address is handed out", orig: table + " int h(void) { use(table); return 1; }", edits: []string{"23", "24"}, want: wanted(unpatchable, "data-changed table")},
		{name: "one that another file may read", orig: "extern const int table[9]; const int table[] = { 4, 8, 15, 16, 23, 42, 7, 9, 11 }; int f(unsigned long x) { return table[x]; }" + g, edits: []string{"23", "24"}, want: wanted(unpatchable, "data-changed table")},
		{name: "the size of a common variable", orig: "int v[4]; int f(int x) { return work(x) + v[x]; }" + g, edits: []string{"v[4]", "v[6]"}, flags: "-fcommon", want: wanted(unpatchable, "data-resized v")},
		{name: "a common variable that gets a value", orig: "int v; int f(int x) { return work(x) + v; }" + g, edits: []string{"int v;", "int v = 4;"}, flags: "-fcommon", want: wanted(unpatchable, "data-changed v", "f")},
		{name: "an unused variable", orig: "static int __used v = 3;" + g, edits: []string{"v = 3", "v = 4"}, want: wanted(unpatchable, "data-changed v")},
		{name: "constant locals of two functions", orig: "int f(int x) { static const char m[9] = { 1, 2, 3 }; use(m); return work(x); } int h(int x) { return other(x); }",
			edits: []string{"static const char m[9] = { 1, 2, 3 }; use(m); ", "", "{ return other(x)", "{ static const char m[9] = { 4, 5, 6 }; use(m); return other(x)"}, want: wanted(changed, "f", "h")},
	}
}

// bootMeanings: what only runs while the kernel boots.
func bootMeanings() []meaning {
	const both = "int __init setup(void) { return work(1); } int f(int x) { return work(x) + 1; }"
	return []meaning{
		{name: "an init function beside another", orig: both, edits: []string{"work(1)", "work(2)", "+ 1", "+ 2"}, want: wanted(changed, "f")},
		{name: "an init function alone", orig: both, edits: []string{"work(1)", "work(2)"}, want: wanted(unpatchable, "init-code setup")},
		{name: "an exit function alone", orig: "void __exit done(void) { work(1); }" + g, edits: []string{"work(1)", "work(2)"}, want: wanted(unpatchable, "init-code done")},
		{name: "a new init function", orig: "int f(int x) { return work(x) + 1; }", edits: []string{"int f", "int __init setup(void) { return work(1); } int f", "+ 1", "+ 2"}, want: wanted(changed, "f")},
		{name: "init data beside a function", orig: "int v __initdata = 3; int __init setup(void) { return v; } int f(int x) { return work(x) + 1; }", edits: []string{"v __initdata = 3", "v __initdata = 4", "+ 1", "+ 2"}, want: wanted(changed, "f")},
	}
}

// instrumented: kernels with options unlike Debian's.
func instrumented() []meaning {
	const (
		code = "/* here */int v = 3; static int w; int e(int x) { w += x; return work(x) + v + w; } int f(int x) { char b[20]; b[x] = 2; use(b); return work(x << 3) + b[4] + w + 1; }"
		asan = "-fsanitize=kernel-address -fasan-shadow-offset=0xdffffc0000000000 --param asan-globals=1 --param asan-instrumentation-with-call-threshold=10000 --param asan-stack=1"
		llvm = "-fsanitize=kernel-address -mllvm -asan-mapping-offset=0xdffffc0000000000 -mllvm -asan-globals=1 -mllvm -asan-stack=1"
		ub   = "-fsanitize=shift -fsanitize=bounds"
	)
	body := []string{"+ 1", "+ 2"}
	var out []meaning
	for _, x := range []struct{ name, flags, only string }{
		{"KASAN", asan, "gcc"}, {"KASAN", llvm, "clang"}, {"UBSAN", ub, ""}, {"KCOV", "-fsanitize-coverage=trace-pc", ""},
		{"GCOV", "-fprofile-arcs -ftest-coverage", ""}, {"size", "-Os", ""}, {"stack protector", "-fstack-protector-strong", ""},
		{"IBT", "-fcf-protection=branch", ""}, {"padding", "-fpatchable-function-entry=16,16", ""}, {"retpolines", "-mindirect-branch=thunk-extern", "gcc"},
		{"debug information", "-g", ""}, {"no common sections", "-fcommon", ""},
	} {
		out = append(out,
			meaning{name: x.name + ": nothing", orig: code, flags: x.flags, only: x.only, want: unchanged},
			meaning{name: x.name + ": a body", orig: code, edits: body, flags: x.flags, only: x.only, want: wanted(changed, "f")},
			meaning{name: x.name + ": a value", orig: code, edits: []string{"v = 3", "v = 4"}, flags: x.flags, only: x.only, want: wanted(unpatchable, "data-changed v")})
	}
	for _, x := range []struct{ name, flags, only, shape string }{
		{"GCOV", "-fprofile-arcs -ftest-coverage", "", ""}, {"KCOV", "-fsanitize-coverage=trace-pc", "", ""},
		{"UBSAN", ub, "gcc", "sections"}, // nothing but the section's name tells what its records are
	} {
		out = append(out, meaning{name: x.name + ": a line", orig: code, edits: []string{"/* here */", "\n\n"}, flags: x.flags, only: x.only, shape: x.shape, want: unchanged})
	}
	out = append(out,
		meaning{name: "kCFI", orig: "int f(int (*p)(int), int x) { return p(x) + 1; }" + g, edits: body, flags: "-fsanitize=kcfi", only: "clang-16", want: wanted(changed, "f")},
		meaning{name: "without ftrace", orig: code, edits: body, flags: "-mno-fentry", only: "gcc", want: wanted(unpatchable, "f", "no-ftrace-entry f")},
		meaning{name: "GCOV: a new branch", orig: code, edits: []string{"return work(x << 3)", "if (x == 4) work(8); return work(x << 3)"}, flags: "-fprofile-arcs -ftest-coverage", want: wanted(changed, "f")},
		meaning{name: "KASAN: a new global", orig: code, edits: []string{"int v = 3;", "int v = 3; static int fresh = 8;", "+ w + 1", "+ w + fresh++"}, flags: asan, only: "gcc", want: wanted(changed, "f")},
	)
	return out
}
