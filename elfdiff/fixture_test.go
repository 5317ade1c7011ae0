package elfdiff

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/internal/testutil/objcache"
)

var update = flag.Bool("update", false, "rewrite the wants of testdata/objs")

const objs = "../testdata/objs"

// A fixture is one testdata/objs/NAME.txtar: a unit as it was and as patched,
// and what a comparison must say. Its files:
//
//	orig.c, patched.c  the unit; both are compiled as unit.c
//	also.c             a second unit that ld -r joins to both, if there is one;
//	also-patched.c     its patched form, if it has another
//	flags              compiler flags beyond the kernel's
//	compilers          what compiles it, if not gcc: gcc, clang or both
//	requires           flags that not every version of the compiler knows
//	objcopy            arguments for objcopy, applied to both objects
//	want               the result
//	want.COMPILER      the result where a compiler makes another object
//	extract            what codegen cuts out of it; its tests read that
type fixture struct {
	name    string
	path    string
	archive *txtar.Archive
}

var fixtureFiles = []string{"orig.c", "patched.c", "also.c", "also-patched.c", "flags", "compilers", "requires", "objcopy", "want", "want.gcc", "want.clang", "extract"}

// kernelFlags are the flags of a kernel build that shape objects, with the
// sections that klpc adds. They hold for gcc and clang.
const kernelFlags = "-O2 -std=gnu11 -Werror -mcmodel=kernel -fno-pic -fno-pie -pg -mfentry" +
	" -ffunction-sections -fdata-sections -fno-asynchronous-unwind-tables -fno-strict-aliasing" +
	" -fno-delete-null-pointer-checks -fno-common -fno-stack-protector -fcf-protection=none" +
	" -fno-jump-tables -mno-sse -mno-mmx -mno-80387 -mno-red-zone -falign-functions=16" +
	" -Wno-unused-command-line-argument"

func loadFixtures(t testing.TB) []*fixture {
	t.Helper()
	paths, err := filepath.Glob(objs + "/*")
	if err != nil {
		t.Fatal(err)
	}
	var all []*fixture
	for _, p := range paths {
		if filepath.Base(p) == "kernel.h" {
			continue
		}
		if filepath.Ext(p) != ".txtar" {
			t.Errorf("%s: no test uses this file", p)
			continue
		}
		all = append(all, loadFixture(t, p))
	}
	if len(all) == 0 {
		t.Fatal("no fixtures in " + objs)
	}
	return all
}

func loadFixture(t testing.TB, path string) *fixture {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{name: strings.TrimSuffix(filepath.Base(path), ".txtar"), path: path, archive: a}
	if len(bytes.TrimSpace(a.Comment)) == 0 {
		t.Errorf("%s: the comment that says what it shows is missing", path)
	}
	seen := map[string]bool{}
	for _, file := range a.Files {
		if !slices.Contains(fixtureFiles, file.Name) || seen[file.Name] {
			t.Errorf("%s: no test uses the file %s", path, file.Name)
		}
		seen[file.Name] = true
		if c, ok := strings.CutPrefix(file.Name, "want."); ok && !slices.Contains(f.compilers(), c) {
			t.Errorf("%s: %s is stale: %s does not compile this fixture", path, file.Name, c)
		}
	}
	for _, need := range []string{"orig.c", "patched.c"} {
		if !seen[need] {
			t.Errorf("%s: %s is missing", path, need)
		}
	}
	return f
}

func (f *fixture) file(name string) (string, bool) {
	for _, file := range f.archive.Files {
		if file.Name == name {
			return string(file.Data), true
		}
	}
	return "", false
}

func (f *fixture) words(name string) []string {
	text, _ := f.file(name)
	return strings.Fields(text)
}

func (f *fixture) compilers() []string {
	if c := f.words("compilers"); len(c) > 0 {
		return c
	}
	return []string{"gcc"}
}

// installed returns the commands that stand for a kind of compiler: its name,
// and with KLPC_TEST_ALL=1 those of KLPC_TEST_COMPILERS (such as "gcc-11
// clang-16") that are of the kind.
func installed(kind string) []string {
	all := []string{kind}
	if os.Getenv("KLPC_TEST_ALL") != "1" {
		return all
	}
	for _, c := range strings.Fields(os.Getenv("KLPC_TEST_COMPILERS")) {
		if strings.HasPrefix(filepath.Base(c), kind) {
			all = append(all, c)
		}
	}
	return all
}

// compile builds both objects.
func (f *fixture) compile(t testing.TB, cc string) (orig, patched []byte) {
	t.Helper()
	if _, err := exec.LookPath(cc); err != nil {
		t.Skipf("needs %s, which is not installed", cc)
	}
	if need := f.words("requires"); len(need) > 0 {
		step := append(append([]string{cc}, need...), "-c", "-o", "empty.o", "empty.c")
		_, err := objcache.Try(t, objcache.Job{Files: map[string]string{"empty.c": ""}, Steps: [][]string{step}, Out: "empty.o"})
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			t.Skipf("needs a %s that knows %s", cc, strings.Join(need, " "))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	second, hasSecond := f.file("also.c")
	secondPatched, ok := f.file("also-patched.c")
	if !ok {
		secondPatched = second
	}
	build := func(source, also string) []byte {
		text, _ := f.file(source)
		files := map[string]string{"unit.c": text}
		if hasSecond {
			files["also.c"] = also
		}
		return f.build(t, cc, files)
	}
	return build("orig.c", second), build("patched.c", secondPatched)
}

// buildSource compiles one unit with the kernel's flags and some more.
func buildSource(t testing.TB, cc, source, flags string) []byte {
	t.Helper()
	a := &txtar.Archive{Files: []txtar.File{{Name: "flags", Data: []byte(flags)}}}
	return (&fixture{archive: a}).build(t, cc, map[string]string{"unit.c": source})
}

// build compiles the files in a directory of their own, so that __FILE__ does
// not tell the objects apart, and joins them.
func (f *fixture) build(t testing.TB, cc string, files map[string]string) []byte {
	t.Helper()
	header, err := os.ReadFile(filepath.Join(objs, "kernel.h"))
	if err != nil {
		t.Fatal(err)
	}
	job := objcache.Job{Files: map[string]string{"kernel.h": string(header)}}
	var made []string
	for _, name := range []string{"unit.c", "also.c"} {
		text, ok := files[name]
		if !ok {
			continue
		}
		job.Files[name] = text
		step := append([]string{cc}, strings.Fields(kernelFlags)...)
		if strings.HasPrefix(filepath.Base(cc), "gcc") {
			step = append(step, "-mrecord-mcount")
		}
		step = append(step, f.words("flags")...)
		o := strings.TrimSuffix(name, ".c") + ".o"
		job.Steps = append(job.Steps, append(step, "-include", "kernel.h", "-c", "-o", o, name))
		made = append(made, o)
	}
	job.Out = made[0]
	if len(made) > 1 {
		job.Out = "linked.o"
		job.Steps = append(job.Steps, append([]string{"ld", "-r", "-o", job.Out}, made...))
	}
	if args := f.words("objcopy"); len(args) > 0 {
		job.Steps = append(job.Steps, append(append([]string{"objcopy"}, args...), job.Out))
	}
	return objcache.Make(t, job)
}

func parse(t testing.TB, data []byte) *elfobj.Object {
	t.Helper()
	o, err := elfobj.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func compare(t testing.TB, orig, patched *elfobj.Object) *Result {
	t.Helper()
	r, err := Compare(orig, patched)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFixtures(t *testing.T) {
	for _, f := range loadFixtures(t) {
		for _, kind := range f.compilers() {
			for _, cc := range installed(kind) {
				t.Run(f.name+"/"+filepath.Base(cc), func(t *testing.T) {
					if !*update {
						t.Parallel()
					}
					orig, patched := f.compile(t, cc)
					got := render(compare(t, parse(t, orig), parse(t, patched)))
					if *update && cc == kind {
						f.rewrite(t, kind, got)
						return
					}
					f.check(t, kind, got)
					f.invariants(t, orig, patched, got)
				})
			}
		}
	}
}

// check compares a result with the want of its compiler.
func (f *fixture) check(t *testing.T, kind, got string) {
	t.Helper()
	want, ok := f.file("want." + kind)
	if !ok {
		want, _ = f.file("want")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s\n(-want +got):\n%s", bytes.TrimSpace(f.archive.Comment), d)
	}
}

// rewrite stores a result: as the want that all compilers share if it is that
// of the first, else under the compiler's name where it differs.
func (f *fixture) rewrite(t *testing.T, kind, got string) {
	t.Helper()
	a, err := txtar.ParseFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) int {
		return slices.IndexFunc(a.Files, func(x txtar.File) bool { return x.Name == name })
	}
	set := func(name string) {
		if i := file(name); i >= 0 {
			a.Files[i].Data = []byte(got)
			return
		}
		a.Files = append(a.Files, txtar.File{Name: name, Data: []byte(got)})
	}
	own := "want." + kind
	if i := file(own); i >= 0 {
		a.Files = slices.Delete(a.Files, i, i+1)
	}
	if kind == f.compilers()[0] {
		set("want")
	} else if i := file("want"); i < 0 || string(a.Files[i].Data) != got {
		set(own)
	}
	if err := os.WriteFile(f.path, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}

// invariants holds what is true of every pair: an object equals itself, and
// neither the order of symbols nor that of sections means anything.
func (f *fixture) invariants(t *testing.T, orig, patched []byte, got string) {
	t.Helper()
	for name, data := range map[string][]byte{"orig": orig, "patched": patched} {
		r := compare(t, parse(t, data), parse(t, data))
		if len(r.Orig.problems) > 0 {
			continue // what is not understood is never proven to be the same
		}
		if d := cmp.Diff("unchanged\n", render(r)); d != "" {
			t.Errorf("the %s object differs from itself (-want +got):\n%s", name, d)
		}
	}
	nothingUnseen(t, patched)
	for seed := range uint64(4) {
		o, p := parse(t, orig), parse(t, patched)
		if seed%2 == 0 {
			shuffle(o, seed)
		}
		shuffle(p, seed+100)
		if d := cmp.Diff(got, render(compare(t, o, p))); d != "" {
			t.Errorf("the result depends on the order of sections or symbols (-as made +shuffled):\n%s", d)
		}
	}
}

// shuffle puts sections and symbols into another order.
func shuffle(o *elfobj.Object, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	r.Shuffle(len(o.Sections), func(i, j int) { o.Sections[i], o.Sections[j] = o.Sections[j], o.Sections[i] })
	r.Shuffle(len(o.Symbols), func(i, j int) { o.Symbols[i], o.Symbols[j] = o.Symbols[j], o.Symbols[i] })
}

// Numbers that depend on the compiler's version.
var (
	offsets  = regexp.MustCompile(`[+-]0x[0-9a-f]+`)
	numbers  = regexp.MustCompile(`([A-Za-z_0-9])\.[0-9]+\b`)
	codeSize = regexp.MustCompile(`^code (size [0-9]+ instead of [0-9]+ bytes|differs at.*)$`)
)

func plain(s string) string {
	return numbers.ReplaceAllString(offsets.ReplaceAllString(s, ""), "$1.N")
}

// reason is a reason without numbers. Names that only differ in a number, which
// compilers give in different orders, become one.
func reason(why string) string {
	why = plain(why)
	is, was, ok := strings.Cut(why, " instead of ")
	if ok && (is == was || strings.HasSuffix(is, ": "+was)) {
		return is + " is another one, or has other content"
	}
	return why
}

// render is the canonical text of a result: what klpc diff prints, without the
// numbers that the compiler chooses. Where the code itself differs, the
// references that moved with it are left out.
func render(r *Result) string {
	var b strings.Builder
	fmt.Fprintln(&b, r.Verdict)
	for _, f := range r.Functions {
		fmt.Fprintf(&b, "function %s: %s\n", plain(f.Name()), f.Kind)
		for _, why := range f.Reasons {
			if codeSize.MatchString(why) {
				fmt.Fprintln(&b, "  code differs")
				break
			}
			fmt.Fprintf(&b, "  %s\n", reason(why))
		}
	}
	for _, d := range r.Data {
		fmt.Fprintf(&b, "data %s: %s\n", plain(d.Name()), d.Kind)
	}
	for _, n := range r.AddedExports {
		fmt.Fprintf(&b, "export %s: new\n", n)
	}
	for _, n := range r.RemovedExports {
		fmt.Fprintf(&b, "export %s: removed\n", n)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", plain(n))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "problem %s: %s\n  what to do: %s\n", p.Kind, plain(p.Detail), plain(p.Hint))
	}
	return b.String()
}
