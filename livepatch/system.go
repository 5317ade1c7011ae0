package livepatch

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/klpc/klpc/target"
)

// System is what klpc does to a running kernel. Paths are below the root and
// slash-separated, without a slash in front, as in FS.
type System interface {
	// FS is the root of the file system, with /proc and /sys.
	FS() fs.FS
	// Insert loads a module: finit_module(2).
	Insert(m *Module) error
	// Remove removes a module that nothing uses: delete_module(2).
	Remove(name string) error
	// Write writes to a file of sysfs.
	Write(path, text string) error
	// Log begins to listen to the kernel log. The function returns the lines
	// that were logged since, without their times, and ends it; none if the log
	// cannot be read.
	Log() func() []string
}

// Linux is the kernel that runs here.
type Linux struct{}

var _ System = Linux{}

// FS is the root of the file system.
func (Linux) FS() fs.FS { return os.DirFS("/") }

// Insert loads the file that was read, even if another one has taken its name
// since. A compressed file is loaded from memory: not all kernels decompress.
func (Linux) Insert(m *Module) error {
	if !m.compressed {
		return unix.FinitModule(int(m.file.Fd()), "", 0)
	}
	data, err := target.Decompress(m.Data)
	if err != nil {
		return err
	}
	return unix.InitModule(data, "")
}

// Remove removes a module. O_NONBLOCK is how rmmod calls it: without it, a
// module in use could not be used any more (delete_module(2)).
func (Linux) Remove(name string) error { return unix.DeleteModule(name, unix.O_NONBLOCK) }

// Write writes to an existing file.
func (Linux) Write(path, text string) error {
	f, err := os.OpenFile("/"+path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// kmsgRecord is more than a record of /dev/kmsg can take, in bytes
// (PRINTK_MESSAGE_MAX, kernel/printk/internal.h).
const kmsgRecord = 8192

// Log reads /dev/kmsg, of which each read(2) gives one record:
// "priority,sequence,time,flags;text" (Documentation/ABI/testing/dev-kmsg).
func (Linux) Log() func() []string {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Seek(fd, 0, unix.SEEK_END)
	}
	if err != nil {
		return func() []string { return nil }
	}
	return func() []string {
		defer unix.Close(fd)
		var lines []string
		buf := make([]byte, kmsgRecord)
		for {
			n, err := unix.Read(fd, buf)
			switch {
			case err == unix.EINTR, err == unix.EPIPE: // records were overwritten
				continue
			case err != nil || n == 0:
				return lines
			}
			if _, text, ok := strings.Cut(string(buf[:n]), ";"); ok {
				text, _, _ = strings.Cut(text, "\n") // tags follow
				lines = append(lines, text)
			}
		}
	}
}
