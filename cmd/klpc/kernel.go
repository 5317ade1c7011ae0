package main

import (
	"errors"

	"github.com/spf13/cobra"

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
	f.StringVar(&o.Release, "release", "", "with --source: what uname -r says on that kernel")
	f.StringVar(&o.Modules, "modules-dir", "", "with --source: the `DIR` with the kernel's module files")
	f.BoolVar(&o.AllowCompilerMismatch, "allow-compiler-mismatch", false, "warn instead of failing if the compiler is not the one that built the kernel")
}

// checkKernelFlags refuses command lines that name no kernel, or two.
func checkKernelFlags(o pipeline.KernelOptions) error {
	parts := o.Source + o.Config + o.Symvers + o.Image
	switch {
	case o.Kernel == "" && parts == "":
		return usageError{errors.New("which kernel? give --kernel DIR, --kernel debian:RELEASE, or --source, --config, --symvers and --image")}
	case o.Kernel != "" && parts != "":
		return usageError{errors.New("--kernel and --source, --config, --symvers, --image exclude each other")}
	}
	return nil
}
