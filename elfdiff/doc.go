// Package elfdiff compares two relocatable objects of one translation unit,
// as it was and as patched, function by function.
//
// It decides what changed and says why; it does not decide what a livepatch
// has to contain (codegen does) and never looks at bytes on disk. Sources:
// System V ABI chapters 4 and 5, x86-64 psABI section 4.4, and the kernel's
// own section names in include/asm-generic/vmlinux.lds.h (Linux 6.1 to 7.x).
//
// The passes, in order, each only relying on the ones before it:
//
//	view      cut each object into pieces (one function or variable each) and
//	          resolve every relocation to the piece, string or constant that
//	          it reaches
//	tables    give every entry of a special section (bug table, jump labels,
//	          alternatives, ...) to the function that it describes
//	correlate find each piece's twin in the other object; from here on twins
//	          never change
//	compare   function by function and variable by variable; from here on
//	          verdicts only rise (unchanged, changed, unpatchable)
//	judge     lift the verdict of split-off parts to their parents, and turn
//	          what the running kernel cannot take into problems
package elfdiff
