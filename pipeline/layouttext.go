package pipeline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/klpc/klpc/typediff"
)

// shown bounds lists in messages; the JSON form has them whole.
const shown = 8

func list(names []string) string {
	if len(names) > shown {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shown], ", "), len(names)-shown)
	}
	return strings.Join(names, ", ")
}

// detail says what changes in a type, and who uses it.
func (l *ReportLayout) detail() string {
	var parts []string
	moved := 0
	for _, c := range l.Changes {
		if c.Kind == typediff.Moved {
			if moved++; moved > 2 {
				continue
			}
		}
		parts = append(parts, c.String())
	}
	if moved > 2 {
		parts = append(parts, fmt.Sprintf("%s more move", count(moved-2, "field")))
	}
	if len(parts) > shown {
		parts = append(parts[:shown], fmt.Sprintf("%s more", count(len(parts)-shown, "change")))
	}
	if l.OldSize != l.NewSize && !strings.HasPrefix(l.Type, "enum") {
		parts = append(parts, fmt.Sprintf("its size changes from %d to %d bytes", l.OldSize, l.NewSize))
	}
	if len(l.Within) > 0 {
		parts = append(parts, "it is part of "+list(l.Within))
	}
	if len(l.Variables) > 0 {
		parts = append(parts, "it is in the "+plural(len(l.Variables), "variable")+" "+list(l.Variables))
	}
	if len(l.Functions) > 0 {
		parts = append(parts, "used by "+list(l.Functions))
	}
	return strings.Join(parts, "; ")
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// String says what happened to one field or value, with its source line.
func (c FieldChange) String() string {
	s := c.event()
	if c.Text != "" {
		s += fmt.Sprintf(": \"%s\" (line %d)", c.Text, c.Line)
	}
	return s
}

func (c FieldChange) event() string {
	switch c.Kind {
	case typediff.Added:
		s := fmt.Sprintf("field %s is added at %s", c.Field, c.New)
		switch {
		case c.FitsInPadding:
			return s + ", where it fits in padding " + c.gap() + ": existing objects hold there whatever the padding holds (0 if they were allocated zeroed)"
		case c.SharesWith != "":
			return s + ", in the memory of " + c.SharesWith
		}
		return s
	case typediff.Removed:
		return fmt.Sprintf("field %s at %s is removed", c.Field, c.Old)
	case typediff.Moved:
		return fmt.Sprintf("field %s moves from %s to %s", c.Field, c.Old, c.New)
	case typediff.FieldSize:
		return fmt.Sprintf("field %s has another size: %s, was %s", c.Field, c.To, c.From)
	case typediff.Retyped:
		return fmt.Sprintf("field %s has another type: %s, was %s", c.Field, c.To, c.From)
	case typediff.SameBits:
		return fmt.Sprintf("field %s has another type with the same bits: %s, was %s", c.Field, c.To, c.From)
	case typediff.Prototype:
		return fmt.Sprintf("callback %s has another prototype, which existing implementers do not have: %s, was %s", c.Field, c.To, c.From)
	case typediff.Renamed:
		return fmt.Sprintf("%s is renamed to %s: has its meaning changed?", c.From, c.To)
	case typediff.ValueChange:
		return fmt.Sprintf("the value of %s changes from %d to %d", c.Field, *c.OldValue, *c.NewValue)
	case typediff.CountChange:
		return fmt.Sprintf("%s, which counts the others, changes from %d to %d: what it has sized keeps its size", c.Field, *c.OldValue, *c.NewValue)
	case typediff.ValueAdded:
		return fmt.Sprintf("value %s = %d is added: unchanged code does not know it", c.Field, *c.NewValue)
	case typediff.ValueRemoved:
		return fmt.Sprintf("value %s = %d is removed", c.Field, *c.OldValue)
	case BitChanged:
		return fmt.Sprintf("the bit %s changes from %#x to %#x; it is used with the field %s", c.From, *c.OldValue, *c.NewValue, c.Field)
	}
	return "size or alignment changes"
}

func (c FieldChange) gap() string {
	switch {
	case c.After == "" && c.Before == "":
		return "of the type"
	case c.After == "":
		return "before " + c.Before
	case c.Before == "":
		return "after " + c.After + " at the end"
	}
	return "between " + c.After + " and " + c.Before
}

// String says where a field lies.
func (p *FieldPlace) String() string {
	switch {
	case p == nil:
		return "byte 0"
	case p.Bits > 0:
		return fmt.Sprintf("byte %d, bit %d (%s)", p.Offset, p.Bit, count(int(p.Bits), "bit"))
	}
	return fmt.Sprintf("byte %d (%s)", p.Offset, count(int(p.Size), "byte"))
}

// hint says what the author can do.
func (l *ReportLayout) hint() string {
	has := func(kinds ...typediff.Kind) bool {
		return slices.ContainsFunc(l.Changes, func(c FieldChange) bool { return slices.Contains(kinds, c.Kind) })
	}
	instead := "keep the layout, and put what is new into a shadow variable (klp_shadow_alloc, klp_shadow_get)"
	switch {
	case has(typediff.ValueChange, BitChanged):
		instead = "keep the old values, and give what is new a value that was not used"
	case has(typediff.Prototype):
		instead = "keep the prototype; pass what is new through a shadow variable (klp_shadow_alloc, klp_shadow_get)"
	}
	name := l.Type
	if strings.Contains(name, " ") {
		name = "'" + name + "'"
	}
	return fmt.Sprintf("%s; or if you have checked that existing objects are no matter, build with --allow-layout-change %s", instead, name)
}
