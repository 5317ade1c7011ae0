package kbuild

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Tests on real kernel trees. KLPC_TEST_TREES lists them, separated by ';':
//
//	BUILD-DIR[,DRY-RUN-FILE[,MAKE-ARGUMENT]...]
//
// With a dry run (the output of make -n -k vmlinux modules) the tree is a
// prepared one; without, it must have been built.

type testTree struct {
	*Tree
	dry string
}

func testTrees(t *testing.T) []testTree {
	t.Helper()
	list := os.Getenv("KLPC_TEST_TREES")
	if list == "" {
		t.Skip("KLPC_TEST_TREES names no kernel trees")
	}
	var trees []testTree
	for _, entry := range strings.Split(list, ";") {
		f := strings.Split(entry, ",")
		tree, err := OpenTree(f[0], Options{})
		if err != nil {
			t.Fatal(err)
		}
		tt := testTree{Tree: tree}
		if len(f) > 1 && f[1] != "" {
			tt.dry = f[1]
			tree.db = parseDry(t, tree, f[1])
		}
		if len(f) > 2 {
			tree.MakeArgs = f[2:]
		}
		trees = append(trees, tt)
	}
	return trees
}

func parseDry(t *testing.T, tree *Tree, path string) *DB {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Now()
	db, err := ParseDryRun(f, tree.Source, tree.Build)
	if err != nil {
		t.Fatal(err)
	}
	parsed := time.Since(start)
	file := filepath.Join(t.TempDir(), "db")
	start = time.Now()
	if err := db.Save(file); err != nil {
		t.Fatal(err)
	}
	saved := time.Since(start)
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	loaded, err := LoadDB(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: %d units parsed in %v, saved in %v (%d bytes), loaded in %v",
		tree.Release, db.Len(), parsed, saved, st.Size(), time.Since(start))
	if diff := cmp.Diff(db.Units(), loaded.Units()); diff != "" {
		t.Errorf("loaded database differs:\n%s", diff)
	}
	return loaded
}

// stat is what must not change in a tree.
type stat struct {
	Size int64
	Time int64
	Mode fs.FileMode
}

func listing(t *testing.T, dirs ...string) map[string]stat {
	t.Helper()
	out := map[string]stat{}
	for _, d := range dirs {
		err := filepath.WalkDir(d, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := e.Info()
			if err != nil {
				return err
			}
			out[p] = stat{st.Size(), st.ModTime().UnixNano(), st.Mode()}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func oneUnit(t *testing.T, tree *Tree, source string) Unit {
	t.Helper()
	units, err := tree.UnitsOf(source)
	if err != nil {
		t.Fatal(err)
	}
	if len(units) != 1 {
		t.Fatalf("%s: %d units, want 1", source, len(units))
	}
	return units[0]
}

var sections = []string{"-ffunction-sections", "-fdata-sections"}

func TestTreeCompileTwice(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			before := listing(t, tree.Source, tree.Build)
			const source = "fs/proc/cmdline.c"
			u := oneUnit(t, tree.Tree, source)
			text, err := os.ReadFile(filepath.Join(tree.Source, source))
			if err != nil {
				t.Fatal(err)
			}
			patched := bytes.Replace(text, []byte("seq_putc(m, '\\n');"), []byte("seq_puts(m, \" livepatch=1\\n\");"), 1)
			if bytes.Equal(text, patched) {
				t.Fatal("the text to change is not there")
			}
			dir := t.TempDir()
			start := time.Now()
			shadow, err := NewShadow(tree.Tree, filepath.Join(dir, "shadow"), map[string]*[]byte{source: &patched})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("shadow made in %v", time.Since(start))
			same, err := NewShadow(tree.Tree, filepath.Join(dir, "same"), map[string]*[]byte{source: &text})
			if err != nil {
				t.Fatal(err)
			}
			compile := func(name string, s *Shadow) CompileResult {
				res, err := tree.Compile(t.Context(), CompileJob{Unit: u, Shadow: s, Out: filepath.Join(dir, name), Extra: sections})
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: wall %v CPU %v, %d files read", name, res.Wall, res.CPU, len(res.Deps))
				return res
			}
			orig, changed, again := compile("orig.o", nil), compile("patched.o", shadow), compile("same.o", same)
			if diff := cmp.Diff(orig.Deps, changed.Deps); diff != "" {
				t.Errorf("files read differ:\n%s", diff)
			}
			if !bytes.Equal(read(t, orig.Object), read(t, again.Object)) {
				t.Error("the same text compiled through a shadow gives another object")
			}
			if !bytes.Contains(read(t, changed.Object), []byte(" livepatch=1\n")) {
				t.Error("the patched object lacks the new string")
			}
			if diff := cmp.Diff(before, listing(t, tree.Source, tree.Build)); diff != "" {
				t.Errorf("the tree was written to:\n%s", diff)
			}
		})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTreeCRCs(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			if !tree.Config.Bool("CONFIG_MODVERSIONS") {
				t.Skip("this kernel has no symbol versions")
			}
			want := map[string]uint32{}
			for _, line := range strings.Split(string(read(t, filepath.Join(tree.Build, "Module.symvers"))), "\n") {
				f := strings.Split(line, "\t")
				if len(f) < 2 {
					continue
				}
				v, err := strconv.ParseUint(f[0], 0, 32)
				if err != nil {
					t.Fatal(err)
				}
				want[f[1]] = uint32(v)
			}
			for _, source := range []string{"fs/read_write.c", "net/core/dev.c", "kernel/fork.c", "drivers/net/veth.c", "net/netfilter/nf_conntrack_core.c"} {
				u := oneUnit(t, tree.Tree, source)
				got, _, err := tree.CRCs(t.Context(), CompileJob{Unit: u, Out: filepath.Join(t.TempDir(), "x")})
				if err != nil {
					t.Fatal(err)
				}
				if len(got) == 0 && source != "drivers/net/veth.c" {
					t.Errorf("%s: no symbol versions", source)
				}
				for name, crc := range got {
					if want[name] != crc {
						t.Errorf("%s: %s: %#x, Module.symvers has %#x", source, name, crc, want[name])
					}
				}
				t.Logf("%s: %d symbol versions", source, len(got))
			}
		})
	}
}

const moduleInit = `// SPDX-License-Identifier: GPL-2.0
#include <linux/module.h>
#include <linux/livepatch.h>
extern int lp_new(struct seq_file *m, void *v);
static struct klp_func funcs[] = { { .old_name = "cmdline_proc_show", .new_func = lp_new }, { } };
static struct klp_object objs[] = { { .funcs = funcs }, { } };
static struct klp_patch patch = { .mod = THIS_MODULE, .objs = objs };
static int lp_init(void) { return klp_enable_patch(&patch); }
static void lp_exit(void) { }
module_init(lp_init);
module_exit(lp_exit);
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
`

const modulePatch = `
	.text
	.globl lp_new
	.type lp_new,@function
lp_new:
	endbr64
	call __fentry__
	call seq_printf
	EXTRA
	ud2
	.size lp_new,.-lp_new
	.weak ".klp.sym.vmlinux.foo,1"
	.data
	.quad ".klp.sym.vmlinux.foo,1"
	.section .note.GNU-stack,"",@progbits
`

// moduleJob makes a work folder with an init file and a prebuilt object.
func moduleJob(t *testing.T, tree *Tree, extra string) ModuleJob {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"init.c": moduleInit,
		"Kbuild": "obj-m := livepatch-x.o\nlivepatch-x-y := init.o patch.o\n",
		"p.s":    strings.ReplaceAll(modulePatch, "EXTRA", extra),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	gcc(t, dir, "-c", "p.s", "-o", "patch.o_shipped")
	return ModuleJob{Dir: dir, Name: "livepatch-x", Prebuilt: []string{"patch.o"}}
}

func TestTreeLinkModule(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			before := listing(t, tree.Source, tree.Build)
			res, err := tree.LinkModule(t.Context(), moduleJob(t, tree.Tree, ""))
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(res.Path)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("linked: wall %v CPU %v, %d bytes", res.Wall, res.CPU, st.Size())
			f, err := elf.Open(res.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			info, err := f.Section(".modinfo").Data()
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"vermagic=" + tree.Release + " ", "name=livepatch_x", "livepatch=Y"} {
				if !bytes.Contains(info, []byte(want)) {
					t.Errorf(".modinfo has no %q: %q", want, info)
				}
			}
			if want := tree.Config.Bool("CONFIG_UNWINDER_ORC"); want != (f.Section(".orc_unwind") != nil) {
				t.Errorf(".orc_unwind: want %v", want)
			}
			checkVersions(t, tree.Tree, f)
			weak := false
			syms, err := f.Symbols()
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range syms {
				weak = weak || s.Name == ".klp.sym.vmlinux.foo,1" && elf.ST_BIND(s.Info) == elf.STB_WEAK && s.Section == elf.SHN_UNDEF
			}
			if !weak {
				t.Error("the weak undefined symbol is gone")
			}
			if diff := cmp.Diff(before, listing(t, tree.Source, tree.Build)); diff != "" {
				t.Errorf("the tree was written to:\n%s", diff)
			}
		})
	}
}

// checkVersions compares __versions (64 bytes each: CRC, name) with Module.symvers.
func checkVersions(t *testing.T, tree *Tree, f *elf.File) {
	t.Helper()
	s := f.Section("__versions")
	if !tree.Config.Bool("CONFIG_MODVERSIONS") {
		if s != nil {
			t.Error("__versions in a kernel without symbol versions")
		}
		return
	}
	data, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	symvers := string(read(t, filepath.Join(tree.Build, "Module.symvers")))
	var names []string
	for ; len(data) >= 64; data = data[64:] {
		name := string(bytes.TrimRight(data[8:64], "\x00"))
		names = append(names, name)
		crc := f.ByteOrder.Uint64(data)
		if !strings.Contains(symvers, "0x"+strings.Repeat("0", 8-len(strconv.FormatUint(crc, 16)))+strconv.FormatUint(crc, 16)+"\t"+name+"\t") {
			t.Errorf("__versions: %s has %#x, not as Module.symvers", name, crc)
		}
	}
	for _, want := range []string{"seq_printf", "klp_enable_patch", "module_layout"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("__versions lacks %s: %v", want, names)
		}
	}
}

func TestTreeLinkUndefined(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			var calls, want []string
			for _, c := range "abcdefghijklm" {
				calls = append(calls, "call nowhere_"+string(c))
				want = append(want, "nowhere_"+string(c))
			}
			_, err := tree.LinkModule(t.Context(), moduleJob(t, tree.Tree, strings.Join(calls, "\n")))
			var undef *UndefinedError
			if !errors.As(err, &undef) {
				t.Fatalf("got %v, want an UndefinedError", err)
			}
			if diff := cmp.Diff(want, undef.Symbols); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTreeReaders(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			cache := filepath.Join(t.TempDir(), "deps")
			for _, c := range []struct {
				file string
				min  int
			}{{"fs/proc/internal.h", 10}, {"include/linux/sched.h", 500}, {"fs/proc/cmdline.c", 1}, {"no/such/file.h", 0}} {
				start := time.Now()
				units, err := tree.Readers(c.file, cache)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %d units in %v", c.file, len(units), time.Since(start))
				if len(units) < c.min || c.min == 0 && len(units) > 0 {
					t.Errorf("%s: %d readers", c.file, len(units))
				}
			}
			if tree.Built() {
				start := time.Now()
				if _, err := tree.Deps(cache); err != nil {
					t.Fatal(err)
				}
				t.Logf("index, warm: %v", time.Since(start))
			}
		})
	}
}

func TestTreeHeaderThatMakeGenerates(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			if tree.Built() {
				t.Skip("a built tree has its generated headers")
			}
			u := oneUnit(t, tree.Tree, "security/selinux/hooks.c")
			_, err := tree.Compile(context.Background(), CompileJob{Unit: u, Out: filepath.Join(t.TempDir(), "x.o")})
			var missing *MissingHeaderError
			if !errors.As(err, &missing) {
				t.Skipf("the header is there already: %v", err)
			}
			t.Log(err)
			if err := tree.MakeUnit(t.Context(), u); !errors.Is(err, ErrNotOwned) {
				t.Errorf("MakeUnit: got %v, want ErrNotOwned", err)
			}
		})
	}
}

// TestTreeIncludesCoverDeps checks that the include scan finds every reader
// that a build recorded.
func TestTreeIncludesCoverDeps(t *testing.T) {
	for _, tree := range testTrees(t) {
		t.Run(tree.Release, func(t *testing.T) {
			if !tree.Built() {
				t.Skip("only a built tree has a record")
			}
			deps, err := tree.Deps("")
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			for _, o := range deps.objects {
				line, err := firstLine(filepath.Join(tree.Build, cmdPath(deps.names[o.object])))
				if err != nil {
					t.Fatal(err)
				}
				_, cmd, _ := bytes.Cut(line, []byte(" := "))
				text.Write(unescapeMake(cmd))
			}
			db, err := ParseDryRun(&text, tree.Source, tree.Build)
			if err != nil {
				t.Fatal(err)
			}
			graph, err := (&Tree{Source: tree.Source, Build: tree.Build, db: db}).Includes()
			if err != nil {
				t.Fatal(err)
			}
			checked, extra := 0, 0
			for i := 0; i < len(deps.names); i += 7 {
				name := deps.names[i]
				if !strings.HasSuffix(name, ".h") || !isFile(filepath.Join(tree.Source, name)) {
					continue
				}
				may := map[string]bool{}
				for _, u := range graph.Readers(name) {
					may[u.Object] = true
				}
				did := deps.Readers(name)
				for _, o := range did {
					u, ok := db.unitOfObject(o)
					if ok && u.Special() == "" && !may[o] {
						t.Errorf("%s reads %s, which the include scan does not see", o, name)
					}
				}
				checked, extra = checked+1, extra+len(may)-len(did)
			}
			t.Logf("%d headers, %d readers too many on average", checked, extra/max(checked, 1))
		})
	}
}
