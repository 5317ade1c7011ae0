package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
	"github.com/klpc/klpc/store"
)

// loadOptions are the flags of klpc load.
type loadOptions struct {
	changeOptions
	args      []string
	allowDrop bool
	store     string
}

func newLoad(a *app, f func(context.Context, *app, loadOptions) error) *cobra.Command {
	var o loadOptions
	cmd := &cobra.Command{
		Use:   "load FILE.ko|NAME... [flags]",
		Short: "Load livepatches into the running kernel",
		Long: `load checks a livepatch, loads it, and follows its transition until every task runs
the new code. NAME is a livepatch that klpc install has put into the store.

Checked beforehand: the kernel that it was built for, the kernel's policy for
signatures, whether it is loaded already, whether it would replace livepatches
and so drop fixes (refused without --allow-drop), and who else hooks into the
functions: kprobes, BPF programs, tracers.

A transition that is not complete after --wait is reversed, and the livepatch is
unloaded; so it is when klpc is interrupted. The tasks that it waited for are
named with their stacks. A livepatch that is loaded already is left alone.`,
		Example: `  klpc load livepatch-fix.ko
  # what would be checked and done
  klpc load --dry-run livepatch-fix.ko
  # try for five minutes, then leave it to the kernel
  klpc load --wait 5m --on-timeout leave livepatch-fix.ko`,
		Args: atLeastOne("FILE.ko or NAME"),

		ValidArgsFunction: complete("ko"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	o.stallFlags(cmd)
	o.lockFlag(cmd)
	storeFlag(cmd, &o.store)
	cmd.Flags().BoolVar(&o.allowDrop, "allow-drop", false, "replace livepatches even if this one does not patch all that they fix")
	return cmd
}

// atLeastOne counts arguments, in klpc's words.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return fmt.Errorf("needs %s, got no arguments", what)
		}
		return nil
	}
}

func runLoad(ctx context.Context, a *app, o loadOptions) error {
	s, c, err := openStore(o.store)
	if err != nil {
		return err
	}
	return a.runChange(ctx, change{command: "load", args: o.args, locked: true, options: o.changeOptions,
		each: func(ctx context.Context, arg string, lo livepatch.Options) (*livepatch.Result, error) {
			path, err := moduleFile(s, arg)
			if err != nil {
				return livepatch.Failure(moduleName(arg), err), err
			}
			m, err := livepatch.Open(path)
			if err != nil {
				err = fmt.Errorf("load %w", err)
				return livepatch.Failure(moduleName(arg), err), err
			}
			defer m.Close()
			lo.AllowDrop = o.allowDrop
			return recorder{s, c, a.talk.Note}.load(ctx, m, lo)
		}})
}

// moduleName is what a file is called that could not be read.
func moduleName(arg string) string {
	name, _, _ := strings.Cut(filepath.Base(arg), ".ko")
	return name
}

// moduleFile is the file that an argument means.
func moduleFile(s *store.Store, arg string) (string, error) {
	if isFile(arg) {
		return arg, nil
	}
	return findInstalled(s, arg)
}
