package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
)

func newEnable(a *app, f func(context.Context, *app, namedChange) error) *cobra.Command {
	var o namedChange
	cmd := o.command(&cobra.Command{
		Use:   "enable NAME [flags]",
		Short: "Enable a livepatch that is being disabled",
		Long: `enable turns the transition of a livepatch round that is being disabled. One that
is disabled cannot be enabled again: kernels refuse it since Linux 5.1. Then load
it again; klpc load removes the module that is left over first.`,
		Example: "  klpc enable livepatch_fix",
	}, func(ctx context.Context) error { return f(ctx, a, o) })
	o.lockFlag(cmd)
	return cmd
}

func runEnable(ctx context.Context, a *app, o namedChange) error {
	c := o.change("enable", livepatch.Enable)
	c.locked = true
	return a.runChange(ctx, c)
}
