package kbuild

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"golang.org/x/sync/errgroup"
)

// What each unit of a built tree reads, from the .cmd files.
//
// The graph has two kinds of vertices, objects and files, and an edge from an
// object to each file that its compile read. A header's readers are the
// objects with an edge to it. File names are kept once, as tree-relative
// names, whatever way the compiler named them.
//
// The index can be saved. It is valid as long as no .cmd file and no directory
// that may hold one has another modification time or size: a new or removed
// .cmd file changes its directory's, and a rewritten one its own. Encoded
// form, with varints as in the compile database:
//
//	"klpcdep1\n"
//	build directory; number of files, each file's name
//	number of stamps, each: path, mtime in ns, size
//	number of objects, each: object, source (numbers of names), list of names
//	CRC-32C

const depsMagic = "klpcdep1\n"

// DepIndex tells which objects of a built tree read a file.
type DepIndex struct {
	build   string
	names   []string
	stamps  []stamp
	objects []depObject // sorted by object
}

type stamp struct {
	path  string // relative to the build directory
	mtime int64  // ns since 1970
	size  int64  // bytes; 0 for a directory
}

type depObject struct {
	object, source uint32
	deps           []byte // varints: numbers of names
}

// ErrNotBuilt is a tree whose objects have not been compiled here.
var ErrNotBuilt = errors.New("the kernel has not been built in this tree: run make")

// Deps returns the index of a built tree. If cache is not empty, the index is
// read from that file if it is still true of the tree, and written to it
// otherwise.
func (t *Tree) Deps(cache string) (*DepIndex, error) {
	if t.db != nil {
		return nil, ErrNotBuilt
	}
	if cache != "" {
		if data, err := os.ReadFile(cache); err == nil {
			// A damaged or outdated cache is made anew.
			if x, err := decodeDeps(data); err == nil && x.build == t.Build && x.fresh() {
				return x, nil
			}
		}
	}
	x, err := t.scanDeps()
	if err != nil {
		return nil, err
	}
	if cache != "" {
		// A cache that cannot be written only costs time.
		_ = renameio.WriteFile(cache, x.encode(), 0o644)
	}
	return x, nil
}

// Readers returns the objects that read file (tree-relative), sorted. A file
// that the build generates is named relative to the build directory.
func (x *DepIndex) Readers(file string) []string {
	want, ok := x.number(file)
	if !ok {
		return nil
	}
	var out []string
	for _, o := range x.objects {
		if o.source == want || listHas(o.deps, want) {
			out = append(out, x.names[o.object])
		}
	}
	return out
}

// Objects is how many compiled objects the index knows.
func (x *DepIndex) Objects() int { return len(x.objects) }

// objectsOf returns the objects whose source is file.
func (x *DepIndex) objectsOf(file string) []string {
	want, ok := x.number(file)
	if !ok {
		return nil
	}
	var out []string
	for _, o := range x.objects {
		if o.source == want {
			out = append(out, x.names[o.object])
		}
	}
	return out
}

func (x *DepIndex) number(name string) (uint32, bool) {
	i, ok := slices.BinarySearch(x.names, name)
	return uint32(i), ok
}

func listHas(b []byte, want uint32) bool {
	for len(b) > 0 {
		v, n := binary.Uvarint(b)
		if uint32(v) == want {
			return true
		}
		b = b[n:]
	}
	return false
}

// fresh tells whether the tree still is as it was scanned.
func (x *DepIndex) fresh() bool {
	for _, s := range x.stamps {
		now, err := stampOf(x.build, s.path)
		if err != nil || now != s {
			return false
		}
	}
	return true
}

func stampOf(root, rel string) (stamp, error) {
	st, err := os.Lstat(filepath.Join(root, rel))
	if err != nil {
		return stamp{}, err
	}
	s := stamp{path: rel, mtime: st.ModTime().UnixNano()}
	if !st.IsDir() {
		s.size = st.Size()
	}
	return s, nil
}

// skipped are directories whose .cmd files are not of the kernel: build tools
// and other architectures.
func skipped(rel string, srcArch string) bool {
	switch rel {
	case ".git", "Documentation", "LICENSES", "scripts", "tools", "samples":
		return true
	}
	dir, base := path.Split(rel)
	return dir == "arch/" && base != srcArch
}

// scan is one reading of all .cmd files.
type scan struct {
	tree *Tree

	mu      sync.Mutex
	numbers map[string]uint32 // file name as written → number in names
	byName  map[string]uint32 // normalised name → number in names
	index   DepIndex
}

// scanDeps reads all .cmd files of the tree in parallel.
func (t *Tree) scanDeps() (*DepIndex, error) {
	s := &scan{tree: t, numbers: map[string]uint32{}, byName: map[string]uint32{}, index: DepIndex{build: t.Build}}
	var g errgroup.Group
	g.SetLimit(2 * runtime.GOMAXPROCS(0))
	if err := s.walk(&g, "."); err != nil {
		return nil, fmt.Errorf("scan .cmd files: %w", err)
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("scan .cmd files: %w", err)
	}
	if len(s.index.objects) == 0 {
		return nil, fmt.Errorf("%s: %w", t.Build, ErrNotBuilt)
	}
	return s.sorted(), nil
}

// walk lists directories in this goroutine and leaves the files to the group.
func (s *scan) walk(g *errgroup.Group, rel string) error {
	// The stamp is taken first: a change during the scan makes it stale.
	st, err := stampOf(s.tree.Build, rel)
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(s.tree.Build, rel))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.index.stamps = append(s.index.stamps, st)
	s.mu.Unlock()
	var files []string
	for _, e := range entries {
		name := path.Join(rel, e.Name())
		switch {
		case e.IsDir() && !skipped(name, s.tree.SrcArch):
			if err := s.walk(g, name); err != nil {
				return err
			}
		case e.Type().IsRegular() && strings.HasPrefix(e.Name(), ".") && strings.HasSuffix(e.Name(), ".o.cmd"):
			files = append(files, name)
		}
	}
	if len(files) > 0 {
		g.Go(func() error { return s.read(files) })
	}
	return nil
}

func (s *scan) read(files []string) error {
	local := map[string]uint32{} // names this goroutine knows: no lock for them
	for _, rel := range files {
		st, err := stampOf(s.tree.Build, rel)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(filepath.Join(s.tree.Build, rel))
		if err != nil {
			return err
		}
		cf, err := parseCmdFile(data)
		if errors.Is(err, errNotCmd) || err == nil && len(cf.source) == 0 {
			cf = cmdFile{} // linked, not compiled
		} else if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		dir, base := path.Split(rel)
		object := dir + strings.TrimSuffix(base[1:], ".cmd")
		s.add(st, object, cf, local)
	}
	return nil
}

func (s *scan) add(st stamp, object string, cf cmdFile, local map[string]uint32) {
	var o depObject
	if cf.source != nil {
		var missing [][]byte
		for _, d := range append(cf.deps, cf.source) {
			if _, ok := local[string(d)]; !ok {
				missing = append(missing, d)
			}
		}
		s.mu.Lock()
		for _, d := range missing {
			local[string(d)] = s.number(string(d))
		}
		o.object = s.named(object)
		s.mu.Unlock()
		o.source = local[string(cf.source)]
		for _, d := range cf.deps {
			o.deps = binary.AppendUvarint(o.deps, uint64(local[string(d)]))
		}
		o.deps = slices.Clip(o.deps)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.stamps = append(s.index.stamps, st)
	if cf.source != nil {
		s.index.objects = append(s.index.objects, o)
	}
}

// number is the number of a file as a compiler named it.
func (s *scan) number(written string) uint32 {
	n, ok := s.numbers[written]
	if !ok {
		name, _ := s.tree.roots().locate(written)
		n = s.named(name)
		s.numbers[written] = n
	}
	return n
}

func (s *scan) named(name string) uint32 {
	n, ok := s.byName[name]
	if !ok {
		n = uint32(len(s.index.names))
		s.index.names = append(s.index.names, name)
		s.byName[name] = n
	}
	return n
}

// sorted renumbers the names in their order, so that equal trees give equal
// indexes and names can be found by bisection.
func (s *scan) sorted() *DepIndex {
	x := s.index
	order := make([]uint32, len(x.names))
	for i := range order {
		order[i] = uint32(i)
	}
	sort.Slice(order, func(i, j int) bool { return x.names[order[i]] < x.names[order[j]] })
	names := make([]string, len(order))
	renumber := make([]uint32, len(order))
	for n, old := range order {
		names[n], renumber[old] = x.names[old], uint32(n)
	}
	x.names = names
	for i, o := range x.objects {
		var deps []byte
		for b := o.deps; len(b) > 0; {
			v, n := binary.Uvarint(b)
			deps = binary.AppendUvarint(deps, uint64(renumber[v]))
			b = b[n:]
		}
		x.objects[i] = depObject{object: renumber[o.object], source: renumber[o.source], deps: deps}
	}
	sort.Slice(x.objects, func(i, j int) bool { return x.objects[i].object < x.objects[j].object })
	sort.Slice(x.stamps, func(i, j int) bool { return x.stamps[i].path < x.stamps[j].path })
	return &x
}

func (x *DepIndex) encode() []byte {
	e := encoder{b: []byte(depsMagic)}
	e.strings([]string{x.build})
	e.strings(x.names)
	e.number(len(x.stamps))
	for _, s := range x.stamps {
		e.bytes([]byte(s.path))
		e.number(int(s.mtime))
		e.number(int(s.size))
	}
	e.number(len(x.objects))
	for _, o := range x.objects {
		e.number(int(o.object))
		e.number(int(o.source))
		e.bytes(o.deps)
	}
	return e.seal()
}

func decodeDeps(data []byte) (*DepIndex, error) {
	in, err := unseal(data, depsMagic)
	if err != nil {
		return nil, fmt.Errorf("dependency index: %w", err)
	}
	x := &DepIndex{}
	if b := in.strings(); len(b) == 1 {
		x.build = b[0]
	}
	x.names = in.strings()
	for range in.count() {
		x.stamps = append(x.stamps, stamp{path: string(in.bytes()), mtime: int64(in.number()), size: int64(in.number())})
	}
	for range in.count() {
		o := depObject{object: in.index(len(x.names)), source: in.index(len(x.names)), deps: in.bytes()}
		in.checkList(o.deps, len(x.names))
		x.objects = append(x.objects, o)
	}
	if in.err != nil {
		return nil, fmt.Errorf("dependency index: %w", in.err)
	}
	return x, nil
}

// Readers returns the units that read a file (tree-relative), or may read it:
// in a built tree exactly those that did, from the .cmd files (cache as for
// Deps); in a prepared one those whose includes can lead to it whatever the
// configuration.
func (t *Tree) Readers(file, cache string) ([]Unit, error) {
	if t.db != nil {
		g, err := t.includeGraph()
		if err != nil {
			return nil, err
		}
		return g.Readers(file), nil
	}
	x, err := t.depsOnce(cache)
	if err != nil {
		return nil, err
	}
	objects := x.Readers(file)
	if len(objects) == 0 {
		return nil, nil
	}
	units, err := t.unitsOfObjects(objects, file)
	if errors.Is(err, ErrNoUnit) {
		return nil, nil
	}
	return units, err
}

// depsOnce reads the index at the first call.
func (t *Tree) depsOnce(cache string) (*DepIndex, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deps == nil {
		x, err := t.Deps(cache)
		if err != nil {
			return nil, err
		}
		t.deps = x
	}
	return t.deps, nil
}

// includeGraph makes the graph at the first call.
func (t *Tree) includeGraph() (*IncludeGraph, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.graph == nil {
		g, err := t.Includes()
		if err != nil {
			return nil, err
		}
		t.graph = g
	}
	return t.graph, nil
}
