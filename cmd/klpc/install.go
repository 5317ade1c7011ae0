package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/systemd"
	"github.com/klpc/klpc/store"
)

// installOptions are the flags of klpc install.
type installOptions struct {
	storeOptions
	file    string
	accept  bool
	patches []string
	cves    []string
}

// storeOptions are the flags that all commands on the store have.
type storeOptions struct {
	store  string
	dryRun bool
	json   bool
}

func (o *storeOptions) flags(cmd *cobra.Command) {
	storeFlag(cmd, &o.store)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be done, step by step, and do nothing")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the result as one JSON document")
}

func newInstall(a *app, f func(context.Context, *app, installOptions) error) *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use:   "install FILE.ko [flags]",
		Short: "Put a livepatch into the patch store",
		Long: `install copies a livepatch module into the patch store of the kernel release that
it was built for, which need not be the one that runs. It is not loaded. With
--accept, or after klpc accept, it is loaded at each boot of that release
(klpc restore, klpc.service).

The store is in /var/lib/klpc unless /etc/klpc/klpc.conf says otherwise. What
the module was made from is read from the module, as far as it says so;
--patch-name and --cve say it for modules that do not.`,
		Example: `  klpc install livepatch-fix.ko
  # and load it at each boot
  klpc install --accept --cve CVE-2024-12345 livepatch-fix.ko`,
		Args:              exactly(1, "one FILE.ko"),
		ValidArgsFunction: complete("ko"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.file = args[0]
			for _, id := range o.cves {
				if err := store.CheckCVE(id); err != nil {
					return usageError{err}
				}
			}
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	fl := cmd.Flags()
	fl.BoolVar(&o.accept, "accept", false, "load it at each boot from now on")
	fl.StringArrayVar(&o.patches, "patch-name", nil, "`NAME` of a source patch; may be given more than once")
	fl.StringSliceVar(&o.cves, "cve", nil, "`ID` of a CVE that it fixes; may be given more than once")
	return cmd
}

func runInstall(ctx context.Context, a *app, o installOptions) error {
	data, err := os.ReadFile(o.file)
	if err != nil {
		return err
	}
	mod, err := store.ReadModule(data)
	if err != nil {
		return fmt.Errorf("install %s: %w", o.file, err)
	}
	options := store.InstallOptions{Accept: o.accept, Sources: o.patches, CVEs: upper(o.cves)}
	options.CVEs = append(options.CVEs, store.CVEs(o.patches...)...)
	s, _, err := openStore(o.store)
	if err != nil {
		return err
	}
	return changeStore(ctx, a, s, "install", o.storeOptions, func() (*store.Change, error) {
		change, err := s.Install(mod, options)
		if err != nil {
			return nil, err
		}
		if running, err := runningRelease(); err == nil && running != mod.Release {
			change.Notes = append(change.Notes, fmt.Sprintf("it is for kernel %s, and %s runs", mod.Release, running))
		}
		return change, nil
	})
}

func upper(list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, strings.ToUpper(s))
	}
	return out
}

// namedOptions are the flags of klpc uninstall and klpc accept.
type namedOptions struct {
	storeOptions
	name    string
	release string
	revoke  bool
}

func (o *namedOptions) flags(cmd *cobra.Command) {
	o.storeOptions.flags(cmd)
	cmd.Flags().StringVar(&o.release, "release", "", "of the store for kernel `RELEASE`; default: the one that runs")
}

func newUninstall(a *app, f func(context.Context, *app, namedOptions) error) *cobra.Command {
	var o namedOptions
	cmd := &cobra.Command{
		Use:   "uninstall NAME [flags]",
		Short: "Take a livepatch out of the patch store",
		Long: `uninstall removes a livepatch from the patch store. If it is loaded it stays so:
klpc unload removes it from the kernel. NAME is the module's name, with or
without livepatch_.`,
		Example:           "  klpc uninstall livepatch_fix",
		Args:              exactly(1, "one NAME"),
		ValidArgsFunction: completeInstalled,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	return cmd
}

func runUninstall(ctx context.Context, a *app, o namedOptions) error {
	return changeNamed(ctx, a, "uninstall", o, func(s *store.Store, release, name string) (*store.Change, error) {
		c, err := s.Uninstall(release, name)
		if err != nil {
			return nil, err
		}
		if on, err := machine(config{}); err == nil && on.Release == release && slices.Contains(on.Active, c.Name) {
			c.Notes = append(c.Notes, fmt.Sprintf("it stays loaded until the next boot, or klpc unload %s", c.Name))
		}
		return c, nil
	})
}

func newAccept(a *app, f func(context.Context, *app, namedOptions) error) *cobra.Command {
	var o namedOptions
	cmd := &cobra.Command{
		Use:   "accept NAME [flags]",
		Short: "Have an installed livepatch loaded at each boot",
		Long: `accept says that a livepatch has proven itself: klpc restore loads it at each boot
from now on. A livepatch that is held back, because the machine went down over
it, is tried again at the next boot. --revoke takes the acceptance back.`,
		Example: `  klpc accept livepatch_fix
  klpc accept --revoke livepatch_fix`,
		Args:              exactly(1, "one NAME"),
		ValidArgsFunction: completeInstalled,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.name = args[0]
			return f(cmd.Context(), a, o)
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&o.revoke, "revoke", false, "no longer load it at boot")
	return cmd
}

func runAccept(ctx context.Context, a *app, o namedOptions) error {
	if o.revoke {
		return changeNamed(ctx, a, "accept --revoke", o, (*store.Store).Refuse)
	}
	return changeNamed(ctx, a, "accept", o, (*store.Store).Accept)
}

func changeNamed(ctx context.Context, a *app, what string, o namedOptions, plan func(*store.Store, string, string) (*store.Change, error)) error {
	s, _, err := openStore(o.store)
	if err != nil {
		return err
	}
	if o.release == "" {
		if o.release, err = runningRelease(); err != nil {
			return err
		}
	}
	return changeStore(ctx, a, s, what, o.storeOptions, func() (*store.Change, error) { return plan(s, o.release, o.name) })
}

// changeStore plans a change, makes it, and prints it. If there is something to
// change, it is planned again with the lock held.
func changeStore(ctx context.Context, a *app, s *store.Store, what string, o storeOptions, plan func() (*store.Change, error)) error {
	c, err := plan()
	if err == nil && c.Changed && !o.dryRun {
		unlock, lockErr := lockChanges(ctx, a, s, what)
		if lockErr != nil {
			return lockErr
		}
		defer unlock()
		if c, err = plan(); err == nil {
			err = c.Do()
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, asRoot(err))
	}
	if c.Accepted && s.Root() == store.DefaultRoot && !systemd.Enabled("/") {
		c.Notes = append(c.Notes, "klpc.service is not enabled, so nothing is loaded at boot: klpc install-service")
	}
	if o.json {
		return printJSON(a.out, struct {
			*store.Change
			DryRun bool `json:"dry_run"`
		}{c, o.dryRun})
	}
	for _, n := range c.Notes {
		fmt.Fprintf(a.err, "note: %s\n", n)
	}
	switch {
	case !c.Changed:
		_, err = fmt.Fprintf(a.out, "%s for %s: nothing to do\n", c.Name, c.Release)
	case o.dryRun:
		for _, step := range c.Steps {
			fmt.Fprintf(a.out, "would %s\n", step)
		}
	default:
		_, err = fmt.Fprintf(a.out, "%s for %s: %s\n", c.Name, c.Release, done[what])
	}
	return err
}

// done is what a command has done.
var done = map[string]string{
	"install":         "installed",
	"uninstall":       "uninstalled",
	"accept":          "accepted, is loaded at boot",
	"accept --revoke": "no longer loaded at boot",
}

// asRoot says who may do what was not permitted.
func asRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w; this needs root", err)
	}
	return err
}

// runningRelease is what uname -r says.
func runningRelease() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(text)), err
}

// completeInstalled offers the livepatches in the store for the running kernel.
func completeInstalled(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	dir, _ := cmd.Flags().GetString("store")
	s, _, err := openStore(dir)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	release, err := runningRelease()
	if r, _ := cmd.Flags().GetString("release"); r != "" {
		release, err = r, nil
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	m, err := s.Read(release)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []cobra.Completion
	for _, p := range m.Patches {
		names = append(names, p.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
