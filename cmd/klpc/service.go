package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/systemd"
)

// serviceOptions are the flags of klpc install-service and uninstall-service.
type serviceOptions struct {
	root   string
	dryRun bool
	json   bool
}

func (o *serviceOptions) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&o.root, "root", "/", "of the system in `DIR`, which does not run")
	fl.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, step by step, and do nothing")
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document")
}

func newInstallService(a *app, f func(context.Context, *app, serviceOptions) error) *cobra.Command {
	var o serviceOptions
	cmd := &cobra.Command{
		Use:   "install-service [flags]",
		Short: "Have systemd restore accepted livepatches at boot",
		Long: `install-service writes klpc's systemd units to /etc/systemd/system, unless a
package has brought them, and enables klpc.service: early at each boot, before
the network, it runs klpc restore. klpc.restore=0 on the kernel command line
skips it. Nothing is started now.`,
		Example: `  klpc install-service
  klpc install-service --dry-run`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return f(cmd.Context(), a, o) },
	}
	o.flags(cmd)
	return cmd
}

func newUninstallService(a *app, f func(context.Context, *app, serviceOptions) error) *cobra.Command {
	var o serviceOptions
	cmd := &cobra.Command{
		Use:     "uninstall-service [flags]",
		Short:   "No longer restore livepatches at boot",
		Long:    `uninstall-service disables klpc.service and removes the units that install-service has written.`,
		Example: "  klpc uninstall-service",
		Args:    exactly(0, "no arguments"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return f(cmd.Context(), a, o) },
	}
	o.flags(cmd)
	return cmd
}

func runInstallService(ctx context.Context, a *app, o serviceOptions) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return err
	}
	if !strings.HasPrefix(self, "/usr/") && !strings.HasPrefix(self, "/opt/") {
		fmt.Fprintf(a.err, "note: the units run %s at boot: keep it there\n", self)
	}
	steps, err := systemd.Install(o.root, self)
	if err != nil {
		return err
	}
	return serviceSteps(ctx, a, o, steps, "klpc.service is enabled: accepted livepatches are restored at boot")
}

func runUninstallService(ctx context.Context, a *app, o serviceOptions) error {
	steps, err := systemd.Uninstall(o.root)
	if err != nil {
		return err
	}
	return serviceSteps(ctx, a, o, steps, "klpc.service is not enabled: nothing is restored at boot")
}

func serviceSteps(ctx context.Context, a *app, o serviceOptions, steps []systemd.Step, result string) error {
	changed := len(steps) > 0
	if changed && filepath.Clean(o.root) == "/" && systemd.Runs() {
		steps = append(steps, systemd.Step{Text: "systemctl daemon-reload", Do: func() error { return systemd.Reload(ctx) }})
	}
	texts := []string{}
	for _, s := range steps {
		texts = append(texts, s.Text)
		if o.dryRun {
			continue
		}
		if err := s.Do(); err != nil {
			return fmt.Errorf("%s: %w", s.Text, asRoot(err))
		}
	}
	if o.json {
		return printJSON(a.out, struct {
			Changed bool     `json:"changed"`
			Enabled bool     `json:"enabled"`
			Steps   []string `json:"steps"`
			DryRun  bool     `json:"dry_run"`
		}{changed, systemd.Enabled(o.root), texts, o.dryRun})
	}
	if o.dryRun {
		for _, t := range texts {
			fmt.Fprintf(a.out, "would %s\n", t)
		}
		return nil
	}
	_, err := fmt.Fprintln(a.out, result)
	return err
}
