package pipeline

// Which readers of a changed file can see the change: three sieves, each dearer
// than the one before.
//
//  1. By text: a unit that, whatever it reads, neither mentions nor can make a name
//     that the change declares or defines (cpptext.Changes, cpptext.Query) is
//     dropped without running the preprocessor.
//  2. By preprocessed text: a unit whose text is the same apart from line markers
//     is dropped.
//  3. By reach: a unit whose texts differ only in items that no emitted code uses
//     (cpptext.Compare) is dropped before it is compiled, if its command line
//     allows the conclusion.
//
// Beyond these, a unit is compiled twice and its objects decide. A sieve may keep
// too many units, and never drop one whose code changes. What they rest on is
// that a unit's code in the running kernel does what the patched source says: a
// dropped unit is not rebuilt, so numbers that the compiler gives to local names
// do not matter.

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
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/cpptext"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/kbuild"
)

// fate is what the sieves say of a reader.
type fate uint8

const (
	keep        fate = iota // to be compiled
	unseen                  // its text shows that it cannot see the change
	unchanged               // it is preprocessed to the same text
	unreachable             // what changes is used by no code that it emits
)

// Readers counts the units that read a changed file, by what became of them.
type Readers struct {
	Files []string `json:"files"` // the changed files that others include
	// Read is how many units read one of them, or may read it (those of changed
	// .c files included).
	Read int `json:"read"`
	// DroppedByText is how many of these cannot see the change, as the text
	// itself shows: they were not even preprocessed.
	DroppedByText int `json:"dropped_by_text"`
	// Preprocessed is how many preprocess differently.
	Preprocessed int `json:"preprocess_differently"`
	// Unreachable is how many of these were not compiled, because no code that
	// they emit uses what changes.
	Unreachable int `json:"unreachable"`
	// NotLookedAt is how many units were left alone because a changed type is
	// refused whatever they hold.
	NotLookedAt int `json:"not_looked_at,omitempty"`
	// Functions is how many functions the module changes.
	Functions int `json:"functions_changed"`
}

// count counts the functions of a report.
func (r *Readers) count(objects []ReportObject) {
	if r == nil {
		return
	}
	r.Functions = 0
	for _, o := range objects {
		for _, f := range o.Functions {
			if f.Change == elfdiff.IsChanged {
				r.Functions++
			}
		}
	}
}

// decideCandidates keeps the units that may see a change, in their order.
func (b *builder) decideCandidates(ctx context.Context, candidates []kbuild.Unit) ([]kbuild.Unit, error) {
	if len(b.sel.included) == 0 {
		return nil, nil
	}
	candidates = slices.DeleteFunc(candidates, func(u kbuild.Unit) bool { return u.Special() != "" })
	r := &Readers{Files: b.sel.included, Read: len(candidates) + b.sel.also, Preprocessed: b.sel.also}
	b.report.Readers = r
	if len(candidates) == 0 {
		return nil, nil
	}
	b.step(fmt.Sprintf("look for the change in what %s read", count(len(candidates), "unit")))
	s, err := b.newTextSieve()
	if err != nil {
		return nil, err
	}
	fates, err := b.byText(ctx, s, candidates)
	if err != nil {
		return nil, err
	}
	var left []int
	var names []string
	for i, f := range fates {
		if f == keep {
			left, names = append(left, i), append(names, candidates[i].Source)
		}
	}
	sample, refused, err := b.sampleTypes(ctx, s, candidates, left)
	if err != nil {
		return nil, err
	}
	if refused {
		r.DroppedByText = len(candidates) - len(left)
		r.NotLookedAt = len(left) - len(sample)
		return sample, nil
	}
	b.step(fmt.Sprintf("preprocess %s that may see the change", count(len(left), "unit")))
	gate, end := b.gate(preprocessMemory)
	defer end()
	err = b.each(ctx, names, func(ctx context.Context, i int) error {
		defer gate.enter()()
		var err error
		fates[left[i]], err = b.byPreprocessing(ctx, candidates[left[i]])
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []kbuild.Unit
	for i, u := range candidates {
		switch fates[i] {
		case keep:
			r.Preprocessed++
			out = append(out, u)
		case unseen:
			r.DroppedByText++
		case unreachable:
			r.Preprocessed++
			r.Unreachable++
		}
	}
	return out, nil
}

// checkCompiles compiles one unit that reads a changed file, where no unit is left
// to be compiled: a patch that does not compile is not one without effect.
func (b *builder) checkCompiles(ctx context.Context) error {
	for _, u := range b.sel.candidates {
		if u.Special() == "" {
			return b.compilePatched(ctx, &pair{unit: u})
		}
	}
	return nil
}

// byText is the first sieve.
func (b *builder) byText(ctx context.Context, s *textSieve, candidates []kbuild.Unit) ([]fate, error) {
	fates := make([]fate, len(candidates))
	if s.query == nil {
		return fates, nil
	}
	reading, err := b.kernel.Tree.Reading(candidates, b.depsCache())
	if err != nil {
		return nil, err
	}
	if err := s.lookThrough(ctx, reading, b.o.Jobs); err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.o.Jobs)
	for i, u := range candidates {
		g.Go(func() error {
			if !s.sees(u, reading.Units[i]) {
				fates[i] = unseen
			}
			return ctx.Err()
		})
	}
	return fates, g.Wait()
}

// textSieve knows the names that the changes of headers declare, and what of
// them is in each file.
type textSieve struct {
	query *cpptext.Query // nil: the changes give no names to look for
	// rest holds the changed files, by absolute name, without what changes in
	// them; nil: the change may be seen by text that mentions no name.
	rest map[string]*[]byte
	// hits are what the files of a Reading hold; blind marks those whose
	// readers must all be preprocessed.
	hits  []cpptext.Hits
	blind []bool
}

func (b *builder) newTextSieve() (*textSieve, error) {
	s := &textSieve{rest: map[string]*[]byte{}}
	var names []string
	for _, f := range b.files {
		file := filepath.Join(b.kernel.Tree.Source, f.path)
		s.rest[file] = nil
		if ext := path.Ext(f.path); f.isNew || f.content == nil || ext != ".h" && ext != ".c" {
			continue
		}
		old, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		// Lines are pinned (diff.Applied.Pin), so chunks that move are the same.
		c, ok := cpptext.Changes(old, *f.content)
		if !ok {
			continue
		}
		s.rest[file] = &c.Rest
		names = append(names, c.Names...)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if slices.ContainsFunc(b.files, func(f touched) bool { return s.rest[filepath.Join(b.kernel.Tree.Source, f.path)] != nil }) {
		s.query = cpptext.NewQuery(names)
	}
	return s, nil
}

// lookThrough reads all files of a reading: first for the macros that paste, then
// for the names and for what is given to these macros.
func (s *textSieve) lookThrough(ctx context.Context, r *kbuild.Reading, jobs int) error {
	s.hits, s.blind = make([]cpptext.Hits, len(r.Files)), make([]bool, len(r.Files))
	used := make([]bool, len(r.Files))
	for _, list := range r.Units {
		for _, n := range list {
			used[n] = true
		}
	}
	var macros []string
	var mu sync.Mutex
	err := s.eachText(ctx, r.Files, used, jobs, func(n int, text []byte) {
		if m := s.query.Pasting(text); len(m) > 0 {
			mu.Lock()
			defer mu.Unlock()
			macros = append(macros, m...)
		}
	})
	if err != nil {
		return err
	}
	s.query.Follow(macros)
	return s.eachText(ctx, r.Files, used, jobs, func(n int, text []byte) { s.hits[n] = s.query.Look(text) })
}

// eachText calls f, in parallel, with the texts of the files in use; of changed
// files it is the rest that does not change.
func (s *textSieve) eachText(ctx context.Context, files []string, used []bool, jobs int, f func(int, []byte)) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for n, file := range files {
		if !used[n] {
			continue
		}
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			text, changed := s.rest[file]
			if changed && text == nil {
				s.blind[n] = true
				return nil
			}
			if !changed {
				read, err := os.ReadFile(file)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
				text = &read
			}
			f(n, *text)
			return nil
		})
	}
	return g.Wait()
}

// sees tells whether a unit that reads the given files may see the change.
func (s *textSieve) sees(u kbuild.Unit, files []uint32) bool {
	if files == nil {
		return true
	}
	hits := make([]cpptext.Hits, 0, len(files)+1)
	for _, n := range files {
		if s.blind[n] {
			return true
		}
		hits = append(hits, s.hits[n])
	}
	return s.query.Sees(append(hits, s.query.Look([]byte(strings.Join(u.Args, " ")))))
}

// originalText is the job that preprocesses a unit as it is.
func (b *builder) originalText(u kbuild.Unit) kbuild.CompileJob {
	return kbuild.CompileJob{Unit: u, Out: b.tempName(u, "i"), Extra: []string{"-P"}}
}

// byPreprocessing is the second and the third sieve.
func (b *builder) byPreprocessing(ctx context.Context, u kbuild.Unit) (fate, error) {
	job := b.originalText(u)
	orig, err := b.cache.text(ctx, job)
	if err != nil {
		return keep, err
	}
	job.Unit, job.Shadow, job.Out = b.sel.after(u), b.shadow, b.tempName(u, "patched.i")
	patched, err := b.kernel.Tree.Preprocess(ctx, job)
	if err != nil {
		return keep, err
	}
	if bytes.Equal(orig, patched.Text) {
		return unchanged, nil
	}
	switch cpptext.Compare(orig, patched.Text).Outcome {
	case cpptext.Same:
		return unchanged, nil
	case cpptext.Unreachable:
		if dropsUnused(u.Args) {
			return unreachable, nil
		}
	}
	return keep, nil
}

// dropsUnused tells whether a compile command keeps to what cpptext.Compare
// assumes: the compiler optimises, drops what is static and unused, does not
// choose an enum's size by its values, and no plugin looks at the text.
func dropsUnused(args []string) bool {
	optimised := false
	for _, a := range args {
		switch {
		case a == "-O" || a == "-O0":
			optimised = a == "-O"
		case strings.HasPrefix(a, "-O"):
			optimised = true
		case strings.HasPrefix(a, "-fkeep-"), a == "-fno-toplevel-reorder", a == "-fno-unit-at-a-time", a == "-fshort-enums",
			strings.HasPrefix(a, "-fplugin"), strings.HasPrefix(a, "-flto"), a == "--coverage", a == "-fprofile-arcs", a == "-ftest-coverage":
			return false
		}
	}
	return optimised
}
