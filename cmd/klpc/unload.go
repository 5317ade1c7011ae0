package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
)

// unloadOptions are the flags of klpc unload.
type unloadOptions struct {
	changeOptions
	names []string
	all   bool
	store string
}

func newUnload(a *app, f func(context.Context, *app, unloadOptions) error) *cobra.Command {
	var o unloadOptions
	cmd := &cobra.Command{
		Use:   "unload NAME...|--all [flags]",
		Short: "Disable livepatches and remove their modules",
		Long: `unload disables livepatches, follows their transitions back to the original code,
and removes their modules; also those that were replaced or disabled before.
--all takes the newest first.

A transition that is not complete after --wait is reversed, so that the livepatch
stays enabled; so it is when klpc is interrupted. A livepatch that is not loaded
is left alone.`,
		Example: `  klpc unload livepatch_fix
  klpc unload --all`,
		ValidArgsFunction: loadedNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.all == (len(args) > 0) {
				return usageError{errors.New("needs NAME..., or --all")}
			}
			o.names = args
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	o.stallFlags(cmd)
	o.lockFlag(cmd)
	storeFlag(cmd, &o.store)
	cmd.Flags().BoolVar(&o.all, "all", false, "all livepatches, the newest first")
	return cmd
}

func runUnload(ctx context.Context, a *app, o unloadOptions) error {
	s, conf, err := openStore(o.store)
	if err != nil {
		return err
	}
	c := change{command: "unload", args: o.names, locked: true, options: o.changeOptions,
		after: func() { recorder{s, conf, a.talk.Note}.unloaded() },
		each: func(ctx context.Context, name string, lo livepatch.Options) (*livepatch.Result, error) {
			return livepatch.Unload(ctx, livepatch.Linux{}, name, lo)
		}}
	if o.all {
		c.args = []string{"--all"} // which the lock says meanwhile
		c.find = func() ([]string, error) {
			state, err := livepatch.Read(livepatch.Linux{}.FS())
			if err != nil {
				return nil, err
			}
			return livepatch.All(state), nil
		}
	}
	return a.runChange(ctx, c)
}
