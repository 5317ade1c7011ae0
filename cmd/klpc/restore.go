package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/systemd"
	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/livepatch"
	"github.com/klpc/klpc/store"
)

// restoreOptions are the flags of klpc restore.
type restoreOptions struct {
	storeOptions
	timeout  seconds
	given    bool // timeout was
	progress ui.Mode
}

// skipParameter, on the kernel command line, keeps livepatches from being restored.
const skipParameter = "klpc.restore=0"

func newRestore(a *app, f func(context.Context, *app, restoreOptions) error) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore [flags]",
		Short: "Load the accepted livepatches of the running kernel, as at boot",
		Long: `restore is what klpc.service runs at boot. It loads the accepted livepatches for
the running kernel from the patch store, in the order in which they were loaded
by hand the last time, or else installed.

What may have brought the machine down is held back: a livepatch that was being
loaded when it restarted; one that was loaded, and not accepted, before a restart
without a clean shutdown; and all that were restored, once three such restarts
in a row came soon after it. klpc status says why; klpc accept tries again.

klpc.restore=0 on the kernel command line skips it. Exit code 1 if a livepatch
that should have been restored was not.`,
		Example: `  klpc restore --dry-run
  klpc restore`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.given = cmd.Flags().Changed("wait")
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	cmd.Flags().Var(&o.timeout, "wait", "give each transition `D`; default: boot-timeout of the configuration, or 1m")
	progressFlag(cmd, &o.progress)
	return cmd
}

func runRestore(ctx context.Context, a *app, o restoreOptions) error {
	s, c, err := openStore(o.store)
	if err != nil {
		return err
	}
	if o.given {
		c.BootTimeout = time.Duration(o.timeout)
	}
	on, err := machine(c)
	if err != nil {
		return err
	}
	if skipped() {
		fmt.Fprintf(a.err, "note: nothing is restored: %s is on the kernel command line\n", skipParameter)
		return printRestoration(a, o, &store.Restoration{Release: on.Release, Patches: []store.RestoredStep{}})
	}
	if o.dryRun {
		r, err := s.PlanRestore(on)
		if err != nil {
			return err
		}
		return printRestoration(a, o, r)
	}
	unlock, err := lockChanges(ctx, a, s, "restore")
	if err != nil {
		return err
	}
	defer unlock()
	// One that replaces those that were restored before it did so, too, when it
	// was loaded by hand: AllowDrop.
	p := a.progress(o.progress)
	defer p.Close()
	l := kernelLoader{options: livepatch.Options{Wait: c.BootTimeout, AllowDrop: true, Events: transitionEvents(p, false)}}
	r, err := s.Restore(ctx, on, l, func(name string) { p.Note("restoring " + name) })
	p.Close()
	if r == nil {
		return asRoot(err)
	}
	return errors.Join(printRestoration(a, o, r), err)
}

func hasField(text, field string) bool {
	for _, f := range strings.Fields(text) {
		if f == field {
			return true
		}
	}
	return false
}

// printRestoration prints what became of each livepatch.
func printRestoration(a *app, o restoreOptions, r *store.Restoration) error {
	var err error
	switch {
	case o.json:
		err = printJSON(a.out, r)
	case len(r.Patches) == 0:
		_, err = fmt.Fprintf(a.out, "nothing to restore for %s\n", r.Release)
	default:
		w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
		for _, p := range r.Patches {
			fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Action, indent(p.Reason))
		}
		err = w.Flush()
	}
	if err == nil && r.Failed() {
		err = silentError{exitFailed}
	}
	return err
}

// machine is what the store must know of the running kernel.
func machine(c config) (store.Machine, error) {
	state, err := livepatch.Read(livepatch.Linux{}.FS())
	if err != nil {
		return store.Machine{}, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return store.Machine{}, fmt.Errorf("which boot is this? %w", err)
	}
	return store.Machine{
		Release: state.Release, BootID: strings.TrimSpace(string(boot)), Active: active(state), UncleanBoots: c.UncleanBoots,
	}, nil
}

// active are the livepatches that are enabled, or on the way to it.
func active(state *livepatch.State) []string {
	var names []string
	for _, p := range state.Patches {
		if p.Phase == livepatch.Enabled || p.Phase == livepatch.Enabling {
			names = append(names, p.Name)
		}
	}
	return names
}

// kernelLoader loads livepatches as klpc load does.
type kernelLoader struct{ options livepatch.Options }

func (kernelLoader) Active() ([]string, error) {
	state, err := livepatch.Read(livepatch.Linux{}.FS())
	if err != nil {
		return nil, err
	}
	return active(state), nil
}

// Load loads one livepatch.
func (l kernelLoader) Load(ctx context.Context, path string) error {
	m, err := livepatch.Open(path)
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = livepatch.Load(ctx, livepatch.Linux{}, m, l.options)
	return err
}

// lockChanges takes the lock of all that changes which livepatches are loaded or stored.
// Who is not root can only change a store of his own.
func lockChanges(ctx context.Context, a *app, s *store.Store, what string) (unlock func(), err error) {
	path := livepatch.LockPath
	if os.Geteuid() != 0 {
		if err := s.Prepare(); err != nil {
			return nil, asRoot(err)
		}
		path = s.LockPath()
	}
	return livepatch.Lock(ctx, path, what, defaultLockWait, func(holder string) { fmt.Fprintf(a.err, "note: waiting for %s\n", holder) })
}

// markOptions are the flags of klpc mark.
type markOptions struct {
	store string
	what  string
}

// Marks that the units set.
const (
	markClean   = "clean"
	markSettled = "settled"
)

func newMark(a *app, f func(context.Context, *app, markOptions) error) *cobra.Command {
	var o markOptions
	cmd := &cobra.Command{
		Use:   "mark clean|settled",
		Short: "Record how this boot goes, for klpc's systemd units",
		Long: `mark records, in the patch store, that the system is shut down in good order
(clean), or that it has run well for a while with its livepatches (settled). The
systemd units call it; see klpc restore for what follows from it. While systemd
runs and does not shut down, mark clean records nothing.`,
		Example:   "  klpc mark clean",
		Hidden:    true,
		ValidArgs: []string{markClean, markSettled},
		Args:      exactly(1, "clean or settled"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.what = args[0]
			if o.what != markClean && o.what != markSettled {
				return usageError{fmt.Errorf("%q is neither clean nor settled", o.what)}
			}
			return f(cmd.Context(), a, o)
		},
	}
	storeFlag(cmd, &o.store)
	return cmd
}

func runMark(ctx context.Context, a *app, o markOptions) error {
	s, c, err := openStore(o.store)
	if err != nil {
		return err
	}
	if o.what == markClean && systemd.Runs() && !systemd.ShuttingDown(ctx) {
		fmt.Fprintln(a.err, "note: the system is not being shut down: nothing is recorded")
		return nil
	}
	on, err := machine(c)
	if err != nil {
		return err
	}
	unlock, err := lockChanges(ctx, a, s, "mark "+o.what)
	if err != nil {
		return err
	}
	defer unlock()
	if o.what == markSettled {
		return asRoot(s.MarkSettled(on))
	}
	return asRoot(s.MarkClean(on))
}
