package kbuild

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
)

// The patched view of a tree.
//
// A shadow is a directory that looks like the source tree with a patch
// applied. Every directory on the way to a touched file is real, and each of
// its other entries is a symbolic link to the original; so a shadow costs as
// many links as those directories have entries, not a copy of the tree.
//
// A link to a directory has a catch: the kernel's path walk resolves a later
// ".." where the link points, so a file read through dir/../x.h comes from the
// original tree. No list of ".." includes has to be kept for that. After a
// compile, the files that were read say whether it happened: if one of them is
// the original of a touched file, the linked directory on its path is made
// real as well (deepened) and the unit is compiled again.
//
// An O= directory inside the source tree is part of the view, real at its top,
// so that Kbuild's relative "../" paths lead to the shadow.

// Shadow is the patched view of a source tree. Several compiles may use it at
// the same time.
type Shadow struct {
	dir    string // absolute, without symbolic links
	source string // the original
	build  string // where commands run for the original
	// touched are the patch's files, tree-relative, sorted: changed, new and
	// removed ones.
	touched []string

	mu       sync.RWMutex // readers: compiles; writer: deepening
	deepened int          // directories made real since the start
}

// NewShadow makes in dir, which must not exist or be empty, the view of the
// tree in which the given files (tree-relative) have the given content; nil
// removes a file. All unfit paths are reported.
func NewShadow(t *Tree, dir string, files map[string]*[]byte) (*Shadow, error) {
	if strings.ContainsAny(dir, "=\n") {
		return nil, fmt.Errorf("shadow tree: %q: compilers cannot map a path with '='", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("shadow tree: %w", err)
	}
	real, err := realDir(dir)
	if err != nil {
		return nil, fmt.Errorf("shadow tree: %w", err)
	}
	if old, err := os.ReadDir(real); err != nil || len(old) > 0 {
		return nil, fmt.Errorf("shadow tree: %s is not empty", dir)
	}
	s := &Shadow{dir: real, source: t.Source, build: t.Build}
	for f := range files {
		s.touched = append(s.touched, f)
	}
	sort.Strings(s.touched)
	var errs []error
	for _, f := range s.touched {
		if err := checkTouched(t.Source, f, files[f] == nil); err != nil {
			errs = append(errs, fmt.Errorf("shadow tree: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := s.populate(files); err != nil {
		return nil, fmt.Errorf("shadow tree: %w", err)
	}
	return s, nil
}

// checkTouched refuses a path that would lead out of the tree or through a
// symbolic link.
func checkTouched(source, file string, removed bool) error {
	if file == "" || !filepath.IsLocal(file) || path.Clean(file) != file {
		return fmt.Errorf("%q is not a clean path inside the tree", file)
	}
	for i := 0; i <= len(file); i++ {
		if i < len(file) && file[i] != '/' {
			continue
		}
		part := file[:i]
		st, err := os.Lstat(filepath.Join(source, part))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if removed {
				return fmt.Errorf("%s: cannot remove a file that does not exist", file)
			}
			return nil // a new file, perhaps in a new directory
		case err != nil:
			return err
		case st.Mode()&fs.ModeSymlink != 0:
			return fmt.Errorf("%s: %s is a symbolic link", file, part)
		case i < len(file) && !st.IsDir():
			return fmt.Errorf("%s: %s is not a directory", file, part)
		case i == len(file) && !st.Mode().IsRegular():
			return fmt.Errorf("%s is not a regular file", file)
		}
	}
	return nil
}

func (s *Shadow) populate(files map[string]*[]byte) error {
	if err := s.fill(""); err != nil {
		return err
	}
	if rel, ok := below(s.source, s.build); ok {
		if err := s.makeReal(rel); err != nil {
			return err
		}
	}
	for _, f := range s.touched {
		if err := s.makeReal(path.Dir(f)); err != nil {
			return err
		}
		content := files[f]
		if content == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(s.dir, f), *content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Dir is the root of the view.
func (s *Shadow) Dir() string { return s.dir }

// fill links the entries of a directory (tree-relative, "" is the root) into
// the shadow, where it is an empty real directory. Touched files are left out.
func (s *Shadow) fill(rel string) error {
	entries, err := os.ReadDir(filepath.Join(s.source, rel))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a new directory
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(rel, e.Name())
		if _, ok := slices.BinarySearch(s.touched, name); ok {
			continue
		}
		target := filepath.Join(s.source, name)
		if e.Type()&fs.ModeSymlink != 0 {
			if text, err := os.Readlink(target); err == nil && !filepath.IsAbs(text) && filepath.IsLocal(path.Join(rel, text)) {
				target = text // a link inside the tree stays inside the view
			}
		}
		if err := os.Symlink(target, filepath.Join(s.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// makeReal turns a directory of the view and those above it from links into
// real directories.
func (s *Shadow) makeReal(rel string) error {
	if rel == "." {
		return nil
	}
	if err := s.makeReal(path.Dir(rel)); err != nil {
		return err
	}
	at := filepath.Join(s.dir, rel)
	st, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case st.IsDir():
		return nil
	default:
		if err := os.Remove(at); err != nil {
			return err
		}
	}
	if err := os.Mkdir(at, 0o755); err != nil {
		return err
	}
	s.deepened++
	return s.fill(rel)
}

// cwd is where a command of the tree runs in the view.
func (s *Shadow) cwd() string {
	if s.build == s.source {
		return s.dir
	}
	if rel, ok := below(s.source, s.build); ok {
		return filepath.Join(s.dir, rel)
	}
	return s.build
}

// mapPaths replaces the original source tree by the view in an argument that
// holds one or more paths (-I/src/include, -fmacro-prefix-map=/src/=). Paths
// into a build directory inside the source tree stay.
func (s *Shadow) mapPaths(arg string) string {
	var out strings.Builder
	start := 0 // of the current path in arg
	for i := 0; i < len(arg); {
		if strings.ContainsRune("=,:", rune(arg[i])) {
			i++
			start = i
			continue
		}
		if arg[i] != '/' || strings.Contains(arg[start:i], "/") || !s.isSource(arg[i:]) {
			i++
			continue
		}
		out.WriteString(arg[:i])
		out.WriteString(s.dir)
		arg = arg[i+len(s.source):]
		i, start = 0, 0
		// The rest of this path is not looked at again.
		if end := strings.IndexAny(arg, "=,:"); end >= 0 {
			out.WriteString(arg[:end])
			arg = arg[end:]
		} else {
			out.WriteString(arg)
			arg = ""
		}
	}
	out.WriteString(arg)
	return out.String()
}

func (s *Shadow) isSource(p string) bool {
	if s.build != s.source && hasDirPrefix(p, s.build) {
		return false
	}
	return hasDirPrefix(p, s.source)
}

// hasDirPrefix tells whether p is dir or begins with dir and a separator.
func hasDirPrefix(p, dir string) bool {
	return strings.HasPrefix(p, dir) && (len(p) == len(dir) || strings.IndexByte("/=,:", p[len(dir)]) >= 0)
}

// original maps a path in the view back to the original tree.
func (s *Shadow) original(p string) string {
	if p == s.dir {
		return s.source
	}
	if rel, ok := below(s.dir, p); ok {
		return filepath.Join(s.source, rel)
	}
	return p
}

// leaks returns those of the files read (as the compiler named them, relative
// to the view's working directory) that are originals of touched files.
func (s *Shadow) leaks(read []string) []string {
	var originals []fs.FileInfo
	for _, f := range s.touched {
		if st, err := os.Stat(filepath.Join(s.source, f)); err == nil {
			originals = append(originals, st)
		}
	}
	var out []string
	for _, p := range read {
		if !filepath.IsAbs(p) {
			p = s.cwd() + "/" + p
		}
		st, err := os.Stat(p)
		if err != nil {
			continue
		}
		if slices.ContainsFunc(originals, func(o fs.FileInfo) bool { return os.SameFile(o, st) }) {
			out = append(out, p)
		}
	}
	return out
}

// depth counts the directories made real: two equal depths mean that the view
// has not changed in between.
func (s *Shadow) depth() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.deepened
}

// deepen makes the directories on the given paths (absolute, unclean) real.
func (s *Shadow) deepen(paths []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range paths {
		if err := s.deepenPath(p); err != nil {
			return fmt.Errorf("deepen shadow tree: %w", err)
		}
	}
	return nil
}

// deepenPath follows p as the kernel would, making each linked directory of
// the view real before ".." can leave it.
func (s *Shadow) deepenPath(p string) error {
	rel, ok := strings.CutPrefix(p, s.dir+"/")
	if !ok {
		return nil
	}
	at := "."
	parts := strings.Split(rel, "/")
	for _, part := range parts[:len(parts)-1] {
		at = path.Join(at, part)
		if !filepath.IsLocal(at) {
			return nil // it leaves the tree
		}
		st, err := os.Lstat(filepath.Join(s.source, at))
		if err != nil {
			return nil // a new directory is real already
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			text, err := os.Readlink(filepath.Join(s.source, at))
			if err != nil || filepath.IsAbs(text) {
				return err
			}
			at = path.Join(path.Dir(at), text)
			if !filepath.IsLocal(at) {
				return nil
			}
		}
		if err := s.makeReal(at); err != nil {
			return err
		}
	}
	return nil
}

// prefixMaps are options that make __FILE__ and debug information name the
// original. They go first: of several maps for a path the last one counts, so
// the kernel's own, if it has one, goes before them. (-ffile-prefix-map would
// win over any -fmacro-prefix-map, wherever it stands: gcc 12.)
func (s *Shadow) prefixMaps() []string {
	m := "-prefix-map=" + s.dir + "=" + s.source
	return []string{"-fmacro" + m, "-fdebug" + m}
}

// touches tells whether an include name may mean a file that the patch touches.
func (s *Shadow) touches(header string) bool {
	if s == nil {
		return false
	}
	return slices.ContainsFunc(s.touched, func(f string) bool { return path.Base(f) == path.Base(header) })
}
