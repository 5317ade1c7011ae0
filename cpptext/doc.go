// Package cpptext decides from texts alone whether a change of the source can
// change the object that the compiler makes of a translation unit.
//
// It is not a C front end: it knows which names an item at file scope declares
// and mentions, and nothing of types or values. Whatever it does not understand
// counts as code that is emitted. Sources: C11 (ISO/IEC 9899:2011) section 6.9
// and the GNU extensions in the manual of GCC 12, chapter 6.
//
// Compare works on two preprocessed texts of a unit; why it may be believed, and
// what it assumes, is in compare.go. Changes and Query work on files as they are,
// so that many readers of a header need not even be preprocessed; what they assume
// is in header.go and paste.go.
package cpptext
