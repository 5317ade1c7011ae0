package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
)

func newEnable(a *app, f func(context.Context, *app, namedChange) error) *cobra.Command {
	var o namedChange
	cmd := &cobra.Command{
		Use:   "enable NAME [flags]",
		Short: "Enable a livepatch that is being disabled",
		Long: `enable turns the transition of a livepatch round that is being disabled. One that
is disabled cannot be enabled again: kernels refuse it since Linux 5.1. Then load
it again; klpc load removes the module that is left over first.`,
		Example: "  klpc enable livepatch_fix",
		Args:    exactly(1, "one NAME"),

		ValidArgsFunction: loadedNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	o.lockFlag(cmd)
	return cmd
}

func runEnable(ctx context.Context, a *app, o namedChange) error {
	return a.runChange(ctx, change{command: "enable", args: []string{o.name}, locked: true, options: o.changeOptions,
		each: func(ctx context.Context, name string, lo livepatch.Options) (*livepatch.Result, error) {
			return livepatch.Enable(ctx, livepatch.Linux{}, name, lo)
		}})
}
