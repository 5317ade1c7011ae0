package pipeline

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/kbuild"
)

// moreToyFiles join testdata/toykernel.txtar.
var moreToyFiles = map[string]string{
	"scripts/Kbuild.include":         "",
	"scripts/mod/modpost.c":          "int main(void) { return 0; }\n",
	"scripts/Makefile.lib":           "",
	"include/linux/kconfig.h":        "",
	"include/linux/off.h":            "",
	"init/main.c":                    "int start_kernel(void) { return 0; }\n",
	"fs/proc/cmdline.c":              "#include \"../part.c\"\nint cmdline;\n",
	"fs/part.c":                      "int part;\n",
	"fs/twice.c":                     "int twice;\n",
	"fs/also.c":                      "#include \"twice.c\"\n",
	"fs/keymap.map":                  "map\n",
	"fs/Kconfig":                     "config X\n\tbool\n",
	"fs/notes":                       "notes\n",
	"fs/opcodes.txt":                 "opcodes\n",
	"lib/vdso/get.c":                 "int get;\n",
	"lib/oops.rs":                    "",
	"tools/lib/shared.c":             "int shared;\n",
	"kernel/bpf.c":                   "#include \"../tools/lib/shared.c\"\n",
	"drivers/both.c":                 "int both;\n",
	"tools/perf/perf.c":              "int perf;\n",
	"arch/x86/Makefile":              "",
	"arch/x86/entry/calling.h":       "",
	"arch/x86/entry/entry_64.S":      "#include \"calling.h\"\n",
	"arch/x86/entry/vdso/v.c":        "#include \"../../../../lib/vdso/get.c\"\n",
	"arch/x86/kernel/vmlinux.lds.S":  "",
	"arch/x86/lib/off.S":             "",
	"arch/arm64/kernel/x.c":          "",
	"arch/x86/configs/toy_defconfig": "",
	"Documentation/x.txt":            "",
	"MAINTAINERS":                    "",
	"Makefile":                       "",
}

// toyBuilt are the units that the toy tree was built of beside those of its
// makefiles: source, flags, files read.
var toyBuilt = [][3]string{
	{"fs/also.c", "-mcmodel=kernel", "fs/twice.c"},
	{"fs/twice.c", "-mcmodel=kernel", ""},
	{"kernel/bpf.c", "-mcmodel=kernel", "tools/lib/shared.c"},
	{"arch/x86/entry/entry_64.S", "", "arch/x86/entry/calling.h"},
	{"arch/x86/entry/vdso/v.c", "-mcmodel=small", "lib/vdso/get.c"},
	{"drivers/both.c", "-mcmodel=kernel -DMODULE -DKBUILD_MODNAME=one:two", ""},
	{"fs/keymap.c", "-mcmodel=kernel", ""},
}

// toyKernel makes a toy tree that has been built.
func toyKernel(t *testing.T, config string) *kbuild.Tree {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	source, build := filepath.Join(root, "linux"), filepath.Join(root, "out")
	put := func(dir, name, text string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range moreToyFiles {
		put(source, name, text)
	}
	a, err := txtar.ParseFile("../testdata/toykernel.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		put(source, f.Name, string(f.Data))
	}
	put(source, "fs/Makefile", moreMakefile)
	put(build, "Makefile", "include "+source+"/Makefile\n")
	put(build, ".config", "CONFIG_X86_64=y\nCONFIG_MODULES=y\nCONFIG_LIVEPATCH=y\n"+config)
	put(build, "include/config/auto.conf", "CONFIG_X=y\n")
	put(build, "include/config/auto.conf.cmd", "")
	put(build, "include/config/kernel.release", "6.99.0-toy\n")
	cmd := func(object, command, source, dep string) {
		if dep != "" {
			dep = root + "/linux/" + dep
		}
		put(build, path.Join(path.Dir(object), "."+path.Base(object)+".cmd"), fmt.Sprintf(
			"savedcmd_%[1]s := %[2]s\n\nsource_%[1]s := %[3]s\n\ndeps_%[1]s := \\\n  %[4]s \\\n\n", object, command, source, dep))
	}
	for _, u := range toyBuilt {
		object := strings.TrimSuffix(u[0], path.Ext(u[0])) + ".o"
		from := source + "/" + u[0]
		if u[0] == "fs/keymap.c" {
			from = u[0] // generated
		}
		cmd(object, fmt.Sprintf("gcc -D__KERNEL__ -m64 %s -c -o %s %s", u[1], object, from), from, u[2])
	}
	tree, err := kbuild.OpenTree(build, kbuild.Options{})
	if err != nil {
		t.Fatal(err)
	}
	res, err := tree.DryRun(t.Context(), kbuild.DryRunJob{Work: filepath.Join(root, "dry"), Deep: []string{"fs", "init", "net"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range res.Units {
		dep := ""
		if u.Source == "fs/proc/cmdline.c" {
			dep = "fs/part.c"
		}
		cmd(u.Object, strings.ReplaceAll(strings.Join(u.Args, " "), `"`, `'"'`), u.Args[len(u.Args)-1], dep)
	}
	return tree
}

// moreMakefile is the one of fs/: it also builds twice.o and also.o, and names
// what it generates from.
const moreMakefile = "obj-y += proc/ deep/\nobj-m += toyfs.o\ntoyfs-y := super.o sub/inode.o\n# opcodes.txt is read by a script\n"

// classes say what has become of a patch's files.
type classes struct {
	Units      []string // objects; "+" before new ones, "*" before those with another command
	Candidates []string
	NoEffect   []string
	Problems   []string // "file: kind: detail"
	Notes      []string
}

func classify(t *testing.T, tree *kbuild.Tree, files map[string]string) (classes, error) {
	t.Helper()
	var list []touched
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f := touched{path: name}
		_, err := os.Stat(filepath.Join(tree.Source, name))
		f.isNew = err != nil
		if text := files[name]; text != removed {
			content := []byte(text)
			f.content, f.pinned = &content, content
		}
		list = append(list, f)
	}
	s, err := selectUnits(t.Context(), tree, list, "", filepath.Join(t.TempDir(), "work"))
	var c classes
	for _, u := range s.units {
		name := u.Object
		if s.fresh[name] {
			name = "+" + name
		}
		if p, ok := s.patched[u.Object]; ok {
			name = "*" + name
			if p.Source != u.Source {
				name += " from " + p.Source
			}
		}
		c.Units = append(c.Units, strings.Join(append([]string{name}, u.Modules...), " "))
	}
	for _, u := range s.candidates {
		c.Candidates = append(c.Candidates, u.Object)
	}
	for _, p := range s.problems {
		c.Problems = append(c.Problems, fmt.Sprintf("%s: %s: %s", p.At.Object, p.Kind, p.Detail))
	}
	c.NoEffect, c.Notes = s.noEffect, s.notes
	return c, err
}

// removed stands for the content of a removed file.
const removed = "\x00"

func TestSelectUnits(t *testing.T) {
	tree := toyKernel(t, "")
	procMakefile := "obj-y += cmdline.o\n"
	long := strings.Repeat("int line;\nint other;\n", 5)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  classes
	}{
		{"a source", map[string]string{"fs/super.c": "int s;\n"}, classes{Units: []string{"fs/super.o toyfs"}}},
		{"a source of two modules", map[string]string{"drivers/both.c": "int b;\n"}, classes{Units: []string{"drivers/both.o one two"}}},
		{"a source that others include", map[string]string{"fs/part.c": "int p;\n"}, classes{Candidates: []string{"fs/proc/cmdline.o"}}},
		{"a source that is compiled and included", map[string]string{"fs/twice.c": "int t;\n"},
			classes{Units: []string{"fs/twice.o"}, Candidates: []string{"fs/also.o"}}},
		{"a source of tools that the kernel includes", map[string]string{"tools/lib/shared.c": "int s;\n"}, classes{Candidates: []string{"kernel/bpf.o"}}},
		{"what never reaches the kernel", map[string]string{
			"Documentation/x.txt": "x", "tools/perf/perf.c": "x", "arch/arm64/kernel/x.c": "x", "MAINTAINERS": "x", "samples/new.c": "x", "fs/notes": "x",
			"include/linux/off.h": "x", "fs/proc/off.c": "int o;", "lib/oops.rs": "x", "arch/x86/configs/toy_defconfig": "x", "arch/x86/lib/off.S": "x", "include/linux/new.h": "x", "fs/README": "x",
			"tools/include/linux/bits.h": "x",
		}, classes{NoEffect: []string{"Documentation/x.txt", "MAINTAINERS", "arch/arm64/kernel/x.c", "arch/x86/configs/toy_defconfig", "arch/x86/lib/off.S", "fs/README", "fs/notes", "fs/proc/off.c",
			"include/linux/new.h", "include/linux/off.h", "lib/oops.rs", "samples/new.c", "tools/include/linux/bits.h", "tools/perf/perf.c"}}},
		{"what cannot be livepatched", map[string]string{
			"arch/x86/entry/entry_64.S": "ret", "arch/x86/entry/calling.h": "x", "arch/x86/entry/vdso/v.c": "x", "arch/x86/entry/vdso/new.c": "x", "lib/vdso/get.c": "x", "arch/x86/kernel/vmlinux.lds.S": "x",
			"scripts/mod/modpost.c": "x", "include/asm-generic/vmlinux.lds.h": "x",
		}, classes{Problems: []string{
			"arch/x86/entry/calling.h: not-kernel-code: it is read by arch/x86/entry/entry_64.S: assembly: ftrace cannot redirect functions written in assembly",
			"arch/x86/entry/entry_64.S: not-kernel-code: assembly: ftrace cannot redirect functions written in assembly",
			"arch/x86/entry/vdso/new.c: not-kernel-code: vDSO: runs in user space",
			"arch/x86/entry/vdso/v.c: not-kernel-code: vDSO: runs in user space",
			"arch/x86/kernel/vmlinux.lds.S: not-kernel-code: linker script: it decides where the code of the whole kernel lies",
			"include/asm-generic/vmlinux.lds.h: not-kernel-code: linker script: it decides where the code of the whole kernel lies",
			"lib/vdso/get.c: not-kernel-code: it is read by arch/x86/entry/vdso/v.c: vDSO: runs in user space",
			"scripts/mod/modpost.c: not-kernel-code: build tool: runs on the machine that builds the kernel",
		}}},
		{"what the build generates from", map[string]string{"fs/keymap.map": "x", "fs/opcodes.txt": "x"}, classes{Problems: []string{
			"fs/keymap.map: generator-input: the build makes other files of it (fs/keymap.o), and klpc does not run its generators",
			"fs/opcodes.txt: generator-input: the build makes other files of it (fs/Makefile), and klpc does not run its generators",
		}}},
		{"makefiles of the whole kernel", map[string]string{"Makefile": "x", "arch/x86/Makefile": "x", "scripts/Makefile.lib": "x"}, classes{Problems: []string{
			"Makefile: build-file: this makefile governs the whole kernel: every object would have to be compiled and compared",
			"arch/x86/Makefile: build-file: this makefile governs the whole kernel: every object would have to be compiled and compared",
			"scripts/Makefile.lib: build-file: this makefile governs the whole kernel: every object would have to be compiled and compared",
		}}},

		{"a new file in the kernel", map[string]string{"fs/proc/Makefile": procMakefile + "obj-y += new.o\n", "fs/proc/new.c": "#include \"new.h\"\n", "fs/proc/new.h": "x"},
			classes{Units: []string{"+fs/proc/new.o"}}},
		{"a new file in a module", map[string]string{"fs/Makefile": moreMakefile + "toyfs-y += sub/new.o\n", "fs/sub/new.c": "x"},
			classes{Units: []string{"+fs/sub/new.o toyfs"}}},
		{"a new folder", map[string]string{"fs/Makefile": moreMakefile + "obj-y += new/\n", "fs/new/Makefile": "obj-y := n.o\n", "fs/new/n.c": "x"},
			classes{Units: []string{"+fs/new/n.o"}}},
		{"a source that was there, and is built now", map[string]string{"fs/Makefile": moreMakefile + "obj-y += part.o\n"},
			classes{Units: []string{"+fs/part.o"}}},
		{"a new file that is included", map[string]string{"fs/super.c": "#include \"sub/new.c\"\n", "fs/sub/new.c": "x"},
			classes{Units: []string{"fs/super.o toyfs"}}},
		{"a new symbol of Kconfig", map[string]string{"fs/Kconfig": moreToyFiles["fs/Kconfig"] + "config NEW\n\tdefault y\n",
			"fs/proc/Makefile": procMakefile + "obj-$(CONFIG_NEW) += new.o\n", "fs/proc/new.c": "x"},
			classes{NoEffect: []string{"fs/Kconfig", "fs/proc/Makefile", "fs/proc/new.c"}, Notes: []string{
				"fs/Kconfig: CONFIG_NEW is new; its default cannot be told, so it is off, and code that depends on it is left out: the build has left no scripts/kconfig/conf",
				"fs/proc/new.c is not compiled because CONFIG_NEW is off in the running kernel"}}},
		{"a new file that no makefile lists", map[string]string{"fs/proc/new.c": "x"},
			classes{NoEffect: []string{"fs/proc/new.c"}, Notes: []string{"fs/proc/new.c is not compiled: no makefile lists new.o"}}},
		{"a new module", map[string]string{"fs/Makefile": moreMakefile + "obj-m += fresh.o\n", "fs/fresh.c": "x"},
			classes{NoEffect: []string{"fs/Makefile", "fs/fresh.c"}, Notes: []string{
				"fs/fresh.c becomes part of the module fresh, which this kernel does not have: build that as an ordinary module"}}},

		{"a removed file", map[string]string{"fs/Makefile": "obj-y += proc/ deep/\nobj-m += toyfs.o\ntoyfs-y := super.o\n", "fs/sub/inode.c": removed},
			classes{NoEffect: []string{"fs/Makefile", "fs/sub/inode.c"}, Notes: []string{"fs/sub/inode.c is no longer compiled; what it holds stays in the running kernel"}}},
		{"a removed object", map[string]string{"fs/proc/Makefile": "obj-y :=\n", "fs/proc/cmdline.c": "int c;\n"},
			classes{NoEffect: []string{"fs/proc/Makefile"}, Notes: []string{"fs/proc/cmdline.c is no longer compiled; what it holds stays in the running kernel"}}},
		{"a removed file that the makefile lists", map[string]string{"fs/sub/inode.c": removed}, classes{Problems: []string{
			"fs/sub/inode.c: removed-source: the makefile of its folder still lists inode.o, so the patched kernel could not be built"}}},
		{"a removed file that was not built", map[string]string{"fs/proc/off.c": removed}, classes{NoEffect: []string{"fs/proc/off.c"}}},
		{"a removed file that others include", map[string]string{"fs/part.c": removed}, classes{Candidates: []string{"fs/proc/cmdline.o"}}},
		{"a renamed file", map[string]string{"fs/Makefile": "obj-y += proc/ deep/\nobj-m += toyfs.o\ntoyfs-y := super.o sub/node.o\n",
			"fs/sub/inode.c": removed, "fs/sub/node.c": "int inode;\nint more;\n"},
			classes{Units: []string{"*fs/sub/inode.o from fs/sub/node.c toyfs"}}},
		{"another file in the place of a removed one", map[string]string{"fs/Makefile": "obj-y += proc/ deep/\nobj-m += toyfs.o\ntoyfs-y := super.o sub/node.o\n",
			"fs/sub/inode.c": removed, "fs/sub/node.c": long},
			classes{Units: []string{"+fs/sub/node.o toyfs"}, NoEffect: []string{"fs/sub/inode.c"},
				Notes: []string{"fs/sub/inode.c is no longer compiled; what it holds stays in the running kernel"}}},

		{"options of a file", map[string]string{"fs/proc/Makefile": procMakefile + "CFLAGS_cmdline.o := -DFLAG\n"},
			classes{Units: []string{"*fs/proc/cmdline.o"}, Notes: []string{"fs/proc/cmdline.c: the makefile changes its options: adds -DFLAG"}}},
		{"options of the folders below", map[string]string{"fs/deep/Makefile": "subdir-ccflags-y := -DDEEPER\nobj-y += er/\n"},
			classes{Units: []string{"*fs/deep/er/x.o"}, Notes: []string{"fs/deep/er/x.c: the makefile changes its options: adds -DDEEPER, drops -DDEEP"}}},
		{"a folder that is no longer built", map[string]string{"fs/deep/Makefile": "subdir-ccflags-y := -DDEEP\n"},
			classes{NoEffect: []string{"fs/deep/Makefile"}, Notes: []string{"fs/deep/er/x.c is no longer compiled; what it holds stays in the running kernel"}}},
		{"a comment in a makefile", map[string]string{"fs/proc/Makefile": "# comment\n" + procMakefile}, classes{NoEffect: []string{"fs/proc/Makefile"}}},
		{"a module that becomes built in", map[string]string{"net/Kbuild": "obj-y += only.o\n"}, classes{Problems: []string{
			"net/only.c: build-file: the makefile moves it from only to vmlinux"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := classify(t, tree, c.files)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSelectRust: Rust matters where the kernel has it.
func TestSelectRust(t *testing.T) {
	got, err := classify(t, toyKernel(t, "CONFIG_RUST=y\n"), map[string]string{"lib/oops.rs": "x"})
	if diff := cmp.Diff(classes{Problems: []string{"lib/oops.rs: not-kernel-code: Rust: not supported"}}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// TestNewSymbols: what the kernel's own conf makes of new symbols decides which
// files are compiled, and how.
func TestNewSymbols(t *testing.T) {
	tree := toyKernel(t, "")
	conf := filepath.Join(tree.Build, "scripts/kconfig/conf")
	script := `#!/bin/sh
[ "$1" = --olddefconfig ] && grep -q NEW "$srctree/fs/Kconfig" && [ "$2" = "$srctree/Kconfig" ] || exit 1
cat >>"$KCONFIG_CONFIG" <<'END'
CONFIG_NEW=y
# CONFIG_OTHER is not set
CONFIG_COUNT=12
CONFIG_NAME="new name"
CONFIG_PART=m
END
`
	if err := os.MkdirAll(filepath.Dir(conf), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"fs/super.c": "int s;\n", "fs/proc/new.c": "x", "fs/proc/other.c": "x",
		"fs/Kconfig":       moreToyFiles["fs/Kconfig"] + "config NEW\nconfig OTHER\nconfig COUNT\nconfig NAME\nconfig PART\n",
		"fs/proc/Makefile": "obj-y += cmdline.o\nobj-$(CONFIG_NEW) += new.o\nobj-$(CONFIG_OTHER) += other.o\n"}
	got, err := classify(t, tree, files)
	on := func(name, value string) string {
		return "fs/Kconfig: CONFIG_" + name + " is new, and " + value + " by its default in the running kernel's configuration: what the patch changes is compiled with it"
	}
	want := classes{Units: []string{"+fs/proc/new.o", "fs/super.o toyfs"}, NoEffect: []string{"fs/Kconfig", "fs/proc/other.c"}, Notes: []string{
		on("NEW", "y"),
		"fs/Kconfig: CONFIG_OTHER is new, and off by its default in the running kernel's configuration: code that depends on it is left out",
		on("COUNT", "12"), on("NAME", "new name"), on("PART", "m"),
		"fs/proc/other.c is not compiled because CONFIG_OTHER is off in the running kernel",
	}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// TestDefines: the patched side is compiled with the new symbols, the original
// is not.
func TestDefines(t *testing.T) {
	s := selector{selection: &selection{patched: map[string]kbuild.Unit{"b.o": {Object: "b.o", Args: []string{"cc", "b2.c"}}}}}
	for _, v := range []string{"y", "m", "12", "0x1f", "a name"} {
		s.turnOn("NEW", v)
	}
	a := kbuild.Unit{Object: "a.o", Args: []string{"cc", "a.c"}}
	defines := []string{"-DCONFIG_NEW=1", "-DCONFIG_NEW_MODULE=1", "-DCONFIG_NEW=12", "-DCONFIG_NEW=0x1f", `-DCONFIG_NEW="a name"`}
	if d := cmp.Diff(append([]string{"cc", "a.c"}, defines...), s.after(a).Args); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(append([]string{"cc", "b2.c"}, defines...), s.after(kbuild.Unit{Object: "b.o"}).Args); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"cc", "a.c"}, a.Args); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"CONFIG_NEW=y", "CONFIG_NEW=m", "CONFIG_NEW=12", "CONFIG_NEW=0x1f", `CONFIG_NEW="a name"`}, s.config); d != "" {
		t.Error(d)
	}
}

// TestForeignOptions: the tree was built by another command than make's.
func TestForeignOptions(t *testing.T) {
	tree := toyKernel(t, "")
	file := filepath.Join(tree.Build, "fs/proc/.cmdline.o.cmd")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), " -O2 ", " -O3 ")), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := classify(t, tree, map[string]string{"fs/proc/Makefile": "obj-y += cmdline.o new.o\n", "fs/proc/new.c": "x"})
	reason := ": build-file: the options of new and changed objects cannot be told: fs/proc/cmdline.c was built with -O3, and make would build it with -O2"
	if diff := cmp.Diff(classes{Problems: []string{"fs/proc/Makefile" + reason, "fs/proc/new.c" + reason}}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	// A file that needs no options is not concerned.
	got, err = classify(t, tree, map[string]string{"fs/proc/Makefile": "# comment\nobj-y += cmdline.o\n"})
	if diff := cmp.Diff(classes{NoEffect: []string{"fs/proc/Makefile"}}, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

func TestReachesBelow(t *testing.T) {
	base := "obj-y += a.o sub/\nifdef CONFIG_X\nobj-y += b.o\nendif\n"
	for name, c := range map[string]struct {
		now     string
		folders []string
		all     bool
	}{
		"nothing":              {now: base + "# comment\n"},
		"an object":            {now: base + "obj-y += c.o\n"},
		"a folder":             {now: base + "obj-y += c.o d/e/\n", folders: []string{"d/e"}},
		"a folder less":        {now: strings.ReplaceAll(base, "sub/", ""), folders: []string{"sub"}},
		"a continued line":     {now: base + "obj-y += c.o \\\n\td/\n", folders: []string{"d"}},
		"inherited options":    {now: base + "subdir-ccflags-y += -DX\n", all: true},
		"an exported variable": {now: base + "export FOO\n", all: true},
		"another makefile":     {now: base + "include $(srctree)/x.mk\n", all: true},
		"a condition":          {now: strings.ReplaceAll(base, "ifdef", "ifndef"), folders: []string{"sub"}},
	} {
		t.Run(name, func(t *testing.T) {
			folders, all := reachesBelow([]byte(base), []byte(c.now))
			slices.Sort(folders)
			if diff := cmp.Diff(c.folders, slices.Compact(folders)); diff != "" || all != c.all {
				t.Errorf("all %v: %s", all, diff)
			}
		})
	}
}

// TestRenamedFileKeepsItsLines: the text that a renamed file shares with the
// old one keeps its line numbers.
func TestRenamedFileKeepsItsLines(t *testing.T) {
	tree := toyKernel(t, "")
	content := []byte("int before;\nint inode;\n")
	files := []touched{
		{path: "fs/Makefile", content: ptr("obj-y += proc/ deep/\nobj-m += toyfs.o\ntoyfs-y := super.o sub/node.o\n")},
		{path: "fs/sub/inode.c"},
		{path: "fs/sub/node.c", content: &content, pinned: content, isNew: true},
	}
	if _, err := selectUnits(t.Context(), tree, files, "", filepath.Join(t.TempDir(), "work")); err != nil {
		t.Fatal(err)
	}
	want := diff.Between([]byte("int inode;\n"), content)
	if d := cmp.Diff(want.Edits, files[2].edits); d != "" || string(files[2].pinned) != string(want.Pin()) || string(files[2].pinned) == string(content) {
		t.Errorf("%s; pinned:\n%s", d, files[2].pinned)
	}
}

func ptr(s string) *[]byte {
	b := []byte(s)
	return &b
}
