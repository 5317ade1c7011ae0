package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
)

func newReverse(a *app, f func(context.Context, *app, namedChange) error) *cobra.Command {
	var o namedChange
	cmd := &cobra.Command{
		Use:   "reverse NAME [flags]",
		Short: "Turn a livepatch's transition round",
		Long: `reverse turns a transition round: a livepatch that is being enabled is disabled, and
one that is being disabled is enabled. It needs no lock, so that it reaches a
transition that another klpc is waiting for; that one then says so and ends.`,
		Example: "  klpc reverse livepatch_fix",
		Args:    exactly(1, "one NAME"),

		ValidArgsFunction: loadedNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func runReverse(ctx context.Context, a *app, o namedChange) error {
	return a.runChange(ctx, change{command: "reverse", args: []string{o.name}, options: o.changeOptions,
		each: func(ctx context.Context, name string, lo livepatch.Options) (*livepatch.Result, error) {
			return livepatch.Reverse(ctx, livepatch.Linux{}, name, lo)
		}})
}
