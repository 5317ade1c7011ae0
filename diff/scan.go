package diff

// How a patch is read.
//
// The text is a row of lines, and the scanner is in one of two moods. In a
// message (at the beginning, and after the "From " line that begins a mail)
// anything may stand, and is skipped up to the next file header. After a file,
// nothing may follow but another file header, the mail's signature or the next
// mail: any other text is a sign of a broken hunk, and refused.
//
// A hunk ends where its @@ header says, never earlier and never later. The
// scanner finds that extent and checks it line by line; go-diff then reads the
// hunk proper. On its own, go-diff would accept miscounted hunks, drop what
// follows a line that lost its leading space and take a mail signature for a
// removed line (v0.9.0).
//
// After an error the scanner goes on at the next file header, so that all that
// is wrong with a patch is told at once.

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"regexp"
	"strings"
)

// lineKind is what a line of a patch is, outside hunks.
type lineKind int

const (
	kindText      lineKind = iota
	kindBlank              // nothing
	kindGit                // "diff --git a/x b/x"
	kindPlain              // "--- a/x", followed by "+++ b/x"
	kindCombined           // "diff --cc x": a merge
	kindHunk               // "@@ -1,2 +1,3 @@"
	kindMail               // "From 0123… Mon Sep 17 00:00:00 2001"
	kindSignature          // "-- ", followed by text
	kindSeparator          // "diff -ru a b", "Index: x", "====": says nothing that matters
	kindOnlyIn             // "Only in a: x"
	kindBinary             // "Binary files a/x and b/x differ"
	kindBody               // what could be a line of a hunk
)

var (
	hunkHeader = regexp.MustCompile(`^@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: .*)?\r?$`)
	// The first form is git's, the second any mbox's.
	mailStart = regexp.MustCompile(`^From (?:[0-9a-f]{40,64} |\S+ +(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) )`)
	onlyIn    = regexp.MustCompile(`^Only in [^:]+: .`)
	binary    = regexp.MustCompile(`^(?:Binary files|Files) .+ and .+ differ\r?$`)
	// git's version number; git writes it below the "-- " of a mail.
	gitVersion = regexp.MustCompile(`^\d+\.\d+`)
	encoded    = regexp.MustCompile(`(?i)^Content-Transfer-Encoding:\s*(quoted-printable|base64)`)
	tags       = regexp.MustCompile(`^(?:\[[^\]]*\]\s*)+`)
	commitLine = regexp.MustCompile(`^commit [0-9a-f]{7,64}`)
)

// scanner reads one patch, or the range of lines that is one mail of a series.
type scanner struct {
	name  string
	lines []string // without newline; a carriage return stays
	pos   int      // 0-based index of the next line
	end   int      // 0-based index after the last line to read
	errs  []error
}

// fail notes an error at the 0-based line at.
func (s *scanner) fail(at int, file string, hunk int, format string, args ...any) {
	s.errs = append(s.errs, &ParseError{
		Patch: s.name, Line: at + 1, File: file, Hunk: hunk, Reason: fmt.Sprintf(format, args...),
	})
}

// line returns the line at index i, or an empty one beyond the end.
func (s *scanner) line(i int) string {
	if i >= s.end {
		return ""
	}
	return s.lines[i]
}

// kind classifies the line at index i.
func (s *scanner) kind(i int) lineKind {
	line := s.line(i)
	next := s.line(i + 1)
	switch {
	case line == "" || line == "\r":
		return kindBlank
	case strings.HasPrefix(line, "diff --git "):
		return kindGit
	case strings.HasPrefix(line, "diff --cc "), strings.HasPrefix(line, "diff --combined "):
		return kindCombined
	case strings.HasPrefix(line, "--- ") && strings.HasPrefix(next, "+++ "):
		return kindPlain
	case hunkHeader.MatchString(line):
		return kindHunk
	case mailStart.MatchString(line):
		return kindMail
	case isSignature(line, next):
		return kindSignature
	case strings.HasPrefix(line, "diff -"), strings.HasPrefix(line, "Index: "),
		strings.Trim(line, "=\r") == "":
		return kindSeparator
	case onlyIn.MatchString(line):
		return kindOnlyIn
	case binary.MatchString(line):
		return kindBinary
	case strings.IndexByte(" +-", line[0]) >= 0:
		return kindBody
	}
	return kindText
}

// isSignature tells whether a line begins a mail's signature. Such a line is
// also what the removal of "- " looks like, so text must follow; and where
// something has cut the space off its end, that text must be git's version.
func isSignature(line, next string) bool {
	switch strings.TrimSuffix(line, "\r") {
	case "-- ":
		return strings.TrimSuffix(next, "\r") != "" && strings.IndexByte(" +-@", next[0]) < 0
	case "--":
		return gitVersion.MatchString(next)
	}
	return false
}

// splitLines checks that text can be a patch at all and cuts it into lines.
func splitLines(name string, text []byte) ([]string, error) {
	refuse := func(reason string) error { return &ParseError{Patch: name, Reason: reason} }
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, refuse("empty patch")
	case bytes.HasPrefix(text, []byte{0xff, 0xfe}), bytes.HasPrefix(text, []byte{0xfe, 0xff}):
		return nil, refuse("not a patch: UTF-16 text; save it as UTF-8")
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
}

// Parse reads one patch: a diff, or a mail or commit with a diff. A file that
// the patch changes twice is an error; see ParseSeries. The error joins
// ParseErrors, each with its line.
func Parse(name string, text []byte) (*Patch, error) {
	lines, err := splitLines(name, text)
	if err != nil {
		return nil, err
	}
	s := &scanner{name: name, lines: lines, end: len(lines)}
	p := s.patch()
	if len(p.Files) == 0 && len(s.errs) == 0 {
		return nil, s.noHeader()
	}
	s.refuseTwice(p.Files)
	if len(s.errs) > 0 {
		return nil, errors.Join(s.errs...)
	}
	return p, nil
}

// ParseSeries reads patches that are to be applied one after the other: the
// mails of an mbox, or diffs strung together, where a new patch begins when a
// file comes up again. Mails without a diff, such as cover letters, are left
// out. Lines in the patches and in errors count from the beginning of text.
func ParseSeries(name string, text []byte) ([]*Patch, error) {
	lines, err := splitLines(name, text)
	if err != nil {
		return nil, err
	}
	s := &scanner{name: name, lines: lines}
	var patches []*Patch
	for s.pos < len(lines) {
		s.end = nextMail(lines, s.pos+1)
		mail := mailStart.MatchString(lines[s.pos])
		p := s.patch()
		s.pos = s.end
		switch {
		case len(p.Files) == 0:
		case mail:
			s.refuseTwice(p.Files)
			patches = append(patches, p)
		default:
			patches = append(patches, splitGroups(p)...)
		}
	}
	if len(patches) == 0 && len(s.errs) == 0 {
		return nil, s.noHeader()
	}
	if len(s.errs) > 0 {
		return nil, errors.Join(s.errs...)
	}
	return patches, nil
}

// nextMail returns the index of the first line at or after from that begins a
// mail. Within hunks no line can begin like that.
func nextMail(lines []string, from int) int {
	for i := from; i < len(lines); i++ {
		if mailStart.MatchString(lines[i]) {
			return i
		}
	}
	return len(lines)
}

// patch reads from pos to end.
func (s *scanner) patch() *Patch {
	p := &Patch{Name: s.name, Title: s.title()}
	inHeaders, inMessage := true, true // mail headers end at the first blank line
	for s.pos < s.end {
		switch k := s.kind(s.pos); k {
		case kindGit, kindPlain:
			if inMessage {
				s.refuseOmitted(s.pos)
			}
			if f := s.file(k); f != nil {
				p.Files = append(p.Files, f)
			} else {
				s.resync()
			}
			inHeaders, inMessage = false, false
		case kindCombined:
			s.fail(s.pos, "", 0, "diff of a merge: make it against one parent")
			s.pos++
			s.resync()
		case kindHunk:
			s.fail(s.pos, "", 0, "hunk without a file header")
			s.pos++
			s.resync()
		case kindMail:
			inHeaders, inMessage = true, true
			s.pos++
		default:
			switch {
			case inHeaders && s.refuseEncoded():
			case inMessage:
				inHeaders = inHeaders && k != kindBlank
				s.pos++
			default:
				s.leftover(k, p.Files)
			}
		}
	}
	return p
}

// resync goes to the next line that begins a file or a mail.
func (s *scanner) resync() {
	for ; s.pos < s.end; s.pos++ {
		switch s.kind(s.pos) {
		case kindGit, kindMail, kindCombined:
			return
		case kindPlain:
			if s.kind(s.pos+2) == kindHunk {
				return
			}
		}
	}
}

// leftover judges a line after a file's last hunk.
func (s *scanner) leftover(k lineKind, files []*File) {
	at := s.pos
	s.pos++
	var file string
	var hunk int
	if len(files) > 0 {
		file, hunk = files[len(files)-1].Path(), len(files[len(files)-1].Hunks)
	}
	switch k {
	case kindBlank, kindSeparator:
		return
	case kindSignature:
		s.signature(file, hunk)
		return
	case kindOnlyIn, kindBinary:
		s.fail(at, "", 0, "%s", omitted(k))
		return
	case kindBody:
		if hunk > 0 {
			s.fail(at, file, hunk, "more lines than its header says, or junk after it: %q", s.line(at))
			break
		}
		fallthrough
	default:
		s.fail(at, file, hunk, "junk after it: %q", s.line(at))
	}
	s.resync()
}

// signature skips a mail's signature, whose "-- " stands before pos. Had a hunk
// been cut short just there, lines of the hunk would follow.
func (s *scanner) signature(file string, hunk int) {
	for ; s.pos < s.end; s.pos++ {
		switch k := s.kind(s.pos); k {
		case kindGit, kindPlain, kindMail, kindCombined:
			return
		case kindHunk, kindBody:
			s.fail(s.pos, file, hunk, "lines of a hunk in the mail signature: %q", s.line(s.pos))
			s.resync()
			return
		}
	}
}

// omitted says what is wrong with a line by which diff -r tells that it left a
// file out.
func omitted(k lineKind) string {
	if k == kindOnlyIn {
		return "diff leaves out a file that is only on one side: make it with diff -N"
	}
	return "binary change, which a diff cannot show"
}

// refuseOmitted looks at the lines right before the first file header: what
// diff -r prints there belongs to the diff, not to a message.
func (s *scanner) refuseOmitted(header int) {
	for i := header - 1; i >= 0; i-- {
		switch k := s.kind(i); k {
		case kindOnlyIn, kindBinary:
			s.fail(i, "", 0, "%s", omitted(k))
		case kindSeparator:
		default:
			return
		}
	}
}

// refuseEncoded refuses a mail whose diff is not readable as it stands, and
// skips it. It tells whether it did.
func (s *scanner) refuseEncoded() bool {
	m := encoded.FindStringSubmatch(s.line(s.pos))
	if m == nil {
		return false
	}
	s.fail(s.pos, "", 0, "mail is encoded as %s: decode it first, as git mailinfo does", strings.ToLower(m[1]))
	s.pos = nextMail(s.lines[:s.end], s.pos+1)
	return true
}

// noHeader is the error for a text without any diff.
func (s *scanner) noHeader() error {
	reason := "not a patch: no file header found"
	for _, line := range s.lines {
		if strings.HasPrefix(line, "***************") {
			reason += "; this is a context diff: make it with diff -u"
			break
		}
	}
	return &ParseError{Patch: s.name, Reason: reason}
}

// title finds the subject of the mail at pos, or else the first line of the
// message, without changing pos.
func (s *scanner) title() string {
	first, inCommit := "", false
	for i := s.pos; i < s.end; i++ {
		line := strings.TrimSuffix(s.line(i), "\r")
		switch k := s.kind(i); {
		case k == kindGit, k == kindPlain, k == kindCombined, k == kindHunk:
			return first
		case k == kindMail, k == kindBlank, k == kindSeparator, k == kindOnlyIn, k == kindBinary, line == "---":
		case strings.HasPrefix(line, "Subject:"):
			return s.subject(i)
		case commitLine.MatchString(line):
			inCommit = true // git show indents the message
		case first == "" && (!inCommit || strings.HasPrefix(line, "    ")):
			first = strings.TrimSpace(line)
		}
	}
	return first
}

// subject reads the Subject header at index i: unfolded, decoded and without
// "[PATCH 1/2]".
func (s *scanner) subject(i int) string {
	text := strings.TrimPrefix(s.line(i), "Subject:")
	for i++; i < s.end && strings.HasPrefix(s.line(i), " "); i++ {
		text = strings.TrimRight(text, "\r") + s.line(i)
	}
	text = strings.TrimSpace(text)
	if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil {
		text = decoded
	}
	return tags.ReplaceAllString(text, "")
}

// touched are the paths whose content a file's part reads or writes; a copy
// only reads its source, as it was before the patch.
func (f *File) touched() []string {
	switch f.Op {
	case Rename:
		return []string{f.Old, f.New}
	default:
		return []string{f.Path()}
	}
}

// refuseTwice refuses a path that comes up twice in one patch.
func (s *scanner) refuseTwice(files []*File) {
	first := make(map[string]int)
	for _, f := range files {
		for _, path := range f.touched() {
			if line, twice := first[path]; twice {
				s.fail(f.Line-1, path, 0, "changed twice in one patch, first at line %d: merge the two, or give them as two patches", line)
				continue
			}
			first[path] = f.Line
		}
	}
}

// splitGroups makes a patch of each run of files in which no path comes up
// twice.
func splitGroups(p *Patch) []*Patch {
	groups := []*Patch{{Name: p.Name, Title: p.Title}}
	seen := make(map[string]bool)
	for _, f := range p.Files {
		for _, path := range f.touched() {
			if seen[path] {
				groups = append(groups, &Patch{Name: p.Name})
				clear(seen)
				break
			}
		}
		for _, path := range f.touched() {
			seen[path] = true
		}
		group := groups[len(groups)-1]
		group.Files = append(group.Files, f)
	}
	return groups
}
