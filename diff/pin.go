package diff

// How lines are pinned.
//
// Walk over the new file's lines and keep the drift: by how much the number that
// the compiler gives to a line exceeds the one the line had in the old file. An
// edit changes it by its added minus its removed lines. Before the first
// unedited line with drift at which the lexer lets a directive stand, #line with
// the old number sets the drift to zero.
//
// A #line in a branch of #if is only seen if the branch is compiled, and takes
// up a line in any case. So once one has been put into a branch, the drift is
// unknown at the start of each further branch and after #endif, and the next
// possible line gets a #line whatever the sums say.
//
// Files that hold #line directives of their own (generated ones) number their
// lines by the last of these: they set the drift to zero as well, and from there
// old numbers count from what they say.

import (
	"bytes"
	"strconv"
)

// Pin returns the content with #line directives after the edits, so that every
// later line keeps its original __LINE__. An edit with as many lines added as
// removed needs none. Added lines are numbered on from the line before them, and
// lines between an edit and the first place where a directive can stand (not in
// a comment, a literal, a continued line or parentheses) are not pinned. The
// content must be C.
func (a *Applied) Pin() []byte {
	p := &pinner{lines: bytes.SplitAfter(a.Content, []byte("\n")), starts: lexLines(a.Content), edits: a.Edits}
	if n := len(p.lines); len(p.lines[n-1]) == 0 {
		p.lines = p.lines[:n-1]
	}
	for i := range p.lines {
		p.line(i)
	}
	return p.out
}

// pinner is the state of one walk over a file.
type pinner struct {
	lines  [][]byte // with their newline
	starts []lineStart
	edits  []Edit // those not yet passed

	shift   int    // new minus old physical line, by the edits so far
	drift   int    // by how much the compiler's number is too large
	unknown bool   // the drift depends on which branches are compiled
	base    int    // old number minus old physical line: not 0 after a #line of the file's own
	pinned  []bool // for each open #if: a #line was put into one of its branches
	out     []byte
}

// line passes the line with the 0-based index i.
func (p *pinner) line(i int) {
	start := p.starts[i]
	edited := p.pass(i + 1)
	if !edited && (p.drift != 0 || p.unknown) && start.free && start.cond != condElse && start.cond != condEnd {
		p.pin(i)
	}
	p.out = append(p.out, p.lines[i]...)
	p.branch(start.cond)
	if start.number > 0 {
		p.base = start.number - (i + 2 - p.shift)
		if p.drift != 0 || p.unknown {
			p.settle()
		}
	}
}

// pass takes into account the edits that end before the 1-based new line n, and
// tells whether the line is part of the next.
func (p *pinner) pass(n int) (edited bool) {
	for len(p.edits) > 0 && n >= p.edits[0].NewStart+p.edits[0].NewLines {
		delta := p.edits[0].NewLines - p.edits[0].OldLines
		p.shift += delta
		p.drift += delta
		p.edits = p.edits[1:]
	}
	return len(p.edits) > 0 && n >= p.edits[0].NewStart
}

// pin puts a #line before the line with the 0-based index i.
func (p *pinner) pin(i int) {
	p.out = append(p.out, "#line "...)
	p.out = strconv.AppendInt(p.out, int64(i+1-p.shift+p.base), 10)
	if bytes.HasSuffix(p.lines[i], []byte("\r\n")) {
		p.out = append(p.out, '\r')
	}
	p.out = append(p.out, '\n')
	p.settle()
}

// settle notes that a directive has set the line number.
func (p *pinner) settle() {
	p.drift, p.unknown = 0, false
	for n := range p.pinned {
		p.pinned[n] = true
	}
}

// branch passes a conditional directive.
func (p *pinner) branch(cond conditional) {
	top := len(p.pinned) - 1
	switch {
	case cond == condIf:
		p.pinned = append(p.pinned, false)
	case cond == condNone || top < 0:
	default:
		p.unknown = p.unknown || p.pinned[top]
		if cond == condEnd {
			p.pinned = p.pinned[:top]
		}
	}
}
