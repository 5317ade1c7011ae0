package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what klpc prints into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"klpc": main})
}

// TestScripts runs testdata/script/*.txtar. Besides testscript's own commands
// there are:
//
//	exits CODE klpc ARG...  runs klpc, which must exit with CODE; unless that is
//	                        0, no file may have changed, and in either case
//	                        nothing may be left in TMPDIR
//	compile FILE.c...       compiles each to FILE.o, much as Kbuild would
//	toytree                 makes a built kernel tree in linux/, as far as its
//	                        files are not there already
//	replace FILE OLD NEW    replaces OLD in a file, where it must occur
//
// and the condition [root].
func TestScripts(t *testing.T) {
	const dir = "../../testdata/script"
	if found, err := filepath.Glob(dir + "/*.txtar"); err != nil || len(found) == 0 {
		t.Fatalf("no scripts in %s (%v)", dir, err)
	}
	testscript.Run(t, testscript.Params{
		Dir: dir, UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "compile": compile, "toytree": toytree, "replace": replace,
		},
		Condition: func(name string) (bool, error) {
			if name == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, cacheName))
			e.Setenv("LC_ALL", "C")
			return nil
		},
	})
}

// What a run may leave behind or may not.
const (
	cacheName = ".cache"
	tempName  = ".tmp" // testscript's TMPDIR
)

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE klpc ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	work := ts.Getenv("WORK")
	before := snapshot(ts, work)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() != want:
		ts.Fatalf("exit code %d, want %d", exit.ExitCode(), want)
	case err != nil && exit == nil:
		ts.Fatalf("%v", err)
	case err == nil && want != 0:
		ts.Fatalf("exit code 0, want %d", want)
	}
	after := snapshot(ts, work)
	if d := cmp.Diff(before, after); want != 0 && d != "" {
		ts.Fatalf("exit code %d, but files have changed:\n%s", want, d)
	}
	for name := range after {
		if filepath.Dir(name) == tempName {
			ts.Fatalf("%s is left behind", name)
		}
	}
}

// snapshot describes every file below root except the cache.
func snapshot(ts *testscript.TestScript, root string) map[string]string {
	files := map[string]string{}
	ts.Check(filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if rel == cacheName {
			return fs.SkipDir
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		files[rel] = st.Mode().String()
		if st.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[rel] = fmt.Sprintf("%v %v %q", st.Mode(), st.ModTime(), text)
		}
		return nil
	}))
	return files
}

func compile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: compile FILE.c...")
	}
	for _, source := range args {
		ts.Check(ts.Exec("gcc", "-c", "-O2", "-pg", "-mfentry", "-fno-pic", "-fcf-protection=none", "-fno-asynchronous-unwind-tables",
			"-ffunction-sections", "-fdata-sections", "-o", strings.TrimSuffix(source, ".c")+".o", source))
	}
}

func replace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: replace FILE OLD NEW")
	}
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s does not hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(text, args[1], args[2])), 0o644))
}

// toyFiles is a tree that has been built as far as klpc looks before it reads
// the image: every file of a patch is compiled by a real compiler, without
// headers of the kernel. CC stands for what gcc says of itself.
var toyFiles = map[string]string{
	"Kbuild":                        "",
	"Kconfig":                       "",
	"Makefile":                      "all:\n",
	"scripts/Kbuild.include":        "",
	"scripts/mod/modpost.c":         "int main(void) { return 0; }\n",
	".config":                       "CONFIG_CC_VERSION_TEXT=\"CC\"\nCONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n",
	"include/config/kernel.release": "6.99.0-toy\n",
	"include/linux/kconfig.h":       "",
	"vmlinux":                       "",
	"Module.symvers":                "",
	"Documentation/toy.rst":         "Toy\n===\n\nA toy.\n",
	"init/main.c":                   "int start_kernel(void)\n{\n\treturn 0;\n}\n",
	"fs/toy.c": `int toy_count;

static int toy_step(int n)
{
	if (n > 10)
		return 1;
	return 2;
}

int toy_open(int n)
{
	toy_count += toy_step(n);
	return 0;
}

int toy_close(int n)
{
	toy_count -= toy_step(n);
	return 0;
}
`,
	"arch/x86/entry/entry_64.S":    "\tnop\n\tret\n",
	"arch/x86/entry/vdso/vtime.c":  "int vtime(void)\n{\n\treturn 0;\n}\n",
	"arch/x86/realmode/rm/start.c": "int start(void)\n{\n\treturn 0;\n}\n",
	"arch/arm64/kernel/toy.c":      "int arm_toy(void)\n{\n\treturn 0;\n}\n",
}

// toyUnits are the objects that the tree was built of, with their flags.
var toyUnits = []struct{ source, flags string }{
	{"init/main.c", "-m64 -mcmodel=kernel"},
	{"fs/toy.c", "-m64 -mcmodel=kernel"},
	{"arch/x86/entry/entry_64.S", "-m64 -D__ASSEMBLY__"},
	{"arch/x86/entry/vdso/vtime.c", "-m64 -mcmodel=small -fPIC"},
	{"arch/x86/realmode/rm/start.c", "-m16"},
}

func toytree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: toytree")
	}
	cc := "gcc"
	if out, err := exec.Command("gcc", "--version").Output(); err == nil {
		cc, _, _ = strings.Cut(string(out), "\n")
	}
	files := map[string]string{}
	for name, text := range toyFiles {
		files[name] = strings.ReplaceAll(text, "CC\"\n", cc+"\"\n")
	}
	for _, u := range toyUnits {
		dir, base := filepath.Split(strings.TrimSuffix(strings.TrimSuffix(u.source, ".c"), ".S") + ".o")
		files[dir+"."+base+".cmd"] = fmt.Sprintf("savedcmd_%[1]s := gcc -Wp,-MMD,%[2]s.%[3]s.d -Iinclude -include include/linux/kconfig.h"+
			" -D__KERNEL__ -fno-pic -O2 %[4]s -c -o %[1]s %[5]s\n\nsource_%[1]s := %[5]s\n\ndeps_%[1]s := \\\n  include/linux/kconfig.h \\\n\n",
			dir+base, dir, base, u.flags, u.source)
	}
	for name, text := range files {
		path := ts.MkAbs(filepath.Join("linux", name))
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
		ts.Check(os.WriteFile(path, []byte(text), 0o644))
	}
}
