package cpptext_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klpc/klpc/cpptext"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/pipeline"
)

// eachKernel runs a test for each prepared stock kernel.
func eachKernel(t *testing.T, test func(*testing.T, *pipeline.Kernel)) {
	releases := strings.Fields(os.Getenv("KLPC_E2E_KERNELS"))
	if len(releases) == 0 {
		t.Skip("KLPC_E2E_KERNELS names no prepared stock kernels")
	}
	for _, release := range releases {
		t.Run(release, func(t *testing.T) {
			cache, err := pipeline.CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			k, err := pipeline.OpenKernel(t.Context(), pipeline.KernelOptions{Kernel: "debian:" + release, Cache: cache}, pipeline.Events{})
			if err != nil {
				t.Fatal(err)
			}
			test(t, k)
		})
	}
}

// sample draws C units of a kernel, the same ones every time.
func sample(k *pipeline.Kernel, n int) []kbuild.Unit {
	all := k.Tree.Units()
	r := rand.New(rand.NewPCG(3, 4))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var out []kbuild.Unit
	for _, u := range all {
		if u.Kind() == kbuild.C && u.Special() == "" && len(out) < n {
			out = append(out, u)
		}
	}
	return out
}

// TestStockSpoiled takes the preprocessed text of stock units, spoils every
// declaration that no emitted code uses (functions and externs go away, structs
// and enums get one more member in front), and compiles it: no code may change.
func TestStockSpoiled(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *pipeline.Kernel) {
		for _, u := range sample(k, 4) {
			dir := t.TempDir()
			pre := preprocess(t, k, kbuild.CompileJob{Unit: u, Out: filepath.Join(dir, "unit")})
			text, spoiled, n := spoil(t, pre.Text)
			start := time.Now()
			v := cpptext.Compare(text, spoiled)
			spent := time.Since(start)
			if v.Outcome != cpptext.Unreachable {
				t.Errorf("%s: outcome %s %q, want %s", u.Source, v.Outcome, v.Names, cpptext.Unreachable)
			}
			orig, err1 := compileText(t, k, u, dir, text)
			patched, err2 := compileText(t, k, u, dir, spoiled)
			if err1 != nil || err2 != nil {
				t.Errorf("%s: %v %v", u.Source, err1, err2)
				continue
			}
			checkEqual(t, u.Source, orig, patched)
			t.Logf("%s: %d kB, %d items spoiled, compared in %v", u.Source, len(pre.Text)/1000, n, spent.Round(time.Millisecond))
		}
	})
}

var (
	aggregate = regexp.MustCompile(`^(?:typedef )?(struct|union|enum)\b[^{;]*\{`)
	isEnum    = regexp.MustCompile(`^(typedef )?enum`)
	kept      = regexp.MustCompile(`static [^;{}]*__used__[^;]*;`)
	// A typedef is needed to parse what mentions it.
	isTypedef = regexp.MustCompile(`^(__extension__ )?typedef\b`)
)

// padded are structs that others are padded to the size of.
var padded = []string{"__call_single_data", "__call_single_node", "in_addr", "llist_node", "atomic_t"}

// spoil returns the text without assertions, and that with all changed or
// removed that is not reached.
func spoil(t *testing.T, src []byte) (plain, spoiled []byte, n int) {
	items, ok := cpptext.Items(src)
	if !ok {
		t.Fatal("text not understood")
	}
	var a, b bytes.Buffer
	at := 0
	for _, it := range items {
		a.Write(src[at:it.At])
		b.Write(src[at:it.At])
		at = it.At + len(it.Text)
		if it.Asserts {
			continue
		}
		a.WriteString(it.Text)
		switch m := aggregate.FindString(it.Text); {
		case it.Reached && it.PlainEnum > 0:
			head := strings.TrimRight(it.Text[:it.PlainEnum], " \n\t,")
			fmt.Fprintf(&b, "%s, klpc_spoiled_%d %s", head, n, it.Text[it.PlainEnum:])
		case it.Reached || !it.Inert || slices.Contains(padded, it.Name):
			b.WriteString(it.Text)
			continue
		case isEnum.MatchString(m):
			fmt.Fprintf(&b, "%s klpc_spoiled_%d, %s", m, n, it.Text[len(m):])
		case m != "":
			fmt.Fprintf(&b, "%s unsigned long klpc_spoiled; %s", m, it.Text[len(m):])
		case isTypedef.MatchString(it.Text):
			b.WriteString(it.Text)
			continue
		case kept.MatchString(it.Text):
			head, _, _ := strings.Cut(it.Text, "{")
			fmt.Fprintf(&b, "%s { %s __builtin_trap(); }", head, strings.Join(kept.FindAllString(it.Text, -1), " "))
		}
		n++
	}
	a.Write(src[at:])
	b.Write(src[at:])
	return a.Bytes(), b.Bytes(), n
}

// counted are names that hold a number from __COUNTER__ or __LINE__.
var counted = regexp.MustCompile(`^__UNIQUE_ID_|^__compiletime_assert_|^__initcall__|^__BTF_ID__|[0-9]{2}`)

var words = regexp.MustCompile(`\w+`)

// file is a file that a unit reads.
type file struct {
	name string // tree-relative, or absolute
	text []byte
}

// readFiles returns what a unit reads, and its command line.
func readFiles(t *testing.T, k *pipeline.Kernel, u kbuild.Unit, pre kbuild.CompileResult) []file {
	files := []file{{text: []byte(strings.Join(u.Args, " "))}}
	for _, d := range pre.Deps {
		path := d
		if !filepath.IsAbs(d) {
			path = filepath.Join(k.Tree.Source, d)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file{name: d, text: text})
	}
	return files
}

// pastedUnits is how many units TestStockPasted takes: more if there is time.
func pastedUnits() int {
	if os.Getenv("KLPC_TEST_ALL") == "1" {
		return 60
	}
	return 6
}

// TestStockPasted takes the identifiers of preprocessed units that stand in none
// of the files that were read: those that ## has made. Sees must say so.
func TestStockPasted(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *pipeline.Kernel) {
		for _, u := range sample(k, pastedUnits()) {
			pre := preprocess(t, k, kbuild.CompileJob{Unit: u, Out: filepath.Join(t.TempDir(), "unit")})
			var texts [][]byte
			for _, f := range readFiles(t, k, u, pre) {
				texts = append(texts, f.text)
			}
			written := map[string]bool{}
			for _, text := range texts {
				for _, w := range words.FindAll(text, -1) {
					written[string(w)] = true
				}
			}
			var made []string
			for _, n := range cpptext.Identifiers(pre.Text) {
				if !written[n] && !counted.MatchString(n) {
					made = append(made, n)
				}
			}
			q := cpptext.NewQuery(made)
			var hits []cpptext.Hits
			start := time.Now()
			var macros []string
			for _, text := range texts {
				macros = append(macros, q.Pasting(text)...)
			}
			q.Follow(macros)
			for _, text := range texts {
				hits = append(hits, q.Look(text))
			}
			unmade := q.Unmade(hits)
			t.Logf("%s: %d files, %d names made by ##, %v", u.Source, len(texts), len(made), time.Since(start).Round(time.Millisecond))
			if len(unmade) > 0 {
				t.Errorf("%s: not seen: %q", u.Source, unmade)
			}
		}
	})
}

var inlineFunction = regexp.MustCompile(`(?m)^static (?:__always_inline|inline) [^;{}()#]*?\b(\w+)\([^;{}#]*\)\n\{`)

// TestStockHeaders changes inline functions in the headers that a unit reads, one
// at a time. If the files say that the unit cannot see the change, then its
// preprocessed text must say so as well.
func TestStockHeaders(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *pipeline.Kernel) {
		r := rand.New(rand.NewPCG(5, 6))
		count := map[string]int{}
		var inText, inFiles time.Duration
		for _, u := range sample(k, 4) {
			pre := preprocess(t, k, kbuild.CompileJob{Unit: u, Out: filepath.Join(t.TempDir(), "unit")})
			items, _ := cpptext.Items(pre.Text)
			files := readFiles(t, k, u, pre)
			for range 25 {
				header, at, name := pickFunction(r, files)
				text := editFunction(pre.Text, items, name)
				if text == nil {
					continue // not compiled in this configuration
				}
				start := time.Now()
				v := cpptext.Compare(pre.Text, text)
				inText += time.Since(start)
				start = time.Now()
				seen := seesEdit(files, header, slices.Concat(header.text[:at], []byte(";"), header.text[at:]))
				inFiles += time.Since(start)
				count[seen+", "+string(v.Outcome)]++
				if seen == "not seen" && v.Outcome == cpptext.Differs {
					t.Errorf("%s: %s in %s: not seen by the files, but the texts differ in %q", u.Source, name, header.name, v.Names)
				}
			}
		}
		t.Logf("%v; by texts in %v, by files in %v", count, inText.Round(time.Millisecond), inFiles.Round(time.Millisecond))
	})
}

// pickFunction draws an inline function of a header, and returns where its body
// begins.
func pickFunction(r *rand.Rand, files []file) (header file, at int, name string) {
	for {
		f := files[r.IntN(len(files))]
		if !strings.HasSuffix(f.name, ".h") {
			continue
		}
		if all := inlineFunction.FindAllSubmatchIndex(f.text, -1); len(all) > 0 {
			m := all[r.IntN(len(all))]
			return f, m[1], string(f.text[m[2]:m[3]])
		}
	}
}

// editFunction makes the same edit in the preprocessed text.
func editFunction(src []byte, items []cpptext.Item, name string) []byte {
	for _, it := range items {
		if it.Name == name && strings.HasPrefix(it.Text, "static") && strings.HasSuffix(it.Text, "}") {
			at := it.At + strings.Index(it.Text, "{") + 1
			return slices.Concat(src[:at], []byte(";"), src[at:])
		}
	}
	return nil
}

// seesEdit tells whether the files of a unit may see an edit of one of them.
func seesEdit(files []file, header file, edited []byte) string {
	c, ok := cpptext.Changes(header.text, edited)
	if !ok {
		return "not known"
	}
	q := cpptext.NewQuery(c.Names)
	files = slices.Clone(files)
	var macros []string
	for i := range files {
		if files[i].name == header.name {
			files[i].text = c.Rest
		}
		macros = append(macros, q.Pasting(files[i].text)...)
	}
	q.Follow(macros)
	var hits []cpptext.Hits
	for _, f := range files {
		hits = append(hits, q.Look(f.text))
	}
	if q.Sees(hits) {
		return "seen"
	}
	return "not seen"
}

// edits are changes of headers that many units read.
var edits = []struct{ name, file, old, now string }{
	{"inline function", "include/linux/list.h", "\tfirst = head->next;\n", "\tfirst = head->next->next;\n"},
	{"inline function in use", "include/linux/fs.h", "return sb->s_flags & SB_RDONLY;", "return sb->s_flags & SB_NOSUID;"},
	{"struct", "include/linux/mempool.h", "typedef struct mempool_s {\n", "typedef struct mempool_s {\n\tlong klpc;\n"},
	{"struct in use", "include/linux/fs.h", "\nstruct dir_context {\n", "\nstruct dir_context {\n\tlong klpc;\n"},
	{"enumerator", "include/linux/mmzone.h", "NR_VM_ZONE_STAT_ITEMS };", "KLPC, NR_VM_ZONE_STAT_ITEMS };"},
	{"macro", "include/linux/err.h", "(unsigned long)-MAX_ERRNO)", "(unsigned long)-MAX_ERRNO - 1)"},
	{"counter", "include/linux/err.h", "#endif /* _LINUX_ERR_H */", "static inline void klpc(int x) { BUILD_BUG_ON(x); }\n#endif /* _LINUX_ERR_H */"},
}

// TestStockEdits edits headers, and holds what Compare says of three units
// against their objects.
func TestStockEdits(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *pipeline.Kernel) {
		for _, source := range []string{"fs/readdir.c", "lib/uuid.c", "mm/mempool.c"} {
			units, err := k.Tree.UnitsOf(source)
			if err != nil {
				t.Fatal(err)
			}
			job := kbuild.CompileJob{Unit: units[0], Out: filepath.Join(t.TempDir(), "unit.o")}
			orig, pre := compileUnit(t, k, job), preprocess(t, k, job)
			for _, e := range edits {
				old, err := os.ReadFile(filepath.Join(k.Tree.Source, e.file))
				if err != nil {
					t.Fatal(err)
				}
				now := bytes.Replace(old, []byte(e.old), []byte(e.now), 1)
				if bytes.Equal(old, now) {
					t.Fatalf("%s: %s has no %q", e.name, e.file, e.old)
				}
				if job.Shadow, err = kbuild.NewShadow(k.Tree, t.TempDir(), map[string]*[]byte{e.file: &now}); err != nil {
					t.Fatal(err)
				}
				v := cpptext.Compare(pre.Text, preprocess(t, k, job).Text)
				objects := "not compiled"
				if v.Outcome != cpptext.Same {
					d, err := elfdiff.Compare(orig, compileUnit(t, k, job))
					if err != nil {
						t.Fatal(err)
					}
					objects = "objects " + string(d.Verdict)
					if v.Outcome == cpptext.Unreachable && d.Verdict != elfdiff.Unchanged {
						t.Errorf("%s, %s: unreachable, but the objects are %s", source, e.name, d.Verdict)
					}
				}
				seen := seesEdit(readFiles(t, k, job.Unit, pre), file{name: e.file, text: old}, now)
				t.Logf("%s, %s: by files %s, by texts %s %q, %s", source, e.name, seen, v.Outcome, v.Names, objects)
				if seen == "not seen" && v.Outcome == cpptext.Differs {
					t.Errorf("%s, %s: not seen by the files, but the texts differ", source, e.name)
				}
			}
		}
	})
}

func preprocess(t *testing.T, k *pipeline.Kernel, job kbuild.CompileJob) kbuild.CompileResult {
	job.Extra = []string{"-P"}
	pre, err := k.Tree.Preprocess(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	return pre
}

func compileUnit(t *testing.T, k *pipeline.Kernel, job kbuild.CompileJob) *elfobj.Object {
	job.Extra = []string{"-ffunction-sections", "-fdata-sections"}
	if _, err := k.Tree.Compile(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(job.Out)
	if err != nil {
		t.Fatal(err)
	}
	o, err := elfobj.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// compileText compiles a preprocessed text by the command of a unit.
func compileText(t *testing.T, k *pipeline.Kernel, u kbuild.Unit, dir string, text []byte) (*elfobj.Object, error) {
	in, out := filepath.Join(dir, "unit.i"), filepath.Join(dir, "unit.o")
	if err := os.WriteFile(in, text, 0o644); err != nil {
		t.Fatal(err)
	}
	var args []string
	for i := 0; i < len(u.Args); i++ {
		switch a := u.Args[i]; {
		case a == "-o" || a == "-include" || a == "-I" || a == "-D":
			i++
		case strings.HasPrefix(a, "-I") || strings.HasPrefix(a, "-D") || strings.HasPrefix(a, "-U") || strings.HasPrefix(a, "-Wp,"):
		case strings.HasSuffix(a, ".c"):
		default:
			args = append(args, a)
		}
	}
	args = append(args, "-ffunction-sections", "-fdata-sections", "-w", "-o", out, in)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir = k.Tree.Build
	if msg, err := cmd.CombinedOutput(); err != nil {
		lines := bytes.SplitN(msg, []byte("\n"), 12)
		return nil, &compileError{string(bytes.Join(lines[:min(len(lines), 11)], []byte("\n")))}
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return elfobj.Parse(data)
}

type compileError struct{ text string }

func (e *compileError) Error() string { return e.text }

func checkEqual(t *testing.T, name string, orig, patched *elfobj.Object) bool {
	t.Helper()
	d, err := elfdiff.Compare(orig, patched)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return false
	}
	if d.Verdict == elfdiff.Unchanged {
		return true
	}
	for _, f := range d.Functions {
		t.Errorf("%s: %s %s: %v", name, f.Name(), f.Kind, f.Reasons)
	}
	for _, f := range d.Data {
		t.Errorf("%s: %s %s", name, f.Name(), f.Kind)
	}
	for _, p := range d.Problems {
		t.Errorf("%s: %s: %s", name, p.Kind, p.Detail)
	}
	return false
}
