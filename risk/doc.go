// Package risk reads from the texts of a patched source what its author should
// think about before the livepatch is loaded: locks that are taken elsewhere or no
// longer, references and memory that are given back elsewhere, and calls that may
// sleep where that is not allowed.
//
// It sees calls, blocks and lines, not values or types, so it warns and never
// decides.
package risk
