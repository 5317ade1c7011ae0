package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/internal/vm"
	"github.com/klpc/klpc/livetest"
	"github.com/klpc/klpc/pipeline"
)

// testOptions are the flags of klpc test.
type testOptions struct {
	kernel   pipeline.KernelOptions
	module   string
	modules  []string
	checks   []string
	shows    []string
	accel    string
	late     bool
	timeout  time.Duration
	console  bool
	progress ui.Mode
	json     bool
}

func newTest(a *app, f func(context.Context, *app, testOptions) error) *cobra.Command {
	var o testOptions
	cmd := &cobra.Command{
		Use:   "test MODULE.ko --kernel K [flags]",
		Short: "Boot the kernel in QEMU and prove that a livepatch works",
		Long: `test boots the kernel in QEMU with a small initramfs made on the spot. Each check
must fail before the livepatch is loaded, pass once its transition is complete,
and fail again after it has been disabled and removed. The kernel log must hold
no warning. Exit code 0 only if all of that held.`,
		Example: `  klpc test livepatch-cmdline.ko --kernel debian --check 'grep -q livepatch=1 /proc/cmdline'
  # a patch of a module, with the module loaded after the livepatch
  klpc test livepatch-dummy.ko --kernel ~/linux --modules dummy --late --check 'ip link add d0 type dummy'`,
		Args:              exactly(1, "one MODULE.ko"),
		ValidArgsFunction: complete("ko"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.module = args[0]
			if err := checkKernelFlags(o.kernel); err != nil {
				return err
			}
			if _, err := vm.ParseAccel(o.accel); err != nil {
				return usageError{err}
			}
			return f(cmd.Context(), a, o)
		},
	}
	kernelFlags(cmd, &o.kernel)
	progressFlag(cmd, &o.progress)
	fl := cmd.Flags()
	fl.StringSliceVar(&o.modules, "modules", nil, "load these modules of the kernel (`A,B`), with what they depend on")
	fl.StringArrayVar(&o.checks, "check", nil, "shell `CMD` that must fail without the livepatch and pass with it; may be given more than once")
	fl.StringArrayVar(&o.shows, "show", nil, "shell `CMD` whose output is shown at every stage; may be given more than once")
	fl.StringVar(&o.accel, "accel", "auto", "tcg, kvm, or auto: kvm if it works, else tcg")
	completeFlag(cmd, "accel", "auto", "kvm", "tcg")
	fl.BoolVar(&o.late, "late", false, "load the livepatch first and the patched modules afterwards")
	fl.DurationVar(&o.timeout, "timeout", 3*time.Minute, "give up after this long")
	fl.BoolVar(&o.console, "console", false, "show the guest's console on standard error")
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document")
	return cmd
}

func runTest(ctx context.Context, a *app, o testOptions) error {
	if o.console && o.progress == ui.Auto {
		o.progress = ui.Plain // the console would tear a line that updates itself
	}
	if _, err := os.Stat(o.module); err != nil {
		return err
	}
	p := a.progress(o.progress)
	defer p.Close()
	var err error
	if o.kernel.Cache, err = pipeline.CacheDir(); err != nil {
		return err
	}
	k, err := openKernel(ctx, o.kernel, p)
	if err != nil {
		return err
	}
	if k.BzImage == "" {
		return errors.New("no kernel to boot: this kernel was given without a vmlinuz")
	}
	if _, err := os.Stat(k.BzImage); err != nil {
		return fmt.Errorf("no kernel to boot: %w; run make bzImage", err)
	}
	accel, err := vm.ParseAccel(o.accel)
	if err != nil {
		return usageError{err}
	}
	lo := livetest.Options{
		Guest: livetest.Guest{
			Kernel: livetest.Kernel{BzImage: k.BzImage, FindModule: func(name string) (string, bool) {
				path, err := k.FindModule(name)
				return path, err == nil
			}},
			Accel: accel, Timeout: o.timeout,
			Progress: func(e livetest.Event) {
				if e.Result == nil {
					p.Begin(ui.Step{Name: string(e.Step.Kind), Text: e.Step.Name(), Index: e.Index + 1, Total: e.Total})
				}
			},
		},
		Livepatch: o.module, Targets: o.modules, Checks: o.checks, Shows: o.shows,
	}
	if o.late {
		lo.Order = livetest.TargetsLate
	}
	if o.console {
		lo.Console = p
	}
	p.Begin(ui.Step{Name: "boot", Text: "boot " + k.Release})
	r, err := livetest.Run(ctx, lo)
	p.Close()
	if err != nil {
		return err
	}
	if o.json {
		err = printJSON(a.out, r)
	} else {
		err = printTest(a.out, r, k.Release)
	}
	if err == nil && !r.OK {
		err = silentError{exitFailed}
	}
	return err
}

// printTest prints the steps of a test and what did not hold.
func printTest(w io.Writer, r *livetest.Report, release string) error {
	phase := ""
	for _, s := range r.Steps {
		if s.Phase != phase {
			phase = s.Phase
			fmt.Fprintf(w, "%s:\n", phase)
		}
		verdict := "ok"
		if !s.OK {
			verdict = "FAILED: " + s.Problem
		}
		fmt.Fprintf(w, "  %s: %s\n", s.Name(), verdict)
		if s.Kind == livetest.KindShow || !s.OK {
			for _, l := range strings.Split(strings.TrimRight(s.Output, "\n"), "\n") {
				fmt.Fprintf(w, "    %s\n", l)
			}
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", indent(n))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(w, "problem: %s\n", indent(p))
	}
	for _, l := range r.Log {
		fmt.Fprintf(w, "kernel log: %s\n", l.Text)
	}
	for _, l := range r.Console {
		fmt.Fprintf(w, "console: %s\n", l)
	}
	verdict := "passed"
	if !r.OK {
		verdict = "FAILED"
	}
	_, err := fmt.Fprintf(w, "%s on %s (%s, %.0f s)\n", verdict, release, r.Accel, r.Seconds)
	return err
}
