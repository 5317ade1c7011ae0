package pipeline

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/risk"
	"github.com/klpc/klpc/typediff"
)

func TestStackOnly(t *testing.T) {
	const begin = "struct s { int a; };\n"
	for _, c := range []struct {
		name, text string
		want       bool
	}{
		{"variable", "int f(void) { struct s s = { 1 }; return s.a; }", true},
		{"passed on", "static void g(struct s *s) { s->a++; }\nint f(void) { struct s s = { 1 }; g(&s); return s.a; }", true},
		{"callback's argument", "static void g(void *p) { struct s *s = p; s->a++; }\nint f(void) { struct s s = { 1 }; walk(g, &s); return s.a; }", true},
		{"container_of", "static void g(struct t *t) { struct s *s = container_of(t, struct s, t); s->a++; }\nint f(void) { struct s s; return s.a; }", true},
		{"a variable of the file", "static struct s s;\nint f(void) { struct s t = s; return t.a; }", false},
		{"allocated", "int f(void) { struct s s; struct s *p; p = kmalloc(sizeof(*p), GFP_KERNEL); return s.a; }", false},
		{"allocated by name", "int f(void) { struct s s; void *p = kmalloc(sizeof(struct s), GFP_KERNEL); return s.a; }", false},
		{"cast", "int f(struct sk_buff *b) { struct s s; return ((struct s *)b->cb)->a; }", false},
		{"memory of something else", "int f(struct file *file) { struct s s; struct s *p = file->private_data; return p->a; }", false},
		{"result", "struct s *find(int i);\nint f(void) { struct s s; return s.a; }", false},
		{"no variable at all", "int f(struct s *s) { return s->a; }", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := stackOnly([]byte(begin+c.text), "struct s"); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	const use = "int f(void) { struct s s; return s.a; }"
	if stackOnly([]byte("struct s { int a; struct list_head list; };\n"+use), "struct s") {
		t.Error("a type whose objects are linked may live elsewhere")
	}
	if stackOnly([]byte("enum s { a };\n"+use), "enum s") {
		t.Error("an enum's values are not on the stack alone")
	}
}

func TestValue(t *testing.T) {
	for body, want := range map[string]uint64{"1": 1, "0x10": 16, "(1 << 4)": 16, "(1U << 4)": 16, "1UL<<28": 1 << 28, "BIT(3)": 8, "(BIT_ULL(40))": 1 << 40, "0x80000000U": 1 << 31, "_BITUL(2)": 4} {
		if got, ok := value(body); !ok || got != want {
			t.Errorf("%s: %d %v, want %d", body, got, ok, want)
		}
	}
	for _, body := range []string{"X", "x + 1", "(1 << N)", "BIT(A) | BIT(B)", "1 << 70", `"1"`, "sizeof(x)"} {
		if got, ok := value(body); ok {
			t.Errorf("%s is taken for %d", body, got)
		}
	}
}

// toyBuilder has one changed unit x.c with the function f, and one file of a
// patch. No kernel is needed.
func toyBuilder(t *testing.T, file, old, now, source string) *builder {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "x.c"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	text := []byte(now)
	f := &elfdiff.Piece{Func: true, Sym: &elfobj.Symbol{Name: "f", Bind: elf.STB_GLOBAL}}
	res := &elfdiff.Result{Verdict: elfdiff.Changed, Orig: &elfdiff.View{}, Patched: &elfdiff.View{Pieces: []*elfdiff.Piece{f}},
		Functions: []elfdiff.Change{{Orig: f, Patched: f, Kind: elfdiff.IsChanged}}}
	b := &builder{kernel: &Kernel{Tree: &kbuild.Tree{Source: dir, Build: dir}}, report: &Report{}, sel: &selection{},
		files: []touched{{path: file, old: []byte(old), content: &text, edits: diff.Between([]byte(old), text).Edits}}, pairs: make([]pair, 1)}
	p := &b.pairs[0]
	p.unit, p.diff, p.patched = kbuild.Unit{Source: "x.c", Object: "x.o"}, res, &elfobj.Object{}
	return b
}

func TestChangedBits(t *testing.T) {
	const mask = "int f(struct s *s) { if (s->flags & FLAG) s->flags |= FLAG; return 0; }\n"
	for _, c := range []struct {
		name, old, now, source string
		want                   []string
	}{
		{"another bit", "#define FLAG 0x1\n", "#define FLAG 0x2\n", mask, []string{"FLAG: flags 0x1>0x2"}},
		{"another bit, written in another way", "#define FLAG BIT(0)\n", "#define FLAG (1 << 3)\n", mask, []string{"FLAG: flags 0x1>0x8"}},
		{"another number of a bit", "#define FLAG 3\n", "#define FLAG 5\n", "int f(struct s *s) { return test_bit(FLAG, &s->state); }\n", []string{"FLAG: state 0x3>0x5"}},
		{"the same bit", "#define FLAG 0x8\n", "#define FLAG BIT(3)\n", mask, nil},
		{"comment", "#define FLAG 0x8\n", "#define FLAG 0x8 /* a flag */\n", mask, nil},
		{"a new flag", "#define FLAG 0x1\n", "#define FLAG 0x1\n#define OTHER 0x2\n", mask, nil},
		{"a limit", "#define FLAG 100\n", "#define FLAG 200\n", "int f(struct s *s) { return s->len > FLAG; }\n", nil},
		{"a bit of no field", "#define FLAG 0x1\n", "#define FLAG 0x2\n", "int f(int flags) { return flags & FLAG; }\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := toyBuilder(t, "x.h", c.old, c.now, c.source)
			var got []string
			for _, l := range b.changedBits() {
				if d := cmp.Diff([]string{"f"}, l.Functions); d != "" {
					t.Errorf("functions: %s", d)
				}
				for _, f := range l.Changes {
					got = append(got, fmt.Sprintf("%s: %s %#x>%#x", l.Type, f.Field, *f.OldValue, *f.NewValue))
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		flag, name string
		want       bool
	}{
		{"struct foo", "struct foo", true}, {"foo", "struct foo", true}, {"foo", "union foo", true}, {"union foo", "struct foo", false},
		{"struct  foo", "struct foo", true}, {"fo", "struct foo", false}, {"FLAG", "FLAG", true}, {"enum {A, ...}", "enum {A, ...}", true}, {"all", "struct foo", true},
	} {
		b := &builder{o: BuildOptions{AllowLayout: []string{c.flag}}}
		used := map[string]bool{}
		if got := b.allows(c.name, used); got != c.want || used[c.flag] != c.want {
			t.Errorf("--allow-layout-change %q for %s: %v, used %v", c.flag, c.name, got, used)
		}
	}
}

func TestDebugFlags(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"-O2", "-g"}, nil},
		{[]string{"-O2", "-gdwarf-5"}, nil},
		{[]string{"-O2"}, []string{"-g"}},
		{[]string{"-g", "-g0"}, []string{"-g"}},
		{[]string{"-g", "-femit-struct-debug-baseonly"}, []string{"-femit-struct-debug-detailed=all"}},
		{[]string{"-g", "-gz=zlib", "-gsplit-dwarf"}, []string{"-gz=none", "-gno-split-dwarf"}},
	} {
		if got := debugFlags(kbuild.Unit{Args: c.args}); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}

// TestSettledVersions: the version of an exported symbol may change if only
// types make the difference that have been decided about.
func TestSettledVersions(t *testing.T) {
	crc := elfdiff.Problem{Kind: CRCChanged, At: elfobj.Pos{Object: "x.c", Symbol: "f"}}
	for _, c := range []struct {
		name      string
		verdict   LayoutVerdict
		prototype bool
		types     bool
		problems  int
		notes     int
	}{
		{"allowed type", LayoutAllowed, true, true, 0, 1},
		{"harmless type", LayoutHarmless, true, true, 0, 1},
		{"refused type, which is the problem", LayoutRefused, true, true, 0, 0},
		{"refused type and another prototype", LayoutRefused, false, true, 1, 0},
		{"another prototype", LayoutAllowed, false, true, 1, 0},
		{"no type is known to change", LayoutAllowed, true, false, 1, 0},
	} {
		b := toyBuilder(t, "x.c", "", "", "")
		p := &b.pairs[0]
		p.crcs, p.samePrototype = []elfdiff.Problem{crc}, map[string]bool{"f": c.prototype}
		if c.types {
			p.types = []typediff.TypeChange{{Name: "struct s", File: filepath.Join(b.kernel.Tree.Source, "x.h")}}
		}
		b.shadow = &kbuild.Shadow{}
		got := b.versionProblems([]ReportLayout{{Type: "struct s", File: "x.h", Verdict: c.verdict}})
		if len(got) != c.problems || len(b.report.Notes) != c.notes {
			t.Errorf("%s: %d problems, notes %q", c.name, len(got), b.report.Notes)
		}
	}
}

func TestAlwaysOnStack(t *testing.T) {
	calls := func(names ...string) []elfdiff.Ref {
		var refs []elfdiff.Ref
		for _, n := range names {
			refs = append(refs, elfdiff.Ref{To: elfdiff.Target{Kind: elfdiff.Undef, Sym: &elfobj.Symbol{Name: n}}})
		}
		return refs
	}
	for _, c := range []struct {
		name, source string
		calls        []string
		want         string
	}{
		{"asks whether to stop", "int f(void *p)\n{\n\twhile (!kthread_should_stop())\n\t\twork(p);\n\treturn 0;\n}\n", []string{"work", "kthread_should_stop"}, "main loop of a kernel thread"},
		{"started as a thread", "int f(void *p)\n{\n\tfor (;;)\n\t\twork(p);\n}\nint g(void)\n{\n\tt = kthread_run(f, NULL, \"f\");\n}\n", []string{"work"}, "main function of a kernel thread, started at x.c:8"},
		{"waits for ever", "int f(void *p)\n{\n\tfor (;;) {\n\t\tif (work(p)) {\n\t\t\tschedule();\n\t\t}\n\t}\n}\n", []string{"work", "schedule"}, "schedule() in an endless loop (x.c:5)"},
		{"waits once", "int f(void *p)\n{\n\tfor (;;) {\n\t\twork(p);\n\t}\n\tschedule();\n}\n", []string{"work", "schedule"}, ""},
		{"waits in a loop that ends", "int f(void *p)\n{\n\twhile (work(p)) {\n\t\tschedule();\n\t}\n}\n", []string{"work", "schedule"}, ""},
		{"loops without waiting", "int f(void *p)\n{\n\tfor (;;) {\n\t\twork(p);\n\t}\n}\n", []string{"work"}, ""},
		{"another function is the thread", "int f(void *p)\n{\n\treturn 0;\n}\nint g(void)\n{\n\tt = kthread_run(h, f, \"f\");\n}\n", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := toyBuilder(t, "x.h", "", "", c.source)
			ch := b.pairs[0].diff.Functions[0]
			ch.Orig.Refs = calls(c.calls...)
			got := b.newLoops().why("x.c", ch)
			if got == "" != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestRiskNotes(t *testing.T) {
	const old = "int f(struct s *s)\n{\n\treturn s->a;\n}\nint unchanged(void)\n{\n\treturn 0;\n}\n"
	now := strings.Replace(old, "\treturn s->a", "\tmutex_lock(&s->lock);\n\treturn s->a", 1)
	now = strings.Replace(now, "\treturn 0", "\tmutex_lock(&a);\n\treturn 0", 1)
	b := toyBuilder(t, "x.c", old, now, old)
	quiet := &elfdiff.Piece{Func: true, Sym: &elfobj.Symbol{Name: "unchanged"}}
	b.pairs[0].diff.Patched.Pieces = append(b.pairs[0].diff.Patched.Pieces, quiet)
	b.findRisks()
	if len(b.report.Risks) != 1 || b.report.Risks[0].Kind != risk.Locking || b.report.Risks[0].Function != "f" ||
		!strings.Contains(b.report.Risks[0].Detail, "mutex_lock(&s->lock) is added (x.c:3)") {
		t.Errorf("risks: %+v", b.report.Risks)
	}
	if want := "risk: f: "; len(b.report.Notes) != 1 || !strings.HasPrefix(b.report.Notes[0], want) {
		t.Errorf("notes: %q", b.report.Notes)
	}
}

func TestHookPoints(t *testing.T) {
	h := hooks{"tcp_reno_undo_cwnd": "BPF"}
	for name, want := range map[string]bool{"tcp_reno_undo_cwnd": true, "bpf_lsm_file_open": true, "__traceiter_sched_switch": true, "vfs_read": false} {
		if got := h.why(name); (got != "") != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}
