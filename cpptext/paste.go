package cpptext

import (
	"slices"
)

// Where names occur in text that is not preprocessed.
//
// A name that stands in no file can still be made by ##. Each #define with ##
// gives patterns: a sequence of literal words and operands. A name can be made if
// it fits a pattern with words that stand in the unit's files for the operands, or
// with words that another pattern makes of them: one with a literal and one
// operand, or with two operands and nothing else.
//
// So this assumes that names are made by at most two ## operators in a row, the
// first of them a simple one. The kernel's deepest is sys##name of _##name in
// SYSCALL_DEFINE.

// Query looks for a set of names in files.
type Query struct {
	names []string
	// parts are the substrings of the names: where they occur.
	parts map[string][]place
	width int // of a table of all places, in words of 64 bits
	// patterns are the ones seen so far that may make a name, numbered.
	patterns map[string]int
	list     []pattern
}

// place is a substring of a name.
type place struct{ name, from, to int }

// Hits is what a file has of a query's names.
type Hits struct {
	named    bool
	pieces   []int32 // numbers of parts, sorted
	patterns []int32 // numbers, sorted
}
