package survey

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"
)

//go:embed atlas.html.tmpl
var pageText string

// renderHTML makes the page of an atlas: one file that needs no other.
func renderHTML(a *Atlas) ([]byte, error) {
	t, err := template.New(atlasHTML).Funcs(template.FuncMap{
		"verdicts": Verdicts,
		"words":    words,
		"meaning":  meaning,
		"percent":  percent,
		"seconds":  func(s float64) string { return fmt.Sprintf("%.1f", s) },
		"size":     size,
		"join":     strings.Join,
		"text":     (*Result).searchText,
		"title":    (*Result).title,
		"rank":     func(v Verdict) int { return rank(v) },
		"count":    count,
		"patched":  (*Result).patched,
	}).Parse(pageText)
	if err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, a); err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	return b.Bytes(), nil
}

// words is a verdict in words.
func words(v Verdict) string { return strings.ReplaceAll(string(v), "-", " ") }

// meaning explains a verdict in a sentence.
func meaning(v Verdict) string {
	return map[Verdict]string{
		Tested:         "a module was built, loaded on the booted kernel, and removed, without a warning",
		Built:          "a module was built",
		TestFailed:     "a module was built, but the booted kernel did not take it well",
		Unpatchable:    "this change cannot be livepatched as it is; the problems say what to do",
		NoEffect:       "the patch changes no function of this kernel",
		DoesNotApply:   "the patch does not apply to the sources of this kernel",
		DoesNotCompile: "the patched sources do not compile; often another patch is needed first",
		InternalError:  "klpc or the machine failed; this says nothing of the patch",
	}[v]
}

func rank(v Verdict) int {
	for i, known := range Verdicts() {
		if v == known {
			return i
		}
	}
	return len(Verdicts())
}

func percent(n, of int) string {
	if of == 0 {
		return "–"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(n)/float64(of))
}

// size renders bytes for people.
func size(n int) string {
	switch {
	case n == 0:
		return ""
	case n < 1024:
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.0f KiB", float64(n)/1024)
}

// title is one line about a patch.
func (r *Result) title() string {
	if len(r.Titles) == 0 {
		return ""
	}
	if n := len(r.Titles) - 1; n > 0 {
		return fmt.Sprintf("%s (and %d more)", r.Titles[0], n)
	}
	return r.Titles[0]
}

// patched counts the functions that the running kernel has.
func (r *Result) patched() int {
	n := 0
	for _, f := range r.Functions {
		if f.Change != "new" {
			n++
		}
	}
	return n
}

// searchText is what the page's filter looks at.
func (r *Result) searchText() string {
	all := append([]string{r.Patch, string(r.Verdict), r.Error}, r.CVEs...)
	all = append(append(all, r.Titles...), r.Files...)
	for _, f := range r.Functions {
		all = append(all, f.Object, f.Name)
	}
	for _, p := range r.Problems {
		all = append(all, string(p.Kind), p.Where)
	}
	return strings.ToLower(strings.Join(all, " "))
}
