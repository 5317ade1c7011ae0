package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
)

func newDisable(a *app, f func(context.Context, *app, namedChange) error) *cobra.Command {
	var o namedChange
	cmd := o.command(&cobra.Command{
		Use:   "disable NAME [flags]",
		Short: "Go back to the original code and keep the module loaded",
		Long: `disable leads all tasks back to the original code. The module stays loaded, but
the kernel has no way to enable it again: klpc load does that by loading it anew.

A transition that is not complete after --wait is reversed, so that the livepatch
stays enabled; so it is when klpc is interrupted.`,
		Example: "  klpc disable livepatch_fix",
	}, func(ctx context.Context) error { return f(ctx, a, o) })
	o.stallFlags(cmd)
	o.lockFlag(cmd)
	return cmd
}

func runDisable(ctx context.Context, a *app, o namedChange) error {
	s, conf, err := openStore("")
	if err != nil {
		return err
	}
	c := o.change("disable", livepatch.Disable)
	c.locked = true
	c.after = func() { recorder{s, conf, a.talk.Note}.unloaded() }
	return a.runChange(ctx, c)
}
