package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/livepatch"
	"github.com/klpc/klpc/store"
)

func newList(a *app) *cobra.Command {
	var asJSON bool
	var dir string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the livepatches of the running kernel",
		Long:    `list is the short form of klpc status: a line for each livepatch that is loaded, and for each that is installed.`,
		Example: "  klpc list",
		Args:    exactly(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			s, err := readStatus(dir, "")
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(a.out, s)
			}
			_, err = fmt.Fprint(a.out, s.table())
			return err
		},
	}
	storeFlag(cmd, &dir)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the result as one JSON document")
	return cmd
}

// status is what klpc status and klpc list show.
type status struct {
	*livepatch.State
	Installed []installed `json:"installed"`
	// PreviousBoot is what was recorded of the boot before of the running kernel.
	PreviousBoot *store.Boot `json:"previous_boot"`
}
