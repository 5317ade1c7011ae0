package livepatch

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klpc/klpc/inspect"
	"github.com/klpc/klpc/target"
)

// Module is the file of a livepatch module, read and understood. Its file stays
// open until Close, so that what was checked is what is loaded.
type Module struct {
	*inspect.Module
	Path string
	Data []byte // as in the file: perhaps compressed, perhaps signed

	BuildID string // GNU build ID, hexadecimal; "" if it has none
	Signed  bool   // a signature is appended; by whom is not looked at

	file       *os.File
	compressed bool
}

// signatureMark ends a signed module: MODULE_SIG_STRING, include/linux/module_signature.h.
const signatureMark = "~Module signature appended~\n"

// maxModule bounds a module's file, in bytes.
const maxModule = 1 << 30

// Open reads a livepatch module, compressed or not. Close closes it.
func Open(path string) (*Module, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	m, err := read(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m.Path, m.file = path, f
	return m, nil
}

// Close closes the file.
func (m *Module) Close() error {
	if m.file == nil {
		return nil // it came from Parse
	}
	return m.file.Close()
}

func read(f *os.File) (*Module, error) {
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("not a regular file, but %v", info.Mode())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxModule))
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// Parse understands the bytes of a livepatch module. It has no file and cannot
// be loaded.
func Parse(data []byte) (*Module, error) {
	plain, err := target.Decompress(data)
	if err != nil {
		return nil, err
	}
	if err := checkMachine(plain); err != nil {
		return nil, err
	}
	described, err := inspect.Read(plain)
	if err != nil {
		return nil, err
	}
	m := &Module{
		Module: described, Data: data, compressed: !bytes.Equal(plain, data),
		Signed: bytes.HasSuffix(plain, []byte(signatureMark)),
	}
	file, err := target.ReadModule(plain)
	if err != nil {
		return nil, err
	}
	if s := file.Object.Section(".note.gnu.build-id"); s != nil {
		m.BuildID = buildID(s.Data)
	}
	return m, nil
}

// checkMachine tells a file for another machine from garbage.
func checkMachine(data []byte) error {
	const machineOffset, machineEnd = 18, 20 // e_machine, two bytes
	if len(data) < machineEnd || string(data[:4]) != elf.ELFMAG {
		return nil // the reader says what it is
	}
	machine := elf.Machine(uint16(data[machineOffset]) | uint16(data[machineOffset+1])<<8)
	if elf.Data(data[elf.EI_DATA]) == elf.ELFDATA2MSB {
		machine = elf.Machine(uint16(data[machineOffset+1]) | uint16(data[machineOffset])<<8)
	}
	if machine != elf.EM_X86_64 {
		return fmt.Errorf("made for another machine: %v, not EM_X86_64", machine)
	}
	return nil
}

// Tag returns the first value of a key of .modinfo, or "".
func (m *Module) Tag(key string) string {
	for _, t := range m.Modinfo {
		if t.Key == key {
			return t.Value
		}
	}
	return ""
}

// Release is the kernel that the module was built for, as in uname -r.
func (m *Module) Release() string {
	release, _, _ := strings.Cut(m.Tag("vermagic"), " ")
	return release
}

// Depends are the modules that must be loaded before it.
func (m *Module) Depends() []string {
	return strings.FieldsFunc(m.Tag("depends"), func(r rune) bool { return r == ',' })
}

// same tells whether a loaded module was loaded from this file. known is false
// if nothing tells.
func (m *Module) same(l Loaded) (same, known bool) {
	switch src := m.Tag("srcversion"); {
	case m.BuildID != "" && l.BuildID != "":
		return m.BuildID == l.BuildID, true
	case src != "" && l.Srcversion != "":
		return src == l.Srcversion, true
	}
	return false, false
}
