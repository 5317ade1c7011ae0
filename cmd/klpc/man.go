package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// epochVariable is a time that takes the place of now, so that what is made twice
// is the same: https://reproducible-builds.org/specs/source-date-epoch/.
const epochVariable = "SOURCE_DATE_EPOCH"

// newMan makes the manual pages, for packages.
func newMan(*app) *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages",
		Long:    `man writes a manual page for each command to DIR: klpc.1, klpc-build.1 and so on.`,
		Example: "  klpc man /usr/local/share/man/man1",
		Args:    exactly(1, "one DIR"),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			date, err := sourceDate()
			if err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			return doc.GenManTree(root, &doc.GenManHeader{
				Title: "KLPC", Section: "1", Date: &date, Source: "klpc " + version(), Manual: "klpc",
			}, args[0])
		},
	}
}

// sourceDate is the time that the pages bear.
func sourceDate() (time.Time, error) {
	text := os.Getenv(epochVariable)
	if text == "" {
		return time.Now().UTC(), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", epochVariable, err)
	}
	return time.Unix(n, 0).UTC(), nil
}
