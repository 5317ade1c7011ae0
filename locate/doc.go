// Package locate finds the functions and variables of a rebuilt object in the
// running kernel, and proves that a rebuilt function is what runs there.
//
// It decides nothing about a patch: codegen and verify ask it. Both compare with
// the kernel's image or a module's file as they are before the kernel boots or
// loads the module, so that what the kernel patches later (alternatives, return
// thunks, static branches, ftrace) does not matter.
package locate
