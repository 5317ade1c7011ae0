// Package modname spells the names of modules as the kernel does: '-' and '_' are
// equal on command lines and in file names, and the kernel itself writes '_'.
package modname

import "strings"

// Canonical is a module's name as the kernel spells it. It takes several names, in
// a list with any other separator, as well.
func Canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// OfPath is the name of the module of a path without its suffix, as Module.symvers
// has it.
func OfPath(path string) string { return Canonical(path[strings.LastIndexByte(path, '/')+1:]) }
