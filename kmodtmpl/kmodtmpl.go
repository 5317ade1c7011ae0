// Package kmodtmpl renders the C and Kbuild files of a livepatch module from
// embedded templates.
//
// It decides nothing: what the tables hold is codegen's plan. Source:
// include/linux/livepatch.h, Linux 6.1 to 7.x (the fields of struct klp_patch,
// klp_object, klp_func and klp_callbacks are the same in all of them).
package kmodtmpl

import (
	"bytes"
	"embed"
	"fmt"
	"strconv"
	"text/template"
)

//go:embed templates
var files embed.FS

// Data is what the templates are filled with.
type Data struct {
	Name       string // of the module, as its file is called: livepatch-NAME
	Replace    bool   // atomic replace
	Objects    []Object
	Namespaces []string // symbol namespaces to import
	Prebuilt   []string // object files that are part of the module, without ".o"
}

// Object is one patched object.
type Object struct {
	Name      string // empty: vmlinux
	Funcs     []Func
	Callbacks []Callback
}

// Func is one redirected function.
type Func struct {
	OldName string
	Sympos  int    // 0: unique; else 1-based
	Pointer string // C identifier of the weak symbol that stands for the new function
	Source  string // for the comment
}

// Callback is one callback of an object.
type Callback struct {
	Field   string // pre_patch, post_patch, pre_unpatch or post_unpatch
	Pointer string
	Name    string
}

// File is one rendered file.
type File struct {
	Name string
	Text []byte
}

// Render returns the files of the module's folder: the init file and Kbuild's
// Makefile.
func Render(d Data) ([]File, error) {
	t, err := template.New("").Funcs(template.FuncMap{"quote": strconv.Quote}).ParseFS(files, "templates/*.tmpl")
	if err != nil {
		return nil, fmt.Errorf("internal error: templates: %w", err)
	}
	var out []File
	for _, f := range []struct{ name, tmpl string }{
		{"klpc_init.c", "init.c.tmpl"},
		{"Kbuild", "Kbuild.tmpl"},
	} {
		var b bytes.Buffer
		if err := t.ExecuteTemplate(&b, f.tmpl, d); err != nil {
			return nil, fmt.Errorf("internal error: template %s: %w", f.tmpl, err)
		}
		out = append(out, File{Name: f.name, Text: b.Bytes()})
	}
	return out, nil
}

// HelpersPath is where patches expect the header of the callback macros. Linux
// 6.19 and later have one of their own.
const HelpersPath = "include/linux/livepatch_helpers.h"

// Helpers returns the header for kernels that do not have it.
func Helpers() []byte {
	b, err := files.ReadFile("templates/livepatch_helpers.h")
	if err != nil {
		panic("internal error: " + err.Error()) // embedded, cannot be missing
	}
	return b
}
