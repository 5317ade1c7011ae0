package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/verify"
)

// verifyOptions are the flags of klpc verify.
type verifyOptions struct {
	kernel    pipeline.KernelOptions
	verify    pipeline.VerifyOptions
	launcher  string
	cacheSize byteSize
	progress  ui.Mode
	json      bool
}

func newVerify(a *app, f func(context.Context, *app, verifyOptions) error) *cobra.Command {
	var o verifyOptions
	var patches []string
	cmd := &cobra.Command{
		Use:   "verify MODULE.ko --kernel K [flags]",
		Short: "Prove, without booting, that a livepatch module is right for a kernel",
		Long: `verify makes three proofs:

  original  each function that is replaced equals the kernel's own code, with all
            that it refers to: the kernel is the one that was rebuilt
  patched   each function, constant and table of the module equals the patched
            source's, compiled afresh, and every relocation leads where that says
  accepted  nothing that the kernel checks when it loads the module fails

The patches are those that the module brings along (klpc build puts them in), or
those of --patch, in any form that build takes. It is also the last step of every
build.

The verdict is "verified" if all three hold, "failed" if something is wrong, and
"incomplete" if nothing is wrong as far as could be told, but a proof could not be
made, such as without patches or without the kernel's image.

Exit codes: 0 verified, 1 failed or incomplete, 2 usage.`,
		Example: `  klpc verify livepatch-fix.ko --kernel debian:$(uname -r)
  # a module that does not bring its patches along
  klpc verify livepatch-fix.ko --kernel ~/linux --patch fix.patch
  klpc verify livepatch-fix.ko --kernel debian --json | jq .verdict`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: complete("ko"),
		RunE: func(cmd *cobra.Command, args []string) error {
			// "--patch A B" names two patches.
			if len(args) == 0 || len(patches) == 0 {
				if err := exactly(1, "one MODULE.ko")(cmd, args); err != nil {
					return usageError{err}
				}
			}
			o.verify.Module, o.verify.Build.Patches = args[0], append(patches, args[1:]...)
			if err := checkKernelFlags(o.kernel); err != nil {
				return err
			}
			var err error
			if o.verify.Build.Launcher, err = pipeline.SplitLauncher(o.launcher); err != nil {
				return usageError{fmt.Errorf("--cc-launcher: %w", err)}
			}
			if o.verify.Build.Fuzz < 0 || o.verify.Build.Jobs < 0 {
				return usageError{errors.New("--fuzz and --jobs cannot be negative")}
			}
			return f(cmd.Context(), a, o)
		},
	}
	kernelFlags(cmd, &o.kernel)
	progressFlag(cmd, &o.progress)
	fl := cmd.Flags()
	fl.StringArrayVar(&patches, "patch", nil, "compare with what `PATCH` compiles to, instead of with the patches that the module brings along; further ones may follow")
	fl.StringVar(&o.verify.Build.Git, "git", "", "the same for the commits `REV..REV` of the kernel tree's repository, after --patch")
	fl.IntVar(&o.verify.Build.Fuzz, "fuzz", 0, "with --patch: let `N` lines of context differ when a hunk is applied")
	fl.StringVar(&o.launcher, "cc-launcher", "", "put `PROG` (ccache, distcc, ...) before every compile; may have arguments")
	fl.IntVarP(&o.verify.Build.Jobs, "jobs", "j", 0, "run `N` compiles at once (default: one per processor)")
	cacheSizeFlag(cmd, &o.cacheSize)
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document")
	return cmd
}

func runVerify(ctx context.Context, a *app, o verifyOptions) error {
	if _, err := os.Stat(o.verify.Module); err != nil {
		return err
	}
	p := a.progress(o.progress)
	defer p.Close()
	var err error
	if o.kernel.Cache, err = pipeline.CacheDir(); err != nil {
		return err
	}
	o.kernel.Jobs = o.verify.Build.Jobs
	k, err := openKernel(ctx, o.kernel, p)
	if err != nil {
		return err
	}
	b := &o.verify.Build
	b.CacheSize, b.Cache, b.Events, b.Version = int64(o.cacheSize), o.kernel.Cache, events(p), version()
	r, err := pipeline.Verify(ctx, k, o.verify)
	p.Close()
	if err != nil {
		return err
	}
	if o.json {
		err = printJSON(a.out, r)
	} else {
		err = printVerify(a.out, r)
	}
	if err == nil && r.Verdict != verify.Verified {
		err = silentError{exitFailed}
	}
	return err
}

// printVerify prints what was proven, what could not be, and what is wrong.
func printVerify(w io.Writer, r *verify.Report) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "PROOF\tVERDICT\tCOVERS")
	for _, p := range r.Proofs {
		var counts []string
		for _, c := range p.Counts {
			counts = append(counts, fmt.Sprintf("%d %s", c.N, c.What))
		}
		if len(counts) == 0 {
			counts = []string{"nothing"}
		}
		name, verdict := string(p.Name), string(p.Verdict)
		for _, c := range counts {
			fmt.Fprintf(t, "%s\t%s\t%s\n", name, verdict, c)
			name, verdict = "", ""
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, p := range r.Proofs {
		for _, m := range p.Missing {
			fmt.Fprintf(w, "not proven (%s): %s\n", p.Name, indent(m))
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "wrong (%s): %s: %s\n  %s\n", f.Proof, f.Where, indent(f.Detail), indent(f.Hint))
	}
	verdict := map[verify.Verdict]string{verify.Verified: "verified", verify.Failed: "FAILED", verify.Incomplete: "INCOMPLETE: not everything could be proven"}
	_, err := fmt.Fprintf(w, "%s: %s for %s\n", strings.ReplaceAll(r.Module, "\n", " "), verdict[r.Verdict], r.Kernel)
	return err
}
