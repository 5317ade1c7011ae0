package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/inspect"
)

func newInspect(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE.ko",
		Short: "Show what a livepatch module patches and needs",
		Long: `inspect shows a livepatch module's table of objects and functions, its callbacks,
whether it replaces other livepatches, its livepatch relocations and symbols,
and its modinfo. The text is canonical: equal modules print equal text.`,
		Example: "  klpc inspect livepatch-fix.ko",
		Args:    exactly(1, "one FILE.ko"),

		ValidArgsFunction: complete("ko"),
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			m, err := inspect.Read(data)
			if err != nil {
				return fmt.Errorf("inspect %s: %w", args[0], err)
			}
			if asJSON {
				return printJSON(a.out, m)
			}
			_, err = fmt.Fprint(a.out, m.Text())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one JSON document")
	return cmd
}
