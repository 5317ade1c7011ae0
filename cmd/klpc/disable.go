package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
)

// namedChange are the flags of a command on one livepatch.
type namedChange struct {
	changeOptions
	name string
}

func newDisable(a *app, f func(context.Context, *app, namedChange) error) *cobra.Command {
	var o namedChange
	cmd := &cobra.Command{
		Use:   "disable NAME [flags]",
		Short: "Go back to the original code and keep the module loaded",
		Long: `disable leads all tasks back to the original code. The module stays loaded, but
the kernel has no way to enable it again: klpc load does that by loading it anew.

A transition that is not complete after --wait is reversed, so that the livepatch
stays enabled; so it is when klpc is interrupted.`,
		Example: "  klpc disable livepatch_fix",
		Args:    exactly(1, "one NAME"),

		ValidArgsFunction: loadedNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	o.stallFlags(cmd)
	o.lockFlag(cmd)
	return cmd
}

func runDisable(ctx context.Context, a *app, o namedChange) error {
	s, c, err := openStore("")
	if err != nil {
		return err
	}
	return a.runChange(ctx, change{command: "disable", args: []string{o.name}, locked: true, options: o.changeOptions,
		after: func() { recorder{s, c, a.talk.Note}.unloaded() },
		each: func(ctx context.Context, name string, lo livepatch.Options) (*livepatch.Result, error) {
			return livepatch.Disable(ctx, livepatch.Linux{}, name, lo)
		}})
}
