package kbuild

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDryRun(t *testing.T) {
	f, err := os.Open("testdata/dryrun-6.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	db, err := ParseDryRun(f, "/src/linux", "/out")
	if err != nil {
		t.Fatal(err)
	}
	want := []Unit{
		{
			Source: "arch/x86/lib/memcpy_64.S", Object: "arch/x86/lib/memcpy_64.o",
			Args: []string{
				"gcc-12", "-Wp,-MMD,arch/x86/lib/.memcpy_64.o.d", "-D__KERNEL__", "-D__ASSEMBLY__", "-m64",
				"-c", "-o", "arch/x86/lib/memcpy_64.o", "/src/linux/arch/x86/lib/memcpy_64.S",
			},
			Objtool: []string{"./tools/objtool/objtool", "--orc"},
		},
		{
			Source: "drivers/tty/vt/defkeymap.c", Generated: true, Object: "drivers/tty/vt/defkeymap.o",
			Args: []string{
				"gcc-12", "-Wp,-MMD,drivers/tty/vt/.defkeymap.o.d", "-D__KERNEL__", "-m64", "-mcmodel=kernel",
				`-DKBUILD_MODFILE="drivers/tty/vt/defkeymap"`, `-DKBUILD_MODNAME="defkeymap"`,
				"-c", "-o", "drivers/tty/vt/defkeymap.o", "drivers/tty/vt/defkeymap.c",
			},
			Modfile: "drivers/tty/vt/defkeymap",
		},
		{
			Source: "fs/proc/cmdline.c", Object: "fs/proc/cmdline.o",
			Args: []string{
				"gcc-12", "-Wp,-MMD,fs/proc/.cmdline.o.d", "-nostdinc", "-I/src/linux/include", "-I./include",
				"-include", "/src/linux/include/linux/kconfig.h", "-D__KERNEL__", "-fmacro-prefix-map=/src/linux/=",
				"-m64", "-mcmodel=kernel", "-O2", "-I", "/src/linux/fs/proc", "-I", "./fs/proc",
				`-DKBUILD_MODFILE="fs/proc/proc"`, `-DKBUILD_BASENAME="cmdline"`, `-DKBUILD_MODNAME="proc"`,
				"-D__KBUILD_MODNAME=kmod_proc", "-c", "-o", "fs/proc/cmdline.o", "/src/linux/fs/proc/cmdline.c",
			},
			Modfile: "fs/proc/proc",
			Objtool: []string{"./tools/objtool/objtool", "--hacks=jump_label", "--orc"},
		},
		{
			Source: "net/x/both.c", Object: "net/x/both.o",
			Args: []string{
				"gcc-12", "-Wp,-MMD,net/x/.both.o.d", "-D__KERNEL__", "-m64", "-mcmodel=kernel", "-DMODULE",
				`-DKBUILD_MODNAME="one:two"`, "-c", "-o", "net/x/both.o", "/src/linux/net/x/both.c",
			},
			Modules: []string{"one", "two"},
		},
		{
			Source: "net/x/x-y.c", Object: "net/x/x-y.o",
			Args: []string{
				"gcc-12", "-Wp,-MMD,net/x/.x-y.o.d", "-D__KERNEL__", "-m64", "-mcmodel=kernel", "-DMODULE",
				`-DKBUILD_BASENAME="x_y"`, `-DKBUILD_MODNAME="x_y"`, "-D__KBUILD_MODNAME=kmod_x_y",
				"-c", "-o", "net/x/x-y.o", "/src/linux/net/x/x-y.c",
			},
			Modules: []string{"x_y"},
			Objtool: []string{"./tools/objtool/objtool", "--orc", "--module"},
		},
	}
	if diff := cmp.Diff(want, db.Units()); diff != "" {
		t.Errorf("units:\n%s", diff)
	}
	if diff := cmp.Diff(want[2:3], db.UnitsOf("fs/proc/cmdline.c")); diff != "" {
		t.Error(diff)
	}
	if got := db.UnitsOf("drivers/tty/vt/defkeymap.c"); got != nil {
		t.Errorf("a generated source is not a file of the tree: %v", got)
	}

	path := filepath.Join(t.TempDir(), "db")
	if err := db.Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadDB(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, loaded.Units()); diff != "" {
		t.Errorf("after save and load:\n%s", diff)
	}
}

func TestParseDryRunErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "make: Nothing to be done for 'all'.\n", "it compiles nothing"},
		{"shell", "gcc -c -o a.o -DX=$(date) a.c\n", "dry run:1: the command for a.o needs a shell"},
		{"quote", "gcc -c -o a.o 'a.c\n", "dry run:1: unterminated quote"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseDryRun(strings.NewReader(c.text), "/src", "/src")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestDecodeDBDamaged(t *testing.T) {
	db, err := ParseDryRun(strings.NewReader("gcc -c -o a.o -DX a.c ; x/objtool/objtool --orc a.o\n"), "/src", "/src")
	if err != nil {
		t.Fatal(err)
	}
	data := db.Encode()
	for n := range data {
		if _, err := DecodeDB(data[:n]); !errors.Is(err, errDamaged) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
		bad := bytes.Clone(data)
		bad[n] ^= 0x41
		if _, err := DecodeDB(bad); !errors.Is(err, errDamaged) {
			t.Fatalf("byte %d changed: %v", n, err)
		}
	}
}

// FuzzDecodeDB seals any body with a right checksum: the decoder must refuse
// it or return something usable.
func FuzzDecodeDB(f *testing.F) {
	db, err := ParseDryRun(strings.NewReader("gcc -c -o a.o -DX a.c\n"), "/src", "/src")
	if err != nil {
		f.Fatal(err)
	}
	data := db.Encode()
	f.Add(data[len(dbMagic) : len(data)-4])
	f.Fuzz(func(t *testing.T, body []byte) {
		e := encoder{b: append([]byte(dbMagic), body...)}
		if d, err := DecodeDB(e.seal()); err == nil {
			d.Units()
		}
		e = encoder{b: append([]byte(depsMagic), body...)}
		if x, err := decodeDeps(e.seal()); err == nil {
			x.Readers("x")
		}
	})
}

func TestParseCmdFile(t *testing.T) {
	data, err := os.ReadFile("testdata/cmdline.o.cmd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"savedcmd_", "cmd_"} {
		f, err := parseCmdFile(bytes.Replace(data, []byte("savedcmd_"), []byte(name), 1))
		if err != nil {
			t.Fatal(err)
		}
		var deps []string
		for _, d := range f.deps {
			deps = append(deps, string(d))
		}
		want := []string{"/src/linux/include/linux/kconfig.h", "include/generated/autoconf.h", "/src/linux/fs/proc/internal.h"}
		if diff := cmp.Diff(want, deps); diff != "" {
			t.Error(diff)
		}
		if string(f.source) != "/src/linux/fs/proc/cmdline.c" {
			t.Errorf("source %q", f.source)
		}
		tree := &Tree{Source: "/src/linux", Build: "/out"}
		u, err := tree.unitOfCmd("fs/proc/cmdline.o", data)
		if err != nil {
			t.Fatal(err)
		}
		wantUnit := Unit{
			Source: "fs/proc/cmdline.c", Object: "fs/proc/cmdline.o",
			Args: []string{
				"gcc", "-Wp,-MMD,fs/proc/.cmdline.o.d", "-nostdinc", "-I/src/linux/include", "-I./include",
				"-include", "/src/linux/include/linux/kconfig.h", "-D__KERNEL__", "-m64", "-mcmodel=kernel",
				`-D"STR(s)=#s"`, `-DPRICE="$1"`, `-DKBUILD_MODFILE="fs/proc/proc"`, `-DKBUILD_MODNAME="proc"`,
				"-c", "-o", "fs/proc/cmdline.o", "/src/linux/fs/proc/cmdline.c",
			},
			Modfile: "fs/proc/proc",
			Objtool: []string{"./tools/objtool/objtool", "--hacks=jump_label", "--orc"},
		}
		if diff := cmp.Diff(wantUnit, u); diff != "" {
			t.Error(diff)
		}
	}
	if _, err := parseCmdFile([]byte("#!/bin/sh\n")); !errors.Is(err, errNotCmd) {
		t.Errorf("a script: %v", err)
	}
}

func TestSpecial(t *testing.T) {
	kernel := []string{"gcc", "-D__KERNEL__", "-m64", "-mcmodel=kernel"}
	other := func(args ...string) []string { return append(append([]string{}, kernel...), args...) }
	for _, c := range []struct {
		name string
		unit Unit
		want string
	}{
		{"kernel", Unit{Source: "fs/exec.c", Object: "fs/exec.o", Args: kernel}, ""},
		{"module", Unit{Source: "fs/x.c", Object: "fs/x.o", Args: other("-DMODULE")}, ""},
		{"kernel code beside the vDSO", Unit{Source: "arch/x86/entry/vdso/vma.c", Object: "arch/x86/entry/vdso/vma.o", Args: kernel}, ""},
		{"vDSO", Unit{Source: "arch/x86/entry/vdso/vgetcpu.c", Object: "arch/x86/entry/vdso/vgetcpu.o", Args: other("-mcmodel=small", "-fPIC")}, "vDSO: runs in user space"},
		{"32-bit vDSO", Unit{Source: "arch/x86/entry/vdso/vdso32/vclock_gettime.c", Object: "arch/x86/entry/vdso/vdso32/vclock_gettime.o", Args: []string{"gcc", "-D__KERNEL__", "-m32"}}, "vDSO: runs in user space"},
		{"real mode", Unit{Source: "arch/x86/realmode/rm/wakemain.c", Object: "arch/x86/realmode/rm/wakemain.o", Args: []string{"gcc", "-D__KERNEL__", "-m16"}}, "real-mode code: runs before the kernel and on wake-up"},
		{"boot", Unit{Source: "arch/x86/boot/main.c", Object: "arch/x86/boot/main.o", Args: []string{"gcc", "-m16"}}, "boot code: runs before the kernel"},
		{"purgatory copy of a library", Unit{Source: "lib/crypto/sha256.c", Object: "arch/x86/purgatory/sha256.o", Args: []string{"gcc", "-D__KERNEL__", "-m64", "-mcmodel=small"}}, "purgatory: runs between two kernels on kexec"},
		{"EFI stub", Unit{Source: "lib/ctype.c", Object: "drivers/firmware/efi/libstub/lib-ctype.o", Args: []string{"gcc", "-D__KERNEL__", "-m64", "-mcmodel=small"}}, "EFI stub: runs before the kernel"},
		{"host program", Unit{Source: "scripts/mod/modpost.c", Object: "scripts/mod/modpost.o", Args: []string{"gcc"}}, "build tool: runs on the machine that builds the kernel"},
		{"host program elsewhere", Unit{Source: "lib/gen.c", Object: "lib/gen.o", Args: []string{"gcc"}}, "build tool: runs on the machine that builds the kernel"},
		{"tool", Unit{Source: "tools/x.c", Object: "tools/x.o", Args: []string{"gcc"}}, "user-space tool: not part of the kernel"},
		{"assembly", Unit{Source: "arch/x86/lib/memcpy_64.S", Object: "arch/x86/lib/memcpy_64.o", Args: []string{"gcc", "-D__KERNEL__", "-m64"}}, "assembly: ftrace cannot redirect functions written in assembly"},
		{"unknown place", Unit{Source: "lib/x.c", Object: "lib/x.o", Args: []string{"gcc", "-D__KERNEL__", "-m64"}}, "not compiled as kernel code (-mcmodel=kernel is missing)"},
		{"Rust", Unit{Source: "rust/x.rs", Object: "rust/x.o", Args: kernel}, "Rust: not supported"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, c.unit.Special()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig(strings.NewReader("#\n# x\nCONFIG_A=y\nCONFIG_B=m\n# CONFIG_C is not set\nCONFIG_S=\"gcc \\\"12\\\" a\\\\b\"\nCONFIG_N=0x10\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, n := range []string{"CONFIG_A", "CONFIG_B", "CONFIG_C", "CONFIG_S", "CONFIG_N"} {
		got[n] = c.Get(n)
	}
	want := map[string]string{"CONFIG_A": "y", "CONFIG_B": "m", "CONFIG_C": "", "CONFIG_S": `gcc "12" a\b`, "CONFIG_N": "0x10"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !c.Bool("CONFIG_A") || c.Bool("CONFIG_B") || c.Bool("CONFIG_C") {
		t.Error("Bool is y only")
	}
	_, err = ParseConfig(strings.NewReader("CONFIG_A=y\nnonsense\nB=1\n"))
	if diff := cmp.Diff(".config:2: not an assignment: \"nonsense\"\n.config:3: not an assignment: \"B=1\"", err.Error()); diff != "" {
		t.Error(diff)
	}
}

func TestParseDepfile(t *testing.T) {
	got := parseDepfile([]byte("x.o: fs/a.c include/b.h \\\n  with\\ blank.h \\\n price$$.h \\#.h\n"))
	want := []string{"fs/a.c", "include/b.h", "with blank.h", "price$.h", "#.h"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseSymvers(t *testing.T) {
	got, err := parseSymvers([]byte("#SYMVER vfs_read 0x0000abcd\n\n__crc_old = 0x12345678;\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]uint32{"vfs_read": 0xabcd, "old": 0x12345678}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := parseSymvers([]byte("nonsense\n")); err == nil || err.Error() != `symbol versions: genksyms printed "nonsense"` {
		t.Errorf("nonsense: %v", err)
	}
}
