package diff

import (
	"fmt"
	"strings"
)

// explain says why no place was found for h.
func (m *merge) explain(h *Hunk) string {
	if m.reverses(h) {
		return "already applied (reverse applies)"
	}
	pat := oldSide(h, h.Lines, 0)
	pat.want += m.moved
	if reason := m.lineEnds(pat); reason != "" {
		return reason
	}
	free := pattern{lines: pat.lines, want: pat.want}
	if at, _ := m.find(free, 0); at >= 0 && len(pat.lines) > 0 {
		return fmt.Sprintf("does not apply: its lines stand at line %d, %s", at+1, m.forbidden(pat, at))
	}
	return "does not apply: " + m.difference(h, pat)
}

// reverses tells whether the file holds what h would make of it.
func (m *merge) reverses(h *Hunk) bool {
	lead, trail := contexts(h.Lines)
	pat := pattern{
		lines: side(h.Lines, Removed),
		want:  h.newStart(),
		begin: lead < trail && h.NewStart <= 1,
		end:   trail < lead && trail < fullContext || endsNew(h.Lines),
		fixed: lead == 0 && trail == 0,
	}
	if len(pat.lines) == 0 {
		return false
	}
	at, _ := m.find(pat, 0)
	return at >= 0
}

// lineEnds recognises a patch that differs from the file in its line ends only.
func (m *merge) lineEnds(pat pattern) string {
	bare := func(lines []string) ([]string, bool) {
		out, cr := make([]string, len(lines)), false
		for i, l := range lines {
			out[i] = strings.TrimRight(l, "\r\n")
			cr = cr || strings.HasSuffix(l, "\r\n")
		}
		return out, cr
	}
	var inFile, inPatch bool
	var t merge
	t.old, inFile = bare(m.old)
	pat.lines, inPatch = bare(pat.lines)
	if inFile == inPatch {
		return ""
	}
	if at, _ := t.find(pat, m.next); at < 0 {
		return ""
	}
	if inPatch {
		return "patch has CR LF line ends, but the file has LF"
	}
	return "patch has LF line ends, but the file has CR LF"
}

// forbidden says why the match at an index does not count.
func (m *merge) forbidden(pat pattern, at int) string {
	switch {
	case at < m.next:
		return "before the end of the hunk before it"
	case pat.begin && at > 0:
		return "but it can only stand at the beginning of the file"
	case pat.end && at+len(pat.lines) < len(m.old):
		return "but it can only stand at the end of the file"
	}
	return fmt.Sprintf("but without context it can only stand at line %d", pat.want+1)
}

// difference compares h with the place where most of its lines match, the
// nearest of them if there are several, and tells the first that does not.
func (m *merge) difference(h *Hunk, pat pattern) string {
	best, bestScore := max(0, min(pat.want, len(m.old))), 0
	from, to := m.next, len(m.old)
	if pat.fixed {
		from, to = best, best
	}
	for at := from; at < to; at++ {
		score := 0
		for i, l := range pat.lines {
			if at+i < len(m.old) && m.old[at+i] == l {
				score++
			}
		}
		if score > bestScore || score == bestScore && score > 0 && abs(at-pat.want) < abs(best-pat.want) {
			best, bestScore = at, score
		}
	}
	i := 0
	for _, l := range h.Lines {
		if l.Kind == Added {
			continue
		}
		if best+i >= len(m.old) {
			return fmt.Sprintf("line %d should be %s line %s, but the file has only %d lines",
				best+i+1, kindWord(l.Kind), show(l.raw()), len(m.old))
		}
		if found := m.old[best+i]; found != l.raw() {
			return fmt.Sprintf("line %d should be %s line %s, but is %s",
				best+i+1, kindWord(l.Kind), show(l.raw()), show(found))
		}
		i++
	}
	return fmt.Sprintf("it is for line %d, but the file has only %d lines", h.OldStart, len(m.old))
}

func abs(n int) int { return max(n, -n) }

func kindWord(kind byte) string {
	if kind == Removed {
		return "removed"
	}
	return "context"
}

// show quotes a line for an error and tells when its newline is missing.
func show(line string) string {
	if text, found := strings.CutSuffix(line, "\n"); found {
		return fmt.Sprintf("%q", text)
	}
	return fmt.Sprintf("%q without a newline", line)
}
