package diff

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	godiff "github.com/sourcegraph/go-diff/diff"
)

// errNoChange is a hunk without added or removed lines.
var errNoChange = errors.New("changes nothing")

// hunks reads the hunks at pos into f and notes what is wrong with them.
func (s *scanner) hunks(f *File) {
	for strings.HasPrefix(s.line(s.pos), "@@") {
		at, n := s.pos, len(f.Hunks)+1
		if s.kind(at) != kindHunk {
			s.fail(at, f.Path(), n, "malformed header: %q", s.line(at))
			return
		}
		h, bad, err := s.hunk()
		if err != nil {
			s.fail(bad, f.Path(), n, "%v", err)
			return
		}
		if err := follows(f.Hunks, h); err != nil {
			s.fail(at, f.Path(), n, "%v", err)
		}
		f.Hunks = append(f.Hunks, *h)
	}
}

// follows checks that h begins after the hunk before it has ended, and that no
// file goes on after it has ended without a newline.
func follows(before []Hunk, h *Hunk) error {
	if len(before) == 0 {
		return nil
	}
	prev := &before[len(before)-1]
	switch {
	case h.start() < prev.start():
		return fmt.Errorf("out of order: it is for line %d, the hunk before it for line %d", h.OldStart, prev.OldStart)
	case h.start() < prev.start()+prev.OldLines:
		return fmt.Errorf("overlaps the hunk before it, which reaches to line %d", prev.start()+prev.OldLines)
	}
	for _, l := range prev.Lines {
		if l.NoEOL {
			return fmt.Errorf("comes after the end of the file, which the hunk before it marks")
		}
	}
	return nil
}

// body is the scanner's view of a hunk: its lines with their first character,
// those that end the file, and what it counted.
type body struct {
	lines              []string
	noEOL              []bool
	old, new           int
	oldEnded, newEnded bool // the file has ended without a newline on that side
}

// hunk reads the hunk at pos. bad is the 0-based line of an error.
func (s *scanner) hunk() (h *Hunk, bad int, err error) {
	at := s.pos
	m := hunkHeader.FindStringSubmatch(s.line(at))
	wantOld, wantNew := count(m[2]), count(m[4])
	s.pos++
	var b body
	for b.old < wantOld || b.new < wantNew {
		if !s.inHunk(s.pos) {
			bad, err = s.short(&b, at, wantOld, wantNew)
			return nil, bad, err
		}
		if err := b.add(s.line(s.pos)); err != nil {
			return nil, s.pos, err
		}
		if b.old > wantOld || b.new > wantNew {
			return nil, at, s.miscounted(at, wantOld, wantNew)
		}
		s.pos++
	}
	if strings.HasPrefix(s.line(s.pos), `\`) {
		if err := b.add(s.line(s.pos)); err != nil {
			return nil, s.pos, err
		}
		s.pos++
	}
	switch s.kind(s.pos) {
	case kindBody:
		return nil, at, s.miscounted(at, wantOld, wantNew)
	case kindText:
		if isSignature(s.line(s.pos-1), s.line(s.pos)) {
			return nil, at, s.miscounted(at, wantOld, wantNew)
		}
	case kindPlain:
		if s.kind(s.pos+2) != kindHunk {
			return nil, at, s.miscounted(at, wantOld, wantNew)
		}
	}
	h, err = s.decode(at, &b)
	return h, at, err
}

// count reads the number of lines in a range; it is 1 where it is left out.
func count(digits string) int {
	if digits == "" {
		return 1
	}
	n, _ := strconv.Atoi(digits) // at most nine digits: see hunkHeader
	return n
}

// inHunk tells whether the line at index i can be a line of a hunk. A blank one
// is context whose space was cut off, as diff --suppress-blank-empty does. The
// removal of "-- x" next to the addition of "++ y" is one, a new file's header
// is none: the latter has a hunk behind it and names that are the same.
func (s *scanner) inHunk(i int) bool {
	if i >= s.end {
		return false
	}
	line := s.line(i)
	if line == "" || line == "\r" {
		return true
	}
	switch line[0] {
	case Context, Added, '\\':
		return true
	case Removed:
		return s.kind(i) != kindPlain || s.kind(i+2) != kindHunk || !s.sameNames(i)
	}
	return false
}

// sameNames tells whether the two name lines at i are those of one file.
func (s *scanner) sameNames(i int) bool {
	var names [2]string
	for n, prefix := range []string{"--- ", "+++ "} {
		raw, _, err := rawName(strings.TrimPrefix(s.line(i+n), prefix))
		if err != nil {
			return false
		}
		if raw == devNull {
			return true
		}
		if names[n], err = cleanName(raw); err != nil {
			return false
		}
	}
	return names[0] == names[1]
}

// add takes one line into the body.
func (b *body) add(line string) error {
	if line == "" || line == "\r" {
		line = " " + line
	}
	last := len(b.lines) - 1
	if line[0] == '\\' {
		if last < 0 || b.noEOL[last] {
			return fmt.Errorf("stray line %q", line)
		}
		b.noEOL[last] = true
		b.oldEnded = b.oldEnded || b.lines[last][0] != Added
		b.newEnded = b.newEnded || b.lines[last][0] != Removed
		if strings.HasSuffix(line, "\r") {
			// the patch's own line end, not the file's
			b.lines[last] = strings.TrimSuffix(b.lines[last], "\r")
		}
		return nil
	}
	if b.oldEnded && line[0] != Added || b.newEnded && line[0] != Removed {
		return fmt.Errorf("line after the end of the file: %q", line)
	}
	if line[0] != Added {
		b.old++
	}
	if line[0] != Removed {
		b.new++
	}
	b.lines = append(b.lines, line)
	b.noEOL = append(b.noEOL, false)
	return nil
}

// short explains why the body ended before the header's counts were reached.
func (s *scanner) short(b *body, at, wantOld, wantNew int) (bad int, err error) {
	ended := s.pos >= s.end
	switch s.kind(s.pos) {
	case kindGit, kindPlain, kindCombined, kindHunk, kindMail, kindSeparator, kindOnlyIn, kindBinary:
		ended = true
	case kindText:
		// the signature's "-- " was taken for a removed line
		ended = ended || s.pos > at+1 && isSignature(s.line(s.pos-1), s.line(s.pos))
	}
	if ended {
		return at, s.miscounted(at, wantOld, wantNew)
	}
	return s.pos, fmt.Errorf("line has lost its leading space: %q", s.line(s.pos))
}

// miscounted is the error for the hunk at index at, with what it really has.
func (s *scanner) miscounted(at, wantOld, wantNew int) error {
	old, new := 0, 0
	blank := 0 // blank lines at the end are none of the hunk's
	for i := at + 1; s.inHunk(i) && s.kind(i) != kindSignature; i++ {
		if s.kind(i) == kindBlank {
			blank++
			continue
		}
		old, new, blank = old+blank, new+blank, 0
		switch s.line(i)[0] {
		case Context:
			old++
			new++
		case Added:
			new++
		case Removed:
			old++
		}
	}
	problem := "fewer"
	if old > wantOld || new > wantNew {
		problem = "more"
	}
	return fmt.Errorf("%s lines than its header says: header has %d old and %d new, the hunk %d and %d",
		problem, wantOld, wantNew, old, new)
}

// decode lets go-diff read the hunk whose extent is known, and checks that it
// saw the same.
func (s *scanner) decode(at int, b *body) (*Hunk, error) {
	if len(b.lines) == 0 {
		return nil, errNoChange
	}
	text := strings.TrimSuffix(s.line(at), "\r") + "\n" + strings.Join(b.lines, "\n") + "\n"
	parsed, err := godiff.ParseHunksOptions([]byte(text), godiff.ParseOptions{KeepCR: true})
	if err != nil {
		return nil, fmt.Errorf("malformed: %w", err)
	}
	if len(parsed) != 1 {
		return nil, fmt.Errorf("internal error: read as %d hunks", len(parsed))
	}
	g := parsed[0]
	h := &Hunk{
		Line:     at + 1,
		OldStart: int(g.OrigStartLine), OldLines: int(g.OrigLines),
		NewStart: int(g.NewStartLine), NewLines: int(g.NewLines),
		Section: g.Section,
	}
	lines := strings.Split(strings.TrimSuffix(string(g.Body), "\n"), "\n")
	if len(lines) != len(b.lines) || h.OldLines != b.old || h.NewLines != b.new {
		return nil, fmt.Errorf("internal error: read with %d lines instead of %d", len(lines), len(b.lines))
	}
	changed := false
	for i, line := range lines {
		h.Lines = append(h.Lines, Line{Kind: line[0], Text: line[1:], NoEOL: b.noEOL[i]})
		changed = changed || line[0] != Context
	}
	switch {
	case !changed:
		return nil, errNoChange
	case h.OldStart == 0 && h.OldLines > 0, h.NewStart == 0 && h.NewLines > 0:
		return nil, fmt.Errorf("malformed header: line 0 has no lines: %q", s.line(at))
	}
	return h, nil
}
