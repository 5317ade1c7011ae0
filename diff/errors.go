package diff

import "fmt"

// ParseError is one thing that is wrong with a patch's text.
type ParseError struct {
	Patch  string // the patch's name
	Line   int    // 1-based line in the patch; 0: the patch as a whole
	File   string // path in the tree; empty if not known
	Hunk   int    // 1-based number within the file; 0: not within a hunk
	Reason string
}

func (e *ParseError) Error() string {
	msg := e.Patch
	if e.Line > 0 {
		msg += fmt.Sprintf(":%d", e.Line)
	}
	msg += ": "
	if e.File != "" {
		msg += e.File + ": "
	}
	if e.Hunk > 0 {
		msg += fmt.Sprintf("hunk %d: ", e.Hunk)
	}
	return msg + e.Reason
}

// ApplyError is one hunk, or one file, that does not fit the tree.
type ApplyError struct {
	Patch     string // name of the patch; empty if the file was applied by itself
	File      string // path in the tree
	Hunk      int    // 1-based number within the file; 0: the file as a whole
	PatchLine int    // 1-based line in the patch of the hunk or the file's header
	OldStart  int    // 1-based line in the old file where the hunk should apply
	Reason    string
}

func (e *ApplyError) Error() string {
	name := ""
	if e.Patch != "" {
		name = e.Patch + ": "
	}
	if e.Hunk == 0 {
		return name + fmt.Sprintf("%s (patch line %d): %s", e.File, e.PatchLine, e.Reason)
	}
	return name + fmt.Sprintf("%s: hunk %d (patch line %d, for line %d): %s", e.File, e.Hunk, e.PatchLine, e.OldStart, e.Reason)
}
