package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/klpc/klpc/codegen"
	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/elfobj"
	"github.com/klpc/klpc/pipeline"
)

func newDiff(a *app) *cobra.Command {
	var output string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff ORIG.o PATCHED.o",
		Short: "Compare two objects of one translation unit function by function",
		Long: `diff tells which functions and variables of two relocatable objects differ, and
what a livepatch could not take. It works on any x86-64 relocatables; compile
them with -ffunction-sections -fdata-sections for the sharpest answer. With -o,
the functions that changed and all that must travel with them are written as an
object of their own, before objtool and livepatch relocations.

Exit codes: 0 they differ, 3 they do not, 4 a difference cannot be livepatched.`,
		Example: "  klpc diff fork.orig.o fork.patched.o --json",
		Args:    exactly(2, "ORIG.o and PATCHED.o"),

		ValidArgsFunction: complete("o"),
		RunE: func(_ *cobra.Command, args []string) error {
			return runDiff(a, args[0], args[1], output, asJSON)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write what changed as an object to `OUT.o`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one JSON document")
	return cmd
}

func runDiff(a *app, orig, patched, output string, asJSON bool) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	o, _, oerr := readObjectFile(orig)
	p, data, perr := readObjectFile(patched)
	if err := errors.Join(oerr, perr); err != nil {
		return err
	}
	r, err := elfdiff.Compare(o, p)
	if err != nil {
		return err
	}
	pipeline.QuoteObject(r.Problems, data)
	if output != "" && r.Verdict == elfdiff.Changed {
		data, err := codegen.Extract(r)
		if err != nil {
			return err
		}
		if err := renameio.WriteFile(output, data, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", output, err)
		}
	}
	if asJSON {
		err = printJSON(a.out, r.JSON())
	} else {
		err = printDiff(a.out, r)
	}
	if err != nil {
		return err
	}
	switch r.Verdict {
	case elfdiff.Unchanged:
		return silentError{exitNothing}
	case elfdiff.Unpatchable:
		return silentError{exitUnpatchable}
	}
	return nil
}

// checkOutput refuses to replace what is not a regular file: a folder, or a
// device such as /dev/null, which root could.
func checkOutput(path string) error {
	st, err := os.Stat(path)
	if path == "" || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("write %s: it is there and is no regular file", path)
	}
	return err
}

// readObjectFile returns an object and the bytes that it was read from.
func readObjectFile(path string) (*elfobj.Object, []byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	o, err := elfobj.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if o.Type != elf.ET_REL {
		return nil, nil, fmt.Errorf("read %s: it is linked; diff compares relocatable objects (.o)", path)
	}
	return o, data, nil
}

func printDiff(w io.Writer, r *elfdiff.Result) error {
	var b bytes.Buffer
	j := r.JSON()
	fmt.Fprintln(&b, j.Verdict)
	for _, f := range j.Functions {
		fmt.Fprintf(&b, "function %s: %s\n", f.Name, f.Change)
		for _, why := range f.Reasons {
			fmt.Fprintf(&b, "  %s\n", why)
		}
	}
	for _, d := range j.Data {
		fmt.Fprintf(&b, "data %s: %s\n", d.Name, d.Change)
	}
	for _, n := range j.Notes {
		fmt.Fprintf(&b, "note: %s\n", n)
	}
	printProblems(&b, "", j.Problems)
	_, err := b.WriteTo(w)
	return err
}
