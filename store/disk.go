package store

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// disk is the file system below the store's root. Each method is one operation
// that a power cut may come before or after; what was written is safe once Sync
// has returned, and names once SyncDir of their folder has. That is why
// renameio, which does not sync folders, is not enough here.
type disk interface {
	ReadFile(name string) ([]byte, error)
	// Names lists a folder, sorted.
	Names(dir string) ([]string, error)
	Mkdir(dir string) error // no error if it is there
	// Create makes an empty file, or empties the one that is there.
	Create(name string) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	SyncDir(dir string) error
}

type file interface {
	io.Writer
	Sync() error
	Close() error
}

// Permissions: livepatches tell what is not yet fixed elsewhere, but sysfs shows
// the same to everybody; only root may change them.
const (
	dirMode  = 0o755
	fileMode = 0o644
)

// osDisk is a folder of the real file system.
type osDisk string

func (d osDisk) path(name string) string { return filepath.Join(string(d), filepath.FromSlash(name)) }

func (d osDisk) ReadFile(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d osDisk) Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(d.path(dir))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func (d osDisk) Mkdir(dir string) error {
	if err := makeRoot(string(d)); err != nil {
		return err
	}
	err := os.Mkdir(d.path(dir), dirMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

func (d osDisk) Create(name string) (file, error) {
	return os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
}

func (d osDisk) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d osDisk) Remove(name string) error { return os.Remove(d.path(name)) }

func (d osDisk) SyncDir(dir string) error { return syncDir(d.path(dir)) }

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

// makeRoot makes the store's folder and those above it, durably.
func makeRoot(root string) error {
	if _, err := os.Stat(root); err == nil {
		return nil
	}
	parent := filepath.Dir(root)
	if parent != root {
		if err := makeRoot(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(root, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// replaceFile makes a file hold data, at once or not at all. The temporary name
// is always the same: the store is locked, and a left one is used again.
func replaceFile(d disk, name string, data []byte) error {
	dir, temp := path.Dir(name), name+tempSuffix
	f, err := d.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, d.Remove(temp))
	}
	if err := d.Rename(temp, name); err != nil {
		return errors.Join(err, d.Remove(temp))
	}
	return d.SyncDir(dir)
}
