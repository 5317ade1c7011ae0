package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/pipeline"
)

// buildOptions are the flags of klpc build.
type buildOptions struct {
	kernel pipeline.KernelOptions
	build  pipeline.BuildOptions
	json   bool
	timing bool
}

func newBuild(a *app, f func(context.Context, *app, buildOptions) error) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build --kernel K [flags] PATCH...",
		Short: "Build a livepatch module from source patches",
		Long: `build compiles the files that the patches touch, as they are and as patched, and
writes livepatch-NAME.ko. On standard output it lists what the module patches
and why. The kernel tree is only read.`,
		Example: `  # the newest stock Debian cloud kernel, fetched and prepared in the cache
  klpc build --kernel debian fix.patch
  # the stock kernel that runs here
  klpc build --kernel debian:$(uname -r) fix.patch
  # a kernel tree that you have built
  klpc build --kernel ~/linux -o livepatch-fix.ko fix.patch`,
		Args: atLeast(1, "at least one PATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.build.Patches = args
			if err := checkKernelFlags(o.kernel); err != nil {
				return err
			}
			return f(cmd.Context(), a, o)
		},
	}
	kernelFlags(cmd, &o.kernel)
	fl := cmd.Flags()
	fl.StringVarP(&o.build.Output, "output", "o", "", "write the module to `FILE` (default livepatch-NAME.ko here)")
	fl.StringVar(&o.build.Name, "name", "", "the module's `NAME` (default: the first patch's file name)")
	fl.BoolVar(&o.build.NoReplace, "no-replace", false, "leave other livepatches loaded instead of replacing them all at once")
	fl.IntVarP(&o.build.Jobs, "jobs", "j", 0, "run `N` compiles at once (default: one per processor)")
	fl.IntVar(&o.build.Fuzz, "fuzz", 0, "let `N` lines of context differ when a hunk is applied")
	fl.BoolVar(&o.build.Keep, "keep", false, "keep the work folder and say where it is")
	fl.BoolVar(&o.timing, "timings", false, "print what each step cost, on standard error")
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document")
	return cmd
}

func runBuild(ctx context.Context, a *app, o buildOptions) error {
	p := ui.NewProgress(a.err)
	defer p.Close()
	ev := pipeline.Events{Step: p.Step, Unit: p.Unit, Note: p.Note}
	var err error
	if o.kernel.Cache, err = pipeline.CacheDir(); err != nil {
		return err
	}
	o.kernel.Jobs, o.build.Cache, o.build.Events = o.build.Jobs, o.kernel.Cache, ev
	k, err := pipeline.OpenKernel(ctx, o.kernel, ev)
	if err != nil {
		return err
	}
	for _, w := range k.Warnings {
		p.Note(w)
	}
	r, err := pipeline.Build(ctx, k, o.build)
	p.Close()
	if err != nil && !errors.Is(err, pipeline.ErrNothing) && !errors.Is(err, pipeline.ErrUnpatchable) {
		return err
	}
	if o.timing {
		for _, t := range r.Timings {
			fmt.Fprintf(a.err, "%-60s %6.2f s wall %6.2f s CPU\n", t.Step, t.Wall.Seconds(), t.CPU.Seconds())
		}
	}
	if o.json {
		if jerr := printJSON(a.out, r); jerr != nil {
			return jerr
		}
		return err
	}
	for _, n := range r.NoEffect {
		fmt.Fprintf(a.err, "klpc: note: %s: no effect on this kernel\n", n)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(a.err, "klpc: note: %s\n", n)
	}
	printProblems(a.err, r.Problems)
	if err != nil {
		return err
	}
	return printReport(a.out, r)
}

// printReport prints the table of what a module patches.
func printReport(w io.Writer, r *pipeline.Report) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "OBJECT\tFUNCTION\tCHANGE\tWHY")
	for _, o := range r.Objects {
		for _, f := range o.Functions {
			name := f.Name
			if f.Sympos > 0 {
				name = fmt.Sprintf("%s,%d", f.Name, f.Sympos)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", o.Name, name, f.Change, f.Why)
		}
		for _, c := range o.Callbacks {
			fmt.Fprintf(t, "%s\t%s\tcallback\t%s\n", o.Name, c.Function, strings.ReplaceAll(c.Kind, "_", " "))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s: %d bytes, for %s\n", r.Module, r.Size, r.Kernel)
	return err
}

// printProblems prints what speaks against a livepatch, for people.
func printProblems(w io.Writer, problems []elfdiff.JSONProblem) {
	for _, p := range problems {
		fmt.Fprintf(w, "klpc: problem: %s\n  %s\n  what to do: %s\n", strings.TrimSuffix(p.Where, ": +0x0"), p.Detail, p.Hint)
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
