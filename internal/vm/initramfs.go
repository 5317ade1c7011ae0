package vm

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/klpc/klpc/internal/run"
)

// busyboxVariable names the environment variable that points to another busybox.
const busyboxVariable = "KLPC_BUSYBOX"

// FindBusybox returns the path of a statically linked busybox: the one that
// KLPC_BUSYBOX names, or else the distribution's.
func FindBusybox() (string, error) {
	if p := os.Getenv(busyboxVariable); p != "" {
		if err := checkStatic(p); err != nil {
			return "", fmt.Errorf("%s: %w", busyboxVariable, err)
		}
		return p, nil
	}
	return findStatic("/bin/busybox", "/usr/bin/busybox")
}

func findStatic(candidates ...string) (string, error) {
	var errs []error
	for _, p := range candidates {
		err := checkStatic(p)
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("no statically linked busybox (install the package busybox-static, or set %s): %w",
		busyboxVariable, errors.Join(errs...))
}

// checkStatic reports why a program cannot run in a guest that holds nothing but
// that program: a dynamically linked one asks for its loader by PT_INTERP.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("%s: made for %v, not for x86-64", path, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s: dynamically linked", path)
		}
	}
	return nil
}

// Initramfs makes an initramfs whose /init is the given shell script. It holds
// busybox with all its applets in /bin, empty folders to mount on, the devices
// that are needed before /dev is mounted, and the extra files. There is no
// /sbin/modprobe: the kernel's own requests for modules fail at once.
func Initramfs(ctx context.Context, busybox, init string, extra []File) ([]byte, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, err
	}
	list, err := run.Do(ctx, run.Cmd{Args: []string{busybox, "--list"}})
	if err != nil {
		return nil, fmt.Errorf("list the applets of %s: %w", busybox, err)
	}
	return Archive(append(baseFiles(program, strings.Fields(string(list.Stdout)), init), extra...))
}

func baseFiles(program []byte, applets []string, init string) []File {
	files := []File{
		{Path: "init", Mode: ModeRegular | 0o755, Data: []byte(init)},
		{Path: "bin/busybox", Mode: ModeRegular | 0o755, Data: program},
		// Numbers from Documentation/admin-guide/devices.txt.
		{Path: "dev/console", Mode: ModeChar | 0o600, DevMajor: 5, DevMinor: 1},
		{Path: "dev/kmsg", Mode: ModeChar | 0o600, DevMajor: 1, DevMinor: 11},
		{Path: "dev/null", Mode: ModeChar | 0o666, DevMajor: 1, DevMinor: 3},
		{Path: "dev/ttyS1", Mode: ModeChar | 0o600, DevMajor: 4, DevMinor: 65},
	}
	for _, dir := range []string{"proc", "run", "sys", "tmp"} {
		files = append(files, File{Path: dir, Mode: ModeDir | 0o755})
	}
	for _, a := range applets {
		// busybox lists itself, and some builds list paths.
		if name := a[strings.LastIndexByte(a, '/')+1:]; name != "busybox" {
			files = append(files, File{Path: "bin/" + name, Mode: ModeSymlink | 0o777, Data: []byte("busybox")})
		}
	}
	return files
}
