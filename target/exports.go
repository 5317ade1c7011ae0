package target

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Export is one line of Module.symvers: a symbol that modules may use.
type Export struct {
	Name   string
	CRC    uint32 // 0 throughout if CONFIG_MODVERSIONS is off
	Module string // "vmlinux", or the exporting module's path without suffix, such as "net/core/foo"
	GPL    bool
	// Namespace is what a user must import, empty for none. Since Linux 6.16
	// "module:a,b" restricts the symbol to these modules.
	Namespace string
}

// Exports is Module.symvers. It is immutable.
type Exports struct {
	list   []Export
	byName map[string]int
}

// Lookup finds an export by its name.
func (e *Exports) Lookup(name string) (Export, bool) {
	i, ok := e.byName[name]
	if !ok {
		return Export{}, false
	}
	return e.list[i], true
}

// Len returns the number of exports.
func (e *Exports) Len() int { return len(e.list) }

// At returns export i, 0-based, in the order of the file.
func (e *Exports) At(i int) Export { return e.list[i] }

// ReadSymvers reads a Module.symvers: five fields a line, separated by tabs.
// Source: Documentation/kbuild/modules.rst, "Symbols and the Module.symvers".
func ReadSymvers(r io.Reader) (*Exports, error) {
	e := &Exports{byName: map[string]int{}}
	scanner := bufio.NewScanner(r)
	n := 0
	for scanner.Scan() {
		n++
		x, err := parseExport(scanner.Text())
		if err != nil {
			return nil, fmt.Errorf("read Module.symvers: line %d: %w", n, err)
		}
		if i, ok := e.byName[x.Name]; ok {
			return nil, fmt.Errorf("read Module.symvers: line %d: %s is already exported by %s", n, x.Name, e.list[i].Module)
		}
		e.byName[x.Name] = len(e.list)
		e.list = append(e.list, x)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read Module.symvers: line %d: %w", n+1, err)
	}
	return e, nil
}

// parseExport takes one line.
func parseExport(text string) (Export, error) {
	fields := strings.Split(text, "\t")
	if len(fields) != 5 {
		return Export{}, fmt.Errorf("%s instead of 5: %q", plural(len(fields), "field"), clip(text))
	}
	crc, hex := strings.CutPrefix(fields[0], "0x")
	value, err := strconv.ParseUint(crc, 16, 32)
	if err != nil || !hex {
		return Export{}, fmt.Errorf("not a checksum: %q", clip(fields[0]))
	}
	if !validName([]byte(fields[1])) {
		return Export{}, fmt.Errorf("not a symbol name: %q", clip(fields[1]))
	}
	if fields[2] == "" {
		return Export{}, fmt.Errorf("%s: no module", clip(fields[1]))
	}
	x := Export{Name: fields[1], CRC: uint32(value), Module: fields[2], Namespace: fields[4]}
	switch fields[3] {
	case "EXPORT_SYMBOL":
	case "EXPORT_SYMBOL_GPL":
		x.GPL = true
	default:
		return Export{}, fmt.Errorf("%s: unknown kind of export %q", clip(fields[1]), clip(fields[3]))
	}
	return x, nil
}
