package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/pipeline"
)

// kernelFlags adds the flags that say which kernel is meant.
func kernelFlags(cmd *cobra.Command, o *pipeline.KernelOptions) {
	f := cmd.Flags()
	f.StringVar(&o.Kernel, "kernel", "", "the kernel: `K` is a built tree (or its O= directory), debian:RELEASE, or debian for the newest cloud kernel")
	f.StringVar(&o.Source, "source", "", "with --config, --symvers and --image instead of --kernel: the source `DIR`")
	f.StringVar(&o.Config, "config", "", "the kernel's configuration `FILE`")
	f.StringVar(&o.Symvers, "symvers", "", "the kernel's Module.symvers `FILE`")
	f.StringVar(&o.Image, "image", "", "the kernel's vmlinux, vmlinuz, System.map or a dump of /proc/kallsyms: `FILE`")
	f.StringVar(&o.Release, "release", "", "with --source: the `RELEASE` that uname -r says on that kernel")
	f.StringVar(&o.Modules, "modules-dir", "", "with --source: the `DIR` with the kernel's module files")
	f.BoolVar(&o.AllowCompilerMismatch, "allow-compiler-mismatch", false, "warn instead of failing if the compiler is not the one that built the kernel")
}

// checkKernelFlags refuses command lines that name no kernel, or two, or not
// all of one.
func checkKernelFlags(o pipeline.KernelOptions) error {
	var missing []string
	parts := []struct{ flag, value string }{
		{"--source", o.Source}, {"--config", o.Config}, {"--symvers", o.Symvers}, {"--image", o.Image},
	}
	for _, p := range parts {
		if p.value == "" {
			missing = append(missing, p.flag)
		}
	}
	hasParts := len(missing) < len(parts) || o.Release != "" || o.Modules != ""
	switch {
	case o.Kernel == "" && !hasParts:
		return usageError{errors.New("which kernel? give --kernel DIR, --kernel debian:RELEASE, or --source, --config, --symvers and --image")}
	case o.Kernel != "" && hasParts:
		return usageError{errors.New("--kernel excludes --source, --config, --symvers, --image, --release and --modules-dir")}
	case o.Kernel == "" && len(missing) > 0:
		return usageError{fmt.Errorf("%s missing: without --kernel all of --source, --config, --symvers and --image are needed", strings.Join(missing, ", "))}
	}
	return nil
}

// openKernel opens the kernel and shows what it warns of.
func openKernel(ctx context.Context, o pipeline.KernelOptions, p *ui.Progress) (*pipeline.Kernel, error) {
	k, err := pipeline.OpenKernel(ctx, o, events(p))
	if err != nil {
		return nil, err
	}
	for _, w := range k.Warnings {
		p.Note(w)
	}
	return k, nil
}

// events shows what a pipeline reports.
func events(p *ui.Progress) pipeline.Events {
	return pipeline.Events{
		Step: func(s pipeline.StepEvent) { p.Begin(ui.Step(s)) },
		Unit: func(u pipeline.UnitEvent) { p.Unit(ui.Unit(u)) },
		Note: p.Note,
	}
}

// progressFlag adds the flag that says how progress is shown.
func progressFlag(cmd *cobra.Command, m *ui.Mode) {
	*m = ui.Auto
	cmd.Flags().Var(m, "progress", "show progress on standard error: `MODE` is "+strings.Join(ui.Modes(), ", "))
	completeFlag(cmd, "progress", ui.Modes()...)
}

// completeFlag lets the shell complete a flag's values.
func completeFlag(cmd *cobra.Command, name string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no flag of that name
	}
}
