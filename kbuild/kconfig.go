package kbuild

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klpc/klpc/internal/run"
)

// Configure returns the configuration that `make olddefconfig` would make of
// the tree's own if the given Kconfig files (tree-relative; nil: removed) took
// the place of the tree's. work is a folder to be made. The program that the
// build made for this (scripts/kconfig/conf) is run on a view of the tree; what
// it asks the compiler and other tools may be answered differently here, so
// only symbols that the tree does not know should be looked at.
func (t *Tree) Configure(ctx context.Context, work string, files map[string]*[]byte) (*Config, error) {
	conf := filepath.Join(t.Build, "scripts/kconfig/conf")
	if !isFile(conf) {
		return nil, fmt.Errorf("the build has left no scripts/kconfig/conf")
	}
	s, err := NewShadow(t, filepath.Join(work, "linux"), files)
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(filepath.Join(t.Build, ".config"))
	if err != nil {
		return nil, err
	}
	config := filepath.Join(work, ".config")
	if err := os.WriteFile(config, old, 0o644); err != nil {
		return nil, err
	}
	_, err = run.Do(ctx, run.Cmd{Dir: work, Args: []string{conf, "--olddefconfig", filepath.Join(s.dir, "Kconfig")},
		Env: append(t.env(work), t.kconfigEnv(s.dir, config)...), Stdout: io.Discard})
	if err != nil {
		return nil, fmt.Errorf("configure the patched tree: %w", err)
	}
	return readConfig(config)
}

// kconfigEnv are the variables that the kernel's Makefile exports to Kconfig.
func (t *Tree) kconfigEnv(source, config string) []string {
	version, _, _ := strings.Cut(t.Release, "-")
	version, _, _ = strings.Cut(version, "+")
	cc, ld := "gcc", "ld"
	if named := t.KbuildCC(); named != "" {
		cc = named
	}
	if t.Config.Bool("CONFIG_LD_IS_LLD") {
		ld = "ld.lld"
	}
	return []string{
		"srctree=" + source, "KCONFIG_CONFIG=" + config, "ARCH=" + t.SrcArch, "SRCARCH=" + t.SrcArch, "KERNELVERSION=" + version,
		"CC=" + cc, "CC_VERSION_TEXT=" + t.Compiler(), "LD=" + ld, "HOSTCC=gcc", "HOSTCXX=g++", "NM=nm", "OBJCOPY=objcopy",
		"PAHOLE=pahole", "RUSTC=rustc", "BINDGEN=bindgen", "RUSTC_VERSION_TEXT=" + t.Config.Get("CONFIG_RUSTC_VERSION_TEXT"), "CLANG_FLAGS=",
	}
}
