// Package cpptext decides from texts alone whether a change of the source can
// change the object that the compiler makes of a translation unit.
//
// It is not a C front end: it knows which names an item at file scope declares
// and mentions, and nothing of types or values. Whatever it does not understand
// counts as code that is emitted. Sources: C11 (ISO/IEC 9899:2011) section 6.9
// and the GNU extensions in the manual of GCC 12, chapter 6.
//
// Compare works on two preprocessed texts of a unit and needs no assumption but
// the ones in compare.go. ChangedNames, Scan and Query work on unpreprocessed
// files, so that most readers of a header need not be preprocessed at all; what
// they assume is in paste.go.
package cpptext
