package kbuild

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

func content(s string) *[]byte {
	b := []byte(s)
	return &b
}

// strs are the strings of an object that the toy sources put there.
func strs(t *testing.T, object string) []string {
	t.Helper()
	var out []string
	for _, s := range strings.Split(string(read(t, object)), "\x00") {
		if strings.HasSuffix(s, ".h") || strings.HasSuffix(s, ".c") {
			out = append(out, s)
		}
	}
	return out
}

func compileToy(t *testing.T, tree *Tree, s *Shadow, out string) (CompileResult, error) {
	t.Helper()
	u := oneUnit(t, tree, "fs/proc/cmdline.c")
	return tree.Compile(t.Context(), CompileJob{Unit: u, Shadow: s, Out: filepath.Join(t.TempDir(), out), Extra: sections})
}

// TestShadowUnchanged compiles the same text directly and through a shadow:
// the objects, debug information included, must be equal to the byte, and the
// tree must not be written to.
func TestShadowUnchanged(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			tree := toyTree(t, l)
			before := listing(t, tree.Source, tree.Build)
			files := map[string]*[]byte{}
			for _, f := range []string{"fs/proc/cmdline.c", "fs/common.h", "include/linux/where.h"} {
				files[f] = content(toyFiles[f])
			}
			s, err := NewShadow(tree, filepath.Join(t.TempDir(), "shadow"), files)
			if err != nil {
				t.Fatal(err)
			}
			orig, err := compileToy(t, tree, nil, "x.o")
			if err != nil {
				t.Fatal(err)
			}
			patched, err := compileToy(t, tree, s, "x.o")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(read(t, orig.Object), read(t, patched.Object)) {
				t.Errorf("objects differ: %q, %q", strs(t, orig.Object), strs(t, patched.Object))
			}
			if diff := cmp.Diff(orig.Deps, patched.Deps); diff != "" {
				t.Errorf("files read differ:\n%s", diff)
			}
			want := []string{"fs/proc/cmdline.c", "include/linux/kconfig.h", "include/linux/where.h", "fs/proc/internal.h",
				"lib/deep/er/deeper.h", "lib/deep/deep.h", "fs/common.h", "include/generated/made.h"}
			if l.build != "linux" {
				want[7] = filepath.Join(tree.Build, "include/generated/made.h")
			}
			if diff := cmp.Diff(want, orig.Deps); diff != "" {
				t.Errorf("files read:\n%s", diff)
			}
			if diff := cmp.Diff(before, listing(t, tree.Source, tree.Build)); diff != "" {
				t.Errorf("the tree was written to:\n%s", diff)
			}
		})
	}
}

// TestShadowWithoutKernelMap is a kernel whose commands do not map __FILE__.
func TestShadowWithoutKernelMap(t *testing.T) {
	tree := toyTree(t, layouts[1])
	u := oneUnit(t, tree, "fs/proc/cmdline.c")
	u.Args = slices.DeleteFunc(u.Args, func(a string) bool { return strings.HasPrefix(a, "-fmacro-prefix-map") })
	s, err := NewShadow(tree, filepath.Join(t.TempDir(), "shadow"), map[string]*[]byte{"fs/proc/cmdline.c": content(toyFiles["fs/proc/cmdline.c"])})
	if err != nil {
		t.Fatal(err)
	}
	var got [2][]byte
	for i, sh := range []*Shadow{nil, s} {
		res, err := tree.Compile(t.Context(), CompileJob{Unit: u, Shadow: sh, Out: filepath.Join(t.TempDir(), "x.o")})
		if err != nil {
			t.Fatal(err)
		}
		got[i] = read(t, res.Object)
	}
	if !bytes.Equal(got[0], got[1]) {
		t.Error("objects differ")
	}
	if !bytes.Contains(got[0], []byte(tree.Source+"/fs/proc/cmdline.c")) {
		t.Error("__FILE__ is not the full path: the test tests nothing")
	}
}

// TestShadowDeepens changes a header that is read only through ../ from
// directories that are links at first, by two compiles at once.
func TestShadowDeepens(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			tree := toyTree(t, l)
			s, err := NewShadow(tree, filepath.Join(t.TempDir(), "shadow"), map[string]*[]byte{
				"fs/common.h": content("static const char common_h[] = \"patched \" __FILE__;\n"),
			})
			if err != nil {
				t.Fatal(err)
			}
			if st, err := os.Lstat(filepath.Join(s.Dir(), "lib")); err != nil || st.IsDir() {
				t.Fatalf("lib is real before any compile: %v", err)
			}
			u := oneUnit(t, tree, "fs/proc/cmdline.c")
			var g errgroup.Group
			for _, out := range []string{filepath.Join(t.TempDir(), "a.o"), filepath.Join(t.TempDir(), "b.o")} {
				g.Go(func() error {
					_, err := tree.Compile(t.Context(), CompileJob{Unit: u, Shadow: s, Out: out})
					if err != nil {
						return err
					}
					text, err := os.ReadFile(out)
					if err == nil && !bytes.Contains(text, []byte("patched ")) {
						err = errors.New(out + " was compiled from the unpatched header")
					}
					return err
				})
			}
			if err := g.Wait(); err != nil {
				t.Error(err)
			}
			if st, err := os.Lstat(filepath.Join(s.Dir(), "lib/deep/er")); err != nil || !st.IsDir() {
				t.Errorf("lib/deep/er is not real: %v", err)
			}
		})
	}
}

func TestShadowNewAndRemoved(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			tree := toyTree(t, l)
			add := func(name, text string) map[string]*[]byte {
				return map[string]*[]byte{
					name:              content("static const char common_h[] = \"new \" __FILE__;\n"),
					"lib/deep/deep.h": content(text),
					"fs/common.h":     nil,
				}
			}
			s, err := NewShadow(tree, filepath.Join(t.TempDir(), "shadow"),
				add("new/dir/n.h", "#include \"../../new/dir/n.h\"\nstatic const char deep_h[] = __FILE__;\n"))
			if err != nil {
				t.Fatal(err)
			}
			res, err := compileToy(t, tree, s, "x.o")
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(read(t, res.Object), []byte("new lib/deep/er/../../../new/dir/n.h")) &&
				!bytes.Contains(read(t, res.Object), []byte("new ")) {
				t.Error("the new header was not read")
			}
			if _, err := os.Stat(filepath.Join(s.Dir(), "fs/common.h")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the removed header: %v", err)
			}

			s, err = NewShadow(tree, filepath.Join(t.TempDir(), "shadow"), map[string]*[]byte{"fs/common.h": nil})
			if err != nil {
				t.Fatal(err)
			}
			_, err = compileToy(t, tree, s, "x.o")
			var ce *CompileError
			if !errors.As(err, &ce) || !strings.Contains(ce.First, "fatal error: ../../fs/common.h: No such file") {
				t.Errorf("removed but still included: got %v", err)
			}
		})
	}
}

// TestShadowNewHeaderBehindLink adds a header that an untouched header, in a
// directory that is a link, includes through ../ under a condition.
func TestShadowNewHeaderBehindLink(t *testing.T) {
	tree := toyTree(t, layouts[1])
	write(t, tree.Source, map[string]string{
		"lib/deep/deep.h": "#ifdef NEWER\n#include \"../added.h\"\n#endif\n#include \"../../fs/common.h\"\nstatic const char deep_h[] = __FILE__;\n",
	})
	s, err := NewShadow(tree, filepath.Join(t.TempDir(), "shadow"), map[string]*[]byte{
		"lib/added.h":       content("#define ADDED \"added\"\n"),
		"fs/proc/cmdline.c": content("#define NEWER\n" + toyFiles["fs/proc/cmdline.c"] + "const char *added = ADDED;\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compileToy(t, tree, s, "x.o"); err != nil {
		t.Error(err)
	}
}

func TestShadowRefuses(t *testing.T) {
	tree := toyTree(t, layouts[0])
	for name, target := range map[string]string{"out": "/etc", "in": "fs", "fs/link.h": "common.h"} {
		if err := os.Symlink(target, filepath.Join(tree.Source, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		path    string
		content *[]byte
		want    string
	}{
		{"../x", content(""), `"../x" is not a clean path inside the tree`},
		{"/etc/passwd", content(""), `"/etc/passwd" is not a clean path inside the tree`},
		{"fs/../../x", content(""), `"fs/../../x" is not a clean path inside the tree`},
		{"fs//common.h", content(""), `"fs//common.h" is not a clean path inside the tree`},
		{"", content(""), `"" is not a clean path inside the tree`},
		{"out/passwd", content(""), "out/passwd: out is a symbolic link"},
		{"in/common.h", content(""), "in/common.h: in is a symbolic link"},
		{"fs/link.h", content(""), "fs/link.h: fs/link.h is a symbolic link"},
		{"fs/common.h/x", content(""), "fs/common.h/x: fs/common.h is not a directory"},
		{"fs", content(""), "fs is not a regular file"},
		{"fs/none.h", nil, "fs/none.h: cannot remove a file that does not exist"},
	} {
		t.Run(c.path, func(t *testing.T) {
			_, err := NewShadow(tree, filepath.Join(t.TempDir(), "shadow"), map[string]*[]byte{c.path: c.content})
			if err == nil || err.Error() != "shadow tree: "+c.want {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := NewShadow(tree, tree.Source, nil); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a shadow in a directory in use: %v", err)
	}
	if _, err := NewShadow(tree, filepath.Join(t.TempDir(), "a=b"), nil); err == nil || !strings.Contains(err.Error(), "'='") {
		t.Errorf("a shadow with '=' in its path: %v", err)
	}
}

func TestShadowLinkInsideTree(t *testing.T) {
	tree := toyTree(t, layouts[1])
	if err := os.Symlink("../fs", filepath.Join(tree.Source, "lib/alias")); err != nil {
		t.Fatal(err)
	}
	s, err := NewShadow(tree, filepath.Join(t.TempDir(), "shadow"), map[string]*[]byte{
		"fs/proc/cmdline.c": content("#include \"../../lib/alias/common.h\"\nconst char *p = common_h;\n"),
		"fs/common.h":       content("static const char common_h[] = \"patched\";\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := compileToy(t, tree, s, "x.o")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(read(t, res.Object), []byte("patched")) {
		t.Error("the link leads to the unpatched header")
	}
}

func TestMapPaths(t *testing.T) {
	s := &Shadow{dir: "/w/shadow", source: "/src/linux", build: "/src/linux/o/x"}
	for in, want := range map[string]string{
		"-I/src/linux/include":              "-I/w/shadow/include",
		"/src/linux/fs/a.c":                 "/w/shadow/fs/a.c",
		"-fmacro-prefix-map=/src/linux/=":   "-fmacro-prefix-map=/w/shadow/=",
		"-fdebug-prefix-map=/src/linux=/ok": "-fdebug-prefix-map=/w/shadow=/ok",
		"-I/src/linux":                      "-I/w/shadow",
		"-I/src/linux-6.1/include":          "-I/src/linux-6.1/include",
		"-I/old/src/linux/include":          "-I/old/src/linux/include",
		"-I/src/linux/o/x/include":          "-I/src/linux/o/x/include",
		"-I/src/linux/o/xy":                 "-I/w/shadow/o/xy",
		"-I../include":                      "-I../include",
		"":                                  "",
	} {
		if got := s.mapPaths(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
