// Package diff reads source patches strictly, applies them to file contents and
// pins line numbers, so that lines after an edit keep their __LINE__.
//
// It does not touch files: contents come in as bytes or through an fs.FS and
// results go out as values; writing, symbolic links on disk and the choice of
// what to compile are the caller's. Source: GNU diffutils manual, "Detailed
// Description of Unified Format"; git-diff(1), "Generating patch text with -p";
// ISO C11 5.1.1.2 (translation phases) and 6.10.4 (line control).
package diff

// Patch is one patch file: the files it changes, and what stands before them.
// It is immutable once parsed.
type Patch struct {
	Name  string // as given to Parse; used in errors
	Title string // the Subject of a mail, or the first line of the message; else empty
	Files []*File
}

// Op is what a patch does with a file.
type Op int

// The operations. A file whose mode changes along with its text is Modify.
const (
	Modify Op = iota
	Add
	Delete
	Rename
	Copy
	ModeOnly
)

// String returns the operation in words.
func (o Op) String() string {
	switch o {
	case Modify:
		return "modify"
	case Add:
		return "add"
	case Delete:
		return "delete"
	case Rename:
		return "rename"
	case Copy:
		return "copy"
	case ModeOnly:
		return "change mode of"
	}
	return "unknown operation"
}

// File is the part of a patch that concerns one file.
type File struct {
	// Old and New are relative to the tree, slash separated, without the
	// a/ and b/ of the patch (-p1), and pass fs.ValidPath. Old is empty for
	// Add, New is empty for Delete.
	Old, New string
	Op       Op
	// Hunks are in file order and do not overlap.
	Hunks []Hunk
	Line  int // 1-based line of the file's header in the patch
	// OldMode and NewMode are git's octal modes ("100644"), empty if the
	// patch does not tell.
	OldMode, NewMode string
}

// Path is the file's name after the patch, or before it if the patch deletes it.
func (f *File) Path() string {
	if f.New != "" {
		return f.New
	}
	return f.Old
}

// Hunk is one contiguous piece of a file's change, with its context.
type Hunk struct {
	Line int // 1-based line of the @@ header in the patch

	// OldStart and NewStart are 1-based lines; where the count is 0, they
	// name the line before (0: the beginning of the file), as in the patch.
	OldStart, OldLines, NewStart, NewLines int
	Section                                string // what follows the second @@
	Lines                                  []Line
}

// The kinds of lines in a hunk, as they are written in the patch.
const (
	Context byte = ' '
	Added   byte = '+'
	Removed byte = '-'
)

// Line is one line of a hunk.
type Line struct {
	Kind  byte   // Context, Added or Removed
	Text  string // without newline; a carriage return stays
	NoEOL bool   // the file ends here without a newline
}

// raw returns the line as it stands in the file.
func (l Line) raw() string {
	if l.NoEOL {
		return l.Text
	}
	return l.Text + "\n"
}

// start is the 0-based index in the old file of the hunk's first line.
func (h *Hunk) start() int {
	if h.OldLines == 0 {
		return h.OldStart
	}
	return h.OldStart - 1
}

// newStart is the 0-based index in the new file of the hunk's first line.
func (h *Hunk) newStart() int {
	if h.NewLines == 0 {
		return h.NewStart
	}
	return h.NewStart - 1
}
