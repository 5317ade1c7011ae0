// Package typediff tells how the types of a translation unit change between two
// compiles of it, from their debug information: which fields of a struct or union
// are added, removed, moved, resized or given another type, and which values of
// an enum change.
//
// It does not judge whether a change matters to a running kernel; it names what
// the judgement needs (sizes, padding, functions and variables that use a type).
// Source: DWARF Debugging Information Format, versions 4 and 5, chapter 5.
package typediff
