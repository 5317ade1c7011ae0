package inspect

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text renders the description for people and golden files.
func (m *Module) Text() string {
	var b strings.Builder
	replace := "unknown"
	if m.Replace != nil {
		replace = map[bool]string{false: "no", true: "yes"}[*m.Replace]
	}
	fmt.Fprintf(&b, "module %s\n  tables: %s\n  replace: %s\n", shown(m.Name), m.Tables, replace)
	signature := "none"
	if s := m.Signature; s != nil {
		signature = fmt.Sprintf("%s by %s, key %s", s.Hash, shown(s.Signer), s.Key)
	}
	fmt.Fprintf(&b, "  signature: %s\n", signature)
	for _, p := range m.Patches {
		fmt.Fprintf(&b, "  patch: %s\n", shown(p))
	}
	for _, s := range m.States {
		fmt.Fprintf(&b, "  state %d version %d\n", s.ID, s.Version)
	}
	for i := range m.Objects {
		m.Objects[i].text(&b)
	}
	for i := range m.Relocations {
		m.Relocations[i].text(&b)
	}
	b.WriteString("\nmodinfo\n")
	for _, t := range m.Modinfo {
		value := t.Value
		if value != "" {
			value = shown(value)
		}
		fmt.Fprintf(&b, "  %s=%s\n", shown(t.Key), value)
	}
	b.WriteString("\nproblems\n")
	for _, p := range m.Problems {
		fmt.Fprintf(&b, "  %s\n", p)
	}
	if len(m.Problems) == 0 {
		b.WriteString("  none\n")
	}
	return b.String()
}

func (o *Object) text(b *strings.Builder) {
	fmt.Fprintf(b, "\nobject %s\n", shown(o.Name))
	for _, c := range o.Callbacks {
		fmt.Fprintf(b, "  callback %s: %s\n", c.Kind, c.Code)
	}
	for _, f := range o.Functions {
		fmt.Fprintf(b, "  function %s,%d: %s\n", shown(f.Name), f.Sympos, f.New)
	}
}

func (s *RelocSection) text(b *strings.Builder) {
	object := shown(s.Object)
	if s.Object == "" {
		object = "unknown"
	}
	fmt.Fprintf(b, "\nrelocations %s\n  object: %s\n  section: %s\n  count: %d\n", shown(s.Section), object, shown(s.Target), s.Count)
	for _, sym := range s.Symbols {
		fmt.Fprintf(b, "  symbol %s.%s,%d:", shown(sym.Object), shown(sym.Name), sym.Sympos)
		for i, t := range sym.Types {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(b, " %s %d", t.Type, t.Count)
		}
		b.WriteByte('\n')
	}
}

// String renders a function as "new_f (.text, 35 bytes)".
func (c Code) String() string {
	switch {
	case c.Symbol == "" && c.Section == "":
		return "nothing"
	case c.Symbol == "":
		return fmt.Sprintf("no function (%s)", shown(c.Section))
	case c.Section == "":
		return fmt.Sprintf("%s (undefined)", shown(c.Symbol))
	}
	return fmt.Sprintf("%s (%s, %d bytes)", shown(c.Symbol), shown(c.Section), c.Size)
}

// shown renders a string from the module in one line: as it is if it is
// harmless, else quoted. Space at an end counts as harm: editors strip it.
func shown(s string) string {
	plain := utf8.ValidString(s) && s != "" && !strings.HasPrefix(s, `"`) && strings.TrimSpace(s) == s
	for _, c := range s {
		plain = plain && unicode.IsPrint(c)
	}
	if plain {
		return s
	}
	return strconv.Quote(s)
}
