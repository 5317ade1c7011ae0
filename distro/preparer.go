package distro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// preparer prepares trees in one folder of the cache.
type preparer struct {
	o    Options
	root string // CACHE/kernels/KIND
	host host
}

// origin is where the pieces of a tree come from.
type origin interface {
	// settings provides what the kernel was configured to. It is small and
	// names the compiler, so a wrong one is found before all else.
	settings(ctx context.Context, tmp string) (settings, error)
	// provide puts everything else that the tree needs into dir. It returns
	// where the source lies, "" for dir/source.
	provide(ctx context.Context, tmp, dir string) (source string, err error)
}

// settings are the paths of two files of the kernel.
type settings struct{ config, symvers string }

// request is a tree to prepare.
type request struct {
	release, version string // name the tree in the cache
	space            uint64 // bytes that it takes at its peak
	from             origin
}

func newPreparer(o Options, kind string, h host) (*preparer, error) {
	if o.Jobs <= 0 {
		o.Jobs = runtime.NumCPU()
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	if o.Log == nil {
		o.Log = func(string) {}
	}
	// Two steps may run at once.
	var mu sync.Mutex
	log := o.Log
	o.Log = func(s string) {
		mu.Lock()
		defer mu.Unlock()
		log(s)
	}
	o.Output = &lockedWriter{w: o.Output}
	if o.Cache == "" {
		return nil, errors.New("prepare a kernel: no cache directory given")
	}
	root, err := cacheRoot(filepath.Join(o.Cache, "kernels", kind))
	if err != nil {
		return nil, fmt.Errorf("cache of kernels: %w", err)
	}
	return &preparer{o: o, root: root, host: h}, nil
}

// cacheRoot makes the directory and returns its physical path: make prints
// physical paths, so those of a tree must be physical too.
func cacheRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := checkPath(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	return dir, checkPath(dir)
}

// reuse returns the prepared tree of a release, of the given version or, if
// that is "", of the newest prepared one; nil if there is none.
func (p *preparer) reuse(ctx context.Context, release, version string) (*Tree, error) {
	stamps, err := readStamps(p.root, release)
	if err != nil {
		return nil, err
	}
	if version == "" && len(stamps) > 0 {
		version = stamps[0].Version
	}
	for _, s := range stamps {
		if s.Version != version {
			continue
		}
		comp, err := chooseCompiler(ctx, s.Compiler.Want, p.o.AllowCompilerMismatch)
		if err != nil {
			return nil, err
		}
		if comp == s.Compiler {
			return s.tree(), nil
		}
	}
	return nil, nil
}

// makeTree prepares a tree that is not there, unless another process does.
func (p *preparer) makeTree(ctx context.Context, r request) (_ *Tree, err error) {
	base := filepath.Join(p.root, dirName(r.release, r.version))
	unlock, err := lock(ctx, base+".lock", func() {
		p.o.Log("waiting for another klpc that prepares " + r.release)
	})
	if err != nil {
		return nil, err
	}
	defer unlock()
	if t, err := p.reuse(ctx, r.release, r.version); t != nil || err != nil {
		return t, err
	}
	if err := checkSpace(p.root, r.space); err != nil {
		return nil, err
	}
	// A killed run may have left this behind.
	tmp := base + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("clean the cache: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()

	files, err := r.from.settings(ctx, tmp)
	if err != nil {
		return nil, err
	}
	comp, err := p.compiler(ctx, files.config)
	if err != nil {
		return nil, err
	}
	dir := base + comp.suffix()
	// Also what is there without a stamp was left behind.
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clean the cache: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	s := stamp{Format: stampFormat, Dir: dir, Release: r.release, Version: r.version, Compiler: comp}
	if s.Source, err = r.from.provide(ctx, tmp, dir); err != nil {
		return nil, err
	}
	if s.Pahole, err = installConfig(files, dir); err != nil {
		return nil, err
	}
	if s.Warnings, err = p.prepare(ctx, s); err != nil {
		return nil, err
	}
	if err := s.write(); err != nil {
		return nil, err
	}
	return s.tree(), nil
}

// compiler chooses the compiler for a configuration.
func (p *preparer) compiler(ctx context.Context, path string) (compiler, error) {
	cfg, err := readConfig(path)
	if err != nil {
		return compiler{}, err
	}
	if cfg["CONFIG_RUST"] == "y" {
		return compiler{}, errors.New("this kernel contains Rust code (CONFIG_RUST=y), which klpc cannot prepare")
	}
	return chooseCompiler(ctx, cfg.text("CONFIG_CC_VERSION_TEXT"), p.o.AllowCompilerMismatch)
}

// lockedWriter lets two programs write at once.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
