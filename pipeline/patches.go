package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/internal/run"
)

// touched is one file of the tree that the patches change.
type touched struct {
	path    string
	content *[]byte // nil: removed
	old     []byte  // what it was; nil if new
	edits   []diff.Edit
	pinned  []byte // content with line numbers pinned; equal to content where that changes nothing
	isNew   bool
}

// savedFile is what the choice of units settles of a touched file.
type savedFile struct {
	Path   string
	Edits  []diff.Edit
	Pinned []byte
}

func (f *touched) saved() savedFile { return savedFile{f.path, f.edits, f.pinned} }

// takes sets what was saved of the file, if it is this one.
func (f *touched) takes(v savedFile) bool {
	if v.Path != f.path {
		return false
	}
	f.edits, f.pinned = v.Edits, v.Pinned
	return true
}

// readPatches reads and parses the patches, reporting all faults together. A
// path may be a patch, an mbox, or a folder with a series file.
func readPatches(paths []string) ([]*diff.Patch, error) {
	var patches []*diff.Patch
	files, err := patchFiles(paths)
	errs := []error{err}
	for _, f := range files {
		series, err := readPatch(f)
		patches = append(patches, series...)
		errs = append(errs, err)
	}
	return patches, errors.Join(errs...)
}

// patchFiles lists the files of the patches, in order.
func patchFiles(paths []string) ([]string, error) {
	var all []string
	var errs []error
	for _, p := range paths {
		files := []string{p}
		if st, err := os.Stat(p); err == nil && st.IsDir() {
			if files, err = readSeries(p); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		all = append(all, files...)
	}
	return all, errors.Join(errs...)
}

func readPatch(name string) ([]*diff.Patch, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return diff.ParseSeries(name, data)
}

// readSeries reads quilt's list of patches: one file a line, in order, with
// options after the name and comments after "#". All patches must be made for
// -p1, as kernel patches are.
func readSeries(dir string) ([]string, error) {
	files, err := SeriesFiles(filepath.Join(dir, "series"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: a folder of patches needs a file named series that gives their order", dir)
	}
	return files, err
}

// SeriesFiles returns the paths of the patches that a series file names, in its
// order; they lie in its folder.
func SeriesFiles(name string) ([]string, error) {
	dir := filepath.Dir(name)
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var files []string
	var errs []error
	for i, line := range strings.Split(string(data), "\n") {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if !filepath.IsLocal(fields[0]) {
			errs = append(errs, fmt.Errorf("%s:%d: %s leads out of the folder", name, i+1, fields[0]))
		}
		for _, option := range fields[1:] {
			if option != "-p1" {
				errs = append(errs, fmt.Errorf("%s:%d: option %s is not supported, only -p1", name, i+1, option))
			}
		}
		files = append(files, filepath.Join(dir, fields[0]))
	}
	if len(files) == 0 {
		errs = append(errs, fmt.Errorf("%s names no patch", name))
	}
	return files, errors.Join(errs...)
}

// gitPatches returns the commits of a range of the source tree's repository as
// patches, oldest first. The tree itself must be at the range's beginning.
func gitPatches(ctx context.Context, source, revisions string) ([]*diff.Patch, error) {
	text, err := gitText(ctx, source, revisions)
	if err != nil {
		return nil, err
	}
	return diff.ParseSeries(revisions, text)
}

// gitText returns the commits of a range as git writes them.
func gitText(ctx context.Context, source, revisions string) ([]byte, error) {
	if !strings.Contains(revisions, "..") || strings.HasPrefix(revisions, "-") {
		return nil, fmt.Errorf("%q is not a range of commits: give REV..REV", revisions)
	}
	r, err := run.Do(ctx, run.Cmd{Dir: source, Args: []string{"git", "--no-pager", "format-patch", "--stdout", "--no-signature", "--no-renames", "--full-index", "--no-ext-diff", revisions, "--"},
		Env: []string{"LC_ALL=C", "GIT_OPTIONAL_LOCKS=0"}})
	if err != nil {
		return nil, fmt.Errorf("read the commits %s of %s: %w", revisions, source, err)
	}
	if len(r.Stdout) == 0 {
		return nil, fmt.Errorf("the range %s of %s holds no commits", revisions, source)
	}
	return r.Stdout, nil
}

// overlay is the source tree with the patches so far.
type overlay struct {
	base  fs.FS
	files map[string]*[]byte
}

// Open implements fs.FS.
func (o overlay) Open(name string) (fs.File, error) {
	c, ok := o.files[name]
	switch {
	case !ok:
		return o.base.Open(name)
	case c == nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return &memFile{name: path.Base(name), Reader: bytes.NewReader(*c)}, nil
}

// memFile is a file of the overlay.
type memFile struct {
	name string
	*bytes.Reader
}

func (f *memFile) Stat() (fs.FileInfo, error) { return f, nil }
func (f *memFile) Close() error               { return nil }
func (f *memFile) Name() string               { return f.name }
func (f *memFile) Mode() fs.FileMode          { return 0o644 }
func (f *memFile) ModTime() time.Time         { return time.Time{} }
func (f *memFile) IsDir() bool                { return false }
func (f *memFile) Sys() any                   { return nil }

// applyAll applies the patches in order, in memory.
func applyAll(source string, patches []*diff.Patch, o diff.Options, note func(string)) ([]touched, error) {
	tree := overlay{base: os.DirFS(source), files: map[string]*[]byte{}}
	last := map[string]*diff.Applied{}
	for _, p := range patches {
		results, err := p.Apply(tree, o)
		if err != nil {
			return nil, err
		}
		for _, r := range results {
			noteOffsets(p, r, note)
			if err := inTree(source, r.File); err != nil {
				return nil, err
			}
			if r.File.Op == diff.Delete || r.File.Op == diff.Rename {
				tree.files[r.File.Old] = nil
				delete(last, r.File.Old)
			}
			if r.File.Op == diff.Delete {
				continue
			}
			name := r.File.Path()
			if _, twice := tree.files[name]; twice {
				last[name] = nil // composed below
			} else {
				last[name] = r.Applied
			}
			content := r.Applied.Content
			tree.files[name] = &content
		}
	}
	return collectTouched(source, tree, last)
}

func collectTouched(source string, tree overlay, last map[string]*diff.Applied) ([]touched, error) {
	var out []touched
	for name, content := range tree.files {
		t := touched{path: name, content: content}
		old, err := fs.ReadFile(tree.base, name)
		t.old, t.isNew = old, errors.Is(err, fs.ErrNotExist)
		if err != nil && !t.isNew {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(source, name), err)
		}
		switch a := last[name]; {
		case content == nil && t.isNew, content != nil && !t.isNew && string(*content) == string(old):
			continue // came and went, or went back to what it was
		case content == nil, t.isNew:
		default:
			if a == nil {
				a = diff.Between(old, *content)
			}
			t.edits = a.Edits
			if strings.HasSuffix(name, ".c") || strings.HasSuffix(name, ".h") {
				t.pinned = a.Pin()
			}
		}
		if t.content != nil && t.pinned == nil {
			t.pinned = *t.content
		}
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].path < out[j].path })
	return out, nil
}

func noteOffsets(p *diff.Patch, r diff.Result, note func(string)) {
	for i, off := range r.Applied.Offsets {
		if off != 0 {
			where := "below"
			if off < 0 {
				off, where = -off, "above"
			}
			note(fmt.Sprintf("%s: %s: hunk %d applies %s %s where it says", p.Name, r.File.Path(), i+1, count(off, "line"), where))
		}
	}
}

// inTree refuses a file that a symbolic link leads out of the tree.
func inTree(source string, f *diff.File) error {
	for _, name := range slices.Compact([]string{f.Old, f.New}) {
		if name == "" {
			continue
		}
		root, err := filepath.EvalSymlinks(source)
		if err != nil {
			return err
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(filepath.Join(source, name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a new folder
		}
		if err != nil {
			return err
		}
		if dir != root && !strings.HasPrefix(dir, root+string(filepath.Separator)) {
			return fmt.Errorf("%s: a symbolic link in its path leads out of the kernel tree", name)
		}
	}
	return nil
}
