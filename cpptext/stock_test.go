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
		for _, u := range sample(k, 8) {
			dir := t.TempDir()
			pre, err := k.Tree.Preprocess(t.Context(), kbuild.CompileJob{Unit: u, Out: filepath.Join(dir, "unit"), Extra: []string{"-P"}})
			if err != nil {
				t.Errorf("%s: %v", u.Source, err)
				continue
			}
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
var padded = []string{"__call_single_data", "__call_single_node", "in_addr", "llist_node"}

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

// TestStockPasted takes the identifiers of preprocessed units that stand in none
// of the files that were read: those that ## has made. Sees must say so.
func TestStockPasted(t *testing.T) {
	eachKernel(t, func(t *testing.T, k *pipeline.Kernel) {
		for _, u := range sample(k, 24) {
			pre, err := k.Tree.Preprocess(t.Context(), kbuild.CompileJob{Unit: u, Out: filepath.Join(t.TempDir(), "unit"), Extra: []string{"-P"}})
			if err != nil {
				t.Errorf("%s: %v", u.Source, err)
				continue
			}
			texts := [][]byte{[]byte(strings.Join(u.Args, " "))}
			for _, d := range pre.Deps {
				path := d
				if !filepath.IsAbs(d) {
					path = filepath.Join(k.Tree.Source, d)
				}
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, text)
			}
			all := cpptext.NewQuery(cpptext.Identifiers(pre.Text))
			mentioned := map[string]bool{}
			for _, text := range texts {
				for _, n := range all.Mentioned([]cpptext.Hits{all.Look(text)}) {
					mentioned[n] = true
				}
			}
			var made []string
			for _, n := range cpptext.Identifiers(pre.Text) {
				if !mentioned[n] && !counted.MatchString(n) {
					made = append(made, n)
				}
			}
			q := cpptext.NewQuery(made)
			var hits []cpptext.Hits
			start := time.Now()
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
