// Package distro provides kernels that were built elsewhere as prepared trees:
// the packages of a stock kernel are fetched without root into a cache, or the
// parts of any other kernel are given, and the kernel's own Makefile prepares
// its source once.
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
	"slices"
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

// Tree is a kernel's source, prepared as the kernel was configured.
// All paths are absolute. Nobody changes a tree after it was returned.
type Tree struct {
	Release    string   // what uname -r says
	Version    string   // version of the packages; of a kernel from parts, a hash of them
	Source     string   // directory of the source
	Build      string   // directory of the prepared tree: what O= names
	Config     string   // .config of the prepared tree, equal to the kernel's own
	Symvers    string   // Module.symvers of the kernel
	BzImage    string   // the stock kernel's vmlinuz; "" of a kernel from parts
	ModulesDir string   // the stock kernel's modules: …/lib/modules/RELEASE/kernel; "" of a kernel from parts
	CC         string   // compiler program
	MakeArgs   []string // variables that every call of make for this tree needs
	Env        []string // environment that every call of make for this tree needs
	Commands   string   // output of the dry run of "make vmlinux modules", see OpenCommands
	Warnings   []string // what is not quite as in the kernel itself
}

// debian prepares Debian's kernels.
type debian struct {
	*preparer
	lists string // where apt keeps the package lists; its time says when they last changed
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
	p, err := newPreparer(o, "debian", h)
	if err != nil {
		return nil, err
	}
	return &debian{preparer: p, lists: lists}, nil
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
	if err := d.host.check(slices.Concat(unpackTools, buildTools)); err != nil {
		return nil, err
	}
	return d.makeTree(ctx, request{release: p.release, version: p.version, space: stockSpace, from: debianFiles{d, p}})
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
