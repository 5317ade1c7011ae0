// Package distro provides stock distribution kernels as prepared trees: the
// packages are fetched without root into a cache, the source of the very same
// version is unpacked, and the kernel's own Makefile prepares it once per release.
//
// It compiles nothing of a patch and knows nothing of livepatches; kbuild does
// the former with the Tree that this package returns.
//
// Sources: apt-get(8), apt-cache(8), deb-version(7), and the kernel's
// Documentation/kbuild/kbuild.rst.
package distro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// Options says where and how a tree is prepared.
type Options struct {
	Cache  string            // root of the cache, for instance $XDG_CACHE_HOME/klpc
	Jobs   int               // parallel jobs of make; 0: one for each CPU
	Log    func(step string) // receives a line of progress; may be nil; never called twice at once
	Output io.Writer         // receives everything that the tools print; may be nil
	// AllowCompilerMismatch turns a compiler other than the kernel's own from an
	// error into a warning.
	AllowCompilerMismatch bool
}

// Tree is a stock kernel's source, prepared as the distribution configured it.
// All paths are absolute. Nobody changes a tree after it was returned.
type Tree struct {
	Release    string   // what uname -r says
	Version    string   // version of the packages
	Source     string   // directory of the source
	Build      string   // directory of the prepared tree: what O= names
	Config     string   // .config of the prepared tree, equal to the package's
	Symvers    string   // Module.symvers of the stock kernel
	BzImage    string   // the stock kernel's vmlinuz
	ModulesDir string   // the stock kernel's modules: …/lib/modules/RELEASE/kernel
	CC         string   // compiler program
	MakeArgs   []string // variables that every call of make for this tree needs
	Env        []string // environment that every call of make for this tree needs
	Commands   string   // output of the dry run of "make vmlinux modules", see OpenCommands
	Warnings   []string // what is not quite as in the stock kernel
}

// debian is one request for a tree.
type debian struct {
	o     Options
	root  string // CACHE/kernels/debian
	lists string // where apt keeps the package lists; its time says when they last changed
	host  host
}

// aptLists is apt's Dir::State::lists as Debian configures it.
const aptLists = "/var/lib/apt/lists"

// Debian returns the tree of a stock Debian kernel; "" means the newest cloud
// kernel that apt offers, backports only if there is no other. A prepared tree
// is used again, also when apt offers the release no more; otherwise the tree
// is prepared in the cache, which takes about a minute plus the download of
// some 190 MB. Several processes may ask for the same release at once.
func Debian(ctx context.Context, release string, o Options) (*Tree, error) {
	d, err := newDebian(o, defaultHost(), aptLists)
	if err != nil {
		return nil, err
	}
	t, err := d.tree(ctx, release)
	if err != nil {
		name := "debian"
		if release != "" {
			name += ":" + release
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return t, nil
}

func newDebian(o Options, h host, lists string) (*debian, error) {
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
		return nil, errors.New("prepare a stock kernel: no cache directory given")
	}
	root, err := cacheRoot(filepath.Join(o.Cache, "kernels", "debian"))
	if err != nil {
		return nil, fmt.Errorf("cache of kernels: %w", err)
	}
	return &debian{o: o, root: root, lists: lists, host: h}, nil
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

func (d *debian) tree(ctx context.Context, release string) (*Tree, error) {
	if release != "" {
		if err := checkRelease(release); err != nil {
			return nil, err
		}
		t, err := d.reuse(ctx, release, "")
		if err != nil {
			return nil, err
		}
		if t != nil && d.newerThanLists(t) {
			return t, nil
		}
	}
	if err := d.host.check(aptTools); err != nil {
		return nil, err
	}
	p, err := d.find(ctx, release)
	if err != nil {
		var missing *notOffered
		if !errors.As(err, &missing) || release == "" {
			return nil, err
		}
		// Old releases leave the archive; a prepared tree outlives them.
		if t, rerr := d.reuse(ctx, release, ""); t != nil || rerr != nil {
			return t, rerr
		}
		return nil, err
	}
	t, err := d.reuse(ctx, p.release, p.version)
	if err != nil {
		return nil, err
	}
	if t != nil {
		// Only saves asking apt again; a read-only cache is no error.
		now := time.Now()
		_ = os.Chtimes(d.readyFile(t), now, now)
		return t, nil
	}
	if err := d.host.check(buildTools); err != nil {
		return nil, err
	}
	return d.makeTree(ctx, p)
}

// makeTree prepares a tree that is not there, unless another process does.
func (d *debian) makeTree(ctx context.Context, p packages) (_ *Tree, err error) {
	base := filepath.Join(d.root, dirName(p.release, p.version))
	unlock, err := lock(ctx, base+".lock", func() {
		d.o.Log("waiting for another klpc that prepares " + p.release)
	})
	if err != nil {
		return nil, err
	}
	defer unlock()
	if t, err := d.reuse(ctx, p.release, p.version); t != nil || err != nil {
		return t, err
	}
	if err := checkSpace(d.root); err != nil {
		return nil, err
	}
	// A killed run may have left this behind.
	tmp := base + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("clean the cache: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()

	comp, headers, err := d.headers(ctx, p, tmp)
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
	if err := d.unpack(ctx, p, tmp, dir); err != nil {
		return nil, err
	}
	s := stamp{Format: stampFormat, Dir: dir, Release: p.release, Version: p.version, Compiler: comp}
	if s.Pahole, err = installConfig(headers, dir); err != nil {
		return nil, err
	}
	if s.Warnings, err = d.prepare(ctx, s); err != nil {
		return nil, err
	}
	if err := s.write(); err != nil {
		return nil, err
	}
	return s.tree(), nil
}

// reuse returns the prepared tree of a release, of the given version or, if
// that is "", of the newest prepared one; nil if there is none.
func (d *debian) reuse(ctx context.Context, release, version string) (*Tree, error) {
	stamps, err := readStamps(d.root, release)
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
		comp, err := chooseCompiler(ctx, s.Compiler.Want, d.o.AllowCompilerMismatch)
		if err != nil {
			return nil, err
		}
		if comp == s.Compiler {
			return s.tree(), nil
		}
	}
	return nil, nil
}

func (d *debian) readyFile(t *Tree) string { return filepath.Join(filepath.Dir(t.Source), readyName) }

// newerThanLists says whether apt was asked about this tree after its package
// lists changed, so that asking again is a waste of half a second.
func (d *debian) newerThanLists(t *Tree) bool {
	ready, err := os.Stat(d.readyFile(t))
	if err != nil {
		return false
	}
	lists, err := os.Stat(d.lists)
	if errors.Is(err, fs.ErrNotExist) {
		return true // no apt: nothing newer to be had
	}
	return err == nil && ready.ModTime().After(lists.ModTime())
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
