package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/risk"
)

// buildOptions are the flags of klpc build.
type buildOptions struct {
	kernel    pipeline.KernelOptions
	build     pipeline.BuildOptions
	progress  ui.Mode
	json      bool
	timing    bool
	launcher  string // build.Launcher, not split
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

The steps of a build, in their order:

` + stepList() + `
With --keep or --work the work folder stays, also when the build fails. --from
STEP then goes on at that step: what the steps before it have found is taken from
the folder, once patches, kernel and every file that was read have proved to be
the same. If they are not, --from apply starts over; what stays the same comes
from the compile cache (klpc cache) all the same.

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
  klpc build --kernel ~/linux --name fixes --git v6.12.117..fixes
  # go on where a build failed (disk full, package missing)
  klpc build --keep --kernel debian fix.patch
  klpc build --from link --kernel debian fix.patch`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.build.Patches = args
			if len(args) == 0 && o.build.Git == "" {
				return usageError{errors.New("needs at least one PATCH, or --git REV..REV")}
			}
			if err := checkKernelFlags(o.kernel); err != nil {
				return err
			}
			if err := checkFrom(o.build.From); err != nil {
				return err
			}
			var err error
			if o.build.Launcher, err = pipeline.SplitLauncher(o.launcher); err != nil {
				return usageError{fmt.Errorf("--cc-launcher: %w", err)}
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
	fl.StringArrayVar(&o.build.AllowLayout, "allow-layout-change", nil, "accept the changed layout or values of `TYPE` (such as \"struct foo\"), which you have checked; may be repeated")
	fl.IntVar(&o.build.Fuzz, "fuzz", 0, "let `N` lines of context differ when a hunk is applied")
	cacheSizeFlag(cmd, &o.cacheSize)
	fl.BoolVar(&o.build.Keep, "keep", false, "keep the work folder, say where it is and, after a failure, how to go on there")
	fl.StringVar(&o.build.Work, "work", "", "work in `DIR` and keep it (default: a folder of its own in $TMPDIR)")
	fl.StringVar(&o.build.From, "from", "", "go on from `STEP` in the work folder of an earlier build: the one named by --work, or else the newest of these patches that --keep has left in $TMPDIR")
	completeFlag(cmd, "from", stepNames()...)
	fl.BoolVar(&o.timing, "timings", false, "print what each step cost, on standard error")
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document")
	return cmd
}

func runBuild(ctx context.Context, a *app, o buildOptions) error {
	if err := checkOutput(o.build.Output); err != nil {
		return err
	}
	p := a.progress(o.progress)
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
	o.build.Cache, o.build.Events, o.build.Version = o.kernel.Cache, events(p), version()
	o.build.Events.Kept = func(k pipeline.KeptEvent) {
		a.last = func() { p.Kept(k.Dir, k.From, goOnCommand(a.args, k), k.Edit) }
	}
	r, err := pipeline.Build(ctx, k, o.build)
	p.Close()
	if err != nil && !errors.Is(err, pipeline.ErrNothing) && !errors.Is(err, pipeline.ErrUnpatchable) {
		return err
	}
	if o.timing {
		for _, t := range r.Timings {
			p.Timing(t.Step, t.Wall, t.CPU)
		}
	}
	if !o.json || o.progress == ui.JSON {
		printFindings(p, r)
	}
	if o.json {
		return errors.Join(printJSON(a.out, withLists(r)), err)
	}
	if err != nil {
		if r.Readers != nil {
			fmt.Fprintf(a.err, "klpc: note: %s\n", indent(readersLine(r.Readers)))
		}
		return err
	}
	return printReport(a.out, r)
}

// goOnCommand is the command line that goes on where a build has ended; empty
// if there is nothing to go on with.
func goOnCommand(args []string, k pipeline.KeptEvent) string {
	if k.From == "" {
		return ""
	}
	words := []string{"klpc", "build", "--from", k.From, "--work", k.Dir}
	for i := 1; i < len(args); i++ {
		name, _, joined := strings.Cut(args[i], "=")
		switch {
		case args[i] == "--":
			words = append(words, args[i:]...)
			i = len(args)
		case name == "--from" || name == "--work":
			if !joined {
				i++
			}
		case name != "--keep":
			words = append(words, args[i])
		}
	}
	for i, w := range words {
		words[i] = shellWord(w)
	}
	return strings.Join(words, " ")
}

// plainWord needs no quotes in a shell.
var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

func shellWord(w string) string {
	if plainWord.MatchString(w) {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// stepList lists the steps that --from takes, for the help.
func stepList() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, s := range pipeline.BuildSteps() {
		fmt.Fprintf(w, "  %s\t%s\n", s.Name, s.Does)
	}
	w.Flush()
	return b.String()
}

func stepNames() []string {
	var names []string
	for _, s := range pipeline.BuildSteps() {
		names = append(names, s.Name)
	}
	return names
}

// checkFrom refuses a step that does not exist.
func checkFrom(name string) error {
	if name == "" || slices.Contains(stepNames(), name) {
		return nil
	}
	return usageError{fmt.Errorf("--from %s: there is no such step; the steps are %s", name, strings.Join(stepNames(), ", "))}
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
	if c.Risks == nil {
		c.Risks = []risk.Risk{}
	}
	return &c
}

// printFindings prints what a build has found beside what it patches.
func printFindings(p *ui.Progress, r *pipeline.Report) {
	for _, f := range r.NoEffect {
		p.NoEffect(f)
	}
	for _, n := range r.Notes {
		p.Note(n)
	}
	for _, v := range r.Problems {
		p.Problem(ui.Problem{Kind: string(v.Kind), Where: v.Where, Detail: v.Detail, Hint: v.Hint})
	}
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
	if r.Readers != nil {
		fmt.Fprintf(w, "\n%s\n", readersLine(r.Readers))
	}
	_, err := fmt.Fprintf(w, "\n%s: %d bytes, for %s\n", r.Module, r.Size, r.Kernel)
	return err
}

// readersLine tells how far changed headers reach.
func readersLine(r *pipeline.Readers) string {
	units, it := "units read", "it"
	if r.Read == 1 {
		units = "unit reads"
	}
	if len(r.Files) > 1 {
		it = "them"
	}
	differently, functions := "preprocess", "functions"
	if r.Preprocessed == 1 {
		differently = "preprocesses"
	}
	if r.Functions == 1 {
		functions = "function"
	}
	if r.NotLookedAt > 0 {
		return fmt.Sprintf("%s: %d %s %s; %d that may see the change were not looked at, because a type is refused whatever they hold\n(%d dropped by their text alone)",
			strings.Join(r.Files, ", "), r.Read, units, it, r.NotLookedAt, r.DroppedByText)
	}
	return fmt.Sprintf("%s: %d %s %s, %d %s differently, %d %s changed\n(%d dropped by their text alone, %d because no code they emit uses the change)",
		strings.Join(r.Files, ", "), r.Read, units, it, r.Preprocessed, differently, r.Functions, functions, r.DroppedByText, r.Unreachable)
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
