package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/survey"
)

// surveyOptions are the flags of klpc survey.
type surveyOptions struct {
	kernel    pipeline.KernelOptions
	survey    survey.Options
	patches   []string
	accel     string
	failOn    []string
	launcher  string // split at blanks
	cacheSize byteSize
	progress  ui.Mode
	json      bool
}

// defaultAtlas is the folder of the atlas if none is given.
const defaultAtlas = "atlas"

func newSurvey(a *app, f func(context.Context, *app, surveyOptions) error) *cobra.Command {
	var o surveyOptions
	cmd := &cobra.Command{
		Use:   "survey --kernel K [flags] DIR|SERIES|PATCH...",
		Short: "Try many patches, each by itself, and write an atlas of the results",
		Long: `survey tries each patch by itself: on the sources of the kernel as they are,
without the patches before it. A folder stands for its series file, or else for all
its *.patch and *.diff files; a series file for the patches that it lists. A file
that holds several patches (an mbox) is one patch.

In the folder -o it leaves atlas.json and atlas.html, a page that needs no server;
modules/ with a module for each patch that could be built; and logs/ with the whole
output of what failed. The verdicts:

  tested            built, loaded on the booted kernel and removed, no warning (--test)
  built             a module was built
  test-failed       built, but the booted kernel did not take it well (--test)
  unpatchable       cannot be livepatched; reasons, and what to do instead
  no-effect         changes no function of this kernel
  does-not-apply    not to these sources, or it is no patch
  does-not-compile  with the compiler's first error
  internal-error    klpc or the machine failed; says nothing of the patch

It can be interrupted at any time: the same command goes on where it ended, and
tries again only what has changed. An index.json beside the patches, a list of
objects with the keys patch, cves and titles, adds those to the atlas.

Exit codes: 0 done, 1 failed, interrupted, or a patch ended in a verdict that
--fail-on names, 2 usage.`,
		Example: `  klpc survey --kernel debian:6.1.0-47-cloud-amd64 fixes/
  # also boot the kernel and try the modules; fail if any does not work
  klpc survey --kernel debian --test --fail-on test-failed,internal-error -o atlas fixes/series
  # names of the patches that need somebody's work
  klpc survey --kernel ~/linux --json *.patch | jq -r '.patches[] | select(.verdict == "unpatchable") | .patch'`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.patches = args
			if err := o.check(); err != nil {
				return err
			}
			return f(cmd.Context(), a, o)
		},
	}
	kernelFlags(cmd, &o.kernel)
	progressFlag(cmd, &o.progress)
	fl := cmd.Flags()
	fl.StringVarP(&o.survey.Dir, "output", "o", defaultAtlas, "write the atlas into the folder `DIR`")
	fl.IntVarP(&o.survey.Jobs, "jobs", "j", 0, "run `N` programs at once, in all (default: one per processor)")
	fl.BoolVar(&o.survey.Test, "test", false, "boot the kernel in QEMU and try the modules")
	fl.StringVar(&o.accel, "accel", "auto", "with --test: tcg, kvm, or auto: kvm if it works, else tcg")
	completeFlag(cmd, "accel", "auto", "kvm", "tcg")
	fl.BoolVar(&o.survey.Restart, "restart", false, "discard the results of earlier runs in the folder")
	fl.StringSliceVar(&o.failOn, "fail-on", []string{string(survey.InternalError)}, "exit with 1 if a patch ends in one of these `VERDICT[,VERDICT...]`, or none")
	completeFlag(cmd, "fail-on", append(verdictWords(), noVerdict)...)
	fl.BoolVar(&o.survey.Build.NoReplace, "no-replace", false, "make modules that leave other livepatches loaded")
	fl.IntVar(&o.survey.Build.Fuzz, "fuzz", 0, "let `N` lines of context differ when a hunk is applied")
	fl.StringArrayVar(&o.survey.Build.AllowLayout, "allow-layout-change", nil, "accept the changed layout or values of `TYPE` (such as \"struct foo\"), which you have checked; may be repeated")
	fl.StringVar(&o.launcher, "cc-launcher", "", "put `PROG` (ccache, distcc, ...) before every compile; may have arguments")
	cacheSizeFlag(cmd, &o.cacheSize)
	fl.BoolVar(&o.json, "json", false, "print the atlas as one JSON document")
	return cmd
}

// noVerdict is --fail-on's word for no verdict.
const noVerdict = "none"

func verdictWords() []string {
	var words []string
	for _, v := range survey.Verdicts() {
		words = append(words, string(v))
	}
	return words
}

func (o *surveyOptions) check() error {
	if len(o.patches) == 0 {
		return usageError{errors.New("needs at least one DIR, SERIES or PATCH")}
	}
	if err := checkKernelFlags(o.kernel); err != nil {
		return err
	}
	if o.survey.Build.Fuzz < 0 || o.survey.Jobs < 0 {
		return usageError{errors.New("--fuzz and --jobs cannot be negative")}
	}
	if o.survey.Dir == "" {
		return usageError{errors.New("--output: no folder given")}
	}
	var err error
	if o.survey.Accel, err = vm.ParseAccel(o.accel); err != nil {
		return usageError{err}
	}
	for _, v := range o.failOn {
		if v != noVerdict && !slices.Contains(verdictWords(), v) {
			return usageError{fmt.Errorf("--fail-on %s: want %s or %s", v, strings.Join(verdictWords(), ", "), noVerdict)}
		}
	}
	return nil
}

func runSurvey(ctx context.Context, a *app, o surveyOptions) error {
	var err error
	if o.survey.Entries, err = survey.Find(o.patches); err != nil {
		return err
	}
	p := a.progress(o.progress)
	defer p.Close()
	if o.kernel.Cache, err = pipeline.CacheDir(); err != nil {
		return err
	}
	o.kernel.Jobs = o.survey.Jobs
	if o.survey.Kernel, err = openKernel(ctx, o.kernel, p); err != nil {
		return err
	}
	o.survey.Build.Cache, o.survey.Build.CacheSize = o.kernel.Cache, int64(o.cacheSize)
	o.survey.Build.Launcher = strings.Fields(o.launcher)
	o.survey.Version = version()
	if o.survey.Digest, err = programDigest(); err != nil {
		return err
	}
	o.survey.Events = events(p)
	atlas, err := survey.Run(ctx, o.survey)
	p.Close()
	if atlas == nil {
		return err
	}
	if ctx.Err() != nil {
		p.Note(fmt.Sprintf("%s without a verdict yet; the same command goes on from here", patches(len(atlas.Pending))))
		return err
	}
	if err != nil {
		return err
	}
	if o.json {
		err = printJSON(a.out, atlas)
	} else {
		err = errors.Join(atlas.Print(a.out), printPlace(a.out, o.survey.Dir))
	}
	if err != nil {
		return err
	}
	return failOn(p, atlas, o.failOn)
}

func printPlace(w io.Writer, dir string) error {
	_, err := fmt.Fprintf(w, "%s: the page to read; atlas.json beside it has the same as data\n", filepath.Join(dir, "atlas.html"))
	return err
}

func patches(n int) string {
	if n == 1 {
		return "1 patch"
	}
	return fmt.Sprintf("%d patches", n)
}

// failOn is the error of a survey in which a patch ended in one of the verdicts.
func failOn(p *ui.Progress, a *survey.Atlas, verdicts []string) error {
	failed := false
	for _, v := range survey.Verdicts() {
		if n := a.Summary.Verdicts[v]; n > 0 && slices.Contains(verdicts, string(v)) {
			failed = true
			p.Error(fmt.Sprintf("%s: %s (--fail-on)", patches(n), v))
		}
	}
	if failed {
		return silentError{exitFailed}
	}
	return nil
}

// programDigest stands for this very program: results of another one are not used
// again.
func programDigest() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find klpc's own program: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
