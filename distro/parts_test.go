package distro

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sourceFiles are as many files of a kernel's source as this package looks at.
var sourceFiles = map[string]string{
	"Makefile":                  "# SPDX-License-Identifier: GPL-2.0\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 117\nEXTRAVERSION =\n",
	"Kconfig":                   "",
	"scripts/Kbuild.include":    "",
	"init/main.c":               "",
	"include/linux/sched.h":     "",
	"fs/Kconfig":                "",
	"fs/proc/Makefile":          "",
	"fs/proc/internal.h":        "",
	"Documentation/Kconfig":     "",
	"Documentation/index.rst":   "",
	"tools/objtool/check.c":     "",
	"tools/__pycache__/a.pyc":   "",
	".git/hooks/Makefile":       "",
	"localversion-rt":           "",
	"arch/x86/entry/common.c":   "",
	"arch/arm64/include/asm.h":  "",
	"arch/arm64/kernel/entry.S": "",
}

// newParts makes the parts of a kernel.
func newParts(t *testing.T) Parts {
	t.Helper()
	dir := t.TempDir()
	for name, text := range sourceFiles {
		write(t, filepath.Join(dir, "src", name), text)
	}
	write(t, filepath.Join(dir, "config"), stock)
	write(t, filepath.Join(dir, "symvers"), "0x1 printk")
	return Parts{Source: filepath.Join(dir, "src"), Config: filepath.Join(dir, "config"), Symvers: filepath.Join(dir, "symvers"), Release: testRelease}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// fromParts asks for a tree as FromParts does, on a host that has all needs.
func (a *archive) fromParts(ctx context.Context, parts Parts, o Options) (*Tree, error) {
	o.Cache, o.Jobs = a.cache, 3
	h, err := a.host()
	if err != nil {
		return nil, err
	}
	p, err := newPreparer(o, "parts", h)
	if err != nil {
		return nil, err
	}
	return p.fromParts(ctx, parts)
}

func TestFromParts(t *testing.T) {
	a := newArchive(t)
	parts := newParts(t)
	got, err := a.fromParts(t.Context(), parts, Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(a.cache, "kernels", "parts", testRelease+"_"+got.Version)
	vars := []string{"ARCH=x86", "KERNELRELEASE=" + testRelease, "CC=x86_64-linux-gnu-gcc-12", "HOSTRUSTC=false", "RUSTC=false",
		"PAHOLE=" + dir + "/build/pahole"}
	want := &Tree{Release: testRelease, Version: got.Version, Source: parts.Source, Build: dir + "/build", Config: dir + "/build/.config",
		Symvers: dir + "/build/Module.symvers", CC: "x86_64-linux-gnu-gcc-12", MakeArgs: vars, Env: got.Env, Commands: dir + "/commands.zst"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	all := "make  -C " + parts.Source + " O=" + want.Build + " " + strings.Join(vars, " ")
	calls := []string{all + " olddefconfig", all + " -j3 prepare modules_prepare", all + " -n -k vmlinux modules"}
	if diff := cmp.Diff(calls, a.calls("")); diff != "" {
		t.Error(diff)
	}
	symvers, err := os.ReadFile(got.Symvers)
	if err != nil || string(symvers) != "0x1 printk" {
		t.Errorf("Module.symvers: %q, %v", symvers, err)
	}
	again, err := a.fromParts(t.Context(), parts, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, again); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(calls, a.calls("")); diff != "" {
		t.Errorf("a prepared tree was prepared again:\n%s", diff)
	}
	// Another kernel's tree leaves the first as it is.
	touch("include/linux/sched.h")(t, &parts)
	changed, err := a.fromParts(t.Context(), parts, Options{})
	if err != nil {
		t.Fatal(err)
	}
	parts.Release = "6.12.117-other"
	other, err := a.fromParts(t.Context(), parts, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Build == changed.Build || other.Build == changed.Build {
		t.Errorf("one tree for several kernels: %s, %s, %s", got.Build, changed.Build, other.Build)
	}
	if _, err := os.Stat(got.Config); err != nil {
		t.Error(err)
	}
}

// A tree is used again until something changes that it depends on.
func TestPartsChange(t *testing.T) {
	tests := []struct {
		name   string
		change func(t *testing.T, p *Parts)
		same   bool
	}{
		{"nothing", func(*testing.T, *Parts) {}, true},
		{"configuration", func(t *testing.T, p *Parts) { write(t, p.Config, stock+"CONFIG_LOOP=m\n") }, false},
		{"configuration, another file of the same text", func(t *testing.T, p *Parts) {
			p.Config = filepath.Join(t.TempDir(), "c")
			write(t, p.Config, stock)
		}, true},
		{"symbol versions", func(t *testing.T, p *Parts) { write(t, p.Symvers, "0x2 printk") }, false},
		{"another source", func(t *testing.T, p *Parts) { p.Source = newParts(t).Source }, false},
		{"compiled file", touch("init/main.c"), true},
		{"compiled file of the architecture", touch("arch/x86/entry/common.c"), false},
		{"folder of no interest", touch("Documentation/index.rst"), true},
		{"private header", touch("fs/proc/internal.h"), true},
		{"python's cache", touch("tools/__pycache__/a.pyc"), true},
		{"git", touch(".git/hooks/Makefile"), true},
		{"header", touch("include/linux/sched.h"), false},
		{"Makefile", touch("fs/proc/Makefile"), false},
		{"Kconfig", touch("fs/Kconfig"), false},
		{"Kconfig outside the generators", touch("Documentation/Kconfig"), false},
		{"local version", touch("localversion-rt"), false},
		{"objtool", touch("tools/objtool/check.c"), false},
		{"new header", func(t *testing.T, p *Parts) { write(t, filepath.Join(p.Source, "include/linux/new.h"), "") }, false},
		{"removed Makefile", func(t *testing.T, p *Parts) {
			if err := os.Remove(filepath.Join(p.Source, "fs/proc/Makefile")); err != nil {
				t.Fatal(err)
			}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts := newParts(t)
			before, err := parts.key()
			if err != nil {
				t.Fatal(err)
			}
			tt.change(t, &parts)
			after, err := parts.key()
			if err != nil {
				t.Fatal(err)
			}
			if same := before == after; same != tt.same {
				t.Errorf("same tree: %v, want %v", same, tt.same)
			}
		})
	}
}

// touch returns a change of a file's time.
func touch(name string) func(*testing.T, *Parts) {
	return func(t *testing.T, p *Parts) {
		now := time.Now().Add(time.Minute)
		if err := os.Chtimes(filepath.Join(p.Source, name), now, now); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIdentifyIsStable(t *testing.T) {
	p := newParts(t)
	var sums []string
	for range 3 {
		h := sha256.New()
		if err := identify(h, p.Source); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, fmt.Sprintf("%x", h.Sum(nil)))
	}
	if sums[0] != sums[1] || sums[0] != sums[2] {
		t.Errorf("%q", sums)
	}
}

func TestPartsRefused(t *testing.T) {
	const notClean = ", so make cannot use it for another build: give a clean source tree (unpack it anew, or git worktree add), or --kernel "
	tests := []struct {
		name   string
		change func(t *testing.T, p *Parts)
		err    string
	}{
		{"no source", func(t *testing.T, p *Parts) { p.Source += "-gone" }, "source tree: lstat "},
		{"headers only", func(t *testing.T, p *Parts) {
			if err := os.RemoveAll(filepath.Join(p.Source, "init")); err != nil {
				t.Fatal(err)
			}
		}, "is no kernel source tree: it has no init/main.c"},
		{"configured in place", func(t *testing.T, p *Parts) { write(t, filepath.Join(p.Source, ".config"), stock) }, "(it has .config)" + notClean},
		{"built in place", func(t *testing.T, p *Parts) {
			write(t, filepath.Join(p.Source, "include/config/auto.conf"), "")
		}, "(it has include/config)" + notClean},
		{"generated headers", func(t *testing.T, p *Parts) {
			write(t, filepath.Join(p.Source, "arch/x86/include/generated/x.h"), "")
		}, "(it has arch/x86/include/generated)" + notClean},
		{"path", func(t *testing.T, p *Parts) {
			to := filepath.Join(filepath.Dir(p.Source), "a b")
			if err := os.Rename(p.Source, to); err != nil {
				t.Fatal(err)
			}
			p.Source = to
		}, "the kernel's Makefile cannot work in a path with ' '"},
		{"release", func(t *testing.T, p *Parts) { p.Release = "../6.12" }, `"../6.12" is no release of a kernel`},
		{"long release", func(t *testing.T, p *Parts) { p.Release = strings.Repeat("6", 65) }, "is no release of a kernel"},
		{"no configuration", func(t *testing.T, p *Parts) { p.Config += "-gone" }, "configuration: open "},
		{"no symbol versions", func(t *testing.T, p *Parts) { p.Symvers += "-gone" }, "symvers-gone: no such file"},
		{"other version", func(t *testing.T, p *Parts) {
			write(t, p.Config, strings.ReplaceAll(stock, "6.12.117", "6.12.118"))
		}, "is that of Linux 6.12.118, but the source tree "},
		{"compiler", func(t *testing.T, p *Parts) {
			write(t, p.Config, strings.ReplaceAll(stock, "12.2.0-14", "12.2.0-13"))
		}, "but x86_64-linux-gnu-gcc-12 is \"x86_64-linux-gnu-gcc-12 (Debian 12.2.0-14"},
		{"rust", func(t *testing.T, p *Parts) { write(t, p.Config, stock+"CONFIG_RUST=y\n") }, "CONFIG_RUST=y"},
	}
	a := newArchive(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parts := newParts(t)
			tt.change(t, &parts)
			_, err := a.fromParts(t.Context(), parts, Options{})
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%v", err)
			}
			if calls := a.calls("make"); calls != nil {
				t.Errorf("make was called: %q", calls)
			}
			if left := a.entries(t); left != nil {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// What fails later leaves nothing, and the source as it was.
func TestPartsFail(t *testing.T) {
	a := newArchive(t)
	parts := newParts(t)
	a.put(t, "make-config", "CONFIG_KASAN=y\n")
	_, err := a.fromParts(t.Context(), parts, Options{})
	want := "make changed the kernel's configuration, so objects compiled here would not match it:\n  CONFIG_KASAN is y, the kernel has not set"
	if err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
	if left := a.entries(t); left != nil {
		t.Errorf("left behind: %q", left)
	}
	for name, text := range sourceFiles {
		if b, err := os.ReadFile(filepath.Join(parts.Source, name)); err != nil || string(b) != text {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func TestConfigRelease(t *testing.T) {
	tests := []struct{ text, want string }{
		{stock, "6.12.117"},
		{"#\n# Linux/x86 6.1.170 Kernel Configuration\n#\nCONFIG_LOCALVERSION=\"-mine\"\n", "6.1.170-mine"},
		{"# Linux/x86_64 5.14.0-503.el9.x86_64 Kernel Configuration\nCONFIG_LOCALVERSION=\"\"\n", "5.14.0-503.el9.x86_64"},
		{"CONFIG_LOCALVERSION=\"-mine\"\n", ""},
	}
	for _, tt := range tests {
		got, ok := ConfigRelease(tt.text)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q, %v", tt.text, got, ok)
		}
	}
}

// A configuration as Debian installs it in /boot, without keys.
func TestConfigWithoutKeys(t *testing.T) {
	a := newArchive(t)
	a.put(t, "make-config", "CONFIG_BUILD_SALT=\"\"\nCONFIG_MODULE_SIG_ALL=y\nCONFIG_MODULE_SIG_KEY=\"certs/signing_key.pem\"\nCONFIG_SYSTEM_TRUSTED_KEYS=\"\"\n")
	tree, err := a.fromParts(t.Context(), newParts(t), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string(nil), tree.Warnings); diff != "" {
		t.Error(diff)
	}
	a.put(t, "make-config", "CONFIG_MODULE_SIG=y\n")
	if _, err := a.fromParts(t.Context(), newParts(t), Options{}); err == nil || !strings.Contains(err.Error(), "CONFIG_MODULE_SIG is y") {
		t.Errorf("%v", err)
	}
}
