package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// errPower is what every operation gives once the power is cut.
var errPower = errors.New("power cut")

// cutDisk is a file system in memory that loses its power before an operation,
// and then may hold anything that POSIX allows: of what was not synced, names may
// or may not have changed, and files may hold a part, all, or zeros.
type cutDisk struct {
	dirs  map[string]*cutDir
	ops   int // operations so far that change something
	cutAt int // the operation that does not happen any more; -1: never
	log   []string
}

type cutDir struct {
	safe, now map[string]*cutFile // by name; a folder's own name is safe at once
	pending   []func(map[string]*cutFile)
}

type cutFile struct{ safe, now []byte }

func newCutDisk() *cutDisk {
	return &cutDisk{dirs: map[string]*cutDir{".": newCutDir()}, cutAt: -1}
}

func newCutDir() *cutDir { return &cutDir{safe: map[string]*cutFile{}, now: map[string]*cutFile{}} }

// op counts an operation; it fails if the power is off.
func (d *cutDisk) op(format string, args ...any) error {
	if d.cutAt >= 0 && d.ops >= d.cutAt {
		return errPower
	}
	d.ops++
	d.log = append(d.log, fmt.Sprintf(format, args...))
	return nil
}

func (d *cutDisk) at(name string) (*cutDir, string, error) {
	dir, base := path.Split(name)
	dir = path.Clean(dir)
	if d.dirs[dir] == nil {
		return nil, "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return d.dirs[dir], base, nil
}

func (d *cutDisk) ReadFile(name string) ([]byte, error) {
	dir, base, err := d.at(name)
	if err != nil {
		return nil, err
	}
	f := dir.now[base]
	if f == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(f.now), nil
}

func (d *cutDisk) Names(dir string) ([]string, error) {
	if d.dirs[dir] == nil {
		return nil, fs.ErrNotExist
	}
	names := slices.Collect(maps.Keys(d.dirs[dir].now))
	for n := range d.dirs {
		if n != "." && path.Dir(n) == dir {
			names = append(names, path.Base(n))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Mkdir makes a folder for good: what lies in it is what may get lost. A store
// whose folder is lost is one whose files are.
func (d *cutDisk) Mkdir(dir string) error {
	if err := d.op("mkdir %s", dir); err != nil {
		return err
	}
	if d.dirs[dir] == nil {
		d.dirs[dir] = newCutDir()
	}
	return nil
}

func (d *cutDisk) Create(name string) (file, error) {
	dir, base, err := d.at(name)
	if err != nil {
		return nil, err
	}
	if err := d.op("create %s", name); err != nil {
		return nil, err
	}
	f := dir.now[base]
	if f == nil {
		f = &cutFile{}
		dir.change(func(names map[string]*cutFile) { names[base] = f })
	}
	f.now = nil
	return &cutWriter{d, f, name}, nil
}

func (d *cutDir) change(f func(map[string]*cutFile)) {
	f(d.now)
	d.pending = append(d.pending, f)
}

type cutWriter struct {
	disk *cutDisk
	file *cutFile
	name string
}

// Write writes in two operations, so that the power may go in the middle.
func (w *cutWriter) Write(b []byte) (int, error) {
	half := len(b) / 2
	for i, part := range [][]byte{b[:half], b[half:]} {
		if err := w.disk.op("write %s", w.name); err != nil {
			return i * half, err
		}
		w.file.now = append(w.file.now, part...)
	}
	return len(b), nil
}

func (w *cutWriter) Sync() error {
	if err := w.disk.op("sync %s", w.name); err != nil {
		return err
	}
	w.file.safe = slices.Clone(w.file.now)
	return nil
}

func (w *cutWriter) Close() error { return nil }

func (d *cutDisk) Rename(from, to string) error {
	dir, base, err := d.at(from)
	if err != nil {
		return err
	}
	if path.Dir(from) != path.Dir(to) {
		return errors.New("renames lie in one folder")
	}
	if err := d.op("rename %s", from); err != nil {
		return err
	}
	f, target := dir.now[base], path.Base(to)
	if f == nil {
		return fs.ErrNotExist
	}
	dir.change(func(names map[string]*cutFile) {
		delete(names, base)
		names[target] = f
	})
	return nil
}

func (d *cutDisk) Remove(name string) error {
	dir, base, err := d.at(name)
	if err != nil {
		return err
	}
	if err := d.op("remove %s", name); err != nil {
		return err
	}
	if dir.now[base] == nil {
		return fs.ErrNotExist
	}
	dir.change(func(names map[string]*cutFile) { delete(names, base) })
	return nil
}

func (d *cutDisk) SyncDir(name string) error {
	if err := d.op("sync folder %s", name); err != nil {
		return err
	}
	dir := d.dirs[name]
	dir.safe, dir.pending = maps.Clone(dir.now), nil
	return nil
}

// worlds returns every disk that may be found after the power comes back.
func (d *cutDisk) worlds() []*cutDisk {
	var pending int
	for _, dir := range d.dirs {
		pending += len(dir.pending)
	}
	var all []*cutDisk
	for subset := range 1 << pending {
		for _, content := range contents {
			all = append(all, d.world(subset, content))
		}
	}
	return all
}

// contents are what a file may hold of which not everything was synced.
var contents = []func(*cutFile) []byte{
	func(f *cutFile) []byte { return f.safe },
	func(f *cutFile) []byte { return f.now },
	func(f *cutFile) []byte { return f.now[:len(f.now)/2] },
	func(f *cutFile) []byte { return []byte(strings.Repeat("\x00", len(f.now))) },
}

// world is the disk after a power cut that kept some of the pending changes of
// names: those whose bit is set in subset, counted over the folders by name.
func (d *cutDisk) world(subset int, content func(*cutFile) []byte) *cutDisk {
	w, bit := newCutDisk(), 0
	for _, name := range slices.Sorted(maps.Keys(d.dirs)) {
		dir := d.dirs[name]
		names := maps.Clone(dir.safe)
		for _, change := range dir.pending {
			if subset&(1<<bit) != 0 {
				change(names)
			}
			bit++
		}
		out := newCutDir()
		for n, f := range names {
			data := f.now
			if string(f.safe) != string(f.now) {
				data = content(f)
			}
			kept := &cutFile{safe: slices.Clone(data), now: slices.Clone(data)}
			out.safe[n], out.now[n] = kept, kept
		}
		w.dirs[name] = out
	}
	return w
}
