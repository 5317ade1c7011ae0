package survey

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// How many lines the tables of reasons and of slow patches have at most.
const topLines = 10

// Print writes the tables for the terminal.
func (a *Atlas) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "VERDICT\tPATCHES\tSHARE\n")
	for _, v := range Verdicts() {
		if n := a.Summary.Verdicts[v]; n > 0 {
			fmt.Fprintf(t, "%s\t%7d\t%7s\n", v, n, percent(n, a.Summary.Patches))
		}
	}
	fmt.Fprintf(t, "total\t%7d\t%7s\n", a.Summary.Patches, percent(a.Summary.Patches, a.Summary.Patches))
	if len(a.Summary.Reasons) > 0 {
		fmt.Fprintf(t, "\nREASON\tPATCHES\tSHARE\n")
		for _, r := range a.Summary.Reasons[:min(topLines, len(a.Summary.Reasons))] {
			fmt.Fprintf(t, "%s\t%7d\t%7s\n", r.Reason, r.Patches, percent(r.Patches, a.Summary.Patches))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := a.printSlowest(w); err != nil {
		return err
	}
	if err := a.printFailures(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d of %d that apply, compile, and change code of %s became modules%s: %s\n",
		a.Summary.Converted, a.Summary.Candidates, a.Kernel, map[bool]string{true: " that passed their test"}[a.Tests],
		percent(a.Summary.Converted, a.Summary.Candidates))
	return err
}

func (a *Atlas) printSlowest(w io.Writer) error {
	byTime := slices.Clone(a.Patches)
	slices.SortStableFunc(byTime, func(x, y Result) int { return cmp.Compare(y.Seconds, x.Seconds) })
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "\nSLOWEST\tSECONDS\tVERDICT\n")
	for _, r := range byTime[:min(3, len(byTime))] {
		fmt.Fprintf(t, "%s\t%7.1f\t%s\n", r.Patch, r.Seconds, r.Verdict)
	}
	return t.Flush()
}

// printFailures names the patches that somebody has to look at.
func (a *Atlas) printFailures(w io.Writer) error {
	for _, r := range a.Patches {
		text := r.Error
		switch {
		case r.Verdict == TestFailed && len(r.Test.Problems) > 0:
			text = r.Test.Problems[0]
		case r.Verdict != InternalError:
			continue
		}
		first, _, _ := strings.Cut(text, "\n")
		if _, err := fmt.Fprintf(w, "\n%s: %s: %s\n", r.Patch, r.Verdict, first); err != nil {
			return err
		}
	}
	return nil
}
