package pipeline

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
)

// compileObject compiles a text as a kernel would.
func compileObject(t *testing.T, text string) *elfobj.Object {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("needs gcc")
	}
	file := filepath.Join(t.TempDir(), "unit.c")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-O2", "-pg", "-mfentry", "-mcmodel=kernel", "-fno-pic", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
		"-ffunction-sections", "-fdata-sections", "-c", "-o", file + ".o", file}
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	o, err := readObject(file + ".o")
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestEnteredByJump: a new function that is jumped to at the end of a changed one.
func TestEnteredByJump(t *testing.T) {
	const fresh = "int work(int); static __attribute__((noinline)) int fresh(int x) { return work(x) + work(x + 1); } "
	for _, c := range []struct {
		name, now string
		want      []string
	}{
		{"jump", fresh + "int f(int x) { work(3); return fresh(x); }", []string{"fresh"}},
		{"conditional jump", fresh + "int f(int x) { if (x > 4) return fresh(x); return 2; }", []string{"fresh"}},
		{"call", fresh + "int f(int x) { return fresh(x) + 1; }", nil},
		{"a function that the kernel has", "int work(int); int f(int x) { return work(x + 2); }", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := elfdiff.Compare(compileObject(t, "int work(int); int f(int x) { return work(x) + 5; }"), compileObject(t, c.now))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range r.Functions {
				if f.Kind != elfdiff.IsChanged {
					continue
				}
				for _, x := range entered(r, f.Patched) {
					got = append(got, x.Function)
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}
