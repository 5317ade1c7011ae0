// Package kbuild is the kernel tree: its configuration, the compile command of
// each translation unit, what each unit reads, compiling one unit as it is and
// patched, and linking a module.
//
// It does not look inside objects and does not know what a livepatch is; it
// never writes into a tree that it does not own. What it reads is described in
// the kernel's Documentation/kbuild and in the kernel's own scripts/Makefile.*
// (forms of 5.10 to 6.19).
package kbuild

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Tree is a kernel source tree with its configuration and build directory.
// Its fields do not change after OpenTree.
type Tree struct {
	Source   string // absolute, without symbolic links
	Build    string // absolute, without symbolic links; equal to Source when built in place
	Release  string // as uname -r and vermagic say it
	SrcArch  string // Kbuild's SRCARCH: "x86"
	Config   *Config
	MakeArgs []string // given to every make: CC=gcc-12, KERNELRELEASE=…
	Env      []string // added to the environment of every program that is run for the tree
	// Owned says that the caller made this tree, holds its lock and lets
	// make build single objects in it. A user's tree is never owned.
	Owned bool

	db *DB // compile commands of a tree that has not been built; nil: from .cmd files

	mu    sync.Mutex
	made  map[string]error // objects that MakeUnit has built, and how that ended
	graph *IncludeGraph    // made when first needed
	deps  *DepIndex        // read when first needed
}

// Options say what a tree does not say itself.
type Options struct {
	// Release replaces the release recorded in the tree.
	Release  string
	MakeArgs []string
	Env      []string
	Owned    bool
	// DB holds the compile commands of a prepared tree that has not been
	// built. Without it they come from the .cmd files of the build.
	DB *DB
}

// ErrNotKernel is a directory that is neither a kernel source tree nor the
// O= directory of one.
var ErrNotKernel = errors.New("not a kernel tree")

// ErrHeadersOnly is a distribution's header package: it can build modules but
// holds no sources.
var ErrHeadersOnly = errors.New("kernel headers without the sources")

// OpenTree opens a kernel tree: the source tree itself if it was built in
// place, or its O= directory, whose Makefile says where the source is.
func OpenTree(dir string, o Options) (*Tree, error) {
	build, err := realDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open kernel tree: %w", err)
	}
	source, err := findSource(build)
	if err != nil {
		return nil, fmt.Errorf("open kernel tree %s: %w", dir, err)
	}
	config, err := readConfig(filepath.Join(build, ".config"))
	if err != nil {
		return nil, fmt.Errorf("open kernel tree %s: %w", dir, err)
	}
	t := &Tree{
		Source: source, Build: build, SrcArch: "x86", Config: config,
		Release: o.Release, MakeArgs: o.MakeArgs, Env: o.Env, Owned: o.Owned, db: o.DB,
		made: map[string]error{},
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("open kernel tree %s: %w", dir, err)
	}
	if t.Release == "" {
		if t.Release, err = readRelease(build); err != nil {
			return nil, fmt.Errorf("open kernel tree %s: %w", dir, err)
		}
	}
	return t, nil
}

// check collects everything that makes the tree unfit.
func (t *Tree) check() error {
	var errs []error
	if _, err := os.Stat(filepath.Join(t.Source, "init/main.c")); err != nil {
		errs = append(errs, fmt.Errorf("%w: %s has no init/main.c; get the source package of the same version",
			ErrHeadersOnly, t.Source))
	}
	for _, need := range []struct{ name, hint string }{
		{"CONFIG_X86_64", "only x86-64 kernels are supported"},
		{"CONFIG_MODULES", "a livepatch is a module"},
		{"CONFIG_LIVEPATCH", "this kernel cannot load livepatches"},
	} {
		if !t.Config.Bool(need.name) {
			errs = append(errs, fmt.Errorf("needs %s=y: %s", need.name, need.hint))
		}
	}
	return errors.Join(errs...)
}

func realDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return "", err
	}
	st, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if !st.IsDir() {
		return "", fmt.Errorf("%s: %w: not a directory", dir, ErrNotKernel)
	}
	return real, nil
}

// The three ways in which the Makefile of an O= directory names its source:
// since 5.4 an include line, before that MAKEARGS (scripts/mkmakefile).
var sourceInMakefile = regexp.MustCompile(`(?m)^(?:include[ \t]+(\S+)/Makefile|MAKEARGS[ \t]*:=[ \t]*-C[ \t]+(\S+))[ \t]*$`)

// findSource returns the source tree of a build directory.
func findSource(build string) (string, error) {
	if isFile(filepath.Join(build, "Kbuild")) && isFile(filepath.Join(build, "scripts/Kbuild.include")) {
		return build, nil
	}
	text, err := os.ReadFile(filepath.Join(build, "Makefile"))
	if err != nil {
		return "", fmt.Errorf("%w: it has no Makefile", ErrNotKernel)
	}
	m := sourceInMakefile.FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("%w: its Makefile names no kernel source", ErrNotKernel)
	}
	src := string(m[1]) + string(m[2])
	if !filepath.IsAbs(src) {
		src = filepath.Join(build, src)
	}
	real, err := filepath.EvalSymlinks(src)
	if err != nil {
		return "", fmt.Errorf("the source tree that its Makefile names is missing: %w", err)
	}
	if !isFile(filepath.Join(real, "scripts/Kbuild.include")) {
		return "", fmt.Errorf("%w: its Makefile names %s, which has no scripts/Kbuild.include", ErrNotKernel, src)
	}
	return real, nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

var utsRelease = regexp.MustCompile(`(?m)^#define UTS_RELEASE "([^"]+)"`)

// readRelease prefers utsrelease.h, which vermagic is made from, to
// kernel.release, which ignores a KERNELRELEASE given on make's command line.
func readRelease(build string) (string, error) {
	text, err := os.ReadFile(filepath.Join(build, "include/generated/utsrelease.h"))
	if err == nil {
		if m := utsRelease.FindSubmatch(text); m != nil {
			return string(m[1]), nil
		}
	}
	text, err = os.ReadFile(filepath.Join(build, "include/config/kernel.release"))
	if err != nil {
		return "", errors.New("it has no include/config/kernel.release: build it first (make, or at least make modules_prepare)")
	}
	return strings.TrimSpace(string(text)), nil
}

// Compiler returns what the configuration says about the compiler, such as
// "gcc-12 (Debian 12.2.0-14) 12.2.0"; empty if it does not say.
func (t *Tree) Compiler() string { return t.Config.Get("CONFIG_CC_VERSION_TEXT") }

// Built tells whether the tree's objects have been built here, so that it can
// be asked for commands and dependencies.
func (t *Tree) Built() bool { return t.db == nil }

// KbuildCC returns the compiler, with its launcher if there is one, that built
// the tree: the value for make's CC=. It is empty if no unit is known.
func (t *Tree) KbuildCC() string {
	units, err := t.UnitsOf("init/main.c")
	if err != nil || len(units) == 0 {
		return ""
	}
	var cc []string
	for _, a := range units[0].Args {
		if strings.HasPrefix(a, "-") {
			break
		}
		cc = append(cc, a)
	}
	return strings.Join(cc, " ")
}

// place is where a file of a compile command lies.
type place uint8

const (
	inSource place = iota // name is relative to Source
	inBuild               // name is relative to Build, which is not Source
	outside               // name is absolute
)

// roots maps the file names in compile commands to the tree.
type roots struct{ source, build string }

func (t *Tree) roots() roots { return roots{t.Source, t.Build} }

// locate finds where p lies; a relative p is relative to the build directory,
// where Kbuild runs every command.
func (r roots) locate(p string) (string, place) {
	if !filepath.IsAbs(p) {
		p = r.build + "/" + p
	}
	p = filepath.Clean(p)
	if r.build != r.source {
		if rel, ok := below(r.build, p); ok {
			return rel, inBuild
		}
	}
	if rel, ok := below(r.source, p); ok {
		return rel, inSource
	}
	return p, outside
}

// below returns p relative to dir if p lies in it. Both are clean and absolute.
func below(dir, p string) (string, bool) {
	if len(p) > len(dir) && p[len(dir)] == '/' && p[:len(dir)] == dir {
		return p[len(dir)+1:], true
	}
	return "", false
}
