package diff

import (
	"fmt"
	"regexp"
	"strings"
)

// Modes that git gives to what is not a file with text.
const (
	modeSymlink = "120000"
	modeGitlink = "160000"
)

var (
	regularMode = regexp.MustCompile(`^100[0-7]{3}$`)
	indexLine   = regexp.MustCompile(`^[0-9a-fA-F]+\.\.[0-9a-fA-F]+(?: ([0-7]{6}))?$`)
)

// header collects what the lines before a file's first hunk say.
type header struct {
	pairs                [][2]string // "diff --git": every way to read its two names
	renameFrom, renameTo string
	copyFrom, copyTo     string
	oldMode, newMode     string
	indexMode            string // mode of both sides
	added, deleted       bool   // "new file mode", "deleted file mode"
	hasNames             bool   // there are "---" and "+++" lines
	oldName, newName     string // from these lines, stripped; empty for /dev/null
	oldNone, newNone     bool   // /dev/null, or a timestamp that means the same
	crlf                 bool   // the header's own lines end in CR LF
}

// file reads a file header and its hunks. It returns nil after an error.
func (s *scanner) file(k lineKind) *File {
	at := s.pos
	var h header
	var err error
	if k == kindGit {
		err = s.gitHeader(&h)
	}
	if err == nil && s.kind(s.pos) == kindPlain {
		err = s.nameLines(&h)
	} else if err == nil && strings.HasPrefix(s.line(s.pos), "--- ") && s.kind(s.pos) != kindSignature {
		err = fmt.Errorf(`"---" line without a "+++" line`)
	}
	if err != nil {
		s.fail(s.pos, "", 0, "%v", err)
		s.pos = max(s.pos, at+1)
		if k == kindGit {
			s.skipHeader()
		}
		return nil
	}
	f := &File{Line: at + 1}
	if err := h.resolve(f, k); err != nil {
		s.fail(at, "", 0, "%v", err)
		return nil
	}
	before := len(s.errs)
	s.hunks(f)
	if len(s.errs) > before {
		return nil
	}
	if err := h.check(f, k); err != nil {
		s.fail(at, f.Path(), 0, "%v", err)
		return nil
	}
	return f
}

// skipHeader goes past the rest of a refused git header, so that its name lines
// are not taken for a plain diff.
func (s *scanner) skipHeader() {
	for ; s.pos < s.end; s.pos++ {
		switch s.kind(s.pos) {
		case kindPlain:
			s.pos += 2
			return
		case kindGit, kindMail, kindCombined, kindHunk:
			return
		}
	}
}

// gitHeader reads "diff --git" and the extended header lines.
func (s *scanner) gitHeader(h *header) error {
	first := strings.TrimPrefix(s.line(s.pos), "diff --git ")
	h.pairs = gitPairs(first)
	h.crlf = strings.HasSuffix(first, "\r")
	if len(h.pairs) == 0 {
		return fmt.Errorf("malformed file header: %q", s.line(s.pos))
	}
	for s.pos++; s.pos < s.end; s.pos++ {
		line := strings.TrimSuffix(s.line(s.pos), "\r")
		if strings.HasPrefix(line, "GIT binary patch") || s.kind(s.pos) == kindBinary {
			return fmt.Errorf("binary change, which has no effect that klpc could compile")
		}
		known, err := h.extended(line)
		if err != nil {
			return err
		}
		if !known {
			return nil
		}
	}
	return nil
}

// extended reads one extended header line; known is false if it is none.
func (h *header) extended(line string) (known bool, err error) {
	for _, e := range []struct {
		prefix string
		read   func(value string) error
	}{
		{"old mode ", readMode(&h.oldMode)},
		{"new mode ", readMode(&h.newMode)},
		{"new file mode ", func(v string) error { h.added = true; return readMode(&h.newMode)(v) }},
		{"deleted file mode ", func(v string) error { h.deleted = true; return readMode(&h.oldMode)(v) }},
		{"rename from ", readName(&h.renameFrom)},
		{"rename to ", readName(&h.renameTo)},
		{"copy from ", readName(&h.copyFrom)},
		{"copy to ", readName(&h.copyTo)},
		{"similarity index ", ignore},
		{"dissimilarity index ", ignore},
		{"index ", h.readIndex},
	} {
		if value, found := strings.CutPrefix(line, e.prefix); found {
			return true, e.read(value)
		}
	}
	return false, nil
}

func ignore(string) error { return nil }

// readMode returns a reader of a mode that must be a regular file's.
func readMode(to *string) func(string) error {
	return func(value string) error {
		*to = value
		switch {
		case value == modeSymlink:
			return fmt.Errorf("symbolic link (mode %s)", value)
		case value == modeGitlink:
			return fmt.Errorf("submodule (mode %s)", value)
		case !regularMode.MatchString(value):
			return fmt.Errorf("unknown file mode %q", value)
		}
		return nil
	}
}

// readName returns a reader of a name without prefix.
func readName(to *string) func(string) error {
	return func(value string) (err error) {
		*to, err = bareName(value)
		return err
	}
}

// readIndex reads "index 0123..4567 100644".
func (h *header) readIndex(value string) error {
	m := indexLine.FindStringSubmatch(value)
	switch {
	case m == nil:
		return fmt.Errorf("malformed index line %q", value)
	case m[1] == "":
		return nil
	}
	return readMode(&h.indexMode)(m[1])
}

// nameLines reads "---" and "+++".
func (s *scanner) nameLines(h *header) error {
	read := func(prefix string) (name string, none bool, err error) {
		line := s.line(s.pos)
		h.crlf = strings.HasSuffix(line, "\r")
		raw, stamp, err := rawName(strings.TrimPrefix(line, prefix))
		if err != nil || raw == devNull {
			return "", true, err
		}
		name, err = cleanName(raw)
		return name, isEpoch(stamp), err
	}
	var err error
	h.hasNames = true
	if h.oldName, h.oldNone, err = read("--- "); err != nil {
		return err
	}
	s.pos++
	if h.newName, h.newNone, err = read("+++ "); err != nil {
		return err
	}
	s.pos++
	return nil
}

// resolve decides what the patch does with which file. For a plain diff, an
// addition without a timestamp shows only in the hunk: see check.
func (h *header) resolve(f *File, k lineKind) error {
	f.OldMode, f.NewMode = firstOf(h.oldMode, h.indexMode), firstOf(h.newMode, h.indexMode)
	if h.added {
		f.OldMode = ""
	}
	if h.deleted {
		f.NewMode = ""
	}
	if err := h.operation(f); err != nil {
		return err
	}
	if k == kindPlain {
		return nil
	}
	return h.agree(f)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// operation sets Op, Old and New.
func (h *header) operation(f *File) error {
	kinds := 0
	for _, is := range []bool{h.added, h.deleted, h.renameFrom+h.renameTo != "", h.copyFrom+h.copyTo != ""} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds > 1:
		return fmt.Errorf("file header contradicts itself: more than one of new, deleted, renamed, copied")
	case h.renameFrom != "" || h.renameTo != "":
		f.Op, f.Old, f.New = Rename, h.renameFrom, h.renameTo
	case h.copyFrom != "" || h.copyTo != "":
		f.Op, f.Old, f.New = Copy, h.copyFrom, h.copyTo
	default:
		return h.inPlace(f)
	}
	switch {
	case f.Old == "" || f.New == "":
		return fmt.Errorf("%s needs both a from and a to line", f.Op)
	case f.Old == f.New:
		return fmt.Errorf("%s of %s to itself", f.Op, f.Old)
	case h.hasNames && (h.oldName != f.Old || h.newName != f.New):
		return fmt.Errorf("--- and +++ name %s and %s, but the header says %s %s to %s", h.oldName, h.newName, f.Op, f.Old, f.New)
	}
	return nil
}

// inPlace is operation for what is neither renamed nor copied.
func (h *header) inPlace(f *File) error {
	if !h.hasNames {
		name, err := h.commonName()
		if err != nil {
			return err
		}
		h.oldName, h.newName, h.oldNone, h.newNone = name, name, h.added, h.deleted
	}
	switch {
	case h.oldNone && h.newNone:
		return fmt.Errorf("no file on either side")
	case h.oldName != "" && h.newName != "" && h.oldName != h.newName:
		return fmt.Errorf("old name %s and new name %s differ, but this is no rename", h.oldName, h.newName)
	case h.added && !h.oldNone:
		return fmt.Errorf("new file %s, but --- is not %s", h.newName, devNull)
	case h.deleted && !h.newNone:
		return fmt.Errorf("deleted file %s, but +++ is not %s", h.oldName, devNull)
	case h.oldNone:
		f.Op, f.New = Add, h.newName
	case h.newNone:
		f.Op, f.Old = Delete, h.oldName
	default:
		f.Op, f.Old, f.New = Modify, h.oldName, h.newName
	}
	return nil
}

// commonName finds the one name that both sides of "diff --git" have.
func (h *header) commonName() (string, error) {
	var found []string
	var firstErr error
	for _, pair := range h.pairs {
		left, err := cleanName(pair[0])
		if err != nil {
			if firstErr == nil {
				firstErr = err
			}
			continue
		}
		if right, err := cleanName(pair[1]); err == nil && left == right {
			found = append(found, left)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case firstErr != nil && len(h.pairs) == 1:
		return "", firstErr
	}
	return "", fmt.Errorf("file header does not name one file: diff --git %s %s", h.pairs[0][0], h.pairs[0][1])
}

// agree checks the names against those of "diff --git".
func (h *header) agree(f *File) error {
	old, new := firstOf(f.Old, f.New), firstOf(f.New, f.Old)
	for _, pair := range h.pairs {
		left, err := cleanName(pair[0])
		if err != nil || left != old {
			continue
		}
		right, err := cleanName(pair[1])
		if err != nil || right != new {
			continue
		}
		if pair[0] == pair[1] {
			return fmt.Errorf("%s has no a/ and b/ before it: make the diff without --no-prefix", pair[0])
		}
		return nil
	}
	return fmt.Errorf("diff --git line does not name %s", strings.Join([]string{old, new}, " and "))
}

// check judges header and hunks together.
func (h *header) check(f *File, k lineKind) error {
	if len(f.Hunks) == 0 {
		switch {
		case h.hasNames:
			return fmt.Errorf("file header without a hunk")
		case f.Op != Modify:
			return nil
		case f.OldMode == f.NewMode || f.OldMode == "" || f.NewMode == "":
			return fmt.Errorf("file header without a change")
		}
		f.Op = ModeOnly
		return nil
	}
	if !h.hasNames {
		return fmt.Errorf(`hunk without "---" and "+++" lines`)
	}
	first := &f.Hunks[0]
	if k == kindPlain && f.Op == Modify && len(f.Hunks) == 1 && first.OldStart == 0 {
		// diff without timestamps; an existing empty file looks the same
		f.Op, f.Old = Add, ""
	}
	switch f.Op {
	case Add:
		if len(f.Hunks) > 1 || first.OldStart != 0 || first.OldLines != 0 {
			return fmt.Errorf("new file, but its hunk has old lines")
		}
		if h.crlf {
			return fmt.Errorf("patch has CR LF line ends, so that those of the new file are not known")
		}
	case Delete:
		if len(f.Hunks) > 1 || first.NewStart != 0 || first.NewLines != 0 {
			return fmt.Errorf("deleted file, but its hunk has new lines")
		}
	}
	return nil
}
