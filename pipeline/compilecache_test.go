package pipeline

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/klpc/klpc/kbuild"
)

// cacheToy is a tree with one unit, compiled by the machine's gcc.
type cacheToy struct {
	t        *testing.T
	root     string
	tree     *kbuild.Tree
	unit     kbuild.Unit
	notes    []string
	cacheDir string
}

func newCacheToy(t *testing.T) *cacheToy {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	y := &cacheToy{t: t, root: root, cacheDir: filepath.Join(root, "cache")}
	for name, text := range map[string]string{
		"linux/Kbuild": "", "linux/Makefile": "all:\n", "linux/scripts/Kbuild.include": "",
		"linux/init/main.c":           "int start_kernel(void) { return 0; }\n",
		"linux/include/linux/limit.h": "#define LIMIT 1\n",
		"linux/fs/open.c":             "#include <linux/limit.h>\n#include <generated/made.h>\nint limit(void) { return LIMIT + MADE; }\nconst char *file = __FILE__;\n",
		"out/.config":                 "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n",
		"out/Makefile":                "include " + filepath.Join(root, "linux") + "/Makefile\n",

		"out/include/config/kernel.release": "6.99.0-toy\n",
		"out/include/generated/made.h":      "#define MADE 2\n",
	} {
		y.write(name, text)
	}
	if y.tree, err = kbuild.OpenTree(filepath.Join(root, "out"), kbuild.Options{}); err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(root, "linux")
	y.unit = kbuild.Unit{Source: "fs/open.c", Object: "fs/open.o", Args: []string{"gcc", "-Wp,-MMD,fs/.open.o.d", "-nostdinc",
		"-I" + source + "/arch/include", "-I" + source + "/include", "-I./include", "-fmacro-prefix-map=" + source + "/=", "-O2", "-g", "-c", "-o", "fs/open.o", source + "/fs/open.c"}}
	time.Sleep(50 * time.Millisecond) // files as new as a compile are not trusted
	return y
}

func (y *cacheToy) write(name, text string) {
	y.t.Helper()
	path := filepath.Join(y.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		y.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		y.t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
}

func (y *cacheToy) open(limit int64) *compileCache {
	return newCompileCache(&Kernel{Tree: y.tree}, y.cacheDir, limit, false, func(text string) { y.notes = append(y.notes, text) })
}

// job is the unit as it is, or with a patched source.
func (y *cacheToy) job(patched string) kbuild.CompileJob {
	y.t.Helper()
	work := y.t.TempDir()
	job := kbuild.CompileJob{Unit: y.unit, Out: filepath.Join(work, "open.o")}
	if patched != "" {
		text := []byte(patched)
		var err error
		if job.Shadow, err = kbuild.NewShadow(y.tree, filepath.Join(work, "src"), map[string]*[]byte{"fs/open.c": &text}); err != nil {
			y.t.Fatal(err)
		}
	}
	return job
}

// object compiles with a cache of its own, as another run would, and tells
// whether the compiler was spared.
func (y *cacheToy) object(job kbuild.CompileJob) (data []byte, found bool) {
	y.t.Helper()
	c := y.open(DefaultCacheSize)
	data, _, err := c.object(y.t.Context(), job)
	if err != nil {
		y.t.Fatal(err)
	}
	if len(y.notes) > 0 {
		y.t.Fatalf("notes: %v", y.notes)
	}
	return data, c.found.Load() == 1
}

func TestCompileCache(t *testing.T) {
	y := newCacheToy(t)
	first, found := y.object(y.job(""))
	if found {
		t.Fatal("found in an empty cache")
	}
	expect := func(what string, job kbuild.CompileJob, wantFound, wantSame bool) {
		t.Helper()
		data, found := y.object(job)
		if found != wantFound || bytes.Equal(data, first) != wantSame {
			t.Errorf("%s: found %v, same as the first %v; want %v, %v", what, found, bytes.Equal(data, first), wantFound, wantSame)
		}
	}
	const patch = "#include <linux/limit.h>\nint limit(void) { return LIMIT + 100; }\n"
	expect("again", y.job(""), true, true)
	expect("patched", y.job(patch), false, false)
	expect("patched again, in another work folder", y.job(patch), true, false)
	expect("patched otherwise", y.job(patch+"int more;\n"), false, false)
	expect("the original still", y.job(""), true, true)
	y.write("linux/include/linux/limit.h", "#define LIMIT 10\n")
	expect("header changed", y.job(""), false, false)
	expect("header changed, patched", y.job(patch), false, false)
	y.write("linux/include/linux/limit.h", "#define LIMIT 1\n")
	expect("header changed back", y.job(""), true, true)
	y.write("linux/arch/include/linux/limit.h", "#define LIMIT 77\n")
	expect("header in an earlier folder", y.job(""), false, false)
}

// TestCachedObjectsAreTheCompilers: the cache changes nothing.
func TestCachedObjectsAreTheCompilers(t *testing.T) {
	y := newCacheToy(t)
	const patch = "#include <linux/limit.h>\nint limit(void) { return LIMIT + 100; }\nconst char *file = __FILE__;\n"
	for _, source := range []string{"", patch} {
		y.object(y.job(source))
		cached, found := y.object(y.job(source))
		if !found {
			t.Fatal("not found")
		}
		fresh, _, err := y.open(0).object(t.Context(), y.job(source))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(cached, fresh) {
			t.Errorf("the cached object differs from a compiled one (patched: %v)", source != "")
		}
	}
}

func TestCachedText(t *testing.T) {
	y := newCacheToy(t)
	var texts [][]byte
	for i, wantFound := range []int64{0, 1} {
		c := y.open(DefaultCacheSize)
		text, err := c.text(t.Context(), y.job(""))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.found.Load(); got != wantFound {
			t.Errorf("text %d: found %d, want %d", i, got, wantFound)
		}
		texts = append(texts, text)
	}
	if d := cmp.Diff(string(texts[0]), string(texts[1])); d != "" {
		t.Errorf("texts (-first +second):\n%s", d)
	}
	if _, found := y.object(y.job("")); found {
		t.Error("an object was found where only a text is")
	}
}

func TestCacheKeepsTheOutput(t *testing.T) {
	y := newCacheToy(t)
	want, _ := y.object(y.job(""))
	c := y.open(DefaultCacheSize)
	c.keep = true
	job := y.job("")
	if _, _, err := c.object(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(job.Out)
	if err != nil {
		t.Fatal(err)
	}
	if c.found.Load() != 1 || !bytes.Equal(got, want) {
		t.Errorf("found %d; the output is the object: %v", c.found.Load(), bytes.Equal(got, want))
	}
}

// TestCompileCacheUnusable: no cache is no failure, and is said once.
func TestCompileCacheUnusable(t *testing.T) {
	y := newCacheToy(t)
	y.write("cache", "a file where the folder should be")
	c := y.open(DefaultCacheSize)
	for range 3 {
		if _, _, err := c.object(t.Context(), y.job("")); err != nil {
			t.Fatal(err)
		}
	}
	if len(y.notes) != 1 {
		t.Errorf("notes: %q, want one", y.notes)
	}
}

func TestFailedCompileIsNotCached(t *testing.T) {
	y := newCacheToy(t)
	for range 2 {
		c := y.open(DefaultCacheSize)
		if _, _, err := c.object(t.Context(), y.job("int limit(void) { return nothing; }\n")); err == nil {
			t.Fatal("no error")
		}
		if c.found.Load() != 0 {
			t.Error("found in the cache")
		}
	}
}
