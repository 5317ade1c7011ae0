package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/klpc/klpc/cache"
	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/distro"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/target"
)

// KernelOptions say which kernel is meant, as the command line does.
type KernelOptions struct {
	Kernel string // directory, "debian" or "debian:RELEASE"
	// The parts one by one, for kernels that are neither.
	Source, Config, Symvers, Image string
	Release                        string // with Source; empty: what the image says, or else the configuration
	Modules                        string // with Source; empty: only patches of vmlinux

	AllowCompilerMismatch bool
	Jobs                  int
	Cache                 string // empty: $XDG_CACHE_HOME/klpc
	Output                io.Writer
}

// Kernel is a kernel to patch: its tree, and the files that hold what runs.
type Kernel struct {
	Tree      *kbuild.Tree
	Release   string
	ImagePath string // vmlinux, vmlinuz, System.map or a dump of kallsyms
	BzImage   string // to boot; empty if there is none
	Symvers   string
	Modules   string // folder with the module files; empty if it was not given
	Warnings  []string

	find func() (func(string) (string, bool), error)

	// What all builds for this kernel share, read when first needed.
	image   lazy[imageAndSymbols]
	exports lazy[*target.Exports]
	mu      sync.Mutex
	modules map[string]*lazy[*target.Module]
	stores  map[storeAt]*cache.Store
}

// storeAt is a cache's folder and its limit in bytes.
type storeAt struct {
	dir   string
	limit int64
}

// imageAndSymbols is what one file of the kernel holds.
type imageAndSymbols struct {
	image *target.Image // nil: only symbols are known
	tab   *target.Symtab
}

// lazy is a value that is made when first needed and then kept.
type lazy[T any] struct {
	once  sync.Once
	value T
	err   error
}

func (l *lazy[T]) get(read func() (T, error)) (T, error) {
	l.once.Do(func() { l.value, l.err = read() })
	return l.value, l.err
}

// CacheDir is where klpc keeps what it can make again.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w; set XDG_CACHE_HOME", err)
	}
	return filepath.Join(dir, "klpc"), nil
}

// OpenKernel finds the kernel and checks its compiler.
func OpenKernel(ctx context.Context, o KernelOptions, ev Events) (*Kernel, error) {
	var k *Kernel
	var err error
	release, isDebian := strings.CutPrefix(o.Kernel, "debian:")
	switch {
	case o.Kernel == "debian" || isDebian:
		if o.Kernel == "debian" {
			release = ""
		}
		k, err = debianKernel(ctx, release, o, ev)
	case o.Kernel != "":
		k, err = treeKernel(ctx, o)
	default:
		k, err = partsKernel(ctx, o, ev)
	}
	if err != nil {
		return nil, err
	}
	k.find = sync.OnceValues(func() (func(string) (string, bool), error) { return livetest.FindModuleIn(k.Modules) })
	return k, nil
}

func debianKernel(ctx context.Context, release string, o KernelOptions, ev Events) (*Kernel, error) {
	t, err := distro.Debian(ctx, release, distroOptions(o, ev))
	if err != nil {
		return nil, err
	}
	k, err := preparedKernel(t)
	if err != nil {
		return nil, err
	}
	k.ImagePath, k.BzImage, k.Modules = t.BzImage, t.BzImage, t.ModulesDir
	return k, nil
}

func distroOptions(o KernelOptions, ev Events) distro.Options {
	return distro.Options{Cache: o.Cache, Jobs: o.Jobs, Log: ev.stepText, Output: o.Output, AllowCompilerMismatch: o.AllowCompilerMismatch}
}

// preparedKernel opens a tree that was prepared in the cache.
func preparedKernel(t *distro.Tree) (*Kernel, error) {
	db, err := commandDB(t.Commands+".db", t.Source, t.Build, t.OpenCommands)
	if err != nil {
		return nil, err
	}
	tree, err := kbuild.OpenTree(t.Build, kbuild.Options{Release: t.Release, MakeArgs: t.MakeArgs, Env: t.Env, Owned: true, DB: db})
	if err != nil {
		return nil, err
	}
	return &Kernel{Tree: tree, Release: t.Release, Symvers: t.Symvers, Warnings: t.Warnings}, nil
}

// commandDB returns the compile commands of a prepared tree: parsed once from
// the dry run, then from the database beside it.
func commandDB(path, source, build string, open func() (io.ReadCloser, error)) (*kbuild.DB, error) {
	if db, err := kbuild.LoadDB(path); err == nil {
		return db, nil
	}
	r, err := open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	db, err := kbuild.ParseDryRun(r, source, build)
	if err != nil {
		return nil, err
	}
	if err := db.Save(path); err != nil {
		return nil, err
	}
	return db, nil
}

// treeKernel opens a kernel tree that the user has built.
func treeKernel(ctx context.Context, o KernelOptions) (*Kernel, error) {
	tree, err := kbuild.OpenTree(o.Kernel, kbuild.Options{})
	if err != nil {
		return nil, err
	}
	k := &Kernel{Tree: tree, Release: tree.Release,
		ImagePath: filepath.Join(tree.Build, "vmlinux"), BzImage: filepath.Join(tree.Build, "arch/x86/boot/bzImage"),
		Symvers: filepath.Join(tree.Build, "Module.symvers"), Modules: tree.Build}
	var errs []error
	for _, f := range []string{k.ImagePath, k.Symvers} {
		if _, err := os.Stat(f); err != nil {
			errs = append(errs, fmt.Errorf("%s is missing: build the kernel first (make), or use --kernel debian:RELEASE for a stock kernel", f))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return k, checkCompiler(ctx, k, o)
}

// checkCompiler compares the compiler with the one that the kernel was built by.
func checkCompiler(ctx context.Context, k *Kernel, o KernelOptions) error {
	text := k.Tree.Config.Get("CONFIG_CC_VERSION_TEXT")
	program, err := distro.CheckCompiler(ctx, text)
	if err != nil {
		var ce *distro.CompilerError
		if !errors.As(err, &ce) {
			return err
		}
		if !o.AllowCompilerMismatch {
			return fmt.Errorf("%w; or accept the risk with --allow-compiler-mismatch", err)
		}
		k.Warnings = append(k.Warnings, err.Error())
		if ce.Have == "" {
			return nil // not installed: Kbuild's own choice
		}
	}
	if program != "" && k.Tree.KbuildCC() != program {
		k.Tree.MakeArgs = append(k.Tree.MakeArgs, "CC="+program)
	}
	return nil
}

// Target returns what codegen needs to know of the running kernel; what has been
// read is kept for the next build. modules are the names of the modules that the
// patch touches.
func (k *Kernel) Target(modules []string) (codegen.Target, error) {
	t := codegen.Target{IBT: k.Tree.Config.Bool("CONFIG_X86_KERNEL_IBT")}
	var errs []error
	var wg sync.WaitGroup
	var imgErr, expErr error
	wg.Go(func() {
		var is imageAndSymbols
		is, imgErr = k.image.get(func() (imageAndSymbols, error) { return readImage(k.ImagePath) })
		t.Image, t.Symtab = is.image, is.tab
	})
	wg.Go(func() {
		t.Exports, expErr = k.exports.get(func() (*target.Exports, error) { return readExports(k.Symvers) })
	})
	t.Modules = map[string]*target.Module{}
	for _, name := range modules {
		m, err := k.module(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		t.Modules[name] = m
	}
	wg.Wait()
	return t, errors.Join(append(errs, imgErr, expErr)...)
}

// FindModule returns the file of a module of this kernel.
func (k *Kernel) FindModule(name string) (string, error) {
	if k.Modules == "" {
		return "", fmt.Errorf("module %s: this kernel was given without its modules: name their folder, such as /lib/modules/%s, with --modules-dir", name, k.Release)
	}
	find, err := k.find()
	if err != nil {
		return "", err
	}
	path, ok := find(name)
	if !ok {
		return "", fmt.Errorf("module %s: no file %s.ko in %s", name, name, k.Modules)
	}
	return path, nil
}

func (k *Kernel) module(name string) (*target.Module, error) {
	k.mu.Lock()
	if k.modules == nil {
		k.modules = map[string]*lazy[*target.Module]{}
	}
	l := k.modules[name]
	if l == nil {
		l = &lazy[*target.Module]{}
		k.modules[name] = l
	}
	k.mu.Unlock()
	return l.get(func() (*target.Module, error) { return k.readModule(name) })
}

func (k *Kernel) readModule(name string) (*target.Module, error) {
	path, err := k.FindModule(name)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m, err := target.ReadModule(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// readImage reads a kernel image, or a list of its symbols.
func readImage(path string) (imageAndSymbols, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return imageAndSymbols{}, fmt.Errorf("read the kernel's image: %w", err)
	}
	if looksLikeSymbolList(data) {
		read := target.ReadKallsymsDump
		if strings.Contains(filepath.Base(path), "System.map") {
			read = target.ReadSystemMap
		}
		tab, err := read(bytes.NewReader(data))
		if err != nil {
			return imageAndSymbols{}, fmt.Errorf("%s: %w", path, err)
		}
		return imageAndSymbols{tab: tab}, nil
	}
	im, err := target.ReadImage(data)
	if err != nil {
		return imageAndSymbols{}, fmt.Errorf("%s: %w", path, err)
	}
	tab, err := im.Kallsyms()
	if err != nil {
		return imageAndSymbols{}, fmt.Errorf("%s: %w", path, err)
	}
	return imageAndSymbols{im, tab}, nil
}

// looksLikeSymbolList tells a text of hexadecimal addresses from a binary.
func looksLikeSymbolList(data []byte) bool {
	line, _, _ := bytes.Cut(data[:min(len(data), 256)], []byte("\n"))
	field, _, found := bytes.Cut(line, []byte(" "))
	return found && len(field) >= 8 && len(bytes.Trim(field, "0123456789abcdefABCDEF")) == 0
}

func readExports(path string) (*target.Exports, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the kernel's exports: %w", err)
	}
	defer f.Close()
	x, err := target.ReadSymvers(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return x, nil
}
