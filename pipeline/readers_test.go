package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/kbuild"
)

// headerUnits are the units of a tree whose files read include/linux/t.h.
var headerUnits = map[string]string{
	"a/names.c":   "#include <linux/t.h>\nint names(int x) { return twice(x); }\n",
	"a/macro.c":   "#include <linux/t.h>\nint macro(int x) { return LIMIT + x; }\n",
	"a/pastes.c":  "#include <linux/t.h>\n#define CALL(a) tw##a\nint pastes(int x) { return CALL(ice)(x); }\n",
	"a/nothing.c": "#include <linux/t.h>\nint nothing(int x) { return x; }\n",
	"a/mentions.c": "#include <linux/t.h>\nstatic inline int unused(int x) { return twice(x) + LIMIT; }\n" +
		"int mentions(int x) { return x; }\n",
	"a/counts.c": "#include <linux/t.h>\nint counts(int x) { return sizeof(struct pair) + x; }\n",
	"a/other.c":  "int other(void) { return 0; }\n",
}

const headerText = `#ifndef T_H
#define T_H
#define LIMIT 7
struct pair { int a, b; };
static inline int twice(int x)
{
	return 2 * x;
}
static inline int thrice(int x)
{
	return 3 * x;
}
#endif
`

// headerTree makes a built tree of these units, with real .cmd files.
func headerTree(t *testing.T) *kbuild.Tree { return treeOf(t, headerUnits) }

func treeOf(t *testing.T, units map[string]string) *kbuild.Tree {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"Kbuild": "", "scripts/Kbuild.include": "", "init/main.c": "", ".config": "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n",
		"include/config/kernel.release": "6.99.0-toy\n", "include/linux/t.h": headerText,
	}
	for source, text := range units {
		files[source] = text
		object := strings.TrimSuffix(source, ".c") + ".o"
		if strings.HasPrefix(text, "/* included */") {
			continue // no unit of its own
		}
		dep := ""
		if strings.Contains(text, "t.h") {
			dep = "  include/linux/t.h \\\n"
		}
		if _, part, ok := strings.Cut(text, "#include \""); ok {
			part, _, _ = strings.Cut(part, "\"")
			dep += "  " + path.Join(path.Dir(source), part) + " \\\n"
		}
		files[path.Join(path.Dir(object), "."+path.Base(object)+".cmd")] = fmt.Sprintf(
			"savedcmd_%[1]s := gcc -Wp,-MMD,%[2]s -Iinclude -D__KERNEL__ -m64 -mcmodel=kernel -fno-pic -O2 -c -o %[1]s %[3]s\n\nsource_%[1]s := %[3]s\n\ndeps_%[1]s := \\\n%[4]s\n",
			object, path.Join(path.Dir(object), "."+path.Base(object)+".d"), source, dep)
	}
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := kbuild.OpenTree(root, kbuild.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// sieving is a build as far as the sieves.
func sieving(t *testing.T, k *Kernel, file, old, now string) *builder {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(k.Tree.Source, file))
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Replace(text, []byte(old), []byte(now), 1)
	if bytes.Equal(text, content) {
		t.Fatalf("%s has no %q", file, old)
	}
	a := diff.Between(text, content)
	b := &builder{o: BuildOptions{Jobs: 2}, kernel: k, report: &Report{}, work: &workFolder{dir: t.TempDir()},
		files: []touched{{path: file, content: &content, edits: a.Edits, pinned: a.Pin()}}}
	if err := os.Mkdir(filepath.Join(b.work.dir, "obj"), 0o755); err != nil {
		t.Fatal(err)
	}
	b.cache = newCompileCache(k, "", 0, false, func(text string) { t.Log(text) })
	if err := b.selectUnits(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSieves(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc")
	}
	k := &Kernel{Tree: headerTree(t)}
	for _, test := range []struct {
		name, old, now string
		kept           string // sources, sorted
		want           Readers
	}{
		{"an inline function that is used", "2 * x", "2 * x + 1", "a/names.c a/pastes.c",
			Readers{Read: 6, DroppedByText: 3, Preprocessed: 3, Unreachable: 1}},
		{"an inline function that nobody uses", "3 * x", "3 * x + 1", "", Readers{Read: 6, DroppedByText: 6}},
		{"a macro", "LIMIT 7", "LIMIT 8", "a/macro.c", Readers{Read: 6, DroppedByText: 4, Preprocessed: 2, Unreachable: 1}},
		{"a struct", "int a, b;", "int a, b, c;", "a/counts.c", Readers{Read: 6, DroppedByText: 5, Preprocessed: 1}},
		{"a comment", "int a, b;", "int a /* x */, b;", "", Readers{Read: 6, DroppedByText: 5}},
		{"a function that is emitted", "#endif", "int emitted;\n#endif", "a/counts.c a/macro.c a/mentions.c a/names.c a/nothing.c a/pastes.c",
			Readers{Read: 6, Preprocessed: 6}},
		{"a new function", "#endif", "static inline int more(int x) { return x; }\n#endif", "", Readers{Read: 6, DroppedByText: 6}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := sieving(t, k, "include/linux/t.h", test.old, test.now)
			if err := b.preprocess(t.Context()); err != nil && !errors.Is(err, ErrNothing) {
				t.Fatal(err)
			}
			var kept []string
			for _, u := range b.units {
				kept = append(kept, u.Source)
			}
			test.want.Files = []string{"include/linux/t.h"}
			if d := cmp.Diff(test.kept, strings.Join(kept, " ")); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(&test.want, b.report.Readers); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestIncludedSource: a source that other sources include goes through the same
// sieves as a header.
func TestIncludedSource(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc")
	}
	k := &Kernel{Tree: treeOf(t, map[string]string{
		"a/part.c":   "/* included */\nstatic int part(int x)\n{\n\treturn x + 1;\n}\nint emitted(int x)\n{\n\treturn x + 2;\n}\n",
		"a/uses.c":   "#define emitted uses_emitted\n#include \"part.c\"\nint uses(int x) { return part(x); }\n",
		"a/leaves.c": "#define emitted leaves_emitted\n#include \"part.c\"\nint leaves(int x) { return x; }\n",
		"a/other.c":  "int other(void) { return 0; }\n",
	})}
	for _, test := range []struct{ name, old, now, kept string }{
		{"a static function", "x + 1", "x + 3", "a/uses.c"},
		{"a function that is emitted", "x + 2", "x + 3", "a/leaves.c a/uses.c"},
		{"a comment", "x + 1;", "x + 1; /* one */", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := sieving(t, k, "a/part.c", test.old, test.now)
			if err := b.preprocess(t.Context()); err != nil && !errors.Is(err, ErrNothing) {
				t.Fatal(err)
			}
			var kept []string
			for _, u := range b.units {
				kept = append(kept, u.Source)
			}
			if got := strings.Join(kept, " "); got != test.kept || b.report.Readers.Read != 2 {
				t.Errorf("kept %q of %d, want %q of 2", got, b.report.Readers.Read, test.kept)
			}
		})
	}
}

// TestSampleTypes: where many units read a changed type, two of them that use it
// are enough to refuse it.
func TestSampleTypes(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc")
	}
	units := map[string]string{"a/first.c": "#include <linux/t.h>\nint first;\n"}
	for i := range manyUnits {
		units[fmt.Sprintf("a/user%02d.c", i)] = fmt.Sprintf("#include <linux/t.h>\nint f%d(struct pair *p) { return p->b; }\n", i)
	}
	k := &Kernel{Tree: treeOf(t, units)}
	for _, test := range []struct {
		name, old, now, allow string
		kept, notLookedAt     int
	}{
		{name: "refused", old: "int a, b;", now: "int b, a;", kept: 2, notLookedAt: manyUnits - 2},
		{name: "allowed", old: "int a, b;", now: "int b, a;", allow: "struct pair", kept: manyUnits},
		{name: "code stays the same", old: "int a, b;", now: "int a, b, c;", kept: manyUnits},
		{name: "no type changes", old: "return 2 * x", now: "return 3 * x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := sieving(t, k, "include/linux/t.h", test.old, test.now)
			b.o.AllowLayout = []string{test.allow}
			if err := b.preprocess(t.Context()); err != nil && !errors.Is(err, ErrNothing) {
				t.Fatal(err)
			}
			if len(b.units) != test.kept || b.report.Readers.NotLookedAt != test.notLookedAt {
				t.Errorf("%d units kept and %d not looked at, want %d and %d", len(b.units), b.report.Readers.NotLookedAt, test.kept, test.notLookedAt)
			}
			if test.notLookedAt == 0 {
				return
			}
			if err := b.compile(t.Context()); err != nil {
				t.Fatal(err)
			}
			if len(b.pairs) != test.kept || len(b.judgeLayout()) != 1 {
				t.Errorf("%d pairs with problems %v, want %d and struct pair", len(b.pairs), b.judgeLayout(), test.kept)
			}
		})
	}
}

// TestUnusedChangeMustCompile: a header that does not compile is an error even if
// no unit uses what is wrong in it.
func TestUnusedChangeMustCompile(t *testing.T) {
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc")
	}
	k := &Kernel{Tree: headerTree(t)}
	b := sieving(t, k, "include/linux/t.h", "3 * x", "3 * y")
	var ce *kbuild.CompileError
	if err := b.preprocess(t.Context()); !errors.As(err, &ce) || !strings.Contains(ce.First, "include/linux/t.h") {
		t.Errorf("error %v, want one of the compiler", err)
	}
}

func TestDropsUnused(t *testing.T) {
	for args, want := range map[string]bool{
		"gcc -O2 -c":                        true,
		"gcc -Os -c":                        true,
		"gcc -O -c":                         true,
		"gcc -c":                            false,
		"gcc -O2 -O0 -c":                    false,
		"gcc -O0 -O2 -c":                    true,
		"gcc -O2 -fkeep-inline-functions":   false,
		"gcc -O2 -fkeep-static-consts":      false,
		"gcc -O2 -fno-toplevel-reorder":     false,
		"gcc -O2 -fno-unit-at-a-time":       false,
		"gcc -O2 -fshort-enums":             false,
		"gcc -O2 -fplugin=randomize_layout": false,
		"gcc -O2 -flto":                     false,
		"gcc -O2 -fprofile-arcs":            false,
		"gcc -O2 -DX=-fshort-enums -fno-common -fshort-wchar": true,
	} {
		if got := dropsUnused(strings.Fields(args)); got != want {
			t.Errorf("%s: %v, want %v", args, got, want)
		}
	}
}

// TestStockSieves compiles units of stock kernels that the sieves drop, as they are
// and as patched: their objects must be the same.
func TestStockSieves(t *testing.T) {
	releases := strings.Fields(os.Getenv("KLPC_E2E_KERNELS"))
	if len(releases) == 0 {
		t.Skip("KLPC_E2E_KERNELS names no prepared stock kernels")
	}
	each := 1 // of each fate
	if os.Getenv("KLPC_TEST_ALL") == "1" {
		each = 8
	}
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			dir, err := CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			k, err := OpenKernel(t.Context(), KernelOptions{Kernel: "debian:" + release, Cache: dir}, Events{})
			if err != nil {
				t.Fatal(err)
			}
			for _, test := range []struct{ name, file, old, now string }{
				{"inline function", "include/linux/sched.h", "task_struct *tsk)\n{\n\treturn __task_state_index(READ_ONCE(tsk->__state), tsk->exit_state);\n",
					"task_struct *tsk)\n{\n\tBUILD_BUG_ON(sizeof(*tsk) < 8);\n\treturn __task_state_index(READ_ONCE(tsk->__state), tsk->exit_state) & 7;\n"},
				{"struct and function", "include/linux/ioprio.h", "static inline bool ioprio_valid(", "struct klpc_new { long x; };\nstatic inline int klpc_new(struct klpc_new *n) { return n->x; }\nstatic inline bool ioprio_valid("},
				{"macro", "include/linux/sched/loadavg.h", "#define LOAD_INT(x) ((x) >> FSHIFT)", "#define LOAD_INT(x) ((x) >> FSHIFT << 1)"},
			} {
				t.Run(test.name, func(t *testing.T) { dropped(t, k, sieving(t, k, test.file, test.old, test.now), each) })
			}
		})
	}
}

// dropped checks a few units of each fate.
func dropped(t *testing.T, k *Kernel, b *builder, each int) {
	candidates := b.sel.candidates
	s, err := b.newTextSieve()
	if err != nil {
		t.Fatal(err)
	}
	fates, err := b.byText(t.Context(), s, candidates)
	if err != nil {
		t.Fatal(err)
	}
	count := map[fate]int{}
	r := rand.New(rand.NewPCG(1, 2))
	for _, i := range r.Perm(len(candidates)) {
		u := candidates[i]
		if fates[i] == keep && count[unchanged] < each && count[unreachable] < each && u.Special() == "" {
			if fates[i], err = b.byPreprocessing(t.Context(), u); err != nil {
				t.Fatal(err)
			}
		}
		count[fates[i]]++
		if fates[i] == keep || count[fates[i]] > each || u.Special() != "" {
			continue
		}
		p := &pair{unit: u}
		if err := errors.Join(b.compileOriginal(t.Context(), p), b.compilePatched(t.Context(), p)); err != nil {
			t.Fatal(err)
		}
		res, err := elfdiff.Compare(p.orig, p.patched)
		if err != nil {
			t.Fatal(err)
		}
		if res.Verdict != elfdiff.Unchanged {
			t.Errorf("%s was dropped (%d), and its object is %s", u.Source, fates[i], res.Verdict)
			for _, f := range res.Functions {
				t.Errorf("  %s %s %v", f.Name(), f.Kind, f.Reasons)
			}
		}
		t.Logf("%s: dropped (%d), object %s", u.Source, fates[i], res.Verdict)
	}
	t.Logf("%d candidates: kept %d, unseen %d, preprocessed to the same %d, unreachable %d",
		len(candidates), count[keep], count[unseen], count[unchanged], count[unreachable])
}
