package kbuild

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// toyKbuild is Kbuild in small, with files for it to build.
func toyKbuild(t *testing.T) map[string]string {
	t.Helper()
	a, err := txtar.ParseFile("../testdata/toykernel.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range a.Files {
		files[f.Name] = string(f.Data)
	}
	return files
}

// toyKernel is a toy tree with the toy Kbuild, built by it as far as .cmd files
// go.
func toyKernel(t *testing.T, l layout) *Tree {
	t.Helper()
	tree := toyTree(t, l)
	makefile := read(t, filepath.Join(tree.Build, "Makefile"))
	write(t, tree.Source, toyKbuild(t))
	write(t, tree.Build, map[string]string{"include/config/auto.conf": "CONFIG_X=y\n", "include/config/auto.conf.cmd": "", "tools/objtool/objtool": "tool"})
	if l.build != "linux" {
		write(t, tree.Build, map[string]string{"Makefile": string(makefile)})
	}
	res, err := tree.DryRun(t.Context(), DryRunJob{Work: filepath.Join(t.TempDir(), "work"), Deep: []string{"fs", "init", "net"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range res.Units {
		text := strings.ReplaceAll(strings.Join(u.Args, " "), `"`, `'"'`)
		write(t, tree.Build, map[string]string{
			u.Object:          "",
			cmdPath(u.Object): fmt.Sprintf("savedcmd_%[1]s := %[2]s\n\nsource_%[1]s := %[3]s\n\ndeps_%[1]s := \\\n\n", u.Object, text, u.Args[len(u.Args)-1]),
		})
	}
	return tree
}

// brief is a unit in one line: object, module, and options of the makefiles.
func brief(units []Unit) []string {
	var out []string
	for _, u := range units {
		line := u.Object + " " + u.Module()
		for _, a := range u.Args {
			if strings.HasPrefix(a, "-D") && a != "-D__KERNEL__" && a != "-DMODULE" && !strings.Contains(a, "MODNAME") {
				line += " " + a
			}
		}
		out = append(out, line)
	}
	return out
}

func TestDryRun(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			tree := toyKernel(t, l)
			for _, c := range []struct {
				name          string
				files         map[string]*[]byte
				folders, deep []string
				want          []string
				noRule        []string
			}{
				{name: "nothing changed", folders: []string{"fs/proc", "fs", "net"},
					want: []string{"fs/proc/cmdline.o ", "fs/sub/inode.o toyfs", "fs/super.o toyfs", "net/only.o only"}},
				{name: "all below", deep: []string{"fs"},
					want: []string{"fs/deep/er/x.o  -DDEEP", "fs/proc/cmdline.o ", "fs/sub/inode.o toyfs", "fs/super.o toyfs"}},
				{name: "a folder between", folders: []string{"fs/deep/er", "fs"},
					want: []string{"fs/deep/er/x.o  -DDEEP", "fs/sub/inode.o toyfs", "fs/super.o toyfs"}},
				{name: "a new file in the kernel", folders: []string{"fs/proc"},
					files: map[string]*[]byte{"fs/proc/Makefile": content("obj-y += cmdline.o new.o\nCFLAGS_new.o := -DNEW=1\n"), "fs/proc/new.c": content("int n;\n")},
					want:  []string{"fs/proc/cmdline.o ", "fs/proc/new.o  -DNEW=1"}},
				{name: "a new file in a module", folders: []string{"fs"},
					files: map[string]*[]byte{"fs/Makefile": content(toyKbuild(t)["fs/Makefile"] + "toyfs-y += sub/new.o\n"), "fs/sub/new.c": content("int n;\n")},
					want:  []string{"fs/sub/inode.o toyfs", "fs/sub/new.o toyfs", "fs/super.o toyfs"}},
				{name: "a new folder", folders: []string{"fs", "fs/new"},
					files: map[string]*[]byte{"fs/Makefile": content("obj-y += new/\n"), "fs/new/Makefile": content("obj-y := n.o m/n.o\n"),
						"fs/new/n.c": content("int n;\n"), "fs/new/m/n.c": content("int m;\n")},
					want: []string{"fs/new/m/n.o ", "fs/new/n.o "}},
				{name: "a new file that is off", folders: []string{"fs/proc"},
					files: map[string]*[]byte{"fs/proc/Makefile": content("obj-$(CONFIG_NEW) += new.o\n"), "fs/proc/new.c": content("int n;\n"), "Kconfig": content("config NEW\n\tdefault y\n")}},
				{name: "a removed file", folders: []string{"fs"},
					files: map[string]*[]byte{"fs/Makefile": content("obj-m += toyfs.o\ntoyfs-y := super.o\n"), "fs/sub/inode.c": nil},
					want:  []string{"fs/super.o toyfs"}},
				{name: "a removed file that the makefile lists", folders: []string{"fs"},
					files: map[string]*[]byte{"fs/sub/inode.c": nil}, want: []string{"fs/super.o toyfs"}, noRule: []string{"fs/sub/inode.c"}},
				{name: "other options below", deep: []string{"fs/deep"},
					files: map[string]*[]byte{"fs/deep/Makefile": content("subdir-ccflags-y := -DDEEPER\nobj-y += er/\n")},
					want:  []string{"fs/deep/er/x.o  -DDEEPER"}},
			} {
				t.Run(c.name, func(t *testing.T) {
					// A Kconfig file from the future would make Kbuild remake
					// the configuration.
					later := time.Now().Add(time.Hour)
					if err := os.Chtimes(filepath.Join(tree.Source, "Kconfig"), later, later); err != nil {
						t.Fatal(err)
					}
					before := listing(t, tree.Source, tree.Build)
					res, err := tree.DryRun(t.Context(), DryRunJob{Work: filepath.Join(t.TempDir(), "work"), Files: c.files, Folders: c.folders, Deep: c.deep})
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(before, listing(t, tree.Source, tree.Build)); diff != "" {
						t.Errorf("the tree has changed:\n%s", diff)
					}
					if diff := cmp.Diff(c.want, brief(res.Units)); diff != "" {
						t.Error(diff)
					}
					if diff := cmp.Diff(c.noRule, res.NoRule); diff != "" {
						t.Error(diff)
					}
				})
			}
		})
	}
}

// TestDryRunIsRecorded: without a change, the answer is what the tree has
// recorded.
func TestDryRunIsRecorded(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			tree := toyKernel(t, l)
			for dir, scope := range map[string]Scope{"fs": OneMakefile, "fs/proc": OneMakefile, "fs/deep": Everything, "net": OneMakefile, "fs/none": OneMakefile} {
				want, err := tree.UnitsIn(dir, scope)
				if err != nil {
					t.Fatal(err)
				}
				job := DryRunJob{Work: filepath.Join(t.TempDir(), "work")}
				switch {
				case dir == "fs/none":
				case scope == Everything:
					job.Deep = []string{dir}
				default:
					job.Folders = []string{dir}
				}
				if job.Folders == nil && job.Deep == nil {
					if len(want) > 0 {
						t.Errorf("%s: %v", dir, brief(want))
					}
					continue
				}
				res, err := tree.DryRun(t.Context(), job)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, res.Units); diff != "" || len(want) == 0 {
					t.Errorf("%s: %d units: %s", dir, len(want), diff)
				}
			}
		})
	}
}

func TestDryRunRefuses(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			tree := toyKernel(t, l)
			_, err := tree.DryRun(t.Context(), DryRunJob{Work: filepath.Join(t.TempDir(), "work"), Folders: []string{"fs/proc"},
				Files: map[string]*[]byte{"fs/proc/Makefile": content("obj-y += cmdline.o\nobj-y\n")}})
			var fault *MakefileError
			if !errors.As(err, &fault) || fault.First != "fs/proc/Makefile:2: *** missing separator.  Stop." {
				t.Errorf("a makefile that is wrong: %v", err)
			}
			_, err = tree.DryRun(t.Context(), DryRunJob{Work: filepath.Join(t.TempDir(), "work"), Folders: []string{"include"}})
			if err == nil || err.Error() != "dry run: include: no Kbuild and no Makefile" {
				t.Errorf("no makefile: %v", err)
			}
		})
	}
}

func TestGoverningFolder(t *testing.T) {
	tree := toyKernel(t, layouts[1])
	files := map[string]*[]byte{"fs/sub/Makefile": content(""), "net/Kbuild": nil, "net/Makefile": nil, "new/Kbuild": content("")}
	for file, want := range map[string]string{
		"fs/proc/x.c": "fs/proc", "fs/super.c": "fs", "init/x/y/z.c": "init", "none/x.c": "", "x.c": "",
		"fs/sub/x.c": "fs/sub", "net/x.c": "", "new/x.c": "new",
	} {
		if got := tree.GoverningFolder(file, files); got != want {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

func TestReadComplaints(t *testing.T) {
	noRule, fault := readComplaints(`make[2]: *** No rule to make target 'fs/gone.o', needed by 'fs/built-in.a'.
make[2]: *** No rule to make target './fs/b.c', needed by 'fs/b.o'.
make[2]: Target 'fs/' not remade because of errors.
make[1]: *** [scripts/Makefile.build:478: fs] Error 2
make: warning:  Clock skew detected.  Your build may be incomplete.
`)
	if diff := cmp.Diff([]string{"fs/b.c", "fs/gone.o"}, noRule); diff != "" || fault != "" {
		t.Errorf("%s, fault %q", diff, fault)
	}
	if _, fault := readComplaints("fs/Makefile:3: *** missing separator.  Stop.\nmake: *** x\n"); fault != "fs/Makefile:3: *** missing separator.  Stop." {
		t.Errorf("fault %q", fault)
	}
}

// TestSpecialReaders: who reads a file and cannot be livepatched.
func TestSpecialReaders(t *testing.T) {
	tree := toyTree(t, layouts[1])
	write(t, tree.Source, map[string]string{
		"arch/x86/entry/calling.h": "", "arch/x86/entry/entry.S": "#include \"calling.h\"\n", "lib/vdso/get.c": "",
		"arch/x86/entry/vdso/v.c": "#include \"../../../../lib/vdso/get.c\"\n",
	})
	cmds := []string{
		"gcc -D__KERNEL__ -m64 -c -o arch/x86/entry/entry.o " + tree.Source + "/arch/x86/entry/entry.S",
		"gcc -D__KERNEL__ -m64 -mcmodel=small -c -o arch/x86/entry/vdso/v.o " + tree.Source + "/arch/x86/entry/vdso/v.c",
		"gcc -I" + tree.Source + "/include -D__KERNEL__ -m64 -mcmodel=kernel -c -o fs/proc/cmdline.o " + tree.Source + "/fs/proc/cmdline.c",
	}
	db, err := ParseDryRun(strings.NewReader(strings.Join(cmds, "\n")), tree.Source, tree.Build)
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := OpenTree(tree.Build, Options{DB: db})
	if err != nil {
		t.Fatal(err)
	}
	for i, object := range []string{"arch/x86/entry/entry.o", "arch/x86/entry/vdso/v.o", "fs/proc/cmdline.o"} {
		dep := []string{"arch/x86/entry/calling.h", "lib/vdso/get.c", "include/linux/where.h"}[i]
		source := cmds[i][strings.LastIndex(cmds[i], " ")+1:]
		write(t, tree.Build, map[string]string{cmdPath(object): fmt.Sprintf("savedcmd_%[1]s := %[2]s\n\nsource_%[1]s := %[3]s\n\ndeps_%[1]s := \\\n  %[4]s/%[5]s \\\n\n", object, cmds[i], source, tree.Source, dep)})
	}
	for name, tr := range map[string]*Tree{"prepared": prepared, "built": tree} {
		for file, want := range map[string]string{
			"arch/x86/entry/calling.h": "arch/x86/entry/entry.o", "lib/vdso/get.c": "arch/x86/entry/vdso/v.o", "include/linux/where.h": "", "fs/none.h": "",
		} {
			units, err := tr.SpecialReaders(file, "")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, u := range units {
				got = append(got, u.Object)
			}
			if !slices.Equal(got, strings.Fields(want)) {
				t.Errorf("%s: %s: %v, want %s", name, file, got, want)
			}
		}
	}
}
