package diff

// How a hunk finds its place.
//
// The lines of the old side (context and removed) must stand in the file one
// after the other, byte for byte. The place that the header names is tried
// first, moved by as much as the hunk before was moved. Then places ever
// farther from it, up to the ends of the file and never before the end of the
// previous hunk. The nearest wins; when two are equally near the hunk is
// ambiguous and refused. As in GNU patch, a hunk for line 1 with less context
// before than after its change can only stand at the beginning, and one with
// less context after than before only at the end. A hunk without any context
// (diff -U0) is only tried at its own place, and if it also removes nothing, it
// is refused: nothing proves that its place is right.
//
// Fuzz, if allowed, leaves out context at the ends of the hunk, again as GNU
// patch does: the longer context is shortened first.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Options say how strictly hunks must match.
type Options struct {
	// Fuzz is the number of context lines that may differ at either end of a
	// hunk. 0, the default, allows none.
	Fuzz int
}

// Edit is a run of lines replaced by another. Where a count is 0, the start is
// the line before which the other side's lines stand.
type Edit struct {
	OldStart, OldLines int // 1-based line and number of lines in the old file
	NewStart, NewLines int // 1-based line and number of lines in the new file
}

// Applied is a file's content after its hunks have been applied.
type Applied struct {
	Content []byte
	Offsets []int  // for each hunk, the lines it moved from where its header says
	Fuzz    []int  // for each hunk, the fuzz it needed
	Edits   []Edit // sorted; they neither overlap nor touch
}

// Result is one file of a patch, applied to a tree.
type Result struct {
	File    *File
	Applied *Applied // for a Delete, its Content is empty
}

// Apply applies the whole patch to a tree, in the order of its files. It reads
// through tree and changes nothing. The error joins ApplyErrors, one for every
// hunk or file that does not fit.
func (p *Patch) Apply(tree fs.FS, o Options) ([]Result, error) {
	var results []Result
	var errs []error
	for _, f := range p.Files {
		a, err := f.applyIn(tree, o)
		if err != nil {
			p.sign(err)
			errs = append(errs, err)
			continue
		}
		results = append(results, Result{File: f, Applied: a})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return results, nil
}

// sign puts the patch's name into the ApplyErrors of one file.
func (p *Patch) sign(err error) {
	var one *ApplyError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			p.sign(e)
		}
	} else if errors.As(err, &one) {
		one.Patch = p.Name
	}
}

// applyIn applies one file's hunks to what the tree holds.
func (f *File) applyIn(tree fs.FS, o Options) (*Applied, error) {
	if f.Op == Rename || f.Op == Copy {
		if _, err := fs.Stat(tree, f.New); err == nil {
			return nil, f.refuse("%s to %s, which exists already", f.Op, f.New)
		}
	}
	old, err := fs.ReadFile(tree, firstOf(f.Old, f.New))
	switch {
	case f.Op == Add && errors.Is(err, fs.ErrNotExist):
		// as it should be
	case errors.Is(err, fs.ErrNotExist):
		return nil, f.refuse("no file %s in the tree", f.Old)
	case err != nil:
		return nil, f.refuse("%v", err)
	case f.Op == Add && f.NewMode != "" && len(old) == 0:
		// a plain diff, without modes, shows an empty file just like a new one
		return nil, f.refuse("new file exists already")
	}
	return f.Apply(old, o)
}

// refuse is the error for the file as a whole.
func (f *File) refuse(format string, args ...any) error {
	return &ApplyError{File: f.Path(), PatchLine: f.Line, Reason: fmt.Sprintf(format, args...)}
}

// Apply applies the file's hunks to its old content, which for Add must be
// empty. The error joins ApplyErrors, one for every hunk that does not fit. It
// does not change old, and neither does the result share memory with it.
func (f *File) Apply(old []byte, o Options) (*Applied, error) {
	if f.Op == Add && len(old) > 0 {
		if a, err := f.Apply(nil, o); err == nil && bytes.Equal(a.Content, old) {
			return nil, f.refuse("already applied (reverse applies)")
		}
		return nil, f.refuse("new file exists already")
	}
	m := &merge{old: splitKeep(old), fuzz: max(o.Fuzz, 0)}
	var errs []error
	for i := range f.Hunks {
		h := &f.Hunks[i]
		p, reason := m.place(h)
		if reason != "" {
			errs = append(errs, &ApplyError{
				File: f.Path(), Hunk: i + 1, PatchLine: h.Line, OldStart: h.OldStart, Reason: reason,
			})
			continue
		}
		m.take(p)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	m.copyTo(len(m.old))
	if f.Op == Delete && len(m.out) > 0 {
		return nil, f.refuse("deleted file has %d lines more than the patch removes", len(m.out))
	}
	m.done.Content = []byte(strings.Join(m.out, ""))
	return &m.done, nil
}

// splitKeep cuts content into lines that keep their newline.
func splitKeep(content []byte) []string {
	if len(content) == 0 {
		return nil
	}
	lines := strings.SplitAfter(string(content), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	return lines
}

// merge is the state of applying one file's hunks in order.
type merge struct {
	old   []string // lines with their newline
	fuzz  int
	next  int      // 0-based index of the first old line not yet taken
	moved int      // how far the hunk before was moved, in lines
	out   []string // the new file so far
	done  Applied
}

// placed is a hunk that has found its place.
type placed struct {
	lines  []Line // without the context that fuzz left out
	at     int    // 0-based index in the old file of its first line
	offset int    // lines it moved
	fuzz   int
}

// pattern is what a hunk looks for: one side of its lines.
type pattern struct {
	lines      []string // with newline
	want       int      // 0-based index where it should stand
	begin, end bool     // it can only stand at that end of the file
	fixed      bool     // it can only stand at want
}

// place looks for the place of h. If there is none, reason says why.
func (m *merge) place(h *Hunk) (p placed, reason string) {
	lead, trail := contexts(h.Lines)
	if h.OldLines == 0 && len(m.old) > 0 {
		return p, "has no context, so that nothing shows that its place is right: make the diff with -U3"
	}
	for fuzz := 0; fuzz == 0 || fuzz <= min(m.fuzz, max(lead, trail)); fuzz++ {
		cutLead := max(0, fuzz+lead-max(lead, trail))
		cutTrail := max(0, fuzz+trail-max(lead, trail))
		lines := h.Lines[cutLead : len(h.Lines)-cutTrail]
		pat := oldSide(h, lines, fuzz)
		pat.want += cutLead + m.moved
		if fuzz > 0 && len(pat.lines) == 0 {
			break
		}
		at, other := m.find(pat, m.next)
		if other >= 0 {
			return p, fmt.Sprintf("ambiguous: lines %d and %d match and are equally far from line %d",
				at+1, other+1, pat.want+1)
		}
		if at >= 0 {
			return placed{lines: lines, at: at, offset: at - pat.want + m.moved, fuzz: fuzz}, ""
		}
	}
	return p, m.explain(h)
}

// contexts counts the context lines before the first and after the last change.
func contexts(lines []Line) (lead, trail int) {
	isChange := func(l Line) bool { return l.Kind != Context }
	lead = slices.IndexFunc(lines, isChange)
	for trail < len(lines) && !isChange(lines[len(lines)-1-trail]) {
		trail++
	}
	return lead, trail
}

// side returns the lines of one side, with their newlines: all but those of the
// given kind.
func side(lines []Line, without byte) []string {
	var out []string
	for _, l := range lines {
		if l.Kind != without {
			out = append(out, l.raw())
		}
	}
	return out
}

// fullContext is the least context that diff gives by default. With that much
// after a change, the hunk need not be at the end, even if it has more before:
// git diff -W extends context to whole functions.
const fullContext = 3

// oldSide makes the pattern for lines, which are h's, perhaps without some
// context. With fuzz the ends of the file bind less, as in GNU patch.
func oldSide(h *Hunk, lines []Line, fuzz int) pattern {
	lead, trail := contexts(h.Lines)
	return pattern{
		lines: side(lines, Added),
		want:  h.start(),
		begin: lead+fuzz < trail && h.OldStart <= 1,
		end:   trail+fuzz < lead && trail < fullContext || endsNew(lines),
		fixed: lead == 0 && trail == 0,
	}
}

// endsNew tells whether the new side of a hunk reaches the end of the file,
// which it does when a line of it lacks the newline.
func endsNew(lines []Line) bool {
	return slices.ContainsFunc(lines, func(l Line) bool { return l.NoEOL && l.Kind != Removed })
}

// find returns the index of the match nearest to where the pattern should
// stand, at or after from, or -1. other is a second match at the same distance,
// or -1.
func (m *merge) find(pat pattern, from int) (at, other int) {
	last := len(m.old) - len(pat.lines)
	lo, hi := from, last
	if pat.begin {
		hi = min(hi, 0)
	}
	if pat.end {
		lo = max(lo, last)
	}
	if pat.fixed {
		lo, hi = max(lo, pat.want), min(hi, pat.want)
	}
	if lo > hi {
		return -1, -1
	}
	for d := max(0, lo-pat.want, pat.want-hi); pat.want-d >= lo || pat.want+d <= hi; d++ {
		before, after := m.matches(pat, pat.want-d, lo, hi), m.matches(pat, pat.want+d, lo, hi)
		switch {
		case before && after && d > 0:
			return pat.want - d, pat.want + d
		case before:
			return pat.want - d, -1
		case after:
			return pat.want + d, -1
		}
	}
	return -1, -1
}

// matches tells whether the pattern stands at an index within bounds.
func (m *merge) matches(pat pattern, at, lo, hi int) bool {
	return at >= lo && at <= hi && slices.Equal(m.old[at:at+len(pat.lines)], pat.lines)
}

// copyTo copies old lines up to the index end, exclusive.
func (m *merge) copyTo(end int) {
	m.out = append(m.out, m.old[m.next:end]...)
	m.next = end
}

// take applies a placed hunk and records its edits.
func (m *merge) take(p placed) {
	m.copyTo(p.at)
	inEdit := false
	for _, l := range p.lines {
		if l.Kind == Context {
			m.copyTo(m.next + 1)
			inEdit = false
			continue
		}
		if !inEdit {
			m.beginEdit()
			inEdit = true
		}
		edit := &m.done.Edits[len(m.done.Edits)-1]
		if l.Kind == Removed {
			m.next++
			edit.OldLines++
		} else {
			m.out = append(m.out, l.raw())
			edit.NewLines++
		}
	}
	m.moved = p.offset
	m.done.Offsets = append(m.done.Offsets, p.offset)
	m.done.Fuzz = append(m.done.Fuzz, p.fuzz)
}

// beginEdit begins an edit at the current lines, or goes on with the last one
// if nothing stands between.
func (m *merge) beginEdit() {
	if n := len(m.done.Edits); n > 0 {
		last := m.done.Edits[n-1]
		if last.OldStart+last.OldLines == m.next+1 && last.NewStart+last.NewLines == len(m.out)+1 {
			return
		}
	}
	m.done.Edits = append(m.done.Edits, Edit{OldStart: m.next + 1, NewStart: len(m.out) + 1})
}
