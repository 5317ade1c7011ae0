package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
)

func newReverse(a *app, f func(context.Context, *app, namedChange) error) *cobra.Command {
	var o namedChange
	return o.command(&cobra.Command{
		Use:   "reverse NAME [flags]",
		Short: "Turn a livepatch's transition round",
		Long: `reverse turns a transition round: a livepatch that is being enabled is disabled, and
one that is being disabled is enabled. It needs no lock, so that it reaches a
transition that another klpc is waiting for; that one then says so and ends.`,
		Example: "  klpc reverse livepatch_fix",
	}, func(ctx context.Context) error { return f(ctx, a, o) })
}

func runReverse(ctx context.Context, a *app, o namedChange) error {
	return a.runChange(ctx, o.change("reverse", livepatch.Reverse))
}
