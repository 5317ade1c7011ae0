// Package pipeline is the order of steps from a patch to a module: the table
// of contents of the program. See Build.
//
// Each step's work is done by another package; this one carries the results
// along, keeps the work folder, and reports progress.
package pipeline
