package vm

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// File is one entry of an initramfs.
type File struct {
	Path string // without a leading slash, as in "bin/busybox"
	Mode uint32 // type and permission bits as in stat(2): ModeRegular | 0o755
	Data []byte // contents of a regular file, target of a symbolic link
	// DevMajor and DevMinor say which device a ModeChar entry is.
	DevMajor, DevMinor uint32
}

// File types of File.Mode, from inode(7).
const (
	ModeRegular = 0o100000
	ModeDir     = 0o040000
	ModeSymlink = 0o120000
	ModeChar    = 0o020000
	modeType    = 0o170000
)

// Values of the "newc" format, Documentation/driver-api/early-userspace/buffer-format.rst.
const (
	newcMagic   = "070701"
	newcTrailer = "TRAILER!!!"
	newcAlign   = 4       // bytes; names and contents are padded to it
	newcMaxSize = 1 << 32 // bytes; sizes have eight hexadecimal digits
)

// Archive encodes files as a cpio archive in the format that the kernel unpacks
// as its initramfs. Folders that files lie in are added. The same files give the
// same bytes, in whatever order they come: entries are sorted by path, belong to
// root and bear no time.
func Archive(files []File) ([]byte, error) {
	all, err := withFolders(files)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for i, f := range all {
		writeEntry(&out, uint32(i+1), f)
	}
	writeEntry(&out, 0, File{Path: newcTrailer})
	return out.Bytes(), nil
}

// withFolders returns the files and each folder above them, sorted by path, so
// that a folder comes before what lies in it.
func withFolders(files []File) ([]File, error) {
	byPath := make(map[string]File, len(files))
	var errs []error
	for _, f := range files {
		if f.Path != path.Clean(f.Path) || path.IsAbs(f.Path) || f.Path == "." ||
			f.Path == ".." || strings.HasPrefix(f.Path, "../") || strings.ContainsRune(f.Path, 0) {
			errs = append(errs, fmt.Errorf("initramfs: %q is not a clean relative path", f.Path))
			continue
		}
		if uint64(len(f.Data)) >= newcMaxSize {
			errs = append(errs, fmt.Errorf("initramfs: %s: %d bytes are too many for a cpio entry", f.Path, len(f.Data)))
		}
		if _, twice := byPath[f.Path]; twice {
			errs = append(errs, fmt.Errorf("initramfs: %s: given twice", f.Path))
		}
		byPath[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "." && dir != "/" && dir != ".."; dir = path.Dir(dir) {
			have, ok := byPath[dir]
			if ok && have.Mode&modeType != ModeDir {
				errs = append(errs, fmt.Errorf("initramfs: %s: lies in %s, which is not a folder", f.Path, dir))
			}
			if !ok {
				byPath[dir] = File{Path: dir, Mode: ModeDir | 0o755}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	all := make([]File, 0, len(byPath))
	for _, f := range byPath {
		all = append(all, f)
	}
	slices.SortFunc(all, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	return all, nil
}

func writeEntry(out *bytes.Buffer, inode uint32, f File) {
	links := 1
	if f.Mode&modeType == ModeDir {
		links = 2
	}
	fmt.Fprintf(out, "%s%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", newcMagic,
		inode, f.Mode,
		0, 0, // owner and group: root
		links,
		0, // modification time
		len(f.Data),
		0, 0, // device that the file lies on
		f.DevMajor, f.DevMinor,
		len(f.Path)+1, // with its terminating NUL
		0)             // checksum: not used by this variant
	out.WriteString(f.Path)
	out.WriteByte(0)
	pad(out)
	out.Write(f.Data)
	pad(out)
}

// pad fills up to the alignment, counted from the start of the archive.
func pad(out *bytes.Buffer) {
	for out.Len()%newcAlign != 0 {
		out.WriteByte(0)
	}
}
