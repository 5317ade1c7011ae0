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
	kernel   pipeline.KernelOptions
	build    pipeline.BuildOptions
	progress ui.Mode
	json     bool
	timing   bool
	// launcher is split at blanks.
	launcher  string
	cacheSize byteSize
}

func newBuild(a *app, f func(context.Context, *app, buildOptions) error) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build --kernel K [flags] PATCH...",
		Short: "Build a livepatch module from source patches",
		Long: `build compiles the files that the patches touch, as they are and as patched, and
writes livepatch-NAME.ko. On standard output it lists what the module patches
and why. The kernel tree is only read.

Exit codes: 0 done, 1 failed, 2 usage, 3 nothing to patch, 4 this change cannot
be livepatched. Nothing is written on 1 to 4.`,
		Example: `  # the newest stock Debian cloud kernel, fetched and prepared in the cache
  klpc build --kernel debian fix.patch
  # the stock kernel that runs here
  klpc build --kernel debian:$(uname -r) fix.patch
  # a kernel tree that you have built
  klpc build --kernel ~/linux -o livepatch-fix.ko fix.patch
  # a series: files in order, a folder with a series file, an mbox, or commits
  klpc build --kernel debian 0001-a.patch 0002-b.patch
  klpc build --kernel ~/linux --name fixes --git v6.12.117..fixes`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.build.Patches = args
			if len(args) == 0 && o.build.Git == "" {
				return usageError{errors.New("needs at least one PATCH, or --git REV..REV")}
			}
			if err := checkKernelFlags(o.kernel); err != nil {
				return err
			}
			if o.build.Fuzz < 0 || o.build.Jobs < 0 {
				return usageError{errors.New("--fuzz and --jobs cannot be negative")}
			}
			return f(cmd.Context(), a, o)
		},
	}
	kernelFlags(cmd, &o.kernel)
	progressFlag(cmd, &o.progress)
	fl := cmd.Flags()
	fl.StringVarP(&o.build.Output, "output", "o", "", "write the module to `FILE` (default livepatch-NAME.ko here)")
	fl.StringVar(&o.build.Name, "name", "", "the module's `NAME` (default: the first patch's file name)")
	fl.BoolVar(&o.build.NoReplace, "no-replace", false, "leave other livepatches loaded instead of replacing them all at once")
	fl.StringVar(&o.build.Git, "git", "", "take the commits `REV..REV` of the kernel tree's repository as patches, after those named")
	fl.StringVar(&o.launcher, "cc-launcher", "", "put `PROG` (ccache, distcc, ...) before every compile; may have arguments")
	fl.IntVarP(&o.build.Jobs, "jobs", "j", 0, "run `N` compiles at once (default: one per processor)")
	fl.IntVar(&o.build.Fuzz, "fuzz", 0, "let `N` lines of context differ when a hunk is applied")
	cacheSizeFlag(cmd, &o.cacheSize)
	fl.BoolVar(&o.build.Keep, "keep", false, "keep the work folder and say where it is")
	fl.BoolVar(&o.timing, "timings", false, "print what each step cost, on standard error")
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document")
	return cmd
}

func runBuild(ctx context.Context, a *app, o buildOptions) error {
	if err := checkOutput(o.build.Output); err != nil {
		return err
	}
	p := ui.NewProgress(a.err, o.progress)
	defer p.Close()
	var err error
	if o.kernel.Cache, err = pipeline.CacheDir(); err != nil {
		return err
	}
	o.kernel.Jobs = o.build.Jobs
	k, err := openKernel(ctx, o.kernel, p)
	if err != nil {
		return err
	}
	o.build.CacheSize = int64(o.cacheSize)
	o.build.Cache, o.build.Events = o.kernel.Cache, events(p)
	r, err := pipeline.Build(ctx, k, o.build)
	p.Close()
	if err != nil && !errors.Is(err, pipeline.ErrNothing) && !errors.Is(err, pipeline.ErrUnpatchable) {
		return err
	}
	if o.timing {
		printTimings(a.err, r.Timings)
	}
	if o.json {
		return errors.Join(printJSON(a.out, withLists(r)), err)
	}
	printFindings(a.err, r)
	if err != nil {
		return err
	}
	return printReport(a.out, r)
}

// withLists gives a report that ended early its empty lists, so that its JSON
// form has them as such.
func withLists(r *pipeline.Report) *pipeline.Report {
	c := *r
	if c.Objects == nil {
		c.Objects = []pipeline.ReportObject{}
	}
	if c.Problems == nil {
		c.Problems = []elfdiff.JSONProblem{}
	}
	return &c
}

func printTimings(w io.Writer, timings []pipeline.Timing) {
	for _, t := range timings {
		fmt.Fprintf(w, "%-60s %6.2f s wall %6.2f s CPU\n", t.Step, t.Wall.Seconds(), t.CPU.Seconds())
	}
}

// printFindings prints what a build has found beside what it patches.
func printFindings(w io.Writer, r *pipeline.Report) {
	for _, n := range r.NoEffect {
		fmt.Fprintf(w, "klpc: note: %s: no effect on this kernel\n", n)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "klpc: note: %s\n", indent(n))
	}
	printProblems(w, "klpc: ", r.Problems)
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

// printProblems prints what speaks against a livepatch, for people. The kind in
// brackets is the one that the documentation lists.
func printProblems(w io.Writer, prefix string, problems []elfdiff.JSONProblem) {
	for _, p := range problems {
		fmt.Fprintf(w, "%sproblem: %s: %s [%s]\n", prefix, p.Where, p.Detail, p.Kind)
		if p.Source != nil {
			fmt.Fprintf(w, "  %s\n", p.Source)
		}
		fmt.Fprintf(w, "  what to do: %s\n", p.Hint)
	}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
